//! What the transactions of the workload do, decided by a random number generator alone.
//!
//! ```text
//!  key        what happens to it                          why
//!  acct/N     transfers; never made or deleted alone      the sum tells half transactions
//!  ctr/N      number + n                                  a CLR undone twice shows
//!  log/N      appended to                                 cells grow and move
//!  k/N        put and deleted                             ghosts, slack, reuse
//!  b/G/N…     whole groups put, then deleted; long keys   splits, deep trees, empty pages
//!  f/N        floods larger than the pool, then aborted   steal, long undo
//! ```
//!
//! A transaction is one to three scenes. A scene may stand behind a savepoint and be rolled back to it;
//! savepoints nest. The mix knows neither commit nor output: see `workload.rs`.

use argali::{Isolation, Write};
use fastrand::Rng;

use super::script::{self, Script};
use crate::exit::Failure;

/// Prefix of accounts.
pub(crate) const BANK_PREFIX: &str = "acct/";
/// Number of accounts.
pub(crate) const ACCOUNTS: u32 = 20;
/// Balance of each when it is made.
pub(crate) const OPENING: i64 = 100;
/// Savepoints within savepoints.
const DEPTH_MAX: u32 = 3;
/// Rows of a flood; with their padding about twice the pool of one client.
const FLOOD_ROWS: u32 = 200;

/// What becomes of a transaction after its last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 85 %.
    Commit,
    /// 10 %.
    Abort,
    /// 5 %: after a flood that is larger than the pool.
    AbortLarge,
}

/// Decides how the transaction ends.
pub(crate) fn end(rng: &mut Rng) -> End {
    match rng.u32(..100) {
        0..5 => End::AbortLarge,
        5..15 => End::Abort,
        _ => End::Commit,
    }
}

/// Makes the accounts.
pub(crate) fn open_bank(txn: &Write, script: &mut Script<'_>) -> anyhow::Result<()> {
    (0..ACCOUNTS).try_for_each(|n| script.add(txn, &format!("{BANK_PREFIX}{n}"), OPENING))
}

/// One to three scenes, and the flood if the end asks for one.
pub(crate) fn play(
    txn: &mut Write,
    script: &mut Script<'_>,
    rng: &mut Rng,
    end: End,
) -> anyhow::Result<()> {
    for _ in 0..rng.u32(1..=3) {
        scene_or_savepoint(txn, script, rng, 0)?;
    }
    if end == End::AbortLarge {
        for row in 0..FLOOD_ROWS {
            script.put(txn, &format!("f/{row:04}"), 600)?;
        }
    }
    if end != End::Commit && rng.u32(..4) == 0 {
        scratch_tree(txn, rng)?;
    }
    Ok(())
}

fn scene_or_savepoint(
    txn: &mut Write,
    script: &mut Script<'_>,
    rng: &mut Rng,
    depth: u32,
) -> anyhow::Result<()> {
    if depth == DEPTH_MAX || rng.u32(..100) < 70 {
        return scene(txn, script, rng);
    }
    let mark = script.mark();
    let mut inner = txn.savepoint()?;
    for _ in 0..rng.u32(1..=2) {
        scene_or_savepoint(&mut inner, script, rng, depth + 1)?;
    }
    if rng.u32(..100) < 60 {
        inner.rollback()?;
        script.forget_since(mark);
    } else {
        inner.release();
    }
    Ok(())
}

fn scene(txn: &Write, script: &mut Script<'_>, rng: &mut Rng) -> anyhow::Result<()> {
    match rng.u32(..100) {
        0..30 => transfer(txn, script, rng),
        30..60 => pairs(txn, script, rng),
        60..70 => script.add(txn, &format!("ctr/{}", rng.u32(..40)), rng.i64(-5..=9)),
        70..82 => script.append(txn, &format!("log/{}", rng.u32(..30))),
        82..90 => fill_group(txn, script, rng),
        90..96 => empty_group(txn, script, rng),
        _ => count_money(txn, script),
    }
}

fn transfer(txn: &Write, script: &mut Script<'_>, rng: &mut Rng) -> anyhow::Result<()> {
    let from = rng.u32(..ACCOUNTS);
    let to = (from + rng.u32(1..ACCOUNTS)) % ACCOUNTS;
    let amount = rng.i64(1..=30);
    script.add(txn, &format!("{BANK_PREFIX}{from}"), -amount)?;
    script.add(txn, &format!("{BANK_PREFIX}{to}"), amount)
}

fn pairs(txn: &Write, script: &mut Script<'_>, rng: &mut Rng) -> anyhow::Result<()> {
    for _ in 0..rng.u32(1..=8) {
        let key = format!("k/{}", rng.u32(..300));
        if rng.u32(..100) < 35 {
            script.delete(txn, &key)?;
        } else {
            script.put(txn, &key, padding(rng))?;
        }
    }
    Ok(())
}

/// Mostly short, sometimes a sixth of a page.
fn padding(rng: &mut Rng) -> usize {
    if rng.u32(..10) == 0 { rng.usize(200..=700) } else { rng.usize(..60) }
}

/// Key `row` of a group. The longer ones force separators of different lengths.
fn group_key(group: u32, row: u32) -> String {
    let tail = "x".repeat((row * 37 % 120) as usize);
    format!("b/{group:02}/{row:03}/{tail}")
}

fn fill_group(txn: &Write, script: &mut Script<'_>, rng: &mut Rng) -> anyhow::Result<()> {
    let (group, first) = (rng.u32(..12), rng.u32(..20));
    for row in first..first + rng.u32(15..=40) {
        script.put(txn, &group_key(group, row), padding(rng))?;
    }
    Ok(())
}

fn empty_group(txn: &Write, script: &mut Script<'_>, rng: &mut Rng) -> anyhow::Result<()> {
    let group = rng.u32(..12);
    (0..60).try_for_each(|row| script.delete(txn, &group_key(group, row)))
}

/// The workload's own check: a scan in the middle of a transaction sees all the money. At read
/// committed a concurrent transfer could pass the scan on its way, so the isolation must be full.
fn count_money(txn: &Write, script: &Script<'_>) -> anyhow::Result<()> {
    let (mut sum, mut accounts) = (0, 0);
    for pair in txn.scan_prefix(script.tree(), BANK_PREFIX)? {
        let (key, value) = pair?;
        let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
        sum += script::number(&key, &value)?;
        accounts += 1;
    }
    let total = i64::from(ACCOUNTS) * OPENING;
    if (accounts, sum) == (ACCOUNTS, total) {
        return Ok(());
    }
    let what = format!("{accounts} accounts hold {sum}, not {total} ({:?})", Isolation::default());
    Err(Failure::Disproved(what).into())
}

/// A tree that comes and goes with an aborted transaction: undo of its creation queues its pages.
fn scratch_tree(txn: &mut Write, rng: &mut Rng) -> anyhow::Result<()> {
    let tree = txn.tree(&format!("scratch{}", rng.u32(..3)))?;
    for row in 0..rng.u32(1..=60) {
        txn.put(&tree, format!("s/{row}"), "z".repeat(300))?;
    }
    Ok(())
}
