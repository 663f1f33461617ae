//! One step of a backward scan: the last row within bounds.
//!
//! ```text
//!                    inner   │ … │ f │ … │            no leaf links to its left
//!                             ╱     ╲
//!  leaf A (below f)                   leaf B (from f on)
//!  │ … h │ k │                        │ (nothing below the bound) │ m │
//!          ▲                          ▲                             ▲
//!          3. lock k and its gap;     2. nothing here: go on        1. lock the gap of m, the first key
//!             A still as seen?           below separator f             that is not below the bound
//! ```
//!
//! A gap is named by the key above it. So the border above comes first: once the gap of `m` is locked and
//! `m` was seen to be the border after that, nothing can enter between `m` and the key before it,
//! wherever that is found and however long it takes. Each key then locked guards the gap below itself, and
//! the key below the range needs no lock. So a backward step validates one leaf at a time, where a
//! forward step must validate two: it never needs a leaf and its neighbour at the same instant.
//!
//! Separators on the way left become smaller with each step, and that is checked: whatever the pages say,
//! the walk ends.

use std::cmp::Ordering;
use std::ops::Bound;

use argali_base::Result;
use argali_txn::Txn;

use super::descent::{Attempt, retry};
use super::locks::GAP_S;
use super::node::{InnerCell, LeafCell};
use super::scan::{Entry, Order, Trace, Walk};
use super::{BTree, search};
use crate::fault::corrupt;

/// How far to the left a step is; reused from call to call.
#[derive(Clone, Debug, Default)]
pub(super) struct Border {
    /// Everything from here on was seen, if `bounded`; otherwise nothing was.
    bound: Vec<u8>,
    bounded: bool,
    /// Separator that the leaf stands under, if `left` says so.
    fence: Vec<u8>,
}

/// What lies on the left of the leaf looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The leaf was found by its trace, not from above.
    Unknown,
    /// It is the first leaf.
    Nothing,
    /// The keys below [`Border::fence`].
    Fence,
}

impl BTree {
    /// The last live entry within the bounds, in key order, copied into `entry`; `false` when there is
    /// none. Backward scans are loops around this with `to` as `Excluded(last key)`, best with the same
    /// `entry`, which [`BTree::next`] may use in between. Isolation and errors as there.
    pub fn prev(
        &self,
        txn: &mut Txn,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        let locks = self.scan_locks(txn)?;
        let mut order = Order { txn, locks, from, to };
        let mut guarded = !locks.guard_gaps();
        let found = retry(|patient| self.step_back(&mut order, &mut guarded, entry, patient))?;
        if !found || self.complete(txn, locks, entry)? {
            return Ok(found);
        }
        let gone = entry.key.clone();
        self.prev(txn, from, Bound::Excluded(&gone), entry)
    }

    fn step_back(
        &self,
        order: &mut Order<'_>,
        guarded: &mut bool,
        entry: &mut Entry,
        patient: bool,
    ) -> Attempt<bool> {
        let (mut walk, mut left) = self.begin_back(order, guarded, entry, patient)?;
        // How the next key must compare with the one in `entry`: keys descend.
        let mut ceiling = entry.border.bounded.then_some(Ordering::Less);
        let mut arrived = left != Left::Unknown;
        loop {
            while walk.slot == 0 {
                if !self.note_border(&walk, left, entry)? {
                    return Ok(false);
                }
                // A patient walk pins its leaf: let go of it before going down again.
                drop(walk);
                (walk, left) = self.descend_below(&mut entry.border, patient)?;
                arrived = true;
            }
            walk.slot -= 1;
            let cell = self.look(&walk.leaf.glimpse, |view| LeafCell::read(view, walk.slot))?;
            self.take_key(&walk, cell, ceiling, &mut entry.key)?;
            ceiling = Some(Ordering::Less);
            if std::mem::take(&mut arrived) {
                self.notice(&walk.leaf, &entry.key)?;
            }
            if !from_on(&entry.key, order.from) {
                return Ok(false);
            }
            walk = self.lock_step(order, (cell, true), &entry.key, walk)?;
            if !cell.ghost {
                self.take_value(&walk, cell, entry)?;
                return Ok(true);
            }
        }
    }

