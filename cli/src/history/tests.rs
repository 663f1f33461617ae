//! Isolation shown: what each level forbids never happens, what it permits can, and a broken rule is seen.

mod cells;
mod clean;
mod planted;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use argali::{Db, Isolation, Mutations, Options};

use super::check::{Anomaly, Verdict, check};
use super::life;
use super::model::{History, Shape};
use super::record::{Event, Record};
use super::stage::Stage;
use crate::args::history::{LevelArg, WorkArgs};

const LEVELS: [LevelArg; 3] =
    [LevelArg::Serializable, LevelArg::RepeatableRead, LevelArg::ReadCommitted];

fn options(mutations: &Mutations) -> Options {
    life::options().mutations(mutations.clone())
}

fn work(level: LevelArg, workload: Shape, seed: u64) -> WorkArgs {
    WorkArgs { level, workload, clients: 4, transactions: 1500, seed }
}

/// Four clients on a database in memory.
fn played(db: &Db, work: &WorkArgs) -> History {
    try_played(db, work).unwrap()
}

/// As [`played`], where a broken rule may end in an error.
fn try_played(db: &Db, work: &WorkArgs) -> anyhow::Result<History> {
    let record = life::here(db, ("rows", 1), work, &|_| {})?;
    let nobody = |_: Event| Ok(());
    let rows = Stage::open(db, "rows", (work.workload, 0), &nobody)?.rows()?;
    Ok(record.finish(work.workload, rows))
}

/// Lets `story` act on a stage at `level`; the verdict on what happened. Nobody waits for long.
fn told(level: Isolation, shape: Shape, story: impl FnOnce(&Stage<'_>)) -> Verdict {
    let hasty = life::options().lock_timeout(Duration::from_millis(10));
    let db = hasty.in_memory().unwrap();
    let record = Mutex::new(Record::default());
    let tell = |event| record.lock().unwrap_or_else(PoisonError::into_inner).hear(event);
    let stage = Stage::open(&db, "rows", (shape, 1), &tell).unwrap();
    story(&stage);
    let rows = stage.rows().unwrap();
    drop(stage);
    let history = record.into_inner().unwrap().finish(shape, rows);
    check(&history, level)
}

fn found(verdict: &Verdict) -> Vec<Anomaly> {
    verdict.findings.iter().map(|finding| finding.anomaly).collect()
}
