//! Transactions. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

mod lock;

use std::fmt;
use std::time::Duration;

use argali_base::sync::Arc;
use argali_base::{Lsn, Result, TxnId};
use argali_buffer_pool::{BufferPool, PageWrite};
use argali_pager::PageOp;
use argali_wal::{ActiveTxn, RecordBuf, Wal};
pub use argali_wal::{Owner, Undo};

pub use lock::{Blocked, Gap, KeyMode, LockMode, LockName, LockStats, Term};
#[doc(hidden)]
pub use lock::{Granted, LockOptions, LockTable, Request, Waiter};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    #[default]
    Serializable,
    RepeatableRead,
    ReadCommitted,
}

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

#[derive(Clone, Debug)]
pub struct TxnOptions {
    pub isolation: Isolation,
    pub lock_timeout: Duration,
}

/// Operations on one latched page, logged together with the others of the same `update`.
pub struct Edit<'g, 'p, 'o> {
    pub page: &'g mut PageWrite<'p>,
    pub ops: &'o [PageOp<'o>],
}

/// What an access method owes recovery: to take an action back by meaning, wherever the data is now.
pub trait LogicalUndo: Send + Sync {
    /// Undoes `body`. Makes exactly one compensation (through `txn.update` with the one undoable change,
    /// which in compensating mode becomes the CLR) and any number of `Undo::Never` records.
    fn undo(&self, txn: &mut Txn, body: &[u8]) -> Result<()>;
    fn describe(&self, body: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The access methods known to undo, by owner number.
#[derive(Clone, Default)]
pub struct UndoHandlers {
    _todo: (),
}
impl UndoHandlers {
    pub fn register(&mut self, owner: Owner, handler: Arc<dyn LogicalUndo>) {
        todo!()
    }
}

/// What `undo_one` did.
#[derive(Clone, Debug)]
pub struct Undone {
    /// The record taken back (or the CLR / never-undone record stepped over).
    pub lsn: Lsn,
    /// The compensation written, if any.
    pub clr: Option<Lsn>,
    /// Where undo goes on; `NONE` = finished.
    pub undo_next: Lsn,
}

pub struct TxnManager {
    _todo: (),
}
impl TxnManager {
    pub fn new(wal: Arc<Wal>, pool: Arc<BufferPool>, next_txn: u64) -> Arc<Self> {
        todo!()
    }
    /// Set once by the engine (access methods need the manager first, the manager needs their undo).
    pub fn set_handlers(&self, handlers: UndoHandlers) {
        todo!()
    }
    pub fn wal(&self) -> &Arc<Wal> {
        todo!()
    }
    pub fn pool(&self) -> &Arc<BufferPool> {
        todo!()
    }
    /// Logs nothing. `LogFull` when not even the records that end a transaction could be reserved.
    pub fn begin(self: &Arc<Self>, options: TxnOptions) -> Result<Txn> {
        todo!()
    }
    /// A transaction of the engine itself: takes no locks, commits without forcing.
    pub fn begin_system(self: &Arc<Self>) -> Result<Txn> {
        todo!()
    }
    /// Restart only: a loser from the transaction table, in compensating mode.
    pub fn adopt(self: &Arc<Self>, loser: ActiveTxn) -> Txn {
        todo!()
    }
    /// Transaction table: every transaction with a record in the log. Entries are locked one by one.
    pub fn active(&self, out: &mut Vec<ActiveTxn>) {
        todo!()
    }
    /// LSN below which every change is committed: least first LSN of the active ones, or the tail.
    /// Ghosts and slack on a page with a smaller pageLSN are nobody's any more (Commit_LSN, Mohan 1990).
    pub fn commit_lsn(&self) -> Lsn {
        todo!()
    }
    /// Greatest commit LSN whose locks were released before it was durable.
    pub fn horizon(&self) -> Lsn {
        todo!()
    }
    /// Every id below this may be in use.
    pub fn next_txn(&self) -> u64 {
        todo!()
    }
    /// Restart only: ids below `next` are in the log already.
    pub fn raise_next_txn(&self, next: u64) {
        todo!()
    }
    pub fn lock_stats(&self) -> LockStats {
        todo!()
    }
    /// Takes back one record of `txn`: the one undo for rollback, savepoints and restart.
    pub fn undo_one(&self, txn: &mut Txn, buf: &mut RecordBuf) -> Result<Undone> {
        todo!()
    }
}

/// One transaction. Dropping it aborts it.
pub struct Txn {
    _todo: (),
}

/// A point a transaction can return to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    pub last: Lsn,
    pub serial: u64,
}

impl Txn {
    pub fn id(&self) -> TxnId {
        todo!()
    }
    pub fn isolation(&self) -> Isolation {
        todo!()
    }
    pub fn last_lsn(&self) -> Lsn {
        todo!()
    }
    /// Takes log space for the next `update`s before the first latch: `payload` bytes of operations and
    /// undo on up to `pages` pages (images are added in that torn-page mode), plus the CLR's.
    /// In compensating mode it draws on the transaction's reserve and never fails for space.
    pub fn admit(&mut self, payload: usize, pages: usize) -> Result<()> {
        todo!()
    }
    /// Logs `edits` as one record and applies them: the only way a page changes. Consumes part of the
    /// admission. At most one edit per page (asserted). In compensating mode an undoable update becomes
    /// the CLR (with `undo_next` = predecessor of the record being undone), `Undo::Never` ones stay updates.
    pub fn update(&mut self, edits: &mut [Edit<'_, '_, '_>], undo: Undo<'_>) -> Lsn {
        todo!()
    }
    /// Whether this transaction is undoing (rollback or restart).
    pub fn compensating(&self) -> bool {
        todo!()
    }
    /// Takes a lock, waiting under FIFO fairness up to the timeout. Never call it under a latch.
    pub fn lock(&mut self, name: LockName, mode: LockMode) -> Result<()> {
        todo!()
    }
    /// Takes a lock only if it is free at once: safe under a latch.
    pub fn try_lock(&mut self, name: LockName, mode: LockMode) -> bool {
        todo!()
    }
    /// Waits until the lock could be granted, then holds nothing (instant duration).
    pub fn lock_instant(&mut self, name: LockName, mode: LockMode) -> Result<()> {
        todo!()
    }
    pub fn try_lock_instant(&mut self, name: LockName, mode: LockMode) -> bool {
        todo!()
    }
    /// Gives one lock back early (read committed).
    pub fn unlock(&mut self, name: LockName) {
        todo!()
    }
    /// The mode held on `name`, if any.
    pub fn holds(&self, name: LockName) -> Option<LockMode> {
        todo!()
    }
    /// Appends the commit record, releases the locks (early), waits as `durability` says. After the
    /// append a failure is `CommitUnknown`. A transaction without records only waits for its horizon.
    pub fn commit(self, durability: Durability) -> Result<Lsn> {
        todo!()
    }
    /// Rolls back with CLRs, appends `End`, releases the locks.
    pub fn abort(self) -> Result<()> {
        todo!()
    }
    pub fn savepoint(&mut self) -> Savepoint {
        todo!()
    }
    /// Undoes everything since `savepoint` with CLRs; the transaction goes on. Locks stay.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        todo!()
    }
    /// Ends a nested top action begun at `start` (= `last_lsn()` then): an empty CLR that jumps over it.
    pub fn end_nested(&mut self, start: Lsn) -> Result<()> {
        todo!()
    }
}
