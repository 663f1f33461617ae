//! Everybody who holds or awaits one lock, and who is granted next.
//!
//! ```text
//!  granted:  t1 S   t2 S
//!  waiting:  t2 S→X (conversion) │ t3 X   t4 S   t5 IS …
//!            conversions first   │ then arrivals, in order
//! ```
//!
//! - An arrival is granted when its mode is compatible with every grant of others *and* with everything
//!   that waits ahead of it. So nobody who waits is overtaken by somebody who would delay it (no
//!   starvation), while requests that cannot disturb each other pass.
//! - A conversion looks at grants only. Whoever waits ahead of it may be waiting for the very lock the
//!   converting transaction holds; queueing behind it would be a deadlock of our own making.
//! - An instant request of a transaction that holds the lock is served like a conversion, but changes
//!   no grant.
//! - Whoever changes the queue hands the lock over itself ([`Queue::hand_over`]): a woken transaction
//!   owns the lock already and cannot lose a race for it.
//!
//! This file knows no threads; everything here happens under the partition's mutex.

use argali_base::TxnId;

use super::{LockMode, Request, Term, Waiter};

/// One holder.
#[derive(Clone, Copy, Debug)]
struct Grant {
    txn: TxnId,
    mode: LockMode,
}

/// One request in line.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) txn: TxnId,
    /// Mode that must become compatible: for a conversion the supremum of held and wanted.
    pub(super) asked: LockMode,
    /// Whether the transaction holds the lock in some mode already.
    conversion: bool,
    term: Term,
    pub(super) waiter: Waiter,
}

/// The queue of one lock. Most locks have one holder and nobody in line, and then no heap memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    first: Option<Grant>,
    /// Further holders; only while `first` is taken.
    more: Vec<Grant>,
    waiting: Vec<Wait>,
}

