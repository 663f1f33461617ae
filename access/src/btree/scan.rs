//! One step of a scan: the next row within bounds.
//!
//! ```text
//!  leaf A (version 3)            leaf B (version 9)
//!  │ … h │ k │ ─────────────────►│ m (ghost) │ p │ …        from: after k
//!            ▲                         │         │
//!            │ position            1. lock m and its gap; A still 3? B still 9?   the border is safe
//!                                  2. lock p and its gap; B still 9?              a row: copy it out
//! ```
//!
//! Nothing is latched, so a lock may be waited for; whatever waited begins again from the caller's
//! bound, with the lock held. A key that was locked together with its gap after the pages were seen and
//! before they were validated is safe for good: nobody can insert before it. So only the pages that lie
//! between the last locked key and the next one must still be as they were.
//!
//! The caller holds nothing between steps. A step remembers in the [`Entry`] where it was; if the key is
//! still there, the next step goes on behind it without descending.

use std::cmp::Ordering;
use std::ops::Bound;

use argali_base::{PageId, Result};
use argali_buffer_pool::Restart;
use argali_txn::{LockMode, LockName, Txn};

use super::backward::Border;
use super::descent::{Attempt, Node, Stop, retry};
use super::locks::ScanLocks;
use super::node::{self, LeafCell};
use super::{BTree, search};
use crate::fault::corrupt;

/// An entry copied out of a leaf; reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Whether `value` is still the reference to a large one.
    large: bool,
    /// Where it was found.
    pub(super) trace: Option<Trace>,
    /// Room for a backward step to note how far to the left it is.
    pub(super) border: Border,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

impl Eq for Entry {}

/// Where a key was. If the key is still there, it is the place: a key stands in one leaf only, and a page
/// that left the tree is no leaf of it any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    leaf: PageId,
    pub(super) slot: usize,
    /// See [`Space::era`](crate::Space).
    era: u64,
}

/// A step under way.
pub(super) struct Walk<'t> {
    pub(super) leaf: Node<'t>,
    pub(super) slot: usize,
    /// The leaf whose end was passed since the last locked key.
    pub(super) passed: Option<Node<'t>>,
}

/// What stands at a slot.
enum Seen {
    Cell(LeafCell),
    /// Past the last cell; the right sibling.
    End(Option<PageId>),
}

/// What a step asks for, and in whose name.
pub(super) struct Order<'a> {
    pub(super) txn: &'a mut Txn,
    pub(super) locks: ScanLocks,
    pub(super) from: Bound<&'a [u8]>,
    pub(super) to: Bound<&'a [u8]>,
}

impl BTree {
    /// The first live entry within the bounds, in key order, copied into `entry`; `false` when there is
    /// none. Scans are loops around this with `Excluded(last key)`, best with the same `entry`. What it
    /// read stays so for the transaction as its isolation level says; under serializable the gaps it
    /// passed stay empty.
    ///
    /// # Errors
    /// Deadlock and lock timeout (retryable), `Corrupt`, `Io`. After an error `entry` is undefined.
    pub fn next(
        &self,
        txn: &mut Txn,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        let locks = self.scan_locks(txn)?;
        let mut order = Order { txn, locks, from, to };
        let found = retry(|patient| self.step(&mut order, entry, patient))?;
        if !found || self.complete(txn, locks, entry)? {
            return Ok(found);
        }
        let gone = entry.key.clone();
        self.next(txn, Bound::Excluded(&gone), to, entry)
    }

    /// As [`BTree::next`], when the row will be changed: locked exclusively, and a large value stays where
    /// it is.
    pub(crate) fn next_for_write(
        &self,
        txn: &mut Txn,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        let locks = self.scan_locks_for_write(txn)?;
        let mut order = Order { txn, locks, from, to };
        retry(|patient| self.step(&mut order, entry, patient))
    }

    /// Fetches a large value that `entry` has only the reference of. False when the row is not there any
    /// more, which only read committed can find.
    pub(super) fn complete(
        &self,
        txn: &mut Txn,
        locks: ScanLocks,
        entry: &mut Entry,
    ) -> Result<bool> {
        if !entry.large {
            return Ok(true);
        }
        match locks {
            ScanLocks::Instant => self.get(txn, &entry.key, &mut entry.value),
            ScanLocks::None | ScanLocks::Keys(_) | ScanLocks::KeysAndGaps(_) => {
                self.follow(&mut entry.value).map(|()| true)
            }
        }
    }

