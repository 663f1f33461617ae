//! argali: a storage engine that keeps its word after a crash.
//!
//! Named B+trees and heaps of bytes, changed in transactions, in one directory. It is built the way the ARIES paper
//! describes: pages with LSNs in a steal/no-force buffer pool, a write-ahead log with compensation
//! records, fuzzy checkpoints, and a restart in three passes (analysis, redo, undo) that can be watched.
//!
//! ```
//! # fn main() -> argali::Result<()> {
//! use argali::Options;
//! let db = Options::new().in_memory()?; // or Db::open("path")
//! db.update(|tx| {
//!     let accounts = tx.tree("accounts")?;
//!     tx.put(&accounts, "alice", "1000")?;
//!     tx.put(&accounts, "bob", "1000")?;
//!     Ok(())
//! })?; // durable from here on
//!
//! let read = db.read()?;
//! let accounts = read.open_tree("accounts")?.expect("made above");
//! assert_eq!(read.get(&accounts, "alice")?, Some(b"1000".to_vec()));
//! assert_eq!(read.scan_all(&accounts)?.count(), 2);
//! # read.finish() }
//! ```
//!
//! # What is promised
//!
//! On disks that honour a sync, write 512-byte sectors whole, and leave the bytes beside a write alone:
//!
//! 1. A commit that returned `Ok` under [`Durability::Sync`] survives any crash.
//! 2. A transaction is there entirely or not at all, however often a restart is itself interrupted.
//! 3. After a failed log write or sync nothing is acknowledged any more ([`Error::Poisoned`]) and nothing is
//!    retried: only a reopen, which reads what the disk really holds, heals.
//! 4. Damage is reported as [`Error::Corrupt`] with file and offset, never returned as data.
//! 5. Aborting always works: log space for it was set aside, and it never needs a new page.
//! 6. One process writes at a time; the next one gets [`Error::InUse`] with the holder's name.
//! 7. Two runs with one client and [`Options::background_threads`]`(false)` make the same calls to the disk.
//!
//! Isolation is serializable unless asked otherwise, by strict two-phase locks on keys, and on the ranges that
//! were scanned. A deadlock's victim gets [`Error::Deadlock`]; [`Db::update`] runs it again.
//!
//! # Where to read on
//!
//! [`Options`] lists every limit. [`Db::recovery`] says what the last restart did; [`RecoveryObserver`]
//! hears every decision of it. [`Db::stats`] names what holds the log; [`Db::verify`] checks everything.
//! [`disk`] has the simulated disk that the crash tests cut.

mod background;
mod backup;
mod catalog;
mod create;
mod cursor;
mod db;
mod handle;
mod heap;
mod info;
mod load;
mod open;
mod options;
mod prepared;
mod read;
mod restore;
mod savepoint;
mod scan;
mod sequence;
mod session;
mod stats;
mod tree;
mod value;
mod verify;
mod write;

pub use argali_access::{Finding, RowId, SpaceStats, TreeEstimate, VALUE_BYTES_MAX};
pub use argali_base::{Error, Lsn, PageId, Result, TxnId, disk};
pub use argali_buffer_pool::PoolStats;
pub use argali_pager::{PagerStats, TornPages};
pub use argali_recovery::{
    CheckpointPolicy, CheckpointReport, Event, Flush, Never, Observed, PageRepair, PassReport,
    RecoveryObserver, RedoDecision, Report, Silent, Standard,
};
pub use argali_txn::{
    Durability, GID_BYTES_MAX, Gap, Isolation, KeyMode, LockMode, LockName, LockStats,
};
pub use argali_wal::{ActiveTxn, Control, DirtyPage, Holder, LogId, LogStats, TxnState};

pub use backup::{BackupOptions, BackupProgress, BackupReport};
pub use catalog::NAME_BYTES_MAX;
pub use cursor::{Bookmark, Cursor, Row};
pub use db::Db;
pub use heap::{Heap, Rows};
pub use info::{Info, info, info_on};
pub use options::{CACHE_PAGES_MIN, LOG_SEGMENTS_MIN, Mutations, Options};
pub use prepared::InDoubt;
pub use read::Read;
pub use restore::Restore;
pub use savepoint::Savepoint;
pub use scan::Scan;
pub use sequence::{Sequence, SequenceOptions};
pub use stats::Stats;
pub use tree::Tree;
pub use value::ValueReader;
pub use verify::Verification;
pub use write::Write;

/// The README's example is compiled and run like any other.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
