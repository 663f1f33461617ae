//! Readers of old records: what they hold is kept, and what they copy is the same log or another one.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use argali_base::disk::{OpenMode, SimDisk};
use argali_base::{Disk, Error, Lsn};
use argali_wal::{Control, Holder, LogCopy, LogId, RecordBuf, Wal};
use common::{ID, SEGMENT, all, commit, control, create, disk, note, options, update};

/// A log of some five segments, durable.
fn long_log(sim: &SimDisk) -> Wal {
    let wal = create(sim, options());
    for txn in 1..160 {
        update(&wal, txn, 1900).unwrap();
        note(&wal, txn, b"aside").unwrap();
    }
    commit(&wal, 200).unwrap();
    assert!(wal.tail().get() > 4 * SEGMENT);
    wal
}

fn redo_point(lsn: Lsn) -> Vec<Holder> {
    vec![Holder { what: "redo point".into(), lsn }]
}

#[test]
fn a_hold_keeps_the_log_and_is_named() {
    let sim = SimDisk::new(1);
    let wal = long_log(&sim);
    let records = all(&wal, Lsn::FIRST);
    let hold = wal.hold("backup");
    assert_eq!(wal.truncate(redo_point(wal.tail())).unwrap(), Lsn::FIRST, "held from the first");
    assert_eq!(all(&wal, Lsn::FIRST), records, "everything can still be read");
    let named: Vec<_> = wal.stats().holders.into_iter().map(|holder| holder.what).collect();
    assert_eq!(named, ["backup", "redo point"], "oldest first");

    let half = records[records.len() / 2].0;
    hold.advance(half);
    assert_eq!((wal.truncate(redo_point(wal.tail())).unwrap(), hold.lsn()), (half, half));
    assert!(sim.open("wal/0000000000000000.log", OpenMode::ReadOnly).is_err(), "freed below it");
    drop(hold);
    assert_eq!(wal.truncate(redo_point(wal.tail())).unwrap(), wal.tail());
    assert_eq!(wal.stats().holders.len(), 1);
}

#[test]
fn the_full_log_names_its_holders() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    let _hold = wal.hold("backup");
    let full = (1..4000).find_map(|txn| update(&wal, txn, 1900).err());
    let Some(Error::LogFull { what }) = full else { panic!("{full:?}") };
    assert!(what.contains("backup at @64"), "{what}");
}

#[test]
#[should_panic(expected = "H2: a hold at @128 cannot go back to @64")]
fn a_hold_moves_forward_only() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    let hold = wal.hold("backup");
    hold.advance(Lsn::new(128));
    hold.advance(Lsn::FIRST);
}

/// Copies the records from `first` on to a new disk under `id`, power cut at the end.
fn copied(wal: &Wal, id: LogId, first: Lsn) -> SimDisk {
    let sim = SimDisk::new(2);
    let mut copy = LogCopy::create(disk(&sim), id, SEGMENT, first).unwrap();
    let (mut scan, mut buf) = (wal.scan(first), RecordBuf::new());
    while scan.next(&mut buf).unwrap() {
        copy.append(&buf).unwrap();
    }
    assert_eq!(copy.finish().unwrap(), wal.tail());
    sim.power_cut(argali_base::disk::Loss::LoseAll)
}

fn opened(sim: &SimDisk, id: LogId, first: Lsn) -> argali_base::Result<Wal> {
    let control = Control { log: id, log_first: first, checkpoint: first, ..control() };
    Wal::open_read_only(disk(sim), &Control { checkpoint_end: first, ..control }, options())
}

#[test]
fn a_copy_is_durable_and_says_the_same() {
    let sim = SimDisk::new(1);
    let wal = long_log(&sim);
    let records = all(&wal, Lsn::FIRST);
    for start in [0, 1, 70, records.len() - 1] {
        let first = records[start].0;
        let copy = opened(&copied(&wal, ID, first), ID, first).unwrap();
        assert_eq!(copy.end(), wal.tail());
        assert_eq!(all(&copy, first), records[start..]);
    }
}

#[test]
fn a_copy_on_another_timeline_can_be_resumed_and_shares_no_record_with_the_old_one() {
    let sim = SimDisk::new(1);
    let wal = long_log(&sim);
    let records = all(&wal, Lsn::FIRST);
    let restored = LogId { timeline: 2, branch: 77, ..ID };
    let copy = copied(&wal, restored, Lsn::FIRST);
    for stranger in [ID, LogId { branch: 78, ..restored }, LogId { timeline: 3, ..restored }] {
        let seen = opened(&copy, stranger, Lsn::FIRST).unwrap();
        assert_eq!(seen.end(), Lsn::FIRST, "{stranger:?} finds no record");
    }
    let control = Control { log: restored, ..control() };
    let health = argali_base::Health::new();
    let again = Wal::open(disk(&copy), &control, options(), health).unwrap();
    assert_eq!(all(&again, Lsn::FIRST), records);
    again.resume().unwrap();
    update(&again, 500, 100).unwrap();
    commit(&again, 500).unwrap();
    assert_eq!(all(&again, Lsn::FIRST).len(), records.len() + 2);
}

#[test]
fn a_copy_takes_no_record_out_of_turn() {
    let sim = SimDisk::new(1);
    let wal = long_log(&sim);
    let records = all(&wal, Lsn::FIRST);
    let mut buf = RecordBuf::new();
    let mut copy = LogCopy::create(disk(&SimDisk::new(2)), ID, SEGMENT, Lsn::FIRST).unwrap();
    wal.read(records[0].0, &mut buf).unwrap();
    copy.append(&buf).unwrap();
    wal.read(records[2].0, &mut buf).unwrap();
    let error = copy.append(&buf).unwrap_err();
    assert!(error.is_corruption(), "{error}");
}
