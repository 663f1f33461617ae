//! Undo of one record: the same for rollback, savepoints and restart.
//!
//! ```text
//!  log   @10 update a   @20 update b   @30 CLR of @20, undo_next=@10   ← undo_next points here
//!        undo_one: a CLR ─────────────────► jump to @10, write nothing
//!        undo_one: update a ──────────────► take it back, CLR of @10 with undo_next=prev of @10
//! ```
//!
//! | record at `undo_next` | what is done                                  | undo goes on at |
//! | --------------------- | --------------------------------------------- | --------------- |
//! | update, never undone  | nothing (structure changes stay)              | its `prev`      |
//! | update, physical      | inverse operations on its page, logged as CLR | its `prev`      |
//! | update, logical       | the access method finds the place and does it | its `prev`      |
//! | prepare               | nothing (it said what could still be done)    | its `prev`      |
//! | compensation          | nothing (what it took back stays taken back)  | its `undo_next` |
//! | any other kind        | corrupt: a running transaction has none       |                 |
//!
//! - **Rule 5** An undone record gets exactly one CLR. Were there none, a crash would undo it again;
//!   were there two, the second would undo it twice.
//!
//! A record is undone at most once however often restarts are cut short: its CLR's `undo_next` jumps
//! over it. Physical undo changes one page only and works in place; everything in trees undoes
//! logically, because by then the data may have moved to another page.

use std::fmt;

use argali_base::sync::Arc;
use argali_base::{Error, Lsn, PageId, Result};
use argali_pager::OpList;
use argali_wal::{Body, Changes, Owner, RecordBuf, Undo};

use crate::manager::TxnCore;
use crate::txn::Mode;
use crate::{Edit, Txn};

/// What an access method owes recovery: to take an action back by meaning, wherever the data is now.
pub trait LogicalUndo: Send + Sync {
    /// Undoes `body`. Makes exactly one compensation (through `txn.update` with the one undoable change,
    /// which in compensating mode becomes the CLR) and any number of `Undo::Never` records. Takes no
    /// lock: the transaction still holds those of its forward work. Whatever can fail comes before the
    /// compensation.
    fn undo(&self, txn: &mut Txn, body: &[u8]) -> Result<()>;

    /// What `body` would take back, for dumps. Never panics, whatever the bytes.
    fn describe(&self, body: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The access methods known to undo, by owner number.
#[derive(Clone, Default)]
pub struct UndoHandlers {
    list: Vec<(Owner, Arc<dyn LogicalUndo>)>,
}

impl UndoHandlers {
    /// Makes `handler` undo what is logged under `owner`.
    ///
    /// # Panics
    /// When the number is taken.
    pub fn register(&mut self, owner: Owner, handler: Arc<dyn LogicalUndo>) {
        assert!(self.get(owner).is_none(), "{owner:?} is registered already");
        self.list.push((owner, handler));
    }

    /// The access method registered as `owner`.
    pub fn get(&self, owner: Owner) -> Option<&Arc<dyn LogicalUndo>> {
        self.list.iter().find(|(registered, _)| *registered == owner).map(|(_, handler)| handler)
    }
}

/// What `undo_one` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The record taken back (or the CLR / never-undone record stepped over).
    pub lsn: Lsn,
    /// The compensation written, if any.
    pub clr: Option<Lsn>,
    /// Where undo goes on; `NONE` = finished.
    pub undo_next: Lsn,
}

impl TxnCore {
    /// Takes back one record of `txn`: the one undo for rollback, savepoints and restart. After an error
    /// it may be called again; what was done stays done.
    ///
    /// # Panics
    /// When `txn` is not compensating, has nothing left to undo, or an access method breaks rule 5.
    pub fn undo_one(&self, txn: &mut Txn, buf: &mut RecordBuf) -> Result<Undone> {
        assert!(txn.compensating(), "{} is not rolling back", txn.id());
        let lsn = txn.undo_next();
        assert!(!lsn.is_none(), "{} has nothing left to undo", txn.id());
        self.wal.read(lsn, buf)?;
        let record = buf.record();
        if record.txn != txn.id() {
            return Err(corrupt(
                lsn,
                format!("a record of {} on {}'s chain", record.txn, txn.id()),
            ));
        }
        match record.body {
            Body::Update { undo: Undo::Never, .. } | Body::Prepare { .. } => {
                Ok(txn.step_over(lsn, record.prev))
            }
            Body::Update { changes, undo: Undo::Physical(ops) } => {
                let page = only_page(lsn, changes)?;
                txn.compensate(lsn, record.prev, |txn| self.undo_physical(txn, page, ops))
            }
            Body::Update { undo: Undo::Logical { owner, body }, .. } => {
                let unknown =
                    || corrupt(lsn, format!("undo of {owner:?}, which nobody registered"));
                let handler = self.handler(owner).ok_or_else(unknown)?;
                txn.compensate(lsn, record.prev, |txn| handler.undo(txn, body))
            }
            Body::Compensation { .. } if self.mutations().clr_ignores_undo_next => {
                Ok(txn.step_over(lsn, record.prev))
            }
            Body::Compensation { undo_next, .. } => Ok(txn.step_over(lsn, undo_next)),
            Body::Commit { .. }
            | Body::End
            | Body::CheckpointBegin { .. }
            | Body::CheckpointEnd { .. } => Err(corrupt(
                lsn,
                format!("{} among the records of {}", record.body.name(), txn.id()),
            )),
        }
    }

