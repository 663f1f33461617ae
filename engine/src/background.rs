//! Background work: what no transaction should wait for.
//!
//! ```text
//!  thread           step                                    rests
//!  argali-log       Wal::step: flush for waiters, relaxed   until woken, at most 100 ms
//!  argali-cleaner   BufferPool::step: a batch of old pages  10 ms when there was nothing to do
//!                   Checkpointer::write_ahead: some more
//!  argali-house     Checkpointer::step, Pending::step,      50 ms
//!                   BTree::tidy_some: thin nodes
//!                   Heap::relist_step
//! ```
//!
//! All of it is step functions without a loop of their own. With threads off the same steps run at the
//! start of transactions, and time, for them, is the number of transactions begun: a single client then
//! makes the same calls in the same order every time, which is what crash tests cut at. (Writing ahead of
//! a checkpoint is left out there: nobody else works meanwhile who could be spared a wait.)
//!
//! A failing step ends nothing: it is kept for `stats` and tried again, except on a poisoned database,
//! where nothing is tried again by design. What must not fail silently (the log) poisons by itself.

use std::time::Duration;

use argali_access::{BTree, Heap};
use argali_base::sync::{Arc, Condvar, Mutex, thread};
use argali_base::{Error, Lsn, Result};
use argali_txn::Durability;

use crate::db::{Counters, Engine};

/// Longest sleep of the log writer; bounds how long a shutdown waits for it.
const LOG_IDLE: Duration = Duration::from_millis(100);
/// Pause of the page cleaner when enough pages are clean.
const CLEANER_REST: Duration = Duration::from_millis(10);
/// Pause between two looks at the checkpoint policy: at 1 GB/s of log, 50 MB.
const HOUSE_REST: Duration = Duration::from_millis(50);
/// Leaves tidied per system transaction: bounds how long a check must wait for one turn, and how long the
/// turn's own records keep ghosts from being settled.
const TIDY_BATCH: usize = 16;
/// What the inline clock moves by at each begin.
const INLINE_TICK: Duration = Duration::from_millis(1);

/// The running threads of one database.
pub(crate) struct Background {
    workers: Workers,
    log_writer: Workers,
}

struct Workers {
    stop: Arc<Stop>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock() = true;
        self.changed.notify_all();
    }

    /// Rests for `time`, or until the end; returns whether this is the end.
    fn rest(&self, time: Duration) -> bool {
        let mut asked = self.asked.lock();
        if !*asked {
            self.changed.wait_for(&mut asked, time);
        }
        *asked
    }
}

impl Workers {
    fn new() -> Self {
        Self { stop: Arc::new(Stop::default()), threads: Vec::new() }
    }

    /// Starts a thread that calls `step` until the end, resting as long as it says in between.
    fn start(
        &mut self,
        name: &'static str,
        engine: &Arc<Engine>,
        step: fn(&Engine) -> Duration,
    ) -> Result<()> {
        let (stop, engine) = (Arc::clone(&self.stop), Arc::clone(engine));
        let body = move || while !stop.rest(step(&engine)) {};
        let handle = thread::spawn(name, body).map_err(|e| Error::io("start thread", name, e))?;
        self.threads.push(handle);
        Ok(())
    }

