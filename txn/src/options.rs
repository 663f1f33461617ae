//! What a transaction and its commit can be asked for.
//!
//! Isolation is enforced by the access methods, which ask [`Txn::isolation`](crate::Txn::isolation) and
//! choose locks by it; this crate only carries it. Durability is chosen per commit, not per database:
//! the same program may want a transfer to be safe and a click counter to be fast.

use std::time::Duration;

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
}
