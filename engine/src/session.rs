//! What read-write and read-only transactions have in common: a [`Txn`] behind a mutex, and the rules
//! for what may still be done with it.
//!
//! ```text
//!            Deadlock, LockTimeout, Io, Corrupt, Poisoned, failed rollback
//!  usable ────────────────────────────────────────────────────────────────► failed
//!    │                                                                        │  every call: TxnFailed
//!    └── commit ─► committed          drop, abort ─► rolled back ◄────────────┘
//! ```
//!
//! Errors that leave everything as it was (`TooLarge`, `NotFound`, `LogFull`, …) leave the transaction
//! usable. `LogFull` is first answered by a checkpoint and one more try: it is met before any latch is
//! taken, so a second try is safe, and a writer who is merely faster than the checkpointer never sees it.
//!
//! Tree handles carry a flag "dropped" that must be right for whoever holds the tree's lock. So it is
//! set when a transaction drops the tree and reset *before* a rollback releases the locks; the list `ddl`
//! remembers what to reset.

use argali_access::BTree;
use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Lsn, PageId, Result, TxnId};
use argali_txn::{Durability, LockMode, LockName, Savepoint, Txn};

use crate::db::{Counters, Shared};
use crate::tree::Tree;

/// One transaction of the facade.
pub(crate) struct Session {
    shared: Arc<Shared>,
    id: TxnId,
    state: Mutex<State>,
}

struct State {
    /// `None` once committed or aborted, which consume the session.
    txn: Option<Txn>,
    failed: Option<String>,
    /// Whether the database was locked for writing.
    wrote: bool,
    ddl: Vec<Ddl>,
    /// Roots of created trees that a rollback to a savepoint took back; freed when the transaction ends.
    orphans: Vec<PageId>,
}

/// A change of the catalog that tree handles must hear of.
pub(crate) enum Ddl {
    Created(Tree),
    Dropped(Tree),
}

/// Where a rollback to a savepoint returns to.
pub(crate) struct Mark {
    txn: TxnId,
    point: Savepoint,
    ddl: usize,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, txn: Txn) -> Self {
        shared.session_begins();
        let id = txn.id();
        let state = State {
            txn: Some(txn),
            failed: None,
            wrote: false,
            ddl: Vec::new(),
            orphans: Vec::new(),
        };
        Self { shared, id, state: Mutex::new(state) }
    }

    pub(crate) fn id(&self) -> TxnId {
        self.id
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Runs `body` on the transaction if it is usable, and judges whether it still is.
    pub(crate) fn run<T>(&self, body: impl FnMut(&mut Txn) -> Result<T>) -> Result<T> {
        self.state.lock().run(&self.shared, body)
    }

    /// As [`Session::run`], on a tree that is locked for reading and was not dropped.
    pub(crate) fn read_tree<T>(
        &self,
        tree: &Tree,
        mut body: impl FnMut(&mut Txn, &BTree) -> Result<T>,
    ) -> Result<T> {
        self.shared.engine.catalog.check_home(tree)?;
        self.run(|txn| {
            tree.enter(txn, LockMode::IS)?;
            body(txn, tree.btree())
        })
    }

    /// As [`Session::run`], on a tree that is locked for writing and was not dropped.
    pub(crate) fn write_tree<T>(
        &self,
        tree: &Tree,
        mut body: impl FnMut(&mut Txn, &BTree) -> Result<T>,
    ) -> Result<T> {
        self.shared.engine.catalog.check_home(tree)?;
        let mut state = self.state.lock();
        state.lock_database(&self.shared)?;
        state.run(&self.shared, |txn| {
            tree.enter(txn, LockMode::IX)?;
            body(txn, tree.btree())
        })
    }

    /// As [`Session::run`], for a change of the catalog. All or nothing: when `body` fails, what it did
    /// is rolled back. What it pushes to `ddl` is told to tree handles when it is undone.
    pub(crate) fn change_catalog<T>(
        &self,
        mut body: impl FnMut(&mut Txn, &mut Vec<Ddl>) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock();
        state.lock_database(&self.shared)?;
        let (mut ddl, mut orphans) = (Vec::new(), Vec::new());
        let result = state.run(&self.shared, |txn| {
            let point = txn.savepoint();
            let result = body(txn, &mut ddl);
            if result.is_err() {
                txn.rollback_to(point)?;
                ddl.drain(..).rev().for_each(|change| change.take_back(&mut orphans));
            }
            result
        });
        state.ddl.append(&mut ddl);
        state.orphans.append(&mut orphans);
        result
    }

    pub(crate) fn mark(&self) -> Result<Mark> {
        let mut state = self.state.lock();
        let point = state.run(&self.shared, |txn| Ok(txn.savepoint()))?;
        Ok(Mark { txn: self.id, point, ddl: state.ddl.len() })
    }

    /// Undoes everything since `mark`; the transaction goes on.
    pub(crate) fn rollback_to(&self, mark: &Mark) -> Result<()> {
        if mark.txn != self.id {
            let why = format!("belongs to {}, not to {}", mark.txn, self.id);
            return Err(Error::Invalid { what: "savepoint", why });
        }
        let mut state = self.state.lock();
        let result = state.run(&self.shared, |txn| txn.rollback_to(mark.point));
        match &result {
            Ok(()) => state.take_back_ddl(mark.ddl),
            Err(error) => state.fail(error),
        }
        result
    }

    pub(crate) fn commit(self, durability: Durability) -> Result<Lsn> {
        let mut state = self.state.lock();
        if let Some(cause) = state.failed.clone() {
            return Err(Error::TxnFailed { cause });
        }
        let txn = state.txn.take().expect("only commit and abort take it, and they consume it");
        let result = txn.commit(durability);
        let ddl = std::mem::take(&mut state.ddl);
        let freed = if matches!(result, Ok(_) | Err(Error::CommitUnknown { .. })) {
            let mut freed = std::mem::take(&mut state.orphans);
            freed.extend(ddl.iter().filter_map(Ddl::dropped_root));
            Counters::add(&self.shared.engine.counters.commits);
            freed
        } else {
            ddl.into_iter().rev().for_each(|change| change.take_back(&mut state.orphans));
            std::mem::take(&mut state.orphans)
        };
        self.shared.engine.catalog.free_later(freed);
        result
    }

    /// Ends a transaction that changed nothing: waits until all it may have seen is durable.
    pub(crate) fn finish(self) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(cause) = state.failed.clone() {
            return Err(Error::TxnFailed { cause });
        }
        let txn = state.txn.take().expect("only finish and abort take it, and they consume it");
        txn.commit(Durability::Sync).map(|_| ())
    }

    pub(crate) fn abort(self) -> Result<()> {
        self.roll_back()
    }

    fn roll_back(&self) -> Result<()> {
        let mut state = self.state.lock();
        let Some(txn) = state.txn.take() else { return Ok(()) };
        // Before the locks go: whoever gets them next must find the flags right.
        state.take_back_ddl(0);
        let result = txn.abort();
        if state.wrote {
            Counters::add(&self.shared.engine.counters.aborts);
        }
        if result.is_ok() {
            self.shared.engine.catalog.free_later(std::mem::take(&mut state.orphans));
        }
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A failed rollback poisons or is repeated by the next restart; nobody is here to tell.
        let _ = self.roll_back();
        self.shared.session_ends();
    }
}

