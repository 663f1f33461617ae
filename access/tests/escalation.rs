//! Many locks on keys become one on their tree, if nobody stands in the way; what was guarded stays so.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Included};

use argali_access::BTree;
use argali_base::Error;
use argali_txn::{Durability, Isolation, LockMode, LockName, Txn};
use common::{World, get, key, scan, scan_all, without_claims};

const MANY: usize = 50;

/// A tree with committed rows 0, 10, … 1990, and a limit of [`MANY`].
fn stage() -> (World, BTree) {
    let world = World::new();
    world.txns.set_escalation(MANY);
    let tree = world.tree();
    for n in 0..200 {
        let mut txn = world.begin();
        tree.put(&mut txn, &key(10 * n), b"row").unwrap();
        txn.commit(Durability::Relaxed).unwrap();
    }
    assert_eq!(world.txns.lock_stats().escalations, 0);
    (world, tree)
}

fn tree_lock(txn: &Txn, tree: &BTree) -> Option<LockMode> {
    txn.holds(LockName::Tree(tree.root().get()))
}

fn rows(tree: &BTree, txn: &mut Txn, from: u64, to: u64) -> usize {
    scan(tree, txn, Included(&key(from)), Excluded(&key(to))).unwrap().len()
}

fn waits<T: std::fmt::Debug>(result: argali_base::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::LockTimeout { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

fn could_put(world: &World, tree: &BTree, n: u64) -> bool {
    let mut txn = world.hasty(Isolation::Serializable);
    let free = !waits(tree.put(&mut txn, &key(n), b"new"));
    txn.abort().unwrap();
    free
}

fn could_get(world: &World, tree: &BTree, n: u64) -> bool {
    let mut txn = world.hasty(Isolation::Serializable);
    !waits(tree.get(&mut txn, &key(n), &mut Vec::new()))
}

#[test]
fn a_reader_of_many_keys_locks_the_tree() {
    let (world, tree) = stage();
    let mut reader = world.begin_locking();
    assert_eq!(rows(&tree, &mut reader, 0, 1000), 100);
    assert_eq!(tree_lock(&reader, &tree), Some(LockMode::S));
    assert_eq!(world.txns.lock_stats().escalations, 1);
    for n in [5, 995, 10, 1500, 1501] {
        assert!(!could_put(&world, &tree, n), "{n}");
        assert!(could_get(&world, &tree, n), "{n}");
    }
    assert_eq!(rows(&tree, &mut reader, 0, 1000), 100);
    reader.commit(Durability::Sync).unwrap();
    assert!(could_put(&world, &tree, 5) && could_put(&world, &tree, 10));
}

#[test]
fn a_writer_of_many_keys_locks_the_tree_and_can_take_everything_back() {
    let (world, tree) = stage();
    let before = scan_all(&tree, &mut world.begin());
    let mut writer = world.begin();
    for n in 0..30 {
        tree.put(&mut writer, &key(n), b"new").unwrap();
    }
    let savepoint = writer.savepoint();
    for n in 30..100 {
        tree.delete(&mut writer, &key(10 * n)).unwrap();
        tree.put(&mut writer, &key(n), b"new").unwrap();
    }
    assert_eq!(tree_lock(&writer, &tree), Some(LockMode::X));
    assert!(!could_get(&world, &tree, 1990) && !could_put(&world, &tree, 5000));
    writer.rollback_to(savepoint).unwrap();
    assert!(!could_get(&world, &tree, 1990), "locks stay when part is taken back");
    assert_eq!(get(&tree, &mut writer, &key(29)), Some(b"new".to_vec()));
    assert_eq!(get(&tree, &mut writer, &key(300)), Some(b"row".to_vec()));
    writer.abort().unwrap();
    assert!(could_get(&world, &tree, 1990) && could_put(&world, &tree, 5000));
    assert_eq!(scan_all(&tree, &mut world.begin()), before);
}

/// A claim is one, however many rows it covers.
#[test]
fn claims_do_not_count() {
    let (world, tree) = stage();
    let mut reader = world.begin();
    assert_eq!(rows(&tree, &mut reader, 0, 1000), 100);
    assert_eq!(rows(&tree, &mut reader, 0, 1000), 100);
    assert_eq!(tree_lock(&reader, &tree), Some(LockMode::IS));
    assert!(!could_put(&world, &tree, 5) && could_put(&world, &tree, 1500));
}

/// The other outcome: somebody else writes in the tree. Nobody waits, keys and gaps stay locked.
#[test]
fn a_refused_escalation_changes_nothing_and_is_tried_again() {
    let (world, tree) = stage();
    let mut other = world.begin();
    tree.put(&mut other, &key(1995), b"far away").unwrap();
    let mut reader = world.hasty(Isolation::Serializable);
    without_claims(&mut reader);
    assert_eq!(rows(&tree, &mut reader, 0, 900), 90);
    assert_eq!(tree_lock(&reader, &tree), Some(LockMode::IS));
    assert_eq!(world.txns.lock_stats().escalations, 0);
    for n in [5, 445, 895] {
        assert!(!could_put(&world, &tree, n), "a phantom at {n}");
    }
    assert!(could_put(&world, &tree, 1705), "others write where nobody read");
    tree.put(&mut other, &key(1705), b"and goes on").unwrap();
    other.commit(Durability::Sync).unwrap();
    assert_eq!(rows(&tree, &mut reader, 900, 1600), 70);
    assert_eq!(tree_lock(&reader, &tree), Some(LockMode::S));
    assert!(!could_put(&world, &tree, 5) && !could_put(&world, &tree, 1705));
    assert_eq!(rows(&tree, &mut reader, 0, 900), 90);
}

/// A reader with the tree locked begins to write: others may still read what it does not touch.
#[test]
fn a_reader_that_begins_to_write_keeps_its_range() {
    let (world, tree) = stage();
    let mut txn = world.begin_locking();
    assert_eq!(rows(&tree, &mut txn, 0, 1000), 100);
    tree.put(&mut txn, &key(555), b"new").unwrap();
    assert_eq!(tree_lock(&txn, &tree), Some(LockMode::SIX));
    assert!(could_get(&world, &tree, 550) && !could_get(&world, &tree, 555));
    assert!(!could_put(&world, &tree, 556) && !could_put(&world, &tree, 1990));
    assert_eq!(rows(&tree, &mut txn, 0, 1000), 101);
    txn.commit(Durability::Sync).unwrap();
    assert_eq!(get(&tree, &mut world.begin(), &key(555)), Some(b"new".to_vec()));
}

/// Locks given back early, before the commit is durable, must tell whoever takes them next.
#[test]
fn whoever_sees_an_escalated_writer_waits_for_its_commit() {
    let (world, tree) = stage();
    let mut writer = world.begin();
    for n in 0..100 {
        tree.put(&mut writer, &key(n), b"new").unwrap();
    }
    assert_eq!(tree_lock(&writer, &tree), Some(LockMode::X));
    let commit = writer.commit(Durability::Sync).unwrap();
    let mut reader = world.begin();
    assert!(get(&tree, &mut reader, &key(7)).is_some());
    assert!(reader.commit(Durability::Sync).unwrap() >= commit, "its horizon");
}

#[test]
fn it_can_be_switched_off_and_other_trees_do_not_count() {
    let (world, tree) = stage();
    let second = world.tree();
    let mut txn = world.begin_locking();
    for n in 0..MANY as u64 - 1 {
        tree.get(&mut txn, &key(n), &mut Vec::new()).unwrap();
        second.get(&mut txn, &key(n), &mut Vec::new()).unwrap();
    }
    tree.get(&mut txn, &key(0), &mut Vec::new()).unwrap();
    assert_eq!(world.txns.lock_stats().escalations, 0);
    world.txns.set_escalation(usize::MAX);
    assert_eq!(rows(&tree, &mut txn, 0, 2000), 200);
    assert_eq!(tree_lock(&txn, &tree), Some(LockMode::IS));
}
