//! What scans copy ahead is no answer: nothing of it is given out late, and nothing locked early.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Included, Unbounded};

use argali_access::{BTree, Entry, Way};
use argali_base::Error;
use argali_txn::{Durability, Isolation, LockMode, LockName, Txn};
use common::{World, get, key};

const LEVELS: [Isolation; 3] =
    [Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted];
type Begin = fn(&World) -> Txn;
/// Who claims nothing ahead (see `claims.rs` for those who do).
const CAUTIOUS: [(Isolation, Begin); 3] = [
    (Isolation::Serializable, World::begin_locking),
    (Isolation::RepeatableRead, |world| world.begin_at(Isolation::RepeatableRead)),
    (Isolation::ReadCommitted, |world| world.begin_at(Isolation::ReadCommitted)),
];
const WAYS: [Way; 2] = [Way::Forward, Way::Backward];

/// A tree with committed rows 0, 10, … of one leaf or two.
fn tens(world: &World, count: u64) -> BTree {
    let tree = world.tree();
    write(world, |txn| (0..count).for_each(|n| put(&tree, txn, 10 * n, b"old")));
    tree
}

fn put(tree: &BTree, txn: &mut Txn, n: u64, value: &[u8]) {
    tree.put(txn, &key(n), value).unwrap();
}

fn write(world: &World, body: impl FnOnce(&mut Txn)) {
    let mut txn = world.begin();
    body(&mut txn);
    txn.commit(Durability::Sync).unwrap();
}

/// The first step of a scan of everything.
fn first(tree: &BTree, txn: &mut Txn, way: Way, entry: &mut Entry) -> bool {
    match way {
        Way::Forward => tree.next(txn, Unbounded, Unbounded, entry).unwrap(),
        Way::Backward => tree.prev(txn, Unbounded, Unbounded, entry).unwrap(),
    }
}

/// A further one.
fn onward(tree: &BTree, txn: &mut Txn, way: Way, entry: &mut Entry) -> bool {
    tree.glide(txn.id(), way, Unbounded, entry) || tree.advance(txn, way, Unbounded, entry).unwrap()
}

