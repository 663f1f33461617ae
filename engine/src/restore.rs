//! Restoring: a new database out of a backup, rolled forward as far as there is log.
//!
//! ```text
//!  control.restore written, synced, directory synced    "somebody is restoring here"
//!  log of the backup ──┐
//!  log of the original ┴─ up to a record ──► wal/       sealed anew, on a new timeline
//!  pages ─────────────────────────────────► data        checked, and none ahead of that log
//!  control.restore ──rename──► control                  a database exists, as if its power had been cut
//!  open it                                              restart: analysis, redo, undo
//! ```
//!
//! There is no second way to roll forward. What is put together is what a power cut leaves, and opening it
//! is an ordinary restart: it repeats history up to the end of the log and takes back whoever had not
//! committed by then. So the end of the log decides which state comes back. It can be any record from the
//! backup's last one on: before that, some page may hold more than the log says.
//!
//! The log goes on under a new *timeline*: one number higher, and a random branch, because two restores of one
//! backup are two histories. Each record's seal depends on both, so nothing that was logged after the
//! backup can ever be joined to the restored log by accident, wherever its files are left lying.
//!
//! Refused: a directory that holds anything but an unfinished restore; a backup that is unfinished or
//! damaged anywhere. Left out: restoring single trees.

use std::ops::Range;
use std::path::{Path, PathBuf};

use argali_base::disk::{DiskLock, OsDisk};
use argali_base::sync::Arc;
use argali_base::{Disk, Error, Health, Lsn, PageId, Result};
use argali_pager::{Found, PageBuf, Pager, PagerOptions, TornPages};
use argali_recovery::{RecoveryObserver, Silent};
use argali_wal::{Control, ControlFile, LogCopy, LogId, RecordBuf, Wal};

use crate::backup::{Finished, open_log};
use crate::create::random_id;
use crate::create::{CONTROL_RESTORE, DATA, WAL_DIR, check_free, clear_leftovers, log_files};
use crate::db::Db;
use crate::open::{LOCK, at_path, in_use, take_lock};
use crate::options::Options;

/// Pages copied in one go.
const BATCH: u64 = 64;
/// Pages by which the new data file grows: it is synced each time.
const GROWTH: u64 = 1024;

/// How a backup is restored.
///
/// ```no_run
/// # fn main() -> argali::Result<()> {
/// use argali::Restore;
/// let db = Restore::new().log("old").run("backup", "new")?;
/// println!("{} transactions were taken back", db.recovery().losers.len());
/// # db.close() }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Restore {
    log: Option<PathBuf>,
    through: Option<Lsn>,
    options: Options,
}

impl Db {
    /// Restores the backup in directory `backup` to directory `dir` and opens it. See [`Restore`].
    pub fn restore(backup: impl AsRef<Path>, dir: impl AsRef<Path>) -> Result<Self> {
        Restore::new().run(backup, dir)
    }
}

impl Restore {
    /// As the backup was, to be opened with the default [`Options`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Rolls on with the log of the original database, in directory `dir`, up to its end: a torn tail, if its
    /// power was cut. Nobody may have that database open.
    #[must_use]
    pub fn log(mut self, dir: impl AsRef<Path>) -> Self {
        self.log = Some(dir.as_ref().to_owned());
        self
    }

    /// Rolls on only through the record at `lsn`: a commit there, and what came before it, is the last that
    /// counts.
    #[must_use]
    pub fn to_lsn(mut self, lsn: Lsn) -> Self {
        self.through = Some(lsn);
        self
    }

    /// How the restored database is opened.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Restores the backup in directory `backup` to directory `dir`, which is made if it does not exist (its
    /// parent must) and must be empty, or hold a restore that was cut short. Returns the database,
    /// recovered; [`Db::recovery`] says what was done.
    ///
    /// # Errors
    /// [`Error::Exists`] when something is at `dir`, `NotFound` or [`Error::Unfinished`] when no finished
    /// backup is at `backup`, `Corrupt` when it is damaged, `Invalid` when `to_lsn` or the log do not fit.
    /// After any error there is no database at `dir`, unless the error came from opening it.
    pub fn run(self, backup: impl AsRef<Path>, dir: impl AsRef<Path>) -> Result<Db> {
        let existing = |path: &Path| -> Result<Arc<dyn Disk>> {
            Ok(Arc::new(OsDisk::open(path).map_err(|e| at_path(path, e))?))
        };
        let backup = existing(backup.as_ref())?;
        let log = self.log.as_deref().map(existing).transpose()?;
        let target = self.options.directory(dir.as_ref(), true)?;
        self.run_on(&backup, log.as_ref(), target, &mut Silent)
    }

