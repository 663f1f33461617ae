//! Page header and the read and write views of a slotted page. (Skeleton.)
//!
//! ```text
//!  0 checksum u32 │ 4 kind u8 │ 5 format version u8 │ 6 level u8 │ 7 flags u8
//!  8 page id u64
//! 16 pageLSN u64
//! 24 database id u64
//! 32 slot count u16 │ 34 (reserved) u16 │ 36 heap start u32 │ 40 dead bytes u32 │ 44 (reserved) u32
//! 48 link u64 (right sibling of a tree page, 0 = none)
//! 56 owner u64 (root page id of the tree the page belongs to)
//! 64 slots, 8 bytes each: offset u16, len u16, head u32 (first 4 key bytes, big-endian order)  … cells
//! ```
use argali_base::{Lsn, PageId};

use crate::PageOp;

pub const HEADER_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// Free, or formatted for nothing yet.
    Free = 0,
    /// Allocation map.
    Map = 1,
    /// Tree leaf.
    Leaf = 2,
    /// Inner node of a tree.
    Inner = 3,
    /// Plain slotted page (heap, tests).
    Slotted = 4,
}

/// Read view of a page nobody is changing.
#[derive(Clone, Copy)]
pub struct PageRef<'a> {
    bytes: &'a [u8],
}

impl<'a> PageRef<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    pub fn lsn(&self) -> Lsn {
        todo!()
    }
    pub fn id(&self) -> PageId {
        todo!()
    }
    pub fn kind(&self) -> Option<PageKind> {
        todo!()
    }
    pub fn level(&self) -> u8 {
        todo!()
    }
    pub fn link(&self) -> u64 {
        todo!()
    }
    pub fn owner(&self) -> u64 {
        todo!()
    }
    pub fn slot_count(&self) -> usize {
        todo!()
    }
    /// Bytes of cell `slot`; `None` when slot or cell lies outside the page.
    pub fn cell(&self, slot: usize) -> Option<&'a [u8]> {
        todo!()
    }
    /// The 4-byte key head kept in the slot.
    pub fn head(&self, slot: usize) -> Option<u32> {
        todo!()
    }
    /// Bytes an insert may take, slot included, after compaction.
    pub fn free_bytes(&self) -> usize {
        todo!()
    }
    /// Whether the slotted structure is sound: offsets inside the page, no overlap, counts add up.
    pub fn check(&self) -> Result<(), String> {
        todo!()
    }
}

/// Write view of a page: one thread, exclusive latch. Its only mutator is `apply`.
pub struct PageMut<'a> {
    _words: std::marker::PhantomData<&'a ()>,
}

impl PageMut<'_> {
    pub fn page(&self) -> PageRef<'_> {
        todo!()
    }
    /// Applies operations and stamps the page with `lsn`; forward, redo and undo all end here. Cannot
    /// fail: `fits` was asked, or the record says it did fit once. Asserts `page.lsn() < lsn`.
    pub fn apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) {
        todo!()
    }
}
