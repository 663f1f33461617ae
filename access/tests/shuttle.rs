//! Trees under every interleaving the scheduler can think of, on the real pool, log and locks.
//!
//! Run with `cargo test -p argali-access --features shuttle --test shuttle`.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use argali_access::BTree;
use argali_base::Result;
use argali_base::sync::thread;
use argali_txn::{Durability, Mutations, Txn};
use common::{Setup, World, get, key, scan, scan_all, scan_back, tidy};

/// Each builds a database: enough for a look, raise it for a search.
const ROUNDS: usize = 60;

struct Stage {
    world: World,
    tree: BTree,
}

type Story = fn(&Stage);

/// Two leaves of three rows each, then `stories`, one thread each; `check` at the end.
fn model(stories: &'static [Story], check: Story) {
    model_with(Mutations::default(), ROUNDS, stories, check);
}

fn model_with(mutations: Mutations, rounds: usize, stories: &'static [Story], check: Story) {
    let body = move || {
        let world = World::with(&Setup { frames: 16, ..Setup::default() });
        world.txns.set_mutations(mutations);
        let tree = world.tree();
        let mut txn = world.begin();
        for n in 1..=6 {
            tree.put(&mut txn, &key(10 * n), &[0; 900]).unwrap();
        }
        txn.commit(Durability::Relaxed).unwrap();
        let stage = Arc::new(Stage { world, tree });
        let threads: Vec<_> = stories
            .iter()
            .map(|story| {
                let stage = Arc::clone(&stage);
                thread::spawn("story", move || story(&stage)).unwrap()
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        stage.world.verify(&[&stage.tree]);
        check(&stage);
    };
    shuttle::check_random(body, rounds);
    shuttle::check_pct(body, rounds, 3);
}

fn run(stage: &Stage, mut body: impl FnMut(&mut Txn) -> Result<()>) {
    loop {
        let mut txn = stage.world.begin();
        match body(&mut txn) {
            Ok(()) => {
                txn.commit(Durability::Relaxed).unwrap();
                return;
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

fn scan_twice(stage: &Stage, to: u64) {
    let mut txn = stage.world.begin();
    let to = key(to);
    let rows = |txn: &mut Txn| scan(&stage.tree, txn, Unbounded, Excluded(&to));
    let Ok(first) = rows(&mut txn) else { return };
    let Ok(second) = rows(&mut txn) else { return };
    assert_eq!(first.len(), second.len(), "a phantom");
    txn.commit(Durability::Relaxed).unwrap();
}

#[test]
fn a_scan_and_an_insert_at_the_border_of_two_leaves() {
    fn insert(stage: &Stage) {
        for n in [35, 25] {
            run(stage, |txn| stage.tree.put(txn, &key(n), b"new").map(drop));
        }
    }
    model(&[|stage| scan_twice(stage, 99), insert], |stage| {
        assert_eq!(scan_all(&stage.tree, &mut stage.world.begin()).len(), 8);
    });
}

#[test]
fn a_scan_that_ends_in_the_gap_an_insert_enters() {
    fn insert(stage: &Stage) {
        run(stage, |txn| stage.tree.put(txn, &key(25), b"new").map(drop));
    }
    model(&[|stage| scan_twice(stage, 28), insert], |_| {});
}

#[test]
fn a_backward_scan_and_inserts_at_the_border_of_two_leaves() {
    fn scan_back_twice(stage: &Stage) {
        let mut txn = stage.world.begin();
        let (from, to) = (key(25), key(55));
        let rows = |txn: &mut Txn| scan_back(&stage.tree, txn, Included(&from), Excluded(&to));
        let Ok(first) = rows(&mut txn) else { return };
        let Ok(second) = scan(&stage.tree, &mut txn, Included(&from), Excluded(&to)) else {
            return;
        };
        assert_eq!(first.len(), second.len(), "a phantom");
        assert!(first.len() >= 3, "rows that were there all the time");
        txn.commit(Durability::Relaxed).unwrap();
    }
    fn insert(stage: &Stage) {
        for n in [35, 53, 31] {
            run(stage, |txn| stage.tree.put(txn, &key(n), &[1; 900]).map(drop));
        }
    }
    model(&[scan_back_twice, insert], |stage| {
        assert_eq!(scan_all(&stage.tree, &mut stage.world.begin()).len(), 9);
    });
}

#[test]
fn two_splits_of_one_leaf_and_a_reader() {
    fn low(stage: &Stage) {
        run(stage, |txn| stage.tree.put(txn, &key(11), &[1; 900]).map(drop));
        run(stage, |txn| stage.tree.put(txn, &key(12), &[1; 900]).map(drop));
    }
    fn high(stage: &Stage) {
        run(stage, |txn| stage.tree.put(txn, &key(13), &[2; 900]).map(drop));
        run(stage, |txn| stage.tree.put(txn, &key(14), &[2; 900]).map(drop));
    }
    fn read(stage: &Stage) {
        let mut txn = stage.world.begin();
        assert!(get(&stage.tree, &mut txn, &key(10)).is_some());
        assert!(get(&stage.tree, &mut txn, &key(20)).is_some());
        txn.commit(Durability::Relaxed).unwrap();
    }
    model(&[low, high, read], |stage| {
        assert_eq!(scan_all(&stage.tree, &mut stage.world.begin()).len(), 10);
    });
}

#[test]
fn a_rollback_while_its_leaf_is_split() {
    fn lose(stage: &Stage) {
        let mut txn = stage.world.begin();
        let mut body = || {
            stage.tree.delete(&mut txn, &key(20))?;
            stage.tree.put(&mut txn, &key(21), &[3; 600])?;
            stage.tree.put(&mut txn, &key(10), b"short")
        };
        drop(body());
        txn.abort().unwrap();
    }
    fn split(stage: &Stage) {
        run(stage, |txn| stage.tree.put(txn, &key(15), &[1; 900]).map(drop));
    }
    model(&[lose, split], |stage| {
        let rows = scan_all(&stage.tree, &mut stage.world.begin());
        assert_eq!(rows.len(), 7);
        assert!(rows.iter().all(|(_, value)| value.len() == 900));
    });
}

/// Leaves one row in each leaf, and joins the two as soon as that is settled.
fn shrink(stage: &Stage) {
    for n in [20, 30, 60, 50] {
        run(stage, |txn| stage.tree.delete(txn, &key(n)).map(drop));
        tidy(&stage.world);
    }
}

/// What is left after [`shrink`], one page in the end.
fn shrunk(stage: &Stage, rows: &[u64]) {
    // Whoever was active when it was looked at is gone now; a commit lets the leaf be looked at again.
    run(stage, |txn| stage.tree.put(txn, &key(10), &[0; 900]).map(drop));
    tidy(&stage.world);
    assert_eq!(stage.world.verify(&[&stage.tree])[0].pages, 1);
    assert!(stage.world.space.stats().joins >= 2, "two leaves, and the root with the one left");
    let keys: Vec<_> = rows.iter().map(|n| key(*n)).collect();
    let found = scan_all(&stage.tree, &mut stage.world.begin());
    assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys);
}

#[test]
fn a_join_and_scans_in_both_directions() {
    fn back_and_forth(stage: &Stage) {
        let mut txn = stage.world.begin();
        let Ok(back) = scan_back(&stage.tree, &mut txn, Unbounded, Unbounded) else { return };
        let Ok(forth) = scan(&stage.tree, &mut txn, Unbounded, Unbounded) else { return };
        assert_eq!(back.into_iter().rev().collect::<Vec<_>>(), forth, "a phantom");
        txn.commit(Durability::Relaxed).unwrap();
    }
    model(&[shrink, back_and_forth, |stage| scan_twice(stage, 99)], |stage| {
        shrunk(stage, &[10, 40]);
    });
}

#[test]
fn a_join_and_descents_to_both_leaves() {
    fn read(stage: &Stage) {
        for n in [40, 10, 40] {
            let mut txn = stage.world.begin();
            assert!(get(&stage.tree, &mut txn, &key(n)).is_some(), "{n} is there all the time");
            txn.commit(Durability::Relaxed).unwrap();
        }
    }
    fn write(stage: &Stage) {
        for n in [45, 15] {
            run(stage, |txn| stage.tree.put(txn, &key(n), b"new").map(drop));
        }
    }
    model(&[shrink, read, write], |stage| shrunk(stage, &[10, 15, 40, 45]));
}

#[test]
fn a_join_and_a_rollback_into_both_leaves() {
    fn lose(stage: &Stage) {
        let mut txn = stage.world.begin();
        let mut body = || {
            stage.tree.delete(&mut txn, &key(40))?;
            stage.tree.put(&mut txn, &key(10), b"short")?;
            stage.tree.put(&mut txn, &key(41), b"new")
        };
        drop(body());
        txn.abort().unwrap();
    }
    model(&[shrink, lose], |stage| shrunk(stage, &[10, 40]));
}

/// The page that a join gives back goes to a split at once; whoever had its number must not mistake it.
#[test]
fn a_join_and_a_split_that_takes_its_page() {
    fn grow(stage: &Stage) {
        for n in [11, 12, 13] {
            run(stage, |txn| stage.tree.put(txn, &key(n), &[1; 900]).map(drop));
        }
    }
    fn read(stage: &Stage) {
        let mut txn = stage.world.begin_at(argali_txn::Isolation::ReadCommitted);
        let Ok(rows) = scan(&stage.tree, &mut txn, Unbounded, Unbounded) else { return };
        let there = [10, 40].map(key);
        let found: Vec<_> = rows.iter().filter(|(key, _)| there.contains(key)).collect();
        assert_eq!(found.len(), 2, "{rows:?}");
    }
    model(&[shrink, grow, read], |stage| {
        let rows = scan_all(&stage.tree, &mut stage.world.begin());
        assert_eq!(rows.len(), 5);
    });
}

/// A row goes to another place, in one transaction.
fn carry(stage: &Stage, from: u64, to: u64) {
    run(stage, |txn| {
        stage.tree.delete(txn, &key(from))?;
        stage.tree.put(txn, &key(to), &[0; 900]).map(drop)
    });
}

fn count_forward(stage: &Stage) {
    let mut txn = stage.world.begin();
    let Ok(rows) = scan(&stage.tree, &mut txn, Unbounded, Unbounded) else { return };
    assert_eq!(rows.len(), 6, "rows seen forward");
    txn.commit(Durability::Relaxed).unwrap();
}

fn count_backward(stage: &Stage) {
    let mut txn = stage.world.begin();
    let Ok(rows) = scan_back(&stage.tree, &mut txn, Unbounded, Unbounded) else { return };
    assert_eq!(rows.len(), 6, "rows seen backward");
    txn.commit(Durability::Relaxed).unwrap();
}

/// Two carry rows across the border of two leaves, while two others claim what they count.
fn carriers_and_counters(mutations: Mutations, rounds: usize) {
    fn up_and_down(stage: &Stage) {
        carry(stage, 20, 55);
        carry(stage, 55, 15);
    }
    fn across(stage: &Stage) {
        carry(stage, 40, 35);
    }
    let stories: &[Story] = &[up_and_down, across, count_forward, count_backward];
    model_with(mutations, rounds, stories, |stage| {
        let keys = [10, 15, 30, 35, 50, 60].map(key);
        let found = scan_all(&stage.tree, &mut stage.world.begin());
        assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys);
    });
}

#[test]
fn scans_that_claim_see_every_row_once() {
    carriers_and_counters(Mutations::default(), ROUNDS);
}

#[test]
#[should_panic(expected = "rows seen")]
fn a_claim_that_comes_after_the_look_is_caught() {
    carriers_and_counters(
        Mutations { claims_come_late: true, ..Mutations::default() },
        20 * ROUNDS,
    );
}

#[test]
#[should_panic(expected = "rows seen")]
fn a_writer_that_overlooks_claims_is_caught() {
    let mutations = Mutations { writers_overlook_claims: true, ..Mutations::default() };
    carriers_and_counters(mutations, 20 * ROUNDS);
}
