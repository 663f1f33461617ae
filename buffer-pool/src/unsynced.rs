//! Pages that were written in place but are not yet covered by a data sync.
//!
//! ```text
//!  dirty frame ──write ends──► written ──sync begins──► syncing ──sync succeeds──► gone
//!                                 ▲                        │
//!                                 └── next writes go here  └─ sync fails: the database is poisoned
//! ```
//!
//! A write that the system merely accepted may still be lost, so its page stays in the dirty page table,
//! with the recLSN of the copy, independent of the frame, which may hold another page by then. Only a sync
//! *begun after* the write ended proves anything about it; a sync already under way proves nothing.

use argali_base::sync::Mutex;
use argali_base::{Lsn, PageId};
use argali_wal::DirtyPage;

/// Both halves of the table, under one lock.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    written: Vec<DirtyPage>,
    syncing: Vec<DirtyPage>,
}

impl Unsynced {
    /// A write of `page` ended; `rec_lsn` is that of the copy. Call before the frame is marked clean.
    pub(crate) fn add(&self, page: PageId, rec_lsn: Lsn) {
        self.halves.lock().written.push(DirtyPage { page, rec_lsn });
    }

    /// A sync begins: what is written so far is what it will prove.
    pub(crate) fn begin_sync(&self) {
        let mut halves = self.halves.lock();
        let mut written = std::mem::take(&mut halves.written);
        halves.syncing.append(&mut written);
    }

    /// That sync succeeded.
    pub(crate) fn end_sync(&self) {
        self.halves.lock().syncing.clear();
    }

    /// Every entry; a page may occur more than once.
    pub(crate) fn collect(&self, out: &mut Vec<DirtyPage>) {
        let halves = self.halves.lock();
        out.extend_from_slice(&halves.written);
        out.extend_from_slice(&halves.syncing);
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        let halves = self.halves.lock();
        halves.written.len() + halves.syncing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sync_begun_after_the_write_removes_the_entry() {
        let table = Unsynced::default();
        let entries = |table: &Unsynced| {
            let mut out = Vec::new();
            table.collect(&mut out);
            out.iter().map(|entry| entry.page.get()).collect::<Vec<_>>()
        };
        table.add(PageId::new(1), Lsn::new(100));
        table.begin_sync();
        table.add(PageId::new(2), Lsn::new(200));
        table.end_sync();
        assert_eq!(entries(&table), [2], "the write during the sync stays");
        table.begin_sync();
        assert_eq!(entries(&table), [2], "a sync that has not ended proves nothing");
        table.end_sync();
        assert_eq!(table.len(), 0);
    }
}
