//! Sequences and renaming: numbers that come once, names that are right.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::collections::BTreeSet;

use argali::disk::{Loss, SimDisk};
use argali::{Db, Durability, Error, Isolation, Sequence, SequenceOptions, Write};

use common::*;

fn made(db: &Db, name: &str, options: SequenceOptions) -> Sequence {
    db.update(|tx| tx.sequence_with(name, options)).unwrap()
}

fn take(db: &Db, sequence: &Sequence, count: usize) -> Vec<i64> {
    db.update(|tx| (0..count).map(|_| sequence.next(tx)).collect()).unwrap()
}

#[test]
fn numbers_go_on_over_transactions_and_aborts_leave_gaps() {
    let db = memory();
    let sequence = made(&db, "s", SequenceOptions { start: 10, step: -3, cache: 4 });
    assert_eq!(take(&db, &sequence, 3), [10, 7, 4]);
    let tx = db.begin().unwrap();
    assert_eq!(sequence.next(&tx).unwrap(), 1);
    tx.abort().unwrap();
    let again = db.begin().unwrap().sequence("s").unwrap();
    assert_eq!(
        take(&db, &again, 6),
        [-2, -5, -8, -11, -14, -17],
        "options of an old one mean nothing"
    );
    assert_sound(&db);
    assert_eq!(db.stats().unwrap().sequences, 1);
    assert_eq!(db.verify().unwrap().sequences, 1);
}

#[test]
fn a_number_costs_no_record_and_no_force() {
    let db = memory();
    let sequence = made(&db, "s", SequenceOptions { cache: 1000, ..SequenceOptions::default() });
    take(&db, &sequence, 1);
    let before = db.stats().unwrap().log;
    let tx = db.begin().unwrap();
    for _ in 0..999 {
        sequence.next(&tx).unwrap();
    }
    let after = db.stats().unwrap().log;
    assert_eq!((before.records, before.flushes), (after.records, after.flushes));
    sequence.next(&tx).unwrap();
    assert!(db.stats().unwrap().log.records > before.records, "the next block");
    // A commit that wrote nothing itself waits for the reservation nevertheless.
    let tail = db.stats().unwrap().log.tail;
    assert!(db.stats().unwrap().log.durable_end < tail);
    tx.commit_with(Durability::Sync).unwrap();
    assert!(db.stats().unwrap().log.durable_end > before.tail);
}

#[test]
fn it_ends_where_i64_does() {
    let db = memory();
    let up = made(&db, "up", SequenceOptions { start: i64::MAX - 5, step: 2, cache: 64 });
    assert_eq!(take(&db, &up, 3), [i64::MAX - 5, i64::MAX - 3, i64::MAX - 1]);
    let down = made(&db, "down", SequenceOptions { start: i64::MIN, step: -1, cache: 1 });
    assert_eq!(take(&db, &down, 1), [i64::MIN]);
    for (sequence, last) in [(&up, i64::MAX - 1), (&down, i64::MIN)] {
        let tx = db.begin().unwrap();
        match sequence.next(&tx) {
            Err(Error::Exhausted { name, last: found }) => {
                assert_eq!((name.as_str(), found), (sequence.name(), last));
            }
            other => panic!("{other:?}"),
        }
        tx.commit().unwrap();
    }
    for options in [(1, 0, 1), (1, 1, 0)] {
        let (start, step, cache) = options;
        let refused =
            db.begin().unwrap().sequence_with("x", SequenceOptions { start, step, cache });
        assert!(matches!(refused, Err(Error::Invalid { .. })));
    }
}

