//! Every limit of a database, its default and the reason for it.
//!
//! ```text
//! fixed at creation (kept in the control file)     of this opening
//!   page_size        8 KiB                           cache_bytes        64 MiB
//!   torn_pages       DoubleWrite                     log_limit_bytes    1 GiB
//!   segment_bytes    16 MiB                          log_buffer_bytes   4 MiB
//!                                                    pages_max          2^26
//!                                                    isolation, durability, lock_timeout, …
//! ```
//!
//! What is fixed at creation is ignored when the database exists: it says itself what it is. All values
//! are checked together, before the first file is touched, so that a bad one is [`Error::Invalid`] and
//! never half a database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use argali_base::sync::Arc;
use argali_base::{Disk, Error, Result};
use argali_pager::{PageSize, TornPages};
use argali_recovery::{CheckpointPolicy, Flush, Standard};
use argali_txn::{Durability, Isolation};
use argali_wal::{LogOptions, RECORD_BYTES_MAX};

/// Fewest pages the cache may hold: a split latches a path, its new pages and a map page, and two
/// threads must be able to do so at once.
pub const CACHE_PAGES_MIN: usize = 16;

/// Fewest segments the log limit must have room for: one being written, one being kept for restart, one
/// zero-filled ahead, one of reserve for rollbacks.
pub const LOG_SEGMENTS_MIN: u64 = 4;

/// Rules of the lower crates broken on purpose; for tests only.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Mutations {
    /// Of the log.
    pub wal: argali_wal::Mutations,
    /// Of page file and torn-page repair.
    pub pager: argali_pager::Mutations,
    /// Of the page cache.
    pub pool: argali_buffer_pool::Mutations,
    /// Of transactions.
    pub txn: argali_txn::Mutations,
    /// Of restart and checkpoints.
    pub recovery: argali_recovery::Mutations,
    /// Damaged pages are not rebuilt.
    pub no_page_repair: bool,
}

/// Where something is that is not the database.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Directory(PathBuf),
    Disk(Arc<dyn Disk>),
}

