//! The log as its users see it: appended, forced, read in every direction, reopened.
#![allow(clippy::unwrap_used)]

mod common;

use argali_base::disk::{Loss, SimDisk};
use argali_base::{Error, Health, Lsn};
use argali_wal::{Body, Control, Holder, LogOptions, RecordBuf, UndoReserve, Wal};
use common::{SEGMENT, all, append, commit, control, create, disk, note, open, options, update};

#[test]
fn what_was_forced_is_there_after_a_power_cut() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    let first = update(&wal, 1, 100).unwrap();
    let durable = commit(&wal, 1).unwrap();
    assert_eq!(first, Lsn::FIRST);
    assert!(durable.covers(first));
    update(&wal, 2, 100).unwrap();

    let after = open(&sim.power_cut(Loss::LoseAll), options()).unwrap();
    assert_eq!(after.tail(), durable.end());
    assert_eq!(all(&after, Lsn::FIRST).iter().map(|r| r.1).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn records_span_segments_and_come_back_in_every_direction() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    let mut lsns = Vec::new();
    for txn in 1..40 {
        lsns.push((update(&wal, txn, 10_000 + txn as usize * 13).unwrap(), txn));
    }
    // Not forced yet: all from the ring.
    assert_eq!(all(&wal, Lsn::FIRST), lsns);
    wal.force(Lsn::MAX).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST), lsns);

    let wal = open(&sim.power_cut(Loss::LoseAll), options()).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST), lsns);
    let mut buf = RecordBuf::new();
    for (lsn, txn) in &lsns {
        wal.read(*lsn, &mut buf).unwrap();
        assert_eq!(buf.record().txn.get(), *txn);
    }
    let mut back = wal.scan_back(wal.last());
    for (lsn, _) in lsns.iter().rev() {
        assert!(back.next(&mut buf).unwrap());
        assert_eq!(buf.lsn(), *lsn);
    }
    assert!(!back.next(&mut buf).unwrap());
}

#[test]
fn the_ring_wraps_many_times() {
    let sim = SimDisk::new(1);
    let options = LogOptions { limit_bytes: 64 << 20, ..options() };
    let wal = create(&sim, options.clone());
    let mut lsns = Vec::new();
    let mut bytes = 0;
    for txn in 1.. {
        let len = 1000 + (txn as usize * 7919) % 60_000;
        bytes += len;
        lsns.push((update(&wal, txn, len).unwrap(), txn));
        if bytes > 9 << 20 {
            break;
        }
    }
    wal.force(Lsn::MAX).unwrap();
    let wal = open(&sim.power_cut(Loss::LoseAll), options).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST), lsns);
}

#[test]
fn a_full_log_refuses_work_but_not_its_end() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    let mut reserve = UndoReserve::default();
    drop(wal.admit(1000, 10_000, &mut reserve).unwrap());
    wal.truncate(vec![Holder { what: "oldest transaction t1".into(), lsn: Lsn::FIRST }]).unwrap();
    let error = (0..).find_map(|txn| update(&wal, txn, 5000).err()).unwrap();
    let Error::LogFull { what } = &error else { panic!("{error}") };
    assert!(what.contains("oldest transaction t1 at @64"), "{what}");
    assert!(wal.stats().kept_bytes <= 1 << 20);
    // The rollback it reserved for still fits.
    let record =
        argali_wal::Record { txn: argali_base::TxnId::new(1), prev: Lsn::NONE, body: Body::End };
    for _ in 0..10_000 / record.encoded_len() {
        let mut ticket = wal.admit_reserved(record.encoded_len(), &mut reserve).unwrap();
        wal.append(&mut ticket, &record);
    }
    // Truncation makes room again.
    let keep = wal.force(Lsn::MAX).unwrap().end();
    wal.release(&mut wal.ticket().unwrap(), &mut reserve);
    wal.truncate(vec![Holder { what: "redo point".into(), lsn: keep }]).unwrap();
    assert_eq!(wal.first(), keep);
    update(&wal, 7, 5000).unwrap();
    wal.force(Lsn::MAX).unwrap();
    assert!(wal.stats().segments_recycled > 0);
    let mut control = control();
    control.log_first = keep;
    control.checkpoint = keep;
    control.checkpoint_end = keep;
    let after = argali_wal::Wal::open(
        common::disk(&sim.power_cut(Loss::LoseAll)),
        &control,
        options(),
        argali_base::Health::new(),
    )
    .unwrap();
    assert_eq!(all(&after, keep).iter().map(|r| r.1).collect::<Vec<_>>(), [7]);
}

