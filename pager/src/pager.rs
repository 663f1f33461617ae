//! The data file: pages at `id * page size`, read with suspicion, written under the write-ahead rule.
//!
//! ```text
//!  write(batch, durable)            grow_to(id)
//!   1. every pageLSN durable?        1. room for the next chunk
//!   2. seal: checksum                2. sync
//!   3. double write + its sync       3. only now may anybody use the pages
//!   4. in place; durable after sync()
//! ```
//!
//! `write_once` leaves step 3 out, for pages that the log makes anew whatever a torn write left of them.
//!
//! A page that was never written is zeros, or lies beyond the end of the file: [`Found::Never`]. What
//! that means is not decided here: redo expects it, a pointer to it is corruption.
//!
//! Growing takes room on the disk, or writes zeros where that cannot be had without, instead of only setting the
//! length: so "disk full" is met by whoever allocates, not by a page write hours later that nobody waits for.
//!
//! Left out: shrinking the file, and retrying a failed sync (the kernel may have dropped the data).

use std::io;

use argali_base::disk::{File, OpenMode};
use argali_base::sync::{Arc, AtomicU64, Mutex, Ordering};
use argali_base::{Disk, Error, Health, PageId, Result};
use argali_wal::Durable;

use crate::checksum::{self, Bad};
use crate::doublewrite::DoubleWrite;
use crate::{PageBuf, PagerOptions, TornPages};

const FILE: &str = "data";

/// What a read met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A page whose checksum, id and database fit.
    Page,
    /// All zero, or beyond the end of the file: never written.
    Never,
}

/// Counters since open.
#[derive(Clone, Debug, Default)]
pub struct PagerStats {
    /// Pages read.
    pub reads: u64,
    /// Pages written in place.
    pub writes: u64,
    /// Pages written to the double-write file.
    pub doublewrites: u64,
    /// Data syncs.
    pub syncs: u64,
    /// Torn pages replaced at open.
    pub repaired: u64,
    /// Pages the file has room for.
    pub pages: u64,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    doublewrites: AtomicU64,
    syncs: AtomicU64,
    /// Of the pages written, those that a data sync has covered.
    synced: AtomicU64,
    repaired: AtomicU64,
}

/// The data file and, in that mode, the double-write file.
#[derive(Debug)]
pub struct Pager {
    file: Arc<dyn File>,
    options: PagerOptions,
    health: Health,
    /// Pages the file durably has room for; grows under `growth`.
    pages: AtomicU64,
    growth: Mutex<()>,
    doublewrite: Option<DoubleWrite>,
    writable: bool,
    counters: Counters,
}

impl Pager {
    /// Makes the files of a new database, synced, names included. Overwrites leftovers of a creation
    /// that did not finish.
    #[expect(clippy::needless_pass_by_value, reason = "handles are given away, as everywhere")]
    pub fn create(disk: Arc<dyn Disk>, options: PagerOptions, health: Health) -> Result<Self> {
        let file = disk.open(FILE, OpenMode::Create).map_err(|e| Error::io("create", FILE, e))?;
        file.set_len(0).map_err(|e| Error::io("truncate", FILE, e))?;
        let doublewrite = match options.torn_pages {
            TornPages::DoubleWrite => Some(DoubleWrite::create(&disk, &options)?),
            TornPages::FullPageImage | TornPages::None => None,
        };
        let pager = Self::over(file, options, health, doublewrite);
        pager.grow_to(PageId::new(0))?;
        pager.sync_all(&disk)?;
        Ok(pager)
    }

    /// Opens for restart: syncs both files, then puts whole copies from the double-write file over torn
    /// pages and syncs again. (What a killed process left may be readable without being durable.)
    #[expect(clippy::needless_pass_by_value, reason = "handles are given away, as everywhere")]
    pub fn open(disk: Arc<dyn Disk>, options: PagerOptions, health: Health) -> Result<Self> {
        let file = open_data(&disk, OpenMode::Existing)?;
        let doublewrite = match options.torn_pages {
            TornPages::DoubleWrite => Some(DoubleWrite::open(&disk, &options)?),
            TornPages::FullPageImage | TornPages::None => None,
        };
        let pager = Self::over(file, options, health, doublewrite);
        pager.measure()?;
        pager.sync_all(&disk)?;
        pager.repair()?;
        Ok(pager)
    }

