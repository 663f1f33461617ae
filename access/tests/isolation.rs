//! Who waits for whom: phantoms, absent keys, ghosts, isolation levels.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Included, Unbounded};

use argali_access::{BTree, Entry, Survey, TreeStats};
use argali_base::Error;
use argali_txn::{Durability, Isolation, LockMode, LockName, Txn};
use common::{Scan, WAYS, World, get, key, scan, scan_all, scan_back, tens};

const LEVELS: [Isolation; 3] =
    [Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted];

fn blocked<T: std::fmt::Debug>(result: argali_base::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::LockTimeout { .. } | Error::Deadlock { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Whether a transaction that does not wait could insert `key` just now.
fn could_insert(world: &World, tree: &BTree, key: &[u8]) -> bool {
    let mut txn = world.hasty(Isolation::Serializable);
    let free = !blocked(tree.put(&mut txn, key, b"new"));
    txn.abort().unwrap();
    free
}

fn range(scan: Scan, tree: &BTree, txn: &mut Txn, from: u64, to: u64) -> usize {
    scan(tree, txn, Included(&key(from)), Excluded(&key(to))).unwrap().len()
}

#[test]
fn a_scanned_range_takes_no_phantoms_until_commit() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    for (isolation, (way, scan)) in LEVELS.iter().flat_map(|level| WAYS.map(|way| (*level, way))) {
        let serializable = isolation == Isolation::Serializable;
        let mut reader = world.begin_at(isolation);
        assert_eq!(range(scan, &tree, &mut reader, 35, 65), 3, "40, 50, 60 {way}");
        for inside in [35, 36, 45, 55, 64] {
            assert_eq!(could_insert(&world, &tree, &key(inside)), !serializable, "{inside} {way}");
        }
        for outside in [5, 25, 34, 65, 69, 75, 101] {
            assert!(could_insert(&world, &tree, &key(outside)), "{outside} {way}");
        }
        assert_eq!(range(scan, &tree, &mut reader, 35, 65), 3);
        reader.commit(Durability::Sync).unwrap();
        assert!(could_insert(&world, &tree, &key(45)));
    }
}

/// Without room for claims, the gaps of keys are locked, and those are wider than the range.
#[test]
fn a_range_scanned_by_locks_takes_no_phantoms_either() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    for (way, scan) in WAYS {
        let mut reader = world.begin_locking();
        assert_eq!(range(scan, &tree, &mut reader, 35, 65), 3, "40, 50, 60 {way}");
        // The gap below 40 is locked as a whole: 31 waits, too, though it is no phantom.
        for inside in [31, 36, 45, 55, 64, 65, 69] {
            assert!(!could_insert(&world, &tree, &key(inside)), "{inside} {way}");
        }
        for outside in [5, 25, 75, 101] {
            assert!(could_insert(&world, &tree, &key(outside)), "{outside} {way}");
        }
        assert_eq!(range(scan, &tree, &mut reader, 35, 65), 3);
        reader.commit(Durability::Sync).unwrap();
        assert!(could_insert(&world, &tree, &key(45)));
        // What the inserters left are ghosts; they are borders now, and must guard as well.
    }
}

#[test]
fn a_scan_to_the_end_guards_what_lies_above() {
    let world = World::new();
    let kinds = [World::begin as fn(&World) -> Txn, World::begin_locking];
    for (begin, (way, scan)) in kinds.iter().flat_map(|begin| WAYS.map(|way| (begin, way))) {
        for tree in [tens(&world, 3, b"v"), world.tree()] {
            let mut reader = begin(&world);
            let seen = scan(&tree, &mut reader, Unbounded, Unbounded).unwrap().len();
            for outside in [5, 99] {
                assert!(!could_insert(&world, &tree, &key(outside)), "{outside} {way}");
            }
            assert_eq!(scan_all(&tree, &mut reader).len(), seen);
            reader.commit(Durability::Sync).unwrap();
            assert!(could_insert(&world, &tree, &key(99)));
        }
    }
}

