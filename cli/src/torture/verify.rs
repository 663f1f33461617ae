//! Recovers, checks everything, and prints every pair.
//!
//! ```text
//!  open (recovers) ─► verify structures and checksums ─► {"k":…,"v":…} … {"end":COUNT} ─► close
//! ```
//!
//! Nothing is printed before the whole database was checked, so what is printed is never doubtful.
//! Pairs stream out of a scan: memory does not grow with the database. The end line tells a reader that
//! no line is missing.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use argali::{Db, Isolation, Options};
use serde_json::json;

use super::TREE;
use crate::inspect;
use crate::output::{Paint, json_bytes};

/// Runs `argali torture verify`.
pub(crate) fn run(options: Options, dir: &Path) -> anyhow::Result<()> {
    let db = options.open(dir)?;
    let seen = inspect::verified(db.verify())?;
    inspect::list_findings(&mut std::io::stderr().lock(), Paint::plain(), &seen.findings)?;
    inspect::judge(&seen)?;
    print_pairs(&db)?;
    db.close()?;
    Ok(())
}

fn print_pairs(db: &Db) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let read = db.read_with(Isolation::ReadCommitted)?;
    let mut count = 0_u64;
    if let Some(tree) = read.open_tree(TREE)? {
        for pair in read.scan_all(&tree)? {
            let (key, value) = pair?;
            writeln!(out, "{}", json!({ "k": json_bytes(&key), "v": json_bytes(&value) }))?;
            count += 1;
        }
    }
    read.finish()?;
    writeln!(out, "{}", json!({ "end": count }))?;
    out.flush()?;
    Ok(())
}
