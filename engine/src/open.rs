//! Opening: the composition root, from files to a running database.
//!
//! ```text
//!  lock file ─► control ─► Wal ─► Pager::open ─► pool ─► txns ─► space, undo handlers
//!                                 (sync, repair                    │
//!                                  torn pages)                     ▼
//!        background ◄─ pending frees ◄─ restart (sync and read the log, find its end),
//!                                       or nothing after a clean shutdown
//! ```
//!
//! The clean mark holds only if the log ends exactly where it says. It is cleared, durably, before
//! anything can be appended: a mark that outlived an append would let the next open skip its restart.
//!
//! Read-only opening never recovers and writes nothing, not even a lock file: it takes a clean database,
//! or answers [`Error::NeedsRecovery`]. A database with transactions in doubt is not clean: who reads must be
//! kept from what they changed.

use std::io;
use std::path::Path;

use argali_access::{Space, register_undo};
use argali_base::disk::{DiskLock, OsDisk, SimDisk};
use argali_base::sync::{Arc, Clock};
use argali_base::{Disk, Error, Health, Result};
use argali_buffer_pool::{BufferPool, PoolOptions};
use argali_pager::{PageSize, Pager, PagerOptions, TornPages};
use argali_recovery::{Parts, RecoveryObserver, Repairer, Report, Restarted, Silent, restart};
use argali_txn::{TxnManager, UndoHandlers};
use argali_wal::{Control, ControlFile, Wal};

use crate::create::{DATA, DOUBLEWRITE, Found, WAL_DIR, create, look};
use crate::db::{Db, Engine, Shared};
use crate::options::Options;
use crate::prepared::Undecided;

pub(crate) const LOCK: &str = "lock";

impl Options {
    /// Opens the database in directory `path`; makes one there (and the directory, but not its parents)
    /// unless [`Options::create`] forbids it. Recovers what a crash left undone.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        self.open_observed(path, &mut Silent)
    }

    /// As [`Options::open`], telling `observer` every decision of the restart.
    pub fn open_observed<O: RecoveryObserver>(
        self,
        path: impl AsRef<Path>,
        observer: &mut O,
    ) -> Result<Db> {
        self.validate()?;
        let path = path.as_ref();
        let disk = self.directory(path, self.create)?;
        self.open_on(disk, observer)
    }

    /// As [`Options::open_observed`], on any disk: a simulated one, a failing one.
    #[allow(clippy::needless_pass_by_value)] // the caller hands a disk over
    pub fn open_on<O: RecoveryObserver>(self, disk: Arc<dyn Disk>, observer: &mut O) -> Result<Db> {
        self.open_in(&disk, observer, None)
    }

    /// A database without files, gone with its last handle.
    pub fn in_memory(self) -> Result<Db> {
        // No crash will ever cut a page write here, and nothing is gained by zero-filling far ahead.
        let small = self.torn_pages(TornPages::None);
        let segment_bytes = small.segment_bytes.min(1 << 20);
        small.segment_bytes(segment_bytes).open_on(Arc::new(SimDisk::memory()), &mut Silent)
    }

    /// A database in a temporary directory, which goes away with the last handle.
    pub fn temporary(self) -> Result<Db> {
        let directory = tempfile::Builder::new()
            .prefix("argali-")
            .tempdir()
            .map_err(|e| Error::io("create", "temporary directory", e))?;
        let path = directory.path().to_owned();
        let disk = self.directory(&path, true)?;
        self.open_in(&disk, &mut Silent, Some(directory))
    }

    /// Reads only; never recovers or writes. [`Error::NeedsRecovery`] unless the database was shut down
    /// cleanly.
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Db> {
        let path = path.as_ref();
        let disk = self.directory(path, false)?;
        self.open_read_only_on(disk)
    }

    /// As [`Options::open_read_only`], on any disk.
    #[allow(clippy::needless_pass_by_value)] // as above
    pub fn open_read_only_on(self, disk: Arc<dyn Disk>) -> Result<Db> {
        self.validate()?;
        if look(disk.as_ref())? != Found::Database {
            return Err(Error::NoDatabase { path: disk.describe() });
        }
        let lock = disk.lock_shared(LOCK).map_err(in_use)?;
        let engine = Stack::open(self, &disk, Access::ReadOnly)?.read_only()?;
        Ok(Db::new(Shared::new(engine, lock, None)?))
    }

    pub(crate) fn directory(&self, path: &Path, create: bool) -> Result<Arc<dyn Disk>> {
        let disk = if create { OsDisk::create(path) } else { OsDisk::open(path) };
        let disk = disk.map_err(|e| at_path(path, e))?;
        let direct: &[&str] = if self.direct_io { &[DATA, DOUBLEWRITE] } else { &[] };
        Ok(Arc::new(disk.with_direct_io(direct).with_write_through(WAL_DIR)))
    }

    fn open_in<O: RecoveryObserver>(
        self,
        disk: &Arc<dyn Disk>,
        observer: &mut O,
        directory: Option<tempfile::TempDir>,
    ) -> Result<Db> {
        self.validate()?;
        // Without leave to create, not even the lock file may appear in a place without a database.
        if !self.create && look(disk.as_ref())? != Found::Database {
            return Err(Error::NoDatabase { path: disk.describe() });
        }
        let lock = take_lock(disk.as_ref())?;
        let engine = match look(disk.as_ref())? {
            Found::Database => Stack::open(self, disk, Access::ReadWrite)?.restart(observer)?,
            Found::Nothing | Found::Unfinished => create(self, disk)?,
        };
        Ok(Db::new(Shared::new(engine, Some(lock), directory)?))
    }

    pub(crate) fn pager_options(&self, control: &Control) -> Result<PagerOptions> {
        let page_size = PageSize::new(control.page_size)?;
        let frames = self.cache_bytes / page_size.bytes();
        Ok(PagerOptions {
            page_size,
            torn_pages: torn_pages_from(control.torn_pages)?,
            database: control.log.database,
            // Growth is synced each time, so a large load should not grow in small steps.
            growth_pages: (frames as u64 / 4).clamp(16, 1024),
            doublewrite_slots: 4 * batch_pages(frames),
            pages_max: self.pages_max,
            mutations: self.mutations.pager,
        })
    }

    pub(crate) fn pool_options(&self, pager: &Pager) -> PoolOptions {
        let frames = self.cache_bytes / pager.options().page_size.bytes();
        let mutations = self.mutations.pool;
        PoolOptions {
            frames,
            batch_pages: batch_pages(frames),
            mutations,
            ..PoolOptions::default()
        }
    }
}

