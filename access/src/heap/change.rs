//! One change: what it does to each cell, what its undo puts back, and the latches it takes.
//!
//! ```text
//!  parts   home p9.3: forward to p4.0     before: its first 11 bytes        latch p4, p9
//!          new  p4.0: enter               before: nothing, it was free      log one record
//! ```
//!
//! - **H1** A part's `before` is every byte of the cell that its operation overwrites. Cells never get
//!   shorter while a transaction is active on the page, so undo in reverse order finds each byte as it was.
//! - **H2** The parts of a change stand in different pages, in a record's order: by ascending id.
//!
//! Pages are latched in that order, too, so no two changes wait for each other. Only the first is waited
//! for, unless the attempt is patient.

use argali_buffer_pool::PageWrite;
use argali_pager::PageOp;
use argali_txn::{Edit, Txn, Undo};

use super::{Heap, RowId, undo};
use crate::HEAP_OWNER;
use crate::attempt::{Attempt, Stop};

/// What happens to one cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'o, 'b> {
    pub(super) at: RowId,
    pub(super) op: PageOp<'o>,
    /// What stands at the beginning of the cell; nothing when the slot is free.
    pub(super) before: &'b [u8],
}

/// A change ready to be logged.
pub(super) struct Plan<'o> {
    /// One a page.
    ops: Vec<PageOp<'o>>,
    body: Vec<u8>,
}

impl<'o> Plan<'o> {
    pub(super) fn new(heap: &Heap, parts: &mut [Part<'o, '_>]) -> Self {
        parts.sort_unstable_by_key(|part| part.at);
        let before: Vec<_> = parts.iter().map(|part| (part.at, part.before)).collect();
        let body = undo::body(heap.root(), &before);
        Self { ops: parts.iter().map(|part| part.op).collect(), body }
    }

    /// What takes a change back has no undo itself.
    pub(super) fn undoing(ops: Vec<PageOp<'o>>) -> Self {
        Self { ops, body: Vec::new() }
    }

    /// Logs and applies: one record.
    pub(super) fn carry_out(&self, txn: &mut Txn, pages: &mut [PageWrite<'_>]) {
        assert_eq!(pages.len(), self.ops.len(), "H2: one part a page");
        let pairs = pages.iter_mut().zip(&self.ops);
        let mut edits: Vec<_> =
            pairs.map(|(page, op)| Edit { page, ops: std::slice::from_ref(op) }).collect();
        txn.update(&mut edits, Undo::Logical { owner: HEAP_OWNER, body: &self.body });
    }
}

impl Heap {
    /// Latches the pages of these cells, which ascend.
    pub(super) fn latch(&self, ids: &[RowId], patient: bool) -> Attempt<Vec<PageWrite<'_>>> {
        assert!(ids.is_sorted_by(|a, b| a.page < b.page), "H2: {ids:?}");
        let mut latched = Vec::with_capacity(ids.len());
        for RowId { page: id, .. } in ids {
            let page = if latched.is_empty() || patient {
                self.pool().write(*id)?
            } else if let Some(page) = self.pool().try_write(*id)? {
                page
            } else {
                latched.clear();
                // With nothing latched, it may be brought in and waited for.
                drop(self.pool().read(*id)?);
                return Err(Stop::Again);
            };
            self.check_row_page(page.page())?;
            latched.push(page);
        }
        Ok(latched)
    }
}

/// The latched page of a cell.
///
/// # Panics
/// When it is not among them.
pub(super) fn page_of<'g, 'p>(pages: &'g [PageWrite<'p>], at: RowId) -> &'g PageWrite<'p> {
    pages.iter().find(|page| page.id() == at.page).expect("latched by the caller")
}
