//! The directory: which pages the heap has, in the order they were added, and how much room each may have.
//!
//! ```text
//!  entry    class u8 │ page u64                     one cell
//!
//!  level 0  the n-th entry is the n-th page of rows; a page of rows carries its number n as its link
//!  level k  entries cover F^k pages each, F = entries a directory page holds; all but the last are full
//!
//!  page 1234 with F = 237:  root, level 1 ─ entry 5 ─► directory, level 0 ─ entry 49 ─► the page
//! ```
//!
//! Entries are only ever added at the end, and the root, when it is full, hands all of its entries to a new
//! page below it: so the way to a number changes, but where it leads does not. That is why directories are
//! read without holding one while going to the next.
//!
//! The class of an entry is a hint (see [`super::room`]): at level 0 for its page, above for the best one
//! of what it covers.

use argali_base::{PageId, Result};
use argali_buffer_pool::PageRead;
use argali_pager::{PageKind, PageOp, PageRef, SLOT_BYTES};
use argali_txn::{Edit, Txn, Undo};

use super::Heap;

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 9;
/// Highest directory believed in: with the smallest pages, 237^7 pages of rows.
pub(super) const LEVEL_MAX: u8 = 6;
/// Log bytes of changing an entry's class, generously.
const RELIST_BYTES: usize = 32;

/// What a directory says of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) class: u8,
    pub(super) page: PageId,
}

impl Entry {
    /// The entry in `slot`; `None` when there is none.
    pub(super) fn read(directory: PageRef<'_>, slot: usize) -> Option<Self> {
        let bytes: &[u8; ENTRY_BYTES] = directory.cell(slot)?.try_into().ok()?;
        let (class, page) = bytes.split_first()?;
        Some(Self { class: *class, page: PageId::new(u64::from_le_bytes(page.try_into().ok()?)) })
    }

    pub(super) fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [self.class; ENTRY_BYTES];
        bytes[1..].copy_from_slice(&self.page.get().to_le_bytes());
        bytes
    }
}

/// A page of rows, and its number in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) page: PageId,
}

/// A directory on the way to a page of rows, and where it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) directory: PageId,
    pub(super) slot: usize,
    pub(super) entry: Entry,
}

impl Heap {
    /// Entries a directory page holds.
    pub(super) fn fan_out(&self) -> usize {
        self.usable() / (ENTRY_BYTES + SLOT_BYTES)
    }

    /// Pages of rows that one entry of a directory at `level` covers.
    pub(super) fn span(&self, level: u8) -> u64 {
        // 3854 entries, the most there can be, to the sixth power exceed 64 bits: more than all page ids.
        (self.fan_out() as u64).saturating_pow(u32::from(level))
    }

    /// A directory page of this heap and its level, which must be one less than that `above` it, so that
    /// every walk down ends.
    pub(super) fn directory(&self, id: PageId, above: Option<u8>) -> Result<(PageRead<'_>, u8)> {
        let read = self.pool().read(id)?;
        match self.directory_level(read.page()) {
            Some(level) if above.is_none_or(|above| level + 1 == above) => Ok((read, level)),
            Some(level) => Err(self.corrupt(id, format!("has level {level} under {above:?}"))),
            None => Err(self.corrupt(id, "is no directory of it")),
        }
    }

    /// Level of a sound directory page of this heap.
    pub(super) fn directory_level(&self, page: PageRef<'_>) -> Option<u8> {
        let (level, count) = (page.level(), page.slot_count());
        let is_one = page.kind() == Some(PageKind::Directory)
            && page.owner() == self.root().get()
            && level <= LEVEL_MAX
            && count <= self.fan_out();
        is_one.then_some(level)
    }

    pub(super) fn entry(&self, directory: PageRef<'_>, slot: usize) -> Result<Entry> {
        let damaged = || self.corrupt(directory.id(), format!("entry {slot} is none"));
        Entry::read(directory, slot).ok_or_else(damaged)
    }

    /// The entry of the page of rows with this number; `None` behind the last.
    pub(super) fn entry_at(&self, number: u64) -> Result<Option<Entry>> {
        Ok(self.way_to(number)?.last().map(|step| step.entry))
    }

