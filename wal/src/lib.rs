//! The write-ahead log. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

mod control;
mod record;

use std::time::Duration;

use argali_base::sync::{Arc, Clock};
use argali_base::{Disk, Health, Lsn, Result};

pub use control::{Control, ControlFile};
pub use record::{
    ActiveTxn, Body, Change, Changes, ChangesBuilder, CheckpointTables, DirtyPage, Owner, Record,
    RecordBuf, TxnState, Undo,
};

/// Which database and which history a log belongs to; seeds the CRC of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    pub database: u64,
    pub timeline: u32,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes per segment file (multiple of 4096). Segment k holds LSNs [k*n, (k+1)*n).
    pub segment_bytes: u64,
    /// Bytes of the in-memory ring (power of two, at least 4 × the largest record).
    pub ring_bytes: usize,
    /// Most bytes of log that may be kept; admission beyond it is `LogFull`.
    pub limit_bytes: u64,
    /// Whether a log-writer thread will call [`Wal::step`]; without one, waiters flush for each other.
    pub writer_thread: bool,
}

/// Largest encoded record in bytes; access methods keep structure changes below it.
pub const RECORD_BYTES_MAX: usize = 1 << 19;

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
    pub fn end(self) -> Lsn {
        self.end
    }
}

/// Room in ring and segments, taken before the first latch. What is not used goes back on drop.
#[derive(Debug)]
pub struct LogTicket {
    _todo: (),
}

/// Log space promised to one transaction for its rollback and its end. Lives as long as it does.
#[derive(Debug, Default)]
pub struct UndoReserve {
    _todo: (),
}

/// Who still needs the log from `lsn` on: named in `stats` and `LogFull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// "redo point", "oldest transaction t7", "backup", …
    pub what: String,
    pub lsn: Lsn,
}

/// Counters since open; all in the units their names say.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    pub records: u64,
    pub bytes: u64,
    pub flushes: u64,
    pub flushed_bytes: u64,
    pub segments_created: u64,
    pub segments_recycled: u64,
    pub first_lsn: Lsn,
    pub durable_end: Lsn,
    pub tail: Lsn,
    pub holders: Vec<Holder>,
}

pub struct Wal {
    _todo: (),
}

impl Wal {
    /// A new, empty log: makes `wal/` and its first segment, zero-filled, synced, directory synced.
    pub fn create(
        disk: Arc<dyn Disk>,
        id: LogId,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        todo!()
    }

    /// Opens an existing log for restart: syncs what is there (segments, directory), then reads from
    /// `control.checkpoint` and judges where the log ends (tail or `Corrupt`). Nothing may be appended
    /// before [`Wal::resume`]; reading and `durable()` (= the end found) work.
    pub fn open(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
        health: Health,
    ) -> Result<Self> {
        todo!()
    }

    /// Opens for reading only: as `open`, but syncs and changes nothing.
    pub fn open_read_only(
        disk: Arc<dyn Disk>,
        control: &Control,
        options: LogOptions,
    ) -> Result<Self> {
        todo!()
    }

    /// Erases what stands behind the end (rest of the tail's segment zeroed, later segments removed,
    /// file and directory synced), then admits appends. Call after redo, before undo.
    pub fn resume(&self) -> Result<()> {
        todo!()
    }

    /// Takes room for records of `record_bytes` in total, before any latch. May wait for a flush, may
    /// create segments. `undo_bytes` more (disk space only) go to `reserve` for the rollback.
    /// `LogFull` when limit or disk is met; poisoned → `Poisoned`.
    pub fn admit(
        &self,
        record_bytes: usize,
        undo_bytes: usize,
        reserve: &mut UndoReserve,
    ) -> Result<LogTicket> {
        todo!()
    }

    /// Like `admit`, for rollback, commit and end: disk space comes out of `reserve` (then from the
    /// margin kept for such records); never `LogFull`.
    pub fn admit_reserved(
        &self,
        record_bytes: usize,
        reserve: &mut UndoReserve,
    ) -> Result<LogTicket> {
        todo!()
    }

    /// Gives the whole reserve back (transaction over).
    pub fn release(&self, reserve: &mut UndoReserve) {
        todo!()
    }

    /// Appends to the ring; cannot fail. Panics when the ticket is too small: a bug.
    pub fn append(&self, ticket: &mut LogTicket, record: &Record<'_>) -> Lsn {
        todo!()
    }

    /// Returns once the record at `lsn` is durable; shared by a group. Poisons on failure.
    pub fn force(&self, lsn: Lsn) -> Result<Durable> {
        todo!()
    }

    /// Waits for durability without asking for a flush of its own before `patience` is over.
    pub fn force_within(&self, lsn: Lsn, patience: Duration) -> Result<Durable> {
        todo!()
    }

    pub fn durable(&self) -> Durable {
        todo!()
    }

    /// LSN the next record will get.
    pub fn tail(&self) -> Lsn {
        todo!()
    }

    /// LSN of the first record still kept.
    pub fn first(&self) -> Lsn {
        todo!()
    }

    /// Reads the record at `lsn` (ring or file) into `buf`.
    pub fn read(&self, lsn: Lsn, buf: &mut RecordBuf) -> Result<()> {
        todo!()
    }

    /// Forward from the record at `from`; ends at the end of the log.
    pub fn scan(&self, from: Lsn) -> Scan<'_> {
        todo!()
    }

    /// One turn of the log writer: flushes if anybody waits or a relaxed commit is due (`max_delay`);
    /// otherwise sleeps until woken, at most `idle`. Returns whether it flushed.
    pub fn step(&self, clock: &Clock, max_delay: Duration, idle: Duration) -> Result<bool> {
        todo!()
    }

    /// Wakes the log writer and everybody who waits (shutdown, poison).
    pub fn wake(&self) {
        todo!()
    }

    /// Recycles or removes segments that lie wholly below the least holder. The control slot that
    /// stops referring to them must be durable before. Remembers the holders for `stats`.
    pub fn truncate(&self, holders: Vec<Holder>) -> Result<Lsn> {
        todo!()
    }

    pub fn options(&self) -> &LogOptions {
        todo!()
    }
    pub fn stats(&self) -> LogStats {
        todo!()
    }
}

/// Reads records one after another.
pub struct Scan<'w> {
    _wal: &'w Wal,
}

impl Scan<'_> {
    /// The next record, or `None` at the end of the log.
    pub fn next(&mut self, buf: &mut RecordBuf) -> Result<bool> {
        todo!()
    }
}
