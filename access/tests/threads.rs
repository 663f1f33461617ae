//! Many threads on one tree in a pool of a few frames; then everything is checked.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use argali_access::BTree;
use argali_base::Result;
use argali_txn::{Durability, Isolation, Txn};
use common::{Setup, World, get, key, scan, scan_all, scan_back, tidy, without_claims};

const THREADS: u64 = 4;

/// Bytes all keys of the interleaved test begin with: separators get long, inner nodes narrow, trees high.
const PREFIX: usize = 250;

fn long_key(n: u64) -> Vec<u8> {
    let mut key = vec![b'k'; PREFIX];
    key.extend_from_slice(format!("{n:08}").as_bytes());
    key
}

/// Runs `body` in transactions until one is not the victim of a conflict.
fn run<T>(world: &World, isolation: Isolation, mut body: impl FnMut(&mut Txn) -> Result<T>) -> T {
    loop {
        let mut txn = world.begin_at(isolation);
        match body(&mut txn) {
            Ok(value) => {
                txn.commit(Durability::Relaxed).unwrap();
                return value;
            }
            Err(error) if error.is_retryable() => txn.abort().unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Each thread owns every fourth key and knows what must be there; all share leaves, splits and frames.
fn interleaved(frames: usize, seed: u64) {
    let world = World::with(&Setup { frames, ..Setup::default() });
    let tree = world.tree();
    let done = AtomicBool::new(false);
    let models: Vec<BTreeMap<Vec<u8>, Vec<u8>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|n| {
                let (world, tree) = (&world, &tree);
                scope.spawn(move || worker(world, tree, n, seed))
            })
            .collect();
        scope.spawn(|| tidy_until(&world, &done));
        let models = workers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>();
        done.store(true, Ordering::Release);
        models.into_iter().map(Result::unwrap).collect()
    });
    assert!(world.space.stats().joins > 0, "{:?}", world.space.stats());
    let expected: Vec<_> =
        models.into_iter().flatten().collect::<BTreeMap<_, _>>().into_iter().collect();
    let stats = world.verify(&[&tree]);
    assert_eq!(stats[0].rows, expected.len() as u64);
    assert!(stats[0].depth >= 3, "{stats:?}");
    assert_eq!(scan_all(&tree, &mut world.begin()), expected);
}

/// What the engine does in the background, without a pause.
fn tidy_until(world: &World, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        tidy(world);
        thread::yield_now();
    }
}

fn worker(world: &World, tree: &BTree, n: u64, seed: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed * 100 + n);
    let mut model = BTreeMap::new();
    for round in 0..120 {
        let before = model.clone();
        // Trees grow for a while, then shrink.
        let deletes = if round / 20 % 2 == 0 { 2 } else { 6 };
        let mut txn = world.begin_at(Isolation::ReadCommitted);
        for _ in 0..random.usize(1..20) {
            let key = long_key(random.u64(0..400) * THREADS + n);
            match random.u8(0..10) {
                chance if chance < deletes => {
                    assert_eq!(tree.delete(&mut txn, &key).unwrap(), model.remove(&key));
                }
                2..8 => {
                    let value = vec![random.u8(..); random.usize(0..500)];
                    let old = tree.put(&mut txn, &key, &value).unwrap();
                    assert_eq!(old, model.insert(key, value));
                }
                8 => assert_eq!(get(tree, &mut txn, &key), model.get(&key).cloned()),
                _ => own_keys_are_all_there(tree, &mut txn, n, &model, &key),
            }
        }
        if random.u8(0..5) == 0 {
            txn.abort().unwrap();
            model = before;
        } else {
            txn.commit(Durability::Relaxed).unwrap();
        }
    }
    model
}

