//! The database handle and the composition root behind it.
//!
//! ```text
//!  Db, Write, Read ──► lanes, one a thread ──► Shared ──► Engine ◄── background threads
//!   (any number)                               lock file    control, wal, pager, pool, txns, space,
//!                                              threads      catalog, checkpointer
//! ```
//!
//! Two layers, because two things end at different times. [`Shared`] lives as long as somebody holds a
//! handle; dropping it *is* the shutdown. [`Engine`] is what threads work on; it must not keep the
//! database alive, or it would never shut down. A transaction holds [`Shared`] through the [`Lane`] of its
//! thread, so that begin and end of two threads do not write one reference count. Nothing else in the workspace names both access methods
//! and recovery: the parts meet here and only here.

use std::collections::HashMap;
use std::ops::Deref;
use std::time::Duration;

use argali_access::{Pending, Structure};
use argali_base::disk::DiskLock;
use argali_base::sync::{Arc, AtomicBool, AtomicU64, Clock, Mutex, Ordering, thread};
use argali_base::{Apart, Error, Lsn, Result, Striped, TxnId, spread};
use argali_recovery::{CheckpointPolicy, CheckpointReport, Checkpointer, Flush, Report};
use argali_txn::{Durability, Isolation, TxnOptions};

use crate::background::Background;
use crate::catalog::{Catalog, PENDING_ROOT};
use crate::handle::Handle;
use crate::open::Stack;
use crate::options::Options;
use crate::prepared::Register;
use crate::read::Read;
use crate::sequence::Sequence;
use crate::session::Session;
use crate::stats::{Stats, collect};
use crate::verify::{Verification, verify};
use crate::write::Write;

/// A database. Clone, send and share it; the last handle (transactions count) shuts it down cleanly.
#[derive(Clone)]
pub struct Db(pub(crate) Arc<Lanes>);

/// The ways into one opening; derefs to what is behind them.
pub(crate) struct Lanes(Striped<Arc<Lane>>);

/// What the transactions of one thread hold while they are open: the others hold other lanes.
pub(crate) struct Lane {
    shared: Arc<Shared>,
}

/// What all handles of one opening share; its drop is the shutdown.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    background: Mutex<Option<Background>>,
    closed: AtomicBool,
    /// Released after everything was written, so that the next holder meets a closed database.
    lock: Mutex<Option<Box<dyn DiskLock>>>,
    /// Where a temporary database lives; the last field, removed after all else is gone.
    _directory: Option<tempfile::TempDir>,
}

/// The layers of one database, recovered and at work; derefs to them.
pub(crate) struct Engine {
    stack: Stack,
    pub(crate) pending: Arc<Pending>,
    pub(crate) catalog: Catalog,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) policy: Arc<dyn CheckpointPolicy>,
    pub(crate) report: Report,
    pub(crate) read_only: bool,
    pub(crate) clock: Clock,
    pub(crate) counters: Apart<Counters>,
    /// Transactions in doubt.
    pub(crate) register: Register,
    /// What is to be freed when a rollback is over that is running, or failed and is tried again.
    pub(crate) owed: Mutex<HashMap<TxnId, Vec<Structure>>>,
    /// One at a time relieves a full log; see [`Engine::relieve_log`].
    relief: Mutex<()>,
}

/// What only the facade can count.
pub(crate) struct Counters {
    pub(crate) commits: Striped<AtomicU64>,
    pub(crate) aborts: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) background_error: Mutex<Option<String>>,
}

