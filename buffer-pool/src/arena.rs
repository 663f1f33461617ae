//! The memory of the pool: frames for page bytes, and one latch word for every possible page.
//!
//! ```text
//!  frames   │ frame 0 │ frame 1 │ frame 2 │ …      page_size bytes each, page-aligned
//!  words    │ w0 │ w1 │ w2 │ w3 │ …                8 bytes per page id: the translation array
//! ```
//!
//! Page ids are dense, so "where is page 7?" is `words[7]`: no hash, no chain, no lock. Both areas are
//! anonymous maps that the system backs with memory when they are first touched, so a large limit of
//! pages costs address space only. Under feature `shuttle` the words are the scheduler's atomics and
//! live in a vector.
//!
//! This is one of the three files that may use `unsafe`.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::atomic::AtomicU64 as PlainU64;

use argali_base::sync::AtomicU64;
use argali_base::{Error, Result};
use argali_pager::{PageCell, PageSize};
use memmap2::{MmapMut, MmapOptions};

/// Frames and latch words.
pub(crate) struct Arena {
    frames: MmapMut,
    page_words: usize,
    frame_count: usize,
    words: Words,
}

#[cfg(not(feature = "shuttle"))]
struct Words {
    map: MmapMut,
}
#[cfg(feature = "shuttle")]
struct Words {
    vec: Vec<AtomicU64>,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} frames, {} words)", self.frame_count, self.words().len())
    }
}

impl Arena {
    /// Maps `frame_count` frames of `size` and `page_max` latch words.
    pub(crate) fn new(size: PageSize, frame_count: usize, page_max: usize) -> Result<Self> {
        let frames = map(frame_count * size.bytes(), "cache")?;
        #[cfg(target_os = "linux")]
        // Large pages save a tenth of a point read; where they are not to be had, small ones do.
        let _ = frames.advise(memmap2::Advice::HugePage);
        #[cfg(not(feature = "shuttle"))]
        let words = Words { map: map(page_max * size_of::<AtomicU64>(), "translation array")? };
        #[cfg(feature = "shuttle")]
        let words = Words { vec: (0..page_max).map(|_| AtomicU64::new(0)).collect() };
        Ok(Self { frames, page_words: size.bytes() / size_of::<PlainU64>(), frame_count, words })
    }

    /// The bytes of frame `index`.
    pub(crate) fn cell(&self, index: u32) -> &PageCell {
        let index = index as usize;
        assert!(index < self.frame_count, "frame {index} of {}", self.frame_count);
        let first: *const PlainU64 = self.frames.as_ptr().cast();
        // SAFETY: the map is page-aligned, lives as long as `self`, holds `frame_count * page_words`
        // words, and is reached only through such atomics: no `&mut` to it is ever made.
        let words = unsafe {
            std::slice::from_raw_parts(first.add(index * self.page_words), self.page_words)
        };
        PageCell::new(words)
    }

    /// The translation array.
    #[cfg(not(feature = "shuttle"))]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let map = &self.words.map;
        // SAFETY: page-aligned, zero-initialised, as long-lived as `self`, reached only through atomics.
        unsafe {
            std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / size_of::<AtomicU64>())
        }
    }

    /// The translation array.
    #[cfg(feature = "shuttle")]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.words.vec
    }
}

fn map(bytes: usize, what: &'static str) -> Result<MmapMut> {
    MmapOptions::new()
        .len(bytes)
        .no_reserve_swap()
        .map_anon()
        .map_err(|source| Error::io("map memory for the", what, source))
}
