//! Rollback on raw pages: what is taken back, what stays, and exactly what the log says about it.
#![allow(clippy::unwrap_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use argali_base::{Error, Lsn, PageId, Result};
use argali_pager::{PageOp, TornPages};
use argali_txn::{
    Durability, Edit, LockMode, LockName, LogicalUndo, Mutations, Owner, Txn, TxnOptions, Undo,
    UndoHandlers,
};
use argali_wal::{ActiveTxn, LogOptions, RecordBuf, TxnState};
use common::{COUNTERS, Setup, World};

const OWNER: Owner = Owner(9);

#[test]
fn an_abort_takes_back_newest_first_with_one_clr_each() {
    let world = World::new();
    let mut txn = world.begin();
    let id = txn.id();
    world.add(&mut txn, 0, 0, 5).unwrap();
    world.add(&mut txn, 1, 0, 7).unwrap();
    world.add(&mut txn, 0, 0, 11).unwrap();
    assert_eq!((world.value(0, 0), world.value(1, 0)), (16, 7));
    txn.abort().unwrap();
    assert_eq!((world.value(0, 0), world.value(1, 0)), (0, 0));
    let line = |text: &str| text.replace("t#", &id.to_string());
    let expected = [
        "1 t# prev -: update p0 undo physical",
        "2 t# prev 1: update p1 undo physical",
        "3 t# prev 2: update p0 undo physical",
        "4 t# prev 3: clr p0 undo_next 2",
        "5 t# prev 4: clr p1 undo_next 1",
        "6 t# prev 5: clr p0 undo_next -",
        "7 t# prev 6: end",
    ]
    .map(line);
    world.assert_log(&expected.each_ref().map(String::as_str));
}

#[test]
fn dropping_and_panicking_abort() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 5).unwrap();
    drop(txn);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut txn = world.begin();
        world.add(&mut txn, 0, 0, 5).unwrap();
        panic!("the user's closure");
    }));
    assert!(panicked.is_err());
    assert_eq!(world.value(0, 0), 0);
    let mut active = Vec::new();
    world.txns.active(&mut active);
    assert_eq!(active, []);
    assert_eq!(world.wal.stats().reserved_bytes, 0);
}

#[test]
fn savepoints_nest() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 1).unwrap();
    let outer = txn.savepoint();
    world.add(&mut txn, 0, 0, 10).unwrap();
    let inner = txn.savepoint();
    world.add(&mut txn, 0, 0, 100).unwrap();
    txn.rollback_to(inner).unwrap();
    assert_eq!(world.value(0, 0), 11);
    world.add(&mut txn, 0, 0, 1000).unwrap();
    txn.rollback_to(outer).unwrap();
    assert_eq!(world.value(0, 0), 1);
    assert!(!txn.compensating());
    world.add(&mut txn, 0, 0, 10_000).unwrap();
    txn.rollback_to(outer).unwrap();
    assert!(matches!(txn.rollback_to(inner), Err(Error::NotFound { .. })), "gone with outer");
    assert_eq!(world.value(0, 0), 1);
    txn.commit(Durability::Sync).unwrap();
    let log = world.log();
    let bodies: Vec<_> = log.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(
        bodies,
        [
            "update p0 undo physical", // 1: +1
            "update p0 undo physical", // 2: +10
            "update p0 undo physical", // 3: +100
            "clr p0 undo_next 2",
            "update p0 undo physical", // 5: +1000
            "clr p0 undo_next 4",
            "clr p0 undo_next 1",
            "update p0 undo physical", // 8: +10000
            "clr p0 undo_next 7",
            "commit",
        ]
    );
}

/// After a partial rollback the chain leads over CLRs; each update must be undone once, not twice.
#[test]
fn an_abort_after_a_partial_rollback_jumps_over_what_was_undone() {
    let world = World::new();
    let story = || {
        let mut txn = world.begin();
        world.add(&mut txn, 0, 0, 1).unwrap();
        let savepoint = txn.savepoint();
        world.add(&mut txn, 0, 0, 10).unwrap();
        txn.rollback_to(savepoint).unwrap();
        world.add(&mut txn, 0, 0, 100).unwrap();
        txn.abort().unwrap();
        world.value(0, 0)
    };
    assert_eq!(story(), 0);
    world.txns.set_mutations(Mutations { clr_ignores_undo_next: true, ..Mutations::default() });
    assert_ne!(story(), 0, "the mutation must show");
}

