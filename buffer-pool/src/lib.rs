//! The buffer pool: pages in memory, latched, found in one load, written back under the log's rule.
//!
//! ```text
//!  read / write / create        glimpse                 dirty_pages        write_back · sync · step
//!         │                        │                         │                       │
//!     guard.rs ── latch.rs ── glimpse.rs                  dirty.rs ◄─────────── write_back.rs
//!                    │                                       ▲                       ▲
//!                 arena.rs                                frame.rs ──────────── evict.rs
//!                    ▲
//!                 repair.rs: what a read does with a damaged page
//!                 read_ahead.rs: pages brought in before anybody asks
//! ```
//!
//! Steal and no-force (Härder and Reuter 1983): any page may be written before its transaction ends,
//! none has to be when it does. The log makes both safe, so each page carries two promises: it is
//! written only after its log (the one choke point is `write_back`), and it is in the dirty page
//! table from before its first unlogged change until a sync covers it (rules in `frame.rs`).
//!
//! Access rules:
//!
//! 1. A frame is touched only under a latch in its page's word, or by glimpse and then validation.
//! 2. Whoever reads a page in takes a frame first, holding nothing of its own, then the page's latch;
//!    others who want the page wait for that one read.
//! 3. Nobody waits for a latch while looking for a frame, and nobody waits for I/O while holding a latch
//!    except on the page being read in.
//! 4. A page made up by `create` or `write_for_redo` stays only if something was applied to it.
//!
//! Left out: pins (a latch is one), more than one replacement policy.

mod arena;
mod dirty;
mod evict;
mod frame;
mod glimpse;
mod guard;
mod image;
mod latch;
mod options;
mod read_ahead;
mod repair;
mod stats;
mod write_back;

use std::fmt;
use std::sync::OnceLock;

use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Health, PageId, Result};
use argali_pager::{Found, PageBuf, Pager};
use argali_wal::{DirtyPage, Wal};

pub use glimpse::{PageGlimpse, Restart, Sighting};
pub use guard::{PageRead, PageWrite};
pub use options::{Mutations, PoolOptions};
pub use repair::Repair;
pub use stats::PoolStats;

use latch::{Exclusive, FRAMES_MAX, FreeFrame, Latch, PageTable};
use repair::Loaded;

/// Fewest frames of a pool: one thread latches up to six pages at once while it splits one.
pub const FRAMES_MIN: usize = 8;

/// What to do with a page that is not on disk as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// A pointer led here: never written means damaged.
    IsCorrupt,
    /// Redo: never written is legal; damage may be repaired by what redo has still to come to.
    MayBeNew,
    /// Redo with a first operation that overwrites: torn is legal, too.
    MayBeTorn,
}

/// Pages in memory.
pub struct BufferPool {
    pager: Arc<Pager>,
    wal: Arc<Wal>,
    options: PoolOptions,
    health: Health,
    table: PageTable,
    frames: frame::Frames,
    free: Mutex<Vec<FreeFrame>>,
    clock: evict::Clock,
    unsynced: dirty::Unsynced,
    epochs: image::Epochs,
    buffers: Mutex<Vec<PageBuf>>,
    counters: stats::Counters,
    repair: OnceLock<Arc<Repair>>,
}

impl BufferPool {
    /// A pool of empty frames over `pager`. `Invalid` when there are fewer than [`FRAMES_MIN`] or the system gives no
    /// memory.
    pub fn new(
        pager: Arc<Pager>,
        wal: Arc<Wal>,
        options: PoolOptions,
        health: Health,
    ) -> Result<Arc<Self>> {
        if !(FRAMES_MIN..=FRAMES_MAX).contains(&options.frames) {
            let why = format!("{} is not from {FRAMES_MIN} to {FRAMES_MAX}", options.frames);
            return Err(Error::Invalid { what: "frames", why });
        }
        let (size, pages_max) = (pager.options().page_size, pager.options().pages_max);
        let (table, free) = PageTable::new(options.frames, size, pages_max)?;
        Ok(Arc::new(Self {
            frames: frame::Frames::new(options.frames, options.mutations),
            pager,
            wal,
            options,
            health,
            table,
            free: Mutex::new(free),
            clock: evict::Clock::default(),
            unsynced: dirty::Unsynced::default(),
            epochs: image::Epochs::default(),
            buffers: Mutex::default(),
            counters: stats::Counters::new(),
            repair: OnceLock::new(),
        }))
    }

    /// The data file below.
    pub fn pager(&self) -> &Pager {
        &self.pager
    }

