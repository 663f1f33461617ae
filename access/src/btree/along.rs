//! Along one leaf: what scans do in both directions.
//!
//! ```text
//!  copied ahead  │ b │ c (ghost) │ d │        1. is b's leaf as it was seen? lock b and its gap; still?
//!                                             2. the same with c, then with d, a row: give it out
//!  nothing left: copy more, or say that the leaf has ended
//! ```
//!
//! Nothing is latched, so a lock may be waited for; whatever waited begins again where the scan stood, with
//! the lock held. A key that was locked together with its gap after its page was seen, and before that was
//! validated, is safe for good: nobody can enter before it.

use std::ops::Bound;

use argali_base::TxnId;
use argali_buffer_pool::PageGlimpse;
use argali_txn::{LockMode, LockName, Txn};

use super::BTree;
use super::cells::{Cell, Scanner, Source, Way};
use super::descent::{Attempt, Node, Stop};
use super::locks::ScanLocks;
use super::node;
use super::scan::Entry;

/// A step under way.
pub(super) struct Walk<'t> {
    pub(super) leaf: Node<'t>,
    /// The leaf whose end was passed since the last locked key.
    pub(super) passed: Option<Node<'t>>,
    /// Whether nothing of the leaf was copied yet, so that it should be looked over.
    pub(super) arrived: bool,
}

impl<'t> Walk<'t> {
    /// Goes on where it was.
    pub(super) const fn onward(glimpse: PageGlimpse<'t>) -> Self {
        Self { leaf: Node::unpinned(glimpse), passed: None, arrived: false }
    }
}

/// What a step asks for, and in whose name.
pub(super) struct Order<'a> {
    pub(super) txn: &'a mut Txn,
    pub(super) locks: ScanLocks,
    pub(super) from: Bound<&'a [u8]>,
    pub(super) to: Bound<&'a [u8]>,
}

/// How a walk along a leaf ended.
pub(super) enum Met {
    /// At a row within the bounds.
    Row,
    /// At a key beyond the bound.
    Beyond,
    /// At the end of the leaf.
    End,
}

impl<'a> Order<'a> {
    /// What goes on from `behind` on the `way`, up to `limit`.
    pub(super) fn onward(
        txn: &'a mut Txn,
        locks: ScanLocks,
        way: Way,
        (behind, limit): (Bound<&'a [u8]>, Bound<&'a [u8]>),
    ) -> Self {
        let (from, to) = match way {
            Way::Forward => (behind, limit),
            Way::Backward => (limit, behind),
        };
        Self { txn, locks, from, to }
    }

    /// Who scans which way.
    pub(super) fn scanner(&self, tree: &BTree, way: Way) -> Scanner {
        Scanner { txn: self.txn.id(), tree: tree.root, way, locks: self.locks }
    }

    /// The bound that the scan goes to.
    pub(super) fn limit(&self, way: Way) -> Bound<&'a [u8]> {
        match way {
            Way::Forward => self.to,
            Way::Backward => self.from,
        }
    }
}