    pub(super) fn step(
        &self,
        order: &mut Order<'_>,
        entry: &mut Entry,
        patient: bool,
    ) -> Attempt<bool> {
        let mut walk = self.begin(order.from, entry.trace.take(), patient)?;
        // How the next key must compare with the one in `entry`: keys ascend, or links run in a circle.
        let mut floor = match order.from {
            Bound::Included(_) | Bound::Unbounded => None,
            Bound::Excluded(key) => {
                entry.key.clear();
                entry.key.extend_from_slice(key);
                Some(Ordering::Greater)
            }
        };
        loop {
            let cell = match self.peek(&walk)? {
                Seen::End(None) => return self.finish(order, walk),
                Seen::End(Some(right)) => {
                    self.hop(&mut walk, right, patient)?;
                    continue;
                }
                Seen::Cell(cell) => cell,
            };
            self.take_key(&walk, cell, floor, &mut entry.key)?;
            if walk.slot == 0 {
                self.notice(&walk.leaf, &entry.key)?;
            }
            floor = Some(Ordering::Greater);
            let inside = within(&entry.key, order.to);
            walk = self.lock_step(order, (cell, inside), &entry.key, walk)?;
            if !inside {
                return Ok(false);
            }
            if !cell.ghost {
                self.take_value(&walk, cell, entry)?;
                return Ok(true);
            }
            walk.slot += 1;
        }
    }

