//! How the cost of one operation grows with the work, one curve for each thing that can grow.
//!
//! ```text
//!  rows          10⁴ … 10⁷ rows in the cache      get, update, scan of 100 rows
//!  clients       1 … 256                          durable and relaxed updates
//!  values        10 B … 64 KiB                    put, get
//!  transaction   1 … 10⁵ rows in one              put, its commit, its rollback
//!  open          0 … 10⁴ open transactions        what the others' updates, reads, checkpoints cost
//!  log           16 … 512 MiB behind a crash      restart
//! ```
//!
//! Every number is microseconds per operation (or per row, per MiB), so what scales is a flat column; the
//! first rows of a curve say what a fixed cost is. Absolute numbers drift with the machine: a curve is
//! measured from end to end several times, and the median of each point is shown.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use argali::{Db, Durability, Flush, Isolation, Options, Tree};
use argali_benches::{Crash, Files, Rows, key, median, throughput, value};
use clap::Parser;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use fastrand::Rng;

/// Rows of the curves that keep them.
const ROWS: u64 = 100_000;
/// Rows of a scan.
const SCANNED: usize = 100;

/// Cost per operation as the work grows
#[derive(Debug, Parser)]
struct Args {
    /// Curves (default: all): rows, clients, values, transaction, open, log
    curves: Vec<String>,
    /// Directory for the databases (a temporary one is made in it)
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Seconds per point
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Times each curve is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Most rows of the curve of rows; 10⁸ take 13 GB of disk and as much memory
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Longest log of the curve of logs, in MiB
    #[arg(long, default_value_t = 512)]
    log_mib: u64,
}

/// What a point is measured with.
struct Bench {
    time: Duration,
    dir: PathBuf,
}

/// One thing that grows.
struct Curve {
    name: &'static str,
    /// What grows, then what is measured.
    head: &'static [&'static str],
    points: fn(&Args) -> Vec<u64>,
    measure: fn(&Bench, u64) -> Result<Vec<f64>>,
}

const CURVES: &[Curve] = &[
    Curve {
        name: "rows",
        head: &[
            "rows",
            "get",
            "get, serializable",
            "update, relaxed",
            "scan of 100",
            "MB resident",
        ],
        points: |args| decades(10_000, args.rows),
        measure: Bench::rows,
    },
    Curve {
        name: "clients",
        head: &["clients", "durable update", "commits per sync", "relaxed update"],
        points: |_| vec![1, 2, 4, 8, 16, 32, 64, 128, 256],
        measure: Bench::clients,
    },
    Curve {
        name: "values",
        head: &["bytes", "put, relaxed", "get", "log bytes per put"],
        points: |_| vec![10, 100, 1000, 2000, 4 << 10, 16 << 10, 64 << 10],
        measure: Bench::values,
    },
    Curve {
        name: "transaction",
        head: &["rows in it", "put, per row", "commit, per row", "rollback, per row"],
        points: |_| decades(1, 100_000),
        measure: Bench::transaction,
    },
    Curve {
        name: "open",
        head: &["open transactions", "update, relaxed", "get", "begin + end", "checkpoint"],
        points: |_| std::iter::once(0).chain(decades(1, 10_000)).collect(),
        measure: Bench::open,
    },
    Curve {
        name: "log",
        head: &["MiB of log", "restart, per MiB", "analysis", "redo", "undo", "checkpoint"],
        points: |args| (4..40).map(|power| 1 << power).take_while(|n| *n <= args.log_mib).collect(),
        measure: Bench::log,
    },
];

fn decades(from: u64, to: u64) -> Vec<u64> {
    std::iter::successors(Some(from), |n| Some(n * 10)).take_while(|n| *n <= to).collect()
}

