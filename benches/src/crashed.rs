//! Databases whose process ended in mid-flight, and how long their restart takes.
//!
//! ```text
//!  crash(path)    a child process fills a log of so many MiB and exits without closing
//!  recover(copy)  opens it again, which is a restart
//! ```
//!
//! The child is this very program, started again: it must pass [`Crash::from_args`] what it was given first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use argali::{Durability, Never, Options, Report};
use fastrand::Rng;

use crate::fixture::{Rows, value};

/// First argument of the child.
const FLAG: &str = "--write-a-log-and-exit";
/// Updates between two looks at how long the log is.
const BATCH: usize = 100;

/// A log to be written, behind which a process ends.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Directory of the database, which is made.
    pub path: PathBuf,
    /// Length of the log behind the load.
    pub log_mib: u64,
    /// Rows that are updated.
    pub rows: u64,
}

impl Crash {
    /// What the child was told to do; `None` in any other process. Call it before arguments are parsed.
    pub fn from_args() -> anyhow::Result<Option<Self>> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [flag, path, log_mib, rows] = &args[..] else { return Ok(None) };
        if flag != FLAG {
            return Ok(None);
        }
        Ok(Some(Self { path: path.into(), log_mib: log_mib.parse()?, rows: rows.parse()? }))
    }

    /// Has a child do it.
    pub fn happen(&self) -> anyhow::Result<()> {
        let (log_mib, rows) = (self.log_mib.to_string(), self.rows.to_string());
        let status = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .arg(&self.path)
            .args([log_mib, rows])
            .status()?;
        ensure!(status.success(), "the process that writes the log failed: {status}");
        Ok(())
    }

    /// The child's work: relaxed one-row updates, the last of them durable, and no close.
    pub fn write_and_exit(&self) -> anyhow::Result<()> {
        let db = options().checkpoint_policy(Arc::new(Never)).open(&self.path)?;
        let rows = Rows::load(db, self.rows)?;
        let mut rng = Rng::with_seed(2);
        let start = rows.db.stats()?.log.tail;
        let mut last = start;
        while last.get() - start.get() < self.log_mib << 20 {
            for _ in 0..BATCH {
                let txn = rows.db.begin()?;
                txn.put(&rows.tree, rows.some_key(&mut rng), value(&mut rng))?;
                last = txn.commit_with(Durability::Relaxed)?;
            }
        }
        rows.db.wait_durable(last)?;
        std::process::exit(0);
    }

    /// Restarts a copy of what is left, which stays as it is; the report of that restart.
    pub fn recover(&self, files: Files) -> anyhow::Result<Report> {
        let trial = self.path.with_extension("trial");
        copy_dir(&self.path, &trial, files).context("copying the database")?;
        let db = options().open(&trial)?;
        let report = db.recovery().clone();
        ensure!(report.recovered, "there was nothing to recover");
        db.close()?;
        fs::remove_dir_all(&trial)?;
        Ok(report)
    }
}

/// Where a restart finds the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// In the system's cache.
    Warm,
    /// On the device.
    Cold,
}

fn options() -> Options {
    Options::new().cache_bytes(256 << 20).log_limit_bytes(8 << 30)
}

fn copy_dir(from: &Path, to: &Path, files: Files) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&source, &target, files)?;
        } else {
            fs::copy(&source, &target)?;
            // What the copy left in the cache must not be written during the measurement.
            let copy = File::open(&target)?;
            copy.sync_all()?;
            if files == Files::Cold {
                rustix::fs::fadvise(&copy, 0, None, rustix::fs::Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}
