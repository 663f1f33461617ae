//! Runs the workload and says, line by line, what happened.
//!
//! ```text
//!   begin ── scenes ── TRY ──┬── commit ── durable ── ACK
//!                            └── abort ─── ended ──── ABT
//! ```
//!
//! A TRY line is written while every lock of the transaction is held, so the order of TRY lines is an
//! order in which the transactions could have run one after another. A transaction that the engine asks
//! to run again (deadlock, lock timeout) was rolled back before its TRY line and leaves no line; it
//! comes back under a new id. Any other error ends the process with a code other than 0.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use argali::{Db, Durability, Error, Flush, Lsn, Options, Tree, Write};
use fastrand::Rng;
use serde_json::json;

use super::mix::{self, End};
use super::script::Script;
use super::{RUNS, TREE};
use crate::output::Lines;

/// What the command line asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Decides everything.
    pub(crate) seed: u64,
    /// Concurrent clients.
    pub(crate) clients: u32,
    /// Transactions of all clients together.
    pub(crate) transactions: u64,
}

/// Runs `argali torture workload`.
pub(crate) fn run(options: Options, dir: &Path, plan: Plan) -> anyhow::Result<()> {
    let lines = Lines::stdout()?;
    let db = options.open(dir)?;
    let total = i64::from(mix::ACCOUNTS) * mix::OPENING;
    let meta = json!({ "bank_prefix": mix::BANK_PREFIX, "bank_total": total });
    lines.emit(format!("META {meta}"))?;
    let (run, tree) = begin_run(&db)?;
    let workload = Workload { db, tree, lines, plan, run, taken: AtomicU64::new(0) };
    workload.open_bank()?;
    workload.clients()?;
    let Workload { db, tree, .. } = workload;
    drop(tree);
    db.close().context("closing")?;
    Ok(())
}

/// Takes the next run number and makes the tree, in one durable transaction: an id in a TRY line
/// therefore contains a number that no later run will use.
fn begin_run(db: &Db) -> anyhow::Result<(u64, Tree)> {
    let taken = db.update(|txn| {
        let (runs, tree) = (txn.tree(RUNS)?, txn.tree(TREE)?);
        let last = txn.get_for_update(&runs, "run")?.unwrap_or_else(|| b"0".to_vec());
        let last = String::from_utf8_lossy(&last).parse::<u64>();
        let run = last.map_err(|why| Error::TxnFailed { cause: format!("run number: {why}") })? + 1;
        txn.put(&runs, "run", run.to_string())?;
        Ok((run, tree))
    });
    taken.context("taking a run number")
}

struct Workload {
    db: Db,
    tree: Tree,
    lines: Lines,
    plan: Plan,
    run: u64,
    /// Transaction numbers given out.
    taken: AtomicU64,
}

impl Workload {
    fn script(&self) -> Script<'_> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        Script::new(&self.tree, format!("{}-{}-{number}", self.plan.seed, self.run))
    }

    /// Accounts are made once in the life of the database, in one transaction: number 0 of its run.
    fn open_bank(&self) -> anyhow::Result<()> {
        let mut script = self.script();
        let txn = self.db.begin()?;
        if txn.get_for_update(&self.tree, format!("{}0", mix::BANK_PREFIX))?.is_some() {
            txn.abort()?;
            return Ok(());
        }
        mix::open_bank(&txn, &mut script)?;
        self.commit(txn, &script, 0, Durability::Sync)
    }

    fn clients(&self) -> anyhow::Result<()> {
        if self.plan.clients == 1 {
            return self.client(0);
        }
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.plan.clients)
                .map(|client| scope.spawn(move || self.client(client)))
                .collect();
            clients.into_iter().try_for_each(|client| match client.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn client(&self, client: u32) -> anyhow::Result<()> {
        let mut rng = Rng::with_seed(self.plan.seed);
        let mut rng = Rng::with_seed(rng.u64(..) ^ self.run << 16 ^ u64::from(client));
        while self.taken.load(Ordering::Relaxed) <= self.plan.transactions {
            match self.transaction(client, &mut rng) {
                Err(error) if is_retryable(&error) => {}
                done => done?,
            }
            if rng.u32(..4) == 0 {
                let flush =
                    *rng.choice(&[Flush::Nothing, Flush::Old, Flush::Everything]).expect("three");
                self.db.checkpoint(flush).context("checkpoint")?;
            }
        }
        Ok(())
    }

    fn transaction(&self, client: u32, rng: &mut Rng) -> anyhow::Result<()> {
        let (end, durability) = (mix::end(rng), durability(rng));
        let mut script = self.script();
        let mut txn = self.db.begin()?;
        mix::play(&mut txn, &mut script, rng, end)?;
        match end {
            End::Commit => self.commit(txn, &script, client, durability),
            End::Abort | End::AbortLarge => {
                self.lines.emit(script.try_line(client))?;
                txn.abort().context("abort")?;
                self.lines.emit(script.end_line("ABT")).map_err(Into::into)
            }
        }
    }

    fn commit(
        &self,
        txn: Write,
        script: &Script<'_>,
        client: u32,
        durability: Durability,
    ) -> anyhow::Result<()> {
        self.lines.emit(script.try_line(client))?;
        let lsn: Lsn = txn.commit_with(durability).context("commit")?;
        if durability == Durability::Relaxed {
            self.db.wait_durable(lsn).context("waiting for a relaxed commit")?;
        }
        self.lines.emit(script.end_line("ACK")).map_err(Into::into)
    }
}

/// All three ways to become durable before ACK.
fn durability(rng: &mut Rng) -> Durability {
    match rng.u32(..20) {
        0..2 => Durability::Relaxed,
        2 => Durability::Group(Duration::from_micros(200)),
        _ => Durability::Sync,
    }
}

/// Before its TRY line a transaction may be run again: nobody has heard of it.
fn is_retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(Error::is_retryable)
}