fn main() -> Result<()> {
    if let Some(crash) = Crash::from_args()? {
        crash.write_and_exit()?;
    }
    let args = Args::parse();
    for name in &args.curves {
        if !CURVES.iter().any(|curve| curve.name == name) {
            bail!(
                "no curve is called {name}; there are rows, clients, values, transaction, open, log"
            );
        }
    }
    for curve in CURVES {
        if args.curves.is_empty() || args.curves.iter().any(|name| name == curve.name) {
            println!("{}: microseconds\n\n{}\n", curve.name, curve.table(&args)?);
        }
    }
    Ok(())
}

impl Curve {
    fn table(&self, args: &Args) -> Result<String> {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header(self.head);
        for point in (self.points)(args) {
            let rounds: Result<Vec<Vec<f64>>> =
                (0..args.rounds).map(|_| self.point(args, point)).collect();
            let rounds = rounds.with_context(|| format!("{} at {point}", self.name))?;
            let medians = (0..self.head.len() - 1)
                .map(|at| number(median(rounds.iter().map(|round| round[at]).collect())));
            table.add_row(std::iter::once(point.to_string()).chain(medians));
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Ok(table.to_string())
    }

    fn point(&self, args: &Args, point: u64) -> Result<Vec<f64>> {
        eprint!("\r{} {point}          ", self.name);
        let dir = tempfile::tempdir_in(&args.dir).context("making a directory")?;
        let time = Duration::from_secs_f64(args.seconds);
        let values = (self.measure)(&Bench { time, dir: dir.path().to_owned() }, point);
        eprint!("\r");
        values
    }
}

impl Bench {
    /// A database of `count` rows with room for all of them in the cache.
    fn database(&self, count: u64) -> Result<Rows> {
        let cache = (count as usize * 200).max(64 << 20);
        let db = Options::new().cache_bytes(cache).log_limit_bytes(4 << 30).open(&self.dir)?;
        let tree = db.update(|txn| txn.tree("rows"))?;
        let (txn, mut rng) = (db.begin()?, Rng::with_seed(1));
        txn.bulk_load(&tree, (0..count).map(|n| Ok((key(n), value(&mut rng)))))?;
        txn.commit_with(Durability::Relaxed)?;
        db.checkpoint(Flush::Everything)?;
        Ok(Rows { db, tree, count })
    }

    /// Microseconds that one of `clients` threads takes for `operation`.
    fn each(
        &self,
        clients: usize,
        operation: impl Fn(&mut Rng) -> argali::Result<()> + Sync,
    ) -> Result<f64> {
        let rate = throughput(clients, self.time, |_, rng| operation(rng))?;
        Ok(clients as f64 * 1e6 / rate)
    }

    fn rows(&self, count: u64) -> Result<Vec<f64>> {
        let rows = self.database(count)?;
        Ok(vec![
            self.each(1, |rng| get(&rows, rng, Isolation::ReadCommitted))?,
            self.each(1, |rng| get(&rows, rng, Isolation::Serializable))?,
            self.each(1, |rng| rows.update(rng, Durability::Relaxed))?,
            self.each(1, |rng| scan(&rows, rng))?,
            resident_mb(),
        ])
    }

    fn clients(&self, clients: u64) -> Result<Vec<f64>> {
        let (rows, clients) = (self.database(ROWS)?, clients as usize);
        let before = rows.db.stats()?;
        let durable = self.each(clients, |rng| rows.update(rng, Durability::Sync))?;
        let after = rows.db.stats()?;
        let syncs = after.log.flushes - before.log.flushes;
        let relaxed = self.each(clients, |rng| rows.update(rng, Durability::Relaxed))?;
        Ok(vec![durable, (after.commits - before.commits) as f64 / syncs.max(1) as f64, relaxed])
    }

    fn values(&self, bytes: u64) -> Result<Vec<f64>> {
        let rows = self.database(1000)?;
        let before = rows.db.stats()?;
        let put = self.each(1, |rng| {
            let txn = rows.db.begin()?;
            let mut value = vec![0; bytes as usize];
            rng.fill(&mut value);
            txn.put(&rows.tree, rows.some_key(rng), value)?;
            txn.commit_with(Durability::Relaxed).map(drop)
        })?;
        let after = rows.db.stats()?;
        let log = (after.log.tail.get() - before.log.tail.get()) as f64;
        let puts = (after.commits - before.commits).max(1) as f64;
        let get = self.each(1, |rng| get(&rows, rng, Isolation::ReadCommitted))?;
        Ok(vec![put, get, log / puts])
    }

