//! A warm transaction allocates nothing: locks, one update, commit, and a read-only one.
#![allow(clippy::unwrap_used)]

mod common;

use argali_base::PageId;
use argali_pager::PageOp;
use argali_txn::{Durability, Edit, Gap, KeyMode, LockMode, LockName, TxnOptions, Undo};
use common::World;

fn lock_row(txn: &mut argali_txn::Txn, hash: u64, (tree, key): (LockMode, KeyMode)) {
    txn.lock(LockName::Database, tree).unwrap();
    txn.lock(LockName::Tree(1), tree).unwrap();
    let mode = LockMode::Key { key, gap: Gap::None };
    txn.lock(LockName::Key { tree: 1, hash }, mode).unwrap();
}

fn update(world: &World, round: u64, undo: &mut Vec<u8>) {
    let mut txn = world.txns.begin(TxnOptions::default()).unwrap();
    lock_row(&mut txn, round, (LockMode::IX, KeyMode::X));
    txn.admit(64, 1).unwrap();
    let mut page = world.pool.write(PageId::new(0)).unwrap();
    let op = PageOp::Add { slot: 0, at: 0, delta: 1 };
    undo.clear();
    op.inverse(page.page()).encode(undo);
    txn.update(&mut [Edit { page: &mut page, ops: &[op] }], Undo::Physical(undo));
    drop(page);
    txn.commit(Durability::Relaxed).unwrap();
}

fn read(world: &World, round: u64) {
    let mut txn = world.txns.begin(TxnOptions::default()).unwrap();
    lock_row(&mut txn, round, (LockMode::IS, KeyMode::S));
    assert!(world.value(0, 0) > 0);
    txn.commit(Durability::Sync).unwrap();
}

#[test]
fn a_warm_transaction_allocates_nothing() {
    let (world, mut undo) = (World::new(), Vec::new());
    let mut run = |rounds: std::ops::Range<u64>| {
        for round in rounds {
            update(&world, round, &mut undo);
            read(&world, round);
        }
    };
    // Every partition of the lock table has been used, and the log's ring has gone round.
    run(0..60_000);
    let counted = allocation_counter::measure(|| run(60_000..61_000));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
