//! One partition of the lock table: a few names, and what early releases left behind.
//!
//! ```text
//!  │ mutex │ one key, one holder │ tag │ counts │ ──► others: map name → Queue, tag of the trees
//!  └────────── one cache line ──────────────────┘     only when there are any
//! ```
//!
//! A lock on a key nearly always has one holder and nobody in line, and with many partitions it is alone in its
//! own. Then it stands in the partition itself, and taking it, giving it back and leaving a tag touch one
//! cache line. With a second holder, somebody in line, or a second name it is in the map.
//!
//! **Early lock release.** A committing transaction gives its locks back when its commit record has an
//! LSN, before that is durable. Each release that may have written leaves the commit LSN as a *tag*
//! behind, and each acquisition returns the greatest tag it may depend on; the acquirer must not tell
//! anybody what it saw before that LSN is durable (its *horizon*). Tags are kept by hash, never removed
//! and shared by chance: too great a horizon costs a wait, never correctness. A reader of one key must
//! not depend on every writer of the tree, so the tag of the trees has two parts:
//!
//! | released      | leaves      | asked           | depends on           |
//! | ------------- | ----------- | --------------- | -------------------- |
//! | IS, S         | nothing     | IS, IX          | exclusive            |
//! | IX, SIX       | intent      | S, SIX, X       | exclusive and intent |
//! | X             | exclusive   |                 |                      |
//! | key S, gap S  | nothing     | any key mode    | the tag of the keys  |
//! | key X, gap Insert or X | the tag of the keys |  |                      |

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use argali_base::{Error, Lsn, TxnId};
use foldhash::fast::FixedState;

use super::queue::Queue;
use super::request::describe;
use super::{Gap, Granted, KeyMode, LockMode, LockName, Request, Term, Waiter};

/// Locks a partition keeps room for in its map.
const MAP_KEPT: usize = 8;
/// Emptied queues a partition keeps, so that a lock that comes and goes allocates nothing.
const SPARE_MAX: usize = 4;

/// Some of the locks. With its mutex it fills a cache line.
#[derive(Debug, Default)]
pub(super) struct Partition {
    alone: Option<Alone>,
    others: Option<Box<Others>>,
    /// Greatest commit LSN with which a key was given back early.
    tag: Lsn,
    /// Names in `others`.
    queues: u32,
    /// Requests granted; what no longer fits is carried to `others`.
    acquired: u32,
}

/// A lock on a key with one holder and nobody in line: [`LockName`] and grant without gaps between them.
#[derive(Clone, Copy, Debug)]
struct Alone {
    tree: u64,
    /// Of a key; 0 of the end of a tree.
    hash: u64,
    txn: TxnId,
    is_end: bool,
    mode: LockMode,
}

/// The locks that are not alone.
#[derive(Debug, Default)]
struct Others {
    queues: HashMap<LockName, Queue, FixedState>,
    /// Empty queues whose vectors have capacity.
    spare: Vec<Queue>,
    /// Names with somebody in line; short, since waiters are at most as many as threads.
    contended: Vec<LockName>,
    /// What was released early of trees and the database.
    trees: Tag,
    acquired: u64,
}

/// Greatest commit LSNs released early under names with tree modes.
#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    intent: Lsn,
    exclusive: Lsn,
}

impl Tag {
    fn leave(&mut self, mode: LockMode, commit: Lsn) {
        match mode {
            LockMode::IS | LockMode::S | LockMode::Key { .. } => {}
            LockMode::IX | LockMode::SIX => self.intent = self.intent.max(commit),
            LockMode::X => self.exclusive = self.exclusive.max(commit),
        }
    }

    fn seen_by(self, mode: LockMode) -> Lsn {
        match mode {
            LockMode::IS | LockMode::IX | LockMode::Key { .. } => self.exclusive,
            LockMode::S | LockMode::SIX | LockMode::X => self.exclusive.max(self.intent),
        }
    }
}

/// Whether a committed holder of this mode on a key may have written.
const fn may_have_written(mode: LockMode) -> bool {
    !matches!(mode, LockMode::Key { key: KeyMode::None | KeyMode::S, gap: Gap::None | Gap::S })
}

