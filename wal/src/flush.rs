//! The flusher: carries complete records from the ring to the segment files. One at a time.
//!
//! ```text
//!   ring      … │ complete records │ …
//!                ▼ copy
//!   staging   │kept│ new bytes      │0000│      whole blocks of the file's alignment
//!              ▼ write (one per segment and staging buffer), then sync each touched segment
//!   segments  │ block │ block │ block │
//! ```
//!
//! The last block is usually partial. Its bytes are kept at the front of the staging buffer and written
//! again with the next flush (the ring may have reused their place). That rewrites durable bytes with
//! themselves, so it relies on a disk that, when power fails during a write, leaves bytes alone that the
//! write did not change ("power-safe overwrite"). Padding every flush to a block would not rely on it, at
//! up to 4 KiB of log per commit. With alignment 1 exactly the new bytes are written.

use argali_base::{Lsn, Result};

use crate::block::{AlignedBuf, BLOCK_BYTES, round_down};
use crate::ring::Ring;
use crate::segment::Segments;

/// Bytes per write at most, and the bytes a flusher begins with: few logs ever flush more at once.
const STAGING_BYTES_MAX: usize = 512 << 10;
const STAGING_BYTES_MIN: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Flusher {
    staging: AlignedBuf,
    /// Bytes at the front of `staging` that lie on disk already, in the block that `written` is in.
    kept: usize,
    alignment: usize,
    written: u64,
    /// Segments written to and not yet synced.
    touched: Vec<u64>,
}

impl Flusher {
    /// A flusher for a log that ends at `end`, whose segment exists.
    pub(crate) fn new(segments: &Segments, end: Lsn) -> Result<Self> {
        let alignment = segments.alignment(segments.index(end))?;
        let mut staging = AlignedBuf::new(STAGING_BYTES_MIN);
        let start = round_down(end.get(), alignment);
        let kept = (end.get() - start) as usize;
        if kept > 0 && segments.read(start, &mut staging[..alignment])? < kept {
            return Err(segments.corrupt(end, "log segment is shorter than the log"));
        }
        Ok(Self { staging, kept, alignment, written: end.get(), touched: Vec::with_capacity(4) })
    }

    /// LSN behind the last byte that is on disk.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes everything from `written` to `end` and, unless told otherwise, syncs it.
    pub(crate) fn flush(
        &mut self,
        ring: &Ring,
        segments: &Segments,
        end: u64,
        sync: bool,
    ) -> Result<()> {
        let mut at = self.written;
        self.grow((end - at) as usize);
        while at < end {
            at = self.write_some(ring, segments, at, end)?;
        }
        for index in self.touched.drain(..) {
            if sync {
                segments.sync(index)?;
            }
        }
        self.written = end;
        Ok(())
    }

    fn grow(&mut self, flush: usize) {
        let wanted = (flush + BLOCK_BYTES).next_power_of_two().min(STAGING_BYTES_MAX);
        if wanted > self.staging.len() {
            let mut staging = AlignedBuf::new(wanted);
            staging[..self.kept].copy_from_slice(&self.staging[..self.kept]);
            self.staging = staging;
        }
    }

    /// One write: as much as staging buffer and segment allow. Returns where the next one goes on.
    fn write_some(&mut self, ring: &Ring, segments: &Segments, at: u64, end: u64) -> Result<u64> {
        let index = at / segments.size();
        let room = (self.staging.len() - self.kept) as u64;
        let len = (end - at).min(room).min(segments.end_of(index) - at) as usize;
        let total = self.kept + len;
        ring.copy_out(at, &mut self.staging[self.kept..total]);
        let padded = total.next_multiple_of(self.alignment);
        self.staging[total..padded].fill(0);
        segments.write(at - self.kept as u64, &self.staging[..padded])?;
        if self.touched.last() != Some(&index) {
            self.touched.push(index);
        }
        let kept = total % self.alignment;
        self.staging.copy_within(total - kept..total, 0);
        self.kept = kept;
        Ok(at + len as u64)
    }
}
