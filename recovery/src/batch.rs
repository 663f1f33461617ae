//! Changes on their way from the log to the pages: a batch of them, in log order.
//!
//! ```text
//!  scan ─► p7@64 ops │ p9@64 ops │ p7@180 ops │ …      one buffer for the operations of all
//! ```
//!
//! A batch has its own copy of the operations, so the scan may go on while somebody else applies it, and
//! whoever applies it knows which pages come next and has the processor fetch them meanwhile: a page that
//! was not touched lately costs several memory accesses, each as long as everything else redo does with a
//! record. Batches are used again, so nothing is allocated per change.

use argali_base::{Lsn, PageId};
use argali_wal::Change;

/// A batch is handed on when it has so many changes, or so many bytes of operations.
const CHANGES_MAX: usize = 512;
const BYTES_MAX: usize = 64 << 10;

/// Changes in log order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    changes: Vec<Queued>,
    ops: Vec<u8>,
}

#[derive(Debug)]
struct Queued {
    lsn: Lsn,
    page: PageId,
    page_prev: Lsn,
    /// Where its operations end; they begin where those before it end.
    ops_end: usize,
}

impl Batch {
    /// Adds what the record at `lsn` does to one page.
    pub(crate) fn push(&mut self, lsn: Lsn, change: &Change<'_>) {
        self.ops.extend_from_slice(change.ops);
        let Change { page, page_prev, .. } = *change;
        self.changes.push(Queued { lsn, page, page_prev, ops_end: self.ops.len() });
    }

    /// Whether it should be handed on.
    pub(crate) fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES_MAX || self.ops.len() >= BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The page of change `at`; `None` behind the last one.
    pub(crate) fn page(&self, at: usize) -> Option<PageId> {
        self.changes.get(at).map(|change| change.page)
    }

    /// The changes with the LSNs of their records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lsn, Change<'_>)> {
        let mut begin = 0;
        self.changes.iter().map(move |queued| {
            let Queued { lsn, page, page_prev, ops_end } = *queued;
            let ops = &self.ops[std::mem::replace(&mut begin, ops_end)..ops_end];
            (lsn, Change { page, page_prev, ops })
        })
    }

    /// Forgets the changes and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
        self.ops.clear();
    }
}
