//! Models of the lock manager: small stories under every interleaving the scheduler can think of.
//!
//! Run with `cargo test -p argali-txn --features shuttle --test shuttle`. Timeouts are off and nobody
//! looks twice for a deadlock, so a lost wake-up or a missed cycle hangs, which shuttle reports.
#![allow(clippy::unwrap_used)]

mod gaps;

use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use LockMode::{IS, IX, S, X};
use argali_base::sync::{AtomicU64, AtomicUsize, Ordering, thread};
use argali_base::{Error, Health, Lsn, Result, TxnId};
use argali_txn::{
    ClaimList, Gap, KeyMode, LockMode, LockName, LockOptions, LockTable, Request, Term, Waiter,
    WeakList, WeakMutations, Write,
};

const ROUNDS: usize = 3000;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    let random = Arc::clone(&body);
    shuttle::check_random(move || random(), ROUNDS);
    shuttle::check_pct(move || body(), ROUNDS, 3);
}

fn table() -> Arc<LockTable> {
    table_with(WeakMutations::default())
}

fn table_with(mutations: WeakMutations) -> Arc<LockTable> {
    let (deadlock_delay, look_again) = (Duration::ZERO, Duration::MAX);
    let options = LockOptions { partitions: 2, deadlock_delay, look_again, mutations };
    Arc::new(LockTable::new(&options, Health::new()))
}

/// A transaction that takes what it is told and remembers what it has.
struct Actor {
    table: Arc<LockTable>,
    txn: TxnId,
    held: Vec<(LockName, LockMode)>,
    waiter: Waiter,
    horizon: Lsn,
    /// Where it keeps weak locks; without it they all go to the table.
    weak: Option<Arc<WeakList>>,
}

impl Actor {
    fn new(table: &Arc<LockTable>, txn: u64) -> Self {
        Self {
            table: Arc::clone(table),
            txn: TxnId::new(txn),
            held: Vec::new(),
            waiter: Waiter::default(),
            horizon: Lsn::NONE,
            weak: None,
        }
    }

    /// As a transaction is: with a list for its weak locks.
    fn with_list(table: &Arc<LockTable>, txn: u64) -> Self {
        Self { weak: Some(table.add_list()), ..Self::new(table, txn) }
    }

