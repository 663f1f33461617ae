//! What a transaction asks the lock table for, and what it sleeps on until it gets it.
//!
//! A request carries the mode its transaction holds already, which the transaction knows from its own
//! list: the table never has to search for it. For a conversion what counts is the supremum of held and
//! wanted; for an instant request only what is wanted, since nothing is kept.

use std::time::Duration;

use argali_base::sync::{Arc, Condvar, MutexGuard};
use argali_base::{Lsn, TxnId};

use super::{LockMode, LockName, Term};

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
    #[inline]
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
    pub(super) fn sleep<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        until: Duration,
        waited: Duration,
    ) {
        if until == Duration::MAX {
            return self.0.wait(guard);
        }
        let _ = self.0.wait_for(guard, until.saturating_sub(waited));
    }

    /// Wakes whoever sleeps on it; there is at most one.
    pub(super) fn wake(&self) {
        self.0.notify_one();
    }
}

/// Names mode and lock in messages.
pub(super) fn describe(request: &Request) -> String {
    format!("{} on {}", request.mode, request.name)
}
