//! What the demo prints: one story for people, or one JSON object for scripts.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::power::Cut;
use super::proof::Claim;
use super::{Outcome, Settings};
use crate::bank::ledger::OPENING;
use crate::output::{self, Paint, bytes, duration, grouped};

/// Printer of the story.
pub(super) struct Story<W> {
    out: W,
    paint: Paint,
}

impl Story<io::Stdout> {
    /// On standard output.
    pub(super) fn stdout() -> Self {
        Self { out: io::stdout(), paint: Paint::stdout() }
    }
}

impl<W: Write> Story<W> {
    /// The heading.
    pub(super) fn title(&mut self, settings: &Settings) -> io::Result<()> {
        let title = self.paint.bold("A bank that survives a crash");
        let seed = self.paint.faint(format_args!("seed {}", settings.seed));
        writeln!(self.out, "{title}  {seed}\n")
    }

    /// What was loaded, and where.
    pub(super) fn loaded(&mut self, settings: &Settings) -> io::Result<()> {
        let accounts = u64::from(settings.accounts);
        self.line("database", format_args!("{}", settings.dir.display()))?;
        let (many, each) = (grouped(accounts), grouped(OPENING));
        let sum = grouped(accounts * OPENING);
        self.line("loaded", format_args!("{many} accounts with {each} each: sum {sum}"))
    }

    /// The first act.
    pub(super) fn crash(&mut self, outcome: &Outcome) -> io::Result<()> {
        let flight = &outcome.flight;
        let rate = flight.acknowledged as f64 / flight.time.as_secs_f64();
        self.line(
            "ran",
            format_args!(
                "{} threads: {} durable transfers acknowledged in {} ({}/s)",
                flight.threads,
                grouped(flight.acknowledged as u64),
                duration(flight.time),
                grouped(rate as u64)
            ),
        )?;
        self.line("killed", format_args!("process {} by SIGKILL in mid-flight", flight.child))?;
        self.recovery(outcome)?;
        self.claims(&outcome.claims)
    }

    fn recovery(&mut self, outcome: &Outcome) -> io::Result<()> {
        let report = &outcome.report;
        let time = duration(report.total_time);
        let repaired = match report.pages_repaired + report.pages_overwritten {
            0 => String::new(),
            n => format!("; {n} torn pages repaired"),
        };
        self.line("recovered", format_args!("in {time}, checkpoint included{repaired}"))?;
        let passes = [
            ("analysis", &report.analysis, report.losers.len()),
            ("redo", &report.redo, 0),
            ("undo", &report.undo, report.losers.len()),
        ];
        let rows = passes.map(|(name, pass, losers)| {
            vec![
                name.to_owned(),
                pass.from.to_string(),
                pass.to.to_string(),
                grouped(pass.records),
                bytes(pass.bytes),
                grouped(pass.pages),
                if name == "redo" { "-".to_owned() } else { grouped(losers as u64) },
                duration(pass.time),
            ]
        });
        let head = ["pass", "from", "to", "records", "bytes", "pages", "losers", "time"];
        for line in output::table(&head, rows).lines() {
            writeln!(self.out, "  {}", line.trim_end())?;
        }
        let (winners, clrs) = (grouped(report.winners), grouped(report.clrs_written));
        let applied = grouped(report.applied);
        let note = format!("{winners} winners; {applied} changes repeated; {clrs} CLRs written");
        writeln!(self.out, "  {}\n", self.paint.faint(note))
    }

    fn claims(&mut self, claims: &[Claim]) -> io::Result<()> {
        for claim in claims {
            let mark = self.mark(claim.holds);
            writeln!(self.out, "  {mark} {}", claim.text)?;
        }
        Ok(())
    }

