//! Trees shrink: nodes that became thin are joined, and their pages come back.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Included, Unbounded};

use argali_access::{BTree, Entry, Way};
use argali_base::Error;
use argali_txn::{Durability, Isolation, Txn};
use common::{Setup, World, get, key, scan, scan_all, scan_back, tidy};

const ROWS: u64 = 600;

fn commit(world: &World, body: impl FnOnce(&mut Txn)) {
    let mut txn = world.begin();
    body(&mut txn);
    txn.commit(Durability::Sync).unwrap();
}

/// A tree of three levels: long keys make narrow inner nodes.
fn tall(world: &World) -> BTree {
    let tree = world.tree();
    commit(world, |txn| {
        for n in 0..ROWS {
            tree.put(txn, &long(n), &[n as u8; 100]).unwrap();
        }
    });
    let stats = world.verify(&[&tree]);
    assert!(stats[0].depth >= 3 && stats[0].pages > 50, "{stats:?}");
    tree
}

/// The varying part stands in front, so that separators stay short; filler makes rows large.
fn long(n: u64) -> Vec<u8> {
    let mut key = vec![b'k'; 200];
    key.extend_from_slice(format!("{n:08}").as_bytes());
    key
}

fn pages(world: &World, tree: &BTree) -> u64 {
    world.verify(&[tree])[0].pages
}

#[test]
fn an_emptied_tree_is_one_page_again_whatever_the_order() {
    let orders: [fn(u64) -> u64; 3] = [|n| n, |n| ROWS - 1 - n, |n| n * 7 % ROWS];
    for order in orders {
        let world = World::new();
        let tree = tall(&world);
        for n in 0..ROWS {
            commit(&world, |txn| drop(tree.delete(txn, &long(order(n))).unwrap()));
            tidy(&world);
        }
        let stats = world.verify(&[&tree]);
        assert_eq!((stats[0].pages, stats[0].depth, stats[0].rows), (1, 1, 0), "{stats:?}");
        let space = world.space.stats();
        assert_eq!(space.joins, space.pages_released);
        assert!(space.joins > 50, "{space:?}");
        commit(&world, |txn| drop(tree.put(txn, &long(1), b"again").unwrap()));
        assert_eq!(scan_all(&tree, &mut world.begin()).len(), 1);
    }
}

#[test]
fn what_is_left_stays_and_the_tree_gets_smaller() {
    let world = World::new();
    let tree = tall(&world);
    let before = pages(&world, &tree);
    commit(&world, |txn| {
        for n in (0..ROWS).filter(|n| n % 10 != 0) {
            tree.delete(txn, &long(n)).unwrap();
        }
    });
    tidy(&world);
    let after = pages(&world, &tree);
    assert!(after * 4 < before, "{before} pages became {after}");
    let rows = scan_all(&tree, &mut world.begin());
    let expected: Vec<_> = (0..ROWS).step_by(10).map(|n| (long(n), vec![n as u8; 100])).collect();
    assert_eq!(rows, expected);
}

/// Undo relies on ghosts and slack: while the deleting transaction lives nothing of it may go, and afterwards
/// undo must find its cells wherever joins have moved them.
#[test]
fn an_aborted_delete_comes_back_after_its_leaves_were_joined() {
    let world = World::new();
    let tree = tall(&world);
    let mut loser = world.begin();
    tree.delete(&mut loser, &long(300)).unwrap();
    tree.put(&mut loser, &long(301), b"short").unwrap();
    tree.put(&mut loser, &long(299), &[0; 90]).unwrap();
    commit(&world, |txn| {
        for n in (0..ROWS).filter(|n| !(298..303).contains(n)) {
            tree.delete(txn, &long(n)).unwrap();
        }
    });
    // The loser's first record keeps the ghosts around it, and everything younger.
    tidy(&world);
    assert_eq!(world.space.stats().joins, 0);
    loser.abort().unwrap();
    tidy(&world);
    assert_eq!(pages(&world, &tree), 1);
    let rows = scan_all(&tree, &mut world.begin());
    let expected: Vec<_> = (298..303).map(|n| (long(n), vec![n as u8; 100])).collect();
    assert_eq!(rows, expected);
}

