//! Scans: the next row within bounds, one step after the other.
//!
//! ```text
//!  leaf A (version 3)            leaf B (version 9)
//!  │ … h │ k │ ─────────────────►│ m (ghost) │ p │ …        from: after k
//!            ▲                         │         │
//!            │ position            1. lock m and its gap; A still 3? B still 9?   the border is safe
//!                                  2. lock p and its gap; B still 9?              a row: give it out
//! ```
//!
//! So it is where keys are locked; where ranges are claimed, what is copied from a leaf at once is claimed before
//! the leaves are looked at again.
//!
//! Only the pages that lie between the last locked or claimed key and the next one must still be as they were
//! ([`super::along`] says why that is enough), so a step forward validates two leaves at most.
//!
//! The caller holds nothing between steps: no latch, no page, and no lock but those of the rows it was given.
//! The [`Entry`] remembers where the last one was. If its leaf has not changed since, the next row is at hand
//! ([`super::cells`]); if it has, but the key is still there, the next step goes on behind it without
//! descending.

use std::ops::Bound;

use argali_base::{PageId, Result, TxnId};
use argali_buffer_pool::Restart;
use argali_txn::Txn;

use super::along::{Met, Order, Walk, keep, still, within};
use super::backward::Border;
use super::cells::{Cell, Cells, Way};
use super::descent::{Attempt, Node, Stop, retry};
use super::locks::ScanLocks;
use super::node::{self, LeafCell};
use super::{BTree, search};
use crate::fault::corrupt;

/// A row copied out of a leaf, and the place in the order of keys where it stands; reused from step to
/// step. Without a row it is a place only: a key that need not be there.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub(super) cells: Cells,
    /// The value of the row, where that is a large one.
    large: Vec<u8>,
    /// The key of the row before, for a step to come.
    last: Vec<u8>,
    /// Where that was found.
    pub(super) trace: Option<Trace>,
    /// Room for a backward step to note how far to the left it is.
    pub(super) border: Border,
}

/// Where a key was. If the key is still there, it is the place: a key stands in one leaf only, and a page
/// that left the tree is no leaf of it any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    leaf: PageId,
    pub(super) slot: usize,
    /// See [`Space::era`](crate::Space).
    era: u64,
}

impl Entry {
    /// A place at `key`.
    pub fn at(key: Vec<u8>) -> Self {
        Self { last: key, ..Self::default() }
    }

    /// The key of the row; without one, the key of the place.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.cells.row().map_or(&self.last, |row| self.cells.key(*row))
    }

    /// The value of the row; empty without one.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match self.cells.row() {
            None => &[],
            Some(row) if row.large => &self.large,
            Some(row) => self.cells.value(*row),
        }
    }

    /// Key and value, if there is a row.
    pub fn row(&self) -> Option<(&[u8], &[u8])> {
        self.cells.row().map(|_| (self.key(), self.value()))
    }

    /// Keeps the place, not the row.
    pub(super) fn turn(&mut self) {
        let Self { cells, last, trace, .. } = self;
        if let Some(row) = cells.row() {
            last.clear();
            last.extend_from_slice(cells.key(*row));
            let place = cells.source.zip(cells.row_slot());
            *trace = place.map(|(source, slot)| Trace {
                leaf: source.leaf.page(),
                slot,
                era: source.era,
            });
        }
        cells.turn();
    }

    /// What a step found is what the entry shows: after an error, or when there was nothing, no row.
    fn show(&mut self, found: Result<bool>) -> Result<bool> {
        if !matches!(found, Ok(true)) {
            self.turn();
        }
        found
    }
}

impl BTree {
    /// The first live entry within the bounds, in key order, copied into `entry`; `false` when there is
    /// none. What it read stays so for the transaction as its isolation level says; under serializable the
    /// gaps it passed stay empty. Go on with [`BTree::advance`].
    ///
    /// # Errors
    /// Deadlock and lock timeout (retryable), `Corrupt`, `Io`. Then, and when there is no row, `entry` shows
    /// none, and keeps its place.
    pub fn next(
        &self,
        txn: &mut Txn,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        let locks = self.scan_locks(txn)?;
        self.first(&mut Order { txn, locks, from, to }, Way::Forward, entry)
    }

