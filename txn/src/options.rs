//! What a transaction and its commit can be asked for.
//!
//! Isolation is enforced by the access methods, which ask [`Txn::isolation`](crate::Txn::isolation) and
//! choose locks by it; this crate only carries it. Durability is chosen per commit, not per database:
//! the same program may want a transfer to be safe and a click counter to be fast.

use std::time::Duration;

use crate::lock::{Gap, KeyMode, LockMode, Term};

/// Which effects of concurrent transactions a transaction may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    /// As if transactions ran one after another: ranges are locked, phantoms are kept out.
    #[default]
    Serializable,
    /// What was read once stays as it was; ranges may grow.
    RepeatableRead,
    /// Only committed data is read; read locks go at once.
    ReadCommitted,
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Returns when the commit record is durable.
    #[default]
    Sync,
    /// As `Sync`, but waits up to this long for others to share the flush.
    Group(Duration),
    /// Returns at once; durable within the background force's delay. See `wait_durable`.
    Relaxed,
}

/// How a transaction runs.
#[derive(Clone, Debug)]
pub struct TxnOptions {
    /// What it may see of others.
    pub isolation: Isolation,
    /// How long one lock request waits before it fails with `LockTimeout`.
    pub lock_timeout: Duration,
}

impl Default for TxnOptions {
    /// Serializable, and ten seconds for a lock: long enough for any sound transaction to end, short
    /// enough that a forgotten one is noticed and named.
    fn default() -> Self {
        Self { isolation: Isolation::default(), lock_timeout: Duration::from_secs(10) }
    }
}

/// Rules a test can switch off to see which guarantee falls.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent switches, one per rule
pub struct Mutations {
    /// A commit is acknowledged before its record is durable.
    pub no_force_at_commit: bool,
    /// A CLR points at the record it took back, not at its predecessor: it is taken back again.
    pub clr_ignores_undo_next: bool,
    /// Locks go at commit, but nobody who sees the changes waits for them to be durable.
    pub release_locks_early_without_horizon: bool,
    /// A restart does not take the locks of transactions in doubt again.
    pub forget_prepared_locks: bool,
    /// Keys are read without a lock.
    pub no_read_locks: bool,
    /// A read lock on a key is given back at once, whatever the isolation.
    pub read_locks_released_at_once: bool,
    /// A write lock on a key is given back at once.
    pub write_locks_released_at_once: bool,
    /// Gaps between keys are neither locked nor asked for.
    pub no_next_key_locks: bool,
    /// Writers do not look for claims on their keys.
    pub writers_overlook_claims: bool,
    /// Readers look at the page before they claim what they found on it, not afterwards.
    pub claims_come_late: bool,
    /// Readers claim rows that somebody active may have changed.
    pub claims_of_unsettled_rows: bool,
}

impl Mutations {
    /// What is left of a request for a lock once the broken rules are taken off; `None` for nothing.
    pub(crate) fn weaken(self, mode: LockMode, term: Term) -> Option<(LockMode, Term)> {
        let LockMode::Key { key, gap } = mode else { return Some((mode, term)) };
        let at_once = match key {
            KeyMode::None => false,
            KeyMode::S => self.read_locks_released_at_once,
            KeyMode::X => self.write_locks_released_at_once,
        };
        let key = if self.no_read_locks && key == KeyMode::S { KeyMode::None } else { key };
        let gap = if self.no_next_key_locks { Gap::None } else { gap };
        let nothing = key == KeyMode::None && gap == Gap::None;
        let term = if at_once { Term::Instant } else { term };
        (!nothing).then_some((LockMode::Key { key, gap }, term))
    }

    /// Whether readers must lock, so that their locks can be weakened.
    pub(crate) fn weaken_reads(self) -> bool {
        self.no_read_locks || self.read_locks_released_at_once || self.no_next_key_locks
    }
}
