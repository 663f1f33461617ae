//! A second place for the data: `backup`, `restore`, and `repair` with the help of one.
//!
//! ```text
//!  $ argali backup ./db ./backup
//!  $ argali restore ./backup ./new --log ./db --to-lsn 81920
//!  $ argali repair ./db --backup ./backup
//! ```
//!
//! A database belongs to one process, so `backup` is for one that nobody has open; a program that has it open
//! backs it up itself, while it works (`Db::backup`).

use std::io::Write as _;
use std::path::PathBuf;

use argali::{BackupOptions, BackupProgress, Db, Error, Lsn, Options, Restore, Result};
use serde_json::json;

use crate::inspect::{judge, print_check};
use crate::output::{self, Format, Paint, Progress, bytes, duration, grouped};

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  argali backup ./db ./backup
  argali backup ./db ./backup --rate 20     leave the disk to others")]
pub(crate) struct BackupArgs {
    /// Directory of the database
    dir: PathBuf,
    /// Directory of the backup: new or empty
    dest: PathBuf,
    /// Copy at most so many MiB per second
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  argali restore ./backup ./new
  argali restore ./backup ./new --log ./db                     up to the last commit
  argali restore ./backup ./new --log ./db --to-lsn 81920      up to the record there")]
pub(crate) struct RestoreArgs {
    /// Directory of the backup
    backup: PathBuf,
    /// Directory of the new database: new or empty
    dir: PathBuf,
    /// Roll forward with the log of this database, the one that was backed up
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Stop behind the record at this LSN
    #[arg(long, value_name = "LSN")]
    to_lsn: Option<u64>,
}

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// Directory of the database
    dir: PathBuf,
    /// A backup of it, for pages of which the log holds no image
    #[arg(long, value_name = "DIR")]
    backup: Option<PathBuf>,
}

/// Runs `argali backup`.
pub(crate) fn backup(args: &BackupArgs, format: Format) -> anyhow::Result<()> {
    let db = open_as_it_is(Options::new().create(false), args)?;
    let mut line = Progress::new();
    let mut options = BackupOptions::new().on_progress(|at| line.show(how_far(at)));
    if let Some(rate) = args.rate {
        options = options.bytes_per_second(u64::from(rate) << 20);
    }
    let made = db.backup_with(&args.dest, options)?;
    drop(line);
    db.close()?;
    match format {
        Format::Json => output::json_line(&json!({
            "first_lsn": made.first.get(), "end_lsn": made.end.get(), "pages": made.pages,
            "bytes": made.bytes, "seconds": made.time.as_secs_f64(),
        }))?,
        Format::Text => writeln!(
            std::io::stdout().lock(),
            "backup complete: {} pages, {} in {}, log {} to {}",
            grouped(made.pages),
            bytes(made.bytes),
            duration(made.time),
            made.first,
            made.end
        )?,
    }
    Ok(())
}

fn how_far(at: &BackupProgress) -> String {
    format!("page {} of {}, {}", grouped(at.pages_done), grouped(at.pages), bytes(at.bytes))
}

/// A clean database is only read; any other is recovered first.
fn open_as_it_is(options: Options, args: &BackupArgs) -> Result<Db> {
    match options.clone().open_read_only(&args.dir) {
        Err(Error::NeedsRecovery) => options.open(&args.dir),
        other => other,
    }
}

/// Runs `argali restore`.
pub(crate) fn restore(args: &RestoreArgs, format: Format) -> anyhow::Result<()> {
    let mut restore = Restore::new();
    if let Some(log) = &args.log {
        restore = restore.log(log);
    }
    if let Some(lsn) = args.to_lsn {
        restore = restore.to_lsn(Lsn::new(lsn));
    }
    let db = restore.run(&args.backup, &args.dir)?;
    let report = db.recovery().clone();
    db.close()?;
    let timeline = argali::info(&args.dir)?.control.log.timeline;
    match format {
        Format::Json => output::json_line(&json!({
            "timeline": timeline, "log_end_lsn": report.redo.to.get(),
            "changes_redone": report.applied, "transactions_taken_back": report.losers.len(),
            "seconds": report.total_time.as_secs_f64(),
        }))?,
        Format::Text => writeln!(
            std::io::stdout().lock(),
            "restored on timeline {timeline}: log to {}, {} changes redone, {} transactions taken back",
            report.redo.to,
            grouped(report.applied),
            grouped(report.losers.len() as u64)
        )?,
    }
    Ok(())
}

/// Runs `argali repair`: a check that may write.
pub(crate) fn repair(args: &RepairArgs, format: Format) -> anyhow::Result<()> {
    // No checkpoint on the way may drop log that a repair needs.
    let mut options = Options::new().create(false).log_limit_bytes(1 << 50).keep_log_bytes(1 << 49);
    if let Some(backup) = &args.backup {
        options = options.repair_from(backup);
    }
    let db = options.open(&args.dir)?;
    let seen = db.verify()?;
    let repairs = db.stats()?.repairs;
    db.close()?;
    match format {
        Format::Json => output::json_line(&json!({
            "repaired": seen.repaired,
            "repairs": repairs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "findings": seen.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))?,
        Format::Text => {
            let paint = Paint::stdout();
            let mut out = std::io::stdout().lock();
            for repair in &repairs {
                writeln!(out, "{} {repair}", paint.good("repaired"))?;
            }
            drop(out);
            print_check(&seen)?;
        }
    }
    judge(&seen)
}
