//! `RocksDB`'s pessimistic transactions: group commit of the log, bloom filters, no compression.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, Direction, IteratorMode, Options, TransactionDB,
    TransactionDBOptions, TransactionOptions, WriteBatchWithTransaction, WriteOptions,
};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

pub(crate) struct Rocks(TransactionDB);

pub(crate) fn open(dir: &Path, cache: usize) -> Result<Rocks> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(10.0, false);
    blocks.set_block_cache(&Cache::new_lru_cache(cache)?);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::None);
    options.set_block_based_table_factory(&blocks);
    options.set_max_background_jobs(2);
    Ok(Rocks(TransactionDB::open(&options, &TransactionDBOptions::default(), dir)?))
}

fn writing(wait: Wait) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(wait == Wait::Durable);
    options
}

impl Rocks {
    fn try_transfer(&self, transfer: &Transfer) -> Result<(), rocksdb::Error> {
        let txn = self.0.transaction_opt(&writing(Wait::Durable), &TransactionOptions::default());
        for key in transfer.balances {
            let old = txn.get_for_update(key, true)?;
            txn.put(key, credited(old.as_deref(), transfer.amount))?;
        }
        txn.put(transfer.history, &credited(None, transfer.amount)[..50])?;
        txn.commit()
    }
}

impl Store for Rocks {
    fn mode(&self) -> &'static str {
        "log synced per write group; relaxed: the log is with the operating system"
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        let mut batch = WriteBatchWithTransaction::<true>::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        Ok(self.0.write_opt(batch, &writing(wait))?)
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        Ok(self.0.get_pinned(key)?.map(|value| out.extend_from_slice(&value)).is_some())
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for row in self.0.iterator(IteratorMode::From(&from, Direction::Forward)).take(limit) {
            let (key, value) = row?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        use rocksdb::ErrorKind::{Busy, TimedOut, TryAgain};
        loop {
            match self.try_transfer(transfer) {
                Err(error) if matches!(error.kind(), Busy | TimedOut | TryAgain) => {}
                done => return Ok(done?),
            }
        }
    }
}
