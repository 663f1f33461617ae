//! `argali demo`: the main job. A bank, a crash, a recovery, a proof.
//!
//! ```text
//!  load ─► child process: concurrent transfers ─► SIGKILL ─► open: analysis, redo, undo ─► proof
//!            │ acknowledgement after each durable commit            (demo/crash.rs, demo/proof.rs)
//!            └──────────────► this process remembers ──────────────────────────────────┘
//!  and once more on a simulated disk, where the power goes off       (demo/power.rs)
//! ```
//!
//! The child is this program again, under a hidden command (`demo/child.rs`), so that a real SIGKILL
//! ends real threads in the middle of real I/O. The exit status is 0 only when every claim holds for
//! every seed.

pub(crate) mod child;
mod crash;
mod power;
mod proof;
mod show;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use argali::{Db, Report};

use self::power::Cut;
use self::proof::Claim;
use self::show::Story;
use crate::args::DemoArgs;
use crate::bank::ledger::Ledger;
use crate::exit::Failure;
use crate::output::{self, Format};

/// One bank, one crash.
#[derive(Clone, Debug)]
struct Settings {
    dir: PathBuf,
    /// Whether the directory stays.
    kept: bool,
    accounts: u32,
    threads: u32,
    time: Duration,
    seed: u64,
}

/// The child's life in numbers.
#[derive(Debug)]
struct Flown {
    child: u32,
    threads: u32,
    time: Duration,
    acknowledged: usize,
}

/// Everything one seed showed.
#[derive(Debug)]
struct Outcome {
    flight: Flown,
    report: Report,
    claims: Vec<Claim>,
    cuts: Vec<Cut>,
}

impl Outcome {
    /// The first claim that does not hold.
    fn broken(&self) -> Option<&Claim> {
        let cut = self.cuts.iter().flat_map(|cut| &cut.claims);
        self.claims.iter().chain(cut).find(|claim| !claim.holds)
    }
}

/// Runs `argali demo`.
pub(crate) fn run(args: &DemoArgs, format: Format) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    let mut broken = None;
    for seed in (seed..).take(args.seeds as usize) {
        let temporary = tempfile::Builder::new().prefix("argali-demo-").tempdir();
        let temporary = temporary.context("making a temporary directory")?;
        let settings = settings(args, seed, temporary.path())?;
        let outcome = one_seed(&settings, args.seeds == 1 && format == Format::Text)?;
        match format {
            Format::Json => output::json_line(&show::as_json(&settings, &outcome))?,
            Format::Text if args.seeds > 1 => Story::stdout().brief(&settings, &outcome)?,
            Format::Text => {}
        }
        let failed = outcome.broken().map(|claim| format!("seed {seed}: {}", claim.text));
        broken = broken.or(failed);
    }
    broken.map_or(Ok(()), |claim| Err(Failure::Disproved(claim).into()))
}

fn settings(args: &DemoArgs, seed: u64, temporary: &Path) -> anyhow::Result<Settings> {
    let dir = match &args.dir {
        None => temporary.join("bank"),
        Some(dir) if args.seeds > 1 => dir.join(format!("seed-{seed}")),
        Some(dir) => dir.clone(),
    };
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let text = format!("{} is not empty; the demo wants a directory of its own", dir.display());
        return Err(Failure::Usage(text).into());
    }
    let (accounts, threads, time) = (args.accounts, args.threads, args.seconds);
    Ok(Settings { dir, kept: args.dir.is_some(), accounts, threads, time, seed })
}

/// Both acts with one seed; `aloud` tells the story as it happens.
fn one_seed(settings: &Settings, aloud: bool) -> anyhow::Result<Outcome> {
    let mut story = aloud.then(Story::stdout);
    if let Some(story) = &mut story {
        story.title(settings)?;
    }
    load(settings).context("loading the bank")?;
    if let Some(story) = &mut story {
        story.loaded(settings)?;
    }
    let mut outcome = crash_and_prove(settings)?;
    if let Some(story) = &mut story {
        story.crash(&outcome)?;
    }
    outcome.cuts = power::act(settings.seed).context("the power cut")?;
    if let Some(story) = &mut story {
        story.power(&outcome.cuts)?;
        story.verdict(outcome.broken(), settings)?;
    }
    Ok(outcome)
}

fn load(settings: &Settings) -> argali::Result<()> {
    let db = Db::open(&settings.dir)?;
    Ledger::load(&db, settings.accounts)?;
    db.close()
}

fn crash_and_prove(settings: &Settings) -> anyhow::Result<Outcome> {
    let flight = crash::fly(&settings.dir, settings)?;
    let db = child::options().open(&settings.dir).context("recovering the bank")?;
    let report = db.recovery().clone();
    let flown = Flown {
        child: flight.child,
        threads: settings.threads,
        time: flight.time,
        acknowledged: flight.acknowledged.len(),
    };
    let mut claims = proof::prove(&Ledger::open(&db)?, flight.acknowledged)?;
    let seen = crate::inspect::verified(db.verify())?;
    claims.push(Claim {
        name: "structures_sound",
        text: match seen.findings.first() {
            None => format!("{} pages checked: all sound", output::grouped(seen.pages)),
            Some(first) => format!("{} FAULTS in the structures: {first}", seen.findings.len()),
        },
        holds: seen.findings.is_empty(),
    });
    db.close().context("closing the recovered bank")?;
    Ok(Outcome { flight: flown, report, claims, cuts: Vec::new() })
}

fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 % 1_000_000
}