impl Alone {
    /// `None` for a name that no key has.
    fn new(request: &Request) -> Option<Self> {
        let (tree, hash, is_end) = parts(request.name)?;
        Some(Self { tree, hash, txn: request.txn, is_end, mode: request.asked() })
    }

    #[inline]
    fn is(&self, name: LockName) -> bool {
        parts(name).is_some_and(|(tree, hash, is_end)| {
            (self.hash, self.tree, self.is_end) == (hash, tree, is_end)
        })
    }
}

const fn parts(name: LockName) -> Option<(u64, u64, bool)> {
    match name {
        LockName::Key { tree, hash } => Some((tree, hash, false)),
        LockName::End { tree } => Some((tree, 0, true)),
        LockName::Database | LockName::Tree(_) | LockName::Claims { .. } => None,
    }
}

impl Partition {
    /// Grants `request` if it needs to wait for nobody.
    #[inline]
    pub(super) fn try_grant(&mut self, request: &Request) -> Option<Granted> {
        let granted = match &mut self.alone {
            Some(alone) if alone.is(request.name) => {
                if alone.txn == request.txn {
                    if request.term == Term::Long {
                        alone.mode = request.asked();
                    }
                    true
                } else {
                    alone.mode.compatible(request.asked())
                        && (request.term == Term::Instant || self.share(request))
                }
            }
            Some(_) | None => self.try_grant_other(request),
        };
        granted.then(|| self.granted(request))
    }

    /// Grants `request` on a name that is not alone.
    fn try_grant_other(&mut self, request: &Request) -> bool {
        if self.queues > 0
            && let Some(queue) = self.others().queues.get_mut(&request.name)
        {
            return queue.try_grant(request);
        }
        if request.term == Term::Instant {
            return true;
        }
        if self.alone.is_none() {
            self.alone = Alone::new(request);
        }
        self.alone.is_some_and(|alone| alone.is(request.name)) || self.share(request)
    }

    /// Grants `request` in a queue.
    fn share(&mut self, request: &Request) -> bool {
        self.queue(request.name).try_grant(request)
    }

    /// What `request`, which was granted, brings.
    #[inline]
    pub(super) fn granted(&mut self, request: &Request) -> Granted {
        self.count_acquired();
        let mode = request.asked();
        let horizon = match (mode, &self.others) {
            (LockMode::Key { .. }, _) => self.tag,
            (_, Some(others)) => others.trees.seen_by(mode),
            (_, None) => Lsn::NONE,
        };
        Granted { mode, horizon }
    }

    #[inline]
    fn count_acquired(&mut self) {
        if self.acquired == u32::MAX {
            self.others().acquired += u64::from(u32::MAX);
            self.acquired = 0;
        }
        self.acquired += 1;
    }

    /// Requests granted here.
    pub(super) fn acquired(&self) -> u64 {
        self.others.as_ref().map_or(0, |others| others.acquired) + u64::from(self.acquired)
    }

    /// Takes over a lock that was granted elsewhere.
    pub(super) fn adopt(&mut self, txn: TxnId, name: LockName, mode: LockMode) {
        let request = Request { txn, name, mode, held: None, term: Term::Long };
        let granted = self.share(&request);
        assert!(granted, "W3, K5: {mode} of {txn} on {name}, a weak lock or claims, came too late");
    }

    /// Puts `request` in line.
    pub(super) fn enqueue(&mut self, request: &Request, waiter: &Waiter) {
        let queue = self.queue(request.name);
        assert!(!queue.is_waiting(request.txn), "L2: {} waits twice", request.txn);
        queue.enqueue(request, waiter);
        let contended = &mut self.others().contended;
        if !contended.contains(&request.name) {
            contended.push(request.name);
        }
    }

    /// Whether anybody is in line here.
    #[inline]
    pub(super) fn is_contended(&self) -> bool {
        self.queues > 0 && self.others.as_ref().is_some_and(|others| !others.contended.is_empty())
    }

    /// Whether `request` is still in line; if not, it was granted.
    pub(super) fn is_waiting(&self, request: &Request) -> bool {
        self.find(request.name).is_some_and(|queue| queue.is_waiting(request.txn))
    }

