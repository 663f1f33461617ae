//! The control file under power cuts, failing calls and damage.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use argali_base::disk::{Call, Failure, Fault, FaultyDisk, Loss, OpenMode, SimDisk};
use argali_base::{Disk, Error, Lsn};
use argali_wal::{Control, ControlFile};
use common::{control, disk};

fn numbered(n: u64) -> Control {
    Control { next_txn: n, ..control() }
}

const LOSSES: [Loss; 6] = [
    Loss::LoseAll,
    Loss::KeepAll,
    Loss::Random(1),
    Loss::Random(2),
    Loss::TornLast(1),
    Loss::OnlyOne(0),
];

#[test]
fn at_every_instant_it_says_the_last_or_the_next_thing() {
    let sim = SimDisk::with_history(5);
    let mut done = vec![(0, None)];
    let file = ControlFile::create(disk(&sim), numbered(1)).unwrap();
    let created = sim.io_count();
    file.publish().unwrap();
    done.push((sim.io_count(), Some(1)));
    for n in 2..8 {
        file.update(|control| control.next_txn = n).unwrap();
        done.push((sim.io_count(), Some(n)));
    }
    for io in 0..sim.io_count() {
        let instant = sim.at(io as usize).unwrap();
        let last = done.iter().rfind(|(at, _)| *at <= io).unwrap().1;
        let next = last.map_or(1, |n| n + 1);
        for loss in LOSSES {
            let image = instant.power_cut(loss);
            match ControlFile::open(disk(&image), true) {
                Ok(file) => {
                    let n = file.get().next_txn;
                    assert!(Some(n) == last || n == next, "call {io}, {loss:?}: {n}, not {last:?}");
                    assert!(io >= created, "published before it was whole");
                    // What was read is durable now, and goes on.
                    drop(file);
                    let again = image.power_cut(Loss::LoseAll);
                    let file = ControlFile::open(disk(&again), true).unwrap();
                    assert_eq!(file.get().next_txn, n);
                    file.update(|control| control.next_txn = 100).unwrap();
                    let again = again.power_cut(Loss::LoseAll);
                    assert_eq!(ControlFile::open(disk(&again), true).unwrap().get().next_txn, 100);
                }
                Err(Error::NoDatabase { .. }) => assert_eq!(last, None, "call {io}, {loss:?}"),
                Err(error) => panic!("call {io}, {loss:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_failed_write_leaves_the_old_contents_and_may_be_repeated() {
    let faulty = FaultyDisk::new(Arc::new(SimDisk::new(1)));
    let on: Arc<dyn Disk> = Arc::new(faulty.clone());
    let file = ControlFile::create(Arc::clone(&on), numbered(1)).unwrap();
    file.publish().unwrap();
    for failure in [Failure::Eio, Failure::Enospc] {
        faulty.fail(Fault::new(Call::Write, "*", failure));
        assert!(file.update(|control| control.next_txn = 2).is_err());
        assert_eq!(file.get().next_txn, 1);
    }
    file.update(|control| control.next_txn = 3).unwrap();
    assert_eq!(ControlFile::open(on, true).unwrap().get().next_txn, 3);
}

#[test]
fn a_failed_sync_is_final() {
    let faulty = FaultyDisk::new(Arc::new(SimDisk::new(1)));
    let on: Arc<dyn Disk> = Arc::new(faulty.clone());
    let file = ControlFile::create(on, numbered(1)).unwrap();
    file.publish().unwrap();
    faulty.fail(Fault::new(Call::Sync, "*", Failure::Eio));
    let sync = file.update(|control| control.next_txn = 2).unwrap_err();
    assert!(matches!(sync, Error::Io { op: "sync", .. }), "{sync}");
    let error = file.update(|control| control.next_txn = 3).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert_eq!(file.get().next_txn, 1);
}

#[test]
fn every_call_of_creation_may_fail_and_creation_may_start_over() {
    for call in [Call::Create, Call::Write, Call::Sync, Call::SyncDir, Call::Rename] {
        let sim = SimDisk::new(1);
        let faulty = FaultyDisk::new(Arc::new(sim.clone()));
        let on: Arc<dyn Disk> = Arc::new(faulty.clone());
        faulty.fail(Fault::new(call, "*", Failure::Eio));
        let create = |n| -> argali_base::Result<()> {
            let file = ControlFile::create(Arc::clone(&on), numbered(n))?;
            file.publish()
        };
        // The root directory is called ""; a prefix rule reaches it, too.
        assert!(create(1).is_err(), "{call:?}");
        create(2).unwrap();
        let image = sim.power_cut(Loss::LoseAll);
        assert_eq!(ControlFile::open(disk(&image), true).unwrap().get().next_txn, 2, "{call:?}");
    }
}

#[test]
fn one_damaged_slot_is_survived_and_two_are_corrupt() {
    let sim = SimDisk::memory();
    let file = ControlFile::create(disk(&sim), numbered(1)).unwrap();
    file.publish().unwrap();
    file.update(|control| control.next_txn = 2).unwrap();
    file.update(|control| control.next_txn = 3).unwrap();
    let raw = sim.open("control", OpenMode::Existing).unwrap();
    raw.write_all_at(b"damage", 10).unwrap();
    assert_eq!(ControlFile::open(disk(&sim), false).unwrap().get().next_txn, 2);
    raw.write_all_at(b"damage", 4096 + 70).unwrap();
    let error = ControlFile::open(disk(&sim), false).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    for len in [0, 100, 4096, 8191] {
        raw.set_len(len).unwrap();
        assert!(ControlFile::open(disk(&sim), false).unwrap_err().is_corruption());
    }
}

#[test]
fn slots_that_changed_places_are_refused() {
    let sim = SimDisk::memory();
    let file = ControlFile::create(disk(&sim), numbered(1)).unwrap();
    file.publish().unwrap();
    let raw = sim.open("control", OpenMode::Existing).unwrap();
    let mut slot = vec![0; 4096];
    raw.read_exact_at(&mut slot, 0).unwrap();
    raw.write_all_at(&slot, 4096).unwrap();
    raw.write_all_at(&[0; 4096], 0).unwrap();
    let error = ControlFile::open(disk(&sim), false).unwrap_err();
    assert!(error.to_string().contains("wrong place"), "{error}");
}

#[test]
fn without_one_it_is_no_database_or_a_damaged_one() {
    let sim = SimDisk::memory();
    let open = || ControlFile::open(disk(&sim), true).unwrap_err();
    assert!(matches!(open(), Error::NoDatabase { .. }));
    sim.open("lock", OpenMode::Create).unwrap();
    assert!(matches!(open(), Error::NoDatabase { .. }));
    sim.open("data", OpenMode::Create).unwrap();
    assert!(open().is_corruption());
    sim.open("control.tmp", OpenMode::Create).unwrap();
    assert!(matches!(open(), Error::NoDatabase { .. }), "an unfinished creation");
    sim.remove("control.tmp").unwrap();
    sim.remove("data").unwrap();
    common::create(&sim, common::options());
    assert!(open().is_corruption());
}

#[test]
fn reading_only_refuses_updates() {
    let sim = SimDisk::memory();
    ControlFile::create(disk(&sim), numbered(1)).unwrap().publish().unwrap();
    let file = ControlFile::open(disk(&sim), false).unwrap();
    let error = file.update(|control| control.checkpoint = Lsn::FIRST).unwrap_err();
    assert!(matches!(error, Error::ReadOnly));
}
