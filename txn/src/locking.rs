//! What one transaction asks of the lock manager.
//!
//! ```text
//!  lock(name, mode) ── held already? ── covers mode ──► nothing to ask
//!                          │
//!                          └── ask for held ∨ mode: at once, or in line
//! ```
//!
//! Strict two-phase locking: locks are taken as work goes on and given back together, at commit or
//! after rollback. Read committed gives read locks back early through [`Txn::unlock`].
//!
//! Two rules keep locks from tangling with other things that can be waited for: nobody waits for a lock
//! under a latch (L4), and whoever waits gives its room in the log's ring back meanwhile. Else the holder
//! of the lock could be waiting for that very room.

use argali_base::{Lsn, Result};

use crate::lock::{Granted, LockTable, Request, Term};
use crate::txn::{Kind, Mode};
use crate::{LockMode, LockName, Txn};

impl Txn {
    /// Takes a lock, waiting under FIFO fairness up to the timeout. Never call it under a latch.
    ///
    /// # Panics
    /// When a transaction that is rolling back asks for a lock it does not hold (rule L3).
    pub fn lock(&mut self, name: LockName, mode: LockMode) -> Result<()> {
        self.nested.check(name, mode)?;
        if self.intend(name, mode) {
            return Ok(());
        }
        match self.request(name, mode, Term::Long) {
            None => Ok(()),
            Some(request) => self.acquire(&request),
        }
    }

    /// Takes an intention lock that the transaction has not got, if nobody asks for the whole: what nearly all
    /// of them begin with, by the shortest way. `false`: ask as for any other.
    #[inline]
    fn intend(&mut self, name: LockName, mode: LockMode) -> bool {
        let plain = self.kind == Kind::User && self.mode == Mode::Forward;
        if !plain || !matches!(mode, LockMode::IS | LockMode::IX) {
            return false;
        }
        let id = self.id;
        let (manager, kit) = self.parts();
        if kit.held.get(name).is_some() {
            return false;
        }
        let noted = manager.locks.note_new(&kit.weak, (id, name, mode));
        if let Some(horizon) = noted {
            kit.held.add(name, mode);
            self.horizon = self.horizon.max(horizon);
        }
        noted.is_some()
    }

    /// Takes a lock only if it is free at once: safe under a latch.
    pub fn try_lock(&mut self, name: LockName, mode: LockMode) -> bool {
        match self.request(name, mode, Term::Long) {
            None => true,
            Some(request) => self.try_acquire(&request),
        }
    }

    /// Waits until the lock could be granted, then holds nothing (instant duration).
    pub fn lock_instant(&mut self, name: LockName, mode: LockMode) -> Result<()> {
        match self.request(name, mode, Term::Instant) {
            None => Ok(()),
            Some(request) => self.acquire(&request),
        }
    }

    /// Whether the lock could be granted at once; holds nothing.
    pub fn try_lock_instant(&mut self, name: LockName, mode: LockMode) -> bool {
        match self.request(name, mode, Term::Instant) {
            None => true,
            Some(request) => self.try_acquire(&request),
        }
    }

    /// Whether nobody, this transaction included, holds or awaits anything on `name` that excludes `mode`. A
    /// question: it takes nothing, so every kind of transaction may ask it, under a latch, too.
    pub fn is_unlocked(&self, name: LockName, mode: LockMode) -> bool {
        let request = Request { txn: self.id, name, mode, held: None, term: Term::Instant };
        self.holds(name).is_none() && self.manager.locks.try_acquire(&request).is_some()
    }

    /// Whether nobody, this transaction included, relies on a gap between keys of `tree` that stays empty. Ask
    /// under the latch of the leaf with the gap.
    #[inline]
    pub fn gaps_are_free(&self, tree: u64) -> bool {
        self.manager.locks.gaps_are_free(tree)
    }