/// Pages per write-back batch: a quarter of a small pool, at most 64 (half a mebibyte at 8 KiB).
fn batch_pages(frames: usize) -> usize {
    (frames / 4).clamp(4, 64)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// The layers of one database; opened, but not yet recovered unless an [`Engine`] holds them.
pub(crate) struct Stack {
    pub(crate) options: Options,
    pub(crate) control: Arc<ControlFile>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) pager: Arc<Pager>,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) txns: Arc<TxnManager>,
    pub(crate) space: Arc<Space>,
    /// Who rebuilds damaged pages; `None` while a database is being created.
    pub(crate) repairer: Option<Arc<Repairer>>,
    pub(crate) health: Health,
}

impl Stack {
    /// The layers. Where the log of a database that was not shut down ends is left to its restart.
    fn open(options: Options, disk: &Arc<dyn Disk>, access: Access) -> Result<Self> {
        let writable = access == Access::ReadWrite;
        let control = ControlFile::open(Arc::clone(disk), writable)?;
        let now = control.get();
        options.validate_for(now.page_size, now.segment_bytes)?;
        let health = Health::new();
        let (log, pages) = (options.log_options(now.segment_bytes), options.pager_options(&now)?);
        let (wal, pager) = if writable {
            let wal = Wal::open_for_restart(Arc::clone(disk), &now, log, health.clone())?;
            if now.clean_end.is_some() {
                wal.find_end(&now)?;
            }
            (wal, Pager::open(Arc::clone(disk), pages, health.clone())?)
        } else {
            let wal = Wal::open_read_only(Arc::clone(disk), &now, log)?;
            (wal, Pager::open_read_only(Arc::clone(disk), pages)?)
        };
        let (control, wal, pager) = (Arc::new(control), Arc::new(wal), Arc::new(pager));
        let pool_options = options.pool_options(&pager);
        let pool =
            BufferPool::new(Arc::clone(&pager), Arc::clone(&wal), pool_options, health.clone())?;
        let txns = TxnManager::new(Arc::clone(&wal), Arc::clone(&pool), now.next_txn);
        let space = Space::open(&txns)?;
        let repairer = None;
        let mut stack = Self { options, control, wal, pager, pool, txns, space, repairer, health };
        stack.register_undo();
        stack.install_repairer()?;
        Ok(stack)
    }

    pub(crate) fn register_undo(&self) {
        let mut handlers = UndoHandlers::default();
        register_undo(&self.space, &mut handlers);
        self.txns.set_handlers(handlers);
        self.txns.set_mutations(self.options.mutations.txn);
        self.txns.set_escalation(self.options.lock_escalation);
    }

