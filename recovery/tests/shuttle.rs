//! Checkpoints beside writers, and redo by workers, under every interleaving the scheduler can think of.
//!
//! ```text
//!  writer 0    +1 on page 0 ── commit ── +1 on page 1 ── (never ends)
//!  writer 1    +1 on page 1 ── commit ── +1 on page 0 ── (never ends)      ─► power cut ─► restart:
//!  checkpoint  flush old, then nothing                                        each page holds exactly 1
//! ```
//!
//! The restart itself may have workers, and threads that read ahead: whoever comes first, the pages are the same.
//!
//! The two tables are read while both writers append; whatever falls between a table and the log behind
//! the checkpoint's begin record is an addition lost, or a loser's that nobody takes back.
//!
//! Run with `cargo test -p argali-recovery --features shuttle --test shuttle`.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod harness;

use std::sync::Arc;

use argali_base::disk::{Loss, SimDisk};
use argali_base::sync::thread;
use argali_pager::TornPages;
use argali_recovery::{Flush, Silent};
use argali_txn::{Durability, TxnOptions};
use harness::db::{Config, Db};

/// Each makes, crashes and recovers a database.
const ROUNDS: usize = 1000;

fn config(broken: fn(&mut Config)) -> Config {
    let mut config = Config { pages: 2, ..Config::new(TornPages::DoubleWrite) };
    broken(&mut config);
    config
}

/// Commits an addition to page `first`; leaves one to the other page behind when the power goes.
fn write(db: &Db, first: usize) {
    let mut txn = db.txns.begin(TxnOptions::default()).unwrap();
    db.count(&mut txn, first, 1).unwrap();
    txn.commit(Durability::Sync).unwrap();
    let mut loser = db.txns.begin(TxnOptions::default()).unwrap();
    db.count(&mut loser, 1 - first, 1).unwrap();
    std::mem::forget(loser);
}

fn checkpoint(db: &Db) {
    db.checkpoint(Flush::Old).unwrap();
    db.checkpoint(Flush::Nothing).unwrap();
}

fn story(config: &Config) {
    let disk = SimDisk::new(1);
    Db::create(&disk, config).unwrap();
    let db = Arc::new(Db::open(&disk, config, &mut Silent).unwrap());
    let bodies: [fn(&Db); 3] = [|db| write(db, 0), |db| write(db, 1), checkpoint];
    let threads = bodies.map(|body| {
        let db = Arc::clone(&db);
        thread::spawn("story", move || body(&db)).unwrap()
    });
    for thread in threads {
        thread.join().unwrap();
    }
    // A loser's records that nobody forced may be lost; forced, they must be taken back.
    db.wal.force(argali_base::Lsn::MAX).unwrap();
    drop(db);
    let cut = disk.power_cut(Loss::LoseAll);
    let state = Db::open(&cut, config, &mut Silent).unwrap().state().unwrap();
    let counters: Vec<u64> = state.pages.iter().map(|page| page.counter).collect();
    assert_eq!(counters, [1, 1], "an addition was lost, or a loser's stayed");
}

fn explore(broken: fn(&mut Config)) {
    shuttle::check_random(move || story(&config(broken)), ROUNDS);
    shuttle::check_pct(move || story(&config(broken)), ROUNDS, 3);
}

#[test]
fn a_checkpoint_beside_writers_loses_nothing() {
    explore(|_| ());
}

#[test]
#[should_panic(expected = "was lost")]
fn a_checkpoint_without_its_dirty_table_is_found() {
    explore(|config| config.broken.recovery.checkpoint_without_dirty_table = true);
}

fn by_workers(config: &mut Config) {
    config.workers = 2;
    config.frames = 64; // room to read ahead
}

#[test]
fn redo_by_workers_repeats_history() {
    explore(by_workers);
}

#[test]
#[should_panic(expected = "was lost")]
fn changes_given_out_by_record_are_found() {
    explore(|config| {
        by_workers(config);
        config.broken.recovery.redo_partitioned_by_record = true;
    });
}
