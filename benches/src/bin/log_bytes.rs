//! Prints the bytes of log that small transactions take: TPC-B transfers, updates, inserts.
//!
//! Pages are protected by double write, so no image is in the log; that is what other systems call their log
//! without full-page images.

use anyhow::Result;
use argali::{Durability, Options};
use argali_benches::{Bank, Rows, key, value};
use clap::Parser;
use fastrand::Rng;

/// Bytes of log per transaction
#[derive(Debug, Parser)]
struct Args {
    /// Accounts of the bank, and rows of the tree
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Transactions of each kind
    #[arg(long, default_value_t = 100_000)]
    transactions: u64,
}

fn main() -> Result<()> {
    let Args { rows, transactions } = Args::parse();
    let options = || Options::new().cache_bytes(1 << 30).in_memory();
    let mut rng = Rng::with_seed(1);
    let transfer = Bank::load(options()?, rows)?.log_bytes(transactions, &mut rng)?;
    println!("transfer (3 balances of 8 bytes, 1 insert of 58)  {transfer:8.1}");
    let tree = Rows::load(options()?, rows)?;
    let update =
        tree.log_bytes(transactions, |tree, _| tree.update(&mut rng, Durability::Relaxed))?;
    println!("update of all 100 bytes                           {update:8.1}");
    let mut rng = Rng::with_seed(2);
    let insert = tree.log_bytes(transactions, |tree, nth| {
        let txn = tree.db.begin()?;
        txn.set(&tree.tree, key(rows + nth), value(&mut rng))?;
        txn.commit_with(Durability::Relaxed).map(drop)
    })?;
    println!("insert of 108 bytes                               {insert:8.1}");
    Ok(())
}
