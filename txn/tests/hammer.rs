//! Threads at once: counters must add up, and the log must tell the same story as the tables did.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::spawn;
use std::time::Duration;

use argali_base::{Error, Lsn, TxnId};
use argali_pager::TornPages;
use argali_txn::{Durability, Gap, KeyMode, LockMode, LockName, Txn};
use argali_wal::{ActiveTxn, Body, RecordBuf};
use common::{COUNTERS, Setup, World};

const PAGES: u64 = 24;
const THREADS: u64 = 4;
/// Counters of each page that are used: few, so that threads meet.
const HOT: u64 = 2;
const ROUNDS: usize = 500;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

type Sums = HashMap<(u64, usize), u64>;

fn bump(sums: &mut Sums, place: (u64, usize), delta: u64) {
    let sum = sums.entry(place).or_default();
    *sum = sum.wrapping_add(delta);
}

fn add_up(sums: &mut Sums, more: &Sums) {
    for (place, delta) in more {
        bump(sums, *place, *delta);
    }
}

/// Adds here and there, sometimes going back to a savepoint; what it did is returned.
fn work(world: &World, txn: &mut Txn, random: &mut Random) -> Result<Sums, Error> {
    let mut sums = Sums::new();
    for _ in 0..=random.below(3) {
        let savepoint = txn.savepoint();
        let mut part = Sums::new();
        for _ in 0..=random.below(4) {
            let place = (random.below(PAGES), random.below(HOT) as usize);
            let hash = place.0 * COUNTERS as u64 + place.1 as u64;
            let mode = LockMode::Key { key: KeyMode::X, gap: Gap::None };
            txn.lock(LockName::Tree(1), LockMode::IX)?;
            txn.lock(LockName::Key { tree: 1, hash }, mode)?;
            let delta = random.below(1000);
            world.add(txn, place.0, place.1, delta)?;
            bump(&mut part, place, delta);
        }
        if random.below(3) == 0 {
            txn.rollback_to(savepoint)?;
        } else {
            add_up(&mut sums, &part);
        }
    }
    Ok(sums)
}

