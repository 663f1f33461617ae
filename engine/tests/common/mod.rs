//! Small databases for tests of the facade: on a simulated disk, steps inline, short waits.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // each test binary uses its part

use std::sync::Arc;
use std::time::Duration;

use argali::disk::{Disk, SimDisk};
use argali::{Db, Options, Result, Silent, Tree};

pub fn memory() -> Db {
    options().in_memory().unwrap()
}

pub fn options() -> Options {
    let options = Options::new().segment_bytes(256 << 10).lock_timeout(Duration::from_millis(200));
    options.background_threads(false)
}

pub fn on(disk: &SimDisk) -> Result<Db> {
    options().open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent)
}

pub fn fill(db: &Db, name: &str, rows: u32) -> Tree {
    db.update(|tx| {
        let tree = tx.tree(name)?;
        (0..rows).try_for_each(|n| tx.put(&tree, n.to_be_bytes(), "v".repeat(50)).map(|_| ()))?;
        Ok(tree)
    })
    .unwrap()
}

pub fn assert_sound(db: &Db) {
    let seen = db.verify().unwrap();
    assert!(seen.is_sound(), "{:#?}", seen.findings);
}

/// Lets background steps free what is to be freed.
pub fn settle(db: &Db) {
    for _ in 0..100 {
        drop(db.read().unwrap());
    }
    assert_eq!(db.stats().unwrap().frees_waiting, 0);
}
