//! Writing ahead of a checkpoint: the next one finds little to write.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod harness;

use std::time::Duration;

use argali_pager::TornPages::DoubleWrite;
use argali_recovery::{Flush, Silent, Standard};
use argali_txn::{Durability, Isolation, TxnOptions};
use harness::campaign::created;
use harness::db::{Config, Db};

const POLICY: Standard = Standard { log_bytes: 4096, interval: Duration::MAX, flush: Flush::Old };

/// Changes every page, in one transaction.
fn change_all(db: &Db) {
    let options = TxnOptions { isolation: Isolation::Serializable, lock_timeout: Duration::ZERO };
    let mut txn = db.txns.begin(options).unwrap();
    for page in 0..db.config.pages {
        db.count(&mut txn, page, 1).unwrap();
    }
    txn.commit(Durability::Sync).unwrap();
}

/// Pages that the second of two checkpoints writes when `between` happens before it.
fn written_by_the_second(between: impl Fn(&Db)) -> usize {
    let config = Config { frames: 64, ..Config::new(DoubleWrite) };
    let disk = created(&config, 1);
    let db = Db::open(&disk, &config, &mut Silent).unwrap();
    change_all(&db);
    db.checkpoint(Flush::Old).unwrap();
    between(&db);
    db.checkpointer.checkpoint(Flush::Old).unwrap().pages_written
}

#[test]
fn a_checkpoint_finds_written_what_was_written_ahead_of_it() {
    let pages = Config::new(DoubleWrite).pages;
    assert_eq!(written_by_the_second(change_all), pages, "nobody wrote ahead");
    let early = |db: &Db| {
        assert_eq!(db.checkpointer.write_ahead(&POLICY).unwrap(), 0, "nothing is due yet");
        change_all(db);
    };
    assert_eq!(written_by_the_second(early), pages);
    let in_time = |db: &Db| {
        while db.checkpointer.observe().log_bytes_since_last < 4096 {
            change_all(db);
        }
        assert_eq!(db.checkpointer.write_ahead(&POLICY).unwrap(), pages);
        assert_eq!(db.checkpointer.write_ahead(&POLICY).unwrap(), 0, "once is enough");
    };
    assert_eq!(written_by_the_second(in_time), 0);
}
