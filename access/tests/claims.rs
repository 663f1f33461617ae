//! Serializable scans claim ranges: whoever writes there waits, and nobody else does.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::{Duration, Instant};

use argali_access::{BTree, Entry, Way};
use argali_base::{Error, Result};
use argali_txn::{Durability, Isolation, LockMode, LockName, Mutations, Txn};
use common::{Rows, WAYS, World, get, key, scan, scan_all, tens};

/// Whether a transaction that does not wait could do `write` just now.
fn could(world: &World, isolation: Isolation, write: impl FnOnce(&mut Txn) -> Result<()>) -> bool {
    let mut txn = world.hasty(isolation);
    let result = write(&mut txn);
    txn.abort().unwrap();
    match result {
        Ok(()) => true,
        Err(Error::LockTimeout { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn could_put(world: &World, tree: &BTree, n: u64) -> bool {
    could(world, Isolation::Serializable, |txn| tree.put(txn, &key(n), b"new").map(drop))
}

#[test]
fn a_claim_takes_no_lock_and_is_as_wide_as_the_range() {
    let world = World::new();
    let tree = tens(&world, 40, &[0; 800]);
    for (way, scan) in WAYS {
        let mut reader = world.begin();
        get(&tree, &mut reader, &key(1));
        let before = world.txns.lock_stats();
        let (from, to) = (key(55), key(305));
        let rows = scan(&tree, &mut reader, Excluded(&from), Included(&to)).unwrap();
        assert_eq!(rows.len(), 25, "{way}");
        let after = world.txns.lock_stats();
        assert_eq!(after.acquired, before.acquired, "{way}");
        assert!((1..30).contains(&(after.claims - before.claims)), "{way}");
        for inside in [56, 60, 125, 200, 300, 305] {
            assert!(!could_put(&world, &tree, inside), "{inside} {way}");
        }
        for outside in [50, 55, 306, 310] {
            assert!(could_put(&world, &tree, outside), "{outside} {way}");
        }
        reader.commit(Durability::Sync).unwrap();
        assert!(could_put(&world, &tree, 125), "{way}");
    }
}

/// Inserts, changes, deletions and revivals wait, at whatever level their transaction is.
#[test]
fn every_kind_of_write_waits_for_a_claim() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut txn = world.begin();
    tree.delete(&mut txn, &key(50)).unwrap();
    txn.commit(Durability::Sync).unwrap();
    for (way, scan) in WAYS {
        let mut reader = world.begin();
        assert_eq!(scan(&tree, &mut reader, Unbounded, Included(&key(70))).unwrap().len(), 6);
        let levels = [Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted];
        for level in levels {
            let put = |n: u64, value: &'static [u8]| {
                could(&world, level, |txn| tree.put(txn, &key(n), value).map(drop))
            };
            assert!(!put(5, b"new") && !put(50, b"new"), "an insert and a revival {way}");
            assert!(!put(20, b"NEW") && !put(20, b"longer than before"), "changes {way}");
            assert!(put(80, b"new") && put(75, b"new"), "outside {way}");
            let delete = |n| could(&world, level, |txn| tree.delete(txn, &key(n)).map(drop));
            assert!(!delete(30) && delete(90) && delete(35), "deletions, one of nothing {way}");
        }
        assert_eq!(scan(&tree, &mut reader, Unbounded, Included(&key(70))).unwrap().len(), 6);
    }
}

/// How far a claim may exceed what was given out: by what was copied at once, at most 16 rows.
#[test]
fn a_scan_that_stops_claims_at_most_fifteen_rows_more() {
    let world = World::new();
    let tree = tens(&world, 100, b"v");
    for taken in 1..40 {
        for way in [Way::Forward, Way::Backward] {
            let (mut reader, mut entry) = (world.begin(), Entry::default());
            let mut found = match way {
                Way::Forward => tree.next(&mut reader, Unbounded, Unbounded, &mut entry).unwrap(),
                Way::Backward => tree.prev(&mut reader, Unbounded, Unbounded, &mut entry).unwrap(),
            };
            for _ in 1..taken {
                found &= tree.glide(reader.id(), way, Unbounded, &mut entry)
                    || tree.advance(&mut reader, way, Unbounded, &mut entry).unwrap();
            }
            assert!(found);
            let nth = |n: u64| if way == Way::Forward { 10 * n } else { 10 * (101 - n) };
            assert!(!could_put(&world, &tree, nth(taken)), "{taken} {way:?}");
            assert!(could_put(&world, &tree, nth(taken + 16)), "{taken} {way:?}");
            if taken == 1 {
                assert!(could_put(&world, &tree, nth(2)), "the first row is claimed alone");
            }
        }
    }
}

/// The same place, and a wider limit: what was copied behind the first one is not yet claimed.
#[test]
fn a_limit_that_moves_is_claimed_anew() {
    let world = World::new();
    let tree = tens(&world, 60, b"v");
    let (mut reader, mut entry) = (world.begin(), Entry::default());
    assert!(tree.next(&mut reader, Unbounded, Unbounded, &mut entry).unwrap());
    let (near, far) = (key(65), key(95));
    let mut advance = |limit: &[u8], entry: &mut Entry| {
        tree.glide(reader.id(), Way::Forward, Included(limit), entry)
            || tree.advance(&mut reader, Way::Forward, Included(limit), entry).unwrap()
    };
    for n in 2..=6 {
        assert!(advance(&near, &mut entry), "{n}");
        assert_eq!(entry.key(), key(10 * n));
    }
    assert!(could_put(&world, &tree, 70), "beyond the limit");
    assert!(advance(&far, &mut entry));
    assert_eq!(entry.key(), key(70));
    assert!(!could_put(&world, &tree, 70) && !could_put(&world, &tree, 66));
}

/// A row that somebody has changed is waited for, claimed afterwards, and locks nothing for good.
#[test]
fn rows_of_active_transactions_are_waited_for() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    for (way, scan) in WAYS {
        let mut writer = world.begin();
        tree.put(&mut writer, &key(50), b"new").unwrap();
        let mut hasty = world.hasty(Isolation::Serializable);
        let error = scan(&tree, &mut hasty, Unbounded, Unbounded).unwrap_err();
        assert!(matches!(error, Error::LockTimeout { holder, .. } if holder == writer.id()));
        // What the scan stopped at is not claimed: the writer may go on there.
        tree.put(&mut writer, &key(50), b"newer").unwrap();
        tree.put(&mut writer, &key(49), b"newer").unwrap();
        drop(hasty);
        // Rows beside it can be read, one by one, and are claimed.
        let mut reader = world.begin();
        let (from, to) = (key(60), key(80));
        assert_eq!(scan(&tree, &mut reader, Included(&from), Included(&to)).unwrap().len(), 3);
        assert!(!could_put(&world, &tree, 65) && !could_put(&world, &tree, 70), "{way}");
        assert!(could_put(&world, &tree, 55) && could_put(&world, &tree, 85), "{way}");
        writer.abort().unwrap();
        assert_eq!(scan(&tree, &mut reader, Unbounded, Unbounded).unwrap().len(), 10, "{way}");
    }
}

#[test]
fn a_claim_is_in_nobodys_own_way() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    for (way, scan) in WAYS {
        let mut txn = world.begin();
        assert_eq!(scan(&tree, &mut txn, Unbounded, Unbounded).unwrap().len(), 10);
        let point = txn.savepoint();
        tree.put(&mut txn, &key(55), b"new").unwrap();
        tree.delete(&mut txn, &key(10)).unwrap();
        assert_eq!(scan(&tree, &mut txn, Unbounded, Unbounded).unwrap().len(), 10);
        txn.rollback_to(point).unwrap();
        assert_eq!(scan(&tree, &mut txn, Unbounded, Unbounded).unwrap().len(), 10);
        assert!(!could_put(&world, &tree, 45), "claims outlive a rollback to a savepoint {way}");
        txn.abort().unwrap();
        assert!(could_put(&world, &tree, 45), "{way}");
    }
}

