//! The bytes of one page as words that a writer and optimistic readers may touch at once. (Skeleton.)
//! One of the three files that may use `unsafe`.
use argali_base::PageId;
use std::sync::atomic::AtomicU64;

use crate::{PageKind, PageMut, PageRef, PageSize};

/// A page in memory: `page_size / 8` words. All writers store words, relaxed; optimistic readers load
/// words, relaxed, and validate their version afterwards.
#[derive(Debug)]
#[repr(transparent)]
pub struct PageCell {
    words: [AtomicU64],
}

impl PageCell {
    /// Views words (frames of the arena) as a page.
    pub fn new(words: &[AtomicU64]) -> &Self {
        todo!()
    }
    /// Word `index`, relaxed; `None` beyond the end.
    pub fn word(&self, index: usize) -> Option<u64> {
        todo!()
    }
    /// Read view.
    ///
    /// # Safety
    /// No one may store into the cell while the view lives (shared or exclusive latch held).
    #[allow(unsafe_code)]
    pub unsafe fn page(&self) -> PageRef<'_> {
        todo!()
    }
    /// Write view; reads through it are copies.
    ///
    /// # Safety
    /// The caller alone may read or write through views while it lives (exclusive latch held);
    /// optimistic word loads may race.
    #[allow(unsafe_code)]
    pub unsafe fn page_mut(&self) -> PageMut<'_> {
        todo!()
    }
}

/// A page that one thread owns: I/O buffers, tests, repair.
pub struct PageBuf {
    _todo: (),
}

impl PageBuf {
    pub fn new(size: PageSize) -> Self {
        todo!()
    }
    pub fn page(&self) -> PageRef<'_> {
        todo!()
    }
    pub fn page_mut(&mut self) -> PageMut<'_> {
        todo!()
    }
    pub fn bytes(&self) -> &[u8] {
        todo!()
    }
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        todo!()
    }
    /// Copies a page out of a frame. The caller holds its latch.
    pub fn copy_from(&mut self, page: PageRef<'_>) {
        todo!()
    }
}
