//! Damaged pages: where a reader would meet an error, and is given the page instead.
//!
//! ```text
//!   page not resident ─► latch it ─► read ─► whole? ─────────────────────► fill the frame
//!                                             │ damaged
//!                                             ▼ hold the log
//!                                          the repairer ─► rebuilt ───────► fill the frame, dirty
//!                                             └ cannot ─► `Corrupt`         reader goes on
//! ```
//!
//! The pool knows what to do with a page that was rebuilt, not how it is done: the engine installs that
//! (`recovery` owns redo). It runs under the latch of the page that is being read in, like the read before
//! it, and reads the log only.
//!
//! A rebuilt page is dirty, since its place on disk is not what it should be, from the record that began its
//! history: redo could do the same again. The log is held until it is in the dirty page table, which
//! from then on keeps it (rule B1 for a change that is long logged).

use argali_base::sync::Arc;
use argali_base::{Error, Lsn, PageId, Result};
use argali_pager::{Found, PageBuf};
use argali_wal::Hold;

use crate::latch::Exclusive;
use crate::stats::count;
use crate::{BufferPool, Missing};

/// Makes a page anew after the damage that was found. Returns the LSN redo of the page would begin at.
pub type Repair = dyn Fn(PageId, &Error, &mut PageBuf) -> Result<Lsn> + Send + Sync;

/// What reading a page in came to.
pub(crate) enum Loaded<'p> {
    /// The page as it is on disk.
    Page,
    /// Never written, or about to be overwritten.
    Never,
    /// The page as it should be on disk.
    Rebuilt {
        rec_lsn: Lsn,
        /// Until it is dirty.
        _hold: Hold<'p>,
    },
}

impl BufferPool {
    /// From now on damaged pages are given to `repair`. The first call counts.
    pub fn set_repair(&self, repair: Arc<Repair>) {
        let _ = self.repair.set(repair);
    }

    /// Reads page `id` from disk, or has it rebuilt.
    pub(crate) fn load(
        &self,
        id: PageId,
        into: &mut PageBuf,
        missing: Missing,
    ) -> Result<Loaded<'_>> {
        count(&self.counters.misses);
        let damage = match self.pager.read(id, into) {
            // Redo asks this itself.
            Ok(Found::Page) if missing != Missing::IsCorrupt => return Ok(Loaded::Page),
            Ok(Found::Page) => return self.not_ahead_of_log(id, into).map(|()| Loaded::Page),
            Ok(Found::Never) if missing != Missing::IsCorrupt => return Ok(Loaded::Never),
            Ok(Found::Never) => self.never_written(id),
            Err(e) if !e.is_corruption() => return Err(e),
            Err(_) if missing == Missing::MayBeTorn => {
                count(&self.counters.torn_overwritten);
                return Ok(Loaded::Never);
            }
            Err(e) if missing == Missing::MayBeNew => return Err(e),
            Err(e) => e,
        };
        self.rebuild(id, damage, into)
    }

    fn rebuild(&self, id: PageId, damage: Error, into: &mut PageBuf) -> Result<Loaded<'_>> {
        let Some(repair) = self.repair.get() else { return Err(damage) };
        let hold = self.wal.hold(format!("repair of {id}"));
        let rec_lsn = repair(id, &damage, into)?;
        count(&self.counters.repaired);
        Ok(Loaded::Rebuilt { rec_lsn, _hold: hold })
    }

    /// A rebuilt page stands in its frame. Where nothing may be written it is no more than what was read.
    pub(crate) fn rebuilt(&self, exclusive: &Exclusive<'_>, rec_lsn: Lsn) {
        if self.pager.is_writable() {
            self.frames.dirty_from(exclusive.frame(), rec_lsn, false);
        }
    }

    /// A page ahead of the log is evidence that the log was cut short. To take the page back to what is left
    /// of the log would destroy it.
    pub(crate) fn not_ahead_of_log(&self, id: PageId, page: &PageBuf) -> Result<()> {
        let (lsn, tail) = (page.page().lsn(), self.wal.tail());
        if lsn < tail {
            return Ok(());
        }
        let what = format!("{id} is at {lsn}, but the log ends at {tail}");
        Err(Error::corrupt("data", self.offset(id), Some(lsn), what))
    }

    fn offset(&self, id: PageId) -> u64 {
        id.get() * self.pager.options().page_size.bytes() as u64
    }

    fn never_written(&self, id: PageId) -> Error {
        let what = format!("something points to {id}, which was never written");
        Error::corrupt("data", self.offset(id), None, what)
    }

    /// Has page `id`, whose place on disk is damaged, written there again: as it is in its frame, or rebuilt.
    /// Durable after [`BufferPool::sync`].
    pub fn mend(&self, id: PageId) -> Result<()> {
        let (exclusive, _) = self.make_resident(self.latch(id)?, Missing::IsCorrupt)?;
        if self.frames.is_clean(exclusive.frame()) {
            count(&self.counters.repaired);
            self.frames.dirty_from(exclusive.frame(), self.wal.tail(), false);
        }
        drop(exclusive);
        self.write_back(&[id]).map(|_| ())
    }
}
