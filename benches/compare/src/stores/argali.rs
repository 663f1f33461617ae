//! argali with its defaults: group commit, early lock release, relaxed commits within 100 ms.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use argali::{Db, Durability, Isolation, Never, Options, Tree};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

pub(crate) struct Argali {
    db: Db,
    tree: Tree,
    isolation: Isolation,
}

pub(crate) fn open(dir: &Path, cache: (usize, bool), isolation: Isolation) -> Result<Argali> {
    let (bytes, direct) = cache;
    with(Options::new().cache_bytes(bytes).direct_io(direct), dir, isolation)
}

/// A restart then has all of the log before it, not the last 64 MiB.
pub(crate) fn open_without_checkpoints(dir: &Path, cache: usize) -> Result<Argali> {
    let options = Options::new().cache_bytes(cache).checkpoint_policy(Arc::new(Never));
    with(options, dir, Isolation::Serializable)
}

fn with(options: Options, dir: &Path, isolation: Isolation) -> Result<Argali> {
    let db = options.isolation(isolation).log_limit_bytes(4 << 30).open(dir)?;
    let tree = db.update(|txn| txn.tree("rows"))?;
    Ok(Argali { db, tree, isolation })
}

impl Store for Argali {
    fn mode(&self) -> &'static str {
        match self.isolation {
            Isolation::ReadCommitted => "O_DSYNC or fdatasync, group commit; read committed",
            _ => "O_DSYNC or fdatasync, group commit; serializable",
        }
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        let durability = match wait {
            Wait::Durable => Durability::Sync,
            Wait::Relaxed => Durability::Relaxed,
        };
        loop {
            let txn = self.db.begin()?;
            let put =
                rows.iter().try_for_each(|(key, value)| txn.set(&self.tree, key, value).map(drop));
            match put.and_then(|()| txn.commit_with(durability)) {
                Err(error) if error.is_retryable() => {}
                done => return Ok(done.map(drop)?),
            }
        }
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        let read = self.db.read()?;
        let found = read.get_into(&self.tree, key, out)?;
        read.finish()?;
        Ok(found)
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let read = self.db.read()?;
        let mut rows = read.cursor(&self.tree)?;
        let mut row = rows.seek(from)?;
        let mut left = limit;
        while let Some((key, value)) = row.filter(|_| left > 0) {
            visit(key, value);
            left -= 1;
            row = if left > 0 { rows.next()? } else { None };
        }
        drop(rows);
        Ok(read.finish()?)
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        Ok(self.db.update(|txn| {
            for key in transfer.balances {
                let old = txn.get_for_update(&self.tree, key)?;
                txn.set(&self.tree, key, credited(old.as_deref(), transfer.amount))?;
            }
            txn.set(&self.tree, transfer.history, &credited(None, transfer.amount)[..50]).map(drop)
        })?)
    }

    fn bulk_load(&self, rows: &mut dyn Iterator<Item = (Key, Value)>) -> Result<()> {
        let txn = self.db.begin()?;
        txn.bulk_load(&self.tree, rows.map(Ok))?;
        Ok(txn.commit_with(Durability::Relaxed).map(drop)?)
    }
}
