//! LMDB: copy on write in a memory map, one writer; the operating system's cache is its cache.
//!
//! The binding's only unsafe call is to open an environment: the file must not be changed behind the
//! map's back. It lies in a directory that this program made and nobody else knows.
#![allow(unsafe_code)]

use std::path::Path;

use anyhow::Result;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

/// Address space of the map.
const MAP_BYTES: usize = 16 << 30;

pub(crate) struct Lmdb {
    env: Env,
    rows: Database<'static, Bytes, Bytes>,
    wait: std::sync::Mutex<Wait>,
}

/// Random reads of more data than memory are served best without the system's reading ahead.
pub(crate) fn open(dir: &Path, cold: bool) -> Result<Lmdb> {
    std::fs::create_dir_all(dir)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_readers(256);
    let flags = if cold { EnvFlags::NO_READ_AHEAD } else { EnvFlags::empty() };
    // SAFETY: see the head of this file.
    let env = unsafe { options.flags(flags).open(dir)? };
    let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    let rows = made.unwrap_commit();
    Ok(Lmdb { env, rows, wait: std::sync::Mutex::new(Wait::Durable) })
}

impl Lmdb {
    /// Whether commits sync is a flag of the environment, not of a transaction.
    fn expect(&self, wait: Wait) -> Result<()> {
        let mut now = self.wait.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *now != wait {
            let mode = match wait {
                Wait::Durable => heed::FlagSetMode::Disable,
                Wait::Relaxed => heed::FlagSetMode::Enable,
            };
            // SAFETY: without sync a crash of the system may damage the database, which is a benchmark's.
            unsafe { self.env.set_flags(EnvFlags::NO_SYNC, mode)? };
            *now = wait;
        }
        Ok(())
    }
}

impl Store for Lmdb {
    fn mode(&self) -> &'static str {
        "fdatasync and a synchronous meta page per commit; relaxed: MDB_NOSYNC"
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        self.expect(wait)?;
        let mut txn = self.env.write_txn()?;
        for (key, value) in rows {
            self.rows.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        let txn = self.env.read_txn()?;
        out.clear();
        Ok(self.rows.get(&txn, &key)?.map(|value| out.extend_from_slice(value)).is_some())
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let txn = self.env.read_txn()?;
        let range = (std::ops::Bound::Included(&from[..]), std::ops::Bound::Unbounded);
        for row in self.rows.range(&txn, &range)?.take(limit) {
            let (key, value) = row?;
            visit(key, value);
        }
        Ok(())
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        self.expect(Wait::Durable)?;
        let mut txn = self.env.write_txn()?;
        for key in transfer.balances {
            let next = credited(self.rows.get(&txn, &key)?, transfer.amount);
            self.rows.put(&mut txn, &key, &next)?;
        }
        self.rows.put(&mut txn, &transfer.history, &credited(None, transfer.amount)[..50])?;
        Ok(txn.commit()?)
    }
}
