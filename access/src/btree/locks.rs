//! Which locks a tree operation takes.
//!
//! ```text
//!  read key k      S on k                      absent or not: whoever inserts k asks X on it
//!  scan            a claim on the range        a few rows at a time; rows that somebody may be changing
//!                                              S for an instant
//!  write k         X on k, then no claim of others on k
//!  insert k        so, too, and for an instant Insert on the gap below the next key n, if any gap is locked
//!  scan to write   X on k, S on the gap below it, ghosts too; at the end, the gap of the next key
//!
//!  ───┬─────────┬───────────────┬─────────── keys
//!     j         k (to come)     n
//!     └──────── gap of n ───────┘   S there = somebody scanned it and relies on its being empty
//! ```
//!
//! Keys are locked by hash, so a key can be locked before it exists and before its page is found: reads
//! and writes lock first, with nothing latched, and look afterwards. Only the neighbour's gap must be
//! checked while the leaf is latched, with a try-lock; when that fails the latch goes and the wait is
//! done outside (rule: never wait for a lock under a latch).
//!
//! An insert splits a gap in two. If the inserting transaction itself relies on the old gap, it must
//! rely on both halves: its own key gets the gap lock as well. Nothing joins two gaps while anybody
//! relies on one of them: a cell goes only when no lock is on it ([`super::purge`]).
//!
//! Claims are ranges of keys, and know no neighbours ([`argali_txn::Txn::claim`]). The rows of a page on which
//! everything is committed for good are claimed by what was copied at once, at most 16, so a scan may claim
//! up to 15 rows that it never gave out; other rows one by one, and only when nobody has them locked. A
//! scan that has more claims than fit (256 ranges that do not touch) locks keys and gaps.
//!
//! Below serializable, gaps are not locked; read committed gives its read locks back at once, and takes
//! none where `Commit_LSN` shows that everything on the page is committed. System transactions lock
//! nothing.

use std::hash::BuildHasher;

use argali_base::Result;
use argali_txn::{Gap, Isolation, KeyMode, LockMode, LockName, Txn};

use super::BTree;
use crate::intention::intend;
pub(super) use crate::intention::{KEY_S, KEY_X};

/// X on a key, S on the gap below it.
pub(super) const KEY_X_GAP_S: LockMode = LockMode::Key { key: KeyMode::X, gap: Gap::S };
/// Insertion into the gap below a key.
pub(super) const GAP_INSERT: LockMode = LockMode::Key { key: KeyMode::None, gap: Gap::Insert };
/// Removal of a key's cell: nobody may have locked anything there.
pub(super) const REMOVE: LockMode = LockMode::Key { key: KeyMode::X, gap: Gap::X };
/// S on the gap below a key.
pub(super) const GAP_S: LockMode = LockMode::Key { key: KeyMode::None, gap: Gap::S };

/// What a scan locks as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanLocks {
    /// Nothing: the tree is locked, or nobody asks.
    None,
    /// Keys for an instant, unless the page is settled.
    Instant,
    /// Keys of rows; of ghosts for an instant.
    Keys(KeyMode),
    /// Nothing: ranges are claimed; keys for an instant, unless the page is settled.
    Claims,
    /// Keys and gaps.
    KeysAndGaps(KeyMode),
}

impl ScanLocks {
    /// What to lock on a key: `inside` the range, or the first one past it.
    pub(super) fn mode(self, inside: bool) -> Option<LockMode> {
        match (self, inside) {
            (Self::None, _) | (Self::Instant | Self::Claims | Self::Keys(_), false) => None,
            (Self::Instant | Self::Claims, true) => Some(KEY_S),
            (Self::Keys(key), true) => Some(LockMode::Key { key, gap: Gap::None }),
            (Self::KeysAndGaps(key), true) => Some(LockMode::Key { key, gap: Gap::S }),
            (Self::KeysAndGaps(_), false) => Some(GAP_S),
        }
    }

