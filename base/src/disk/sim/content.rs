//! The bytes of one simulated file: chunks behind `Arc`, so that copies of a disk share what neither changed.
//!
//! ```text
//!  len 9000   chunks  [ Arc ][ none ][ Arc ]      none = 4096 zeros, never written
//!                       │              │
//!                       └ shared with the durable image until one of the two writes
//! ```
//!
//! Invariant C1: bytes of a chunk at or past `len` are zero, so growing shows zeros.

use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What a disk writes or loses as a whole, in bytes.
pub const SECTOR: usize = 512;

const CHUNK: usize = 4096;
/// Longest simulated file: keeps the table of chunks of a stray far write within reason.
const MAX_LEN: u64 = 1 << 40;

type Chunk = [u8; CHUNK];

/// Sparse bytes with a length.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Copies what there is at `offset` into `buf`; returns how many bytes that was.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let left = self.len.saturating_sub(offset);
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        for (chunk, within, part) in pieces(offset, n) {
            let out = &mut buf[part];
            match self.chunks.get(chunk).and_then(Option::as_ref) {
                Some(bytes) => out.copy_from_slice(&bytes[within..within + out.len()]),
                None => out.fill(0),
            }
        }
        n
    }

    /// Stores `bytes` at `offset`, growing as needed. The caller checked [`fits`].
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        let chunks = end.div_ceil(CHUNK as u64) as usize;
        if !bytes.is_empty() && self.chunks.len() < chunks {
            self.chunks.resize(chunks, None);
        }
        for (chunk, within, part) in pieces(offset, bytes.len()) {
            let slot = self.chunks[chunk].get_or_insert_with(|| Arc::new([0; CHUNK]));
            Arc::make_mut(slot)[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
        if !bytes.is_empty() {
            self.len = self.len.max(end);
        }
    }

    /// Cuts, or grows with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.chunks.truncate(len.div_ceil(CHUNK as u64) as usize);
            let (last, within) = ((len / CHUNK as u64) as usize, (len % CHUNK as u64) as usize);
            // C1: what is cut off must not come back when the file grows again.
            if let Some(Some(chunk)) = self.chunks.get_mut(last) {
                Arc::make_mut(chunk)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// `count` whole sectors from sector `first`, zeros where there is nothing.
    pub(super) fn sectors(&self, first: u64, count: usize) -> Arc<[u8]> {
        let mut bytes = vec![0; count * SECTOR];
        self.read(&mut bytes, first * SECTOR as u64);
        bytes.into()
    }

    /// Takes over the chunks of `other` that `len` bytes at `offset` touch, without copying.
    pub(super) fn share(&mut self, other: &Self, offset: u64, len: usize) {
        for (chunk, ..) in pieces(offset, len) {
            if self.chunks.len() <= chunk {
                self.chunks.resize(chunk + 1, None);
            }
            self.chunks[chunk] = other.chunks.get(chunk).cloned().flatten();
        }
    }
}

/// Whether a simulated file may have a byte at `offset + len - 1`.
pub(super) fn fits(offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= MAX_LEN => Ok(()),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// Cuts `len` bytes at `offset` at chunk borders: chunk, offset within it, range of the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let at = offset + done as u64;
            let within = (at % CHUNK as u64) as usize;
            let part = done..len.min(done + CHUNK - within);
            done = part.end;
            ((at / CHUNK as u64) as usize, within, part)
        })
    })
}
