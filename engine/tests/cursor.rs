//! Cursors and ranges against a map: both ways, over changes, rollbacks and the splits of others.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argali::{Bookmark, Cursor, Db, Durability, Isolation, Read, Result, Row, Tree, Write};
use common::{assert_sound, memory, options};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn letters(db: &Db, keys: &str) -> Tree {
    db.update(|tx| {
        let tree = tx.tree("letters")?;
        keys.chars().try_for_each(|key| tx.put(&tree, key.to_string(), "").map(drop))?;
        Ok(tree)
    })
    .unwrap()
}

fn shown(row: Option<Row<'_>>) -> &str {
    row.map_or("", |(key, _)| std::str::from_utf8(key).unwrap())
}

#[test]
fn a_cursor_ends_where_it_should() {
    let db = memory();
    let tree = letters(&db, "bdf");
    let read = db.read().unwrap();
    let mut cursor = read.cursor(&tree).unwrap();
    assert_eq!(cursor.row(), None);
    assert_eq!(cursor.prev().unwrap(), None, "new: at the start");
    for expected in ["b", "d", "f", "", ""] {
        assert_eq!(shown(cursor.next().unwrap()), expected);
    }
    for expected in ["f", "d", "b", "", ""] {
        assert_eq!(shown(cursor.prev().unwrap()), expected);
    }
    assert_eq!(shown(cursor.next().unwrap()), "b");
    for (key, from, before) in [("a", "b", ""), ("b", "b", ""), ("c", "d", "b"), ("g", "", "f")] {
        assert_eq!(shown(cursor.seek(key).unwrap()), from, "seek {key}");
        assert_eq!(shown(cursor.seek_before(key).unwrap()), before, "before {key}");
    }
    assert_eq!(shown(cursor.seek_last().unwrap()), "f");
    assert_eq!(shown(cursor.seek_first().unwrap()), "b");
    assert_eq!((cursor.key(), cursor.value()), (Some(&b"b"[..]), Some(&b""[..])));
    cursor.seek("g").unwrap();
    assert_eq!(cursor.row(), None);
    assert_eq!(shown(cursor.prev().unwrap()), "f", "from the end");
}

#[test]
fn a_cursor_on_an_empty_tree_finds_nothing() {
    let db = memory();
    let tree = letters(&db, "");
    let read = db.read().unwrap();
    let mut cursor = read.cursor(&tree).unwrap();
    assert_eq!(cursor.next().unwrap(), None);
    assert_eq!(cursor.prev().unwrap(), None);
    assert_eq!(cursor.seek("").unwrap(), None);
    assert_eq!(cursor.seek_last().unwrap(), None);
}

#[test]
fn a_cursor_stays_where_its_key_was() {
    let db = memory();
    let tree = letters(&db, "bdf");
    let mut tx = db.begin().unwrap();
    let bookmark = {
        let mut cursor = tx.cursor(&tree).unwrap();
        cursor.seek("d").unwrap();
        tx.delete(&tree, "d").unwrap();
        assert_eq!(shown(cursor.row()), "d", "what it saw when it came");
        assert_eq!(shown(cursor.prev().unwrap()), "b");
        assert_eq!(shown(cursor.next().unwrap()), "f");
        cursor.seek_before("e").unwrap();
        tx.put(&tree, "c", "").unwrap();
        assert_eq!(shown(cursor.next().unwrap()), "c");
        cursor.leave()
    };
    let savepoint = tx.savepoint().unwrap();
    savepoint.put(&tree, "d", "again").unwrap();
    savepoint.delete(&tree, "c").unwrap();
    let mut cursor = savepoint.cursor_at(bookmark).unwrap();
    assert_eq!(cursor.row(), None, "a bookmark is a place, not a row");
    assert_eq!(shown(cursor.next().unwrap()), "d");
    let bookmark = cursor.leave();
    savepoint.rollback().unwrap();
    let mut cursor = tx.cursor_at(bookmark).unwrap();
    assert_eq!(shown(cursor.prev().unwrap()), "c");
    assert_eq!(shown(cursor.next().unwrap()), "f");
}

#[test]
fn an_error_leaves_the_place_and_shows_no_row() {
    let db = memory();
    let tree = letters(&db, "bdf");
    let writer = db.begin().unwrap();
    writer.put(&tree, "d", "locked").unwrap();
    let read = db.read().unwrap();
    let mut cursor = read.cursor(&tree).unwrap();
    cursor.next().unwrap();
    assert!(cursor.next().unwrap_err().is_retryable());
    assert_eq!(cursor.row(), None);
}