    /// Whether gaps are locked by name.
    pub(super) fn guard_gaps(self) -> bool {
        matches!(self, Self::KeysAndGaps(_))
    }
}

impl BTree {
    /// Lock name of a key.
    pub(super) fn key_name(&self, key: &[u8]) -> LockName {
        let tree = self.root().get();
        LockName::Key { tree, hash: hash(tree, key) }
    }

    /// Lock name of the gap above the last key.
    pub(super) fn end_name(&self) -> LockName {
        LockName::End { tree: self.root().get() }
    }

    /// Takes the intention locks on database and tree. Returns what is now held on the tree.
    pub(super) fn intend(&self, txn: &mut Txn, mode: LockMode) -> Result<LockMode> {
        intend(txn, self.root(), mode)
    }

    /// X on `key`, with the intentions above it. Nothing may be latched. Says whether gaps matter.
    pub(super) fn lock_for_write(&self, txn: &mut Txn, key: &[u8]) -> Result<bool> {
        if self.intend(txn, LockMode::IX)?.covers(LockMode::X) {
            return Ok(false);
        }
        txn.lock(self.key_name(key), KEY_X)?;
        Ok(true)
    }

    /// What a scan of `txn` locks; takes the intentions.
    pub(super) fn scan_locks(&self, txn: &mut Txn) -> Result<ScanLocks> {
        if self.intend(txn, LockMode::IS)?.covers(LockMode::S) {
            return Ok(ScanLocks::None);
        }
        Ok(match txn.isolation() {
            Isolation::Serializable => ScanLocks::Claims,
            Isolation::RepeatableRead => ScanLocks::Keys(KeyMode::S),
            Isolation::ReadCommitted => ScanLocks::Instant,
        })
    }

    /// As [`BTree::scan_locks`], when what is found will be changed: two who scan first and write
    /// afterwards could only deadlock.
    pub(super) fn scan_locks_for_write(&self, txn: &mut Txn) -> Result<ScanLocks> {
        if self.intend(txn, LockMode::IX)?.covers(LockMode::X) {
            return Ok(ScanLocks::None);
        }
        Ok(match txn.isolation() {
            Isolation::Serializable => ScanLocks::KeysAndGaps(KeyMode::X),
            Isolation::RepeatableRead | Isolation::ReadCommitted => ScanLocks::Keys(KeyMode::X),
        })
    }

    /// Under the latch of the leaf that `key` is about to enter: may it split the gap below `next`?
    /// `Err` is what to wait for with nothing latched.
    pub(super) fn enter_gap(
        &self,
        txn: &mut Txn,
        key: &[u8],
        next: LockName,
    ) -> Result<(), (LockName, LockMode)> {
        if !txn.try_lock_instant(next, GAP_INSERT) {
            return Err((next, GAP_INSERT));
        }
        let relies = txn.holds(next).is_some_and(LockMode::relies_on_gap);
        let own = self.key_name(key);
        if relies && !txn.try_lock(own, KEY_X_GAP_S) {
            return Err((own, KEY_X_GAP_S));
        }
        Ok(())
    }
}

/// What names a key. Prepared transactions carry it over a restart in their votes, so it is part of the
/// format: another hash would take the wrong locks again.
fn hash(tree: u64, key: &[u8]) -> u64 {
    foldhash::fast::FixedState::with_seed(tree).hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When this fails, the hash changed and with it the format of votes (`docs/formats.md`).
    #[test]
    fn key_hashes_are_as_pinned() {
        let pinned = [
            (1, &b""[..], 1_874_054_176_421_308_940),
            (7, b"key", 17_570_627_566_185_247_164),
            (7, b"a longer key, beyond sixteen bytes", 2_719_298_510_170_107_482),
        ];
        for (tree, key, expected) in pinned {
            assert_eq!(hash(tree, key), expected, "tree {tree}, key {:?}", key.escape_ascii());
        }
    }
}
