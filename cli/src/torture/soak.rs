//! Kill -9 in a loop on one database, judged each time by the oracle.
//!
//! ```text
//!  workload ──✂ SIGKILL   verify ──✂ SIGKILL (0 to 3 times)   verify ─► = verify ─► oracle   files bounded?
//!     ▲                                                                                          │
//!     └──────────────────────────────── N times, on the same directory ◄─────────────────────────┘
//! ```
//!
//! Every process is a real one. The kill comes after so many bytes of protocol, a recovery's after so many
//! microseconds; both by seed, as far as the scheduler lets a seed decide. One line a kill tells how much
//! was acknowledged, how much data lives, and how large the files are. The command ends with 0 only if every
//! single round held.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;

use super::oracle::{Ever, State, Told, state};
use super::{LOG_LIMIT_BYTES, PAGE_BYTES};
use crate::exit::Failure;
use crate::output::{bytes, grouped};

/// Most protocol bytes of one run.
const SAID_BYTES_MAX: usize = 60_000;
/// Longest life of a recovery that is to be killed; most end within it.
const RECOVERY_MAX: Duration = Duration::from_millis(25);
/// Clients of the next run, by chance.
const CLIENTS: [u32; 3] = [1, 1, 4];
/// Pages of data per page of live pairs, at most: half-empty leaves, ghosts, inner nodes, queued frees.
const PAGES_PER_LIVE_PAGE: u64 = 8;
/// Data beside that: file growth ahead, the pages of the largest transaction that is rolled back.
const DATA_SLACK_BYTES: u64 = 4 << 20;

/// Bytes in the files of a database, and of its live pairs.
struct Sizes {
    live: u64,
    data: u64,
    log: u64,
}

/// What all rounds together did.
#[derive(Default)]
struct Totals {
    acknowledged: usize,
    aborted: usize,
    unheard: usize,
    recoveries_killed: u32,
}

/// Runs `argali torture soak`.
pub(crate) fn run(dir: &Path, kills: u32, seed: u64) -> anyhow::Result<()> {
    let mut soak = Soak { dir, seed, rng: Rng::with_seed(seed), ever: Ever::default() };
    let (mut before, mut totals) = (State::new(), Totals::default());
    if dir.join("control").exists() {
        before = soak.verify()?;
    }
    for kill in 1..=kills {
        before = soak.round(kill, &before, &mut totals)?;
    }
    let Totals { acknowledged, aborted, unheard, recoveries_killed } = totals;
    say(&format!(
        "{kills} kills, {recoveries_killed} killed recoveries: {} acknowledged, {} aborted, {unheard} \
         unheard; nothing lost, nothing invented, files bounded",
        grouped(acknowledged as u64),
        grouped(aborted as u64),
    ))
}

struct Soak<'d> {
    dir: &'d Path,
    seed: u64,
    rng: Rng,
    ever: Ever,
}