    /// As [`Restore::run`], on any disks, telling `observer` every decision of the restart. `log` is the
    /// original database's.
    pub fn run_on<O: RecoveryObserver>(
        self,
        backup: &Arc<dyn Disk>,
        log: Option<&Arc<dyn Disk>>,
        target: Arc<dyn Disk>,
        observer: &mut O,
    ) -> Result<Db> {
        let backup = Finished::open(backup)?;
        let log = log.map(|disk| Original::open(disk, &backup)).transpose()?;
        self.check_reach(&backup, log.as_ref())?;
        let lock = take_lock(target.as_ref())?;
        check_free(target.as_ref(), CONTROL_RESTORE)?;
        self.build(&backup, log.as_ref(), &target)?;
        drop(lock);
        self.options.create(false).open_on(target, observer)
    }

    /// Whether the record the user named lies where log and pages allow it.
    fn check_reach(&self, backup: &Finished, log: Option<&Original>) -> Result<()> {
        let Some(through) = self.through else { return Ok(()) };
        let last = backup.wal.last();
        let end = log.map_or(backup.manifest.end, |log| log.wal.end());
        let why = if through < last {
            format!("pages of the backup may be as new as {last}; {through} is before that")
        } else if through >= end {
            format!("the log ends at {end}; {through} is not in it")
        } else {
            return Ok(());
        };
        Err(Error::Invalid { what: "to_lsn", why })
    }

    /// Puts the database together and gives it its name.
    fn build(
        &self,
        backup: &Finished,
        log: Option<&Original>,
        target: &Arc<dyn Disk>,
    ) -> Result<()> {
        let control = Control { log: next_timeline(backup), ..backup.manifest.control.clone() };
        self.options.validate_for(control.page_size, control.segment_bytes)?;
        let options = self.options.pager_options(&control)?;
        if backup.manifest.pages > options.pages_max {
            let (limit, pages) = (options.pages_max, backup.manifest.pages);
            let why = format!("{limit} is below the {pages} pages of the backup");
            return Err(Error::Invalid { what: "pages_max", why });
        }
        let file = ControlFile::create_restored(Arc::clone(target), control.clone())?;
        clear_leftovers(target.as_ref())?;
        let through = self.through.unwrap_or(Lsn::MAX);
        copy_log(backup, log, &control, (target, through))?;
        let log_options = self.options.log_options(control.segment_bytes);
        // Reads the new log as a restart will, and proves how far it is durable.
        let wal = Wal::open(Arc::clone(target), &control, log_options, Health::new())?;
        copy_pages(backup, &wal, target, &options)?;
        file.publish()
    }
}

/// The log that the original database left.
struct Original {
    wal: Wal,
    /// Keeps it from being opened, and so from changing, meanwhile.
    _lock: Option<Box<dyn DiskLock>>,
}

impl Original {
    /// Opens the log on `disk` where the backup's ends and judges where it ends itself.
    fn open(disk: &Arc<dyn Disk>, backup: &Finished) -> Result<Self> {
        let lock = disk.lock_shared(LOCK).map_err(in_use)?;
        let end = backup.manifest.end;
        let mut control = Control {
            checkpoint: end,
            checkpoint_end: end,
            log_first: end,
            clean_end: None,
            ..backup.manifest.control.clone()
        };
        // Its control file, if it is still there, knows what must be in the log.
        if let Ok(file) = ControlFile::open(Arc::clone(disk), false) {
            let known = file.get();
            if known.log != control.log {
                let why =
                    "it is of another database, or of another timeline of this one".to_owned();
                return Err(Error::Invalid { what: "log", why });
            }
            control.checkpoint_end = end.max(known.checkpoint_end);
            control.clean_end = known.clean_end;
        }
        Self::check_reaches_back(disk.as_ref(), &control)?;
        Ok(Self { wal: open_log(disk, &control)?, _lock: lock })
    }