#[test]
fn scans_turn_and_meet_in_the_middle() {
    let db = memory();
    let tree = letters(&db, "abcdefgh");
    let read = db.read().unwrap();
    let key = |row: Result<(Vec<u8>, Vec<u8>)>| String::from_utf8(row.unwrap().0).unwrap();
    let back = |scan: argali::Scan<'_>| scan.rev().map(key).collect::<String>();
    assert_eq!(back(read.scan_all(&tree).unwrap()), "hgfedcba");
    assert_eq!(back(read.scan(&tree, "c".."f").unwrap()), "edc");
    assert_eq!(back(read.scan(&tree, "c"..="f").unwrap()), "fedc");
    assert_eq!(back(read.scan(&tree, "f".."c").unwrap()), "");
    assert_eq!(back(read.scan_prefix(&tree, "d").unwrap()), "d");
    let mut scan = read.scan(&tree, "b".."g").unwrap();
    let mut met = String::new();
    while let Some(row) = scan.next() {
        met += &key(row);
        met.extend(scan.next_back().map(key));
    }
    assert_eq!(met, "bfced");
    assert!(scan.next_back().is_none() && scan.next().is_none());
}

/// Three cursors of one transaction, and its own changes under their feet.
struct Walk {
    rng: fastrand::Rng,
    tree: Tree,
    now: Map,
    /// Where each cursor stands, as the model sees it.
    places: [Bound<Vec<u8>>; 3],
}

/// `Excluded(key)` = at the key; `Unbounded` = at the start; `Included(..)` = at the end.
fn at_end() -> Bound<Vec<u8>> {
    Bound::Included(Vec::new())
}

fn key(n: u64) -> Vec<u8> {
    format!("walk{n:05}").into_bytes()
}

impl Walk {
    fn change(&mut self, tx: &Write) {
        for _ in 0..self.rng.usize(0..6) {
            let key = key(self.rng.u64(0..400));
            if self.rng.u8(0..3) == 0 {
                assert_eq!(tx.delete(&self.tree, &key).unwrap(), self.now.remove(&key));
            } else {
                let value = vec![self.rng.u8(..); self.rng.usize(0..600)];
                let old = tx.put(&self.tree, &key, &value).unwrap();
                assert_eq!(old, self.now.insert(key, value));
            }
        }
        if self.rng.u8(0..20) == 0 {
            let (from, to) = (key(self.rng.u64(0..400)), key(self.rng.u64(0..400)));
            let deleted = tx.delete_range(&self.tree, from.clone()..to.clone()).unwrap();
            let before = self.now.len();
            self.now.retain(|key, _| !(from <= *key && *key < to));
            assert_eq!(deleted, (before - self.now.len()) as u64);
        }
    }

    fn step(&mut self, n: usize, cursor: &mut Cursor<'_>) {
        let place = &mut self.places[n];
        let (found, expected, beyond) = match self.rng.u8(0..10) {
            0..4 => {
                let expected = match &*place {
                    Bound::Included(_) => None,
                    place => self.now.range((place.clone(), Bound::Unbounded)).next(),
                };
                (cursor.next().unwrap(), expected, at_end())
            }
            4..8 => {
                let expected = match &*place {
                    Bound::Unbounded => None,
                    Bound::Included(_) => self.now.iter().next_back(),
                    Bound::Excluded(key) => self.now.range(..key.clone()).next_back(),
                };
                (cursor.prev().unwrap(), expected, Bound::Unbounded)
            }
            8 => {
                let key = key(self.rng.u64(0..400));
                (cursor.seek(&key).unwrap(), self.now.range(key..).next(), at_end())
            }
            _ => {
                let key = key(self.rng.u64(0..400));
                let expected = self.now.range(..key.clone()).next_back();
                (cursor.seek_before(&key).unwrap(), expected, Bound::Unbounded)
            }
        };
        assert_eq!(found, expected.map(|(key, value)| (&key[..], &value[..])));
        *place = expected.map_or(beyond, |(key, _)| Bound::Excluded(key.clone()));
    }

