//! What read-write and read-only transactions have in common: a [`Txn`] behind a mutex, and the rules
//! for what may still be done with it.
//!
//! ```text
//!            Deadlock, LockTimeout, Io, Corrupt, Poisoned, failed rollback
//!  usable ────────────────────────────────────────────────────────────────► failed
//!    │                                                                        │  every call: TxnFailed
//!    ├── commit ─► committed          drop, abort ─► rolled back ◄────────────┘
//!    └── prepare ─► in doubt, and no session's any more (prepared.rs)
//! ```
//!
//! Errors that leave everything as it was (`TooLarge`, `NotFound`, `LogFull`, …) leave the transaction
//! usable. `LogFull` is first answered by a checkpoint and one more try: it is met before any latch is
//! taken, so a second try is safe, and a writer who is merely faster than the checkpointer never sees it.
//!
//! Two things must hear of a transaction's end, and of its rollback to a savepoint: [`Effects`] remembers
//! them. Handles carry a flag "dropped" that must be right for whoever holds the lock of what they stand
//! for; so it is set when a transaction drops that and reset *before* a rollback releases the locks. And
//! what was given up, or taken over in vain, is to be freed *after* the end.

use std::ops::Bound;

use argali_access::{BTree, Entry, Moves, Rows, Structure, Way};
use argali_base::sync::{Arc, AtomicBool, Mutex, Ordering};
use argali_base::{Error, Lsn, Result, TxnId};
use argali_txn::{Durability, LockMode, LockName, Prepared, Savepoint, Txn};

use crate::catalog;
use crate::db::{Counters, Engine, Lane, Shared};
use crate::handle::Handle;
use crate::prepared::Undecided;
use crate::tree::Tree;

/// One transaction of the facade.
pub(crate) struct Session {
    outside: Outside,
    id: TxnId,
    state: Mutex<State>,
}

/// What can be asked while the state is locked.
struct Outside {
    shared: Arc<Lane>,
    /// Whether the state says that it failed.
    failed: AtomicBool,
}

struct State {
    /// `None` once committed or aborted, which consume the session.
    txn: Option<Txn>,
    failed: Option<String>,
    /// Whether the database was locked for writing.
    wrote: bool,
    effects: Effects,
}

/// What a transaction did that its end must act on.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) ddl: Vec<Ddl>,
    /// What it took over and gave up.
    pub(crate) moves: Moves,
}

/// A change of the catalog that handles must hear of.
pub(crate) enum Ddl {
    Created(Handle),
    Dropped(Handle),
    Renamed { handle: Handle, from: String },
}

/// Where a rollback to a savepoint returns to.
pub(crate) struct Mark {
    txn: TxnId,
    point: Savepoint,
    effects: EffectsMark,
    /// Whether a nested top action began here.
    nested: bool,
}

/// How many effects there were.
#[derive(Clone, Copy)]
struct EffectsMark {
    ddl: usize,
    moves: usize,
}

impl Session {
    #[inline]
    pub(crate) fn new(shared: Arc<Lane>, txn: Txn) -> Self {
        let id = txn.id();
        let effects = Effects::default();
        let state = State { txn: Some(txn), failed: None, wrote: false, effects };
        let outside = Outside { shared, failed: AtomicBool::new(false) };
        Self { outside, id, state: Mutex::new(state) }
    }

    pub(crate) fn id(&self) -> TxnId {
        self.id
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.outside.shared
    }

    /// Runs `body` on the transaction if it is usable, and judges whether it still is.
    pub(crate) fn run<T>(&self, mut body: impl FnMut(&mut Txn) -> Result<T>) -> Result<T> {
        self.state.lock().run(&self.outside, |txn, _| body(txn))
    }

    /// As [`Session::run`], on what is locked for reading and was not dropped.
    pub(crate) fn read<T>(
        &self,
        handle: &Handle,
        mut body: impl FnMut(&mut Txn) -> Result<T>,
    ) -> Result<T> {
        self.outside.shared.engine.catalog.check_home(handle)?;
        self.run(|txn| {
            handle.enter(txn, LockMode::IS)?;
            body(txn)
        })
    }

