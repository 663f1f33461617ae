//! What a workload may ask of an engine, and the engines that answer.
//!
//! ```text
//!  workload ──► Store ──┬─ argali    serializable · read committed · without checkpoints
//!                       ├─ redb, LMDB, SQLite, canopydb      copy on write or rollback journal, one writer
//!                       └─ fjall, RocksDB                    log-structured merge trees
//! ```
//!
//! Six calls, each a whole transaction or several. Every engine is used in its documented best mode, and says with
//! [`Store::mode`] what its commits promise, so that no row of the report compares a sync with a promise.

use std::path::Path;

use anyhow::{Result, bail};

use crate::stores;

/// Keys sort as numbers; the highest byte is the table.
pub(crate) type Key = [u8; 8];
/// Rows per transaction while loading.
const LOAD_BATCH: usize = 1000;
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 100;
/// A value: the first eight bytes are a balance where the row has one.
pub(crate) type Value = [u8; VALUE_BYTES];

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The device has it.
    Durable,
    /// Nothing; a crash may lose the last moments.
    Relaxed,
}

/// A transfer in the manner of TPC-B: three balances change by `amount`, one row of history is added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// Account, teller, branch.
    pub(crate) balances: [Key; 3],
    pub(crate) amount: i64,
    pub(crate) history: Key,
}

/// An engine with one ordered table, open in this process.
pub(crate) trait Store: Send + Sync {
    /// What its commits promise, in a few words.
    fn mode(&self) -> &'static str;
    /// Puts rows in one transaction.
    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()>;
    /// Reads a row in a transaction of its own; whether it is there.
    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool>;
    /// Visits at most `limit` rows from `from` on, in a transaction of its own.
    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()>;
    /// Runs a transfer in one transaction that no other can come between; repeats it after a conflict.
    fn transfer(&self, transfer: &Transfer) -> Result<()>;
    /// Loads ascending rows into an empty table by whatever is the engine's fastest way: unless it has a
    /// better one, by `put`.
    fn bulk_load(&self, rows: &mut dyn Iterator<Item = (Key, Value)>) -> Result<()> {
        put_all(self, rows)
    }
}

/// Puts `rows`, [`LOAD_BATCH`] a transaction.
pub(crate) fn put_all<S: Store + ?Sized>(
    store: &S,
    rows: impl Iterator<Item = (Key, Value)>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(LOAD_BATCH);
    for row in rows {
        batch.push(row);
        if batch.len() == LOAD_BATCH {
            store.put(&batch, Wait::Relaxed)?;
            batch.clear();
        }
    }
    if batch.is_empty() { Ok(()) } else { store.put(&batch, Wait::Relaxed) }
}

/// Every engine this program was built with, ours first.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names = vec!["argali", "argali-rc", "argali-log"];
    if cfg!(feature = "peers") {
        names.extend(["redb", "fjall", "lmdb", "sqlite", "canopydb"]);
    }
    if cfg!(feature = "rocksdb") {
        names.push("rocksdb");
    }
    names
}

/// Opens engine `name` in `dir`, making a database if there is none, with `cache` bytes of cache where
/// the engine has one of its own. `direct` says that reads will miss it: ours is to bypass the system's cache.
pub(crate) fn open(name: &str, dir: &Path, cache: usize, direct: bool) -> Result<Box<dyn Store>> {
    use argali::Isolation::{ReadCommitted, Serializable};
    Ok(match name {
        "argali" => Box::new(stores::argali::open(dir, (cache, direct), Serializable)?),
        "argali-rc" => Box::new(stores::argali::open(dir, (cache, direct), ReadCommitted)?),
        "argali-log" => Box::new(stores::argali::open_without_checkpoints(dir, cache)?),
        #[cfg(feature = "peers")]
        "redb" => Box::new(stores::redb::open(dir, cache)?),
        #[cfg(feature = "peers")]
        "fjall" => Box::new(stores::fjall::open(dir, cache)?),
        #[cfg(feature = "peers")]
        "lmdb" => Box::new(stores::lmdb::open(dir, direct)?),
        #[cfg(feature = "peers")]
        "sqlite" => Box::new(stores::sqlite::open(dir, cache)?),
        #[cfg(feature = "peers")]
        "canopydb" => Box::new(stores::canopydb::open(dir, cache)?),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Box::new(stores::rocksdb::open(dir, cache)?),
        other => {
            bail!("{other} is not among {}: see the features in Cargo.toml", names().join(", "))
        }
    })
}

/// The balance in a value.
pub(crate) fn balance(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

/// `value` with its balance changed by `amount`; a row that is missing begins at zero.
pub(crate) fn credited(value: Option<&[u8]>, amount: i64) -> Value {
    let mut next = [0; VALUE_BYTES];
    if let Some(value) = value {
        next[..value.len().min(VALUE_BYTES)]
            .copy_from_slice(&value[..value.len().min(VALUE_BYTES)]);
    }
    let sum = balance(&next) + amount;
    next[..8].copy_from_slice(&sum.to_le_bytes());
    next
}
