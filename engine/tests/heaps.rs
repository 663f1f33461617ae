//! Heaps through the facade: names, handles, errors, drops, statistics.
#![allow(clippy::unwrap_used)]

use argali::{Db, Error, Isolation, Options, Result, RowId};

fn db() -> Db {
    Options::new().in_memory().unwrap()
}

#[test]
fn rows_come_back_by_their_ids_and_in_scans() -> Result<()> {
    let db = db();
    let mut tx = db.begin()?;
    let heap = tx.heap("people")?;
    assert_eq!(heap.name(), "people");
    let ids: Vec<RowId> =
        (0..100).map(|n| heap.insert(&tx, format!("row {n}"))).collect::<Result<_>>()?;
    heap.update(&tx, ids[7], "x".repeat(5000))?;
    heap.delete(&tx, ids[8])?;
    tx.commit()?;
    let read = db.read()?;
    let heap = read.open_heap("people")?.unwrap();
    assert_eq!(heap.get(&read, ids[7])?, Some(vec![b'x'; 5000]));
    assert_eq!(heap.get(&read, ids[8])?, None);
    let rows: Vec<_> = heap.scan(&read)?.collect::<Result<_>>()?;
    assert_eq!(rows.len(), 99);
    assert!(rows.contains(&(ids[9], b"row 9".to_vec())));
    read.finish()
}

#[test]
fn a_name_is_a_tree_or_a_heap() -> Result<()> {
    let db = db();
    let mut tx = db.begin()?;
    tx.tree("tree")?;
    tx.heap("heap")?;
    assert_eq!((tx.trees()?, tx.heaps()?), (vec!["tree".to_owned()], vec!["heap".to_owned()]));
    let error = tx.heap("tree").unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "heap", .. }), "{error}");
    let error = tx.open_tree("heap").unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "tree", .. }), "{error}");
    assert!(matches!(tx.drop_heap("tree"), Err(Error::Invalid { .. })));
    assert!(matches!(tx.drop_heap("none"), Err(Error::NotFound { what: "heap", .. })));
    assert!(matches!(tx.heap(""), Err(Error::Invalid { what: "heap name", .. })));
    assert!(tx.open_heap("none")?.is_none());
    // All of it left the transaction usable.
    tx.commit()?;
    assert_eq!((db.stats()?.trees, db.stats()?.heaps), (1, 1));
    Ok(())
}

#[test]
fn errors_are_typed_and_leave_the_transaction_usable() -> Result<()> {
    let db = db();
    let mut tx = db.begin()?;
    let heap = tx.heap("heap")?;
    let id = heap.insert(&tx, "here")?;
    heap.delete(&tx, id)?;
    for error in [heap.delete(&tx, id), heap.update(&tx, id, "there")] {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::NotFound { what: "row", name } if *name == id.to_string()));
    }
    let limit = heap.row_bytes_max();
    assert_eq!(limit, 8192 - 85);
    let error = heap.insert(&tx, vec![0; limit + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "row", size, .. } if size == limit + 1));
    let id = heap.insert(&tx, vec![0; limit])?;
    let id_of_nothing = RowId { slot: 99, ..id };
    assert_eq!(heap.get(&tx, id_of_nothing)?, None);
    tx.commit()?;
    let other = self::db();
    let mut tx = other.begin()?;
    tx.heap("heap")?;
    let error = heap.insert(&tx, "x").unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "heap", .. }), "{error}");
    Ok(())
}

#[test]
fn a_dropped_heap_is_gone_for_its_handles_and_its_pages_are_freed() -> Result<()> {
    let db = Options::new().background_threads(false).in_memory()?;
    db.update(|tx| tx.tree("other").map(drop))?;
    let before = db.stats()?.pages_in_use;
    let mut tx = db.begin()?;
    let heap = tx.heap("heap")?;
    for _ in 0..300 {
        heap.insert(&tx, [1; 3000])?;
    }
    tx.commit()?;
    // A drop that is rolled back leaves all of it.
    let mut tx = db.begin()?;
    tx.drop_heap("heap")?;
    assert!(matches!(heap.insert(&tx, "x"), Err(Error::NotFound { what: "heap", .. })));
    tx.abort()?;
    assert_eq!(heap.scan(&db.read()?)?.count(), 300);
    db.update(|tx| tx.drop_heap("heap"))?;
    let read = db.read()?;
    assert!(matches!(heap.get(&read, some_id()), Err(Error::NotFound { what: "heap", .. })));
    drop(read);
    for _ in 0..100 {
        db.begin()?.abort()?;
    }
    assert_eq!(db.stats()?.pages_in_use, before);
    assert!(db.verify()?.is_sound());
    Ok(())
}