#[test]
fn another_transactions_savepoint_is_refused() {
    let world = World::new();
    let (mut one, mut two) = (world.begin(), world.begin());
    let savepoint = one.savepoint();
    world.add(&mut two, 0, 0, 1).unwrap();
    assert!(matches!(two.rollback_to(savepoint), Err(Error::NotFound { .. })));
    two.commit(Durability::Sync).unwrap();
    assert_eq!(world.value(0, 0), 1);
}

#[test]
fn a_nested_top_action_survives_the_abort() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 1).unwrap();
    let start = txn.last_lsn();
    world.add(&mut txn, 1, 0, 10).unwrap();
    world.add(&mut txn, 2, 0, 20).unwrap();
    txn.end_nested(start).unwrap();
    world.add(&mut txn, 0, 0, 100).unwrap();
    let empty = txn.last_lsn();
    txn.end_nested(empty).unwrap();
    txn.abort().unwrap();
    assert_eq!((world.value(0, 0), world.value(1, 0), world.value(2, 0)), (0, 10, 20));
    let log = world.log();
    let bodies: Vec<_> = log.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(
        bodies[3..],
        [
            "clr undo_next 1",
            "update p0 undo physical",
            "clr p0 undo_next 4",
            "clr p0 undo_next -",
            "end"
        ]
    );
}

#[test]
fn a_nested_top_action_that_does_not_end_is_taken_back() {
    let world = World::new();
    let mut txn = world.begin();
    world.add(&mut txn, 0, 0, 1).unwrap();
    world.add(&mut txn, 1, 0, 10).unwrap();
    txn.abort().unwrap();
    assert_eq!(world.value(1, 0), 0);
}

#[test]
fn two_interleaved_transactions_undo_their_own() {
    let world = World::new();
    let (mut stays, mut goes) = (world.begin(), world.begin());
    for round in 0..4 {
        world.add(&mut stays, round % 2, 0, 1).unwrap();
        world.add(&mut goes, round % 2, 0, 100).unwrap();
    }
    let start = goes.savepoint();
    world.add(&mut goes, 0, 0, 1000).unwrap();
    goes.rollback_to(start).unwrap();
    world.add(&mut stays, 0, 0, 1).unwrap();
    goes.abort().unwrap();
    stays.commit(Durability::Sync).unwrap();
    assert_eq!((world.value(0, 0), world.value(1, 0)), (3, 2));
}

/// Takes back by meaning: subtracts where a note on page 3 says the counter is now.
struct Counters(Arc<World>, Misbehave);

enum Misbehave {
    No,
    NoClr,
    TwoClrs,
    /// Fails so many times, then does what it should.
    Fail(AtomicU32),
}

impl LogicalUndo for Counters {
    fn undo(&self, txn: &mut Txn, body: &[u8]) -> Result<()> {
        let Self(world, misbehave) = self;
        assert!(txn.compensating());
        world.add_for_good(txn, 3, 0, 1); // A structure change on the way.
        let (page, delta) = (u64::from(body[0]), u64::from(body[1]).wrapping_neg());
        let op = PageOp::Add { slot: 0, at: 0, delta };
        let times = match misbehave {
            Misbehave::NoClr => 0,
            Misbehave::TwoClrs => 2,
            Misbehave::Fail(times) if times.load(Ordering::Relaxed) > 0 => {
                times.fetch_sub(1, Ordering::Relaxed);
                return Err(Error::ReadOnly);
            }
            Misbehave::No | Misbehave::Fail(_) => 1,
        };
        for _ in 0..times {
            txn.admit(32, 1)?;
            let mut page = world.pool.write(PageId::new(page))?;
            let undo = Undo::Logical { owner: OWNER, body: &[] };
            txn.update(&mut [Edit { page: &mut page, ops: &[op] }], undo);
        }
        Ok(())
    }

