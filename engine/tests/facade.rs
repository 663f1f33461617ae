//! What the handles promise: trees, savepoints, scans, limits, errors, openings.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::time::Duration;

use argali::disk::SimDisk;
use argali::{Db, Durability, Error, Flush, Isolation, NAME_BYTES_MAX, Result, Tree};

use common::*;

#[test]
fn handles_are_send_sync_and_static() {
    fn send<T: Send + 'static>() {}
    fn sync<T: Sync>() {}
    send::<Db>();
    sync::<Db>();
    send::<Tree>();
    sync::<Tree>();
    send::<argali::Write>();
    send::<argali::Read>();
}

#[test]
fn creation_of_a_tree_is_undone_by_abort() {
    let db = memory();
    let before = {
        fill(&db, "other", 1);
        db.stats().unwrap().pages_in_use
    };
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    for n in 0..500_u32 {
        tx.put(&tree, n.to_be_bytes(), [7; 100]).unwrap();
    }
    assert_eq!(tx.trees().unwrap(), ["other", "t"]);
    tx.abort().unwrap();
    let tx = db.begin().unwrap();
    assert!(matches!(tx.get(&tree, "a"), Err(Error::NotFound { .. })), "the handle must be dead");
    drop(tx);
    assert_eq!(db.read().unwrap().trees().unwrap(), ["other"]);
    settle(&db);
    assert_eq!(db.stats().unwrap().pages_in_use, before, "pages leaked");
    assert_sound(&db);
}

