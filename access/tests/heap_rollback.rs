//! Taking heap changes back: one compensation each, by whoever does it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use argali_access::{Heap, RowId, Space};
use argali_base::{Lsn, TxnId};
use argali_txn::{Durability, Txn};
use argali_wal::{Body, RecordBuf, TxnState, Undo};
use common::{World, rows};

fn fill(world: &World, heap: &Heap, count: usize) -> Vec<RowId> {
    let mut txn = world.begin();
    let ids = (0..count).map(|n| heap.insert(&mut txn, &vec![n as u8; 300]).unwrap()).collect();
    txn.commit(Durability::Sync).unwrap();
    ids
}

/// Inserts, grows, moves twice, shrinks and deletes.
fn meddle(heap: &Heap, txn: &mut Txn, ids: &[RowId]) {
    for (n, id) in ids.iter().enumerate() {
        heap.update(txn, *id, &[1; 900]).unwrap();
        match n % 5 {
            0 => heap.delete(txn, *id).unwrap(),
            1 => heap.update(txn, *id, &[2; 2500]).unwrap(),
            2 => heap.update(txn, *id, b"").unwrap(),
            3 => {
                heap.update(txn, *id, &[3; 2600]).unwrap();
                heap.update(txn, *id, &[4; 250]).unwrap();
                heap.update(txn, *id, &[5; 3900]).unwrap();
            }
            _ => {
                let new = heap.insert(txn, &[6; 500]).unwrap();
                heap.update(txn, new, &[7; 1200]).unwrap();
                heap.delete(txn, new).unwrap();
            }
        }
    }
}

/// Of each transaction: pages of its undoable records, and of its compensations, oldest first.
fn undoable_and_clrs(world: &World) -> HashMap<TxnId, (Vec<usize>, Vec<usize>)> {
    world.wal.force(Lsn::MAX).unwrap();
    let (mut scan, mut buf) = (world.wal.scan(Lsn::FIRST), RecordBuf::new());
    let mut counts: HashMap<TxnId, (Vec<usize>, Vec<usize>)> = HashMap::new();
    while scan.next(&mut buf).unwrap() {
        let record = buf.record();
        let (updates, clrs) = counts.entry(record.txn).or_default();
        match record.body {
            Body::Update { undo: Undo::Logical { .. }, changes } => {
                updates.push(changes.iter().count());
            }
            Body::Compensation { changes, .. } => clrs.push(changes.iter().count()),
            _ => {}
        }
    }
    counts
}

#[test]
fn every_undone_record_has_one_clr_for_the_same_pages() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 60);
    let before = rows(&heap, &mut world.begin()).unwrap();
    let mut loser = world.begin();
    let name = loser.id();
    meddle(&heap, &mut loser, &ids);
    loser.abort().unwrap();
    assert_eq!(rows(&heap, &mut world.begin()).unwrap(), before);
    world.verify_heap(&heap);
    let (updates, mut clrs) = undoable_and_clrs(&world).remove(&name).unwrap();
    clrs.reverse();
    assert_eq!(updates, clrs);
    for pages in 1..=3 {
        assert!(updates.contains(&pages), "no change of {pages} pages: {updates:?}");
    }
}

/// As after a crash: somebody else, without locks and without what memory knew, finishes the rollback.
#[test]
fn a_loser_is_undone_without_its_locks_in_a_tiny_pool() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 80);
    let before = rows(&heap, &mut world.begin()).unwrap();
    let mut txn = world.begin();
    meddle(&heap, &mut txn, &ids);
    let savepoint = txn.savepoint();
    for id in &ids[1..] {
        // Some of them are deleted already.
        let _ = heap.update(&mut txn, *id, &[8; 1700]);
    }
    txn.rollback_to(savepoint).unwrap();
    let mut active = Vec::new();
    world.txns.active(&mut active);
    assert_eq!((active.len(), active[0].state), (1, TxnState::Running));
    std::mem::forget(txn);
    world.txns.adopt(active[0]).abort().unwrap();
    world.verify_heap(&heap);
    let heap = Heap::open(&Space::open(&world.txns).unwrap(), heap.root());
    let mut system = world.txns.begin_system().unwrap();
    assert_eq!(rows(&heap, &mut system).unwrap(), before);
}

/// A heap nobody can reach is freed a few pages at a time, and can be checked in between.
#[test]
fn a_dropped_heap_gives_all_its_pages_back() {
    let world = World::new();
    let (catalog, heap) = (world.tree(), world.heap());
    let mut txn = world.begin();
    catalog.put(&mut txn, b"doomed", b"").unwrap();
    for n in 0..300_u64 {
        let id = heap.insert(&mut txn, &[1; 3000]).unwrap();
        if n % 10 == 0 {
            heap.update(&mut txn, id, &[1; 4000]).unwrap();
        }
    }
    txn.commit(Durability::Sync).unwrap();
    let (used, mut steps) = (world.space.pages_in_use().unwrap(), 0);
    loop {
        let mut txn = world.txns.begin_system().unwrap();
        let done = heap.free_some(&mut txn, 7).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        if done {
            break;
        }
        steps += 1;
        assert_eq!(world.space.pages_in_use().unwrap(), used - 7 * steps);
        let mut survey = argali_access::Survey::new(&world.pool);
        catalog.verify(survey.of("catalog")).unwrap();
        heap.verify_remains(survey.of("remains")).unwrap();
        world.space.verify(&mut survey, &mut |_| ()).unwrap();
        assert_eq!(survey.into_findings(), []);
    }
    assert_eq!(world.space.pages_in_use().unwrap(), 3, "map, catalog, the bare root");
    let mut txn = world.txns.begin_system().unwrap();
    catalog.remove_and_free(&mut txn, b"doomed", heap.root()).unwrap();
    txn.commit(Durability::Relaxed).unwrap();
    assert_eq!(world.space.pages_in_use().unwrap(), 2);
}
