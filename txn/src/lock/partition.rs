//! One partition of the lock table: the queues of its names, and what early releases left behind.
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
use std::time::Duration;

use argali_base::{Error, Lsn, TxnId};
use foldhash::fast::FixedState;

use super::queue::Queue;
use super::request::describe;
use super::{Gap, Granted, KeyMode, LockMode, LockName, LockStats, Request, Term, Waiter};

/// Horizon tags per partition: a KiB, few enough to stay in cache.
const TAGS: usize = 64;
/// Locks a partition keeps room for.
const MAP_KEPT: usize = 256;
/// Emptied queues a partition keeps, so that a lock that comes and goes allocates nothing.
const SPARE_MAX: usize = 64;

/// Some of the locks.
#[derive(Debug)]
pub(super) struct Partition {
    queues: HashMap<LockName, Queue, FixedState>,
    /// Empty queues whose vectors have capacity.
    spare: Vec<Queue>,
    /// Names with somebody in line; short, since waiters are at most as many as threads.
    contended: Vec<LockName>,
    tags: [Tag; TAGS],
    pub(super) stats: LockStats,
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

/// Where a name lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) partition: usize,
    /// Bits of the hash that choose the tag.
    pub(super) tag: usize,
    pub(super) hash: u64,
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

impl Partition {
    /// Grants `request` if it needs to wait for nobody.
    pub(super) fn try_grant(&mut self, request: &Request, place: Place) -> Option<Granted> {
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

    /// What `request`, which was granted, brings.
    pub(super) fn granted(&self, request: &Request, place: Place) -> Granted {
        let mode = request.asked();
        Granted { mode, horizon: self.tags[place.tag % TAGS].seen_by(mode) }
    }

    /// Takes over a lock that was granted elsewhere.
    pub(super) fn adopt(&mut self, txn: TxnId, name: LockName, mode: LockMode) {
        let request = Request { txn, name, mode, held: None, term: Term::Long };
        let queue = self.queues.entry(name).or_insert_with(|| self.spare.pop().unwrap_or_default());
        assert!(
            queue.try_grant(&request),
            "W3: {mode} of {txn} on {name}, a weak lock, came too late"
        );
    }

    /// Puts `request` in line.
    pub(super) fn enqueue(&mut self, request: &Request, waiter: &Waiter) {
        let queue = self.queues.entry(request.name).or_default();
        assert!(!queue.is_waiting(request.txn), "L2: {} waits twice", request.txn);
        queue.enqueue(request, waiter);
        if !self.contended.contains(&request.name) {
            self.contended.push(request.name);
        }
        self.stats.waited += 1;
    }

    /// Whether `request` is still in line; if not, it was granted.
    pub(super) fn is_waiting(&self, request: &Request) -> bool {
        self.queues.get(&request.name).is_some_and(|queue| queue.is_waiting(request.txn))
    }

    /// Takes `name` from `txn` and hands it over; the mode it had.
    pub(super) fn release(
        &mut self,
        txn: TxnId,
        name: LockName,
        (place, commit): (Place, Lsn),
    ) -> LockMode {
        let mode = self.queues.get_mut(&name).and_then(|queue| queue.release(txn));
        let Some(mode) = mode else { panic!("{txn} releases {name}, which it does not hold") };
        if !commit.is_none() {
            // Before anybody is handed the lock: the new holder reads the tag after it wakes.
            self.tags[place.tag % TAGS].leave(mode, commit);
        }
        self.hand_over(name);
        mode
    }

    /// Takes `request` out of the line because its time is up.
    pub(super) fn give_up(&mut self, request: &Request, waited: Duration) -> Error {
        self.stats.timeouts += 1;
        let queue = self.queues.get(&request.name);
        let holder = queue.and_then(|queue| queue.blocker(request));
        let holder = holder.expect("whoever is in line waits for somebody: hand-over is complete");
        self.cancel(request);
        Error::LockTimeout { txn: request.txn, lock: describe(request), waited, holder }
    }

    /// Takes `request` out of the line and serves those behind it.
    pub(super) fn cancel(&mut self, request: &Request) {
        if let Some(queue) = self.queues.get_mut(&request.name) {
            queue.cancel(request.txn);
        }
        self.hand_over(request.name);
    }

    /// Serves those whose turn has come, after a release or a cancelled request.
    fn hand_over(&mut self, name: LockName) {
        let Entry::Occupied(mut entry) = self.queues.entry(name) else { return };
        let queue = entry.get_mut();
        queue.hand_over(|wait| wait.waiter.wake());
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

    /// Calls `each` with everybody in line, for what, and each one in the way.
    pub(super) fn each_edge(&self, mut each: impl FnMut(TxnId, LockName, TxnId)) {
        for name in &self.contended {
            self.queues[name].edges(|txn, blocker| each(txn, *name, blocker));
        }
    }
}
