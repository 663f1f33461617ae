//! Nested top actions: what stays, what does not, and what they must keep off.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use argali::disk::{Loss, SimDisk};
use argali::{Db, Error, Lsn, Result, Tree, Write};

use common::*;

fn value(db: &Db, tree: &Tree, key: &str) -> Option<String> {
    let read = db.read().unwrap();
    let value = read.get(tree, key).unwrap();
    read.finish().unwrap();
    value.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Appends to a row: not idempotent, and undone by writing the old value back.
fn append(tx: &Write, tree: &Tree, key: &str, text: &str) -> Result<()> {
    let mut all = tx.get_for_update(tree, key)?.unwrap_or_default();
    all.extend_from_slice(text.as_bytes());
    tx.put(tree, key, all).map(drop)
}

#[test]
fn an_action_stays_when_its_transaction_goes() {
    let db = memory();
    let tree = fill(&db, "t", 0);
    let mut tx = db.begin().unwrap();
    append(&tx, &tree, "before", "1").unwrap();
    tx.nested(|tx| append(tx, &tree, "kept", "a")).unwrap();
    append(&tx, &tree, "between", "2").unwrap();
    tx.nested(|tx| append(tx, &tree, "kept", "b")).unwrap();
    append(&tx, &tree, "after", "3").unwrap();
    tx.abort().unwrap();
    assert_eq!(value(&db, &tree, "kept").as_deref(), Some("ab"));
    for gone in ["before", "between", "after"] {
        assert_eq!(value(&db, &tree, gone), None, "{gone}");
    }
    assert_sound(&db);
}

#[test]
fn what_the_transaction_adds_on_top_is_taken_back() {
    let db = memory();
    let tree = fill(&db, "t", 0);
    let mut tx = db.begin().unwrap();
    tx.nested(|tx| append(tx, &tree, "k", "a")).unwrap();
    append(&tx, &tree, "k", "b").unwrap();
    let savepoint = tx.savepoint().unwrap();
    savepoint.delete(&tree, "k").unwrap();
    savepoint.rollback().unwrap();
    tx.abort().unwrap();
    assert_eq!(value(&db, &tree, "k").as_deref(), Some("a"));
}

#[test]
fn a_savepoint_around_it_does_not_take_it_back() {
    let db = memory();
    let tree = fill(&db, "t", 0);
    let mut tx = db.begin().unwrap();
    let mut savepoint = tx.savepoint().unwrap();
    append(&savepoint, &tree, "outer", "1").unwrap();
    savepoint.nested(|tx| append(tx, &tree, "kept", "a")).unwrap();
    savepoint.rollback().unwrap();
    tx.commit().unwrap();
    assert_eq!(value(&db, &tree, "outer"), None);
    assert_eq!(value(&db, &tree, "kept").as_deref(), Some("a"));
}

#[test]
fn an_action_that_fails_is_taken_back_and_the_transaction_goes_on() {
    let db = memory();
    let tree = fill(&db, "t", 0);
    let mut tx = db.begin().unwrap();
    append(&tx, &tree, "outer", "1").unwrap();
    let failed: Result<()> = tx.nested(|tx| {
        append(tx, &tree, "half", "a")?;
        let mut savepoint = tx.savepoint()?;
        append(&savepoint, &tree, "half", "b")?;
        savepoint.tree("made")?;
        savepoint.release();
        Err(Error::Closed)
    });
    assert!(matches!(failed, Err(Error::Closed)));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tx.nested(|tx| -> Result<()> {
            append(tx, &tree, "half", "c")?;
            std::panic::resume_unwind(Box::new("on purpose"));
        })
    }));
    assert!(panicked.is_err());
    tx.nested(|tx| append(tx, &tree, "kept", "x")).unwrap();
    tx.commit().unwrap();
    assert_eq!(value(&db, &tree, "outer").as_deref(), Some("1"));
    assert_eq!(value(&db, &tree, "kept").as_deref(), Some("x"));
    assert_eq!(value(&db, &tree, "half"), None);
    assert_eq!(db.read().unwrap().trees().unwrap(), ["t"]);
}

