//! The bytes of one page as words that a writer and optimistic readers may touch at once.
//!
//! An optimistic reader looks at a page while somebody may be writing it and finds out afterwards. With
//! ordinary loads that is a data race: undefined, whatever the hardware does. So a page is a row of
//! `AtomicU64` words, everybody who may race uses relaxed loads and stores of *whole words* (racing
//! accesses of different widths are not allowed either), and the reader validates a version before it
//! believes anything:
//!
//! ```text
//!  bytes   0 1 2 3 4 5 6 7 | 8 9 a b c d e f | …
//!  words   word 0          | word 1          | …
//!  store of bytes 6..=9:  read-modify-write of word 0, then of word 1, by the one exclusive holder
//! ```
//!
//! Three rules make it sound. The holder of the exclusive latch is the only writer, so its
//! read-modify-write needs no atomic instruction. `&[u8]` over a frame exists only while a latch keeps
//! writers out (relaxed *loads* beside it are fine). `&mut [u8]` over a frame never exists.
//!
//! This is one of the three files that may use `unsafe`.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::{PageMut, PageRef, PageSize};

/// Bytes per word.
pub(crate) const WORD: usize = 8;

/// A page in memory: `page_size / 8` words. All writers store words, relaxed; optimistic readers load
/// words, relaxed, and validate their version afterwards.
#[derive(Debug)]
#[repr(transparent)]
pub struct PageCell {
    words: [AtomicU64],
}

impl PageCell {
    /// Views words (frames of the arena) as a page.
    #[inline]
    pub fn new(words: &[AtomicU64]) -> &Self {
        let pointer = std::ptr::from_ref(words) as *const Self;
        // SAFETY: `PageCell` is a transparent wrapper of `[AtomicU64]`, so the pointer with its length is
        // valid for it, and the borrow keeps the lifetime of `words`.
        unsafe { &*pointer }
    }

    /// Word `index`, relaxed, its first byte lowest; `None` beyond the end.
    #[inline]
    pub fn word(&self, index: usize) -> Option<u64> {
        self.words.get(index).map(load)
    }

    /// Words `from..to`, relaxed; `None` when they do not lie inside the page.
    #[inline]
    pub fn range(&self, from: usize, to: usize) -> Option<impl Iterator<Item = u64>> {
        self.words.get(from..to).map(|words| words.iter().map(load))
    }

    /// Number of words.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Address of the first byte, for prefetching.
    pub fn address(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// Read view.
    ///
    /// # Safety
    /// No one may store into the cell while the view lives (shared or exclusive latch held).
    #[inline]
    pub unsafe fn page(&self) -> PageRef<'_> {
        // SAFETY: the caller keeps writers out while the view lives.
        PageRef::new(unsafe { bytes_of(&self.words) })
    }

    /// Write view.
    ///
    /// # Safety
    /// The caller alone may read or write through views while it lives (exclusive latch held);
    /// optimistic word loads may race.
    pub unsafe fn page_mut(&self) -> PageMut<'_> {
        PageMut::new(WordsMut { words: &self.words })
    }

    /// Overwrites the whole cell with a page read from disk. Not a change of the page: no LSN.
    ///
    /// # Safety
    /// As [`PageCell::page_mut`].
    pub unsafe fn fill(&self, from: PageRef<'_>) {
        assert_eq!(from.bytes().len(), self.words.len() * WORD, "page sizes differ");
        fence(Ordering::Release);
        WordsMut { words: &self.words }.store(0, from.bytes());
    }
}

/// Loads a word so that byte `i` of memory is bits `8i..8i+8`.
#[inline]
fn load(word: &AtomicU64) -> u64 {
    u64::from_le(word.load(Ordering::Relaxed))
}

/// # Safety
/// Nobody may store into `words` while the slice lives.
unsafe fn bytes_of(words: &[AtomicU64]) -> &[u8] {
    // SAFETY: the pointer covers exactly these initialised words, bytes have no alignment or invalid
    // values, and the caller promises that nobody stores while the slice lives.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * WORD) }
}