/// How a database is opened or created.
///
/// ```
/// # fn main() -> argali::Result<()> {
/// use argali::{Durability, Options};
/// let db = Options::new()
///     .cache_bytes(1 << 20)
///     .durability(Durability::Relaxed)
///     .in_memory()?;
/// # db.close() }
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) page_size: u32,
    pub(crate) torn_pages: TornPages,
    pub(crate) segment_bytes: u64,
    pub(crate) create: bool,
    pub(crate) direct_io: bool,
    pub(crate) cache_bytes: usize,
    pub(crate) log_limit_bytes: u64,
    pub(crate) keep_log_bytes: u64,
    pub(crate) repair_from: Option<Place>,
    pub(crate) log_buffer_bytes: usize,
    pub(crate) pages_max: u64,
    pub(crate) isolation: Isolation,
    pub(crate) durability: Durability,
    pub(crate) lock_timeout: Duration,
    pub(crate) lock_escalation: usize,
    pub(crate) relaxed_delay: Duration,
    pub(crate) retries: u32,
    pub(crate) policy: Option<Arc<dyn CheckpointPolicy>>,
    pub(crate) background_threads: bool,
    pub(crate) mutations: Mutations,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The defaults named at each method.
    pub fn new() -> Self {
        Self {
            page_size: PageSize::DEFAULT.bytes() as u32,
            torn_pages: TornPages::default(),
            segment_bytes: 16 << 20,
            create: true,
            direct_io: false,
            cache_bytes: 64 << 20,
            log_limit_bytes: 1 << 30,
            keep_log_bytes: 0,
            repair_from: None,
            log_buffer_bytes: 4 << 20,
            pages_max: 1 << 26,
            isolation: Isolation::default(),
            durability: Durability::default(),
            lock_timeout: Duration::from_secs(10),
            lock_escalation: 5000,
            relaxed_delay: Duration::from_millis(100),
            retries: 16,
            policy: None,
            background_threads: true,
            mutations: Mutations::default(),
        }
    }

    /// Bytes per page: a power of two from 4 KiB to 64 KiB. Default 8 KiB: small enough that a point
    /// update writes little, large enough for trees of depth three. Fixed at creation.
    #[must_use]
    pub fn page_size(mut self, bytes: u32) -> Self {
        self.page_size = bytes;
        self
    }

    /// What protects a page whose write was cut short by a power failure. Default `DoubleWrite`: it
    /// costs data bandwidth in the background, not log bandwidth at commit. Fixed at creation.
    #[must_use]
    pub fn torn_pages(mut self, mode: TornPages) -> Self {
        self.torn_pages = mode;
        self
    }

    /// Bytes per log segment, a multiple of 4 KiB, at least 64 KiB. Default 16 MiB: segments are
    /// zero-filled ahead, so this is the size of one burst of background writing. Fixed at creation.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Whether a database is made where there is none. Default true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether pages bypass the operating system's cache (`O_DIRECT`). Default false. With it the page
    /// cache is the only copy in memory, and how fast pages are read and written is the device's own
    /// speed. The log does in any case, where it can: small flushes are written past it. Opening fails with
    /// an [`Error::Io`] that says so where the file system cannot do it.
    #[must_use]
    pub fn direct_io(mut self, direct: bool) -> Self {
        self.direct_io = direct;
        self
    }

    /// Bytes of the page cache, at least [`CACHE_PAGES_MIN`] pages. Default 64 MiB: a guest in another
    /// program's process should not take more unasked. This, the log buffer (twice) and about 8 bytes
    /// per page touched are all the memory a database needs.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Most bytes of log kept on disk, at least [`LOG_SEGMENTS_MIN`] segments. Default 1 GiB. Old
    /// transactions keep log; work beyond the limit gets [`Error::LogFull`], rollbacks never do.
    #[must_use]
    pub fn log_limit_bytes(mut self, bytes: u64) -> Self {
        self.log_limit_bytes = bytes;
        self
    }

    /// Bytes of log kept beyond what a restart needs, at most half the log limit. Default 0. A page that comes
    /// back damaged is rebuilt from its last image and the changes since, as far as they are in the log.
    /// The log goes by whole segments, so that up to one more is kept. An opening that asks for less keeps less
    /// from its next checkpoint on.
    /// New pages begin with an image; mode `FullPageImage` logs one after each write-back as well.
    #[must_use]
    pub fn keep_log_bytes(mut self, bytes: u64) -> Self {
        self.keep_log_bytes = bytes;
        self
    }

    /// A backup of this database, in directory `path`, whose pages help to rebuild damaged ones where the log
    /// holds no image. Worth something while the log reaches back to its end; see
    /// [`Options::keep_log_bytes`]. Opening fails when it is no finished backup of the same timeline.
    #[must_use]
    pub fn repair_from(mut self, path: impl AsRef<Path>) -> Self {
        self.repair_from = Some(Place::Directory(path.as_ref().to_owned()));
        self
    }

    /// As [`Options::repair_from`], on any disk.
    #[must_use]
    pub fn repair_from_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.repair_from = Some(Place::Disk(disk));
        self
    }

    /// Bytes of the log's ring in memory: a power of two, at least four of the largest records (2 MiB).
    /// Default 4 MiB: several flushes' worth, so that writers rarely wait for one.
    #[must_use]
    pub fn log_buffer_bytes(mut self, bytes: usize) -> Self {
        self.log_buffer_bytes = bytes;
        self
    }

    /// Most pages the data file may have. Default 2^26 (512 GiB of 8 KiB pages): eight bytes of address
    /// space each, touched only as pages are used, so that a limit of 4 GiB of address space holds.
    #[must_use]
    pub fn pages_max(mut self, pages: u64) -> Self {
        self.pages_max = pages;
        self
    }

    /// Isolation of transactions that do not say. Default serializable: no surprises first.
    #[must_use]
    pub fn isolation(mut self, level: Isolation) -> Self {
        self.isolation = level;
        self
    }

    /// Durability of commits that do not say. Default [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, default: Durability) -> Self {
        self.durability = default;
        self
    }

    /// How long a transaction waits for a lock before [`Error::LockTimeout`]. Default 10 s: deadlocks
    /// are found at once, so only a forgotten transaction takes this long.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// From how many locks on keys of one tree (rows of one heap) on a transaction tries to get by with one
    /// lock on all of it; it never waits for that, and tries again after as many more. Default 5000, about
    /// half a megabyte of locks: who touches that many rows of a tree seldom leaves others much to do there.
    /// `usize::MAX`: never.
    #[must_use]
    pub fn lock_escalation(mut self, keys: usize) -> Self {
        self.lock_escalation = keys;
        self
    }

    /// Longest time until a relaxed commit is durable. Default 100 ms. Without background threads time
    /// is counted in transactions, one millisecond each, so that runs repeat exactly.
    #[must_use]
    pub fn relaxed_delay(mut self, delay: Duration) -> Self {
        self.relaxed_delay = delay;
        self
    }

    /// How often [`crate::Db::update`] runs its closure again after a deadlock or a lock timeout before
    /// it gives the error back. Default 16: with doubling pauses that is well over a second.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// When checkpoints are taken and what they write. Default [`Standard`], each 64 MiB of log (or each
    /// quarter of the log limit if that is less) and each minute, writing old pages.
    #[must_use]
    pub fn checkpoint_policy(mut self, policy: Arc<dyn CheckpointPolicy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Whether log writer, page cleaner and checkpointer are threads, and whether a restart uses a thread
    /// for each processor. Default true. Without threads their steps run inline at the start of
    /// transactions: one client then repeats exactly.
    #[must_use]
    pub fn background_threads(mut self, threads: bool) -> Self {
        self.background_threads = threads;
        self
    }

    /// Breaks protocol rules on purpose, to show that tests notice.
    #[doc(hidden)]
    #[must_use]
    pub fn mutations(mut self, mutations: Mutations) -> Self {
        self.mutations = mutations;
        self
    }

    /// All checks that need no file.
    pub(crate) fn validate(&self) -> Result<()> {
        PageSize::new(self.page_size)?;
        demand(
            self.segment_bytes >= 64 << 10 && self.segment_bytes.is_multiple_of(4096),
            "segment_bytes",
            || format!("{} is not a multiple of 4096 from 65536 on", self.segment_bytes),
        )?;
        let ring_min = 4 * RECORD_BYTES_MAX;
        demand(
            self.log_buffer_bytes.is_power_of_two() && self.log_buffer_bytes >= ring_min,
            "log_buffer_bytes",
            || format!("{} is not a power of two from {ring_min} on", self.log_buffer_bytes),
        )?;
        demand(self.pages_max >= 64, "pages_max", || format!("{} is below 64", self.pages_max))?;
        demand(!self.relaxed_delay.is_zero(), "relaxed_delay", || "zero".to_owned())
    }

    /// The checks that depend on what was fixed at creation.
    pub(crate) fn validate_for(&self, page_size: u32, segment_bytes: u64) -> Result<()> {
        let cache_min = CACHE_PAGES_MIN * page_size as usize;
        demand(self.cache_bytes >= cache_min, "cache_bytes", || {
            format!("{} is below {CACHE_PAGES_MIN} pages ({cache_min})", self.cache_bytes)
        })?;
        let log_min = LOG_SEGMENTS_MIN * segment_bytes;
        demand(self.log_limit_bytes >= log_min, "log_limit_bytes", || {
            format!(
                "{} is below {LOG_SEGMENTS_MIN} segments ({log_min}); give segment_bytes, too",
                self.log_limit_bytes
            )
        })?;
        demand(self.keep_log_bytes <= self.log_limit_bytes / 2, "keep_log_bytes", || {
            format!("{} is above half of log_limit_bytes", self.keep_log_bytes)
        })
    }

    pub(crate) fn policy_or_default(&self) -> Arc<dyn CheckpointPolicy> {
        self.policy.clone().unwrap_or_else(|| {
            Arc::new(Standard {
                log_bytes: (64 << 20).min(self.log_limit_bytes / 4),
                interval: Duration::from_mins(1),
                flush: Flush::Old,
            })
        })
    }

    /// Threads of redo.
    pub(crate) fn redo_workers(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if self.background_threads { processors.min(REDO_WORKERS_MAX) } else { 0 }
    }

    pub(crate) fn log_options(&self, segment_bytes: u64) -> LogOptions {
        LogOptions {
            segment_bytes,
            ring_bytes: self.log_buffer_bytes,
            limit_bytes: self.log_limit_bytes,
            keep_bytes: self.keep_log_bytes,
            writer_thread: self.background_threads,
            mutations: self.mutations.wal.clone(),
        }
    }
}

/// More than this, and one thread cannot read the log for all of them.
const REDO_WORKERS_MAX: usize = 4;

fn demand(holds: bool, what: &'static str, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Invalid { what, why: why() }) }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("page_size", &self.page_size)
            .field("torn_pages", &self.torn_pages)
            .field("segment_bytes", &self.segment_bytes)
            .field("direct_io", &self.direct_io)
            .field("cache_bytes", &self.cache_bytes)
            .field("log_limit_bytes", &self.log_limit_bytes)
            .field("background_threads", &self.background_threads)
            .finish_non_exhaustive()
    }
}