/// Ghosts of an active transaction are moved by a join like rows.
#[test]
fn a_join_moves_what_an_active_transaction_may_want_back() {
    let world = World::new();
    let tree = tall(&world);
    commit(&world, |txn| {
        for n in (0..ROWS).filter(|n| n % 20 != 0) {
            tree.delete(txn, &long(n)).unwrap();
        }
    });
    // Settled ghosts are noted; now somebody deletes among them.
    let mut loser = world.begin();
    for n in (0..ROWS).step_by(60) {
        tree.delete(&mut loser, &long(n)).unwrap();
        tree.put(&mut loser, &long(n + 20), b"").unwrap();
    }
    tidy(&world);
    assert!(world.space.stats().joins > 0, "{:?}", world.space.stats());
    world.verify(&[&tree]);
    loser.abort().unwrap();
    let rows = scan_all(&tree, &mut world.begin());
    let expected: Vec<_> = (0..ROWS).step_by(20).map(|n| (long(n), vec![n as u8; 100])).collect();
    assert_eq!(rows, expected);
}

/// A reader's range stays closed although the keys that bordered it are dead and their leaves joined.
#[test]
fn a_scanned_gap_keeps_its_borders() {
    let kept = a_scanned_gap_stays_closed(World::begin_locking);
    assert!(kept >= 200, "{kept} ghosts are left of 200 that border locked gaps");
    let kept = a_scanned_gap_stays_closed(World::begin);
    assert!(kept < 200, "{kept} ghosts are left, and a claim needs none");
}

fn a_scanned_gap_stays_closed(begin: fn(&World) -> Txn) -> u64 {
    let world = World::new();
    let tree = tall(&world);
    commit(&world, |txn| {
        for n in 0..ROWS {
            tree.delete(txn, &long(n)).unwrap();
        }
    });
    let mut reader = begin(&world);
    let (from, to) = (long(200), long(400));
    let look = |txn: &mut Txn| scan(&tree, txn, Included(&from), Excluded(&to)).unwrap();
    assert_eq!(look(&mut reader), []);
    tidy(&world);
    let kept = world.verify(&[&tree])[0].ghosts;
    for n in [200, 255, 300, 399] {
        let mut key = long(n);
        key.push(b'+');
        let mut writer = world.hasty(Isolation::Serializable);
        let refused = tree.put(&mut writer, &key, b"phantom");
        assert!(matches!(refused, Err(Error::LockTimeout { .. })), "{n}: {refused:?}");
    }
    assert_eq!(look(&mut reader), []);
    reader.commit(Durability::Sync).unwrap();
    commit(&world, |txn| drop(tree.put(txn, &long(300), b"now").unwrap()));
    tidy(&world);
    assert!(world.verify(&[&tree])[0].pages < 5);
    kept
}

/// A scan remembers where it was. The page may have left the tree meanwhile, and come back elsewhere.
#[test]
fn a_scan_goes_on_after_its_leaf_was_joined_and_its_page_reused() {
    let world = World::new();
    let tree = tall(&world);
    let mut reader = world.begin_at(Isolation::ReadCommitted);
    let (mut entry, mut seen) = (Entry::default(), 0);
    let mut found = tree.next(&mut reader, Unbounded, Unbounded, &mut entry).unwrap();
    while found {
        seen += 1;
        if seen == 200 {
            commit(&world, |txn| {
                for n in 0..ROWS - 10 {
                    tree.delete(txn, &long(n)).unwrap();
                }
            });
            tidy(&world);
            // Another tree takes the pages.
            let other = world.tree();
            commit(&world, |txn| {
                for n in 0..ROWS {
                    other.put(txn, &long(n), b"other").unwrap();
                }
            });
        }
        found = tree.advance(&mut reader, Way::Forward, Unbounded, &mut entry).unwrap();
    }
    assert_eq!(seen, 210);
}

