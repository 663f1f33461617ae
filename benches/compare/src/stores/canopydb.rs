//! canopydb: a copy-on-write B+tree with a write-ahead log, one writer.

use std::path::Path;

use anyhow::Result;
use canopydb::{Database, DbOptions, EnvOptions};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

const ROWS: &[u8] = b"rows";

pub(crate) struct Canopy(Database);

pub(crate) fn open(dir: &Path, cache: usize) -> Result<Canopy> {
    std::fs::create_dir_all(dir)?;
    let mut env = EnvOptions::new(dir);
    env.page_cache_size = cache;
    let db = Database::with_options(env, DbOptions::default())?;
    let txn = db.begin_write()?;
    drop(txn.get_or_create_tree(ROWS)?);
    txn.commit_with(true)?;
    Ok(Canopy(db))
}

impl Store for Canopy {
    fn mode(&self) -> &'static str {
        "log synced per commit; relaxed: synced in the background each 500 ms"
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        let txn = self.0.begin_write()?;
        let mut tree = txn.get_or_create_tree(ROWS)?;
        for (key, value) in rows {
            tree.insert(key, value)?;
        }
        drop(tree);
        txn.commit_with(wait == Wait::Durable)?;
        Ok(())
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        let txn = self.0.begin_read()?;
        out.clear();
        let Some(tree) = txn.get_tree(ROWS)? else { return Ok(false) };
        Ok(tree.get(&key)?.map(|value| out.extend_from_slice(&value)).is_some())
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let txn = self.0.begin_read()?;
        let Some(tree) = txn.get_tree(ROWS)? else { return Ok(()) };
        for row in tree.range(&from[..]..)?.take(limit) {
            let (key, value) = row?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        let txn = self.0.begin_write()?;
        let mut tree = txn.get_or_create_tree(ROWS)?;
        for key in transfer.balances {
            let next = credited(tree.get(&key)?.as_deref(), transfer.amount);
            tree.insert(&key, &next)?;
        }
        tree.insert(&transfer.history, &credited(None, transfer.amount)[..50])?;
        drop(tree);
        txn.commit_with(true)?;
        Ok(())
    }
}
