//! Transactions: all or nothing, one by one, for good.
//!
//! ```text
//!  let mut txn = txns.begin(options)?;
//!  txn.lock(name, mode)?;                     never under a latch
//!  txn.admit(bytes, pages)?;                  log space, before the first latch
//!  let mut page = pool.write(id)?;            latch
//!  txn.update(&mut [edit], undo);             one record, applied: cannot fail
//!  drop(page);
//!  txn.commit(Durability::Sync)?;             or drop it: abort
//! ```
//!
//! | part | file |
//! | --- | --- |
//! | the shared side, begin | `manager.rs`, `lane.rs` |
//! | one transaction, `update` | `txn.rs` |
//! | commit, early lock release | `commit.rs` |
//! | savepoints, abort | `rollback.rs` |
//! | nested top actions | `nested.rs` |
//! | two-phase commit: prepare, decide, adopt | `prepare.rs`, `vote.rs` |
//! | `undo_one`, logical undo | `undo.rs` |
//! | transaction table, `Commit_LSN` | `table.rs` |
//! | log space for undo | `space.rs` |
//! | what a transaction asks of the locks | `locking.rs`, `claiming.rs` |
//! | the lock manager | `lock.rs`, `lock/` |
//!
//! This crate knows pages only as things operations are applied to, and access methods only as
//! [`LogicalUndo`]. Left out, with room kept for them: multi-version reads (the table and `page_prev`
//! fit), choosing the cheapest deadlock victim.

mod claiming;
mod commit;
mod lane;
mod lock;
mod locking;
mod manager;
mod nested;
mod options;
mod prepare;
mod rollback;
mod space;
mod table;
mod txn;
mod undo;
mod vote;

pub use argali_wal::{Owner, Undo};

pub use lock::{Blocked, Gap, KeyMode, LockMode, LockName, LockStats, Term};
#[doc(hidden)]
pub use lock::{
    ClaimList, Granted, LockOptions, LockTable, Request, Waiter, WeakList, WeakMutations, Write,
};
pub use manager::{TxnCore, TxnManager};
#[doc(hidden)]
pub use options::Mutations;
pub use options::{Durability, Isolation, TxnOptions};
pub use prepare::Prepared;
pub use rollback::Savepoint;
pub use table::CommitLsn;
pub use txn::{Edit, Txn, Visit};
pub use undo::{LogicalUndo, UndoHandlers, Undone};
pub use vote::{GID_BYTES_MAX, Vote};
