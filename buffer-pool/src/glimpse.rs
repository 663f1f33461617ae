//! The optimistic read: look first, ask afterwards whether it was true.
//!
//! ```text
//!  let look = pool.glimpse(id)?;          no latch, nothing pinned
//!  let (at, len) = look.cell(slot)?;      relaxed word loads, every offset checked
//!  look.copy(at, len, &mut out)?;
//!  look.validate()?;                      only now is any of it true
//! ```
//!
//! Between the first line and the last the page may be changed, evicted, or its frame given to another
//! page. Then the loads return garbage, which is harmless: they are atomic, every offset and length is
//! clamped to the page before use, and what makes no sense is `Restart`. What happens to make sense is
//! caught by `validate`. Nothing may be handed out, followed or acted upon before that; of a child page id
//! that means: validate the parent once more after the child's glimpse has begun.
//!
//! Bytes of a page are loaded as whole words and fields cut out by shifting; loads of other widths beside
//! a writer's word stores would be undefined. Left out: `&[u8]` into the page, for the same reason.

use std::cmp::Ordering;

use argali_base::{Lsn, PageId};
use argali_pager::{HEADER_BYTES, PageCell, PageKind, SLOT_BYTES};

use crate::latch::{Latch, State};
use crate::{BufferPool, PageWrite, arena};

/// What was read makes no sense or is out of date: begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart;

const WORD: usize = 8;
/// Bytes of header and slots fetched ahead: the slots of a leaf with rows of 100 bytes.
pub(crate) const PREFETCHED: usize = 640;

/// What a glimpse saw, to be kept for later: [`BufferPool::recall`] makes a glimpse of it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    page: PageId,
    seen: State,
}

impl Sighting {
    /// The page that was looked at.
    pub const fn page(&self) -> PageId {
        self.page
    }

    /// Its state then, and the frame it stood in.
    pub(crate) fn place(&self) -> Option<(State, usize)> {
        self.seen.frame().map(|frame| (self.seen, frame))
    }
}

/// Fields of a cell that may be changing: bounds-checked word loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'p> {
    cell: &'p PageCell,
}

impl<'p> Words<'p> {
    pub(crate) const fn new(cell: &'p PageCell) -> Self {
        Self { cell }
    }

    #[inline]
    fn word(self, index: usize) -> Result<u64, Restart> {
        self.cell.word(index).ok_or(Restart)
    }

    /// `len` bytes (1 to 8) at `at`, the first one lowest; bytes behind them may be there as well.
    #[inline]
    fn load(self, at: usize, len: usize) -> Result<u64, Restart> {
        let (index, skip) = (at / WORD, at % WORD);
        let low = self.word(index)? >> (skip * 8);
        if skip + len <= WORD {
            return Ok(low);
        }
        // Here `skip` is not 0, so the shift is less than 64.
        Ok(low | self.word(index + 1)? << ((WORD - skip) * 8))
    }

    #[inline]
    fn check(self, at: usize, len: usize) -> Result<(), Restart> {
        let end = at.checked_add(len).ok_or(Restart)?;
        if end <= self.cell.words() * WORD { Ok(()) } else { Err(Restart) }
    }

    #[inline]
    fn slot(self, slot: usize) -> Result<(usize, usize), Restart> {
        const { assert!(SLOT_BYTES == WORD, "a slot is read by one load") };
        let word = self.word(slot.saturating_add(HEADER_BYTES / WORD))?;
        let (offset, len) = ((word & 0xFFFF) as usize, ((word >> 16) & 0xFFFF) as usize);
        self.check(offset, len)?;
        Ok((offset, len))
    }

    fn compare(self, at: usize, len: usize, key: &[u8]) -> Result<Ordering, Restart> {
        self.check(at, len)?;
        let common = len.min(key.len());
        let (whole, rest) = key[..common].as_chunks::<WORD>();
        let mut place = at;
        for chunk in whole {
            let ours = self.load(place, WORD)?.swap_bytes();
            let theirs = u64::from_be_bytes(*chunk);
            if ours != theirs {
                return Ok(ours.cmp(&theirs));
            }
            place += WORD;
        }
        if !rest.is_empty() {
            let ours = self.load(place, rest.len())?.to_le_bytes();
            let order = ours[..rest.len()].cmp(rest);
            if order != Ordering::Equal {
                return Ok(order);
            }
        }
        Ok(len.cmp(&key.len()))
    }

