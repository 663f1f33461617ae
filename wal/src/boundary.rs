//! Frames in a segment of which nobody says where one begins: where a log may be cut, and whether a segment was
//! ever written in.
//!
//! ```text
//!   segment 7            │ segment 8
//!   … ─┬─────────┬───────┼──────┬─────┬────┬─ …
//!      │ record  │ record │      │     │    │
//!                        └ tail ┘└ the first that begins here: whole frames follow each other from it
//! ```
//!
//! Frames are found by the length of the one before, and a segment has no header that names its first. But a frame's
//! checksum holds only where it was written, so whoever looks at each eighth byte finds it soon: behind what
//! is left of one record. Bytes inside that record might be made to look like frames, by somebody who knows the
//! log's identity and their place in it; they cannot go on behind it, because the frame there says how long the
//! record before it is. So a log is cut at a frame only when an unbroken run from it is longer than any record.
//!
//! A segment that was made ready for later holds zeros, or the old bytes of the one it was recycled from: no frame
//! holds where it is now. In one that was written in, frames lie one behind the other, so one begins within the
//! longest record from its beginning, damage aside ([`was_written`]).

use argali_base::{Lsn, Result};

use crate::frame::{self, FRAME_BYTES_MIN, KIND_AT, Seed};
use crate::read::{Direction, Window};
use crate::record::{Record, is_known};
use crate::segment::Segments;
use crate::{RECORD_BYTES_MAX, Wal};

/// Bytes whose checksum is computed in search of it: bounds the work on bytes in which every eighth looks like the
/// start of a long frame, and behind it that of the next.
const SEARCH_BYTES_MAX: usize = 256 << 20;
/// Frames up to so many bytes are looked at whatever follows them: few bytes that are none look so.
const SHORT_BYTES_MAX: usize = 4096;

impl Wal {
    /// The first record that begins in the segment of `lsn`, if it begins at or before `lsn` and can be told. It
    /// may stand below [`Wal::first`].
    pub fn first_in_segment(&self, lsn: Lsn) -> Result<Option<Lsn>> {
        let segments = self.segments();
        let begin = (segments.index(lsn) * segments.size()).max(Lsn::FIRST.get());
        let last = lsn.get().min(begin + RECORD_BYTES_MAX as u64);
        let mut run = Run::new(segments, self.seed(), self.durable().end().get());
        // All that is looked at, so that looking ahead and back reads nothing again.
        run.see(begin, 3 * RECORD_BYTES_MAX)?;
        for at in (begin..=last).step_by(8) {
            if !run.cannot_begin_at(at) && run.may_begin_at(at)? && run.begins_at(at)? {
                return Ok(Some(Lsn::new(at)));
            }
        }
        Ok(None)
    }
}

/// Whether a whole frame begins in the first part of segment `index`. Yes as well when that would take too
/// long to find out.
pub(crate) fn was_written(segments: &Segments, seed: Seed, index: u64) -> Result<bool> {
    let begin = (index * segments.size()).max(Lsn::FIRST.get());
    let last = segments.end_of(index).min(begin + 2 * RECORD_BYTES_MAX as u64);
    let mut run = Run::new(segments, seed, u64::MAX);
    run.see(begin, segments.size().min(3 * RECORD_BYTES_MAX as u64) as usize)?;
    for at in (begin..last).step_by(8) {
        if run.cannot_begin_at(at) || !run.may_begin_at(at)? {
            continue;
        }
        if run.is_whole(at)?.is_none_or(|whole| whole) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is looked for: frames that follow each other, up to `limit`.
struct Run<'s> {
    segments: &'s Segments,
    seed: Seed,
    limit: u64,
    window: Window,
    budget: usize,
}

impl<'s> Run<'s> {
    fn new(segments: &'s Segments, seed: Seed, limit: u64) -> Self {
        Self { segments, seed, limit, window: Window::for_scan(), budget: SEARCH_BYTES_MAX }
    }

    fn see(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        self.window.forward(self.segments, (at, len), self.limit)
    }

    /// Whether what is in memory is enough to say no, as [`Run::may_begin_at`] would: most often it is.
    #[inline]
    fn cannot_begin_at(&self, at: u64) -> bool {
        let head = self.window.part(at, FRAME_BYTES_MIN);
        if head.len() < FRAME_BYTES_MIN {
            return false;
        }
        let Ok(len) = frame::plausible_len(head) else { return true };
        let next = self.window.part(at + len as u64, FRAME_BYTES_MIN);
        let contradicts = len > SHORT_BYTES_MAX
            && next.len() == FRAME_BYTES_MIN
            && frame::prev_len(next) != Some(len);
        contradicts || !is_known(head[KIND_AT])
    }

    /// Whether the bytes at `at` look like a frame, and those behind it say how long it is. A short one may be
    /// the last.
    fn may_begin_at(&mut self, at: u64) -> Result<bool> {
        let head = self.see(at, FRAME_BYTES_MIN)?;
        let Ok(len) = frame::plausible_len(head) else { return Ok(false) };
        if !head.get(KIND_AT).is_some_and(|tag| is_known(*tag)) {
            return Ok(false);
        }
        let next = at + len as u64;
        if next == self.limit || len <= SHORT_BYTES_MAX {
            return Ok(true);
        }
        Ok(frame::prev_len(self.see(next, FRAME_BYTES_MIN)?) == Some(len))
    }

    /// Whether the frame at `at` is whole; `None` when too much was looked at already.
    fn is_whole(&mut self, at: u64) -> Result<Option<bool>> {
        let frame = self.window.frame(Direction::Forward, self.segments, at, self.limit)?;
        let Ok(frame) = frame else { return Ok(Some(false)) };
        // Sooner told than the checksum of what may be half a mebibyte.
        if Record::decode(frame).is_none() {
            return Ok(Some(false));
        }
        let Some(left) = self.budget.checked_sub(frame.len()) else { return Ok(None) };
        self.budget = left;
        Ok(Some(frame::check(frame, self.seed, Lsn::new(at)).is_ok()))
    }

    /// Whether whole frames follow each other from `at` on, for longer than a record can be or to the limit.
    fn begins_at(&mut self, at: u64) -> Result<bool> {
        let enough = self.limit.min(at + RECORD_BYTES_MAX as u64);
        let (mut next, mut prev_len) = (at, None);
        while next < enough {
            if self.is_whole(next)? != Some(true) {
                return Ok(false);
            }
            let head = self.see(next, FRAME_BYTES_MIN)?;
            let follows = prev_len.is_none_or(|len| frame::prev_len(head) == Some(len));
            let Ok(len) = frame::plausible_len(head) else { return Ok(false) };
            if !follows {
                return Ok(false);
            }
            next += len as u64;
            prev_len = Some(len);
        }
        Ok(at < enough)
    }
}
