//! The table of all locks: finding the partition, and waiting.
//!
//! ```text
//!  hash(name) ──► partition (mutex) ──► the lock             exact
//!                                  └──► tag                  commit LSNs, by hash only
//! ```
//!
//! Intention locks stand here only while somebody asks for the whole; else in their transactions' own lists
//! (see [`super::weak`]). Claims have no name but while somebody waits for them (see [`super::claims`]).
//!
//! A request that cannot be granted gets in line and sleeps on its own condition variable,
//! under the partition's mutex. Whoever releases hands the lock over and wakes exactly the new holders:
//! "no longer in line" *means* granted. While it sleeps it looks for deadlocks (see [`super::deadlock`])
//! and gives up after its timeout, with an error that names lock and holder.
//!
//! There are many more partitions than threads, so that a lock is mostly alone in its own. One bit for each says
//! whether somebody is in line there: it changes under the partition's mutex, and a look at who waits for
//! whom needs to stop only those.

use std::ops::Bound;
use std::time::Duration;

use argali_base::sync::{Arc, AtomicU64, Clock, Mutex, MutexGuard, Ordering};
use argali_base::{Apart, Error, Health, Lsn, Result, TxnId};

use super::claims::{ClaimList, Claims, Write};
use super::deadlock::WaitGraph;
use super::gaps::Gaps;
use super::partition::Partition;
use super::ranges::Span;
use super::request::describe;
use super::weak::{Strength, WeakList, WeakLocks, WeakMutations};
use super::{Blocked, Gap, Granted, KeyMode, LockMode, LockName, LockStats, Request, Term, Waiter};

/// Shape of a lock table.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// Partitions, a power of two of at most 65536: how many requests can be served at once.
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
            partitions: 2048,
            deadlock_delay: Duration::from_millis(2),
            look_again: Duration::from_millis(100),
            mutations: WeakMutations::default(),
        }
    }
}

/// All locks of one database.
#[derive(Debug)]
pub struct LockTable {
    partitions: Box<[Line]>,
    /// A bit a partition: whether somebody is in line there.
    contended: Box<[AtomicU64]>,
    waited: AtomicU64,
    deadlocks: AtomicU64,
    timeouts: AtomicU64,
    weak: WeakLocks,
    claims: Claims,
    gaps: Gaps,
    /// Greatest commit LSN whose locks went before it was durable.
    horizon: Apart<AtomicU64>,
    clock: Clock,
    health: Health,
    deadlock_delay: Duration,
    look_again: Duration,
}

/// What a range lies between.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The mode of claims that somebody waits for.
const CLAIMED: LockMode = LockMode::Key { key: KeyMode::X, gap: Gap::None };

/// A partition on a cache line of its own.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Line(Mutex<Partition>);