#[test]
fn drop_of_a_tree_frees_its_pages_after_commit() {
    let db = memory();
    fill(&db, "kept", 1);
    let before = db.stats().unwrap().pages_in_use;
    let tree = fill(&db, "t", 2000);
    assert!(db.stats().unwrap().pages_in_use > before + 10);
    db.update(|tx| tx.drop_tree("t")).unwrap();
    let tx = db.begin().unwrap();
    assert!(matches!(tx.put(&tree, "a", "b"), Err(Error::NotFound { .. })));
    drop(tx);
    settle(&db);
    assert_eq!(db.stats().unwrap().pages_in_use, before, "pages leaked");
    assert_sound(&db);
    let missing = db.update(|tx| tx.drop_tree("t"));
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

#[test]
fn drop_of_a_tree_is_undone_by_abort() {
    let db = memory();
    let tree = fill(&db, "t", 100);
    let mut tx = db.begin().unwrap();
    tx.drop_tree("t").unwrap();
    assert!(matches!(tx.get(&tree, "a"), Err(Error::NotFound { .. })), "gone for its dropper, too");
    assert!(tx.open_tree("t").unwrap().is_none());
    tx.abort().unwrap();
    settle(&db);
    let read = db.read().unwrap();
    assert_eq!(read.scan_all(&tree).unwrap().count(), 100, "the old handle works again");
    drop(read);
    assert_sound(&db);
}

#[test]
fn drop_and_create_again_in_one_transaction() {
    let db = memory();
    let old = fill(&db, "t", 100);
    let new = db
        .update(|tx| {
            tx.drop_tree("t")?;
            let tree = tx.tree("t")?;
            tx.put(&tree, "only", "1")?;
            Ok(tree)
        })
        .unwrap();
    settle(&db);
    let read = db.read().unwrap();
    assert_eq!(read.scan_all(&new).unwrap().count(), 1);
    assert!(matches!(read.get(&old, "x"), Err(Error::NotFound { .. })));
    drop(read);
    assert_sound(&db);
}

#[test]
fn savepoints_cover_trees() {
    let db = memory();
    let kept = fill(&db, "kept", 10);
    let mut tx = db.begin().unwrap();
    let mut savepoint = tx.savepoint().unwrap();
    let made = savepoint.tree("made").unwrap();
    savepoint.put(&made, "a", "b").unwrap();
    savepoint.drop_tree("kept").unwrap();
    savepoint.rollback().unwrap();
    assert_eq!(tx.scan_all(&kept).unwrap().count(), 10);
    assert!(matches!(tx.get(&made, "a"), Err(Error::NotFound { .. })));
    let again = tx.tree("made").unwrap();
    assert_eq!(tx.scan_all(&again).unwrap().count(), 0);
    tx.commit().unwrap();
    settle(&db);
    assert_eq!(db.read().unwrap().trees().unwrap(), ["kept", "made"]);
    assert_sound(&db);
}

#[test]
fn savepoints_nest() {
    let db = memory();
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    tx.put(&tree, "a", "1").unwrap();
    {
        let mut outer = tx.savepoint().unwrap();
        outer.put(&tree, "b", "2").unwrap();
        {
            let inner = outer.savepoint().unwrap();
            inner.put(&tree, "a", "inner").unwrap();
            inner.put(&tree, "c", "3").unwrap();
            // Dropped: rolled back.
        }
        {
            let inner = outer.savepoint().unwrap();
            inner.put(&tree, "d", "4").unwrap();
            inner.release();
        }
        outer.release();
    }
    {
        let outer = tx.savepoint().unwrap();
        outer.delete(&tree, "a").unwrap();
        outer.rollback().unwrap();
    }
    tx.commit().unwrap();
    let read = db.read().unwrap();
    let rows: Vec<_> = read.scan_all(&tree).unwrap().map(|row| row.unwrap()).collect();
    let expected = [("a", "1"), ("b", "2"), ("d", "4")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(rows, expected.to_vec());
}

#[test]
fn writing_while_scanning() {
    let db = memory();
    let from = fill(&db, "from", 500);
    db.update(|tx| {
        let to = tx.tree("to")?;
        for row in tx.scan_all(&from)? {
            let (key, value) = row?;
            tx.put(&to, &key, &value)?;
            tx.delete(&from, &key)?;
        }
        Ok(())
    })
    .unwrap();
    let read = db.read().unwrap();
    let to = read.open_tree("to").unwrap().unwrap();
    assert_eq!(read.scan_all(&from).unwrap().count(), 0);
    assert_eq!(read.scan_all(&to).unwrap().count(), 500);
    drop(read);
    assert_sound(&db);
}

#[test]
fn ranges_and_prefixes() {
    let db = memory();
    let tree = db
        .update(|tx| {
            let tree = tx.tree("t")?;
            ["", "a", "ab", "abc", "b", "\u{ff}"]
                .iter()
                .try_for_each(|k| tx.put(&tree, k, k).map(|_| ()))?;
            Ok(tree)
        })
        .unwrap();
    let read = db.read().unwrap();
    let keys = |scan: Result<argali::Scan<'_>>| -> Vec<String> {
        scan.unwrap().map(|row| String::from_utf8(row.unwrap().0).unwrap()).collect()
    };
    assert_eq!(keys(read.scan(&tree, "a".."b")), ["a", "ab", "abc"]);
    assert_eq!(keys(read.scan(&tree, "ab"..="b")), ["ab", "abc", "b"]);
    assert_eq!(keys(read.scan(&tree, ..="a")), ["", "a"]);
    assert_eq!(keys(read.scan(&tree, "b"..)), ["b", "\u{ff}"]);
    assert_eq!(keys(read.scan(&tree, "b".."a")), [""; 0]);
    assert_eq!(keys(read.scan_prefix(&tree, "ab")), ["ab", "abc"]);
    assert_eq!(keys(read.scan_prefix(&tree, "")).len(), 6);
    assert_eq!(keys(read.scan_all(&tree)).len(), 6);
}

#[test]
fn sizes_at_and_beyond_the_limits() {
    let db = memory();
    let mut tx = db.begin().unwrap();
    let tree = tx.tree(&"n".repeat(NAME_BYTES_MAX)).unwrap();
    assert!(matches!(tx.tree(""), Err(Error::Invalid { .. })));
    assert!(matches!(tx.tree(&"n".repeat(NAME_BYTES_MAX + 1)), Err(Error::TooLarge { .. })));
    let (most, key_most) = (tree.entry_bytes_max(), tree.key_bytes_max());
    tx.put(&tree, vec![1; key_most], "").unwrap();
    tx.put(&tree, [2], vec![0; most - 1]).unwrap();
    tx.put(&tree, [3], vec![0; most]).unwrap();
    assert_eq!(tx.get(&tree, [3]).unwrap(), Some(vec![0; most]), "in pages of its own");
    let too_large = tx.put(&tree, vec![4; key_most + 1], "");
    let limit_told = matches!(
        too_large,
        Err(Error::TooLarge { what: "key", size, limit })
            if size == key_most + 1 && limit == key_most
    );
    assert!(limit_told, "{too_large:?}");
    tx.put(&tree, "", "").unwrap();
    assert_eq!(tx.get(&tree, "").unwrap(), Some(Vec::new()), "usable after TooLarge");
    tx.commit().unwrap();
    assert_sound(&db);
}

#[test]
fn a_handle_of_another_database_is_refused() {
    let (one, two) = (memory(), memory());
    let tree = fill(&one, "t", 1);
    let tx = two.begin().unwrap();
    assert!(matches!(tx.get(&tree, "a"), Err(Error::Invalid { .. })));
}

#[test]
fn a_deadlock_leaves_nothing_but_abort() {
    let db = options().lock_timeout(Duration::from_mins(1)).in_memory().unwrap();
    let tree = fill(&db, "t", 10);
    let (a, b) = (1_u32.to_be_bytes(), 2_u32.to_be_bytes());
    let one = db.begin().unwrap();
    one.put(&tree, a, "one").unwrap();
    let (holds_b, b_is_held) = std::sync::mpsc::channel();
    // One of the two is the victim, whoever closes the circle, and the other goes on when it is dropped.
    let is_victim = |tree: &argali::Tree, tx: argali::Write, result: Result<()>| {
        let Err(error) = result else {
            tx.commit().unwrap();
            return false;
        };
        assert!(matches!(error, Error::Deadlock { .. }), "{error}");
        assert!(matches!(tx.get(tree, 1_u32.to_be_bytes()), Err(Error::TxnFailed { .. })));
        assert!(matches!(tx.commit(), Err(Error::TxnFailed { .. })));
        true
    };
    let worker = std::thread::spawn({
        let (db, tree) = (db.clone(), tree.clone());
        move || {
            let two = db.begin().unwrap();
            two.put(&tree, b, "two").unwrap();
            holds_b.send(()).unwrap();
            let result = two.put(&tree, a, "two").map(|_| ());
            is_victim(&tree, two, result)
        }
    });
    b_is_held.recv().unwrap();
    let mine = one.put(&tree, b, "one").map(|_| ());
    let first = is_victim(&tree, one, mine);
    let second = worker.join().unwrap();
    assert_ne!(first, second, "one victim is enough");
}

#[test]
fn update_runs_again_after_a_conflict_and_gives_up_in_the_end() {
    let db = options().retries(2).lock_timeout(Duration::from_millis(5)).in_memory().unwrap();
    let tree = fill(&db, "t", 1);
    let holder = db.begin().unwrap();
    holder.put(&tree, "a", "held").unwrap();
    let mut runs = 0;
    let result = db.update(|tx| {
        runs += 1;
        tx.put(&tree, "a", "wanted").map(|_| ())
    });
    assert!(matches!(result, Err(Error::LockTimeout { .. })), "{result:?}");
    assert_eq!((runs, db.stats().unwrap().retries), (3, 2));
    drop(holder);
    db.update(|tx| tx.put(&tree, "a", "wanted").map(|_| ())).unwrap();
}

#[test]
fn a_panic_in_update_aborts() {
    let db = memory();
    let tree = fill(&db, "t", 1);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.update(|tx| -> Result<()> {
            tx.put(&tree, "a", "x")?;
            panic!("of the user's");
        })
    }));
    assert!(result.is_err());
    assert_eq!(db.read().unwrap().get(&tree, "a").unwrap(), None);
}

