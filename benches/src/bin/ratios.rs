//! Prints what the engine reaches as ratios against the plainest thing that could work.
//!
//! ```text
//!  commits/s    1, 4, 16, 64 threads    against as many threads that append and fdatasync a raw file
//!  reads/s      in cache                against BTreeMap under a mutex
//!  updates/s    in cache, relaxed       against BTreeMap under a mutex
//!  recovery     MB of log per second    against reading the same log files from the cache, end to end;
//!               files cached, and not
//! ```
//!
//! Slices of both sides are interleaved; the table shows medians, the median of the paired ratios, and
//! their least and greatest. Syncs are counted, not assumed: commits per sync says what grouping gained.
//! The directory should be on the disk that is meant (`--dir`); a memory file system has no syncs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use argali::{Durability, Isolation, Options};
use argali_benches::{Crash, Files, ROWS, Ratios, RawLog, Rows, key, throughput, value};
use clap::Parser;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use fastrand::Rng;

/// Bytes of a commit's record in the log of [`Rows::update`], about: what the raw file appends.
const RECORD_BYTES: usize = 400;

/// Ratios of the hot paths against the plainest thing that could work
#[derive(Debug, Parser)]
struct Args {
    /// Directory for the databases (a temporary one is made in it)
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Seconds per slice
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Pairs of slices per row
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// MiB of log to recover
    #[arg(long, default_value_t = 64)]
    log_mib: u64,
}

fn main() -> anyhow::Result<()> {
    if let Some(crash) = Crash::from_args()? {
        crash.write_and_exit()?;
    }
    let args = Args::parse();
    let dir = tempfile::tempdir_in(&args.dir).context("making a directory")?;
    let mut report = Report::new();
    commits(&args, dir.path(), &mut report)?;
    in_cache(&args, &mut report)?;
    recovery(&args, dir.path(), &mut report)?;
    report.print();
    Ok(())
}

/// The table, row by row.
struct Report(Table);

impl Report {
    fn new() -> Self {
        let mut table = Table::new();
        let line = LineStyle::none().fill('─').junction('─');
        table.load_style(TableStyle::new().header_separator(line));
        table.set_header(["measured", "ours/s", "theirs/s", "ratio", "least", "greatest", "note"]);
        Self(table)
    }

    fn row(&mut self, name: &str, ratios: &Ratios, note: &str) {
        eprintln!("{name}: {:.2}", ratios.ratio());
        let (least, greatest) = ratios.spread();
        let number = |n: f64| if n < 100.0 { format!("{n:.1}") } else { format!("{n:.0}") };
        self.0.add_row([
            name.to_owned(),
            number(ratios.ours()),
            number(ratios.theirs()),
            format!("{:.2}", ratios.ratio()),
            format!("{least:.2}"),
            format!("{greatest:.2}"),
            note.to_owned(),
        ]);
    }

