//! Ring and group commit under a scheduler that picks the interleavings.
//!
//! Run: `cargo test -p argali-wal --features shuttle --test shuttle`.
//!
//! The disk of these models stores nothing: it remembers how far the log was written, and, at each sync,
//! how far it had been written when the sync began. So "nobody returns before it is durable" is one
//! comparison. A lost wake-up is a deadlock, which the scheduler reports.
#![allow(clippy::unwrap_used)]

use std::io;
use std::time::Duration;

use argali_base::disk::{DiskLock, OpenMode};
use argali_base::sync::{Arc, AtomicBool, AtomicU64, Clock, Ordering, thread};
use argali_base::{Disk, Error, File, Health, Lsn, Result, TxnId};
use argali_wal::{
    Body, Changes, Durable, LogId, LogOptions, Mutations, Owner, Record, RecordBuf, Undo,
    UndoReserve, Wal,
};

const SCHEDULES: usize = 1500;

/// Where a log is written to, and how far it is durable.
#[derive(Clone, Debug, Default)]
struct Paper(Arc<Marks>);

#[derive(Debug, Default)]
struct Marks {
    written: AtomicU64,
    synced: AtomicU64,
    /// The sync that fails, counted from the end of creation; 0: none.
    fail_at: AtomicU64,
    syncs: AtomicU64,
    /// Whether creation, with its zero-filling, is over.
    ready: AtomicBool,
}

#[derive(Debug)]
struct Sheet(Arc<Marks>, u64);