#[test]
fn an_action_keeps_off_what_its_transaction_wrote() {
    let db = memory();
    let tree = fill(&db, "t", 0);
    let old = fill(&db, "old", 1);
    let mut tx = db.begin().unwrap();
    append(&tx, &tree, "k", "1").unwrap();
    let made = tx.tree("made").unwrap();
    tx.drop_tree("old").unwrap();
    let refused: [Result<()>; 6] = [
        tx.nested(|tx| append(tx, &tree, "k", "2")),
        tx.nested(|tx| tx.delete(&tree, "k").map(drop)),
        tx.nested(|tx| append(tx, &made, "k", "2")),
        tx.nested(|tx| tx.drop_tree("made")),
        tx.nested(|tx| tx.tree("old").map(drop)),
        tx.nested(|tx| tx.nested(|_| Ok(()))),
    ];
    for (nth, result) in refused.iter().enumerate() {
        let is = matches!(result, Err(Error::Invalid { what: "nested action", .. }));
        assert!(is, "{nth}: {result:?}");
    }
    assert_eq!(tx.get(&tree, "k").unwrap().as_deref(), Some(&b"1"[..]), "it can go on");
    // Reading is fine, and so is what an earlier action wrote, until the transaction itself writes there.
    tx.nested(|tx| append(tx, &tree, "n", "a")).unwrap();
    tx.nested(|tx| append(tx, &tree, "n", "b")).unwrap();
    append(&tx, &tree, "n", "c").unwrap();
    let refused = tx.nested(|tx| append(tx, &tree, "n", "d"));
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    tx.abort().unwrap();
    assert_eq!(value(&db, &tree, "n").as_deref(), Some("ab"));
    assert_eq!(value(&db, &tree, "k"), None);
    assert!(value(&db, &old, "x").is_none(), "the handle lives again");
    assert_sound(&db);
}

#[test]
fn trees_made_and_dropped_in_an_action_stay_so() {
    let db = memory();
    let old = fill(&db, "old", 2000);
    let before = db.stats().unwrap().pages_in_use;
    let mut tx = db.begin().unwrap();
    let made = tx
        .nested(|tx| {
            tx.drop_tree("old")?;
            let made = tx.tree("made")?;
            tx.put(&made, "a", "1")?;
            Ok(made)
        })
        .unwrap();
    let gone = tx.tree("gone").unwrap();
    tx.put(&gone, "a", "1").unwrap();
    tx.abort().unwrap();
    assert_eq!(db.read().unwrap().trees().unwrap(), ["made"]);
    assert_eq!(value(&db, &made, "a").as_deref(), Some("1"));
    let read = db.read().unwrap();
    for dead in [&old, &gone] {
        assert!(matches!(read.get(dead, "a"), Err(Error::NotFound { .. })));
    }
    drop(read);
    settle(&db);
    assert!(db.stats().unwrap().pages_in_use < before - 10, "the dropped tree's pages are free");
    assert_sound(&db);
}

#[test]
fn nobody_sees_an_action_before_its_transaction_ends() {
    let db = memory();
    let tree = fill(&db, "t", 0);
    let mut tx = db.begin().unwrap();
    tx.nested(|tx| append(tx, &tree, "k", "a")).unwrap();
    let other = db.begin().unwrap();
    assert!(matches!(other.get(&tree, "k"), Err(Error::LockTimeout { .. })));
    drop(other);
    tx.abort().unwrap();
    assert_eq!(value(&db, &tree, "k").as_deref(), Some("a"));
}

/// Cut behind every call: the action is there from some instant on, its transaction never.
#[test]
fn a_crash_inside_takes_it_back_and_one_behind_it_does_not() {
    let disk = SimDisk::new(1);
    let db = on(&disk).unwrap();
    let tree = fill(&db, "t", 10);
    disk.record_history();
    let begun = disk.io_count();
    let mut tx = db.begin().unwrap();
    append(&tx, &tree, "outer", "1").unwrap();
    tx.nested(|tx| {
        append(tx, &tree, "kept", "a")?;
        db.wait_durable(Lsn::MAX)?; // half of it reaches the disk
        append(tx, &tree, "kept", "b")
    })
    .unwrap();
    let ended = disk.io_count() - begun;
    append(&tx, &tree, "outer", "2").unwrap();
    db.wait_durable(Lsn::MAX).unwrap();
    let durable = disk.io_count() - begun;
    let mut kept = Vec::new();
    for call in 0..=durable {
        let image = disk.at(call as usize).unwrap_or_else(|| disk.process_kill());
        for loss in [Loss::LoseAll, Loss::KeepAll] {
            let db = on(&image.power_cut(loss)).unwrap();
            let tree = db.read().unwrap().open_tree("t").unwrap().unwrap();
            assert_eq!(value(&db, &tree, "outer"), None, "cut at {call}");
            let found = value(&db, &tree, "kept");
            assert!(matches!(found.as_deref(), None | Some("ab")), "cut at {call}: {found:?}");
            assert!(call > ended || found.is_none(), "cut at {call}, before it ended");
            assert!(call < durable || found.is_some(), "cut at {call}, after it was durable");
            kept.push(found.is_some());
            assert_sound(&db);
        }
    }
    assert!(kept.contains(&true) && kept.contains(&false));
}
