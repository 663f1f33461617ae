//! Each rule that isolation rests on, broken on purpose: the checker names the anomaly that follows.

use std::sync::{Arc, Mutex, PoisonError};

use argali::Mutations;
use argali::disk::{Disk, Loss, SimDisk};

use super::super::check::Anomaly::{self, *};
use super::super::check::{Verdict, check};
use super::super::life;
use super::super::model::{History, Shape};
use super::super::record::{Event, Record};
use super::super::stage::Stage;
use super::super::workload;
use super::{found, options, played, try_played, work};
use crate::args::history::LevelArg::{self, RepeatableRead, Serializable};
use crate::args::history::WorkArgs;

/// Most histories to look at.
const SEEDS: u64 = 20;

fn broken(rule: impl FnOnce(&mut Mutations)) -> Mutations {
    let mut mutations = Mutations::default();
    rule(&mut mutations);
    mutations
}

/// Some history with the broken rule shows `anomaly`, and none shows one of `never`.
#[track_caller]
fn shows(mutations: &Mutations, level: LevelArg, anomaly: Anomaly, never: &[Anomaly]) {
    let seen = (0..SEEDS).any(|seed| {
        let shape = if seed % 2 == 0 { Shape::Register } else { Shape::ListAppend };
        let db = options(mutations).in_memory().unwrap();
        let verdict = check(&played(&db, &work(level, shape, seed)), level.into());
        for wrong in never {
            assert!(!found(&verdict).contains(wrong), "seed {seed}: {wrong} in {verdict:#?}");
        }
        is_seen(&verdict, anomaly, seed)
    });
    assert!(seen, "no {anomaly} in {SEEDS} histories");
}

/// What is rewritten as a range then loses the row that came in between.
#[test]
fn a_next_key_lock_left_out_lets_phantoms_in() {
    let rule = broken(|rule| rule.txn.no_next_key_locks = true);
    let uncommitted = [DirtyWrite, AbortedRead, IntermediateRead, CircularFlow];
    shows(&rule, Serializable, Phantom, &uncommitted);
    shows(&rule, Serializable, LostWrite, &uncommitted);
}

/// Scans rest on nothing then.
#[test]
fn a_claim_overlooked_lets_phantoms_in() {
    let rule = broken(|rule| rule.txn.writers_overlook_claims = true);
    let uncommitted = [DirtyWrite, AbortedRead, IntermediateRead, CircularFlow];
    shows(&rule, Serializable, Phantom, &uncommitted);
    shows(&rule, Serializable, WriteSkew, &uncommitted);
}

/// Given back even before the row is read.
#[test]
fn a_read_lock_released_at_once_loses_updates() {
    let rule = broken(|rule| rule.txn.read_locks_released_at_once = true);
    for level in [Serializable, RepeatableRead] {
        shows(&rule, level, LostUpdate, &[DirtyWrite]);
    }
}

#[test]
fn a_read_lock_released_at_once_skews_reads_and_writes() {
    let rule = broken(|rule| rule.txn.read_locks_released_at_once = true);
    for anomaly in [ReadSkew, WriteSkew, NonRepeatableRead] {
        shows(&rule, RepeatableRead, anomaly, &[DirtyWrite]);
    }
}

#[test]
fn a_read_without_a_lock_is_dirty() {
    let rule = broken(|rule| rule.txn.no_read_locks = true);
    for anomaly in [AbortedRead, IntermediateRead, CircularFlow] {
        shows(&rule, RepeatableRead, anomaly, &[DirtyWrite]);
    }
}

/// Undoing what others have written over is not what any engine is made for: a rollback that finds another
/// value than it left may refuse, and that history is not told to its end.
#[test]
fn a_write_lock_released_at_once_interleaves_writes() {
    let rule = broken(|rule| rule.txn.write_locks_released_at_once = true);
    let seen = (0..SEEDS).any(|seed| {
        let shape = if seed % 2 == 0 { Shape::Register } else { Shape::ListAppend };
        let db = options(&rule).in_memory().unwrap();
        let history = try_played(&db, &work(Serializable, shape, seed));
        history
            .is_ok_and(|history| is_seen(&check(&history, Serializable.into()), DirtyWrite, seed))
    });
    assert!(seen, "no {DirtyWrite} in {SEEDS} histories");
}

/// A reader tells what is then lost. Its own answer survives; whom it saw does not.
#[test]
fn a_horizon_ignored_shows_reads_of_what_a_crash_took_back() {
    let rule = broken(|rule| rule.txn.release_locks_early_without_horizon = true);
    shows_after_a_crash(&rule, AbortedRead);
}

#[test]
fn a_commit_that_was_not_forced_is_missing_after_a_crash() {
    let rule = broken(|rule| rule.txn.no_force_at_commit = true);
    shows_after_a_crash(&rule, LostWrite);
}

#[track_caller]
fn shows_after_a_crash(mutations: &Mutations, anomaly: Anomaly) {
    let seen = (0..3 * SEEDS).any(|seed| {
        let shape = if seed % 2 == 0 { Shape::Register } else { Shape::ListAppend };
        let history = lives(mutations, &work(Serializable, shape, seed));
        is_seen(&check(&history, Serializable.into()), anomaly, seed)
    });
    assert!(seen, "no {anomaly} in {} histories", 3 * SEEDS);
}

fn is_seen(verdict: &Verdict, anomaly: Anomaly, seed: u64) -> bool {
    let finding = verdict.findings.iter().find(|finding| finding.anomaly == anomaly);
    if let Some(finding) = finding {
        println!("seed {seed}: {anomaly}, {} times", finding.count);
        println!("  {}", finding.examples[0].join("\n  "));
    }
    finding.is_some()
}

/// A history across power cuts on a simulated disk.
pub(super) fn lives(mutations: &Mutations, work: &WorkArgs) -> History {
    let mut rng = fastrand::Rng::with_seed(work.seed);
    let mut disk = SimDisk::new(work.seed);
    let record = Mutex::new(Record::default());
    let tell = |event: Event| record.lock().unwrap_or_else(PoisonError::into_inner).hear(event);
    let mut tick = 1;
    for life in 0..4 {
        let db = Arc::new(disk.clone()) as Arc<dyn Disk>;
        let db = options(mutations).open_on(db, &mut argali::Silent).unwrap();
        let stage = Stage::open(&db, "rows", (work.workload, tick), &tell).unwrap();
        if life == 3 {
            let rows = stage.rows().unwrap();
            drop(stage);
            return record.into_inner().unwrap().finish(work.workload, rows);
        }
        disk.stop_after(disk.io_count() + rng.u64(20..400));
        let seed = work.seed << 4 | life;
        let ended = workload::run(&stage, life::plan(&WorkArgs { seed, ..work.clone() }));
        assert!(ended.is_ok() || disk.is_dead(), "nothing but the power fails: {ended:?}");
        drop(stage);
        drop(db);
        tick = record.lock().unwrap().crash(work.clients);
        let loss = [Loss::LoseAll, Loss::Random(work.seed), Loss::KeepAll];
        disk = disk.power_cut(*rng.choice(&loss).expect("three"));
    }
    unreachable!("the last life returns")
}
