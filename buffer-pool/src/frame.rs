//! What the pool knows about each frame, and the life of a dirty page.
//!
//! ```text
//!                 dirty_from(tail)            begin_copy             end_copy(written)
//!      clean ───────────────────────► dirty ─────────────► copied ─────────────────────► clean
//!      rec_lsn 0                      rec_lsn = tail          │  ▲                        or, if changed
//!                                        ▲                    │  │ end_copy(failed)       meanwhile, dirty
//!                                        └────────────────────┼──┘                        rec_lsn = next
//!                                                             ▼
//!                                         dirty_from(tail): next_rec_lsn = tail, if not set
//! ```
//!
//! Beside each recLSN stands whether the record that set it overwrites the page (`Format`, `Image`): then redo,
//! which begins there or before, makes the page anew whatever the disk holds of it, and its write needs no
//! copy on the side (rule B6; `docs/decisions/pages-the-log-rebuilds-are-written-once.md`).
//!
//! A page can change while a copy of it is on its way to disk. That change is not in the copy, so it
//! opens `next_rec_lsn`, which becomes the recLSN when the copy has been written. Without it a hot page
//! would pin redo at its first change for ever, or lose one.
//!
//! Numbered rules:
//!
//! * B1. recLSN is set before the record is appended, so no checkpoint can miss the page (`dirty_from`
//!   gets the log's tail, which is at most the record's LSN).
//! * B2. A copied page is not copied again before its write ended: two writes of one page would race to
//!   the disk.
//! * B3. The page enters the table of written but unsynced pages before its frame turns clean.
//! * B6. A page is written without a copy on the side only if the first record at or after its recLSN
//!   overwrites it. When recLSN moves on, so does the answer. (B4 and B5 are asserted where they hold.)
//!
//! `rec_lsn` and `copied` are written under `life` and read without it where a stale answer is harmless
//! or the latch excludes it. Left out: a list ordered by recLSN; the cleaner looks at all frames.

use argali_base::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use argali_base::{Lsn, PageId};

use crate::options::Mutations;

/// One frame's state, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Frame {
    /// Page id + 1; 0 = free. Changed under the page's exclusive latch.
    page: AtomicU64,
    /// First record that may not be in the page on disk; 0 = clean.
    rec_lsn: AtomicU64,
    /// A copy of the page is on its way to disk.
    copied: AtomicBool,
    /// Mode `FullPageImage`: the log holds the page's image since it was read in or last copied.
    imaged: AtomicBool,
    life: Mutex<Life>,
}

/// What goes with a frame's recLSN, and what its next one will be.
#[derive(Debug, Default)]
struct Life {
    /// The first record at or after recLSN overwrites the page (B6). Never set on a clean page.
    overwritten: bool,
    /// First record appended after the copy was taken; `NONE` = none.
    next_rec_lsn: Lsn,
    /// As `overwritten`, for `next_rec_lsn`.
    next_overwritten: bool,
}

impl Frame {
    fn page(&self) -> Option<PageId> {
        self.page.load(Ordering::Acquire).checked_sub(1).map(PageId::new)
    }

    fn rec_lsn(&self) -> Lsn {
        Lsn::new(self.rec_lsn.load(Ordering::Acquire))
    }
}

/// All frames' states.
#[derive(Debug)]
pub(crate) struct Frames {
    all: Vec<Frame>,
    dirty: AtomicUsize,
    mutations: Mutations,
}

