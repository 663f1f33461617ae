//! The lock table under threads: fairness, deadlocks, timeouts, early release.
//!
//! Each actor is a thread with one transaction; the test waits until the table shows it in line before
//! it goes on, so every story has exactly one course.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use LockMode::{IS, IX, S, X};
use argali_base::{Error, Health, Lsn, Result, TxnId};
use argali_txn::{
    Gap, Granted, KeyMode, LockMode, LockName, LockOptions, LockTable, Request, Term, Waiter,
};

const LONG: Duration = Duration::from_secs(20);
const A: LockName = LockName::Tree(1);
const B: LockName = LockName::Tree(2);
const C: LockName = LockName::Tree(3);

fn table() -> Arc<LockTable> {
    Arc::new(LockTable::new(
        &LockOptions { partitions: 8, ..LockOptions::default() },
        Health::new(),
    ))
}

/// A table in which a request looks for a deadlock once, when it has waited for 2 ms.
fn table_that_looks_once() -> Arc<LockTable> {
    let look_again = Duration::from_mins(1);
    let options = LockOptions { partitions: 8, look_again, ..LockOptions::default() };
    Arc::new(LockTable::new(&options, Health::new()))
}

/// Until those in line have looked and found nothing: whoever closes a ring then is the one to find it.
fn let_them_look() {
    std::thread::sleep(Duration::from_millis(100));
}

/// One transaction's way of asking, with its own record of what it holds.
#[derive(Clone)]
struct Actor {
    table: Arc<LockTable>,
    txn: TxnId,
    held: Arc<Mutex<Vec<(LockName, LockMode)>>>,
    waiter: Waiter,
}

impl Actor {
    fn new(table: &Arc<LockTable>, txn: u64) -> Self {
        Self {
            table: Arc::clone(table),
            txn: TxnId::new(txn),
            held: Arc::default(),
            waiter: Waiter::default(),
        }
    }

    fn request(&self, name: LockName, mode: LockMode, term: Term) -> Request {
        let held = self.held.lock().unwrap();
        let held = held.iter().find(|(held, _)| *held == name).map(|(_, mode)| *mode);
        Request { txn: self.txn, name, mode, held, term }
    }

    fn note(&self, name: LockName, granted: Granted) -> Granted {
        let mut held = self.held.lock().unwrap();
        held.retain(|(held, _)| *held != name);
        held.push((name, granted.mode));
        granted
    }

    fn lock(&self, name: LockName, mode: LockMode) -> Result<Granted> {
        self.lock_within(name, mode, LONG)
    }

    fn lock_within(&self, name: LockName, mode: LockMode, timeout: Duration) -> Result<Granted> {
        let request = self.request(name, mode, Term::Long);
        self.table.acquire(&request, &self.waiter, timeout).map(|granted| self.note(name, granted))
    }

    fn try_lock(&self, name: LockName, mode: LockMode) -> bool {
        let granted = self.table.try_acquire(&self.request(name, mode, Term::Long));
        granted.map(|granted| self.note(name, granted)).is_some()
    }

    fn try_instant(&self, name: LockName, mode: LockMode) -> bool {
        self.table.try_acquire(&self.request(name, mode, Term::Instant)).is_some()
    }

    /// Asks on a thread of its own and returns when the request is in line.
    fn lock_later(&self, name: LockName, mode: LockMode) -> JoinHandle<Result<Granted>> {
        let actor = self.clone();
        let thread = spawn(move || actor.lock(name, mode));
        until(|| self.table.blocked().iter().any(|blocked| blocked.txn == self.txn));
        thread
    }

    fn end(&self, commit: Lsn) {
        for (name, _) in self.held.lock().unwrap().drain(..) {
            self.table.release(self.txn, name, commit);
        }
    }
}

fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "waited in vain");
        std::thread::yield_now();
    }
}

fn key(key: KeyMode, gap: Gap) -> LockMode {
    LockMode::Key { key, gap }
}

#[test]
fn a_released_lock_goes_to_the_longest_waiter_not_to_the_quickest() {
    let table = table();
    let [t1, t2, t3, quick] = [1, 2, 3, 4].map(|txn| Actor::new(&table, txn));
    t1.lock(A, X).unwrap();
    let second = t2.lock_later(A, X);
    let third = t3.lock_later(A, X);
    t1.end(Lsn::NONE);
    assert!(!quick.try_lock(A, X), "the lock was handed over, it was never free");
    second.join().unwrap().unwrap();
    assert!(!third.is_finished());
    t2.end(Lsn::NONE);
    third.join().unwrap().unwrap();
    t3.end(Lsn::NONE);
    assert!(quick.try_lock(A, X));
    assert_eq!(table.stats().waited, 2);
}

