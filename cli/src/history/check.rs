//! The checker: is a recorded history one that its isolation level permits?
//!
//! ```text
//!  history ──► versions     who wrote what over what; what can be said of single observations
//!                 │            aborted and intermediate reads, lost writes, half commits
//!                 ▼
//!              graph        who depends on whom: ww, wr, rw, predicate rw, real time
//!                 │
//!                 ▼
//!              cycles       each cycle is an anomaly; its edges say which
//!                 │
//!                 ▼
//!              anomaly      the names, and which level permits what ──► verdict
//! ```
//!
//! After Adya, Liskov and O'Neil (*Generalized isolation level definitions*, ICDE 2000), in the manner
//! of Elle (Kingsbury and Alvaro, *Elle: inferring isolation anomalies from experimental observations*,
//! VLDB 2020). What is reported did happen: no anomaly is guessed. What is not reported did not, with two
//! exceptions, both only where something else is reported already or permitted: of a large knot of
//! dependencies only so many cycles are looked at ([`cycles`]), and once an observation makes no sense
//! nothing further is concluded from it.
//!
//! Left out: deletions. A reader of an absent row could not say which absence it saw.

mod anomaly;
mod cycles;
mod graph;
mod knots;
mod observations;
#[cfg(test)]
mod tests;
mod versions;

use argali::Isolation;

pub(crate) use anomaly::{Anomaly, Finding};

use super::model::History;
use graph::Graph;
use versions::Versions;

/// What the checker found in one history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Each kind that was seen, the gravest first.
    pub(crate) findings: Vec<Finding>,
}

impl Verdict {
    /// The gravest finding that `level` forbids.
    pub(crate) fn violation(&self, level: Isolation) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.anomaly.is_forbidden(level))
    }

    /// How often `anomaly` was seen.
    #[cfg(test)]
    pub(crate) fn count(&self, anomaly: Anomaly) -> u64 {
        let found = self.findings.iter().find(|finding| finding.anomaly == anomaly);
        found.map_or(0, |finding| finding.count)
    }

    /// Takes over what was seen in another history.
    pub(crate) fn merge(&mut self, other: Self) {
        for finding in other.findings {
            self.of(finding.anomaly).merge(finding);
        }
        self.findings.sort_by_key(|finding| finding.anomaly);
    }

    fn note(&mut self, anomaly: Anomaly, example: Vec<String>) {
        self.of(anomaly).add(example);
    }

    fn of(&mut self, anomaly: Anomaly) -> &mut Finding {
        let known = self.findings.iter().position(|finding| finding.anomaly == anomaly);
        let at = known.unwrap_or_else(|| {
            self.findings.push(Finding { anomaly, count: 0, examples: Vec::new() });
            self.findings.len() - 1
        });
        &mut self.findings[at]
    }
}

/// Judges `history`. Real time counts only at levels that promise it.
pub(crate) fn check(history: &History, level: Isolation) -> Verdict {
    let mut verdict = Verdict::default();
    let versions = Versions::of(history, &mut verdict);
    observations::check(history, &versions, &mut verdict);
    let graph = Graph::of(history, &versions);
    cycles::find(history, &graph, level, &mut verdict);
    verdict.findings.sort_by_key(|finding| finding.anomaly);
    verdict
}
