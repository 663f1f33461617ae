//! A row enters the heap.
//!
//! It takes a free slot, or the next new one. An id may have been locked by those who found no row there
//! and rely on it, or by whoever deleted the row that had it and has not ended: such a slot is passed over,
//! and a new slot that is barred is waited for, with nothing latched.

use argali_base::{PageId, Result};
use argali_pager::SLOT_BYTES;
use argali_txn::Txn;

use super::cell::push_cell;
use super::change::{Part, Plan};
use super::write::{Entry, OP_BYTES, entry};
use super::{Heap, RowId, undo};
use crate::intention::KEY_X;

impl Heap {
    /// Adds a row and returns its id.
    ///
    /// # Errors
    /// `TooLarge` beyond [`Heap::row_bytes_max`], `LogFull`, `Full`; deadlock and lock timeout (retryable);
    /// `Corrupt`, `Io`.
    pub fn insert(&self, txn: &mut Txn, row: &[u8]) -> Result<RowId> {
        self.check_size(row)?;
        let locks = self.lock_rows(txn)?;
        let mut cell = Vec::new();
        push_cell(&mut cell, None, row);
        self.place(txn, cell.len() + SLOT_BYTES, Vec::new(), |txn, page| {
            self.insert_into(txn, page, &cell, locks)
        })
    }

    /// `None` when the page has no room.
    fn insert_into(
        &self,
        txn: &mut Txn,
        page: PageId,
        cell: &[u8],
        locks: bool,
    ) -> Result<Option<RowId>> {
        loop {
            txn.admit(OP_BYTES + cell.len() + undo::body_len(1, 0), 1)?;
            let latched = self.pool().write(page)?;
            self.check_row_page(latched.page())?;
            let name = |slot| RowId { page, slot }.lock_name(self.root());
            let may_take = |slot| !locks || txn.try_lock(name(slot), KEY_X);
            match entry(latched.page(), cell, may_take) {
                Entry::At(slot, op) => {
                    let id = RowId { page, slot };
                    let plan = Plan::new(self, &mut [Part { at: id, op, before: &[] }]);
                    plan.carry_out(txn, &mut [latched]);
                    return Ok(Some(id));
                }
                Entry::Barred(slot) => {
                    drop(latched);
                    txn.lock(name(slot), KEY_X)?;
                }
                Entry::Full => return Ok(None),
            }
        }
    }
}