    /// A round: changes and steps, behind a savepoint that may be rolled back.
    fn round(&mut self, tx: &mut Write, bookmarks: Vec<Bookmark>) -> Vec<Bookmark> {
        let before = self.now.clone();
        let savepoint = tx.savepoint().unwrap();
        let resume = |bookmark| savepoint.cursor_at(bookmark).unwrap();
        let mut cursors: Vec<_> = bookmarks.into_iter().map(resume).collect();
        for _ in 0..self.rng.usize(1..20) {
            self.change(&savepoint);
            let n = self.rng.usize(0..3);
            self.step(n, &mut cursors[n]);
        }
        let bookmarks = cursors.into_iter().map(Cursor::leave).collect();
        if self.rng.bool() {
            savepoint.release();
        } else {
            savepoint.rollback().unwrap();
            self.now = before;
        }
        bookmarks
    }
}

#[test]
fn cursors_walk_like_ranges_of_a_map() {
    for seed in 0..6 {
        println!("seed {seed}");
        let db = options().page_size(4096).cache_bytes(24 * 4096).in_memory().unwrap();
        let mut tx = db.begin().unwrap();
        let tree = tx.tree("walk").unwrap();
        let mut bookmarks: Vec<_> = (0..3).map(|_| tx.cursor(&tree).unwrap().leave()).collect();
        let places = std::array::from_fn(|_| Bound::Unbounded);
        let rng = fastrand::Rng::with_seed(seed);
        let mut walk = Walk { rng, tree, now: Map::new(), places };
        for _ in 0..80 {
            bookmarks = walk.round(&mut tx, bookmarks);
        }
        tx.commit().unwrap();
        let read = db.read().unwrap();
        let rows: Map = read.scan_all(&walk.tree).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(rows, walk.now);
        drop(read);
        assert_sound(&db);
    }
}

/// Every hundredth key stays; others come and go in splits. A cursor meets all that stay, in order.
#[test]
fn a_cursor_misses_nothing_while_others_split_and_delete() {
    let db = options().page_size(4096).cache_bytes(40 * 4096).in_memory().unwrap();
    let fixed: Vec<_> = (0..40).map(|n| key(100 * n)).collect();
    let tree = db
        .update(|tx| {
            let tree = tx.tree("shared")?;
            fixed.iter().try_for_each(|key| tx.put(&tree, key, "stays").map(drop))?;
            Ok(tree)
        })
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (db, tree, done) = (&db, &tree, &done);
            scope.spawn(move || churn(db, tree, seed, done));
        }
        let mut rounds = 0;
        for (n, level) in [Isolation::ReadCommitted, Isolation::Serializable]
            .into_iter()
            .cycle()
            .enumerate()
            .take(60)
        {
            let Ok(seen) = walk_all(&db.read_with(level).unwrap(), &tree, n % 4 < 2) else {
                continue;
            };
            assert_eq!(seen, fixed, "{level:?}");
            rounds += 1;
        }
        done.store(true, Ordering::Release);
        assert!(rounds > 10, "{rounds} rounds came through");
    });
    assert_sound(&db);
}