impl LockTable {
    /// An empty table. Once `health` is poisoned nobody waits any longer.
    ///
    /// # Panics
    /// When the number of partitions is not a power of two.
    pub fn new(options: &LockOptions, health: Health) -> Self {
        assert!(options.partitions.is_power_of_two(), "{} partitions", options.partitions);
        Self {
            partitions: (0..options.partitions).map(|_| Line::default()).collect(),
            contended: (0..options.partitions.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            waited: AtomicU64::new(0),
            deadlocks: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            weak: WeakLocks::new(options.mutations),
            claims: Claims::new(),
            gaps: Gaps::new(options.mutations.gaps_uncounted),
            horizon: Apart(AtomicU64::new(0)),
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
    #[inline]
    pub fn try_note(&self, list: &WeakList, request: &Request) -> Option<Granted> {
        if Strength::of(request.asked()) != Strength::Weak {
            return None;
        }
        let place = self.place(request.name);
        self.weak.try_note(list, (request, place.hash), |txn, mode| {
            self.lock(place).adopt(txn, request.name, mode);
        })
    }

    /// Grants a weak lock on a name that its transaction does not hold, in its `list`, if nobody asks for the
    /// whole; the horizon that comes with it. `None`: ask as for any other.
    #[inline]
    pub fn note_new(
        &self,
        list: &WeakList,
        (txn, name, mode): (TxnId, LockName, LockMode),
    ) -> Option<Lsn> {
        self.weak.try_note_new(list, (txn, name, mode))
    }

    /// Grants `request` if it needs to wait for nobody. Never waits: safe under latches.
    #[inline]
    pub fn try_acquire(&self, request: &Request) -> Option<Granted> {
        let place = self.place(request.name);
        if Strength::of(request.mode) == Strength::Key && !Gaps::is_new(request) {
            return self.lock(place).try_grant(request);
        }
        let asking = self.shut_gate(request, place);
        let granted = self.lock(place).try_grant(request);
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
        let granted = if let Some(granted) = partition.try_grant(request) {
            granted
        } else {
            partition.enqueue(request, waiter);
            self.note_line(place, &partition);
            drop(partition);
            self.waited.fetch_add(1, Ordering::Relaxed);
            self.wait(request, waiter, timeout)?
        };
        Ok(asking.granted(granted))
    }

    /// Takes `name`, noted in `list`, from its transaction; `false` when it is in the table.
    #[inline]
    pub fn forget(list: &WeakList, name: LockName, mode: LockMode) -> bool {
        Strength::of(mode) == Strength::Weak && list.remove(name)
    }

    /// Takes `name` from `txn`, which holds it, and hands it over. A committed transaction that wrote
    /// passes its commit LSN, any other `Lsn::NONE`.
    #[inline]
    pub fn release(&self, txn: TxnId, name: LockName, commit: Lsn) {
        let place = self.place(name);
        let mut partition = self.lock(place);
        let contended = partition.is_contended();
        let mode = partition.release(txn, name, commit);
        if contended {
            self.note_line(place, &partition);
        }
        drop(partition);
        if mode.relies_on_gap() {
            self.gaps.leave(name);
        }
        if Strength::of(mode) == Strength::Strong {
            let exclusive = if mode == LockMode::X { commit } else { Lsn::NONE };
            self.weak.open(place.hash, exclusive);
        }
    }

    /// A list for the claims of one transaction at a time.
    pub fn add_claims(&self) -> Arc<ClaimList> {
        self.claims.add_list()
    }

    /// Notes in `list` that `txn` relies on what lies within `bounds` of `tree`, and what it validates from then
    /// on; `false` when there is no room.
    pub fn claim(
        &self,
        list: &Arc<ClaimList>,
        txn: TxnId,
        (tree, bounds): (u64, Bounds<'_>),
    ) -> bool {
        self.claims.claim(list, txn, &Span::new(tree, bounds))
    }

    /// Whether somebody may have claims in `tree`, a leaf of which is latched.
    #[inline]
    pub fn are_claims_in(&self, tree: u64) -> bool {
        self.claims.are_in(tree)
    }

    /// The lock to wait for because of others' claims on the key of `write`, whose leaf is latched. Call
    /// [`LockTable::write_is_done`] after the wait, whatever came of it.
    pub fn claimed(&self, own: &Arc<ClaimList>, write: &Write<'_>) -> Option<LockName> {
        self.claims.against(own, write, |holder, name| {
            self.lock(self.place(name)).adopt(holder, name, CLAIMED);
        })
    }

    /// A writer that waited for claims in `tree` has made its change, or given up.
    pub fn write_is_done(&self, txn: TxnId, tree: u64) {
        self.claims.is_done(txn, tree);
    }

    /// What a writer holds that waits for claims within these bounds of `tree`, which `txn` has not yet claimed.
    #[inline]
    pub fn writer_within(
        &self,
        list: &ClaimList,
        txn: TxnId,
        (tree, bounds): (u64, Bounds<'_>),
    ) -> Option<LockName> {
        self.claims.writer_in(list, txn, &Span::new(tree, bounds))
    }

    /// Takes all claims of `txn` off its list.
    pub fn release_claims(&self, list: &ClaimList, txn: TxnId) {
        for tree in list.clear() {
            self.release(txn, LockName::Claims { tree, txn }, Lsn::NONE);
        }
    }

    /// Whether nobody relies on a gap between keys of `tree`. To be asked under the latch of the leaf with the gap;
    /// whoever comes to rely on it meanwhile finds the leaf latched, or changed.
    #[inline]
    pub fn gaps_are_free(&self, tree: u64) -> bool {
        self.gaps.are_free(tree)
    }

    /// Greatest commit LSN whose locks were released before it was durable.
    pub fn horizon(&self) -> Lsn {
        Lsn::new(self.horizon.load(Ordering::Acquire))
    }

    /// The transaction that committed at `commit` is about to release its locks.
    pub fn raise_horizon(&self, commit: Lsn) {
        self.horizon.fetch_max(commit.get(), Ordering::AcqRel);
    }

    /// What a request does first that somebody must see. A strong one shuts the gate, and has all weak locks on its
    /// name in the table; one that relies on a gap is counted.
    #[inline]
    fn shut_gate<'t>(&'t self, request: &'t Request, place: Place) -> Asking<'t> {
        let strong = Strength::of(request.asked()) == Strength::Strong;
        if strong {
            self.weak.shut(place.hash);
            self.weak.expose(request.name, |txn, mode| {
                self.lock(place).adopt(txn, request.name, mode);
            });
        }
        let relies = Gaps::is_new(request);
        if relies {
            self.gaps.enter(request.name);
        }
        Asking { table: self, request, place, opens: strong, relies }
    }

    /// Everybody who waits, at one instant.
    pub fn blocked(&self) -> Vec<Blocked> {
        let mut all: Vec<Blocked> = Vec::new();
        for (_, partition) in self.stop() {
            partition.each_edge(|txn, lock, blocker| match all.last_mut() {
                Some(last) if last.txn == txn => last.behind.push(blocker),
                Some(_) | None => all.push(Blocked { txn, lock, behind: vec![blocker] }),
            });
        }
        all
    }

    /// Counters of all partitions.
    pub fn stats(&self) -> LockStats {
        let in_table: u64 = self.partitions.iter().map(|line| line.0.lock().acquired()).sum();
        LockStats {
            acquired: self.weak.acquired() + in_table,
            waited: self.waited.load(Ordering::Relaxed),
            deadlocks: self.deadlocks.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            escalations: 0,
            claims: self.claims.noted(),
        }
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
                self.note_line(place, &partition);
                return Err(error);
            }
            if waited >= timeout {
                let error = partition.give_up(request, waited);
                self.note_line(place, &partition);
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                return Err(error);
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
        Ok(partition.granted(request))
    }

    /// Fails `request` if it is on a cycle.
    fn break_deadlock(&self, request: &Request) -> Result<()> {
        let mut partitions = self.stop();
        let mut graph = WaitGraph::default();
        for (_, partition) in &partitions {
            partition.each_edge(|txn, _, blocker| graph.add(txn, blocker));
        }
        let Some(holder) = graph.cycle_through(request.txn) else { return Ok(()) };
        let place = self.place(request.name);
        let own = partitions.iter_mut().find(|(index, _)| *index == place.partition);
        let (_, own) = own.expect("whoever is on a cycle is in line");
        own.cancel(request);
        self.note_line(place, own);
        self.deadlocks.fetch_add(1, Ordering::Relaxed);
        Err(Error::Deadlock { txn: request.txn, lock: describe(request), holder })
    }

    /// Stops the lines: all partitions in which somebody waits, in order.
    fn stop(&self) -> Vec<(usize, MutexGuard<'_, Partition>)> {
        let words = self.contended.iter().map(|word| word.load(Ordering::SeqCst)).enumerate();
        let indices = words.flat_map(|(nth, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| nth * 64 + bit)
        });
        indices.map(|index| (index, self.partitions[index].0.lock())).collect()
    }

    /// Notes whether somebody is in line in the partition, which is locked and may just have changed.
    fn note_line(&self, place: Place, partition: &Partition) {
        let (word, bit) = (&self.contended[place.partition / 64], 1 << (place.partition % 64));
        if partition.is_contended() {
            word.fetch_or(bit, Ordering::SeqCst);
        } else {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    #[inline]
    fn lock(&self, place: Place) -> MutexGuard<'_, Partition> {
        self.partitions[place.partition].0.lock()
    }

    #[inline]
    fn place(&self, name: LockName) -> Place {
        let hash = name.spread();
        Place { partition: (hash >> 48) as usize & (self.partitions.len() - 1), hash }
    }
}

/// Where a name lives.
#[derive(Clone, Copy, Debug)]
struct Place {
    partition: usize,
    hash: u64,
}

/// A request under way; when it ends, it opens the gate again that it has shut, and is counted no more, unless
/// there is a lock now.
struct Asking<'t> {
    table: &'t LockTable,
    request: &'t Request,
    place: Place,
    opens: bool,
    /// Whether it was counted because of a gap.
    relies: bool,
}

impl Asking<'_> {
    /// What was granted, with what a strong lock depends on: any commit may have held a weak one.
    #[inline]
    fn granted(mut self, granted: Granted) -> Granted {
        self.relies = false;
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
        if self.relies {
            self.table.gaps.leave(self.request.name);
        }
    }
}
