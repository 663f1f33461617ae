//! The lock manager: names, modes, queues, deadlocks.
//!
//! A *latch* protects a page in memory for an instant; a *lock* protects the meaning of data for the
//! life of a transaction. Latches are the buffer pool's. Locks are here, and know nothing of pages:
//! what is locked is a [`LockName`], and keys are named by hash.
//!
//! ```text
//!  Database   IS ─┐
//!  Tree 7     IX ─┤  intention modes say: something below is locked
//!  Key a1…     X ─┘  the key and the gap below it, each with its own mode
//! ```
//!
//! Rules, numbered for the asserts that cite them:
//!
//! - **L1** One name is locked either with tree modes or with key modes.
//! - **L2** A transaction waits for at most one lock (it is one thread).
//! - **L3** Rollback asks for no lock it does not hold: it can neither wait nor deadlock.
//! - **L4** Nobody waits for a lock under a latch (the caller's duty; `try_lock` is safe there).
//!
//! Reading order: [`mode`] (the tables), [`queue`] (who is granted next), [`partition`] (many queues, and
//! early release), [`table`] (waiting), [`weak`] (locks kept out of the table), [`gaps`] (inserts that need to
//! ask for none), [`claims`] (ranges of keys, by [`ranges`]), [`deadlock`] (the wait-for graph), [`held`] (one
//! transaction's own list).
//!
//! Left out: locks on pages, claims of those who will write, and going back from a lock on a tree to locks on
//! its keys.

mod claims;
mod deadlock;
mod gaps;
pub(crate) mod held;
mod mode;
mod partition;
mod queue;
mod ranges;
mod request;
mod table;
mod weak;

use std::fmt;
use std::hash::{Hash, Hasher};

use argali_base::TxnId;

pub use claims::{ClaimList, Write};
pub use deadlock::Blocked;
pub(crate) use held::HeldLocks;
pub use mode::{Gap, KeyMode, LockMode};
pub use request::{Granted, Request, Waiter};
pub use table::{LockOptions, LockTable};
pub use weak::{WeakList, WeakMutations};

/// What can be locked. Keys are named by hash: two keys with one hash only wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockName {
    /// All of it.
    Database,
    /// The tree or heap with this root page.
    Tree(u64),
    /// A key (and the gap below it) of the tree with this root, or a row of the heap.
    Key {
        /// Root page of the tree.
        tree: u64,
        /// Hash of the key; of a row, its page and slot.
        hash: u64,
    },
    /// The gap above the last key of the tree.
    End {
        /// Root page of the tree.
        tree: u64,
    },
    /// All that a transaction claims of a tree: locked only while somebody waits for it.
    Claims {
        /// Root page of the tree.
        tree: u64,
        /// Whose claims.
        txn: TxnId,
    },
}

impl LockName {
    /// The tree whose intention lock stands above this lock, if it is on a key or an end.
    #[inline]
    pub(crate) const fn tree_above(self) -> Option<u64> {
        match self {
            Self::Key { tree, .. } | Self::End { tree } => Some(tree),
            Self::Database | Self::Tree(_) | Self::Claims { .. } => None,
        }
    }

    /// The name in one word; different names may have the same.
    #[inline]
    const fn word(self) -> u64 {
        match self {
            Self::Database => 0,
            Self::Tree(tree) => tree,
            Self::Key { tree, hash } => hash ^ tree.rotate_left(32),
            Self::End { tree } => !tree,
            Self::Claims { tree, txn } => !txn.get() ^ tree.rotate_left(32),
        }
    }

    /// The word spread over the upper bits: heap rows have similar ones.
    #[inline]
    const fn spread(self) -> u64 {
        argali_base::spread(self.word())
    }
}

impl Hash for LockName {
    /// One word instead of two or three: what a map is asked for many times is hashed as often.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.word());
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("the database"),
            Self::Tree(tree) => write!(f, "tree p{tree}"),
            Self::Key { tree, hash } => write!(f, "key #{hash:016x} of tree p{tree}"),
            Self::End { tree } => write!(f, "the end of tree p{tree}"),
            Self::Claims { tree, txn } => write!(f, "a range of tree p{tree} read by {txn}"),
        }
    }
}

/// How long a granted lock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Until the transaction ends or gives it back.
    Long,
    /// Not at all: it was only waited for (instant duration).
    Instant,
}

/// Counters since open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockStats {
    /// Requests granted, at once or after a wait.
    pub acquired: u64,
    /// Requests that had to wait.
    pub waited: u64,
    /// Requests refused because they closed a cycle.
    pub deadlocks: u64,
    /// Requests refused because they waited too long.
    pub timeouts: u64,
    /// Times a transaction got one lock on a tree for the many it held on keys.
    pub escalations: u64,
    /// Ranges that were claimed instead of locking their rows and gaps, a few rows at a time.
    pub claims: u64,
}