/// What one thread did that must last.
fn thread(world: &World, seed: u64) -> Sums {
    let mut random = Random(seed);
    let mut lasting = Sums::new();
    for _ in 0..ROUNDS {
        let mut txn = world.begin();
        match work(world, &mut txn, &mut random) {
            Ok(_) if random.below(4) == 0 => txn.abort().unwrap(),
            Ok(sums) => {
                let durability = [Durability::Sync, Durability::Relaxed][random.below(2) as usize];
                txn.commit(durability).unwrap();
                add_up(&mut lasting, &sums);
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    lasting
}

/// The transaction table as a checkpoint would copy it, and where the log stood around that.
struct Snapshot {
    before: Lsn,
    commit_lsn: Lsn,
    active: Vec<ActiveTxn>,
    after: Lsn,
}

fn snapshot(world: &World) -> Snapshot {
    let (before, commit_lsn) = (world.wal.tail(), world.txns.commit_lsn());
    let mut active = Vec::new();
    world.txns.active(&mut active);
    Snapshot { before, commit_lsn, active, after: world.wal.tail() }
}

#[test]
fn threads_in_a_small_pool() {
    for torn_pages in [TornPages::DoubleWrite, TornPages::FullPageImage] {
        let setup = Setup { frames: 12, pages: PAGES, torn_pages, ..Setup::default() };
        let world = Arc::new(World::with(&setup));
        let done = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (world, done) = (world.clone(), done.clone());
            spawn(move || {
                let mut seen = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    seen.push(snapshot(&world));
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen
            })
        };
        let start = |seed| {
            let world = world.clone();
            spawn(move || thread(&world, seed))
        };
        let threads: Vec<_> = (1..=THREADS).map(start).collect();
        let mut expected = Sums::new();
        for sums in threads.into_iter().map(|thread| thread.join().unwrap()) {
            add_up(&mut expected, &sums);
        }
        done.store(true, Ordering::Relaxed);
        for page in 0..PAGES {
            for counter in 0..COUNTERS {
                let sum = expected.get(&(page, counter)).copied().unwrap_or(0);
                assert_eq!(world.value(page, counter), sum, "{torn_pages:?} p{page} {counter}");
            }
        }
        let locks = world.txns.lock_stats();
        assert!(locks.waited > 0 && locks.timeouts == 0, "{locks:?}");
        assert!(world.txns.stranded().is_empty() && world.txns.blocked().is_empty());
        assert_eq!(world.wal.stats().reserved_bytes, 0);
        let chains = check_chains(&world);
        let seen = watcher.join().unwrap();
        assert!(seen.len() > 10);
        for snapshot in &seen {
            check_snapshot(snapshot, &chains);
        }
    }
}

/// All records of one transaction, and the one that ends it.
#[derive(Default)]
struct Chained {
    records: Vec<Lsn>,
    end: Lsn,
}

/// Every transaction's records are chained, undone at most once, and all that do not commit are undone
/// to the last.
fn check_chains(world: &World) -> BTreeMap<TxnId, Chained> {
    world.wal.force(Lsn::MAX).unwrap();
    let mut chains: BTreeMap<TxnId, Chained> = BTreeMap::new();
    let mut prevs: HashMap<Lsn, Lsn> = HashMap::new();
    let mut undone: HashSet<Lsn> = HashSet::new();
    let mut open: HashMap<TxnId, Lsn> = HashMap::new();
    let (mut scan, mut buf) = (world.wal.scan(world.start), RecordBuf::new());
    while scan.next(&mut buf).unwrap() {
        let (lsn, record) = (buf.lsn(), buf.record());
        let chain = chains.entry(record.txn).or_default();
        assert_eq!(record.prev, chain.records.last().copied().unwrap_or(Lsn::NONE), "{lsn}");
        assert!(chain.end.is_none(), "{lsn} after the end of {}", record.txn);
        chain.records.push(lsn);
        prevs.insert(lsn, record.prev);
        match record.body {
            Body::Update { .. } => _ = open.insert(record.txn, lsn),
            Body::Compensation { undo_next, .. } => {
                // What it takes back is the newest record that is not undone; find it by jumping.
                let target = open[&record.txn];
                assert_eq!(undo_next, prevs[&target], "{lsn} takes back {target}");
                assert!(undone.insert(target), "{target} is undone twice");
                open.insert(record.txn, jump(world, undo_next));
            }
            Body::Commit { .. } => {
                open.insert(record.txn, Lsn::NONE);
                chain.end = lsn;
            }
            Body::End => {
                assert!(open[&record.txn].is_none(), "{} ends with something to undo", record.txn);
                chain.end = lsn;
            }
            Body::CheckpointBegin { .. } | Body::CheckpointEnd { .. } | Body::Prepare { .. } => {
                unreachable!("none taken")
            }
        }
    }
    assert!(chains.values().all(|chain| !chain.end.is_none()), "everybody has ended");
    chains
}

/// The next record to undo from `lsn` on: CLRs lead on.
fn jump(world: &World, mut lsn: Lsn) -> Lsn {
    let mut buf = RecordBuf::new();
    while !lsn.is_none() {
        world.wal.read(lsn, &mut buf).unwrap();
        match buf.record().body {
            Body::Compensation { undo_next, .. } => lsn = undo_next,
            Body::Update { .. }
            | Body::Commit { .. }
            | Body::End
            | Body::CheckpointBegin { .. }
            | Body::Prepare { .. }
            | Body::CheckpointEnd { .. } => break,
        }
    }
    lsn
}

/// T1: what the log held before the table was copied is in the copy.
fn check_snapshot(snapshot: &Snapshot, chains: &BTreeMap<TxnId, Chained>) {
    let Snapshot { before, commit_lsn, active, after } = snapshot;
    let listed: HashMap<TxnId, &ActiveTxn> = active.iter().map(|a| (a.txn, a)).collect();
    assert_eq!(listed.len(), active.len(), "a transaction is listed once");
    for (txn, chain) in chains {
        let known = chain.records.iter().rfind(|lsn| *lsn < before);
        match (listed.get(txn), known) {
            (Some(entry), _) => {
                assert_eq!(entry.first, chain.records[0], "{txn}");
                assert!(entry.first >= *commit_lsn, "{txn} holds back {commit_lsn}");
                assert!(known.is_none_or(|lsn| *lsn <= entry.last), "{txn}: {known:?} is newer");
            }
            (None, Some(lsn)) => assert!(chain.end < *after, "{txn} with {lsn} is missing"),
            (None, None) => {}
        }
    }
}
