//! One life of the clients: in this process, or in one that is killed.
//!
//! ```text
//!  argali history-child ──► try, end, try, …  ──pipe──► Record          one life
//!        ▲     ▲
//!        │     └ SIGKILL: after so many ends, or so many microseconds (then often within recovery)
//!        └ again, on the same directory, with a clock beyond all it can have used
//! ```
//!
//! A line that the kill cut in two was never told.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use argali::{Db, Options, Standard};

use super::record::{Event, Record};
use super::stage::Stage;
use super::workload::{self, Plan};
use crate::args::history::{self, HistoryChildArgs, WorkArgs};
use crate::output::Lines;

/// Bytes per page: small, so that splits are many.
const PAGE_BYTES: u32 = 4096;
/// Frames of the cache: fewer than pages in the end, so that pages of open transactions are written.
const FRAMES: u32 = 64;
/// Bytes per log segment: small, so that segments are recycled all the time.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Locks on keys after which a transaction tries to lock the tree. It seldom succeeds beside others, so few.
const ESCALATION: usize = 2;

/// When SIGKILL ends a life that has not ended by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kill {
    /// After so many transactions.
    After(u64),
    /// So long after the start.
    Within(Duration),
}

/// A small database under pressure, with all its background threads.
pub(super) fn options() -> Options {
    Options::new()
        .page_size(PAGE_BYTES)
        .cache_bytes((FRAMES * PAGE_BYTES) as usize)
        .segment_bytes(SEGMENT_BYTES)
        .lock_escalation(ESCALATION)
        .checkpoint_policy(Arc::new(Standard { log_bytes: SEGMENT_BYTES, ..Standard::default() }))
}

/// What the arguments ask of the clients.
pub(super) fn plan(work: &WorkArgs) -> Plan {
    Plan {
        level: work.level.into(),
        clients: work.clients,
        transactions: work.transactions,
        seed: work.seed,
    }
}

/// A life in this process. `watch` hears how many transactions have ended.
pub(super) fn here(
    db: &Db,
    (tree, tick): (&str, u64),
    work: &WorkArgs,
    watch: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Record> {
    let record = Mutex::new(Record::default());
    let tell = |event| {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.hear(event)?;
        watch(record.ended());
        Ok(())
    };
    let stage = Stage::open(db, tree, (work.workload, tick), &tell)?;
    workload::run(&stage, plan(work))?;
    Ok(record.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Runs `argali history-child`: tells every event on standard output.
pub(crate) fn child(args: &HistoryChildArgs) -> anyhow::Result<()> {
    let lines = Lines::stdout()?;
    let db = options().open(&args.dir)?;
    let tell = |event: Event| lines.emit(event.line()).map_err(Into::into);
    let stage = Stage::open(&db, &args.tree, (args.work.workload, args.tick), &tell)?;
    workload::run(&stage, plan(&args.work))?;
    drop(stage);
    Ok(db.close()?)
}

/// A life in another process; takes what it tells into `record`.
pub(super) fn elsewhere(
    dir: &Path,
    (tree, tick): (&str, u64),
    (work, kill): (&WorkArgs, Kill),
    record: &mut Record,
) -> anyhow::Result<()> {
    let mut child = start(dir, (tree, tick), work)?;
    let killed = listen(&mut child, kill, record);
    if killed.is_err() {
        child.kill().context("killing the clients")?;
    }
    let status = child.wait().context("waiting for the clients")?;
    if !killed? && !status.success() {
        bail!("the clients' process ended with {status}");
    }
    Ok(())
}

fn start(dir: &Path, (tree, tick): (&str, u64), work: &WorkArgs) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("finding this program")?;
    let level = history::name(&work.level);
    let workload = history::name(&work.workload);
    Command::new(program)
        .arg("history-child")
        .arg(dir)
        .args(["--tree", tree, "--tick", &tick.to_string()])
        .args(["--level", &level, "--workload", &workload])
        .args(["--clients", &work.clients.to_string(), "--seed", &work.seed.to_string()])
        .args(["--transactions", &work.transactions.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the clients' process")
}

/// Hears the child until its pipe ends, and kills it when it is time. Whether that came to be.
fn listen(child: &mut Child, kill: Kill, record: &mut Record) -> anyhow::Result<bool> {
    let pipe = child.stdout.take().context("the clients have no standard output")?;
    let (last, mut killed) = match kill {
        Kill::After(transactions) => (record.ended() + transactions, false),
        Kill::Within(delay) => {
            thread::sleep(delay);
            child.kill().context("killing the clients")?;
            (u64::MAX, true)
        }
    };
    let (mut pipe, mut line) = (BufReader::new(pipe), String::new());
    while pipe.read_line(&mut line)? > 0 && line.ends_with('\n') {
        record.hear(Event::parse(line.trim_end())?)?;
        line.clear();
        if !killed && record.ended() >= last {
            child.kill().context("killing the clients")?;
            killed = true;
        }
    }
    Ok(killed)
}
