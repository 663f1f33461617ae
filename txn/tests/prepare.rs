//! Two-phase commit: what a vote keeps, what the log says of each decision, and what nobody decides.
//!
//! A second manager on the same log and pages plays the restart: like a new process, it knows nothing but
//! what the log tells it.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use argali_base::{Error, Lsn, Result};
use argali_txn::{
    Durability, GID_BYTES_MAX, Gap, KeyMode, LockMode, LockName, Prepared, Txn, TxnManager,
    TxnOptions, Vote,
};
use argali_wal::{LogOptions, TxnState};
use common::{Setup, World};

const NAME: LockName = LockName::Tree(1);

fn next_life(world: &World) -> Arc<TxnManager> {
    TxnManager::new(world.wal.clone(), world.pool.clone(), 1)
}

fn active(txns: &TxnManager) -> Vec<argali_wal::ActiveTxn> {
    let mut active = Vec::new();
    txns.active(&mut active);
    active
}

fn prepare(mut txn: Txn, gid: &str, note: &[u8]) -> Result<Prepared> {
    let vote = txn.prepare(gid, note)?;
    Ok(Prepared::new(txn, vote))
}

fn commit(mut prepared: Prepared) -> Lsn {
    prepared.admit_commit().unwrap();
    prepared.commit().unwrap()
}

fn abort(mut prepared: Prepared) {
    prepared.decide_abort().unwrap();
    prepared.abort().unwrap();
}

#[test]
fn a_vote_is_durable_and_nobody_but_a_decision_ends_it() {
    let world = World::new();
    let mut txn = world.begin();
    txn.lock(NAME, LockMode::X).unwrap();
    world.add(&mut txn, 0, 0, 5).unwrap();
    let prepared = prepare(txn, "order 12", b"note").unwrap();
    let chain = prepared.chain();
    assert!(world.wal.durable().covers(chain.last), "P1");
    assert_eq!(chain.state, TxnState::Prepared);
    assert_eq!(Vote::read(&world.wal, &chain).unwrap(), *prepared.vote());
    assert_eq!(prepared.vote().locks, [(NAME, LockMode::X)]);
    assert_eq!(prepared.vote().note, b"note");
    drop(prepared);
    assert_eq!(world.value(0, 0), 5, "dropping decides nothing");
    assert_eq!(active(&world.txns), [chain]);
    assert!(!world.begin().try_lock(NAME, LockMode::S));
}

#[test]
fn each_decision_leaves_its_records() {
    let world = World::new();
    let ids: Vec<_> = ["yes", "no"]
        .into_iter()
        .map(|gid| {
            let mut txn = world.begin();
            let id = txn.id();
            txn.lock(LockName::Tree(id.get()), LockMode::X).unwrap();
            world.add(&mut txn, 0, 0, 5).unwrap();
            let prepared = prepare(txn, gid, b"").unwrap();
            if gid == "yes" {
                let commit = commit(prepared);
                assert!(world.wal.durable().covers(commit), "P3");
            } else {
                abort(prepared);
            }
            assert!(world.begin().try_lock(LockName::Tree(id.get()), LockMode::X));
            id
        })
        .collect();
    let (yes, no) = (ids[0], ids[1]);
    let expected = [
        format!("1 {yes} prev -: update p0 undo physical"),
        format!("2 {yes} prev 1: prepare 0+34 last"),
        format!("3 {yes} prev 2: commit"),
        format!("4 {no} prev -: update p0 undo physical"),
        format!("5 {no} prev 4: prepare 0+33 last"),
        format!("6 {no} prev 5: clr undo_next 5"),
        format!("7 {no} prev 6: clr p0 undo_next -"),
        format!("8 {no} prev 7: end"),
    ];
    world.assert_log(&expected.each_ref().map(String::as_str));
    assert_eq!(world.value(0, 0), 5);
    assert_eq!(world.wal.stats().reserved_bytes, 0);
    assert!(active(&world.txns).is_empty());
}

#[test]
fn the_decision_for_a_rollback_is_durable_before_anything_is_taken_back() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 5).unwrap();
    let mut prepared = prepare(txn, "no", b"").unwrap();
    prepared.decide_abort().unwrap();
    let chain = prepared.chain();
    assert_eq!(chain.state, TxnState::Running, "a loser from now on");
    assert!(world.wal.durable().covers(chain.last), "P3");
    assert_eq!(world.value(0, 0), 5);
    prepared.abort().unwrap();
    assert_eq!(world.value(0, 0), 0);
}

#[test]
fn a_restart_takes_locks_and_log_space_again() {
    let world = World::new();
    let mut txn = world.begin();
    let key = LockName::Key { tree: 1, hash: 77 };
    let mode = LockMode::Key { key: KeyMode::X, gap: Gap::S };
    txn.lock(LockName::Database, LockMode::IX).unwrap();
    txn.lock(NAME, LockMode::IX).unwrap();
    txn.lock(key, mode).unwrap();
    world.add(&mut txn, 0, 0, 5).unwrap();
    let reserved = world.wal.stats().reserved_bytes;
    let before = prepare(txn, "later", b"").unwrap();
    let (chain, vote) = (before.chain(), before.vote().clone());
    assert!(vote.reserve_bytes >= reserved);
    drop(before);

    let txns = next_life(&world);
    let reserved = world.wal.stats().reserved_bytes;
    let prepared = txns.adopt_prepared(chain).unwrap();
    assert_eq!(world.wal.stats().reserved_bytes, reserved + vote.reserve_bytes);
    assert_eq!((prepared.vote(), prepared.chain()), (&vote, chain));
    let mut other = txns.begin(TxnOptions::default()).unwrap();
    assert!(other.id() > chain.txn, "ids are not given twice");
    assert!(!other.try_lock(key, mode) && !other.try_lock(NAME, LockMode::S));
    assert!(other.try_lock(LockName::Database, LockMode::S), "P4: nothing changes just now");
    other.abort().unwrap();
    assert_eq!(txns.commit_lsn(), Lsn::NONE, "Commit_LSN does not pass it");
    abort(prepared);
    assert_eq!(world.value(0, 0), 0);
    assert_eq!(world.wal.stats().reserved_bytes, reserved);
    assert!(txns.begin(TxnOptions::default()).unwrap().try_lock(key, mode));
}