fn some_id() -> RowId {
    RowId::from_bytes(&[0; 10]).unwrap()
}

#[test]
fn a_heap_made_in_an_aborted_transaction_leaves_no_page() -> Result<()> {
    let db = Options::new().background_threads(false).in_memory()?;
    let before = db.stats()?.pages_in_use;
    for end in 0..3 {
        let mut tx = db.begin()?;
        let mut savepoint = tx.savepoint()?;
        let heap = savepoint.heap("heap")?;
        for _ in 0..50 {
            heap.insert(&savepoint, [1; 2000])?;
        }
        match end {
            0 => savepoint.rollback()?,
            _ => savepoint.release(),
        }
        if end == 1 { tx.abort()? } else { drop(tx) }
    }
    for _ in 0..20 {
        db.begin()?.abort()?;
    }
    assert_eq!(db.stats()?.pages_in_use, before);
    assert!(db.verify()?.is_sound());
    Ok(())
}

/// Room given up before a clean shutdown is known after it: nothing was left in memory only.
#[test]
fn room_is_found_again_after_a_reopen() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let load = |db: &Db| -> Result<u64> {
        let mut tx = db.begin()?;
        let heap = tx.heap("heap")?;
        let old: Vec<RowId> =
            heap.scan(&tx)?.map(|row| row.map(|(id, _)| id)).collect::<Result<_>>()?;
        for id in old {
            heap.delete(&tx, id)?;
        }
        tx.commit()?;
        db.clone().close()?;
        let db = Db::open(directory.path())?;
        let mut tx = db.begin()?;
        let heap = tx.heap("heap")?;
        for n in 0..500 {
            heap.insert(&tx, vec![n as u8; 700])?;
        }
        tx.commit()?;
        let pages = db.stats()?.pages_in_use;
        db.close()?;
        Ok(pages)
    };
    let first = load(&Db::open(directory.path())?)?;
    for _ in 0..3 {
        // A page or two may be begun and not filled.
        assert!(load(&Db::open(directory.path())?)? <= first + 2);
    }
    let seen = Db::open(directory.path())?.verify()?;
    assert_eq!((seen.heaps, seen.rows, seen.heap_pages_listed_low), (1, 500, 0));
    Ok(())
}

#[test]
fn an_index_points_at_rows_that_grow() -> Result<()> {
    let db = db();
    let mut tx = db.begin()?;
    let (rows, index) = (tx.heap("rows")?, tx.tree("index")?);
    for n in 0..200_u32 {
        let id = rows.insert(&tx, format!("row {n}"))?;
        tx.put(&index, n.to_be_bytes(), id.to_bytes())?;
    }
    for n in 0..200_u32 {
        let id = RowId::from_bytes(&tx.get(&index, n.to_be_bytes())?.unwrap()).unwrap();
        rows.update(&tx, id, format!("row {n} {}", "grown ".repeat(n as usize)))?;
    }
    tx.commit()?;
    let read = db.read_with(Isolation::ReadCommitted)?;
    for n in 0..200_u32 {
        let id = RowId::from_bytes(&read.get(&index, n.to_be_bytes())?.unwrap()).unwrap();
        let row = String::from_utf8(rows.get(&read, id)?.unwrap()).unwrap();
        assert!(row.starts_with(&format!("row {n} ")), "{row}");
    }
    let seen = db.verify()?;
    assert!(seen.is_sound() && seen.rows_moved > 50, "{seen:?}");
    Ok(())
}
