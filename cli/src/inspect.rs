//! Looking without touching: `info`, `check`, `stats`.
//!
//! None of them recovers or writes, so that evidence stays as it was found. `info` reads the control
//! file, directory listings and the log from the last checkpoint on, and therefore works on any state.
//! `check` and `stats` open the database read-only; one that was not shut down cleanly is refused with
//! [`argali::Error::NeedsRecovery`] (exit code 1): before redo its pages are rightly out of date, and
//! calling that damage would be wrong.

use std::io::{self, Write as _};

use argali::{
    Db, Error, Finding, Info, Isolation, Options, Stats, TornPages, TreeEstimate, Verification,
};
use serde_json::{Value, json};

use crate::args::Target;
use crate::exit::Failure;
use crate::output::{self, Format, Paint, bytes, grouped};
use crate::prepared;

/// Most findings that people are shown; a reader of JSON gets all.
const SHOWN_MAX: usize = 100;

/// Runs `argali info`.
pub(crate) fn info(target: &Target, format: Format) -> anyhow::Result<()> {
    let info = argali::info(&target.dir)?;
    // A clean database can also name what it holds; any other says so by leaving the lines out.
    let names = if info.clean { names(target).ok() } else { None };
    match format {
        Format::Json => output::json_line(&info_json(&info, names.as_ref()))?,
        Format::Text => print_pairs(&info_pairs(&info, names.as_ref()))?,
    }
    Ok(())
}

/// What a database holds, by name.
struct Names {
    trees: Vec<String>,
    heaps: Vec<String>,
    sequences: Vec<String>,
}

fn names(target: &Target) -> argali::Result<Names> {
    let db = Options::new().open_read_only(&target.dir)?;
    let read = db.read_with(Isolation::ReadCommitted)?;
    let names = Names { trees: read.trees()?, heaps: read.heaps()?, sequences: read.sequences()? };
    read.finish()?;
    db.close()?;
    Ok(names)
}

fn info_pairs(info: &Info, names: Option<&Names>) -> Vec<(&'static str, String)> {
    let control = &info.control;
    let log: u64 = info.log_files.iter().map(|(_, size)| size).sum();
    let state = if info.clean { "clean" } else { "in use, or needs recovery" };
    let mut pairs = vec![
        ("state", state.to_owned()),
        ("database id", format!("{:016x}", control.log.database)),
        ("timeline", control.log.timeline.to_string()),
        ("page size", bytes(control.page_size.into())),
        ("torn pages", torn_pages(info.torn_pages).to_owned()),
        ("data", format!("{} ({} pages)", bytes(info.data_bytes), grouped(control.pages))),
        ("log", format!("{} in {} segments", bytes(log), info.log_files.len())),
        ("segment size", bytes(control.segment_bytes)),
        ("checkpoint", format!("{} to {}", control.checkpoint, control.checkpoint_end)),
        ("log kept from", control.log_first.to_string()),
    ];
    if let Some(fault) = &info.log_fault {
        pairs.push(("log fault", fault.clone()));
    }
    pairs.extend(info.prepared.iter().map(|one| ("in doubt", prepared::as_text(one))));
    if let Some(Names { trees, heaps, sequences }) = names {
        pairs.push(("trees", trees.join(", ")));
        pairs.push(("heaps", heaps.join(", ")));
        pairs.push(("sequences", sequences.join(", ")));
    }
    pairs
}

fn info_json(info: &Info, names: Option<&Names>) -> Value {
    let control = &info.control;
    let files: Vec<Value> =
        info.log_files.iter().map(|(name, size)| json!({ "name": name, "bytes": size })).collect();
    json!({
        "clean": info.clean,
        "database_id": format!("{:016x}", control.log.database),
        "timeline": control.log.timeline,
        "page_bytes": control.page_size,
        "torn_pages": torn_pages(info.torn_pages),
        "data_bytes": info.data_bytes,
        "data_pages": control.pages,
        "segment_bytes": control.segment_bytes,
        "log_files": files,
        "checkpoint_lsn": control.checkpoint.get(),
        "checkpoint_end_lsn": control.checkpoint_end.get(),
        "log_first_lsn": control.log_first.get(),
        "log_end_lsn": info.log_end.map(argali::Lsn::get),
        "log_fault": info.log_fault,
        "prepared": info.prepared.iter().map(prepared::as_json).collect::<Vec<_>>(),
        "clean_end_lsn": control.clean_end.map(argali::Lsn::get),
        "trees": names.map(|names| &names.trees),
        "heaps": names.map(|names| &names.heaps),
        "sequences": names.map(|names| &names.sequences),
    })
}

