//! The flusher: carries complete records from the ring to the segment files. One at a time.
//!
//! ```text
//!   ring      … │ complete records │ …
//!                ▼ copy
//!   staging   │kept│ new bytes      │0000│      whole blocks of the file's alignment
//!              ▼ one write, durable when it returns; when it takes several (one per segment and
//!                staging buffer), those and then a sync of each touched segment
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

    /// Writes everything from `written` to `end` and, unless told otherwise, syncs it. After an error that did
    /// not poison, the next call goes on where this one stopped, be it in the middle of a record.
    pub(crate) fn flush(
        &mut self,
        ring: &Ring,
        segments: &Segments,
        end: u64,
        sync: bool,
    ) -> Result<()> {
        self.grow((end - self.written) as usize);
        if sync && self.touched.is_empty() && self.next_write(segments, end) == end {
            return self.write_some(ring, end, |at, bytes| segments.write_through(at, bytes));
        }
        while self.written < end {
            let next = self.next_write(segments, end);
            let index = self.written / segments.size();
            self.write_some(ring, next, |at, bytes| segments.write(at, bytes))?;
            if self.touched.last() != Some(&index) {
                self.touched.push(index);
            }
        }
        // One by one: what was not synced must not be forgotten when a segment cannot be opened.
        while let Some(&index) = self.touched.first() {
            if sync {
                segments.sync(index)?;
            }
            self.touched.remove(0);
        }
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

    /// Where the next write ends: as far as staging buffer and segment allow.
    fn next_write(&self, segments: &Segments, end: u64) -> u64 {
        let room = (self.staging.len() - self.kept) as u64;
        end.min(self.written + room).min(segments.end_of(self.written / segments.size()))
    }

    /// One write of what lies between `written` and `end`.
    fn write_some(
        &mut self,
        ring: &Ring,
        end: u64,
        write: impl FnOnce(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let total = self.kept + (end - self.written) as usize;
        ring.copy_out(self.written, &mut self.staging[self.kept..total]);
        let padded = total.next_multiple_of(self.alignment);
        self.staging[total..padded].fill(0);
        write(self.written - self.kept as u64, &self.staging[..padded])?;
        let kept = total % self.alignment;
        self.staging.copy_within(total - kept..total, 0);
        self.kept = kept;
        self.written = end;
        Ok(())
    }
}
