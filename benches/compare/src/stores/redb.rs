//! redb: copy on write, one writer, one-phase commit with checksums.

use std::path::Path;

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::store::{Key, Store, Transfer, Value, Wait, credited};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

pub(crate) struct Redb(Database);

pub(crate) fn open(dir: &Path, cache: usize) -> Result<Redb> {
    std::fs::create_dir_all(dir)?;
    let db = Database::builder().set_cache_size(cache).create(dir.join("db"))?;
    let txn = db.begin_write()?;
    txn.open_table(ROWS)?;
    txn.commit()?;
    Ok(Redb(db))
}

impl Redb {
    fn write(&self, wait: Wait) -> Result<redb::WriteTransaction> {
        let mut txn = self.0.begin_write()?;
        txn.set_durability(match wait {
            Wait::Durable => Durability::Immediate,
            Wait::Relaxed => Durability::None,
        })?;
        Ok(txn)
    }
}

impl Store for Redb {
    fn mode(&self) -> &'static str {
        "fdatasync per commit; relaxed: nothing written before the next durable commit"
    }

    fn put(&self, rows: &[(Key, Value)], wait: Wait) -> Result<()> {
        let txn = self.write(wait)?;
        let mut table = txn.open_table(ROWS)?;
        for (key, value) in rows {
            table.insert(&key[..], &value[..])?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn get(&self, key: Key, out: &mut Vec<u8>) -> Result<bool> {
        let table = self.0.begin_read()?.open_table(ROWS)?;
        let found = table.get(&key[..])?;
        out.clear();
        Ok(found.map(|value| out.extend_from_slice(value.value())).is_some())
    }

    fn scan(&self, from: Key, limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let table = self.0.begin_read()?.open_table(ROWS)?;
        for row in table.range(&from[..]..)?.take(limit) {
            let (key, value) = row?;
            visit(key.value(), value.value());
        }
        Ok(())
    }

    fn transfer(&self, transfer: &Transfer) -> Result<()> {
        let txn = self.write(Wait::Durable)?;
        let mut table = txn.open_table(ROWS)?;
        for key in transfer.balances {
            let next = table.get(&key[..])?.map_or_else(
                || credited(None, transfer.amount),
                |old| credited(Some(old.value()), transfer.amount),
            );
            table.insert(&key[..], &next[..])?;
        }
        table.insert(&transfer.history[..], &credited(None, transfer.amount)[..50])?;
        drop(table);
        Ok(txn.commit()?)
    }
}
