//! Campaigns: cut the power at every instant of a workload, in many ways, recover, and look.
//!
//! ```text
//!  run        one run on a disk that remembers every instant: call 0, 1, 2, …, n
//!  cut        before call i: lose all un-synced, keep all, any version of each sector, tear the last
//!  recover    state must be one of the story's candidates for call i
//!  decide     whoever is in doubt is told how it ends, which the coordinator knew from the start
//!  look again the power fails right after: the same state, exactly
//!  dig        the recovery is itself a run on a disk that remembers: cut it before each of its calls
//! ```
//!
//! An image after a power cut is settled: what it holds is durable. So however often recovery of it is
//! cut short, the state in the end must be the one an undisturbed recovery finds. After a process kill
//! that is not so before recovery is over: what was readable but not synced may still be lost.

use std::panic::{AssertUnwindSafe, catch_unwind};

use argali_base::disk::{Loss, SimDisk};
use argali_pager::TornPages;
use argali_recovery::Silent;

use super::db::{Broken, CloneDisk, Config, Db};
use super::model::{State, Story};
use super::workload::{Mix, Workload};

/// What a campaign has verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Instants at which a workload was cut.
    pub points: u64,
    /// Disk images recovered and found right.
    pub images: u64,
    /// Of these, images of a recovery cut short.
    pub during_recovery: u64,
    /// Losers undone in all of them.
    pub losers: u64,
    /// Transactions found in doubt in all of them, and decided.
    pub in_doubt: u64,
    /// Torn pages that redo made anew in all of them.
    pub overwritten: u64,
    /// Changes that such a page had to wait through.
    pub waited: u64,
}

impl Tally {
    /// Adds another campaign's.
    pub fn add(&mut self, other: Self) {
        self.points += other.points;
        self.images += other.images;
        self.during_recovery += other.during_recovery;
        self.losers += other.losers;
        self.in_doubt += other.in_doubt;
        self.overwritten += other.overwritten;
        self.waited += other.waited;
    }
}

/// A crash image that was not recovered as promised, and how to get there again.
#[derive(Clone, Debug)]
pub struct Violation(pub String);

/// One run of a workload, with every instant of its disk.
pub struct Run {
    pub config: Config,
    pub disk: SimDisk,
    /// The disk after the last call.
    pub image: SimDisk,
    pub story: Story,
    /// Disk calls made when the database was open.
    pub opened: u64,
    /// Disk calls made in all.
    pub calls: u64,
    /// What ended it early.
    pub error: Option<String>,
    what: String,
}

/// A fresh database, closed cleanly. Nothing is broken while it is made, except what is fixed then: how a
/// record's checksum is computed.
pub fn created(config: &Config, seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let mut sound = Config { broken: Broken::default(), ..config.clone() };
    sound.broken.wal.crc_without_lsn = config.broken.wal.crc_without_lsn;
    Db::create(&disk, &sound).expect("creation on a sound disk succeeds");
    disk.power_cut(Loss::KeepAll)
}

/// Runs `mix` by `seed` on a fresh database.
pub fn run(config: &Config, mix: Mix, seed: u64) -> Result<Run, Violation> {
    let disk = created(config, seed);
    disk.record_history();
    run_on(config, &disk, mix, seed, &[State::new(config.pages)])
}

/// Opens the database on `disk`, which must hold one of `candidates`, and runs `mix` on it.
pub fn run_on(
    config: &Config,
    disk: &SimDisk,
    mix: Mix,
    seed: u64,
    candidates: &[State],
) -> Result<Run, Violation> {
    run_through(&disk.clone(), config, disk, mix, seed, candidates)
}

