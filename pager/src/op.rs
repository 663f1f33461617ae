//! Every way a page can change: a closed set, because redo must know all of it. (Skeleton.)
use argali_base::PageId;

use crate::{PageKind, PageRef};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOp<'a> {
    /// An empty page of this kind; needs nothing of what was there. First operation of its change.
    Format { kind: PageKind, level: u8, owner: u64 },
    /// New cell at `slot`; later slots move up. Bytes are the cell's; `head` its key head.
    Insert { slot: u16, head: u32, cell: &'a [u8] },
    /// Removes the cell at `slot`; later slots move down.
    Remove { slot: u16 },
    /// New bytes for the cell at `slot` (any length); `head` its key head.
    Replace { slot: u16, head: u32, cell: &'a [u8] },
    /// Overwrites `bytes.len()` bytes at `at` inside the cell at `slot`: flags, child ids, counters.
    Patch { slot: u16, at: u16, bytes: &'a [u8] },
    /// Adds `delta` (wrapping) to the u64 at `at` inside the cell: deliberately not idempotent.
    Add { slot: u16, at: u16, delta: u64 },
    /// Removes every cell from `slot` on (left half of a split).
    Truncate { slot: u16 },
    /// Sets the link field.
    SetLink { link: u64 },
    /// Sets or clears bit `index` of a map page.
    SetBit { index: u32, value: bool },
    /// The whole page as it was before the following operations, its hole left out.
    Image { bytes: &'a [u8] },
}

impl<'a> PageOp<'a> {
    /// Everything that can fail, asked before logging.
    pub fn fits(&self, page: PageRef<'_>) -> bool {
        todo!()
    }
    /// The operation that takes this one back, given the page before it. Borrows from that page.
    /// Panics for `Format`, `Truncate` and `Image`, which only structure changes use.
    pub fn inverse<'p>(&self, before: PageRef<'p>) -> PageOp<'p> {
        todo!()
    }
    /// Whether redo needs nothing of the old page (`Format`, `Image`).
    pub fn overwrites(&self) -> bool {
        todo!()
    }
    pub fn encode(&self, out: &mut Vec<u8>) {
        todo!()
    }
}

impl std::fmt::Display for PageOp<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// Decodes the operations of one change.
pub struct OpList;
impl OpList {
    /// `None` when the bytes are not a list of operations.
    pub fn decode(bytes: &[u8]) -> Option<Vec<PageOp<'_>>> {
        todo!()
    }
    /// A `PageId` in an op list is never needed: the change names its page.
    pub fn describe(page: PageId, bytes: &[u8]) -> String {
        todo!()
    }
}