/// The words of a page in the hands of their one writer. Constructed only in this file.
#[derive(Debug)]
pub(crate) struct WordsMut<'a> {
    words: &'a [AtomicU64],
}

impl WordsMut<'_> {
    /// Reads; the borrow ends before the next store.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: whoever made this value is the only writer (contract of `page_mut`, or `&mut PageBuf`),
        // and storing takes `&mut self`.
        unsafe { bytes_of(self.words) }
    }

    /// Stores `value` as the whole word `index`, its first byte lowest. Panics when the page has no such word.
    #[inline]
    pub(crate) fn store_word(&mut self, index: usize, value: u64) {
        self.words[index].store(value.to_le(), Ordering::Relaxed);
    }

    /// Stores `bytes` at offset `at`, by whole words, relaxed. Panics when they do not lie inside the page.
    pub(crate) fn store(&mut self, at: usize, bytes: &[u8]) {
        let (mut index, skip) = (at / WORD, at % WORD);
        let mut rest = bytes;
        if skip != 0 && !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(WORD - skip));
            self.merge(index, skip, head);
            (index, rest) = (index + 1, tail);
        }
        let (whole, tail) = rest.as_chunks::<WORD>();
        let targets = &self.words[index..index + whole.len()];
        // By fours, since no compiler unrolls a loop of atomic stores.
        let (target_fours, targets) = targets.as_chunks::<4>();
        let (fours, ones) = whole.as_chunks::<4>();
        for (targets, words) in target_fours.iter().zip(fours) {
            store_each(targets, words);
        }
        store_each(targets, ones);
        if !tail.is_empty() {
            self.merge(index + whole.len(), 0, tail);
        }
    }

    /// Read-modify-write of part of one word, fewer than eight bytes of it; no other writer exists.
    #[inline]
    fn merge(&self, index: usize, skip: usize, part: &[u8]) {
        let (word, shift) = (&self.words[index], 8 * skip as u32);
        let mask = ((1 << (8 * part.len())) - 1) << shift;
        word.store((load(word) & !mask | short_word(part) << shift).to_le(), Ordering::Relaxed);
    }

    /// Moves whole words `from..to` by one place, up or down, within the page.
    pub(crate) fn shift_words(&mut self, from: usize, to: usize, up: bool) {
        let move_word = |source: &AtomicU64, target: &AtomicU64| {
            target.store(source.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        if up {
            let pairs = self.words[from..=to].array_windows();
            pairs.rev().for_each(|[low, high]| move_word(low, high));
        } else {
            let pairs = self.words[from - 1..to].array_windows();
            pairs.for_each(|[low, high]| move_word(high, low));
        }
    }

    /// Stores zeros into bytes `from..to`.
    pub(crate) fn zero(&mut self, from: usize, to: usize) {
        const ZEROS: [u8; WORD] = [0; WORD];
        let first = from.next_multiple_of(WORD).min(to);
        let last = (to - to % WORD).max(first);
        self.store(from, &ZEROS[..first - from]);
        let whole = &self.words[first.div_ceil(WORD)..last.div_ceil(WORD)];
        // By eights, since no compiler unrolls a loop of atomic stores.
        let (eights, rest) = whole.as_chunks::<8>();
        let clear = |word: &AtomicU64| word.store(0, Ordering::Relaxed);
        for eight in eights {
            eight.iter().for_each(clear);
        }
        rest.iter().for_each(clear);
        self.store(last, &ZEROS[..to - last]);
    }
}

/// Fewer than eight bytes as a number, the first one lowest. In at most three steps: a copy of a length that
/// only running code knows is a call.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    let (mut rest, mut word, mut shift) = (bytes, 0, 0);
    if let Some((four, behind)) = rest.split_first_chunk() {
        (rest, word, shift) = (behind, u64::from(u32::from_le_bytes(*four)), 32);
    }
    if let Some((two, behind)) = rest.split_first_chunk() {
        word |= u64::from(u16::from_le_bytes(*two)) << shift;
        (rest, shift) = (behind, shift + 16);
    }
    rest.first().map_or(word, |one| word | u64::from(*one) << shift)
}

