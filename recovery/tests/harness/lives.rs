//! Many lives of one database: run, crash anywhere, recover, go on where it came out.
//!
//! ```text
//!  create ─► life 0 ─ power cut ─► life 1 ─ process kill ─► life 2 ─ power cut ─► …
//!                                   │  recovery itself may be cut a few times first
//! ```
//!
//! What only shows when a recovered database is used and crashes again: a stale record that the new
//! tail meets, an LSN or a transaction id given out twice, a table that the checkpoint at the end of
//! recovery got wrong, a log that grows with each crash.

use argali_base::disk::{Loss, SimDisk};
use argali_recovery::Silent;

use super::campaign::{
    Plan, Tally, Violation, catch, created, is_panic, losses, run_on, violation,
};
use super::db::{Config, Db};
use super::model::State;
use super::workload::Mix;

/// Lives through `count` crashes by `seed`.
pub fn lives(config: &Config, mix: Mix, seed: u64, count: u64) -> Result<Tally, Violation> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut disk = created(config, seed);
    let mut candidates = vec![State::new(config.pages)];
    let mut tally = Tally::default();
    for life in 0..count {
        let at = format!("seed {seed}, life {life}");
        interrupt(config, &mut disk, &mut rng, &mut tally).map_err(|e| violation(&at, &e))?;
        disk.record_history();
        // Every other life repeats the one before: its records stand exactly where the lost ones stood.
        let run = run_on(config, &disk, mix, seed + life / 2, &candidates)
            .map_err(|e| violation(&at, &e.0))?;
        if let Some(error) = run.error {
            return Err(violation(&at, &format!("the workload failed on a sound disk: {error}")));
        }
        tally.images += 1;
        // Between two syncs there is more to lose: of a few instants, take the one that would lose most.
        let calls = (0..3).map(|_| rng.u64(run.opened..=run.calls));
        let call = calls.max_by_key(|call| run.disk_before(*call).unsynced());
        let call = call.expect("three were drawn");
        candidates = run.story.candidates(call).to_vec();
        let killed = run.disk_before(call);
        let ways =
            losses(&killed, config.torn_pages, Plan { draws: 4, ..Plan::PLAIN }, rng.u64(..));
        let cut = rng.choice(ways).expect("there are always two ways");
        disk = if rng.u8(0..4) == 0 { killed } else { killed.power_cut(cut) };
        tally.points += 1;
    }
    Ok(tally)
}

/// Cuts recovery short a few times. A process kill before it leaves the candidates as they are: each
/// interrupted recovery ends with one more power cut.
fn interrupt(
    config: &Config,
    disk: &mut SimDisk,
    rng: &mut fastrand::Rng,
    tally: &mut Tally,
) -> Result<(), String> {
    for _ in 0..rng.u8(0..3) {
        let attempt = disk.process_kill();
        attempt.stop_after(rng.u64(0..60));
        let outcome =
            catch(|| Db::open(&attempt, config, &mut Silent).map(drop).map_err(|e| e.to_string()));
        if let Some(error) = outcome.err().filter(|e| !attempt.is_dead() || is_panic(e)) {
            return Err(format!("recovery failed by itself: {error}"));
        }
        let whole = config.torn_pages == argali_pager::TornPages::None;
        let loss = if whole { Loss::LoseAll } else { Loss::Random(rng.u64(..)) };
        *disk = attempt.power_cut(loss);
        tally.during_recovery += 1;
    }
    Ok(())
}

/// Looks for a violation in the lives of ever new seeds, `seeds` of them at most.
pub fn hunt(config: &Config, mix: Mix, seeds: u64) -> Option<Violation> {
    (0..seeds).find_map(|seed| lives(config, mix, seed, 24).err())
}
