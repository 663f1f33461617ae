//! Starts the child, listens to it, kills it in mid-flight.
//!
//! ```text
//!  parent ──spawn──► child        "000001/003/000000017 42 7 100\n"  ──pipe──► listener thread
//!     └── after the time of the demo, to the millisecond decided by the seed: SIGKILL
//! ```
//!
//! What the parent has read is what the world was told. A line that the kill cut in two was never an
//! acknowledgement, so it is dropped.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Settings;
use crate::bank::ledger::Transfer;
use crate::output::{self, Progress, grouped};

/// Longest wait for the first acknowledgement.
const FIRST_ACK_MAX: Duration = Duration::from_mins(1);

/// What was promised before the crash.
#[derive(Debug)]
pub(super) struct Flight {
    /// Process id of the child that was killed.
    pub(super) child: u32,
    /// How long it worked, from the first acknowledgement on.
    pub(super) time: Duration,
    /// Acknowledged transfers by journal key.
    pub(super) acknowledged: HashMap<String, Transfer>,
}

/// Runs the child on the bank in `dir` until it is killed.
pub(super) fn fly(dir: &Path, settings: &Settings) -> anyhow::Result<Flight> {
    let mut child = start(dir, settings)?;
    let pipe = child.stdout.take().context("the child has no standard output")?;
    let heard = AtomicU64::new(0);
    let flown = thread::scope(|scope| {
        let listener = scope.spawn(|| listen(pipe, &heard));
        let time = wait(&mut child, settings, &heard);
        // The listener ends with the pipe, the pipe with the child: kill it in any case.
        let killed = child.kill().and_then(|()| child.wait());
        let acknowledged = listener.join().unwrap_or_else(|_| bail!("the listener panicked"));
        killed.context("killing the child")?;
        anyhow::Ok((time?, acknowledged?))
    });
    let (time, acknowledged) = flown?;
    Ok(Flight { child: child.id(), time, acknowledged })
}

fn start(dir: &Path, settings: &Settings) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("finding this program")?;
    Command::new(program)
        .arg("demo-child")
        .arg(dir)
        .args(["--threads", &settings.threads.to_string()])
        .args(["--seed", &settings.seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the child")
}

fn listen(pipe: impl Read, heard: &AtomicU64) -> anyhow::Result<HashMap<String, Transfer>> {
    let mut acknowledged = HashMap::new();
    let (mut pipe, mut line) = (BufReader::new(pipe), String::new());
    while pipe.read_line(&mut line)? > 0 && line.ends_with('\n') {
        let ack = line.trim_end().split_once(' ');
        let ack = ack.and_then(|(key, row)| Some((key.to_owned(), Transfer::from_row(row)?)));
        let (key, transfer) = ack.with_context(|| format!("the child said {line:?}"))?;
        acknowledged.insert(key, transfer);
        heard.fetch_add(1, Ordering::Relaxed);
        line.clear();
    }
    Ok(acknowledged)
}

/// Waits for the instant of the kill; fails when the child ends by itself before.
fn wait(child: &mut Child, settings: &Settings, heard: &AtomicU64) -> anyhow::Result<Duration> {
    let mut progress = Progress::new();
    let start = Instant::now();
    while heard.load(Ordering::Relaxed) == 0 {
        still_running(child)?;
        if start.elapsed() > FIRST_ACK_MAX {
            bail!("the child acknowledged nothing within {}", output::duration(FIRST_ACK_MAX));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    let jitter = fastrand::Rng::with_seed(settings.seed).u64(..50_000);
    let until = settings.time + Duration::from_micros(jitter);
    while start.elapsed() < until {
        let left = until.saturating_sub(start.elapsed());
        thread::sleep(left.min(Duration::from_millis(100)));
        still_running(child)?;
        let (acks, time) = (heard.load(Ordering::Relaxed), output::duration(start.elapsed()));
        progress.show(format_args!("running   {} transfers acknowledged in {time}", grouped(acks)));
    }
    Ok(start.elapsed())
}

fn still_running(child: &mut Child) -> anyhow::Result<()> {
    match child.try_wait().context("watching the child")? {
        None => Ok(()),
        Some(status) => bail!("the child ended before it was killed ({status})"),
    }
}
