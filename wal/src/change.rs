//! Changes: what one record does to pages.
//!
//! ```text
//!  one change    0  8  page id
//!                8  8  LSN the page had before (0 after Format)
//!               16  4  length of ops
//!               20  …  ops, in the encoding of pager::PageOp
//! ```
//!
//! The log does not know what an operation means; it only keeps them apart. A record that splits a tree
//! node carries several changes and is atomic all the same, because one CRC covers them.

use std::fmt;

use argali_base::codec::{Reader, Writer};
use argali_base::{Lsn, PageId};

/// Encoded bytes of one change beside its operations.
pub const CHANGE_OVERHEAD: usize = 20;

/// What a record does to one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The page.
    pub page: PageId,
    /// LSN the page had before (`NONE` after `Format`): redo demands it.
    pub page_prev: Lsn,
    /// Operations, encoded by `pager::PageOp`.
    pub ops: &'a [u8],
}

/// The encoded changes of one record, in order; at most one per page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Invariant: a whole number of well-formed changes. Only this file makes one.
    bytes: &'a [u8],
}

impl<'a> Changes<'a> {
    /// No change at all.
    pub const EMPTY: Changes<'static> = Changes { bytes: &[] };

    /// Checks that `bytes` is a whole number of changes; `None` when it is not.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            next(&mut reader)?;
        }
        Some(Self { bytes })
    }

    /// The changes, in the order they were made.
    pub fn iter(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || next(&mut reader))
    }

    /// Whether no page is changed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The encoded form.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for Changes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The next change; `None` at the end and on malformed bytes.
fn next<'a>(reader: &mut Reader<'a>) -> Option<Change<'a>> {
    let page = PageId::new(reader.u64()?);
    let page_prev = Lsn::new(reader.u64()?);
    let ops = reader.long_bytes()?;
    Some(Change { page, page_prev, ops })
}

/// Encodes changes into a reusable buffer.
#[derive(Debug, Default)]
pub struct ChangesBuilder {
    bytes: Vec<u8>,
}

impl ChangesBuilder {
    /// Forgets the changes and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Starts the change of `page`; `encode` appends its operations.
    pub fn push(&mut self, page: PageId, page_prev: Lsn, encode: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.put_u64(page.get());
        self.bytes.put_u64(page_prev.get());
        let at = self.bytes.len();
        self.bytes.put_u32(0);
        encode(&mut self.bytes);
        let start = at + 4;
        assert!(self.bytes.len() >= start, "encode removed bytes that are not its own");
        let len = u32::try_from(self.bytes.len() - start).expect("a record stays below 512 KiB");
        self.bytes[at..start].copy_from_slice(&len.to_le_bytes());
    }

    /// What was pushed since the last [`ChangesBuilder::clear`].
    pub fn changes(&self) -> Changes<'_> {
        Changes { bytes: &self.bytes }
    }

    /// Encoded bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_in_order() {
        let mut builder = ChangesBuilder::default();
        builder.push(PageId::new(7), Lsn::new(64), |out| out.put(b"abc"));
        builder.push(PageId::new(8), Lsn::NONE, |_| {});
        let seen: Vec<_> = builder.changes().iter().collect();
        assert_eq!(
            seen,
            [
                Change { page: PageId::new(7), page_prev: Lsn::new(64), ops: b"abc" },
                Change { page: PageId::new(8), page_prev: Lsn::NONE, ops: b"" },
            ]
        );
        assert_eq!(builder.len(), 2 * CHANGE_OVERHEAD + 3);
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        let mut builder = ChangesBuilder::default();
        builder.push(PageId::new(7), Lsn::new(64), |out| out.put(b"abc"));
        let bytes = builder.changes().bytes();
        for cut in 1..bytes.len() {
            assert!(Changes::decode(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        let mut huge = bytes.to_vec();
        huge[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Changes::decode(&huge).is_none());
    }
}
