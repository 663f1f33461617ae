//! What insert, update and delete have in common: the way to the row.
//!
//! ```text
//!  lock key (X) ─► find leaf ─► admit log space ─► latch leaf ─► change it: one record, one page
//!       ▲              ▲             │ exact: the      │
//!       │              │             │ old value's     ├─ neighbour's gap taken: unlatch, wait ─┐
//!       │              │             │ size is known   ├─ others claim the key: the same ───────┤
//!       │              │             │                 ├─ leaf full: unlatch, make room ────────┤
//!       │              └─────────────┴─ changed since ─┴────────────────────────────────────────┘
//! ```
//!
//! Everything that can fail or wait comes before `Txn::update`; after it nothing can.

use argali_base::{Error, Result};
use argali_buffer_pool::PageWrite;
use argali_txn::{LockMode, LockName, Txn};

use super::descent::{Attempt, Stop, retry};
use super::locks::{GAP_INSERT, KEY_S};
use super::node::{LEAF_HEADER, Stored};
use super::target::Target;
use super::{BTree, Old, heads, undo};
use crate::fault::corrupt;

/// Log bytes of the operations beside the bytes they carry, generously.
const OPS_BYTES: usize = 48;

/// What is to happen to a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// The row shall have this value.
    Put(Stored<'a>),
    /// The row shall have this value unless it exists.
    InsertNew(Stored<'a>),
    /// The row shall not exist.
    Delete,
}

/// What to do about a large value that would be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LargeOld {
    /// Change nothing.
    Stop,
    /// The caller gives its chain up.
    Replace,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    Inserted,
    /// The old value, or its reference, is where the caller wanted it.
    Replaced {
        large: bool,
    },
    /// Nothing, because of [`LargeOld::Stop`]; the key is locked.
    Stopped,
}

/// A change under way: what holds from attempt to attempt.
pub(super) struct Work<'a> {
    pub(super) txn: &'a mut Txn,
    pub(super) key: &'a [u8],
    change: Change<'a>,
    large_old: LargeOld,
    /// What is logged is built here.
    pub(super) scratch: Vec<u8>,
    /// Where the old value goes, if it is wanted.
    old: Option<&'a mut Vec<u8>>,
    /// Whether gaps of neighbours must be asked for, and claims: the tree is not locked as a whole.
    pub(super) gaps: bool,
    /// Log bytes asked for already.
    admitted: usize,
}

impl BTree {
    /// Sets the value of `key`; returns the old one. For trees of small values; [`Rows`](crate::Rows)
    /// takes any.
    ///
    /// # Errors
    /// `TooLarge`, `LogFull`, `Full`; deadlock and lock timeout (retryable); `Corrupt` (also when the old
    /// value is large), `Io`.
    pub fn put(&self, txn: &mut Txn, key: &[u8], value: &[u8]) -> Result<Old> {
        let mut old = Vec::new();
        Ok(self.put_into(txn, key, value, &mut old)?.then_some(old))
    }

    /// As [`BTree::put`], with the old value in a buffer that can be used again: allocates nothing once
    /// the buffer is warm. Whether there was an old value; if not, `old` is empty.
    pub fn put_into(
        &self,
        txn: &mut Txn,
        key: &[u8],
        value: &[u8],
        old: &mut Vec<u8>,
    ) -> Result<bool> {
        self.write_small(txn, key, Change::Put(Stored::small(value)), old)
            .map(|done| matches!(done, Done::Replaced { .. }))
    }

    /// Inserts only if the key is absent; `false` when it is there. Errors as [`BTree::put`].
    pub fn insert_new(&self, txn: &mut Txn, key: &[u8], value: &[u8]) -> Result<bool> {
        self.write_small(txn, key, Change::InsertNew(Stored::small(value)), &mut Vec::new())
            .map(|done| matches!(done, Done::Inserted))
    }

    /// Removes `key`; returns its value. Errors as [`BTree::put`].
    pub fn delete(&self, txn: &mut Txn, key: &[u8]) -> Result<Old> {
        let mut old = Vec::new();
        Ok(self.delete_into(txn, key, &mut old)?.then_some(old))
    }

    /// As [`BTree::delete`], with the old value in a buffer that can be used again.
    pub fn delete_into(&self, txn: &mut Txn, key: &[u8], old: &mut Vec<u8>) -> Result<bool> {
        self.write_small(txn, key, Change::Delete, old)
            .map(|done| matches!(done, Done::Replaced { .. }))
    }

    fn write_small(
        &self,
        txn: &mut Txn,
        key: &[u8],
        change: Change<'_>,
        old: &mut Vec<u8>,
    ) -> Result<Done> {
        old.clear();
        match self.write(txn, key, (change, LargeOld::Stop), Some(old))? {
            Done::Stopped => {
                let what = "holds a large value in a tree of small ones";
                Err(corrupt(self.pool(), self.root(), what))
            }
            done => Ok(done),
        }
    }