impl BTree {
    /// To the next row, as far as the leaf goes.
    pub(super) fn along<'t>(
        &'t self,
        order: &mut Order<'_>,
        (entry, way): (&mut Entry, Way),
        mut walk: Walk<'t>,
    ) -> Attempt<(Met, Walk<'t>)> {
        loop {
            if entry.cells.is_spent() && !self.copy_ahead(&mut walk, entry, (way, order.locks))? {
                return Ok((Met::End, walk));
            }
            let Some(cell) = entry.cells.peek().copied() else { return Ok((Met::End, walk)) };
            let inside = within(entry.cells.key(cell), order.limit(way), way);
            walk = self.lock_step(order, (entry, way), (cell, inside), walk)?;
            if !inside {
                return Ok((Met::Beyond, walk));
            }
            if entry.cells.pass() {
                return Ok((Met::Row, walk));
            }
        }
    }

    /// The leaf that `entry` was copied from, if the scan goes on: in the same name, on the same way, and the
    /// leaf has not changed.
    #[inline]
    pub(super) fn recall(
        &self,
        entry: &Entry,
        (txn, way): (TxnId, Way),
    ) -> Option<(PageGlimpse<'_>, ScanLocks)> {
        let cells = &entry.cells;
        let (scanner, source) = (cells.scanner.as_ref()?, cells.source.as_ref()?);
        let continues = cells.row().is_some()
            && (scanner.txn, scanner.tree, scanner.way) == (txn, self.root, way)
            && source.era == self.space().era();
        if !continues {
            return None;
        }
        let glimpse = self.pool().recall(source.leaf)?;
        let lsn = node::lsn(&glimpse);
        glimpse.validate().ok()?;
        (lsn == Ok(source.lsn)).then_some((glimpse, scanner.locks))
    }

    /// Copies the next cells of the leaf; `false` when there are none.
    pub(super) fn copy_ahead(
        &self,
        walk: &mut Walk<'_>,
        entry: &mut Entry,
        (way, locks): (Way, ScanLocks),
    ) -> Attempt<bool> {
        let before = entry.cells.source;
        entry.turn();
        let cells = &mut entry.cells;
        let lsn = self.look(&walk.leaf.glimpse, |view| cells.copy(view, way))?;
        let leaf = walk.leaf.glimpse.sighting();
        let known = before.is_some_and(|old| old.settled && old.leaf == leaf && old.lsn == lsn);
        let settled = locks == ScanLocks::Instant && (known || self.space().settled(lsn));
        let Some(first) = cells.peek().copied() else { return Ok(false) };
        cells.come_from(Source { leaf, lsn, era: self.space().era(), settled });
        if std::mem::take(&mut walk.arrived) {
            self.notice(&walk.leaf, cells.key(first))?;
        }
        Ok(true)
    }

    /// Locks the key just seen and makes sure that it is still the next one.
    fn lock_step<'t>(
        &self,
        order: &mut Order<'_>,
        (entry, way): (&Entry, Way),
        (cell, inside): (Cell, bool),
        walk: Walk<'t>,
    ) -> Attempt<Walk<'t>> {
        // The gap of each key guards what lies below it: backwards, what is beyond needs no lock.
        let guards = inside || way == Way::Forward;
        let mode = order.locks.mode(inside).filter(|_| guards && !entry.cells.are_settled());
        let Some(mode) = mode else { return still(walk) };
        let name = self.key_name(entry.cells.key(cell));
        match order.locks {
            ScanLocks::Instant => pass(order.txn, name, mode, walk),
            // That there is no row need not stay so; only the deletion must be committed.
            ScanLocks::Keys(_) if cell.ghost => pass(order.txn, name, mode, walk),
            ScanLocks::None | ScanLocks::Keys(_) | ScanLocks::KeysAndGaps(_) => {
                keep(order.txn, name, mode, walk)
            }
        }
        .and_then(still)
    }
}

/// Takes a lock to keep; if it must be waited for, the pages seen are old news afterwards.
pub(super) fn keep<'t>(
    txn: &mut Txn,
    name: LockName,
    mode: LockMode,
    walk: Walk<'t>,
) -> Attempt<Walk<'t>> {
    if txn.try_lock(name, mode) {
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
pub(super) fn still(mut walk: Walk<'_>) -> Attempt<Walk<'_>> {
    walk.leaf.validate()?;
    if let Some(passed) = walk.passed.take() {
        passed.validate()?;
    }
    Ok(walk)
}

/// Whether `key` lies on this side of the bound that the scan goes to.
#[inline]
pub(super) fn within(key: &[u8], limit: Bound<&[u8]>, way: Way) -> bool {
    let order = match limit {
        Bound::Unbounded => return true,
        Bound::Included(limit) | Bound::Excluded(limit) => key.cmp(limit),
    };
    match limit {
        Bound::Included(_) => order != way.order(),
        Bound::Excluded(_) | Bound::Unbounded => order == way.order().reverse(),
    }
}