    fn copy(self, at: usize, len: usize, out: &mut Vec<u8>) -> Result<(), Restart> {
        self.check(at, len)?;
        let start = out.len();
        out.resize(start + len.next_multiple_of(WORD), 0);
        if let ([whole @ .., last], _) = out[start..].as_chunks_mut::<WORD>() {
            let (index, shift, count) = (at / WORD, at % WORD * 8, whole.len());
            let mut low = self.word(index)?;
            let words = self.cell.range(index + 1, index + 1 + count).ok_or(Restart)?;
            for (chunk, high) in whole.iter_mut().zip(words) {
                let both = u128::from(high) << 64 | u128::from(low);
                *chunk = ((both >> shift) as u64).to_le_bytes();
                low = high;
            }
            *last = self.load(at + count * WORD, len - count * WORD)?.to_le_bytes();
        }
        out.truncate(start + len);
        Ok(())
    }

    #[inline]
    fn copy_words(
        self,
        at: usize,
        len: usize,
        out: &mut Vec<[u8; WORD]>,
    ) -> Result<usize, Restart> {
        self.check(at, len)?;
        let start = out.len() * WORD + at % WORD;
        let words = self.cell.range(at / WORD, (at + len).div_ceil(WORD)).ok_or(Restart)?;
        out.extend(words.map(u64::to_le_bytes));
        Ok(start)
    }
}

/// An optimistic look at a page: bounds-checked word loads, worth nothing before `validate`.
#[derive(Clone, Copy, Debug)]
pub struct PageGlimpse<'p> {
    pool: &'p BufferPool,
    latch: Latch<'p>,
    seen: State,
    words: Words<'p>,
}

impl<'p> PageGlimpse<'p> {
    pub(crate) fn new(pool: &'p BufferPool, latch: Latch<'p>, seen: State, frame: usize) -> Self {
        Self { pool, latch, seen, words: Words::new(latch.cell(frame)) }
    }

    /// The page looked at.
    pub const fn id(&self) -> PageId {
        self.latch.id()
    }

    /// What to recall this glimpse by.
    #[inline]
    pub const fn sighting(&self) -> Sighting {
        Sighting { page: self.latch.id(), seen: self.seen }
    }

    /// Version of the page when the glimpse began.
    pub const fn version(&self) -> u64 {
        self.seen.version()
    }

    /// The byte at `at`; `Err(Restart)` when out of bounds, which a torn read can cause.
    #[inline]
    pub fn u8(&self, at: usize) -> Result<u8, Restart> {
        Ok(self.words.load(at, 1)? as u8)
    }

    /// Two bytes at `at`.
    #[inline]
    pub fn u16(&self, at: usize) -> Result<u16, Restart> {
        Ok(self.words.load(at, 2)? as u16)
    }

    /// Four bytes at `at`.
    #[inline]
    pub fn u32(&self, at: usize) -> Result<u32, Restart> {
        Ok(self.words.load(at, 4)? as u32)
    }

    /// Eight bytes at `at`.
    #[inline]
    pub fn u64(&self, at: usize) -> Result<u64, Restart> {
        self.words.load(at, 8)
    }

    /// The `len` bytes (1 to 8) at `at`, the first one lowest, zeros above the last.
    #[inline]
    pub fn word(&self, at: usize, len: usize) -> Result<u64, Restart> {
        self.words.load(at, len).map(|word| word & (u64::MAX >> (64 - 8 * len)))
    }

    /// What the page is used for; an unknown kind is `Restart`.
    #[inline]
    pub fn kind(&self) -> Result<PageKind, Restart> {
        PageKind::from_u8(self.u8(4)?).ok_or(Restart)
    }

    /// Height above the leaves.
    #[inline]
    pub fn level(&self) -> Result<u8, Restart> {
        self.u8(6)
    }

    /// The pageLSN.
    #[inline]
    pub fn lsn(&self) -> Result<Lsn, Restart> {
        self.u64(16).map(Lsn::new)
    }

    /// The link field.
    #[inline]
    pub fn link(&self) -> Result<u64, Restart> {
        self.u64(48)
    }

    /// Root page id of the tree the page belongs to.
    #[inline]
    pub fn owner(&self) -> Result<u64, Restart> {
        self.u64(56)
    }

    /// Number of slots; more than the page has room for is `Restart`.
    #[inline]
    pub fn slot_count(&self) -> Result<usize, Restart> {
        let count = usize::from(self.u16(32)?);
        self.words.check(HEADER_BYTES, count * SLOT_BYTES)?;
        Ok(count)
    }

