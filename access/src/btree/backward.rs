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
//! Where ranges are claimed, the border above is the bound itself, and when a leaf is left, its keys are claimed
//! down to its separator before that: the keys of a claim belong to the leaf that is looked at again.
//!
//! Separators on the way left become smaller with each step, and that is checked: whatever the pages say,
//! the walk ends.

use std::ops::Bound;

use argali_base::Result;
use argali_txn::Txn;

use super::along::{Met, Order, Walk, within};
use super::cells::Way;
use super::descent::Attempt;
use super::locks::{GAP_S, ScanLocks};
use super::node::InnerCell;
use super::scan::Entry;
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
    /// none. Isolation and errors as [`BTree::next`].
    pub fn prev(
        &self,
        txn: &mut Txn,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        let locks = self.scan_locks(txn)?;
        self.first(&mut Order { txn, locks, from, to }, Way::Backward, entry)
    }

    /// One attempt to go to the last row within the bounds. `guarded` once the gap above it is locked, if
    /// gaps are.
    pub(super) fn step_back(
        &self,
        order: &mut Order<'_>,
        guarded: &mut bool,
        entry: &mut Entry,
        patient: bool,
    ) -> Attempt<bool> {
        let (mut walk, mut left) = self.begin_back(order, guarded, entry, patient)?;
        loop {
            let met;
            (met, walk) = self.along(order, (entry, Way::Backward), walk)?;
            match met {
                Met::Row => return Ok(true),
                Met::Beyond => return Ok(false),
                Met::End if order.locks == ScanLocks::Claims => {
                    let end;
                    (end, walk) = self.claim_down(order, left, entry, walk)?;
                    if end || !self.note_border(&walk, left, entry)? {
                        return Ok(false);
                    }
                    drop(walk);
                    (walk, left) = self.descend_below(entry, patient)?;
                }
                Met::End if !self.note_border(&walk, left, entry)? => return Ok(false),
                Met::End => {
                    // A patient walk pins its leaf: let go of it before going down again.
                    drop(walk);
                    (walk, left) = self.descend_below(entry, patient)?;
                }
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
        if let (Bound::Excluded(key), Some(trace)) = (order.to, trace)
            && let Some(leaf) = self.resume(key, trace, patient)?
        {
            let gaps = order.locks.guard_gaps();
            *guarded = *guarded || gaps && self.guards(order, key);
            if *guarded || !gaps {
                self.set_out(order, entry);
                entry.cells.stand(trace.slot);
                return Ok((Walk { leaf, passed: None, arrived: false }, Left::Unknown));
            }
        }
        if order.locks.guard_gaps() && !*guarded {
            self.guard_above(order, entry, patient)?;
            *guarded = true;
        }
        self.set_out(order, entry);
        self.descend_below(entry, patient)
    }

    /// Nothing left in the leaf: claims the rest of the keys that belong into it; whether those were the last
    /// within the bounds.
    fn claim_down<'t>(
        &self,
        order: &mut Order<'_>,
        left: Left,
        entry: &Entry,
        walk: Walk<'t>,
    ) -> Attempt<(bool, Walk<'t>)> {
        let fence = &entry.border.fence[..];
        let (last, end) = match left {
            Left::Unknown => return Ok((false, walk)),
            Left::Fence if within(fence, order.from, Way::Backward) => {
                (false, Bound::Included(fence))
            }
            Left::Fence | Left::Nothing => (true, order.from),
        };
        let walk = self.claim(order, (entry.cells.behind(), Way::Backward), end, walk)?;
        Ok((last, walk))
    }

    /// Notes the upper bound as one that excludes: the least key above `k` is `k` and a zero byte.
    fn set_out(&self, order: &Order<'_>, entry: &mut Entry) {
        let Entry { cells, border: Border { bound, bounded, .. }, .. } = entry;
        *bounded = order.to != Bound::Unbounded;
        bound.clear();
        if let Bound::Included(key) | Bound::Excluded(key) = order.to {
            bound.extend_from_slice(key);
        }
        if matches!(order.to, Bound::Included(_)) {
            bound.push(0);
        }
        cells.begin(order.scanner(self, Way::Backward), bounded.then_some(&bound[..]));
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
            Left::Unknown => {
                bound.clear();
                bound.extend_from_slice(entry.cells.edge());
            }
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
    fn descend_below(&self, entry: &mut Entry, patient: bool) -> Attempt<(Walk<'_>, Left)> {
        let Border { bound, bounded, fence } = &mut entry.border;
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
        let border = self.look(&leaf.glimpse, |view| {
            if *bounded { Ok(search::in_leaf(view, bound)?.slot) } else { view.slot_count() }
        })?;
        entry.cells.stand(border);
        Ok((Walk { leaf, passed: None, arrived: true }, left))
    }
}
