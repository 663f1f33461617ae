//! Looking at a page without a latch.
//!
//! ```text
//!  see word ──► load page words, relaxed, every offset checked ──► fence ──► see word again
//!                         │ out of bounds                              │ changed
//!                         └────────────► Restart ◄────────────────────┘
//! ```
//!
//! A glimpse never gives out `&[u8]`: bytes that a writer may be changing are no slice. It loads words,
//! cuts fields out of them, and whatever it returned is worth nothing until [`PageGlimpse::validate`].
//! The page may even be evicted meanwhile and its frame hold another one; the version tells.

use std::cmp::Ordering;

use argali_base::PageId;
use argali_pager::{HEADER_BYTES, PageCell};

use crate::latch::{Latch, Seen};
use crate::{BufferPool, PageWrite};

/// Bytes of a page word.
const WORD: usize = size_of::<u64>();
/// Bytes of a slot: cell offset, cell length, key head.
const SLOT_BYTES: usize = 8;
/// Where the header keeps the number of slots.
const SLOT_COUNT_AT: usize = 32;

/// What was read makes no sense or is out of date: begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart;

/// An optimistic look at a page: bounds-checked word loads, worth nothing before `validate`.
#[derive(Debug)]
pub struct PageGlimpse<'p> {
    pool: &'p BufferPool,
    id: PageId,
    latch: Latch<'p>,
    seen: Seen,
    cell: &'p PageCell,
}

impl<'p> PageGlimpse<'p> {
    pub(crate) fn new(
        pool: &'p BufferPool,
        id: PageId,
        latch: Latch<'p>,
        (seen, cell): (Seen, &'p PageCell),
    ) -> Self {
        Self { pool, id, latch, seen, cell }
    }

    /// The page's id.
    pub fn id(&self) -> PageId {
        self.id
    }

    /// The version this look is at.
    pub fn version(&self) -> u64 {
        self.seen.version()
    }

    /// The byte at `at`.
    pub fn u8(&self, at: usize) -> Result<u8, Restart> {
        Ok(self.u64(at)? as u8)
    }

    /// Two bytes at `at`, little-endian.
    pub fn u16(&self, at: usize) -> Result<u16, Restart> {
        Ok(self.u64(at)? as u16)
    }

    /// Four bytes at `at`, little-endian.
    pub fn u32(&self, at: usize) -> Result<u32, Restart> {
        Ok(self.u64(at)? as u32)
    }

    /// Up to eight bytes at `at`, little-endian; what lies beyond the page reads as zero.
    #[inline]
    pub fn u64(&self, at: usize) -> Result<u64, Restart> {
        let (index, shift) = (at / WORD, (at % WORD) * 8);
        let low = self.cell.word(index).ok_or(Restart)? >> shift;
        if shift == 0 {
            return Ok(low);
        }
        let high = self.cell.word(index + 1).unwrap_or(0) << (64 - shift);
        Ok(low | high)
    }

    /// Number of slots, checked against the page's size.
    pub fn slot_count(&self) -> Result<usize, Restart> {
        let count = usize::from(self.u16(SLOT_COUNT_AT)?);
        if HEADER_BYTES + count * SLOT_BYTES > self.cell.words() * WORD {
            return Err(Restart);
        }
        Ok(count)
    }

    /// Offset and length of cell `slot`, checked to lie inside the page.
    pub fn cell(&self, slot: usize) -> Result<(usize, usize), Restart> {
        let word = self.slot(slot)?;
        let (at, len) = (word as u16 as usize, (word >> 16) as u16 as usize);
        if at + len > self.cell.words() * WORD {
            return Err(Restart);
        }
        Ok((at, len))
    }

    /// The key head kept in `slot`.
    pub fn head(&self, slot: usize) -> Result<u32, Restart> {
        Ok((self.slot(slot)? >> 32) as u32)
    }

    /// One slot is one word.
    #[inline]
    fn slot(&self, slot: usize) -> Result<u64, Restart> {
        self.cell.word(HEADER_BYTES / WORD + slot).ok_or(Restart)
    }

    /// Compares the `len` bytes at `at` with `key`: `Less` when the page's bytes are smaller.
    pub fn compare(&self, at: usize, len: usize, key: &[u8]) -> Result<Ordering, Restart> {
        self.check(at, len)?;
        let common = len.min(key.len());
        let mut done = 0;
        while done < common {
            let part = (common - done).min(WORD);
            let mut ours = self.u64(at + done)?.to_le_bytes();
            let mut theirs = [0; WORD];
            theirs[..part].copy_from_slice(&key[done..done + part]);
            ours[part..].fill(0);
            match u64::from_be_bytes(ours).cmp(&u64::from_be_bytes(theirs)) {
                Ordering::Equal => done += part,
                unequal => return Ok(unequal),
            }
        }
        Ok(len.cmp(&key.len()))
    }

    /// Appends the `len` bytes at `at` to `out`.
    pub fn copy(&self, at: usize, len: usize, out: &mut Vec<u8>) -> Result<(), Restart> {
        self.check(at, len)?;
        out.reserve(len);
        let mut done = 0;
        while done < len {
            let part = (len - done).min(WORD);
            out.extend_from_slice(&self.u64(at + done)?.to_le_bytes()[..part]);
            done += part;
        }
        Ok(())
    }

    /// Whether nothing changed since the glimpse began. Only then is what was read true.
    #[inline]
    pub fn validate(&self) -> Result<(), Restart> {
        if self.latch.unchanged(self.seen) { Ok(()) } else { Err(Restart) }
    }

    /// The exclusive latch, provided nothing changed since the glimpse began.
    pub fn upgrade(self) -> Result<PageWrite<'p>, Restart> {
        let frame = self.latch.upgrade(self.seen).ok_or(Restart)?;
        Ok(self.pool.exclusive(self.id, frame))
    }

    fn check(&self, at: usize, len: usize) -> Result<(), Restart> {
        let end = at.checked_add(len).ok_or(Restart)?;
        if end > self.cell.words() * WORD { Err(Restart) } else { Ok(()) }
    }
}
