//! A byte buffer that starts at a multiple of 4096, for files that bypass the operating system's cache.
//!
//! Such files (`O_DIRECT`) take only aligned buffers, offsets and lengths. Asking a vector for a little
//! more than needed and starting at the first aligned byte does it without `unsafe`; the vector never
//! grows, so the start stays where it is.

use std::ops::{Deref, DerefMut};

/// Alignment of every such buffer; every disk's own is a divisor of it.
pub(crate) const BLOCK_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        Self { bytes, start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Whether all of `bytes` are zero, found out by blocks: most of what is asked about is megabytes of zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    bytes.chunks(BLOCK_BYTES).all(|block| *block == ZEROS[..block.len()])
}

/// `value` rounded down to a multiple of `unit`.
pub(crate) const fn round_down(value: u64, unit: usize) -> u64 {
    value - value % unit as u64
}
