//! Backups: a copy of a database made while it runs, from which it can be brought back.
//!
//! ```text
//!  time ────────────────────────────────────────────────────────────────────────────────────►
//!  writers  … commit, write back, checkpoint, truncate … none of it waits
//!  backup   hold the log · checkpoint │ p0 p1 p2 p3 …  each as it stands then │ force: end │ manifest
//!                      │                └ log so far, and the hold moves on ──┘
//!  log      ───────────┼───────────────────────────────────────────────────────┼─────────────
//!                      └ restart begins here          pages are from in between └ consistent here
//! ```
//!
//! The pages are copied at different times, so together they show a state that never was (the copy is
//! *fuzzy*; Mohan et al. 1992, section 8). That is the state a crash leaves, too, and restart is what makes
//! sense of it: given the checkpoint before the first page and the log up to an end beyond the last one,
//! redo repeats what a page missed and undo takes back whoever had not committed by then.
//!
//! - K1: The checkpoint comes before the first page, so a page that is not in its table, nor in the log
//!   behind it, has not changed since and is copied as it was.
//! - K2: The end of the log is made durable after the last page, so no page is ahead of the log.
//! - K3: A page is written to the backup only when the log is durable up to it, like everywhere.
//! - K4: Everything is durable before the manifest gets its name.
//!
//! The log is copied along with the pages, and what has been copied need not be held: however long a
//! backup takes, it keeps writers only from truncating the log of the last few pages.
//!
//! Left out: incremental backups, and copying on for ever (an archive of the log), for which
//! [`Restore::log`](crate::Restore::log) takes what the original left.

mod finished;
mod manifest;

use std::path::Path;
use std::time::Duration;

use argali_base::disk::OsDisk;
use argali_base::sync::{Arc, Clock, thread};
use argali_base::{Disk, Error, Health, Lsn, PageId, Result};
use argali_pager::{Found, PageBuf, Pager, PagerOptions, TornPages};
use argali_recovery::Flush;
use argali_wal::{Control, Hold, LogCopy, RecordBuf, Scan};

use crate::create::{check_free, clear_leftovers};
use crate::db::{Db, Engine};
use crate::open::take_lock;

pub(crate) use finished::{Finished, open_log};
use manifest::Manifest;
pub(crate) use manifest::{MANIFEST, MANIFEST_TMP};

/// Pages copied in one go.
const BATCH: u64 = 64;
/// Pages by which the copy of the data file grows: it is synced each time.
const GROWTH: u64 = 1024;

/// Who hears how far a backup is.
type Listener<'p> = Box<dyn FnMut(&BackupProgress) + 'p>;

/// How a backup is made.
#[derive(Default)]
pub struct BackupOptions<'p> {
    bytes_per_second: Option<u64>,
    progress: Option<Listener<'p>>,
}

impl<'p> BackupOptions<'p> {
    /// As fast as the disks allow, telling nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies at most so many bytes of pages and log per second (at least one), on average.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Calls `tell` after every few pages, and at the end.
    #[must_use]
    pub fn on_progress(mut self, tell: impl FnMut(&BackupProgress) + 'p) -> Self {
        self.progress = Some(Box::new(tell));
        self
    }
}

impl std::fmt::Debug for BackupOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupOptions")
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupProgress {
    /// Pages copied.
    pub pages_done: u64,
    /// Pages there are to copy.
    pub pages: u64,
    /// Bytes of pages and log copied.
    pub bytes: u64,
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// First record of its log.
    pub first: Lsn,
    /// LSN behind the last one: every commit below it is in the backup, no other is.
    pub end: Lsn,
    /// Pages in its data file.
    pub pages: u64,
    /// Bytes of pages and log copied.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

impl Db {
    /// Makes a backup in directory `dir`, which is made if it does not exist (its parent must) and must be
    /// empty, or hold a backup that was cut short. Writers and checkpoints go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Exists`] when something is there; `Corrupt` when a page is damaged and cannot be repaired:
    /// damage is not copied. After any error the backup is unfinished and is refused by a restore; the
    /// database is as it was.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_with(dir, BackupOptions::new())
    }

    /// As [`Db::backup`], with a limit to its speed, or an ear for its progress.
    pub fn backup_with(
        &self,
        dir: impl AsRef<Path>,
        options: BackupOptions<'_>,
    ) -> Result<BackupReport> {
        let dir = dir.as_ref();
        let disk = OsDisk::create(dir);
        let disk = disk.map_err(|e| Error::io("create", &dir.display().to_string(), e))?;
        self.backup_on(Arc::new(disk), options)
    }

    /// As [`Db::backup_with`], onto any disk.
    #[allow(clippy::needless_pass_by_value)] // the caller hands a disk over
    pub fn backup_on(
        &self,
        disk: Arc<dyn Disk>,
        options: BackupOptions<'_>,
    ) -> Result<BackupReport> {
        let _open = self.0.enter()?;
        let _lock = take_lock(disk.as_ref())?;
        check_free(disk.as_ref(), MANIFEST_TMP)?;
        Manifest::begin(disk.as_ref())?;
        clear_leftovers(disk.as_ref())?;
        let mut copying = Copying::begin(&self.0.engine, &disk, options)?;
        copying.pages()?;
        copying.finish(disk.as_ref())
    }
}

/// A backup under way.
struct Copying<'e, 'p> {
    engine: &'e Engine,
    options: BackupOptions<'p>,
    begun: Clock,
    /// What a restart from the backup begins with.
    control: Control,
    hold: Hold<'e>,
    records: Scan<'e>,
    record: RecordBuf,
    log: LogCopy,
    data: Pager,
    pages_crc: u32,
    progress: BackupProgress,
}

