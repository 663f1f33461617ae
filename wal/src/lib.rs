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
//! way in: `room.rs` over `admission.rs` (room), `ring.rs` (memory), `turn.rs` over `force.rs` (group
//! commit), `flush.rs` (to the files), `segment.rs` (files). The way out: `read.rs`. After a crash:
//! `control.rs` (where to begin), `end.rs` (where it ends), `open.rs` (how it goes on). For backups:
//! `hold.rs` (who reads old records), `copy.rs` (records into another directory). What is kept of it:
//! `boundary.rs` (where it may be cut).
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
//! [`Wal::scan`] and hold the log with a [`Hold`].

mod admission;
mod block;
mod boundary;
mod change;
mod control;
mod copy;
mod end;
mod flush;
mod force;
mod frame;
mod hold;
mod open;
mod options;
mod read;
mod record;
mod ring;
mod room;
mod segment;
mod tables;
mod turn;

use std::sync::OnceLock;
use std::time::Duration;

use argali_base::sync::{Arc, AtomicU64, Mutex, Ordering};
use argali_base::{Health, Lsn};

use admission::Admission;
use end::End;
use flush::Flusher;
use force::Groups;
use frame::Seed;
use hold::Holds;
use read::Window;
use ring::Ring;
use segment::Segments;

pub use admission::{LogTicket, UndoReserve};
pub use change::{CHANGE_OVERHEAD, Change, Changes, ChangesBuilder};
pub use control::{Control, ControlFile};
pub use copy::LogCopy;
pub use end::EndSearch;
pub use hold::Hold;
pub use options::{Holder, LogId, LogOptions, LogStats, Mutations, RECORD_BYTES_MAX};
pub use read::{Lent, RecordBuf, Scan, ScanBack};
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
    /// Where it ended when it was opened, once that was found out.
    opened: OnceLock<End>,
    read_only: bool,
    /// What a log has only once it may be appended to.
    running: OnceLock<Running>,
    /// Taken while segments are made, recycled or removed.
    growth: Mutex<()>,
    holders: Mutex<Vec<Holder>>,
    holds: Mutex<Holds>,
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
    /// Appends to the ring; cannot fail. Panics when the ticket is too small: a bug.
    pub fn append(&self, ticket: &mut LogTicket, record: &Record<'_>) -> Lsn {
        let running = self.running();
        debug_assert!(Arc::ptr_eq(ticket.admission(), &running.admission), "another log's ticket");
        let frame = ticket.lay_out(record);
        let lsn = running.ring.append(frame, self.seed);
        frame.shrink();
        lsn
    }

    /// How far the log is on disk.
    #[inline]
    pub fn durable(&self) -> Durable {
        Durable { end: Lsn::new(self.durable.load(Ordering::Acquire)) }
    }

    /// LSN the next record will get.
    #[inline]
    pub fn tail(&self) -> Lsn {
        self.running.get().map_or_else(|| self.end(), |running| Lsn::new(running.ring.tail()))
    }

    /// LSN of the last record; `NONE` when the log is empty.
    pub fn last(&self) -> Lsn {
        match self.running.get() {
            Some(running) => running.ring.last().0,
            None if self.opened().prev_len == 0 => Lsn::NONE,
            None => Lsn::new(self.end().get() - u64::from(self.opened().prev_len)),
        }
    }

    /// LSN of the first record still kept.
    pub fn first(&self) -> Lsn {
        Lsn::new(self.first.load(Ordering::Acquire))
    }

    /// Where the log ended when it was opened; while that is looked for, how far it is known. A pageLSN at or beyond it, met in redo, is evidence that
    /// the log was cut short: `Corrupt`.
    pub fn end(&self) -> Lsn {
        self.opened().lsn
    }

    fn opened(&self) -> End {
        let known = || End { lsn: self.durable().end(), prev_len: 0 };
        self.opened.get().copied().unwrap_or_else(known)
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
            bytes: tail.get() - self.end().get(),
            flushes: self.flushes.load(Ordering::Relaxed),
            flushed_bytes: self.flushed_bytes.load(Ordering::Relaxed),
            segments_created: created,
            segments_recycled: recycled,
            first_lsn: self.first(),
            durable_end: self.durable().end(),
            tail,
            kept_bytes: self.kept_bytes(),
            reserved_bytes: running.map_or(0, |running| running.admission.reserved()),
            holders: self.holders(),
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
        self.end().get()
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
