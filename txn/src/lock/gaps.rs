//! Whether anybody relies on gaps in a tree: mostly nobody does, and then an insert needs no gap lock.
//!
//! ```text
//!  relies (gap S, X)   count up ─► the lock ─► is the leaf still as it was? ─► … ─► lock goes, count down
//!  inserts             latch the leaf ─► is the count 0? ── yes: no gap is anybody's
//!                                               └── no: ask for the gap, as ever
//! ```
//!
//! - **G1** Who asks for a lock that relies on a gap is counted before the lock is granted, until it is gone, and
//!   looks at the leaf with the gap afterwards. Who inserts latches the leaf first and looks at the count
//!   afterwards. So one of them sees the other: the insert the count, or the other one the latch, or the change.
//!
//! Counts are kept by hash of the tree. Meeting by chance costs a way through the table, never correctness.

use argali_base::sync::{AtomicUsize, Ordering, fence};

use super::{Gap, LockMode, LockName, Request, Term};

const GATES: usize = 64;

/// How many locks rely on gaps.
#[derive(Debug)]
pub(super) struct Gaps {
    relying: Box<[AtomicUsize]>,
    /// Mutation switch: G1 is broken.
    uncounted: bool,
}

impl LockMode {
    /// Whether its holder relies on a gap that stays empty.
    #[inline]
    pub const fn relies_on_gap(self) -> bool {
        matches!(self, Self::Key { gap: Gap::S | Gap::X, .. })
    }
}

impl Gaps {
    pub(super) fn new(uncounted: bool) -> Self {
        Self { relying: (0..GATES).map(|_| AtomicUsize::new(0)).collect(), uncounted }
    }

    /// Whether `request` would make its transaction rely on one more gap.
    #[inline]
    pub(super) fn is_new(request: &Request) -> bool {
        request.term == Term::Long
            && request.mode.relies_on_gap()
            && !request.held.is_some_and(LockMode::relies_on_gap)
    }

    /// A request that [is new](Gaps::is_new) begins.
    pub(super) fn enter(&self, name: LockName) {
        if !self.uncounted {
            self.of(name).fetch_add(1, Ordering::SeqCst); // G1
        }
    }

    /// It was refused, or its lock is gone.
    pub(super) fn leave(&self, name: LockName) {
        if self.uncounted {
            return;
        }
        let before = self.of(name).fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "G1: {name} is left by more than have entered");
    }

    /// Whether nobody relies on a gap of `tree`. To be asked under the latch of the leaf with the gap.
    #[inline]
    pub(super) fn are_free(&self, tree: u64) -> bool {
        fence(Ordering::SeqCst); // G1: behind the latch
        self.gate(tree).load(Ordering::SeqCst) == 0
    }

    fn of(&self, name: LockName) -> &AtomicUsize {
        self.gate(name.tree_above().expect("only keys and ends have gaps"))
    }

    #[inline]
    fn gate(&self, tree: u64) -> &AtomicUsize {
        &self.relying[(LockName::Tree(tree).spread() >> 40) as usize % GATES]
    }
}
