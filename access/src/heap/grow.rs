//! One more page, and the directories it takes to list it: one record each.
//!
//! ```text
//!  the last directory of level 0 has room      it is full, but one above it is not     all are full
//!
//!        D: │a│b│     becomes  │a│b│c│          root: │D│  becomes  │D│E│              root │D│E│
//!                                   │                  │               │                  becomes
//!                                   ▼                  E has no entry yet              root │N│
//!                                 page                                                      │
//!                                                                                       N │D│E│
//! ```
//!
//! Each step adds one page, the entry that leads to it, and its bit in the allocation map: three pages of
//! one record, never undone. Whoever wants a page takes steps until one of them is it. A crash in between
//! leaves a directory without entries at the end, which is where the next step goes on.

use argali_base::{Error, PageId, Result};
use argali_buffer_pool::PageWrite;
use argali_pager::{PageKind, PageOp};
use argali_txn::{Edit, Txn, Undo};

use super::Heap;
use super::directory::{ENTRY_BYTES, Entry, LEVEL_MAX, Numbered, Step};
use super::room::CLASS_MAX;
use crate::attempt::{Attempt, Stop, retry};

/// Log bytes of a step that moves no entries, generously.
const STEP_BYTES: usize = 128;
/// Log bytes of an entry that moves, beside the entry.
const OP_BYTES: usize = 16;
/// Pages a step changes.
const STEP_PAGES: usize = 3;

/// A directory on the way to the last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) directory: PageId,
    pub(super) level: u8,
    pub(super) count: usize,
    /// Its last entry, if it has one.
    pub(super) last: Option<Entry>,
    /// Number of the first page it covers.
    first: u64,
}

impl Heap {
    /// Adds a page of rows, and sees to it that whoever searches from the root finds it. Nothing may be
    /// latched.
    pub(super) fn grow(&self, txn: &mut Txn) -> Result<Numbered> {
        let new = loop {
            if let Some(new) = retry(|patient| self.step(txn, patient))? {
                break new;
            }
        };
        for edge in self.right_edge()?.iter().rev().skip(1) {
            if let Some(entry) = edge.last.filter(|entry| entry.class < CLASS_MAX) {
                let at = Step { directory: edge.directory, slot: edge.count - 1, entry };
                self.set_class(txn, at, CLASS_MAX)?;
            }
        }
        Ok(new)
    }

    /// The directories along the right edge, from the root down.
    pub(super) fn right_edge(&self) -> Result<Vec<Edge>> {
        let mut edge: Vec<Edge> = Vec::new();
        let (mut id, mut first) = (self.root(), 0);
        loop {
            let (read, level) = self.directory(id, edge.last().map(|edge| edge.level))?;
            let count = read.page().slot_count();
            let last =
                count.checked_sub(1).map(|slot| self.entry(read.page(), slot)).transpose()?;
            edge.push(Edge { directory: id, level, count, last, first });
            match last {
                Some(entry) if level > 0 => id = entry.page,
                Some(_) | None => return Ok(edge),
            }
            first += (count as u64 - 1) * self.span(level);
        }
    }

    fn step(&self, txn: &mut Txn, patient: bool) -> Attempt<Option<Numbered>> {
        let edge = self.right_edge()?;
        match edge.iter().rev().find(|edge| edge.count < self.fan_out()) {
            Some(place) => self.add(txn, *place, patient),
            None => self.push_root_down(txn, edge[0], patient).map(|()| None),
        }
    }

    /// Adds an entry to a directory: a page of rows, or a directory without entries.
    fn add(&self, txn: &mut Txn, place: Edge, patient: bool) -> Attempt<Option<Numbered>> {
        let reserved = self.space().reserve(txn, 1)?;
        let id = reserved.ids()[0];
        txn.admit(STEP_BYTES, STEP_PAGES)?;
        self.space().await_map(id)?;
        let mut new = self.pool().create(id)?;
        let mut directory = self.latch_edge(place)?;
        let Some(mut map) = self.space().try_map(id, patient)? else { return Err(Stop::Again) };
        let number = place.first + place.count as u64 * self.span(place.level);
        let entry = Entry { class: CLASS_MAX, page: id }.encode();
        let begin: &[PageOp<'_>] = match place.level.checked_sub(1) {
            None => &[self.format(PageKind::Slotted, 0), PageOp::SetLink { link: number }],
            Some(below) => &[self.format(PageKind::Directory, below)],
        };
        let edits = &mut [
            Edit { page: &mut new, ops: begin },
            Edit { page: &mut directory, ops: &[insert_entry(place.count, &entry)] },
            Edit { page: &mut map, ops: &[self.space().bit(id, true)] },
        ];
        txn.update(edits, Undo::Never);
        Ok((place.level == 0).then_some(Numbered { number, page: id }))
    }

    /// The root's entries go to a new page, and the root keeps one entry: for that page.
    fn push_root_down(&self, txn: &mut Txn, root: Edge, patient: bool) -> Attempt<()> {
        if root.level == LEVEL_MAX {
            let what =
                format!("heap {} has as many levels of directories as there can be", self.root());
            return Err(Error::Full { what }.into());
        }
        let reserved = self.space().reserve(txn, 1)?;
        let id = reserved.ids()[0];
        txn.admit(STEP_BYTES + root.count * (ENTRY_BYTES + OP_BYTES), STEP_PAGES)?;
        let class = self.best_class(root.directory)?;
        self.space().await_map(id)?;
        let mut new = self.pool().create(id)?;
        let mut page = self.latch_edge(root)?;
        let Some(mut map) = self.space().try_map(id, patient)? else { return Err(Stop::Again) };
        let read = |slot| self.entry(page.page(), slot).map(Entry::encode);
        let entries: Vec<_> = (0..root.count).map(read).collect::<Result<_>>()?;
        let mut moved = vec![self.format(PageKind::Directory, root.level)];
        moved.extend(entries.iter().enumerate().map(|(slot, entry)| insert_entry(slot, entry)));
        let higher = self.format(PageKind::Directory, root.level + 1);
        let entry = Entry { class, page: id }.encode();
        let edits = &mut [
            Edit { page: &mut new, ops: &moved },
            Edit { page: &mut page, ops: &[higher, insert_entry(0, &entry)] },
            Edit { page: &mut map, ops: &[self.space().bit(id, true)] },
        ];
        txn.update(edits, Undo::Never);
        Ok(())
    }

    /// Exclusive latch on a directory, provided it is as it was: then it is still at the right edge.
    fn latch_edge(&self, seen: Edge) -> Attempt<PageWrite<'_>> {
        let page = self.pool().write(seen.directory)?;
        let same = self.directory_level(page.page()) == Some(seen.level)
            && page.page().slot_count() == seen.count;
        if same { Ok(page) } else { Err(Stop::Again) }
    }
}

fn insert_entry(slot: usize, entry: &[u8; ENTRY_BYTES]) -> PageOp<'_> {
    PageOp::Insert { slot: slot as u16, head: 0, cell: entry }
}
