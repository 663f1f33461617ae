//! The transaction manager: what all transactions of one database share.
//!
//! ```text
//!                  one a thread              ┌── transaction table   who has records in the log
//!  TxnManager ──► lanes (lane.rs) ──► TxnCore ┼── lock table          who holds what
//!                                             └── undo handlers       how access methods take back
//! ```
//!
//! It starts transactions and knows of them; what a transaction does is in [`Txn`]. It names no access
//! method: those come as [`UndoHandlers`], set once by the engine, because a tree needs the manager to
//! log and the manager needs the tree to undo.

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use argali_base::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering, RwLock};
use argali_base::{Apart, Lsn, Result, Striped, TxnId};
use argali_buffer_pool::BufferPool;
use argali_wal::{ActiveTxn, Owner, TxnState, Wal};

use crate::lane::Lane;
use crate::lock::{Blocked, LockOptions, LockTable};
use crate::options::Mutations;
use crate::rollback::Stranded;
use crate::space::Rates;
use crate::table::{CommitLsn, TxnTable};
use crate::txn::Kind;
use crate::{LockMode, LockStats, LogicalUndo, Term, Txn, TxnOptions, UndoHandlers};

/// Locks on keys of one tree, by default, for which a transaction tries to lock the tree: about half a
/// megabyte of them.
const ESCALATE_AT: usize = 5000;

/// Where the transactions of one database begin; derefs to what they share.
pub struct TxnManager {
    core: Arc<TxnCore>,
    lanes: Striped<Arc<Lane>>,
}

/// What all transactions of one database share.
pub struct TxnCore {
    pub(crate) wal: Arc<Wal>,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) table: Apart<TxnTable>,
    pub(crate) locks: LockTable,
    pub(crate) rates: Rates,
    handlers: RwLock<Option<UndoHandlers>>,
    /// Serial of the next savepoint, of whatever transaction.
    next_savepoint: AtomicU64,
    /// Locks on keys of one tree for which a transaction tries to lock the tree.
    escalate_at: AtomicUsize,
    escalations: AtomicU64,
    stranded: Mutex<Vec<Stranded>>,
    mutations: OnceLock<Mutations>,
}

impl Deref for TxnManager {
    type Target = TxnCore;
    fn deref(&self) -> &TxnCore {
        &self.core
    }
}

impl TxnManager {
    /// A manager that hands out ids from `next_txn` on.
    pub fn new(wal: Arc<Wal>, pool: Arc<BufferPool>, next_txn: u64) -> Arc<Self> {
        let core = Arc::new(TxnCore::new(wal, pool, next_txn));
        let lanes = Striped::new(|| Arc::new(Lane::new(&core)));
        Arc::new(Self { core, lanes })
    }

    /// Starts a transaction. Logs nothing and takes no log space: the first
    /// [`admit`](Txn::admit) also sets aside what it takes to end it, so a transaction that
    /// only reads works when the log is full.
    #[inline]
    pub fn begin(&self, options: TxnOptions) -> Result<Txn> {
        Ok(self.lane().begin(Kind::User, options))
    }

    /// A transaction of the engine itself: takes no locks, commits without forcing.
    pub fn begin_system(&self) -> Result<Txn> {
        Ok(self.lane().begin(Kind::System, TxnOptions::default()))
    }

    /// Restart only: a loser from the transaction table, in compensating mode. Undo it record by record
    /// with [`undo_one`](TxnCore::undo_one) and end it with [`abort`](Txn::abort). Dropping it does
    /// nothing: the restart failed, and the next one will find the loser again.
    ///
    /// # Panics
    /// When `loser` is not running: it is none.
    pub fn adopt(&self, loser: ActiveTxn) -> Txn {
        assert_eq!(loser.state, TxnState::Running, "{} is no loser", loser.txn);
        self.resume(&loser, Kind::Loser)
    }

    /// A transaction that a restart found in the table.
    pub(crate) fn resume(&self, found: &ActiveTxn, kind: Kind) -> Txn {
        self.raise_next_txn(found.txn.get() + 1);
        let mut txn = self.lane().resume(found.txn, kind);
        txn.kit().slot.resume(found);
        txn.in_table = true;
        txn
    }

    /// Restart only: ids below `next` are in the log already.
    pub fn raise_next_txn(&self, next: u64) {
        self.table.raise_next_txn(next);
        self.lanes.iter().for_each(|lane| lane.drop_ids());
    }

    /// That of this thread.
    #[inline]
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        self.lanes.mine()
    }
}

impl TxnCore {
    fn new(wal: Arc<Wal>, pool: Arc<BufferPool>, next_txn: u64) -> Self {
        let pager = pool.pager().options();
        let rates = Rates::new(pager.torn_pages, pager.page_size.bytes());
        Self {
            table: Apart(TxnTable::new(next_txn)),
            locks: LockTable::new(&LockOptions::default(), wal.health().clone()),
            wal,
            pool,
            rates,
            handlers: RwLock::new(None),
            next_savepoint: AtomicU64::new(0),
            escalate_at: AtomicUsize::new(ESCALATE_AT),
            escalations: AtomicU64::new(0),
            stranded: Mutex::new(Vec::new()),
            mutations: OnceLock::new(),
        }
    }