#[inline]
fn store_each(targets: &[AtomicU64], words: &[[u8; WORD]]) {
    for (target, word) in targets.iter().zip(words) {
        target.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
    }
}

/// One 4 KiB piece of a page buffer, aligned for files that bypass the system's cache.
#[repr(C, align(4096))]
struct Block([AtomicU64; 4096 / WORD]);

/// A page that one thread owns: I/O buffers, tests, repair. Aligned to 4096 bytes.
pub struct PageBuf {
    blocks: Box<[Block]>,
}

impl PageBuf {
    /// A zero page.
    pub fn new(size: PageSize) -> Self {
        let blocks = Box::<[Block]>::new_zeroed_slice(size.bytes() / 4096);
        // SAFETY: a block is words and nothing else, and a word may be zero.
        Self { blocks: unsafe { blocks.assume_init() } }
    }

    fn words(&self) -> &[AtomicU64] {
        let pointer = self.blocks.as_ptr().cast::<AtomicU64>();
        // SAFETY: blocks are arrays of words laid out one behind the other without padding (their size is
        // their alignment), all initialised, borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(pointer, self.blocks.len() * (4096 / WORD)) }
    }

    /// Read view.
    pub fn page(&self) -> PageRef<'_> {
        PageRef::new(self.bytes())
    }

    /// Write view.
    pub fn page_mut(&mut self) -> PageMut<'_> {
        PageMut::new(WordsMut { words: self.words() })
    }

    /// The page's bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: every way to store needs `&mut self`.
        unsafe { bytes_of(self.words()) }
    }

    /// The page's bytes, to be overwritten by a read from disk.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.blocks.len() * size_of::<Block>();
        let pointer = self.blocks.as_mut_ptr().cast::<u8>();
        // SAFETY: `&mut self` is the only access to these words, all `len` bytes belong to them, and any
        // bytes are valid words.
        unsafe { std::slice::from_raw_parts_mut(pointer, len) }
    }

    /// Copies a page out of a frame. The caller holds its latch.
    pub fn copy_from(&mut self, page: PageRef<'_>) {
        self.bytes_mut().copy_from_slice(page.bytes());
    }
}

impl fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PageBuf").field(&self.page()).finish()
    }
}

impl Clone for PageBuf {
    fn clone(&self) -> Self {
        let size = PageSize::new(self.bytes().len() as u32).expect("made from a page size");
        let mut copy = Self::new(size);
        copy.copy_from(self.page());
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_at_every_offset_and_length_touch_exactly_their_bytes() {
        let size = PageSize::new(4096).unwrap();
        for at in 0..24 {
            for len in 0..24 {
                let mut buf = PageBuf::new(size);
                buf.bytes_mut().fill(0xEE);
                let mut expected = buf.bytes().to_vec();
                let bytes: Vec<u8> = (1..=len as u8).collect();
                expected[at..at + len].copy_from_slice(&bytes);
                WordsMut { words: buf.words() }.store(at, &bytes);
                assert_eq!(buf.bytes(), expected, "at {at}, {len} bytes");
            }
        }
    }

    #[test]
    fn zeroing_touches_exactly_its_bytes() {
        for from in 0..24 {
            for to in from..40 {
                let mut buf = PageBuf::new(PageSize::new(4096).unwrap());
                buf.bytes_mut().fill(0xEE);
                let mut expected = buf.bytes().to_vec();
                expected[from..to].fill(0);
                WordsMut { words: buf.words() }.zero(from, to);
                assert_eq!(buf.bytes(), expected, "{from}..{to}");
            }
        }
    }

    #[test]
    fn words_have_their_first_byte_lowest() {
        let mut buf = PageBuf::new(PageSize::DEFAULT);
        buf.bytes_mut()[8..16].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
        let cell = PageCell::new(buf.words());
        assert_eq!(cell.word(1), Some(0x1122_3344_5566_7788));
        assert_eq!(cell.word(1024), None);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_store_beyond_the_page_panics() {
        let buf = PageBuf::new(PageSize::DEFAULT);
        WordsMut { words: buf.words() }.store(8188, &[0; 12]);
    }
}
