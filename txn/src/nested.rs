//! Nested top actions: work that stays although its transaction is rolled back (ARIES, section 9).
//!
//! ```text
//!  log  @10 a   @20 n   @30 n'   @40 CLR (empty) →@10   @50 b
//!               └── the action ──┘
//!  undo ◄─ b, then @40 jumps to @10: n and n' stay
//! ```
//!
//! Until its empty CLR is in the log the action belongs to the transaction like everything else: a failure
//! inside takes it back, and so does a crash. Afterwards it stays, as soon as the CLR is durable, which it is
//! with the next commit of anybody. Its locks stay with the transaction to the end.
//!
//! Undo goes backward over one chain, so what is jumped over must not touch what lies before it: a row changed
//! by `a`, then by `n`, would get back the value from before `a`, or not be found at all. Hence:
//!
//! - **N1** Within a nested action nothing can be locked for writing that its transaction has locked for
//!   writing before, be it a row or, when that is locked as a whole, its tree. What only nested actions
//!   have written they may write again.
//! - **N2** Nested actions do not nest: the inner one would have to keep off the outer one, too.
//!
//! Structure changes need none of this: they are single records that are never undone.

use std::collections::HashSet;

use argali_base::{Error, Lsn, Result};
use argali_wal::{Body, Changes, Record};

use crate::manager::TxnCore;
use crate::txn::Mode;
use crate::{LockMode, LockName, Txn};

/// What N1 needs to know. Two empty words in transactions without nested actions.
#[derive(Debug, Default)]
#[allow(clippy::box_collection)] // every transaction carries them, hardly any has one
pub(crate) struct Nested {
    /// In an action: what the transaction itself has locked for writing.
    forbidden: Option<Box<HashSet<LockName>>>,
    /// What only nested actions have locked for writing.
    settled: Option<Box<HashSet<LockName>>>,
}

impl Nested {
    /// Whether an action is going on.
    pub(crate) fn is_active(&self) -> bool {
        self.forbidden.is_some()
    }

    /// Whether there was none so far, so that N1 has nothing to say.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.forbidden.is_none() && self.settled.is_none()
    }

    /// Checks N1 for a lock about to be taken; outside of an action, notes that the transaction itself writes.
    #[inline]
    pub(crate) fn check(&mut self, name: LockName, mode: LockMode) -> Result<()> {
        if self.is_idle() || !mode.writes() { Ok(()) } else { self.check_write(name) }
    }

    fn check_write(&mut self, name: LockName) -> Result<()> {
        match &self.forbidden {
            Some(forbidden) if forbidden.contains(&name) => {
                let why = format!("its transaction wrote there before: {name}");
                Err(Error::Invalid { what: "nested action", why })
            }
            Some(_) => Ok(()),
            None => {
                if let Some(settled) = &mut self.settled {
                    settled.remove(&name);
                }
                Ok(())
            }
        }
    }
}

impl Txn {
    /// Begins a nested top action. End it with [`Txn::end_nested`], or with a rollback to a savepoint set
    /// before it and [`Txn::leave_nested`]. `Invalid` within another one (N2).
    pub fn enter_nested(&mut self) -> Result<()> {
        if self.nested.is_active() {
            let why = "nested actions do not nest".to_owned();
            return Err(Error::Invalid { what: "nested action", why });
        }
        let settled = &self.nested.settled;
        let settled = |name: &LockName| settled.as_ref().is_some_and(|set| set.contains(name));
        let written = exclusive(self).filter(|name| !settled(name)).collect();
        self.nested.forbidden = Some(Box::new(written));
        Ok(())
    }

    /// The action is over, kept or taken back.
    pub fn leave_nested(&mut self) {
        let Some(forbidden) = self.nested.forbidden.take() else { return };
        let own: Vec<_> = exclusive(self).filter(|name| !forbidden.contains(name)).collect();
        self.nested.settled.get_or_insert_default().extend(own);
    }

    /// Ends a nested top action begun at `start` (= `last_lsn()` then): an empty CLR that jumps over it.
    /// From now on, undoing this transaction leaves what the action did. In compensating mode the
    /// record being undone still needs its own CLR.
    pub fn end_nested(&mut self, start: Lsn) -> Result<()> {
        let last = self.last_lsn();
        assert!(start <= last, "a nested top action that began at {start}, after {last}");
        if start == last {
            self.leave_nested();
            return Ok(());
        }
        self.admit(0, 0)?;
        let forward = self.mode == Mode::Forward;
        let id = self.id;
        let (TxnCore { wal, .. }, kit) = self.parts();
        let body = Body::Compensation { changes: Changes::EMPTY, undo_next: start };
        let mut chain = kit.slot.lock(); // Rule 2, as in `update`.
        let record = Record { txn: id, prev: chain.last, body };
        let lsn = wal.append(kit.space.ticket(0), &record);
        let undo_next = if forward { start } else { chain.undo_next };
        chain.extend(lsn, undo_next);
        drop(chain);
        self.leave_nested();
        Ok(())
    }
}

fn exclusive(txn: &Txn) -> impl Iterator<Item = LockName> {
    txn.kit().held.iter().filter(|(_, mode)| mode.is_exclusive()).map(|(name, _)| name)
}
