//! argali: an ARIES storage engine. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

use std::ops::RangeBounds;
use std::path::Path;
use std::time::Duration;

pub use argali_base::disk; // Disk, File, OsDisk, SimDisk, …: for tests and torture tools
pub use argali_base::{Error, Lsn, Result, TxnId};
pub use argali_pager::TornPages;
pub use argali_recovery::{
    CheckpointPolicy, CheckpointReport, Event, Flush, Observed, RecoveryObserver, Report,
};
pub use argali_txn::{Durability, Isolation};

use argali_base::Disk;
use argali_base::sync::Arc;

/// How a database is opened or created. Every limit has a default and a reason.
#[derive(Clone)]
pub struct Options {
    _todo: (),
}
impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
impl Options {
    pub fn new() -> Self {
        todo!()
    }
    // fixed at creation
    pub fn page_size(self, bytes: u32) -> Self {
        todo!()
    }
    pub fn torn_pages(self, mode: TornPages) -> Self {
        todo!()
    }
    pub fn segment_bytes(self, bytes: u64) -> Self {
        todo!()
    }
    // of this opening
    pub fn create(self, create: bool) -> Self {
        todo!()
    } // default true
    pub fn cache_bytes(self, bytes: usize) -> Self {
        todo!()
    } // default 64 MiB
    pub fn log_limit_bytes(self, bytes: u64) -> Self {
        todo!()
    } // default 1 GiB
    pub fn isolation(self, level: Isolation) -> Self {
        todo!()
    }
    pub fn durability(self, default: Durability) -> Self {
        todo!()
    }
    pub fn lock_timeout(self, timeout: Duration) -> Self {
        todo!()
    } // default 10 s
    pub fn relaxed_delay(self, delay: Duration) -> Self {
        todo!()
    } // default 100 ms
    pub fn checkpoint_policy(self, policy: Arc<dyn CheckpointPolicy>) -> Self {
        todo!()
    }
    /// Without threads the background steps run inline, at the start of transactions: deterministic.
    pub fn background_threads(self, threads: bool) -> Self {
        todo!()
    } // default true
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        todo!()
    }
    /// As `open`, telling `observer` every decision of the restart.
    pub fn open_observed<O: RecoveryObserver>(
        self,
        path: impl AsRef<Path>,
        observer: &mut O,
    ) -> Result<Db> {
        todo!()
    }
    pub fn open_on<O: RecoveryObserver>(self, disk: Arc<dyn Disk>, observer: &mut O) -> Result<Db> {
        todo!()
    }
    pub fn in_memory(self) -> Result<Db> {
        todo!()
    }
    /// In a temporary directory that goes away with the last handle.
    pub fn temporary(self) -> Result<Db> {
        todo!()
    }
    /// Reads only; never recovers or writes. `NeedsRecovery` unless it was shut down cleanly.
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Db> {
        todo!()
    }
}

/// A database. Clone, send and share it; the last handle shuts it down cleanly.
#[derive(Clone)]
pub struct Db(Arc<()>);

/// A named tree. No lifetime; outlives transactions; `NotFound` once the tree is dropped.
#[derive(Clone)]
pub struct Tree(Arc<()>);

impl Db {
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }
    /// What the last open did.
    pub fn recovery(&self) -> &Report {
        todo!()
    }
    pub fn begin(&self) -> Result<Write> {
        todo!()
    }
    pub fn begin_with(&self, isolation: Isolation) -> Result<Write> {
        todo!()
    }
    pub fn read(&self) -> Result<Read> {
        todo!()
    }
    pub fn read_with(&self, isolation: Isolation) -> Result<Read> {
        todo!()
    }
    /// Runs `body` in a transaction and commits; runs it again after a deadlock or lock timeout.
    pub fn update<T>(&self, body: impl FnMut(&mut Write) -> Result<T>) -> Result<T> {
        todo!()
    }
    pub fn checkpoint(&self, flush: Flush) -> Result<CheckpointReport> {
        todo!()
    }
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        todo!()
    }
    pub fn stats(&self) -> Result<Stats> {
        todo!()
    }
    /// Checks every structure; lists all faults it finds.
    pub fn verify(&self) -> Result<Verification> {
        todo!()
    }
    /// Ends background work, writes everything, marks the database clean. Also done on last drop, where
    /// errors have nowhere to go.
    pub fn close(self) -> Result<()> {
        todo!()
    }
}