impl Queue {
    /// Whether nobody holds or awaits the lock.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.waiting.is_empty()
    }

    /// Whether it has memory worth keeping for another lock.
    pub(super) fn has_capacity(&self) -> bool {
        self.more.capacity() + self.waiting.capacity() > 0
    }

    /// Grants `request` if it needs to wait for nobody.
    pub(super) fn try_grant(&mut self, request: &Request) -> bool {
        let free = self.blocker(request).is_none();
        if free && request.term == Term::Long {
            self.grant(request.txn, request.asked());
        }
        free
    }

    /// Puts `request` in line.
    pub(super) fn enqueue(&mut self, request: &Request, waiter: &Waiter) {
        let conversion = request.held.is_some();
        let wait = Wait {
            txn: request.txn,
            asked: request.asked(),
            conversion,
            term: request.term,
            waiter: waiter.clone(),
        };
        let conversions = self.waiting.iter().take_while(|ahead| ahead.conversion).count();
        let at = if conversion { conversions } else { self.waiting.len() };
        self.waiting.insert(at, wait);
    }

    /// Whether `txn` is still in line.
    pub(super) fn is_waiting(&self, txn: TxnId) -> bool {
        self.waiting.iter().any(|wait| wait.txn == txn)
    }

    /// Whether anybody is in line.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes `txn` out of the line; the caller hands over to those behind it.
    pub(super) fn cancel(&mut self, txn: TxnId) {
        self.waiting.retain(|wait| wait.txn != txn);
    }

    /// Takes the lock from `txn` and returns the mode it had; the caller hands over.
    pub(super) fn release(&mut self, txn: TxnId) -> Option<LockMode> {
        if let Some(grant) = self.first.take_if(|grant| grant.txn == txn) {
            self.first = self.more.pop();
            return Some(grant.mode);
        }
        let at = self.more.iter().position(|grant| grant.txn == txn)?;
        Some(self.more.swap_remove(at).mode)
    }

    /// Grants everybody in line whose turn has come and tells `served` about each.
    pub(super) fn hand_over(&mut self, mut served: impl FnMut(&Wait)) {
        let mut at = 0;
        while at < self.waiting.len() {
            if self.blockers_of(at).next().is_some() {
                at += 1;
                continue;
            }
            let wait = self.waiting.remove(at);
            if wait.term == Term::Long {
                self.grant(wait.txn, wait.asked);
            }
            served(&wait);
        }
    }

    /// A transaction in the way of `request`, which is either in line or about to be.
    pub(super) fn blocker(&self, request: &Request) -> Option<TxnId> {
        if let Some(at) = self.waiting.iter().position(|wait| wait.txn == request.txn) {
            return self.blockers_of(at).next();
        }
        let ahead = if request.held.is_some() { 0 } else { self.waiting.len() };
        self.blockers(request.txn, request.asked(), ahead).next()
    }

    /// Calls `each` with every transaction in line and everyone it waits for.
    pub(super) fn edges(&self, mut each: impl FnMut(TxnId, TxnId)) {
        for (at, wait) in self.waiting.iter().enumerate() {
            self.blockers_of(at).for_each(|blocker| each(wait.txn, blocker));
        }
    }

    fn blockers_of(&self, at: usize) -> impl Iterator<Item = TxnId> {
        let wait = &self.waiting[at];
        self.blockers(wait.txn, wait.asked, if wait.conversion { 0 } else { at })
    }

    /// Holders first, then those among the first `ahead` in line, whose modes conflict with `asked`.
    fn blockers(&self, txn: TxnId, asked: LockMode, ahead: usize) -> impl Iterator<Item = TxnId> {
        let holders = self.first.iter().chain(&self.more).map(|grant| (grant.txn, grant.mode));
        let ahead = self.waiting[..ahead].iter().map(|wait| (wait.txn, wait.asked));
        holders
            .chain(ahead)
            .filter(move |(other, mode)| *other != txn && !mode.compatible(asked))
            .map(|(other, _)| other)
    }

    /// Gives `txn` the lock in `mode`, in place of what it held: the caller has seen to it that it may.
    pub(super) fn grant(&mut self, txn: TxnId, mode: LockMode) {
        let Some(first) = &mut self.first else {
            self.first = Some(Grant { txn, mode });
            return;
        };
        match std::iter::once(first).chain(&mut self.more).find(|grant| grant.txn == txn) {
            Some(grant) => grant.mode = mode,
            None => self.more.push(Grant { txn, mode }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LockName;
    use LockMode::{IS, IX, S, X};

    fn ask(txn: u64, mode: LockMode, held: Option<LockMode>) -> Request {
        Request { txn: TxnId::new(txn), name: LockName::Tree(1), mode, held, term: Term::Long }
    }

    /// Grants or queues, as the table does; whether it was granted.
    fn arrive(queue: &mut Queue, request: &Request) -> bool {
        let granted = queue.try_grant(request);
        if !granted {
            queue.enqueue(request, &Waiter::default());
        }
        granted
    }

    fn leave(queue: &mut Queue, txn: u64) -> Vec<u64> {
        queue.release(TxnId::new(txn)).expect("it holds the lock");
        let mut served = Vec::new();
        queue.hand_over(|wait| served.push(wait.txn.get()));
        served
    }

    #[test]
    fn arrivals_are_served_in_order_and_readers_do_not_starve_a_writer() {
        let mut queue = Queue::default();
        assert!(arrive(&mut queue, &ask(1, S, None)));
        assert!(!arrive(&mut queue, &ask(2, X, None)));
        assert!(!arrive(&mut queue, &ask(3, S, None)), "S would pass the waiting X");
        assert!(!arrive(&mut queue, &ask(4, S, None)));
        assert!(!arrive(&mut queue, &ask(5, X, None)));
        assert_eq!(leave(&mut queue, 1), [2]);
        assert_eq!(leave(&mut queue, 2), [3, 4]);
        assert_eq!(leave(&mut queue, 3), [0_u64; 0]);
        assert_eq!(leave(&mut queue, 4), [5]);
    }

    #[test]
    fn a_request_passes_only_those_it_cannot_delay() {
        let mut queue = Queue::default();
        assert!(arrive(&mut queue, &ask(1, IX, None)));
        assert!(!arrive(&mut queue, &ask(2, S, None)));
        assert!(arrive(&mut queue, &ask(3, IS, None)), "IS disturbs neither IX nor the waiting S");
        assert!(!arrive(&mut queue, &ask(4, IX, None)), "IX would delay the waiting S");
        assert_eq!(leave(&mut queue, 1), [2]);
    }

    #[test]
    fn conversions_go_ahead_of_arrivals() {
        let mut queue = Queue::default();
        assert!(arrive(&mut queue, &ask(1, S, None)));
        assert!(arrive(&mut queue, &ask(2, S, None)));
        assert!(!arrive(&mut queue, &ask(3, X, None)));
        assert!(!arrive(&mut queue, &ask(2, X, Some(S))));
        assert_eq!(leave(&mut queue, 1), [2]);
        assert_eq!(leave(&mut queue, 2), [3]);
    }

    #[test]
    fn a_conversion_does_not_wait_for_those_who_wait_for_it() {
        let mut queue = Queue::default();
        assert!(arrive(&mut queue, &ask(1, IS, None)));
        assert!(arrive(&mut queue, &ask(2, IS, None)));
        assert!(!arrive(&mut queue, &ask(1, X, Some(IS))));
        assert!(arrive(&mut queue, &ask(2, IX, Some(IS))));
        assert_eq!(leave(&mut queue, 2), [1]);
    }

    #[test]
    fn an_instant_request_waits_its_turn_and_holds_nothing() {
        let mut queue = Queue::default();
        let instant = |txn, mode, held| Request { term: Term::Instant, ..ask(txn, mode, held) };
        assert!(arrive(&mut queue, &instant(1, X, None)));
        assert!(queue.is_empty());
        assert!(arrive(&mut queue, &ask(1, S, None)));
        assert!(arrive(&mut queue, &instant(1, X, Some(S))), "its own S is not in its way");
        assert!(!arrive(&mut queue, &instant(2, X, None)));
        assert!(!arrive(&mut queue, &ask(3, X, None)));
        assert_eq!(leave(&mut queue, 1), [2, 3], "t2 passes through, t3 holds");
        assert_eq!(leave(&mut queue, 3), [0_u64; 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn edges_name_everybody_in_the_way() {
        let mut queue = Queue::default();
        arrive(&mut queue, &ask(1, S, None));
        arrive(&mut queue, &ask(2, S, None));
        arrive(&mut queue, &ask(3, X, None));
        arrive(&mut queue, &ask(4, S, None));
        let mut edges = Vec::new();
        queue.edges(|from, to| edges.push((from.get(), to.get())));
        assert_eq!(edges, [(3, 1), (3, 2), (4, 3)]);
    }
}
