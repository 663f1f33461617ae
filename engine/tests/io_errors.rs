//! Calls that fail: every call of every stretch of a database's life, in every way, once and for ever.
//!
//! ```text
//!  create ─── work, checkpoints ─── close            restart
//!    ▲ n-th call fails ▲              ▲                 ▲        EIO, ENOSPC, short, EINTR; once, for ever
//! ```
//!
//! Whatever fails, the engine answers with an error that says so and stays honest: no panic, no wait without
//! end, and what it acknowledged before (or after) is there when the disk is opened again, with and without
//! a power cut. `ARGALI_STRIDE=1` lets every single call fail; without it a sample does.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::sync::Arc;
use std::time::Duration;

use argali::disk::{Call, Disk, Failure, Fault, FaultyDisk, Loss, SimDisk};
use argali::{Db, Error, Flush, Options, Result, Silent};
use crash::{Client, End, Oracle, heaps, recover, workload};

/// Short, because a rollback that a dead disk stopped keeps its locks until the next opening.
fn options() -> Options {
    crash::options().lock_timeout(Duration::from_millis(5))
}

/// A disk that works until [`Stretch::begin`], and what was promised on it so far.
struct Stretch {
    disk: SimDisk,
    faulty: FaultyDisk,
    fault: Fault,
    oracle: Oracle,
}

/// How a stretch ended: promises made, and the first error met.
type Ended = (Oracle, Option<Error>);

impl Stretch {
    fn begin(&self) {
        self.faulty.fail(self.fault.clone());
    }

    fn open(&self) -> Result<Db> {
        let below: Arc<dyn Disk> = Arc::new(self.faulty.clone());
        options().open_on(below, &mut Silent)
    }

    fn client(&self) -> Client {
        let mut client = Client::new(self.open().expect("no fault yet"), self.disk.clone(), 3);
        client.oracle = self.oracle.clone();
        client
    }
}

/// Everything at once: rows of a tenth of a page, so that the tree splits and the log goes round its
/// segments; rows of a heap that move; deletes, savepoints, aborts, a tree made and dropped, checkpoints in
/// between. Goes on behind an
/// error, as programs do.
fn storm(client: &mut Client) -> Option<Error> {
    let mut first = None;
    for round in 0..40_u64 {
        let stormy = client.transaction(|work| {
            let tree = work.tree("storm")?;
            for n in 0..8 {
                let key = format!("k{:03}", work.rng.u64(0..160)).into_bytes();
                if n % 4 == 3 {
                    work.delete(&tree, &key)?;
                } else {
                    // One in a while has pages of its own.
                    let len = if round % 8 == 3 && n == 0 { 20_000 } else { 380 };
                    let value = work.fresh(len);
                    work.put(&tree, &key, value)?;
                }
            }
            let heap = work.heap("storm rows")?;
            (0..4).try_for_each(|_| heaps::change(work, &heap))?;
            let mut savepoint = work.write.savepoint()?;
            let scratch = savepoint.tree("scratch")?;
            savepoint.put(&scratch, "a", "b")?;
            savepoint.put(&tree, "k000", "rolled back")?;
            savepoint.rollback()?;
            Ok(if round % 5 == 4 { End::Abort } else { End::Commit })
        });
        let kinds = [Flush::Everything, Flush::Old, Flush::Nothing];
        let taken = client.db.checkpoint(kinds[round as usize % 3]).map(drop);
        let unknown = matches!(stormy, Err(Error::CommitUnknown { .. }));
        first = first.or(stormy.err()).or(taken.err());
        if unknown {
            break; // the model can no longer say what is there
        }
    }
    first
}

/// A database of one storm, closed; nothing but durable bytes.
fn settled() -> (SimDisk, Oracle) {
    let disk = SimDisk::new(3);
    let mut client = Client::new(crash::open(&options(), &disk).unwrap(), disk.clone(), 3);
    assert!(storm(&mut client).is_none());
    let log = client.db.stats().unwrap().log;
    assert!(log.segments_recycled > 3, "{log:?}");
    let Client { db, oracle, .. } = client;
    db.close().unwrap();
    (disk, oracle)
}

/// As [`settled`], killed in the middle of a transaction that is larger than the cache.
fn killed() -> (SimDisk, Oracle) {
    let (disk, oracle) = settled();
    let db = crash::open(&options(), &disk).unwrap();
    let loser = db.begin().unwrap();
    let tree = loser.open_tree("storm").unwrap().unwrap();
    for n in 0..120_u64 {
        loser.put(&tree, format!("k{n:03}"), [9; 500]).unwrap();
    }
    db.checkpoint(Flush::Nothing).unwrap();
    (disk.process_kill(), oracle)
}

