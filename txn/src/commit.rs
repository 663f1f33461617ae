//! Commit: one record, locks given back early, then the wait.
//!
//! ```text
//!  append Commit ─► release locks (tagged with its LSN) ─► wait until durable ─► leave the table
//!       │                       │                                 │
//!       │                       └ others may see the changes,     └ failed: CommitUnknown,
//!       │                         but wait for this LSN too         never a rollback
//!       └ from here on the transaction is committed unless the log loses its tail
//! ```
//!
//! Waiting for the disk while holding locks would make every hot row as slow as the disk. Locks
//! released before the commit is durable are safe as long as nobody *tells* what they saw too early
//! (early lock release, as in Aether, Johnson et al. 2010): the log is in order, so whoever saw these
//! changes and wrote has a later commit record and becomes durable later; whoever only read waits for
//! its *horizon*, the greatest commit LSN it may have seen. Relaxed commits raise no horizon: what they
//! wrote may be lost, and was never promised.
//!
//! The commit record is the transaction's last one: a restart that finds it has nothing to do for it. (The
//! `End` of ARIES would say so once more; only a rollback has one.) System transactions do not wait: their
//! changes matter only to records behind them.

use argali_base::{Error, Lsn, Result};
use argali_wal::{Body, Record, TxnState};

use crate::lock::LockTable;
use crate::manager::TxnCore;
use crate::txn::{Kind, Mode};
use crate::{Durability, Txn};

impl Txn {
    /// Appends the commit record, releases the locks (early), waits as `durability` says. Returns the
    /// commit record's LSN. After the append a failure is `CommitUnknown`; before it, the transaction is
    /// rolled back. A transaction without records only waits for its horizon, and returns that.
    ///
    /// # Panics
    /// When the transaction is a loser of a restart.
    pub fn commit(mut self, durability: Durability) -> Result<Lsn> {
        assert!(self.kind != Kind::Loser, "{} lost and cannot commit", self.id);
        if let Some(cause) = self.kit_mut().failed.take() {
            self.abort()?;
            return Err(Error::TxnFailed { cause });
        }
        assert_eq!(self.mode, Mode::Forward, "{} commits while rolling back", self.id);
        let durability = match self.kind {
            Kind::System => Durability::Relaxed,
            Kind::User | Kind::Loser => durability,
        };
        if !self.is_in_table() {
            return self.finish_reading(durability);
        }
        self.admit_ending()?;
        let commit = self.append_commit();
        self.let_go(commit, durability);
        self.finish_commit(commit, durability)
    }

    /// Takes the log space of [`Txn::commit`]. After an error everything is as it was; afterwards `commit` rolls
    /// nothing back by itself: it succeeds, or its outcome is unknown.
    pub fn admit_commit(&mut self) -> Result<()> {
        if !self.is_in_table() {
            return Ok(());
        }
        self.admit_ending()
    }

    /// Log space for the records that end it.
    pub(crate) fn admit_ending(&mut self) -> Result<()> {
        let (manager, kit) = self.parts();
        kit.space.admit_ending(&manager.wal)
    }

    /// Nothing was written; but what was read must not be told before it is durable.
    fn finish_reading(&mut self, durability: Durability) -> Result<Lsn> {
        self.release_locks(Lsn::NONE);
        let horizon = self.horizon;
        self.retire();
        if !horizon.is_none() {
            self.manager.wait_durable(horizon, durability)?;
        }
        Ok(horizon)
    }

    fn append_commit(&mut self) -> Lsn {
        let id = self.id;
        let (manager, kit) = self.parts();
        let body = Body::Commit { durable: manager.wal.durable().end() };
        let mut chain = kit.slot.lock(); // Rule 2, as in `update`.
        let record = Record { txn: id, prev: chain.last, body };
        let lsn = manager.wal.append(kit.space.ticket(0), &record);
        chain.extend(lsn, Lsn::NONE);
        chain.state = TxnState::Committed;
        lsn
    }

    /// Releases the locks and leaves word of it.
    fn let_go(&mut self, commit: Lsn, durability: Durability) {
        let silent = self.manager.mutations().release_locks_early_without_horizon;
        let tag = match durability {
            Durability::Sync | Durability::Group(_) if !silent => commit,
            Durability::Sync | Durability::Group(_) | Durability::Relaxed => Lsn::NONE,
        };
        self.manager.raise_horizon(tag);
        self.release_locks(tag);
    }

    fn finish_commit(&mut self, commit: Lsn, durability: Durability) -> Result<Lsn> {
        if let Err(error) = self.manager.wait_durable(commit, durability) {
            // The slot keeps saying "committed": nobody may roll this back.
            self.kit = None;
            return Err(Error::CommitUnknown { lsn: commit, cause: error.to_string() });
        }
        let slot = &self.kit().slot;
        slot.leave(&mut slot.lock());
        self.leave_table();
        self.retire();
        Ok(commit)
    }

    /// Appends the record that says the rollback is complete, and leaves the table.
    pub(crate) fn append_end(&mut self) {
        let id = self.id;
        let (manager, kit) = self.parts();
        let mut chain = kit.slot.lock(); // Rule 2: a checkpoint sees the record or the entry.
        let record = Record { txn: id, prev: chain.last, body: Body::End };
        manager.wal.append(kit.space.ticket(0), &record);
        kit.slot.leave(&mut chain);
        drop(chain);
        self.leave_table();
    }

    /// The slot is free.
    fn leave_table(&mut self) {
        self.in_table = false;
        self.manager.table.ended(&self.kit().slot, || self.manager.wal.tail());
    }

    /// Gives every lock back, the last taken first. `commit` marks what a committed writer held.
    pub(crate) fn release_locks(&mut self, commit: Lsn) {
        let Self { manager, kit, id, .. } = self;
        if let Some(kit) = kit {
            if std::mem::take(&mut kit.claimed) {
                manager.locks.release_claims(&kit.claims, *id);
            }
            let weak = &kit.weak;
            kit.held.take_all(|name, mode| {
                if !LockTable::forget(weak, name, mode) {
                    manager.locks.release(*id, name, commit);
                }
            });
        }
    }

    /// Gives log space and kit back: the transaction has ended.
    pub(crate) fn retire(&mut self) {
        let mut kit = self.kit.take().expect("a transaction retires once");
        kit.space.release(&self.manager.wal);
        if self.is_in_table() {
            kit.slot.leave(&mut kit.slot.lock());
        }
        kit.savepoints.clear();
        kit.visit = None;
        kit.failed = None;
        self.manager.recycle(kit);
    }
}

impl TxnCore {
    /// Waits until the record at `lsn` is durable, as `durability` says.
    pub(crate) fn wait_durable(&self, lsn: Lsn, durability: Durability) -> Result<()> {
        if self.mutations().no_force_at_commit || self.wal.durable().covers(lsn) {
            return Ok(());
        }
        match durability {
            Durability::Sync => self.wal.force(lsn).map(drop),
            Durability::Group(patience) => self.wal.force_within(lsn, patience).map(drop),
            Durability::Relaxed => Ok(()),
        }
    }
}
