//! `argali history`: concurrent clients, everything they saw, and what their isolation level says to it.
//!
//! ```text
//!  stage      a database on which every call and answer is written down
//!  workload   what the clients do                    ┐
//!  life       in this process, or in one that dies   ├─► record ─► model ─► check ─► verdict
//!  chapter    lives, final state, verdict            ┘
//! ```
//!
//! A history is judged in chapters: each has a tree of its own, so nothing can depend on anything in
//! another one, and memory does not grow with the length of the run. The report and the exit status
//! speak of what was seen; what a level permits is listed, what it forbids ends the run.

mod chapter;
mod check;
mod life;
mod model;
mod record;
mod show;
mod stage;
#[cfg(test)]
mod tests;
mod workload;

use anyhow::Context as _;

use crate::args::history::HistoryArgs;
use crate::exit::Failure;
use crate::output::Format;
use chapter::Book;

pub(crate) use life::child;
pub(crate) use model::Shape;

/// Runs `argali history`.
pub(crate) fn run(args: &HistoryArgs, format: Format) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("argali-history-").tempdir();
    let temporary = temporary.context("making a temporary directory")?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().join("db"));
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let text = format!("{} is not empty; a history begins with nothing", dir.display());
        return Err(Failure::Usage(text).into());
    }
    let mut book = Book::new(args, &dir);
    while book.left() > 0 && book.violation().is_none() {
        book.write_chapter()?;
    }
    match format {
        Format::Text => show::text(args, &book)?,
        Format::Json => show::json(args, &book)?,
    }
    let Some(finding) = book.violation() else { return Ok(()) };
    let what = format!("{} under {}", finding.anomaly, show::level(args));
    if args.dir.is_none() {
        let kept = temporary.keep();
        eprintln!("the database and the last chapter's history stay in {}", kept.display());
    }
    Err(Failure::Disproved(what).into())
}
