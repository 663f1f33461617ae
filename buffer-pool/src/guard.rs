//! The two guards through which pages are reached, and the only way a frame changes.
//!
//! `PageWrite` hands out a read view, never bytes to write: a change is `dirty_from`, then an appended
//! record, then `apply` with that record's LSN. Forgetting to log does not compile.

use argali_base::{Lsn, PageId};
use argali_pager::{PageOp, PageRef, TornPages};

use crate::BufferPool;
use crate::frame::Turned;
use crate::latch::{ExclusiveGuard, SharedGuard};

/// Shared latch on a resident page.
#[derive(Debug)]
pub struct PageRead<'p> {
    id: PageId,
    latch: SharedGuard<'p>,
}

impl<'p> PageRead<'p> {
    pub(crate) fn new(id: PageId, latch: SharedGuard<'p>) -> Self {
        Self { id, latch }
    }

    /// The page's id.
    pub fn id(&self) -> PageId {
        self.id
    }

    /// The page; nobody changes it while the guard lives.
    pub fn page(&self) -> PageRef<'_> {
        self.latch.page()
    }

    /// Grows with every change of the page or of its place; equal versions mean equal bytes.
    pub fn version(&self) -> u64 {
        self.latch.version()
    }
}

/// Exclusive latch on a resident page.
#[derive(Debug)]
pub struct PageWrite<'p> {
    pool: &'p BufferPool,
    id: PageId,
    frame: u32,
    latch: ExclusiveGuard<'p>,
}

impl<'p> PageWrite<'p> {
    pub(crate) fn new(
        pool: &'p BufferPool,
        id: PageId,
        frame: u32,
        latch: ExclusiveGuard<'p>,
    ) -> Self {
        Self { pool, id, frame, latch }
    }

    /// The page's id.
    pub fn id(&self) -> PageId {
        self.id
    }

    /// The page as it is now.
    pub fn page(&self) -> PageRef<'_> {
        self.latch.page()
    }

    /// Rule 1: called with the log's tail *before* the record is appended. Else a checkpoint between the
    /// two would list neither the page nor, having begun later, read the record.
    pub fn dirty_from(&mut self, tail: Lsn) {
        if self.pool.frames[self.frame as usize].dirty_from(tail) == Turned::Dirty {
            self.pool.count_dirty(1);
        }
    }

    /// Applies what the record at `lsn` says, after it was appended. Panics unless the page was marked
    /// dirty from there or earlier.
    pub fn apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) {
        let frame = &self.pool.frames[self.frame as usize];
        let dirt = frame.dirt();
        assert!(
            !dirt.rec_lsn.is_none() && dirt.rec_lsn <= lsn,
            "rule 1: {} changed at {lsn} but dirty from {}",
            self.id,
            dirt.rec_lsn
        );
        self.latch.page_mut().apply(ops, lsn);
        if self.pool.torn_pages == TornPages::FullPageImage {
            frame.set_imaged(self.pool.image_mark());
        }
    }

    /// As [`PageWrite::apply`], for redo, where page and record come from a disk: says what does not fit
    /// instead of panicking. After `Err` the page must not be used.
    pub fn apply_in_redo(&mut self, ops: &[PageOp<'_>], lsn: Lsn) -> Result<(), String> {
        self.latch.page_mut().try_apply(ops, lsn)?;
        if self.pool.torn_pages == TornPages::FullPageImage {
            self.pool.frames[self.frame as usize].set_imaged(self.pool.image_mark());
        }
        Ok(())
    }

    /// In mode `FullPageImage`: whether the next record on this page must begin with its image, because
    /// this is the first change since it was read in or last copied for write-back.
    pub fn needs_image(&self) -> bool {
        if self.pool.torn_pages != TornPages::FullPageImage {
            return false;
        }
        let imaged = self.pool.frames[self.frame as usize].dirt().imaged;
        if self.pool.options.mutations.image_per_checkpoint {
            return imaged != self.pool.image_mark();
        }
        imaged == 0
    }

    /// Page-in: what was read, or a blank page, becomes the frame's content.
    pub(crate) fn fill(&mut self, from: PageRef<'_>) {
        self.latch.fill(from);
    }

    /// Formats the frame as a page nobody has written.
    pub(crate) fn blank(&mut self) {
        let database = self.pool.pager.options().database;
        self.latch.page_mut().blank(self.id, database);
    }

    pub(crate) fn frame(&self) -> u32 {
        self.frame
    }

    pub(crate) fn downgrade(self) -> PageRead<'p> {
        PageRead { id: self.id, latch: self.latch.downgrade() }
    }

    /// Ends the page's residence.
    pub(crate) fn evict(self) {
        self.latch.evict();
    }
}