    /// Applies logged inverse operations to the page they were logged for.
    fn undo_physical(&self, txn: &mut Txn, id: PageId, ops: &[u8]) -> Result<()> {
        let lsn = txn.undo_next();
        let list = OpList::decode(ops).filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| corrupt(lsn, "undo is no list of operations".to_owned()))?;
        txn.admit(ops.len(), 1)?;
        let mut page = self.pool.write(id)?;
        if !list[0].fits(page.page()) {
            return Err(corrupt(lsn, format!("undo {} does not fit {id}", list[0])));
        }
        let mut edits = [Edit { page: &mut page, ops: &list }];
        txn.update(&mut edits, Undo::Physical(&[]));
        Ok(())
    }
}

impl Txn {
    /// Next record to undo.
    pub(crate) fn undo_next(&self) -> Lsn {
        if self.is_in_table() { self.kit().slot.lock().undo_next } else { Lsn::NONE }
    }

    /// Leaves the record at `lsn` as it is.
    fn step_over(&mut self, lsn: Lsn, undo_next: Lsn) -> Undone {
        assert!(undo_next < lsn, "undo goes backward: {undo_next} after {lsn}");
        self.kit().slot.lock().undo_next = undo_next;
        Undone { lsn, clr: None, undo_next }
    }

    /// Runs `undo` on the record at `lsn` and checks rule 5.
    fn compensate(
        &mut self,
        lsn: Lsn,
        prev: Lsn,
        undo: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Undone> {
        self.mode = Mode::Undoing { undone: lsn, prev, clr: None };
        let result = undo(self);
        let Mode::Undoing { clr, .. } = std::mem::replace(&mut self.mode, Mode::RollingBack) else {
            panic!("nobody but this function leaves the mode it set");
        };
        result?;
        assert!(clr.is_some(), "rule 5: {lsn} of {} was undone without a CLR", self.id);
        Ok(Undone { lsn, clr, undo_next: prev })
    }
}

/// The page a physical undo is for.
fn only_page(lsn: Lsn, changes: Changes<'_>) -> Result<PageId> {
    let mut pages = changes.iter().map(|change| change.page);
    match (pages.next(), pages.next()) {
        (Some(page), None) => Ok(page),
        (None, _) | (Some(_), Some(_)) => {
            Err(corrupt(lsn, "physical undo of a record that changes not one page".to_owned()))
        }
    }
}

fn corrupt(lsn: Lsn, what: String) -> Error {
    Error::corrupt("wal", lsn.get(), Some(lsn), what)
}
