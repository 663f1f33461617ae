//! Calls that fail: at every write, sync, create, rename and directory sync of a run, once and for ever.
//!
//! Whatever fails, the engine reports it and stays honest: what it acknowledged before (or after) is there
//! when the disk is opened again, with and without a power cut, and nothing is half there.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::sync::Arc;

use argali::disk::{Call, Disk, Failure, Fault, FaultyDisk, Loss, SimDisk};
use argali::{Error, Options, Result, Silent};
use crash::{Client, options, recover, workload};

type Workload = fn(&mut Client) -> Result<()>;

/// Runs `workload` with `fault` on its way; returns the disk, the promises, and how it ended.
fn run(
    options: &Options,
    workload: Workload,
    fault: Fault,
) -> (SimDisk, Client, Option<Error>, u64) {
    let disk = SimDisk::new(3);
    let faulty = FaultyDisk::new(Arc::new(disk.clone()));
    let below: Arc<dyn Disk> = Arc::new(faulty.clone());
    let db = options.clone().open_on(below, &mut Silent).expect("no fault during creation");
    faulty.fail(fault);
    let mut client = Client::new(db, disk.clone(), 3);
    let error = workload(&mut client).err();
    (disk, client, error, faulty.fired())
}

/// Every `stride`-th call of this sort fails, in turn, until one run meets none any more.
fn fail_each(
    call: Call,
    (failure, forever): (Failure, bool),
    workload: Workload,
    stride: u64,
) -> u64 {
    let options = options();
    for n in (0..).step_by(stride as usize) {
        let fault = Fault::new(call, "*", failure).after(n);
        let fault = if forever { fault.forever() } else { fault };
        let (disk, client, error, fired) = run(&options, workload, fault);
        let what = format!("{call:?} {n} {failure:?}, forever {forever}: {error:?}");
        let honest = |error: &Error| {
            crash::is_io(error) || matches!(error, Error::LogFull { .. } | Error::Full { .. })
        };
        assert!(error.as_ref().is_none_or(honest), "{what}");
        let Client { db, oracle, .. } = client;
        let images = [disk.power_cut(Loss::LoseAll), disk.power_cut(Loss::Random(n))];
        drop(db);
        for image in images.iter().chain([&disk.process_kill()]) {
            recover(&options, &oracle, u64::MAX, image)
                .unwrap_or_else(|broken| panic!("{what}: {broken}"));
        }
        if fired == 0 {
            return n;
        }
    }
    unreachable!("some run is over before its fault")
}

#[test]
fn every_sync_fails() {
    for forever in [false, true] {
        let calls = fail_each(Call::Sync, (Failure::Eio, forever), workload::checkpoints, 1);
        assert!(calls > 30, "{calls}");
    }
}

/// The way Linux does it: the data is dropped, stays readable, and no later sync makes it durable.
#[test]
fn every_sync_fails_and_drops_its_data() {
    let options = options();
    for file in ["wal/0000000000000000.log", "data", "doublewrite"] {
        let mut poisoned = 0;
        for n in 0..40 {
            let disk = SimDisk::new(3);
            let db = crash::open(&options, &disk).unwrap();
            disk.fail_sync(file, n);
            let mut client = Client::new(db, disk.clone(), 3);
            let error = workload::checkpoints(&mut client).err();
            assert!(error.as_ref().is_none_or(crash::is_io), "{file} {n}: {error:?}");
            poisoned += i32::from(error.is_some());
            let images = [Loss::LoseAll, Loss::KeepAll, Loss::Random(n)].map(|l| disk.power_cut(l));
            for image in &images {
                recover(&options, &client.oracle, u64::MAX, image)
                    .unwrap_or_else(|broken| panic!("{file} {n}: {error:?}: {broken}"));
            }
        }
        assert!(poisoned > 3, "{file}: only {poisoned} of the syncs mattered");
    }
}

#[test]
fn every_write_fails() {
    for (failure, forever) in [(Failure::Eio, false), (Failure::Eio, true), (Failure::Enospc, true)]
    {
        let calls = fail_each(Call::Write, (failure, forever), workload::checkpoints, 3);
        assert!(calls > 30, "{calls}");
    }
}

#[test]
fn short_and_interrupted_calls_change_nothing() {
    for (call, failure) in
        [(Call::Write, Failure::Short), (Call::Write, Failure::Eintr), (Call::Read, Failure::Short)]
    {
        for n in [0, 3, 10] {
            let fault = Fault::new(call, "*", failure).after(n);
            let (disk, client, error, _) = run(&options(), workload::mix, fault);
            assert!(error.is_none(), "{call:?} {failure:?} after {n}: {error:?}");
            recover(&options(), &client.oracle, u64::MAX, &disk.process_kill()).unwrap();
        }
    }
}

#[test]
fn every_change_of_a_directory_fails() {
    for call in [Call::Create, Call::Rename, Call::SyncDir, Call::Remove] {
        for forever in [false, true] {
            fail_each(call, (Failure::Eio, forever), workload::checkpoints, 1);
        }
    }
}

#[test]
fn reads_fail_and_the_database_lives_on() {
    let disk = SimDisk::new(3);
    let faulty = FaultyDisk::new(Arc::new(disk));
    let below: Arc<dyn Disk> = Arc::new(faulty.clone());
    let db = options().open_on(below, &mut Silent).unwrap();
    let tree = db
        .update(|tx| {
            let tree = tx.tree("t")?;
            (0..300_u32).try_for_each(|n| tx.put(&tree, n.to_be_bytes(), [1; 400]).map(|_| ()))?;
            Ok(tree)
        })
        .unwrap();
    faulty.fail(Fault::new(Call::Read, "data", Failure::Eio).forever());
    let read = db.read().unwrap();
    let error = (0..300_u32).find_map(|n| read.get(&tree, n.to_be_bytes()).err());
    assert!(matches!(error, Some(Error::Io { .. })), "{error:?}");
    assert!(matches!(read.get(&tree, [0; 4]), Err(Error::TxnFailed { .. })));
    drop(read);
    faulty.heal();
    let read = db.read().unwrap();
    let rows = read.scan_all(&tree).unwrap().collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(rows.len(), 300);
    drop(read);
    assert!(db.verify().unwrap().is_sound());
}

#[test]
fn a_failed_sync_poisons_for_good() {
    let disk = SimDisk::new(3);
    let faulty = FaultyDisk::new(Arc::new(disk.clone()));
    let below: Arc<dyn Disk> = Arc::new(faulty.clone());
    let db = options().open_on(below, &mut Silent).unwrap();
    db.update(|tx| tx.tree("t").map(|_| ())).unwrap();
    faulty.fail(Fault::new(Call::Sync, "wal/*", Failure::Eio));
    let refused = db.update(|tx| tx.tree("lost").map(|_| ()));
    assert!(matches!(refused, Err(Error::CommitUnknown { .. })), "{refused:?}");
    // The disk is well again, but nobody knows what it has dropped.
    for _ in 0..3 {
        assert!(matches!(db.begin().map(|_| ()), Err(Error::Poisoned { .. })));
    }
    assert!(db.stats().unwrap().poisoned.is_some());
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
    let db = crash::open(&options(), &disk.power_cut(Loss::LoseAll)).unwrap();
    assert_eq!(db.read().unwrap().trees().unwrap(), ["t"]);
}
