//! Finding a frame: the clock, and what to do when everything is dirty.
//!
//! ```text
//!            hand ──►
//!   │ p4 R │ p9   │ p7 dirty │ p2 X │ p5   │        R: used lately: second chance, R goes
//!                   collected  held            free: clean, unused, nobody holds it
//! ```
//!
//! The hand takes the first clean page that nobody used since it last passed. On the way it collects
//! dirty ones; when it has a batch of them, or found nothing clean, they are written back together and
//! leave. No latch is held while writing, and none is ever waited for: a page that is held, or being
//! written by somebody else, is simply passed.
//!
//! The caller may hold latches (a split holds several), so waiting here must end: when all frames stay
//! held, the answer is `PoolExhausted`, which aborts one transaction and frees its frames.
//!
//! A scan does not go round the clock: it frees the frame of the page it leaves
//! ([`BufferPool::let_go`]) and reads the next page into it.
//!
//! Left out: other policies (one clock is enough until a measurement says otherwise).

use std::time::Duration;

use argali_base::sync::thread::{sleep, yield_now};
use argali_base::sync::{AtomicUsize, Ordering};
use argali_base::{Error, PageId, Result};

use crate::BufferPool;
use crate::latch::{Exclusive, FreeFrame, Latch};
use crate::stats::count;

/// Rounds without a victim before giving up; the later ones sleep 5 ms each, about 2 s together.
const ROUNDS: u32 = 400;
/// Rounds that only yield.
const BRISK_ROUNDS: u32 = 8;
/// Most dirty pages one eviction writes.
const BATCH: usize = 16;

/// The clock hand.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    hand: AtomicUsize,
}

impl Clock {
    fn next(&self, frames: usize) -> usize {
        self.hand.fetch_add(1, Ordering::Relaxed) % frames
    }
}

/// What the hand met in one frame.
enum Met {
    /// Nothing to be had: empty, held, used lately or being written.
    Nothing,
    /// A victim, but dirty.
    Dirty(PageId),
    /// A victim.
    Free(FreeFrame),
}

impl BufferPool {
    /// A frame for a page to be read in. May write pages back; holds and waits for no latch.
    pub(crate) fn take_frame(&self) -> Result<FreeFrame> {
        let mut failure = None;
        for round in 0..ROUNDS {
            if let Some(frame) = self.free.lock().pop() {
                return Ok(frame);
            }
            match self.sweep() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(e) if self.health.is_poisoned() => return Err(e),
                Err(e) => failure = Some(e),
            }
            if round < BRISK_ROUNDS {
                yield_now();
            } else if failure.is_some() {
                break;
            } else {
                sleep(Duration::from_millis(5));
            }
        }
        Err(failure.unwrap_or_else(|| self.error_exhausted()))
    }

    /// Twice round the clock at most: once to take second chances away, once to find.
    fn sweep(&self) -> Result<Option<FreeFrame>> {
        let frames = self.frames.len();
        let batch = BATCH.min(frames / 4).max(1);
        let mut dirty = Vec::new();
        for _ in 0..2 * frames {
            match self.inspect(self.clock.next(frames)) {
                Met::Free(frame) => return Ok(Some(frame)),
                Met::Dirty(id) if !dirty.contains(&id) => dirty.push(id),
                Met::Dirty(_) | Met::Nothing => {}
            }
            if dirty.len() >= batch {
                break;
            }
        }
        self.write_and_evict(&dirty)
    }

    fn inspect(&self, frame: usize) -> Met {
        let page = self.frames.page(frame);
        let Some(latch) = page.and_then(|id| self.table.latch(id)) else { return Met::Nothing };
        let state = latch.state();
        if state.frame() != Some(frame) || !state.is_free() || self.frames.is_copied(frame) {
            return Met::Nothing;
        }
        if state.is_referenced() {
            latch.forget_reference();
            return Met::Nothing;
        }
        if !self.frames.is_clean(frame) {
            return Met::Dirty(latch.id());
        }
        self.evict_clean(latch, frame).map_or(Met::Nothing, Met::Free)
    }

    /// The frame, if its page is clean, unused lately and held by nobody.
    pub(crate) fn evict_clean(&self, latch: Latch<'_>, frame: usize) -> Option<FreeFrame> {
        // Asked twice: before the latch to spare it, under the latch because only then it stays so.
        if !self.frames.is_clean(frame) {
            return None;
        }
        let exclusive = latch.try_evict(frame).filter(|_| self.frames.is_clean(frame))?;
        count(&self.counters.evictions_clean);
        Some(self.vacate(exclusive))
    }

    /// Writes dirty victims, then takes those that nobody touched meanwhile; one for the caller, the
    /// others for whoever comes next.
    fn write_and_evict(&self, dirty: &[PageId]) -> Result<Option<FreeFrame>> {
        let written = self.write_back(dirty);
        let mut found = None;
        for id in dirty {
            let Some(latch) = self.table.latch(*id) else { continue };
            let Some(frame) = latch.state().frame() else { continue };
            let Some(exclusive) = latch.try_evict(frame) else { continue };
            if !self.frames.is_clean(frame) {
                continue;
            }
            count(&self.counters.evictions_dirty);
            let frame = self.vacate(exclusive);
            if let Some(spare) = found.replace(frame) {
                self.give_back(spare);
            }
        }
        if found.is_none() { written.map(|_| None) } else { Ok(found) }
    }

    fn vacate(&self, exclusive: Exclusive<'_>) -> FreeFrame {
        self.frames.vacate(exclusive.frame());
        exclusive.evict()
    }

    pub(crate) fn give_back(&self, frame: FreeFrame) {
        self.free.lock().push(frame);
    }

    /// Drops a made-up page nobody applied anything to: what is on disk counts.
    pub(crate) fn forget(&self, exclusive: Exclusive<'_>) {
        let frame = self.vacate(exclusive);
        self.give_back(frame);
    }
}

/// A pool error that says which page was asked for beyond what the file may hold.
pub(crate) fn beyond(id: PageId, size: usize) -> Error {
    let offset = id.get().saturating_mul(size as u64);
    Error::corrupt("data", offset, None, format!("something points to {id}, beyond every page"))
}