    /// The first row on the `way`, from anywhere.
    pub(super) fn first(&self, order: &mut Order<'_>, way: Way, entry: &mut Entry) -> Result<bool> {
        entry.turn();
        entry.trace = None;
        entry.cells.be_modest();
        let found = self.seek(order, way, entry);
        let found = self.complete(order, way, entry, found);
        entry.show(found)
    }

    /// The next live entry on the `way` from the place of `entry`, up to `limit`. Isolation and errors as
    /// [`BTree::next`].
    pub fn advance(
        &self,
        txn: &mut Txn,
        way: Way,
        limit: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        let found = self.go_on(txn, way, limit, entry);
        entry.show(found)
    }

    /// As [`BTree::advance`] of transaction `txn`, if the next row is at hand and giving it out takes no
    /// lock; `false` when `advance` should see. The transaction must still have what it had locked when
    /// `entry` was filled in its name.
    pub fn glide(&self, txn: TxnId, way: Way, limit: Bound<&[u8]>, entry: &mut Entry) -> bool {
        let Some((leaf, locks)) = self.recall(entry, (txn, way)) else { return false };
        loop {
            // What is at hand was checked by `recall`, or copied just now.
            let Some(cell) = entry.cells.peek() else {
                if locks == ScanLocks::Claims {
                    return false; // What is copied next must be claimed next.
                }
                let mut walk = Walk::onward(leaf);
                match self.copy_ahead(&mut walk, entry, (way, locks)) {
                    Ok(true) => continue,
                    Ok(false) | Err(_) => return false,
                }
            };
            let mine = entry.cells.are_free() && within(entry.cells.key(*cell), limit, way);
            if !mine {
                return false;
            }
            if entry.cells.pass() {
                return true;
            }
        }
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
        entry.turn();
        entry.cells.be_modest();
        let found = self.seek(&mut Order { txn, locks, from, to }, Way::Forward, entry);
        entry.show(found)
    }

    fn go_on(
        &self,
        txn: &mut Txn,
        way: Way,
        limit: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        if let Some((leaf, locks)) = self.recall(entry, (txn.id(), way)) {
            let mut order = Order::onward(txn, locks, way, (Bound::Unbounded, limit));
            match self.along(&mut order, (entry, way), Walk::onward(leaf)) {
                Ok((Met::Row, _)) => return self.complete(&mut order, way, entry, Ok(true)),
                Ok((Met::Beyond, _)) => return Ok(false),
                Ok((Met::End, _)) => {}
                Err(Stop::Again) => entry.cells.be_modest(),
                Err(Stop::Failed(error)) => return Err(error),
            }
        } else if entry.cells.row().is_some() {
            entry.cells.be_modest();
        }
        let locks = self.scan_locks(txn)?;
        entry.turn();
        let last = std::mem::take(&mut entry.last);
        let mut order = Order::onward(txn, locks, way, (Bound::Excluded(&last), limit));
        let found = self.seek(&mut order, way, entry);
        let found = self.complete(&mut order, way, entry, found);
        entry.last = last;
        found
    }

    fn seek(&self, order: &mut Order<'_>, way: Way, entry: &mut Entry) -> Result<bool> {
        match way {
            Way::Forward => retry(|patient| self.step(order, entry, patient)),
            Way::Backward => {
                let mut guarded = false;
                retry(|patient| self.step_back(order, &mut guarded, entry, patient))
            }
        }
    }

    /// Fetches the value of the row that was `found`, if it is a large one.
    fn complete(
        &self,
        order: &mut Order<'_>,
        way: Way,
        entry: &mut Entry,
        mut found: Result<bool>,
    ) -> Result<bool> {
        while let Some(row) = entry.cells.row().copied().filter(|row| row.large)
            && matches!(found, Ok(true))
            && !self.fetch(order, row, entry)?
        {
            entry.turn();
            let gone = std::mem::take(&mut entry.last);
            let (locks, limit) = (order.locks, order.limit(way));
            let txn = &mut *order.txn;
            let mut order = Order::onward(txn, locks, way, (Bound::Excluded(&gone), limit));
            found = self.seek(&mut order, way, entry);
            entry.last = gone;
        }
        found
    }