fn torn_pages(mode: TornPages) -> &'static str {
    match mode {
        TornPages::DoubleWrite => "double-write",
        TornPages::FullPageImage => "full-page-image",
        TornPages::None => "none",
    }
}

/// Runs `argali check`.
pub(crate) fn check(target: &Target, format: Format) -> anyhow::Result<()> {
    let db = Options::new().open_read_only(&target.dir)?;
    let seen = verified(db.verify())?;
    db.close()?;
    match format {
        Format::Json => output::json_line(&json!({
            "trees": seen.trees, "heaps": seen.heaps, "rows": seen.rows, "pages": seen.pages,
            "findings": seen.findings.iter().map(finding_json).collect::<Vec<_>>(),
        }))?,
        Format::Text => print_check(&seen)?,
    }
    judge(&seen)
}

fn finding_json(finding: &Finding) -> Value {
    let Finding { file, offset, lsn, owner, what } = finding;
    json!({ "file": file, "offset": offset, "lsn": lsn.map(argali::Lsn::get), "owner": owner, "what": what })
}

/// A verification that stopped at damage it could not step over is a verification with that finding.
pub(crate) fn verified(result: argali::Result<Verification>) -> argali::Result<Verification> {
    match result {
        Err(Error::Corrupt { file, offset, lsn, what }) => {
            let finding = Finding { file, offset, lsn, owner: String::new(), what };
            Ok(Verification { findings: vec![finding], ..Verification::default() })
        }
        other => other,
    }
}

/// `Ok` when nothing was found; otherwise exit code 3.
pub(crate) fn judge(seen: &Verification) -> anyhow::Result<()> {
    let count = seen.findings.len();
    match seen.findings.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Faults { count, first: first.to_string() }.into()),
    }
}

/// Writes the findings, one a line; of many, the first [`SHOWN_MAX`] and how many more there are.
pub(crate) fn list_findings(
    out: &mut impl io::Write,
    paint: Paint,
    findings: &[Finding],
) -> io::Result<()> {
    for finding in findings.iter().take(SHOWN_MAX) {
        writeln!(out, "{} {finding}", paint.bad("fault"))?;
    }
    match findings.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => writeln!(out, "and {} more (all of them: --format json)", grouped(more as u64)),
    }
}

/// Writes the findings, or that there are none.
pub(crate) fn print_check(seen: &Verification) -> anyhow::Result<()> {
    let paint = Paint::stdout();
    let mut out = std::io::stdout().lock();
    list_findings(&mut out, paint, &seen.findings)?;
    if seen.findings.is_empty() {
        let [trees, heaps, rows, pages] =
            [seen.trees, seen.heaps, seen.rows, seen.pages].map(grouped);
        let sound = paint.good("sound");
        writeln!(out, "{sound}: {trees} trees, {heaps} heaps, {rows} rows, {pages} pages")?;
        if seen.rows_moved + seen.heap_pages_listed_low > 0 {
            let [moved, low] = [seen.rows_moved, seen.heap_pages_listed_low].map(grouped);
            let what = format_args!("{moved} rows moved, {low} pages with idle room");
            writeln!(out, "{}", paint.faint(format_args!("heaps: {what}")))?;
        }
    }
    Ok(())
}

/// Runs `argali stats`.
pub(crate) fn stats(target: &Target, format: Format) -> anyhow::Result<()> {
    let db: Db = Options::new().open_read_only(&target.dir)?;
    let stats = db.stats()?;
    let trees = estimates(&db)?;
    db.close()?;
    match format {
        Format::Json => {
            let mut line = stats_json(&stats);
            line["tree_stats"] = trees.iter().map(tree_json).collect();
            output::json_line(&line)?;
        }
        Format::Text => {
            print_pairs(&stats_pairs(&stats))?;
            print_trees(&trees)?;
        }
    }
    Ok(())
}

