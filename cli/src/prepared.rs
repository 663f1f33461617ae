//! Transactions in doubt, for whoever has to decide them by hand: `prepared list`, `commit`, `abort`.
//!
//! ```text
//!  $ argali prepared list ./db
//!  order-12  t5  vote @1288  log kept from @1200  4 locks
//!  $ argali prepared commit ./db order-12
//!  committed order-12
//! ```
//!
//! `list` reads the log as it stands and neither recovers nor writes. A decision recovers the database first
//! when it must, and is durable when the command ends.

use std::io::Write as _;
use std::path::Path;

use argali::{Db, InDoubt, Options};
use serde_json::{Value, json};

use crate::args::PreparedCommand;
use crate::output::{self, Format, grouped};

/// Runs `argali prepared …`.
pub(crate) fn run(command: &PreparedCommand, format: Format) -> anyhow::Result<()> {
    match command {
        PreparedCommand::List(target) => list(&target.dir, format),
        PreparedCommand::Commit { dir, gid } => {
            decide(dir, |db| db.commit_prepared(gid).map(drop))?;
            tell("committed", gid, format)
        }
        PreparedCommand::Abort { dir, gid } => {
            decide(dir, |db| db.abort_prepared(gid))?;
            tell("aborted", gid, format)
        }
    }
}

fn list(dir: &Path, format: Format) -> anyhow::Result<()> {
    let info = argali::info(dir)?;
    if format == Format::Json {
        let all: Vec<Value> = info.prepared.iter().map(as_json).collect();
        output::json_line(&json!({ "prepared": all }))?;
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    if info.prepared.is_empty() {
        writeln!(out, "nobody is in doubt")?;
    }
    for one in &info.prepared {
        writeln!(out, "{}", as_text(one))?;
    }
    Ok(())
}

fn decide(dir: &Path, decision: impl FnOnce(&Db) -> argali::Result<()>) -> argali::Result<()> {
    let db = Options::new().create(false).open(dir)?;
    decision(&db)?;
    db.close()
}

fn tell(what: &str, gid: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json_line(&json!({ "gid": gid, "decision": what }))?,
        Format::Text => {
            let gid = output::escaped(gid.as_bytes());
            writeln!(std::io::stdout().lock(), "{what} {gid}")?;
        }
    }
    Ok(())
}

/// One line: name, transaction, since when, what it keeps.
pub(crate) fn as_text(one: &InDoubt) -> String {
    let InDoubt { gid, txn, first, prepared, locks } = one;
    let (gid, locks) = (output::escaped(gid.as_bytes()), grouped(locks.len() as u64));
    format!("{gid}  {txn}  vote {prepared}  log kept from {first}  {locks} locks")
}

/// The same for programs, each lock by name.
pub(crate) fn as_json(one: &InDoubt) -> Value {
    let locks: Vec<String> =
        one.locks.iter().map(|(name, mode)| format!("{mode} on {name}")).collect();
    json!({
        "gid": one.gid,
        "txn": one.txn.get(),
        "first_lsn": one.first.get(),
        "prepared_lsn": one.prepared.get(),
        "locks": locks,
    })
}
