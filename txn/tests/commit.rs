//! Commit: what is durable when it returns, what others may see before, and what a failure means.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::thread::spawn;
use std::time::{Duration, Instant};

use argali_base::{Error, Lsn};
use argali_txn::{Durability, LockMode, LockName, Mutations};
use argali_wal::TxnState;
use common::World;

/// The file all these stories' records are in.
const SEGMENT: &str = "wal/0000000000000000.log";
const NAME: LockName = LockName::Tree(1);

#[test]
fn a_commit_is_durable_when_it_returns() {
    let world = World::new();
    for durability in [Durability::Sync, Durability::Group(Duration::from_millis(1))] {
        let mut txn = world.begin();
        world.add(&mut txn, 0, 0, 1).unwrap();
        let commit = txn.commit(durability).unwrap();
        assert!(world.wal.durable().covers(commit), "{durability:?}");
    }
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 1).unwrap();
    let commit = txn.commit(Durability::Relaxed).unwrap();
    assert!(!world.wal.durable().covers(commit));
    world.txns.set_mutations(Mutations { no_force_at_commit: true, ..Mutations::default() });
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 1).unwrap();
    let commit = txn.commit(Durability::Sync).unwrap();
    assert!(!world.wal.durable().covers(commit), "the mutation must show");
}

#[test]
fn a_committed_transaction_leaves_update_and_commit() {
    let world = World::new();
    let mut txn = world.begin();
    let id = txn.id();
    world.add(&mut txn, 0, 0, 1).unwrap();
    txn.commit(Durability::Sync).unwrap();
    let expected =
        [format!("1 {id} prev -: update p0 undo physical"), format!("2 {id} prev 1: commit")];
    world.assert_log(&expected.each_ref().map(String::as_str));
    assert_eq!(world.wal.stats().reserved_bytes, 0);
}

#[test]
fn a_transaction_without_records_logs_nothing() {
    let world = World::new();
    let mut txn = world.begin();
    txn.lock(NAME, LockMode::S).unwrap();
    txn.admit(100, 1).unwrap();
    assert_eq!(txn.commit(Durability::Sync).unwrap(), Lsn::NONE);
    world.begin().abort().unwrap();
    drop(world.begin());
    world.assert_log(&[]);
    assert_eq!(world.wal.stats().reserved_bytes, 0);
    assert!(world.begin().try_lock(NAME, LockMode::X));
}

#[test]
fn a_system_transaction_does_not_force() {
    let world = World::new();
    let mut txn = world.txns.begin_system().unwrap();
    txn.lock(NAME, LockMode::X).unwrap();
    assert!(world.begin().try_lock(NAME, LockMode::X), "it takes no locks");
    world.add_for_good(&mut txn, 0, 0, 1);
    let before = world.wal.stats().flushes;
    let commit = txn.commit(Durability::Sync).unwrap();
    assert_eq!(world.wal.stats().flushes, before);
    assert!(!world.wal.durable().covers(commit));
    assert_eq!(world.txns.horizon(), Lsn::NONE);
}

#[test]
fn a_reader_waits_for_the_commit_it_has_seen() {
    let world = World::new();
    let mut writer = world.begin();
    writer.lock(NAME, LockMode::X).unwrap();
    world.add(&mut writer, 0, 0, 1).unwrap();
    let commit = writer.commit(Durability::Sync).unwrap();
    assert_eq!(world.txns.horizon(), commit);
    let mut reader = world.begin();
    reader.lock(NAME, LockMode::S).unwrap();
    assert_eq!(reader.commit(Durability::Sync).unwrap(), commit, "its horizon");
    let mut reader = world.begin();
    reader.note_unlocked_read();
    assert_eq!(reader.commit(Durability::Sync).unwrap(), commit, "everybody's horizon");
    let mut writer = world.begin();
    writer.lock(NAME, LockMode::X).unwrap();
    world.add(&mut writer, 0, 0, 1).unwrap();
    writer.commit(Durability::Relaxed).unwrap();
    assert_eq!(world.txns.horizon(), commit, "a relaxed commit raises none");
}

