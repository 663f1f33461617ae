//! `argali bank`: the demo's bank in a directory of yours, one step at a time.
//!
//! ```text
//!  $ argali bank load ./bank          1,000 accounts with 1,000 each
//!  $ argali bank run ./bank           durable transfers per second; kill it whenever you like
//!  $ argali bank check ./bank         recovers if it must, then replays the journal
//! ```
//!
//! The model is in `bank/ledger.rs`, the threads in `bank/tellers.rs`; the demo uses both.

pub(crate) mod ledger;
pub(crate) mod tellers;

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argali::{Db, Options};
use serde_json::json;

use crate::args::BankCommand;
use crate::exit::Failure;
use crate::output::{self, Format, Progress, grouped};
use ledger::Ledger;
use tellers::Shift;

/// Runs `argali bank …`.
pub(crate) fn run(command: &BankCommand, format: Format) -> anyhow::Result<()> {
    match command {
        BankCommand::Load { dir, accounts } => load(dir, *accounts, format),
        BankCommand::Run { dir, threads, seconds, seed, durability } => {
            let options = Options::new().create(false).durability((*durability).into());
            let db = options.open(dir)?;
            let ledger = Ledger::open(&db)?;
            let shift = Shift { tellers: *threads, seed: *seed, run: ledger.begin_run()? };
            let outcome = measure(&ledger, &db, shift, *seconds)?;
            db.close()?;
            print_run(&outcome, format)
        }
        BankCommand::Check(target) => check(&target.dir, format),
    }
}

fn load(dir: &Path, accounts: u32, format: Format) -> anyhow::Result<()> {
    let db = Db::open(dir)?;
    let ledger = Ledger::load(&db, accounts)?;
    let total = ledger.total();
    drop(ledger);
    db.close()?;
    match format {
        Format::Json => output::json_line(&json!({ "accounts": accounts, "total": total }))?,
        Format::Text => writeln!(
            std::io::stdout().lock(),
            "loaded {} accounts with {} each: sum {}",
            grouped(accounts.into()),
            grouped(ledger::OPENING),
            grouped(total)
        )?,
    }
    Ok(())
}

/// What a run did.
struct Outcome {
    transfers: u64,
    time: Duration,
    commits: u64,
    flushes: u64,
    deadlocks: u64,
}

fn measure(ledger: &Ledger, db: &Db, shift: Shift, time: Duration) -> anyhow::Result<Outcome> {
    let before = db.stats()?;
    let (stop, transfers) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        let tellers = scope.spawn(|| {
            shift.work(ledger, &stop, &|_, _| {
                transfers.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        });
        let mut progress = Progress::new();
        while start.elapsed() < time && !tellers.is_finished() {
            let left = time.saturating_sub(start.elapsed());
            thread::sleep(left.min(Duration::from_millis(100)));
            progress.show(format_args!(
                "running  {} transfers in {}",
                grouped(transfers.load(Ordering::Relaxed)),
                output::duration(start.elapsed())
            ));
        }
        stop.store(true, Ordering::Relaxed);
        match tellers.join() {
            Ok(worked) => worked,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let (time, after) = (start.elapsed(), db.stats()?);
    Ok(Outcome {
        transfers: transfers.load(Ordering::Relaxed),
        time,
        commits: after.commits - before.commits,
        flushes: after.log.flushes - before.log.flushes,
        deadlocks: after.locks.deadlocks - before.locks.deadlocks,
    })
}

fn print_run(outcome: &Outcome, format: Format) -> anyhow::Result<()> {
    let rate = outcome.transfers as f64 / outcome.time.as_secs_f64();
    let shared = outcome.commits as f64 / outcome.flushes.max(1) as f64;
    match format {
        Format::Json => output::json_line(&json!({
            "transfers": outcome.transfers, "seconds": outcome.time.as_secs_f64(),
            "transfers_per_second": rate, "commits": outcome.commits,
            "log_flushes": outcome.flushes, "deadlocks": outcome.deadlocks,
        }))?,
        Format::Text => writeln!(
            std::io::stdout().lock(),
            "{} transfers in {}: {}/s, {shared:.1} commits per log flush, {} deadlocks run again",
            grouped(outcome.transfers),
            output::duration(outcome.time),
            grouped(rate as u64),
            grouped(outcome.deadlocks)
        )?,
    }
    Ok(())
}

fn check(dir: &Path, format: Format) -> anyhow::Result<()> {
    let db = Options::new().create(false).open(dir)?;
    let recovered = db.recovery().recovered;
    let audit = Ledger::open(&db)?.audit(|_, _| ())?;
    db.close()?;
    match format {
        Format::Json => output::json_line(&json!({
            "recovered": recovered, "accounts": audit.accounts, "transfers": audit.transfers,
            "sum": audit.sum, "expected_sum": audit.expected_sum, "drafts": audit.drafts,
            "faults": audit.faults, "first_fault": audit.first_fault, "holds": audit.holds(),
        }))?,
        Format::Text => writeln!(
            std::io::stdout().lock(),
            "{}{} transfers replayed, {} accounts, sum {} of {}",
            if recovered { "recovered; " } else { "" },
            grouped(audit.transfers),
            grouped(audit.accounts),
            grouped(audit.sum),
            grouped(audit.expected_sum)
        )?,
    }
    if audit.holds() {
        return Ok(());
    }
    let what = audit.first_fault.unwrap_or_else(|| {
        format!("sum {} of {}, {} draft rows", audit.sum, audit.expected_sum, audit.drafts)
    });
    Err(Failure::Disproved(what).into())
}