    fn describe(&self, body: &[u8], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{body:?}")
    }
}

fn logical_world(misbehave: Misbehave) -> Arc<World> {
    let world = Arc::new(World::new());
    let mut handlers = UndoHandlers::default();
    handlers.register(OWNER, Arc::new(Counters(world.clone(), misbehave)));
    world.txns.set_handlers(handlers);
    world
}

fn add_logically(world: &World, txn: &mut Txn, page: u8, delta: u8) {
    txn.admit(64, 1).unwrap();
    let op = PageOp::Add { slot: 0, at: 0, delta: u64::from(delta) };
    let mut latched = world.pool.write(PageId::new(u64::from(page))).unwrap();
    let undo = Undo::Logical { owner: OWNER, body: &[page, delta] };
    txn.update(&mut [Edit { page: &mut latched, ops: &[op] }], undo);
}

#[test]
fn logical_undo_makes_one_clr_and_keeps_structure_changes() {
    let world = logical_world(Misbehave::No);
    let mut txn = world.begin();
    add_logically(&world, &mut txn, 0, 5);
    world.add_for_good(&mut txn, 2, 1, 9);
    add_logically(&world, &mut txn, 1, 6);
    txn.abort().unwrap();
    assert_eq!((world.value(0, 0), world.value(1, 0)), (0, 0));
    assert_eq!((world.value(2, 1), world.value(3, 0)), (9, 2), "these are never undone");
    let log = world.log();
    let bodies: Vec<_> = log.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(
        bodies,
        [
            "update p0 undo logical",
            "update p2 undo never",
            "update p1 undo logical",
            "update p3 undo never",
            "clr p1 undo_next 2",
            "update p3 undo never",
            "clr p0 undo_next -",
            "end",
        ]
    );
}

