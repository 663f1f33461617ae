//! Rollback: to a savepoint, and of everything. Loops round `undo_one`.
//!
//! ```text
//!  savepoint ─► s = @20        log  @10 a  @20 b  @30 c  @40 d  @50 CLR d→@30  @60 CLR c→@20
//!  rollback_to(s): while undo_next > @20 { undo_one }                             └ goes on here
//! ```
//!
//! Rollback takes no locks (L3), draws log space from the reserve, and keeps no more pages latched than
//! the record changed that it takes back. When all frames are pinned for a moment by others, it waits and
//! tries again: latches are short. Any other failure (a page that cannot be read) *strands* the
//! transaction: it keeps its locks and its log space, because nobody may see what it left half undone, and
//! a background step tries again until the cause has passed. What it took back so far stays taken back.
//! Only a poisoned database tries nothing more: there the next restart does it.

use std::time::Duration;

use argali_base::sync::{Arc, thread};
use argali_base::{Error, Lsn, Result, TxnId};

use crate::txn::{Kind, Kit, Mode};
use crate::{Txn, TxnManager, TxnOptions};

/// How often a rollback tries again for a free frame, a millisecond apart.
const FRAME_TRIES: u32 = 1000;

/// A point a transaction can return to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    /// Last record before it.
    pub last: Lsn,
    /// Tells it from every other savepoint of this manager.
    pub serial: u64,
}

/// A rollback that could not go on: all of its transaction but the way back to the manager.
pub(crate) struct Stranded {
    id: TxnId,
    kind: Kind,
    options: TxnOptions,
    kit: Box<Kit>,
    cause: String,
}

impl Stranded {
    pub(crate) fn describe(&self) -> (TxnId, String) {
        (self.id, self.cause.clone())
    }
}

impl TxnManager {
    /// Tries every stranded rollback once more: the body of a background step. Returns those that are over
    /// now. A poisoned database tries nothing.
    pub fn retry_stranded(&self) -> Vec<TxnId> {
        let mut over = Vec::new();
        if self.is_poisoned() {
            return over;
        }
        for Stranded { id, kind, options, kit, .. } in self.take_stranded() {
            let mut txn = Txn::new(Arc::clone(self.lane()), id, kind, (options, kit));
            txn.in_table = true;
            if txn.take_back().is_ok() {
                over.push(id);
            }
        }
        over
    }
}

impl Txn {
    /// A point to return to. Savepoints nest: returning to one forgets those set after it.
    pub fn savepoint(&mut self) -> Savepoint {
        let serial = self.manager.take_savepoint_serial();
        self.kit_mut().savepoints.push(serial);
        Savepoint { last: self.last_lsn(), serial }
    }

    /// Undoes everything since `savepoint` with CLRs; the transaction goes on. Locks stay. The savepoint
    /// remains and can be returned to again. `NotFound` when it was set by another transaction, or after
    /// a savepoint already returned to. After any other error the transaction can only be aborted.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        if let Some(cause) = &self.kit().failed {
            return Err(Error::TxnFailed { cause: cause.clone() });
        }
        let savepoints = &mut self.kit_mut().savepoints;
        let Ok(at) = savepoints.binary_search(&savepoint.serial) else {
            return Err(Error::NotFound { what: "savepoint", name: savepoint.serial.to_string() });
        };
        savepoints.truncate(at + 1);
        let result = self.undo_down_to(savepoint.last);
        match &result {
            Ok(()) => self.mode = Mode::Forward,
            Err(error) => self.kit_mut().failed = Some(error.to_string()),
        }
        result
    }

    /// Rolls back with CLRs, appends `End`, releases the locks. After an error it keeps its locks until a
    /// later try succeeds (see [`stranded`](crate::TxnCore::stranded)).
    ///
    /// # Panics
    /// When it is in doubt: then it is not for its owner to decide.
    pub fn abort(mut self) -> Result<()> {
        assert!(!self.is_in_doubt(), "P2: {} is in doubt", self.id);
        self.take_back()
    }

    /// The whole rollback; strands the transaction when it fails.
    fn take_back(&mut self) -> Result<()> {
        let result = self.undo_down_to(Lsn::NONE).and_then(|()| self.finish_rollback());
        if let Err(error) = &result {
            self.strand(error.to_string());
        }
        result
    }

    /// Leaves slot, locks and log space to whoever tries again.
    fn strand(&mut self, cause: String) {
        let Some(mut kit) = self.kit.take() else { return };
        kit.space.park();
        let (id, kind, options) = (self.id, self.kind, self.options.clone());
        self.manager.strand(Stranded { id, kind, options, kit, cause });
    }

    fn finish_rollback(&mut self) -> Result<()> {
        if !self.last_lsn().is_none() {
            self.admit_ending()?;
            self.append_end();
        }
        self.release_locks(Lsn::NONE);
        self.retire();
        Ok(())
    }

    /// Undoes, newest first, every record behind `lsn`.
    fn undo_down_to(&mut self, lsn: Lsn) -> Result<()> {
        self.mode = Mode::RollingBack;
        let manager = Arc::clone(&self.manager);
        let mut buf = std::mem::take(&mut self.kit_mut().record);
        let mut tries = 0;
        let mut result = Ok(());
        while result.is_ok() && self.undo_next() > lsn {
            result = match manager.undo_one(self, &mut buf) {
                Err(Error::PoolExhausted { .. }) if tries < FRAME_TRIES => {
                    tries += 1;
                    thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
                Ok(_) => {
                    tries = 0;
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        self.kit_mut().record = buf;
        result
    }
}

impl Drop for Txn {
    /// Aborts, unless the transaction is a restart's or in doubt. A poisoned database does nothing more:
    /// the next restart takes the transaction back.
    fn drop(&mut self) {
        let nobodys = self.kind == Kind::Loser || self.mode == Mode::InDoubt;
        if self.kit.is_none() || nobodys || self.manager.is_poisoned() {
            return;
        }
        // A failure is kept by `take_back` for whoever asks for stranded transactions.
        let _ = self.take_back();
    }
}
