//! Latched pages: the only way to hold a page.
//!
//! [`PageRead`] gives a view. [`PageWrite`] gives a view too, never bytes to write: a page changes by
//! `dirty_from`, append, `apply`, in this order, with the same latch held throughout. Both let go when
//! they are dropped. Left out: upgrading a `PageRead` (two of them would wait for each other);
//! [`PageGlimpse::upgrade`](crate::PageGlimpse::upgrade) holds nothing and so can only fail.

use argali_base::{Error, Lsn, PageId};
use argali_pager::{PageOp, PageRef, TornPages};

use crate::BufferPool;
use crate::latch::{Exclusive, Shared};

/// Shared latch on a resident page.
#[derive(Debug)]
pub struct PageRead<'p> {
    shared: Shared<'p>,
}

impl<'p> PageRead<'p> {
    pub(crate) const fn new(shared: Shared<'p>) -> Self {
        Self { shared }
    }

    /// The page.
    pub const fn id(&self) -> PageId {
        self.shared.id()
    }

    /// Its contents.
    pub fn page(&self) -> PageRef<'_> {
        self.shared.page()
    }

    /// Version of the page; moves with every change.
    pub const fn version(&self) -> u64 {
        self.shared.version()
    }
}

/// Exclusive latch on a resident page. Gives `PageRef`, never `&mut` bytes: changes go through `apply`.
#[derive(Debug)]
pub struct PageWrite<'p> {
    pool: &'p BufferPool,
    /// `None` only while being dropped.
    exclusive: Option<Exclusive<'p>>,
    /// The page was made up, not read: it must not stay if nothing is applied to it.
    made_up: bool,
    /// Between the start and the good end of an `apply`.
    half_changed: bool,
}

impl<'p> PageWrite<'p> {
    pub(crate) const fn new(pool: &'p BufferPool, exclusive: Exclusive<'p>) -> Self {
        Self { pool, exclusive: Some(exclusive), made_up: false, half_changed: false }
    }

    pub(crate) const fn made_up(pool: &'p BufferPool, exclusive: Exclusive<'p>) -> Self {
        Self { pool, exclusive: Some(exclusive), made_up: true, half_changed: false }
    }

    #[inline]
    const fn latched(&self) -> &Exclusive<'p> {
        self.exclusive.as_ref().expect("taken only by drop")
    }

    #[inline]
    fn frame(&self) -> usize {
        self.latched().frame()
    }

    /// The page.
    #[inline]
    pub const fn id(&self) -> PageId {
        self.latched().id()
    }

    /// Its contents.
    #[inline]
    pub fn page(&self) -> PageRef<'_> {
        self.latched().page()
    }

    /// Rule B1: called with the log's tail *before* the record is appended; sets recLSN (or the next
    /// one, while a copy is being written) unless the frame is dirty already. `overwrites`: the record's first
    /// operation on this page does that (rule B6).
    pub fn dirty_from(&mut self, tail: Lsn, overwrites: bool) {
        self.pool.frames.dirty_from(self.frame(), tail, overwrites);
    }

    /// Applies what the record at `lsn` says, after it was appended.
    ///
    /// # Panics
    /// When the page was not marked dirty, when `lsn` is not greater than the pageLSN, or when an
    /// operation does not fit. The database is poisoned then: the log says more than the page shows.
    pub fn apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) {
        if let Err(why) = self.apply_in_redo(ops, lsn) {
            panic!("{} at {}: record {lsn} does not apply: {why}", self.id(), self.page().lsn());
        }
    }

    /// As [`PageWrite::apply`], for redo, where page and record come from a disk: says what does not
    /// fit instead of panicking. The database is poisoned then.
    pub fn apply_in_redo(&mut self, ops: &[PageOp<'_>], lsn: Lsn) -> Result<(), String> {
        let frame = self.frame();
        // Invariant B5: marked dirty before changed, so no checkpoint misses the change.
        assert!(!self.pool.frames.is_clean(frame), "{} changes at {lsn} while clean", self.id());
        self.half_changed = true;
        self.exclusive.as_mut().expect("taken only by drop").try_apply(ops, lsn)?;
        self.half_changed = false;
        self.made_up = false;
        self.pool.image_logged(frame, self.id());
        Ok(())
    }

    /// Mode `FullPageImage`: whether the next record on this page must begin with its image (first
    /// change since it was read in or last copied for write-back). Decided under this latch.
    #[inline]
    pub fn needs_image(&self) -> bool {
        self.pool.pager.options().torn_pages == TornPages::FullPageImage
            && !self.pool.has_image(self.frame(), self.id())
    }
}

impl Drop for PageWrite<'_> {
    fn drop(&mut self) {
        let Some(exclusive) = self.exclusive.take() else { return };
        if self.half_changed {
            // Nothing of this page may reach the disk, and nobody may believe it.
            let what = format!("a change of {} ended half-way", exclusive.id());
            self.pool.health.poison(Error::corrupt("data", 0, None, what));
        } else if self.made_up && self.pool.frames.is_clean(exclusive.frame()) {
            self.pool.forget(exclusive);
        }
    }
}
