//! Power cuts at every I/O of a workload that commits, checkpoints, truncates and recycles; then the
//! same with each protocol rule broken on purpose, which must be noticed.
//!
//! The promise checked on each image: whatever was forced is there; what is there is a prefix of what
//! was appended, in order, at its LSN; and the reopened log takes new records and keeps them, without
//! ever joining an old one to them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use argali_base::disk::{Call, Failure, Fault, FaultyDisk, Loss, SimDisk};
use argali_base::{Disk, Error, Health, Lsn, Result};
use argali_wal::{Body, Control, ControlFile, Holder, LogOptions, Mutations, RecordBuf, Undo, Wal};
use common::{append, control, note};

const SEGMENT: u64 = 8 << 10;

fn options(mutations: &Mutations) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT,
        ring_bytes: 2 << 20,
        limit_bytes: 16 * SEGMENT,
        keep_bytes: 0,
        writer_thread: false,
        mutations: mutations.clone(),
    }
}

/// What a run of the workload promised.
#[derive(Default)]
struct Promises {
    /// Serial number of the record at each LSN.
    appended: BTreeMap<Lsn, u64>,
    /// I/O count at which everything below that LSN was acknowledged as durable.
    durable: Vec<(u64, Lsn)>,
    /// I/O count at which the database existed.
    created: Option<u64>,
}

impl Promises {
    fn durable_at(&self, io: u64) -> Lsn {
        self.durable
            .iter()
            .filter(|(at, _)| *at <= io)
            .map(|(_, lsn)| *lsn)
            .max()
            .unwrap_or(Lsn::FIRST)
    }
}

struct Workload {
    rounds: u64,
    /// Bytes in note n.
    len: fn(u64) -> usize,
    /// Notes between checkpoints.
    interval: u64,
    /// Whether checkpoints append a record of their own, which shifts the frames behind it.
    marks: bool,
}

fn serial_body(serial: u64, len: usize) -> Vec<u8> {
    let mut body = serial.to_le_bytes().to_vec();
    body.resize(len.max(8), serial as u8);
    body
}

/// Runs until the end or the first error; everything promised until then is in `promises`.
fn run(
    sim: &SimDisk,
    workload: &Workload,
    mutations: &Mutations,
    promises: &mut Promises,
) -> Result<()> {
    run_on((sim, Arc::new(sim.clone())), workload, mutations, promises)
}

/// As `run`, through a disk that stands before the simulated one.
fn run_on(
    (sim, disk): (&SimDisk, Arc<dyn Disk>),
    workload: &Workload,
    mutations: &Mutations,
    promises: &mut Promises,
) -> Result<()> {
    let initial = Control { segment_bytes: SEGMENT, ..control() };
    let file = ControlFile::create(Arc::clone(&disk), initial)?;
    let wal = Wal::create(disk, common::ID, options(mutations), Health::new())?;
    file.publish()?;
    promises.created = Some(sim.io_count());
    let mut recent = Vec::new();
    for serial in 1..=workload.rounds {
        let lsn = note(&wal, serial, &serial_body(serial, (workload.len)(serial)))?;
        promises.appended.insert(lsn, serial);
        recent.push(lsn);
        if serial % 3 == 0 {
            let durable = wal.force(lsn)?.end();
            promises.durable.push((sim.io_count(), durable));
        }
        if serial % workload.interval == 0 {
            let begin = if workload.marks {
                let body = Body::CheckpointBegin { durable: wal.durable().end() };
                let begin = append(&wal, 0, body)?;
                promises.appended.insert(begin, 0);
                begin
            } else {
                lsn
            };
            recent.drain(..recent.len() - 5);
            checkpoint((&wal, &file), (begin, recent[0]), sim, promises)?;
        }
    }
    Ok(())
}

fn checkpoint(
    (wal, file): (&Wal, &ControlFile),
    (begin, oldest): (Lsn, Lsn),
    sim: &SimDisk,
    promises: &mut Promises,
) -> Result<()> {
    let end = wal.force(begin)?.end();
    file.update(|control| {
        control.checkpoint = begin;
        control.checkpoint_end = end;
        control.log_first = oldest;
    })?;
    promises.durable.push((sim.io_count(), end));
    wal.truncate(vec![
        Holder { what: "redo point".into(), lsn: begin },
        Holder { what: "oldest transaction t1".into(), lsn: oldest },
    ])?;
    Ok(())
}

