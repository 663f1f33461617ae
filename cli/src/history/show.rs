//! The report: what was done, what was seen, and whether the level permits it.
//!
//! ```text
//!  read-committed, register, 4 clients, seed 1
//!    10,000 transactions: 9,037 committed, 963 aborted, 0 unknown after 0 crashes
//!    run in 5.52 s, checked in 144.4 ms
//!  ✓ permitted  read skew (G-single): 180 times
//!      T58 ─rw─► T60   T58 saw k15 = 42.0, which T60 replaced by 60.0
//!      T60 ─wr─► T58   T58 saw k11 = 60.1 of T60
//!  ✓ nothing was seen that the level forbids
//! ```
//!
//! Of what is permitted one example is shown, of what is forbidden the three shortest.

use std::io::{self, Write as _};

use serde_json::{Value as Json, json};

use super::chapter::Book;
use super::check::Finding;
use crate::args::history::{self, HistoryArgs};
use crate::output::{Paint, duration, grouped, json_line};

/// The level as it is written on the command line.
pub(super) fn level(args: &HistoryArgs) -> String {
    history::name(&args.work.level)
}

/// The report for people.
pub(super) fn text(args: &HistoryArgs, book: &Book<'_>) -> io::Result<()> {
    let (paint, mut out) = (Paint::stdout(), io::stdout().lock());
    let (work, totals) = (&args.work, book.totals);
    let workload = history::name(&work.workload);
    let title =
        format!("{}, {workload}, {} clients, seed {}", level(args), work.clients, work.seed);
    writeln!(out, "{}", paint.bold(title))?;
    let [committed, aborted, unknown] =
        [totals.committed, totals.aborted, totals.unknown].map(grouped);
    writeln!(
        out,
        "  {} transactions: {committed} committed, {aborted} aborted, {unknown} unknown after {} crashes",
        grouped(totals.committed + totals.aborted + totals.unknown),
        totals.crashes
    )?;
    let (working, checking) = (duration(totals.working), duration(totals.checking));
    writeln!(out, "  run in {working}, checked in {checking}")?;
    for finding in &book.verdict.findings {
        let forbidden = finding.anomaly.is_forbidden(work.level.into());
        let mark = if forbidden { paint.bad("✗ forbidden") } else { paint.good("✓ permitted") };
        writeln!(out, "{mark}  {}: {} times", finding.anomaly, grouped(finding.count))?;
        let shown = if forbidden { finding.examples.len() } else { 1 };
        for example in finding.examples.iter().take(shown) {
            writeln!(out, "    {}", example.join("\n    "))?;
        }
    }
    match book.violation() {
        None => writeln!(out, "{}", paint.good("✓ nothing was seen that the level forbids")),
        Some(finding) => writeln!(out, "{}", paint.bad(format!("✗ {}", finding.anomaly))),
    }
}

/// The report for programs.
pub(super) fn json(args: &HistoryArgs, book: &Book<'_>) -> io::Result<()> {
    let (work, totals) = (&args.work, book.totals);
    let found: Vec<Json> =
        book.verdict.findings.iter().map(|finding| finding_json(args, finding)).collect();
    json_line(&json!({
        "level": level(args),
        "workload": history::name(&work.workload),
        "clients": work.clients,
        "seed": work.seed,
        "committed": totals.committed,
        "aborted": totals.aborted,
        "unknown": totals.unknown,
        "crashes": totals.crashes,
        "working_seconds": totals.working.as_secs_f64(),
        "checking_seconds": totals.checking.as_secs_f64(),
        "anomalies": found,
        "holds": book.violation().is_none(),
    }))
}

fn finding_json(args: &HistoryArgs, finding: &Finding) -> Json {
    json!({
        "anomaly": finding.anomaly.name(),
        "adya": finding.anomaly.adya(),
        "forbidden": finding.anomaly.is_forbidden(args.work.level.into()),
        "count": finding.count,
        "examples": finding.examples,
    })
}
