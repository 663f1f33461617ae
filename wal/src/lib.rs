//! The write-ahead log: what happened, in order, on disk before anything that depends on it.
//!
//! # The idea
//!
//! A page may be written to its place at any time, before its transaction commits (*steal*) or long
//! after (*no force*), because the log can repeat and take back every change. That holds under two rules
//! (ARIES; Mohan et al. 1992, section 1.2): a page's log records are durable before the page is written,
//! and a transaction's records are durable before its commit is acknowledged. This crate keeps the log
//! and proves, with a [`Durable`], how far it is on disk.
//!
//! # One commit, from left to right
//!
//! ```text
//!  time ─────────────────────────────────────────────────────────────────────────────────────►
//!  admit          append update    append commit   force ─────────────┐            returns Durable
//!  (ring and disk (LSN, copy into  (LSN)           lone? flush oneself │
//!   space, may     the ring; never                 else join a group   │
//!   wait)          waits)                                              ▼
//!  flusher                                          follow links ► write segments ► sync ► publish
//!                                                                                   durable end
//!
//!  LSN  0   64                                   durable end      tail      promised     ready end
//!       ├───┴──────────── on disk ───────────────┼─── in ring ────┼─ tickets ┼─ reserve ──┤
//!       └ first record stands at 64: LSN 0 means "none"
//! ```
//!
//! # Where to read
//!
//! What a record says: `record.rs`, `change.rs`, `tables.rs`; how it stands in the log: `frame.rs`. The
//! way in: `admission.rs` (room), `ring.rs` (memory), `flush.rs` (to the files), `force.rs` (group
//! commit), `segment.rs` (files). The way out: `read.rs`. After a crash: `control.rs` (where to begin),
//! `end.rs` (where it ends). This file puts them together.
//!
//! # Life of a log
//!
//! ```text
//!   create ───────────────────────────► running ──(sync fails)──► poisoned: nothing more is promised
//!   open ──► judged: read only ─resume──►   │
//!   open_read_only ──► judged, for ever     └─truncate: the oldest segments become the newest
//! ```
//!
//! Left out: compression and encryption of records; archiving and replication, which would read with
//! [`Wal::scan`] and hold the log with a [`Holder`].

mod admission;
mod block;
mod change;
mod control;
mod end;
mod flush;
mod force;
mod frame;
mod options;
mod read;
mod record;
mod ring;
mod room;
mod segment;
mod tables;

use std::sync::OnceLock;
use std::time::Duration;

use argali_base::disk::OpenMode;
use argali_base::sync::{Arc, AtomicU64, Clock, Mutex, Ordering};
use argali_base::{Disk, Error, Health, Lsn, Result};

use admission::Admission;
use end::End;
use flush::Flusher;
use force::{Groups, Role, Turn};
use frame::Seed;
use read::Window;
use record::Encoded;
use ring::Ring;
use segment::Segments;

pub use admission::{LogTicket, UndoReserve};
pub use change::{CHANGE_OVERHEAD, Change, Changes, ChangesBuilder};
pub use control::{Control, ControlFile};
pub use options::{Holder, LogId, LogOptions, LogStats, Mutations, RECORD_BYTES_MAX};
pub use read::{RecordBuf, Scan, ScanBack};
pub use record::{Body, Owner, RECORD_OVERHEAD, Record, Undo};
pub use tables::{ActiveTxn, CheckpointTables, DirtyPage, TxnState};

/// Proof that the log is on disk up to some point. Only `Wal` makes one.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    end: Lsn,
}

impl Durable {
    /// Whether the record at `lsn` is durable (`lsn < end`; `end` is a record boundary).
    pub fn covers(self, lsn: Lsn) -> bool {
        lsn < self.end
    }

    /// LSN behind the last durable record.
    pub fn end(self) -> Lsn {
        self.end
    }
}

/// The log of one database.
#[derive(Debug)]
pub struct Wal {
    options: LogOptions,
    seed: Seed,
    health: Health,
    segments: Segments,
    groups: Groups,
    durable: AtomicU64,
    first: AtomicU64,
    opened: End,
    read_only: bool,
    /// What a log has only once it may be appended to.
    running: OnceLock<Running>,
    /// Taken while segments are made, recycled or removed.
    growth: Mutex<()>,
    holders: Mutex<Vec<Holder>>,
    window: Mutex<Option<Window>>,
    /// When, by the clock of `step`, un-flushed records were first seen.
    dirty_since: Mutex<Option<Duration>>,
    flushes: AtomicU64,
    flushed_bytes: AtomicU64,
}

#[derive(Debug)]
struct Running {
    ring: Ring,
    admission: Arc<Admission>,
    flusher: Mutex<Flusher>,
}

