//! What `docs/limits.md` says, tried: the smallest and the largest, and many of everything.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use argali::disk::SimDisk;
use argali::{Db, Error, NAME_BYTES_MAX, Result, Write};
use common::{assert_sound, memory, on, options, settle};

#[test]
fn empty_keys_and_empty_values_are_rows_like_any_other() {
    let db = memory();
    let mut tx = db.begin().unwrap();
    let tree = tx.tree("t").unwrap();
    assert_eq!(tx.put(&tree, "", "").unwrap(), None);
    assert_eq!(tx.put(&tree, "", "v").unwrap(), Some(vec![]));
    assert_eq!(tx.put(&tree, "k", "").unwrap(), None);
    let mut cursor = tx.cursor(&tree).unwrap();
    assert_eq!(cursor.seek("").unwrap(), Some((&b""[..], &b"v"[..])));
    assert_eq!(cursor.next().unwrap(), Some((&b"k"[..], &b""[..])));
    assert_eq!(cursor.prev().unwrap(), Some((&b""[..], &b"v"[..])));
    assert_eq!(cursor.prev().unwrap(), None);
    assert_eq!(cursor.seek_before("").unwrap(), None);
    assert_eq!(tx.scan(&tree, ..="").unwrap().count(), 1);
    assert_eq!(tx.delete_range(&tree, ""..="").unwrap(), 1);
    assert_eq!(tx.get(&tree, "").unwrap(), None);
    let loaded = tx.tree("loaded").unwrap();
    tx.bulk_load(&loaded, [Ok(("", "")), Ok(("\0", "")), Ok(("\0\0", ""))]).unwrap();
    assert_eq!(tx.get(&loaded, "").unwrap(), Some(vec![]));
    tx.commit().unwrap();
    assert_sound(&db);
}

/// The numbers of the table, for every page size.
#[test]
fn the_largest_rows_fit_and_larger_ones_are_refused() {
    let document = include_str!("../../docs/limits.md");
    for kib in [4, 8, 16, 32, 64] {
        let options = options().page_size(kib << 10).cache_bytes(64 * ((kib as usize) << 10));
        let db = options.log_buffer_bytes(4 << 20).in_memory().unwrap();
        let mut tx = db.begin().unwrap();
        let tree = tx.tree("t").unwrap();
        let (most, key_most) = (tree.entry_bytes_max(), tree.key_bytes_max());
        let row = format!("| {kib} KiB | {key_most} | {most} |");
        assert!(document.contains(&row), "{row}");
        for n in 0..20_u8 {
            tx.put(&tree, vec![n; key_most], vec![n; most - key_most]).unwrap();
            tx.put(&tree, vec![n; key_most - 1], vec![n; most]).unwrap();
            tx.put(&tree, [n], vec![n; most - 1]).unwrap();
        }
        let more = tx.put(&tree, vec![99; key_most + 1], "");
        assert!(matches!(more, Err(Error::TooLarge { what: "key", .. })), "{more:?}");
        assert_eq!(tx.scan_all(&tree).unwrap().rev().count(), 60);
        tx.commit().unwrap();
        assert_sound(&db);
    }
}

#[test]
fn names_may_be_long_and_in_any_script() {
    let db = memory();
    let mut tx = db.begin().unwrap();
    for name in ["x".repeat(NAME_BYTES_MAX), "Schäfchen".to_owned(), "\0".to_owned()] {
        let tree = tx.tree(&name).unwrap();
        assert_eq!(tree.name(), name);
        tx.put(&tree, "k", &name).unwrap();
    }
    assert!(matches!(tx.tree(&"x".repeat(NAME_BYTES_MAX + 1)), Err(Error::TooLarge { .. })));
    assert!(matches!(tx.tree(""), Err(Error::Invalid { .. })));
    assert_eq!(tx.trees().unwrap().len(), 3);
    tx.commit().unwrap();
}

/// Creates `count` trees of one row, opens the database again, drops every other one.
fn many_trees(count: u32) {
    let disk = SimDisk::new(1);
    let name = |n: u32| format!("tree {n}");
    let db = on(&disk).unwrap();
    for first in (0..count).step_by(100) {
        let create = |tx: &mut Write| {
            (first..count.min(first + 100)).try_for_each(|n| {
                let tree = tx.tree(&name(n))?;
                tx.put(&tree, "n", n.to_be_bytes()).map(drop)
            })
        };
        db.update(create).unwrap();
    }
    db.close().unwrap();
    let db = on(&disk).unwrap();
    let read = db.read().unwrap();
    assert_eq!(read.trees().unwrap().len() as u32, count);
    for n in (0..count).step_by(17) {
        let tree = read.open_tree(&name(n)).unwrap().unwrap();
        assert_eq!(read.get(&tree, "n").unwrap(), Some(n.to_be_bytes().to_vec()));
    }
    read.finish().unwrap();
    for first in (0..count).step_by(200) {
        let doomed = (first..count.min(first + 200)).step_by(2);
        db.update(|tx| doomed.clone().try_for_each(|n| tx.drop_tree(&name(n)))).unwrap();
    }
    while db.stats().unwrap().frees_waiting > 0 {
        drop(db.read().unwrap());
    }
    assert_eq!(db.stats().unwrap().trees, u64::from(count / 2));
    assert_sound(&db);
}

#[test]
fn two_thousand_trees() {
    many_trees(2000);
}

#[test]
#[ignore = "a minute; see docs/testing.md"]
fn a_hundred_thousand_trees() {
    many_trees(100_000);
}

#[test]
fn five_hundred_open_transactions() {
    let db = memory();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let open: Vec<_> = (0..500_u32)
        .map(|n| {
            let tx = db.begin().unwrap();
            tx.put(&tree, n.to_be_bytes(), "uncommitted").unwrap();
            tx
        })
        .collect();
    assert_eq!(db.stats().unwrap().active_transactions, 500);
    for (n, tx) in open.into_iter().enumerate() {
        if n % 2 == 0 { tx.commit().map(drop).unwrap() } else { tx.abort().unwrap() }
    }
    let readers: Vec<_> = (0..500).map(|_| db.read().unwrap()).collect();
    for read in &readers {
        assert_eq!(read.scan_all(&tree).unwrap().count(), 250);
    }
    drop(readers);
    settle(&db);
    assert_sound(&db);
}

/// Savepoint in savepoint: each level puts a row, every other one takes it back with all below.
fn nest(tx: &mut Write, tree: &argali::Tree, depth: u32) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    let mut savepoint = tx.savepoint()?;
    savepoint.put(tree, depth.to_be_bytes(), "deep")?;
    nest(&mut savepoint, tree, depth - 1)?;
    if depth == 150 {
        return savepoint.rollback();
    }
    savepoint.release();
    Ok(())
}

#[test]
fn three_hundred_nested_savepoints() {
    let db: Db = memory();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    db.update(|tx| nest(tx, &tree, 300)).unwrap();
    assert_eq!(db.read().unwrap().scan_all(&tree).unwrap().count(), 150);
}
