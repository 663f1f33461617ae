//! Double write: a page goes to a side file, durably, before it goes to its place.
//!
//! A page write that is cut short leaves a mixture that redo cannot start from. With a whole copy on
//! the side it does not matter: whichever of the two is whole is used.
//!
//! ```text
//!  slots   │ p4 │ p9 │ p7 │ p4'│    │    │      ring, in order of writing; a slot is a whole page
//!                            ▲ next
//!  batch:  1. copies into the next slots   2. sync    3. pages in place
//!  reuse:  a slot is taken again only after a data sync that began after its page was in place
//! ```
//!
//! Slots need no header: pages carry checksum, id and LSN themselves. Because slots are reused in ring
//! order, all copies that survive of one page are its newest ones, so the one with the greatest pageLSN
//! is at least as new as what step 3 last wrote. Opening starts a new ring, which would break that
//! order; so after repair every slot is cleared.
//!
//! A page that was written once since ([`Pager::write_once`](crate::Pager::write_once)) may have an older copy
//! here. Put over the torn page it does no harm: what follows it in the log begins with a record that
//! overwrites the page.
//!
//! Left out: writing several batches at once. Batches take turns; concurrent evictions share a batch
//! upstairs.

use std::collections::BTreeMap;
use std::io;

use argali_base::disk::{File, OpenMode};
use argali_base::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};
use argali_base::{Disk, Error, Health, Lsn, PageId, Result};

use crate::{PageBuf, PageSize, PagerOptions, checksum};

pub(crate) const FILE: &str = "doublewrite";

/// The double-write file and its ring of slots.
#[derive(Debug)]
pub(crate) struct DoubleWrite {
    file: Arc<dyn File>,
    size: PageSize,
    slots: u64,
    /// Held for a whole batch: batches take turns.
    ring: Mutex<Ring>,
    /// How many of the slots ever taken have their page in place.
    in_place: AtomicU64,
    /// Of those, how many may be reused: a data sync began after their page was in place.
    reusable: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    /// Slots ever taken.
    taken: u64,
    /// Slots of pages whose write in place failed. Such a page may be torn now and its slot is all that
    /// protects it: the ring skips the slot until the page was written in place again.
    kept: BTreeMap<PageId, u64>,
    /// Slots of the turn's last write.
    last: Vec<u64>,
}

/// A turn at the ring.
pub(crate) struct Turn<'a> {
    file: &'a DoubleWrite,
    ring: MutexGuard<'a, Ring>,
}

impl DoubleWrite {
    /// A new file of zeros, synced by the caller together with the directory.
    pub(crate) fn create(disk: &Arc<dyn Disk>, options: &PagerOptions) -> Result<Self> {
        let file = disk.open(FILE, OpenMode::Create).map_err(|e| Error::io("create", FILE, e))?;
        file.set_len(0).map_err(|e| Error::io("truncate", FILE, e))?;
        let ring = Self::over(file, options);
        ring.zero(0..ring.slots)?;
        Ok(ring)
    }

