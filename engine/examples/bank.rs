//! The bank: transfers, an abort, a conflict that `update` retries, and a sum that never changes.
//!
//! `cargo run --example bank`

use argali::{Db, Options, Result, Tree, Write};

fn main() -> Result<()> {
    let db = Options::new().temporary()?;
    let accounts = db.update(|tx| {
        let accounts = tx.tree("accounts")?;
        for who in ["alice", "bob", "carol"] {
            tx.put(&accounts, who, "1000")?;
        }
        Ok(accounts)
    })?;

    db.update(|tx| transfer(tx, &accounts, "alice", "bob", 200))?;
    show(&db, &accounts, "alice pays bob 200")?;

    // Whoever does not commit aborts: here, because the money is not there.
    let mut tx = db.begin()?;
    let savepoint = tx.savepoint()?;
    transfer(&savepoint, &accounts, "carol", "alice", 5000)?;
    println!("carol would have {}", balance(&savepoint, &accounts, "carol")?);
    savepoint.rollback()?;
    tx.abort()?;
    show(&db, &accounts, "carol may not pay 5000")?;

    // Two clients in opposite directions: one may become the victim of a deadlock, and runs again.
    std::thread::scope(|scope| {
        for (from, to) in [("alice", "bob"), ("bob", "alice")] {
            let (db, accounts) = (&db, &accounts);
            scope.spawn(move || {
                for _ in 0..200 {
                    db.update(|tx| transfer(tx, accounts, from, to, 1)).expect("retried enough");
                }
            });
        }
    });
    show(&db, &accounts, "400 transfers by two clients later")?;
    let stats = db.stats()?;
    println!(
        "{} commits, {} log flushes, {} deadlocks, {} retries",
        stats.commits, stats.log.flushes, stats.locks.deadlocks, stats.retries
    );
    db.close()
}

fn balance(tx: &Write, accounts: &Tree, who: &str) -> Result<i64> {
    let bytes = tx.get_for_update(accounts, who)?.expect("an account");
    Ok(std::str::from_utf8(&bytes).expect("digits").parse().expect("digits"))
}

fn transfer(tx: &Write, accounts: &Tree, from: &str, to: &str, amount: i64) -> Result<()> {
    for (who, delta) in [(from, -amount), (to, amount)] {
        let new = balance(tx, accounts, who)? + delta;
        tx.put(accounts, who, new.to_string())?;
    }
    Ok(())
}

fn show(db: &Db, accounts: &Tree, what: &str) -> Result<()> {
    let read = db.read()?;
    let mut sum = 0;
    print!("{what}:");
    for row in read.scan_all(accounts)? {
        let (who, balance) = row?;
        let balance = String::from_utf8_lossy(&balance).into_owned();
        print!(" {} {balance}", String::from_utf8_lossy(&who));
        sum += balance.parse::<i64>().expect("digits");
    }
    println!(", in all {sum}");
    read.finish()
}