impl Wal {
    /// A new, empty log: makes `wal/` and its first segment, zero-filled, synced, directory synced.
    /// What an unfinished creation left there is removed.
    pub fn create(
        disk: Arc<dyn Disk>,
        id: LogId,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        let this = Self::judged(
            disk,
            (id, Lsn::FIRST),
            options,
            health,
            OpenMode::Existing,
            |segments, _| {
                segments.start_over()?;
                segments.create(0)?;
                Ok(End { lsn: Lsn::FIRST, prev_len: 0 })
            },
        )?;
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
        let trusting = options.mutations.skip_first_sync;
        let options = LogOptions { segment_bytes: control.segment_bytes, ..options };
        let of = (control.log, control.log_first);
        Self::judged(disk, of, options, health, OpenMode::Existing, |segments, seed| {
            if !trusting {
                sync_unproven(segments, control)?;
            }
            end::find(segments, seed, control)
        })
    }

    /// Opens for reading only: as `open`, but syncs and changes nothing.
    pub fn open_read_only(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
    ) -> Result<Self> {
        let options = LogOptions { segment_bytes: control.segment_bytes, ..options };
        let of = (control.log, control.log_first);
        Self::judged(disk, of, options, Health::new(), OpenMode::ReadOnly, |segments, seed| {
            end::find(segments, seed, control)
        })
    }

