//! Heaps: rows without a key, known by the id they got when they were inserted.
//!
//! ```
//! # fn main() -> argali::Result<()> {
//! # let db = argali::Options::new().in_memory()?;
//! let mut tx = db.begin()?;
//! let log = tx.heap("log")?;
//! let id = log.insert(&tx, "first")?;
//! log.update(&tx, id, "first, and more")?; // the id stays, wherever the row has to go
//! assert_eq!(log.get(&tx, id)?, Some(b"first, and more".to_vec()));
//! assert_eq!(log.scan(&tx)?.count(), 1);
//! log.delete(&tx, id)?;
//! tx.commit()?;
//! # Ok(()) }
//! ```
//!
//! What a tree cannot do for less: add rows in whatever order they come without a search, and be pointed at
//! by any number of indexes ([`RowId::to_bytes`]) that stay right when a row grows.

use std::fmt;

use argali_access::{HeapScan, RowId, Space};
use argali_base::Result;
use argali_base::sync::Arc;

use crate::handle::Handle;
use crate::read::Read;
use crate::write::Write;

/// A named heap. No lifetime; outlives transactions; `NotFound` once the heap is dropped.
#[derive(Clone)]
pub struct Heap {
    handle: Handle,
    heap: argali_access::Heap,
}

impl Heap {
    pub(crate) fn new(handle: Handle, space: &Arc<Space>) -> Self {
        let heap = argali_access::Heap::open(space, handle.root());
        Self { handle, heap }
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// Largest row this heap takes, in bytes: what one page holds, 85 bytes less than the page size.
    pub fn row_bytes_max(&self) -> usize {
        self.heap.row_bytes_max()
    }

    /// Adds a row. Its id stays true until the row is deleted. [`crate::Error::TooLarge`] beyond
    /// [`Heap::row_bytes_max`].
    pub fn insert(&self, tx: &Write, row: impl AsRef<[u8]>) -> Result<RowId> {
        tx.session().write(&self.handle, |txn| self.heap.insert(txn, row.as_ref()))
    }

    /// The row with this id; `None` when there is none (any more), whatever the id.
    pub fn get(&self, tx: &Read, id: RowId) -> Result<Option<Vec<u8>>> {
        let mut row = Vec::new();
        Ok(self.get_into(tx, id, &mut row)?.then_some(row))
    }

    /// As [`Heap::get`], into a buffer of the caller's, which is cleared first.
    pub fn get_into(&self, tx: &Read, id: RowId, row: &mut Vec<u8>) -> Result<bool> {
        tx.session().read(&self.handle, |txn| self.heap.get(txn, id, row))
    }

    /// As [`Heap::get`], but locks the row for writing at once. Whoever reads in order to write should read
    /// with this: two readers who both want to write next can only deadlock.
    pub fn get_for_update(&self, tx: &Write, id: RowId) -> Result<Option<Vec<u8>>> {
        tx.session().write(&self.handle, |txn| {
            let mut row = Vec::new();
            Ok(self.heap.get_for_update(txn, id, &mut row)?.then_some(row))
        })
    }

    /// Gives a row new bytes; its id stays. [`crate::Error::NotFound`] when there is no such row,
    /// [`crate::Error::TooLarge`] beyond [`Heap::row_bytes_max`].
    pub fn update(&self, tx: &Write, id: RowId, row: impl AsRef<[u8]>) -> Result<()> {
        tx.session().write(&self.handle, |txn| self.heap.update(txn, id, row.as_ref()))
    }

    /// Removes a row. [`crate::Error::NotFound`] when there is none.
    pub fn delete(&self, tx: &Write, id: RowId) -> Result<()> {
        tx.session().write(&self.handle, |txn| self.heap.delete(txn, id))
    }

    /// All rows, in the order of their ids' pages as these were added. Holds no latch between items, so
    /// writing while scanning is fine, and leaves the page cache as it found it. Under serializable it keeps
    /// everybody else from writing to the heap until the transaction ends.
    pub fn scan<'t>(&self, tx: &'t Read) -> Result<Rows<'t>> {
        tx.session().read(&self.handle, |_| Ok(()))?;
        Ok(Rows { tx, heap: self.clone(), scan: HeapScan::default(), done: false })
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heap({:?} at {})", self.name(), self.handle.root())
    }
}

/// Iterator over `Result<(id, row)>`; after an error it ends.
pub struct Rows<'t> {
    tx: &'t Read,
    heap: Heap,
    scan: HeapScan,
    done: bool,
}

impl Rows<'_> {
    fn step(&mut self) -> Result<Option<(RowId, Vec<u8>)>> {
        let Self { tx, heap, scan, .. } = self;
        let mut row = Vec::new();
        let id = tx.session().read(&heap.handle, |txn| heap.heap.next(txn, scan, &mut row))?;
        Ok(id.map(|id| (id, row)))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(RowId, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

impl std::iter::FusedIterator for Rows<'_> {}