#[test]
fn a_rollback_waits_for_whoever_checks_the_database() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 5).unwrap();
    let mut prepared = prepare(txn, "no", b"").unwrap();
    let mut check = world.begin();
    check.lock(LockName::Database, LockMode::S).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| prepared.decide_abort());
        while world.txns.blocked().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(world.value(0, 0), 5);
        check.commit(Durability::Sync).unwrap();
        waiting.join().unwrap().unwrap();
    });
    prepared.abort().unwrap();
}

#[test]
fn more_locks_than_a_record_holds_go_out_in_pieces() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 5).unwrap();
    let name = |hash| LockName::Key { tree: 9, hash };
    let mode = LockMode::Key { key: KeyMode::X, gap: Gap::None };
    for hash in 0..20_000 {
        txn.lock(name(hash), mode).unwrap();
    }
    let before = prepare(txn, "large", &[7; 1000]).unwrap();
    let pieces = world.log().lines().filter(|line| line.contains("prepare")).count();
    assert_eq!(pieces, 3, "360 KB in pieces of 128 KiB");
    let (chain, vote) = (before.chain(), before.vote().clone());
    assert_eq!(Vote::read(&world.wal, &chain).unwrap(), vote);
    drop(before);
    let prepared = next_life(&world).adopt_prepared(chain).unwrap();
    assert_eq!(prepared.vote().locks.len(), 20_000);
    assert!(!commit(prepared).is_none());
}

#[test]
fn a_transaction_without_changes_can_vote_too() {
    let world = World::new();
    let mut txn = world.begin();
    txn.lock(NAME, LockMode::S).unwrap();
    let prepared = prepare(txn, "reader", b"").unwrap();
    assert!(!world.begin().try_lock(NAME, LockMode::X), "read locks stay as well");
    abort(prepared);
    assert!(world.begin().try_lock(NAME, LockMode::X));
    assert_eq!(world.wal.stats().reserved_bytes, 0);
}

#[test]
fn a_vote_that_cannot_be_cast_is_a_rollback() {
    let world = World::new();
    for (gid, limit) in [(String::new(), false), ("x".repeat(GID_BYTES_MAX + 1), true)] {
        let mut txn = world.begin();
        world.add(&mut txn, 0, 0, 5).unwrap();
        match prepare(txn, &gid, b"") {
            Err(Error::TooLarge { limit: GID_BYTES_MAX, .. }) => assert!(limit),
            Err(Error::Invalid { what: "gid", .. }) => assert!(!limit),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.value(0, 0), 0);
    }
    assert_eq!(world.wal.stats().reserved_bytes, 0);
}

#[test]
fn a_full_log_refuses_votes_but_no_decision() {
    let log =
        LogOptions { segment_bytes: 64 << 10, limit_bytes: 256 << 10, ..Setup::default().log };
    let world = World::with(&Setup { log, ..Setup::default() });
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 5).unwrap();
    let prepared = prepare(txn, "early", b"").unwrap();
    let mut late = world.begin();
    world.add(&mut late, 1, 0, 1).unwrap();
    let full = loop {
        let mut filler = world.txns.begin_system().unwrap();
        match filler.admit(2000, 1) {
            Ok(()) => drop(world.add_for_good(&mut filler, 2, 0, 1)),
            Err(error) => break error,
        }
        drop(filler.commit(Durability::Relaxed));
    };
    assert!(matches!(full, Error::LogFull { .. }), "{full}");
    let refused = prepare(late, "late", &vec![1; 40_000]);
    assert!(matches!(refused, Err(Error::LogFull { .. })), "{refused:?}");
    assert_eq!(world.value(1, 0), 0, "a vote against");
    abort(prepared);
    assert_eq!(world.value(0, 0), 0);
}

#[test]
fn two_in_doubt_cannot_hold_one_lock() {
    let world = World::new();
    let mut txn = world.begin();
    txn.lock(NAME, LockMode::X).unwrap();
    let first = prepare(txn, "one", b"").unwrap().chain();
    // Another life that forgot the first one gives the lock away.
    let mut txn = next_life(&world).begin(TxnOptions::default()).unwrap();
    txn.lock(NAME, LockMode::X).unwrap();
    let second = prepare(txn, "two", b"").unwrap().chain();
    let txns = next_life(&world);
    let _first = txns.adopt_prepared(first).unwrap();
    let error = txns.adopt_prepared(second).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("like another"), "{error}");
}

#[test]
fn a_place_without_a_vote_is_corruption() {
    let world = World::new();
    let mut txn = world.begin();
    let update = world.add(&mut txn, 0, 0, 5).unwrap();
    let chain = prepare(txn, "x", b"").unwrap().chain();
    let lie = argali_wal::ActiveTxn { last: update, ..chain };
    let error = next_life(&world).adopt_prepared(lie).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("update"), "{error}");
}
