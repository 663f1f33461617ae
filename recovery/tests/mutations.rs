//! Each rule of the protocol, broken on purpose, to show that the campaigns would notice and what falls.
//!
//! A test breaks one rule and lets databases live through crashes ([`harness::lives`]) until one comes
//! back wrong. What "wrong" means is the oracle's business: a commit is missing, a loser's work is there,
//! half a transaction is, restart refuses a disk that is in order, or an assertion speaks first. The
//! same lives with nothing broken go well; `crash_points.rs` shows that.

mod harness;

use argali_base::disk::{Loss, SimDisk};
use argali_pager::TornPages::{self, DoubleWrite, FullPageImage};
use argali_recovery::Silent;
use harness::campaign::{Violation, catch, created, open};
use harness::db::{Broken, Config, Db};
use harness::faults::every_sync_fails;
use harness::lives::hunt;
use harness::workload::{self as mix, Mix};

/// Most databases to watch before giving up.
const SEEDS: u64 = 150;

fn broken(mode: TornPages, breaks: impl FnOnce(&mut Broken)) -> Config {
    let mut config = Config::tight(mode);
    breaks(&mut config.broken);
    config
}

#[track_caller]
fn must_be_noticed(mode: TornPages, mix: Mix, breaks: impl FnOnce(&mut Broken)) {
    let found = hunt(&broken(mode, breaks), mix, SEEDS);
    let Violation(what) = found.expect("nobody noticed that the rule is broken");
    println!("{what}");
}

/// Falls: an acknowledged commit survives.
#[test]
fn no_force_at_commit() {
    must_be_noticed(DoubleWrite, mix::MIXED, |b| b.txn.no_force_at_commit = true);
}

/// Falls: what did not commit can be taken back; its record is gone, its page is not. The pager's
/// assertion has to be broken, too, or it would stop the workload.
#[test]
fn page_before_log() {
    must_be_noticed(DoubleWrite, mix::MIXED, |b| {
        b.pool.page_before_log = true;
        b.pager.page_before_log = true;
    });
}

/// The same rule, with the guard in place.
#[test]
fn page_before_log_is_asserted() {
    let config = broken(DoubleWrite, |b| b.pool.page_before_log = true);
    let Violation(what) = hunt(&config, mix::MIXED, SEEDS).expect("the pager asserts it");
    assert!(what.contains("must not be written while the log is durable up to"), "{what}");
}

/// Falls: undo finds what it takes back. History that was not repeated cannot be undone.
#[test]
fn winners_only_redo() {
    must_be_noticed(DoubleWrite, mix::STEAL, |b| b.recovery.winners_only_redo = true);
}

/// Falls: a change is made once. The page's own assertion notices first.
#[test]
fn redo_ignores_page_lsn() {
    must_be_noticed(DoubleWrite, mix::MIXED, |b| b.recovery.redo_ignores_page_lsn = true);
}

/// Falls: a change is taken back once. With "set to" operations alone nobody would notice.
#[test]
fn clr_ignores_undo_next() {
    must_be_noticed(DoubleWrite, mix::SAVEPOINTS, |b| b.txn.clr_ignores_undo_next = true);
}

/// Falls: redo knows all pages it needs, those first changed behind the checkpoint among them.
#[test]
fn new_pages_not_dirty() {
    must_be_noticed(DoubleWrite, mix::MIXED, |b| b.recovery.new_pages_not_dirty = true);
}

/// Falls: redo begins early enough.
#[test]
fn checkpoint_without_dirty_table() {
    let breaks = |b: &mut Broken| b.recovery.checkpoint_without_dirty_table = true;
    must_be_noticed(DoubleWrite, mix::CHECKPOINTS, breaks);
}

/// Falls: a page out of the table is on the platter, not in a cache.
#[test]
fn dirty_entry_dropped_before_sync() {
    let breaks = |b: &mut Broken| b.pool.drop_dirty_before_sync = true;
    must_be_noticed(DoubleWrite, mix::CHECKPOINTS, breaks);
}

/// Falls: redo and undo find their records.
#[test]
fn early_log_truncation() {
    must_be_noticed(DoubleWrite, mix::CHECKPOINTS, |b| b.recovery.early_truncation = true);
}

/// Falls: redo and undo find their records; this time it is the log that does not heed its holders.
#[test]
fn truncation_ignores_oldest_transaction() {
    must_be_noticed(DoubleWrite, mix::CHECKPOINTS, |b| b.wal.early_truncation = true);
}

/// Falls: a transaction that voted to commit can still do so. Undo has taken it back.
#[test]
fn prepared_counted_as_losers() {
    must_be_noticed(DoubleWrite, mix::IN_DOUBT, |b| b.recovery.prepared_are_losers = true);
}

/// Falls: a vote that was given survives a crash.
#[test]
fn no_force_at_prepare() {
    must_be_noticed(DoubleWrite, mix::FEW_IN_DOUBT, |b| b.txn.no_force_at_commit = true);
}

/// Falls: a torn page is whole again before anybody reads it.
#[test]
fn no_torn_page_repair() {
    must_be_noticed(DoubleWrite, mix::MIXED, |b| b.pager.no_repair = true);
}

/// Falls: the copy of a page outlives its write in place.
#[test]
fn double_write_slot_reused_early() {
    must_be_noticed(DoubleWrite, mix::CHECKPOINTS, |b| b.pager.early_slot_reuse = true);
}

