//! Joining two nodes: one structure change, one record, one page given back.
//!
//! ```text
//!  join of neighbours                            lowering the root (which never moves)
//!
//!  parent  │ … a │ b │ c … │     │ … a │ c … │    root  │ L │           root  │ x y z │
//!                │   │    becomes      │                  │    becomes
//!                ▼   ▼                 ▼                  ▼
//!  child    │ x │─►│ y z │─►     │ x y z │─►      child │ x y z │       page L is free
//! ```
//!
//! The cells of the right node move to the left one as they are, ghosts and slack too, so nothing that an
//! undo or a lock relies on changes: every key keeps its neighbours, every gap its name, every cell its
//! room. Who may lose ghosts is decided before, by [`super::purge`] alone. Joined are only children of one
//! parent, the left one's separator stays: no other node changes, and the leaf chain is mended by one link.
//!
//! The page given back becomes kind `Free` in the same record. A reader that still has its number (from
//! the parent, a link, or a scan's trace) finds that its source changed, or finds no node there.
//!
//! Latches as in a split: parent, left, right, and the map page last. The record is never undone. Left
//! out: moving some cells from a fuller neighbour (it saves no page), and joining cousins.

use argali_base::{PageId, Result};
use argali_buffer_pool::{PageWrite, Restart};
use argali_pager::{HEADER_BYTES, PageBuf, PageKind, PageOp};
use argali_txn::{Edit, Txn, Undo};

use super::descent::{Attempt, Stop};
use super::heads::{self, Heads, common, head};
use super::node::{self, InnerCell, LeafCell, View};
use super::{BTree, fill, search};
use crate::fault::corrupt;

/// Pages a join changes: parent, left, right, map.
const JOIN_PAGES: usize = 4;

/// What a page becomes that no node stands in any more.
const FREE: PageOp<'static> = PageOp::Format { kind: PageKind::Free, level: 0, owner: 0 };

/// The neighbour that a thin node is joined with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Left,
    Right,
}

/// What came of an attempt to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// A page is free.
    Done,
    /// No neighbour on that side, or one too full, or a node that is not thin.
    Refused,
    /// The neighbour is too full of ghosts; its first key.
    Burdened(Vec<u8>),
    /// The tree is no higher.
    Top,
}

/// Two children of one parent, side by side.
struct Pair {
    left: PageId,
    right: PageId,
    /// Of the right one, in the parent.
    slot: usize,
}

impl Pair {
    fn read(parent: &impl View, key: &[u8], side: Side) -> Result<Option<Self>, Restart> {
        let at = search::in_inner(parent, key)?.0;
        let slot = match side {
            Side::Left => at,
            Side::Right => at + 1,
        };
        if slot == 0 || slot >= parent.slot_count()? {
            return Ok(None);
        }
        let child = |slot| InnerCell::read(parent, slot).map(|cell| cell.child);
        Ok(Some(Self { left: child(slot - 1)?, right: child(slot)?, slot }))
    }
}

/// The latched pages of a join.
struct Latched<'p> {
    parent: PageWrite<'p>,
    left: PageWrite<'p>,
    right: PageWrite<'p>,
    /// Of the right one, in the parent.
    slot: usize,
}

/// What the right node holds, as it shall stand in the left one.
struct Moved {
    right: PageBuf,
    /// The first cell: an inner node's has no separator of its own, but the parent knows it.
    first: Vec<u8>,
    /// Of the left node's slots, if the prefix that all keys share is not what it was.
    kept: Option<Heads>,
    /// Of the cells that move.
    heads: Vec<u32>,
    bytes: usize,
}

