//! Statistics of trees: exact for small ones, near the truth and cheap for large ones, patient with writers.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use argali::{Db, Tree, TreeEstimate};
use common::{assert_sound, memory, options};

/// Rows of very different sizes, in runs, so that leaves hold from 10 to 300 of them.
fn uneven(db: &Db, rows: u32) -> Tree {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut size = 0;
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    for first in (0..rows).step_by(500) {
        let tx = db.begin().unwrap();
        for n in first..rows.min(first + 500) {
            if n % 97 == 0 {
                size = rng.usize(0..300);
            }
            tx.put(&tree, n.to_be_bytes(), vec![0; size]).unwrap();
        }
        tx.commit().unwrap();
    }
    tree
}

fn stats(db: &Db, tree: &Tree) -> TreeEstimate {
    db.read().unwrap().tree_stats(tree).unwrap()
}

#[test]
fn small_trees_are_counted() {
    let db = memory();
    for rows in [0, 1, 5, 700, 3000] {
        let tree = uneven(&db, rows);
        let seen = stats(&db, &tree);
        assert_eq!((seen.rows, seen.rows_error), (rows.into(), 0), "{seen:?}");
        assert_eq!(seen.leaves_read, seen.pages[0]);
    }
    let tree = uneven(&db, 700);
    db.update(|tx| tx.delete_range(&tree, 100_u32.to_be_bytes()..150_u32.to_be_bytes())).unwrap();
    let seen = stats(&db, &tree);
    assert_eq!(seen.rows, 2950);
    assert!(seen.ghosts >= 1 && seen.fill > 0.3 && seen.fill <= 1.0, "{seen:?}");
}

#[test]
fn large_trees_are_estimated_within_the_stated_error() {
    let db = options().page_size(4096).in_memory().unwrap();
    let tree = uneven(&db, 60_000);
    let before = db.stats().unwrap().pool;
    let seen = stats(&db, &tree);
    let after = db.stats().unwrap().pool;
    assert!(seen.depth() >= 3 && seen.pages[seen.depth() - 1] == 1, "{seen:?}");
    assert!(seen.rows_error > 0 && seen.leaves_read <= 128, "{seen:?}");
    // Twice the stated error would be met in one case of ten thousand; the sample is the same each time.
    assert!(seen.rows.abs_diff(60_000) < 2 * seen.rows_error, "{seen:?}");
    assert!(seen.rows_error < 20_000, "{seen:?}");
    let touched = (after.hits + after.misses) - (before.hits + before.misses);
    let pages: u64 = seen.pages.iter().sum();
    assert!(touched < pages / 2, "{touched} of {pages} pages");
    // The pages of the database are those of this tree, the system's three, and the maps.
    assert!(db.stats().unwrap().pages_in_use - pages < 8, "{seen:?}");
}

#[test]
fn writers_do_not_wait_and_do_no_harm() {
    let db = options().page_size(4096).cache_bytes(32 * 4096).in_memory().unwrap();
    let tree = uneven(&db, 5000);
    let tx = db.begin().unwrap();
    tx.put(&tree, [1], "uncommitted").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..3000_u32 {
                let key = (n * 7919 % 5000).to_be_bytes();
                let put = |tx: &mut argali::Write| tx.put(&tree, key, vec![1; 400]).map(drop);
                db.update(put).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            // How many is not promised meanwhile: an inner node that is split may hide half of its leaves.
            let seen = stats(&db, &tree);
            assert!((1..10_000).contains(&seen.rows), "{seen:?}");
        }
    });
    tx.abort().unwrap();
    let seen = stats(&db, &tree);
    assert!(seen.rows.abs_diff(5000) < 1000, "{seen:?}");
    assert_sound(&db);
}