    /// Opens for reading only: syncs, repairs and changes nothing.
    #[expect(clippy::needless_pass_by_value, reason = "handles are given away, as everywhere")]
    pub fn open_read_only(disk: Arc<dyn Disk>, options: PagerOptions) -> Result<Self> {
        let file = open_data(&disk, OpenMode::ReadOnly)?;
        let mut pager = Self::over(file, options, Health::new(), None);
        pager.writable = false;
        pager.measure()?;
        Ok(pager)
    }

    fn over(
        file: Arc<dyn File>,
        options: PagerOptions,
        health: Health,
        doublewrite: Option<DoubleWrite>,
    ) -> Self {
        Self {
            file,
            options,
            health,
            pages: AtomicU64::new(0),
            growth: Mutex::new(()),
            doublewrite,
            writable: true,
            counters: Counters::default(),
        }
    }

    fn measure(&self) -> Result<()> {
        let len = self.file.len().map_err(|e| Error::io("measure", FILE, e))?;
        let pages = len / self.options.page_size.bytes() as u64;
        if pages > self.options.pages_max {
            let why = format!("{} is below the {pages} pages of the file", self.options.pages_max);
            return Err(Error::Invalid { what: "pages_max", why });
        }
        self.pages.store(pages, Ordering::Release);
        Ok(())
    }

    fn sync_all(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        self.sync()?;
        if let Some(doublewrite) = &self.doublewrite {
            doublewrite.sync(&self.health)?;
        }
        disk.sync_dir("").map_err(|e| self.health.poison(Error::io("sync", "directory", e)))
    }

    /// Puts the newest whole copy over each page that is not whole in its place.
    fn repair(&self) -> Result<()> {
        let Some(doublewrite) = &self.doublewrite else { return Ok(()) };
        if !self.options.mutations.no_repair {
            let mut copy = PageBuf::new(self.options.page_size);
            for (id, (_, slot)) in doublewrite.copies(self.options.database)? {
                if id.get() >= self.pages() || !self.is_torn(id, &mut copy)? {
                    continue;
                }
                doublewrite.read(slot, &mut copy)?;
                self.write_in_place(&[(self.offset(id), copy.bytes())])?;
                self.counters.repaired.fetch_add(1, Ordering::Relaxed);
            }
            self.sync()?;
        }
        doublewrite.clear_all()?;
        doublewrite.sync(&self.health)
    }

    fn is_torn(&self, id: PageId, scratch: &mut PageBuf) -> Result<bool> {
        match self.read(id, scratch) {
            Ok(_) => Ok(false),
            Err(e) if e.is_corruption() => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Whether it was opened to be written.
    pub const fn is_writable(&self) -> bool {
        self.writable
    }

    /// How the pager was opened.
    pub const fn options(&self) -> &PagerOptions {
        &self.options
    }

    /// Reads page `id` into `into`, verifying checksum, id and database before anything is believed.
    /// `Corrupt` names file, offset and (if the header is legible) LSN.
    pub fn read(&self, id: PageId, into: &mut PageBuf) -> Result<Found> {
        if id.get() >= self.pages() {
            into.bytes_mut().fill(0);
            return Ok(Found::Never);
        }
        let offset = self.offset(id);
        self.file.read_exact_at(into.bytes_mut(), offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::corrupt(FILE, offset, None, format!("the file ends inside {id}"))
            }
            _ => Error::io("read", FILE, e),
        })?;
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.judge(id, into)
    }

    fn judge(&self, id: PageId, read: &PageBuf) -> Result<Found> {
        match checksum::verify(read.page(), id, self.options.database) {
            Ok(()) => Ok(Found::Page),
            Err(_) if read.page().is_zero() => Ok(Found::Never),
            Err(Bad { lsn, what }) => Err(Error::corrupt(FILE, self.offset(id), lsn, what)),
        }
    }

