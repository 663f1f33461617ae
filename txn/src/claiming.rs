//! What one transaction claims, and what others' claims mean to its writes.
//!
//! ```text
//!  scan   copy rows ─► writer_within? wait ─► claim ─► validate ─► give them out
//!  write  lock the key ─► latch ─► claimed? unlatch, wait, again ─► update ─► stop_waiting
//! ```
//!
//! The rules stand in `lock/claims.rs`. Claims are of no concern to rollbacks to savepoints (locks stay, too), to
//! nested actions (their own transaction's claims are in nobody's way) and to votes: a prepared
//! transaction reads no more, so that nobody can come between its reads. Its claims stay as long as the process.

use std::ops::Bound;

use crate::lock::Write;
use crate::txn::Kind;
use crate::{LockName, Mutations, Txn};

impl Txn {
    /// Claims what lies within these bounds of the tree with root page `tree`: nobody else inserts, changes or
    /// deletes a key there until this transaction ends. Valid for what is validated *after* this on pages
    /// of that tree, and was changed by nobody active. `false` when there is no room for further claims.
    /// Lock the tree for reading first.
    ///
    /// # Panics
    /// In a rollback, which reads nothing new (rule L3).
    pub fn claim(&mut self, tree: u64, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
        if self.kind != Kind::User {
            return true;
        }
        assert!(!self.compensating(), "L3: {} claims a part of p{tree} in rollback", self.id);
        if self.manager.mutations().weaken_reads() {
            return false;
        }
        let id = self.id;
        let (manager, kit) = self.parts();
        kit.claimed = true;
        manager.locks.claim(&kit.claims, id, (tree, bounds))
    }

    /// What to wait for before these bounds are claimed: the lock of a writer who waits for claims in there.
    #[inline]
    pub fn writer_within(
        &self,
        tree: u64,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Option<LockName> {
        self.manager.locks.writer_within(&self.kit().claims, self.id, (tree, bounds))
    }

    /// What a write of `key`, which is locked exclusively by the name `name` says and whose leaf is latched,
    /// must wait for because others claim the key. After such a wait, and the write or its failure, call
    /// [`Txn::stop_waiting`].
    #[inline]
    pub fn claimed(
        &mut self,
        tree: u64,
        key: &[u8],
        name: impl FnOnce() -> LockName,
    ) -> Option<LockName> {
        if !self.manager.locks.are_claims_in(tree) {
            return None;
        }
        self.claimed_by(&Write { txn: self.id, tree, key, name: name() })
    }

    fn claimed_by(&mut self, write: &Write<'_>) -> Option<LockName> {
        if self.manager.mutations().writers_overlook_claims {
            return None;
        }
        let found = self.manager.locks.claimed(&self.kit().claims, write);
        self.kit_mut().waits |= found.is_some();
        found
    }

    /// The rules that a test has switched off.
    #[doc(hidden)]
    pub fn mutations(&self) -> Mutations {
        self.manager.mutations()
    }

    /// The write in `tree` that may have waited for claims is made, or has failed.
    #[inline]
    pub fn stop_waiting(&mut self, tree: u64) {
        if std::mem::take(&mut self.kit_mut().waits) {
            self.manager.locks.write_is_done(self.id, tree);
        }
    }
}