#[test]
fn two_transactions_in_a_ring_lose_the_one_that_closed_it() {
    let table = table_that_looks_once();
    let [t1, t2] = [1, 2].map(|txn| Actor::new(&table, txn));
    t1.lock(A, X).unwrap();
    t2.lock(B, X).unwrap();
    let first = t1.lock_later(B, X);
    let_them_look();
    let error = t2.lock(A, X).unwrap_err();
    assert_eq!(
        error.to_string(),
        "deadlock: t2 waited for X on tree p1, held by t1, which waits for t2; retry"
    );
    assert!(error.is_retryable());
    t2.end(Lsn::NONE);
    first.join().unwrap().unwrap();
    assert_eq!(table.stats().deadlocks, 1);
}

#[test]
fn three_transactions_in_a_ring_lose_one() {
    let table = table_that_looks_once();
    let [t1, t2, t3] = [1, 2, 3].map(|txn| Actor::new(&table, txn));
    for (actor, name) in [(&t1, A), (&t2, B), (&t3, C)] {
        actor.lock(name, X).unwrap();
    }
    let first = t1.lock_later(B, S);
    let second = t2.lock_later(C, S);
    let_them_look();
    assert!(matches!(t3.lock(A, S), Err(Error::Deadlock { holder, .. }) if holder == t1.txn));
    t3.end(Lsn::NONE);
    second.join().unwrap().unwrap();
    t2.end(Lsn::NONE);
    first.join().unwrap().unwrap();
}

#[test]
fn two_readers_that_both_want_to_write_are_a_deadlock() {
    let table = table_that_looks_once();
    let [t1, t2] = [1, 2].map(|txn| Actor::new(&table, txn));
    t1.lock(A, S).unwrap();
    t2.lock(A, S).unwrap();
    let first = t1.lock_later(A, X);
    let_them_look();
    assert!(matches!(t2.lock(A, X), Err(Error::Deadlock { .. })));
    t2.end(Lsn::NONE);
    assert_eq!(first.join().unwrap().unwrap().mode, X);
}

/// A ring through a place in line: t3 waits behind t2, which is not granted anything either.
#[test]
fn a_ring_through_a_waiter_is_found() {
    let table = table_that_looks_once();
    let [t1, t2, t3] = [1, 2, 3].map(|txn| Actor::new(&table, txn));
    t1.lock(A, S).unwrap();
    t3.lock(B, X).unwrap();
    let second = t2.lock_later(A, X);
    let third = t3.lock_later(A, S);
    let_them_look();
    assert!(matches!(t1.lock(B, S), Err(Error::Deadlock { .. })));
    t1.end(Lsn::NONE);
    second.join().unwrap().unwrap();
    t2.end(Lsn::NONE);
    third.join().unwrap().unwrap();
}

#[test]
fn a_timeout_names_lock_and_holder_and_lets_the_next_pass() {
    let table = table();
    let [t1, t2, t3] = [1, 2, 3].map(|txn| Actor::new(&table, txn));
    let name = LockName::Key { tree: 7, hash: 0xab };
    t1.lock(name, key(KeyMode::S, Gap::S)).unwrap();
    let begun = Instant::now();
    let patient = Duration::from_millis(30);
    let second = {
        let t2 = t2.clone();
        spawn(move || t2.lock_within(name, key(KeyMode::X, Gap::None), patient))
    };
    until(|| !table.blocked().is_empty());
    assert_eq!(table.blocked()[0].behind, [t1.txn]);
    let third = t3.lock_later(name, key(KeyMode::S, Gap::None));
    let error = second.join().unwrap().unwrap_err();
    assert!(begun.elapsed() >= patient);
    let text = error.to_string();
    let start = "t2 gave up on X on key #00000000000000ab of tree p7 after ";
    assert!(text.starts_with(start), "{text}");
    assert!(matches!(error, Error::LockTimeout { waited, .. } if waited >= patient), "{text}");
    assert!(text.ends_with("held by t1; retry") && error.is_retryable(), "{text}");
    third.join().unwrap().unwrap();
    assert_eq!(table.stats().timeouts, 1);
    assert!(table.blocked().is_empty());
}

