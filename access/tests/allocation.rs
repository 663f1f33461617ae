//! A warm transaction on a tree allocates nothing: point reads, updates, deletes and revivals, scans both ways.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Unbounded};

use argali_access::{BTree, Entry, Way};
use argali_txn::{Durability, TxnOptions};
use common::{Setup, World, key};

struct Buffers {
    value: Vec<u8>,
    entry: Entry,
}

fn use_it(world: &World, tree: &BTree, keys: &[Vec<u8>], buffers: &mut Buffers) {
    let Buffers { value, entry } = buffers;
    for (round, at) in keys.iter().enumerate() {
        let mut txn = world.txns.begin(TxnOptions::default()).unwrap();
        assert!(tree.get(&mut txn, at, value).unwrap());
        assert!(tree.put_into(&mut txn, at, &[round as u8; 100], value).unwrap());
        assert!(tree.delete_into(&mut txn, at, value).unwrap());
        assert!(!tree.put_into(&mut txn, at, &[7; 90], value).unwrap());
        let mut there = tree.next(&mut txn, Excluded(at), Unbounded, entry).unwrap();
        for _ in 0..40 {
            there = there && tree.advance(&mut txn, Way::Forward, Unbounded, entry).unwrap();
        }
        there = tree.prev(&mut txn, Unbounded, Excluded(at), entry).unwrap();
        for _ in 0..40 {
            there = there && tree.advance(&mut txn, Way::Backward, Unbounded, entry).unwrap();
        }
        txn.commit(Durability::Relaxed).unwrap();
    }
}

#[test]
fn a_warm_transaction_allocates_nothing() {
    let world = World::with(&Setup { frames: 256, ..Setup::default() });
    let tree = world.tree();
    let keys: Vec<_> = (0..1000).map(key).collect();
    let mut txn = world.begin();
    for key in &keys {
        tree.put(&mut txn, key, &[0; 100]).unwrap();
    }
    txn.commit(Durability::Sync).unwrap();
    let mut buffers = Buffers { value: Vec::new(), entry: Entry::default() };
    // Warm means that the log's ring, allocated as it is first used, has gone round once, too.
    for _ in 0..8 {
        use_it(&world, &tree, &keys, &mut buffers);
    }
    let counted = allocation_counter::measure(|| use_it(&world, &tree, &keys, &mut buffers));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