#[test]
fn reading_committed_does_not_hold_keys() {
    let db = memory();
    let tree = fill(&db, "t", 3);
    let key = 1_u32.to_be_bytes();
    let reader = db.read_with(Isolation::ReadCommitted).unwrap();
    assert!(reader.get(&tree, key).unwrap().is_some());
    db.update(|tx| tx.put(&tree, key, "new")).unwrap();
    assert_eq!(reader.get(&tree, key).unwrap(), Some(b"new".to_vec()));
    reader.finish().unwrap();

    let reader = db.read_with(Isolation::Serializable).unwrap();
    reader.get(&tree, key).unwrap();
    let writer = db.begin().unwrap();
    assert!(matches!(writer.put(&tree, key, "newer"), Err(Error::LockTimeout { .. })));
}

#[test]
fn relaxed_commits_become_durable_on_request() {
    let disk = SimDisk::new(3);
    let db = on(&disk).unwrap();
    let tree = fill(&db, "t", 1);
    let tx = db.begin().unwrap();
    tx.put(&tree, "a", "1").unwrap();
    let lsn = tx.commit_with(Durability::Relaxed).unwrap();
    db.wait_durable(lsn).unwrap();
    let after = on(&disk.power_cut(argali::disk::Loss::LoseAll)).unwrap();
    let read = after.read().unwrap();
    let tree = read.open_tree("t").unwrap().unwrap();
    assert_eq!(read.get(&tree, "a").unwrap(), Some(b"1".to_vec()));
}

