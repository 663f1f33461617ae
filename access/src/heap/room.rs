//! How much room the pages have: what is known of it, and how little depends on that.
//!
//! ```text
//!                    delete, shrink, undo                  a scan that meets a wrong entry
//!                            │ the page's number                    │
//!                            ▼                                      ▼
//!  in memory    open │ p9 │ p12 │      gained │ 4 │ 17 │ 903 │      hand: where to look next
//!                 ▲       inserts go here        │
//!  in pages       │                              ▼  background step
//!               class of each page in its directory entry
//! ```
//!
//! Room is told in *classes*: class c of 16 promises c sixteenths of an empty page, ghosts and slack
//! counted as room, because one day they will be. An insert takes an open page, or else the first page from
//! the hand on that is listed with its class, or else a new one. So it reads a page or two and a directory
//! for each level, however large the heap, and right after an open as well, when nothing is open.
//!
//! **Nothing depends on a class being true.** Too high: whoever tries the page finds out, and lists it
//! lower. Too low: the room lies idle until a deletion or a scan notices. Classes are therefore logged on
//! their own and never undone, and what memory knows may be lost.
//! `docs/decisions/heap-room-is-a-hint.md` has the alternatives.

use std::collections::{BTreeMap, BTreeSet};

use argali_base::sync::{Arc, Mutex};
use argali_base::{PageId, Result};
use argali_pager::{PageRef, SLOT_BYTES};
use argali_txn::{Durability, Txn, TxnManager};

use super::Heap;
use super::cell::Cell;
use super::directory::{Entry, Numbered};
use crate::Space;

/// Classes above 0; this one is an empty page.
pub(super) const CLASS_MAX: u8 = 16;
/// Most pages inserts go to at one time.
const OPEN_MAX: usize = 8;
/// Pages looked at in one background step.
const RELIST_BATCH: usize = 32;
/// Most numbers kept for the background step: a megabyte or two. What is above is left to a scan.
const GAINED_MAX: usize = 1 << 16;

/// What memory knows of the room in all heaps of one database.
#[derive(Default)]
pub(crate) struct Rooms(Mutex<BTreeMap<PageId, Arc<Room>>>);

/// What memory knows of the room in one heap.
#[derive(Default)]
pub(super) struct Room(Mutex<State>);

struct State {
    open: Vec<Open>,
    /// Numbers of pages that may have more room than they are listed with.
    gained: BTreeSet<u64>,
    /// Number of the page from which the directory is searched.
    hand: u64,
    /// No page is listed with this class or a greater one: a whole search found none, and none was listed
    /// since.
    none_from: u8,
}

impl Default for State {
    fn default() -> Self {
        Self { open: Vec::new(), gained: BTreeSet::new(), hand: 0, none_from: CLASS_MAX + 1 }
    }
}

/// A page inserts go to.
struct Open {
    at: Numbered,
    /// How many are at it now.
    users: u32,
}

/// An open page in use; dropping this ends the use.
pub(super) struct Taken<'r> {
    room: &'r Room,
    at: Numbered,
}

impl Rooms {
    pub(super) fn of(&self, root: PageId) -> Arc<Room> {
        Arc::clone(self.0.lock().entry(root).or_default())
    }

    /// The heap is gone.
    pub(super) fn forget(&self, root: PageId) {
        self.0.lock().remove(&root);
    }

    /// A heap in which pages gained room.
    fn gainer(&self) -> Option<PageId> {
        let rooms = self.0.lock();
        let gained = |room: &Room| !room.0.lock().gained.is_empty();
        rooms.iter().find(|(_, room)| gained(room)).map(|(root, _)| *root)
    }
}