fn panic_text(result: std::thread::Result<()>) -> String {
    let payload = result.expect_err("it must panic");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn an_access_method_that_breaks_rule_5_is_caught() {
    for (misbehave, text) in [(Misbehave::NoClr, "without a CLR"), (Misbehave::TwoClrs, "already")]
    {
        let world = logical_world(misbehave);
        let mut txn = world.begin();
        add_logically(&world, &mut txn, 0, 5);
        let savepoint = txn.savepoint();
        add_logically(&world, &mut txn, 0, 6);
        let told =
            panic_text(catch_unwind(AssertUnwindSafe(|| txn.rollback_to(savepoint).unwrap())));
        assert!(told.contains("rule 5") && told.contains(text), "{told}");
        std::mem::forget(txn); // Its drop would meet the same bug.
    }
}

#[test]
fn a_rollback_that_fails_strands_the_transaction_with_its_locks() {
    let world = logical_world(Misbehave::Fail(AtomicU32::new(3)));
    let mut txn = world.begin();
    let id = txn.id();
    let name = LockName::Tree(1);
    txn.lock(name, LockMode::X).unwrap();
    add_logically(&world, &mut txn, 0, 5);
    assert!(matches!(txn.abort(), Err(Error::ReadOnly)));
    assert_eq!(world.txns.stranded()[0].0, id);
    assert!(!world.begin().try_lock(name, LockMode::S), "nobody may see what is half undone");
    let mut active = Vec::new();
    world.txns.active(&mut active);
    assert_eq!(active[0].txn, id, "it keeps the log from being truncated");

    // A background step tries again, and again, until the cause has passed.
    assert!(world.txns.retry_stranded().is_empty() && world.txns.retry_stranded().is_empty());
    assert_eq!(world.txns.stranded()[0].0, id, "the second and third failure");
    assert_eq!(world.value(0, 0), 5);
    assert_eq!(world.txns.retry_stranded(), [id]);
    assert_eq!(world.value(0, 0), 0);
    assert!(world.txns.stranded().is_empty());
    assert!(world.begin().try_lock(name, LockMode::X));
    assert_eq!(world.wal.stats().reserved_bytes, 0);
    let log = world.log();
    let clrs = log.lines().filter(|line| line.contains("clr p0")).count();
    assert_eq!(clrs, 1, "taken back once:\n{log}");
}

#[test]
fn a_failed_savepoint_rollback_leaves_only_abort() {
    let world = logical_world(Misbehave::Fail(AtomicU32::new(3)));
    let mut txn = world.begin();
    let savepoint = txn.savepoint();
    add_logically(&world, &mut txn, 0, 5);
    assert!(matches!(txn.rollback_to(savepoint), Err(Error::ReadOnly)));
    assert!(matches!(txn.rollback_to(savepoint), Err(Error::TxnFailed { .. })));
    assert!(matches!(txn.commit(Durability::Sync), Err(Error::ReadOnly)), "abort failed, too");
    assert!(!world.log().contains("commit"));
}

#[test]
fn a_rollback_takes_no_new_lock() {
    struct Locker;
    impl LogicalUndo for Locker {
        fn undo(&self, txn: &mut Txn, _: &[u8]) -> Result<()> {
            txn.lock(LockName::Tree(1), LockMode::IX)?; // Held: nothing is asked.
            txn.lock(LockName::Tree(2), LockMode::IX)
        }
        fn describe(&self, _: &[u8], _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Ok(())
        }
    }
    let world = World::new();
    let mut handlers = UndoHandlers::default();
    handlers.register(OWNER, Arc::new(Locker));
    world.txns.set_handlers(handlers);
    let mut txn = world.begin();
    txn.lock(LockName::Tree(1), LockMode::X).unwrap();
    add_logically(&world, &mut txn, 0, 5);
    let told = panic_text(catch_unwind(AssertUnwindSafe(|| {
        let savepoint = argali_txn::Savepoint { last: Lsn::NONE, ..txn.savepoint() };
        txn.rollback_to(savepoint).unwrap();
    })));
    assert!(told.contains("L3") && told.contains("tree p2"), "{told}");
    std::mem::forget(txn);
}

#[test]
fn a_transaction_larger_than_the_pool_rolls_back() {
    for torn_pages in [TornPages::None, TornPages::DoubleWrite, TornPages::FullPageImage] {
        let setup = Setup { frames: 8, pages: 48, torn_pages, ..Setup::default() };
        let world = World::with(&setup);
        let mut keep = world.begin();
        for page in 0..48 {
            world.add(&mut keep, page, 3, page + 1).unwrap();
        }
        keep.commit(Durability::Relaxed).unwrap();
        let mut txn = world.begin();
        for round in 0..6 {
            for page in 0..48 {
                world.add(&mut txn, page, (page as usize + round) % COUNTERS, 1000).unwrap();
            }
        }
        assert!(world.pool.stats().evictions_dirty > 0, "the pool must have stolen pages");
        txn.abort().unwrap();
        for page in 0..48 {
            for counter in 0..COUNTERS {
                let expected = if counter == 3 { page + 1 } else { 0 };
                assert_eq!(
                    world.value(page, counter),
                    expected,
                    "{torn_pages:?} p{page} {counter}"
                );
            }
        }
        assert_eq!(world.wal.stats().reserved_bytes, 0);
    }
}

#[test]
fn a_rollback_has_its_space_when_the_log_is_full() {
    let log = LogOptions { segment_bytes: 64 << 10, limit_bytes: 1 << 20, ..Setup::default().log };
    for torn_pages in [TornPages::None, TornPages::FullPageImage] {
        let world = World::with(&Setup { frames: 8, pages: 24, torn_pages, log: log.clone() });
        let (mut one, mut two) = (world.begin(), world.begin());
        let full = (0..).find_map(|round: u64| {
            let txn = if round.is_multiple_of(3) { &mut two } else { &mut one };
            world.add(txn, round % 24, 0, 1).err()
        });
        assert!(matches!(full, Some(Error::LogFull { .. })), "{full:?}");
        assert!(world.begin().commit(Durability::Sync).is_ok(), "who only reads needs no log");
        let mut other = world.begin();
        assert!(matches!(world.add(&mut other, 0, 0, 1), Err(Error::LogFull { .. })));
        other.abort().unwrap();
        one.abort().unwrap();
        drop(two);
        assert!(world.txns.stranded().is_empty());
        assert!((0..24).all(|page| world.value(page, 0) == 0));
        assert_eq!(world.wal.stats().reserved_bytes, 0);
    }
}

/// What restart does: losers come from a checkpoint's table, and the greatest LSN is undone first.
#[test]
fn adopted_losers_are_undone_and_ended() {
    let world = World::new();
    let (mut one, mut two) = (world.begin(), world.begin());
    for round in 1..=3 {
        world.add(&mut one, 0, 0, round).unwrap();
        world.add(&mut two, 0, 1, round).unwrap();
    }
    let savepoint = one.savepoint();
    world.add(&mut one, 1, 0, 9).unwrap();
    one.rollback_to(savepoint).unwrap();
    let mut table: Vec<ActiveTxn> = Vec::new();
    world.txns.active(&mut table);
    assert!(table.iter().all(|entry| entry.state == TxnState::Running && entry.first > Lsn::NONE));
    std::mem::forget((one, two)); // The process is gone.
    let after = argali_txn::TxnManager::new(world.wal.clone(), world.pool.clone(), 1);
    let mut losers: Vec<Txn> = table.iter().map(|entry| after.adopt(*entry)).collect();
    assert!(losers.iter().all(Txn::compensating));
    assert!(after.next_txn() > table.iter().map(|entry| entry.txn.get()).max().unwrap());
    let (mut buf, mut order) = (RecordBuf::new(), Vec::new());
    let mut next: Vec<Lsn> = table.iter().map(|entry| entry.undo_next).collect();
    while let Some(at) = (0..2).filter(|at| !next[*at].is_none()).max_by_key(|at| next[*at]) {
        let undone = after.undo_one(&mut losers[at], &mut buf).unwrap();
        assert_eq!(undone.lsn, next[at]);
        next[at] = undone.undo_next;
        order.push(undone.lsn);
    }
    assert!(order.is_sorted_by(|a, b| a > b), "one sweep backward: {order:?}");
    for loser in losers {
        loser.abort().unwrap();
    }
    assert_eq!((world.value(0, 0), world.value(0, 1), world.value(1, 0)), (0, 0, 0));
    let mut active = Vec::new();
    after.active(&mut active);
    assert_eq!(active, []);
    assert_eq!(world.log().lines().filter(|line| line.ends_with(": end")).count(), 2);
}

#[test]
fn update_refuses_what_its_caller_must_not_do() {
    let told = |body: &dyn Fn(&World, &mut Txn)| {
        let world = World::new();
        let mut txn = world.txns.begin(TxnOptions::default()).unwrap();
        panic_text(catch_unwind(AssertUnwindSafe(|| body(&world, &mut txn))))
    };
    let add = PageOp::Add { slot: 0, at: 0, delta: 1 };
    let unadmitted = told(&|world, txn| {
        let mut page = world.pool.write(PageId::new(0)).unwrap();
        txn.update(&mut [Edit { page: &mut page, ops: &[add] }], Undo::Never);
    });
    assert!(unadmitted.contains("admitted were 0"), "{unadmitted}");
    let unfit = told(&|world, txn| {
        txn.admit(64, 1).unwrap();
        let mut page = world.pool.write(PageId::new(0)).unwrap();
        let op = PageOp::Add { slot: 3, at: 0, delta: 1 };
        txn.update(&mut [Edit { page: &mut page, ops: &[op] }], Undo::Never);
    });
    assert!(unfit.contains("rule 3"), "{unfit}");
    let two_pages = told(&|world, txn| {
        txn.admit(64, 2).unwrap();
        let mut one = world.pool.write(PageId::new(0)).unwrap();
        let mut two = world.pool.write(PageId::new(1)).unwrap();
        let mut edits =
            [Edit { page: &mut one, ops: &[add] }, Edit { page: &mut two, ops: &[add] }];
        txn.update(&mut edits, Undo::Physical(&[]));
    });
    assert!(two_pages.contains("physical undo on 2 pages"), "{two_pages}");
}