    /// Locks `key` and makes the change; the old value, or its reference, goes to `old`.
    pub(crate) fn write(
        &self,
        txn: &mut Txn,
        key: &[u8],
        (change, large_old): (Change<'_>, LargeOld),
        old: Option<&mut Vec<u8>>,
    ) -> Result<Done> {
        let value_len = match change {
            Change::Put(value) | Change::InsertNew(value) => value.bytes.len(),
            Change::Delete => 0,
        };
        let (size, limit) = (key.len() + value_len, self.entry_bytes_max());
        if size > limit {
            return Err(Error::TooLarge { what: "entry (key and value)", size, limit });
        }
        let gaps = self.lock_for_write(txn, key)?;
        let scratch = std::mem::take(txn.scratch());
        let mut work = Work { txn, key, change, large_old, scratch, old, gaps, admitted: 0 };
        let done = retry(|patient| self.attempt(&mut work, patient));
        work.txn.stop_waiting(self.root().get());
        *work.txn.scratch() = work.scratch;
        done
    }

    fn attempt(&self, work: &mut Work<'_>, patient: bool) -> Attempt<Done> {
        let (target, spot) = self.locate(work.txn, work.key, patient)?;
        let old_len = spot.live().map(|cell| cell.value_len);
        let value = match (work.change, old_len) {
            (Change::InsertNew(_), Some(_)) | (Change::Delete, None) => return Ok(Done::Nothing),
            (Change::Delete, Some(_)) => Stored::NOTHING,
            (Change::Put(value) | Change::InsertNew(value), _) => value,
        };
        if work.large_old == LargeOld::Stop && spot.live().is_some_and(|cell| cell.large) {
            return Ok(Done::Stopped);
        }
        let cell = LEAF_HEADER + work.key.len() + value.bytes.len();
        let enters = spot.found.is_none() && spot.changes_heads();
        let heads = if enters { heads::log_bytes(spot.count) } else { 0 };
        let body = undo::body_len(work.key.len(), old_len.unwrap_or(0));
        let payload = OPS_BYTES + cell + heads + body;
        let target = work.admit(target, payload)?;
        match (work.change, spot.found) {
            (Change::Delete, Some(cell)) => self.delete_at(work, target, (spot.slot, cell)),
            (_, Some(cell)) => self.rewrite_at(work, target, (spot.slot, cell), value),
            (_, None) => self.insert_at(work, target, &spot, value),
        }
    }
}

impl Work<'_> {
    /// The old value, for a caller who wants it.
    pub(super) fn give(&mut self, value: Stored<'_>) {
        if let Some(old) = &mut self.old {
            old.clear();
            old.extend_from_slice(value.bytes);
        }
    }

    /// Log space for the record, before the latch; a latched leaf is given up to ask for it.
    fn admit<'p>(&mut self, target: Target<'p>, payload: usize) -> Attempt<Target<'p>> {
        match target {
            Target::Seen(node) => {
                self.txn.admit(payload, 1)?;
                self.admitted = payload;
                Ok(Target::Seen(node))
            }
            Target::Latched(page) if payload <= self.admitted => Ok(Target::Latched(page)),
            Target::Latched(page) => {
                drop(page);
                self.txn.admit(payload, 1)?;
                self.admitted = payload;
                Err(Stop::Again)
            }
        }
    }

    /// Exclusive latch on the leaf, unless others claim the key.
    pub(super) fn latch<'p>(&mut self, tree: &BTree, target: Target<'p>) -> Attempt<PageWrite<'p>> {
        let (page, root) = (target.latch()?, tree.root().get());
        if self.gaps
            && let Some(claims) = self.txn.claimed(root, self.key, || tree.key_name(self.key))
        {
            drop(page);
            return Err(self.wait_for((claims, KEY_S)));
        }
        Ok(page)
    }

    /// Unlatched: waits for what stood in the way under the latch, then begins again.
    pub(super) fn wait_for(&mut self, (name, mode): (LockName, LockMode)) -> Stop {
        // Gaps and claims are only passed through; a lock on the own key is there to stay.
        let waited = if mode == GAP_INSERT || mode == KEY_S {
            self.txn.lock_instant(name, mode)
        } else {
            self.txn.lock(name, mode)
        };
        waited.map_or_else(Stop::Failed, |()| Stop::Again)
    }

    /// Unlatched: makes room in the leaf of the key, then begins again.
    pub(super) fn room_for(&mut self, tree: &BTree, bytes: usize) -> Stop {
        // The structure change brings an admission of its own.
        self.admitted = 0;
        tree.make_room(self.txn, self.key, bytes).map_or_else(Stop::Failed, |()| Stop::Again)
    }
}
