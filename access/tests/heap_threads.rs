//! Threads on one heap: what they add up stays added up, and everybody finds their own rows.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use argali_access::{Heap, RowId};
use argali_base::Result;
use argali_txn::{Durability, Isolation, Txn};
use common::{Setup, World, row, rows};

const THREADS: u64 = 4;

/// Runs `body` until it commits.
fn run<T>(world: &World, level: Isolation, mut body: impl FnMut(&mut Txn) -> Result<T>) -> T {
    loop {
        let mut txn = world.begin_at(level);
        match body(&mut txn) {
            Ok(value) => {
                txn.commit(Durability::Relaxed).unwrap();
                return value;
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// Everybody adds, grows, shrinks and removes rows of their own, and aborts some of it; inserts and
/// forwards of all of them share pages.
#[test]
fn threads_find_their_own_rows_among_everybodys() {
    let world = World::with(&Setup { frames: 48, ..Setup::default() });
    let heap = world.heap();
    let models: Vec<HashMap<RowId, Vec<u8>>> = thread::scope(|scope| {
        let worker = |seed: u64| {
            let (world, heap) = (&world, &heap);
            move || own_rows(world, heap, seed)
        };
        let workers: Vec<_> = (0..THREADS).map(|seed| scope.spawn(worker(seed))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let all: HashMap<_, _> = models.iter().flatten().map(|(id, row)| (*id, row.clone())).collect();
    assert_eq!(all.len(), models.iter().map(HashMap::len).sum::<usize>(), "an id given twice");
    let stats = world.verify_heap(&heap);
    assert!(stats.moved > 0, "{stats:?}");
    let found: HashMap<_, _> = rows(&heap, &mut world.begin()).unwrap().into_iter().collect();
    assert_eq!(found, all);
}

fn own_rows(world: &World, heap: &Heap, seed: u64) -> HashMap<RowId, Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model: HashMap<RowId, Vec<u8>> = HashMap::new();
    for round in 0..250 {
        let (mut txn, mut next) = (world.begin(), model.clone());
        for _ in 0..rng.usize(1..8) {
            let bytes = vec![rng.u8(..); rng.usize(0..700)];
            let ids: Vec<_> = next.keys().copied().collect();
            match (rng.choice(&ids).copied(), rng.u8(0..4)) {
                (Some(id), 0) => {
                    heap.delete(&mut txn, id).unwrap();
                    next.remove(&id);
                }
                (Some(id), 1 | 2) => {
                    heap.update(&mut txn, id, &bytes).unwrap();
                    next.insert(id, bytes);
                }
                _ => {
                    let id = heap.insert(&mut txn, &bytes).unwrap();
                    assert!(!model.contains_key(&id), "{id} may yet come back");
                    assert_eq!(next.insert(id, bytes), None);
                }
            }
        }
        if round % 5 == 4 {
            txn.abort().unwrap();
        } else {
            txn.commit(Durability::Relaxed).unwrap();
            model = next;
        }
        if round % 16 == 0 {
            world.relist();
            for (id, bytes) in model.iter().take(20) {
                assert_eq!(row(heap, &mut world.begin(), *id).as_ref(), Some(bytes));
            }
        }
    }
    model
}

fn amount(row: &[u8]) -> u64 {
    u64::from_le_bytes(row[..8].try_into().unwrap())
}

/// Money moves between rows that also change their size and place; every scan finds all of it.
#[test]
fn sums_hold_while_rows_move() {
    const ACCOUNTS: u64 = 60;
    const EACH: u64 = 100;
    let world = World::with(&Setup { frames: 48, ..Setup::default() });
    let heap = world.heap();
    let accounts: Vec<RowId> = run(&world, Isolation::Serializable, |txn| {
        (0..ACCOUNTS).map(|_| heap.insert(txn, &EACH.to_le_bytes())).collect()
    });
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let movers: Vec<_> = (0..THREADS - 1)
            .map(|seed| {
                let (world, heap, accounts) = (&world, &heap, &accounts);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    for _ in 0..250 {
                        let (from, to) = (rng.choice(accounts), rng.choice(accounts));
                        let (from, to) = (*from.unwrap(), *to.unwrap());
                        let size = rng.usize(8..1200);
                        run(world, Isolation::RepeatableRead, |txn| {
                            transfer(heap, txn, (from, to), size)
                        });
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let sum: u64 = run(&world, Isolation::Serializable, |txn| {
                    Ok(rows(&heap, txn)?.iter().map(|(_, row)| amount(row)).sum())
                });
                assert_eq!(sum, ACCOUNTS * EACH);
            }
        });
        for mover in movers {
            mover.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let stats = world.verify_heap(&heap);
    assert_eq!(stats.rows, ACCOUNTS);
    assert!(stats.moved > 0, "{stats:?}");
}

fn transfer(heap: &Heap, txn: &mut Txn, (from, to): (RowId, RowId), size: usize) -> Result<()> {
    let mut row = Vec::new();
    if from == to || !heap.get_for_update(txn, from, &mut row)? || amount(&row) == 0 {
        return Ok(());
    }
    let put = |txn: &mut Txn, id, amount: u64| {
        let mut row = amount.to_le_bytes().to_vec();
        row.resize(size, 0);
        heap.update(txn, id, &row)
    };
    put(txn, from, amount(&row) - 1)?;
    assert!(heap.get_for_update(txn, to, &mut row)?);
    put(txn, to, amount(&row) + 1)
}

/// All threads add to an empty heap at once: pages and directories are added by many, each once.
#[test]
fn threads_fill_a_heap_together() {
    let world = World::with(&Setup { frames: 64, ..Setup::default() });
    let heap = world.heap();
    let ids: Vec<RowId> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let insert = |_| {
                        run(&world, Isolation::Serializable, |txn| heap.insert(txn, &[3; 1300]))
                    };
                    (0..400).map(insert).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let stats = world.verify_heap(&heap);
    assert_eq!((stats.rows, ids.len() as u64), (400 * THREADS, 400 * THREADS));
    assert!(stats.row_pages > 237, "more than one directory: {stats:?}");
    assert!(stats.row_pages < 560, "three rows a page, and a few pages begun: {stats:?}");
}
