//! Writing ahead of a checkpoint: what the next one would write, a little at a time until it comes.
//!
//! ```text
//!  log    ──┤ checkpoint ├─────────────────────────────────┤ checkpoint ├──►
//!             dirty: p3 p4 p7 p9                              finds p3 … p9 written
//!                    └─ p3 ──── p4 ──── p7 ──── p9 ─┘
//! ```
//!
//! A checkpoint that writes thousands of pages takes the processor and the disk from everybody else until it
//! is through, and so does the sync behind it. The pages that [`Flush::Old`](crate::Flush::Old) writes are known
//! one interval before: those that the last checkpoint recorded as dirty. They are written as the policy says
//! that the interval passes, in order of their ids. Whatever was not, for whatever reason, the checkpoint writes.
//!
//! Left out: following the pages. One that was written meanwhile and changed again is written once too often.

use argali_base::PageId;
use argali_wal::DirtyPage;

/// Pages of one write; fewer only at the end, for each write has syncs of its own.
const BATCH: usize = 32;

/// The pages of the last checkpoint's table, and how far they were written.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    pages: Vec<PageId>,
    done: usize,
}

impl Ahead {
    /// A checkpoint recorded `dirty`, sorted by page.
    pub(crate) fn start(&mut self, dirty: &[DirtyPage]) {
        self.pages.clear();
        self.pages.extend(dirty.iter().map(|dirty| dirty.page));
        self.done = 0;
    }

    /// Pages of the table.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// The next pages to write, if `by_now` of them should be written; none until a batch is due.
    pub(crate) fn due(&mut self, by_now: usize) -> Vec<PageId> {
        let end = by_now.min(self.pages.len()).min(self.done + BATCH);
        if end < self.pages.len().min(self.done + BATCH) {
            return Vec::new();
        }
        let due = self.pages[self.done..end].to_vec();
        self.done = end;
        due
    }
}

#[cfg(test)]
mod tests {
    use argali_base::Lsn;

    use super::*;

    #[test]
    fn pages_come_by_the_batch_each_once_and_not_before_they_are_due() {
        let page = |page| DirtyPage { page: PageId::new(page), rec_lsn: Lsn::FIRST };
        let table: Vec<_> = (0..70).map(page).collect();
        let mut ahead = Ahead::default();
        assert!(ahead.due(usize::MAX).is_empty(), "no checkpoint yet");
        ahead.start(&table);
        assert!(ahead.due(31).is_empty());
        let ids = |due: Vec<PageId>| due.iter().map(|id| id.get()).collect::<Vec<_>>();
        assert_eq!(ids(ahead.due(60)), (0..32).collect::<Vec<_>>());
        assert!(ahead.due(60).is_empty(), "28 are no batch");
        assert_eq!(ids(ahead.due(69)), (32..64).collect::<Vec<_>>());
        assert!(ahead.due(69).is_empty());
        assert_eq!(ids(ahead.due(1000)), (64..70).collect::<Vec<_>>(), "the last ones");
        assert!(ahead.due(1000).is_empty());
        ahead.start(&table[..1]);
        assert_eq!(ids(ahead.due(1)), [0]);
    }
}