    /// Fetches the large value of `row`. False when the row is not there any more, which only read committed
    /// can find.
    fn fetch(&self, order: &mut Order<'_>, row: Cell, entry: &mut Entry) -> Result<bool> {
        let Entry { cells, large, .. } = entry;
        match order.locks {
            ScanLocks::Instant => self.get(order.txn, cells.key(row), large),
            ScanLocks::None
            | ScanLocks::Claims
            | ScanLocks::Keys(_)
            | ScanLocks::KeysAndGaps(_) => {
                large.clear();
                large.extend_from_slice(cells.value(row));
                self.follow(large).map(|()| true)
            }
        }
    }

    /// One attempt to go to the first row within the bounds.
    pub(super) fn step(
        &self,
        order: &mut Order<'_>,
        entry: &mut Entry,
        patient: bool,
    ) -> Attempt<bool> {
        let edge = match order.from {
            Bound::Excluded(key) => Some(key),
            Bound::Included(_) | Bound::Unbounded => None,
        };
        entry.cells.begin(order.scanner(self, Way::Forward), edge);
        let mut walk = self.start(order.from, entry, patient)?;
        loop {
            let met;
            (met, walk) = self.along(order, (entry, Way::Forward), walk)?;
            match met {
                Met::Row => return Ok(true),
                Met::Beyond => return Ok(false),
                Met::End => match self.look(&walk.leaf.glimpse, |view| node::link(view))? {
                    Some(right) => self.hop(&mut walk, entry, right, patient)?,
                    None => return self.finish(order, entry, walk),
                },
            }
        }
    }

    /// Where the range begins: traced, or by descent.
    fn start(&self, from: Bound<&[u8]>, entry: &mut Entry, patient: bool) -> Attempt<Walk<'_>> {
        if let (Bound::Excluded(key), Some(trace)) = (from, entry.trace.take())
            && let Some(leaf) = self.resume(key, trace, patient)?
        {
            entry.cells.stand(trace.slot + 1);
            return Ok(Walk { leaf, passed: None, arrived: false });
        }
        let (Bound::Included(key) | Bound::Excluded(key)) = from else {
            let (leaf, _) = self.descend(&[], 0, patient)?;
            entry.cells.stand(0);
            return Ok(Walk { leaf, passed: None, arrived: true });
        };
        let (leaf, _) = self.descend(key, 0, patient)?;
        let place = self.look(&leaf.glimpse, |view| search::in_leaf(view, key))?;
        let skip = place.found.is_some() && matches!(from, Bound::Excluded(_));
        let border = place.slot + usize::from(skip);
        entry.cells.stand(border);
        Ok(Walk { leaf, passed: None, arrived: border == 0 })
    }

    /// The leaf of `key`, if it is where the trace says.
    pub(super) fn resume(
        &self,
        key: &[u8],
        trace: Trace,
        patient: bool,
    ) -> Attempt<Option<Node<'_>>> {
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
        Ok(is_it.then_some(leaf))
    }

    /// On to the right sibling.
    fn hop<'t>(
        &'t self,
        walk: &mut Walk<'t>,
        entry: &mut Entry,
        right: PageId,
        patient: bool,
    ) -> Attempt<()> {
        if walk.passed.is_some() && entry.cells.border == 0 {
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
        walk.arrived = true;
        entry.cells.stand(0);
        Ok(())
    }

    /// No key follows: the gap above the last one is the border.
    fn finish(&self, order: &mut Order<'_>, entry: &Entry, walk: Walk<'_>) -> Attempt<bool> {
        if order.locks == ScanLocks::Claims {
            let behind = (entry.cells.behind(), Way::Forward);
            self.claim(order, behind, order.to, walk)?;
            return Ok(false);
        }
        let walk = match order.locks.mode(false) {
            Some(mode) => keep(order.txn, self.end_name(), mode, walk)?,
            None => walk,
        };
        still(walk)?;
        Ok(false)
    }
}
