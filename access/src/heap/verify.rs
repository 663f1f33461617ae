//! Checking a whole heap, and saying everything that is wrong with it.
//!
//! ```text
//!  directories   kind, owner, levels; all but the last of a level full; no page listed twice
//!  pages         kind, owner, the number they are listed under; slots and cells sound
//!  forwards      lead to a row that says it moved from here, and the other way round
//!  room          listed and true classes compared: counted, not a fault, for nothing depends on it
//! ```
//!
//! The walk copies one page at a time, and a second for each row that has moved. Writers must be kept out.

use argali_base::{PageId, Result};
use argali_pager::PageRef;

use super::cell::{Cell, Kind};
use super::directory::Entry;
use super::room::potential;
use super::{Heap, RowId};
use crate::Survey;

/// What is in a heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// Live rows.
    pub rows: u64,
    /// Of them, those that stand in another page than their home.
    pub moved: u64,
    /// Deleted cells that still take room.
    pub ghosts: u64,
    /// Pages, those of the directory included.
    pub pages: u64,
    /// Pages of rows.
    pub row_pages: u64,
    /// Bytes of live rows.
    pub bytes: u64,
    /// Bytes of room in pages of rows, once ghosts and slack are cleared away.
    pub room: u64,
    /// Pages listed with more room than they have: whoever tries them corrects that.
    pub listed_high: u64,
    /// Pages listed with less room than they have, a class or more: idle until noticed.
    pub listed_low: u64,
}

/// A walk over a heap under way.
struct Check<'c> {
    heap: &'c Heap,
    state: State,
    survey: &'c mut Survey,
    stats: HeapStats,
    /// Number of the next page of rows.
    next: u64,
}

/// What a heap must look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Being freed, last pages first.
    Remains,
}

/// Where a directory stands.
#[derive(Clone, Copy)]
struct Expected {
    page: PageId,
    /// `None` for the root, whose level is what it says.
    level: Option<u8>,
    /// Whether nothing comes behind it.
    last: bool,
}

impl Heap {
    /// Checks every page, cell, forward and directory; claims every page the heap consists of and reports
    /// every fault. Writers must be kept out.
    ///
    /// # Errors
    /// What keeps pages from being read at all (`Io`); damage is reported to `survey`.
    pub fn verify(&self, survey: &mut Survey) -> Result<HeapStats> {
        self.check(State::Whole, survey)
    }

    /// As [`Heap::verify`], for a heap that [`Heap::free_some`] may have begun to free: its last pages may
    /// be gone, and with them what rows of others were forwarded to.
    pub fn verify_remains(&self, survey: &mut Survey) -> Result<HeapStats> {
        self.check(State::Remains, survey)
    }

    fn check(&self, state: State, survey: &mut Survey) -> Result<HeapStats> {
        let stats = HeapStats::default();
        let mut check = Check { heap: self, state, survey, stats, next: 0 };
        check.directory(Expected { page: self.root(), level: None, last: true })?;
        Ok(check.stats)
    }
}