    fn lock(&mut self, tree: u64, mode: LockMode) -> Result<LockMode> {
        let name = LockName::Tree(tree);
        let held = self.held.iter().find(|(held, _)| *held == name).map(|(_, mode)| *mode);
        if let (None, IS | IX, Some(list)) = (held, mode, &self.weak)
            && let Some(horizon) = self.table.note_new(list, (self.txn, name, mode))
        {
            self.horizon = self.horizon.max(horizon);
            self.held.push((name, mode));
            return Ok(mode);
        }
        let request = Request { txn: self.txn, name, mode, held, term: Term::Long };
        let noted = self.weak.as_ref().and_then(|list| self.table.try_note(list, &request));
        let granted = match noted {
            Some(granted) => granted,
            None => self.table.acquire(&request, &self.waiter, Duration::MAX)?,
        };
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
        self.table.raise_horizon(commit);
        for (name, mode) in self.held.drain(..) {
            let noted = self.weak.as_ref().is_some_and(|list| LockTable::forget(list, name, mode));
            if !noted {
                self.table.release(self.txn, name, commit);
            }
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

/// Two who hold `mode` want X: they can only wait for each other.
fn upgraders(make: fn(&Arc<LockTable>, u64) -> Actor, mode: LockMode) {
    model(move || {
        let (table, winners) = (table(), Arc::new(AtomicUsize::new(0)));
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let (table, winners) = (Arc::clone(&table), Arc::clone(&winners));
            Box::new(move || {
                let mut actor = make(&table, txn);
                actor.lock(1, mode).unwrap();
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

#[test]
fn readers_that_upgrade_lose_all_but_one() {
    upgraders(Actor::new, S);
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

/// Two with weak locks, one of which began as a reader, and one who wants it all, twice.
fn weak_and_strong(mutations: WeakMutations) {
    let (table, inside) = (table_with(mutations), Arc::new(AtomicUsize::new(0)));
    let weak = |txn: u64, modes: &'static [LockMode]| -> Box<dyn FnOnce() + Send> {
        let (table, inside) = (Arc::clone(&table), Arc::clone(&inside));
        Box::new(move || {
            let mut actor = Actor::with_list(&table, txn);
            for mode in modes {
                actor.lock(1, *mode).unwrap();
            }
            assert!(inside.fetch_add(1, Ordering::SeqCst) < 100, "{txn} is beside a strong lock");
            inside.fetch_sub(1, Ordering::SeqCst);
            actor.end(Lsn::NONE);
        })
    };
    let strong: Box<dyn FnOnce() + Send> = {
        let (table, inside) = (Arc::clone(&table), Arc::clone(&inside));
        Box::new(move || {
            for (txn, mode) in [(3, X), (4, S)] {
                let mut actor = Actor::with_list(&table, txn);
                actor.lock(1, mode).unwrap();
                assert_eq!(inside.fetch_add(100, Ordering::SeqCst), 0, "{mode} beside a weak lock");
                inside.fetch_sub(100, Ordering::SeqCst);
                actor.end(Lsn::NONE);
            }
        })
    };
    run(vec![weak(1, &[IX]), weak(2, &[IS, IX]), strong]);
    assert!(table.blocked().is_empty());
    let mut last = Actor::with_list(&table, 9);
    last.lock(1, X).unwrap();
    last.end(Lsn::NONE);
    let mut after = Actor::with_list(&table, 10);
    assert!(table.try_note(after.weak.as_ref().unwrap(), &ask(10, IX)).is_some(), "open again");
    after.held.push((LockName::Tree(1), IX));
    after.end(Lsn::NONE);
}

fn ask(txn: u64, mode: LockMode) -> Request {
    let name = LockName::Tree(1);
    Request { txn: TxnId::new(txn), name, mode, held: None, term: Term::Long }
}

#[test]
fn weak_and_strong_locks_exclude_each_other() {
    model(|| weak_and_strong(WeakMutations::default()));
}

#[test]
#[should_panic(expected = "weak lock")]
fn a_strong_request_that_overlooks_weak_locks_is_caught() {
    let mutations = WeakMutations { strong_overlooks_weak: true, ..WeakMutations::default() };
    model(move || weak_and_strong(mutations));
}

#[test]
#[should_panic(expected = " lock")] // "a strong lock" beside a weak one, or the other way round
fn a_weak_request_that_overlooks_strong_locks_is_caught() {
    let mutations = WeakMutations { weak_overlooks_strong: true, ..WeakMutations::default() };
    model(move || weak_and_strong(mutations));
}

/// Everybody writes what they saw plus something: in part (IX, on rows of their own) or as a whole (X); the
/// readers of all and of a part must know of the commits that wrote what they see.
fn weak_horizons(mutations: WeakMutations) {
    let table = table_with(mutations);
    let (part, whole) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let story = |txn: u64, mode: LockMode| -> Box<dyn FnOnce() + Send> {
        let (table, part, whole) = (Arc::clone(&table), Arc::clone(&part), Arc::clone(&whole));
        Box::new(move || {
            let mut actor = Actor::with_list(&table, txn);
            actor.lock(1, mode).unwrap();
            let seen = whole.load(Ordering::Relaxed);
            let seen = if mode == S { seen.max(part.load(Ordering::Relaxed)) } else { seen };
            assert!(
                actor.horizon.get() >= seen,
                "saw {seen} under {mode}, knows {}",
                actor.horizon
            );
            match mode {
                X => whole.store(txn * 100, Ordering::Relaxed),
                IX => part.store(txn * 100, Ordering::Relaxed),
                _ => return actor.end(Lsn::NONE),
            }
            actor.end(Lsn::new(txn * 100));
        })
    };
    run(vec![story(1, X), story(2, IX), story(3, S), story(4, IS)]);
}

#[test]
fn weak_and_strong_locks_hand_on_the_horizon() {
    model(|| weak_horizons(WeakMutations::default()));
}

#[test]
#[should_panic(expected = "under S")]
fn a_strong_request_that_ignores_the_horizon_is_caught() {
    let mutations = WeakMutations { strong_without_horizon: true, ..WeakMutations::default() };
    model(move || weak_horizons(mutations));
}

#[test]
#[should_panic(expected = "under I")]
fn a_gate_that_forgets_the_horizon_is_caught() {
    let mutations = WeakMutations { gate_without_horizon: true, ..WeakMutations::default() };
    model(move || weak_horizons(mutations));
}

#[test]
fn weak_holders_that_want_it_all_lose_all_but_one() {
    upgraders(Actor::with_list, IX);
}

/// A page with one row, as optimistic readers and latched writers see it.
#[derive(Default)]
struct Leaf {
    /// Odd while latched.
    version: AtomicU64,
    value: AtomicU64,
}

impl Leaf {
    fn latch(&self) -> u64 {
        loop {
            let seen = self.version.load(Ordering::SeqCst);
            let latched = self.version.compare_exchange(
                seen & !1,
                seen | 1,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if latched.is_ok() {
                return seen & !1;
            }
            thread::yield_now();
        }
    }
}

/// Claims and writes as a scan and a tree do them.
struct Claimer {
    actor: Actor,
    claims: Arc<ClaimList>,
}

impl Claimer {
    fn new(table: &Arc<LockTable>, txn: u64) -> Self {
        Self { actor: Actor::new(table, txn), claims: table.add_claims() }
    }

    /// What the row held when it was claimed.
    fn read(&mut self, leaf: &Leaf, tree: u64) -> u64 {
        let (table, txn) = (&self.actor.table, self.actor.txn);
        loop {
            let version = leaf.version.load(Ordering::SeqCst);
            let value = leaf.value.load(Ordering::Relaxed);
            assert!(table.claim(&self.claims, txn, (tree, (Included(b"k"), Unbounded))));
            if version & 1 == 0 && leaf.version.load(Ordering::SeqCst) == version {
                return value;
            }
            thread::yield_now();
        }
    }

    fn write(&mut self, leaf: &Leaf, tree: u64) -> Result<()> {
        let (table, txn) = (&self.actor.table, self.actor.txn);
        let name = LockName::Key { tree, hash: 1 };
        let write = Write { txn, tree, key: b"key", name };
        let done = loop {
            let version = leaf.latch();
            let claimed = table.are_claims_in(tree).then(|| table.claimed(&self.claims, &write));
            if let Some(name) = claimed.flatten() {
                leaf.version.store(version, Ordering::SeqCst);
                let mode = LockMode::Key { key: KeyMode::S, gap: Gap::None };
                let request = Request { txn, name, mode, held: None, term: Term::Instant };
                if let Err(error) = table.acquire(&request, &self.actor.waiter, Duration::MAX) {
                    break Err(error);
                }
                continue;
            }
            leaf.value.fetch_add(1, Ordering::Relaxed);
            leaf.version.store(version + 2, Ordering::SeqCst);
            break Ok(());
        };
        table.write_is_done(txn, tree);
        done
    }

    fn end(&mut self) {
        self.actor.table.release_claims(&self.claims, self.actor.txn);
    }
}

/// What a reader has claimed stays as it was, every writer gets its turn, and nobody sleeps for ever. Lists serve
/// one transaction after the other, behind one gate or two.
#[test]
fn a_claimed_row_does_not_change_and_every_writer_is_woken() {
    model(|| {
        let (table, leaf) = (table(), Arc::new(Leaf::default()));
        let reader = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let (table, leaf) = (Arc::clone(&table), Arc::clone(&leaf));
            Box::new(move || {
                let mut claimer = Claimer::new(&table, txn);
                for round in 0..2 {
                    claimer.actor.txn = TxnId::new(txn + 10 * round);
                    let seen = claimer.read(&leaf, 1);
                    assert_eq!(claimer.read(&leaf, 1), seen, "a claimed row changed");
                    claimer.end();
                }
            })
        };
        let writer: Box<dyn FnOnce() + Send> = {
            let (table, leaf) = (Arc::clone(&table), Arc::clone(&leaf));
            Box::new(move || {
                let mut claimer = Claimer::new(&table, 3);
                claimer.write(&leaf, 1).unwrap();
                claimer.write(&leaf, 1).unwrap();
                claimer.end();
            })
        };
        run(vec![reader(1), reader(2), writer]);
        assert!(table.blocked().is_empty());
        assert_eq!(leaf.value.load(Ordering::Relaxed), 2);
    });
}

/// Two who claim the same row and then want to change it.
#[test]
fn claimers_that_write_lose_all_but_one() {
    model(|| {
        let (table, leaf) = (table(), Arc::new(Leaf::default()));
        let story = |txn: u64| -> Box<dyn FnOnce() + Send> {
            let (table, leaf) = (Arc::clone(&table), Arc::clone(&leaf));
            Box::new(move || {
                let mut claimer = Claimer::new(&table, txn);
                let seen = claimer.read(&leaf, 1);
                if claimer.write(&leaf, 1).is_ok() {
                    assert_eq!(leaf.value.load(Ordering::Relaxed), seen + 1, "a lost update");
                }
                claimer.end();
            })
        };
        run((1..=2).map(story).collect());
        let (changed, lost) = (leaf.value.load(Ordering::Relaxed), table.stats().deadlocks);
        assert!(changed >= 1 && changed + lost == 2, "{changed} changed it, {lost} lost");
    });
}
