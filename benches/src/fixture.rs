//! Databases to measure: one tree of rows with 8-byte keys and 100-byte values.

use argali::{Db, Durability, Options, Result, Tree};
use fastrand::Rng;

/// Rows of the standard tree: about 25 MB of pages, in cache with the 64 MiB default but not in L2.
pub const ROWS: u64 = 200_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Rows put in one transaction while loading.
const LOAD_BATCH: u64 = 1000;

/// Key of row `number`: big-endian, so that keys sort as numbers.
pub fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A value nobody can compress or predict.
pub fn value(rng: &mut Rng) -> [u8; VALUE_BYTES] {
    let mut bytes = [0; VALUE_BYTES];
    rng.fill(&mut bytes);
    bytes
}

/// A database with the standard tree.
#[derive(Clone)]
pub struct Rows {
    /// The database.
    pub db: Db,
    /// Its tree.
    pub tree: Tree,
    /// How many rows it has.
    pub count: u64,
}

impl Rows {
    /// In memory, with [`ROWS`] rows, all in the cache.
    pub fn in_memory() -> Result<Self> {
        Self::load(Options::new().cache_bytes(128 << 20).in_memory()?, ROWS)
    }

    /// Loads `count` rows into `db`.
    pub fn load(db: Db, count: u64) -> Result<Self> {
        let tree = db.update(|txn| txn.tree("rows"))?;
        let mut rng = Rng::with_seed(1);
        for first in (0..count).step_by(LOAD_BATCH as usize) {
            let txn = db.begin()?;
            for number in first..count.min(first + LOAD_BATCH) {
                txn.put(&tree, key(number), value(&mut rng))?;
            }
            txn.commit_with(Durability::Relaxed)?;
        }
        db.checkpoint(argali::Flush::Everything)?;
        Ok(Self { db, tree, count })
    }

    /// The key of some row.
    pub fn some_key(&self, rng: &mut Rng) -> [u8; 8] {
        key(rng.u64(..self.count))
    }

    /// Bytes of log that each of `count` calls of `operation` takes, as a mean.
    pub fn log_bytes(
        &self,
        count: u64,
        mut operation: impl FnMut(&Self, u64) -> Result<()>,
    ) -> Result<f64> {
        let before = self.db.stats()?.log.bytes;
        (0..count).try_for_each(|nth| operation(self, nth))?;
        Ok((self.db.stats()?.log.bytes - before) as f64 / count as f64)
    }

    /// Puts a new value into some row, in a transaction of its own.
    pub fn update(&self, rng: &mut Rng, durability: Durability) -> Result<()> {
        let txn = self.db.begin()?;
        txn.set(&self.tree, self.some_key(rng), value(rng))?;
        txn.commit_with(durability)?;
        Ok(())
    }
}
