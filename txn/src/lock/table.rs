//! The table of all locks: partitions, waiting, and the horizon of locks released early.
//!
//! ```text
//!  hash(name) ──► partition (mutex) ──► map name → Queue      exact
//!                                  └──► tags[hash & 63]       commit LSNs, by hash only
//! ```
//!
//! **Waiting.** A request that cannot be granted gets in line and sleeps on its own condition variable,
//! under the partition's mutex. Whoever releases hands the lock over and wakes exactly the new holders:
//! "no longer in line" *means* granted. While it sleeps it looks for deadlocks (see [`super::deadlock`])
//! and gives up after its timeout, with an error that names lock and holder.
//!
//! **Early lock release.** A committing transaction gives its locks back when its commit record has an
//! LSN, before that is durable. Each release that may have written leaves the commit LSN as a *tag*
//! behind, and each acquisition returns the greatest tag it may depend on; the acquirer must not tell
//! anybody what it saw before that LSN is durable (its *horizon*). Tags are kept by hash, never removed
//! and shared by chance: too great a horizon costs a wait, never correctness. A reader of one key must
//! not depend on every writer of the tree, so a tag has two parts:
//!
//! | released      | leaves      | asked           | depends on           |
//! | ------------- | ----------- | --------------- | -------------------- |
//! | IS, S         | nothing     | IS, IX          | exclusive            |
//! | IX, SIX       | intent      | S, SIX, X       | exclusive and intent |
//! | X             | exclusive   |                 |                      |
//! | key S, gap S  | nothing     | any key mode    | exclusive            |
//! | key X, gap Insert or X | exclusive |          |                      |

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::time::Duration;

use argali_base::sync::{Arc, Clock, Condvar, Mutex, MutexGuard};
use argali_base::{Error, Health, Lsn, Result, TxnId};
use foldhash::fast::FixedState;

use super::deadlock::WaitGraph;
use super::queue::Queue;
use super::{Blocked, Gap, KeyMode, LockMode, LockName, LockStats, Term};

/// Horizon tags per partition: a KiB, few enough to stay in cache.
const TAGS: usize = 64;
/// Locks each partition keeps room for.
const MAP_KEPT: usize = 256;
/// Emptied queues each partition keeps, so that a lock that comes and goes allocates nothing.
const SPARE_MAX: usize = 64;

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
}

impl Default for LockOptions {
    fn default() -> Self {
        Self {
            partitions: 64,
            deadlock_delay: Duration::from_millis(2),
            look_again: Duration::from_millis(100),
        }
    }
}

/// What one transaction asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who asks.
    pub txn: TxnId,
    /// For what.
    pub name: LockName,
    /// In which mode, beyond what it holds.
    pub mode: LockMode,
    /// The mode it holds on that name already.
    pub held: Option<LockMode>,
    /// For how long.
    pub term: Term,
}

impl Request {
    /// The mode that must be compatible with everybody else's. An instant request asks for its own mode
    /// only: it keeps nothing, and what is held is compatible already.
    pub(super) fn asked(&self) -> LockMode {
        match (self.held, self.term) {
            (Some(held), Term::Long) => held.supremum(self.mode),
            (Some(_), Term::Instant) | (None, _) => self.mode,
        }
    }
}

/// What a granted request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Mode now held ([`Term::Long`]) or passed through ([`Term::Instant`]).
    pub mode: LockMode,
    /// Greatest commit LSN this may depend on; `NONE` when all such commits are long gone.
    pub horizon: Lsn,
}

/// What one transaction sleeps on. It waits for one lock at a time, so it needs one.
#[derive(Clone, Debug, Default)]
pub struct Waiter(Arc<Condvar>);

impl Waiter {
    /// Sleeps until woken or until `until`, having waited for `waited`. Without an end it trusts the
    /// hand-over alone, which is what the models check.
    fn sleep(&self, guard: &mut MutexGuard<'_, Partition>, until: Duration, waited: Duration) {
        if until == Duration::MAX {
            return self.0.wait(guard);
        }
        let _ = self.0.wait_for(guard, until.saturating_sub(waited));
    }
}

/// All locks of one database.
#[derive(Debug)]
pub struct LockTable {
    partitions: Box<[Padded]>,
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

#[derive(Debug)]
struct Partition {
    queues: HashMap<LockName, Queue, FixedState>,
    /// Empty queues whose vectors have capacity.
    spare: Vec<Queue>,
    /// Names with somebody in line; short, since waiters are at most as many as threads.
    contended: Vec<LockName>,
    tags: [Tag; TAGS],
    stats: LockStats,
}

impl Default for Partition {
    fn default() -> Self {
        Self {
            queues: HashMap::default(),
            spare: Vec::new(),
            contended: Vec::new(),
            tags: [Tag::default(); TAGS],
            stats: LockStats::default(),
        }
    }
}

/// Greatest commit LSNs released early under some names.
#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    intent: Lsn,
    exclusive: Lsn,
}

impl Tag {
    fn leave(&mut self, mode: LockMode, commit: Lsn) {
        match mode {
            LockMode::IS
            | LockMode::S
            | LockMode::Key { key: KeyMode::None | KeyMode::S, gap: Gap::None | Gap::S } => {}
            LockMode::IX | LockMode::SIX => self.intent = self.intent.max(commit),
            LockMode::X | LockMode::Key { .. } => self.exclusive = self.exclusive.max(commit),
        }
    }

