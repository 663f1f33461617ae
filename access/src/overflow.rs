//! Values too large for a leaf: chains of overflow pages.
//!
//! ```text
//!  leaf cell                 page 7                page 12               page 9
//!  ┌─────┬─────────────┐     ┌───┬───────────┐     ┌───┬───────────┐     ┌───┬─────┐
//!  │ key │ p7 │ 16 640 │ ──► │ 0 │ 8116 bytes│ ──► │ 1 │ 8116 bytes│ ──► │ 2 │ 408 │ ──► 0
//!  └─────┴─────────────┘     └───┴───────────┘     └───┴───────────┘     └───┴─────┘
//!
//!  reference   first page u64 │ length u64      in the leaf cell, instead of the value
//!  page        owner = first page, link = next page, one cell:  index u32 │ bytes of the value
//! ```
//!
//! **A chain never changes.** It is built before its row knows it ([`build`]), read under the lock of the
//! row's key ([`read`]), and freed after the commit that gave it up ([`free`]), by the rules of
//! [`Pending`](crate::Pending). So a reader needs no latch from page to page, rolling a row back revives a
//! chain by reviving its reference, and an undo record never holds more of a large value than that.
//!
//! **It is built by system transactions**, one a page. The value is logged once; log space is asked for page
//! by page, and no page of the value holds the log, so a value may be larger than the log's ring and its
//! limit. Owner and index say where each page belongs: a page swapped with another, a link that leads
//! back or out of the chain, a length that is wrong are all `Corrupt`.
//!
//! **Reading one leaves the cache as it was**: its pages pass through a few frames. Left out: the same for
//! writing, whose pages must stay until they are written; an index over the pages, so that reading could
//! begin in the middle; sharing a page between the ends of two values.

mod build;
mod free;
mod read;
mod verify;

use argali_base::{Error, PageId};
use argali_buffer_pool::BufferPool;
use argali_pager::{HEADER_BYTES, PageKind, PageRef, SLOT_BYTES};

use crate::fault::corrupt;
use crate::{Kind, Structure};

pub use build::Draft;
pub use read::Parts;

pub(crate) use free::free_some;
pub(crate) use read::read_all;
pub(crate) use verify::{verify, verify_remains};

/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a reference.
pub(crate) const REFERENCE_BYTES: usize = 16;

/// Bytes of a page's index.
const INDEX_BYTES: usize = 4;

/// Where a large value is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) first: PageId,
    /// Bytes.
    pub(crate) len: u64,
}

impl Reference {
    pub(crate) const fn structure(self) -> Structure {
        Structure { kind: Kind::Overflow, first: self.first }
    }

    pub(crate) fn encode(self) -> [u8; REFERENCE_BYTES] {
        let (first, len) = (self.first.get().to_le_bytes(), self.len.to_le_bytes());
        let mut bytes = [0; REFERENCE_BYTES];
        bytes[..8].copy_from_slice(&first);
        bytes[8..].copy_from_slice(&len);
        bytes
    }

    /// `None` when the bytes are no reference.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let len = u64::from_le_bytes(rest.try_into().ok()?);
        let first = PageId::new(u64::from_le_bytes(*first));
        (1..=VALUE_BYTES_MAX).contains(&len).then_some(Self { first, len })
    }
}

/// One page of a chain.
#[derive(Clone, Copy, Debug)]
struct Part<'p> {
    index: u32,
    data: &'p [u8],
    next: Option<PageId>,
}

impl<'p> Part<'p> {
    /// Reads a page of the chain that begins at `first`; `None` when it is none.
    fn read(page: PageRef<'p>, first: PageId) -> Option<Self> {
        let is_one = page.kind() == Some(PageKind::Overflow)
            && page.owner() == first.get()
            && page.slot_count() == 1;
        let (index, data) = page.cell(0).filter(|_| is_one)?.split_first_chunk::<INDEX_BYTES>()?;
        let next = (page.link() != 0).then(|| PageId::new(page.link()));
        let index = u32::from_le_bytes(*index);
        (!data.is_empty()).then_some(Self { index, data, next })
    }
}

/// Bytes of a value that one page takes.
fn part_bytes(pool: &BufferPool) -> usize {
    pool.pager().options().page_size.bytes() - HEADER_BYTES - SLOT_BYTES - INDEX_BYTES
}

fn no_part(pool: &BufferPool, page: PageId, first: PageId) -> Error {
    corrupt(pool, page, format!("is no sound page of the overflow chain at {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_round_trip_and_reject_everything_else() {
        let reference = Reference { first: PageId::new(0x0102), len: 0x0304_0506 };
        let bytes = reference.encode();
        assert_eq!(bytes, [2, 1, 0, 0, 0, 0, 0, 0, 6, 5, 4, 3, 0, 0, 0, 0], "the format changed");
        assert_eq!(Reference::decode(&bytes), Some(reference));
        assert_eq!(Reference::decode(&bytes[..15]), None);
        assert_eq!(Reference::decode(&[&bytes[..], &[0]].concat()), None);
        for len in [0, VALUE_BYTES_MAX + 1, u64::MAX] {
            assert_eq!(Reference::decode(&Reference { len, ..reference }.encode()), None, "{len}");
        }
    }
}
