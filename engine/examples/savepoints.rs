//! Savepoints: a batch that skips its bad rows and keeps the good ones.
//!
//! `cargo run --example savepoints`

use argali::{Error, Options, Result, Tree, Write};

fn main() -> Result<()> {
    let db = Options::new().in_memory()?;
    let orders = ["2 apples", "x pears", "7 plums", "4", "1 melon"];
    let kept = db.update(|tx| {
        let stock = tx.tree("stock")?;
        let log = tx.tree("log")?;
        let mut kept = 0;
        for order in orders {
            let mut savepoint = tx.savepoint()?;
            match book(&mut savepoint, &stock, &log, order) {
                Ok(()) => {
                    savepoint.release();
                    kept += 1;
                }
                Err(Error::Invalid { why, .. }) => {
                    println!("{order:?} is taken back: {why}");
                    savepoint.rollback()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    })?;
    println!("{kept} of {} orders are booked", orders.len());
    let read = db.read()?;
    for name in read.trees()? {
        let tree = read.open_tree(&name)?.expect("listed");
        for row in read.scan_all(&tree)? {
            let (key, value) = row?;
            println!(
                "{name}: {} = {}",
                String::from_utf8_lossy(&key),
                String::from_utf8_lossy(&value)
            );
        }
    }
    read.finish()
}

/// Writes to two trees; may find out late that the order makes no sense.
fn book(tx: &mut Write, stock: &Tree, log: &Tree, order: &str) -> Result<()> {
    let (count, what) = order.split_once(' ').unwrap_or((order, ""));
    tx.put(log, order, "booked")?;
    tx.put(stock, what, count)?;
    let invalid = |why: &str| Error::Invalid { what: "order", why: why.to_owned() };
    let count: u32 = count.parse().map_err(|_| invalid("the count is no number"))?;
    if what.is_empty() || count == 0 {
        return Err(invalid("nothing is ordered"));
    }
    // A savepoint within a savepoint: a part that is tried and dropped.
    let trial = tx.savepoint()?;
    trial.delete(stock, what)?;
    drop(trial);
    Ok(())
}
