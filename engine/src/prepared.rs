//! Prepared transactions: changed and promised, but decided by somebody outside.
//!
//! ```text
//!  Write::prepare(gid) ──► in doubt ──┬─ Db::commit_prepared(gid) ─► there, for good
//!       forced             │     ▲    └─ Db::abort_prepared(gid)  ─► as if it had never been
//!                          │     │ crash, restart, shutdown, open: any number of times
//!                          └─────┘ its locks are held all the while, over a restart, too
//! ```
//!
//! A coordinator that changes several databases prepares in each, writes down its decision, and then tells
//! each. Whoever it could not reach waits in doubt and is told later. So a decision may arrive twice, and the
//! second one finds nobody: [`Error::NotFound`] says that the transaction was decided before (or never
//! prepared: a coordinator that got no answer to its prepare decides against it). What was decided is the
//! coordinator's to remember.
//!
//! A transaction in doubt holds its locks and keeps the log from its first record on; `stats` names it. It
//! may have made, dropped and renamed trees. It does not keep a database from being closed; but such a
//! database is not clean, and opening it read-only answers [`Error::NeedsRecovery`], because the locks must be
//! taken first. [`crate::info`] lists the transactions in doubt of a closed database.
//!
//! A gid is in use from `prepare` to the end of the decision. While one is being prepared or decided, others
//! who name it wait for that to be over.

use std::collections::BTreeMap;
use std::collections::btree_map;

use argali_access::{Moves, Structure};
use argali_base::sync::{Condvar, Mutex};
use argali_base::{Error, Lsn, Result, TxnId};
use argali_txn::{LockMode, LockName, Prepared, Vote};
use argali_wal::ActiveTxn;

use crate::db::{Counters, Db, Engine};
use crate::session::Effects;

/// A transaction in doubt, as [`Db::prepared`] and [`crate::info`] list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The name it was prepared under.
    pub gid: String,
    /// Its number.
    pub txn: TxnId,
    /// Its first record: the log is kept from here on.
    pub first: Lsn,
    /// Its vote. What the log has grown by since is its age.
    pub prepared: Lsn,
    /// The locks it holds.
    pub locks: Vec<(LockName, LockMode)>,
}

impl InDoubt {
    pub(crate) fn new(chain: &ActiveTxn, vote: &Vote) -> Self {
        Self {
            gid: vote.gid.clone(),
            txn: chain.txn,
            first: chain.first,
            prepared: chain.last,
            locks: vote.locks.clone(),
        }
    }
}

/// What waits for a decision.
pub(crate) struct Undecided {
    prepared: Prepared,
    effects: Effects,
}

impl Undecided {
    pub(crate) fn new(prepared: Prepared, effects: Effects) -> Self {
        Self { prepared, effects }
    }

    /// One that a restart found. Nobody has a handle that it must tell of its catalog changes.
    pub(crate) fn adopted(prepared: Prepared) -> Result<Self> {
        let Some(moves) = Moves::decode(&prepared.vote().note) else {
            let at = prepared.chain().last;
            let what = format!("the note in the vote of {} makes no sense", prepared.id());
            return Err(Error::corrupt("wal", at.get(), Some(at), what));
        };
        Ok(Self { prepared, effects: Effects { moves, ..Effects::default() } })
    }

    /// What its decision may free or take back.
    pub(crate) fn structures(&self) -> impl Iterator<Item = Structure> {
        self.effects.moves.structures()
    }
}

/// The transactions in doubt of one open database, by gid.
#[derive(Default)]
pub(crate) struct Register {
    entries: Mutex<BTreeMap<String, Entry>>,
    changed: Condvar,
}

enum Entry {
    InDoubt(Box<Undecided>),
    /// Being prepared, or being decided.
    Busy,
}

impl Register {
    /// Adds one that a restart found.
    pub(crate) fn adopt(&self, undecided: Undecided) -> Result<()> {
        let (gid, at) = (undecided.prepared.vote().gid.clone(), undecided.prepared.chain().last);
        let entry = Entry::InDoubt(Box::new(undecided));
        if self.entries.lock().insert(gid.clone(), entry).is_some() {
            let what = format!("two transactions in doubt are called {gid:?}");
            return Err(Error::corrupt("wal", at.get(), Some(at), what));
        }
        Ok(())
    }

