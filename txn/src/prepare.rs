//! Two-phase commit, a participant's side: prepare, then commit or abort by somebody else's decision.
//!
//! ```text
//!                 ┌ forced                                    ┌ forced
//!  running ─ prepare ─► in doubt ──────────────── commit ─► committed ─► ended
//!                          │  ▲                                ┌ forced
//!                          │  └ restart, any number of times   │
//!                          └───────────── abort: empty CLR ────┴─► rolling back ─► ended
//! ```
//!
//! A prepared transaction has promised that it can still do both: its changes are in the log and so is its
//! vote ([`Vote`]), which names its locks. Until the decision it is neither winner nor loser. Restart
//! repeats its history, leaves it alone in undo and takes its locks again before anybody else comes.
//!
//! - **P1** The vote is durable before `prepare` returns.
//! - **P2** From the vote on the transaction logs nothing until it is decided: any later record of it *is*
//!   the decision. Commit has a record of its own; a rollback begins with an empty CLR. So a rollback cut
//!   short by a crash is finished by the restart, never half done and in doubt again.
//! - **P3** A decision is durable before its caller hears of it. (Commit as always; an abort forces its CLR
//!   before the first change is taken back, so that a failed undo cannot bring the doubt back.)
//! - **P4** All locks stay, read locks too, until the decision. The one on the database goes with the vote:
//!   it says "somebody is changing things just now", and in doubt nobody is. A rollback takes it again. Claims
//!   on ranges stay as long as the process: a transaction that has voted reads no more.

use argali_base::{Error, Lsn, Result, TxnId};
use argali_wal::{ActiveTxn, Body, Changes, Record, TxnState};

use crate::lock::{Request, Term};
use crate::manager::TxnCore;
use crate::txn::{Kind, Mode};
use crate::vote::{PIECE_BYTES, check_gid};
use crate::{Durability, LockMode, LockName, Txn, TxnManager, Vote};

/// A transaction in doubt. Dropping it decides nothing: it stays in the table, with its locks, and the next
/// restart finds it again.
#[derive(Debug)]
pub struct Prepared {
    txn: Txn,
    vote: Vote,
}

impl Txn {
    /// First phase: forces a vote that makes the transaction outlive this process, and leaves it in doubt: go
    /// on with [`Prepared::new`]. `note` is kept with the vote. After an error before the vote was in the log
    /// everything is as it was. Was it only not found durable ([`Error::Poisoned`]), the transaction is
    /// [in doubt](Txn::is_in_doubt), must be dropped, and may be found by the next open.
    ///
    /// # Panics
    /// When it is no user's transaction.
    pub fn prepare(&mut self, gid: &str, note: &[u8]) -> Result<Vote> {
        assert!(self.kind == Kind::User, "{} is the engine's and has nobody to ask", self.id);
        if let Some(cause) = &self.kit().failed {
            return Err(Error::TxnFailed { cause: cause.clone() });
        }
        assert_eq!(self.mode, Mode::Forward, "{} prepares while rolling back", self.id);
        check_gid(gid)?;
        let locks = self.kit().held.iter().filter(|(name, _)| *name != LockName::Database); // P4
        let (gid, locks) = (gid.to_owned(), locks.collect());
        let vote = Vote { gid, locks, reserve_bytes: 0, note: note.to_vec() };
        let (vote, at) = self.cast(vote)?;
        self.unlock(LockName::Database); // P4
        self.manager.wait_durable(at, Durability::Sync)?; // P1
        Ok(vote)
    }

    /// Whether it has voted and was not decided.
    pub fn is_in_doubt(&self) -> bool {
        self.mode == Mode::InDoubt
    }

    /// Appends the vote, piece by piece; LSN of the last one.
    fn cast(&mut self, mut vote: Vote) -> Result<(Vote, Lsn)> {
        // The first admission also reserves what ends a transaction that wrote nothing.
        self.admit(PIECE_BYTES.min(vote.encode().len()), 0)?;
        vote.reserve_bytes = self.kit().space.reserved() as u64;
        let bytes = vote.encode();
        let pieces = bytes.len().div_ceil(PIECE_BYTES);
        let mut at = Lsn::NONE;
        for (nth, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            if nth > 0 {
                self.admit(piece.len(), 0)?;
            }
            let before = (nth * PIECE_BYTES) as u64;
            at = self.append_piece(before, nth + 1 == pieces, piece);
        }
        self.mode = Mode::InDoubt;
        self.kit_mut().space.park();
        Ok((vote, at))
    }

    fn append_piece(&mut self, before: u64, last: bool, piece: &[u8]) -> Lsn {
        self.in_table = true;
        let id = self.id;
        let (TxnCore { wal, .. }, kit) = self.parts();
        let body = Body::Prepare { durable: wal.durable().end(), before, last, piece };
        let mut chain = kit.slot.lock(); // Rule 2, as in `update`.
        kit.slot.enter(&mut chain, id, wal.tail());
        let record = Record { txn: id, prev: chain.last, body };
        let lsn = wal.append(kit.space.ticket(piece.len()), &record);
        chain.extend(lsn, lsn);
        if last {
            chain.state = TxnState::Prepared;
        }
        lsn
    }

