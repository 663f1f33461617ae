//! Counts the instructions of small workloads and holds them against a kept baseline.
//!
//! ```text
//!  instructions              run this program under callgrind, twice a workload: n and 2n operations
//!       │                    (count(2n) − count(n)) / n  =  instructions per operation, without the setup
//!       │                    of a restart, the updates before it are counted by themselves and taken off
//!       ▼
//!  benches/instructions.json    more than 3 % away: failure     --update writes it anew
//! ```
//!
//! Time on a shared machine says little; instructions of one thread are nearly the same each time. They are
//! not time: a cache miss is one instruction. So this guards against work that creeps in, and `ratios` and
//! `argali-compare` say what it means. Another compiler makes other code, so the baseline names the one
//! that counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use argali::disk::{Loss, SimDisk};
use argali::{Durability, Isolation, Never, Options, Silent};
use argali_benches::{Rows, key, value};
use clap::Parser;
use fastrand::Rng;
use serde_json::json;

/// Rows of the tree: three levels, loaded in a second under callgrind.
const ROWS: u64 = 20_000;
/// Operations of the shorter run.
const OPERATIONS: u64 = 4_000;
/// Largest deviation from the baseline, in percent.
const TOLERANCE: f64 = 3.0;

const WORKLOADS: [&str; 9] = [
    "read-committed",
    "read-serializable",
    "read-in-batch",
    "update",
    "insert",
    "load",
    "scan",
    "scan-read-committed",
    RESTART,
];
/// Restart behind updates, each with its commit; and only those.
const RESTART: &str = "restart";
const BEFORE_RESTART: &str = "before-restart";

/// Instruction counts of small workloads against a baseline
#[derive(Debug, Parser)]
struct Args {
    /// Keep what is measured as the new baseline
    #[arg(long)]
    update: bool,
    /// Internal: run this workload with so many operations
    #[arg(long, hide = true, num_args = 2, value_names = ["WORKLOAD", "OPERATIONS"])]
    run: Option<Vec<String>>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some([workload, operations]) = args.run.as_deref() {
        return run(workload, operations.parse()?);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        bail!("valgrind is needed (on Debian: apt-get install valgrind)");
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let mut measured = BTreeMap::new();
    for workload in WORKLOADS {
        measured.insert(workload.to_owned(), per_operation(workload)?);
    }
    let now = Counts { compiler: compiler()?, instructions: measured };
    if args.update {
        std::fs::write(&file, now.text()? + "\n")?;
    }
    compare(&now, &file)
}

/// What was counted, and which compiler's code that was: another one's counts say nothing.
struct Counts {
    compiler: String,
    instructions: BTreeMap<String, u64>,
}

impl Counts {
    fn text(&self) -> Result<String> {
        let json = json!({ "compiler": self.compiler, "instructions": self.instructions });
        Ok(serde_json::to_string_pretty(&json)?)
    }

    fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("reading {}; --update makes it", file.display()))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let compiler =
            json["compiler"].as_str().context("the baseline names a compiler")?.to_owned();
        let instructions = serde_json::from_value(json["instructions"].clone())?;
        Ok(Self { compiler, instructions })
    }
}

fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("asking rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn compare(now: &Counts, file: &Path) -> Result<()> {
    let baseline = Counts::read(file)?;
    let mut worst = 0.0_f64;
    for (workload, now) in &now.instructions {
        let before = *baseline
            .instructions
            .get(workload)
            .with_context(|| format!("no baseline of {workload}; --update makes it"))?;
        let percent = (*now as f64 / before as f64 - 1.0) * 100.0;
        worst = worst.max(percent.abs());
        println!("{workload:<20} {now:>8} instructions   baseline {before:>8}   {percent:>+6.1} %");
    }
    if now.compiler != baseline.compiler {
        println!(
            "not held against the baseline, which {} made, not {}",
            baseline.compiler, now.compiler
        );
        return Ok(());
    }
    ensure!(
        worst <= TOLERANCE,
        "more than {TOLERANCE} % away: find out why, or keep the new counts with --update"
    );
    Ok(())
}

fn per_operation(workload: &str) -> Result<u64> {
    let (once, twice) = (count(workload, OPERATIONS)?, count(workload, 2 * OPERATIONS)?);
    let each = twice.saturating_sub(once) / OPERATIONS;
    Ok(if workload == RESTART { each - per_operation(BEFORE_RESTART)? } else { each })
}

