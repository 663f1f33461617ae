//! Taking changes back after others changed the tree around them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use argali_access::BTree;
use argali_base::{Lsn, TxnId};
use argali_txn::{Durability, Txn};
use argali_wal::{Body, RecordBuf, TxnState, Undo};
use common::{Setup, World, key, scan_all};

/// Fills `tree` with committed rows `0, step, 2·step …` below `end`.
fn fill(world: &World, tree: &BTree, step: u64, end: u64, value: &[u8]) {
    let mut txn = world.begin();
    for n in (0..end).step_by(step as usize) {
        tree.put(&mut txn, &key(n), value).unwrap();
    }
    txn.commit(Durability::Sync).unwrap();
}

/// Updates, shrinks, deletes and inserts all over the tree.
fn meddle(tree: &BTree, txn: &mut Txn, end: u64) {
    for n in 0..end {
        match n % 8 {
            0 => drop(tree.delete(txn, &key(n)).unwrap()),
            4 => drop(tree.put(txn, &key(n), b"short").unwrap()),
            _ => drop(tree.put(txn, &key(n), &[1; 40]).unwrap()),
        }
    }
    // Once more over the same rows: ghosts revived, slack used again.
    for n in (0..end).step_by(12) {
        tree.put(txn, &key(n), &[2; 90]).unwrap();
        tree.delete(txn, &key(n)).unwrap();
        tree.put(txn, &key(n), b"x").unwrap();
    }
}

#[test]
fn a_large_rollback_finds_its_rows_after_others_split_their_leaves() {
    let world = World::new();
    let tree = world.tree();
    fill(&world, &tree, 4, 1600, &[9; 60]);
    let before = scan_all(&tree, &mut world.begin());
    let mut loser = world.begin();
    meddle(&tree, &mut loser, 1600);
    let mut winner = world.begin();
    for n in 0..1600 {
        let mut between = key(n);
        between.push(b'+');
        tree.put(&mut winner, &between, &[5; 100]).unwrap();
    }
    winner.commit(Durability::Sync).unwrap();
    loser.abort().unwrap();
    world.verify(&[&tree]);
    let after = scan_all(&tree, &mut world.begin());
    let after: Vec<_> = after.into_iter().filter(|(key, _)| !key.ends_with(b"+")).collect();
    assert_eq!(after, before);
}

/// The room of deleted and shrunk rows stays theirs, however hard others press for it.
#[test]
fn undo_of_a_delete_always_fits() {
    let world = World::new();
    let tree = world.tree();
    fill(&world, &tree, 1, 40, &[3; 600]);
    let before = scan_all(&tree, &mut world.begin());
    let mut loser = world.begin();
    for n in 0..40 {
        if n % 2 == 0 {
            tree.delete(&mut loser, &key(n)).unwrap();
        } else {
            tree.put(&mut loser, &key(n), b"").unwrap();
        }
    }
    for n in 0..200 {
        let mut txn = world.begin();
        let mut between = key(n % 40);
        between.extend_from_slice(format!("+{n}").as_bytes());
        tree.put(&mut txn, &between, &[4; 500]).unwrap();
        tree.delete(&mut txn, &between).unwrap();
        txn.commit(Durability::Sync).unwrap();
    }
    loser.abort().unwrap();
    world.verify(&[&tree]);
    assert_eq!(scan_all(&tree, &mut world.begin()), before);
}

/// Undoable updates and compensations per transaction, from the log.
fn undoable_and_clrs(world: &World) -> HashMap<TxnId, (u64, u64)> {
    world.wal.force(Lsn::MAX).unwrap();
    let (mut scan, mut buf) = (world.wal.scan(Lsn::FIRST), RecordBuf::new());
    let mut counts: HashMap<TxnId, (u64, u64)> = HashMap::new();
    while scan.next(&mut buf).unwrap() {
        let record = buf.record();
        let (updates, clrs) = counts.entry(record.txn).or_default();
        match record.body {
            Body::Update { undo: Undo::Logical { .. }, .. } => *updates += 1,
            Body::Compensation { changes, .. } => {
                assert_eq!(changes.iter().count(), 1, "undo of a row changes one page");
                *clrs += 1;
            }
            _ => {}
        }
    }
    counts
}

#[test]
fn every_undone_record_has_exactly_one_clr() {
    let world = World::new();
    let tree = world.tree();
    fill(&world, &tree, 4, 400, &[9; 60]);
    let mut loser = world.begin();
    let id = loser.id();
    meddle(&tree, &mut loser, 200);
    let savepoint = loser.savepoint();
    meddle(&tree, &mut loser, 400);
    loser.rollback_to(savepoint).unwrap();
    meddle(&tree, &mut loser, 100);
    loser.abort().unwrap();
    let (updates, clrs) = undoable_and_clrs(&world)[&id];
    assert!(updates > 700, "{updates}");
    assert_eq!(clrs, updates);
}

/// As after a crash: somebody else, without locks, finishes what the transaction began.
#[test]
fn a_loser_is_undone_without_its_locks_in_a_tiny_pool() {
    let world = World::with(&Setup { frames: 16, ..Setup::default() });
    let tree = world.tree();
    fill(&world, &tree, 4, 800, &[9; 60]);
    let before = scan_all(&tree, &mut world.begin());
    let mut txn = world.begin();
    meddle(&tree, &mut txn, 800);
    let mut active = Vec::new();
    world.txns.active(&mut active);
    assert_eq!((active.len(), active[0].state), (1, TxnState::Running));
    std::mem::forget(txn);
    world.txns.adopt(active[0]).abort().unwrap();
    world.verify(&[&tree]);
    let mut reader = world.txns.begin_system().unwrap();
    assert_eq!(scan_all(&tree, &mut reader), before);
}

#[test]
fn an_aborted_insert_leaves_no_row() {
    let world = World::new();
    let tree = world.tree();
    let mut txn = world.begin();
    assert!(tree.insert_new(&mut txn, b"k", b"v").unwrap());
    assert!(!tree.insert_new(&mut txn, b"k", b"w").unwrap());
    txn.abort().unwrap();
    let mut txn = world.begin();
    assert_eq!(common::get(&tree, &mut txn, b"k"), None);
    assert_eq!(tree.delete(&mut txn, b"k").unwrap(), None);
    assert!(tree.insert_new(&mut txn, b"k", b"w").unwrap());
    txn.commit(Durability::Sync).unwrap();
    assert_eq!(common::get(&tree, &mut world.begin(), b"k"), Some(b"w".to_vec()));
}