    /// Set once by the engine (access methods need the manager first, the manager needs their undo).
    ///
    /// # Panics
    /// When called twice.
    pub fn set_handlers(&self, handlers: UndoHandlers) {
        let before = self.handlers.write().replace(handlers);
        assert!(before.is_none(), "undo handlers are set once");
    }

    /// The access method registered as `owner`.
    pub fn handler(&self, owner: Owner) -> Option<Arc<dyn LogicalUndo>> {
        self.handlers.read().as_ref().and_then(|handlers| handlers.get(owner).cloned())
    }

    /// Breaks rules on purpose. The first call counts.
    #[doc(hidden)]
    pub fn set_mutations(&self, mutations: Mutations) {
        let _ = self.mutations.set(mutations);
    }

    pub(crate) fn mutations(&self) -> Mutations {
        self.mutations.get().copied().unwrap_or_default()
    }

    /// What is left of a request for a lock once the broken rules are taken off.
    #[inline]
    pub(crate) fn weaken(&self, mode: LockMode, term: Term) -> Option<(LockMode, Term)> {
        match self.mutations.get() {
            None => Some((mode, term)),
            Some(mutations) => mutations.weaken(mode, term),
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.wal.health().is_poisoned()
    }

    /// The log.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    /// The pages.
    pub fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    /// Transaction table: every transaction with a record in the log replaces what `out` held. Entries are
    /// locked one by one.
    pub fn active(&self, out: &mut Vec<ActiveTxn>) {
        self.table.active(out);
    }

    /// LSN below which every change is committed: least first LSN of the active ones, or the tail.
    /// Ghosts and slack on a page with a smaller pageLSN are nobody's any more (`Commit_LSN`, Mohan
    /// 1990). One load; may lag behind, is never too high.
    #[inline]
    pub fn commit_lsn(&self) -> Lsn {
        self.table.commit_lsn()
    }

    /// [`commit_lsn`](Self::commit_lsn) for whoever must not keep the manager alive.
    pub fn commit_lsn_reader(&self) -> CommitLsn {
        self.table.commit_lsn_reader()
    }

    /// Computes [`commit_lsn`](Self::commit_lsn) anew. Transactions that end do so themselves; after a restart,
    /// or a clean open, none has ended yet, and everything in the log is settled.
    pub fn refresh_commit_lsn(&self) {
        self.table.find_holder(|| self.wal.tail());
    }

    /// Greatest commit LSN whose locks were released before it was durable.
    pub fn horizon(&self) -> Lsn {
        self.locks.horizon()
    }

    pub(crate) fn raise_horizon(&self, commit: Lsn) {
        self.locks.raise_horizon(commit);
    }

    /// Every id below this may be in use.
    pub fn next_txn(&self) -> u64 {
        self.table.next_txn()
    }

    pub(crate) fn take_savepoint_serial(&self) -> u64 {
        self.next_savepoint.fetch_add(1, Ordering::Relaxed)
    }

    /// Counters of the lock manager.
    pub fn lock_stats(&self) -> LockStats {
        let escalations = self.escalations.load(Ordering::Relaxed);
        LockStats { escalations, ..self.locks.stats() }
    }

    /// From how many locks on keys of one tree on a transaction tries to lock the tree instead; default
    /// 5000. `usize::MAX`: never.
    pub fn set_escalation(&self, keys: usize) {
        self.escalate_at.store(keys, Ordering::Relaxed);
    }

    pub(crate) fn escalate_at(&self) -> usize {
        self.escalate_at.load(Ordering::Relaxed)
    }

    pub(crate) fn note_escalation(&self) {
        self.escalations.fetch_add(1, Ordering::Relaxed);
    }

    /// Who waits for which lock behind whom, at one instant.
    pub fn blocked(&self) -> Vec<Blocked> {
        self.locks.blocked()
    }

    /// Transactions whose rollback failed, and why. They keep their locks and hold the log until
    /// [`retry_stranded`](crate::TxnManager::retry_stranded) succeeds or the database is opened again.
    pub fn stranded(&self) -> Vec<(TxnId, String)> {
        self.stranded.lock().iter().map(Stranded::describe).collect()
    }

    pub(crate) fn strand(&self, stranded: Stranded) {
        self.stranded.lock().push(stranded);
    }

    pub(crate) fn take_stranded(&self) -> Vec<Stranded> {
        std::mem::take(&mut *self.stranded.lock())
    }
}

impl fmt::Debug for TxnManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxnManager")
            .field("next_txn", &self.next_txn())
            .field("commit_lsn", &self.commit_lsn())
            .field("horizon", &self.horizon())
            .finish_non_exhaustive()
    }
}