/// Runs `body` on a thread of its own once somebody is in line.
fn when_somebody_waits<T: Send>(
    world: &World,
    waits: impl FnOnce() -> T + Send,
    body: impl FnOnce(),
) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(waits);
        let begun = Instant::now();
        while world.txns.blocked().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits");
            std::thread::yield_now();
        }
        body();
        thread.join().unwrap()
    })
}

#[test]
fn a_writer_waits_for_claims_and_goes_on_when_they_go() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    for (way, scan) in WAYS {
        let mut reader = world.begin();
        assert_eq!(scan_all(&tree, &mut reader).len(), 10);
        let write = || {
            let mut writer = world.begin();
            tree.put(&mut writer, &key(55), b"new").unwrap();
            writer.abort().unwrap();
        };
        when_somebody_waits(&world, write, || {
            let blocked = world.txns.blocked();
            let name = LockName::Claims { tree: tree.root().get(), txn: reader.id() };
            assert_eq!((blocked[0].lock, &blocked[0].behind[..]), (name, &[reader.id()][..]));
            assert_eq!(scan(&tree, &mut reader, Unbounded, Unbounded).unwrap().len(), 10, "{way}");
            reader.commit(Durability::Sync).unwrap();
        });
        assert!(world.txns.blocked().is_empty());
    }
}