/// A scan under read committed passes the keys of others, too; its own are as the thread left them.
fn own_keys_are_all_there(
    tree: &BTree,
    txn: &mut Txn,
    n: u64,
    model: &BTreeMap<Vec<u8>, Vec<u8>>,
    from: &[u8],
) {
    // Others hold locks until they end: look only a little way, and give up on conflicts.
    let to: Vec<u8> = model.range(from.to_vec()..).nth(3).map_or(from.to_vec(), |(k, _)| k.clone());
    let Ok(seen) = scan(tree, txn, Bound::Included(from), Bound::Included(&to)) else { return };
    let own = |k: &[u8]| {
        let number: u64 = std::str::from_utf8(&k[PREFIX..]).unwrap().parse().unwrap();
        number % THREADS == n
    };
    let seen: Vec<_> = seen.into_iter().filter(|(k, _)| own(k)).collect();
    let back = scan_back(tree, txn, Bound::Included(from), Bound::Included(&to));
    if let Ok(back) = back {
        let back: Vec<_> = back.into_iter().rev().filter(|(k, _)| own(k)).collect();
        assert_eq!(back, seen, "backward");
    }
    let expected: Vec<_> =
        model.range(from.to_vec()..=to).map(|(k, v)| (k.clone(), v.clone())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn threads_share_leaves_in_a_pool_of_16_frames() {
    for seed in 0..3 {
        interleaved(16, seed);
    }
}

#[test]
fn threads_share_leaves_in_a_pool_of_64_frames() {
    for seed in 0..3 {
        interleaved(64, seed);
    }
}

/// Accounts exist only while they hold money: transfers insert and delete. A serializable scan must see
/// the total, always: it would miss money that moved behind its back into a gap it had passed.
#[test]
fn no_phantoms_under_transfers() {
    let (world, _) = transfers(usize::MAX, |_| ());
    assert_eq!(world.txns.lock_stats().escalations, 0);
}

/// The same when scans lock keys and gaps, and the whole tree in their middle, if they can.
#[test]
fn no_phantoms_under_transfers_and_escalation() {
    let (world, tree) = transfers(20, without_claims);
    // Beside others an escalation is only a try; alone it succeeds.
    run(&world, Isolation::Serializable, |txn| {
        without_claims(txn);
        scan(&tree, txn, Bound::Unbounded, Bound::Unbounded).map(drop)
    });
    assert!(world.txns.lock_stats().escalations > 0, "{:?}", world.txns.lock_stats());
}

fn transfers(escalate_at: usize, prepare: fn(&mut Txn)) -> (World, BTree) {
    const TOTAL: u64 = 60;
    let world = World::with(&Setup { frames: 24, ..Setup::default() });
    world.txns.set_escalation(usize::MAX);
    let tree = world.tree();
    run(&world, Isolation::Serializable, |txn| {
        (0..TOTAL).try_for_each(|n| tree.put(txn, &account(n * 3), &1_u64.to_le_bytes()).map(drop))
    });
    world.txns.set_escalation(escalate_at);
    let (done, sums) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let movers: Vec<_> = (0..2)
            .map(|seed| {
                let (world, tree) = (&world, &tree);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..400 {
                        let (from, to) = (random.u64(0..200), random.u64(0..200));
                        run(world, Isolation::Serializable, |txn| transfer(tree, txn, from, to));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) || sums.load(Ordering::Relaxed) < 2 {
                let way = if sums.load(Ordering::Relaxed) % 2 == 0 { scan } else { scan_back };
                let sum = run(&world, Isolation::Serializable, |txn| {
                    prepare(txn);
                    let all = way(&tree, txn, Bound::Unbounded, Bound::Unbounded)?;
                    Ok(all.iter().map(|(_, v)| amount(v)).sum::<u64>())
                });
                assert_eq!(sum, TOTAL);
                sums.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| tidy_until(&world, &done));
        for mover in movers {
            mover.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    world.verify(&[&tree]);
    (world, tree)
}

/// Padded, so that 200 accounts take several leaves.
fn account(n: u64) -> Vec<u8> {
    let mut key = key(n);
    key.resize(200, b'.');
    key
}

fn amount(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

fn transfer(tree: &BTree, txn: &mut Txn, from: u64, to: u64) -> Result<()> {
    let mut value = Vec::new();
    if from == to || !tree.get_for_update(txn, &account(from), &mut value)? {
        return Ok(());
    }
    match amount(&value) {
        1 => drop(tree.delete(txn, &account(from))?),
        n => drop(tree.put(txn, &account(from), &(n - 1).to_le_bytes())?),
    }
    let there = tree.get_for_update(txn, &account(to), &mut value)?;
    let n = if there { amount(&value) } else { 0 };
    tree.put(txn, &account(to), &(n + 1).to_le_bytes())?;
    Ok(())
}

/// Everybody appends at the right edge: splits of the same leaf and its ancestors meet.
#[test]
fn threads_append_at_the_same_edge() {
    let world = World::with(&Setup { frames: 32, ..Setup::default() });
    let (tree, next) = (world.tree(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..300 {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let mut txn = world.begin();
                    assert!(tree.insert_new(&mut txn, &key(n), &[7; 300]).unwrap());
                    txn.commit(Durability::Relaxed).unwrap();
                }
            });
        }
    });
    let stats = world.verify(&[&tree]);
    assert_eq!(stats[0].rows, 300 * THREADS);
    let full = stats[0].bytes as f64 / (stats[0].pages * 4096) as f64;
    assert!(full > 0.7, "ascending inserts fill pages: {full:.2}");
}
