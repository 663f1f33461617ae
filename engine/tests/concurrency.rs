//! Many threads on one small cache: no transfer is lost, no sum is ever seen torn.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use argali::{Db, Durability, Options, Standard, Tree, Write};

const ACCOUNTS: u64 = 400;
const THREADS: u64 = 8;
const TRANSFERS: u64 = 300;

fn balance(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// Balance first, then padding, so that the accounts need more pages than the cache has.
fn row(balance: i64) -> Vec<u8> {
    let mut row = balance.to_le_bytes().to_vec();
    row.resize(300, 0);
    row
}

fn transfer(tx: &mut Write, tree: &Tree, rng: &mut fastrand::Rng) -> argali::Result<()> {
    let (from, to, amount) = (rng.u64(0..ACCOUNTS), rng.u64(0..ACCOUNTS), rng.i64(1..100));
    for (account, delta) in [(from, -amount), (to, amount)] {
        let old = tx.get_for_update(tree, account.to_be_bytes())?.expect("an account");
        tx.put(tree, account.to_be_bytes(), row(balance(&old) + delta))?;
    }
    if rng.u8(0..10) == 0 {
        let savepoint = tx.savepoint()?;
        savepoint.put(tree, from.to_be_bytes(), row(i64::MIN))?;
        savepoint.rollback()?;
    }
    Ok(())
}

fn open() -> Db {
    Options::new()
        .page_size(4096)
        .cache_bytes(48 * 4096)
        .segment_bytes(256 << 10)
        .log_limit_bytes(8 << 20)
        .durability(Durability::Relaxed)
        .checkpoint_policy(Arc::new(Standard { log_bytes: 256 << 10, ..Standard::default() }))
        .temporary()
        .unwrap()
}

fn sum(db: &Db, tree: &Tree) -> argali::Result<i64> {
    let read = db.read()?;
    let mut sum = 0;
    for row in read.scan_all(tree)? {
        sum += balance(&row?.1);
    }
    Ok(sum)
}

#[test]
fn bank_with_many_threads_on_a_small_cache() {
    let db = open();
    let tree = db
        .update(|tx| {
            let tree = tx.tree("bank")?;
            (0..ACCOUNTS)
                .try_for_each(|n| tx.put(&tree, n.to_be_bytes(), row(1000)).map(|_| ()))?;
            Ok(tree)
        })
        .unwrap();
    let total = 1000 * ACCOUNTS as i64;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                let (db, tree) = (db.clone(), tree.clone());
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    for n in 0..TRANSFERS {
                        db.update(|tx| transfer(tx, &tree, &mut rng)).unwrap();
                        if n % 7 == 0 {
                            // Aborts, some of them after half a transfer.
                            let mut tx = db.begin().unwrap();
                            let _ = transfer(&mut tx, &tree, &mut rng);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match sum(&db, &tree) {
                    Ok(seen) => assert_eq!(seen, total, "a scan saw half a transfer"),
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            }
        });
        // Joined before the reader is told to stop; a panic in one of them must still stop it.
        let failed = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0, "workers panicked");
    });
    assert_eq!(sum(&db, &tree).unwrap(), total);
    let stats = db.stats().unwrap();
    assert!(stats.commits > THREADS * TRANSFERS, "{stats:?}");
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
    let seen = db.verify().unwrap();
    assert!(seen.is_sound() && seen.rows == ACCOUNTS, "{seen:#?}");
    db.close().unwrap();
}

#[test]
fn threads_create_and_drop_trees() {
    let db = open();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let db = db.clone();
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..40 {
                    let name = format!("t{}", rng.u8(0..4));
                    db.update(|tx| {
                        if rng.u8(0..4) == 0 && tx.open_tree(&name)?.is_some() {
                            return tx.drop_tree(&name);
                        }
                        let tree = tx.tree(&name)?;
                        for _ in 0..10 {
                            tx.put(&tree, rng.u64(..).to_be_bytes(), [3; 100])?;
                        }
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let seen = db.verify().unwrap();
    assert!(seen.is_sound(), "{:#?}", seen.findings);
}

/// What threads keep apart is still counted together: ids are unique, and whoever closes sees them all.
#[test]
fn transactions_of_many_threads_have_ids_of_their_own_and_keep_the_database_open() {
    let db = Options::new().in_memory().unwrap();
    let begin = |_| {
        let db = db.clone();
        std::thread::spawn(move || (0..100).map(|_| db.read().unwrap()).collect::<Vec<_>>())
    };
    let threads: Vec<_> = (0..THREADS).map(begin).collect();
    let open: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let ids: std::collections::HashSet<_> = open.iter().map(argali::Read::id).collect();
    assert_eq!(ids.len(), open.len(), "an id was given twice");
    let refused = db.clone().close().unwrap_err().to_string();
    assert!(refused.contains("800 transactions"), "{refused}");
    drop(open);
    db.close().unwrap();
}