fn creation(stretch: &Stretch) -> Ended {
    stretch.begin();
    (stretch.oracle.clone(), stretch.open().err())
}

fn work(stretch: &Stretch) -> Ended {
    let mut client = stretch.client();
    stretch.begin();
    let error = storm(&mut client);
    if client.db.stats().is_ok_and(|stats| stats.poisoned.is_some()) {
        let refused = client.db.begin().map(drop).unwrap_err().to_string();
        assert!(refused.contains("close it and open it again"), "{refused}");
    }
    (client.oracle, error)
}

fn close(stretch: &Stretch) -> Ended {
    let mut client = stretch.client();
    workload::bank(&mut client).unwrap();
    stretch.begin();
    let Client { db, oracle, .. } = client;
    (oracle, db.close().err())
}

fn restart(stretch: &Stretch) -> Ended {
    stretch.begin();
    (stretch.oracle.clone(), stretch.open().err())
}

/// Lets every `stride`-th call that `fault` concerns fail, in turn, until a run meets it no more.
fn fail_each(
    (disk, oracle): &(SimDisk, Oracle),
    run: fn(&Stretch) -> Ended,
    fault: impl Fn() -> Fault,
    stride: u64,
) -> u64 {
    let stride = std::env::var("ARGALI_STRIDE").map_or(stride, |text| text.parse().unwrap());
    for n in (0..).step_by(stride as usize) {
        let disk = disk.process_kill();
        let faulty = FaultyDisk::new(Arc::new(disk.clone()));
        let fault = fault().after(n);
        let stretch = Stretch { disk, faulty, fault, oracle: oracle.clone() };
        let (oracle, error) = run(&stretch);
        let what = format!("{:?}: {error:?}", stretch.fault);
        assert!(error.as_ref().is_none_or(is_honest), "{what}");
        let disk = stretch.disk;
        let images = [disk.power_cut(Loss::LoseAll), disk.power_cut(Loss::Random(n))];
        for image in images.iter().chain([&disk.process_kill()]) {
            recover(&options(), &oracle, u64::MAX, image)
                .unwrap_or_else(|broken| panic!("{what}: {broken}"));
        }
        if stretch.faulty.fired() == 0 {
            return n;
        }
    }
    unreachable!("some run is over before its fault")
}

/// An error that a failing disk may lead to; damage is not among them.
fn is_honest(error: &Error) -> bool {
    let full = matches!(error, Error::LogFull { .. } | Error::Full { .. });
    // Pages that cannot be written keep their frames, and a rollback that cannot read keeps its locks.
    let stuck = matches!(error, Error::PoolExhausted { .. } | Error::LockTimeout { .. });
    crash::is_io(error) || full || stuck
}

/// Any call, in every way it can fail.
fn fail_any(prepared: &(SimDisk, Oracle), run: fn(&Stretch) -> Ended, stride: u64) {
    for failure in [Failure::Eio, Failure::Enospc, Failure::Short, Failure::Eintr] {
        let once = fail_each(prepared, run, || Fault::any("*", failure), stride);
        let ever = fail_each(prepared, run, || Fault::any("*", failure).forever(), stride);
        println!("{failure:?}: {once} calls failed once, {ever} for ever");
        assert!(once > 10, "{failure:?}: {once} calls");
    }
}

#[test]
fn any_call_of_a_creation_fails() {
    fail_any(&(SimDisk::new(3), Oracle::new()), creation, 7);
}

#[test]
fn any_call_of_work_and_checkpoints_fails() {
    fail_any(&settled(), work, 97);
}

#[test]
fn any_call_of_a_close_fails() {
    fail_any(&settled(), close, 7);
}

#[test]
fn any_call_of_a_restart_fails() {
    fail_any(&killed(), restart, 31);
}

/// One sort of call is broken and everything else works: a log that cannot be synced beside pages that can.
#[test]
fn one_sort_of_call_fails() {
    let prepared = settled();
    for call in [Call::Write, Call::Sync, Call::Create, Call::Rename, Call::SyncDir, Call::Remove] {
        for name in ["wal*", "data", "doublewrite", "control"] {
            let fault = || Fault::new(call, name, Failure::Eio);
            fail_each(&prepared, work, fault, 61);
            fail_each(&prepared, work, || fault().forever(), 61);
        }
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