/// As [`run_on`], through another disk that stands before the simulated one.
#[allow(clippy::too_many_arguments)] // one more than `run_on`
pub fn run_through(
    front: &dyn CloneDisk,
    config: &Config,
    disk: &SimDisk,
    mix: Mix,
    seed: u64,
    candidates: &[State],
) -> Result<Run, Violation> {
    let what = format!("{:?} {} seed {seed}", config.torn_pages, mix.name);
    let opened = open(front, config, candidates).map_err(|e| violation(&what, &e))?;
    let (db, state) = opened;
    let mut story = Story::new(state);
    story.acknowledge(disk.io_count());
    let opened = disk.io_count();
    let mut workload = Workload::new(&db, disk, mix, seed, story);
    let outcome = catch(|| workload.run().map_err(|e| e.to_string()));
    let (calls, story) = (disk.io_count(), workload.story.clone());
    let image = disk.process_kill();
    disk.stop_after(0); // so that dropping open transactions costs nothing
    drop(workload);
    let error = outcome.err();
    if let Some(panic) = error.as_ref().filter(|e| is_panic(e)) {
        return Err(violation(&what, panic));
    }
    Ok(Run { config: config.clone(), disk: disk.clone(), image, story, opened, calls, error, what })
}

const PANIC: &str = "panic: ";

/// Runs `body`; a panic becomes an error that begins with [`PANIC`].
pub fn catch<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let message = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("{PANIC}{}", text.unwrap_or_default())
    };
    catch_unwind(AssertUnwindSafe(body)).map_err(message)?
}

/// Whether an error is one of [`catch`]'s.
pub fn is_panic(error: &str) -> bool {
    error.contains(PANIC)
}

/// Opens the database and finds out in which of `candidates` it is.
pub fn open(
    disk: &dyn CloneDisk,
    config: &Config,
    candidates: &[State],
) -> Result<(Db, State), String> {
    let (db, state) = catch(|| {
        let mut db = Db::open(disk, config, &mut Silent).map_err(|e| e.to_string())?;
        db.decide_all().map_err(|e| e.to_string())?;
        let state = db.state().map_err(|e| e.to_string())?;
        Ok((db, state))
    })?;
    if candidates.contains(&state) { Ok((db, state)) } else { Err(difference(&state, candidates)) }
}

/// What is done at each instant.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Random losses per instant, and as many torn ones.
    pub draws: u64,
    /// Whether the un-synced calls are also lost, and kept, one by one (that many at most).
    pub singles: usize,
    /// How deep recovery is cut again: 1 = not at all.
    pub depth: u32,
    /// Cut only every so many instants (1 = all) of the recoveries.
    pub stride: usize,
}

impl Plan {
    /// Every instant; recovery is cut only after a process kill, at some of its calls.
    pub const PLAIN: Self = Self { draws: 2, singles: 1, depth: 1, stride: 9 };
}

/// The ways to lose power at one instant of `disk`.
pub fn losses(disk: &SimDisk, mode: TornPages, plan: Plan, salt: u64) -> Vec<Loss> {
    let mut all = vec![Loss::LoseAll, Loss::KeepAll];
    let singles = disk.unsynced().min(plan.singles);
    all.extend((0..singles).flat_map(|back| {
        let at = disk.unsynced() - 1 - back;
        [Loss::DropOne(at), Loss::OnlyOne(at)]
    }));
    // Without protection the user promises that pages are written whole; sectors then fall together.
    if mode != TornPages::None {
        for draw in 0..plan.draws {
            all.extend([Loss::Random(salt + draw), Loss::TornLast(salt + draw)]);
        }
    }
    all
}

impl Run {
    /// Cuts the run before every call, and after the last.
    pub fn cut_everywhere(&self, plan: Plan) -> Result<Tally, Violation> {
        let mut tally = Tally::default();
        for call in 0..=self.calls {
            tally.add(self.cut(call, plan)?);
        }
        Ok(tally)
    }

    /// The disk before call number `call`, or after the last.
    pub fn disk_before(&self, call: u64) -> SimDisk {
        self.disk
            .at(call as usize)
            .filter(|_| call < self.calls)
            .unwrap_or_else(|| self.image.clone())
    }

    /// Cuts the run before call number `call`.
    pub fn cut(&self, call: u64, plan: Plan) -> Result<Tally, Violation> {
        let candidates = self.story.candidates(call);
        let disk = self.disk_before(call);
        let mut dig = Dig { config: &self.config, plan, tally: Tally::default() };
        dig.tally.points += 1;
        let at = |loss: &str| format!("{}, before call {call}, {loss}", self.what);
        for loss in losses(&disk, self.config.torn_pages, plan, call * 1000) {
            let image = disk.power_cut(loss);
            let settled = dig.settled(&image, candidates, plan.depth);
            settled.map_err(|e| violation(&at(&format!("{loss:?}")), &e))?;
        }
        dig.killed(&disk, candidates).map_err(|e| violation(&at("process kill"), &e))?;
        Ok(dig.tally)
    }
}