    /// Escalation: locks the whole tree (or heap) with root page `tree` for the locks on keys held in it, if
    /// those are many (see [`TxnCore::set_escalation`](crate::TxnCore::set_escalation)) and nobody
    /// else stands in the way. It only tries, and tries again after as many more. Readers get S, writers X.
    /// The locks on keys are given back then: what they guarded, the tree's lock guards. Do not call it
    /// under a latch; it may have many locks to give back.
    pub fn escalate(&mut self, tree: u64) {
        // A nested action is judged by the names of its locks (N1).
        if self.nested.is_active() || self.kit().held.below(tree) < self.manager.escalate_at() {
            return;
        }
        let name = LockName::Tree(tree);
        let writes = self.holds(name).is_some_and(|held| held.covers(LockMode::IX));
        if !self.try_lock(name, if writes { LockMode::X } else { LockMode::S }) {
            self.kit_mut().held.recount(tree);
            return;
        }
        let id = self.id;
        let (manager, kit) = self.parts();
        // Without a tag: whoever asks for them next must lock the tree first, which this one gives back
        // with its commit LSN.
        kit.held.take_below(tree, |name| manager.locks.release(id, name, Lsn::NONE));
        manager.note_escalation();
    }

    /// The mode held on the tree (or heap) with root page `tree`, if that covers `mode` and neither
    /// [`escalate`](Self::escalate) nor the rules of nested actions have anything to do with it.
    #[inline]
    pub fn intention(&self, tree: u64, mode: LockMode) -> Option<LockMode> {
        let (held, below) = self.kit().held.tree(tree)?;
        let covers = held == mode || held.covers(mode);
        (covers && self.nested.is_idle() && below < self.manager.escalate_at()).then_some(held)
    }

    /// Gives one lock back early (read committed). Does nothing when it is not held.
    pub fn unlock(&mut self, name: LockName) {
        let Some(mode) = self.kit_mut().held.remove(name) else { return };
        if !LockTable::forget(&self.kit().weak, name, mode) {
            self.manager.locks.release(self.id, name, Lsn::NONE);
        }
    }

    /// The mode held on `name`, if any.
    #[inline]
    pub fn holds(&self, name: LockName) -> Option<LockMode> {
        self.kit().held.get(name)
    }

    /// Notes that something was read without a lock: any commit whose locks went early may be behind it.
    /// Call it after the read.
    #[inline]
    pub fn note_unlocked_read(&mut self) {
        self.horizon = self.horizon.max(self.manager.horizon());
    }

    /// Notes that what this transaction does rests on the record at `lsn`, which nobody has forced: its commit
    /// waits for it, even if it writes nothing itself.
    pub fn depend_on(&mut self, lsn: Lsn) {
        self.horizon = self.horizon.max(lsn);
    }

    /// What to ask the lock table for; `None` when nothing needs to be asked.
    #[inline]
    fn request(&self, name: LockName, mode: LockMode, term: Term) -> Option<Request> {
        let (mode, term) = self.manager.weaken(mode, term)?;
        let held = self.holds(name);
        if self.kind != Kind::User || held.is_some_and(|held| held.covers(mode)) {
            return None;
        }
        assert!(!self.compensating(), "L3: {} asks for {mode} on {name} in rollback", self.id);
        Some(Request { txn: self.id, name, mode, held, term })
    }

    #[inline]
    fn acquire(&mut self, request: &Request) -> Result<()> {
        if self.try_acquire(request) {
            return Ok(());
        }
        let parked = self.kit_mut().space.park();
        let timeout = self.options.lock_timeout;
        let granted = self.manager.locks.acquire(request, &self.kit().waiter, timeout)?;
        self.note(request, granted);
        let (manager, kit) = self.parts();
        kit.space.unpark(&manager.wal, parked)
    }

    #[inline]
    pub(crate) fn try_acquire(&mut self, request: &Request) -> bool {
        let locks = &self.manager.locks;
        let noted = match request.mode {
            LockMode::IS | LockMode::IX => locks.try_note(&self.kit().weak, request),
            _ => None,
        };
        let granted = noted.or_else(|| locks.try_acquire(request));
        if let Some(granted) = granted {
            self.note(request, granted);
        }
        granted.is_some()
    }

    #[inline]
    fn note(&mut self, request: &Request, granted: Granted) {
        self.horizon = self.horizon.max(granted.horizon);
        if request.term == Term::Long {
            let held = &mut self.kit_mut().held;
            match request.held {
                Some(_) => held.convert(request.name, granted.mode),
                None => held.add(request.name, granted.mode),
            }
        }
    }
}
