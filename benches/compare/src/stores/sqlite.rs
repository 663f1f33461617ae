//! `SQLite`: write-ahead log, `synchronous=FULL`; writers queue on a mutex, because its own busy handler
//! sleeps.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

const PUT: &str = "INSERT INTO rows VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
const GET: &str = "SELECT v FROM rows WHERE k = ?1";

pub(crate) struct Sqlite {
    file: PathBuf,
    cache: usize,
    writer: Mutex<(Connection, Wait)>,
    /// Connections of readers that are not reading now.
    readers: Mutex<Vec<Connection>>,
}

pub(crate) fn open(dir: &Path, cache: usize) -> Result<Sqlite> {
    std::fs::create_dir_all(dir)?;
    let file = dir.join("db");
    let writer = connect(&file, cache)?;
    let table = "CREATE TABLE IF NOT EXISTS rows (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID";
    writer.execute_batch(table)?;
    let writer = Mutex::new((writer, Wait::Durable));
    Ok(Sqlite { file, cache, writer, readers: Mutex::default() })
}

fn connect(file: &Path, cache: usize) -> Result<Connection> {
    let db = Connection::open(file)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -((cache >> 10) as i64))?;
    Ok(db)
}

impl Sqlite {
    fn write(&self, wait: Wait, body: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.1 != wait {
            let level = if wait == Wait::Durable { "FULL" } else { "NORMAL" };
            writer.0.pragma_update(None, "synchronous", level)?;
            writer.1 = wait;
        }
        let txn = writer.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        body(&txn)?;
        Ok(txn.commit()?)
    }

    fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let pool = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = pool().pop();
        let reader = spare.map_or_else(|| connect(&self.file, self.cache), Ok)?;
        let result = body(&reader);
        pool().push(reader);
        result
    }
}

impl Store for Sqlite {
    fn mode(&self) -> &'static str {
        "WAL, synchronous=FULL; relaxed: synchronous=NORMAL"
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        self.write(wait, |txn| {
            let mut put = txn.prepare_cached(PUT)?;
            for (key, value) in rows {
                put.execute((&key[..], &value[..]))?;
            }
            Ok(())
        })
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        self.read(|db| {
            out.clear();
            let mut get = db.prepare_cached(GET)?;
            let found = get.query_row([&key[..]], |row| {
                out.extend_from_slice(row.get_ref(0)?.as_blob()?);
                Ok(())
            });
            Ok(found.optional()?.is_some())
        })
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.read(|db| {
            let mut scan =
                db.prepare_cached("SELECT k, v FROM rows WHERE k >= ?1 ORDER BY k LIMIT ?2")?;
            let mut rows = scan.query((&from[..], limit.min(i64::MAX as usize) as i64))?;
            while let Some(row) = rows.next()? {
                visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            }
            Ok(())
        })
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        self.write(Wait::Durable, |txn| {
            let (mut get, mut put) = (txn.prepare_cached(GET)?, txn.prepare_cached(PUT)?);
            for key in transfer.balances {
                let old: Option<Vec<u8>> =
                    get.query_row([&key[..]], |row| row.get(0)).optional()?;
                put.execute((&key[..], &credited(old.as_deref(), transfer.amount)[..]))?;
            }
            put.execute((&transfer.history[..], &credited(None, transfer.amount)[..50]))?;
            Ok(())
        })
    }
}