#[test]
fn a_timeout_says_what_was_waited_for() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut reader = world.begin();
    scan_all(&tree, &mut reader);
    let mut writer = world.hasty(Isolation::Serializable);
    let error = tree.put(&mut writer, &key(15), b"new").unwrap_err();
    let (root, id) = (tree.root(), reader.id());
    let expected = format!("a range of tree {root} read by {id}");
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(matches!(error, Error::LockTimeout { holder, .. } if holder == id), "{error}");
}

/// Both have read what the other wants to write.
#[test]
fn two_who_scan_and_then_write_do_not_wait_for_ever() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    for (_, scan) in WAYS {
        let (mut first, mut second) = (world.begin(), world.begin());
        for txn in [&mut first, &mut second] {
            assert_eq!(scan(&tree, txn, Unbounded, Unbounded).unwrap().len(), 10);
        }
        let write = |mut txn: Txn, n: u64| {
            let result = tree.put(&mut txn, &key(n), b"new").map(drop);
            txn.abort().unwrap();
            result
        };
        let (mut other, first) = (None, || write(first, 15));
        let one = when_somebody_waits(&world, first, || other = Some(write(second, 95)));
        let results = [one, other.unwrap()];
        let lost = results.iter().filter(|result| matches!(result, Err(Error::Deadlock { .. })));
        assert_eq!(lost.count(), 1, "{results:?}");
        assert!(results.iter().any(Result::is_ok), "{results:?}");
    }
}

/// While a writer waits, readers that come later wait for it, and only where it wants to write.
#[test]
fn readers_do_not_starve_a_writer() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    for (way, scan) in WAYS {
        let mut early = world.begin();
        assert_eq!(scan_all(&tree, &mut early).len(), 10);
        let mut writer = world.begin();
        let id = writer.id();
        let write = || {
            tree.put(&mut writer, &key(55), b"new").unwrap();
            writer.abort().unwrap();
        };
        when_somebody_waits(&world, write, || {
            let mut late = world.hasty(Isolation::Serializable);
            let error = scan(&tree, &mut late, Unbounded, Unbounded).unwrap_err();
            assert!(matches!(error, Error::LockTimeout { holder, .. } if holder == id), "{way}");
            drop(late);
            let mut elsewhere = world.hasty(Isolation::Serializable);
            let to = key(50);
            let rows = scan(&tree, &mut elsewhere, Unbounded, Included(&to)).unwrap();
            assert_eq!(rows.len(), 5, "{way}");
            drop(elsewhere);
            let again = scan(&tree, &mut early, Unbounded, Unbounded).unwrap();
            assert_eq!(again.len(), 10, "what is claimed already is no news {way}");
            early.commit(Durability::Sync).unwrap();
        });
        assert_eq!(scan_all(&tree, &mut world.begin()).len(), 10);
    }
}

/// A writer that gave up waiting is in nobody's way.
#[test]
fn a_writer_that_gives_up_lets_readers_pass() {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    let mut early = world.begin();
    scan_all(&tree, &mut early);
    let mut writer = world.hasty(Isolation::Serializable);
    assert!(tree.put(&mut writer, &key(55), b"new").is_err());
    // It still has the key locked, but a scan finds nothing that it changed.
    let mut late = world.hasty(Isolation::Serializable);
    assert_eq!(scan(&tree, &mut late, Unbounded, Unbounded).unwrap().len(), 10);
    early.commit(Durability::Sync).unwrap();
    let error = tree.put(&mut writer, &key(55), b"new").unwrap_err();
    assert!(matches!(error, Error::LockTimeout { holder, .. } if holder == late.id()));
}

/// Ranges of several trees, more than there is room for, and all of them in force.
#[test]
fn ranges_that_do_not_fit_are_locked() {
    let world = World::new();
    let trees = [tens(&world, 400, b"v"), tens(&world, 400, b"v")];
    for (way, scan) in WAYS {
        let mut reader = world.begin();
        for n in 1..=200 {
            for tree in &trees {
                let (from, to) = (key(20 * n - 2), key(20 * n + 2));
                assert_eq!(
                    scan(tree, &mut reader, Included(&from), Included(&to)).unwrap().len(),
                    1
                );
            }
        }
        let locks = trees.iter().flat_map(|tree| (1..=200).map(move |n| (tree, n)));
        for (tree, n) in locks.filter(|(_, n)| n % 9 == 0) {
            for inside in [20 * n - 1, 20 * n, 20 * n + 1] {
                assert!(!could_put(&world, tree, inside), "{inside} {way}");
            }
        }
        reader.commit(Durability::Sync).unwrap();
        assert!(could_put(&world, &trees[0], 20) && could_put(&world, &trees[1], 4000));
    }
}

