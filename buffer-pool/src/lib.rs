//! The buffer pool: pages in memory, steal and no-force.
//!
//! ```text
//!   read(7) ──► words[7] ──resident──► count up, frame ──► PageRead
//!                  │ absent
//!                  ▼
//!            free frame ◄── clock hand ◄── dirty victims: write_back ──► log force ──► page write
//!                  │
//!            claim, page-in, check ──► PageRead
//! ```
//!
//! *Steal*: a page may be written back, and its frame taken, while the transaction that changed it still
//! runs; so restart needs undo. *No-force*: commit writes no page; so restart needs redo. What makes both
//! safe is one rule at one place: no page is written before the log is durable up to its pageLSN
//! (`write_back.rs`; the pager demands the proof).
//!
//! Rules of access:
//! 1. A page is reached through a guard ([`PageRead`], [`PageWrite`]) or looked at ([`PageGlimpse`]).
//! 2. A page is marked dirty before the record that changes it is appended (`guard.rs`).
//! 3. Nobody waits for a lock, or for a page's own write-back, while holding a latch.
//! 4. Latches are taken from the root down, then to the right, map pages last; other orders only try.
//! 5. A guard is the pin: there is no separate pin count, and a glimpse pins nothing.
//!
//! Left out: pointer swizzling (the translation array is one load already), and scan-resistant
//! replacement, which the clock has not been measured to need.

mod arena;
mod evict;
mod fetch;
mod frame;
mod glimpse;
mod guard;
mod latch;
mod options;
mod stats;
mod unsynced;
mod write_back;

use std::fmt;

use argali_base::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};
use argali_base::{Error, Health, PageId, Result};
use argali_pager::{PageBuf, Pager, TornPages};
use argali_wal::{DirtyPage, Wal};

pub use glimpse::{PageGlimpse, Restart};
pub use guard::{PageRead, PageWrite};
pub use options::{Mutations, PoolOptions};
pub use stats::PoolStats;

use arena::Arena;
use frame::Frame;
use latch::{ExclusiveGuard, FRAMES_MAX, Latch, Parking};
use stats::Counters;
use unsynced::Unsynced;

/// Fewest frames of a pool: one thread may hold six latches while it splits a page.
pub const FRAMES_MIN: usize = 8;

/// Frames, latch words and the dirty page table.
pub struct BufferPool {
    pager: Arc<Pager>,
    wal: Arc<Wal>,
    health: Health,
    options: PoolOptions,
    torn_pages: TornPages,
    arena: Arena,
    parking: Parking,
    frames: Vec<Frame>,
    free: Mutex<Vec<u32>>,
    hand: AtomicUsize,
    unsynced: Unsynced,
    /// One data sync at a time, so that each proves exactly what it began with.
    syncing: Mutex<()>,
    /// I/O buffers, kept for the next batch.
    buffers: Mutex<Vec<PageBuf>>,
    image_epoch: AtomicU64,
    counters: Counters,
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").field("arena", &self.arena).finish_non_exhaustive()
    }
}

impl BufferPool {
    /// An empty pool over `pager`. [`Error::Invalid`] for fewer than [`FRAMES_MIN`] frames.
    pub fn new(
        pager: Arc<Pager>,
        wal: Arc<Wal>,
        options: PoolOptions,
        health: Health,
    ) -> Result<Arc<Self>> {
        let frames = options.frames;
        if !(FRAMES_MIN..=FRAMES_MAX).contains(&frames) {
            let why =
                format!("{frames} frames; between {FRAMES_MIN} and {FRAMES_MAX} are possible");
            return Err(Error::Invalid { what: "cache size", why });
        }
        let (size, torn_pages) = (pager.options().page_size, pager.options().torn_pages);
        let page_max = pager.options().pages_max as usize;
        Ok(Arc::new(Self {
            arena: Arena::new(size, frames, page_max)?,
            parking: Parking::new(),
            frames: (0..frames).map(|_| Frame::new()).collect(),
            free: Mutex::new((0..frames as u32).rev().collect()),
            hand: AtomicUsize::new(0),
            unsynced: Unsynced::default(),
            syncing: Mutex::new(()),
            buffers: Mutex::new(Vec::new()),
            image_epoch: AtomicU64::new(0),
            counters: Counters::default(),
            pager,
            wal,
            health,
            options,
            torn_pages,
        }))
    }

    /// The data file below.
    pub fn pager(&self) -> &Pager {
        &self.pager
    }

    /// Dirty page table (ARIES, section 3.3): every page whose newest version may not be durable in its
    /// place, with its recLSN: dirty frames, pages being written, and pages written but not yet covered
    /// by a data sync. Replaces what `out` held. Complete for every change whose record was appended before the call. A page may
    /// occur more than once; its least recLSN counts.
    pub fn dirty_pages(&self, out: &mut Vec<DirtyPage>) {
        out.clear();
        // Frames first: a write-back enters `unsynced` before it leaves its frame, so a page that moves
        // between the two looks is seen in at least one of them.
        self.dirty_frames(out);
        self.unsynced.collect(out);
    }

    fn dirty_frames(&self, out: &mut Vec<DirtyPage>) {
        for frame in &self.frames {
            let (page, dirt) = (frame.page(), frame.dirt());
            if let (Some(page), false) = (page, dirt.rec_lsn.is_none()) {
                out.push(DirtyPage { page, rec_lsn: dirt.rec_lsn });
            }
        }
    }

    /// Data sync: pages whose write completed before it began leave the dirty page table. A failure
    /// poisons the database.
    pub fn sync(&self) -> Result<()> {
        let _one = self.syncing.lock();
        self.unsynced.begin_sync();
        self.pager.sync()?;
        self.unsynced.end_sync();
        Ok(())
    }

    /// Counters and gauges.
    pub fn stats(&self) -> PoolStats {
        self.counters.snapshot(self.frames.len())
    }

    /// A checkpoint begins; matters only to the mutation that decides images once per checkpoint.
    #[doc(hidden)]
    pub fn begin_image_epoch(&self) {
        self.image_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// What a frame's image mark is set to now.
    fn image_mark(&self) -> u64 {
        self.image_epoch.load(Ordering::Relaxed) + 1
    }

    fn count_dirty(&self, change: isize) {
        self.counters.dirty.fetch_add(change as usize, Ordering::Relaxed);
    }

    /// The latch of page `id`; `Corrupt` when no page can have that number.
    fn latch(&self, id: PageId) -> Result<Latch<'_>> {
        match self.arena.words().get(id.get() as usize) {
            Some(word) => Ok(Latch::new(word, &self.parking)),
            None => Err(self.stray(id, "no page can have this number")),
        }
    }

    fn exclusive(&self, id: PageId, frame: u32) -> PageWrite<'_> {
        let word = &self.arena.words()[id.get() as usize];
        let latch = Latch::new(word, &self.parking);
        let guard = ExclusiveGuard::adopt(latch, self.arena.cell(frame));
        PageWrite::new(self, id, frame, guard)
    }

    fn stray(&self, id: PageId, what: &str) -> Error {
        let offset = id.get().saturating_mul(self.pager.options().page_size.bytes() as u64);
        Error::corrupt("data", offset, None, format!("{id} was referred to, but {what}"))
    }

    fn take_buffer(&self) -> PageBuf {
        let kept = self.buffers.lock().pop();
        kept.unwrap_or_else(|| PageBuf::new(self.pager.options().page_size))
    }

    fn keep_buffer(&self, buffer: PageBuf) {
        let mut kept = self.buffers.lock();
        if kept.len() < self.options.batch_pages {
            kept.push(buffer);
        }
    }
}