impl Counters {
    fn new() -> Self {
        Self {
            commits: Striped::new(|| AtomicU64::new(0)),
            aborts: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            background_error: Mutex::default(),
        }
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Deref for Engine {
    type Target = Stack;
    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl Engine {
    pub(crate) fn new(stack: Stack, report: Report, read_only: bool) -> Self {
        // Without threads a run must not depend on the wall clock; see `background`.
        let threads = stack.options.background_threads;
        let clock = if threads { Clock::system() } else { Clock::manual() };
        let pending = Arc::new(Pending::open(&stack.space, PENDING_ROOT));
        Self {
            catalog: Catalog::open(&stack.space, &pending),
            pending,
            checkpointer: Checkpointer::new(stack.parts(clock.clone())),
            policy: stack.options.policy_or_default(),
            stack,
            report,
            read_only,
            clock,
            counters: Apart(Counters::new()),
            register: Register::default(),
            owed: Mutex::default(),
            relief: Mutex::new(()),
        }
    }

    /// A handle of the sequence that `handle` stands for.
    pub(crate) fn sequence(&self, handle: Handle) -> Sequence {
        let block = self.catalog.block(handle.root());
        Sequence::new(handle, (&self.space, &self.txns), block)
    }

    pub(crate) fn checkpoint(&self, flush: Flush) -> Result<CheckpointReport> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let report = self.checkpointer.checkpoint(flush)?;
        Counters::add(&self.counters.checkpoints);
        Ok(report)
    }

    /// After `LogFull`: a checkpoint that writes every page moves the redo point to the present, so that
    /// only transactions still hold log. Whoever waited for somebody else's checkpoint takes none.
    pub(crate) fn relieve_log(&self) -> Result<()> {
        let before = self.counters.checkpoints.load(Ordering::Relaxed);
        let _one = self.relief.lock();
        if self.counters.checkpoints.load(Ordering::Relaxed) == before {
            self.checkpoint(Flush::Everything)?;
        }
        Ok(())
    }

    fn shut_down(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.health.check()?;
        self.retry_rollbacks();
        // What memory knows of room is lost otherwise; only a hint, so a failure is no reason to stop here.
        while matches!(self.relist_step(), Ok(true)) {}
        self.checkpointer.shut_down(self.stamp()?)
    }

    /// Makes the data file one that only this shutdown can have left. A full log is no reason not to close:
    /// then the file keeps its last stamp.
    fn stamp(&self) -> Result<Lsn> {
        let stamped = self.txns.begin_system().and_then(|mut system| {
            self.space.stamp(&mut system)?;
            system.commit(Durability::Relaxed)
        });
        match stamped {
            Ok(_) | Err(Error::LogFull { .. }) => self.space.stamped(),
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        lock: Option<Box<dyn DiskLock>>,
        directory: Option<tempfile::TempDir>,
    ) -> Result<Self> {
        let engine = Arc::new(engine);
        let threads = engine.options.background_threads && !engine.read_only;
        let background = threads.then(|| Background::start(&engine)).transpose()?;
        Ok(Self {
            engine,
            background: Mutex::new(background),
            closed: AtomicBool::new(false),
            lock: Mutex::new(lock),
            _directory: directory,
        })
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.engine.health.check()
    }

    /// Ends background work and writes everything, once; later calls find nothing to do.
    fn shut_down(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let mut background = self.background.lock().take();
        if let Some(background) = &mut background {
            background.stop_workers();
        }
        let result = self.engine.shut_down();
        if let Some(background) = &mut background {
            background.stop_log_writer(&self.engine);
        }
        drop(self.lock.lock().take());
        result
    }
}

impl Deref for Lane {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Deref for Lanes {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        self.0.mine()
    }
}

impl Lanes {
    /// That of this thread. While a clone of it lives, [`Db::close`] does not end the database.
    pub(crate) fn enter(&self) -> Result<Arc<Lane>> {
        let lane = self.0.mine();
        lane.check_open()?;
        Ok(Arc::clone(lane))
    }

    /// How many clones are about.
    fn entered(&self) -> usize {
        self.0.iter().map(|lane| Arc::strong_count(lane) - 1).sum()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to tell; the next open recovers what this could not finish.
        let _ = self.shut_down();
    }
}

impl Db {
    /// Opens the database in directory `path`, or makes one, with the default [`Options`].
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// What the restart of this opening did.
    pub fn recovery(&self) -> &Report {
        &self.0.engine.report
    }

    /// Begins a read-write transaction under the default isolation level.
    pub fn begin(&self) -> Result<Write> {
        self.begin_with(self.0.engine.options.isolation)
    }

    /// Begins a read-write transaction.
    pub fn begin_with(&self, isolation: Isolation) -> Result<Write> {
        if self.0.engine.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(Write::new(self.session(isolation)?))
    }

    /// Begins a read-only transaction under the default isolation level.
    #[inline]
    pub fn read(&self) -> Result<Read> {
        self.read_with(self.0.engine.options.isolation)
    }

    /// Begins a read-only transaction.
    #[inline]
    pub fn read_with(&self, isolation: Isolation) -> Result<Read> {
        Ok(Read::new(self.session(isolation)?))
    }

    /// The handle of what was opened.
    pub(crate) fn new(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        Self(Arc::new(Lanes(Striped::new(|| Arc::new(Lane { shared: Arc::clone(&shared) })))))
    }

    #[inline]
    fn session(&self, isolation: Isolation) -> Result<Session> {
        let lane = self.0.enter()?;
        let engine = &lane.engine;
        engine.inline_steps();
        let lock_timeout = engine.options.lock_timeout;
        let options = || TxnOptions { isolation, lock_timeout };
        let txn = match engine.txns.begin(options()) {
            Err(Error::LogFull { .. }) => {
                engine.relieve_log()?;
                engine.txns.begin(options())
            }
            begun => begun,
        }?;
        Ok(Session::new(lane, txn))
    }

    /// Runs `body` in a transaction and commits it. After a deadlock or a lock timeout it runs again, with
    /// growing, jittered pauses, up to [`Options::retries`] times: `body` must be fit to be run again.
    /// Any other error, and a panic, aborts.
    pub fn update<T>(&self, mut body: impl FnMut(&mut Write) -> Result<T>) -> Result<T> {
        let mut attempt = 0;
        loop {
            let mut write = self.begin()?;
            let id = write.id().get();
            let error = match body(&mut write) {
                Ok(value) => return write.commit().map(|_| value),
                Err(error) => error,
            };
            // Before the pause: whoever we stood in the way of can go on meanwhile.
            drop(write);
            if !error.is_retryable() || attempt == self.0.engine.options.retries {
                return Err(error);
            }
            Counters::add(&self.0.engine.counters.retries);
            thread::sleep(pause(attempt, id));
            attempt += 1;
        }
    }

    /// Takes a checkpoint now and returns what it did. No transaction waits for it.
    pub fn checkpoint(&self, flush: Flush) -> Result<CheckpointReport> {
        self.0.check_open()?;
        self.0.engine.checkpoint(flush)
    }

    /// Returns once the commit at `lsn` is durable: what a relaxed commit returned early.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.0.engine.wal.force(lsn).map(|_| ())
    }

    /// Counters and gauges of this opening; works on a poisoned database, too.
    pub fn stats(&self) -> Result<Stats> {
        collect(&self.0.engine)
    }

    /// Checks every structure and reads every page back from the disk; lists all faults it finds. Waits
    /// until no transaction has uncommitted changes, and keeps new ones waiting meanwhile.
    pub fn verify(&self) -> Result<Verification> {
        self.0.check_open()?;
        verify(&self.0.engine)
    }

    /// Ends background work, writes everything and marks the database clean, so that the next open has
    /// nothing to recover. Also done when the last handle drops, where errors have nowhere to go.
    ///
    /// With transactions still open, or a backup under way, it fails with [`Error::Invalid`] and changes
    /// nothing; other clones of this handle get [`Error::Closed`] from then on. Transactions in doubt may stay
    /// so: the next open takes their locks again, for which it goes through a (short) restart.
    pub fn close(self) -> Result<()> {
        let open = self.0.entered();
        if open > 0 {
            let why = format!("{open} transactions or backups are still open");
            return Err(Error::Invalid { what: "close", why });
        }
        self.0.shut_down()
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("options", &self.0.engine.options).finish_non_exhaustive()
    }
}

/// Between half and all of 1, 2, 4 … 128 ms. The transaction id, unlike that of every rival, is the
/// jitter: no source of randomness is needed.
fn pause(attempt: u32, txn: u64) -> Duration {
    let most = 1000_u64 << attempt.min(7);
    let hash = spread(txn) >> 32;
    let jitter = (hash * (most / 2)) >> 32;
    Duration::from_micros(most / 2 + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write to what all threads share would cost a reader more than its search.
    #[test]
    fn a_transaction_counts_on_its_lane_only() {
        let db = Options::new().in_memory().expect("memory is there");
        let counts = || {
            let lane = db.0.0.mine();
            (Arc::strong_count(&lane.shared), Arc::strong_count(&lane.engine.txns))
        };
        let before = counts();
        let read = db.read().expect("the database is open");
        assert_eq!((counts(), db.0.entered()), (before, 1));
        drop(read);
        assert_eq!(db.0.entered(), 0);
    }

    #[test]
    fn pauses_double_and_differ() {
        for attempt in 0..20 {
            let most = Duration::from_micros(1000 << attempt.min(7));
            for txn in 1..100 {
                let pause = pause(attempt, txn);
                assert!(pause >= most / 2 && pause < most, "{pause:?} of {most:?}");
            }
            assert_ne!(pause(attempt, 1), pause(attempt, 2));
        }
    }
}