impl Frames {
    pub(crate) fn new(frames: usize, mutations: Mutations) -> Self {
        let all = std::iter::repeat_with(Frame::default).take(frames).collect();
        Self { all, dirty: AtomicUsize::new(0), mutations }
    }

    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Frames that are dirty or being written.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.load(Ordering::Relaxed)
    }

    /// The page in a frame, if any; true for as long as its latch is held.
    pub(crate) fn page(&self, frame: usize) -> Option<PageId> {
        self.all[frame].page()
    }

    /// Page `id` stands in `frame` now. The caller holds its exclusive latch.
    pub(crate) fn occupy(&self, frame: usize, id: PageId) {
        let frame = &self.all[frame];
        frame.imaged.store(false, Ordering::Relaxed);
        frame.page.store(id.get() + 1, Ordering::Release);
    }

    /// `frame` is free now. The caller holds the exclusive latch of the page that stood in it.
    pub(crate) fn vacate(&self, frame: usize) {
        // Invariant B4: only a page that is wholly on disk leaves the pool.
        assert!(self.is_clean(frame), "frame {frame} leaves dirty: {:?}", self.all[frame]);
        self.all[frame].page.store(0, Ordering::Release);
    }

    /// Neither dirty nor being written. Certain under the page's exclusive latch.
    pub(crate) fn is_clean(&self, frame: usize) -> bool {
        // `copied` first: it is cleared after recLSN took its new value.
        let frame = &self.all[frame];
        !frame.copied.load(Ordering::Acquire) && frame.rec_lsn().is_none()
    }

    /// Being written: worth neither copying nor evicting now.
    pub(crate) fn is_copied(&self, frame: usize) -> bool {
        self.all[frame].copied.load(Ordering::Acquire)
    }

    pub(crate) fn is_imaged(&self, frame: usize) -> bool {
        self.all[frame].imaged.load(Ordering::Relaxed)
    }

    /// The page changed, so the log holds what redo needs. The caller holds its exclusive latch.
    pub(crate) fn set_imaged(&self, frame: usize) {
        self.all[frame].imaged.store(true, Ordering::Relaxed);
    }

    /// Rule B1. `overwrites`: the record to come does that to the page (B6). The caller holds the exclusive
    /// latch: no copy can begin meanwhile.
    pub(crate) fn dirty_from(&self, frame: usize, tail: Lsn, overwrites: bool) {
        assert!(!tail.is_none(), "a recLSN is never 0");
        let frame = &self.all[frame];
        if !frame.copied.load(Ordering::Acquire) && !frame.rec_lsn().is_none() {
            return;
        }
        let mut life = frame.life.lock();
        if frame.copied.load(Ordering::Relaxed) {
            if life.next_rec_lsn.is_none() {
                (life.next_rec_lsn, life.next_overwritten) = (tail, overwrites);
            }
        } else if frame.rec_lsn().is_none() {
            life.overwritten |= overwrites;
            frame.rec_lsn.store(tail.get(), Ordering::Release);
            self.dirty.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Claims the page for one write (B2); says whether redo would make it anew (B6). The caller holds a shared
    /// latch and copies the page before it lets go. `None`: clean, or being written already.
    pub(crate) fn begin_copy(&self, frame: usize) -> Option<bool> {
        let frame = &self.all[frame];
        let life = frame.life.lock();
        if frame.copied.load(Ordering::Relaxed) || frame.rec_lsn().is_none() {
            return None;
        }
        let next_rec_lsn = life.next_rec_lsn;
        assert!(next_rec_lsn.is_none(), "next recLSN {next_rec_lsn} without a copy on its way");
        frame.copied.store(true, Ordering::Release);
        frame.imaged.store(false, Ordering::Relaxed);
        Some(life.overwritten)
    }

    /// The write of the copy ended well: `keep` remembers the old recLSN until a sync (B3), then the
    /// page is clean, or dirty from its first change since the copy.
    pub(crate) fn written(&self, frame: usize, keep: impl FnOnce(Lsn)) {
        let frame = &self.all[frame];
        let mut life = frame.life.lock();
        keep(frame.rec_lsn());
        let next = std::mem::take(&mut life.next_rec_lsn);
        let stale = life.overwritten && self.mutations.overwritten_for_ever;
        life.overwritten = std::mem::take(&mut life.next_overwritten) || stale;
        if next.is_none() {
            self.dirty.fetch_sub(1, Ordering::Relaxed);
        }
        frame.rec_lsn.store(next.get(), Ordering::Release);
        frame.copied.store(false, Ordering::Release);
    }

    /// The write of the copy failed: everything since the old recLSN is still to be written.
    pub(crate) fn not_written(&self, frame: usize) {
        let frame = &self.all[frame];
        let mut life = frame.life.lock();
        (life.next_rec_lsn, life.next_overwritten) = (Lsn::NONE, false);
        frame.copied.store(false, Ordering::Release);
    }

    /// Dirty pages with their recLSN, one frame after the other. Complete for every change whose
    /// `dirty_from` happened before the call, except those written meanwhile (B3).
    pub(crate) fn for_each_dirty(&self, mut see: impl FnMut(PageId, Lsn)) {
        for frame in &self.all {
            if frame.rec_lsn().is_none() {
                continue;
            }
            let life = frame.life.lock();
            let rec_lsn = frame.rec_lsn();
            // While dirty, a page stays in its frame.
            if let (Some(page), false) = (frame.page(), rec_lsn.is_none()) {
                see(page, rec_lsn);
            }
            drop(life);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirty(frames: &Frames) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        frames.for_each_dirty(|page, lsn| all.push((page.get(), lsn.get())));
        all
    }

    fn one_page() -> Frames {
        let frames = Frames::new(2, Mutations::default());
        frames.occupy(1, PageId::new(7));
        frames
    }

    fn begin_copy(frames: &Frames) -> bool {
        frames.begin_copy(1).is_some()
    }

    #[test]
    fn the_first_change_sets_the_rec_lsn_and_later_ones_leave_it() {
        let frames = one_page();
        assert!(frames.is_clean(1));
        frames.dirty_from(1, Lsn::new(100), false);
        frames.dirty_from(1, Lsn::new(200), false);
        assert_eq!(dirty(&frames), [(7, 100)]);
        assert_eq!(frames.dirty(), 1);
    }

    #[test]
    fn a_written_page_is_clean() {
        let frames = one_page();
        frames.dirty_from(1, Lsn::new(100), false);
        assert!(begin_copy(&frames));
        assert_eq!(dirty(&frames), [(7, 100)], "being written is not written");
        let mut kept = Lsn::NONE;
        frames.written(1, |rec_lsn| kept = rec_lsn);
        assert_eq!(kept, Lsn::new(100));
        assert!(frames.is_clean(1));
        assert_eq!((dirty(&frames), frames.dirty()), (vec![], 0));
    }

    #[test]
    fn a_change_during_the_write_keeps_the_page_dirty_from_there() {
        let frames = one_page();
        frames.dirty_from(1, Lsn::new(100), false);
        assert!(begin_copy(&frames));
        frames.dirty_from(1, Lsn::new(300), false);
        frames.dirty_from(1, Lsn::new(400), false);
        assert_eq!(dirty(&frames), [(7, 100)]);
        frames.written(1, |_| ());
        assert!(!frames.is_clean(1));
        assert_eq!((dirty(&frames), frames.dirty()), (vec![(7, 300)], 1));
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let frames = one_page();
        frames.dirty_from(1, Lsn::new(100), false);
        assert!(begin_copy(&frames));
        frames.dirty_from(1, Lsn::new(300), false);
        frames.not_written(1);
        assert_eq!((dirty(&frames), frames.dirty()), (vec![(7, 100)], 1));
        assert!(begin_copy(&frames), "and it may be tried again");
    }

    #[test]
    fn a_page_is_not_copied_twice_at_once_and_not_when_clean() {
        let frames = one_page();
        assert!(!begin_copy(&frames));
        frames.dirty_from(1, Lsn::new(100), false);
        assert!(begin_copy(&frames));
        assert!(!begin_copy(&frames));
    }

    #[test]
    fn only_the_record_that_set_the_rec_lsn_says_whether_redo_makes_the_page_anew() {
        for (records, anew) in [
            ([true, false], true),
            ([true, true], true),
            ([false, true], false),
            ([false; 2], false),
        ] {
            let frames = one_page();
            for (lsn, overwrites) in (100..).zip(records) {
                frames.dirty_from(1, Lsn::new(lsn), overwrites);
            }
            assert_eq!(frames.begin_copy(1), Some(anew), "{records:?}");
        }
    }

    #[test]
    fn the_answer_moves_on_with_the_rec_lsn_and_stays_when_it_stays() {
        let frames = one_page();
        frames.dirty_from(1, Lsn::new(100), true);
        assert_eq!(frames.begin_copy(1), Some(true));
        frames.dirty_from(1, Lsn::new(300), false);
        frames.not_written(1);
        assert_eq!(frames.begin_copy(1), Some(true), "recLSN is 100 still");
        frames.dirty_from(1, Lsn::new(400), false);
        frames.written(1, |_| ());
        assert_eq!(frames.begin_copy(1), Some(false), "recLSN is 400 now");
        frames.dirty_from(1, Lsn::new(500), true);
        frames.not_written(1);
        assert_eq!(frames.begin_copy(1), Some(false), "400 is still to be redone first");
        frames.dirty_from(1, Lsn::new(600), true);
        frames.written(1, |_| ());
        assert_eq!(frames.begin_copy(1), Some(true));
        frames.written(1, |_| ());
        frames.dirty_from(1, Lsn::new(700), false);
        assert_eq!(frames.begin_copy(1), Some(false), "clean in between");
    }

    #[test]
    fn a_copy_asks_for_a_new_image() {
        let frames = one_page();
        frames.set_imaged(1);
        frames.dirty_from(1, Lsn::new(100), false);
        assert!(begin_copy(&frames));
        assert!(!frames.is_imaged(1));
    }

    #[test]
    #[should_panic(expected = "leaves dirty")]
    fn a_dirty_page_cannot_leave() {
        let frames = one_page();
        frames.dirty_from(1, Lsn::new(100), false);
        frames.vacate(1);
    }
}
