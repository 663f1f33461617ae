//! The one place where pages leave memory.
//!
//! ```text
//!  shared latch ─► copy, begin_write ─► latch gone ─► force the log ─► write the batch ─► book-keeping
//!                                                     (WAL rule)       (pager: torn pages)
//! ```
//!
//! Eviction, cleaner and checkpoint all come through here, so the write-ahead rule stands here once. The
//! copy is taken under a shared latch and everything slow happens without one. `begin_write` keeps two
//! writes of one page from overlapping; a write that fails leaves its page dirty, and says so.

use argali_base::sync::Ordering;
use argali_base::{Error, Lsn, PageId, Result};
use argali_pager::{PageBuf, TornPages};
use argali_wal::{DirtyPage, Durable};

use crate::BufferPool;
use crate::frame::Turned;
use crate::latch::{Denied, SharedGuard};
use crate::stats::count;

/// A copy on its way to the disk.
struct Outgoing {
    frame: u32,
    page: PageId,
    rec_lsn: Lsn,
}

/// Whether to wait for a page that somebody is changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latched {
    Wait,
    Skip,
}

impl BufferPool {
    /// Writes back every page of `ids` that is resident, dirty and not being written already, waiting for
    /// writers to let go. Returns how many were written. The caller holds no latch.
    pub fn write_back(&self, ids: &[PageId]) -> Result<usize> {
        let mut written = 0;
        for batch in ids.chunks(self.options.batch_pages.max(1)) {
            written += self.write_batch(batch, Latched::Wait)?;
        }
        Ok(written)
    }

    /// As [`BufferPool::write_back`], but leaves out pages that are latched: the caller may hold them.
    pub(crate) fn write_back_free(&self, ids: &[PageId]) -> Result<usize> {
        self.write_batch(ids, Latched::Skip)
    }

    /// One turn of the page cleaner: writes a batch, oldest first, if too few frames are clean, or of the
    /// pages whose recLSN lies before `target`, the wanted redo point. Returns pages written.
    pub fn step(&self, target: Lsn) -> Result<usize> {
        let mut dirty = Vec::new();
        self.dirty_frames(&mut dirty);
        let clean_wanted = self.frames.len() * usize::from(self.options.clean_percent) / 100;
        let short = (dirty.len() + clean_wanted).saturating_sub(self.frames.len());
        dirty.sort_unstable_by_key(|entry| entry.rec_lsn);
        let old = dirty.partition_point(|entry| entry.rec_lsn < target);
        let mut ids: Vec<PageId> =
            dirty.iter().take(old.max(short).min(self.options.batch_pages)).map(page_of).collect();
        ids.sort_unstable();
        self.write_back_free(&ids)
    }

    fn write_batch(&self, ids: &[PageId], latched: Latched) -> Result<usize> {
        self.health.check()?;
        let (mut outgoing, mut copies) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some((out, copy)) = self.copy_out(*id, latched)? {
                outgoing.push(out);
                copies.push((*id, copy));
            }
        }
        if copies.is_empty() {
            return Ok(0);
        }
        let result = self.force_and_write(&mut copies);
        for (_, buffer) in copies {
            self.keep_buffer(buffer);
        }
        self.settle(&outgoing, result)?;
        self.bound_unsynced()?;
        Ok(outgoing.len())
    }

    /// A copy of a dirty page, made under its shared latch; `None` when there is nothing to write.
    fn copy_out(&self, id: PageId, latched: Latched) -> Result<Option<(Outgoing, PageBuf)>> {
        let latch = self.latch(id)?;
        let frame = loop {
            match latch.try_shared() {
                Ok(frame) => break frame,
                Err(Denied::Busy) if latched == Latched::Wait => latch.wait_readable(),
                Err(Denied::Busy | Denied::Absent) => return Ok(None),
            }
        };
        let guard = SharedGuard::adopt(latch, self.arena.cell(frame));
        let keep_image = self.torn_pages != TornPages::FullPageImage
            || self.options.mutations.image_per_checkpoint;
        let Some(rec_lsn) = self.frames[frame as usize].begin_write(keep_image) else {
            return Ok(None);
        };
        let mut copy = self.take_buffer();
        copy.copy_from(guard.page());
        Ok(Some((Outgoing { frame, page: id, rec_lsn }, copy)))
    }

    /// The write-ahead rule, for every page that ever leaves memory: first the log, up to the greatest
    /// pageLSN of the batch, then the pages. The pager asserts it again.
    fn force_and_write(&self, copies: &mut [(PageId, PageBuf)]) -> Result<()> {
        let newest = copies.iter().map(|(_, copy)| copy.page().lsn()).max().unwrap_or(Lsn::NONE);
        let durable = self.forced(newest)?;
        self.pager.write(copies, durable)
    }

    fn forced(&self, newest: Lsn) -> Result<Durable> {
        let durable = self.wal.durable();
        if durable.covers(newest) || self.options.mutations.page_before_log {
            return Ok(durable);
        }
        count(&self.counters.log_forces);
        self.wal.force(newest)
    }

    /// Settles the books of a batch. A page enters `unsynced` before its frame turns clean, so a
    /// checkpoint that looks in between sees it at least once.
    fn settle(&self, outgoing: &[Outgoing], result: Result<()>) -> Result<()> {
        let written = result.is_ok();
        for out in outgoing {
            if written && !self.options.mutations.drop_dirty_before_sync {
                self.unsynced.add(out.page, out.rec_lsn);
            }
            if self.frames[out.frame as usize].end_write(written) == Turned::Clean {
                self.count_dirty(-1);
            }
        }
        match &result {
            Ok(()) => {
                let pages = outgoing.len() as u64;
                self.counters.written_back.fetch_add(pages, Ordering::Relaxed);
            }
            Err(error) => self.note_failure(error),
        }
        result
    }

    fn note_failure(&self, error: &Error) {
        count(&self.counters.write_errors);
        *self.counters.last_write_error.lock() = Some(error.to_string());
    }

    /// Keeps the list of written pages from growing without limit between checkpoints.
    fn bound_unsynced(&self) -> Result<()> {
        if self.unsynced.len() > 4 * self.frames.len() + 1024 { self.sync() } else { Ok(()) }
    }
}

fn page_of(entry: &DirtyPage) -> PageId {
    entry.page
}
