//! Writing pages back: the one way from the pool to the disk, for eviction, cleaner and checkpoints.
//!
//! ```text
//!  for each page:   shared latch · claim · copy · unlatch          nothing latched from here on
//!  for the batch:   force the log to the greatest pageLSN          the write-ahead rule
//!                   pager.write(copies, proof)                     asserts it again; `write_once` those
//!                                                                  that redo would make anew (rule B6)
//!  for each page:   into `unsynced`, then clean (or dirty again)
//! ```
//!
//! Writing a copy means that nobody ever waits for I/O because of a latch held here, that the checksum
//! fits the bytes written, and that a page can change while it is written. A page held exclusively is
//! passed over: waiting for it could wait for ourselves, since eviction runs under its caller's latches.
//!
//! A write that fails leaves its page dirty. When a batch fails, its pages are tried one by one, so that
//! one bad sector does not keep its neighbours from being written. Left out: retrying on a timer, which
//! is what cleaner and checkpoints amount to.

use argali_base::sync::thread::yield_now;
use argali_base::{Error, Lsn, PageId, Result};
use argali_pager::PageBuf;
use argali_wal::Durable;

use crate::BufferPool;
use crate::latch::Shared;
use crate::stats::count;

/// Most pages written since the last data sync began, 4 MiB of the usual size. Whoever syncs next waits for all
/// of them, and whoever forces the log meanwhile waits behind them.
const UNSYNCED_MAX: u64 = 512;
/// Times a latch held exclusively is looked at again before its page is passed over.
const PATIENCE: usize = 3;

/// A page on its way to disk.
type Copy = (PageId, PageBuf);

/// Pages on their way to disk together, by page id, and the frame of each.
#[derive(Default)]
struct Batch {
    copies: Vec<Copy>,
    frames: Vec<(PageId, usize)>,
    /// Whether redo would make them anew, were their write cut short.
    once: bool,
}