impl Soak<'_> {
    /// Work, kill, recover, judge; returns what the database holds now.
    fn round(&mut self, kill: u32, before: &State, totals: &mut Totals) -> anyhow::Result<State> {
        let disproved = |why: String| Failure::Disproved(format!("kill {kill}: {why}"));
        let said = self.work()?;
        let told = Told::parse(&said, &mut self.ever).map_err(disproved)?;
        let killed = self.kill_recoveries()?;
        // Killed before its creation was over, a run leaves no database and has said nothing.
        if !self.dir.join("control").exists() && said.is_empty() {
            say(&format!("kill {kill}: before there was a database"))?;
            return Ok(State::new());
        }
        let found = self.verify()?;
        if self.verify()? != found {
            return Err(disproved("a second verify says something else".to_owned()).into());
        }
        told.explains(before, &found).map_err(disproved)?;
        let (acknowledged, aborted, unheard) = told.counts();
        totals.acknowledged += acknowledged;
        totals.aborted += aborted;
        totals.unheard += unheard;
        totals.recoveries_killed += killed;
        let sizes = self.sizes(&found)?;
        say(&format!(
            "kill {kill}: {acknowledged} acknowledged, {aborted} aborted, {unheard} unheard, {killed} \
             recoveries killed; live {}, data {}, log {}",
            bytes(sizes.live),
            bytes(sizes.data),
            bytes(sizes.log),
        ))?;
        sizes.check().map_err(disproved)?;
        Ok(found)
    }

    fn command(&self, what: &str) -> anyhow::Result<Command> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut command = Command::new(program);
        command.args(["torture", what]).arg(self.dir).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the workload until it has said so many bytes, and kills it; returns what it said.
    fn work(&mut self) -> anyhow::Result<String> {
        let clients = CLIENTS[self.rng.usize(..CLIENTS.len())].to_string();
        let mut child = self
            .command("workload")?
            .args(["--seed", &self.seed.to_string(), "--clients", &clients])
            .args(["--transactions", "1000000000"])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the workload")?;
        let mut pipe = child.stdout.take().context("the workload has an output")?;
        let (mut said, mut chunk) = (Vec::new(), [0; 512]);
        let most = self.rng.usize(..SAID_BYTES_MAX);
        let mut listened = Ok(1);
        while said.len() < most && matches!(listened, Ok(1..)) {
            listened = pipe.read(&mut chunk);
            said.extend_from_slice(&chunk[..*listened.as_ref().unwrap_or(&0)]);
        }
        child.kill().context("killing the workload")?;
        let status = child.wait().context("waiting for the workload")?;
        listened.context("listening to the workload")?;
        if let Some(code) = status.code() {
            let why = format!("the workload ended by itself with code {code}");
            return Err(ended(code, why));
        }
        // What stands in the pipe was said before the kill.
        pipe.read_to_end(&mut said).context("listening to the workload")?;
        String::from_utf8(said).context("the workload writes UTF-8")
    }

    /// Kills up to three recoveries on their way; returns how many did not come to their end.
    fn kill_recoveries(&mut self) -> anyhow::Result<u32> {
        let mut killed = 0;
        for _ in 0..self.rng.u32(..4) {
            let mut verify = self.command("verify")?;
            let mut child = verify
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("starting a recovery")?;
            thread::sleep(RECOVERY_MAX.mul_f64(self.rng.f64()));
            child.kill().context("killing a recovery")?;
            killed += u32::from(child.wait().context("waiting for it")?.code().is_none());
        }
        Ok(killed)
    }

    /// Recovers, checks and reads everything in a process of its own.
    fn verify(&self) -> anyhow::Result<State> {
        let Output { status, stdout, stderr } =
            self.command("verify")?.output().context("starting verify")?;
        if !status.success() {
            let why = String::from_utf8_lossy(&stderr);
            let code = status.code().unwrap_or(i32::from(crate::exit::FAILURE));
            return Err(ended(code, format!("verify ended with code {code}: {why}")));
        }
        let pairs = state(&String::from_utf8_lossy(&stdout));
        Ok(pairs.map_err(Failure::Disproved)?)
    }

    fn sizes(&self, found: &State) -> anyhow::Result<Sizes> {
        let len = |path: &Path| std::fs::metadata(path).map(|meta| meta.len());
        let mut log = 0;
        for entry in std::fs::read_dir(self.dir.join("wal")).context("listing the log")? {
            log += len(&entry.context("listing the log")?.path()).context("measuring the log")?;
        }
        let data = len(&self.dir.join("data")).context("measuring the data")?;
        let live = found.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Ok(Sizes { live, data, log })
    }
}

impl Sizes {
    /// Churn must not make the files grow without end.
    fn check(&self) -> Result<(), String> {
        let live_pages = self.live.div_ceil(u64::from(PAGE_BYTES));
        let most = live_pages * PAGES_PER_LIVE_PAGE * u64::from(PAGE_BYTES) + DATA_SLACK_BYTES;
        if self.data > most {
            let (data, live) = (bytes(self.data), bytes(self.live));
            return Err(format!("data of {data} for {live} that live; at most {}", bytes(most)));
        }
        if self.log > LOG_LIMIT_BYTES {
            let (log, limit) = (bytes(self.log), bytes(LOG_LIMIT_BYTES));
            return Err(format!("a log of {log} beyond its limit of {limit}"));
        }
        Ok(())
    }
}

/// A child that should not have ended like this; damage keeps its own exit code.
fn ended(code: i32, why: String) -> anyhow::Error {
    if code == i32::from(crate::exit::CORRUPTION) {
        Failure::Faults { count: 1, first: why }.into()
    } else {
        Failure::Disproved(why).into()
    }
}

/// One line for whoever watches, at once.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
