//! Making room: one structure change, one record.
//!
//! ```text
//!  split of a child                              split of the root (which never moves)
//!
//!   parent  │ … a │ c … │   │ … a │ b │ c … │      root  │ x y z │      root │ L │ R │
//!             │       becomes  │     │                            becomes     │   │
//!             ▼                ▼     ▼                                        ▼   ▼
//!   child   │ x y z │       │ x │─►│ y z │                              │ x │─►│ y z │
//! ```
//!
//! Latches: the new pages (nobody else knows them), then down, then the map page. The record changes at
//! most four pages and is never undone: it moves rows, it does not change them.
//!
//! When the parent has no room for the separator the parent must be split first; the caller does that
//! and comes again. Each call makes one change for which everything is ready, so no more than four
//! frames are held, however high the tree.
//!
//! A full leaf is cut in half by bytes; if the new key goes to the very end of the last leaf, nine tenths
//! stay (keys in ascending order fill pages). The separator is the shortest that separates.

use argali_base::{PageId, Result};
use argali_buffer_pool::{PageWrite, Restart};
use argali_pager::{HEADER_BYTES, PageBuf, PageKind, PageOp, PageRef};
use argali_txn::{Edit, Txn, Undo};

use super::descent::{Attempt, Stop, retry};
use super::heads::{self, Entry, Heads, common, head};
use super::node::{self, InnerCell, LEVEL_MAX, LeafCell, SLOT_BYTES};
use super::{BTree, fill, search};
use crate::fault::corrupt;

/// Pages a structure change touches: the limit of the access rules.
pub(super) const SPLIT_PAGES: usize = 4;

/// What came of an attempt to split.
enum Split {
    Done,
    /// The parent lacks this many bytes for the separator: split it first.
    ParentFull(usize),
}

/// Where to cut a node.
struct Cut {
    /// First slot that goes to the right.
    at: usize,
    separator: Vec<u8>,
}

impl BTree {
    /// Brings the leaf of `key` closer to having `need` free bytes, by one structure change. Nothing may
    /// be latched.
    pub(super) fn make_room(&self, txn: &mut Txn, key: &[u8], need: usize) -> Result<()> {
        if self.purge(txn, key, need)? {
            return self.note_leaf(key, |leaf, room| fill::is_thin(leaf, 0, room));
        }
        let (mut level, mut need) = (0, need);
        loop {
            match retry(|patient| self.split(txn, key, (level, need), patient))? {
                Split::Done => return Ok(()),
                Split::ParentFull(bytes) => (level, need) = (level + 1, bytes),
            }
        }
    }

    fn split(&self, txn: &mut Txn, key: &[u8], goal: (u8, usize), patient: bool) -> Attempt<Split> {
        let (node, here) = self.descend(key, goal.0 + 1, patient)?;
        drop(node);
        if here <= goal.0 {
            self.split_root(txn, key, (here, goal.1))
        } else {
            self.split_child(txn, key, goal, patient)
        }
    }

    fn split_child(
        &self,
        txn: &mut Txn,
        key: &[u8],
        (level, need): (u8, usize),
        patient: bool,
    ) -> Attempt<Split> {
        let reserved = self.space().reserve(txn, 1)?;
        let id = reserved.ids()[0];
        txn.admit(self.split_bytes(), SPLIT_PAGES)?;
        self.space().await_map(id)?;
        let mut right = self.pool().create(id)?;
        let mut parent = self.latch_parent(key, level + 1, patient)?;
        let (slot, child) = self.inspect(&parent, |view| search::in_inner(view, key))?;
        let mut left = self.latch_child(child, level, &[parent.id(), id], patient)?;
        if left.page().free_bytes() >= need {
            return Ok(Split::Done);
        }
        let cut = self.cut(&left, key, level)?;
        let mut cell = Vec::with_capacity(node::INNER_HEADER + cut.separator.len());
        node::push_inner_cell(&mut cell, id, &cut.separator);
        let entry =
            self.inspect(&parent, |page| Entry::new(*page, slot + 1, (&cut.separator, &cell)))?;
        if !entry.fits(parent.page()) {
            return Ok(Split::ParentFull(cell.len() + SLOT_BYTES));
        }
        let Some(mut map) = self.space().try_map(id, patient)? else { return Err(Stop::Again) };
        let copy = self.copy_of(&left);
        let (page, count) = (copy.page(), copy.page().slot_count());
        let moved = self.inspect(&left, |_| self.moved(page, cut.at..count, page.link()))?;
        let heads = self.inspect(&left, |page| Heads::after_cut(*page, cut.at))?;
        let mut kept = vec![PageOp::Truncate { slot: cut.at as u16 }];
        kept.extend(heads.as_ref().map(Heads::op));
        kept.push(PageOp::SetLink { link: id.get() });
        let edits = &mut [
            Edit { page: &mut left, ops: &kept },
            Edit { page: &mut right, ops: &moved },
            Edit { page: &mut parent, ops: &entry.ops() },
            Edit { page: &mut map, ops: &[self.space().bit(id, true)] },
        ];
        txn.update(edits, Undo::Never);
        Ok(Split::Done)
    }

