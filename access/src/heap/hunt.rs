//! Finding a page with room for a cell.
//!
//! ```text
//!  open page ──► try it ── room? ──► done
//!      ▲            │ no
//!      │            ├─ clear away what nobody wants, try again
//!      │            └─ close it: list what room it has, look on
//!      │
//!      ├── listed in the directory, from the hand on    a few looks, then
//!      └── a new page
//! ```

use argali_base::{PageId, Result};
use argali_txn::Txn;

use super::Heap;
use super::room::Taken;

/// Pages of the directory's choice that are tried before the heap grows: its entries may promise room that
/// only becomes free when some long transaction ends.
const LOOKS_MAX: u32 = 8;

/// A search under way.
struct Hunt {
    class: u8,
    refused: Vec<PageId>,
    looks: u32,
}

impl Heap {
    /// Offers pages to `enter` until one takes the cell, which needs `need` bytes. Pages in `refused` are not
    /// offered. Nothing may be latched.
    pub(super) fn place<T>(
        &self,
        txn: &mut Txn,
        need: usize,
        refused: Vec<PageId>,
        mut enter: impl FnMut(&mut Txn, PageId) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut hunt = Hunt { class: self.class_for(need), refused, looks: 0 };
        loop {
            let taken = self.next_page(txn, &mut hunt)?;
            let at = taken.at();
            if let Some(done) = enter(txn, at.page)? {
                return Ok(done);
            }
            if self.purge(txn, at.page, need)?
                && let Some(done) = enter(txn, at.page)?
            {
                return Ok(done);
            }
            drop(taken);
            self.room.close(at.page);
            self.list_truly(txn, at)?;
            hunt.refused.push(at.page);
        }
    }

    fn next_page(&self, txn: &mut Txn, hunt: &mut Hunt) -> Result<Taken<'_>> {
        if let Some(taken) = self.room.take(&hunt.refused) {
            return Ok(taken);
        }
        while hunt.looks < LOOKS_MAX
            && let Some(from) = self.room.hand(hunt.class)
        {
            hunt.looks += 1;
            match self.search(txn, from, hunt.class)? {
                Some(found) => {
                    self.room.set_hand(found.number + 1);
                    if !hunt.refused.contains(&found.page)
                        && let Some(taken) = self.room.open(found)
                    {
                        return Ok(taken);
                    }
                }
                None if from == 0 => self.room.note_none(hunt.class),
                None => self.room.set_hand(0),
            }
        }
        loop {
            // Somebody may have found the new page listed, and opened it first.
            if let Some(taken) = self.room.open(self.grow(txn)?) {
                return Ok(taken);
            }
        }
    }
}
