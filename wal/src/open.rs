//! Opening: made new, judged after a crash, resumed.
//!
//! ```text
//!   create          empty the directory ─► first segment ready ──────────────────────────► running
//!   open            sync what is readable ─► find and judge the end ─► reads only ─resume─► running
//!                   └ open_for_restart leaves this to whoever reads the log anyway (search_end)
//!   resume          later segments removed, the tail's zeroed to its end, file and directory synced
//!   open_read_only  find and judge the end ─► reads only
//! ```
//!
//! A crash between any two of these steps leaves a log that is judged the same way again.

use std::sync::OnceLock;

use argali_base::disk::OpenMode;
use argali_base::sync::{Arc, AtomicU64, Mutex, Ordering};
use argali_base::{Disk, Error, Health, Lsn, Result};

use crate::admission::Admission;
use crate::end::{self, End, EndSearch};
use crate::flush::Flusher;
use crate::force::Groups;
use crate::frame::Seed;
use crate::ring::Ring;
use crate::segment::Segments;
use crate::{Control, LogId, LogOptions, Running, Wal};

impl Wal {
    /// A new, empty log: makes `wal/` and its first segment, zero-filled, synced, directory synced.
    /// What an unfinished creation left there is removed.
    pub fn create(
        disk: Arc<dyn Disk>,
        id: LogId,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        let how = How { id, options, health, mode: OpenMode::Existing };
        let this = Self::unjudged(disk, how, Lsn::FIRST, Lsn::FIRST)?;
        this.segments.start_over()?;
        this.segments.create(0)?;
        this.judged(End { lsn: Lsn::FIRST, prev_len: 0 });
        this.start_running()?;
        Ok(this)
    }

    /// Opens an existing log: syncs what is there (segments, directory), then reads from
    /// `control.checkpoint` and judges where the log ends (tail or `Corrupt`). Nothing may be appended
    /// before [`Wal::resume`]; reading and `durable()` (= the end found) work. The segment size is the
    /// control file's.
    pub fn open(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        let this = Self::open_for_restart(disk, control, options, health)?;
        this.find_end(control)?;
        Ok(this)
    }

    /// As [`Wal::open`], but looks at no record: whoever makes the first pass of a restart reads what the search
    /// for the end reads ([`Wal::search_end`]). Until then the log ends where the control file proves that it went.
    pub fn open_for_restart(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        let how = How::of(control, options, health, OpenMode::Existing);
        Self::unjudged(
            disk,
            how,
            control.log_first,
            end::start(control).max(control.checkpoint_end),
        )
    }

    /// Opens for reading only: as `open`, but syncs and changes nothing.
    pub fn open_read_only(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
    ) -> Result<Self> {
        let how = How::of(control, options, Health::new(), OpenMode::ReadOnly);
        let this = Self::unjudged(disk, how, control.log_first, end::start(control))?;
        EndSearch::begin(&this, control)?.finish()?;
        Ok(this)
    }

    /// A log kept from `first` on that reaches up to `proven` at least.
    fn unjudged(disk: Arc<dyn Disk>, how: How, first: Lsn, proven: Lsn) -> Result<Self> {
        let How { id, options, health, mode } = how;
        options.check()?;
        let rules = (health.clone(), options.mutations.clone());
        let segments = Segments::open(disk, options.segment_bytes, rules, mode)?;
        let seed = Seed::new(id, options.mutations.crc_without_lsn);
        let groups = Groups::new(&options.mutations);
        Ok(Self {
            options,
            seed,
            health,
            segments,
            groups,
            durable: AtomicU64::new(proven.get()),
            first: AtomicU64::new(first.get()),
            opened: OnceLock::new(),
            read_only: mode == OpenMode::ReadOnly,
            running: OnceLock::new(),
            growth: Mutex::new(()),
            holders: Mutex::default(),
            holds: Mutex::default(),
            window: Mutex::default(),
            dirty_since: Mutex::default(),
            flushes: AtomicU64::new(0),
            flushed_bytes: AtomicU64::new(0),
        })
    }

    /// The search for the end has come to `lsn`; all before it is a log, and durable.
    pub(crate) fn found_up_to(&self, lsn: Lsn) {
        if !self.durable().covers(lsn) {
            self.durable.store(lsn.get(), Ordering::Release);
        }
    }

    /// The search is over.
    pub(crate) fn judged(&self, end: End) {
        self.found_up_to(end.lsn);
        assert!(self.opened.set(end).is_ok(), "the end of a log is found once, by one thread");
    }

    /// Whether it is known where the log ended.
    pub fn is_judged(&self) -> bool {
        self.opened.get().is_some()
    }

    /// Erases what stands behind the end (rest of the tail's segment zeroed, later segments removed,
    /// file and directory synced), then admits appends. Call after redo, before undo. A second call does
    /// nothing.
    pub fn resume(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if self.running.get().is_some() {
            return Ok(());
        }
        assert!(self.is_judged(), "a log goes on where it ends, which nobody has looked for");
        self.health.check()?;
        self.erase_tail()?;
        self.start_running()
    }

    /// No stale record may ever be joined to the new tail: an old frame behind a hole would become valid
    /// again as soon as a new record of the same length fills the hole.
    fn erase_tail(&self) -> Result<()> {
        let end = self.opened().lsn;
        let (first, last) = (self.segments.index(self.first()), self.segments.index(end));
        let mut names_changed = false;
        if self.options.mutations.stale_tail && self.segments.file(last)?.is_some() {
            return Ok(());
        }
        for index in self.segments.indexes() {
            if index < first || index > last {
                self.segments.remove(index)?;
                names_changed = true;
            }
        }
        if self.segments.file(last)?.is_none() {
            self.segments.create(last)?;
        } else if self.segments.erase_from(end.get())? {
            self.segments.sync(last)?;
        }
        if names_changed { self.segments.sync_dir() } else { Ok(()) }
    }

    fn start_running(&self) -> Result<()> {
        let End { lsn: end, prev_len } = self.opened();
        let ring = Ring::new(self.options.ring_bytes, end.get(), prev_len);
        let ready_end = self.ready_end_found(end);
        let margin = self.options.margin_bytes();
        let admission = Admission::new(ring.capacity(), margin, end.get(), ready_end)
            .with_mutation(self.options.mutations.sleep_at_once);
        let flusher = Mutex::new(Flusher::new(&self.segments, end)?);
        let running = Running { ring, admission: Arc::new(admission), flusher };
        assert!(self.running.set(running).is_ok(), "a log is resumed once, by one thread");
        Ok(())
    }

    /// End of the unbroken run of segments from the one that `end` lies in.
    fn ready_end_found(&self, end: Lsn) -> u64 {
        let indexes = self.segments.indexes();
        let mut last = self.segments.index(end);
        while indexes.binary_search(&(last + 1)).is_ok() {
            last += 1;
        }
        self.segments.end_of(last)
    }
}

/// What decides how a log is opened.
struct How {
    id: LogId,
    options: LogOptions,
    health: Health,
    mode: OpenMode,
}

impl How {
    fn of(control: &Control, options: LogOptions, health: Health, mode: OpenMode) -> Self {
        let options = LogOptions { segment_bytes: control.segment_bytes, ..options };
        Self { id: control.log, options, health, mode }
    }
}
