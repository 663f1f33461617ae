//! Deadlocks: cycles in the wait-for graph.
//!
//! ```text
//!  t1 holds a, waits for b ──► t2 holds b, waits for a ──► t1
//! ```
//!
//! A request that has waited for [`LockOptions::deadlock_delay`](super::LockOptions) looks for a cycle
//! through itself; most waits are over by then, so most never look. If there is one, the looker is the
//! victim: it is the only transaction whose thread is at hand.
//!
//! Two arguments make this complete and exact:
//!
//! - *No cycle is missed.* Edges appear only when somebody gets in line, or is granted something, and
//!   whoever is granted something does not wait. So the last edge of a cycle is made by a transaction
//!   getting in line, which looks afterwards and finds the cycle whole: a cycle does not go away by
//!   itself. Looking again from time to time is a safeguard only.
//! - *No cycle is invented.* The search holds all partitions in which somebody was in line when it began
//!   (taken in order), so the graph it walks is part of one that existed, and has every edge of a cycle
//!   that was there before. Walking it partition by partition would join edges of different instants.
//!
//! Left out: choosing the cheapest victim, which needs a way to fail another thread's request.

use std::collections::{HashMap, HashSet};

use argali_base::TxnId;

use super::LockName;

/// A transaction in line for a lock: a line of the lock view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who waits.
    pub txn: TxnId,
    /// For which lock.
    pub lock: LockName,
    /// For whom: holders, then those ahead in line.
    pub behind: Vec<TxnId>,
}

/// Who waits for whom, at one instant.
#[derive(Debug, Default)]
pub(super) struct WaitGraph {
    edges: HashMap<TxnId, Vec<TxnId>>,
}

impl WaitGraph {
    /// `waiter` waits for `blocker`.
    pub(super) fn add(&mut self, waiter: TxnId, blocker: TxnId) {
        self.edges.entry(waiter).or_default().push(blocker);
    }

    /// The transaction `txn` waits for on some cycle through `txn`, if there is a cycle.
    pub(super) fn cycle_through(&self, txn: TxnId) -> Option<TxnId> {
        self.from(txn).iter().copied().find(|next| self.reaches(*next, txn))
    }

    fn reaches(&self, start: TxnId, goal: TxnId) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![start];
        while let Some(txn) = open.pop() {
            if txn == goal {
                return true;
            }
            if seen.insert(txn) {
                open.extend_from_slice(self.from(txn));
            }
        }
        false
    }

    fn from(&self, txn: TxnId) -> &[TxnId] {
        self.edges.get(&txn).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(edges: &[(u64, u64)], txn: u64) -> Option<u64> {
        let mut graph = WaitGraph::default();
        for (from, to) in edges {
            graph.add(TxnId::new(*from), TxnId::new(*to));
        }
        graph.cycle_through(TxnId::new(txn)).map(TxnId::get)
    }

    #[test]
    fn cycles_are_found_from_every_member_and_only_from_members() {
        let edges = [(1, 2), (2, 3), (3, 1), (4, 1), (2, 5)];
        assert_eq!(cycle(&edges, 1), Some(2));
        assert_eq!(cycle(&edges, 2), Some(3));
        assert_eq!(cycle(&edges, 3), Some(1));
        assert_eq!(cycle(&edges, 4), None, "t4 waits for a cycle but is not on it");
        assert_eq!(cycle(&edges, 5), None);
    }

    #[test]
    fn diamonds_are_no_cycles() {
        assert_eq!(cycle(&[(1, 2), (1, 3), (2, 4), (3, 4)], 1), None);
        assert_eq!(cycle(&[(1, 2), (1, 3), (3, 1)], 1), Some(3));
    }
}