/// A read-write transaction; dropping it aborts it.
pub struct Write {
    _todo: (),
}
impl Write {
    pub fn id(&self) -> TxnId {
        todo!()
    }
    /// Opens or creates. Creation is undone by abort.
    pub fn tree(&mut self, name: &str) -> Result<Tree> {
        todo!()
    }
    pub fn open_tree(&mut self, name: &str) -> Result<Option<Tree>> {
        todo!()
    }
    pub fn drop_tree(&mut self, name: &str) -> Result<()> {
        todo!()
    }
    pub fn trees(&mut self) -> Result<Vec<String>> {
        todo!()
    }
    pub fn get(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    pub fn get_for_update(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// Returns the old value.
    pub fn put(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    pub fn insert_new(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        todo!()
    }
    pub fn delete(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// Forward. Holds no latch between items; `put` while scanning is fine.
    pub fn scan<K: AsRef<[u8]>>(
        &self,
        tree: &Tree,
        range: impl RangeBounds<K>,
    ) -> Result<Scan<'_>> {
        todo!()
    }
    pub fn scan_prefix(&self, tree: &Tree, prefix: impl AsRef<[u8]>) -> Result<Scan<'_>> {
        todo!()
    }
    /// Derefs to `Write`; dropping it rolls back to it.
    pub fn savepoint(&mut self) -> Result<Savepoint<'_>> {
        todo!()
    }
    pub fn commit(self) -> Result<Lsn> {
        todo!()
    }
    pub fn commit_with(self, durability: Durability) -> Result<Lsn> {
        todo!()
    }
    pub fn abort(self) -> Result<()> {
        todo!()
    }
}

pub struct Savepoint<'w> {
    _write: &'w mut Write,
}
impl Savepoint<'_> {
    /// Keeps what was done since.
    pub fn release(self) {
        todo!()
    }
    pub fn rollback(self) -> Result<()> {
        todo!()
    }
}
impl std::ops::Deref for Savepoint<'_> {
    type Target = Write;
    fn deref(&self) -> &Write {
        todo!()
    }
}
impl std::ops::DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut Write {
        todo!()
    }
}

/// A read-only transaction under its isolation level; writes no log record. What it returned is
/// provisional until `finish`, which waits until every commit it may have seen is durable.
pub struct Read {
    _todo: (),
}
impl Read {
    pub fn open_tree(&self, name: &str) -> Result<Option<Tree>> {
        todo!()
    }
    pub fn trees(&self) -> Result<Vec<String>> {
        todo!()
    }
    pub fn get(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    pub fn scan<K: AsRef<[u8]>>(
        &self,
        tree: &Tree,
        range: impl RangeBounds<K>,
    ) -> Result<Scan<'_>> {
        todo!()
    }
    pub fn scan_prefix(&self, tree: &Tree, prefix: impl AsRef<[u8]>) -> Result<Scan<'_>> {
        todo!()
    }
    pub fn finish(self) -> Result<()> {
        todo!()
    }
}

/// Iterator over `Result<(key, value)>`.
pub struct Scan<'t> {
    _todo: std::marker::PhantomData<&'t ()>,
}
impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// Counters and gauges; names carry their units. `holders` names what keeps the log.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub log: argali_wal::LogStats,
    pub pool: argali_buffer_pool::PoolStats,
    pub pager: argali_pager::PagerStats,
    pub locks: argali_txn::LockStats,
    pub active_transactions: usize,
    pub commits: u64,
    pub aborts: u64,
    pub checkpoints: u64,
    pub trees: u64,
    pub pages_in_use: u64,
    pub poisoned: Option<String>,
}

/// What `verify` saw.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    pub trees: u64,
    pub rows: u64,
    pub pages: u64,
    pub faults: Vec<String>,
}

/// Facts about a database directory read without opening (recovering, writing) it: for `argali info`.
#[derive(Clone, Debug)]
pub struct Info {
    pub control: argali_wal::Control,
    pub clean: bool,
    pub log_files: Vec<(String, u64)>,
    pub data_bytes: u64,
}
pub fn info(path: impl AsRef<Path>) -> Result<Info> {
    todo!()
}