impl BufferPool {
    /// The one write-back: for each dirty, unlatched-exclusive page of `ids`: copy under a shared latch,
    /// drop it, force the log, write the batch. Used by eviction, cleaner and checkpoint alike.
    /// Returns how many were written. After a failed page write the others are still written, and the
    /// first error is returned.
    pub fn write_back(&self, ids: &[PageId]) -> Result<usize> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let (mut written, mut first_error) = (0, None);
        for batch in ids.chunks(self.options.batch_pages.max(1)) {
            match self.write_back_batch(batch) {
                Ok(pages) => written += pages,
                Err(e) if self.health.is_poisoned() => return Err(e),
                Err(e) => first_error = first_error.or(Some(e)),
            }
            self.bound_unsynced()?;
        }
        first_error.map_or(Ok(written), Err)
    }

    /// Keeps what a sync has to wait for small, and the table of written pages from outgrowing the pool between
    /// two checkpoints.
    fn bound_unsynced(&self) -> Result<()> {
        let much = self.pager.unsynced_writes() >= UNSYNCED_MAX;
        let many = self.unsynced.len() > 4 * self.frames.len() + 1024;
        if much || many { self.sync() } else { Ok(()) }
    }

    fn write_back_batch(&self, ids: &[PageId]) -> Result<usize> {
        let mut batches = [Batch::default(), Batch { once: true, ..Batch::default() }];
        for id in ids {
            self.copy_out(*id, &mut batches);
        }
        let [twice, once] = batches.map(|batch| self.write_copies(batch));
        twice.and_then(|twice| once.map(|once| twice + once))
    }

    /// Claims a dirty page for writing and copies it, unless it is not resident, being written, or held
    /// exclusively.
    fn copy_out(&self, id: PageId, [twice, once]: &mut [Batch; 2]) {
        let Some(shared) = self.share_for_copy(id) else { return };
        let Some(overwritten) = self.frames.begin_copy(shared.frame()) else { return };
        let mut copy = self.buffer();
        copy.copy_from(shared.page());
        let batch = if overwritten { once } else { twice };
        batch.copies.push((id, copy));
        batch.frames.push((id, shared.frame()));
    }

    fn share_for_copy(&self, id: PageId) -> Option<Shared<'_>> {
        let latch = self.table.latch(id)?;
        for _ in 0..PATIENCE {
            if !latch.state().is_exclusive() {
                break;
            }
            yield_now();
        }
        latch.try_shared()
    }

    /// Forces and writes; then each page is written or still dirty.
    fn write_copies(&self, mut batch: Batch) -> Result<usize> {
        if batch.copies.is_empty() {
            return Ok(0);
        }
        let written = self.force_and_write(&mut batch);
        self.buffers.lock().extend(batch.copies.into_iter().map(|(_, copy)| copy));
        written
    }

    fn force_and_write(&self, batch: &mut Batch) -> Result<usize> {
        let proof = self.make_durable(&batch.copies).inspect_err(|_| self.all_failed(batch))?;
        let Err(error) = self.pager_write(&mut batch.copies, batch.once, proof) else {
            for (id, frame) in &batch.frames {
                self.page_written(*id, *frame, batch.once);
            }
            return Ok(batch.copies.len());
        };
        if batch.copies.len() == 1 || self.health.is_poisoned() {
            self.counters.write_failed(&error);
            self.all_failed(batch);
            return Err(error);
        }
        self.write_one_by_one(batch, proof)
    }

    fn pager_write(&self, copies: &mut [Copy], once: bool, proof: Durable) -> Result<()> {
        if once { self.pager.write_once(copies, proof) } else { self.pager.write(copies, proof) }
    }

    fn write_one_by_one(&self, batch: &mut Batch, proof: Durable) -> Result<usize> {
        let (mut written, mut first_error) = (0, None);
        let Batch { copies, frames, once } = batch;
        // The pager sorts its batch by page id, and `frames` is in that order from the start.
        for (copy, (id, frame)) in copies.chunks_mut(1).zip(frames) {
            assert_eq!(copy[0].0, *id, "copies and frames are both sorted by page id");
            match self.pager_write(copy, *once, proof) {
                Ok(()) => {
                    self.page_written(*id, *frame, *once);
                    written += 1;
                }
                Err(error) => {
                    self.counters.write_failed(&error);
                    self.frames.not_written(*frame);
                    first_error = first_error.or(Some(error));
                }
            }
        }
        first_error.map_or(Ok(written), Err)
    }

    /// The write-ahead rule: proof that the log is durable up to the newest of these pages.
    fn make_durable(&self, copies: &[Copy]) -> Result<Durable> {
        let newest = copies.iter().map(|(_, copy)| copy.page().lsn()).max().unwrap_or(Lsn::NONE);
        let durable = self.wal.durable();
        if durable.covers(newest) || self.options.mutations.page_before_log {
            return Ok(durable);
        }
        count(&self.counters.log_forces);
        self.wal.force(newest)
    }

    fn page_written(&self, id: PageId, frame: usize, once: bool) {
        count(&self.counters.written_back);
        if once {
            count(&self.counters.written_once);
        }
        self.frames.written(frame, |rec_lsn| {
            if !self.options.mutations.drop_dirty_before_sync {
                self.unsynced.insert(id, rec_lsn);
            }
        });
    }

    fn all_failed(&self, batch: &Batch) {
        for (_, frame) in &batch.frames {
            self.frames.not_written(*frame);
        }
    }

    /// Data sync: pages whose write completed before it began leave the dirty page table on success.
    pub fn sync(&self) -> Result<()> {
        let number = self.unsynced.begin_sync();
        self.pager.sync()?;
        self.unsynced.end_sync(number);
        Ok(())
    }

    /// One turn of the page cleaner: writes a batch of the oldest dirty pages if the pool has too few
    /// clean frames or pages older than `target` (redo distance). Returns pages written.
    pub fn step(&self, target: Lsn) -> Result<usize> {
        let frames = self.frames.len();
        let clean = frames - self.frames.dirty().min(frames);
        let too_few = clean * 100 < frames * usize::from(self.options.clean_percent);
        if !too_few && (target.is_none() || clean == frames) {
            return Ok(0);
        }
        let mut dirty: Vec<(Lsn, PageId)> = Vec::new();
        self.frames.for_each_dirty(|page, rec_lsn| {
            if too_few || rec_lsn < target {
                dirty.push((rec_lsn, page));
            }
        });
        dirty.sort_unstable();
        dirty.truncate(self.options.batch_pages.max(1));
        let ids: Vec<PageId> = dirty.into_iter().map(|(_, page)| page).collect();
        self.write_back(&ids)
    }

    /// A buffer for I/O: one that was used before, or a new one.
    pub(crate) fn buffer(&self) -> PageBuf {
        let used = self.buffers.lock().pop();
        used.unwrap_or_else(|| PageBuf::new(self.pager.options().page_size))
    }

    pub(crate) fn error_exhausted(&self) -> Error {
        Error::PoolExhausted { frames: self.frames.len() }
    }
}
