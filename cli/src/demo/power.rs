//! The second act: power cuts on a simulated disk.
//!
//! ```text
//!  one run, every changing call numbered:   create … write … write … sync … write … sync …
//!                                                  cut ▲         cut ▲           cut ▲
//!  each cut: of what was not synced, sectors are lost, kept or torn by seed ─► open ─► prove
//! ```
//!
//! Killing a process loses nothing that the operating system had cached; a power cut does. The
//! simulated disk remembers itself before every call that changes it, so one run yields an image for
//! each instant; a few of them, chosen by seed, are cut, recovered and proved. Every second image loses
//! its power once more in the middle of that recovery.

use std::collections::HashMap;
use std::sync::Arc;

use argali::disk::{Loss, SimDisk};
use argali::{Db, Options};
use fastrand::Rng;

use super::proof::{self, Claim};
use crate::bank::ledger::{Ledger, Transfer};
use crate::bank::tellers::Shift;
use crate::output::Progress;

/// Accounts of this act's bank: more than its sixteen pages of cache can hold.
const ACCOUNTS: u32 = 2000;
/// Statements that are begun and taken back while transfers commit.
const STATEMENTS: u64 = 12;
/// Rows of a statement; after each one a transfer commits.
const ROWS: u32 = 30;
/// Cut points.
pub(super) const CUTS: usize = 8;

/// One cut and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// How many changing calls the disk had seen.
    pub(super) call: u64,
    /// How many of them the cut could undo.
    pub(super) unsynced: usize,
    /// Whether the recovery was cut, too.
    pub(super) twice: bool,
    /// Transfers acknowledged before the cut.
    pub(super) acknowledged: usize,
    /// Transactions taken back by the recovery.
    pub(super) losers: usize,
    /// What was proved afterwards.
    pub(super) claims: Vec<Claim>,
}

/// Runs the bank once and cuts it [`CUTS`] times.
pub(super) fn act(seed: u64) -> anyhow::Result<Vec<Cut>> {
    let mut progress = Progress::new();
    progress.show("power cut a bank on a simulated disk");
    let disk = SimDisk::with_history(seed);
    let run = run_bank(&disk, seed)?;
    let mut rng = Rng::with_seed(seed);
    let mut cuts = Vec::with_capacity(CUTS);
    let mut calls: Vec<u64> = (0..CUTS).map(|_| rng.u64(run.loaded..disk.io_count())).collect();
    calls.sort_unstable();
    for (number, call) in calls.into_iter().enumerate() {
        progress.show(format_args!("power cut {} of {CUTS}, at call {call}", number + 1));
        cuts.push(cut(&disk, &run, call, &mut rng)?);
    }
    Ok(cuts)
}

/// What was acknowledged, and after how many calls.
struct Run {
    /// Calls after which the bank was loaded: cuts before it have nothing to prove.
    loaded: u64,
    acks: Vec<(u64, String, Transfer)>,
}

fn options() -> Options {
    Options::new()
        .page_size(4096)
        .cache_bytes(16 * 4096)
        .segment_bytes(64 << 10)
        .background_threads(false)
}

fn run_bank(disk: &SimDisk, seed: u64) -> anyhow::Result<Run> {
    let db = open(disk)?;
    let ledger = Ledger::load(&db, ACCOUNTS)?;
    let mut run = Run { loaded: disk.io_count(), acks: Vec::new() };
    let shift = Shift { tellers: 1, seed, run: ledger.begin_run()? };
    let mut rng = Rng::with_seed(seed);
    for statement in 0..STATEMENTS {
        // While the statement is open, transfers commit: most cuts have something to take back.
        let mut worked = Ok(());
        ledger.draft(ROWS, |row| {
            if worked.is_ok() {
                let key = shift.key(0, statement * u64::from(ROWS) + u64::from(row));
                let wanted = Transfer::random(&mut rng, ACCOUNTS);
                worked = ledger
                    .transfer(&key, wanted)
                    .map(|moved| run.acks.push((disk.io_count(), key, moved)));
            }
        })?;
        worked?;
        if statement % 4 == 3 {
            db.checkpoint(argali::Flush::Old)?;
        }
    }
    Ok(run)
}

fn open(disk: &SimDisk) -> argali::Result<Db> {
    options().open_on(Arc::new(disk.clone()), &mut argali::Silent)
}

fn cut(disk: &SimDisk, run: &Run, call: u64, rng: &mut Rng) -> anyhow::Result<Cut> {
    let Some(instant) = disk.at(call as usize) else {
        anyhow::bail!("the simulated disk does not remember call {call}");
    };
    let unsynced = instant.unsynced();
    let mut found = instant.power_cut(Loss::Random(rng.u64(..)));
    let twice = rng.bool();
    if twice {
        found = cut_recovery(&found, rng);
    }
    let acknowledged: HashMap<String, Transfer> = run
        .acks
        .iter()
        .filter(|(durable, ..)| *durable <= call)
        .map(|(_, key, transfer)| (key.clone(), *transfer))
        .collect();
    let count = acknowledged.len();
    let db = open(&found)?;
    let losers = db.recovery().losers.len();
    let claims = proof::prove(&Ledger::open(&db)?, acknowledged)?;
    db.close()?;
    Ok(Cut { call, unsynced, twice, acknowledged: count, losers, claims })
}

/// Lets a recovery of `disk` run until some call finds the power off, and cuts again.
fn cut_recovery(disk: &SimDisk, rng: &mut Rng) -> SimDisk {
    let trial = disk.process_kill();
    trial.stop_after(rng.u64(..40));
    // It fails, or was over before the power went off; both leave an image to recover.
    drop(open(&trial));
    trial.power_cut(Loss::Random(rng.u64(..)))
}