impl Check<'_> {
    fn directory(&mut self, at: Expected) -> Result<()> {
        if !self.survey.claim(at.page) {
            return Ok(());
        }
        self.stats.pages += 1;
        let Some(copy) = self.survey.read(at.page)? else { return Ok(()) };
        let page = copy.page();
        let Some(level) = self.sound_directory(at, page) else { return Ok(()) };
        let count = page.slot_count();
        if !at.last && count < self.heap.fan_out() {
            self.survey.fault(at.page, format_args!("has {count} entries, and others behind it"));
        }
        for slot in 0..count {
            let Some(entry) = Entry::read(page, slot) else {
                self.survey.fault(at.page, format_args!("has an entry {slot} that is none"));
                continue;
            };
            let last = at.last && slot + 1 == count;
            match level.checked_sub(1) {
                None => self.rows(entry)?,
                Some(below) => {
                    let level = Some(below);
                    self.directory(Expected { page: entry.page, level, last })?;
                }
            }
        }
        Ok(())
    }

    fn sound_directory(&mut self, at: Expected, page: PageRef<'_>) -> Option<u8> {
        let what = match (page.check(), self.heap.directory_level(page), at.level) {
            (Err(why), _, _) => format!("has an unsound body: {why}"),
            (_, None, _) => {
                let (kind, level, owner) = (page.kind(), page.level(), page.owner());
                format!("is no directory of it: kind {kind:?}, level {level}, owner p{owner}")
            }
            (_, Some(level), Some(expected)) if level != expected => {
                format!("has level {level} where level {expected} belongs")
            }
            (_, Some(level), _) => return Some(level),
        };
        self.survey.fault(at.page, what);
        None
    }

    /// A page of rows.
    fn rows(&mut self, entry: Entry) -> Result<()> {
        let (id, number) = (entry.page, self.next);
        self.next += 1;
        if !self.survey.claim(id) {
            return Ok(());
        }
        self.stats.pages += 1;
        self.stats.row_pages += 1;
        let Some(copy) = self.survey.read(id)? else { return Ok(()) };
        let page = copy.page();
        if let Err(why) = page.check() {
            self.survey.fault(id, format_args!("has an unsound body: {why}"));
            return Ok(());
        }
        if !self.heap.is_row_page(page) {
            let (kind, owner) = (page.kind(), page.owner());
            self.survey.fault(id, format_args!("holds no rows: kind {kind:?}, owner p{owner}"));
            return Ok(());
        }
        if page.link() != number {
            let what = format!("is listed as number {number}, but says {}", page.link());
            self.survey.fault(id, what);
        }
        self.room(entry, page);
        for slot in 0..page.slot_count() {
            self.cell(page, slot)?;
        }
        Ok(())
    }

    fn room(&mut self, entry: Entry, page: PageRef<'_>) {
        let room = potential(page);
        self.stats.room += room as u64;
        let class = self.heap.class_of(room);
        self.stats.listed_high += u64::from(entry.class > class);
        self.stats.listed_low += u64::from(entry.class < class);
    }

    fn cell(&mut self, page: PageRef<'_>, slot: usize) -> Result<()> {
        let cell = match Cell::read(page, slot) {
            Ok(Some(cell)) => cell,
            Ok(None) => return Ok(()),
            Err(_) => {
                self.survey.fault(page.id(), format_args!("has a cell {slot} that is none"));
                return Ok(());
            }
        };
        if cell.ghost {
            self.stats.ghosts += 1;
            return Ok(());
        }
        let here = RowId { page: page.id(), slot: slot as u16 };
        match cell.kind {
            Kind::Row => self.row(cell),
            Kind::Moved { home } => {
                self.row(cell);
                self.stats.moved += 1;
                self.counterpart(here, home, Kind::Forward { to: here })?;
            }
            Kind::Forward { to } => self.counterpart(here, to, Kind::Moved { home: here })?,
        }
        Ok(())
    }

    fn row(&mut self, cell: Cell<'_>) {
        self.stats.rows += 1;
        self.stats.bytes += cell.row.len() as u64;
    }

    /// What stands at `there` must be `kind`, in a page of this heap.
    fn counterpart(&mut self, here: RowId, there: RowId, kind: Kind) -> Result<()> {
        if self.state == State::Remains {
            return Ok(());
        }
        let copy = self.survey.read(there.page)?;
        let found = copy
            .as_ref()
            .filter(|copy| self.heap.is_row_page(copy.page()))
            .and_then(|copy| Cell::read(copy.page(), usize::from(there.slot)).ok().flatten());
        if found.is_none_or(|cell| cell.kind != kind || cell.ghost) {
            let cell = found.map(|cell| (cell.kind, cell.ghost));
            let what = format!("cell {} points to {there}, which is {cell:?}", here.slot);
            self.survey.fault(here.page, what);
        }
        Ok(())
    }
}