#[test]
fn gaps_keep_inserts_out_and_inserts_pass_each_other() {
    let table = table();
    let [scan, t2, t3] = [1, 2, 3].map(|txn| Actor::new(&table, txn));
    let next = LockName::End { tree: 7 };
    let insert = key(KeyMode::None, Gap::Insert);
    assert!(t2.try_instant(next, insert));
    scan.lock(next, key(KeyMode::S, Gap::S)).unwrap();
    assert!(!t2.try_instant(next, insert), "a phantom");
    assert!(scan.try_instant(next, insert), "one's own gap");
    assert!(t3.try_lock(next, key(KeyMode::S, Gap::None)), "the key is only read");
    scan.end(Lsn::NONE);
    assert!(t2.try_lock(next, insert) && t3.try_lock(next, insert));
}

#[test]
fn early_release_leaves_a_horizon_to_those_who_may_have_seen_the_change() {
    let table = table();
    let commit = Lsn::new(4096);
    let [writer, later] = [1, 2].map(|txn| Actor::new(&table, txn));
    let row = LockName::Key { tree: 1, hash: 5 };
    writer.lock(A, IX).unwrap();
    writer.lock(row, key(KeyMode::X, Gap::None)).unwrap();
    writer.lock(B, S).unwrap();
    writer.end(commit);
    let horizon = |name, mode| later.lock(name, mode).unwrap().horizon;
    assert_eq!(horizon(row, key(KeyMode::S, Gap::None)), commit);
    assert_eq!(horizon(A, IS), Lsn::NONE, "a reader of the tree's other rows waits for nobody");
    assert_eq!(horizon(A, S), commit, "a reader of the whole tree may have seen the row");
    assert_eq!(horizon(B, X), Lsn::NONE, "the writer only read this one");
}

#[test]
fn a_waiter_learns_the_horizon_of_the_commit_it_waited_for() {
    let table = table();
    let [writer, later] = [1, 2].map(|txn| Actor::new(&table, txn));
    writer.lock(A, X).unwrap();
    let waiting = later.lock_later(A, S);
    writer.end(Lsn::new(4096));
    assert_eq!(waiting.join().unwrap().unwrap().horizon, Lsn::new(4096));
}

#[test]
fn nobody_waits_in_a_poisoned_database() {
    let health = Health::new();
    let table = Arc::new(LockTable::new(&LockOptions::default(), health.clone()));
    let [t1, t2] = [1, 2].map(|txn| Actor::new(&table, txn));
    t1.lock(A, X).unwrap();
    let waiting = t2.lock_later(A, X);
    health.poison(Error::ReadOnly);
    assert!(matches!(waiting.join().unwrap(), Err(Error::Poisoned { .. })));
}

/// Threads lock a few names in random order and mode, with conversions; exclusive holders must be alone.
#[test]
fn hammered_by_threads_it_keeps_exclusion_and_loses_nobody() {
    const NAMES: usize = 4;
    let table = table();
    let inside: Arc<[AtomicUsize; NAMES]> = Arc::default();
    let next = Arc::new(AtomicU64::new(1));
    let worker = |seed: u64| {
        let (table, inside, next) = (Arc::clone(&table), Arc::clone(&inside), Arc::clone(&next));
        spawn(move || {
            let mut state = seed;
            let mut random = move |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as usize % below
            };
            let mut refused = 0_u64;
            for _ in 0..1500 {
                let actor = Actor::new(&table, next.fetch_add(1, Ordering::Relaxed));
                let mut exclusive = HashSet::new();
                for _ in 0..=random(3) {
                    let at = random(NAMES);
                    let mode = [IS, IX, S, X][random(4)];
                    match actor.lock(LockName::Tree(at as u64), mode) {
                        Ok(granted) if granted.mode == X && exclusive.insert(at) => {
                            assert_eq!(inside[at].fetch_add(1, Ordering::SeqCst), 0, "two inside");
                        }
                        Ok(_) => {}
                        Err(Error::Deadlock { .. }) => {
                            refused += 1;
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    std::thread::yield_now();
                }
                for at in exclusive {
                    inside[at].fetch_sub(1, Ordering::SeqCst);
                }
                actor.end(Lsn::NONE);
            }
            refused
        })
    };
    let threads: Vec<_> = (1..=4).map(worker).collect();
    let refused: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let stats = table.stats();
    assert_eq!(stats.deadlocks, refused);
    assert!(table.blocked().is_empty());
    let last = Actor::new(&table, u64::MAX);
    assert!(
        (0..NAMES).all(|at| last.try_lock(LockName::Tree(at as u64), X)),
        "somebody left a lock"
    );
}
