//! What trees and heaps lock above their rows, and how they lock one row.
//!
//! ```text
//!  database   IS or IX, once per transaction
//!  tree, heap IS or IX, once per transaction; S or X instead of all that follows below
//!  row        S or X
//! ```

use argali_base::{PageId, Result};
use argali_txn::{Gap, KeyMode, LockMode, LockName, Txn};

/// S on a key or row.
pub(crate) const KEY_S: LockMode = LockMode::Key { key: KeyMode::S, gap: Gap::None };
/// X on a key or row.
pub(crate) const KEY_X: LockMode = LockMode::Key { key: KeyMode::X, gap: Gap::None };

/// Takes the intention locks on the database and on the tree or heap with root page `root`, once per
/// transaction; if it has locked many rows there, it tries to lock the whole thing for them (escalation).
/// Returns what is now held there; a system transaction counts as holding it all. Nothing may be latched.
pub(crate) fn intend(txn: &mut Txn, root: PageId, mode: LockMode) -> Result<LockMode> {
    if !txn.takes_locks() {
        return Ok(LockMode::X);
    }
    if let Some(held) = txn.intention(root.get(), mode) {
        return Ok(held);
    }
    let name = LockName::Tree(root.get());
    if !txn.holds(name).is_some_and(|held| held.covers(mode)) {
        txn.lock(LockName::Database, mode)?;
        txn.lock(name, mode)?;
    }
    txn.escalate(root.get());
    Ok(txn.holds(name).unwrap_or(mode))
}