    /// As [`Session::run`], on what is locked for writing and was not dropped.
    pub(crate) fn write<T>(
        &self,
        handle: &Handle,
        mut body: impl FnMut(&mut Txn) -> Result<T>,
    ) -> Result<T> {
        self.write_noting(handle, |txn, _| body(txn))
    }

    /// As [`Session::write`], where the end of the transaction must hear of what was done.
    fn write_noting<T>(
        &self,
        handle: &Handle,
        mut body: impl FnMut(&mut Txn, &mut Effects) -> Result<T>,
    ) -> Result<T> {
        self.outside.shared.engine.catalog.check_home(handle)?;
        let mut state = self.state.lock();
        state.lock_database(&self.outside)?;
        state.run(&self.outside, |txn, effects| {
            handle.enter(txn, LockMode::IX)?;
            body(txn, effects)
        })
    }

    /// As [`Session::read`], on a tree.
    pub(crate) fn read_tree<T>(
        &self,
        tree: &Tree,
        mut body: impl FnMut(&mut Txn, &BTree) -> Result<T>,
    ) -> Result<T> {
        self.read(tree.handle(), |txn| body(txn, tree.btree()))
    }

    /// The next row of `tree`, which was read before, on the `way` from the place of `entry`. Mostly it is at
    /// hand, and where no lock has to be taken for it, the transaction needs not be asked.
    pub(crate) fn advance(
        &self,
        tree: &Tree,
        way: Way,
        limit: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        if tree.handle().is_dropped() {
            return self.read_tree(tree, |_, _| Ok(false));
        }
        let failed = self.outside.failed.load(Ordering::Acquire);
        if !failed && tree.btree().glide(self.id, way, limit, entry) {
            return Ok(true);
        }
        // The lock that `enter` would take is held since the first read.
        self.run(|txn| tree.btree().advance(txn, way, limit, entry))
    }

    /// As [`Session::write`], on a tree.
    pub(crate) fn write_tree<T>(
        &self,
        tree: &Tree,
        mut body: impl FnMut(&mut Txn, &BTree) -> Result<T>,
    ) -> Result<T> {
        self.write(tree.handle(), |txn| body(txn, tree.btree()))
    }

