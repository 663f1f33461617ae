//! One frame: which page it holds, and what of it is not on disk yet.
//!
//! ```text
//!             dirty_from(tail)                     begin_write
//!   clean ───────────────────────► dirty ──────────────────────────► writing
//!     ▲                            ▲   ▲  end_write(failed)             │  dirty_from(tail):
//!     │                            │   └────────────────────────────────┤  next_rec_lsn = tail
//!     └────────────────────────────┴────────────────────────────────────┘
//!        end_write(ok), no change     end_write(ok): rec_lsn = next_rec_lsn
//!        since the copy
//! ```
//!
//! `rec_lsn` is the first record that may be missing from the page on disk. A change made after the page
//! was copied for write-back is not in that copy, so it opens `next_rec_lsn`, which takes over when the
//! copy is written. That is how a page that is changed all the time stops pinning the redo point.
//!
//! Numbered invariants:
//! - F1: `next_rec_lsn` is set only while writing.
//! - F2: while writing, `rec_lsn` stays: the copy is not durable yet.

use argali_base::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use argali_base::{Lsn, PageId};

/// Book-keeping of one frame. The bytes are in the arena, the latch is the page's word.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Page number plus one; 0 while the frame is free.
    page: AtomicU64,
    /// Set by every use, cleared by the clock hand.
    referenced: AtomicBool,
    dirt: Mutex<Dirt>,
}

/// What of the page is not on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirt {
    pub(crate) rec_lsn: Lsn,
    pub(crate) next_rec_lsn: Lsn,
    pub(crate) writing: bool,
    /// Checkpoint epoch in which the page's image was last logged (or made needless), plus one; 0: not
    /// since it was read in or last copied.
    pub(crate) imaged: u64,
}

/// What a change of the dirty state did to the number of dirty frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Dirty,
    Clean,
    Same,
}

impl Frame {
    pub(crate) fn new() -> Self {
        Self {
            page: AtomicU64::new(0),
            referenced: AtomicBool::new(false),
            dirt: Mutex::new(Dirt::default()),
        }
    }

    /// The page in this frame.
    pub(crate) fn page(&self) -> Option<PageId> {
        self.page.load(Ordering::Acquire).checked_sub(1).map(PageId::new)
    }

    /// Gives the frame to a page that is being claimed.
    pub(crate) fn occupy(&self, page: PageId) {
        *self.dirt.lock() = Dirt::default();
        self.referenced.store(true, Ordering::Relaxed);
        self.page.store(page.get() + 1, Ordering::Release);
    }

    /// The frame holds no page any more.
    pub(crate) fn vacate(&self) {
        let dirt = *self.dirt.lock();
        assert!(
            dirt.rec_lsn.is_none() && !dirt.writing,
            "frame of {:?} vacated while {dirt:?}",
            self.page()
        );
        self.page.store(0, Ordering::Release);
    }

    /// Notes a use; writes the shared line only when it would change.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the hand last passed.
    pub(crate) fn take_reference(&self) -> bool {
        self.referenced.load(Ordering::Relaxed) && self.referenced.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn dirt(&self) -> Dirt {
        *self.dirt.lock()
    }

    /// Marks the page dirty from `tail` on, before the record that changes it is appended.
    pub(crate) fn dirty_from(&self, tail: Lsn) -> Turned {
        let mut dirt = self.dirt.lock();
        if dirt.writing {
            if dirt.next_rec_lsn.is_none() {
                dirt.next_rec_lsn = tail;
            }
            return Turned::Same;
        }
        assert!(dirt.next_rec_lsn.is_none(), "F1: next_rec_lsn {} not writing", dirt.next_rec_lsn);
        if dirt.rec_lsn.is_none() {
            dirt.rec_lsn = tail;
            return Turned::Dirty;
        }
        Turned::Same
    }

    /// The page's content is, or need not be, in the log since the last copy.
    pub(crate) fn set_imaged(&self, mark: u64) {
        self.dirt.lock().imaged = mark;
    }

    /// Called with the copy in hand, under the shared latch: `rec_lsn` of the copy, or `None` when
    /// there is nothing to write or another write is under way.
    pub(crate) fn begin_write(&self, keep_image: bool) -> Option<Lsn> {
        let mut dirt = self.dirt.lock();
        if dirt.writing || dirt.rec_lsn.is_none() {
            return None;
        }
        dirt.writing = true;
        if !keep_image {
            dirt.imaged = 0;
        }
        Some(dirt.rec_lsn)
    }

    /// The copy was written (`true`), or could not be.
    pub(crate) fn end_write(&self, written: bool) -> Turned {
        let mut dirt = self.dirt.lock();
        assert!(dirt.writing, "F2: end of a write that did not begin: {dirt:?}");
        let next = std::mem::take(&mut dirt.next_rec_lsn);
        dirt.writing = false;
        if !written {
            return Turned::Same;
        }
        dirt.rec_lsn = next;
        if next.is_none() { Turned::Clean } else { Turned::Same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_during_the_write_keeps_the_page_dirty_from_there() {
        let frame = Frame::new();
        frame.occupy(PageId::new(7));
        assert_eq!(frame.dirty_from(Lsn::new(100)), Turned::Dirty);
        assert_eq!(frame.dirty_from(Lsn::new(150)), Turned::Same);
        assert_eq!(frame.begin_write(false), Some(Lsn::new(100)));
        assert_eq!(frame.begin_write(false), None, "writes of one page never overlap");
        assert_eq!(frame.dirty_from(Lsn::new(200)), Turned::Same);
        assert_eq!(frame.dirty_from(Lsn::new(250)), Turned::Same);
        assert_eq!(frame.dirt().rec_lsn, Lsn::new(100), "F2: not durable yet");
        assert_eq!(frame.end_write(true), Turned::Same);
        assert_eq!(frame.dirt().rec_lsn, Lsn::new(200));
        assert_eq!(frame.begin_write(false), Some(Lsn::new(200)));
        assert_eq!(frame.end_write(true), Turned::Clean);
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let frame = Frame::new();
        frame.occupy(PageId::new(7));
        frame.dirty_from(Lsn::new(100));
        frame.begin_write(false);
        frame.dirty_from(Lsn::new(200));
        assert_eq!(frame.end_write(false), Turned::Same);
        assert_eq!(frame.dirt().rec_lsn, Lsn::new(100));
        assert!(frame.dirt().next_rec_lsn.is_none());
    }
}
