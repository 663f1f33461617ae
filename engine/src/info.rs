//! Facts about a database that nobody has to open: for `argali info`, and for looking at a patient before
//! touching it. Reads the control file, the log from the last checkpoint on, and file sizes; writes and
//! recovers nothing.

use std::path::Path;

use argali_base::disk::{OpenMode, OsDisk};
use argali_base::sync::Arc;
use argali_base::{Disk, Error, Lsn, Result};
use argali_pager::TornPages;
use argali_txn::Vote;
use argali_wal::{Control, ControlFile, Wal};

use crate::create::{DATA, Found, WAL_DIR, log_files, look};
use crate::open::{at_path, torn_pages_from};
use crate::options::Options;
use crate::prepared::InDoubt;

/// What can be known without opening (recovering, writing).
#[derive(Clone, Debug)]
pub struct Info {
    /// The newer valid slot of the control file.
    pub control: Control,
    /// What the database was created with.
    pub torn_pages: TornPages,
    /// Whether the next open has nothing to recover.
    pub clean: bool,
    /// Transactions in doubt, by gid: prepared, and not decided when the log ended.
    pub prepared: Vec<InDoubt>,
    /// Where the log ends; `None` when it is damaged.
    pub log_end: Option<Lsn>,
    /// What is wrong with the log.
    pub log_fault: Option<String>,
    /// Files of the log and their lengths in bytes.
    pub log_files: Vec<(String, u64)>,
    /// Length of the data file in bytes.
    pub data_bytes: u64,
}

/// Reads the facts about the database in directory `path`. [`Error::NoDatabase`] when there is none.
pub fn info(path: impl AsRef<Path>) -> Result<Info> {
    let path = path.as_ref();
    info_on(&(Arc::new(OsDisk::open(path).map_err(|e| at_path(path, e))?) as Arc<dyn Disk>))
}

/// As [`info`], on any disk.
pub fn info_on(disk: &Arc<dyn Disk>) -> Result<Info> {
    if look(disk.as_ref())? != Found::Database {
        return Err(Error::NoDatabase { path: disk.describe() });
    }
    let control = ControlFile::open(Arc::clone(disk), false)?.get();
    let options = Options::new().log_options(control.segment_bytes);
    let log = Wal::open_read_only(Arc::clone(disk), &control, options);
    let log = log.and_then(|wal| Ok((wal.durable().end(), in_doubt(&control, &wal)?)));
    let (end, prepared, log_fault) = match log {
        Ok((end, prepared)) => (Some(end), prepared, None),
        Err(error) => (None, Vec::new(), Some(error.to_string())),
    };
    let mut log_files_found = Vec::new();
    for name in log_files(disk.as_ref())? {
        let bytes = length(disk.as_ref(), &format!("{WAL_DIR}/{name}"))?;
        log_files_found.push((name, bytes));
    }
    Ok(Info {
        torn_pages: torn_pages_from(control.torn_pages)?,
        clean: end.is_some() && control.clean_end == end,
        prepared,
        log_end: end,
        log_fault,
        log_files: log_files_found,
        data_bytes: length(disk.as_ref(), DATA)?,
        control,
    })
}

/// Reads the log from the last checkpoint on, unless it ends with a clean shutdown: then nobody is in doubt.
fn in_doubt(control: &Control, wal: &Wal) -> Result<Vec<InDoubt>> {
    if control.clean_end == Some(wal.durable().end()) {
        return Ok(Vec::new());
    }
    let found = argali_recovery::in_doubt(control, wal)?;
    let described = found.iter().map(|txn| Ok(InDoubt::new(txn, &Vote::read(wal, txn)?)));
    let mut all: Vec<InDoubt> = described.collect::<Result<_>>()?;
    all.sort_by(|a, b| a.gid.cmp(&b.gid));
    Ok(all)
}

fn length(disk: &dyn Disk, name: &str) -> Result<u64> {
    let file = disk.open(name, OpenMode::ReadOnly).map_err(|e| Error::io("open", name, e))?;
    file.len().map_err(|e| Error::io("length of", name, e))
}
