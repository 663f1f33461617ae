//! Every crash point: workloads cut at every disk call, recovered, and compared with the oracle.
//!
//! ```text
//!  cargo test -p argali-recovery --test crash_points -- --nocapture        the counts
//!  ARGALI_SEEDS=500 cargo test -p argali-recovery --release \
//!      --test crash_points -- --ignored --nocapture                        a long campaign
//! ```
//!
//! `ARGALI_SEED` sets the first seed of the long campaign (1 when absent). What a violation prints names
//! mode, workload, seed, call and loss: enough to repeat it, since one thread and one seed make all of
//! it deterministic.

mod harness;

use argali_base::disk::{Call, Failure};
use argali_pager::TornPages::{self, DoubleWrite, FullPageImage};
use harness::campaign::{Plan, Tally, Violation, run};
use harness::db::Config;
use harness::faults::{every_call_fails, every_sync_fails};
use harness::lives::lives;
use harness::workload::{
    ALL, BURSTS, CHECKPOINTS, COUNTERS, FEW_IN_DOUBT, IN_DOUBT, LOSERS, MIXED, Mix, REWRITES,
    SAVEPOINTS, STEAL, STRUCTURE,
};

const MODES: [TornPages; 3] = [DoubleWrite, FullPageImage, TornPages::None];

#[track_caller]
fn right(result: Result<Tally, Violation>) -> Tally {
    result.unwrap_or_else(|Violation(what)| panic!("{what}"))
}

/// Cuts one run everywhere; `most` bounds its disk calls, so that "exhaustive" stays affordable.
#[track_caller]
fn cut_everywhere(config: &Config, mix: Mix, (seed, most): (u64, u64), plan: Plan) -> Tally {
    let run = run(config, mix, seed).unwrap_or_else(|Violation(what)| panic!("{what}"));
    assert_eq!(run.error, None, "{} on a sound disk", mix.name);
    assert!(run.calls <= most, "{} made {} disk calls", mix.name, run.calls);
    right(run.cut_everywhere(plan))
}

fn report(what: &str, tally: Tally) {
    println!("{what}: {tally:?}");
}

fn every_instant(mode: TornPages) {
    let mut total = Tally::default();
    // Images make the log, and so the number of calls, several times larger.
    let draws = if mode == FullPageImage { 1 } else { 2 };
    for mix in [COUNTERS, MIXED, SAVEPOINTS, STRUCTURE, CHECKPOINTS, ALL] {
        let plan = Plan { draws, ..Plan::PLAIN };
        total.add(cut_everywhere(&Config::tight(mode), mix, (2, 400), plan));
    }
    // Long recoveries: fewer of them.
    let plan = Plan { draws: 1, singles: 0, stride: 25, ..Plan::PLAIN };
    total.add(cut_everywhere(&Config::new(mode), STEAL, (1, 500), plan));
    report(&format!("every instant, {mode:?}"), total);
}

#[test]
fn every_instant_with_double_write() {
    every_instant(DoubleWrite);
}

#[test]
fn every_instant_with_full_page_images() {
    every_instant(FullPageImage);
}

#[test]
fn every_instant_with_atomic_pages() {
    every_instant(TornPages::None);
}

/// Recovery cut before each of its own calls, on workloads of under a hundred.
#[test]
fn every_instant_of_recovery() {
    let plan = Plan { draws: 0, singles: 0, depth: 2, stride: 1 };
    let mut total = Tally::default();
    total.add(cut_everywhere(&Config::new(DoubleWrite), COUNTERS.steps(6), (1, 100), plan));
    for mode in MODES {
        total.add(cut_everywhere(&Config::new(mode), LOSERS, (28, 100), plan));
    }
    report("recovery cut at every instant", total);
    assert!(total.losers > 1000, "undo was hardly ever cut: {total:?}");
}

/// Recovery of recovery of recovery, on a tiny workload.
#[test]
fn every_instant_of_recovery_of_recovery() {
    let plan = Plan { draws: 0, singles: 0, depth: 3, stride: 1 };
    let total = cut_everywhere(&Config::new(TornPages::None), LOSERS.steps(4), (26, 40), plan);
    report("recovery of recovery cut at every instant", total);
    assert!(total.losers > 1000, "undo was hardly ever cut: {total:?}");
}

/// Prepares, decisions and crashes in between, cut at every call; each recovery decides what is in doubt.
#[test]
fn every_instant_in_doubt() {
    let mut total = Tally::default();
    for mode in MODES {
        let plan = Plan { draws: 1, ..Plan::PLAIN };
        total.add(cut_everywhere(&Config::tight(mode), IN_DOUBT, (3, 600), plan));
    }
    report("in doubt at every instant", total);
    assert!(total.in_doubt > 1000, "hardly anybody was in doubt: {total:?}");
}