#[test]
fn many_users_never_wait_and_never_share() {
    let db = memory();
    let sequence = made(&db, "s", SequenceOptions { cache: 7, ..SequenceOptions::default() });
    // All transactions stay open while the others draw: nobody waits for a lock.
    let threads: Vec<Vec<i64>> = std::thread::scope(|scope| {
        let draw = || {
            let transactions: Vec<Write> = (0..5).map(|_| db.begin().unwrap()).collect();
            let drawn = (0..200).map(|n| sequence.next(&transactions[n % 5]).unwrap()).collect();
            for tx in transactions {
                tx.commit().unwrap();
            }
            drawn
        };
        let running: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let all: BTreeSet<i64> = threads.iter().flatten().copied().collect();
    assert_eq!(all.len(), 800);
    assert!(threads.iter().all(|drawn| drawn.is_sorted()), "in order for each");
    assert_eq!(db.stats().unwrap().locks.waited, 0);
}

#[test]
fn creation_and_drop_are_undone_like_any_row() {
    let db = memory();
    let kept = made(&db, "kept", SequenceOptions::default());
    assert_eq!(take(&db, &kept, 1), [1]);
    let before = db.stats().unwrap().pages_in_use;
    let mut tx = db.begin().unwrap();
    let gone = tx.sequence("gone").unwrap();
    assert_eq!(gone.next(&tx).unwrap(), 1);
    tx.drop_sequence("kept").unwrap();
    assert!(matches!(kept.next(&tx), Err(Error::NotFound { what: "sequence", .. })));
    tx.abort().unwrap();
    let tx = db.begin().unwrap();
    assert!(matches!(gone.next(&tx), Err(Error::NotFound { .. })));
    assert_eq!(kept.next(&tx).unwrap(), 2, "with its block");
    drop(tx);
    settle(&db);
    assert_eq!(db.stats().unwrap().pages_in_use, before);
    // The freed page's next life as a sequence begins at its own start.
    let next = made(&db, "next", SequenceOptions { start: 100, ..SequenceOptions::default() });
    assert_eq!(take(&db, &next, 1), [100]);
    db.update(|tx| tx.drop_sequence("next")).unwrap();
    settle(&db);
    let last = made(&db, "last", SequenceOptions { start: 500, ..SequenceOptions::default() });
    assert_eq!(take(&db, &last, 1), [500]);
    assert_sound(&db);
}

#[test]
fn a_name_is_one_kind_of_thing() {
    let db = memory();
    fill(&db, "t", 1);
    made(&db, "s", SequenceOptions::default());
    let mut tx = db.begin().unwrap();
    assert!(matches!(tx.sequence("t"), Err(Error::Invalid { what: "sequence", .. })));
    assert!(matches!(tx.tree("s"), Err(Error::Invalid { what: "tree", .. })));
    assert!(matches!(tx.drop_tree("s"), Err(Error::Invalid { .. })));
    assert!(matches!(tx.rename_tree("t", "s"), Err(Error::Exists { .. })));
    assert_eq!(tx.trees().unwrap(), ["t"]);
    assert_eq!(tx.sequences().unwrap(), ["s"]);
}

/// Cut before every call, in several ways: whatever was committed with a number keeps it for itself.
#[test]
fn no_crash_gives_a_committed_number_again() {
    let disk = SimDisk::new(1);
    let db = on(&disk).unwrap();
    let tree = fill(&db, "taken", 0);
    let sequence = made(&db, "s", SequenceOptions { cache: 5, ..SequenceOptions::default() });
    disk.record_history();
    let begun = disk.io_count();
    for round in 0..40 {
        let tx = db.begin().unwrap();
        for _ in 0..2 {
            let number = sequence.next(&tx).unwrap();
            assert!(tx.insert_new(&tree, number.to_be_bytes(), "x").unwrap(), "{number} twice");
        }
        match round % 4 {
            0 => tx.abort().unwrap(),
            1 => drop(tx.commit_with(Durability::Relaxed).unwrap()),
            _ => drop(tx.commit().unwrap()),
        }
    }
    let calls = disk.io_count() - begun;
    let mut found = 0;
    for call in 0..=calls {
        let image = disk.at(call as usize).unwrap_or_else(|| disk.process_kill());
        for loss in [Loss::LoseAll, Loss::KeepAll, Loss::Random(call)] {
            let db = on(&image.power_cut(loss)).unwrap();
            let mut tx = db.begin().unwrap();
            let tree = tx.open_tree("taken").unwrap().unwrap();
            let sequence = tx.sequence("s").unwrap();
            for _ in 0..3 {
                let number = sequence.next(&tx).unwrap();
                let fresh = tx.insert_new(&tree, number.to_be_bytes(), "y").unwrap();
                assert!(fresh, "cut at {call}, {loss:?}: {number} belongs to somebody");
            }
            found += tx.scan_all(&tree).unwrap().count();
        }
    }
    assert!(calls > 30 && found > 1000, "{calls} calls, {found} numbers");
}

#[test]
fn a_renamed_tree_is_the_same_tree() {
    let disk = SimDisk::new(1);
    let db = on(&disk).unwrap();
    let tree = fill(&db, "old", 10);
    let mut tx = db.begin().unwrap();
    tx.rename_tree("old", "new").unwrap();
    assert_eq!(tree.name(), "new");
    tx.put(&tree, "k", "1").unwrap();
    assert!(tx.open_tree("old").unwrap().is_none());
    assert_eq!(tx.open_tree("new").unwrap().unwrap().name(), "new");
    tx.abort().unwrap();
    assert_eq!(tree.name(), "old");
    assert_eq!(db.read().unwrap().trees().unwrap(), ["old"]);

    let mut tx = db.begin().unwrap();
    let mut savepoint = tx.savepoint().unwrap();
    savepoint.rename_tree("old", "taken back").unwrap();
    savepoint.rollback().unwrap();
    assert_eq!(tree.name(), "old");
    tx.rename_tree("old", "new").unwrap();
    tx.rename_tree("new", "newer").unwrap();
    tx.put(&tree, "k", "2").unwrap();
    let other = tx.tree("old").unwrap();
    tx.put(&other, "k", "another").unwrap();
    tx.commit().unwrap();
    assert_eq!((tree.name(), other.name()), ("newer", "old"));
    let read = db.read().unwrap();
    assert_eq!(read.get(&tree, "k").unwrap().unwrap(), b"2");
    assert_eq!(read.open_tree("newer").unwrap().unwrap().name(), "newer");
    drop(read);
    let db = on(&disk.power_cut(Loss::LoseAll)).unwrap();
    assert_eq!(db.read().unwrap().trees().unwrap(), ["newer", "old"]);
    assert_sound(&db);
}

#[test]
fn what_cannot_be_renamed_stays_as_it_was() {
    let db = memory();
    let tree = fill(&db, "a", 1);
    fill(&db, "b", 1);
    let mut tx = db.begin().unwrap();
    assert!(matches!(tx.rename_tree("a", "b"), Err(Error::Exists { .. })));
    assert!(matches!(tx.rename_tree("x", "y"), Err(Error::NotFound { what: "tree", .. })));
    assert!(matches!(tx.rename_tree("a", ""), Err(Error::Invalid { .. })));
    tx.rename_tree("a", "a").unwrap();
    assert_eq!((tree.name(), tx.trees().unwrap()), ("a", vec!["a".to_owned(), "b".to_owned()]));
    tx.commit().unwrap();
    // Users go on under it; whoever opened it by name waits, and keeps others waiting.
    let user = db.begin_with(Isolation::ReadCommitted).unwrap();
    user.put(&tree, "k", "v").unwrap();
    let mut tx = db.begin().unwrap();
    tx.rename_tree("a", "c").unwrap();
    user.put(&tree, "l", "v").unwrap();
    let blocked = db.begin().unwrap().tree("a").map(drop);
    assert!(matches!(blocked, Err(Error::LockTimeout { .. })), "{blocked:?}");
    tx.commit().unwrap();
    user.commit().unwrap();
    assert_eq!(tree.name(), "c");
    db.update(|tx| {
        tx.sequence("s")?;
        tx.rename_sequence("s", "numbers")?;
        tx.heap("h")?;
        tx.rename_heap("h", "rows")
    })
    .unwrap();
    let read = db.read().unwrap();
    assert!(read.open_sequence("numbers").unwrap().is_some());
    assert!(read.open_heap("rows").unwrap().is_some() && read.open_heap("h").unwrap().is_none());
}

#[test]
fn a_rename_can_be_in_doubt() {
    for commits in [false, true] {
        let disk = SimDisk::new(1);
        let db = on(&disk).unwrap();
        let tree = fill(&db, "old", 1);
        let mut tx = db.begin().unwrap();
        tx.rename_tree("old", "new").unwrap();
        tx.prepare("g").unwrap();
        if commits {
            db.commit_prepared("g").unwrap();
        } else {
            db.abort_prepared("g").unwrap();
        }
        let name = if commits { "new" } else { "old" };
        assert_eq!(tree.name(), name);
        assert_eq!(db.read().unwrap().trees().unwrap(), [name]);
    }
}