    /// The existing file. Its slots may be read before the first batch.
    pub(crate) fn open(disk: &Arc<dyn Disk>, options: &PagerOptions) -> Result<Self> {
        let file = disk.open(FILE, OpenMode::Existing).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::corrupt(FILE, 0, None, "the file is missing"),
            _ => Error::io("open", FILE, e),
        })?;
        Ok(Self::over(file, options))
    }

    fn over(file: Arc<dyn File>, options: &PagerOptions) -> Self {
        Self {
            file,
            size: options.page_size,
            slots: options.doublewrite_slots.max(1) as u64,
            ring: Mutex::default(),
            in_place: AtomicU64::new(0),
            reusable: AtomicU64::new(0),
        }
    }

    pub(crate) fn sync(&self, health: &Health) -> Result<()> {
        self.file.sync().map_err(|e| health.poison(Error::io("sync", FILE, e)))
    }

    /// Newest whole copy of each page: id → (LSN, slot).
    pub(crate) fn copies(&self, database: u64) -> Result<BTreeMap<PageId, (Lsn, u64)>> {
        let mut newest = BTreeMap::new();
        let mut buf = PageBuf::new(self.size);
        for slot in 0..self.file_slots()? {
            self.read(slot, &mut buf)?;
            let (id, lsn) = (buf.page().id(), buf.page().lsn());
            if checksum::verify(buf.page(), id, database).is_err() {
                continue;
            }
            let best = newest.entry(id).or_insert((lsn, slot));
            if best.0 < lsn {
                *best = (lsn, slot);
            }
        }
        Ok(newest)
    }

    pub(crate) fn read(&self, slot: u64, into: &mut PageBuf) -> Result<()> {
        let read = self.file.read_exact_at(into.bytes_mut(), self.offset(slot));
        read.map_err(|e| Error::io("read", FILE, e))
    }

    /// Makes every slot worthless and gives the file its full length: after repair, or before a
    /// different ring order begins. Durable after [`DoubleWrite::sync`].
    pub(crate) fn clear_all(&self) -> Result<()> {
        self.zero(0..self.slots.max(self.file_slots()?))
    }

    /// Makes the slots used since open worthless, unless one of them is still all that protects a page.
    /// The caller synced the data file.
    pub(crate) fn clear_used(&self) -> Result<()> {
        let ring = self.ring.lock();
        if !ring.kept.is_empty() {
            return Ok(());
        }
        self.zero(0..ring.taken.min(self.slots))
    }

    /// Waits for the ring.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { file: self, ring: self.ring.lock() }
    }

    /// Slots whose page is in place now: after a data sync that begins now, they may be reused.
    pub(crate) fn before_data_sync(&self) -> u64 {
        self.in_place.load(Ordering::Acquire)
    }

    /// The data sync that began at `before` succeeded.
    pub(crate) fn after_data_sync(&self, before: u64) {
        self.reusable.fetch_max(before, Ordering::AcqRel);
    }

    /// Whether some page in place is not covered by a data sync yet.
    pub(crate) fn needs_data_sync(&self) -> bool {
        self.reusable.load(Ordering::Acquire) < self.in_place.load(Ordering::Acquire)
    }

    fn file_slots(&self) -> Result<u64> {
        let len = self.file.len().map_err(|e| Error::io("measure", FILE, e))?;
        Ok(len / self.size.bytes() as u64)
    }

    fn offset(&self, slot: u64) -> u64 {
        slot * self.size.bytes() as u64
    }

    fn zero(&self, slots: std::ops::Range<u64>) -> Result<()> {
        let zero = PageBuf::new(self.size);
        for slot in slots {
            let write = self.file.write_all_at(zero.bytes(), self.offset(slot));
            write.map_err(|e| Error::io("write", FILE, e))?;
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// Most pages one [`Turn::write`] may bring.
    pub(crate) fn capacity(&self) -> Result<usize> {
        match self.file.slots as usize - self.ring.kept.len() {
            0 => Err(Error::io("write", FILE, io::Error::other("no slot is free: pages fail"))),
            free => Ok(free),
        }
    }

    /// Whether `pages` more slots may be taken without a data sync.
    pub(crate) fn has_room(&self, pages: usize) -> bool {
        let end = self.positions(pages).last().map_or(self.ring.taken, |last| last + 1);
        end <= self.file.reusable.load(Ordering::Acquire) + self.file.slots
    }

    /// The next `pages` positions of the endless ring whose slots may be used.
    fn positions(&self, pages: usize) -> impl Iterator<Item = u64> {
        let (slots, kept) = (self.file.slots, &self.ring.kept);
        let usable = move |position: &u64| kept.values().all(|slot| *slot != position % slots);
        (self.ring.taken..).filter(usable).take(pages)
    }

    /// Writes the copies into the next slots. Not durable before [`DoubleWrite::sync`].
    pub(crate) fn write(&mut self, batch: &[(PageId, PageBuf)]) -> Result<()> {
        let positions: Vec<u64> = self.positions(batch.len()).collect();
        // Taken even if the write fails: the slots no longer hold what they held.
        self.ring.taken = positions.last().map_or(self.ring.taken, |last| last + 1);
        self.ring.last = positions.iter().map(|position| position % self.file.slots).collect();
        let offsets = self.ring.last.iter().map(|slot| self.file.offset(*slot));
        let writes: Vec<(u64, &[u8])> =
            offsets.zip(batch).map(|(offset, (_, copy))| (offset, copy.bytes())).collect();
        self.file.file.write_batch(&writes).map_err(|e| Error::io("write", FILE, e))
    }

    /// The pages of the last write are in place (`Ok`), or may be torn there.
    pub(crate) fn placed(&mut self, batch: &[(PageId, PageBuf)], whole: bool) {
        let Ring { kept, last, taken } = &mut *self.ring;
        for ((id, _), slot) in batch.iter().zip(&*last) {
            if whole {
                kept.remove(id);
            } else {
                kept.insert(*id, *slot);
            }
        }
        self.file.in_place.store(*taken, Ordering::Release);
    }
}