    /// The second act.
    pub(super) fn power(&mut self, cuts: &[Cut]) -> io::Result<()> {
        let title = self.paint.bold("A power cut");
        writeln!(self.out, "\n{title}  un-synced writes lost, reordered and torn by sector\n")?;
        let rows = cuts.iter().map(|cut| {
            let holds = cut.claims.iter().all(|claim| claim.holds);
            vec![
                grouped(cut.call),
                grouped(cut.unsynced as u64),
                if cut.twice { "yes" } else { "-" }.to_owned(),
                grouped(cut.acknowledged as u64),
                grouped(cut.losers as u64),
                if holds { "holds" } else { "BROKEN" }.to_owned(),
            ]
        });
        let head = ["cut at call", "un-synced", "cut again", "acknowledged", "losers", "proof"];
        for line in output::table(&head, rows).lines() {
            writeln!(self.out, "  {}", line.trim_end())?;
        }
        for claim in cuts.iter().flat_map(|cut| &cut.claims).filter(|claim| !claim.holds) {
            let mark = self.mark(false);
            writeln!(self.out, "  {mark} {}", claim.text)?;
        }
        Ok(())
    }

    /// The last line.
    pub(super) fn verdict(
        &mut self,
        broken: Option<&Claim>,
        settings: &Settings,
    ) -> io::Result<()> {
        let mark = self.mark(broken.is_none());
        let verdict = match broken {
            None => "nothing acknowledged was lost, nothing half done was left".to_owned(),
            Some(claim) => format!("BROKEN: {}", claim.text),
        };
        writeln!(self.out, "\n{mark} {}", self.paint.bold(verdict))?;
        if settings.kept {
            let dir = settings.dir.display();
            writeln!(
                self.out,
                "  kept: argali info {dir}; argali check {dir}; argali bank run {dir}"
            )?;
        }
        Ok(())
    }

    /// One line for one seed of many.
    pub(super) fn brief(&mut self, settings: &Settings, outcome: &Outcome) -> io::Result<()> {
        let mark = self.mark(outcome.broken().is_none());
        writeln!(
            self.out,
            "{mark} seed {:<6} {:>9} acknowledged  {:>3} losers undone  recovered in {:>9}  {} power cuts",
            settings.seed,
            grouped(outcome.flight.acknowledged as u64),
            outcome.report.losers.len(),
            duration(outcome.report.total_time),
            outcome.cuts.len()
        )?;
        match outcome.broken() {
            None => Ok(()),
            Some(claim) => writeln!(self.out, "    {}", self.paint.bad(&claim.text)),
        }
    }

    fn mark(&self, good: bool) -> String {
        if good { self.paint.good("✓") } else { self.paint.bad("✗") }
    }

    fn line(&mut self, name: &str, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{} {text}", self.paint.faint(format_args!("{name:<10}")))
    }
}

/// The whole outcome for scripts.
pub(super) fn as_json(settings: &Settings, outcome: &Outcome) -> Value {
    let report = &outcome.report;
    let pass = |pass: &argali::PassReport| {
        json!({
            "from_lsn": pass.from.get(), "to_lsn": pass.to.get(), "records": pass.records,
            "bytes": pass.bytes, "pages": pass.pages, "seconds": pass.time.as_secs_f64(),
        })
    };
    let claims = |claims: &[Claim]| -> Value {
        claims.iter().map(|claim| (claim.name.to_owned(), json!(claim.holds))).collect()
    };
    let cuts: Vec<Value> = outcome
        .cuts
        .iter()
        .map(|cut| {
            json!({
                "call": cut.call, "unsynced": cut.unsynced, "twice": cut.twice,
                "acknowledged": cut.acknowledged, "losers": cut.losers,
                "claims": claims(&cut.claims),
            })
        })
        .collect();
    json!({
        "seed": settings.seed, "acknowledged": outcome.flight.acknowledged,
        "seconds": outcome.flight.time.as_secs_f64(),
        "recovery": {
            "analysis": pass(&report.analysis), "redo": pass(&report.redo), "undo": pass(&report.undo),
            "winners": report.winners, "losers": report.losers.len(),
            "clrs": report.clrs_written, "seconds": report.total_time.as_secs_f64(),
        },
        "claims": claims(&outcome.claims), "power_cuts": cuts,
        "holds": outcome.broken().is_none(),
    })
}
