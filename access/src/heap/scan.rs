//! One step of a scan: the next row, in the order of homes.
//!
//! ```text
//!  page 0  │ row │ forward ─┼──► p7.2        rows are met at their home, and read where they stand;
//!  page 1  │ ghost │ row    │                what has moved here from elsewhere is passed over
//!  page 2  │ moved │ row    │
//! ```
//!
//! A home never changes, so each row is seen once, however often it moves meanwhile. A page is read in
//! passing, and let go of when the scan leaves it: a scan of any length leaves the pool as it found it.
//! (Pages of rows that have moved are not let go of; the clock takes them first.)
//!
//! Under serializable the heap is locked as a whole, so nothing enters it; below that, rows are locked one
//! by one. A step holds no latch while it waits, and none between steps. A page whose listed room is wrong
//! is noted for correction.

use argali_base::{PageId, Result};
use argali_buffer_pool::BufferPool;
use argali_txn::{Isolation, LockMode, LockName, Txn};

use super::cell::Kind;
use super::directory::Entry;
use super::read::Manner;
use super::room::potential;
use super::{Heap, RowId};
use crate::intention::intend;

/// Where a scan is; the default is the beginning.
#[derive(Clone, Debug, Default)]
pub struct HeapScan {
    /// Number of the page.
    number: u64,
    page: Option<Visit>,
    /// First slot not seen yet.
    slot: usize,
}

/// A page a scan is in.
#[derive(Clone, Copy, Debug)]
struct Visit {
    entry: Entry,
    /// Whether the scan read it in.
    brought: bool,
}

impl Heap {
    /// The next row, copied into `row`; `None` at the end. What was read stays so for the transaction as its
    /// isolation level says; under serializable no other row enters the heap. A row that this transaction
    /// adds behind the scan's place is met, too.
    ///
    /// # Errors
    /// Deadlock and lock timeout (retryable), `Corrupt`, `Io`.
    pub fn next(
        &self,
        txn: &mut Txn,
        scan: &mut HeapScan,
        row: &mut Vec<u8>,
    ) -> Result<Option<RowId>> {
        let manner = Manner { covered: self.lock_for_scan(txn)?, read: BufferPool::read_passing };
        while let Some(page) = self.enter(scan)? {
            let Some(id) = self.next_home(scan, page)? else {
                self.leave(scan)?;
                continue;
            };
            let there = self.read_row(txn, id, manner, row)?;
            scan.slot = usize::from(id.slot) + 1;
            if there {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Whether rows need no locks.
    fn lock_for_scan(&self, txn: &mut Txn) -> Result<bool> {
        if intend(txn, self.root(), LockMode::IS)?.covers(LockMode::S) {
            return Ok(true);
        }
        let whole = txn.isolation() == Isolation::Serializable;
        if whole {
            txn.lock(LockName::Tree(self.root().get()), LockMode::S)?;
        }
        Ok(whole)
    }

    /// The page the scan is in, or comes to.
    fn enter(&self, scan: &mut HeapScan) -> Result<Option<PageId>> {
        if let Some(visit) = scan.page {
            return Ok(Some(visit.entry.page));
        }
        let Some(entry) = self.entry_at(scan.number)? else { return Ok(None) };
        let brought = !self.pool().is_resident(entry.page);
        scan.page = Some(Visit { entry, brought });
        Ok(Some(entry.page))
    }

    /// On to the next page.
    fn leave(&self, scan: &mut HeapScan) -> Result<()> {
        if let Some(Visit { entry, brought }) = scan.page.take() {
            let read = self.pool().read_passing(entry.page)?;
            if self.class_of(potential(read.page())) != entry.class {
                self.room.note(read.page());
            }
            drop(read);
            if brought {
                self.pool().let_go(entry.page);
            }
        }
        scan.number += 1;
        scan.slot = 0;
        Ok(())
    }

    /// The next home of a row that is there or may come back.
    fn next_home(&self, scan: &HeapScan, page: PageId) -> Result<Option<RowId>> {
        let read = self.pool().read_passing(page)?;
        self.check_row_page(read.page())?;
        if read.page().link() != scan.number {
            let what = format!("is number {}, listed as {}", read.page().link(), scan.number);
            return Err(self.corrupt(page, what));
        }
        let settled = self.space().settled(read.page().lsn());
        for slot in scan.slot..read.page().slot_count() {
            let slot = slot as u16;
            if let Some(cell) = self.cell(read.page(), slot)? {
                let is_home = !matches!(cell.kind, Kind::Moved { .. });
                if is_home && !(cell.ghost && settled) {
                    return Ok(Some(RowId { page, slot }));
                }
            }
        }
        Ok(None)
    }
}