impl Moved {
    fn read(latched: &Latched<'_>, right: PageBuf, level: u8) -> Result<Self, Restart> {
        let page = right.page();
        let mut first = page.cell(0).ok_or(Restart)?.to_vec();
        let bytes = fill::cell_bytes(page)? - first.len();
        let parent = latched.parent.page();
        let separator = InnerCell::read(&parent, latched.slot)?.separator(parent);
        if level > 0 {
            let child = InnerCell::read(&page, 0)?.child;
            first.clear();
            node::push_inner_cell(&mut first, child, separator);
        }
        let bytes = bytes + first.len();
        let key = |slot| {
            if slot < heads::first_key(page) { Ok(separator) } else { heads::key(page, slot) }
        };
        let (left, count) = (latched.left.page(), latched.left.page().slot_count());
        let lowest = heads::first_key(left);
        let lowest = if lowest < count { heads::key(left, lowest)? } else { key(0)? };
        let skip = common(lowest, key(page.slot_count() - 1)?);
        let kept = (skip != left.skip()).then(|| Heads::new(left, count, skip)).transpose()?;
        let heads = (0..page.slot_count()).map(|slot| Ok(head(key(slot)?, skip)));
        let heads = heads.collect::<Result<_, Restart>>()?;
        Ok(Self { right, first, kept, heads, bytes })
    }

    /// Operations that append it to a node of `count` cells.
    fn ops(&self, count: usize) -> Vec<PageOp<'_>> {
        let page = self.right.page();
        let cell = |slot: usize| match slot {
            0 => Some(&self.first[..]),
            _ => page.cell(slot),
        };
        let cells = self.heads.iter().enumerate().map_while(|(n, head)| Some((n, *head, cell(n)?)));
        let insert = |(n, head, cell)| PageOp::Insert { slot: (count + n) as u16, head, cell };
        let link = PageOp::SetLink { link: page.link() };
        self.kept.iter().map(Heads::op).chain(cells.map(insert)).chain([link]).collect()
    }
}

impl BTree {
    /// Joins the node at `level` on the way to `key` with a neighbour, if it is thin and both fit into one
    /// page; lowers a root that has one child. Nothing may be latched.
    pub(super) fn join(
        &self,
        txn: &mut Txn,
        key: &[u8],
        (level, side): (u8, Side),
        patient: bool,
    ) -> Attempt<Join> {
        let (parent, here) = self.descend(key, level + 1, patient)?;
        if here <= level {
            return Ok(Join::Top);
        }
        let (count, child, pair) = self.look(&parent.glimpse, |view| {
            let child = search::in_inner(view, key)?.1;
            Ok((view.slot_count()?, child, Pair::read(view, key, side)?))
        })?;
        if count == 1 && parent.glimpse.id() == self.root() {
            drop(parent);
            return self.lower_root(txn, (level, child), patient);
        }
        let Some(pair) = pair else { return Ok(Join::Refused) };
        let node = self.step_down(&parent, child, patient)?;
        let room = self.room();
        if !self.look(&node.glimpse, |view| fill::is_thin(view, level, room))? {
            return Ok(Join::Refused);
        }
        // Nothing may be latched from here on.
        drop((node, parent));
        txn.admit(self.split_bytes(), JOIN_PAGES)?;
        self.space().await_map(pair.right)?;
        self.pool().glimpse(pair.left)?;
        self.pool().glimpse(pair.right)?;
        self.join_latched(txn, key, (level, side), patient)
    }

    fn join_latched(
        &self,
        txn: &mut Txn,
        key: &[u8],
        (level, side): (u8, Side),
        patient: bool,
    ) -> Attempt<Join> {
        let parent = self.latch_parent(key, level + 1, patient)?;
        let Some(pair) = self.inspect(&parent, |view| Pair::read(view, key, side))? else {
            return Ok(Join::Refused);
        };
        let left = self.latch_child(pair.left, level, &[parent.id()], patient)?;
        let held = [parent.id(), left.id()];
        let right = self.latch_child(pair.right, level, &held, patient)?;
        if left.page().link() != pair.right.get() {
            let what = format!("links to {}, but {} follows it", left.page().link(), pair.right);
            return Err(corrupt(self.pool(), pair.left, what).into());
        }
        let mut latched = Latched { parent, left, right, slot: pair.slot };
        let copy = self.copy_of(&latched.right);
        let moved = self.inspect(&latched.right, |_| Moved::read(&latched, copy, level))?;
        let kept = self.room().saturating_sub(latched.left.page().free_bytes());
        if !fill::is_roomy(kept, moved.bytes, self.room()) {
            return match level {
                0 => self.inspect_neighbour(&latched, side, (kept, moved.bytes)),
                _ => Ok(Join::Refused),
            };
        }
        self.move_left(txn, &mut latched, &moved, patient)?;
        drop(latched);
        self.space().given_back(pair.right);
        Ok(Join::Done)
    }