/// The commit's force fails after its locks went. Whoever saw its changes must not report success.
#[test]
fn a_reader_of_a_commit_that_never_became_durable_fails() {
    for mutated in [false, true] {
        let world = Arc::new(World::new());
        world.txns.set_mutations(Mutations {
            release_locks_early_without_horizon: mutated,
            ..Mutations::default()
        });
        let mut writer = world.begin();
        writer.lock(NAME, LockMode::X).unwrap();
        world.add(&mut writer, 0, 0, 1).unwrap();
        let reader = {
            let world = world.clone();
            spawn(move || {
                let mut reader = world.begin();
                reader.lock(NAME, LockMode::S).unwrap();
                let seen = world.value(0, 0);
                let result = reader.commit(Durability::Sync);
                (seen, result)
            })
        };
        while world.txns.blocked().is_empty() {
            std::thread::yield_now();
        }
        world.disk.fail_sync(SEGMENT, 0);
        let result = writer.commit(Durability::Sync);
        assert!(matches!(result, Err(Error::CommitUnknown { .. })), "{result:?}");
        let (seen, result) = reader.join().unwrap();
        assert_eq!(seen, 1);
        assert_eq!(result.is_ok(), mutated, "{result:?}");
    }
}

#[test]
fn a_commit_whose_force_fails_is_unknown_and_is_not_rolled_back() {
    let world = World::new();
    let mut txn = world.begin();
    let id = txn.id();
    world.add(&mut txn, 0, 0, 1).unwrap();
    let mut other = world.begin();
    world.add(&mut other, 1, 0, 1).unwrap();
    world.disk.fail_sync(SEGMENT, 0);
    let error = txn.commit(Durability::Sync).unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }) && !error.is_retryable(), "{error}");
    assert_eq!(world.value(0, 0), 1);
    let mut active = Vec::new();
    world.txns.active(&mut active);
    let entry = active.iter().find(|entry| entry.txn == id).unwrap();
    assert_eq!(entry.state, TxnState::Committed);
    let tail = world.wal.tail();
    let begun = Instant::now();
    drop(other);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(world.wal.tail(), tail, "a poisoned drop returns at once");
    let mut late = world.begin();
    assert!(matches!(world.add(&mut late, 0, 0, 1), Err(Error::Poisoned { .. })));
}

#[test]
fn the_table_and_commit_lsn_follow_the_transactions() {
    let world = World::new();
    let mut one = world.begin();
    let mut two = world.begin();
    let first = world.add(&mut one, 0, 0, 1).unwrap();
    let second = world.add(&mut two, 1, 0, 1).unwrap();
    let last = world.add(&mut one, 0, 0, 1).unwrap();
    let mut active = Vec::new();
    world.txns.active(&mut active);
    let entry = active.iter().find(|entry| entry.txn == one.id()).unwrap();
    assert_eq!((entry.first, entry.last, entry.undo_next), (first, last, last));
    assert!(world.txns.commit_lsn() <= first);
    one.commit(Durability::Sync).unwrap();
    assert_eq!(world.txns.commit_lsn(), second);
    two.abort().unwrap();
    assert_eq!(world.txns.commit_lsn(), world.wal.tail());
    assert!(world.txns.next_txn() > 2);
}

/// Whoever waits for a lock must not hold room that the lock's holder may be waiting for.
#[test]
fn a_lock_wait_gives_ring_room_back() {
    let world = Arc::new(World::new());
    let most = (1 << 20) - 1024; // Half the ring, less what a record takes beside its payload.
    let mut holder = world.begin();
    holder.lock(NAME, LockMode::X).unwrap();
    let mut idle = world.begin();
    idle.admit(most, 1).unwrap();
    let waiter = {
        let world = world.clone();
        spawn(move || {
            let mut waiter = world.begin();
            waiter.admit(most, 1).unwrap();
            waiter.lock(NAME, LockMode::X).unwrap();
            world.add_admitted(&mut waiter, 0, 0, 1).unwrap();
            waiter.commit(Durability::Sync).unwrap();
        })
    };
    while world.txns.blocked().is_empty() {
        std::thread::yield_now();
    }
    holder.admit(most, 1).unwrap();
    world.add_admitted(&mut holder, 0, 0, 1).unwrap();
    holder.commit(Durability::Sync).unwrap();
    waiter.join().unwrap();
    assert_eq!(world.value(0, 0), 2);
}