impl State {
    fn run<T>(
        &mut self,
        shared: &Shared,
        mut body: impl FnMut(&mut Txn) -> Result<T>,
    ) -> Result<T> {
        if let Some(cause) = &self.failed {
            return Err(Error::TxnFailed { cause: cause.clone() });
        }
        let txn = self.txn.as_mut().expect("only commit and abort take it, and they consume it");
        let mut result = body(txn);
        if matches!(result, Err(Error::LogFull { .. })) && shared.engine.relieve_log().is_ok() {
            result = body(txn);
        }
        if let Err(error) = &result
            && ends_transaction(error)
        {
            self.fail(error);
        }
        result
    }

    /// Once per transaction, before its first change: what [`crate::Db::verify`] waits for.
    fn lock_database(&mut self, shared: &Shared) -> Result<()> {
        if !self.wrote {
            self.run(shared, |txn| txn.lock(LockName::Database, LockMode::IX))?;
            self.wrote = true;
        }
        Ok(())
    }

    fn fail(&mut self, error: &Error) {
        self.failed.get_or_insert_with(|| error.to_string());
    }

    fn take_back_ddl(&mut self, keep: usize) {
        for change in self.ddl.split_off(keep).into_iter().rev() {
            change.take_back(&mut self.orphans);
        }
    }
}

impl Ddl {
    fn take_back(self, orphans: &mut Vec<PageId>) {
        match self {
            Self::Created(tree) => {
                tree.set_dropped(true);
                orphans.push(tree.root());
            }
            Self::Dropped(tree) => tree.set_dropped(false),
        }
    }

    fn dropped_root(&self) -> Option<PageId> {
        match self {
            Self::Dropped(tree) => Some(tree.root()),
            Self::Created(_) => None,
        }
    }
}

/// Whether nothing but a rollback is left after `error`: the victim of a conflict must give its locks
/// back, and after damage or a failed call nobody knows what else is wrong.
fn ends_transaction(error: &Error) -> bool {
    matches!(
        error,
        Error::Deadlock { .. }
            | Error::LockTimeout { .. }
            | Error::Io { .. }
            | Error::Corrupt { .. }
            | Error::Poisoned { .. }
    )
}
