//! Models of the lock manager: small stories under every interleaving the scheduler can think of.
//!
//! Run with `cargo test -p argali-txn --features shuttle --test shuttle`. Timeouts are off and nobody
//! looks twice for a deadlock, so a lost wake-up or a missed cycle hangs, which shuttle reports.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use LockMode::{IS, IX, S, X};
use argali_base::sync::{AtomicU64, AtomicUsize, Ordering, thread};
use argali_base::{Error, Health, Lsn, Result, TxnId};
use argali_txn::{LockMode, LockName, LockOptions, LockTable, Request, Term, Waiter};

const ROUNDS: usize = 3000;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    let random = Arc::clone(&body);
    shuttle::check_random(move || random(), ROUNDS);
    shuttle::check_pct(move || body(), ROUNDS, 3);
}

fn table() -> Arc<LockTable> {
    let options =
        LockOptions { partitions: 2, deadlock_delay: Duration::ZERO, look_again: Duration::MAX };
    Arc::new(LockTable::new(&options, Health::new()))
}

/// A transaction that takes what it is told and remembers what it has.
struct Actor {
    table: Arc<LockTable>,
    txn: TxnId,
    held: Vec<(LockName, LockMode)>,
    waiter: Waiter,
    horizon: Lsn,
}

impl Actor {
    fn new(table: &Arc<LockTable>, txn: u64) -> Self {
        Self {
            table: Arc::clone(table),
            txn: TxnId::new(txn),
            held: Vec::new(),
            waiter: Waiter::default(),
            horizon: Lsn::NONE,
        }
    }

    fn lock(&mut self, tree: u64, mode: LockMode) -> Result<LockMode> {
        let name = LockName::Tree(tree);
        let held = self.held.iter().find(|(held, _)| *held == name).map(|(_, mode)| *mode);
        let request = Request { txn: self.txn, name, mode, held, term: Term::Long };
        let granted = self.table.acquire(&request, &self.waiter, Duration::MAX)?;
        self.horizon = self.horizon.max(granted.horizon);
        self.held.retain(|(held, _)| *held != name);
        self.held.push((name, granted.mode));
        Ok(granted.mode)
    }

    fn pass(&mut self, tree: u64, mode: LockMode) -> Result<()> {
        let name = LockName::Tree(tree);
        let request = Request { txn: self.txn, name, mode, held: None, term: Term::Instant };
        self.table.acquire(&request, &self.waiter, Duration::MAX).map(drop)
    }

    fn end(&mut self, commit: Lsn) {
        for (name, _) in self.held.drain(..) {
            self.table.release(self.txn, name, commit);
        }
    }
}

fn run(stories: Vec<Box<dyn FnOnce() + Send>>) {
    let spawn = |story: Box<dyn FnOnce() + Send>| thread::spawn("actor", story).unwrap();
    let threads: Vec<_> = stories.into_iter().map(spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn writers_exclude_each_other_and_every_waiter_is_woken() {
    model(|| {
        let (table, inside) = (table(), Arc::new(AtomicUsize::new(0)));
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let (table, inside) = (Arc::clone(&table), Arc::clone(&inside));
            Box::new(move || {
                let mut actor = Actor::new(&table, txn);
                actor.lock(1, X).unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                inside.fetch_sub(1, Ordering::SeqCst);
                actor.end(Lsn::NONE);
            })
        };
        run((1..=3).map(story).collect());
        assert!(table.blocked().is_empty());
        assert_eq!(table.stats().acquired, 3);
    });
}

#[test]
fn a_ring_always_loses_somebody_and_never_hangs() {
    model(|| {
        let table = table();
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let table = Arc::clone(&table);
            Box::new(move || {
                let mut actor = Actor::new(&table, txn);
                actor.lock(txn, X).unwrap();
                match actor.lock(txn % 3 + 1, X) {
                    Ok(_) | Err(Error::Deadlock { .. }) => actor.end(Lsn::NONE),
                    Err(error) => panic!("{error}"),
                }
            })
        };
        run((1..=3).map(story).collect());
        assert!(table.stats().deadlocks <= 1, "one victim breaks the ring");
    });
}

#[test]
fn locks_taken_in_one_order_are_never_called_a_deadlock() {
    model(|| {
        let table = table();
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let table = Arc::clone(&table);
            Box::new(move || {
                let mut actor = Actor::new(&table, txn);
                actor.lock(1, if txn == 2 { S } else { IX }).unwrap();
                actor.pass(2, X).unwrap();
                actor.lock(2, if txn == 3 { IS } else { X }).unwrap();
                actor.end(Lsn::NONE);
            })
        };
        run((1..=3).map(story).collect());
        assert_eq!(table.stats().deadlocks, 0);
    });
}

#[test]
fn readers_that_upgrade_lose_all_but_one() {
    model(|| {
        let (table, winners) = (table(), Arc::new(AtomicUsize::new(0)));
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let (table, winners) = (Arc::clone(&table), Arc::clone(&winners));
            Box::new(move || {
                let mut actor = Actor::new(&table, txn);
                actor.lock(1, S).unwrap();
                if actor.lock(1, X).is_ok() {
                    winners.fetch_add(1, Ordering::SeqCst);
                }
                actor.end(Lsn::NONE);
            })
        };
        run((1..=2).map(story).collect());
        let (winners, lost) = (winners.load(Ordering::SeqCst), table.stats().deadlocks);
        assert!(winners >= 1 && winners as u64 + lost == 2, "{winners} won, {lost} lost");
    });
}

/// Whoever sees a value that was written by a commit not yet durable must have learnt of that commit.
#[test]
fn nobody_sees_an_early_release_without_its_horizon() {
    model(|| {
        let (table, value) = (table(), Arc::new(AtomicU64::new(0)));
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let (table, value) = (Arc::clone(&table), Arc::clone(&value));
            Box::new(move || {
                let mut actor = Actor::new(&table, txn);
                actor.lock(1, if txn == 3 { S } else { X }).unwrap();
                let seen = value.load(Ordering::Relaxed);
                assert!(actor.horizon.get() >= seen, "saw {seen}, knows {}", actor.horizon);
                let commit = seen + txn * 100;
                if txn == 3 {
                    actor.end(Lsn::NONE);
                } else {
                    value.store(commit, Ordering::Relaxed);
                    actor.end(Lsn::new(commit));
                }
            })
        };
        run((1..=3).map(story).collect());
    });
}
