//! Where a log may be cut: the first record that begins in a segment.
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
//! record before it is. So a frame counts when an unbroken run from it is longer than any record.

use argali_base::{Lsn, Result};

use crate::frame::{self, FRAME_BYTES_MIN, KIND_AT};
use crate::read::{Direction, Window};
use crate::record::is_known;
use crate::{RECORD_BYTES_MAX, Wal};

/// Bytes whose checksum is computed in search of it: bounds the work on bytes in which every eighth looks like the
/// start of a long frame, and behind it that of the next.
const SEARCH_BYTES_MAX: usize = 256 << 20;

impl Wal {
    /// The first record that begins in the segment of `lsn`, if it begins at or before `lsn` and can be told. It
    /// may stand below [`Wal::first`].
    pub fn first_in_segment(&self, lsn: Lsn) -> Result<Option<Lsn>> {
        let segments = self.segments();
        let begin = (segments.index(lsn) * segments.size()).max(Lsn::FIRST.get());
        let last = lsn.get().min(begin + RECORD_BYTES_MAX as u64);
        let mut run = Run { wal: self, window: Window::for_scan(), budget: SEARCH_BYTES_MAX };
        // All that is looked at, so that looking ahead and back reads nothing again.
        run.see(begin, 3 * RECORD_BYTES_MAX)?;
        for at in (begin..=last).step_by(8) {
            if run.may_begin_at(at)? && run.begins_at(at)? {
                return Ok(Some(Lsn::new(at)));
            }
        }
        Ok(None)
    }
}

/// What is looked for: frames that follow each other.
struct Run<'w> {
    wal: &'w Wal,
    window: Window,
    budget: usize,
}

impl Run<'_> {
    fn see(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        self.window.forward(self.wal.segments(), (at, len), self.wal.durable().end().get())
    }

    /// Whether the bytes at `at` look like a frame, and those behind it say how long it is.
    fn may_begin_at(&mut self, at: u64) -> Result<bool> {
        let head = self.see(at, FRAME_BYTES_MIN)?;
        let Ok(len) = frame::plausible_len(head) else { return Ok(false) };
        if !head.get(KIND_AT).is_some_and(|tag| is_known(*tag)) {
            return Ok(false);
        }
        let next = at + len as u64;
        let is_last = next == self.wal.durable().end().get();
        Ok(is_last || frame::prev_len(self.see(next, FRAME_BYTES_MIN)?) == Some(len))
    }

    /// Whether whole frames follow each other from `at` on, for longer than a record can be or to the durable end.
    fn begins_at(&mut self, at: u64) -> Result<bool> {
        let (wal, durable) = (self.wal, self.wal.durable().end().get());
        let enough = durable.min(at + RECORD_BYTES_MAX as u64);
        let (mut next, mut prev_len) = (at, None);
        while next < enough {
            let frame = self.window.frame(Direction::Forward, wal.segments(), next, durable)?;
            let Ok(frame) = frame else { return Ok(false) };
            let Some(left) = self.budget.checked_sub(frame.len()) else { return Ok(false) };
            self.budget = left;
            let follows = prev_len.is_none_or(|len| frame::prev_len(frame) == Some(len));
            if !follows || frame::check(frame, wal.seed(), Lsn::new(next)).is_err() {
                return Ok(false);
            }
            next += frame.len() as u64;
            prev_len = Some(frame.len());
        }
        Ok(at < enough)
    }
}
