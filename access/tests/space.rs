//! Pages are handed out once, come back, and are reused; map pages grow in number.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::thread;

use argali_access::{BTree, Space, Survey};
use argali_base::{Lsn, PageId};
use argali_pager::{MapLayout, PageOp};
use argali_txn::{Durability, Edit, Undo};
use common::{Setup, World, get, key};

#[test]
fn threads_never_get_the_same_page() {
    let world = World::with(&Setup { frames: 64, ..Setup::default() });
    let roots: Vec<PageId> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..50).map(|_| world.tree().root()).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let distinct: BTreeSet<_> = roots.iter().collect();
    assert_eq!(distinct.len(), 200);
    let trees: Vec<_> = roots.iter().map(|root| BTree::open(&world.space, *root)).collect();
    world.verify(&trees.iter().collect::<Vec<_>>());
    assert_eq!(world.space.pages_in_use().unwrap(), 201, "dense, with nothing lost");
    assert_eq!(roots.iter().max(), Some(&PageId::new(200)));
}

fn lsn_of(world: &World, page: u64) -> Lsn {
    world.pool.read(PageId::new(page)).unwrap().page().lsn()
}

/// A catalog row for `tree`, and the tree with many pages.
fn doomed(world: &World) -> (BTree, BTree) {
    let (catalog, tree) = (world.tree(), world.tree());
    let mut txn = world.begin();
    catalog.put(&mut txn, b"doomed", &tree.root().get().to_le_bytes()).unwrap();
    for n in 0..200 {
        let mut key = vec![b'k'; 300];
        key.extend_from_slice(&(n * 7 % 200_u64).to_be_bytes());
        tree.put(&mut txn, &key, &[1; 200]).unwrap();
    }
    txn.commit(Durability::Sync).unwrap();
    (catalog, tree)
}

#[test]
fn a_dropped_tree_gives_all_its_pages_back() {
    let world = World::new();
    let (catalog, tree) = doomed(&world);
    let stats = world.verify(&[&catalog, &tree]);
    assert!(stats[1].depth >= 3 && stats[1].pages > 30, "{stats:?}");
    let used = world.space.pages_in_use().unwrap();
    let (leaf_lsn, mut steps) = (lsn_of(&world, used - 1), 0);
    // Each call is a transaction of its own: between two of them a crash may come.
    loop {
        let mut txn = world.txns.begin_system().unwrap();
        let done = tree.free_some(&mut txn, 5).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        steps += 1;
        if done {
            break;
        }
        assert_eq!(world.space.pages_in_use().unwrap(), used - 5 * steps);
    }
    assert_eq!(world.space.pages_in_use().unwrap(), 3, "map, catalog, the bare root");
    for _ in 0..2 {
        // Twice: a repetition after a crash finds it done.
        let mut txn = world.txns.begin_system().unwrap();
        catalog.remove_and_free(&mut txn, b"doomed", tree.root()).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        assert_eq!(world.space.pages_in_use().unwrap(), 2);
    }
    assert_eq!(get(&catalog, &mut world.begin(), b"doomed"), None);
    // Pages are used again, from the lowest on, and their LSNs have grown.
    let again = doomed(&world);
    assert_eq!(again.0.root(), tree.root());
    world.verify(&[&catalog, &again.0, &again.1]);
    assert!(lsn_of(&world, used - 1) > leaf_lsn);
}

/// What became garbage in a transaction is freed by nobody before its commit; an abort needs it.
#[test]
fn an_aborted_transaction_keeps_the_pages_its_splits_took() {
    let world = World::new();
    let tree = world.tree();
    let mut txn = world.begin();
    for n in 0..100 {
        tree.put(&mut txn, &key(n), &[1; 500]).unwrap();
    }
    txn.abort().unwrap();
    let stats = world.verify(&[&tree]);
    assert!(stats[0].pages > 10);
    assert_eq!((stats[0].rows, stats[0].ghosts), (0, 100));
}

/// Marks every page under the first map page used, without using them.
fn fill_first_map(world: &World) -> u64 {
    let layout = MapLayout::new(world.pool.pager().options().page_size);
    let mut txn = world.txns.begin_system().unwrap();
    for first in (0..layout.span() as u32).step_by(4096) {
        let mut map_ops = Vec::new();
        let map = world.pool.read(PageId::new(0)).unwrap();
        for index in first..(first + 4096).min(layout.span() as u32) {
            if !MapLayout::is_set(map.page(), index) {
                map_ops.push(PageOp::SetBit { index, value: true });
            }
        }
        drop(map);
        txn.admit(8 * map_ops.len(), 1).unwrap();
        let mut map = world.pool.write(PageId::new(0)).unwrap();
        txn.update(&mut [Edit { page: &mut map, ops: &map_ops }], Undo::Never);
    }
    txn.commit(Durability::Relaxed).unwrap();
    layout.span()
}

#[test]
fn a_full_map_page_is_followed_by_another() {
    let world = World::new();
    let span = fill_first_map(&world);
    // Another opening of the space knows nothing but what is on the pages.
    for _ in 0..2 {
        let space = Space::open(&world.txns).unwrap();
        let mut txn = world.txns.begin_system().unwrap();
        let before = space.pages_in_use().unwrap();
        let tree = BTree::create(&space, &mut txn).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        assert!(tree.root().get() > span, "{tree:?}");
        let map = u64::from(before == span);
        assert_eq!(space.pages_in_use().unwrap(), before + map + 1);
    }
    let mut last = None;
    let mut survey = Survey::new(&world.pool);
    world.space.verify(&mut survey, &mut |page| last = Some(page)).unwrap();
    assert_eq!(last, Some(PageId::new(span + 2)));
    // A split takes its pages there, too.
    let tree = world.tree();
    let mut txn = world.begin();
    for n in 0..100 {
        tree.put(&mut txn, &key(n), &[1; 500]).unwrap();
    }
    txn.commit(Durability::Sync).unwrap();
    let mut survey = Survey::new(&world.pool);
    assert_eq!(tree.verify(&mut survey).unwrap().rows, 100);
    assert!((0..=span).all(|page| survey.owner(PageId::new(page)).is_none()));
    assert_eq!(survey.into_findings(), []);
}

#[test]
fn a_full_data_file_says_so_and_nothing_is_lost() {
    let world = World::with(&Setup { pages_max: 64, ..Setup::default() });
    let tree = world.tree();
    let mut txn = world.begin();
    let mut rows = 0;
    let error = loop {
        match tree.put(&mut txn, &key(rows * 31 % 4096), &[1; 700]) {
            Ok(_) => rows += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, argali_base::Error::Full { .. }), "{error}");
    txn.commit(Durability::Sync).unwrap();
    let stats = world.verify(&[&tree]);
    assert_eq!(stats[0].rows, rows);
    assert!(stats[0].pages > 55, "{stats:?}");
}
