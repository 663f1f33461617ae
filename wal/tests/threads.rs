//! Many threads on one log: everything committed is there, in order, whoever flushed it.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argali_base::disk::{Call, Failure, Fault, FaultyDisk, Loss, SimDisk};
use argali_base::sync::Clock;
use argali_base::{Disk, Health, Lsn};
use argali_wal::{LogOptions, RecordBuf, UndoReserve, Wal};
use common::{all, append, commit, options, update};

fn big() -> LogOptions {
    LogOptions { limit_bytes: 64 << 20, ..options() }
}

/// Starts the log writer; it ends when the flag is set.
fn writer(wal: &Arc<Wal>, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (wal, stop) = (Arc::clone(wal), Arc::clone(stop));
    std::thread::spawn(move || {
        let clock = Clock::system();
        while !stop.load(Ordering::Relaxed) {
            if wal.step(&clock, Duration::from_millis(20), Duration::from_secs(1)).is_err() {
                break;
            }
        }
    })
}

fn hammer(writer_thread: bool, seed: u64) {
    const THREADS: u64 = 8;
    const COMMITS: usize = 150;
    let sim = SimDisk::new(seed);
    let options = LogOptions { writer_thread, ..big() };
    let wal = Arc::new(common::create(&sim, options.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let log_writer = writer_thread.then(|| writer(&wal, &stop));
    let clients: Vec<_> = (1..=THREADS)
        .map(|txn| {
            let wal = Arc::clone(&wal);
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed + txn);
                let mut mine = Vec::new();
                let mut buf = RecordBuf::new();
                for _ in 0..COMMITS {
                    let lsn = update(&wal, txn, random.usize(1..3000)).unwrap();
                    mine.push(lsn);
                    wal.read(lsn, &mut buf).unwrap();
                    assert_eq!((buf.lsn(), buf.record().txn.get()), (lsn, txn));
                    let durable = match random.u8(..3) {
                        0 => wal.force_within(lsn, Duration::from_micros(200)).unwrap(),
                        _ => commit(&wal, txn).unwrap(),
                    };
                    assert!(durable.covers(lsn));
                    let old = mine[random.usize(..mine.len())];
                    wal.read(old, &mut buf).unwrap();
                    assert_eq!((buf.lsn(), buf.record().txn.get()), (old, txn));
                }
                mine
            })
        })
        .collect();
    let mut lsns: Vec<(Lsn, u64)> = Vec::new();
    for (txn, client) in (1..).zip(clients) {
        lsns.extend(client.join().unwrap().into_iter().map(|lsn| (lsn, txn)));
    }
    stop.store(true, Ordering::Relaxed);
    wal.wake();
    if let Some(thread) = log_writer {
        thread.join().unwrap();
    }
    lsns.sort();
    let after = common::open(&sim.power_cut(Loss::LoseAll), options).unwrap();
    let mut seen = all(&after, Lsn::FIRST);
    assert_eq!(after.tail(), wal.tail());
    seen.retain(|record| lsns.binary_search(record).is_ok());
    assert_eq!(seen, lsns);
}

#[test]
fn committers_flush_for_each_other() {
    hammer(false, 1);
}

#[test]
fn committers_with_a_log_writer() {
    hammer(true, 2);
}

#[test]
fn nobody_is_left_waiting_when_a_sync_fails() {
    for writer_thread in [false, true] {
        let sim = SimDisk::new(1);
        let faulty = FaultyDisk::new(Arc::new(sim.clone()));
        let options = LogOptions { writer_thread, ..big() };
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        let wal = Arc::new(Wal::create(disk, common::ID, options, Health::new()).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let log_writer = writer_thread.then(|| writer(&wal, &stop));
        faulty.fail(Fault::new(Call::Sync, "wal/*", Failure::Eio).after(20));
        let clients: Vec<_> = (1..=6)
            .map(|txn| {
                let wal = Arc::clone(&wal);
                std::thread::spawn(move || (0..).find_map(|_| commit(&wal, txn).err()).unwrap())
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let durable = wal.durable().end();
        stop.store(true, Ordering::Relaxed);
        wal.wake();
        if let Some(thread) = log_writer {
            thread.join().unwrap();
        }
        let after = common::open(&sim.power_cut(Loss::LoseAll), big()).unwrap();
        assert!(after.end() >= durable);
    }
}

#[test]
fn tickets_outstanding_make_others_wait_and_then_go_on() {
    let sim = SimDisk::new(1);
    let wal = Arc::new(common::create(&sim, big()));
    // Two tickets take the whole ring.
    let none = || UndoReserve::default();
    let first = wal.admit(1 << 20, 0, &mut none()).unwrap();
    let second = wal.admit(1 << 20, 0, &mut none()).unwrap();
    let waiter = {
        let wal = Arc::clone(&wal);
        std::thread::spawn(move || update(&wal, 3, 1000).unwrap())
    };
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished());
    drop(first);
    let lsn = waiter.join().unwrap();
    assert_eq!(lsn, Lsn::FIRST, "what was given back is not a hole");
    drop(second);
    // Requests that can never be granted say so.
    assert!(wal.admit((1 << 20) + 1, 0, &mut none()).is_err());
    append(&wal, 1, argali_wal::Body::End).unwrap();
}

#[test]
fn relaxed_records_are_flushed_within_their_delay() {
    let sim = SimDisk::new(1);
    let wal = common::create(&sim, options());
    let clock = Clock::manual();
    let step = || wal.step(&clock, Duration::from_millis(100), Duration::ZERO).unwrap();
    assert!(!step());
    let lsn = update(&wal, 1, 100).unwrap();
    assert!(!step(), "seen first now");
    clock.advance(Duration::from_millis(49));
    assert!(!step());
    assert!(!wal.durable().covers(lsn));
    clock.advance(Duration::from_millis(1));
    assert!(step());
    assert!(wal.durable().covers(lsn));
    clock.advance(Duration::from_secs(1));
    assert!(!step());
}
