//! Creation: all of a database or nothing.
//!
//! ```text
//!  control.tmp written, synced, directory synced      "somebody is creating a database here"
//!  data, doublewrite, wal/                            made and synced
//!  map page, catalog and pending roots                formatted by ordinary logged changes
//!  checkpoint                                         all of it on disk
//!  control.tmp ──rename──► control, directory synced  the database exists
//! ```
//!
//! The control file's existence is the database's. A crash before the rename leaves a `control.tmp`, and
//! the next creation starts over; a crash after it leaves a whole database. A directory with data or log
//! but neither control file is no unfinished creation (that would have left `control.tmp`) but a damaged
//! database, and is reported, never overwritten.

use std::hash::{BuildHasher, Hasher, RandomState};

use argali_access::Space;
use argali_base::sync::Arc;
use argali_base::{Disk, Error, Health, Lsn, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::Pager;
use argali_recovery::{Flush, Report};
use argali_txn::{Durability, TxnManager};
use argali_wal::{Control, ControlFile, LogId, Wal};

use crate::backup::{MANIFEST, MANIFEST_TMP};
use crate::catalog::{Catalog, SYSTEM_PAGES};
use crate::db::Engine;
use crate::open::{LOCK, Stack, torn_pages_number};
use crate::options::Options;

pub(crate) const CONTROL: &str = "control";
pub(crate) const CONTROL_TMP: &str = "control.tmp";
pub(crate) const CONTROL_RESTORE: &str = "control.restore";
pub(crate) const DATA: &str = "data";
pub(crate) const DOUBLEWRITE: &str = "doublewrite";
pub(crate) const WAL_DIR: &str = "wal";

/// What stands in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A creation that did not end.
    Unfinished,
    Database,
}

/// Looks what there is, changing nothing.
pub(crate) fn look(disk: &dyn Disk) -> Result<Found> {
    let names = disk.list("").map_err(|e| Error::io("list", ".", e))?;
    let has = |name: &str| names.iter().any(|other| other == name);
    if has(CONTROL) {
        return Ok(Found::Database);
    }
    if has(CONTROL_TMP) {
        return Ok(Found::Unfinished);
    }
    if has(CONTROL_RESTORE) {
        return Err(Error::Unfinished { what: "restore", path: disk.describe() });
    }
    if has(MANIFEST) || has(MANIFEST_TMP) {
        let why = format!("{} holds a backup; restore it elsewhere", disk.describe());
        return Err(Error::Invalid { what: "directory", why });
    }
    if has(DATA) || has(DOUBLEWRITE) || !log_files(disk)?.is_empty() {
        return Err(Error::corrupt(CONTROL, 0, None, "control file missing beside data or log"));
    }
    Ok(Found::Nothing)
}

/// Fails with [`Error::Exists`] unless the directory is empty, or holds but what an attempt that made
/// `marker` first left there when it was cut short.
pub(crate) fn check_free(disk: &dyn Disk, marker: &str) -> Result<()> {
    let names = disk.list("").map_err(|e| Error::io("list", ".", e))?;
    let begun = names.iter().any(|name| name == marker);
    let left_over = |name: &str| begun && [marker, DATA, DOUBLEWRITE].contains(&name);
    let mut others = names.into_iter().filter(|name| name != LOCK && !left_over(name));
    let log = if begun { None } else { log_files(disk)?.into_iter().next() };
    match others.next().or(log.map(|name| format!("{WAL_DIR}/{name}"))) {
        None => Ok(()),
        Some(name) => {
            Err(Error::Exists { what: "file", name: format!("{}/{name}", disk.describe()) })
        }
    }
}

/// Names in the log directory, if there is one.
pub(crate) fn log_files(disk: &dyn Disk) -> Result<Vec<String>> {
    match disk.list(WAL_DIR) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(|e| Error::io("list", WAL_DIR, e)),
    }
}

/// Makes a database and returns it open.
pub(crate) fn create(options: Options, disk: &Arc<dyn Disk>) -> Result<Engine> {
    options.validate_for(options.page_size, options.segment_bytes)?;
    if options.repair_from.is_some() {
        let why = "there is no backup of a database that does not exist yet".to_owned();
        return Err(Error::Invalid { what: "repair_from", why });
    }
    let first = Control {
        log: LogId { database: random_id(), timeline: 1, branch: 0 },
        page_size: options.page_size,
        segment_bytes: options.segment_bytes,
        torn_pages: torn_pages_number(options.torn_pages),
        checkpoint: Lsn::NONE,
        checkpoint_end: Lsn::NONE,
        log_first: Lsn::FIRST,
        clean_end: None,
        data_stamp: Lsn::NONE,
        next_txn: 1,
        pages: 0,
    };
    let control = Arc::new(ControlFile::create(Arc::clone(disk), first.clone())?);
    clear_leftovers(disk.as_ref())?;

    let health = Health::new();
    let log_options = options.log_options(first.segment_bytes);
    let wal = Wal::create(Arc::clone(disk), first.log, log_options, health.clone())?;
    let pager = Pager::create(Arc::clone(disk), options.pager_options(&first)?, health.clone())?;
    let (wal, pager) = (Arc::new(wal), Arc::new(pager));
    let pool_options = options.pool_options(&pager);
    let pool = BufferPool::new(Arc::clone(&pager), Arc::clone(&wal), pool_options, health.clone())?;
    let txns = TxnManager::new(Arc::clone(&wal), Arc::clone(&pool), first.next_txn);

    let mut txn = txns.begin_system()?;
    let space = Space::create(&txns, &mut txn, SYSTEM_PAGES)?;
    Catalog::create(&space, &mut txn)?;
    txn.commit(Durability::Relaxed)?;

    let repairer = None;
    let mut stack = Stack { options, control, wal, pager, pool, txns, space, repairer, health };
    stack.register_undo();
    stack.install_repairer()?;
    let engine = Engine::new(stack, Report::default(), false);
    engine.checkpointer.checkpoint(Flush::Everything)?;
    engine.control.publish()?;
    Ok(engine)
}

/// Removes what an unfinished creation (restore, backup) left. The name that says so is durable by now, so a
/// crash in here is again unfinished.
pub(crate) fn clear_leftovers(disk: &dyn Disk) -> Result<()> {
    let names = disk.list("").map_err(|e| Error::io("list", ".", e))?;
    let old = names.into_iter().filter(|name| name == DATA || name == DOUBLEWRITE);
    let logs = log_files(disk)?.into_iter().map(|name| format!("{WAL_DIR}/{name}"));
    for name in old.chain(logs) {
        disk.remove(&name).map_err(|e| Error::io("remove", &name, e))?;
    }
    Ok(())
}

/// Sixty-four bits that no other database has. The standard library's hash seed is the one source of
/// entropy it offers.
pub(crate) fn random_id() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}