    /// As [`Session::write_tree`], on rows with values of any size.
    pub(crate) fn write_rows<T>(
        &self,
        tree: &Tree,
        mut body: impl FnMut(&mut Rows<'_>) -> Result<T>,
    ) -> Result<T> {
        let pending = &self.outside.shared.engine.pending;
        self.write_noting(tree.handle(), |txn, effects| {
            body(&mut Rows::new(txn, tree.btree(), pending, &mut effects.moves))
        })
    }

    /// As [`Session::run`], for a change of the catalog. All or nothing: when `body` fails, what it did
    /// is rolled back.
    pub(crate) fn change_catalog<T>(
        &self,
        mut body: impl FnMut(&mut Txn, &mut Effects) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock();
        state.lock_database(&self.outside)?;
        state.run(&self.outside, |txn, effects| {
            let (point, mark) = (txn.savepoint(), effects.mark());
            let result = body(txn, effects);
            if result.is_err() {
                txn.rollback_to(point)?;
                effects.take_back(mark);
            }
            result
        })
    }

    /// As [`Session::change_catalog`], on a tree that is locked against everybody else and was not dropped.
    pub(crate) fn own_tree<T>(
        &self,
        tree: &Tree,
        mut body: impl FnMut(&mut Txn, &BTree, &mut Moves) -> Result<T>,
    ) -> Result<T> {
        self.outside.shared.engine.catalog.check_home(tree.handle())?;
        self.change_catalog(|txn, effects| {
            tree.handle().enter(txn, LockMode::X)?;
            body(txn, tree.btree(), &mut effects.moves)
        })
    }

    pub(crate) fn mark(&self) -> Result<Mark> {
        let mut state = self.state.lock();
        let point = state.run(&self.outside, |txn, _| Ok(txn.savepoint()))?;
        Ok(Mark { txn: self.id, point, effects: state.effects.mark(), nested: false })
    }

    /// A mark that a nested top action begins at; go on with [`Session::end_nested`] or
    /// [`Session::rollback_to`].
    pub(crate) fn begin_nested(&self) -> Result<Mark> {
        let mut state = self.state.lock();
        let point = state.run(&self.outside, |txn, _| {
            catalog::check_nested(txn)?;
            txn.enter_nested()?;
            Ok(txn.savepoint())
        })?;
        Ok(Mark { txn: self.id, point, effects: state.effects.mark(), nested: true })
    }

    /// What was done since `mark` is no longer the transaction's to take back.
    pub(crate) fn end_nested(&self, mark: &Mark) -> Result<()> {
        let mut state = self.state.lock();
        state.run(&self.outside, |txn, _| txn.end_nested(mark.point.last))?;
        state.effects.settle(mark.effects);
        Ok(())
    }

    /// Undoes everything since `mark`; the transaction goes on.
    pub(crate) fn rollback_to(&self, mark: &Mark) -> Result<()> {
        if mark.txn != self.id {
            let why = format!("belongs to {}, not to {}", mark.txn, self.id);
            return Err(Error::Invalid { what: "savepoint", why });
        }
        let mut state = self.state.lock();
        let result = state.run(&self.outside, |txn, _| {
            txn.rollback_to(mark.point)?;
            if mark.nested {
                txn.leave_nested();
            }
            Ok(())
        });
        match &result {
            Ok(()) => state.effects.take_back(mark.effects),
            Err(error) => state.fail(&self.outside, error),
        }
        result
    }

    pub(crate) fn commit(mut self, durability: Durability) -> Result<Lsn> {
        let state = self.state.get_mut();
        if let Some(cause) = state.failed.clone() {
            return Err(Error::TxnFailed { cause });
        }
        // Whatever could still be refused comes first: then a failed commit leaves the rollback to us.
        state.run(&self.outside, |txn, _| txn.admit_commit())?;
        let txn = state.txn.take().expect("only commit and abort take it, and they consume it");
        let result = txn.commit(durability);
        let effects = std::mem::take(&mut state.effects);
        if matches!(result, Ok(_) | Err(Error::CommitUnknown { .. })) {
            Counters::add(self.outside.shared.engine.counters.commits.mine());
            self.outside.shared.engine.pending.free_later(effects.moves.committed());
        }
        result
    }

    /// Ends a transaction that changed nothing: waits until all it may have seen is durable.
    #[inline]
    pub(crate) fn finish(mut self) -> Result<()> {
        let state = self.state.get_mut();
        if let Some(cause) = state.failed.clone() {
            return Err(Error::TxnFailed { cause });
        }
        let txn = state.txn.take().expect("only finish and abort take it, and they consume it");
        txn.commit(Durability::Sync).map(|_| ())
    }

    pub(crate) fn abort(mut self) -> Result<()> {
        self.roll_back()
    }

    /// Leaves the transaction in doubt as `gid`. After an error it is rolled back, unless its vote is in the
    /// log and only the durability of that is unknown.
    pub(crate) fn prepare(self, gid: &str) -> Result<()> {
        let claim = self.outside.shared.engine.register.claim(gid)?;
        let mut state = self.state.lock();
        let note = state.effects.moves.encode();
        let cast = state.run(&self.outside, |txn, _| {
            catalog::release_creation(txn);
            txn.prepare(gid, &note)
        });
        let txn = state.txn.take_if(|txn| txn.is_in_doubt());
        let vote = cast?;
        let txn = txn.expect("whoever has cast a vote is in doubt");
        let undecided =
            Undecided::new(Prepared::new(txn, vote), std::mem::take(&mut state.effects));
        claim.leave_in_doubt(Box::new(undecided));
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        let state = self.state.get_mut();
        let Some(txn) = state.txn.take() else { return Ok(()) };
        let effects = std::mem::take(&mut state.effects);
        if state.wrote {
            Counters::add(&self.outside.shared.engine.counters.aborts);
        }
        self.outside.shared.engine.roll_back(self.id, effects, || txn.abort())
    }
}

impl Engine {
    /// Runs the rollback `abort` of transaction `id` and sees to its effects. When it fails, they wait until
    /// a later try is over.
    pub(crate) fn roll_back(
        &self,
        id: TxnId,
        effects: Effects,
        abort: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // Before the locks go: whoever gets them next must find the flags right. And before the first try:
        // the second one may be over before we hear that the first failed.
        let owes = self.owe(id, effects.aborted());
        abort()?;
        if owes {
            self.settle(id);
        }
        Ok(())
    }

