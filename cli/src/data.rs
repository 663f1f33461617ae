//! Pairs in and out: `get`, `put`, `delete`, `scan`; and `checkpoint`.
//!
//! ```text
//!  $ argali put ./db colour blue --create
//!  $ argali scan ./db --prefix co
//!  colour  blue
//!  $ argali --format json scan ./db
//!  {"k":"colour","v":"blue"}
//! ```
//!
//! Each command is one transaction with a durable commit. `get` and `scan` look first at a clean
//! database read-only, and open it for writing (which recovers it) only when they must.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use argali::{Db, Error, Isolation, Options, Result, Tree};
use serde_json::json;

use crate::args::{CheckpointArgs, GetArgs, Place, PutArgs, ScanArgs};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Opens for reading; recovers first when that is needed.
fn open_to_read(dir: &Path) -> Result<Db> {
    match Options::new().open_read_only(dir) {
        Err(Error::NeedsRecovery) => open_to_write(dir),
        other => other,
    }
}

fn open_to_write(dir: &Path) -> Result<Db> {
    Options::new().create(false).open(dir)
}

fn no_tree(place: &Place) -> Error {
    Error::NotFound { what: "tree", name: place.tree.clone() }
}

fn no_key(place: &Place) -> anyhow::Error {
    Failure::NoKey { tree: place.tree.clone() }.into()
}

/// Runs `argali get`.
pub(crate) fn get(args: &GetArgs, format: Format) -> anyhow::Result<()> {
    let place = &args.place;
    let key = place.encoding.bytes("key", &args.key)?;
    let db = open_to_read(&place.dir)?;
    let read = db.read()?;
    let tree = read.open_tree(&place.tree)?.ok_or_else(|| no_tree(place))?;
    let value = read.get(&tree, &key)?;
    read.finish()?;
    db.close()?;
    let value = value.ok_or_else(|| no_key(place))?;
    match format {
        Format::Text => writeln!(std::io::stdout().lock(), "{}", place.encoding.text(&value))?,
        Format::Json => {
            let (k, v) = (place.encoding.json(&key), place.encoding.json(&value));
            output::json_line(&json!({ "k": k, "v": v }))?;
        }
    }
    Ok(())
}

/// Runs `argali put`.
pub(crate) fn put(args: &PutArgs, format: Format) -> anyhow::Result<()> {
    let place = &args.place;
    let key = place.encoding.bytes("key", &args.key)?;
    let value = place.encoding.bytes("value", &args.value)?;
    let db = Options::new().create(args.create).open(&place.dir)?;
    let old = db.update(|txn| {
        let tree = txn.tree(&place.tree)?;
        txn.put(&tree, &key, &value)
    })?;
    db.close()?;
    print_old(place, old.as_deref(), format)
}

/// Runs `argali delete`.
pub(crate) fn delete(args: &GetArgs, format: Format) -> anyhow::Result<()> {
    let place = &args.place;
    let key = place.encoding.bytes("key", &args.key)?;
    let db = open_to_write(&place.dir)?;
    let old = db.update(|txn| {
        let tree = txn.open_tree(&place.tree)?.ok_or_else(|| no_tree(place))?;
        txn.delete(&tree, &key)
    })?;
    db.close()?;
    if old.is_none() {
        return Err(no_key(place));
    }
    print_old(place, old.as_deref(), format)
}

/// Writers are silent in text, as Unix tools are; JSON tells what was replaced.
fn print_old(place: &Place, old: Option<&[u8]>, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        output::json_line(&json!({ "old": old.map(|old| place.encoding.json(old)) }))?;
    }
    Ok(())
}

/// Runs `argali scan`.
pub(crate) fn scan(args: &ScanArgs, format: Format) -> anyhow::Result<()> {
    let place = &args.place;
    let prefix = place.encoding.bytes("prefix", args.prefix.as_deref().unwrap_or(""))?;
    let db = open_to_read(&place.dir)?;
    let read = db.read_with(Isolation::ReadCommitted)?;
    let tree = read.open_tree(&place.tree)?.ok_or_else(|| no_tree(place))?;
    let pairs = Pairs { args, format, prefix: &prefix };
    pairs.print(&read, &tree)?;
    read.finish()?;
    db.close()?;
    Ok(())
}

/// A listing about to be written.
struct Pairs<'a> {
    args: &'a ScanArgs,
    format: Format,
    prefix: &'a [u8],
}

impl Pairs<'_> {
    fn print(&self, read: &argali::Read, tree: &Tree) -> anyhow::Result<()> {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let limit = self.args.limit.unwrap_or(u64::MAX).try_into().unwrap_or(usize::MAX);
        let encoding = self.args.place.encoding;
        for pair in read.scan_prefix(tree, self.prefix)?.take(limit) {
            let (key, value) = pair?;
            match self.format {
                Format::Text => {
                    writeln!(out, "{}\t{}", encoding.text(&key), encoding.text(&value))?;
                }
                Format::Json => {
                    let (k, v) = (encoding.json(&key), encoding.json(&value));
                    writeln!(out, "{}", json!({ "k": k, "v": v }))?;
                }
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// Runs `argali checkpoint`.
pub(crate) fn checkpoint(args: &CheckpointArgs, format: Format) -> anyhow::Result<()> {
    let db = open_to_write(&args.dir)?;
    let done = db.checkpoint(args.flush.into())?;
    db.close()?;
    match format {
        Format::Json => output::json_line(&json!({
            "begin_lsn": done.begin.get(), "end_lsn": done.end.get(), "redo_lsn": done.redo.get(),
            "log_first_lsn": done.log_first.get(), "pages_written": done.pages_written,
            "seconds": done.time.as_secs_f64(),
        }))?,
        Format::Text => writeln!(
            std::io::stdout().lock(),
            "checkpoint {} to {}: {} pages written, redo from {}, log kept from {}",
            done.begin,
            done.end,
            done.pages_written,
            done.redo,
            done.log_first
        )?,
    }
    Ok(())
}