    /// Shared latch. A never-written page is `Corrupt` here: a pointer led to it.
    pub fn read(&self, id: PageId) -> Result<PageRead<'_>> {
        let latch = self.latch(id)?;
        if let Some(shared) = latch.shared() {
            self.counters.hit();
            return Ok(PageRead::new(shared));
        }
        let (exclusive, _) = self.make_resident(latch, Missing::IsCorrupt)?;
        Ok(PageRead::new(exclusive.downgrade()))
    }

    /// As [`BufferPool::read`], for pages that are passed once, as scans do: leaves no reference behind, so
    /// that the clock takes the page first, and [`BufferPool::let_go`] can give its frame back.
    pub fn read_passing(&self, id: PageId) -> Result<PageRead<'_>> {
        let latch = self.latch(id)?;
        if let Some(shared) = latch.shared_passing() {
            self.counters.hit();
            return Ok(PageRead::new(shared));
        }
        let (exclusive, _) = self.make_resident(latch, Missing::IsCorrupt)?;
        // Whoever asked for the page meanwhile will ask again, and leave a reference then.
        latch.forget_reference();
        Ok(PageRead::new(exclusive.downgrade()))
    }

    /// Whether the page is in memory at this instant: a hint.
    pub fn is_resident(&self, id: PageId) -> bool {
        self.table.latch(id).is_some_and(|latch| latch.state().frame().is_some())
    }

    /// Frees the frame of a page that was read in passing, unless somebody else has used it since, holds
    /// it, or changed it. A scan that lets go of what it read in needs one frame, not the pool.
    pub fn let_go(&self, id: PageId) {
        let Some(latch) = self.table.latch(id) else { return };
        if let Some(frame) = latch.state().frame()
            && let Some(frame) = self.evict_clean(latch, frame)
        {
            self.give_back(frame);
        }
    }

    /// Exclusive latch. A never-written page is `Corrupt`, as in [`BufferPool::read`].
    pub fn write(&self, id: PageId) -> Result<PageWrite<'_>> {
        let (exclusive, _) = self.make_resident(self.latch(id)?, Missing::IsCorrupt)?;
        Ok(PageWrite::new(self, exclusive))
    }

    /// Exclusive latch if it is free at once; `Ok(None)` when somebody holds it or I/O would be needed.
    pub fn try_write(&self, id: PageId) -> Result<Option<PageWrite<'_>>> {
        let latched = self.latch(id)?.try_exclusive();
        let resident = latched.filter(|exclusive| exclusive.resident().is_some());
        Ok(resident.map(|exclusive| PageWrite::new(self, exclusive)))
    }

    /// Exclusive latch on a page whose old contents do not matter: its first operation overwrites it
    /// (`Format`, `Image`). Reads nothing from disk if the page is not resident; if the old page is
    /// resident, its LSN is kept growing. Grows the file if it must (`Full`).
    pub fn create(&self, id: PageId) -> Result<PageWrite<'_>> {
        self.pager.grow_to(id)?;
        let latch = self.latch(id)?;
        let mut exclusive = latch.exclusive();
        if exclusive.resident().is_none() {
            drop(exclusive);
            let frame = self.take_frame()?;
            exclusive = latch.exclusive();
            if exclusive.resident().is_none() {
                self.occupy(&mut exclusive, frame);
                exclusive.blank(self.pager.options().database);
                return Ok(PageWrite::made_up(self, exclusive));
            }
            self.give_back(frame);
        }
        Ok(PageWrite::new(self, exclusive))
    }

    /// For redo only: like `write`, but a never-written page (LSN 0, kind Free) is legal, and with
    /// `overwrites` a torn page is, too (its first operation replaces it). Without, it is `Corrupt` and not
    /// repaired: a later record may replace it.
    pub fn write_for_redo(&self, id: PageId, overwrites: bool) -> Result<PageWrite<'_>> {
        self.pager.grow_to(id)?;
        let missing = if overwrites { Missing::MayBeTorn } else { Missing::MayBeNew };
        let (exclusive, made_up) = self.make_resident(self.latch(id)?, missing)?;
        Ok(if made_up {
            PageWrite::made_up(self, exclusive)
        } else {
            PageWrite::new(self, exclusive)
        })
    }

    /// A copy of the page as it stands now, for a backup: out of its frame, else straight from the disk, so
    /// that a pass over all pages throws none out. [`Found::Never`] for a page nobody wrote yet. The log
    /// may not be durable up to the copy's pageLSN.
    pub fn copy(&self, id: PageId, into: &mut PageBuf) -> Result<Found> {
        let latch = self.latch(id)?;
        // First without leaving a reference behind: to be copied is not to be used.
        if let Some(shared) = latch.try_shared().or_else(|| latch.shared()) {
            into.copy_from(shared.page());
            return Ok(Found::Page);
        }
        match self.pager.read(id, into) {
            Ok(Found::Page) => self.not_ahead_of_log(id, into).map(|()| Found::Page),
            // Perhaps we read while somebody wrote. He has the page in a frame (B4), or had: `read` waits
            // for whoever brings it back, and knows no such excuse.
            Err(e) if e.is_corruption() => {
                into.copy_from(self.read(id)?.page());
                Ok(Found::Page)
            }
            found => found,
        }
    }

    /// Optimistic read: makes the page resident, notes its version, takes no latch. Waits only while
    /// somebody writes the page. The glimpse pins nothing.
    #[inline]
    pub fn glimpse(&self, id: PageId) -> Result<PageGlimpse<'_>> {
        if let Some(latch) = self.table.latch(id) {
            let seen = latch.glimpse();
            if let Some(frame) = seen.frame() {
                self.counters.hit();
                return Ok(PageGlimpse::new(self, latch, seen, frame));
            }
        }
        self.glimpse_absent(id)
    }

    /// A glimpse of a page that was not resident a moment ago.
    #[cold]
    fn glimpse_absent(&self, id: PageId) -> Result<PageGlimpse<'_>> {
        let latch = self.latch(id)?;
        loop {
            let seen = latch.glimpse();
            if let Some(frame) = seen.frame() {
                self.counters.hit();
                return Ok(PageGlimpse::new(self, latch, seen, frame));
            }
            drop(self.make_resident(latch, Missing::IsCorrupt)?);
        }
    }

    /// A glimpse as it was: it validates if the page has not changed and not moved since. `None` when it was
    /// no glimpse of this pool. Versions come round again, after 2^27 changes of a page; who recalls what it
    /// saw long ago had better compare the pageLSN, too.
    #[inline]
    pub fn recall(&self, sighting: Sighting) -> Option<PageGlimpse<'_>> {
        let latch = self.table.latch(sighting.page())?;
        let (seen, frame) = sighting.place().filter(|(_, frame)| *frame < self.frames.len())?;
        Some(PageGlimpse::new(self, latch, seen, frame))
    }

    /// Dirty page table: every page whose newest version may not be durable in place, with its recLSN:
    /// dirty frames, pages being written, and pages written but not yet covered by a data sync.
    /// Complete for every change logged before the call. Clears `out` first; sorted by page id.
    pub fn dirty_pages(&self, out: &mut Vec<DirtyPage>) {
        dirty::collect(&self.frames, &self.unsynced, out);
    }

    /// What the pool did since it was made.
    pub fn stats(&self) -> PoolStats {
        self.counters.snapshot(self.frames.len(), self.frames.dirty())
    }

    #[inline]
    fn latch(&self, id: PageId) -> Result<Latch<'_>> {
        self.table
            .latch(id)
            .ok_or_else(|| evict::beyond(id, self.pager.options().page_size.bytes()))
    }

    /// Latches the page exclusively and sees that it is resident; `true` when it had to be made up.
    fn make_resident<'p>(
        &'p self,
        latch: Latch<'p>,
        missing: Missing,
    ) -> Result<(Exclusive<'p>, bool)> {
        let exclusive = latch.exclusive();
        if exclusive.resident().is_some() {
            self.counters.hit();
            return Ok((exclusive, false));
        }
        // Access rule 2: making room can take long, so not under the latch.
        drop(exclusive);
        let frame = self.take_frame()?;
        let mut exclusive = latch.exclusive();
        if exclusive.resident().is_some() {
            self.give_back(frame);
            return Ok((exclusive, false));
        }
        let mut buf = self.buffer();
        let loaded = self.load(latch.id(), &mut buf, missing);
        match &loaded {
            Ok(Loaded::Page) => {
                self.occupy(&mut exclusive, frame);
                exclusive.fill(buf.page());
            }
            Ok(Loaded::Never) => {
                self.occupy(&mut exclusive, frame);
                exclusive.blank(self.pager.options().database);
            }
            Ok(Loaded::Rebuilt { rec_lsn, .. }) => {
                self.occupy(&mut exclusive, frame);
                exclusive.fill(buf.page());
                self.rebuilt(&exclusive, *rec_lsn);
            }
            Err(_) => self.give_back(frame),
        }
        self.buffers.lock().push(buf);
        loaded.map(|loaded| (exclusive, matches!(loaded, Loaded::Never)))
    }

    fn occupy(&self, exclusive: &mut Exclusive<'_>, frame: FreeFrame) {
        self.frames.occupy(frame.number(), exclusive.id());
        exclusive.install(frame);
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
