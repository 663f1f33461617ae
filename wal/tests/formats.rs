//! The bytes on disk, pinned. When this fails, a format changed: raise its version, write how old files
//! are read, change the tables in the sources and in `docs/formats.md`, then look at every line of the
//! new dump. `UPDATE_GOLDEN=1 cargo test -p argali-wal --test formats` writes it.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;

use argali_base::disk::{OpenMode, SimDisk};
use argali_base::{Disk, Lsn, PageId, TxnId};
use argali_wal::{
    ActiveTxn, Body, Changes, ChangesBuilder, CheckpointTables, Control, ControlFile, DirtyPage,
    LogId, Owner, Record, RecordBuf, TxnState, Undo, UndoReserve, Wal,
};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/formats.txt");
const GOLDEN: &str = include_str!("golden/formats.txt");

/// Eight bytes a line, as in the tables of the sources.
fn dump(out: &mut String, title: &str, bytes: &[u8]) {
    let _ = writeln!(out, "{title}: {} bytes", bytes.len());
    for (line, chunk) in bytes.chunks(8).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(out, "{:5}  {}", line * 8, hex.join(" "));
    }
    out.push('\n');
}

fn records(out: &mut String) {
    let sim = SimDisk::memory();
    let wal = common::create(&sim, common::options());
    let mut one = ChangesBuilder::default();
    one.push(PageId::new(7), Lsn::new(0x40), |out| out.extend_from_slice(b"operations"));
    let mut two = ChangesBuilder::default();
    two.push(PageId::new(8), Lsn::new(0x40), |out| out.extend_from_slice(b"left"));
    two.push(PageId::new(9), Lsn::NONE, |out| out.extend_from_slice(b"right"));
    let mut bytes = Vec::new();
    let dirty = [DirtyPage { page: PageId::new(7), rec_lsn: Lsn::new(0x40) }];
    let active = [ActiveTxn {
        txn: TxnId::new(5),
        state: TxnState::Running,
        first: Lsn::new(0x40),
        last: Lsn::new(0x80),
        undo_next: Lsn::new(0x80),
    }];
    let tables = CheckpointTables::encode(&mut bytes, &dirty, &active);
    let durable = Lsn::new(0x1c0);
    let (one, two) = (one.changes(), two.changes());
    let logical = Undo::Logical { owner: Owner(2), body: b"key" };
    let vote = |before, last, piece| Body::Prepare { durable, before, last, piece };
    let end = |last| Body::CheckpointEnd { begin: Lsn::new(0x1c0), durable, last, tables };
    let all = [
        (
            "update, physical undo",
            5,
            0,
            Body::Update { changes: one, undo: Undo::Physical(b"undo") },
        ),
        (
            "update of two pages, never undone",
            5,
            64,
            Body::Update { changes: two, undo: Undo::Never },
        ),
        ("update, logical undo", 5, 160, Body::Update { changes: one, undo: logical }),
        ("compensation", 5, 256, Body::Compensation { changes: one, undo_next: Lsn::new(64) }),
        (
            "end of a nested top action",
            5,
            336,
            Body::Compensation { changes: Changes::EMPTY, undo_next: Lsn::NONE },
        ),
        ("commit", 5, 376, Body::Commit { durable }),
        ("end", 5, 416, Body::End),
        ("checkpoint begin", 0, 0, Body::CheckpointBegin { durable }),
        ("checkpoint end, more to come", 0, 0, end(false)),
        ("checkpoint end, last", 0, 0, end(true)),
        ("prepare, more to come", 5, 416, vote(0, false, b"this, and")),
        ("prepare, last piece", 5, 448, vote(9, true, b"that")),
    ];
    let mut buf = RecordBuf::new();
    for (title, txn, prev, body) in all {
        let record = Record { txn: TxnId::new(txn), prev: Lsn::new(prev), body };
        let len = record.encoded_len();
        let mut ticket = wal.admit(len, 0, &mut UndoReserve::default()).unwrap();
        let lsn = wal.append(&mut ticket, &record);
        wal.read(lsn, &mut buf).unwrap();
        assert_eq!(buf.record(), record);
        dump(out, &format!("{title} {lsn}"), buf.frame());
    }
    file_holds_what_the_ring_held(&sim, &wal);
}

fn file_holds_what_the_ring_held(sim: &SimDisk, wal: &Wal) {
    wal.force(Lsn::MAX).unwrap();
    let file = sim.open("wal/0000000000000000.log", OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; wal.tail().get() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..64], [0; 64]);
    let (mut scan, mut buf) = (wal.scan(Lsn::FIRST), RecordBuf::new());
    while scan.next(&mut buf).unwrap() {
        let at = buf.lsn().get() as usize;
        assert_eq!(&bytes[at..at + buf.frame().len()], buf.frame());
    }
}

fn control(out: &mut String) {
    let sim = SimDisk::memory();
    let control = Control {
        log: LogId { database: 0x1122_3344_5566_7788, timeline: 1, branch: 0 },
        page_size: 8192,
        segment_bytes: 16 << 20,
        torn_pages: 0,
        checkpoint: Lsn::new(0x1000),
        checkpoint_end: Lsn::new(0x1100),
        log_first: Lsn::new(0x0800),
        clean_end: None,
        data_stamp: Lsn::new(0x1c0),
        next_txn: 77,
        pages: 12,
    };
    let file = ControlFile::create(common::disk(&sim), control).unwrap();
    file.publish().unwrap();
    file.update(|control| control.clean_end = Some(Lsn::new(0x1200))).unwrap();
    let mut bytes = [0; 8192];
    let file = sim.open("control", OpenMode::ReadOnly).unwrap();
    assert_eq!(file.len().unwrap(), 8192);
    file.read_exact_at(&mut bytes, 0).unwrap();
    for (slot, block) in bytes.chunks(4096).enumerate() {
        dump(out, &format!("control slot {slot}"), &block[..120]);
        assert!(block[120..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn formats_are_as_pinned() {
    let mut now = String::new();
    records(&mut now);
    control(&mut now);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(PATH, &now).unwrap();
        return;
    }
    for (line, (pinned, now)) in GOLDEN.lines().zip(now.lines()).enumerate() {
        assert_eq!(pinned, now, "line {} of {PATH}", line + 1);
    }
    assert_eq!(GOLDEN.len(), now.len());
}
