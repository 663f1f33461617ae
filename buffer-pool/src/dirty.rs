//! The dirty page table: frames that are dirty, and pages written but not yet covered by a sync.
//!
//! ```text
//!  frame dirty ──write──► unsynced, in the generation of the last sync begun ──later sync──► gone
//!
//!  sync 4 begins         sync 5 begins         sync 5 ends: everything written before it began is
//!     │  p7 written (4)     │  p9 written (5)     │         durable: generations below 5 go, p9 stays
//!  ───┴─────────────────────┴─────────────────────┴───►
//! ```
//!
//! A page that was written is not a page that is durable: the disk may still forget it. It stays in the
//! table with the recLSN it had until a sync *begun after* the write succeeded, whatever its frame does
//! meanwhile: it may be evicted, or be dirty again with a later recLSN.

use std::collections::{BTreeMap, VecDeque};

use argali_base::sync::Mutex;
use argali_base::{Lsn, PageId};
use argali_wal::DirtyPage;

use crate::frame::Frames;

/// Pages written since some sync began.
#[derive(Debug, Default)]
struct Generation {
    /// Number of the last sync begun before these writes ended.
    after_sync: u64,
    pages: BTreeMap<PageId, Lsn>,
}

#[derive(Debug, Default)]
struct Table {
    syncs_begun: u64,
    /// Oldest first; the last one takes new pages.
    generations: VecDeque<Generation>,
}

/// Pages written but not covered by a sync.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    table: Mutex<Table>,
}

impl Unsynced {
    /// The write of `page`, dirty since `rec_lsn`, ended.
    pub(crate) fn insert(&self, page: PageId, rec_lsn: Lsn) {
        let mut table = self.table.lock();
        let after_sync = table.syncs_begun;
        if table.generations.back().is_none_or(|last| last.after_sync != after_sync) {
            table.generations.push_back(Generation { after_sync, ..Generation::default() });
        }
        let pages = &mut table.generations.back_mut().expect("there is one now").pages;
        let oldest = pages.entry(page).or_insert(rec_lsn);
        *oldest = rec_lsn.min(*oldest);
    }

    /// A sync begins: its number.
    pub(crate) fn begin_sync(&self) -> u64 {
        let mut table = self.table.lock();
        table.syncs_begun += 1;
        table.syncs_begun
    }

    /// Sync `number` succeeded: what was written before it began is durable.
    pub(crate) fn end_sync(&self, number: u64) {
        self.table.lock().generations.retain(|pages| pages.after_sync >= number);
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().generations.iter().map(|pages| pages.pages.len()).sum()
    }

    fn for_each(&self, mut see: impl FnMut(PageId, Lsn)) {
        for generation in &self.table.lock().generations {
            generation.pages.iter().for_each(|(page, rec_lsn)| see(*page, *rec_lsn));
        }
    }
}

/// The whole table, by page id, each page once with its least recLSN. Clears `out` first.
pub(crate) fn collect(frames: &Frames, unsynced: &Unsynced, out: &mut Vec<DirtyPage>) {
    out.clear();
    // In this order: a page enters `unsynced` before its frame turns clean (rule B3).
    frames.for_each_dirty(|page, rec_lsn| out.push(DirtyPage { page, rec_lsn }));
    unsynced.for_each(|page, rec_lsn| out.push(DirtyPage { page, rec_lsn }));
    out.sort_unstable_by_key(|dirty| (dirty.page, dirty.rec_lsn));
    out.dedup_by_key(|dirty| dirty.page);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mutations;

    fn pages(unsynced: &Unsynced) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        unsynced.for_each(|page, lsn| all.push((page.get(), lsn.get())));
        all
    }

    #[test]
    fn a_sync_begun_after_the_write_takes_the_page_out() {
        let unsynced = Unsynced::default();
        unsynced.insert(PageId::new(7), Lsn::new(100));
        let sync = unsynced.begin_sync();
        assert_eq!(pages(&unsynced), [(7, 100)], "begun is not ended");
        unsynced.end_sync(sync);
        assert_eq!(pages(&unsynced), []);
    }

    #[test]
    fn a_sync_begun_before_the_write_does_not() {
        let unsynced = Unsynced::default();
        let first = unsynced.begin_sync();
        unsynced.insert(PageId::new(7), Lsn::new(100));
        let second = unsynced.begin_sync();
        unsynced.insert(PageId::new(9), Lsn::new(200));
        unsynced.end_sync(first);
        assert_eq!(pages(&unsynced), [(7, 100), (9, 200)]);
        unsynced.end_sync(second);
        assert_eq!(pages(&unsynced), [(9, 200)]);
    }

    #[test]
    fn a_page_written_around_every_sync_does_not_pin_its_first_rec_lsn() {
        let unsynced = Unsynced::default();
        for round in 1..10 {
            let sync = unsynced.begin_sync();
            unsynced.insert(PageId::new(7), Lsn::new(round * 100));
            unsynced.end_sync(sync);
        }
        assert_eq!(pages(&unsynced), [(7, 900)]);
    }

    #[test]
    fn the_table_names_each_page_once_with_its_least_rec_lsn() {
        let (frames, unsynced) = (Frames::new(2, Mutations::default()), Unsynced::default());
        frames.occupy(0, PageId::new(7));
        frames.dirty_from(0, Lsn::new(500), false);
        unsynced.insert(PageId::new(9), Lsn::new(300));
        unsynced.insert(PageId::new(7), Lsn::new(100));
        let mut out = vec![DirtyPage { page: PageId::new(1), rec_lsn: Lsn::new(1) }];
        collect(&frames, &unsynced, &mut out);
        let dirty = |page, lsn| DirtyPage { page: PageId::new(page), rec_lsn: Lsn::new(lsn) };
        assert_eq!(out, [dirty(7, 100), dirty(9, 300)]);
    }
}