fn churn(db: &Db, tree: &Tree, seed: u64, done: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    while !done.load(Ordering::Acquire) {
        let Ok(tx) = db.begin() else { return };
        let n = rng.u64(0..40) * 100 + 1 + rng.u64(0..98);
        let changed = if rng.bool() {
            tx.put(tree, key(n), vec![7; rng.usize(0..700)]).map(drop)
        } else {
            tx.delete_range(tree, key(n)..key(n / 100 * 100 + 99)).map(drop)
        };
        match changed {
            Ok(()) => drop(tx.commit_with(Durability::Relaxed)),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// Keys of the rows that stay, as a cursor meets them.
fn walk_all(read: &Read, tree: &Tree, forward: bool) -> Result<Vec<Vec<u8>>> {
    let (mut cursor, mut seen) = (read.cursor(tree)?, Vec::new());
    if !forward {
        cursor.seek(b"x")?;
    }
    loop {
        let row = if forward { cursor.next()? } else { cursor.prev()? };
        match row {
            Some((key, b"stays")) => seen.push(key.to_vec()),
            Some(_) => {}
            None => break,
        }
    }
    if !forward {
        seen.reverse();
    }
    Ok(seen)
}

#[test]
fn delete_range_is_taken_back_as_a_whole() {
    let db = memory();
    let tree = letters(&db, "abcdefgh");
    let mut tx = db.begin().unwrap();
    let rows = |tx: &Write| tx.scan_all(&tree).unwrap().count();
    let savepoint = tx.savepoint().unwrap();
    assert_eq!(savepoint.delete_range(&tree, "c"..).unwrap(), 6);
    savepoint.put(&tree, "d", "new").unwrap();
    assert_eq!(savepoint.delete_range(&tree, "a".."e").unwrap(), 3, "a, b and the new d");
    assert_eq!(rows(&savepoint), 0);
    savepoint.rollback().unwrap();
    assert_eq!(rows(&tx), 8);
    assert_eq!(tx.delete_range(&tree, "x"..).unwrap(), 0);
    assert_eq!(tx.delete_range(&tree, "c".."b").unwrap(), 0);
    assert_eq!(tx.delete_range::<&str>(&tree, ..).unwrap(), 8);
    tx.abort().unwrap();
    assert_eq!(rows(&db.begin().unwrap()), 8);
    assert_sound(&db);
}

/// What a range delete passed stays empty under serializable; below it, others may fill it again.
#[test]
fn delete_range_and_phantoms() {
    for level in [Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted] {
        let db = memory();
        let tree = letters(&db, "abcdefgh");
        let tx = db.begin_with(level).unwrap();
        assert_eq!(tx.delete_range(&tree, "c".."f").unwrap(), 3);
        let other = db.begin().unwrap();
        let entered = other.put(&tree, "cc", "phantom").is_ok();
        assert_eq!(entered, level != Isolation::Serializable, "{level:?}");
        let other = db.begin().unwrap();
        assert!(other.put(&tree, "c", "deleted, but not for good").is_err(), "{level:?}");
        drop(other);
        tx.commit().unwrap();
    }
}

/// A range delete does not read first and write afterwards: while it waits for a reader it holds nothing
/// of the row, so the reader may still write it.
#[test]
fn a_range_delete_that_waits_is_in_nobodys_way() {
    let db = options().lock_timeout(Duration::from_secs(10)).in_memory().unwrap();
    let tree = letters(&db, "abcdefgh");
    let reader = db.begin().unwrap();
    reader.get(&tree, "c").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let tx = db.begin().unwrap();
            let count = tx.delete_range(&tree, "c".."g").unwrap();
            tx.commit().unwrap();
            count
        });
        while db.stats().unwrap().locks.waited == 0 {
            std::thread::yield_now();
        }
        reader.put(&tree, "c", "read, then written").unwrap();
        reader.commit().unwrap();
        assert_eq!(waits.join().unwrap(), 4);
    });
}

/// A range too large for the log is refused as a whole: nothing is gone, before any abort.
#[test]
fn a_range_too_large_for_the_log_stays() {
    let db = options().segment_bytes(64 << 10).log_limit_bytes(512 << 10);
    let db = db.log_buffer_bytes(2 << 20).in_memory().unwrap();
    let tree = db.update(|tx| tx.tree("large")).unwrap();
    for n in 0..40_u32 {
        db.update(|tx| {
            (0..10_u32).try_for_each(|m| {
                tx.put(&tree, (10 * n + m).to_be_bytes(), vec![1; 1500]).map(drop)
            })
        })
        .unwrap();
    }
    let tx = db.begin().unwrap();
    let refused = tx.delete_range::<&[u8]>(&tree, ..);
    assert!(matches!(refused, Err(argali::Error::LogFull { .. })), "{refused:?}");
    assert_eq!(tx.scan_all(&tree).unwrap().count(), 400);
    tx.abort().unwrap();
    let tx = db.begin().unwrap();
    assert_eq!(tx.delete_range(&tree, ..5_u32.to_be_bytes()).unwrap(), 5);
    tx.commit().unwrap();
    assert_eq!(db.read().unwrap().scan_all(&tree).unwrap().count(), 395);
}

#[test]
fn a_warm_cursor_allocates_nothing() {
    let db = memory();
    let tree = common::fill(&db, "t", 2000);
    let read = db.read_with(Isolation::ReadCommitted).unwrap();
    let mut cursor = read.cursor(&tree).unwrap();
    let mut round = || {
        cursor.seek_first().unwrap();
        while cursor.next().unwrap().is_some() {}
        while cursor.prev().unwrap().is_some() {}
        cursor.seek(100_u32.to_be_bytes()).unwrap();
        cursor.seek_before(100_u32.to_be_bytes()).unwrap();
    };
    round();
    let counted = allocation_counter::measure(round);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