/// Leaves of four rows: every gap that a scan passes at a leaf's border is guarded, too.
#[test]
fn gaps_across_leaves_are_guarded() {
    let world = World::new();
    let tree = tens(&world, 40, &[0; 800]);
    assert!(world.verify(&[&tree])[0].pages > 10);
    let kinds = [World::begin as fn(&World) -> Txn, World::begin_locking];
    for (begin, (way, scan)) in kinds.iter().flat_map(|begin| WAYS.map(|way| (begin, way))) {
        let mut reader = begin(&world);
        assert_eq!(range(scan, &tree, &mut reader, 0, 1000), 40);
        for n in 1..=40 {
            assert!(!could_insert(&world, &tree, &key(10 * n - 5)), "below {} {way}", 10 * n);
            assert!(!could_insert(&world, &tree, &key(10 * n + 1)), "above {} {way}", 10 * n);
        }
    }
}

/// One step backward guards what it passed and not what lies beyond: the border above, the gap between,
/// and the key it found.
#[test]
fn one_step_backward_guards_the_gap_it_crossed() {
    let world = World::new();
    let exactly = (World::begin as fn(&World) -> Txn, [0, 1, 4], [-1, 5]);
    let by_locks = (World::begin_locking as fn(&World) -> Txn, [-1, 1, 9], [-11, 11]);
    for (begin, inside, outside) in [exactly, by_locks] {
        let tree = tens(&world, 40, &[0; 800]);
        for n in 2_u64..40 {
            let mut reader = begin(&world);
            let (bound, mut entry) = (key(10 * n + 5), Entry::default());
            assert!(tree.prev(&mut reader, Unbounded, Excluded(&bound), &mut entry).unwrap());
            assert_eq!(entry.key(), key(10 * n));
            for inside in inside.map(|by| (10 * n).strict_add_signed(by)) {
                assert!(!could_insert(&world, &tree, &key(inside)), "{inside}");
            }
            for outside in outside.map(|by| (10 * n).strict_add_signed(by)) {
                assert!(could_insert(&world, &tree, &key(outside)), "{outside}");
            }
        }
    }
}

/// A step that goes on where the last one was relies on the gap the last one locked; one that begins
/// elsewhere must not.
#[test]
fn a_step_from_a_key_never_scanned_guards_the_gap_below_it() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    let mut reader = world.begin_locking();
    let (mut entry, bound) = (Entry::default(), key(50));
    // Under read committed nothing is locked, but the trace leads to the key.
    let mut glance = world.begin_at(Isolation::ReadCommitted);
    assert!(tree.next(&mut glance, Included(&bound), Unbounded, &mut entry).unwrap());
    assert_eq!(entry.key(), bound);
    assert!(tree.prev(&mut reader, Unbounded, Excluded(&bound), &mut entry).unwrap());
    assert_eq!(entry.key(), key(40));
    assert!(!could_insert(&world, &tree, &key(45)));
    assert!(could_insert(&world, &tree, &key(55)));
}

#[test]
fn an_inserter_keeps_both_halves_of_the_gap_it_relies_on() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    let mut txn = world.begin_locking();
    assert_eq!(range(scan, &tree, &mut txn, 35, 45), 1);
    tree.put(&mut txn, &key(37), b"mine").unwrap();
    for n in [36, 38, 44] {
        assert!(!could_insert(&world, &tree, &key(n)), "{n}");
    }
    // A gap it never read is nobody's but for the key itself.
    tree.put(&mut txn, &key(77), b"mine").unwrap();
    assert!(could_insert(&world, &tree, &key(76)));
    assert!(could_insert(&world, &tree, &key(78)));
    assert!(!could_insert(&world, &tree, &key(77)));
}

#[test]
fn an_absent_key_that_was_read_stays_absent() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    for isolation in LEVELS {
        let mut reader = world.begin_at(isolation);
        assert_eq!(get(&tree, &mut reader, &key(45)), None);
        let free = isolation == Isolation::ReadCommitted;
        assert_eq!(could_insert(&world, &tree, &key(45)), free, "{isolation:?}");
        assert!(could_insert(&world, &tree, &key(44)), "neighbours may come");
        assert!(could_insert(&world, &tree, &key(46)));
        reader.commit(Durability::Sync).unwrap();
    }
}

