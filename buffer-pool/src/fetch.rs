//! Getting at a page: the hit, and the page-in behind a miss.
//!
//! A miss takes a free frame *before* it claims the page's word, so that nobody waits for an eviction
//! behind a latch. From the claim until the page is read and checked its word is exclusive: others who
//! want the page sleep, and when the read fails the word is absent again, as if nobody had asked.

use argali_base::{PageId, Result};
use argali_pager::{Found, PageBuf};

use crate::latch::{Denied, Latch, SharedGuard};
use crate::stats::count;
use crate::{BufferPool, PageGlimpse, PageRead, PageWrite};

/// What a page-in makes of a page that was never written, or whose bytes are bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blank {
    /// `Corrupt`: a pointer led here.
    Refuse,
    /// A never-written page is legal: redo, before the page's `Format`.
    IfNever,
    /// The next operation overwrites the page: nothing is read at all.
    Always,
}

impl BufferPool {
    /// Shared latch. A page that was never written is `Corrupt` here: a pointer led to it.
    pub fn read(&self, id: PageId) -> Result<PageRead<'_>> {
        let latch = self.latch(id)?;
        loop {
            match latch.try_shared() {
                Ok(frame) => {
                    self.used(frame);
                    let guard = SharedGuard::adopt(latch, self.arena.cell(frame));
                    return Ok(PageRead::new(id, guard));
                }
                Err(Denied::Busy) => latch.wait_readable(),
                Err(Denied::Absent) => {
                    if let Some(page) = self.page_in(latch, id, Blank::Refuse)? {
                        return Ok(page.downgrade());
                    }
                }
            }
        }
    }

    /// Exclusive latch. A page that was never written is `Corrupt` here.
    pub fn write(&self, id: PageId) -> Result<PageWrite<'_>> {
        self.write_or_blank(id, Blank::Refuse)
    }

    /// Exclusive latch on a page whose old contents do not matter, because its first operation overwrites
    /// it (`Format`, `Image`). Nothing is read from disk. A resident old page keeps its LSN until then.
    pub fn create(&self, id: PageId) -> Result<PageWrite<'_>> {
        self.write_or_blank(id, Blank::Always)
    }

    /// For redo only: like [`BufferPool::write`], but a page that was never written is legal (LSN 0), and
    /// with `overwrites` an unreadable one, too: its first operation replaces it.
    pub fn write_for_redo(&self, id: PageId, overwrites: bool) -> Result<PageWrite<'_>> {
        self.latch(id)?;
        self.pager.grow_to(id)?;
        match self.write_or_blank(id, Blank::IfNever) {
            Err(error) if overwrites && error.is_corruption() => {
                self.write_or_blank(id, Blank::Always)
            }
            other => other,
        }
    }

    /// Exclusive latch if it is free at once; `None` when somebody holds the page or it is not resident.
    pub fn try_write(&self, id: PageId) -> Result<Option<PageWrite<'_>>> {
        Ok(self.latch(id)?.try_exclusive().ok().map(|frame| {
            self.used(frame);
            self.exclusive(id, frame)
        }))
    }

    /// Optimistic look: makes the page resident, notes its version, takes no latch. Waits only while
    /// somebody writes the page or reads it in.
    pub fn glimpse(&self, id: PageId) -> Result<PageGlimpse<'_>> {
        let latch = self.latch(id)?;
        loop {
            let seen = latch.see();
            match seen.frame() {
                Some(frame) if !seen.is_exclusive() => {
                    self.used(frame);
                    let cell = self.arena.cell(frame);
                    return Ok(PageGlimpse::new(self, id, latch, (seen, cell)));
                }
                Some(_) => latch.wait_readable(),
                None => drop(self.page_in(latch, id, Blank::Refuse)?),
            }
        }
    }

    fn write_or_blank(&self, id: PageId, blank: Blank) -> Result<PageWrite<'_>> {
        let latch = self.latch(id)?;
        loop {
            match latch.try_exclusive() {
                Ok(frame) => {
                    self.used(frame);
                    return Ok(self.exclusive(id, frame));
                }
                Err(Denied::Busy) => latch.wait_free(),
                Err(Denied::Absent) => {
                    if let Some(page) = self.page_in(latch, id, blank)? {
                        return Ok(page);
                    }
                }
            }
        }
    }

    fn used(&self, frame: u32) {
        self.frames[frame as usize].touch();
        self.counters.hit();
    }

    /// Brings an absent page in, exclusively latched; `None` when somebody else was faster.
    fn page_in(&self, latch: Latch<'_>, id: PageId, blank: Blank) -> Result<Option<PageWrite<'_>>> {
        let frame = self.take_frame()?;
        if !latch.claim(frame) {
            self.give_back(frame);
            if latch.see().is_exclusive() {
                latch.wait_readable();
            }
            return Ok(None);
        }
        self.frames[frame as usize].occupy(id);
        let mut page = self.exclusive(id, frame);
        match self.load(&mut page, blank) {
            Ok(()) => Ok(Some(page)),
            Err(error) => {
                self.frames[frame as usize].vacate();
                page.evict();
                self.give_back(frame);
                Err(error)
            }
        }
    }

    fn load(&self, page: &mut PageWrite<'_>, blank: Blank) -> Result<()> {
        if blank == Blank::Always {
            page.blank();
            return Ok(());
        }
        count(&self.counters.misses);
        let mut buffer = self.take_buffer();
        let filled = self.load_from_disk(page, blank, &mut buffer);
        self.keep_buffer(buffer);
        filled
    }

    fn load_from_disk(
        &self,
        page: &mut PageWrite<'_>,
        blank: Blank,
        buffer: &mut PageBuf,
    ) -> Result<()> {
        match self.pager.read(page.id(), buffer)? {
            Found::Page => page.fill(buffer.page()),
            Found::Never if blank == Blank::IfNever => page.blank(),
            Found::Never => return Err(self.stray(page.id(), "it was never written")),
        }
        Ok(())
    }
}
