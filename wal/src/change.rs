//! Changes: what one record does to pages.
//!
//! ```text
//!  one change   page id │ LSN the page had before (0 after Format) │ length of ops │ ops …
//!
//!               numbers and LSN are varints; ops in the encoding of pager::PageOp
//! ```
//!
//! The log does not know what an operation means; it only keeps them apart. A record that splits a tree
//! node carries several changes and is atomic all the same, because one CRC covers them.

use std::fmt;

use argali_base::codec::{Reader, VARINT_BYTES_MAX, Writer};
use argali_base::{Lsn, PageId};

use crate::frame::{lsn, put_lsn};

/// Most encoded bytes of one change beside its operations: a length is below 512 KiB.
pub const CHANGE_OVERHEAD: usize = 2 * VARINT_BYTES_MAX + 3;

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
    let page = PageId::new(reader.varint()?);
    let page_prev = lsn(reader)?;
    let ops = reader.var_bytes()?;
    Some(Change { page, page_prev, ops })
}

/// Encodes changes into a reusable buffer.
#[derive(Debug, Default)]
pub struct ChangesBuilder {
    bytes: Vec<u8>,
    /// Bytes that the last length took, beyond the first: most likely the next one will, too.
    more: usize,
}

impl ChangesBuilder {
    /// Forgets the changes and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Starts the change of `page`; `encode` appends its operations.
    pub fn push(&mut self, page: PageId, page_prev: Lsn, encode: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.put_varint(page.get());
        put_lsn(&mut self.bytes, page_prev);
        // If the length takes as many bytes as the last one did, the operations need not move.
        let at = self.bytes.len();
        let start = at + 1 + self.more;
        self.bytes.extend_from_slice(&[0; 3]);
        self.bytes.truncate(start);
        encode(&mut self.bytes);
        let end = self.bytes.len();
        assert!(end >= start, "encode removed bytes that are not its own");
        let len = end - start;
        let more = len.checked_ilog2().map_or(0, |bits| bits as usize / 7);
        if more != self.more {
            self.bytes.resize(end + more, 0);
            self.bytes.copy_within(start..end, at + 1 + more);
            self.bytes.truncate(at + 1 + more + len);
            self.more = more;
        }
        let mut rest = len;
        for byte in &mut self.bytes[at..=at + more] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.bytes[at + more] &= 0x7f;
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
        assert_eq!(builder.changes().bytes(), [&[7, 8, 3][..], b"abc", &[8, 0, 0]].concat());
        builder.clear();
        builder.push(PageId::new(300), Lsn::new(64), |out| out.put(&[9; 200]));
        assert_eq!(builder.changes().bytes()[..5], [0xac, 2, 8, 200, 1]);
        assert_eq!(builder.changes().iter().next().unwrap().ops, [9; 200]);
        for len in [0, 1, 127, 128, 16_383, 16_384, 100_000, 128, 127, 16_384, 0] {
            let ops = vec![len as u8; len];
            builder.push(PageId::new(1), Lsn::NONE, |out| out.put(&ops));
            assert_eq!(builder.changes().iter().last().unwrap().ops, ops);
        }
        assert_eq!(builder.changes().iter().count(), 12);
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
        huge[2] = 0x7f;
        assert!(Changes::decode(&huge).is_none());
    }
}
