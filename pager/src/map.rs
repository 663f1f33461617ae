//! Allocation map: which pages are in use. (Skeleton.)
//!
//! Map page k stands at page id `k * span` and covers ids `[k*span, (k+1)*span)`, itself included (its
//! own bit is set from the start). `span` = 8 × (bytes behind the header).
use argali_base::PageId;

use crate::{PageRef, PageSize};

#[derive(Clone, Copy, Debug)]
pub struct MapLayout {
    size: PageSize,
}
impl MapLayout {
    pub fn new(size: PageSize) -> Self {
        todo!()
    }
    /// Pages one map page covers.
    pub fn span(&self) -> u64 {
        todo!()
    }
    /// Map page that covers `page`, and the bit in it.
    pub fn locate(&self, page: PageId) -> (PageId, u32) {
        todo!()
    }
    /// Whether bit `index` is set.
    pub fn is_set(map: PageRef<'_>, index: u32) -> bool {
        todo!()
    }
    /// First clear bit at or after `from`.
    pub fn first_clear(map: PageRef<'_>, from: u32) -> Option<u32> {
        todo!()
    }
}
