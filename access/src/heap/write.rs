//! What insert, update and delete have in common.
//!
//! ```text
//!  lock the row (X) ─► find it ─► admit log space ─► latch its pages ─► change: one record
//!                        │           exact: the row
//!                        │           is known
//!                        └── not there: NotFound
//! ```
//!
//! The row's lock comes first, with nothing latched. From then on nobody else changes its cells; somebody
//! may purge its page, which takes slack and ghosts away, not rows. So what was found stays true, and what
//! is different under the latches is damage.

use argali_base::{Error, Result};
use argali_buffer_pool::PageWrite;
use argali_pager::{PageOp, PageRef, SLOT_BYTES};
use argali_txn::{LockMode, Txn};

use super::cell::{Cell, Kind};
use super::{Heap, RowId};
use crate::intention::{KEY_X, intend};

/// Log bytes of the operations on one page beside the bytes they carry, generously.
pub(super) const OP_BYTES: usize = 16;

/// The way a cell enters a page.
pub(super) enum Entry<'a> {
    /// In a slot, by an operation.
    At(u16, PageOp<'a>),
    /// There is room, but the next slot may not be taken.
    Barred(u16),
    /// There is no room.
    Full,
}

impl Heap {
    pub(super) fn check_size(&self, row: &[u8]) -> Result<()> {
        let (size, limit) = (row.len(), self.row_bytes_max());
        if size > limit {
            return Err(Error::TooLarge { what: "row", size, limit });
        }
        Ok(())
    }

    /// The intentions of a writer; whether rows must be locked, too.
    pub(super) fn lock_rows(&self, txn: &mut Txn) -> Result<bool> {
        Ok(!intend(txn, self.root(), LockMode::IX)?.covers(LockMode::X))
    }

    /// X on a row, with the intentions above it. Nothing may be latched.
    pub(super) fn lock_for_write(&self, txn: &mut Txn, id: RowId) -> Result<()> {
        if self.lock_rows(txn)? {
            txn.lock(id.lock_name(self.root()), KEY_X)?;
        }
        Ok(())
    }

    /// The cell that must stand at `at`, live and of this kind.
    pub(super) fn expect<'a>(
        &self,
        page: &'a PageWrite<'_>,
        at: RowId,
        kind: Kind,
    ) -> Result<Cell<'a>> {
        match self.cell(page.page(), at.slot)? {
            Some(cell) if cell.kind == kind && !cell.ghost => Ok(cell),
            found => {
                let what = format!("{at} holds {found:?} where {kind:?} belongs");
                Err(self.corrupt(at.page, what))
            }
        }
    }
}

/// What stands at the place of a row: itself if that is its home.
pub(super) fn kind_at(place: RowId, home: RowId) -> Kind {
    if place == home { Kind::Row } else { Kind::Moved { home } }
}

/// How a cell enters a page: in a free slot that may be taken, or in a new one.
pub(super) fn entry<'a>(
    page: PageRef<'_>,
    cell: &'a [u8],
    mut may_take: impl FnMut(u16) -> bool,
) -> Entry<'a> {
    let free = page.free_bytes();
    if free < cell.len() {
        return Entry::Full;
    }
    let count = page.slot_count();
    for slot in (0..count).filter(|slot| page.cell(*slot).is_some_and(<[u8]>::is_empty)) {
        let slot = slot as u16;
        if may_take(slot) {
            return Entry::At(slot, PageOp::Replace { slot, head: 0, cell });
        }
    }
    if free < cell.len() + SLOT_BYTES {
        return Entry::Full;
    }
    let slot = count as u16;
    if may_take(slot) {
        return Entry::At(slot, PageOp::Insert { slot, head: 0, cell });
    }
    Entry::Barred(slot)
}
