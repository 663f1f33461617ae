//! Bulk loads: what is there afterwards, what is left of those that fail, and what they cost.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::collections::BTreeMap;

use argali::{Db, Durability, Error, Result, Tree, Write};
use common::{assert_sound, memory, options, settle};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn small() -> Db {
    options().page_size(4096).cache_bytes(24 * 4096).in_memory().unwrap()
}

/// Rows of all sizes, from empty ones to the largest that fit.
fn rows(count: usize, seed: u64) -> Map {
    let mut rng = fastrand::Rng::with_seed(seed);
    let row = |n| {
        let mut key = format!("{:05}", 3 * n).into_bytes();
        key.resize(5 + rng.usize(0..30), b'x');
        let long = rng.u8(0..20) == 0;
        (key, vec![rng.u8(..); rng.usize(0..if long { 900 } else { 60 })])
    };
    (0..count).map(row).collect()
}

/// As [`rows`], with some values of several pages.
fn rows_and_blobs(count: usize, seed: u64) -> Map {
    let mut rows = rows(count, seed);
    for (n, value) in rows.values_mut().step_by(50).enumerate() {
        value.resize(3000 * (n + 1), n as u8);
    }
    rows
}

fn load(tx: &Write, tree: &Tree, rows: &Map) -> Result<u64> {
    tx.bulk_load(tree, rows.iter().map(Ok))
}

fn loaded(db: &Db, rows: &Map) -> Tree {
    let fill = |tx: &mut Write| {
        let tree = tx.tree("t")?;
        load(tx, &tree, rows).map(|_| tree)
    };
    db.update(fill).unwrap()
}

fn dump(tx: &Write, tree: &Tree) -> Map {
    tx.scan_all(tree).unwrap().collect::<Result<_>>().unwrap()
}

fn pages(db: &Db) -> u64 {
    settle(db);
    assert_sound(db);
    db.stats().unwrap().pages_in_use
}

/// The writes that follow a load into the leaf where they were do not follow it there when it is taken back.
#[test]
fn writes_do_not_stay_in_what_was_taken_back() {
    let db = small();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let mut tx = db.begin().unwrap();
    let point = tx.savepoint().unwrap();
    let all = rows(1000, 3);
    load(&point, &tree, &all).unwrap();
    for n in 0..5 {
        point.put(&tree, format!("9{n}"), "soon gone").unwrap();
    }
    point.rollback().unwrap();
    tx.put(&tree, "99", "to stay").unwrap();
    tx.commit().unwrap();
    assert_eq!(
        dump(&db.begin().unwrap(), &tree),
        Map::from([(b"99".to_vec(), b"to stay".to_vec())])
    );
    pages(&db);
}

#[test]
fn everything_is_there_in_order() {
    let small_rows = [0, 1, 2, 10, 100, 1000, 20_000].map(|count| rows(count, 1));
    for rows in small_rows.into_iter().chain([rows_and_blobs(1000, 2)]) {
        let db = small();
        let mut tx = db.begin().unwrap();
        let tree = tx.tree("t").unwrap();
        assert_eq!(load(&tx, &tree, &rows).unwrap(), rows.len() as u64);
        assert_eq!(dump(&tx, &tree), rows);
        let back: Vec<_> = tx.scan_all(&tree).unwrap().rev().map(|row| row.unwrap().0).collect();
        assert!(back.iter().eq(rows.keys().rev()));
        tx.commit().unwrap();
        assert_sound(&db);
        for (key, value) in rows.iter().step_by(17) {
            assert_eq!(db.read().unwrap().get(&tree, key).unwrap().as_ref(), Some(value));
        }
    }
}

/// A loaded tree is a tree like any other.
#[test]
fn rows_come_and_go_in_a_loaded_tree() {
    let db = small();
    let mut model = rows(2000, 5);
    let tree = loaded(&db, &model);
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..30 {
        let tx = db.begin().unwrap();
        for _ in 0..50 {
            let key = format!("{:05}", rng.u32(0..6100)).into_bytes();
            let value = vec![3; rng.usize(0..500)];
            assert_eq!(tx.put(&tree, &key, &value).unwrap(), model.insert(key, value));
        }
        tx.commit().unwrap();
    }
    assert_eq!(dump(&db.begin().unwrap(), &tree), model);
    assert_sound(&db);
}