    /// Where the range ends: traced, or by descent. The gap there is locked from then on, if gaps are.
    fn begin_back(
        &self,
        order: &mut Order<'_>,
        guarded: &mut bool,
        entry: &mut Entry,
        patient: bool,
    ) -> Attempt<(Walk<'_>, Left)> {
        let trace = entry.trace.take();
        note_bound(order.to, entry);
        if let Some(walk) = self.resume_back(order.to, trace, patient)? {
            *guarded = *guarded || self.guards(order, &entry.key);
            if *guarded {
                return Ok((walk, Left::Unknown));
            }
        }
        if !*guarded {
            self.guard_above(order, entry, patient)?;
            *guarded = true;
            note_bound(order.to, entry);
        }
        self.descend_below(&mut entry.border, patient)
    }

    fn resume_back(
        &self,
        to: Bound<&[u8]>,
        trace: Option<Trace>,
        patient: bool,
    ) -> Attempt<Option<Walk<'_>>> {
        match (to, trace) {
            (Bound::Excluded(key), Some(trace)) => self.resume(key, trace, patient),
            _ => Ok(None),
        }
    }

    /// Whether the gap of `key`, which was just seen in its leaf, is this transaction's. Its cell stays
    /// then, live or ghost: it is the border.
    fn guards(&self, order: &Order<'_>, key: &[u8]) -> bool {
        order.txn.holds(self.key_name(key)).is_some_and(|held| held.covers(GAP_S))
    }

    /// Locks the gap that the upper bound lies in: that of the first key which is past the bound.
    fn guard_above(&self, order: &mut Order<'_>, entry: &mut Entry, patient: bool) -> Attempt<()> {
        let from = match order.to {
            Bound::Included(key) => Bound::Excluded(key),
            Bound::Excluded(key) => Bound::Included(key),
            Bound::Unbounded => return Ok(order.txn.lock(self.end_name(), GAP_S)?),
        };
        let (txn, locks, to) = (&mut *order.txn, order.locks, order.to);
        let mut above = Order { txn, locks, from, to };
        let inside = self.step(&mut above, entry, patient)?;
        if inside {
            let what = "has a key below the bound where those above it belong";
            return Err(corrupt(self.pool(), self.root(), what).into());
        }
        Ok(())
    }

    /// Nothing left in the leaf: notes below what to go on. `false` at the beginning of the tree.
    fn note_border(&self, walk: &Walk<'_>, left: Left, entry: &mut Entry) -> Attempt<bool> {
        let Border { bound, bounded, fence } = &mut entry.border;
        match left {
            Left::Nothing => return Ok(false),
            Left::Unknown => bound.clone_from(&entry.key),
            Left::Fence if *bounded && fence >= bound => {
                let what = "stands under a separator that is not below its keys";
                return Err(corrupt(self.pool(), walk.leaf.glimpse.id(), what).into());
            }
            Left::Fence => std::mem::swap(bound, fence),
        }
        *bounded = true;
        Ok(true)
    }

    /// Behind the last key below the border's bound, in the leaf where such keys belong.
    fn descend_below(&self, border: &mut Border, patient: bool) -> Attempt<(Walk<'_>, Left)> {
        let Border { bound, bounded, fence } = border;
        let mut left = Left::Nothing;
        let (leaf, _) = self.descend_by(0, patient, |view| {
            let (slot, child) = if *bounded {
                search::below_in_inner(view, bound)?
            } else {
                search::last_in_inner(view)?
            };
            if slot > 0 {
                let cell = InnerCell::read(view, slot)?;
                fence.clear();
                view.copy(cell.separator_at, cell.separator_len, fence)?;
                left = Left::Fence;
            }
            Ok(child)
        })?;
        let slot = self.look(&leaf.glimpse, |view| {
            if *bounded { Ok(search::in_leaf(view, bound)?.slot) } else { view.slot_count() }
        })?;
        Ok((Walk { leaf, slot, passed: None }, left))
    }
}

/// Notes the upper bound as one that excludes: the least key above `k` is `k` and a zero byte. The same
/// in `entry.key`, for the first key to be compared with.
fn note_bound(to: Bound<&[u8]>, entry: &mut Entry) {
    let Border { bound, bounded, .. } = &mut entry.border;
    *bounded = to != Bound::Unbounded;
    let (Bound::Included(key) | Bound::Excluded(key)) = to else { return };
    bound.clear();
    bound.extend_from_slice(key);
    if matches!(to, Bound::Included(_)) {
        bound.push(0);
    }
    entry.key.clone_from(bound);
}

/// Whether `key` lies above the lower bound.
fn from_on(key: &[u8], from: Bound<&[u8]>) -> bool {
    match from {
        Bound::Included(first) => key >= first,
        Bound::Excluded(before) => key > before,
        Bound::Unbounded => true,
    }
}
