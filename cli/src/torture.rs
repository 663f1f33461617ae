//! `argali torture`: the handle for outside crash testers. The protocol is in `docs/torture.md`.
//!
//! ```text
//!   workload DIR --seed S ──► META, TRY, ACK, ABT lines        (killed, or power cut, at any instant)
//!   verify DIR ──► {"k":…,"v":…} per pair, {"end":COUNT}       (recovers, checks, prints)
//!   soak DIR --kills N ──► both in turn, killed again and again, judged by `oracle`
//! ```
//!
//! The workload is hard on purpose: a pool of sixteen pages, log segments of 64 KiB, a checkpoint every
//! few transactions, values that depend on what they replace. With one client nothing but the seed
//! decides what happens: the background steps run inline and the engine's own checkpoints are off.
//!
//! Two trees: `torture` holds the pairs that lines speak of and `verify` prints; `torture.runs` holds
//! the number of the run, which makes transaction ids unique for ever, and is nobody else's business.

mod mix;
mod oracle;
mod script;
mod soak;
mod verify;
mod workload;

use std::sync::Arc;

use argali::{Never, Options};

use crate::args::TortureCommand;

/// Tree that holds the pairs.
const TREE: &str = "torture";
/// Tree that holds the run number.
const RUNS: &str = "torture.runs";
/// Bytes per page of a torture database: small, so that splits are many.
const PAGE_BYTES: u32 = 4096;
/// Frames of the pool for one client. Small, so that pages of unfinished transactions are stolen.
const FRAMES: u32 = 16;
/// Frames each further client may have pinned at a time: without them the pool would run out.
const FRAMES_PER_CLIENT: u32 = 6;
/// Bytes per log segment: small, so that segments are recycled all the time.
const SEGMENT_BYTES: u64 = 64 << 10;
/// Most bytes of log, far more than a checkpoint every few transactions leaves.
const LOG_LIMIT_BYTES: u64 = 64 << 20;

/// Runs `argali torture …`.
pub(crate) fn run(command: &TortureCommand) -> anyhow::Result<()> {
    match command {
        TortureCommand::Workload { dir, seed, clients, transactions, torn_pages } => {
            let options = options(*clients).torn_pages((*torn_pages).into());
            let plan =
                workload::Plan { seed: *seed, clients: *clients, transactions: *transactions };
            workload::run(options.create(true), dir, plan)
        }
        TortureCommand::Soak { dir, kills, seed } => soak::run(dir, *kills, *seed),
        TortureCommand::Verify(target) => verify::run(options(1).create(false), &target.dir),
    }
}

fn options(clients: u32) -> Options {
    let frames = FRAMES.max(FRAMES_PER_CLIENT * clients);
    Options::new()
        .page_size(PAGE_BYTES)
        .segment_bytes(SEGMENT_BYTES)
        .log_limit_bytes(LOG_LIMIT_BYTES)
        .cache_bytes((frames * PAGE_BYTES) as usize)
        .background_threads(clients > 1)
        // A policy that looks at the clock is not deterministic: the workload takes its own.
        .checkpoint_policy(Arc::new(Never))
}