/// The page says itself that it left the tree: as it was, it would still hold the row the scan stands on,
/// and nothing behind it.
#[test]
fn a_scan_does_not_go_on_in_a_page_that_left_the_tree() {
    let world = World::new();
    let tree = world.tree();
    // Two leaves: 10, 20, 30 and 40, 50, 60.
    commit(&world, |txn| {
        (1..=6).for_each(|n| drop(tree.put(txn, &key(10 * n), &[0; 900]).unwrap()));
    });
    let mut reader = world.begin_at(Isolation::ReadCommitted);
    let mut entry = Entry::default();
    assert!(tree.next(&mut reader, Included(&key(40)), Unbounded, &mut entry).unwrap());
    commit(&world, |txn| {
        for n in [20, 30, 50, 60] {
            tree.delete(txn, &key(n)).unwrap();
        }
    });
    tidy(&world);
    assert_eq!(pages(&world, &tree), 1);
    commit(&world, |txn| drop(tree.put(txn, &key(45), b"new").unwrap()));
    assert!(tree.advance(&mut reader, Way::Forward, Unbounded, &mut entry).unwrap());
    assert_eq!((entry.key(), entry.value()), (&key(45)[..], &b"new"[..]));
}

/// After a crash nobody remembers which leaves are thin. A scan does.
#[test]
fn a_scan_notes_leaves_full_of_ghosts() {
    let world = World::new();
    let tree = tall(&world);
    commit(&world, |txn| {
        for n in 0..ROWS {
            tree.delete(txn, &long(n)).unwrap();
        }
    });
    // Freeing a tree forgets its notes. This one lives on, but nobody remembers.
    let noted = || world.space.stats().thin_leaves;
    let forget = || {
        let mut system = world.txns.begin_system().unwrap();
        assert!(!tree.free_some(&mut system, 0).unwrap());
        assert_eq!(noted(), 0);
    };
    forget();
    assert_eq!(scan_all(&tree, &mut world.begin()), []);
    assert!(noted() > 50, "{}", noted());
    forget();
    assert_eq!(scan_back(&tree, &mut world.begin(), Unbounded, Unbounded).unwrap(), []);
    assert!(noted() > 50, "{}", noted());
    tidy(&world);
    assert_eq!(pages(&world, &tree), 1);
}

#[test]
fn a_rolled_back_load_gives_its_pages_back() {
    let world = World::new();
    let tree = world.tree();
    commit(&world, |txn| drop(tree.put(txn, &long(ROWS), b"stays").unwrap()));
    let mut loser = world.begin();
    for n in 0..ROWS {
        tree.put(&mut loser, &long(n), &[1; 100]).unwrap();
    }
    loser.abort().unwrap();
    tidy(&world);
    assert_eq!(pages(&world, &tree), 1);
    assert_eq!(get(&tree, &mut world.begin(), &long(ROWS)), Some(b"stays".to_vec()));
}

/// Twenty times the tree's size goes through it; it stays what a window of rows needs.
fn churn(order: fn(u64, u64) -> (u64, u64)) {
    const WINDOW: u64 = 400;
    let world = World::with(&Setup { frames: 64, ..Setup::default() });
    let tree = world.tree();
    let mut most = 0;
    for round in 0..20 * WINDOW {
        let (insert, delete) = order(round, WINDOW);
        commit(&world, |txn| {
            tree.put(txn, &key(insert), &[3; 60]).unwrap();
            tree.delete(txn, &key(delete)).unwrap();
        });
        if round % 50 == 0 {
            tidy(&world);
            most = most.max(world.space.pages_in_use().unwrap());
        }
    }
    tidy(&world);
    // 400 rows of 81 bytes are 8 pages; twice that is room for half-full leaves and unsettled ghosts.
    assert!(most <= 24, "{most} pages");
    world.verify(&[&tree]);
}

#[test]
fn a_queue_stays_small_upwards() {
    churn(|round, window| (round + window, round));
}

#[test]
fn a_queue_stays_small_downwards() {
    churn(|round, window| (10_000_000 - round - window, 10_000_000 - round));
}

#[test]
fn random_churn_stays_small() {
    churn(|round, window| {
        let at = |round: u64| round.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 38;
        (at(round + window), at(round))
    });
}
