//! What single observations give away, without any cycle.
//!
//! | a transaction that is there saw …                        | that is             |
//! | -------------------------------------------------------- | ------------------- |
//! | a value nobody wrote there, or not so                    | garbage             |
//! | a value of a transaction that is not there               | an aborted read     |
//! | a value that its writer replaced before it committed     | an intermediate read |
//! | another value than its own, after writing the row itself | its own write unseen |
//!
//! What a write says it replaced is an observation like any other: the engine told the client so.

use std::collections::HashMap;

use super::super::model::{Cell, History, Key, Op, Outcome, TxnNo, Value, text};
use super::versions::{Versions, shown};
use super::{Anomaly, Verdict};

/// Holds every observation of transactions that are there against what was written.
pub(super) fn check(history: &History, versions: &Versions<'_>, verdict: &mut Verdict) {
    for at in versions.txns() {
        let mut reader = Reader { history, versions, at, own: HashMap::new() };
        for op in &history.txns[at].ops {
            reader.look(op, verdict);
        }
    }
}

/// One transaction, going through its operations.
struct Reader<'h> {
    history: &'h History,
    versions: &'h Versions<'h>,
    at: usize,
    /// What it wrote so far.
    own: HashMap<Key, Value>,
}

/// A row in a version; the whole cell where it was told.
#[derive(Clone, Copy)]
struct Seen<'h> {
    key: Key,
    version: Option<Value>,
    cell: Option<&'h Cell>,
}

impl Reader<'_> {
    fn look(&mut self, op: &Op, verdict: &mut Verdict) {
        match op {
            Op::Read { key, cell } => self.judge(Seen::row(*key, cell), verdict),
            Op::Write { key, cell, before } => {
                self.judge(Seen { key: *key, version: *before, cell: None }, verdict);
                self.own.extend(cell.last().map(|value| (*key, *value)));
            }
            Op::Scan { from, to, rows } => {
                self.check_range((*from, *to), rows, verdict);
                for (key, cell) in rows {
                    self.judge(Seen::row(*key, cell), verdict);
                }
                for key in self.own.keys().filter(|key| (from..to).contains(key)) {
                    if !rows.iter().any(|(row, _)| row == key) {
                        self.judge(Seen { key: *key, version: None, cell: None }, verdict);
                    }
                }
            }
        }
    }

    /// Rows of a scan ascend within its bounds.
    fn check_range(&self, (from, to): (Key, Key), rows: &[(Key, Cell)], verdict: &mut Verdict) {
        let inside = rows.iter().all(|(key, _)| (from..to).contains(key));
        if !inside || !rows.is_sorted_by(|(a, _), (b, _)| a < b) {
            let rows: Vec<_> = rows.iter().map(|(key, _)| key.to_string()).collect();
            let line = format!("{} scanned {from} to {to}: {}", self.no(), rows.join(", "));
            verdict.note(Anomaly::Garbage, vec![line]);
        }
    }

    fn judge(&self, seen: Seen<'_>, verdict: &mut Verdict) {
        let own = self.own.get(&seen.key);
        let told = format!("{} saw {} = {}", self.no(), seen.key, shown(seen.version));
        if let Some(own) = own.filter(|own| Some(**own) != seen.version) {
            let line = format!("{told} after it had written {own}");
            verdict.note(Anomaly::OwnWriteUnseen, vec![line]);
        }
        if let Some((anomaly, why)) = seen.version.and_then(|value| self.fault(seen, value)) {
            verdict.note(anomaly, vec![format!("{told}{why}")]);
        }
    }

    /// What is wrong with having seen `value`.
    fn fault(&self, seen: Seen<'_>, value: Value) -> Option<(Anomaly, String)> {
        let writer = value.txn;
        let Some(write) = self.versions.write(seen.key, value) else {
            return Some(match self.history.position(writer) {
                Some(_) => (Anomaly::Garbage, format!(", which {writer} did not write there")),
                None => (Anomaly::AbortedRead, format!(" of {writer}, which never came so far")),
            });
        };
        if let Some(cell) = seen.cell.filter(|cell| *cell != write.cell) {
            let why = format!(" as [{}], written as [{}]", text(cell), text(write.cell));
            return Some((Anomaly::Garbage, why));
        }
        if write.txn == self.at {
            let future = !self.own.contains_key(&seen.key);
            return future.then(|| (Anomaly::Garbage, " before it had written it".to_owned()));
        }
        if !self.versions.is_there(write.txn) {
            let end = match self.history.txns[write.txn].outcome {
                Outcome::Unknown => "was lost in the crash",
                Outcome::Aborted | Outcome::Committed => "was rolled back",
            };
            return Some((Anomaly::AbortedRead, format!(" of {writer}, which {end}")));
        }
        let replaced = || (Anomaly::IntermediateRead, format!(", which {writer} itself replaced"));
        (!write.last).then(replaced)
    }

    fn no(&self) -> TxnNo {
        self.history.txns[self.at].no
    }
}

impl<'h> Seen<'h> {
    fn row(key: Key, cell: &'h Cell) -> Self {
        Self { key, version: cell.last().copied(), cell: Some(cell) }
    }
}