#[test]
fn nobody_reads_what_is_not_committed() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut writer = world.begin();
    tree.put(&mut writer, &key(20), b"new").unwrap();
    tree.delete(&mut writer, &key(30)).unwrap();
    tree.put(&mut writer, &key(35), b"new").unwrap();
    for isolation in LEVELS {
        for n in [20, 30, 35] {
            let mut reader = world.hasty(isolation);
            assert!(blocked(tree.get(&mut reader, &key(n), &mut Vec::new())), "{isolation:?} {n}");
            let mut reader = world.hasty(isolation);
            let from = key(n - 1);
            let row = scan(&tree, &mut reader, Included(&from), Included(&key(n)));
            assert!(blocked(row), "{isolation:?} scan {n}");
            let mut reader = world.hasty(isolation);
            let row = scan_back(&tree, &mut reader, Included(&from), Included(&key(n)));
            assert!(blocked(row), "{isolation:?} scan back {n}");
        }
    }
    writer.abort().unwrap();
    for isolation in LEVELS {
        let mut reader = world.hasty(isolation);
        assert_eq!(get(&tree, &mut reader, &key(20)), Some(b"old".to_vec()));
        assert_eq!(get(&tree, &mut reader, &key(30)), Some(b"old".to_vec()));
        assert_eq!(get(&tree, &mut reader, &key(35)), None);
        assert_eq!(scan_all(&tree, &mut reader).len(), 10);
    }
}

#[test]
fn read_committed_keeps_no_read_lock() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut reader = world.begin_at(Isolation::ReadCommitted);
    // Some other transaction is at work on the page, so the reader cannot do without the lock.
    let mut other = world.begin();
    tree.put(&mut other, &key(90), b"new").unwrap();
    assert_eq!(get(&tree, &mut reader, &key(20)), Some(b"old".to_vec()));
    let mut writer = world.hasty(Isolation::Serializable);
    tree.put(&mut writer, &key(20), b"new").unwrap();
    writer.commit(Durability::Sync).unwrap();
    assert_eq!(get(&tree, &mut reader, &key(20)), Some(b"new".to_vec()));
}

/// Point reads of pages on which everything is committed lock nothing under read committed.
#[test]
fn commit_lsn_saves_the_lock() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut reader = world.begin_at(Isolation::ReadCommitted);
    get(&tree, &mut reader, &key(10));
    let before = world.txns.lock_stats().acquired;
    get(&tree, &mut reader, &key(20));
    scan_all(&tree, &mut reader);
    scan_back(&tree, &mut reader, Unbounded, Unbounded).unwrap();
    assert_eq!(world.txns.lock_stats().acquired, before);
}

#[test]
fn a_lock_on_the_tree_covers_its_keys() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut reader = world.begin();
    reader.lock(LockName::Database, LockMode::IS).unwrap();
    reader.lock(LockName::Tree(tree.root().get()), LockMode::S).unwrap();
    let before = world.txns.lock_stats().acquired;
    assert_eq!(scan_all(&tree, &mut reader).len(), 10);
    assert_eq!(scan_back(&tree, &mut reader, Unbounded, Unbounded).unwrap().len(), 10);
    get(&tree, &mut reader, &key(45));
    assert_eq!(world.txns.lock_stats().acquired, before);
    assert!(!could_insert(&world, &tree, &key(45)));
}

#[test]
fn readers_for_update_do_not_deadlock() {
    let world = World::new();
    let tree = tens(&world, 1, b"old");
    let mut first = world.begin_at(Isolation::ReadCommitted);
    assert!(tree.get_for_update(&mut first, &key(10), &mut Vec::new()).unwrap());
    let mut second = world.hasty(Isolation::ReadCommitted);
    assert!(blocked(tree.get_for_update(&mut second, &key(10), &mut Vec::new())));
    tree.put(&mut first, &key(10), b"new").unwrap();
    first.commit(Durability::Sync).unwrap();
}

/// Fills the leaf of `tens` until it must be cleared or split; returns the ghosts that are left.
fn press(world: &World, trees: &[&BTree]) -> u64 {
    for n in 0..6 {
        let mut txn = world.begin();
        trees[0].put(&mut txn, &key(900 + n), &[1; 600]).unwrap();
        txn.commit(Durability::Sync).unwrap();
    }
    world.verify(trees)[0].ghosts
}

fn delete_tens(world: &World, tree: &BTree, from: u64, to: u64) {
    let mut txn = world.begin();
    for n in from..=to {
        assert!(tree.delete(&mut txn, &key(10 * n)).unwrap().is_some());
    }
    txn.commit(Durability::Sync).unwrap();
}

#[test]
fn ghosts_go_when_nobody_can_want_them() {
    let world = World::new();
    let tree = tens(&world, 10, &[0; 300]);
    delete_tens(&world, &tree, 1, 9);
    assert_eq!(world.verify(&[&tree])[0].ghosts, 9);
    assert_eq!(press(&world, &[&tree]), 0);
    assert_eq!(world.verify(&[&tree])[0].rows, 7);
}