    /// From now on, restart included, a damaged page is rebuilt where log and backup reach.
    pub(crate) fn install_repairer(&mut self) -> Result<()> {
        if self.options.mutations.no_page_repair {
            return Ok(());
        }
        let log = self.control.get().log;
        let old = self.options.old_pages(log)?;
        let repairer = Arc::new(Repairer::new(Arc::clone(&self.wal), log.database, old));
        self.repairer = Some(Arc::clone(&repairer));
        self.pool.set_repair(Arc::new(move |id, damage, page| repairer.rebuild(id, damage, page)));
        Ok(())
    }

    /// Whether the last shutdown left nothing to do.
    fn is_clean(&self) -> bool {
        self.control.get().clean_end == Some(self.wal.end())
    }

    /// After a clean shutdown nothing is compared with the log, so a data file of another time of this
    /// database would go unnoticed but for its stamp, and one that was cut short until something is missed.
    fn check_data_file(&self) -> Result<()> {
        let Control { data_stamp, pages, .. } = self.control.get();
        let found = match self.space.stamped() {
            // Whoever needs the page will say so, and a check goes on to the others.
            Err(error) if error.is_corruption() => data_stamp,
            found => found?,
        };
        if found != data_stamp {
            let what = format!(
                "page 0 is at {found}, but the shutdown left it at {data_stamp}: a file of another time"
            );
            return Err(Error::corrupt(DATA, 0, Some(found), what));
        }
        if self.pager.pages() < pages {
            let end = self.pager.pages() * self.pager.options().page_size.bytes() as u64;
            let what = format!("the file ends here, but the shutdown left {pages} pages");
            return Err(Error::corrupt(DATA, end, None, what));
        }
        Ok(())
    }

    fn restart<O: RecoveryObserver>(self, observer: &mut O) -> Result<Engine> {
        let clean = self.is_clean();
        if clean {
            self.check_data_file()?;
        }
        if self.control.get().clean_end.is_some() {
            self.control.update(|control| control.clean_end = None)?;
        }
        let Restarted { report, in_doubt } = if clean {
            let begun = Clock::system();
            self.wal.resume()?;
            let report = Report { total_time: begun.now(), ..Report::default() };
            Restarted { report, in_doubt: Vec::new() }
        } else {
            restart(&self.parts(Clock::system()), observer)?
        };
        let engine = Engine::new(self, report, false);
        let mut theirs = Vec::new();
        for prepared in in_doubt {
            let undecided = Undecided::adopted(prepared)?;
            theirs.extend(undecided.structures());
            engine.register.adopt(undecided)?;
        }
        engine.txns.refresh_commit_lsn();
        engine.pending.resume(&engine.txns, &theirs)?;
        Ok(engine)
    }

    fn read_only(self) -> Result<Engine> {
        if self.is_clean() {
            self.check_data_file()?;
            Ok(Engine::new(self, Report::default(), true))
        } else {
            Err(Error::NeedsRecovery)
        }
    }

    pub(crate) fn parts(&self, clock: Clock) -> Parts {
        Parts {
            control: Arc::clone(&self.control),
            wal: Arc::clone(&self.wal),
            pool: Arc::clone(&self.pool),
            txns: Arc::clone(&self.txns),
            clock,
            workers: self.options.redo_workers(),
            mutations: self.options.mutations.recovery,
        }
    }
}

pub(crate) fn take_lock(disk: &dyn Disk) -> Result<Box<dyn DiskLock>> {
    disk.lock(LOCK, &format!("process {}", std::process::id())).map_err(in_use)
}

pub(crate) fn in_use(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        Error::InUse { holder: error.to_string() }
    } else {
        Error::io("lock", LOCK, error)
    }
}

pub(crate) fn at_path(path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::NoDatabase { path: path.display().to_string() }
    } else {
        Error::io("open", &path.display().to_string(), error)
    }
}

/// How the control file keeps the mode.
pub(crate) fn torn_pages_number(mode: TornPages) -> u8 {
    match mode {
        TornPages::DoubleWrite => 0,
        TornPages::FullPageImage => 1,
        TornPages::None => 2,
    }
}

pub(crate) fn torn_pages_from(number: u8) -> Result<TornPages> {
    match number {
        0 => Ok(TornPages::DoubleWrite),
        1 => Ok(TornPages::FullPageImage),
        2 => Ok(TornPages::None),
        other => {
            let what = format!("torn-page mode {other} is none of 0, 1, 2");
            Err(Error::corrupt(crate::create::CONTROL, 0, None, what))
        }
    }
}
