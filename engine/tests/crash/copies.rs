//! What the tests of backup and restore share: simulated disks instead of directories, and a history of
//! commits with their LSNs.

use std::sync::Arc;

use argali::disk::{Disk, SimDisk};
use argali::{BackupOptions, BackupReport, Db, Error, Lsn, Options, Restore, Result, Silent};

use super::{State, dump};

pub fn disk(sim: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(sim.clone())
}

/// A backup onto `sim`.
pub fn back_up(db: &Db, sim: &SimDisk) -> Result<BackupReport> {
    db.backup_on(disk(sim), BackupOptions::new())
}

/// Restores the backup on `from` to `to` and opens it.
pub fn restore(options: &Options, from: &SimDisk, to: &SimDisk) -> Result<Db> {
    run(Restore::new().options(options.clone()), from, None, to)
}

pub fn run(restore: Restore, from: &SimDisk, log: Option<&SimDisk>, to: &SimDisk) -> Result<Db> {
    restore.run_on(&disk(from), log.map(disk).as_ref(), disk(to), &mut Silent)
}

/// What the backup on `from` brings back; the database must be sound.
pub fn contents(options: &Options, from: &SimDisk) -> Result<State> {
    let db = restore(options, from, &SimDisk::new(5))?;
    let state = dump(&db)?;
    let seen = db.verify()?;
    assert!(seen.is_sound(), "{:#?}", seen.findings);
    Ok(state)
}

/// Whether `error` says that there is no finished backup.
pub fn is_unfinished(error: &Error) -> bool {
    matches!(
        error,
        Error::Unfinished { what: "backup", .. } | Error::NotFound { what: "backup", .. }
    )
}

/// A client that counts: each commit adds one to a counter, which must not happen twice, and a row.
pub struct Counting {
    pub db: Db,
    /// After each commit: its LSN and what the database holds then. The first entry is the beginning.
    pub commits: Vec<(Lsn, State)>,
}

impl Counting {
    pub fn new(db: Db) -> Self {
        Self { db, commits: vec![(Lsn::NONE, State::new())] }
    }

    pub fn state(&self) -> &State {
        &self.commits.last().expect("there is a first one").1
    }

    /// Commits `times`, with a rollback before each.
    pub fn work(&mut self, times: usize) -> Result<()> {
        (0..times).try_for_each(|_| {
            self.step(false)?;
            self.step(true)
        })
    }

    fn step(&mut self, commits: bool) -> Result<()> {
        let count = self.commits.len();
        let mut state = self.state().clone();
        let mut write = self.db.begin()?;
        let tree = write.tree("counts")?;
        let model = state.entry("counts".to_owned()).or_default();
        let row = format!("row{:03}", count * 7 % 40);
        for (key, value) in [("counter", count.to_string()), (&row, format!("{count:0>300}"))] {
            write.put(&tree, key, &value)?;
            model.insert(key.into(), value.into());
        }
        if commits {
            let lsn = write.commit()?;
            self.commits.push((lsn, state));
            return Ok(());
        }
        write.abort()
    }
}
