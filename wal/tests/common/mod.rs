//! What the tests of the log share: a small log on a simulated disk.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;

use argali_base::disk::SimDisk;
use argali_base::{Disk, Health, Lsn, PageId, Result, TxnId};
use argali_wal::{
    Body, Changes, ChangesBuilder, Control, Durable, LogId, LogOptions, Owner, Record, RecordBuf,
    Undo, UndoReserve, Wal,
};

pub const ID: LogId = LogId { database: 42, timeline: 1, branch: 0 };
pub const SEGMENT: u64 = 64 << 10;

pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT,
        ring_bytes: 2 << 20,
        limit_bytes: 1 << 20,
        ..LogOptions::default()
    }
}

pub fn control() -> Control {
    Control {
        log: ID,
        page_size: 8192,
        segment_bytes: SEGMENT,
        torn_pages: 0,
        checkpoint: Lsn::NONE,
        checkpoint_end: Lsn::NONE,
        log_first: Lsn::FIRST,
        clean_end: None,
        data_stamp: Lsn::NONE,
        next_txn: 1,
        pages: 1,
    }
}

pub fn disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub fn create(sim: &SimDisk, options: LogOptions) -> Wal {
    Wal::create(disk(sim), ID, options, Health::new()).unwrap()
}

pub fn open(sim: &SimDisk, options: LogOptions) -> Result<Wal> {
    let wal = Wal::open(disk(sim), &control(), options, Health::new())?;
    wal.resume()?;
    Ok(wal)
}

/// Appends an update of `txn` with `len` bytes of operations.
pub fn update(wal: &Wal, txn: u64, len: usize) -> Result<Lsn> {
    let mut changes = ChangesBuilder::default();
    changes.push(PageId::new(txn), Lsn::NONE, |out| out.resize(out.len() + len, txn as u8));
    let undo = Undo::Logical { owner: Owner(1), body: b"undo" };
    append(wal, txn, Body::Update { changes: changes.changes(), undo })
}

pub fn commit(wal: &Wal, txn: u64) -> Result<Durable> {
    let lsn = append(wal, txn, Body::Commit { durable: wal.durable().end() })?;
    wal.force(lsn)
}

pub fn append(wal: &Wal, txn: u64, body: Body<'_>) -> Result<Lsn> {
    let record = Record { txn: TxnId::new(txn), prev: Lsn::NONE, body };
    let mut ticket = wal.admit(record.encoded_len(), 0, &mut UndoReserve::default())?;
    Ok(wal.append(&mut ticket, &record))
}

/// An update without any change: the shortest record with bytes of one's own.
pub fn note(wal: &Wal, txn: u64, body: &[u8]) -> Result<Lsn> {
    let undo = Undo::Logical { owner: Owner(9), body };
    append(wal, txn, Body::Update { changes: Changes::EMPTY, undo })
}

/// LSN and transaction of every record from `from` on.
pub fn all(wal: &Wal, from: Lsn) -> Vec<(Lsn, u64)> {
    let mut scan = wal.scan(from);
    let mut buf = RecordBuf::new();
    let mut seen = Vec::new();
    while scan.next(&mut buf).unwrap() {
        seen.push((buf.lsn(), buf.record().txn.get()));
    }
    seen
}