    /// The way from the root to page `number`; empty when there is no such page.
    fn way_to(&self, number: u64) -> Result<Vec<Step>> {
        let mut way = Vec::new();
        let (mut id, mut rest, mut above) = (self.root(), number, None);
        loop {
            let (read, level) = self.directory(id, above)?;
            let slot = rest / self.span(level);
            if slot >= read.page().slot_count() as u64 {
                return Ok(Vec::new());
            }
            let slot = slot as usize;
            let entry = self.entry(read.page(), slot)?;
            way.push(Step { directory: id, slot, entry });
            if level == 0 {
                return Ok(way);
            }
            (id, rest, above) = (entry.page, rest % self.span(level), Some(level));
        }
    }

    /// The first page from number `from` on that is listed with at least `class`. Corrects entries of
    /// directories that promise more than what is below them.
    pub(super) fn search(&self, txn: &mut Txn, from: u64, class: u8) -> Result<Option<Numbered>> {
        self.search_below(txn, (self.root(), 0, None), from, class)
    }

    fn search_below(
        &self,
        txn: &mut Txn,
        (directory, base, above): (PageId, u64, Option<u8>),
        from: u64,
        class: u8,
    ) -> Result<Option<Numbered>> {
        let mut next = 0;
        loop {
            let (read, level) = self.directory(directory, above)?;
            let skipped = from.saturating_sub(base) / self.span(level);
            let first = next.max(usize::try_from(skipped).unwrap_or(usize::MAX));
            let Some((slot, entry)) = self.first_listed(read.page(), first, class)? else {
                return Ok(None);
            };
            drop(read);
            let number = base + slot as u64 * self.span(level);
            if level == 0 {
                return Ok(Some(Numbered { number, page: entry.page }));
            }
            let below = (entry.page, number, Some(level));
            let found = self.search_below(txn, below, from, class)?;
            if found.is_some() {
                return Ok(found);
            }
            if from <= number {
                let best = self.best_class(entry.page)?;
                self.set_class(txn, Step { directory, slot, entry }, best)?;
            }
            next = slot + 1;
        }
    }

    /// The first entry from slot `first` on that is listed with at least `class`.
    fn first_listed(
        &self,
        directory: PageRef<'_>,
        first: usize,
        class: u8,
    ) -> Result<Option<(usize, Entry)>> {
        for slot in first..directory.slot_count() {
            let entry = self.entry(directory, slot)?;
            if entry.class >= class {
                return Ok(Some((slot, entry)));
            }
        }
        Ok(None)
    }

    /// The greatest class listed in a directory; 0 in an empty one.
    pub(super) fn best_class(&self, directory: PageId) -> Result<u8> {
        let (read, _) = self.directory(directory, None)?;
        let mut entries = (0..read.page().slot_count()).map(|slot| self.entry(read.page(), slot));
        entries.try_fold(0, |best, entry| Ok(best.max(entry?.class)))
    }

    /// Lists page `at` with `class`, and sees to it that the directories above promise no less. Nothing may
    /// be latched.
    pub(super) fn relist(&self, txn: &mut Txn, at: Numbered, class: u8) -> Result<()> {
        let way = self.way_to(at.number)?;
        let Some((own, above)) = way.split_last() else { return Ok(()) };
        if own.entry.page == at.page && own.entry.class != class {
            self.set_class(txn, *own, class)?;
            self.room.note_listed(class);
        }
        for step in above.iter().rev().filter(|step| step.entry.class < class) {
            self.set_class(txn, *step, class)?;
        }
        Ok(())
    }

    /// One record, never undone. Does nothing if the entry is not where it was: it is only a hint.
    pub(super) fn set_class(&self, txn: &mut Txn, at: Step, class: u8) -> Result<()> {
        txn.admit(RELIST_BYTES, 1)?;
        let mut page = self.pool().write(at.directory)?;
        let entry = Entry::read(page.page(), at.slot);
        let is_there = entry.is_some_and(|entry| entry.page == at.entry.page);
        if is_there && self.directory_level(page.page()).is_some() {
            let ops = [PageOp::Patch { slot: at.slot as u16, at: 0, bytes: &[class] }];
            txn.update(&mut [Edit { page: &mut page, ops: &ops }], Undo::Never);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_documented_bytes() {
        let entry = Entry { class: 9, page: PageId::new(0x0102) };
        assert_eq!(entry.encode(), [9, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