/// Opens an image and checks what was promised by the time of `io`. Returns the log and its records.
fn check(
    sim: &SimDisk,
    promises: &Promises,
    mutations: &Mutations,
    io: u64,
) -> Result<Option<Wal>, String> {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let file = match ControlFile::open(Arc::clone(&disk), true) {
        Ok(file) => file,
        Err(Error::NoDatabase { .. }) if promises.created.is_none_or(|created| created > io) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let control = file.get();
    let open = Wal::open(disk, &control, options(mutations), Health::new());
    let wal = open.map_err(|error| format!("open: {error}"))?;
    let promised = promises.durable_at(io);
    if wal.end() < promised {
        return Err(format!("the log ends at {}, promised to {promised}", wal.end()));
    }
    let seen = records(&wal, control.log_first)?;
    let expected: BTreeMap<_, _> =
        promises.appended.range(control.log_first..wal.end()).map(|(l, s)| (*l, *s)).collect();
    if seen != expected {
        return Err(format!("records differ: {seen:?} instead of {expected:?}"));
    }
    Ok(Some(wal))
}

fn records(wal: &Wal, from: Lsn) -> Result<BTreeMap<Lsn, u64>, String> {
    let mut scan = wal.scan(from);
    let mut buf = RecordBuf::new();
    let mut seen = BTreeMap::new();
    while scan.next(&mut buf).map_err(|error| format!("scan: {error}"))? {
        let record = buf.record();
        if let Body::Update { undo: Undo::Logical { body, .. }, .. } = record.body
            && body[..8] != record.txn.get().to_le_bytes()
        {
            return Err(format!("the record at {} holds other bytes", buf.lsn()));
        }
        seen.insert(buf.lsn(), record.txn.get());
    }
    Ok(seen)
}

/// Goes on after the crash, crashes again, and finds exactly the old and the new records.
fn go_on(sim: &SimDisk, wal: &Wal, len: usize, mutations: &Mutations) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let first = wal.first();
    let mut expected = records(wal, first)?;
    // What a reader was shown as durable must survive a power cut right now (process kill, power cut).
    let file = ControlFile::open(Arc::new(sim.clone()), false).map_err(text)?;
    let reopen = |image: &SimDisk| {
        Wal::open(Arc::new(image.clone()), &file.get(), options(mutations), Health::new())
    };
    let again = reopen(&sim.power_cut(Loss::LoseAll)).map_err(text)?;
    if again.end() < wal.end() {
        return Err(format!("read up to {}, after a power cut only {}", wal.end(), again.end()));
    }
    wal.resume().map_err(text)?;
    for serial in 1001..1004 {
        // As long as the record that may have been lost here: what stands behind it would fit on.
        expected.insert(note(wal, serial, &serial_body(serial, len)).map_err(text)?, serial);
        wal.force(Lsn::MAX).map_err(text)?;
        for loss in [Loss::LoseAll, Loss::KeepAll] {
            let again = reopen(&sim.power_cut(loss)).map_err(|error| format!("again: {error}"))?;
            let seen = records(&again, first)?;
            if seen != expected {
                return Err(format!("after going on: {seen:?} instead of {expected:?}"));
            }
        }
    }
    Ok(())
}

const LOSSES: [Loss; 7] = [
    Loss::LoseAll,
    Loss::KeepAll,
    Loss::Random(1),
    Loss::Random(2),
    Loss::TornLast(3),
    Loss::DropOne(1),
    Loss::OnlyOne(0),
];

/// Every instant of one run, each kind of loss. Returns images checked, or the first broken promise.
fn campaign(workload: &Workload, mutations: &Mutations) -> Result<usize, String> {
    let sim = SimDisk::with_history(11);
    let mut promises = Promises::default();
    run(&sim, workload, mutations, &mut promises).map_err(|error| error.to_string())?;
    let mut images = 0;
    for io in 0.. {
        let Some(instant) = sim.at(io) else { break };
        let killed = [instant.process_kill()];
        let cut = LOSSES.iter().map(|loss| instant.power_cut(*loss));
        for (nth, image) in killed.into_iter().chain(cut).enumerate() {
            let broken = |what| format!("before call {io}, image {nth}: {what}");
            if let Some(wal) = check(&image, &promises, mutations, io as u64).map_err(broken)? {
                let serial = promises.appended.get(&wal.tail()).copied().unwrap_or(1);
                go_on(&image, &wal, (workload.len)(serial), mutations).map_err(broken)?;
            }
            images += 1;
        }
    }
    Ok(images)
}

const MIXED: Workload = Workload {
    rounds: 90,
    len: |serial| 40 + (serial as usize * 397) % 1500,
    interval: 20,
    marks: true,
};
/// Every frame has 512 bytes, so stale ones stand exactly where new ones would.
const EVEN: Workload = Workload { rounds: 100, len: |_| 496, interval: 20, marks: false };
const UNTRUNCATED: Workload = Workload { interval: 1000, ..MIXED };

#[test]
fn power_cuts_at_every_instant() {
    let images = campaign(&MIXED, &Mutations::default()).unwrap();
    assert!(images > 700, "{images} images");
    campaign(&EVEN, &Mutations::default()).unwrap();
}

fn must_be_noticed(mutations: &Mutations) {
    let caught = [&MIXED, &EVEN].iter().find_map(|workload| campaign(workload, mutations).err());
    assert!(caught.is_some(), "nobody noticed {mutations:?}");
}

#[test]
fn no_force_is_noticed() {
    must_be_noticed(&Mutations { no_force: true, ..Mutations::default() });
}

#[test]
fn crc_without_lsn_is_noticed() {
    must_be_noticed(&Mutations { crc_without_lsn: true, ..Mutations::default() });
}

