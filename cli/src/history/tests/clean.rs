//! What a level forbids never happens: many concurrent transactions, no forbidden finding.
//!
//! Short versions; `argali history --transactions 100000` is the long one.

use argali::Mutations;

use super::super::check::check;
use super::super::model::Outcome::{Aborted, Committed, Unknown};
use super::super::model::Shape::{ListAppend, Register};
use super::{LEVELS, options, planted, played, work};
use crate::args::history::LevelArg;

fn keeps_its_promise(level: LevelArg) {
    for (seed, shape) in [(1, ListAppend), (2, Register)] {
        let db = options(&Mutations::default()).in_memory().unwrap();
        let history = played(&db, &work(level, shape, seed));
        let (committed, aborted) = (history.count(Committed), history.count(Aborted));
        assert!(committed > 900 && aborted > 50, "{committed} committed, {aborted} aborted");
        if level == LevelArg::Serializable {
            let locks = db.stats().unwrap().locks;
            let busy = locks.deadlocks > 0 && locks.escalations > 0 && locks.claims > 0;
            assert!(busy, "too peaceful: {locks:?}");
        }
        let verdict = check(&history, level.into());
        let violation = verdict.violation(level.into());
        assert!(violation.is_none(), "{level:?} {shape:?} seed {seed}: {violation:#?}");
    }
}

#[test]
fn serializable_shows_no_anomaly() {
    keeps_its_promise(LevelArg::Serializable);
}

#[test]
fn repeatable_read_shows_nothing_but_phantoms() {
    keeps_its_promise(LevelArg::RepeatableRead);
}

#[test]
fn read_committed_shows_no_uncommitted_data() {
    keeps_its_promise(LevelArg::ReadCommitted);
}

/// The history goes on across power cuts: what was acknowledged stays, what was not may be either.
#[test]
fn power_cuts_keep_the_promises_of_every_level() {
    let mut unknown = 0;
    for (seed, level) in (10..).zip(LEVELS) {
        for shape in [ListAppend, Register] {
            let history = planted::lives(&Mutations::default(), &work(level, shape, seed));
            unknown += history.count(Unknown);
            let verdict = check(&history, level.into());
            let violation = verdict.violation(level.into());
            assert!(violation.is_none(), "{level:?} {shape:?} seed {seed}: {violation:#?}");
        }
    }
    assert!(unknown > 10, "only {unknown} answers were lost in the cuts");
}
