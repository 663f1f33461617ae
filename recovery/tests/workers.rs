//! Redo by workers beside redo in turn: the same pages, the same counts, the same verdict on damage.
//!
//! ```text
//!  a crash image ─┬─► one thread, in log order ──────► pages, counts, or the error
//!                 └─► workers, pages read ahead ─────► must be the same
//! ```
//!
//! Each image is of a random workload; pools of 8 frames (steal: redo itself evicts) and of 64 (room to read
//! ahead).
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod harness;

use std::sync::Arc;

use argali_base::Disk as _;
use argali_base::disk::{Call, Failure, Fault, FaultyDisk, Loss, OpenMode, SimDisk};
use argali_pager::TornPages::{self, DoubleWrite, FullPageImage};
use harness::campaign::{Run, Violation, run};
use harness::db::Config;
use harness::outcome::restart;
use harness::workload::{ALL, CHECKPOINTS, LOSERS, MIXED, Mix, REWRITES, STEAL, STRUCTURE};

const MODES: [TornPages; 3] = [DoubleWrite, FullPageImage, TornPages::None];
const FRAMES: [usize; 2] = [8, 64];
const PAGE_BYTES: u64 = 4096;

/// Runs of several workloads, by seed.
fn runs(mode: TornPages, seeds: u64) -> impl Iterator<Item = Run> {
    let mixes: [Mix; 7] = [MIXED, STEAL, LOSERS, STRUCTURE, CHECKPOINTS, REWRITES, ALL];
    let each = move |mix| (0..seeds).map(move |seed| (mix, seed));
    mixes.into_iter().flat_map(each).map(move |(mix, seed)| {
        run(&Config::new(mode), mix, seed).unwrap_or_else(|Violation(what)| panic!("{what}"))
    })
}

/// A run whose redo takes many batches.
fn long_run(mode: TornPages) -> Run {
    let config = Config { log_limit_bytes: 16 << 20, ..Config::new(mode) };
    run(&config, MIXED.steps(4000), 1).unwrap_or_else(|Violation(what)| panic!("{what}"))
}

/// Compares the restarts of images of `run` after `alter` had its way with them.
fn compare(run: &Run, alter: impl Fn(&SimDisk)) -> u64 {
    let mut applied = 0;
    for call in [run.calls / 2, run.calls] {
        for loss in [Loss::LoseAll, Loss::KeepAll] {
            let image = || {
                let image = run.disk_before(call).power_cut(loss);
                alter(&image);
                image
            };
            for frames in FRAMES {
                let config = Config { frames, ..run.config.clone() };
                let in_turn = restart(&image(), &config);
                for workers in 1..=3 {
                    let by_workers = restart(&image(), &Config { workers, ..config.clone() });
                    assert_eq!(by_workers, in_turn, "{workers} workers, {frames} frames, {call}");
                }
                applied += in_turn.map_or(0, |restarted| restarted.counts[1]);
            }
        }
    }
    applied
}

#[test]
fn workers_make_the_same_pages() {
    let short = MODES.into_iter().flat_map(|mode| runs(mode, 4));
    let all = short.chain(MODES.into_iter().map(long_run));
    let applied: u64 = all.map(|run| compare(&run, |_| ())).sum();
    assert!(applied > 5_000, "only {applied} changes were redone");
}

/// A torn page, met by whoever reads it first, is what it always was: overwritten, repaired or reported.
#[test]
fn workers_judge_damage_the_same_way() {
    let tear = |page: u64, image: &SimDisk| {
        let data = image.open("data", OpenMode::Existing).unwrap();
        data.write_all_at(&[0xA5; 512], page * PAGE_BYTES + 1024).unwrap();
        data.sync().unwrap();
    };
    for mode in MODES {
        for run in runs(mode, 1) {
            for page in (1..=12).step_by(5) {
                compare(&run, |image| tear(page, image));
            }
        }
    }
}

/// Any one read of the data file fails: whoever needs the page reports it, or reads it again. It is never
/// taken for what was read.
#[test]
fn a_failed_read_is_reported_or_repeated() {
    let (mut reported, mut survived) = (0, 0);
    for run in runs(TornPages::None, 1) {
        let image = || run.disk_before(run.calls).power_cut(Loss::KeepAll);
        for frames in FRAMES {
            let config = Config { frames, workers: 2, ..run.config.clone() };
            let sound = restart(&image(), &config).unwrap();
            for after in 0..20 {
                let front = FaultyDisk::new(Arc::new(image()));
                front.fail(Fault::new(Call::Read, "data", Failure::Eio).after(after));
                match restart(&front, &config) {
                    Ok(restarted) => assert_eq!(restarted, sound, "read {after} failed"),
                    Err(error) => assert!(error.contains("os error 5"), "{error}"),
                }
                let fired = front.fired() > 0;
                *(if fired { &mut reported } else { &mut survived }) += 1;
            }
            let front = FaultyDisk::new(Arc::new(image()));
            front.fail(Fault::new(Call::Read, "data", Failure::Eio).forever());
            assert!(restart(&front, &config).is_err(), "no page can be read, yet it opened");
        }
    }
    assert!(reported > 20 && survived > 0, "{reported} reads failed, {survived} did not");
}

/// What the partitions are for: changes of one page must not come to two workers.
#[test]
fn changes_given_out_by_record_are_found() {
    let found = (0..50).find_map(|_| {
        runs(TornPages::None, 1).find_map(|run| {
            let mut config = Config { workers: 3, frames: 64, ..run.config.clone() };
            config.broken.recovery.redo_partitioned_by_record = true;
            restart(&run.disk_before(run.calls).power_cut(Loss::KeepAll), &config).err()
        })
    });
    let error = found.expect("history came apart, and nobody noticed");
    assert!(error.contains("was lost") || error.contains("cannot be applied"), "{error}");
}
