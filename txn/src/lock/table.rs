//! The table of all locks: finding the partition, and waiting.
//!
//! ```text
//!  hash(name) ──► partition (mutex) ──► map name → Queue      exact
//!                                  └──► tags[hash & 63]       commit LSNs, by hash only
//! ```
//!
//! Intention locks stand here only while somebody asks for the whole; else in their transactions' own lists
//! (see [`super::weak`]).
//!
//! A request that cannot be granted gets in line and sleeps on its own condition variable,
//! under the partition's mutex. Whoever releases hands the lock over and wakes exactly the new holders:
//! "no longer in line" *means* granted. While it sleeps it looks for deadlocks (see [`super::deadlock`])
//! and gives up after its timeout, with an error that names lock and holder.

use std::hash::BuildHasher;
use std::time::Duration;

use argali_base::sync::{Arc, AtomicU64, Clock, Mutex, MutexGuard, Ordering};
use argali_base::{Error, Health, Lsn, Result, TxnId};
use foldhash::fast::FixedState;

use super::deadlock::WaitGraph;
use super::partition::{Partition, Place};
use super::request::describe;
use super::weak::{Strength, WeakList, WeakLocks, WeakMutations};
use super::{Blocked, Granted, LockMode, LockName, LockStats, Request, Term, Waiter};

/// Shape of a lock table.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// Partitions, a power of two: how many requests can be served at once.
    pub partitions: usize,
    /// How long a request waits before it looks for a deadlock. Most waits are shorter than this, and a
    /// look stops the whole table for some microseconds.
    pub deadlock_delay: Duration,
    /// How long it waits before it looks again, at a deadlock and at whether the database is poisoned.
    pub look_again: Duration,
    /// Rules to break.
    pub mutations: WeakMutations,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self {
            partitions: 64,
            deadlock_delay: Duration::from_millis(2),
            look_again: Duration::from_millis(100),
            mutations: WeakMutations::default(),
        }
    }
}

/// All locks of one database.
#[derive(Debug)]
pub struct LockTable {
    partitions: Box<[Padded]>,
    weak: WeakLocks,
    /// Greatest commit LSN whose locks went before it was durable.
    horizon: AtomicU64,
    hasher: FixedState,
    clock: Clock,
    health: Health,
    deadlock_delay: Duration,
    look_again: Duration,
}

/// A partition on cache lines of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded(Mutex<Partition>);

impl LockTable {
    /// An empty table. Once `health` is poisoned nobody waits any longer.
    ///
    /// # Panics
    /// When the number of partitions is not a power of two.
    pub fn new(options: &LockOptions, health: Health) -> Self {
        assert!(options.partitions.is_power_of_two(), "{} partitions", options.partitions);
        Self {
            partitions: (0..options.partitions).map(|_| Padded::default()).collect(),
            weak: WeakLocks::new(options.mutations),
            horizon: AtomicU64::new(0),
            hasher: FixedState::default(),
            clock: Clock::system(),
            health,
            deadlock_delay: options.deadlock_delay,
            look_again: options.look_again,
        }
    }

    /// A list for the weak locks of one transaction at a time.
    pub fn add_list(&self) -> Arc<WeakList> {
        self.weak.add_list()
    }

    /// Grants `request` in its transaction's `list`, if it is weak and nobody asks for the whole; else
    /// it is for the table to grant.
    pub fn try_note(&self, list: &WeakList, request: &Request) -> Option<Granted> {
        if Strength::of(request.asked()) != Strength::Weak {
            return None;
        }
        let place = self.place(request.name);
        self.weak.try_note(list, (request, place.hash), |txn, mode| {
            self.lock(place).adopt(txn, request.name, mode);
        })
    }

    /// Grants `request` if it needs to wait for nobody. Never waits: safe under latches.
    pub fn try_acquire(&self, request: &Request) -> Option<Granted> {
        let place = self.place(request.name);
        let asking = self.shut_gate(request, place);
        let granted = self.lock(place).try_grant(request, place);
        granted.map(|granted| asking.granted(granted))
    }

    /// Grants `request`, waiting for at most `timeout`. `Deadlock` and `LockTimeout` leave everything as
    /// it was before the call.
    pub fn acquire(
        &self,
        request: &Request,
        waiter: &Waiter,
        timeout: Duration,
    ) -> Result<Granted> {
        let place = self.place(request.name);
        let asking = self.shut_gate(request, place);
        let mut partition = self.lock(place);
        let granted = if let Some(granted) = partition.try_grant(request, place) {
            granted
        } else {
            partition.enqueue(request, waiter);
            drop(partition);
            self.wait(request, waiter, timeout)?
        };
        Ok(asking.granted(granted))
    }

    /// Takes `name`, noted in `list`, from its transaction; `false` when it is in the table.
    pub fn forget(list: &WeakList, name: LockName, mode: LockMode) -> bool {
        Strength::of(mode) == Strength::Weak && list.remove(name)
    }