    fn check_reaches_back(disk: &dyn Disk, control: &Control) -> Result<()> {
        let (end, size) = (control.checkpoint, control.segment_bytes);
        let name = format!("{:016x}.log", end.get() / size * size);
        if log_files(disk)?.contains(&name) {
            return Ok(());
        }
        let why = format!(
            "{WAL_DIR}/{name} is missing: it does not reach back to {end}, where the backup ends"
        );
        Err(Error::Invalid { what: "log", why })
    }
}

/// A history nobody else has.
fn next_timeline(backup: &Finished) -> LogId {
    let old = backup.manifest.control.log;
    LogId { timeline: old.timeline.saturating_add(1), branch: random_id(), ..old }
}

/// Copies the records up to and with the one at `through`; reads, and so checks, all of the backup's log.
fn copy_log(
    backup: &Finished,
    log: Option<&Original>,
    control: &Control,
    (target, through): (&Arc<dyn Disk>, Lsn),
) -> Result<()> {
    let first = control.log_first;
    let mut copy = LogCopy::create(Arc::clone(target), control.log, control.segment_bytes, first)?;
    copy_records(&backup.wal, &mut copy, through)?;
    if let Some(log) = log {
        copy_records(&log.wal, &mut copy, through)?;
    }
    copy.finish().map(|_| ())
}

fn copy_records(wal: &Wal, copy: &mut LogCopy, through: Lsn) -> Result<()> {
    let (mut scan, mut record) = (wal.scan(copy.end()), RecordBuf::new());
    while scan.at() <= through && scan.next(&mut record)? {
        copy.append(&record)?;
    }
    Ok(())
}

/// Copies the pages under the write-ahead rule, which here holds the backup to its promise (K2 of `backup.rs`).
fn copy_pages(
    backup: &Finished,
    wal: &Wal,
    target: &Arc<dyn Disk>,
    options: &PagerOptions,
) -> Result<()> {
    drop(Pager::create(Arc::clone(target), options.clone(), Health::new())?);
    // A crash makes the restore start over, so writing a page twice would protect nothing.
    let options =
        PagerOptions { torn_pages: TornPages::None, growth_pages: GROWTH, ..options.clone() };
    let data = Pager::open(Arc::clone(target), options, Health::new())?;
    let (pages, mut crc) = (backup.manifest.pages, 0);
    for from in (0..pages).step_by(BATCH as usize) {
        let to = (from + BATCH).min(pages);
        let mut batch = read_pages(backup, wal, from..to, &mut crc)?;
        data.grow_to(PageId::new(to - 1))?;
        data.write(&mut batch, wal.durable())?;
    }
    data.sync()?;
    if crc == backup.manifest.pages_crc {
        return Ok(());
    }
    Err(Error::corrupt(DATA, 0, None, "the pages of the backup are not those it was made of"))
}

/// Reads pages of the backup, those that were ever written, and adds all of them to `crc`.
fn read_pages(
    backup: &Finished,
    wal: &Wal,
    ids: Range<u64>,
    crc: &mut u32,
) -> Result<Vec<(PageId, PageBuf)>> {
    let mut batch = Vec::with_capacity(BATCH as usize);
    for id in ids.map(PageId::new) {
        let mut page = PageBuf::new(backup.pages.options().page_size);
        let found = backup.pages.read(id, &mut page)?;
        *crc = crc32c::crc32c_append(*crc, page.bytes());
        if found == Found::Page {
            check_not_ahead(&page, wal)?;
            batch.push((id, page));
        }
    }
    Ok(batch)
}

fn check_not_ahead(page: &PageBuf, wal: &Wal) -> Result<()> {
    let page = page.page();
    if wal.durable().covers(page.lsn()) {
        return Ok(());
    }
    let offset = page.id().get() * page.bytes().len() as u64;
    let what = format!("{} is ahead of the backup's log, which ends at {}", page.id(), wal.end());
    Err(Error::corrupt(DATA, offset, Some(page.lsn()), what))
}