    /// Whether a purge of the neighbouring leaf would make it fit.
    fn inspect_neighbour(
        &self,
        latched: &Latched<'_>,
        side: Side,
        (kept, moved): (usize, usize),
    ) -> Attempt<Join> {
        let neighbour = match side {
            Side::Left => &latched.left,
            Side::Right => &latched.right,
        };
        let ghosts = self.inspect(neighbour, |page| fill::removable_bytes(page))?;
        let (kept, moved) = match side {
            Side::Left => (kept.saturating_sub(ghosts), moved),
            Side::Right => (kept, moved.saturating_sub(ghosts)),
        };
        if !fill::is_worth_purging(ghosts, self.room()) || !fill::is_roomy(kept, moved, self.room())
        {
            return Ok(Join::Refused);
        }
        let first = self.inspect(neighbour, |page| LeafCell::read(page, 0))?;
        Ok(Join::Burdened(first.key(neighbour.page()).to_vec()))
    }

    /// Logs the join.
    fn move_left<'p>(
        &'p self,
        txn: &mut Txn,
        latched: &mut Latched<'p>,
        moved: &Moved,
        patient: bool,
    ) -> Attempt<()> {
        let Latched { parent, left, right, slot } = latched;
        let id = right.id();
        let Some(mut map) = self.space().try_map(id, patient)? else { return Err(Stop::Again) };
        let taken = moved.ops(left.page().slot_count());
        let edits = &mut [
            Edit { page: left, ops: &taken },
            Edit { page: right, ops: &[FREE] },
            Edit { page: parent, ops: &[PageOp::Remove { slot: *slot as u16 }] },
            Edit { page: &mut map, ops: &[self.space().bit(id, false)] },
        ];
        txn.update(edits, Undo::Never);
        Ok(())
    }

    /// A root with one child takes over what stands in the child.
    fn lower_root(
        &self,
        txn: &mut Txn,
        (level, child): (u8, PageId),
        patient: bool,
    ) -> Attempt<Join> {
        txn.admit(self.split_bytes(), JOIN_PAGES)?;
        self.space().await_map(child)?;
        self.pool().glimpse(child)?;
        let mut root = self.pool().write(self.root())?;
        let (above, only) = self.inspect(&root, |view| {
            let only = (view.slot_count() == 1).then(|| InnerCell::read(view, 0)).transpose()?;
            Ok((node::level(view, self.owner)?, only.map(|cell| cell.child)))
        })?;
        if (above, only) != (level + 1, Some(child)) {
            return Err(Stop::Again);
        }
        let mut page = self.latch_child(child, level, &[self.root()], patient)?;
        let fits = |bytes| if bytes <= self.room() { Ok(()) } else { Err(Restart) };
        self.inspect(&page, |page| fill::cell_bytes(*page).and_then(fits))?;
        let copy = self.copy_of(&page);
        let count = copy.page().slot_count();
        let ops = self.inspect(&page, |_| self.moved(copy.page(), 0..count, 0))?;
        let Some(mut map) = self.space().try_map(child, patient)? else { return Err(Stop::Again) };
        let edits = &mut [
            Edit { page: &mut root, ops: &ops },
            Edit { page: &mut page, ops: &[FREE] },
            Edit { page: &mut map, ops: &[self.space().bit(child, false)] },
        ];
        txn.update(edits, Undo::Never);
        drop((map, page, root));
        self.space().given_back(child);
        Ok(Join::Done)
    }

    /// Bytes of a page that cells and their slots can take.
    pub(super) fn room(&self) -> usize {
        self.pool().pager().options().page_size.bytes() - HEADER_BYTES
    }
}