#[test]
fn records_near_the_start_of_the_first_kept_segment_can_be_read() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    let lsns: Vec<Lsn> = (1..300).map(|txn| update(&wal, txn, 500).unwrap()).collect();
    wal.force(Lsn::MAX).unwrap();
    let kept: Vec<Lsn> = lsns.into_iter().filter(|lsn| lsn.get() >= SEGMENT).collect();
    wal.truncate(vec![Holder { what: "redo point".into(), lsn: kept[0] }]).unwrap();
    let control = argali_wal::Control {
        log_first: kept[0],
        checkpoint: kept[0],
        checkpoint_end: kept[0],
        ..control()
    };
    let kept_disk = common::disk(&sim.power_cut(Loss::LoseAll));
    assert!(!kept_disk.list("wal").unwrap().contains(&"0000000000000000.log".to_owned()));
    let wal = argali_wal::Wal::open(kept_disk, &control, options(), argali_base::Health::new());
    let wal = wal.unwrap();
    let mut buf = argali_wal::RecordBuf::new();
    // One by one, so that each read begins with an empty window.
    for lsn in kept.iter().rev().chain(&kept) {
        wal.read(*lsn, &mut buf).unwrap();
        assert_eq!(buf.lsn(), *lsn);
    }
}

#[test]
fn a_failed_sync_poisons_and_is_not_retried() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    commit(&wal, 1).unwrap();
    let durable = wal.durable().end();
    sim.fail_sync("wal/0000000000000000.log", 0);
    assert!(matches!(commit(&wal, 2), Err(Error::Io { .. })));
    assert!(matches!(commit(&wal, 3), Err(Error::Poisoned { .. })));
    assert_eq!(wal.durable().end(), durable);
    let after = open(&sim.power_cut(Loss::LoseAll), options()).unwrap();
    assert_eq!(all(&after, Lsn::FIRST).len(), 1);
}

#[test]
fn lsns_go_on_after_a_reopen() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    commit(&wal, 1).unwrap();
    let sim = sim.process_kill();
    let wal = open(&sim, options()).unwrap();
    commit(&wal, 2).unwrap();
    let sim = sim.power_cut(Loss::LoseAll);
    let wal = open(&sim, options()).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST).iter().map(|r| r.1).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(wal.tail(), Lsn::new(64 + 32));
}

#[test]
fn reading_where_no_record_is_is_corrupt_not_a_panic() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, options());
    note(&wal, 1, b"x").unwrap();
    commit(&wal, 1).unwrap();
    let mut buf = RecordBuf::new();
    for lsn in [0, 8, 65, 72, 1 << 40, u64::MAX - 7] {
        let error = wal.read(Lsn::new(lsn), &mut buf).unwrap_err();
        assert!(error.is_corruption(), "{lsn}: {error}");
    }
    append(&wal, 1, Body::End).unwrap();
    assert_eq!(SEGMENT, wal.options().segment_bytes);
}

/// A backward window must not reach into a segment that truncation removed.
#[test]
fn the_first_records_of_a_truncated_log_can_be_read() {
    let sim = SimDisk::new(1);
    let wal = create(&sim, LogOptions { limit_bytes: 64 << 20, ..options() });
    let mut kept = Vec::new();
    for txn in 1..400 {
        let lsn = update(&wal, txn, 500).unwrap();
        if lsn.get() > 2 * SEGMENT {
            kept.push((lsn, txn));
        }
    }
    let first = kept[0].0;
    assert!(first.get() < 2 * SEGMENT + 2000, "{first} begins the segment");
    wal.force(Lsn::MAX).unwrap();
    wal.truncate(vec![Holder { what: "test".into(), lsn: first }]).unwrap();
    let control = Control { checkpoint: first, log_first: first, ..control() };
    let image = sim.power_cut(Loss::KeepAll);
    let wal = Wal::open(disk(&image), &control, options(), Health::new()).unwrap();
    let mut buf = RecordBuf::new();
    for (lsn, txn) in kept.iter().rev() {
        wal.read(*lsn, &mut buf).unwrap();
        assert_eq!(buf.record().txn.get(), *txn);
    }
}