    fn judged(
        disk: Arc<dyn Disk>,
        (id, first): (LogId, Lsn),
        options: LogOptions,
        health: Health,
        mode: OpenMode,
        end: impl FnOnce(&Segments, Seed) -> Result<End>,
    ) -> Result<Self> {
        options.check()?;
        let how = (health.clone(), options.mutations.clone());
        let segments = Segments::open(disk, options.segment_bytes, how, mode)?;
        let seed = Seed::new(id, options.mutations.crc_without_lsn);
        let opened = end(&segments, seed)?;
        Ok(Self {
            options,
            seed,
            health,
            segments,
            groups: Groups::default(),
            durable: AtomicU64::new(opened.lsn.get()),
            first: AtomicU64::new(first.get()),
            opened,
            read_only: mode == OpenMode::ReadOnly,
            running: OnceLock::new(),
            growth: Mutex::new(()),
            holders: Mutex::default(),
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
        let admission = Admission::new(ring.capacity(), margin, end.get(), ready_end);
        let flusher = Mutex::new(Flusher::new(&self.segments, end)?);
        let running = Running { ring, admission, flusher };
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

    /// Appends to the ring; cannot fail. Panics when the ticket is too small: a bug.
    pub fn append(&self, ticket: &mut LogTicket, record: &Record<'_>) -> Lsn {
        let running = self.running();
        debug_assert!(Arc::ptr_eq(ticket.admission(), &running.admission), "another log's ticket");
        let mut encoded = Encoded::new(record);
        let len = encoded.len();
        assert!(len <= RECORD_BYTES_MAX, "record of {len} bytes; at most {RECORD_BYTES_MAX}");
        ticket.spend(len as u64);
        running.ring.append(&mut encoded, self.seed)
    }

    /// Returns once the record at `lsn` is durable; shared by a group. Poisons on failure. With an `lsn`
    /// at or beyond the tail, everything appended so far is made durable.
    pub fn force(&self, lsn: Lsn) -> Result<Durable> {
        let lsn = lsn.min(Lsn::new(self.tail().get() - 1));
        loop {
            if self.durable().covers(lsn) {
                return Ok(self.durable());
            }
            self.health.check()?;
            match self.groups.join(lsn.get()) {
                Role::Flush(turn) => self.flush(turn)?,
                Role::Wait(seat) => self.groups.sleep(&seat),
            }
        }
    }

    /// Waits for durability without asking for a flush of its own before `patience` is over.
    pub fn force_within(&self, lsn: Lsn, patience: Duration) -> Result<Durable> {
        let satisfied = || self.durable().covers(lsn) || self.health.is_poisoned();
        if self.options.writer_thread && !patience.is_zero() && lsn < self.tail() && !satisfied() {
            self.groups.wait_patiently(patience, satisfied);
        }
        self.force(lsn)
    }

    /// The one flush (F1), by whoever has the turn. All who wait are woken, whatever comes of it.
    fn flush(&self, turn: Turn) -> Result<()> {
        let guard = TurnGuard { wal: self, turn };
        self.health.check()?;
        let running = self.running();
        let mut flusher = running.flusher.lock();
        let before = flusher.written();
        let end = running.ring.complete(before, guard.turn.want);
        if end == before {
            return Ok(());
        }
        let sync = !self.options.mutations.no_force;
        flusher.flush(&running.ring, &self.segments, end, sync)?;
        self.durable.store(end, Ordering::Release);
        running.admission.written(end);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flushed_bytes.fetch_add(end - before, Ordering::Relaxed);
        Ok(())
    }

    /// How far the log is on disk.
    pub fn durable(&self) -> Durable {
        Durable { end: Lsn::new(self.durable.load(Ordering::Acquire)) }
    }

    /// LSN the next record will get.
    pub fn tail(&self) -> Lsn {
        self.running.get().map_or(self.opened.lsn, |running| Lsn::new(running.ring.tail()))
    }

    /// LSN of the last record; `NONE` when the log is empty.
    pub fn last(&self) -> Lsn {
        match self.running.get() {
            Some(running) => running.ring.last().0,
            None if self.opened.prev_len == 0 => Lsn::NONE,
            None => Lsn::new(self.opened.lsn.get() - u64::from(self.opened.prev_len)),
        }
    }

    /// LSN of the first record still kept.
    pub fn first(&self) -> Lsn {
        Lsn::new(self.first.load(Ordering::Acquire))
    }

    /// Where the log ended when it was opened. A pageLSN at or beyond it, met in redo, is evidence that
    /// the log was cut short: `Corrupt`.
    pub fn end(&self) -> Lsn {
        self.opened.lsn
    }

    /// One turn of the log writer: flushes if anybody waits or a relaxed commit is due (`max_delay`);
    /// otherwise sleeps until woken, at most `idle`. Returns whether it flushed.
    ///
    /// A record nobody waits for is flushed at most `max_delay` after its append, given a step every half
    /// of it; so this never sleeps longer than that.
    pub fn step(&self, clock: &Clock, max_delay: Duration, idle: Duration) -> Result<bool> {
        self.health.check()?;
        if self.flush_waiting()? || self.flush_overdue(clock, max_delay)? {
            return Ok(true);
        }
        self.prepare_ahead()?;
        self.groups.writer_sleeps(idle.min(max_delay / 2));
        self.flush_waiting()
    }

    /// Flushes group after group while there is one.
    fn flush_waiting(&self) -> Result<bool> {
        let mut flushed = false;
        while let Some(turn) = self.groups.turn_for_waiters() {
            self.flush(turn)?;
            flushed = true;
        }
        Ok(flushed)
    }

    fn flush_overdue(&self, clock: &Clock, max_delay: Duration) -> Result<bool> {
        let now = clock.now();
        let due = {
            let mut since = self.dirty_since.lock();
            if self.tail() == self.durable().end() {
                *since = None;
                return Ok(false);
            }
            // Seen now, it may have been appended up to half the delay ago: just after the last step.
            now.saturating_sub(*since.get_or_insert(now)) >= max_delay / 2
        };
        if due {
            *self.dirty_since.lock() = None;
            self.force(Lsn::MAX)?;
        }
        Ok(due)
    }

    /// Wakes the log writer and everybody who waits (shutdown, poison).
    pub fn wake(&self) {
        self.groups.wake();
        if let Some(running) = self.running.get() {
            running.admission.wake();
        }
    }

    /// Whether anything may still be promised.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What the log was opened with.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Counters and gauges.
    pub fn stats(&self) -> LogStats {
        let running = self.running.get();
        let (created, recycled) = self.segments.counts();
        let tail = self.tail();
        LogStats {
            records: running.map_or(0, |running| running.ring.last().1),
            bytes: tail.get() - self.opened.lsn.get(),
            flushes: self.flushes.load(Ordering::Relaxed),
            flushed_bytes: self.flushed_bytes.load(Ordering::Relaxed),
            segments_created: created,
            segments_recycled: recycled,
            first_lsn: self.first(),
            durable_end: self.durable().end(),
            tail,
            kept_bytes: self.kept_bytes(),
            reserved_bytes: running.map_or(0, |running| running.admission.reserved()),
            holders: self.holders.lock().clone(),
        }
    }

    fn running(&self) -> &Running {
        self.running.get().expect("a log is resumed before it is appended to")
    }

    fn ring(&self) -> Option<&Ring> {
        self.running.get().map(|running| &running.ring)
    }

    /// Below this LSN records are found in files only.
    fn base(&self) -> u64 {
        self.opened.lsn.get()
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn seed(&self) -> Seed {
        self.seed
    }

    fn window(&self) -> &Mutex<Option<Window>> {
        &self.window
    }
}

/// Ends the turn on every way out of a flush; on a panic nothing more may be promised.
struct TurnGuard<'w> {
    wal: &'w Wal,
    turn: Turn,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = "a flush of the log panicked".to_owned();
            self.wal.health.poison(Error::Poisoned { cause });
        }
        if self.wal.health.is_poisoned() {
            self.wal.wake();
        }
        self.wal.groups.finish(&self.turn);
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
