//! Prints what checkpoints cost a bank at full speed: the default policy against never taking one.
//!
//! ```text
//!  commits per 100 ms   ▇▇▇▇▇▆▇▇▇▃▇▇▇▇▇▇▇▇▅▇▇▇      default        worst / median, and its mean
//!                       ▇▇▇▇▇▇▇▇▇▇▇▆▇▇▇▇▇▇▇▇▇▇      never          against the mean of this one
//! ```
//!
//! Averages hide the dip that a checkpoint makes, so each slice is cut into tenths of a second. A disk shared
//! with others dips by itself: hence the same number of the other side. Slices alternate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use argali::{Durability, Never, Options};
use argali_benches::{Bank, Ratios, median};
use clap::Parser;
use fastrand::Rng;

const TENTH: Duration = Duration::from_millis(100);
/// Enough for the side that never truncates its log.
const LOG_LIMIT: u64 = 64 << 30;

/// A bank under the default checkpoint policy, against one that takes no checkpoints
#[derive(Debug, Parser)]
struct Args {
    /// Directory for the databases (a temporary one is made in it)
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Clients, each in a loop of durable transfers
    #[arg(long, default_value_t = 16)]
    clients: u64,
    /// Tenths of a second per slice
    #[arg(long, default_value_t = 50)]
    tenths: usize,
    /// Pairs of slices
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Accounts of each bank
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u64,
    /// Print each tenth: transfers per second, checkpoints, pages written, segments made
    #[arg(long)]
    series: bool,
}

/// One bank and what its slices showed.
struct Side {
    bank: Bank,
    /// Rows of history so far; each client of a slice begins at a number of its own.
    entries: AtomicU64,
    /// Worst tenth of each slice, as a part of the median tenth.
    worst: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dir = tempfile::tempdir_in(&args.dir).context("making a directory")?;
    let options = || Options::new().cache_bytes(512 << 20).log_limit_bytes(LOG_LIMIT);
    let never = options().checkpoint_policy(Arc::new(Never)).open(dir.path().join("never"))?;
    let mut ours = Side::new(options().open(dir.path().join("default"))?, &args)?;
    let mut theirs = Side::new(never, &args)?;
    let ratios = Ratios::measure(args.pairs, || ours.slice(&args), || theirs.slice(&args))?;
    let (least, greatest) = ratios.spread();
    println!("{} clients, transfers per second and worst 100 ms of the median", args.clients);
    println!("  default  {:7.0}  {}", ratios.ours(), ours.worst());
    println!("  never    {:7.0}  {}", ratios.theirs(), theirs.worst());
    println!("  ratio    {:7.2}  from {least:.2} to {greatest:.2}", ratios.ratio());
    let stats = ours.bank.db.stats()?;
    println!(
        "  default: {} checkpoints, {} pages written, {} of them once, {} segments made, {} recycled",
        stats.checkpoints,
        stats.pool.written_back,
        stats.pool.written_once,
        stats.log.segments_created,
        stats.log.segments_recycled
    );
    Ok(())
}

impl Side {
    fn new(db: argali::Db, args: &Args) -> argali::Result<Self> {
        let bank = Bank::load(db, args.accounts)?;
        Ok(Self { bank, entries: AtomicU64::new(0), worst: Vec::new() })
    }

    /// Transfers per second of one slice.
    fn slice(&mut self, args: &Args) -> anyhow::Result<f64> {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let (bank, entries) = (&self.bank, &self.entries);
        let client = || -> argali::Result<()> {
            let (mut rng, mut entry) = (Rng::new(), entries.fetch_add(1, Ordering::Relaxed) << 32);
            while !stop.load(Ordering::Relaxed) {
                entry += 1;
                bank.transfer(&mut rng, entry, Durability::Sync)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let tenths = thread::scope(|scope| {
            let clients: Vec<_> = (0..args.clients).map(|_| scope.spawn(client)).collect();
            let tenths = (0..args.tenths).map(|_| tenth(&done, || self.note(args)));
            let tenths: Vec<f64> = tenths.collect();
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().try_for_each(|client| client.join().expect("a client panicked"))?;
            anyhow::Ok(tenths)
        })?;
        let least = tenths.iter().copied().fold(f64::INFINITY, f64::min);
        self.worst.push(least / median(tenths.clone()));
        Ok(tenths.iter().sum::<f64>() / tenths.len() as f64)
    }

    /// What may have cost a tenth its transfers; nothing unless asked for.
    fn note(&self, args: &Args) -> String {
        let Some(stats) = args.series.then(|| self.bank.db.stats().ok()).flatten() else {
            return String::new();
        };
        let (pool, log) = (&stats.pool, &stats.log);
        format!("{} {} {}", stats.checkpoints, pool.written_back, log.segments_created)
    }

    /// Median of the slices and the least of all.
    fn worst(&self) -> String {
        let least = self.worst.iter().copied().fold(f64::INFINITY, f64::min);
        format!("{:.2} (least {least:.2})", median(self.worst.clone()))
    }
}

/// Transfers per second during the next tenth.
fn tenth(done: &AtomicU64, note: impl Fn() -> String) -> f64 {
    let (before, begun) = (done.load(Ordering::Relaxed), Instant::now());
    thread::sleep(TENTH);
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    let note = note();
    if !note.is_empty() {
        println!("{rate:8.0}  {note}");
    }
    rate
}