#[test]
fn stale_tail_is_noticed() {
    must_be_noticed(&Mutations { stale_tail: true, ..Mutations::default() });
}

#[test]
fn skipped_first_sync_is_noticed() {
    must_be_noticed(&Mutations { skip_first_sync: true, ..Mutations::default() });
}

#[test]
fn no_dir_sync_is_noticed() {
    must_be_noticed(&Mutations { no_dir_sync: true, ..Mutations::default() });
}

#[test]
fn early_truncation_is_noticed() {
    must_be_noticed(&Mutations { early_truncation: true, ..Mutations::default() });
}

/// Every sync of every segment fails once; what was acknowledged before and after must survive.
fn sync_failures(mutations: &Mutations) -> Result<u64, String> {
    let mut failures = 0;
    for segment in 0..4_u64 {
        for successes in 0.. {
            let sim = SimDisk::new(13);
            sim.fail_sync(&format!("wal/{:016x}.log", segment * SEGMENT), successes);
            let mut promises = Promises::default();
            let outcome = run(&sim, &UNTRUNCATED, mutations, &mut promises);
            for loss in LOSSES {
                let image = sim.power_cut(loss);
                let io = sim.io_count();
                let broken = |what| format!("sync {successes} of segment {segment} fails: {what}");
                check(&image, &promises, &Mutations::default(), io).map_err(broken)?;
            }
            if outcome.is_ok() && !mutations.retry_sync {
                break;
            }
            failures += 1;
            if mutations.retry_sync && successes > 20 {
                break;
            }
        }
    }
    Ok(failures)
}

#[test]
fn a_failed_sync_loses_nothing_acknowledged() {
    assert!(sync_failures(&Mutations::default()).unwrap() > 10);
}

#[test]
fn a_retried_sync_is_noticed() {
    let mutations = Mutations { retry_sync: true, ..Mutations::default() };
    assert!(sync_failures(&mutations).is_err(), "nobody noticed the retry");
}

/// Every changing call of the workload fails once, or from then on. Whatever error comes of it, what was
/// acknowledged is there afterwards.
#[test]
fn every_call_may_fail() {
    let mut fired = 0;
    for (call, failure, forever) in [
        (Call::Create, Failure::Enospc, true),
        (Call::Create, Failure::Eio, false),
        (Call::Write, Failure::Enospc, true),
        (Call::Write, Failure::Eio, false),
        (Call::Sync, Failure::Eio, false),
        (Call::SyncDir, Failure::Eio, false),
        (Call::Rename, Failure::Eio, false),
        (Call::Remove, Failure::Eio, true),
    ] {
        for calls in 0.. {
            let sim = SimDisk::new(17);
            let faulty = FaultyDisk::new(Arc::new(sim.clone()));
            let fault = Fault::new(call, "*", failure).after(calls);
            faulty.fail(if forever { fault.forever() } else { fault });
            let mut promises = Promises::default();
            let disk = Arc::new(faulty.clone());
            let none = Mutations::default();
            let outcome = run_on((&sim, disk), &MIXED, &none, &mut promises);
            assert!(outcome.is_ok() || faulty.fired() > 0, "{outcome:?}");
            for loss in [Loss::LoseAll, Loss::KeepAll, Loss::Random(calls)] {
                if let Err(what) = check(&sim.power_cut(loss), &promises, &none, sim.io_count()) {
                    panic!("{call:?} {calls} fails ({failure:?}): {what}");
                }
            }
            if faulty.fired() == 0 {
                break;
            }
            fired += 1;
        }
    }
    assert!(fired > 150, "{fired} faults");
}

/// A power cut, and another one at every call that opening and resuming makes.
#[test]
fn power_cuts_while_resuming() {
    let none = Mutations::default();
    for workload in [&MIXED, &EVEN] {
        let sim = SimDisk::with_history(19);
        let mut promises = Promises::default();
        run(&sim, workload, &none, &mut promises).unwrap();
        let mut images = 0;
        for io in (0..sim.io_count()).step_by(5) {
            let instant = sim.at(io as usize).unwrap();
            for first in [None, Some(Loss::Random(io)), Some(Loss::OnlyOne(1))] {
                let image = first.map_or_else(|| instant.process_kill(), |l| instant.power_cut(l));
                image.record_history();
                let Some(wal) = check(&image, &promises, &none, io).unwrap() else { continue };
                wal.resume().unwrap();
                let found = wal.end();
                for again in 0.. {
                    let Some(second) = image.at(again) else { break };
                    for loss in [Loss::LoseAll, Loss::Random(io + again as u64)] {
                        let place = format!("call {io}, then {again} ({first:?}, {loss:?})");
                        let wal = check(&second.power_cut(loss), &promises, &none, io);
                        let end = wal.unwrap_or_else(|what| panic!("{place}: {what}"));
                        // Before the first sync is through, less may be left; never more.
                        assert!(end.unwrap().end() <= found, "{place}");
                        images += 1;
                    }
                }
            }
        }
        assert!(images > 300, "{images} images");
    }
}