    /// Takes `name` from `txn`, which holds it, and hands it over. A committed transaction that wrote
    /// passes its commit LSN, any other `Lsn::NONE`.
    pub fn release(&self, txn: TxnId, name: LockName, commit: Lsn) {
        let place = self.place(name);
        let mode = self.lock(place).release(txn, name, (place, commit));
        if Strength::of(mode) == Strength::Strong {
            let exclusive = if mode == LockMode::X { commit } else { Lsn::NONE };
            self.weak.open(place.hash, exclusive);
        }
    }

    /// Greatest commit LSN whose locks were released before it was durable.
    pub fn horizon(&self) -> Lsn {
        Lsn::new(self.horizon.load(Ordering::Acquire))
    }

    /// The transaction that committed at `commit` is about to release its locks.
    pub fn raise_horizon(&self, commit: Lsn) {
        self.horizon.fetch_max(commit.get(), Ordering::AcqRel);
    }

    /// What a strong request does first: shuts the gate, and has all weak locks on its name in the table.
    fn shut_gate<'t>(&'t self, request: &'t Request, place: Place) -> Asking<'t> {
        let strong = Strength::of(request.asked()) == Strength::Strong;
        if strong {
            self.weak.shut(place.hash);
            self.weak.expose(request.name, |txn, mode| {
                self.lock(place).adopt(txn, request.name, mode);
            });
        }
        Asking { table: self, request, place, opens: strong }
    }

    /// Everybody who waits, at one instant.
    pub fn blocked(&self) -> Vec<Blocked> {
        let mut all: Vec<Blocked> = Vec::new();
        for partition in self.stop() {
            partition.each_edge(|txn, lock, blocker| match all.last_mut() {
                Some(last) if last.txn == txn => last.behind.push(blocker),
                Some(_) | None => all.push(Blocked { txn, lock, behind: vec![blocker] }),
            });
        }
        all
    }

    /// Counters of all partitions.
    pub fn stats(&self) -> LockStats {
        let mut sum = LockStats::default();
        sum.acquired += self.weak.acquired();
        for partition in &self.partitions {
            let stats = &partition.0.lock().stats;
            sum.acquired += stats.acquired;
            sum.waited += stats.waited;
            sum.deadlocks += stats.deadlocks;
            sum.timeouts += stats.timeouts;
        }
        sum
    }

    /// Sleeps until `request`, which is in line, is granted, or takes it out of the line.
    fn wait(&self, request: &Request, waiter: &Waiter, timeout: Duration) -> Result<Granted> {
        let place = self.place(request.name);
        let begun = self.clock.now();
        let mut look = self.deadlock_delay;
        let mut partition = self.lock(place);
        while partition.is_waiting(request) {
            let waited = self.clock.now().saturating_sub(begun);
            if let Err(error) = self.health.check() {
                partition.cancel(request);
                return Err(error);
            }
            if waited >= timeout {
                return Err(partition.give_up(request, waited));
            }
            if waited >= look {
                drop(partition);
                self.break_deadlock(request)?;
                look = waited.saturating_add(self.look_again);
                partition = self.lock(place);
                continue;
            }
            waiter.sleep(&mut partition, look.min(timeout), waited);
        }
        partition.stats.acquired += 1;
        Ok(partition.granted(request, place))
    }

    /// Fails `request` if it is on a cycle.
    fn break_deadlock(&self, request: &Request) -> Result<()> {
        let mut partitions = self.stop();
        let mut graph = WaitGraph::default();
        for partition in &partitions {
            partition.each_edge(|txn, _, blocker| graph.add(txn, blocker));
        }
        let Some(holder) = graph.cycle_through(request.txn) else { return Ok(()) };
        let own = &mut partitions[self.place(request.name).partition];
        own.stats.deadlocks += 1;
        own.cancel(request);
        Err(Error::Deadlock { txn: request.txn, lock: describe(request), holder })
    }

    /// Stops the table: all partitions, in order.
    fn stop(&self) -> Vec<MutexGuard<'_, Partition>> {
        self.partitions.iter().map(|partition| partition.0.lock()).collect()
    }

    fn lock(&self, place: Place) -> MutexGuard<'_, Partition> {
        self.partitions[place.partition].0.lock()
    }

    fn place(&self, name: LockName) -> Place {
        let hash = self.hasher.hash_one(name);
        // Middle bits: the maps inside the partitions use the lowest and the highest ones.
        Place {
            partition: (hash >> 32) as usize & (self.partitions.len() - 1),
            tag: (hash >> 48) as usize,
            hash,
        }
    }
}

/// A request under way; when it ends, it opens the gate again that it has shut, unless a lock keeps it so.
struct Asking<'t> {
    table: &'t LockTable,
    request: &'t Request,
    place: Place,
    opens: bool,
}

impl Asking<'_> {
    /// What was granted, with what a strong lock depends on: any commit may have held a weak one.
    fn granted(mut self, granted: Granted) -> Granted {
        if !self.opens {
            return granted;
        }
        let held = self.request.held.map(Strength::of);
        self.opens = self.request.term == Term::Instant || held == Some(Strength::Strong);
        if self.table.weak.mutations().strong_without_horizon {
            return granted;
        }
        Granted { horizon: granted.horizon.max(self.table.horizon()), ..granted }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.opens {
            self.table.weak.open(self.place.hash, Lsn::NONE);
        }
    }
}
