//! The power goes while several clients work with all background threads on. No run repeats, so the oracle
//! is what each client knows for certain:
//!
//! - its own ledger row counts its transfers, in the transactions that make them: after the crash it
//!   says as many as were acknowledged, or one more (the one in flight);
//! - the sum over all accounts never changes;
//! - what a finished read has seen of the others' ledgers is there after the crash (early lock release
//!   must not let a reader tell what is then lost).
//!
//! `ARGALI_SEEDS=0..1000` for a long campaign.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argali::disk::{Disk, Loss, SimDisk};
use argali::{
    Db, Durability, Error, Mutations, Options, Result, Silent, Standard, TornPages, Tree, Write,
};

const ACCOUNTS: u64 = 60;
const CLIENTS: u64 = 4;

fn open(disk: &SimDisk, mode: TornPages) -> Db {
    open_with(disk, mode, Mutations::default())
}

fn open_with(disk: &SimDisk, mode: TornPages, mutations: Mutations) -> Db {
    let options = Options::new()
        .page_size(4096)
        .cache_bytes(32 * 4096)
        .segment_bytes(64 << 10)
        .log_limit_bytes(8 << 20)
        .log_buffer_bytes(2 << 20)
        .pages_max(1 << 14)
        .torn_pages(mode)
        .mutations(mutations)
        .checkpoint_policy(Arc::new(Standard { log_bytes: 64 << 10, ..Standard::default() }));
    options.open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent).unwrap()
}

fn account(n: u64) -> String {
    format!("account{n:03}")
}

fn ledger(client: u64) -> String {
    format!("ledger{client}")
}

/// Number first, then padding.
fn row(number: i64) -> String {
    format!("{number:<300}")
}

fn number(row: &[u8]) -> i64 {
    std::str::from_utf8(row).unwrap().trim().parse().unwrap()
}

fn load(db: &Db) -> Tree {
    db.update(|tx| {
        let tree = tx.tree("bank")?;
        (0..ACCOUNTS).try_for_each(|n| tx.put(&tree, account(n), row(1000)).map(|_| ()))?;
        (0..CLIENTS).try_for_each(|n| tx.put(&tree, ledger(n), row(0)).map(|_| ()))?;
        Ok(tree)
    })
    .unwrap()
}

/// A transfer, and the client's ledger saying that it is its `count`-th.
fn work(
    tx: &Write,
    tree: &Tree,
    rng: &mut fastrand::Rng,
    (client, count): (u64, u64),
) -> Result<()> {
    let amount = rng.i64(1..100);
    for delta in [-amount, amount] {
        let key = account(rng.u64(0..ACCOUNTS));
        let old = number(&tx.get_for_update(tree, &key)?.expect("an account"));
        tx.put(tree, &key, row(old + delta))?;
    }
    tx.put(tree, ledger(client), row(count as i64)).map(|_| ())
}

/// Works until the power goes; returns the transfers acknowledged.
fn client(db: &Db, tree: &Tree, seed: u64, client: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed * CLIENTS + client);
    let mut acked = 0;
    loop {
        let result = db.update(|tx| work(tx, tree, &mut rng, (client, acked + 1)));
        match result {
            Ok(()) => acked += 1,
            Err(error) if error.is_retryable() => {}
            Err(error) => {
                assert!(!error.is_corruption(), "{error}");
                return acked;
            }
        }
        if rng.u8(0..8) == 0
            && let Ok(tx) = db.begin()
        {
            // An abort with changes, often while others wait for its locks.
            let _ = work(&tx, tree, &mut rng, (client, acked + 1));
        }
    }
}