    fn split_root(&self, txn: &mut Txn, key: &[u8], (level, need): (u8, usize)) -> Attempt<Split> {
        let reserved = self.space().reserve(txn, 2)?;
        let [left_id, right_id] = [reserved.ids()[0], reserved.ids()[1]];
        txn.admit(self.split_bytes(), SPLIT_PAGES)?;
        self.space().await_map(left_id)?;
        let mut left = self.pool().create(left_id)?;
        let mut right = self.pool().create(right_id)?;
        let mut root = self.pool().write(self.root())?;
        if self.inspect(&root, |view| node::level(view, self.owner))? != level {
            return Err(Stop::Again);
        }
        if root.page().free_bytes() >= need {
            return Ok(Split::Done);
        }
        if level == LEVEL_MAX {
            return Err(corrupt(self.pool(), self.root(), "is too high a tree").into());
        }
        let cut = self.cut(&root, key, level)?;
        let Some(mut map) = self.space().try_map(left_id, true)? else { return Err(Stop::Again) };
        let copy = self.copy_of(&root);
        let (page, count) = (copy.page(), copy.page().slot_count());
        let low = self.inspect(&root, |_| self.moved(page, 0..cut.at, right_id.get()))?;
        let high = self.inspect(&root, |_| self.moved(page, cut.at..count, 0))?;
        let mut cells = [Vec::new(), Vec::new()];
        node::push_inner_cell(&mut cells[0], left_id, &[]);
        node::push_inner_cell(&mut cells[1], right_id, &cut.separator);
        let above = [
            self.format(PageKind::Inner, level + 1),
            PageOp::Insert { slot: 0, head: 0, cell: &cells[0] },
            PageOp::Insert { slot: 1, head: head(&cut.separator, 0), cell: &cells[1] },
        ];
        let bits = [self.space().bit(left_id, true), self.space().bit(right_id, true)];
        let edits = &mut [
            Edit { page: &mut left, ops: &low },
            Edit { page: &mut right, ops: &high },
            Edit { page: &mut root, ops: &above },
            Edit { page: &mut map, ops: &bits },
        ];
        txn.update(edits, Undo::Never);
        Ok(Split::Done)
    }