    /// Tries rollbacks again that failed.
    pub(crate) fn retry_rollbacks(&self) {
        self.txns.retry_stranded().into_iter().for_each(|id| self.settle(id));
    }

    /// Keeps `to_free` until the rollback of `id` is over; whether there is anything.
    fn owe(&self, id: TxnId, to_free: Vec<Structure>) -> bool {
        let owes = !to_free.is_empty();
        if owes {
            self.owed.lock().insert(id, to_free);
        }
        owes
    }

    /// The rollback of `id` is over: what it left can be freed.
    fn settle(&self, id: TxnId) {
        if let Some(to_free) = self.owed.lock().remove(&id) {
            self.pending.free_later(to_free);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A failed rollback is tried again in the background; nobody is here to tell.
        let _ = self.roll_back();
    }
}

impl State {
    fn run<T>(
        &mut self,
        outside: &Outside,
        mut body: impl FnMut(&mut Txn, &mut Effects) -> Result<T>,
    ) -> Result<T> {
        if let Some(cause) = &self.failed {
            return Err(Error::TxnFailed { cause: cause.clone() });
        }
        let txn = self.txn.as_mut().expect("only commit and abort take it, and they consume it");
        let mut result = body(txn, &mut self.effects);
        if matches!(result, Err(Error::LogFull { .. }))
            && outside.shared.engine.relieve_log().is_ok()
        {
            result = body(txn, &mut self.effects);
        }
        if let Err(error) = &result
            && ends_transaction(error)
        {
            self.fail(outside, error);
        }
        result
    }

    /// Once per transaction, before its first change: what [`crate::Db::verify`] waits for.
    fn lock_database(&mut self, outside: &Outside) -> Result<()> {
        if !self.wrote {
            self.run(outside, |txn, _| txn.lock(LockName::Database, LockMode::IX))?;
            self.wrote = true;
        }
        Ok(())
    }

    fn fail(&mut self, outside: &Outside, error: &Error) {
        outside.failed.store(true, Ordering::Release);
        self.failed.get_or_insert_with(|| error.to_string());
    }
}

impl Effects {
    fn mark(&self) -> EffectsMark {
        EffectsMark { ddl: self.ddl.len(), moves: self.moves.mark() }
    }

    /// Everything since `mark` was rolled back, or is about to be.
    fn take_back(&mut self, mark: EffectsMark) {
        self.ddl.drain(mark.ddl..).rev().for_each(Ddl::take_back);
        self.moves.take_back(mark.moves);
    }

    /// Everything since `mark` stays, whatever becomes of the transaction.
    fn settle(&mut self, mark: EffectsMark) {
        self.ddl.truncate(mark.ddl);
        self.moves.settle(mark.moves);
    }

    /// The whole transaction is rolled back: what is to be freed afterwards.
    fn aborted(mut self) -> Vec<Structure> {
        self.take_back(EffectsMark { ddl: 0, moves: 0 });
        self.moves.aborted()
    }
}

impl Ddl {
    fn take_back(self) {
        match self {
            Self::Created(handle) => handle.set_dropped(true),
            Self::Renamed { handle, from } => handle.set_name(&from),
            Self::Dropped(handle) => handle.set_dropped(false),
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