#[test]
fn a_load_is_taken_back_with_its_transaction() {
    let db = small();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let (before, rows) = (pages(&db), rows_and_blobs(1000, 1));
    let mut tx = db.begin().unwrap();
    for keep in [false, true] {
        let savepoint = tx.savepoint().unwrap();
        load(&savepoint, &tree, &rows).unwrap();
        savepoint.put(&tree, "more", "rows").unwrap();
        savepoint.delete(&tree, rows.keys().next().unwrap()).unwrap();
        if keep {
            savepoint.release();
        } else {
            savepoint.rollback().unwrap();
            assert_eq!(dump(&tx, &tree), Map::new());
        }
    }
    assert_eq!(dump(&tx, &tree).len(), rows.len());
    tx.abort().unwrap();
    assert_eq!(dump(&db.begin().unwrap(), &tree), Map::new());
    assert_eq!(pages(&db), before, "both loads were given back");
}

/// The old content has ghosts that this transaction may want back, and pages that nobody may lose.
#[test]
fn a_load_replaces_what_its_transaction_deleted() {
    let db = small();
    let (old, new) = (rows_and_blobs(700, 2), rows_and_blobs(700, 3));
    let tree = loaded(&db, &old);
    let before = pages(&db);
    for commit in [false, true] {
        let tx = db.begin().unwrap();
        tx.put(&tree, "before", "the load").unwrap();
        tx.delete_range::<&str>(&tree, ..).unwrap();
        load(&tx, &tree, &new).unwrap();
        tx.put(&tree, "behind", "the load").unwrap();
        assert_eq!(tx.delete(&tree, "behind").unwrap(), Some(b"the load".to_vec()));
        if commit {
            tx.commit().unwrap();
        } else {
            tx.abort().unwrap();
            assert_eq!(dump(&db.begin().unwrap(), &tree), old);
            assert_eq!(pages(&db), before);
        }
    }
    assert_eq!(dump(&db.begin().unwrap(), &tree), new);
    assert!(pages(&db) < before * 5 / 4, "the old pages were given back");
}

#[test]
fn bad_input_leaves_everything_as_it_was() {
    let db = small();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let before = pages(&db);
    let good = |n: u32| Ok((n.to_be_bytes().to_vec(), vec![0; 100]));
    let full = || Err(Error::Full { what: "the source".to_owned() });
    let bad: [(&str, Vec<Result<_>>); 4] = [
        ("unsorted", (0..500).chain([3]).map(good).collect()),
        ("duplicate", (0..500).chain([499]).map(good).collect()),
        ("source", (0..500).map(good).chain([full()]).collect()),
        ("large", (0..500).map(good).chain([Ok((vec![9; 5000], vec![0; 5]))]).collect()),
    ];
    let tx = db.begin().unwrap();
    for (name, rows) in bad {
        let error = tx.bulk_load(&tree, rows).unwrap_err();
        let expected = match name {
            "unsorted" | "duplicate" => matches!(error, Error::Invalid { what: "bulk load", .. }),
            "source" => matches!(error, Error::Full { .. }),
            _ => matches!(error, Error::TooLarge { .. }),
        };
        assert!(expected, "{name}: {error}");
        assert_eq!(dump(&tx, &tree), Map::new(), "{name}");
    }
    tx.bulk_load(&tree, (0..50).map(good)).unwrap();
    tx.commit().unwrap();
    assert_eq!(dump(&db.begin().unwrap(), &tree).len(), 50);
    assert!(pages(&db) < before + 5);
}

#[test]
fn rows_are_appended_to_rows() {
    let db = small();
    let (mut tx, all) = (db.begin().unwrap(), rows_and_blobs(900, 4));
    let tree = tx.tree("t").unwrap();
    let middle = all.keys().nth(500).unwrap().clone();
    let (low, high): (Map, Map) = all.clone().into_iter().partition(|(key, _)| *key < middle);
    load(&tx, &tree, &low).unwrap();
    assert_eq!(load(&tx, &tree, &high).unwrap(), 400, "row by row");
    let error = load(&tx, &tree, &high).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let half = [Ok(("y", "kept?")), Ok(("x", "unsorted"))];
    assert!(tx.bulk_load(&tree, half).is_err());
    assert_eq!(dump(&tx, &tree), all);
    tx.commit().unwrap();
    assert_sound(&db);
}