impl Room {
    /// An open page that is not `refused`, if one is unused, or no further one may be opened.
    pub(super) fn take(&self, refused: &[PageId]) -> Option<Taken<'_>> {
        let mut state = self.0.lock();
        let full = state.open.len() >= OPEN_MAX;
        let candidates = state.open.iter_mut().filter(|open| !refused.contains(&open.at.page));
        let best = candidates.min_by_key(|open| open.users)?;
        if best.users > 0 && !full {
            return None;
        }
        best.users += 1;
        Some(Taken { room: self, at: best.at })
    }

    /// Opens a page; `None` when somebody did that before.
    pub(super) fn open(&self, at: Numbered) -> Option<Taken<'_>> {
        let mut state = self.0.lock();
        if state.open.iter().any(|open| open.at == at) {
            return None;
        }
        state.open.push(Open { at, users: 1 });
        Some(Taken { room: self, at })
    }

    pub(super) fn close(&self, page: PageId) {
        self.0.lock().open.retain(|open| open.at.page != page);
    }

    /// The page may have more room than it is listed with, or less.
    pub(super) fn note(&self, page: PageRef<'_>) {
        let mut state = self.0.lock();
        if state.gained.len() < GAINED_MAX {
            state.gained.insert(page.link());
        }
    }

    fn take_gained(&self) -> Option<u64> {
        self.0.lock().gained.pop_first()
    }

    /// From which page on the directory is to be searched for `class`; `None` when that is in vain.
    pub(super) fn hand(&self, class: u8) -> Option<u64> {
        let state = self.0.lock();
        (class < state.none_from).then_some(state.hand)
    }

    pub(super) fn set_hand(&self, number: u64) {
        self.0.lock().hand = number;
    }

    /// A search of the whole directory found no page listed with `class`.
    pub(super) fn note_none(&self, class: u8) {
        let mut state = self.0.lock();
        state.none_from = state.none_from.min(class);
    }

    /// A page is listed with `class` now.
    pub(super) fn note_listed(&self, class: u8) {
        let mut state = self.0.lock();
        state.none_from = state.none_from.max(class + 1);
    }
}

impl Taken<'_> {
    pub(super) fn at(&self) -> Numbered {
        self.at
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.room.0.lock();
        if let Some(open) = state.open.iter_mut().find(|open| open.at == self.at) {
            open.users -= 1;
        }
    }
}

/// Bytes of room in a page of rows once its ghosts and slack are gone.
pub(super) fn potential(page: PageRef<'_>) -> usize {
    let (mut gain, mut tail) = (0, 0);
    for slot in 0..page.slot_count() {
        match Cell::read(page, slot) {
            Ok(Some(cell)) if !cell.ghost => {
                gain += cell.bytes.len() - cell.used();
                tail = 0;
            }
            Ok(cell) => {
                gain += cell.map_or(0, |ghost| ghost.bytes.len());
                tail += SLOT_BYTES;
            }
            Err(_) => tail = 0,
        }
    }
    page.free_bytes() + gain + tail
}

impl Heap {
    /// The class that so many bytes of room are listed as.
    pub(super) fn class_of(&self, room: usize) -> u8 {
        (room * usize::from(CLASS_MAX) / self.usable()) as u8
    }

    /// The least class that promises so many bytes.
    pub(super) fn class_for(&self, need: usize) -> u8 {
        (need * usize::from(CLASS_MAX)).div_ceil(self.usable()) as u8
    }

    /// Lists a page as what it is. Nothing may be latched.
    pub(super) fn list_truly(&self, txn: &mut Txn, at: Numbered) -> Result<()> {
        let read = self.pool().read(at.page)?;
        if !self.is_row_page(read.page()) {
            return Ok(());
        }
        let class = self.class_of(potential(read.page()));
        drop(read);
        self.relist(txn, at, class)
    }

    /// Background work: lists a few pages that gained room, of some heap, as what they are. Returns whether
    /// there is more to do. It must not run while pages of dropped heaps are freed.
    pub fn relist_step(space: &Arc<Space>, txns: &Arc<TxnManager>) -> Result<bool> {
        let Some(root) = space.rooms().gainer() else { return Ok(false) };
        let heap = Self::open(space, root);
        let mut system = txns.begin_system()?;
        for _ in 0..RELIST_BATCH {
            let Some(number) = heap.room.take_gained() else { break };
            if let Some(Entry { page, .. }) = heap.entry_at(number)? {
                heap.list_truly(&mut system, Numbered { number, page })?;
            }
        }
        system.commit(Durability::Relaxed)?;
        Ok(space.rooms().gainer().is_some())
    }
}