/// Instructions of a whole run.
fn count(workload: &str, operations: u64) -> Result<u64> {
    let out = tempfile::NamedTempFile::new()?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.path().display()))
        .arg(std::env::current_exe()?)
        .args(["--run", workload, &operations.to_string()])
        .output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind on {workload} failed:\n{log}");
    let profile = std::fs::read_to_string(out.path())?;
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(totals.context("callgrind says what it counted")?.trim().parse()?)
}

/// One workload, in memory, on one thread: background steps run inline, so nothing depends on time. Each
/// begin of a transaction therefore counts one round of them, too.
fn run(workload: &str, operations: u64) -> Result<()> {
    let options = Options::new().cache_bytes(64 << 20).background_threads(false);
    if matches!(workload, RESTART | BEFORE_RESTART) {
        return restart(&options, operations, workload == RESTART);
    }
    let isolation = match workload {
        "read-committed" | "scan-read-committed" => Isolation::ReadCommitted,
        _ => Isolation::Serializable,
    };
    let rows = Rows::load(options.isolation(isolation).in_memory()?, ROWS)?;
    let (mut rng, mut out) = (Rng::with_seed(2), Vec::new());
    match workload {
        "read-committed" | "read-serializable" => {
            for _ in 0..operations {
                let read = rows.db.read()?;
                read.get_into(&rows.tree, rows.some_key(&mut rng), &mut out)?;
                read.finish()?;
            }
        }
        "read-in-batch" => {
            for _ in 0..operations / 500 {
                let read = rows.db.read()?;
                for _ in 0..500 {
                    read.get_into(&rows.tree, rows.some_key(&mut rng), &mut out)?;
                }
                read.finish()?;
            }
        }
        "update" => {
            for _ in 0..operations {
                rows.update(&mut rng, Durability::Relaxed)?;
            }
        }
        "insert" => {
            for batch in 0..operations / 500 {
                let txn = rows.db.begin()?;
                for n in 0..500 {
                    txn.put(&rows.tree, key(ROWS + batch * 500 + n), value(&mut rng))?;
                }
                txn.commit_with(Durability::Relaxed)?;
            }
        }
        "load" => {
            let mut txn = rows.db.begin()?;
            let fresh = txn.tree("load")?;
            txn.bulk_load(&fresh, (0..operations).map(|n| Ok((key(n), value(&mut rng)))))?;
            txn.commit_with(Durability::Relaxed)?;
        }
        "scan" => {
            // A row is an operation.
            let read = rows.db.read()?;
            for row in read.scan_all(&rows.tree)?.take(operations as usize) {
                row?;
            }
            read.finish()?;
        }
        "scan-read-committed" => {
            // Fifty rows at a time, from some key on, lent by a cursor.
            for _ in 0..operations / 50 {
                let read = rows.db.read()?;
                let mut cursor = read.cursor(&rows.tree)?;
                cursor.seek(rows.some_key(&mut rng))?;
                for _ in 1..50 {
                    cursor.next()?;
                }
                drop(cursor);
                read.finish()?;
            }
        }
        other => bail!("no workload {other}; there are {}", WORKLOADS.join(", ")),
    }
    Ok(())
}

/// A database that loses power behind so many updates, and its restart if that is meant.
fn restart(options: &Options, updates: u64, made: bool) -> Result<()> {
    let open = |disk: &SimDisk| {
        let options = options.clone().checkpoint_policy(Arc::new(Never));
        options.open_on(Arc::new(disk.clone()), &mut Silent)
    };
    let disk = SimDisk::new(1);
    let (rows, mut rng) = (Rows::load(open(&disk)?, ROWS)?, Rng::with_seed(2));
    for _ in 0..updates {
        rows.update(&mut rng, Durability::Relaxed)?;
    }
    rows.db.wait_durable(rows.db.stats()?.log.tail)?;
    // Neither is closed: that would be counted, too.
    std::mem::forget(rows);
    let cut = disk.power_cut(Loss::KeepAll);
    if made {
        let db = open(&cut)?;
        let found = db.recovery().winners;
        ensure!(found == updates, "{found} updates of {updates} were recovered");
        std::mem::forget(db);
    }
    Ok(())
}