    /// The record that decides for a rollback: a CLR that takes nothing back.
    fn append_abort(&mut self) -> Result<Lsn> {
        self.admit_ending()?;
        let id = self.id;
        let (TxnCore { wal, .. }, kit) = self.parts();
        let mut chain = kit.slot.lock(); // Rule 2, as in `update`.
        let undo_next = chain.undo_next;
        let body = Body::Compensation { changes: Changes::EMPTY, undo_next };
        let record = Record { txn: id, prev: chain.last, body };
        let lsn = wal.append(kit.space.ticket(0), &record);
        chain.extend(lsn, undo_next);
        chain.state = TxnState::Running;
        drop(chain);
        self.mode = Mode::RollingBack;
        Ok(lsn)
    }
}

impl Prepared {
    /// A transaction that has cast `vote`.
    ///
    /// # Panics
    /// When it has not.
    pub fn new(txn: Txn, vote: Vote) -> Self {
        assert!(txn.is_in_doubt(), "{} has cast no vote", txn.id);
        Self { txn, vote }
    }

    /// Its number.
    pub fn id(&self) -> TxnId {
        self.txn.id()
    }

    /// What it promised.
    pub fn vote(&self) -> &Vote {
        &self.vote
    }

    /// Its place in the transaction table. The last record is that of its vote.
    pub fn chain(&self) -> ActiveTxn {
        self.txn.kit().slot.lock().entry()
    }

    /// Takes the log space of a commit: what could stand in its way. After an error the transaction is still
    /// in doubt.
    pub fn admit_commit(&mut self) -> Result<()> {
        self.txn.admit_commit()
    }

    /// Second phase: commits, whatever happened since. As [`Txn::commit`], `Durability::Sync`.
    ///
    /// # Panics
    /// When [`Prepared::admit_commit`] has not taken the space: an error could now roll it back.
    pub fn commit(mut self) -> Result<Lsn> {
        assert!(
            self.txn.kit().space.covers_ending(),
            "{} commits without an admission",
            self.txn.id
        );
        self.txn.mode = Mode::Forward;
        self.txn.commit(Durability::Sync)
    }

    /// Decides for a rollback: from now on a restart takes the transaction back. Waits for the lock on the
    /// database like any writer (so that a check of everything sees no half of it); after an error in that
    /// wait the transaction is still in doubt, after [`Error::Poisoned`] nobody knows.
    pub fn decide_abort(&mut self) -> Result<()> {
        if self.txn.mode != Mode::InDoubt {
            return Ok(());
        }
        self.txn.lock(LockName::Database, LockMode::IX)?; // P4
        let decided = self.txn.append_abort()?; // P2
        self.txn.manager.wait_durable(decided, Durability::Sync) // P3
    }

    /// Second phase: takes everything back. The decision is durable when this returns, and so it is after an
    /// error of the rollback itself, which then goes on in the background
    /// ([`stranded`](crate::TxnCore::stranded)).
    ///
    /// # Panics
    /// Without [`Prepared::decide_abort`] before it.
    pub fn abort(self) -> Result<()> {
        assert_eq!(self.txn.mode, Mode::RollingBack, "{} is still in doubt", self.txn.id);
        self.txn.abort()
    }
}

impl TxnManager {
    /// Restart only: a transaction that the log shows in doubt, with its locks and its log space. Call it
    /// before any loser ends: until then nothing that this transaction may want is cleared away.
    ///
    /// # Errors
    /// `Corrupt` when its vote is damaged, or names locks that another transaction in doubt holds.
    pub fn adopt_prepared(&self, active: ActiveTxn) -> Result<Prepared> {
        let vote = Vote::read(&self.wal, &active)?;
        let mut txn = self.resume(&active, Kind::User);
        txn.mode = Mode::InDoubt;
        txn.kit_mut().space.restore(&self.wal, vote.reserve_bytes)?;
        if !self.mutations().forget_prepared_locks {
            txn.lock_again(&vote, active.last)?;
        }
        Ok(Prepared { txn, vote })
    }
}

impl Txn {
    fn lock_again(&mut self, vote: &Vote, at: Lsn) -> Result<()> {
        for &(name, mode) in &vote.locks {
            let held = self.holds(name);
            let request = Request { txn: self.id, name, mode, held, term: Term::Long };
            if !self.try_acquire(&request) {
                let what = format!("{} is in doubt with {mode} on {name}, like another", self.id);
                return Err(Error::corrupt("wal", at.get(), Some(at), what));
            }
        }
        Ok(())
    }
}