    fn seen_by(self, mode: LockMode) -> Lsn {
        match mode {
            LockMode::IS | LockMode::IX | LockMode::Key { .. } => self.exclusive,
            LockMode::S | LockMode::SIX | LockMode::X => self.exclusive.max(self.intent),
        }
    }
}

impl LockTable {
    /// An empty table. Once `health` is poisoned nobody waits any longer.
    ///
    /// # Panics
    /// When the number of partitions is not a power of two.
    pub fn new(options: &LockOptions, health: Health) -> Self {
        assert!(options.partitions.is_power_of_two(), "{} partitions", options.partitions);
        Self {
            partitions: (0..options.partitions).map(|_| Padded::default()).collect(),
            hasher: FixedState::default(),
            clock: Clock::system(),
            health,
            deadlock_delay: options.deadlock_delay,
            look_again: options.look_again,
        }
    }

    /// Grants `request` if it needs to wait for nobody. Never waits: safe under latches.
    pub fn try_acquire(&self, request: &Request) -> Option<Granted> {
        let place = self.place(request.name);
        self.lock(place).try_grant(request, place)
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
        let mut partition = self.lock(place);
        if let Some(granted) = partition.try_grant(request, place) {
            return Ok(granted);
        }
        partition.enqueue(request, waiter);
        drop(partition);
        self.wait(request, waiter, timeout)
    }

    /// Takes `name` from `txn`, which holds it, and hands it over. A committed transaction that wrote
    /// passes its commit LSN, any other `Lsn::NONE`.
    pub fn release(&self, txn: TxnId, name: LockName, commit: Lsn) {
        let place = self.place(name);
        self.lock(place).release(txn, name, (place, commit));
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
            tag: (hash >> 48) as usize % TAGS,
        }
    }
}

/// Where a name lives.
#[derive(Clone, Copy, Debug)]
struct Place {
    partition: usize,
    tag: usize,
}

impl Partition {
    fn try_grant(&mut self, request: &Request, place: Place) -> Option<Granted> {
        let granted = match self.queues.get_mut(&request.name) {
            Some(queue) => queue.try_grant(request),
            None if request.term == Term::Instant => true,
            None => {
                let mut queue = self.spare.pop().unwrap_or_default();
                let granted = queue.try_grant(request);
                self.queues.insert(request.name, queue);
                granted
            }
        };
        granted.then(|| {
            self.stats.acquired += 1;
            self.granted(request, place)
        })
    }

    fn granted(&self, request: &Request, place: Place) -> Granted {
        let mode = request.asked();
        Granted { mode, horizon: self.tags[place.tag].seen_by(mode) }
    }

    fn enqueue(&mut self, request: &Request, waiter: &Waiter) {
        let queue = self.queues.entry(request.name).or_default();
        assert!(!queue.is_waiting(request.txn), "L2: {} waits twice", request.txn);
        queue.enqueue(request, waiter);
        if !self.contended.contains(&request.name) {
            self.contended.push(request.name);
        }
        self.stats.waited += 1;
    }

    fn is_waiting(&self, request: &Request) -> bool {
        self.queues.get(&request.name).is_some_and(|queue| queue.is_waiting(request.txn))
    }

    fn release(&mut self, txn: TxnId, name: LockName, (place, commit): (Place, Lsn)) {
        let mode = self.queues.get_mut(&name).and_then(|queue| queue.release(txn));
        let Some(mode) = mode else { panic!("{txn} releases {name}, which it does not hold") };
        if !commit.is_none() {
            // Before anybody is handed the lock: the new holder reads the tag after it wakes.
            self.tags[place.tag].leave(mode, commit);
        }
        self.hand_over(name);
    }

    fn give_up(&mut self, request: &Request, waited: Duration) -> Error {
        self.stats.timeouts += 1;
        let queue = self.queues.get(&request.name);
        let holder = queue.and_then(|queue| queue.blocker(request));
        let holder = holder.expect("whoever is in line waits for somebody: hand-over is complete");
        self.cancel(request);
        Error::LockTimeout { txn: request.txn, lock: describe(request), waited, holder }
    }

    fn cancel(&mut self, request: &Request) {
        if let Some(queue) = self.queues.get_mut(&request.name) {
            queue.cancel(request.txn);
        }
        self.hand_over(request.name);
    }

    /// Serves those whose turn has come, after a release or a cancelled request.
    fn hand_over(&mut self, name: LockName) {
        let Entry::Occupied(mut entry) = self.queues.entry(name) else { return };
        let queue = entry.get_mut();
        queue.hand_over(|wait| _ = wait.waiter.0.notify_one());
        if !queue.has_waiting() && !self.contended.is_empty() {
            self.contended.retain(|contended| *contended != name);
        }
        if entry.get().is_empty() {
            let queue = entry.remove();
            self.keep(queue);
        }
    }

    /// Keeps the memory of an emptied queue, and not that of a map that was once much larger.
    fn keep(&mut self, queue: Queue) {
        if queue.has_capacity() && self.spare.len() < SPARE_MAX {
            self.spare.push(queue);
        }
        if self.queues.capacity() > 4 * MAP_KEPT && self.queues.len() < MAP_KEPT / 4 {
            self.queues.shrink_to(MAP_KEPT);
        }
    }

    fn each_edge(&self, mut each: impl FnMut(TxnId, LockName, TxnId)) {
        for name in &self.contended {
            self.queues[name].edges(|txn, blocker| each(txn, *name, blocker));
        }
    }
}

fn describe(request: &Request) -> String {
    format!("{} on {}", request.mode, request.name)
}