/// The recovery of transactions in doubt, and their late decisions, cut before each call.
#[test]
fn every_instant_of_recovery_in_doubt() {
    let plan = Plan { draws: 0, singles: 0, depth: 2, stride: 1 };
    let mut total = Tally::default();
    for mode in MODES {
        total.add(cut_everywhere(&Config::new(mode), FEW_IN_DOUBT, (5, 150), plan));
    }
    report("recovery in doubt cut at every instant", total);
    assert!(total.in_doubt > 1000, "hardly anybody was in doubt: {total:?}");
}

/// Pages that records make anew, written in place only and torn there: redo does not need what they were.
#[test]
fn every_instant_of_rewrites() {
    let mut total = Tally::default();
    // Without checkpoints redo begins long before a page's last record that overwrites it, and the copy of
    // what the page was in between is gone.
    let late = Mix { checkpoint: 0, sync: 1, ..REWRITES.steps(90) };
    for (mix, seed) in [(REWRITES, 1), (REWRITES, 2), (late, 3)] {
        let plan = Plan { draws: 4, ..Plan::PLAIN };
        total.add(cut_everywhere(&Config::tight(DoubleWrite), mix, (seed, 600), plan));
    }
    report("rewrites at every instant", total);
    assert!(total.overwritten > 200, "hardly any page written once was torn: {total:?}");
    assert!(total.waited > 20, "hardly any torn page had to wait for its record: {total:?}");
}

/// The same on larger workloads, at some instants.
#[test]
fn some_instants_of_recovery() {
    let plan = Plan { draws: 0, singles: 0, depth: 2, stride: 37 };
    let mut total = Tally::default();
    for mode in MODES {
        total.add(cut_everywhere(&Config::tight(mode), ALL, (4, 400), plan));
    }
    report("recovery cut at some instants", total);
}

/// One database after the other through 24 crashes each.
#[test]
fn many_lives() {
    let mut total = Tally::default();
    for mode in MODES {
        for mix in [
            MIXED,
            SAVEPOINTS,
            STRUCTURE,
            CHECKPOINTS.steps(100),
            BURSTS,
            IN_DOUBT,
            REWRITES,
            ALL.steps(80),
        ] {
            for seed in 0..8 {
                total.add(right(lives(&Config::tight(mode), mix, seed, 24)));
            }
        }
    }
    report("lives", total);
}

#[test]
fn every_failing_sync() {
    let mut total = Tally::default();
    for mode in MODES {
        for mix in [CHECKPOINTS, IN_DOUBT, ALL.steps(60)] {
            total.add(right(every_sync_fails(&Config::tight(mode), mix, 1)));
        }
    }
    report("failing syncs", total);
}

#[test]
fn every_failing_call() {
    let mut total = Tally::default();
    let faults = [
        (Call::Write, Failure::Eio),
        (Call::Write, Failure::Enospc),
        (Call::Write, Failure::Short),
        (Call::Write, Failure::Eintr),
        (Call::Read, Failure::Eio),
        (Call::Read, Failure::Short),
        (Call::Read, Failure::Eintr),
        (Call::Create, Failure::Enospc),
        (Call::Open, Failure::Eio),
        (Call::SetLen, Failure::Enospc),
        (Call::Remove, Failure::Eio),
        (Call::Rename, Failure::Eio),
        (Call::Sync, Failure::Eio),
        (Call::SyncDir, Failure::Eio),
        (Call::List, Failure::Eio),
        (Call::Len, Failure::Eio),
    ];
    for mode in MODES {
        for fault in faults {
            total.add(right(every_call_fails(&Config::tight(mode), ALL, 1, fault)));
        }
    }
    report("failing calls", total);
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// As long as asked for: lives of every mix and mode, and the instants of one run of each per seed.
#[test]
#[ignore = "a long campaign; see the head of this file"]
fn long_campaign() {
    let (first, seeds) = (number("ARGALI_SEED", 1), number("ARGALI_SEEDS", 20));
    let mixes = [
        COUNTERS,
        MIXED,
        STEAL,
        SAVEPOINTS,
        STRUCTURE,
        CHECKPOINTS,
        BURSTS,
        IN_DOUBT,
        REWRITES,
        ALL,
    ];
    let mut total = Tally::default();
    for seed in first..first + seeds {
        for mode in MODES {
            for mix in mixes {
                total.add(right(lives(&Config::tight(mode), mix.steps(90), seed, 50)));
                let plan = Plan { stride: 3, depth: 1 + u32::from(seed % 8 == 0), ..Plan::PLAIN };
                total.add(cut_everywhere(&Config::tight(mode), mix, (seed, 2000), plan));
            }
        }
        report(&format!("up to seed {seed}"), total);
    }
}