/// Falls: a page written in place only is one that redo makes anew.
#[test]
fn page_overwritten_for_ever() {
    must_be_noticed(DoubleWrite, mix::REWRITES, |b| b.pool.overwritten_for_ever = true);
}

/// Falls: what is to be overwritten anyway need not be whole.
#[test]
fn torn_page_is_damage_at_once() {
    must_be_noticed(DoubleWrite, mix::REWRITES, |b| b.recovery.torn_is_damage = true);
}

/// Falls: redo of a torn page begins with its image. Once per checkpoint is enough only where a
/// checkpoint writes every page.
#[test]
fn image_decided_per_checkpoint() {
    must_be_noticed(FullPageImage, mix::CHECKPOINTS, |b| b.pool.image_per_checkpoint = true);
}

/// Falls: a recycled segment's old records are not taken for new ones.
#[test]
fn crc_without_lsn() {
    let breaks = |b: &mut Broken| b.wal.crc_without_lsn = true;
    must_be_noticed(DoubleWrite, mix::CHECKPOINTS.steps(100), breaks);
}

/// Falls: what a restart has read stays. The process was killed, so it was readable but not durable.
#[test]
fn restart_without_first_sync() {
    must_be_noticed(DoubleWrite, mix::MIXED, |b| b.wal.skip_first_sync = true);
}

/// Falls: a log segment that was written and synced is there.
#[test]
fn no_directory_sync() {
    must_be_noticed(DoubleWrite, mix::MIXED.steps(100), |b| b.wal.no_dir_sync = true);
}

/// Falls: a sync that reports success has kept the data.
#[test]
fn retried_sync() {
    let config = broken(DoubleWrite, |b| b.wal.retry_sync = true);
    let found = every_sync_fails(&config, mix::MIXED, 1);
    println!("{}", found.expect_err("nobody noticed that a failed sync was tried again").0);
    every_sync_fails(&Config::tight(DoubleWrite), mix::MIXED, 1).expect("nothing is broken");
}

/// Falls: what recovery did not find stays away. A crash loses the end of one segment but keeps the next,
/// and the log grows up to exactly there again.
#[test]
fn stale_segment_left_after_the_tail() {
    let Err(what) = meet_stale_segment(&broken(DoubleWrite, |b| b.wal.stale_tail = true)) else {
        panic!("nobody noticed the stale segment");
    };
    println!("{what}");
    meet_stale_segment(&Config::tight(DoubleWrite)).expect("nothing is broken");
}

fn meet_stale_segment(config: &Config) -> Result<(), String> {
    let disk = created(config, 1);
    disk.record_history();
    let db = Db::open(&disk, config, &mut Silent).expect("the database is sound");
    let boundary = next_boundary(&db);
    let from = disk.io_count();
    fill_up_to(&db, boundary);
    let mut late = db.txns.begin_system().expect("the log has room");
    db.count(&mut late, 1, 7).expect("the log has room");
    late.commit(argali_txn::Durability::Relaxed).expect("nothing is forced");
    db.wal.force(argali_base::Lsn::MAX).expect("the disk is sound");
    for call in from..disk.io_count() {
        let cut = disk.at(call as usize).expect("history is on");
        for survivor in 0..cut.unsynced() {
            second_life(config, &cut.power_cut(Loss::OnlyOne(survivor)), boundary)?;
        }
    }
    Ok(())
}

/// Recovers, fills the log up to the same place, crashes, and compares.
fn second_life(config: &Config, disk: &SimDisk, boundary: u64) -> Result<(), String> {
    catch(|| {
        let db = Db::open(disk, config, &mut Silent).map_err(|e| e.to_string())?;
        if db.wal.tail().get() + FILLER_LEAST > boundary {
            return Ok(());
        }
        fill_up_to(&db, boundary);
        db.wal.force(argali_base::Lsn::MAX).map_err(|e| e.to_string())?;
        let state = db.state().map_err(|e| e.to_string())?;
        open(&disk.power_cut(Loss::LoseAll), config, &[state]).map(drop)
    })
}

/// Least bytes [`fill_up_to`] can log.
const FILLER_LEAST: u64 = 512;

/// The first segment boundary that leaves room for a filler before it, in either life.
fn next_boundary(db: &Db) -> u64 {
    let segment = db.config.segment_bytes;
    (db.wal.tail().get() + 4 * FILLER_LEAST).next_multiple_of(segment)
}

/// Logs one committed transaction that ends exactly at `end`.
fn fill_up_to(db: &Db, end: u64) {
    while end - db.wal.tail().get() > 3000 {
        fill(db, 1000);
    }
    // From 128 bytes on, eight more bytes take eight more bytes of log: no number becomes longer.
    let before = db.wal.tail().get();
    fill(db, 200);
    let cost = db.wal.tail().get() - before;
    fill(db, (end - db.wal.tail().get() + 200 - cost) as usize);
    assert_eq!(db.wal.tail().get(), end, "the filler fits");
}

/// A structure change that sets a value of `len` bytes (a multiple of 8), and its commit.
fn fill(db: &Db, len: usize) {
    let mut txn = db.txns.begin_system().expect("the log has room");
    db.overwrite(&mut txn, 0, &vec![b'x'; len]).expect("the log has room");
    txn.commit(argali_txn::Durability::Relaxed).expect("nothing is forced");
}