#[test]
fn ghosts_stay_while_a_transaction_as_old_as_their_page_is_active() {
    let world = World::new();
    let tree = tens(&world, 10, &[0; 300]);
    let other = world.tree();
    let mut old = world.begin();
    other.put(&mut old, b"k", b"v").unwrap();
    delete_tens(&world, &tree, 1, 9);
    assert_eq!(press(&world, &[&tree, &other]), 9, "split instead");
    old.commit(Durability::Sync).unwrap();
}

#[test]
fn ghosts_stay_while_a_reader_relies_on_them() {
    let world = World::new();
    let tree = tens(&world, 10, &[0; 300]);
    delete_tens(&world, &tree, 4, 6);
    let mut reader = world.begin_locking();
    assert_eq!(range(scan, &tree, &mut reader, 35, 65), 0);
    delete_tens(&world, &tree, 8, 10);
    assert_eq!(press(&world, &[&tree]), 3, "80, 90 and 100 went; 40, 50 and 60 stay");
    for n in [36, 40, 45, 50, 55, 64] {
        assert!(!could_insert(&world, &tree, &key(n)), "{n}");
    }
    assert_eq!(range(scan, &tree, &mut reader, 35, 65), 0);
}

/// A claim needs no borders.
#[test]
fn ghosts_go_although_their_range_is_claimed() {
    let world = World::new();
    for (_, scan) in WAYS {
        let tree = tens(&world, 10, &[0; 300]);
        delete_tens(&world, &tree, 4, 6);
        let mut reader = world.begin();
        assert_eq!(range(scan, &tree, &mut reader, 35, 65), 0);
        delete_tens(&world, &tree, 8, 10);
        let before = tree_pages(&world, &tree);
        for n in 0..6 {
            let mut txn = world.begin();
            tree.put(&mut txn, &key(900 + n), &[1; 600]).unwrap();
            txn.commit(Durability::Sync).unwrap();
        }
        assert!(before.ghosts == 6 && tree_pages(&world, &tree).ghosts == 0);
        for n in [36, 40, 45, 50, 55, 64] {
            assert!(!could_insert(&world, &tree, &key(n)), "{n}");
        }
        assert!(could_insert(&world, &tree, &key(65)));
        assert_eq!(range(scan, &tree, &mut reader, 35, 65), 0);
    }
}

fn tree_pages(world: &World, tree: &BTree) -> TreeStats {
    tree.verify(&mut Survey::new(&world.pool)).unwrap()
}

/// A scanner's own ghosts are borders of its own gaps.
#[test]
fn nobody_purges_the_ghosts_they_locked_themselves() {
    let world = World::new();
    let tree = tens(&world, 10, &[0; 300]);
    delete_tens(&world, &tree, 4, 6);
    let mut txn = world.begin_locking();
    assert_eq!(range(scan, &tree, &mut txn, 35, 65), 0);
    // The page is settled: nothing but the locks keeps them.
    tree.put(&mut txn, &key(900), &[1; 900]).unwrap();
    tree.put(&mut txn, &key(901), &[1; 900]).unwrap();
    assert_eq!(world.verify(&[&tree])[0].ghosts, 3);
    assert!(!could_insert(&world, &tree, &key(45)));
}

#[test]
fn scans_respect_every_kind_of_bound() {
    let world = World::new();
    let tree = tens(&world, 5, b"v");
    let mut txn = world.begin();
    let (low, high) = (key(20), key(40));
    let mut count = |from, to| {
        let mut back = scan_back(&tree, &mut txn, from, to).unwrap();
        back.reverse();
        assert_eq!(scan(&tree, &mut txn, from, to).unwrap(), back);
        back.len()
    };
    assert_eq!(count(Included(&low[..]), Included(&high[..])), 3);
    assert_eq!(count(Excluded(&low[..]), Included(&high[..])), 2);
    assert_eq!(count(Included(&low[..]), Excluded(&high[..])), 2);
    assert_eq!(count(Excluded(&low[..]), Excluded(&high[..])), 1);
    assert_eq!(count(Unbounded, Excluded(&low[..])), 1);
    assert_eq!(count(Excluded(&high[..]), Unbounded), 1);
    assert_eq!(count(Included(&high[..]), Excluded(&low[..])), 0);
}