/// Claims go with whatever ends a transaction, and the next one begins without any.
#[test]
fn claims_end_with_their_transaction() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    let ends: [fn(Txn); 3] =
        [|txn| drop(txn.commit(Durability::Sync)), |txn| txn.abort().unwrap(), drop];
    for end in ends {
        for writes in [false, true] {
            let mut txn = world.begin();
            scan_all(&tree, &mut txn);
            if writes {
                tree.put(&mut txn, &key(10), b"w").unwrap();
            }
            assert!(!could_put(&world, &tree, 25));
            end(txn);
            let _idle = world.begin();
            assert!(could_put(&world, &tree, 25));
        }
    }
}

/// An intention lock stands above every claim, so whoever wants the whole tree waits for those who claim.
#[test]
fn whoever_locks_the_tree_waits_for_those_who_claim() {
    let world = World::new();
    let tree = tens(&world, 10, b"v");
    let mut reader = world.begin();
    scan_all(&tree, &mut reader);
    let mut whole = world.hasty(Isolation::Serializable);
    assert!(!whole.try_lock(LockName::Tree(tree.root().get()), LockMode::X));
    reader.commit(Durability::Sync).unwrap();
    assert!(whole.try_lock(LockName::Tree(tree.root().get()), LockMode::X));
}

fn broken(mutations: Mutations) -> (World, BTree) {
    let world = World::new();
    let tree = tens(&world, 10, b"old");
    world.txns.set_mutations(mutations);
    (world, tree)
}

#[test]
fn a_writer_that_overlooks_claims_lets_a_phantom_in() {
    let (world, tree) = broken(Mutations { writers_overlook_claims: true, ..Mutations::default() });
    let mut reader = world.begin();
    assert_eq!(scan_all(&tree, &mut reader).len(), 10);
    let mut writer = world.begin();
    tree.put(&mut writer, &key(15), b"new").unwrap();
    writer.commit(Durability::Sync).unwrap();
    assert_eq!(scan_all(&tree, &mut reader).len(), 11);
}

#[test]
fn a_claim_of_unsettled_rows_is_a_dirty_read() {
    let (world, tree) =
        broken(Mutations { claims_of_unsettled_rows: true, ..Mutations::default() });
    let mut writer = world.begin();
    tree.put(&mut writer, &key(20), b"new").unwrap();
    let rows = scan_all(&tree, &mut world.begin());
    assert_eq!(rows[1].1, b"new");
}

/// Random scans in both directions and random writes by many: everything a transaction scanned is the same when
/// it scans again.
#[test]
fn what_was_scanned_stays() {
    let world = World::with(&common::Setup { frames: 64, ..common::Setup::default() });
    let tree = tens(&world, 60, &[0; 400]);
    let until = Instant::now() + Duration::from_millis(1500);
    let scanner = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut rounds = 0;
        while Instant::now() < until || rounds == 0 {
            let mut txn = world.begin();
            let (a, b) = (key(rng.u64(0..620)), key(rng.u64(0..620)));
            let (from, to) = (Included(&a[..]), Excluded(&b[..]));
            let (one, two) = if rng.bool() { (0, 1) } else { (1, 0) };
            let mut seen = || -> Result<[Rows; 2]> {
                let first = WAYS[one].1(&tree, &mut txn, from, to)?;
                std::thread::yield_now();
                Ok([first, WAYS[two].1(&tree, &mut txn, from, to)?])
            };
            match seen() {
                Ok([first, second]) => {
                    assert_eq!(first, second.into_iter().rev().collect::<Rows>());
                    rounds += 1;
                }
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            txn.commit(Durability::Relaxed).unwrap();
        }
    };
    let writer = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        while Instant::now() < until {
            let mut txn = world.begin();
            for _ in 0..rng.usize(1..4) {
                let n = key(rng.u64(0..620));
                let written = match rng.u8(0..3) {
                    0 => tree.delete(&mut txn, &n).map(drop),
                    _ => tree.put(&mut txn, &n, &vec![rng.u8(..); rng.usize(100..500)]).map(drop),
                };
                if let Err(error) = written {
                    assert!(error.is_retryable(), "{error}");
                    break;
                }
            }
            if rng.bool() { txn.abort().unwrap() } else { drop(txn.commit(Durability::Relaxed)) }
        }
    };
    std::thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || scanner(seed));
            scope.spawn(move || writer(seed + 10));
        }
    });
    assert!(world.txns.lock_stats().claims > 0);
    world.verify(&[&tree]);
}
