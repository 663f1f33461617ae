//! A disk that fills up: work is refused, aborts are not, and when space comes back work goes on.
//!
//! ```text
//!  room for k KiB more ──► put, put, put ─► LogFull or Full ─► abort, in every case
//!                           loser: 2400 changes long ago ─► abort
//!                           kill ─► restart on the disk as full as it is
//!  room again          ──► the same handle commits
//! ```
//!
//! The space that takes a transaction back is set aside in segments that exist, so no abort asks the disk for
//! anything. The room left is swept, so that it ends in a log segment, in the data file, in between.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::collections::BTreeMap;

use argali::disk::SimDisk;
use argali::{Db, Error, Result, Tree, Write};
use crash::{State, dump, open, options};

/// A database with rows to lose, and what is in it.
fn filled() -> (SimDisk, State) {
    let disk = SimDisk::new(5);
    let db = open(&options(), &disk).unwrap();
    db.update(|tx| {
        let tree = tx.tree("t")?;
        (0..60_u32).try_for_each(|n| tx.put(&tree, key(n), [1; 300]).map(drop))
    })
    .unwrap();
    let state = dump(&db).unwrap();
    db.close().unwrap();
    (disk, state)
}

fn key(n: u32) -> Vec<u8> {
    format!("{n:06}").into_bytes()
}

/// Puts rows until the disk is full, some transactions committed on the way.
fn fill(db: &Db, tree: &Tree, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Error {
    for round in 0..10_000 {
        let tx = db.begin().unwrap();
        let mut new = BTreeMap::new();
        let put = |tx: &Write, new: &mut BTreeMap<_, _>| -> Result<()> {
            for n in 0..12 {
                let (key, value) = (key(1000 + round * 12 + n), vec![round as u8; 350]);
                tx.put(tree, &key, &value)?;
                new.insert(key, value);
            }
            Ok(())
        };
        let done = put(&tx, &mut new);
        assert!(db.stats().unwrap().poisoned.is_none(), "{done:?}");
        match done {
            Err(error) => {
                tx.abort().expect("an abort needs no space that is not there");
                return error;
            }
            Ok(()) if round % 4 == 3 => tx.abort().expect("an abort needs no space"),
            Ok(()) => {
                tx.commit().expect("room for the commit was set aside");
                rows.append(&mut new);
            }
        }
    }
    unreachable!("the disk has an end")
}

/// What the loser does before the disk is full: every row changed, again and again, so that its undo takes
/// several segments.
fn lose(db: &Db, tree: &Tree) -> Write {
    let loser = db.begin().unwrap();
    for n in 0..2400 {
        loser.put(tree, key(n % 60), [(n % 251) as u8; 300]).unwrap();
    }
    loser
}

/// One life on a disk with `room` bytes left; returns the error that the full disk led to.
fn live((disk, state): &(SimDisk, State), room: u64) -> Error {
    let disk = disk.process_kill();
    let db = open(&options(), &disk).unwrap();
    let mut state = state.clone();
    let tree = db.read().unwrap().open_tree("t").unwrap().unwrap();
    let loser = lose(&db, &tree);
    disk.limit_bytes(disk.used_bytes() + room);
    let error = fill(&db, &tree, state.get_mut("t").unwrap());

    // Killed now, it recovers on the disk as full as it is, the loser with it.
    let killed = disk.process_kill();
    killed.limit_bytes(killed.used_bytes());
    let again = open(&options(), &killed).expect("a restart needs no space that is not there");
    assert_eq!(dump(&again).unwrap(), state, "room {room}: after the kill");

    loser.abort().expect("what was logged can be taken back");
    assert_eq!(dump(&db).unwrap(), state, "room {room}");
    disk.limit_bytes(u64::MAX);
    db.update(|tx| tx.put(&tree, "space", "came back").map(drop)).unwrap();
    state.get_mut("t").unwrap().insert(b"space".to_vec(), b"came back".to_vec());
    let seen = db.verify().unwrap();
    assert!(seen.is_sound(), "room {room}: {:#?}", seen.findings);
    drop(tree);
    db.close().unwrap();
    assert_eq!(dump(&open(&options(), &disk).unwrap()).unwrap(), state);
    error
}

#[test]
fn a_full_disk_refuses_work_and_nothing_else() {
    let filled = filled();
    let (mut log, mut data) = (0, 0);
    for room in (0..400 << 10).step_by(20 << 10) {
        match live(&filled, room) {
            Error::LogFull { .. } => log += 1,
            Error::Full { .. } => data += 1,
            error => panic!("room {room}: {error}"),
        }
    }
    println!("the log met the end {log} times, the data file {data} times");
    assert!(log > 0 && data > 0, "both met the end of the disk: log {log}, data {data}");
}
