//! Reading ahead: pages that somebody will need soon, brought in before he asks, neighbours with one call.
//!
//! ```text
//!  run of ids     p7    p8    p9    p10   p11   p12
//!                 out   out   out   in    out   held
//!                 └─ one read ─┘          └─ one read
//! ```
//!
//! It is a hint and nothing else. It takes free frames only, so it throws nobody out, and it waits for no
//! latch. A page that is damaged, unreadable, never written or ahead of the log stays out: whoever needs
//! it reads it himself, and what he makes of it depends on who he is (see [`Missing`](crate::Missing)).
//! As for any page read in, its latch is held from before the read until it stands in its frame, so
//! that nobody brings it in, changes it and writes it back meanwhile.
//!
//! Left out: reading ahead into frames of clean pages.

use argali_base::PageId;
use argali_pager::{Found, PageBuf};

use crate::BufferPool;
use crate::arena;
use crate::glimpse::PREFETCHED;
use crate::latch::{Exclusive, FreeFrame};
use crate::stats::count;

/// Most pages of one read.
const RUN_MAX: usize = 32;

/// A page on its way in.
type Coming<'p> = (Exclusive<'p>, FreeFrame);

impl BufferPool {
    /// Reads in those of the pages from `first` on that are not resident. `false` when frames ran out.
    pub fn read_ahead(&self, first: PageId, pages: usize) -> bool {
        let end = first.get().saturating_add(pages as u64).min(self.pager.pages());
        let mut at = first.get();
        let mut run = Vec::new();
        while at < end {
            let Some(frame) = self.spare_frame() else {
                self.bring_in(&mut run);
                return false;
            };
            if let Some(exclusive) = self.absent(PageId::new(at)) {
                run.push((exclusive, frame));
            } else {
                self.give_back(frame);
                self.bring_in(&mut run);
            }
            at += 1;
            if run.len() == RUN_MAX {
                self.bring_in(&mut run);
            }
        }
        self.bring_in(&mut run);
        true
    }

    /// Asks the processor to fetch the header and first slots of a page that is in memory and about to be used.
    /// Never waits, never reads from disk.
    pub fn prefetch(&self, id: PageId) {
        if let Some(latch) = self.table.latch(id)
            && let Some(frame) = latch.state().frame()
        {
            arena::prefetch(latch.cell(frame), PREFETCHED);
        }
    }

    /// The latch of a page that is neither resident nor held by anybody.
    fn absent(&self, id: PageId) -> Option<Exclusive<'_>> {
        let latch = self.table.latch(id).filter(|latch| latch.state().frame().is_none())?;
        latch.try_exclusive().filter(|exclusive| exclusive.resident().is_none())
    }

    /// A free frame, unless few are left for those who cannot do without.
    fn spare_frame(&self) -> Option<FreeFrame> {
        let mut free = self.free.lock();
        if free.len() > self.frames.len() / 8 + RUN_MAX { free.pop() } else { None }
    }

    /// Reads pages that follow each other, latched and each with a frame.
    fn bring_in(&self, run: &mut Vec<Coming<'_>>) {
        let Some((first, _)) = run.first() else { return };
        let first = first.id();
        let mut bufs: Vec<PageBuf> = run.iter().map(|_| self.buffer()).collect();
        match self.pager.read_run(first, &mut bufs) {
            Ok(pages) => {
                for (coming, (found, page)) in run.drain(..).zip(pages) {
                    self.admit(coming, matches!(found, Ok(Found::Page)).then_some(page));
                }
            }
            // Whoever needs one of them will meet the error.
            Err(_) => run.drain(..).for_each(|coming| self.admit(coming, None)),
        }
        self.buffers.lock().extend(bufs);
    }

    fn admit(&self, (mut exclusive, frame): Coming<'_>, page: Option<&PageBuf>) {
        match page.filter(|page| self.not_ahead_of_log(exclusive.id(), page).is_ok()) {
            Some(page) => {
                count(&self.counters.misses);
                count(&self.counters.read_ahead);
                self.occupy(&mut exclusive, frame);
                exclusive.fill(page.page());
            }
            None => self.give_back(frame),
        }
    }
}