    /// Where the range begins: traced, or by descent.
    fn begin(&self, from: Bound<&[u8]>, trace: Option<Trace>, patient: bool) -> Attempt<Walk<'_>> {
        if let (Bound::Excluded(key), Some(trace)) = (from, trace)
            && let Some(mut walk) = self.resume(key, trace, patient)?
        {
            walk.slot += 1;
            return Ok(walk);
        }
        let (Bound::Included(key) | Bound::Excluded(key)) = from else {
            let (leaf, _) = self.descend(&[], 0, patient)?;
            return Ok(Walk { leaf, slot: 0, passed: None });
        };
        let (leaf, _) = self.descend(key, 0, patient)?;
        let place = self.look(&leaf.glimpse, |view| search::in_leaf(view, key))?;
        let skip = place.found.is_some() && matches!(from, Bound::Excluded(_));
        Ok(Walk { leaf, slot: place.slot + usize::from(skip), passed: None })
    }

    /// At `key`, if it is where the trace says.
    pub(super) fn resume(
        &self,
        key: &[u8],
        trace: Trace,
        patient: bool,
    ) -> Attempt<Option<Walk<'_>>> {
        if trace.era != self.space().era() {
            return Ok(None);
        }
        // A trace is only a hint: whatever is wrong with it, the descent will tell.
        let Ok(leaf) = self.open_node(trace.leaf, patient) else { return Ok(None) };
        let is_it = self.look(&leaf.glimpse, |view| {
            // The entry may have been used with another tree before.
            if node::level(view, self.owner) != Ok(0) || trace.slot >= view.slot_count()? {
                return Ok(false);
            }
            let cell = LeafCell::read(view, trace.slot)?;
            Ok(view.compare(cell.key_at(), cell.key_len, key)?.is_eq())
        })?;
        Ok(is_it.then_some(Walk { leaf, slot: trace.slot, passed: None }))
    }

    fn peek(&self, walk: &Walk<'_>) -> Attempt<Seen> {
        self.look(&walk.leaf.glimpse, |view| {
            if walk.slot < view.slot_count()? {
                LeafCell::read(view, walk.slot).map(Seen::Cell)
            } else {
                node::link(view).map(Seen::End)
            }
        })
    }

    /// On to the right sibling.
    fn hop<'t>(&'t self, walk: &mut Walk<'t>, right: PageId, patient: bool) -> Attempt<()> {
        if walk.passed.is_some() && walk.slot == 0 {
            // Invariant T1 of the tree: only the leaf of an empty tree is empty.
            return Err(corrupt(self.pool(), walk.leaf.glimpse.id(), "is an empty leaf").into());
        }
        let next = self.open_node(right, patient);
        walk.leaf.validate()?;
        let next = next?;
        self.look(&next.glimpse, |view| match node::level(view, self.owner)? {
            0 => Ok(()),
            _ => Err(Restart),
        })?;
        walk.passed = Some(std::mem::replace(&mut walk.leaf, next));
        walk.slot = 0;
        Ok(())
    }

    /// Copies the key; it must compare with the one in `key` as `expected`.
    pub(super) fn take_key(
        &self,
        walk: &Walk<'_>,
        cell: LeafCell,
        expected: Option<Ordering>,
        key: &mut Vec<u8>,
    ) -> Attempt<()> {
        self.look(&walk.leaf.glimpse, |view| {
            let order = view.compare(cell.key_at(), cell.key_len, key)?;
            if expected.is_some_and(|expected| order != expected) {
                return Err(Restart);
            }
            key.clear();
            view.copy(cell.key_at(), cell.key_len, key)
        })
    }

    /// Locks the key just seen and makes sure that it is still the next one (backwards: the one before).
    pub(super) fn lock_step<'t>(
        &self,
        order: &mut Order<'_>,
        (cell, inside): (LeafCell, bool),
        key: &[u8],
        walk: Walk<'t>,
    ) -> Attempt<Walk<'t>> {
        let Some(mode) = order.locks.mode(inside) else { return still(walk) };
        let name = self.key_name(key);
        match order.locks {
            ScanLocks::Instant => {
                let lsn = self.look(&walk.leaf.glimpse, |view| node::lsn(view))?;
                if self.space().settled(lsn) {
                    return still(walk);
                }
                pass(order.txn, name, mode, walk)
            }
            // That there is no row need not stay so; only the deletion must be committed.
            ScanLocks::Keys(_) if cell.ghost => pass(order.txn, name, mode, walk),
            ScanLocks::None | ScanLocks::Keys(_) | ScanLocks::KeysAndGaps(_) => {
                keep(order.txn, name, mode, walk)
            }
        }
        .and_then(still)
    }

    /// No key follows: the gap above the last one is the border.
    fn finish(&self, order: &mut Order<'_>, walk: Walk<'_>) -> Attempt<bool> {
        let walk = match order.locks.mode(false) {
            Some(mode) => keep(order.txn, self.end_name(), mode, walk)?,
            None => walk,
        };
        still(walk)?;
        Ok(false)
    }

    pub(super) fn take_value(
        &self,
        walk: &Walk<'_>,
        cell: LeafCell,
        entry: &mut Entry,
    ) -> Attempt<()> {
        self.look(&walk.leaf.glimpse, |view| {
            entry.value.clear();
            view.copy(cell.value_at(), cell.value_len, &mut entry.value)
        })?;
        entry.large = cell.large;
        entry.trace =
            Some(Trace { leaf: walk.leaf.glimpse.id(), slot: walk.slot, era: self.space().era() });
        Ok(())
    }
}

/// Takes a lock to keep; if it must be waited for, the pages seen are old news afterwards.
fn keep<'t>(txn: &mut Txn, name: LockName, mode: LockMode, walk: Walk<'t>) -> Attempt<Walk<'t>> {
    if txn.holds(name).is_some_and(|held| held.covers(mode)) || txn.try_lock(name, mode) {
        return Ok(walk);
    }
    // A patient walk pins pages: never wait for a lock with a page pinned.
    drop(walk);
    txn.lock(name, mode)?;
    Err(Stop::Again)
}

/// Takes a lock only to see that nobody holds it.
fn pass<'t>(txn: &mut Txn, name: LockName, mode: LockMode, walk: Walk<'t>) -> Attempt<Walk<'t>> {
    if txn.try_lock_instant(name, mode) {
        return Ok(walk);
    }
    drop(walk);
    txn.lock_instant(name, mode)?;
    Err(Stop::Again)
}

/// Everything between the last locked key and this one is as it was.
fn still(mut walk: Walk<'_>) -> Attempt<Walk<'_>> {
    walk.leaf.validate()?;
    if let Some(passed) = walk.passed.take() {
        passed.validate()?;
    }
    Ok(walk)
}

/// Whether `key` lies below the upper bound.
fn within(key: &[u8], to: Bound<&[u8]>) -> bool {
    match to {
        Bound::Included(last) => key <= last,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    }
}
