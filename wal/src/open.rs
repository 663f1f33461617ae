//! Opening: made new, judged after a crash, resumed.
//!
//! ```text
//!   create          empty the directory ─► first segment ready ──────────────────────────► running
//!   open            sync what is readable ─► find and judge the end ─► reads only ─resume─► running
//!   resume          later segments removed, the tail's zeroed to its end, file and directory synced
//!   open_read_only  find and judge the end ─► reads only
//! ```
//!
//! A crash between any two of these steps leaves a log that is judged the same way again.

use std::sync::OnceLock;

use argali_base::disk::OpenMode;
use argali_base::sync::{Arc, AtomicU64, Mutex};
use argali_base::{Disk, Error, Health, Lsn, Result};

use crate::admission::Admission;
use crate::end::{self, End};
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
        let this = Self::judged(disk, how, Lsn::FIRST, |segments, _| {
            segments.start_over()?;
            segments.create(0)?;
            Ok(End { lsn: Lsn::FIRST, prev_len: 0 })
        })?;
        this.start_running()?;
        Ok(this)
    }

    /// Opens an existing log for restart: syncs what is there (segments, directory), then reads from
    /// `control.checkpoint` and judges where the log ends (tail or `Corrupt`). Nothing may be appended
    /// before [`Wal::resume`]; reading and `durable()` (= the end found) work. The segment size is the
    /// control file's.
    pub fn open(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        Self::open_reading(disk, control, options, health, |_, _| ())
    }

    /// As [`Wal::open`]; gives `see` each whole frame from `control.checkpoint` to the end, which is judged
    /// only afterwards. Looking for the end reads what the first pass of a restart reads.
    pub fn open_reading(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
        health: Health,
        see: impl FnMut(Lsn, &[u8]),
    ) -> Result<Self> {
        let trusting = options.mutations.skip_first_sync;
        let how = How::of(control, options, health, OpenMode::Existing);
        Self::judged(disk, how, control.log_first, |segments, seed| {
            if !trusting {
                sync_unproven(segments, control)?;
            }
            end::find(segments, seed, control, see)
        })
    }

    /// Opens for reading only: as `open`, but syncs and changes nothing.
    pub fn open_read_only(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
    ) -> Result<Self> {
        let how = How::of(control, options, Health::new(), OpenMode::ReadOnly);
        Self::judged(disk, how, control.log_first, |segments, seed| {
            end::find(segments, seed, control, |_, _| ())
        })
    }

    fn judged(
        disk: Arc<dyn Disk>,
        how: How,
        first: Lsn,
        end: impl FnOnce(&Segments, Seed) -> Result<End>,
    ) -> Result<Self> {
        let How { id, options, health, mode } = how;
        options.check()?;
        let rules = (health.clone(), options.mutations.clone());
        let segments = Segments::open(disk, options.segment_bytes, rules, mode)?;
        let seed = Seed::new(id, options.mutations.crc_without_lsn);
        let opened = end(&segments, seed)?;
        let groups = Groups::new(&options.mutations);
        Ok(Self {
            options,
            seed,
            health,
            segments,
            groups,
            durable: AtomicU64::new(opened.lsn.get()),
            first: AtomicU64::new(first.get()),
            opened,
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
        self.health.check()?;
        self.erase_tail()?;
        self.start_running()
    }

    /// No stale record may ever be joined to the new tail: an old frame behind a hole would become valid
    /// again as soon as a new record of the same length fills the hole.
    fn erase_tail(&self) -> Result<()> {
        let end = self.opened.lsn;
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
        let End { lsn: end, prev_len } = self.opened;
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

/// Makes durable what is merely readable after a process was killed. What lies wholly before the end of
/// the last checkpoint is proven durable by the control file.
fn sync_unproven(segments: &Segments, control: &Control) -> Result<()> {
    for index in segments.indexes() {
        if segments.end_of(index) > control.checkpoint_end.get() {
            segments.sync(index)?;
        }
    }
    segments.sync_dir()
}
