//! The five tests every ARIES tutorial ends with, and its bank story.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::sync::Arc;

use argali::disk::{Disk, Loss, SimDisk};
use argali::{Db, Flush, Options, Result, Silent, Tree, Write};

fn open(disk: &SimDisk) -> Db {
    let options = Options::new().segment_bytes(256 << 10).background_threads(false);
    options.open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent).unwrap()
}

fn value(db: &Db, key: &str) -> Option<String> {
    let read = db.read().unwrap();
    let tree = read.open_tree("t").unwrap()?;
    let value = read.get(&tree, key).unwrap();
    read.finish().unwrap();
    value.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Power cut with everything in memory, and everything un-synced, gone.
fn crash(db: Db, disk: &SimDisk) -> SimDisk {
    let image = disk.power_cut(Loss::LoseAll);
    drop(db);
    image
}

#[test]
fn basic() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    assert_eq!(tx.put(&tree, "a", "1").unwrap(), None);
    assert_eq!(tx.put(&tree, "a", "2").unwrap(), Some(b"1".to_vec()));
    assert_eq!(tx.get(&tree, "a").unwrap(), Some(b"2".to_vec()));
    let lsn = tx.commit().unwrap();
    db.wait_durable(lsn).unwrap();
    assert_eq!(value(&db, "a").as_deref(), Some("2"));
    assert_eq!(value(&db, "b"), None);
}

#[test]
fn rollback() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    db.update(|tx| {
        let tree = tx.tree("t")?;
        tx.put(&tree, "a", "before")
    })
    .unwrap();
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    tx.put(&tree, "a", "after").unwrap();
    tx.put(&tree, "b", "new").unwrap();
    tx.abort().unwrap();
    assert_eq!(value(&db, "a").as_deref(), Some("before"));
    assert_eq!(value(&db, "b"), None);
}

#[test]
fn crash_recovery() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    for n in 0..50 {
        db.update(|tx| {
            let tree = tx.tree("t")?;
            tx.put(&tree, format!("k{n}"), format!("v{n}"))
        })
        .unwrap();
    }
    let db = open(&crash(db, &disk));
    let report = db.recovery();
    assert!(report.recovered && report.losers.is_empty(), "{report:?}");
    // The fifty, and the engine's own transaction that allocated the tree.
    assert_eq!(report.winners, 51, "{report:?}");
    for n in 0..50 {
        assert_eq!(value(&db, &format!("k{n}")), Some(format!("v{n}")));
    }
}

#[test]
fn partial_transaction() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    db.update(|tx| {
        let tree = tx.tree("t")?;
        tx.put(&tree, "a", "committed")
    })
    .unwrap();
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    tx.put(&tree, "a", "half").unwrap();
    tx.put(&tree, "b", "done").unwrap();
    let id = tx.id();
    // The loser's changes reach log and data file: only undo can take them back.
    db.checkpoint(Flush::Everything).unwrap();
    let image = disk.power_cut(Loss::LoseAll);
    drop(tx);
    let db = open(&image);
    assert_eq!(db.recovery().losers, [id]);
    assert!(db.recovery().clrs_written >= 2, "{:?}", db.recovery());
    assert_eq!(value(&db, "a").as_deref(), Some("committed"));
    assert_eq!(value(&db, "b"), None);
}

#[test]
fn concurrent_transactions() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    db.update(|tx| tx.tree("t").map(|_| ())).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let db = db.clone();
            scope.spawn(move || {
                for n in 0..25 {
                    db.update(|tx| {
                        let tree = tx.tree("t")?;
                        tx.put(&tree, format!("w{worker}-{n}"), "x")?;
                        let count = tx.get_for_update(&tree, "count")?.map_or(0, |v| number(&v));
                        tx.put(&tree, "count", (count + 1).to_string())
                    })
                    .unwrap();
                }
            });
        }
    });
    let db = open(&crash(db, &disk));
    assert_eq!(value(&db, "count").as_deref(), Some("100"), "an increment was lost");
    let read = db.read().unwrap();
    let tree = read.open_tree("t").unwrap().unwrap();
    assert_eq!(read.scan_prefix(&tree, "w").unwrap().count(), 100);
}

fn number(bytes: &[u8]) -> i64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

fn transfer(tx: &Write, tree: &Tree, from: &str, to: &str, amount: i64) -> Result<()> {
    for (account, delta) in [(from, -amount), (to, amount)] {
        let balance = number(&tx.get_for_update(tree, account)?.expect("an account"));
        tx.put(tree, account, (balance + delta).to_string())?;
    }
    Ok(())
}

/// Three accounts of 1000; one transfer of 200 commits, another is cut in the middle.
#[test]
fn the_bank_survives() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    db.update(|tx| {
        let tree = tx.tree("t")?;
        ["alice", "bob", "carol"].iter().try_for_each(|who| tx.put(&tree, who, "1000").map(|_| ()))
    })
    .unwrap();
    db.update(|tx| {
        let tree = tx.tree("t")?;
        transfer(tx, &tree, "alice", "bob", 200)
    })
    .unwrap();

    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    let carol = number(&tx.get_for_update(&tree, "carol").unwrap().unwrap());
    tx.put(&tree, "carol", (carol - 500).to_string()).unwrap();
    db.checkpoint(Flush::Everything).unwrap(); // the half transfer is on disk now
    let image = disk.power_cut(Loss::LoseAll);
    drop(tx);
    drop(db);

    let db = open(&image);
    assert_eq!(db.recovery().losers.len(), 1);
    let balances: Vec<_> = ["alice", "bob", "carol"].map(|who| value(&db, who).unwrap()).to_vec();
    assert_eq!(balances, ["800", "1200", "1000"]);
    assert_eq!(balances.iter().map(|b| b.parse::<i64>().unwrap()).sum::<i64>(), 3000);
}