    /// Takes `gid` for a transaction about to be prepared.
    pub(crate) fn claim(&self, gid: &str) -> Result<Claim<'_>> {
        match self.entries.lock().entry(gid.to_owned()) {
            btree_map::Entry::Occupied(_) => {
                Err(Error::Exists { what: "prepared transaction", name: gid.to_owned() })
            }
            btree_map::Entry::Vacant(place) => {
                place.insert(Entry::Busy);
                Ok(Claim { register: self, gid: gid.to_owned(), rest: None })
            }
        }
    }

    /// Takes the transaction called `gid` in order to decide it.
    fn take(&self, gid: &str) -> Result<(Claim<'_>, Box<Undecided>)> {
        let mut entries = self.entries.lock();
        loop {
            let missing = || Error::NotFound { what: "prepared transaction", name: gid.to_owned() };
            let entry = entries.get_mut(gid).ok_or_else(missing)?;
            match std::mem::replace(entry, Entry::Busy) {
                Entry::InDoubt(undecided) => {
                    return Ok((
                        Claim { register: self, gid: gid.to_owned(), rest: None },
                        undecided,
                    ));
                }
                Entry::Busy => self.changed.wait(&mut entries),
            }
        }
    }

    fn list(&self) -> Vec<InDoubt> {
        let entries = self.entries.lock();
        let in_doubt = entries.values().filter_map(|entry| match entry {
            Entry::InDoubt(undecided) => Some(&undecided.prepared),
            Entry::Busy => None,
        });
        in_doubt.map(|prepared| InDoubt::new(&prepared.chain(), prepared.vote())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

/// The right to say what becomes of a gid. Dropping it frees the gid, unless it was left in doubt.
pub(crate) struct Claim<'r> {
    register: &'r Register,
    gid: String,
    rest: Option<Box<Undecided>>,
}

impl Claim<'_> {
    /// The gid names `undecided` until somebody decides it.
    pub(crate) fn leave_in_doubt(mut self, undecided: Box<Undecided>) {
        self.rest = Some(undecided);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut entries = self.register.entries.lock();
        match self.rest.take() {
            Some(undecided) => drop(entries.insert(self.gid.clone(), Entry::InDoubt(undecided))),
            None => drop(entries.remove(&self.gid)),
        }
        drop(entries);
        self.register.changed.notify_all();
    }
}

impl Db {
    /// The transactions in doubt, by gid.
    pub fn prepared(&self) -> Vec<InDoubt> {
        self.0.engine.register.list()
    }

    /// Commits the transaction prepared as `gid`; returns the LSN of its commit record. Durable when this
    /// returns, whatever [`crate::Options::durability`] says.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody of that name is in doubt: decided before, or never prepared.
    /// [`Error::CommitUnknown`] and [`Error::Poisoned`]: the next open shows it committed, or still in doubt.
    /// After any other error it is still in doubt.
    pub fn commit_prepared(&self, gid: &str) -> Result<Lsn> {
        let engine = self.deciding()?;
        let (claim, mut undecided) = engine.register.take(gid)?;
        if let Err(error) = undecided.prepared.admit_commit() {
            claim.leave_in_doubt(undecided);
            return Err(error);
        }
        let Undecided { prepared, effects } = *undecided;
        let commit = prepared.commit()?;
        Counters::add(engine.counters.commits.mine());
        engine.pending.free_later(effects.moves.committed());
        Ok(commit)
    }

    /// Takes back the transaction prepared as `gid`. Durable when this returns. Waits for a running
    /// [`Db::verify`], at most as long as for any lock.
    ///
    /// # Errors
    /// [`Error::NotFound`] as [`Db::commit_prepared`]. [`Error::LockTimeout`]: still in doubt.
    /// [`Error::Poisoned`]: the next open shows it gone, or still in doubt. After any other error the decision
    /// stands and is durable, and the rollback goes on in the background (`stats` says so: `stranded`).
    pub fn abort_prepared(&self, gid: &str) -> Result<()> {
        let engine = self.deciding()?;
        let (claim, mut undecided) = engine.register.take(gid)?;
        if let Err(error) = undecided.prepared.decide_abort() {
            claim.leave_in_doubt(undecided);
            return Err(error);
        }
        let Undecided { prepared, effects } = *undecided;
        Counters::add(&engine.counters.aborts);
        engine.roll_back(prepared.id(), effects, || prepared.abort())
    }

    fn deciding(&self) -> Result<&Engine> {
        self.0.check_open()?;
        let engine = &*self.0.engine;
        if engine.read_only { Err(Error::ReadOnly) } else { Ok(engine) }
    }
}
