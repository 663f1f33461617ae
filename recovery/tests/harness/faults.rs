//! Failing calls: each call of a workload fails once, then the power does.
//!
//! A failed sync drops the data it was asked to keep, as Linux does; whoever tries again is told it went
//! well. The promise is that nothing acknowledged before or after is lost, whatever the workload's own
//! outcome: it may stop with an error, or survive it.

use std::collections::BTreeMap;

use argali_base::disk::{Call, Failure, Fault, FaultyDisk, Loss, SimDisk};

use super::campaign::{
    Run, Tally, Violation, created, is_panic, open, run_on, run_through, violation,
};
use super::db::Config;
use super::model::State;
use super::workload::Mix;

/// Each sync of each file fails once.
pub fn every_sync_fails(config: &Config, mix: Mix, seed: u64) -> Result<Tally, Violation> {
    let mut tally = Tally::default();
    for (file, syncs) in syncs_of(config, mix, seed) {
        for successes in 0..syncs {
            let disk = created(config, seed);
            disk.fail_sync(&file, successes);
            let run = run_on(config, &disk, mix, seed, &[State::new(config.pages)]);
            let at = format!("sync {successes} of {file} fails");
            settle(config, &disk, run, &at, &mut tally)?;
        }
    }
    Ok(tally)
}

/// How often each file is synced when nothing fails.
fn syncs_of(config: &Config, mix: Mix, seed: u64) -> BTreeMap<String, u64> {
    let disk = created(config, seed);
    disk.start_trace();
    let run = run_on(config, &disk, mix, seed, &[State::new(config.pages)]);
    let calls = run.map_or(0, |run| run.calls) as usize;
    let mut syncs = BTreeMap::new();
    for event in disk.trace().into_iter().take(calls.max(1) * 100) {
        if event.call == Call::Sync {
            *syncs.entry(event.name).or_default() += 1;
        }
    }
    syncs
}

/// The n-th call of this kind fails, for every n.
pub fn every_call_fails(
    config: &Config,
    mix: Mix,
    seed: u64,
    (call, failure): (Call, Failure),
) -> Result<Tally, Violation> {
    let mut tally = Tally::default();
    for after in 0.. {
        let disk = created(config, seed);
        let front = FaultyDisk::new(std::sync::Arc::new(disk.clone()));
        front.fail(Fault::new(call, "*", failure).after(after));
        let empty = [State::new(config.pages)];
        let run = run_through(&front, config, &disk, mix, seed, &empty);
        if front.fired() == 0 {
            break;
        }
        let at = format!("{call:?} number {after} fails with {failure:?}");
        settle(config, &disk, run, &at, &mut tally)?;
    }
    Ok(tally)
}

/// After the failure the power fails, too.
fn settle(
    config: &Config,
    disk: &SimDisk,
    run: Result<Run, Violation>,
    at: &str,
    tally: &mut Tally,
) -> Result<(), Violation> {
    let (image, candidates) = match run {
        Ok(run) => (run.image.clone(), run.story.candidates(run.calls).to_vec()),
        // The database did not open: that is an answer, too, unless it was a panic.
        Err(e) if is_panic(&e.0) => return Err(violation(at, &e.0)),
        Err(_) => (disk.process_kill(), vec![State::new(config.pages)]),
    };
    tally.points += 1;
    for loss in [Loss::LoseAll, Loss::KeepAll] {
        open(&image.power_cut(loss), config, &candidates)
            .map_err(|e| violation(&format!("{at}, then {loss:?}"), &e))?;
        tally.images += 1;
    }
    Ok(())
}
