//! Chapters of a long history, and what they add up to.
//!
//! ```text
//!  chapter 1:  life ─ kill ─ life ─ kill ─ … ─► recover, verify, read all rows ─► verdict ─┐
//!  chapter 2:  life ─ …       (a tree of its own; the one before is dropped)               ├─► book
//! ```
//!
//! A chapter ends with every row read once more, by nobody in the history: from that state the checker
//! knows which versions survived. A chapter with a forbidden finding is written down beside the database,
//! event by event, and is the last one.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fastrand::Rng;

use super::check::{Finding, Verdict, check};
use super::life::{self, Kill};
use super::model::{History, Outcome};
use super::record::{Event, Record};
use super::stage::Stage;
use crate::args::history::{HistoryArgs, WorkArgs};
use crate::inspect;
use crate::output::{Progress, grouped};

/// Transactions of a chapter: what the checker holds in memory at a time.
const CHAPTER: u64 = 100_000;
/// Most transactions of a life that is killed.
const LIFE_MAX: u64 = 2000;

/// Everything told and judged so far.
pub(super) struct Book<'a> {
    args: &'a HistoryArgs,
    dir: &'a Path,
    rng: Rng,
    progress: Mutex<Progress>,
    chapters: u64,
    pub(super) totals: Totals,
    pub(super) verdict: Verdict,
}

/// Sums over all chapters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) transactions: u64,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) unknown: u64,
    pub(super) crashes: u64,
    pub(super) working: Duration,
    pub(super) checking: Duration,
}

impl<'a> Book<'a> {
    /// A book without chapters about a database in `dir`, which does not exist.
    pub(super) fn new(args: &'a HistoryArgs, dir: &'a Path) -> Self {
        Self {
            args,
            dir,
            rng: Rng::with_seed(args.work.seed),
            progress: Mutex::new(Progress::new()),
            chapters: 0,
            totals: Totals::default(),
            verdict: Verdict::default(),
        }
    }

    /// Transactions still to be run.
    pub(super) fn left(&self) -> u64 {
        self.args.work.transactions.saturating_sub(self.totals.transactions)
    }

    /// The gravest finding that the level forbids.
    pub(super) fn violation(&self) -> Option<&Finding> {
        self.verdict.violation(self.args.work.level.into())
    }

    /// Runs and judges one more chapter.
    pub(super) fn write_chapter(&mut self) -> anyhow::Result<()> {
        let size = self.left().min(CHAPTER);
        self.chapters += 1;
        let tree = format!("chapter {}", self.chapters);
        let seed = self.args.work.seed.wrapping_add(self.chapters << 32);
        let work = WorkArgs { transactions: size, seed, ..self.args.work.clone() };
        let begun = Instant::now();
        let record = if self.args.crash {
            self.lives(&tree, &work)?
        } else {
            let db = life::options().open(self.dir)?;
            let record = life::here(&db, (&tree, 1), &work, &|ended| self.show(ended))?;
            db.close()?;
            record
        };
        self.totals.transactions += record.ended();
        let history = self.close(record, &tree)?;
        self.totals.working += begun.elapsed();
        self.judge(&history)
    }

    /// Lives that end by SIGKILL, until the chapter is full.
    fn lives(&mut self, tree: &str, work: &WorkArgs) -> anyhow::Result<Record> {
        let (mut record, mut tick) = (Record::default(), 1);
        while record.ended() < work.transactions {
            let left = work.transactions - record.ended();
            let kill = match self.rng.u32(..8) {
                0 => Kill::Within(Duration::from_micros(self.rng.u64(..30_000))),
                _ => Kill::After(self.rng.u64(1..=LIFE_MAX)),
            };
            let seed = work.seed.wrapping_add(self.totals.crashes << 16);
            let life = WorkArgs { transactions: left, seed, ..work.clone() };
            life::elsewhere(self.dir, (tree, tick), (&life, kill), &mut record)?;
            tick = record.crash(work.clients);
            self.totals.crashes += 1;
            self.show(record.ended());
        }
        Ok(record)
    }

    /// Recovers if need be, checks every structure, and reads what is left; the tree then goes.
    fn close(&self, record: Record, tree: &str) -> anyhow::Result<History> {
        let db = life::options().open(self.dir)?;
        inspect::judge(&inspect::verified(db.verify())?)?;
        let shape = self.args.work.workload;
        let nobody = |_: Event| Ok(());
        let rows = Stage::open(&db, tree, (shape, 0), &nobody)?.rows()?;
        db.update(|txn| txn.drop_tree(tree))?;
        db.close()?;
        Ok(record.finish(shape, rows))
    }

    fn judge(&mut self, history: &History) -> anyhow::Result<()> {
        let begun = Instant::now();
        let verdict = check(history, self.args.work.level.into());
        self.totals.checking += begun.elapsed();
        self.totals.committed += history.count(Outcome::Committed);
        self.totals.aborted += history.count(Outcome::Aborted);
        self.totals.unknown += history.count(Outcome::Unknown);
        self.verdict.merge(verdict);
        if self.violation().is_some() {
            self.keep(history).context("writing the history down")?;
        }
        Ok(())
    }

    /// Leaves the history beside the database, as the lines clients tell.
    fn keep(&self, history: &History) -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(self.evidence())?);
        for txn in &history.txns {
            writeln!(file, "{}", Event::Tried(txn.clone()).line())?;
            if txn.outcome != Outcome::Unknown {
                let committed = txn.outcome == Outcome::Committed;
                let end = Event::Ended { no: txn.no, tick: txn.ended, committed };
                writeln!(file, "{}", end.line())?;
            }
        }
        Ok(file.flush()?)
    }

    fn evidence(&self) -> PathBuf {
        self.dir.with_extension("history")
    }

    fn show(&self, ended: u64) {
        if let Ok(mut progress) = self.progress.lock() {
            let (done, all) = (self.totals.transactions + ended, self.args.work.transactions);
            let crashes = self.totals.crashes;
            let text = format!("{} of {} transactions", grouped(done), grouped(all));
            progress.show(format_args!("{text}, {crashes} crashes"));
        }
    }
}
