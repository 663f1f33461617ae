//! The buffer pool. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

use argali_base::sync::Arc;
use argali_base::{Health, Lsn, PageId, Result};
use argali_pager::{PageOp, PageRef, Pager};
use argali_wal::{DirtyPage, Wal};

#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Frames in the pool (at least 8).
    pub frames: usize,
    /// The cleaner keeps at least this share of frames clean, in percent.
    pub clean_percent: u8,
    /// Most pages one cleaner batch writes.
    pub batch_pages: usize,
}

#[derive(Clone, Debug, Default)]
pub struct PoolStats {
    pub hits: u64,
    pub misses: u64,
    pub evictions_clean: u64,
    pub evictions_dirty: u64,
    pub written_back: u64,
    /// Times a write-back had to force the log.
    pub log_forces: u64,
    pub frames: usize,
    pub dirty: usize,
    pub write_errors: u64,
    pub last_write_error: Option<String>,
}

pub struct BufferPool {
    _todo: (),
}

impl BufferPool {
    pub fn new(
        pager: Arc<Pager>,
        wal: Arc<Wal>,
        options: PoolOptions,
        health: Health,
    ) -> Result<Arc<Self>> {
        todo!()
    }
    pub fn pager(&self) -> &Pager {
        todo!()
    }
    /// Shared latch. A never-written page is `Corrupt` here: a pointer led to it.
    pub fn read(&self, id: PageId) -> Result<PageRead<'_>> {
        todo!()
    }
    /// Exclusive latch.
    pub fn write(&self, id: PageId) -> Result<PageWrite<'_>> {
        todo!()
    }
    /// Exclusive latch if it is free at once; `Ok(None)` when somebody holds it or I/O would be needed.
    pub fn try_write(&self, id: PageId) -> Result<Option<PageWrite<'_>>> {
        todo!()
    }
    /// Exclusive latch on a page whose old contents do not matter: its first operation overwrites it
    /// (`Format`, `Image`). Reads nothing from disk if the page is not resident; if the old page is
    /// resident, its LSN is kept growing.
    pub fn create(&self, id: PageId) -> Result<PageWrite<'_>> {
        todo!()
    }
    /// For redo only: like `write`, but a never-written page (LSN 0, kind Free) is legal, and with
    /// `overwrites` a torn or unreadable page is, too (its first operation replaces it).
    pub fn write_for_redo(&self, id: PageId, overwrites: bool) -> Result<PageWrite<'_>> {
        todo!()
    }
    /// Optimistic read: makes the page resident, notes its version, takes no latch. Waits only while
    /// somebody writes the page. The glimpse pins nothing.
    pub fn glimpse(&self, id: PageId) -> Result<PageGlimpse<'_>> {
        todo!()
    }
    /// Dirty page table: every page whose newest version may not be durable in place, with its recLSN:
    /// dirty frames, pages being written, and pages written but not yet covered by a data sync.
    /// Complete for every change logged before the call.
    pub fn dirty_pages(&self, out: &mut Vec<DirtyPage>) {
        todo!()
    }
    /// The one write-back: for each dirty, unlatched-exclusive page of `ids`: copy under a shared latch,
    /// drop it, force the log, write the batch. Used by eviction, cleaner and checkpoint alike.
    /// Returns how many were written.
    pub fn write_back(&self, ids: &[PageId]) -> Result<usize> {
        todo!()
    }
    /// Data sync: pages whose write completed before it began leave the dirty page table on success.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }
    /// One turn of the page cleaner: writes a batch of the oldest dirty pages if the pool has too few
    /// clean frames or pages older than `target` (redo distance). Returns pages written.
    pub fn step(&self, target: Lsn) -> Result<usize> {
        todo!()
    }
    pub fn stats(&self) -> PoolStats {
        todo!()
    }
}

/// Shared latch on a resident page.
pub struct PageRead<'p> {
    _pool: &'p BufferPool,
}
impl PageRead<'_> {
    pub fn id(&self) -> PageId {
        todo!()
    }
    pub fn page(&self) -> PageRef<'_> {
        todo!()
    }
    /// Version of the page, for [`BufferPool::write_if`]-style checks.
    pub fn version(&self) -> u64 {
        todo!()
    }
}

/// Exclusive latch on a resident page. Gives `PageRef`, never `&mut` bytes: changes go through `apply`.
pub struct PageWrite<'p> {
    _pool: &'p BufferPool,
}
impl<'p> PageWrite<'p> {
    pub fn id(&self) -> PageId {
        todo!()
    }
    pub fn page(&self) -> PageRef<'_> {
        todo!()
    }
    /// Rule 1: called with the log's tail *before* the record is appended; sets recLSN (or the next
    /// one, while a copy is being written) unless the frame is dirty already.
    pub fn dirty_from(&mut self, tail: Lsn) {
        todo!()
    }
    /// Applies what the record at `lsn` says, after it was appended.
    pub fn apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) {
        todo!()
    }
    /// Mode `FullPageImage`: whether the next record on this page must begin with its image (first
    /// change since it was read in or last copied for write-back). Decided under this latch.
    pub fn needs_image(&self) -> bool {
        todo!()
    }
}

/// An optimistic look at a page: bounds-checked word loads, worth nothing before `validate`.
pub struct PageGlimpse<'p> {
    _pool: &'p BufferPool,
}
impl<'p> PageGlimpse<'p> {
    pub fn id(&self) -> PageId {
        todo!()
    }
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// Field readers; `Err(Restart)` when out of bounds, which a torn read can cause.
    pub fn u8(&self, at: usize) -> Result<u8, Restart> {
        todo!()
    }
    pub fn u16(&self, at: usize) -> Result<u16, Restart> {
        todo!()
    }
    pub fn u32(&self, at: usize) -> Result<u32, Restart> {
        todo!()
    }
    pub fn u64(&self, at: usize) -> Result<u64, Restart> {
        todo!()
    }
    pub fn slot_count(&self) -> Result<usize, Restart> {
        todo!()
    }
    /// Offset and length of cell `slot`, checked to lie inside the page.
    pub fn cell(&self, slot: usize) -> Result<(usize, usize), Restart> {
        todo!()
    }
    pub fn head(&self, slot: usize) -> Result<u32, Restart> {
        todo!()
    }
    /// Compares `key` with `len` bytes at `at`.
    pub fn compare(
        &self,
        at: usize,
        len: usize,
        key: &[u8],
    ) -> Result<std::cmp::Ordering, Restart> {
        todo!()
    }
    /// Copies bytes out.
    pub fn copy(&self, at: usize, len: usize, out: &mut Vec<u8>) -> Result<(), Restart> {
        todo!()
    }
    /// Whether nothing changed since the glimpse began. Only then is what was read true.
    pub fn validate(&self) -> Result<(), Restart> {
        todo!()
    }
    /// Exclusive latch, provided nothing changed since the glimpse began.
    pub fn upgrade(self) -> Result<PageWrite<'p>, Restart> {
        todo!()
    }
}

/// What was read makes no sense or is out of date: begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart;