/// Every tree by name, with what a planner would be told.
fn estimates(db: &Db) -> argali::Result<Vec<(String, TreeEstimate)>> {
    let read = db.read_with(Isolation::ReadCommitted)?;
    let mut trees = Vec::new();
    for name in read.trees()? {
        if let Some(tree) = read.open_tree(&name)? {
            trees.push((name, read.tree_stats(&tree)?));
        }
    }
    read.finish()?;
    Ok(trees)
}

fn print_trees(trees: &[(String, TreeEstimate)]) -> anyhow::Result<()> {
    let paint = Paint::stdout();
    let mut out = std::io::stdout().lock();
    for (name, tree) in trees {
        let error = match tree.rows_error {
            0 => String::new(),
            error => format!(" ± {}", grouped(error)),
        };
        let levels: Vec<_> = tree.pages.iter().rev().map(|pages| grouped(*pages)).collect();
        writeln!(
            out,
            "{} {}{error} rows, {} pages by level, leaves {:.0} % full",
            paint.faint(format_args!("{:<20}", format!("tree {name:?}"))),
            grouped(tree.rows),
            levels.join(" + "),
            100.0 * tree.fill,
        )?;
    }
    Ok(())
}

fn tree_json((name, tree): &(String, TreeEstimate)) -> Value {
    json!({
        "name": name, "rows": tree.rows, "rows_error": tree.rows_error, "ghosts": tree.ghosts,
        "bytes": tree.bytes, "fill": tree.fill, "depth": tree.depth(),
        "pages_by_level": tree.pages, "leaves_read": tree.leaves_read,
    })
}

fn stats_pairs(stats: &Stats) -> Vec<(&'static str, String)> {
    let kept = stats.log.tail.get() - stats.log.first_lsn.get();
    let holders: Vec<String> =
        stats.log.holders.iter().map(|h| format!("{} at {}", h.what, h.lsn)).collect();
    let mut pairs = vec![
        ("trees", grouped(stats.trees)),
        ("heaps", grouped(stats.heaps)),
        ("sequences", grouped(stats.sequences)),
        (
            "pages in use",
            format!("{} of {}", grouped(stats.pages_in_use), grouped(stats.pager.pages)),
        ),
        ("log kept", format!("{} ({} to {})", bytes(kept), stats.log.first_lsn, stats.log.tail)),
        ("log held by", if holders.is_empty() { "nothing".to_owned() } else { holders.join(", ") }),
        ("pages repaired", grouped(stats.pool.pages_repaired)),
        ("cache frames", grouped(stats.pool.frames as u64)),
        ("pages read", grouped(stats.pager.reads)),
        ("active transactions", grouped(stats.active_transactions as u64)),
    ];
    if let Some(cause) = &stats.poisoned {
        pairs.push(("poisoned", cause.clone()));
    }
    pairs
}

fn stats_json(stats: &Stats) -> Value {
    let holders: Vec<Value> =
        stats.log.holders.iter().map(|h| json!({ "what": h.what, "lsn": h.lsn.get() })).collect();
    json!({
        "trees": stats.trees, "heaps": stats.heaps, "sequences": stats.sequences, "pages_in_use": stats.pages_in_use,
        "active_transactions": stats.active_transactions, "commits": stats.commits,
        "aborts": stats.aborts, "checkpoints": stats.checkpoints, "poisoned": stats.poisoned,
        "log": {
            "first_lsn": stats.log.first_lsn.get(), "tail_lsn": stats.log.tail.get(),
            "durable_end_lsn": stats.log.durable_end.get(), "holders": holders,
        },
        "pool": { "frames": stats.pool.frames, "dirty": stats.pool.dirty,
                  "hits": stats.pool.hits, "misses": stats.pool.misses,
                  "pages_repaired": stats.pool.pages_repaired },
        "pager": { "pages": stats.pager.pages, "reads": stats.pager.reads },
    })
}

fn print_pairs(pairs: &[(&'static str, String)]) -> anyhow::Result<()> {
    let paint = Paint::stdout();
    let mut out = std::io::stdout().lock();
    for (name, value) in pairs {
        writeln!(out, "{} {value}", paint.faint(format_args!("{name:<20}")))?;
    }
    Ok(())
}
