//! Two-phase commit as a coordinator sees it: what a prepared transaction survives, what it keeps others from,
//! and what a decision may meet.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::sync::Arc;

use argali::disk::{Call, Disk, Failure, Fault, FaultyDisk, Loss, SimDisk};
use argali::{
    Db, Error, Flush, GID_BYTES_MAX, Isolation, LockMode, Options, Result, Silent, info_on,
};

use common::*;

fn in_doubt(db: &Db, gid: &str, key: &str) {
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    tx.put(&tree, key, gid).unwrap();
    tx.prepare(gid).unwrap();
}

fn value(db: &Db, key: &str) -> Option<String> {
    let read = db.read().unwrap();
    let tree = read.open_tree("t").unwrap().unwrap();
    let value = read.get(&tree, key).unwrap();
    read.finish().unwrap();
    value.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn gids(db: &Db) -> Vec<String> {
    db.prepared().into_iter().map(|one| one.gid).collect()
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

#[test]
fn decisions_reach_a_database_that_was_closed_and_killed_meanwhile() {
    let mut disk = SimDisk::new(1);
    let mut db = on(&disk).unwrap();
    fill(&db, "t", 3);
    in_doubt(&db, "yes", "a");
    in_doubt(&db, "no", "b");
    for round in 0..4 {
        assert_eq!(gids(&db), ["no", "yes"], "round {round}");
        assert_eq!(db.stats().unwrap().in_doubt, 2);
        let tree = db.read().unwrap().open_tree("t").unwrap().unwrap();
        let tx = db.begin().unwrap();
        assert!(matches!(tx.put(&tree, "a", "x"), Err(Error::LockTimeout { .. })));
        drop(tx);
        let tx = db.begin_with(Isolation::ReadCommitted).unwrap();
        assert!(matches!(tx.get(&tree, "b"), Err(Error::LockTimeout { .. })));
        drop(tx);
        if round % 2 == 0 {
            drop(tree);
            db.close().unwrap();
        } else {
            drop(db);
            disk = disk.power_cut(Loss::LoseAll);
        }
        assert_eq!(info_on(&shared(&disk)).unwrap().prepared.len(), 2);
        db = on(&disk).unwrap();
        assert_eq!(db.recovery().in_doubt.len(), 2);
        assert!(db.recovery().losers.is_empty());
    }
    db.commit_prepared("yes").unwrap();
    db.abort_prepared("no").unwrap();
    let db = on(&disk.power_cut(Loss::LoseAll)).unwrap();
    assert!(gids(&db).is_empty());
    assert_eq!((value(&db, "a").as_deref(), value(&db, "b")), (Some("yes"), None));
    assert_sound(&db);
}

#[test]
fn a_decision_given_twice_finds_nobody() {
    let db = memory();
    in_doubt(&db, "g", "a");
    db.commit_prepared("g").unwrap();
    let again = [db.commit_prepared("g").map(drop), db.abort_prepared("g")];
    for result in again {
        assert!(matches!(result, Err(Error::NotFound { what: "prepared transaction", .. })));
    }
    assert_eq!(value(&db, "a").as_deref(), Some("g"));
}

#[test]
fn gids_are_unique_and_bounded_and_can_be_used_again() {
    let db = memory();
    fill(&db, "t", 1);
    in_doubt(&db, "g", "a");
    for (gid, key) in [("g", "b"), ("", "c"), (&"x".repeat(GID_BYTES_MAX + 1), "d")] {
        let mut tx = db.begin().unwrap();
        let tree = tx.tree("other").unwrap();
        tx.put(&tree, key, "1").unwrap();
        match tx.prepare(gid) {
            Err(Error::Exists { name, .. }) => assert_eq!(name, "g"),
            Err(Error::Invalid { what: "gid", .. }) => assert_eq!(gid, ""),
            Err(Error::TooLarge { what: "gid", limit: GID_BYTES_MAX, .. }) => {}
            other => panic!("{gid}: {other:?}"),
        }
        let read = db.read().unwrap();
        assert!(read.open_tree("other").unwrap().is_none(), "it was aborted: {key}");
    }
    db.abort_prepared("g").unwrap();
    in_doubt(&db, "g", "a");
    in_doubt(&db, &"x".repeat(GID_BYTES_MAX), "z");
    assert_eq!(gids(&db).len(), 2);
}

#[test]
fn somebody_in_doubt_holds_the_log_and_is_named() {
    let db = memory();
    fill(&db, "t", 3);
    in_doubt(&db, "g", "a");
    let one = db.prepared().remove(0);
    assert!(one.first < one.prepared);
    assert!(one.locks.iter().all(|(_, mode)| *mode != LockMode::X) && one.locks.len() >= 2);
    for _ in 0..3 {
        fill(&db, "filler", 500);
        let report = db.checkpoint(Flush::Everything).unwrap();
        assert_eq!(report.log_first, one.first);
    }
    let holders = db.stats().unwrap().log.holders;
    let named =
        holders.iter().find(|holder| holder.what == format!("prepared transaction {}", one.txn));
    assert_eq!(named.unwrap().lsn, one.first, "{holders:?}");
    db.commit_prepared("g").unwrap();
    assert!(db.checkpoint(Flush::Everything).unwrap().log_first > one.prepared);
}

#[test]
fn a_database_with_somebody_in_doubt_is_not_clean() {
    let disk = SimDisk::new(1);
    let db = on(&disk).unwrap();
    in_doubt(&db, "g", "a");
    db.close().unwrap();
    let read_only = options().open_read_only_on(shared(&disk));
    assert!(matches!(read_only, Err(Error::NeedsRecovery)));
    let seen = info_on(&shared(&disk)).unwrap();
    assert!(!seen.clean && seen.prepared[0].gid == "g");
    let db = on(&disk).unwrap();
    assert_eq!(db.recovery().applied, 0, "all pages were written");
    db.abort_prepared("g").unwrap();
    db.close().unwrap();
    options().open_read_only_on(shared(&disk)).unwrap();
    assert!(info_on(&shared(&disk)).unwrap().prepared.is_empty());
}

/// Trees made and dropped in doubt: nothing leaks, nothing is freed too early, handles say what is true.
#[test]
fn catalog_changes_can_be_in_doubt() {
    for (commits, restarts) in [(true, false), (true, true), (false, false), (false, true)] {
        let disk = SimDisk::new(1);
        let mut db = on(&disk).unwrap();
        fill(&db, "kept", 1);
        let old = fill(&db, "old", 2000);
        let before = db.stats().unwrap().pages_in_use;
        let mut tx = db.begin().unwrap();
        tx.drop_tree("old").unwrap();
        let new = tx.tree("new").unwrap();
        for n in 0..500_u32 {
            tx.put(&new, n.to_be_bytes(), [1; 100]).unwrap();
        }
        let mut savepoint = tx.savepoint().unwrap();
        savepoint.tree("never").unwrap();
        savepoint.rollback().unwrap();
        tx.prepare("ddl").unwrap();
        if restarts {
            db.close().unwrap();
            db = on(&disk).unwrap();
        }
        settle(&db);
        assert_sound(&db);
        for name in ["old", "new"] {
            let opened = db.begin().unwrap().tree(name);
            assert!(matches!(opened, Err(Error::LockTimeout { .. })), "{name}: {opened:?}");
        }
        db.begin().unwrap().tree("created meanwhile").unwrap();
        if commits {
            db.commit_prepared("ddl").unwrap();
        } else {
            db.abort_prepared("ddl").unwrap();
        }
        let names = db.read().unwrap().trees().unwrap();
        assert_eq!(names, ["kept", if commits { "new" } else { "old" }]);
        if !restarts {
            let tx = db.begin().unwrap();
            assert_eq!(tx.get(&old, "x").is_ok(), !commits);
            assert_eq!(tx.get(&new, "x").is_ok(), commits);
        }
        settle(&db);
        assert_sound(&db);
        let pages = db.stats().unwrap().pages_in_use;
        assert!(if commits { pages < before } else { pages == before }, "{pages} of {before}");
    }
}

#[test]
fn a_check_of_everything_runs_beside_those_in_doubt() {
    let db = memory();
    in_doubt(&db, "g", "a");
    assert_sound(&db);
    db.abort_prepared("g").unwrap();
}

#[test]
fn large_transactions_can_be_in_doubt() {
    let disk = SimDisk::new(1);
    let options = || options().log_limit_bytes(64 << 20);
    let open = || options().open_on(shared(&disk), &mut Silent);
    let db = open().unwrap();
    let tree = fill(&db, "t", 1);
    let tx = db.begin().unwrap();
    for n in 0..20_000_u32 {
        tx.put(&tree, n.to_be_bytes(), [7; 20]).unwrap();
    }
    drop(tree);
    tx.prepare("large").unwrap();
    let reserved = db.stats().unwrap().log.reserved_bytes;
    db.close().unwrap();
    let db = open().unwrap();
    let taken = db.prepared()[0].locks.len();
    assert!(!(10..=20_000).contains(&taken), "by key, or escalated to the tree: {taken}");
    assert!(db.stats().unwrap().log.reserved_bytes >= reserved, "space for the rollback");
    db.abort_prepared("large").unwrap();
    assert_eq!(db.stats().unwrap().log.reserved_bytes, 0);
    assert_eq!(db.verify().unwrap().rows, 1);
}

#[test]
fn decisions_and_prepares_of_one_name_wait_for_each_other() {
    let db = memory();
    for round in 0..50 {
        in_doubt(&db, "g", "a");
        let decide = |commits: bool| -> Result<()> {
            if commits { db.commit_prepared("g").map(drop) } else { db.abort_prepared("g") }
        };
        let decide = &decide;
        let results = std::thread::scope(|scope| {
            let threads = [true, false, true].map(|commits| scope.spawn(move || decide(commits)));
            threads.map(|thread| thread.join().unwrap())
        });
        let done = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(done, 1, "round {round}: {results:?}");
        let others = results.iter().filter_map(|result| result.as_ref().err());
        assert!(others.into_iter().all(|error| matches!(error, Error::NotFound { .. })));
    }
    assert!(gids(&db).is_empty());
}

#[test]
fn a_prepare_that_was_not_forced_is_no_promise() {
    let disk = SimDisk::new(1);
    let faulty = FaultyDisk::new(shared(&disk));
    let below: Arc<dyn Disk> = Arc::new(faulty.clone());
    let db = options().open_on(below, &mut Silent).unwrap();
    fill(&db, "t", 3);
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    tx.put(&tree, "a", "1").unwrap();
    faulty.fail(Fault::new(Call::Sync, "wal/*", Failure::Eio));
    assert!(matches!(tx.prepare("g"), Err(Error::Poisoned { .. } | Error::Io { .. })));
    drop((tree, db));
    let lost = on(&disk.power_cut(Loss::LoseAll)).unwrap();
    assert!(gids(&lost).is_empty() && value(&lost, "a").is_none());
    // The disk may have kept it nevertheless: then it is in doubt, as the error said.
    let kept = on(&disk.power_cut(Loss::KeepAll)).unwrap();
    assert!(gids(&kept).is_empty() || gids(&kept) == ["g"]);
}

/// A page that cannot be read stops a rollback half-way. The transaction keeps its locks, background work
/// tries again, and a passing fault is healed without a restart.
#[test]
fn a_rollback_that_failed_is_tried_again() {
    for prepared in [false, true] {
        let disk = SimDisk::new(1);
        let faulty = FaultyDisk::new(shared(&disk));
        let below: Arc<dyn Disk> = Arc::new(faulty.clone());
        let small = Options::new().page_size(4096).cache_bytes(16 * 4096).segment_bytes(256 << 10);
        let small =
            small.background_threads(false).lock_timeout(std::time::Duration::from_millis(5));
        let db = small.open_on(below, &mut Silent).unwrap();
        let tree = fill(&db, "t", 3000);
        let before = db.stats().unwrap().pages_in_use;
        let mut tx = db.begin().unwrap();
        let made = tx.tree("made").unwrap();
        for n in 0..3000_u32 {
            tx.put(&tree, n.to_be_bytes(), "w".repeat(50)).unwrap();
            tx.put(&made, n.to_be_bytes(), "w").unwrap();
        }
        faulty.fail(Fault::new(Call::Read, "data", Failure::Eio).forever());
        let failed = if prepared {
            tx.prepare("g").unwrap();
            db.abort_prepared("g")
        } else {
            tx.abort()
        };
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        let tx = db.begin().unwrap(); // and with it the background steps, in vain
        let blocked = tx.put(&tree, 0_u32.to_be_bytes(), "x");
        assert!(matches!(blocked, Err(Error::LockTimeout { .. })), "{blocked:?}");
        drop(tx);
        faulty.heal();
        assert_eq!(db.stats().unwrap().stranded.len(), 1);
        drop(db.begin());
        assert!(db.stats().unwrap().stranded.is_empty());
        let read = db.read().unwrap();
        assert_eq!(
            read.get(&tree, 7_u32.to_be_bytes()).unwrap().unwrap(),
            "v".repeat(50).as_bytes()
        );
        drop(read);
        settle(&db);
        assert_eq!(db.stats().unwrap().pages_in_use, before, "what it had made is freed");
        assert_sound(&db);
    }
}