/// Whether a transaction that does not wait could write `key` just now.
fn could_write(world: &World, tree: &BTree, n: u64) -> bool {
    let mut txn = world.hasty(Isolation::ReadCommitted);
    let written = tree.put(&mut txn, &key(n), b"new");
    txn.abort().unwrap();
    match written {
        Ok(_) => true,
        Err(Error::LockTimeout { .. } | Error::Deadlock { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_row_is_locked_when_it_is_given_out_and_not_before() {
    let world = World::new();
    let tree = tens(&world, 40);
    for ((level, begin), way) in CAUTIOUS.iter().flat_map(|level| WAYS.map(|way| (level, way))) {
        let (mut txn, mut entry) = (begin(&world), Entry::default());
        assert!(first(&tree, &mut txn, way, &mut entry));
        for given in 1..39 {
            let (last, next) = match way {
                Way::Forward => (given - 1, given),
                Way::Backward => (40 - given, 39 - given),
            };
            assert_eq!(entry.key(), key(10 * last), "{level:?} {way:?}");
            assert_eq!(could_write(&world, &tree, 10 * last), *level == Isolation::ReadCommitted);
            assert!(could_write(&world, &tree, 10 * next), "{level:?} {way:?} row {next}");
            assert!(onward(&tree, &mut txn, way, &mut entry));
        }
    }
}

/// After `given` rows, and so at every place in a copy and between two, another transaction changes the row
/// to come, deletes the one after it and inserts a third.
#[test]
fn what_others_changed_meanwhile_is_given_out_as_it_is_now() {
    for ((level, begin), way) in CAUTIOUS.iter().flat_map(|level| WAYS.map(|way| (level, way))) {
        for given in 1..36 {
            let world = World::new();
            let tree = tens(&world, 40);
            let at = |n: u64| match way {
                Way::Forward => key(10 * n),
                Way::Backward => key(10 * (39 - n)),
            };
            let (mut txn, mut entry) = (begin(&world), Entry::default());
            assert!(first(&tree, &mut txn, way, &mut entry));
            (1..given).for_each(|_| assert!(onward(&tree, &mut txn, way, &mut entry)));
            let inserted = [&at(given + 1)[..], b"+"].concat();
            write(&world, |other| {
                tree.put(other, &at(given), b"new").unwrap();
                tree.delete(other, &at(given + 1)).unwrap();
                tree.put(other, &inserted, b"more").unwrap();
            });
            let mut seen = |value: &[u8], key: &[u8]| {
                assert!(onward(&tree, &mut txn, way, &mut entry));
                assert_eq!(entry.row(), Some((key, value)), "{level:?} {way:?} after {given}");
            };
            seen(b"new", &at(given));
            seen(b"more", &inserted);
            seen(b"old", &at(given + 2));
        }
    }
}

/// The same by the scanning transaction itself, in a tree it has locked as a whole, too.
#[test]
fn what_the_transaction_changes_itself_it_sees_at_once() {
    let locked = [false, true].map(|locked| LEVELS.map(|level| (locked, level)));
    for ((locked, level), way) in
        locked.into_iter().flatten().flat_map(|case| WAYS.map(|way| (case, way)))
    {
        let world = World::new();
        let tree = tens(&world, 40);
        let (mut txn, mut entry) = (world.begin_at(level), Entry::default());
        if locked {
            txn.lock(LockName::Database, LockMode::IX).unwrap();
            txn.lock(LockName::Tree(tree.root().get()), LockMode::X).unwrap();
        }
        assert!(first(&tree, &mut txn, way, &mut entry));
        let mut n = if way == Way::Forward { 0 } else { 39 };
        for round in 0..19 {
            let step = |n: u64| if way == Way::Forward { n + 1 } else { n - 1 };
            // The row stood upon goes, the next one too, the one after it changes.
            tree.delete(&mut txn, &key(10 * n)).unwrap();
            tree.delete(&mut txn, &key(10 * step(n))).unwrap();
            if round == 18 {
                break;
            }
            n = step(step(n));
            put(&tree, &mut txn, 10 * n, b"mine");
            assert!(onward(&tree, &mut txn, way, &mut entry));
            assert_eq!(entry.row(), Some((&key(10 * n)[..], &b"mine"[..])), "{level:?} {way:?}");
        }
        txn.abort().unwrap();
        assert_eq!(get(&tree, &mut world.begin(), &key(0)), Some(b"old".to_vec()));
    }
}

#[test]
fn a_scan_turns_at_every_row() {
    let world = World::new();
    let tree = tens(&world, 150);
    for level in LEVELS {
        let (mut txn, mut entry) = (world.begin_at(level), Entry::default());
        for forth in (1..140).step_by(3) {
            assert!(tree.next(&mut txn, Included(&key(50)), Unbounded, &mut entry).unwrap());
            for n in 6..5 + forth {
                assert!(onward(&tree, &mut txn, Way::Forward, &mut entry));
                assert_eq!(entry.key(), key(10 * n));
            }
            for n in (0..4 + forth).rev() {
                assert!(onward(&tree, &mut txn, Way::Backward, &mut entry));
                assert_eq!(entry.key(), key(10 * n));
            }
            assert!(!onward(&tree, &mut txn, Way::Backward, &mut entry));
            assert_eq!((entry.row(), entry.key()), (None, &key(0)[..]), "it keeps its place");
            assert!(onward(&tree, &mut txn, Way::Forward, &mut entry));
            assert_eq!(entry.key(), key(10));
        }
    }
}

/// A copy is its transaction's: what read committed has at hand another one locks.
#[test]
fn a_copy_made_in_another_name_gives_nothing_out() {
    let world = World::new();
    let tree = tens(&world, 40);
    for way in WAYS {
        let (mut glance, mut entry) = (world.begin_at(Isolation::ReadCommitted), Entry::default());
        let from = key(100);
        assert!(tree.next(&mut glance, Included(&from), Unbounded, &mut entry).unwrap());
        (0..5).for_each(|_| assert!(onward(&tree, &mut glance, way, &mut entry)));
        let before = entry.key().to_vec();
        let mut reader = world.begin();
        assert!(onward(&tree, &mut reader, way, &mut entry));
        assert_ne!(entry.key(), before);
        let between = [before.min(entry.key().to_vec()), b"+".to_vec()].concat();
        let mut other = world.hasty(Isolation::Serializable);
        assert!(tree.put(&mut other, &between, b"phantom").is_err(), "{way:?}");
    }
}

/// An error leaves the place: with the lock given back, the scan goes on there.
#[test]
fn a_scan_goes_on_after_a_lock_timeout() {
    let world = World::new();
    let tree = tens(&world, 40);
    for (level, way) in LEVELS.into_iter().flat_map(|level| WAYS.map(|way| (level, way))) {
        let mut writer = world.begin();
        put(&tree, &mut writer, 200, b"new");
        let (mut txn, mut entry) = (world.hasty(level), Entry::default());
        assert!(first(&tree, &mut txn, way, &mut entry));
        let failed = loop {
            match tree.advance(&mut txn, way, Unbounded, &mut entry) {
                Ok(true) => {}
                done => break done,
            }
        };
        assert!(matches!(failed, Err(Error::LockTimeout { .. })), "{level:?} {way:?} {failed:?}");
        let place = if way == Way::Forward { key(190) } else { key(210) };
        assert_eq!((entry.row(), entry.key()), (None, &place[..]));
        writer.abort().unwrap();
        assert!(onward(&tree, &mut txn, way, &mut entry));
        assert_eq!(entry.row(), Some((&key(200)[..], &b"old"[..])));
    }
}

/// Bounds that move while a scan is under way, as those of one from both ends do.
#[test]
fn what_is_at_hand_heeds_the_bound_of_now() {
    let world = World::new();
    let tree = tens(&world, 40);
    for level in LEVELS {
        let (mut txn, mut entry) = (world.begin_at(level), Entry::default());
        assert!(first(&tree, &mut txn, Way::Forward, &mut entry));
        (0..9).for_each(|_| assert!(onward(&tree, &mut txn, Way::Forward, &mut entry)));
        let limit = key(100);
        let mut go = |limit| {
            tree.glide(txn.id(), Way::Forward, limit, &mut entry)
                || tree.advance(&mut txn, Way::Forward, limit, &mut entry).unwrap()
        };
        assert!(!go(Excluded(&limit)));
        assert!(go(Included(&limit)));
        assert!(!go(Included(&limit)));
        assert!(go(Unbounded));
        assert_eq!(entry.key(), key(110));
    }
}