    /// Offset and length of cell `slot`, checked to lie inside the page.
    #[inline]
    pub fn cell(&self, slot: usize) -> Result<(usize, usize), Restart> {
        self.words.slot(slot)
    }

    /// The 4-byte key head of `slot`. All that most probes of a search need, so nothing else of the slot is
    /// looked at.
    #[inline]
    pub fn head(&self, slot: usize) -> Result<u32, Restart> {
        self.words.word(HEADER_BYTES / WORD + slot).map(|word| (word >> 32) as u32)
    }

    /// Compares the `len` bytes at `at` with `key`.
    #[inline]
    pub fn compare(&self, at: usize, len: usize, key: &[u8]) -> Result<Ordering, Restart> {
        self.words.compare(at, len, key)
    }

    /// Appends `len` bytes at `at` to `out`.
    #[inline]
    pub fn copy(&self, at: usize, len: usize, out: &mut Vec<u8>) -> Result<(), Restart> {
        self.words.copy(at, len, out)
    }

    /// Asks the processor to fetch header and first slots at once: what a search probes would come line
    /// after line, each after the one before was compared.
    #[inline]
    pub fn prefetch(&self) {
        arena::prefetch(self.words.cell, PREFETCHED);
    }

    /// As [`PageGlimpse::copy`], by the words that these bytes stand in, which is much faster: what comes
    /// along at either end is left there. Returns where they begin in `out`, in bytes.
    #[inline]
    pub fn copy_words(
        &self,
        at: usize,
        len: usize,
        out: &mut Vec<[u8; 8]>,
    ) -> Result<usize, Restart> {
        self.words.copy_words(at, len, out)
    }

    /// Whether nothing changed since the glimpse began. Only then is what was read true.
    #[inline]
    pub fn validate(&self) -> Result<(), Restart> {
        if self.latch.is_unchanged(self.seen) { Ok(()) } else { Err(Restart) }
    }

    /// Exclusive latch, provided nothing changed since the glimpse began and nobody holds it now.
    pub fn upgrade(self) -> Result<PageWrite<'p>, Restart> {
        let exclusive = self.latch.upgrade(self.seen).ok_or(Restart)?;
        Ok(PageWrite::new(self.pool, exclusive))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    fn words(bytes: &[u8]) -> Vec<AtomicU64> {
        let (chunks, []) = bytes.as_chunks::<8>() else { panic!("whole words") };
        chunks.iter().map(|chunk| AtomicU64::new(u64::from_ne_bytes(*chunk))).collect()
    }

    #[test]
    fn comparing_and_copying_agree_with_slices_at_every_offset() {
        let bytes: Vec<u8> = (0..128_u8).map(|i| i.wrapping_mul(37) % 7).collect();
        let words = words(&bytes);
        let page = Words::new(PageCell::new(&words));
        for at in 0..20 {
            for len in 0..40 {
                let mut copy = vec![9];
                page.copy(at, len, &mut copy).unwrap();
                assert_eq!(copy[1..], bytes[at..at + len]);
                let mut copy = vec![[9; 8]];
                let begin = page.copy_words(at, len, &mut copy).unwrap();
                assert_eq!(copy.as_flattened()[begin..begin + len], bytes[at..at + len]);
                for key in [&bytes[0..len], &bytes[7..20], &bytes[at..at + len], b""] {
                    let expected = bytes[at..at + len].cmp(key);
                    assert_eq!(page.compare(at, len, key), Ok(expected), "{at} {len} {key:?}");
                }
            }
        }
    }

    #[test]
    fn beyond_the_page_is_restart() {
        let words = words(&[0xFF; 128]);
        let page = Words::new(PageCell::new(&words));
        assert_eq!(page.load(124, 4), Ok(0xFFFF_FFFF));
        assert_eq!(page.load(125, 4), Err(Restart));
        assert_eq!(page.load(usize::MAX, 8), Err(Restart));
        assert_eq!(page.compare(120, 9, b"x"), Err(Restart));
        assert_eq!(page.copy(usize::MAX, 2, &mut Vec::new()), Err(Restart));
        assert_eq!(page.copy_words(120, 9, &mut Vec::new()), Err(Restart));
        assert_eq!(page.slot(0), Err(Restart), "offset 0xffff lies outside");
        assert_eq!(page.slot(8), Err(Restart));
        assert_eq!(page.slot(usize::MAX), Err(Restart));
    }
}
