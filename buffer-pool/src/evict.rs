//! Making room: the clock, and what it does with dirty pages.
//!
//! ```text
//!   hand ─► used since it last passed?  clear the mark, go on
//!           latched?                    go on
//!           dirty?                      remember it as a victim to write, go on
//!           clean                       latch it, make it absent: a free frame
//!  two rounds and no free frame: write the remembered pages back as one batch, go round again
//! ```
//!
//! Nothing here waits for a latch: the caller may hold some. When every frame stays in use for as long as
//! [`PATIENCE`], the answer is an error that says so, not a hang.

use std::time::{Duration, Instant};

use argali_base::sync::{Ordering, thread};
use argali_base::{Error, PageId, Result};

use crate::BufferPool;
use crate::stats::count;

/// How long a thread looks for a frame before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Dirty pages remembered in one sweep: written together they share one log force and one sync.
const VICTIMS_MAX: usize = 16;

impl BufferPool {
    /// A frame that belongs to nobody. May write dirty pages back.
    pub(crate) fn take_frame(&self) -> Result<u32> {
        let mut deadline = None;
        loop {
            if let Some(frame) = self.free.lock().pop() {
                return Ok(frame);
            }
            let mut victims = Vec::new();
            if let Some(frame) = self.sweep(&mut victims) {
                return Ok(frame);
            }
            self.health.check()?;
            if self.write_victims(&victims)? {
                continue;
            }
            if *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) < Instant::now() {
                return Err(Error::PoolExhausted { frames: self.frames.len() });
            }
            thread::yield_now();
        }
    }

    pub(crate) fn give_back(&self, frame: u32) {
        self.free.lock().push(frame);
    }

    /// Two rounds of the hand: the first may only clear marks.
    fn sweep(&self, victims: &mut Vec<PageId>) -> Option<u32> {
        for _ in 0..2 * self.frames.len() {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % self.frames.len();
            let frame = &self.frames[at];
            let Some(page) = frame.page() else { continue };
            if frame.take_reference() {
                continue;
            }
            if !frame.dirt().rec_lsn.is_none() {
                if victims.len() < VICTIMS_MAX && !victims.contains(&page) {
                    victims.push(page);
                }
            } else if self.try_evict(at as u32, page) {
                count(&self.counters.evictions_clean);
                return Some(at as u32);
            }
        }
        None
    }

    /// Takes the frame from a clean, unlatched page.
    fn try_evict(&self, index: u32, page: PageId) -> bool {
        let Ok(Some(guard)) = self.try_write_quietly(page) else { return false };
        let frame = &self.frames[index as usize];
        let dirt = frame.dirt();
        if guard.frame() != index || !dirt.rec_lsn.is_none() || dirt.writing {
            return false;
        }
        frame.vacate();
        guard.evict();
        true
    }

    /// As `try_write`, but not a use of the page.
    fn try_write_quietly(&self, page: PageId) -> Result<Option<crate::PageWrite<'_>>> {
        let frame = self.latch(page)?.try_exclusive().ok();
        Ok(frame.map(|frame| self.exclusive(page, frame)))
    }

    /// Writes victims back; whether that made any page clean. One that cannot be written stays dirty.
    fn write_victims(&self, victims: &[PageId]) -> Result<bool> {
        if victims.is_empty() {
            return Ok(false);
        }
        let written = self.write_back_free(victims)?;
        self.counters.evictions_dirty.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written > 0)
    }
}