#[test]
fn stats_name_what_holds_the_log() {
    let db = memory();
    let tree = fill(&db, "t", 10);
    let old = db.begin().unwrap();
    old.put(&tree, "old", "1").unwrap();
    for _ in 0..5 {
        db.update(|tx| tx.put(&tree, "new", "2")).unwrap();
    }
    db.checkpoint(Flush::Everything).unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.trees, stats.active_transactions, stats.poisoned), (1, 1, None));
    let (id, first) = stats.oldest_transaction.unwrap();
    assert_eq!(id, old.id());
    let holder = stats.log.holders.iter().min_by_key(|holder| holder.lsn).unwrap();
    assert!(holder.what.contains(&id.to_string()) && holder.lsn == first, "{holder:?}");
    assert!(stats.commits >= 6 && stats.checkpoints >= 1 && stats.pages_in_use >= 4);
    drop(old);
    assert_eq!(db.stats().unwrap().oldest_transaction, None);
}

#[test]
fn a_long_transaction_meets_log_full_and_can_abort() {
    let db = options().segment_bytes(64 << 10).log_limit_bytes(4 << 20).in_memory().unwrap();
    let tree = fill(&db, "t", 1);
    let tx = db.begin().unwrap();
    let mut n = 0_u64;
    let error = loop {
        match tx.put(&tree, n.to_be_bytes(), [1; 1000]) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
        assert!(n < 100_000, "no limit was met");
    };
    assert!(matches!(error, Error::LogFull { .. }), "{error}");
    tx.abort().unwrap();
    let read = db.read().unwrap();
    assert_eq!(read.scan_all(&tree).unwrap().count(), 1);
    drop(read);
    // Short transactions go on for ever within the same limit.
    for n in 0..200_u64 {
        db.update(|tx| {
            (0..50).try_for_each(|k: u64| {
                tx.put(&tree, (n * 50 + k).to_be_bytes(), [2; 1000]).map(|_| ())
            })
        })
        .unwrap();
    }
    assert_sound(&db);
}