    /// Reads the pages from `first` on, as many as there are buffers, with one call to the disk. What each is,
    /// judged as in [`Pager::read`]; an error when the call failed. All must lie inside the file.
    pub fn read_run<'b>(
        &self,
        first: PageId,
        into: &'b mut [PageBuf],
    ) -> Result<impl Iterator<Item = (Result<Found>, &'b PageBuf)>> {
        let mut bytes: Vec<&mut [u8]> = into.iter_mut().map(PageBuf::bytes_mut).collect();
        let read = self.file.read_run_at(&mut bytes, self.offset(first));
        read.map_err(|e| Error::io("read", FILE, e))?;
        self.counters.reads.fetch_add(into.len() as u64, Ordering::Relaxed);
        let ids = (first.get()..).map(PageId::new);
        Ok(ids.zip(&*into).map(|(id, page)| (self.judge(id, page), page)))
    }

    /// Writes copies (sorted by id and sealed here): double-write first in that mode. Not durable before
    /// [`Pager::sync`]. After `Err` any part of the batch may have been written.
    ///
    /// # Panics
    /// When `durable` does not cover a page: that is the write-ahead rule, held in every build. When a
    /// copy does not carry the id it is written under, or lies beyond [`Pager::pages`].
    pub fn write(&self, batch: &mut [(PageId, PageBuf)], durable: Durable) -> Result<()> {
        self.prepare(batch, durable)?;
        match &self.doublewrite {
            Some(doublewrite) => self.write_twice(doublewrite, batch),
            None => self.write_batch(batch),
        }
    }

    /// As [`Pager::write`], but in place only, in every mode: for pages that redo would make anew whatever it
    /// finds there. That it would is the caller's promise.
    ///
    /// # Panics
    /// As [`Pager::write`].
    pub fn write_once(&self, batch: &mut [(PageId, PageBuf)], durable: Durable) -> Result<()> {
        self.prepare(batch, durable)?;
        self.write_batch(batch)
    }

    fn prepare(&self, batch: &mut [(PageId, PageBuf)], durable: Durable) -> Result<()> {
        self.check_writable()?;
        batch.sort_unstable_by_key(|(id, _)| *id);
        for (id, copy) in batch {
            self.assert_may_write(*id, copy, durable);
            checksum::seal(copy);
        }
        Ok(())
    }

    fn assert_may_write(&self, id: PageId, copy: &PageBuf, durable: Durable) {
        let (page, pages) = (copy.page(), self.pages());
        // Invariant P2, the write-ahead rule: no page reaches the disk before the log that explains it.
        assert!(
            durable.covers(page.lsn()) || self.options.mutations.page_before_log,
            "{id} at {} must not be written while the log is durable up to {} only",
            page.lsn(),
            durable.end()
        );
        // Invariant P3: a page knows where it belongs.
        assert_eq!(page.id(), id, "a copy of another page was to be written");
        assert!(id.get() < pages, "{id} must lie inside the {pages} pages of the file: grow first");
    }

    fn write_twice(&self, doublewrite: &DoubleWrite, batch: &[(PageId, PageBuf)]) -> Result<()> {
        let mut turn = doublewrite.turn();
        for part in batch.chunks(turn.capacity()?) {
            if !turn.has_room(part.len()) && !self.options.mutations.early_slot_reuse {
                self.sync()?;
            }
            turn.write(part)?;
            doublewrite.sync(&self.health)?;
            self.counters.doublewrites.fetch_add(part.len() as u64, Ordering::Relaxed);
            let written = self.write_batch(part);
            turn.placed(part, written.is_ok());
            written?;
        }
        Ok(())
    }

    fn write_batch(&self, batch: &[(PageId, PageBuf)]) -> Result<()> {
        let writes: Vec<(u64, &[u8])> =
            batch.iter().map(|(id, copy)| (self.offset(*id), copy.bytes())).collect();
        self.write_in_place(&writes)?;
        self.counters.writes.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn write_in_place(&self, writes: &[(u64, &[u8])]) -> Result<()> {
        self.file.write_batch(writes).map_err(|e| Error::io("write", FILE, e))
    }

    /// Makes all completed writes durable. Poisons on failure.
    pub fn sync(&self) -> Result<()> {
        self.check_writable()?;
        if self.options.mutations.no_sync {
            return Ok(());
        }
        let before = self.doublewrite.as_ref().map(DoubleWrite::before_data_sync);
        let written = self.counters.writes.load(Ordering::Acquire);
        self.file.sync().map_err(|e| self.health.poison(Error::io("sync", FILE, e)))?;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.synced.fetch_max(written, Ordering::Relaxed);
        if let (Some(doublewrite), Some(before)) = (&self.doublewrite, before) {
            doublewrite.after_data_sync(before);
        }
        Ok(())
    }

    /// Grows the file so that `id` exists, durably, before anything refers to it. `Full` at `pages_max`
    /// or when the disk is.
    pub fn grow_to(&self, id: PageId) -> Result<()> {
        if id.get() < self.pages() {
            return Ok(());
        }
        self.check_writable()?;
        let _growing = self.growth.lock();
        let (from, max) = (self.pages(), self.options.pages_max);
        if id.get() >= max {
            return Err(Error::Full { what: format!("{id} is beyond the limit of {max} pages") });
        }
        if id.get() < from {
            return Ok(());
        }
        let chunk = self.options.growth_pages.max(1);
        let to = (id.get() / chunk + 1).saturating_mul(chunk).min(max);
        self.lengthen(from, to).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => Error::Full { what: format!("growing {FILE}: {e}") },
            _ => Error::io("grow", FILE, e),
        })?;
        self.sync()?;
        self.pages.store(to, Ordering::Release);
        Ok(())
    }

    fn lengthen(&self, from: u64, to: u64) -> io::Result<()> {
        let (begin, end) = (self.offset(PageId::new(from)), self.offset(PageId::new(to)));
        if self.file.allocate(begin, end - begin)? { Ok(()) } else { self.write_zeros(from, to) }
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zero = PageBuf::new(self.options.page_size);
        let pages: Vec<u64> = (from..to).collect();
        pages.chunks(64).try_for_each(|chunk| {
            let writes: Vec<(u64, &[u8])> =
                chunk.iter().map(|id| (self.offset(PageId::new(*id)), zero.bytes())).collect();
            self.file.write_batch(&writes)
        })
    }

    /// Pages the file has room for.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Acquire)
    }

    /// Clean shutdown: after a data sync, nothing in the double-write file is needed any more.
    pub fn clear_doublewrite(&self) -> Result<()> {
        let Some(doublewrite) = &self.doublewrite else { return Ok(()) };
        self.check_writable()?;
        if doublewrite.needs_data_sync() {
            self.sync()?;
        }
        doublewrite.clear_used()?;
        doublewrite.sync(&self.health)
    }

    /// Pages written since the last successful data sync began.
    pub fn unsynced_writes(&self) -> u64 {
        let synced = self.counters.synced.load(Ordering::Relaxed);
        self.counters.writes.load(Ordering::Relaxed).saturating_sub(synced)
    }

    /// Counters since open.
    pub fn stats(&self) -> PagerStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PagerStats {
            reads: get(&self.counters.reads),
            writes: get(&self.counters.writes),
            doublewrites: get(&self.counters.doublewrites),
            syncs: get(&self.counters.syncs),
            repaired: get(&self.counters.repaired),
            pages: self.pages(),
        }
    }

    fn check_writable(&self) -> Result<()> {
        if !self.writable {
            return Err(Error::ReadOnly);
        }
        self.health.check()
    }

    const fn offset(&self, id: PageId) -> u64 {
        id.get() * self.options.page_size.bytes() as u64
    }
}

fn open_data(disk: &Arc<dyn Disk>, mode: OpenMode) -> Result<Arc<dyn File>> {
    disk.open(FILE, mode).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::corrupt(FILE, 0, None, "the file is missing"),
        _ => Error::io("open", FILE, e),
    })
}
