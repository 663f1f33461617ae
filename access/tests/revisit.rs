//! Writes look first into the leaf of the write before (V1, V2 of `btree/revisit.rs`).
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use argali_access::BTree;
use argali_txn::Durability;
use common::{Setup, World, key, scan_all, tidy};

fn world() -> (World, BTree) {
    let world = World::with(&Setup { frames: 256, ..Setup::default() });
    let tree = world.tree();
    (world, tree)
}

#[test]
fn ascending_writes_look_at_their_leaf_alone() {
    let (world, tree) = world();
    let mut txn = world.begin();
    (0..2000).for_each(|n| drop(tree.put(&mut txn, &key(n), &[7; 40]).unwrap()));
    let before = world.pool.stats().hits;
    (2000..3000).for_each(|n| drop(tree.put(&mut txn, &key(n), &[7; 40]).unwrap()));
    let looks = world.pool.stats().hits - before;
    assert!(looks < 1600, "{looks} looks at pages by 1000 writes into a tree of three levels");
    txn.commit(Durability::Relaxed).unwrap();
    assert_eq!(world.verify(&[&tree])[0].rows, 3000);
}

/// Runs of near keys, up and down, while others split the leaves under them, join them and empty them.
#[test]
fn runs_of_near_keys_stay_in_order() {
    let (world, tree) = world();
    let (mut rng, mut model) = (fastrand::Rng::with_seed(9), BTreeMap::new());
    for round in 0..400_u64 {
        let (mut txn, mut mine) = (world.begin(), model.clone());
        let (mut at, step) = (rng.u64(..3000) * 2, 2 * rng.u64(1..4));
        let (down, deletes) = (rng.bool(), rng.u8(..3) == 0);
        for _ in 0..rng.usize(1..80) {
            at = if down { at.saturating_sub(step) } else { at + step };
            if deletes {
                assert_eq!(tree.delete(&mut txn, &key(at)).unwrap(), mine.remove(&key(at)));
            } else {
                let value = vec![round as u8; rng.usize(..120)];
                let old = tree.put(&mut txn, &key(at), &value).unwrap();
                assert_eq!(old, mine.insert(key(at), value));
            }
            if rng.u8(..8) == 0 {
                let mut other = world.begin();
                for n in 0..rng.u64(1..12) {
                    let value = vec![0; rng.usize(..300)];
                    tree.put(&mut other, &key(at + 2 * n + 1), &value).unwrap();
                    mine.insert(key(at + 2 * n + 1), value.clone());
                    model.insert(key(at + 2 * n + 1), value);
                }
                other.commit(Durability::Relaxed).unwrap();
            }
        }
        if rng.u8(..4) == 0 {
            txn.abort().unwrap();
        } else {
            txn.commit(Durability::Relaxed).unwrap();
            model = mine;
        }
        tidy(&world);
    }
    let mut txn = world.begin();
    assert_eq!(scan_all(&tree, &mut txn), model.into_iter().collect::<Vec<_>>());
    txn.commit(Durability::Relaxed).unwrap();
    world.verify(&[&tree]);
}