impl<'e, 'p> Copying<'e, 'p> {
    /// Holds the log, then takes the checkpoint that a restart will begin with (K1).
    fn begin(engine: &'e Engine, disk: &Arc<dyn Disk>, options: BackupOptions<'p>) -> Result<Self> {
        let begun = Clock::system();
        let hold = engine.wal.hold("backup");
        let control = restart_point(engine)?;
        let first = control.log_first;
        hold.advance(first);
        let log = LogCopy::create(Arc::clone(disk), control.log, control.segment_bytes, first)?;
        let pages = engine.pager.pages();
        let data = Pager::create(Arc::clone(disk), copy_options(engine, pages), Health::new())?;
        Ok(Self {
            engine,
            options,
            begun,
            hold,
            records: engine.wal.scan(first),
            record: RecordBuf::new(),
            log,
            data,
            pages_crc: 0,
            progress: BackupProgress { pages_done: 0, pages, bytes: 0 },
            control,
        })
    }

    /// Copies every page there was at the beginning; those made since are made again by redo.
    fn pages(&mut self) -> Result<()> {
        while self.progress.pages_done < self.progress.pages {
            let from = self.progress.pages_done;
            let to = (from + BATCH).min(self.progress.pages);
            self.batch(from, to)?;
            self.log_until(self.engine.wal.durable().end())?;
            self.progress.pages_done = to;
            self.tell();
            self.rest();
        }
        Ok(())
    }

    fn batch(&mut self, from: u64, to: u64) -> Result<()> {
        let size = self.engine.pager.options().page_size;
        let mut batch = Vec::with_capacity(BATCH as usize);
        for id in (from..to).map(PageId::new) {
            let mut page = PageBuf::new(size);
            if self.copy(id, &mut page)? == Found::Page {
                batch.push((id, page));
            }
        }
        let newest = batch.iter().map(|(_, page)| page.page().lsn()).max().unwrap_or(Lsn::NONE);
        let durable = self.engine.wal.force(newest)?; // K3
        self.data.grow_to(PageId::new(to - 1))?;
        self.data.write(&mut batch, durable)?;
        self.add_to_crc(from, &batch, to);
        self.progress.bytes += (to - from) * size.bytes() as u64;
        Ok(())
    }

    /// What a free page holds matters to nobody, so it may be damaged.
    fn copy(&self, id: PageId, into: &mut PageBuf) -> Result<Found> {
        match self.engine.pool.copy(id, into) {
            Err(e) if e.is_corruption() && !self.engine.space.is_used(id)? => Ok(Found::Never),
            copied => copied,
        }
    }

    /// A page nobody wrote is zeros in the copy, as in the file.
    fn add_to_crc(&mut self, from: u64, batch: &[(PageId, PageBuf)], to: u64) {
        let zero = PageBuf::new(self.engine.pager.options().page_size);
        let mut written = batch.iter().peekable();
        for id in from..to {
            let page = written.next_if(|(written, _)| written.get() == id);
            let bytes = page.map_or(zero.bytes(), |(_, page)| page.bytes());
            self.pages_crc = crc32c::crc32c_append(self.pages_crc, bytes);
        }
    }

    /// Copies records up to `end`, which is durable, and lets go of what was copied.
    fn log_until(&mut self, end: Lsn) -> Result<()> {
        let before = self.records.at();
        while self.records.at() < end && self.records.next(&mut self.record)? {
            self.log.append(&self.record)?;
        }
        self.hold.advance(self.records.at());
        self.progress.bytes += self.records.at().get() - before.get();
        Ok(())
    }

    /// The rest of the log (K2), then the manifest (K4).
    fn finish(mut self, disk: &dyn Disk) -> Result<BackupReport> {
        let end = self.engine.wal.force(Lsn::MAX)?.end();
        self.log_until(end)?;
        self.tell();
        self.data.sync()?;
        let Self { control, log, pages_crc, progress, .. } = self;
        let (first, pages) = (control.log_first, progress.pages);
        let end = log.finish()?;
        Manifest { control, pages, pages_crc, end }.publish(disk)?;
        Ok(BackupReport { first, end, pages, bytes: progress.bytes, time: self.begun.now() })
    }

    fn tell(&mut self) {
        if let Some(tell) = &mut self.options.progress {
            tell(&self.progress);
        }
    }

    /// Sleeps for as long as the copy is ahead of its pace.
    fn rest(&self) {
        let Some(pace) = self.options.bytes_per_second else { return };
        let due = Duration::from_secs_f64(self.progress.bytes as f64 / pace as f64);
        thread::sleep(due.saturating_sub(self.begun.now()));
    }
}

/// The control file of a database as it would be if the power were cut right after a checkpoint now. One that
/// is open read-only was shut down with one.
fn restart_point(engine: &Engine) -> Result<Control> {
    if engine.read_only {
        return Ok(Control { clean_end: None, ..engine.control.get() });
    }
    let report = engine.checkpoint(Flush::Old)?;
    Ok(Control {
        checkpoint: report.begin,
        checkpoint_end: report.end,
        log_first: report.restart_first,
        clean_end: None,
        ..engine.control.get()
    })
}

/// The data file of a backup: nothing refers to it before it is finished, so nothing need protect it.
fn copy_options(engine: &Engine, pages: u64) -> PagerOptions {
    PagerOptions {
        torn_pages: TornPages::None,
        growth_pages: GROWTH,
        pages_max: pages,
        mutations: argali_pager::Mutations::default(),
        ..engine.pager.options().clone()
    }
}