    /// Whole transactions until the time is up; their parts, per row.
    fn transaction(&self, size: u64) -> Result<Vec<f64>> {
        let rows = self.database(ROWS)?;
        let (mut rng, begun) = (Rng::with_seed(3), Instant::now());
        let (mut spent, mut done) = ([0.0; 3], 0);
        while done == 0 || begun.elapsed() < self.time {
            let [put, commit] = change(&rows, &mut rng, size, true)?;
            let [_, rollback] = change(&rows, &mut rng, size, false)?;
            for (sum, part) in spent.iter_mut().zip([put, commit, rollback]) {
                *sum += part;
            }
            done += size;
        }
        Ok(spent.iter().map(|sum| sum / done as f64).collect())
    }

    fn open(&self, open: u64) -> Result<Vec<f64>> {
        let rows = self.database(ROWS)?;
        let others = rows.db.update(|txn| txn.tree("others"))?;
        let holders: argali::Result<Vec<_>> =
            (0..open).map(|n| hold(&rows.db, &others, n)).collect();
        let holders = holders?;
        let measured = vec![
            self.each(1, |rng| rows.update(rng, Durability::Relaxed))?,
            self.each(1, |rng| get(&rows, rng, Isolation::ReadCommitted))?,
            self.each(1, |_| rows.db.read()?.finish())?,
            self.each(1, |_| rows.db.checkpoint(Flush::Nothing).map(drop))?,
        ];
        drop(holders);
        Ok(measured)
    }

    fn log(&self, log_mib: u64) -> Result<Vec<f64>> {
        let crash = Crash { path: self.dir.join("crashed"), log_mib, rows: ROWS };
        crash.happen()?;
        let report = crash.recover(Files::Warm)?;
        let parts = [report.analysis.time, report.redo.time, report.undo.time];
        let times = [report.total_time].into_iter().chain(parts).chain([report.checkpoint_time]);
        let mib = report.redo.bytes as f64 / f64::from(1 << 20);
        Ok(times.map(|time| time.as_secs_f64() * 1e6 / mib).collect())
    }
}

fn get(rows: &Rows, rng: &mut Rng, isolation: Isolation) -> argali::Result<()> {
    let read = rows.db.read_with(isolation)?;
    std::hint::black_box(read.get(&rows.tree, rows.some_key(rng))?);
    read.finish()
}

fn scan(rows: &Rows, rng: &mut Rng) -> argali::Result<()> {
    let read = rows.db.read_with(Isolation::ReadCommitted)?;
    for row in read.scan(&rows.tree, rows.some_key(rng)..)?.take(SCANNED) {
        std::hint::black_box(row?);
    }
    read.finish()
}

/// Puts `size` rows in one transaction and ends it; microseconds of both.
fn change(rows: &Rows, rng: &mut Rng, size: u64, commit: bool) -> Result<[f64; 2]> {
    let begun = Instant::now();
    let txn = rows.db.begin()?;
    for _ in 0..size {
        txn.put(&rows.tree, rows.some_key(rng), value(rng))?;
    }
    let (put, ending) = (begun.elapsed(), Instant::now());
    if commit {
        txn.commit_with(Durability::Relaxed)?;
    } else {
        txn.abort()?;
    }
    Ok([put, ending.elapsed()].map(|time| time.as_secs_f64() * 1e6))
}

/// A transaction that wrote a row of its own and stays open.
fn hold(db: &Db, tree: &Tree, number: u64) -> argali::Result<argali::Write> {
    let txn = db.begin()?;
    txn.put(tree, key(number), b"held")?;
    Ok(txn)
}

fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
