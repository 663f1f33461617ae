//! Allocation map: which pages are in use.
//!
//! Map page k stands at page id `k * span` and covers ids `[k*span, (k+1)*span)`, itself included (its
//! own bit is set from the start). `span` = 8 × (bytes behind the header).
//!
//! ```text
//!  page 0          page 1 … span-1        page span         page span+1 …
//!  map of 0..span  what it speaks about   map of span..2span
//!
//!  bit i of a map page: byte 64 + i / 8, bit i % 8 (lowest first)
//! ```
//!
//! This file knows where bits stand. Logging and latching of allocations is `access`'s business; bits
//! change through [`PageOp::SetBit`](crate::PageOp::SetBit) like everything else.

use argali_base::PageId;

use crate::PageSize;
use crate::page::{HEADER_BYTES, PageMut, PageRef};

/// Where the bit of a page stands, for one page size.
#[derive(Clone, Copy, Debug)]
pub struct MapLayout {
    size: PageSize,
}

impl MapLayout {
    /// The layout for pages of `size`.
    pub const fn new(size: PageSize) -> Self {
        Self { size }
    }

    /// Pages one map page covers.
    pub const fn span(&self) -> u64 {
        (self.size.bytes() - HEADER_BYTES) as u64 * 8
    }

    /// Map page that covers `page`, and the bit in it.
    pub const fn locate(&self, page: PageId) -> (PageId, u32) {
        let index = page.get() % self.span();
        (PageId::new(page.get() - index), index as u32)
    }

    /// Whether bit `index` is set; bits outside the page are not.
    pub fn is_set(map: PageRef<'_>, index: u32) -> bool {
        Self::bit_place(map, index).is_some_and(|(at, bit)| map.bytes()[at] & bit != 0)
    }

    /// First clear bit at or after `from`.
    pub fn first_clear(map: PageRef<'_>, from: u32) -> Option<u32> {
        let (mut at, _) = Self::bit_place(map, from)?;
        // Bits before `from` in its byte count as set.
        let mut skipped = (1_u16 << (from % 8)) as u8 - 1;
        while let Some(byte) = map.bytes().get(at) {
            let set = byte | skipped;
            if set != u8::MAX {
                return Some(((at - HEADER_BYTES) * 8) as u32 + set.trailing_ones());
            }
            (at, skipped) = (at + 1, 0);
        }
        None
    }

    /// Byte offset and mask of bit `index`; `None` outside the page.
    pub(crate) fn bit_place(map: PageRef<'_>, index: u32) -> Option<(usize, u8)> {
        let at = HEADER_BYTES + index as usize / 8;
        (at < map.bytes().len()).then_some((at, 1 << (index % 8)))
    }

    pub(crate) fn put_bit(map: &mut PageMut<'_>, index: u32, value: bool) {
        let (at, bit) = Self::bit_place(map.page(), index).expect("`fits` checked the index");
        let old = map.page().bytes()[at];
        map.put(at, &[if value { old | bit } else { old & !bit }]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PageBuf, PageKind, PageOp};
    use argali_base::Lsn;

    #[test]
    fn every_page_has_its_own_bit() {
        let map = MapLayout::new(PageSize::new(4096).unwrap());
        assert_eq!(map.span(), 32_256);
        assert_eq!(map.locate(PageId::new(0)), (PageId::new(0), 0));
        assert_eq!(map.locate(PageId::new(32_255)), (PageId::new(0), 32_255));
        assert_eq!(map.locate(PageId::new(32_256)), (PageId::new(32_256), 0));
    }

    #[test]
    fn first_clear_finds_each_bit_in_turn_and_the_end() {
        let size = PageSize::new(4096).unwrap();
        let mut buf = PageBuf::new(size);
        let format = PageOp::Format { kind: PageKind::Map, level: 0, owner: 0 };
        buf.page_mut().apply(&[format], Lsn::new(64));
        let span = MapLayout::new(size).span() as u32;
        for index in 1..span {
            assert_eq!(MapLayout::first_clear(buf.page(), 0), Some(index));
            let set = PageOp::SetBit { index, value: true };
            buf.page_mut().apply(&[set], Lsn::new(64 + u64::from(index)));
        }
        assert_eq!(MapLayout::first_clear(buf.page(), 0), None);
        let clear = PageOp::SetBit { index: 70, value: false };
        buf.page_mut().apply(&[clear], Lsn::new(1 << 20));
        assert_eq!(MapLayout::first_clear(buf.page(), 70), Some(70));
        assert_eq!(MapLayout::first_clear(buf.page(), 71), None);
        assert_eq!(MapLayout::first_clear(buf.page(), span), None);
        assert!(!PageOp::SetBit { index: span, value: true }.fits(buf.page()));
    }
}
