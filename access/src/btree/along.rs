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
//! validated, is safe for good: nobody can enter before it. So is what was claimed in between:
//!
//! ```text
//!  copied ahead  │ b │ c │ d │ e │ f │        claim what lies behind the last row, up to f; leaf as it was seen?
//!                                             all of it is safe for good
//! ```
//!
//! Where a scan stands, everything behind it is safe, by a lock or by a claim. A claim begins there, and a lock on
//! the gap below the next key reaches back to there: so they follow each other in any order on the way up.

use std::ops::Bound;

use argali_base::TxnId;
use argali_buffer_pool::PageGlimpse;
use argali_txn::{KeyMode, LockMode, LockName, Txn};

use super::BTree;
use super::cells::{Cell, Scanner, Source, Way};
use super::descent::{Attempt, Node, Stop};
use super::locks::{KEY_S, ScanLocks};
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
        let asks = matches!(locks, ScanLocks::Instant | ScanLocks::Claims);
        let settled = asks && (known || self.space().settled(lsn));
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
        (entry, way): (&mut Entry, Way),
        (cell, inside): (Cell, bool),
        walk: Walk<'t>,
    ) -> Attempt<Walk<'t>> {
        if order.locks == ScanLocks::Claims {
            return self.claim_step(order, (entry, way), (cell, inside), walk);
        }
        // The gap of each key guards what lies below it: backwards, what is beyond needs no lock.
        let guards = inside || way == Way::Forward;
        let mode = order.locks.mode(inside).filter(|_| guards && !entry.cells.are_settled());
        let Some(mode) = mode else { return still(walk) };
        let name = self.key_name(entry.cells.key(cell));
        match order.locks {
            ScanLocks::Instant => pass(order.txn, name, mode, walk),
            // That there is no row need not stay so; only the deletion must be committed.
            ScanLocks::Keys(_) if cell.ghost => pass(order.txn, name, mode, walk),
            ScanLocks::None
            | ScanLocks::Claims
            | ScanLocks::Keys(_)
            | ScanLocks::KeysAndGaps(_) => keep(order.txn, name, mode, walk),
        }
        .and_then(still)
    }

    /// Has the key just seen claimed, if it is within the bounds; if not, all up to the bound.
    fn claim_step<'t>(
        &self,
        order: &mut Order<'_>,
        (entry, way): (&mut Entry, Way),
        (cell, inside): (Cell, bool),
        mut walk: Walk<'t>,
    ) -> Attempt<Walk<'t>> {
        if inside && entry.cells.is_covered() {
            return Ok(walk);
        }
        let settled = entry.cells.are_settled() || order.txn.mutations().claims_of_unsettled_rows;
        if inside && !settled {
            // Before the claim: whoever changed the row may have to change it again before it ends.
            walk = pass(order.txn, self.key_name(entry.cells.key(cell)), KEY_S, walk)?;
        }
        let (limit, cells) = (order.limit(way), &entry.cells);
        let (reach, end) = match (inside, settled) {
            (false, _) => (0, limit),
            (true, false) => (1, Bound::Included(cells.key(cell))),
            (true, true) => cells.reach(limit, way),
        };
        walk = self.claim(order, (cells.behind(), way), end, walk)?;
        entry.cells.cover_next(reach);
        Ok(walk)
    }

    /// Claims what lies between where the scan stands and `end`, and makes sure that it is as it was seen.
    pub(super) fn claim<'t>(
        &self,
        order: &mut Order<'_>,
        (behind, way): (Option<&[u8]>, Way),
        end: Bound<&[u8]>,
        mut walk: Walk<'t>,
    ) -> Attempt<Walk<'t>> {
        let bounds = match (way, behind.map(Bound::Excluded)) {
            (Way::Forward, behind) => (behind.unwrap_or(order.from), end),
            (Way::Backward, behind) => (end, behind.unwrap_or(order.to)),
        };
        let tree = self.root().get();
        if let Some(name) = order.txn.writer_within(tree, bounds) {
            walk = pass(order.txn, name, KEY_S, walk)?;
        }
        let late = order.txn.mutations().claims_come_late;
        if late {
            walk = still(walk)?;
        }
        if !order.txn.claim(tree, bounds) {
            order.locks = ScanLocks::KeysAndGaps(KeyMode::S);
            return Err(Stop::Again);
        }
        if late { Ok(walk) } else { still(walk) }
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