    fn stop(&mut self) {
        self.stop.ask();
        for thread in self.threads.drain(..) {
            // A panic in a background thread is a bug that was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Background {
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Self> {
        let mut threads = Self { workers: Workers::new(), log_writer: Workers::new() };
        threads.log_writer.start("argali-log", engine, Engine::log_step)?;
        threads.workers.start("argali-cleaner", engine, Engine::clean_step)?;
        threads.workers.start("argali-house", engine, Engine::house_step)?;
        Ok(threads)
    }

    /// Ends cleaner and checkpointer; the log writer goes on for whoever still commits.
    pub(crate) fn stop_workers(&mut self) {
        self.workers.stop();
    }

    pub(crate) fn stop_log_writer(&mut self, engine: &Engine) {
        self.log_writer.stop.ask();
        engine.wal.wake();
        self.log_writer.stop();
    }
}

impl Engine {
    fn log_step(&self) -> Duration {
        if self.health.is_poisoned() {
            return LOG_IDLE;
        }
        let delay = self.options.relaxed_delay;
        self.note("log writer", self.wal.step(&self.clock, delay, LOG_IDLE));
        Duration::ZERO
    }

    fn clean_step(&self) -> Duration {
        let old = self.note("page cleaner", self.pool.step(self.clean_target()));
        let ahead = self.note("writing ahead", self.checkpointer.write_ahead(&*self.policy));
        let busy = [old, ahead].into_iter().flatten().any(|written| written > 0);
        if busy { Duration::ZERO } else { CLEANER_REST }
    }

    fn house_step(&self) -> Duration {
        self.retry_rollbacks();
        self.note("checkpoint", self.checkpoint_step());
        while self.note("freeing pages", self.free_step()) == Some(true) {}
        // Once round: a leaf that could not be tidied is noted again, and every commit may make it due.
        for _ in 0..=self.space.stats().thin_leaves / TIDY_BATCH {
            if self.note("tidying trees", self.tidy_step()) != Some(true) {
                break;
            }
        }
        while self.note("listing room", self.relist_step()) == Some(true) {}
        HOUSE_REST
    }

    /// Lists heap pages that gained room; returns whether there are more.
    pub(crate) fn relist_step(&self) -> Result<bool> {
        let _no_frees = self.pending.pause();
        Heap::relist_step(self.catalog.space(), &self.txns)
    }

    fn checkpoint_step(&self) -> Result<()> {
        if self.checkpointer.step(&*self.policy)?.is_some() {
            Counters::add(&self.counters.checkpoints);
        }
        Ok(())
    }

    /// One turn of joining thin nodes, while no tree is being freed or checked. Returns whether there is
    /// more to do.
    fn tidy_step(&self) -> Result<bool> {
        if !BTree::can_tidy(&self.space) {
            return Ok(false);
        }
        let _alone = self.pending.pause();
        let mut system = self.txns.begin_system()?;
        BTree::tidy_some(&self.space, &mut system, TIDY_BATCH)?;
        system.commit(Durability::Relaxed)?;
        Ok(BTree::can_tidy(&self.space))
    }

    /// Frees a batch of pages; a full log is answered by a checkpoint, as it is for transactions.
    fn free_step(&self) -> Result<bool> {
        match self.pending.step(&self.txns) {
            Err(Error::LogFull { .. }) => {
                self.relieve_log()?;
                self.pending.step(&self.txns)
            }
            step => step,
        }
    }

    /// Pages older than half the log limit are written even without a checkpoint that asks for it, so
    /// that a policy that never writes pages cannot fill the log with redo.
    fn clean_target(&self) -> Lsn {
        Lsn::new(self.wal.tail().get().saturating_sub(self.options.log_limit_bytes / 2))
    }

    /// One round of all steps, without threads.
    pub(crate) fn inline_steps(&self) {
        if self.options.background_threads || self.read_only {
            return;
        }
        self.clock.advance(INLINE_TICK);
        let delay = self.options.relaxed_delay;
        self.note("log writer", self.wal.step(&self.clock, delay, Duration::ZERO));
        self.note("page cleaner", self.pool.step(self.clean_target()));
        self.retry_rollbacks();
        self.note("checkpoint", self.checkpoint_step());
        self.note("freeing pages", self.free_step());
        self.note("tidying trees", self.tidy_step());
        self.note("listing room", self.relist_step());
    }

    /// Keeps the error of a step for `stats`.
    fn note<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                *self.counters.background_error.lock() = Some(format!("{what}: {error}"));
            })
            .ok()
    }
}
