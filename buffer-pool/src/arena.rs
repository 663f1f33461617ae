//! Memory: the frames, and the translation array from page ids to frames.
//!
//! ```text
//!  translation   word p0 │ word p1 │ word p2 │ …     one word per possible page, touched when used
//!                   │
//!  frames        frame 0 │ frame 1 │ …               one anonymous map, page-aligned, huge pages if the
//!                                                    system gives them
//! ```
//!
//! Both are anonymous maps: zeroed by the system, and not a byte of memory is spent before it is used,
//! so the translation array can have a word for every page the data file may ever have. Page ids are
//! dense; that is why an array does, and a hit needs no hash table.
//!
//! This is one of the three files that may use `unsafe`. Left out: growing or shrinking either.
#![allow(unsafe_code)]

use argali_base::sync::AtomicU64 as Word;
use argali_base::{Error, PageId, Result};
use argali_pager::{PageCell, PageSize};
use memmap2::{MmapOptions, MmapRaw};
use std::sync::atomic::AtomicU64;

/// Words of anonymous memory, zero at first.
#[derive(Debug)]
struct Words {
    map: MmapRaw,
    len: usize,
}

impl Words {
    fn new(len: usize, what: &'static str) -> Result<Self> {
        let refuse = |why: String| Err(Error::Invalid { what, why });
        let Some(bytes) = len.checked_mul(size_of::<AtomicU64>()).filter(|bytes| *bytes > 0) else {
            return refuse(format!("{len} words of memory"));
        };
        match MmapOptions::new().len(bytes).no_reserve_swap().map_anon() {
            Ok(map) => Ok(Self { map: MmapRaw::from(map), len }),
            Err(e) => refuse(format!("the system gives no {bytes} bytes of address space: {e}")),
        }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "maps begin at a multiple of the page size")]
    fn as_slice(&self) -> &[AtomicU64] {
        // SAFETY: the map is page-aligned, `len` words long, zeroed (zero is a valid `AtomicU64`), lives
        // as long as `self`, and is reached through this slice only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.len) }
    }
}

/// The frames.
#[derive(Debug)]
pub(crate) struct Arena {
    words: Words,
    words_per_frame: usize,
    frames: usize,
}

impl Arena {
    pub(crate) fn new(frames: usize, size: PageSize) -> Result<Self> {
        let words_per_frame = size.bytes() / size_of::<AtomicU64>();
        let words = Words::new(frames.saturating_mul(words_per_frame), "frames")?;
        #[cfg(target_os = "linux")]
        {
            // Best effort: without huge pages every miss of the TLB costs a little more.
            let _ = words.map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { words, words_per_frame, frames })
    }

    pub(crate) const fn frames(&self) -> usize {
        self.frames
    }

    /// Panics when there is no such frame: frame numbers come from this pool only.
    #[inline]
    pub(crate) fn cell(&self, frame: usize) -> &PageCell {
        let start = frame * self.words_per_frame;
        PageCell::new(&self.words.as_slice()[start..start + self.words_per_frame])
    }
}

/// From page id to latch word.
#[derive(Debug)]
pub(crate) struct Translation {
    #[cfg(not(feature = "shuttle"))]
    words: Words,
    #[cfg(feature = "shuttle")]
    words: Vec<Word>,
}

impl Translation {
    pub(crate) fn new(pages_max: u64) -> Result<Self> {
        let len = usize::try_from(pages_max).unwrap_or(usize::MAX);
        #[cfg(not(feature = "shuttle"))]
        let words = Words::new(len, "pages_max")?;
        #[cfg(feature = "shuttle")]
        let words = std::iter::repeat_with(|| Word::new(0)).take(len).collect();
        Ok(Self { words })
    }

    /// The word of page `id`; `None` beyond `pages_max`.
    #[inline]
    pub(crate) fn word(&self, id: PageId) -> Option<&Word> {
        #[cfg(not(feature = "shuttle"))]
        let words = self.words.as_slice();
        #[cfg(feature = "shuttle")]
        let words = &self.words;
        words.get(usize::try_from(id.get()).ok()?)
    }
}

/// Asks the processor to fetch `bytes` bytes from the start of `cell`. No effect but on time.
#[inline]
pub(crate) fn prefetch(cell: &PageCell, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing the program can see and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(cell.address().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (cell, bytes);
}