/// Reads the ledgers until the power goes; notes what was seen by reads that finished.
fn reader(db: &Db, tree: &Tree, seen: &[AtomicU64]) {
    loop {
        let attempt = || -> Result<Vec<u64>> {
            let read = db.read()?;
            let values = (0..CLIENTS)
                .map(|n| Ok(number(&read.get(tree, ledger(n))?.expect("a ledger")) as u64))
                .collect::<Result<Vec<_>>>()?;
            read.finish()?;
            Ok(values)
        };
        match attempt() {
            Ok(values) => {
                for (seen, value) in seen.iter().zip(values) {
                    seen.fetch_max(value, Ordering::Relaxed);
                }
            }
            Err(error) if error.is_retryable() => {}
            Err(Error::Io { .. } | Error::Poisoned { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn crash(seed: u64, mode: TornPages, mutations: &Mutations) {
    let disk = SimDisk::new(seed);
    let db = open_with(&disk, mode, mutations.clone());
    let tree = load(&db);
    let mut rng = fastrand::Rng::with_seed(seed);
    disk.stop_after(disk.io_count() + rng.u64(20..600));
    let seen: Vec<_> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let acked: Vec<u64> = std::thread::scope(|scope| {
        let (db, tree, seen) = (&db, &tree, &seen);
        scope.spawn(move || reader(db, tree, seen));
        let clients: Vec<_> =
            (0..CLIENTS).map(|n| scope.spawn(move || client(db, tree, seed, n))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    drop(db);
    for loss in [Loss::LoseAll, Loss::Random(seed), Loss::Random(seed + 1), Loss::KeepAll] {
        let what = format!("seed {seed} {mode:?} {loss:?}");
        let db = open(&disk.power_cut(loss), mode);
        let read = db.read().unwrap();
        let tree = read.open_tree("bank").unwrap().expect("acknowledged");
        let balance = |n| number(&read.get(&tree, account(n)).unwrap().expect("an account"));
        assert_eq!((0..ACCOUNTS).map(balance).sum::<i64>(), 1000 * ACCOUNTS as i64, "{what}");
        for (n, acked) in acked.iter().enumerate() {
            let found = number(&read.get(&tree, ledger(n as u64)).unwrap().unwrap()) as u64;
            assert!(found == *acked || found == acked + 1, "{what}: {acked} acked, {found} found");
            let seen = seen[n].load(Ordering::Relaxed);
            assert!(found >= seen, "{what}: a finished read saw {seen}, there are {found}");
        }
        drop(read);
        let checked = db.verify().unwrap();
        assert!(checked.is_sound(), "{what}: {:#?}", checked.findings);
    }
}

#[test]
fn power_cuts_under_concurrent_clients() {
    let range = std::env::var("ARGALI_SEEDS").unwrap_or_else(|_| "0..12".to_owned());
    let (first, last) = range.split_once("..").expect("ARGALI_SEEDS=first..last");
    for seed in first.parse().unwrap()..last.parse().unwrap() {
        for mode in [TornPages::DoubleWrite, TornPages::FullPageImage] {
            crash(seed, mode, &Mutations::default());
        }
    }
}

/// Shows that the reader above is worth having.
#[test]
fn readers_that_wait_for_nobody_are_noticed() {
    let mut mutations = Mutations::default();
    mutations.txn.release_locks_early_without_horizon = true;
    let noticed = (0..60).any(|seed| {
        let run = || crash(seed, TornPages::DoubleWrite, &mutations);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
    });
    assert!(noticed, "no read told what was lost");
}

/// Relaxed commits may be lost, but only the last ones, and never half.
#[test]
fn relaxed_commits_are_lost_from_the_end_only() {
    for seed in 0..12 {
        let disk = SimDisk::new(seed);
        let db = open(&disk, TornPages::DoubleWrite);
        let tree = load(&db);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut durable = 0;
        let total = rng.u64(50..400);
        for n in 1..=total {
            let tx = db.begin().unwrap();
            work(&tx, &tree, &mut rng, (0, n)).unwrap();
            tx.put(&tree, ledger(1), row(n as i64)).unwrap();
            let lsn = tx.commit_with(Durability::Relaxed).unwrap();
            if rng.u8(0..40) == 0 {
                db.wait_durable(lsn).unwrap();
                durable = n;
            }
        }
        let image = disk.power_cut(Loss::Random(seed));
        drop(db);
        let db = open(&image, TornPages::DoubleWrite);
        let read = db.read().unwrap();
        let tree = read.open_tree("bank").unwrap().unwrap();
        let found = [0, 1].map(|n| number(&read.get(&tree, ledger(n)).unwrap().unwrap()) as u64);
        assert_eq!(found[0], found[1], "half a transaction");
        assert!((durable..=total).contains(&found[0]), "{durable} ≤ {found:?} ≤ {total}");
        let balance = |n| number(&read.get(&tree, account(n)).unwrap().unwrap());
        assert_eq!((0..ACCOUNTS).map(balance).sum::<i64>(), 1000 * ACCOUNTS as i64);
    }
}
