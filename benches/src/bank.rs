//! A bank in the manner of TPC-B: balances in rows of 100 bytes, and a history of transfers.

use argali::{Db, Durability, Result, Tree};
use fastrand::Rng;

/// Bytes of an account's, a teller's or a branch's row; the first eight are its balance.
const ROW_BYTES: usize = 100;
/// Bytes of a row of history.
const HISTORY_BYTES: usize = 50;
/// Accounts of a branch; it has ten tellers.
const BRANCH_ACCOUNTS: u64 = 100_000;
/// Rows put in one transaction while loading.
const LOAD_BATCH: u64 = 1000;

const ACCOUNT: u8 = 1;
const TELLER: u8 = 2;
const BRANCH: u8 = 3;
const HISTORY: u8 = 4;

/// A database with a bank.
pub struct Bank {
    /// The database.
    pub db: Db,
    tree: Tree,
    accounts: u64,
    /// Rows of history, as far as [`Bank::log_bytes`] made them.
    transfers: u64,
}

fn key(table: u8, number: u64) -> [u8; 8] {
    ((u64::from(table) << 56) | number).to_be_bytes()
}

impl Bank {
    /// A bank with `accounts` accounts, all of them empty.
    pub fn load(db: Db, accounts: u64) -> Result<Self> {
        let tree = db.update(|txn| txn.tree("bank"))?;
        let bank = Self { db, tree, accounts, transfers: 0 };
        for (table, count) in
            [(ACCOUNT, accounts), (TELLER, 10 * bank.branches()), (BRANCH, bank.branches())]
        {
            for first in (0..count).step_by(LOAD_BATCH as usize) {
                let txn = bank.db.begin()?;
                for number in first..count.min(first + LOAD_BATCH) {
                    txn.set(&bank.tree, key(table, number), [0; ROW_BYTES])?;
                }
                txn.commit_with(Durability::Relaxed)?;
            }
        }
        bank.db.checkpoint(argali::Flush::Everything)?;
        Ok(bank)
    }

    fn branches(&self) -> u64 {
        self.accounts.div_ceil(BRANCH_ACCOUNTS)
    }

    /// Changes three balances and adds row `entry` of history; again after a conflict.
    pub fn transfer(&self, rng: &mut Rng, entry: u64, durability: Durability) -> Result<()> {
        let teller = rng.u64(..10 * self.branches());
        let rows = [(ACCOUNT, rng.u64(..self.accounts)), (TELLER, teller), (BRANCH, teller / 10)];
        let amount = rng.i64(-99_999..=99_999);
        loop {
            match self.try_transfer(rows, amount, entry, durability) {
                Err(error) if error.is_retryable() => {}
                done => return done,
            }
        }
    }

    fn try_transfer(
        &self,
        rows: [(u8, u64); 3],
        amount: i64,
        entry: u64,
        durability: Durability,
    ) -> Result<()> {
        let txn = self.db.begin()?;
        for (table, number) in rows {
            let mut row = txn.get_for_update(&self.tree, key(table, number))?.unwrap_or_default();
            let balance = row.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes)) + amount;
            row.resize(ROW_BYTES, 0);
            row[..8].copy_from_slice(&balance.to_le_bytes());
            txn.set(&self.tree, key(table, number), row)?;
        }
        let mut history = [0; HISTORY_BYTES];
        history[..8].copy_from_slice(&amount.to_le_bytes());
        txn.set(&self.tree, key(HISTORY, entry), history)?;
        txn.commit_with(durability).map(drop)
    }

    /// Bytes of log a relaxed transfer takes, as a mean over `transfers` of them.
    pub fn log_bytes(&mut self, transfers: u64, rng: &mut Rng) -> Result<f64> {
        let before = self.db.stats()?.log.bytes;
        for _ in 0..transfers {
            self.transfers += 1;
            self.transfer(rng, self.transfers, Durability::Relaxed)?;
        }
        Ok((self.db.stats()?.log.bytes - before) as f64 / transfers as f64)
    }
}
