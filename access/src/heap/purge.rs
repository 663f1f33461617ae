//! Clearing away the ghosts and the slack of a page.
//!
//! ```text
//!  before  │ row │ ghost │ row ~slack │ forward ~slack │ ghost │ free │
//!  after   │ row │ free  │ row │        forward │                          behind the last cell: cut off
//! ```
//!
//! One question: may an active transaction want the room back? Not if the pageLSN is below `Commit_LSN`:
//! then every change on the page is committed for good, or taken back. Whether somebody still has a lock on
//! a ghost's id is asked when the slot is to be used again ([`super::insert`]): a lock does not need bytes.
//! The record is never undone.

use argali_base::{PageId, Result};
use argali_pager::{PageOp, PageRef};
use argali_txn::{Edit, Txn, Undo};

use super::Heap;
use super::cell::Cell;
use super::room::potential;
use super::undo::free;

impl Heap {
    /// Whether the page now has `need` free bytes, cleared if that was what it took. Nothing may be latched.
    pub(super) fn purge(&self, txn: &mut Txn, page: PageId, need: usize) -> Result<bool> {
        let worth = |page: PageRef<'_>| {
            self.space().settled(page.lsn()) && self.is_row_page(page) && potential(page) >= need
        };
        let read = self.pool().read(page)?;
        if read.page().free_bytes() >= need || !worth(read.page()) {
            return Ok(read.page().free_bytes() >= need);
        }
        drop(read);
        // Shortened cells are logged, and an operation for each.
        txn.admit(2 * self.usable(), 1)?;
        let mut page = self.pool().write(page)?;
        if !worth(page.page()) {
            return Ok(false);
        }
        let copy = page.page().bytes().to_vec();
        let ops = clearance(PageRef::new(&copy));
        if !ops.is_empty() {
            txn.update(&mut [Edit { page: &mut page, ops: &ops }], Undo::Never);
        }
        Ok(page.page().free_bytes() >= need)
    }
}

/// What to free, cut back and cut off.
fn clearance(page: PageRef<'_>) -> Vec<PageOp<'_>> {
    let mut ops = Vec::new();
    let mut end = 0;
    for slot in 0..page.slot_count() {
        let at = slot as u16;
        match Cell::read(page, slot) {
            Ok(Some(cell)) if cell.ghost => ops.push(free(at)),
            Ok(Some(cell)) => {
                if cell.used() < cell.bytes.len() {
                    let cell = &cell.bytes[..cell.used()];
                    ops.push(PageOp::Replace { slot: at, head: 0, cell });
                }
                end = slot + 1;
            }
            Ok(None) => {}
            // Damage is for those to report who want the row.
            Err(_) => end = slot + 1,
        }
    }
    if end < page.slot_count() {
        ops.push(PageOp::Truncate { slot: end as u16 });
    }
    ops
}