    /// Latches the inner node at `level` above `key`, its child being in memory already. A patient call
    /// may come too late to the right node; the node it gets is split, or its children joined, as well as
    /// any other, and the caller sees that nothing changed for its leaf.
    pub(super) fn latch_parent(
        &self,
        key: &[u8],
        level: u8,
        patient: bool,
    ) -> Attempt<PageWrite<'_>> {
        let (node, here) = self.descend(key, level, patient)?;
        if here != level {
            return Err(Stop::Again);
        }
        let child = self.look(&node.glimpse, |view| search::in_inner(view, key))?.1;
        if !patient {
            self.pool().glimpse(child)?;
            return node.upgrade();
        }
        let id = node.glimpse.id();
        drop(node);
        let page = self.pool().write(id)?;
        // It may have been joined with another one, and its page be free or in another tree.
        if node::level(&page.page(), self.owner) == Ok(level) { Ok(page) } else { Err(Stop::Again) }
    }

    /// Latches a child under its parent's latch; waits for it only when patient. `held` are the pages
    /// latched already: on a damaged page, a pointer may lead back to one of them.
    pub(super) fn latch_child(
        &self,
        id: PageId,
        level: u8,
        held: &[PageId],
        patient: bool,
    ) -> Attempt<PageWrite<'_>> {
        if held.contains(&id) {
            return Err(corrupt(self.pool(), id, "is pointed at twice").into());
        }
        let page =
            if patient { Some(self.pool().write(id)?) } else { self.pool().try_write(id)? };
        let Some(page) = page else { return Err(Stop::Again) };
        let found = self.inspect(&page, |view| node::level(view, self.owner))?;
        if found == level {
            return Ok(page);
        }
        Err(corrupt(self.pool(), id, format!("level {found} where level {level} belongs")).into())
    }

    /// Where to cut the node so that `key` finds room.
    fn cut(&self, node: &PageWrite<'_>, key: &[u8], level: u8) -> Attempt<Cut> {
        self.inspect(node, |page| {
            let count = page.slot_count();
            let last = if level == 0 {
                search::in_leaf(page, key)?.slot == count
            } else {
                search::in_inner(page, key)?.0 + 1 == count
            };
            let ascending = last && page.link() == 0;
            let at = cut_at(*page, ascending).ok_or(Restart)?;
            let separator = if level == 0 {
                let before = LeafCell::read(page, at - 1)?.key(*page);
                separate(before, LeafCell::read(page, at)?.key(*page))
            } else {
                InnerCell::read(page, at)?.separator(*page)
            };
            Ok(Cut { at, separator: separator.to_vec() })
        })
    }

    /// Operations that make a new page of the cells in `slots` of `page`.
    pub(super) fn moved<'a>(
        &self,
        page: PageRef<'a>,
        slots: std::ops::Range<usize>,
        link: u64,
    ) -> Result<Vec<PageOp<'a>>, Restart> {
        let kind = if page.level() == 0 { PageKind::Leaf } else { PageKind::Inner };
        let skip = heads::longest(page, slots.clone())?;
        let mut ops = Vec::with_capacity(slots.len() + 3);
        ops.push(self.format(kind, page.level()));
        ops.extend(heads::begin(skip));
        for (slot, from) in slots.enumerate() {
            let cell = page.cell(from).ok_or(Restart)?;
            // The first cell of an inner node stands for minus infinity: no separator.
            let (cell, head) = if slot < heads::first_key(page) {
                (cell.get(..node::INNER_HEADER).ok_or(Restart)?, 0)
            } else {
                (cell, head(heads::key(page, from)?, skip))
            };
            ops.push(PageOp::Insert { slot: slot as u16, head, cell });
        }
        ops.push(PageOp::SetLink { link });
        Ok(ops)
    }

    /// The page as it is, so that its cells can be borrowed while it changes.
    pub(super) fn copy_of(&self, page: &PageWrite<'_>) -> PageBuf {
        let mut copy = PageBuf::new(self.pool().pager().options().page_size);
        copy.copy_from(page.page());
        copy
    }

    /// Log bytes of a structure change's operations: all cells of a page twice over cover them.
    pub(super) fn split_bytes(&self) -> usize {
        2 * self.pool().pager().options().page_size.bytes()
    }
}

/// First slot that goes to the right: half of the bytes stay, or nine tenths. `None` for a page that
/// cannot be cut, or with a cell outside itself.
fn cut_at(page: PageRef<'_>, ascending: bool) -> Option<usize> {
    let count = page.slot_count();
    let total = (page.bytes().len() - HEADER_BYTES).saturating_sub(page.free_bytes());
    let target = if ascending { total * 9 / 10 } else { total / 2 };
    let mut kept = 0;
    let mut at = 0;
    while at < count && kept < target {
        kept += page.cell(at)?.len() + SLOT_BYTES;
        at += 1;
    }
    (count >= 2).then(|| at.clamp(1, count - 1))
}

/// The shortest prefix of `right` that is greater than `left` (which is less than `right`).
pub(super) fn separate<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    &right[..(common(left, right) + 1).min(right.len())]
}

#[cfg(test)]
mod tests {
    use super::separate;

    #[test]
    fn separators_are_short_and_separate() {
        for (left, right, expected) in [
            (&b"apple"[..], &b"banana"[..], &b"b"[..]),
            (b"app", b"apple", b"appl"),
            (b"", b"a", b"a"),
            (b"abc", b"abd", b"abd"),
        ] {
            assert_eq!(separate(left, right), expected);
            assert!(left < expected && expected <= right);
        }
    }
}