impl File for Sheet {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        buf.fill(0);
        Ok(buf.len())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        if self.0.ready.load(Ordering::SeqCst) && buf.len() < 4096 {
            self.0.written.fetch_max(self.1 + offset + buf.len() as u64, Ordering::SeqCst);
        }
        Ok(buf.len())
    }
    fn sync(&self) -> io::Result<()> {
        let began = self.0.written.load(Ordering::SeqCst);
        let nth = self.0.syncs.fetch_add(1, Ordering::SeqCst) + 1;
        if nth == self.0.fail_at.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk failed"));
        }
        self.0.synced.fetch_max(began, Ordering::SeqCst);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(4096)
    }
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for Paper {
    fn open(&self, name: &str, _mode: OpenMode) -> io::Result<std::sync::Arc<dyn File>> {
        let digits = name.trim_start_matches("wal/").trim_end_matches(".log");
        let first = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
        Ok(std::sync::Arc::new(Sheet(Arc::clone(&self.0), first)))
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _dir: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn make_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _name: &str, _holder: &str) -> io::Result<Box<dyn DiskLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn lock_shared(&self, _name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn describe(&self) -> String {
        "paper".to_owned()
    }
}

fn log(ring_bytes: usize, writer_thread: bool) -> (Paper, Arc<Wal>) {
    log_with(ring_bytes, writer_thread, Mutations::default())
}

fn log_with(ring_bytes: usize, writer_thread: bool, mutations: Mutations) -> (Paper, Arc<Wal>) {
    let paper = Paper::default();
    let options = LogOptions {
        segment_bytes: 4096,
        ring_bytes,
        limit_bytes: 64 << 10,
        writer_thread,
        mutations,
        ..LogOptions::default()
    };
    let id = LogId { database: 1, timeline: 1, branch: 0 };
    let wal = Wal::create(Arc::new(paper.clone()), id, options, Health::new()).unwrap();
    // The margin's segments are made now, not in the middle of the model.
    drop(wal.admit(64, 0, &mut UndoReserve::default()).unwrap());
    paper.0.syncs.store(0, Ordering::SeqCst);
    paper.0.ready.store(true, Ordering::SeqCst);
    (paper, Arc::new(wal))
}

/// 48 bytes: so many of them make the ring wrap in the middle of a record.
fn append(wal: &Wal, txn: u64) -> Result<Lsn> {
    let undo = Undo::Logical { owner: Owner(1), body: &[txn as u8; 30] };
    let body = Body::Update { changes: Changes::EMPTY, undo };
    let record = Record { txn: TxnId::new(txn), prev: Lsn::NONE, body };
    let mut ticket = wal.admit(record.encoded_len(), 0, &mut UndoReserve::default())?;
    Ok(wal.append(&mut ticket, &record))
}

fn spawn(body: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn("model", body).unwrap()
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
}

/// What is still in the ring is right, though others append and flush meanwhile.
fn read_if_there(wal: &Wal, lsn: Lsn, txn: u64, buf: &mut RecordBuf) {
    // This disk gives nothing back, so a record that left the ring is "corrupt"; never wrong.
    if wal.read(lsn, buf).is_ok() {
        assert_eq!((buf.lsn(), buf.record().txn.get()), (lsn, txn));
        let Body::Update { undo: Undo::Logical { body, .. }, .. } = buf.record().body else {
            panic!("{:?}", buf.record())
        };
        assert_eq!(body, [txn as u8; 30]);
    }
}

fn ring_model() {
    let (paper, wal) = log(256, false);
    let threads: Vec<_> = (1..4)
        .map(|txn| {
            let wal = Arc::clone(&wal);
            spawn(move || {
                let mut buf = RecordBuf::new();
                for _ in 0..3 {
                    let lsn = append(&wal, txn).unwrap();
                    read_if_there(&wal, lsn, txn, &mut buf);
                }
            })
        })
        .collect();
    join(threads);
    let end = wal.force(Lsn::MAX).unwrap().end();
    assert_eq!(end, Lsn::new(64 + 9 * 48));
    assert_eq!(paper.0.written.load(Ordering::SeqCst), end.get());
}

#[test]
fn appends_wrap_the_ring_without_waiting_for_each_other() {
    check(ring_model);
}

fn is_durable(paper: &Paper, durable: Durable, lsn: Lsn) {
    assert!(durable.covers(lsn), "{lsn} not covered by {durable:?}");
    let synced = paper.0.synced.load(Ordering::SeqCst);
    assert!(synced >= lsn.get() + 48, "{lsn} acknowledged; synced up to {synced}");
}

fn writer(wal: &Arc<Wal>, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (wal, stop) = (Arc::clone(wal), Arc::clone(stop));
    spawn(move || {
        let clock = Clock::manual();
        let delay = Duration::from_secs(1);
        while !stop.load(Ordering::SeqCst) && wal.step(&clock, delay, delay).is_ok() {}
    })
}

/// Lets the committers come to their ends, beside a log writer if there is to be one.
fn run_committers(
    wal: &Arc<Wal>,
    writer_thread: bool,
    committers: impl Iterator<Item = thread::JoinHandle<()>>,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let log_writer = writer_thread.then(|| writer(wal, &stop));
    join(committers.collect());
    stop.store(true, Ordering::SeqCst);
    wal.wake();
    if let Some(thread) = log_writer {
        thread.join().unwrap();
    }
}

/// Three committers, two commits each; one of them is patient.
fn commit_model(writer_thread: bool, fail_at: u64) {
    let (paper, wal) = log(1024, writer_thread);
    paper.0.fail_at.store(fail_at, Ordering::SeqCst);
    run_committers(
        &wal,
        writer_thread,
        (1..4).map(|txn| {
            let (wal, paper) = (Arc::clone(&wal), paper.clone());
            spawn(move || {
                for _ in 0..2 {
                    let Ok(lsn) = append(&wal, txn) else { return };
                    let forced = match txn {
                        1 => wal.force_within(lsn, Duration::from_millis(3)),
                        _ => wal.force(lsn),
                    };
                    match forced {
                        Ok(durable) => is_durable(&paper, durable, lsn),
                        Err(Error::Io { .. } | Error::Poisoned { .. }) if fail_at > 0 => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        }),
    );
}

#[test]
fn committers_flush_for_each_other() {
    check(|| commit_model(false, 0));
}

#[test]
fn committers_and_a_log_writer() {
    check(|| commit_model(true, 0));
}

#[test]
fn a_failed_sync_leaves_nobody_waiting() {
    check(|| commit_model(false, 2));
    check(|| commit_model(true, 2));
}

/// The first commits once, the others stay: whoever waits for it must not wait for ever (F5).
fn gathering_model(writer_thread: bool, mutations: Mutations) {
    let (paper, wal) = log_with(1024, writer_thread, mutations);
    run_committers(
        &wal,
        writer_thread,
        (1..4).map(|txn| {
            let (wal, paper) = (Arc::clone(&wal), paper.clone());
            spawn(move || {
                for _ in 0..txn {
                    let lsn = append(&wal, txn).unwrap();
                    is_durable(&paper, wal.force(lsn).unwrap(), lsn);
                }
            })
        }),
    );
}

#[test]
fn a_group_gathers_without_those_who_do_not_come() {
    check(|| gathering_model(false, Mutations::default()));
    check(|| gathering_model(true, Mutations::default()));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_group_that_gathers_endlessly_is_stuck() {
    let mutations = Mutations { endless_gathering: true, ..Mutations::default() };
    check(move || gathering_model(false, mutations.clone()));
}

#[test]
fn a_log_writer_that_stops_strands_nobody() {
    check(|| {
        let (paper, wal) = log(1024, true);
        let stop = Arc::new(AtomicBool::new(false));
        let log_writer = writer(&wal, &stop);
        let stopper = {
            let (wal, stop) = (Arc::clone(&wal), Arc::clone(&stop));
            spawn(move || {
                stop.store(true, Ordering::SeqCst);
                wal.wake();
            })
        };
        let committers: Vec<_> = (1..4)
            .map(|txn| {
                let (wal, paper) = (Arc::clone(&wal), paper.clone());
                spawn(move || {
                    let lsn = append(&wal, txn).unwrap();
                    is_durable(&paper, wal.force(lsn).unwrap(), lsn);
                })
            })
            .collect();
        join(committers);
        stopper.join().unwrap();
        log_writer.join().unwrap();
    });
}

/// Half the ring each, used in part; what is left goes back when the ticket is filled again, or at the end.
fn full_ring_model(mutations: &Mutations) {
    let (_, wal) = log_with(256, false, mutations.clone());
    let threads: Vec<_> = (1..4)
        .map(|txn| {
            let wal = Arc::clone(&wal);
            spawn(move || {
                let (mut ticket, mut reserve) = (wal.ticket().unwrap(), UndoReserve::default());
                for _ in 0..2 {
                    wal.refill(&mut ticket, 128, 16, &mut reserve).unwrap();
                    let record = Record { txn: TxnId::new(txn), prev: Lsn::NONE, body: Body::End };
                    wal.append(&mut ticket, &record);
                    wal.append(&mut ticket, &record);
                }
                assert_eq!(reserve.left(), 32);
                wal.release(&mut ticket, &mut reserve);
            })
        })
        .collect();
    join(threads);
    assert_eq!(wal.force(Lsn::MAX).unwrap().end(), Lsn::new(64 + 12 * 16));
    assert_eq!(wal.stats().reserved_bytes, 0);
}

#[test]
fn a_full_ring_waits_for_tickets_and_flushes() {
    check(|| full_ring_model(&Mutations::default()));
}

/// Two hold the whole ring and give it back; a third waits for it, and nobody has anything to flush.
fn tickets_model(mutations: &Mutations) {
    let (_, wal) = log_with(256, false, mutations.clone());
    let half = || wal.admit(128, 0, &mut UndoReserve::default()).unwrap();
    let held = [half(), half()];
    let waiter = {
        let wal = Arc::clone(&wal);
        spawn(move || drop(wal.admit(128, 0, &mut UndoReserve::default()).unwrap()))
    };
    let mut threads = vec![waiter];
    threads.extend(held.map(|ticket| spawn(move || drop(ticket))));
    join(threads);
}

#[test]
fn a_ticket_that_comes_back_wakes_whoever_waits_for_it() {
    check(|| tickets_model(&Mutations::default()));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_a_second_look_somebody_sleeps_for_ever() {
    let mutations = Mutations { sleep_at_once: true, ..Mutations::default() };
    check(move || tickets_model(&mutations));
}