    fn print(mut self) {
        for column in self.0.column_iter_mut().skip(1).take(5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // The load tells a reader of the table how far to believe it.
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        println!("{cores} cores, load {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
        self.0.to_string().lines().for_each(|line| println!("{}", line.trim_end()));
    }
}

/// Durable commits of one-row updates against raw append and fdatasync.
fn commits(args: &Args, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let db = Options::new().open(dir.join("commits"))?;
    let rows = Rows::load(db, 10_000)?;
    let raw = RawLog::create(dir)?;
    let record = [7; RECORD_BYTES];
    let time = Duration::from_secs_f64(args.seconds);
    for threads in [1, 4, 16, 64] {
        let before = (rows.db.stats()?, raw.syncs());
        let ratios = Ratios::measure(
            args.pairs,
            || {
                throughput(threads, time, |_, rng| rows.update(rng, Durability::Sync))
                    .map_err(anyhow::Error::from)
            },
            || throughput(threads, time, |_, _| raw.commit(&record)).map_err(anyhow::Error::from),
        )?;
        let after = rows.db.stats()?;
        let commits = after.commits - before.0.commits;
        let syncs = after.log.flushes - before.0.log.flushes;
        let each = commits as f64 / syncs.max(1) as f64;
        let bytes = (after.log.flushed_bytes - before.0.log.flushed_bytes) / commits.max(1);
        let theirs = raw.syncs() - before.1;
        report.row(
            &format!("commits, {threads} threads"),
            &ratios,
            &format!("{each:.1} commits/sync, {bytes} B/commit, {syncs} syncs, raw {theirs}"),
        );
    }
    rows.db.clone().close()?;
    Ok(())
}

/// The map that point reads and updates are measured against.
type Map = Mutex<BTreeMap<Vec<u8>, Vec<u8>>>;

fn in_cache(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let rows = Rows::in_memory()?;
    let mut rng = Rng::with_seed(1);
    let map: Map =
        Mutex::new((0..ROWS).map(|n| (key(n).to_vec(), value(&mut rng).to_vec())).collect());
    let time = Duration::from_secs_f64(args.seconds);
    for threads in [1, 2] {
        let theirs = || throughput(threads, time, |_, rng| read_map(&map, rng));
        let ratios = Ratios::measure(args.pairs, || read_in_one(&rows, threads, time), theirs)?;
        report.row(&format!("reads, {threads} threads"), &ratios, "1,000 reads a transaction");
        for isolation in [Isolation::ReadCommitted, Isolation::Serializable] {
            let ours = || throughput(threads, time, |_, rng| read_each(&rows, rng, isolation));
            let ratios = Ratios::measure(args.pairs, ours, theirs)?;
            let name = format!("reads, {threads} threads");
            report.row(&name, &ratios, &format!("a transaction each, {isolation:?}"));
        }
        let ratios = Ratios::measure(
            args.pairs,
            || throughput(threads, time, |_, rng| rows.update(rng, Durability::Relaxed)),
            || throughput(threads, time, |_, rng| update_map(&map, rng)),
        )?;
        report.row(&format!("updates, {threads} threads"), &ratios, "a transaction each, relaxed");
    }
    Ok(())
}

/// One operation is a thousand reads, so the rate counts them all.
fn read_in_one(rows: &Rows, threads: usize, time: Duration) -> argali::Result<f64> {
    const READS: usize = 1000;
    let rate = throughput(threads, time, |_, rng| {
        let read = rows.db.read_with(Isolation::ReadCommitted)?;
        let mut out = Vec::new();
        for _ in 0..READS {
            read.get_into(&rows.tree, rows.some_key(rng), &mut out)?;
        }
        read.finish()
    })?;
    Ok(rate * READS as f64)
}

fn read_each(rows: &Rows, rng: &mut Rng, isolation: Isolation) -> argali::Result<()> {
    let read = rows.db.read_with(isolation)?;
    std::hint::black_box(read.get(&rows.tree, rows.some_key(rng))?);
    read.finish()
}

// Cannot fail; the type is the one `throughput` shares with our side.
#[allow(clippy::unnecessary_wraps)]
fn read_map(map: &Map, rng: &mut Rng) -> argali::Result<()> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    std::hint::black_box(map.get(key(rng.u64(..ROWS)).as_slice()).cloned());
    Ok(())
}

#[allow(clippy::unnecessary_wraps)]
fn update_map(map: &Map, rng: &mut Rng) -> argali::Result<()> {
    let (key, value) = (key(rng.u64(..ROWS)).to_vec(), value(rng).to_vec());
    map.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    Ok(())
}

/// Bytes of log per second that a restart gets through, against reading the files.
fn recovery(args: &Args, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let crash = Crash { path: dir.join("crashed"), log_mib: args.log_mib, rows: ROWS };
    crash.happen()?;
    for (files, name) in [(Files::Warm, "warm"), (Files::Cold, "cold")] {
        let mut note = String::new();
        let ratios = Ratios::measure(
            args.pairs,
            || {
                let (rate, text) = described(&crash.recover(files)?);
                note = text;
                anyhow::Ok(rate)
            },
            || read_log(&crash.path),
        )?;
        report.row(&format!("recovery, MB of log, {name}"), &ratios, &note);
    }
    Ok(())
}

/// MB of log per second, and what took how long.
fn described(report: &argali::Report) -> (f64, String) {
    let bytes = report.analysis.bytes.max(report.redo.bytes) as f64;
    let (total, passes) = (report.total_time, [&report.analysis, &report.redo, &report.undo]);
    let [analysis, redo, undo] = passes.map(|pass| pass.time.as_millis());
    let text = format!(
        "{:.0} MB, {} records: analysis {analysis} ms, redo {redo} ms, undo {undo} ms, all {} ms",
        bytes / 1e6,
        report.redo.records,
        total.as_millis()
    );
    (bytes / 1e6 / total.as_secs_f64(), text)
}

fn read_log(path: &Path) -> anyhow::Result<f64> {
    let (start, mut bytes, mut chunk) = (Instant::now(), 0, vec![0; 1 << 20]);
    for entry in fs::read_dir(path.join("wal"))? {
        let mut file = File::open(entry?.path())?;
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                n => bytes += n,
            }
        }
    }
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}