pub fn violation(at: &str, what: &str) -> Violation {
    Violation(format!("{at}: {what}"))
}

struct Dig<'c> {
    config: &'c Config,
    plan: Plan,
    tally: Tally,
}

impl Dig<'_> {
    /// An image after a power cut: recovers to one of `candidates`, whatever happens meanwhile.
    fn settled(&mut self, image: &SimDisk, candidates: &[State], depth: u32) -> Result<(), String> {
        let disk = image.process_kill();
        if depth > 1 {
            disk.record_history();
        }
        let state = self.recover(&disk, candidates)?;
        let exactly = std::slice::from_ref(&state);
        self.recover(&disk.power_cut(Loss::LoseAll), exactly).map_err(|e| again(&e))?;
        if depth <= 1 {
            return Ok(());
        }
        for call in (0..disk.io_count()).step_by(self.plan.stride) {
            let cut = disk.at(call as usize).expect("history is on");
            // Deeper down one loss per instant is enough: the first recovery has seen both.
            let ways = if depth < self.plan.depth { 1 } else { 2 };
            for loss in self.losses_of_recovery(&cut, call).into_iter().rev().take(ways) {
                self.tally.during_recovery += 1;
                self.settled(&cut.power_cut(loss), exactly, depth - 1)
                    .map_err(|e| format!("recovery cut before call {call}, {loss:?}: {e}"))?;
            }
        }
        Ok(())
    }

    /// The process is killed; the power fails during or after the recovery that follows.
    fn killed(&mut self, image: &SimDisk, candidates: &[State]) -> Result<(), String> {
        let disk = image.process_kill();
        disk.record_history();
        let state = self.recover(&disk, candidates)?;
        let exactly = std::slice::from_ref(&state);
        self.recover(&disk.power_cut(Loss::LoseAll), exactly).map_err(|e| again(&e))?;
        let calls = disk.io_count();
        for call in (0..calls).step_by(self.plan.stride) {
            let cut = disk.at(call as usize).expect("history is on");
            for loss in self.losses_of_recovery(&cut, call) {
                self.tally.during_recovery += 1;
                self.recover(&cut.power_cut(loss), candidates)
                    .map_err(|e| format!("recovery cut before call {call}, {loss:?}: {e}"))?;
            }
        }
        Ok(())
    }

    fn losses_of_recovery(&self, cut: &SimDisk, call: u64) -> Vec<Loss> {
        if self.config.torn_pages == TornPages::None {
            let at = call as usize;
            return vec![Loss::LoseAll, Loss::OnlyOne(at % cut.unsynced().max(1))];
        }
        vec![Loss::LoseAll, Loss::Random(call)]
    }

    /// Opens the image on `disk` and compares.
    fn recover(&mut self, disk: &SimDisk, candidates: &[State]) -> Result<State, String> {
        let (db, state) = open(disk, self.config, candidates)?;
        self.tally.images += 1;
        self.tally.losers += db.report.losers.len() as u64;
        self.tally.in_doubt += db.report.in_doubt.len() as u64;
        self.tally.overwritten += db.report.pages_overwritten;
        self.tally.waited += db.report.skipped_page_torn;
        Ok(state)
    }
}

fn again(what: &str) -> String {
    format!("the power fails after recovery, which changes the state: {what}")
}

/// Shows the first page that differs from the nearest candidate.
fn difference(state: &State, candidates: &[State]) -> String {
    let wrong = |c: &State| c.pages.iter().zip(&state.pages).filter(|(a, b)| a != b).count();
    let nearest = candidates.iter().min_by_key(|c| wrong(c)).expect("there is a candidate");
    let page = (0..state.pages.len()).find(|&p| state.pages[p] != nearest.pages[p]);
    let page = page.expect("they differ");
    format!(
        "{} pages wrong; page {page} is {:?}, expected {:?} ({} candidates)",
        wrong(nearest),
        state.pages[page],
        nearest.pages[page],
        candidates.len()
    )
}