    /// Takes `name` from `txn` and hands it over; the mode it had.
    pub(super) fn release(&mut self, txn: TxnId, name: LockName, commit: Lsn) -> LockMode {
        if let Some(alone) = self.alone.take_if(|alone| alone.txn == txn && alone.is(name)) {
            self.leave(alone.mode, commit);
            return alone.mode;
        }
        let queue = self.others.as_mut().and_then(|others| others.queues.get_mut(&name));
        let Some(mode) = queue.and_then(|queue| queue.release(txn)) else {
            panic!("{txn} releases {name}, which it does not hold");
        };
        // Before anybody is handed the lock: the new holder reads the tag after it wakes.
        self.leave(mode, commit);
        self.hand_over(name);
        mode
    }

    #[inline]
    fn leave(&mut self, mode: LockMode, commit: Lsn) {
        match mode {
            LockMode::Key { .. } if may_have_written(mode) => self.tag = self.tag.max(commit),
            LockMode::Key { .. } => {}
            _ => self.others().trees.leave(mode, commit),
        }
    }

    /// Takes `request` out of the line because its time is up.
    pub(super) fn give_up(&mut self, request: &Request, waited: Duration) -> Error {
        let holder = self.find(request.name).and_then(|queue| queue.blocker(request));
        let holder = holder.expect("whoever is in line waits for somebody: hand-over is complete");
        self.cancel(request);
        Error::LockTimeout { txn: request.txn, lock: describe(request), waited, holder }
    }

    /// Takes `request` out of the line and serves those behind it.
    pub(super) fn cancel(&mut self, request: &Request) {
        if let Some(queue) = self.others().queues.get_mut(&request.name) {
            queue.cancel(request.txn);
        }
        self.hand_over(request.name);
    }

    /// Serves those whose turn has come, after a release or a cancelled request.
    fn hand_over(&mut self, name: LockName) {
        let others = self.others.get_or_insert_default();
        let Entry::Occupied(mut entry) = others.queues.entry(name) else { return };
        let queue = entry.get_mut();
        queue.hand_over(|wait| wait.waiter.wake());
        if !queue.has_waiting() && !others.contended.is_empty() {
            others.contended.retain(|contended| *contended != name);
        }
        if entry.get().is_empty() {
            let queue = entry.remove();
            self.queues -= 1;
            others.keep(queue);
        }
    }

    /// Calls `each` with everybody in line, for what, and each one in the way.
    pub(super) fn each_edge(&self, mut each: impl FnMut(TxnId, LockName, TxnId)) {
        let Some(others) = &self.others else { return };
        for name in &others.contended {
            others.queues[name].edges(|txn, blocker| each(txn, *name, blocker));
        }
    }

    fn find(&self, name: LockName) -> Option<&Queue> {
        self.others.as_ref()?.queues.get(&name)
    }

    /// The queue of `name`, made if need be; a holder that was alone stands in it.
    fn queue(&mut self, name: LockName) -> &mut Queue {
        let alone = self.alone.take_if(|alone| alone.is(name));
        let others = self.others.get_or_insert_default();
        let Others { queues, spare, .. } = &mut **others;
        queues.entry(name).or_insert_with(|| {
            self.queues += 1;
            let mut queue = spare.pop().unwrap_or_default();
            if let Some(Alone { txn, mode, .. }) = alone {
                queue.grant(txn, mode);
            }
            queue
        })
    }

    fn others(&mut self) -> &mut Others {
        self.others.get_or_insert_default()
    }
}

impl Others {
    /// Keeps the memory of an emptied queue, and not that of a map that was once much larger.
    fn keep(&mut self, queue: Queue) {
        if queue.has_capacity() && self.spare.len() < SPARE_MAX {
            self.spare.push(queue);
        }
        if self.queues.capacity() > 8 * MAP_KEPT && self.queues.len() < MAP_KEPT {
            self.queues.shrink_to(MAP_KEPT);
        }
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use argali_base::sync::Mutex;

    #[test]
    fn a_partition_fills_a_cache_line() {
        assert_eq!(size_of::<Mutex<Partition>>(), 64);
    }
}