/// Cursors remember where they were; after a load that is nowhere.
#[test]
fn cursors_see_what_was_loaded() {
    let db = small();
    let old = rows(300, 6);
    let tree = loaded(&db, &old);
    let tx = db.begin().unwrap();
    let mut cursor = tx.cursor(&tree).unwrap();
    let middle = old.keys().nth(150).unwrap();
    cursor.seek(middle).unwrap();
    tx.delete_range::<&str>(&tree, ..).unwrap();
    let new = rows(600, 7);
    load(&tx, &tree, &new).unwrap();
    let above = new.range(middle.clone()..).find(|(key, _)| *key != middle).map(|(key, _)| key);
    assert_eq!(cursor.next().unwrap().map(|row| row.0), above.map(Vec::as_slice));
}

#[test]
fn a_tree_is_copied_within_a_transaction() {
    let db = small();
    let rows = rows(1000, 8);
    let mut tx = db.begin().unwrap();
    let (one, two) = (tx.tree("one").unwrap(), tx.tree("two").unwrap());
    load(&tx, &one, &rows).unwrap();
    assert_eq!(tx.bulk_load(&two, tx.scan_all(&one).unwrap()).unwrap(), 1000);
    assert_eq!(dump(&tx, &two), rows);
    tx.commit().unwrap();
    assert_sound(&db);
}

#[test]
fn nobody_else_uses_the_tree_meanwhile() {
    let db = small();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let tx = db.begin().unwrap();
    load(&tx, &tree, &rows(10, 9)).unwrap();
    assert!(db.read().unwrap().get(&tree, "00000").unwrap_err().is_retryable());
    assert!(db.begin().unwrap().put(&tree, "zzz", "").unwrap_err().is_retryable());
    tx.commit().unwrap();
    db.update(|tx| tx.put(&tree, "zzz", "").map(drop)).unwrap();
}

fn log_bytes(db: &Db, work: impl FnOnce(&Write, &Tree) -> Result<()>) -> u64 {
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let before = db.stats().unwrap().log.tail;
    let tx = db.begin().unwrap();
    work(&tx, &tree).unwrap();
    tx.commit_with(Durability::Relaxed).unwrap();
    db.stats().unwrap().log.tail.get() - before.get()
}

#[test]
fn a_load_logs_less_than_puts() {
    const ROWS: u64 = 20_000;
    let row = |n: u64| (n.to_be_bytes(), [7; 40]);
    let put = |tx: &Write, tree: &Tree| {
        (0..ROWS).map(row).try_for_each(|(key, value)| tx.put(tree, key, value).map(drop))
    };
    let puts = log_bytes(&memory(), put);
    let load = log_bytes(&memory(), |tx, tree| {
        tx.bulk_load(tree, (0..ROWS).map(|n| Ok(row(n)))).map(drop)
    });
    println!("log bytes a row: {} by puts, {} by a load", puts / ROWS, load / ROWS);
    // The rows are the same; what a load saves is a record, a key and a place for each.
    assert!(load * 3 < puts * 2, "{load} against {puts}");
}

/// No transaction holds the log while a load goes on.
#[test]
fn a_load_may_be_larger_than_the_log() {
    let db = options().segment_bytes(64 << 10).log_limit_bytes(512 << 10);
    let db = db.log_buffer_bytes(2 << 20).in_memory().unwrap();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let tx = db.begin().unwrap();
    let rows = (0..40_000_u32).map(|n| Ok((n.to_be_bytes(), [1; 60])));
    assert_eq!(tx.bulk_load(&tree, rows).unwrap(), 40_000);
    tx.commit().unwrap();
    let stats = db.stats().unwrap();
    assert!(stats.log.tail.get() > 4 * (512 << 10), "{:?}", stats.log);
    assert_sound(&db);
}
