//! fjall: a log-structured merge tree; transactions have one writer at a time, no compression.

use std::path::Path;

use anyhow::Result;
use fjall::{
    KeyspaceCreateOptions, PersistMode, Readable as _, SingleWriterTxDatabase,
    SingleWriterTxKeyspace,
};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

pub(crate) struct Fjall {
    db: SingleWriterTxDatabase,
    rows: SingleWriterTxKeyspace,
}

pub(crate) fn open(dir: &Path, cache: usize) -> Result<Fjall> {
    let db = SingleWriterTxDatabase::builder(dir).cache_size(cache as u64).open()?;
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
    Ok(Fjall { db, rows })
}

fn persist(wait: Wait) -> PersistMode {
    match wait {
        Wait::Durable => PersistMode::SyncData,
        Wait::Relaxed => PersistMode::Buffer,
    }
}

impl Store for Fjall {
    fn mode(&self) -> &'static str {
        "fdatasync per batch; relaxed: the journal is with the operating system"
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        let mut batch = self.db.inner().batch().durability(Some(persist(wait)));
        for (key, value) in rows {
            batch.insert(self.rows.inner(), *key, *value);
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        let found = self.rows.get(key)?;
        out.clear();
        Ok(found.map(|value| out.extend_from_slice(&value)).is_some())
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for row in self.db.read_tx().range(&self.rows, from..).take(limit) {
            let (key, value) = row.into_inner()?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        let mut txn = self.db.write_tx().durability(Some(PersistMode::SyncData));
        for key in transfer.balances {
            let next = credited(txn.get(&self.rows, key)?.as_deref(), transfer.amount);
            txn.insert(&self.rows, key, next);
        }
        txn.insert(&self.rows, transfer.history, &credited(None, transfer.amount)[..50]);
        Ok(txn.commit()?)
    }
}
