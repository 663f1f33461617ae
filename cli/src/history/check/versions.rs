//! Versions of each row in the order they were installed.
//!
//! ```text
//!  k5   (none) ◄── 3.0 ◄── 9.1 ◄── 14.0 = the final state       each write says what it replaced
//!                   ▲
//!                   └───── 11.0   also over 3.0: somebody's update is lost
//! ```
//!
//! Walking back from the final state finds the versions that survived. That settles what a crash left
//! open: a transaction whose answer nobody heard *is there* when its writes are, and is as good as rolled
//! back when they are not. Everything else speaks of transactions that are there.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::model::{Cell, History, Key, Outcome, Shape, Value, text};
use super::{Anomaly, Verdict};

/// One write, wherever its transaction ended up.
pub(super) struct Write<'h> {
    /// Position of its transaction.
    pub(super) txn: usize,
    pub(super) cell: &'h Cell,
    /// Whether its transaction wrote the row no more.
    pub(super) last: bool,
    before: Option<Value>,
}

type Writes<'h> = HashMap<(Key, Value), Write<'h>>;

/// Who wrote what over what.
pub(super) struct Versions<'h> {
    history: &'h History,
    writes: Writes<'h>,
    /// By position in the history.
    there: Vec<bool>,
    /// What replaced a version (or the absence of a row), by transactions that are there.
    next: HashMap<(Key, Option<Value>), Vec<Value>>,
    /// Rows that were ever there.
    keys: BTreeSet<Key>,
}

impl<'h> Versions<'h> {
    /// Puts the versions of `history` in order and notes what does not fit in.
    pub(super) fn of(history: &'h History, verdict: &mut Verdict) -> Self {
        let writes = index(history);
        let survivors = Survivors::of(history, &writes, verdict);
        let there = survivors.judge(history, verdict);
        let mut versions =
            Self { history, writes, there, next: HashMap::new(), keys: BTreeSet::new() };
        versions.check_end(verdict);
        versions.link(verdict);
        versions
    }

    /// Positions of the transactions that are there, ascending.
    pub(super) fn txns(&self) -> impl Iterator<Item = usize> {
        (0..self.there.len()).filter(|at| self.there[*at])
    }

    /// Whether the transaction at this position is there.
    pub(super) fn is_there(&self, txn: usize) -> bool {
        self.there[txn]
    }

    /// The write of `value`, wherever its transaction ended up.
    pub(super) fn write(&self, key: Key, value: Value) -> Option<&Write<'h>> {
        self.writes.get(&(key, value))
    }

    /// Who installed `value`, if that transaction is there.
    pub(super) fn writer(&self, key: Key, value: Value) -> Option<usize> {
        self.write(key, value).map(|write| write.txn).filter(|txn| self.there[*txn])
    }

    /// The versions that replaced `version`: one at most, unless an update was lost.
    pub(super) fn successors(&self, key: Key, version: Option<Value>) -> &[Value] {
        self.next.get(&(key, version)).map_or(&[], Vec::as_slice)
    }

    /// Rows that were ever there, from `from` on and below `to`.
    pub(super) fn keys(&self, from: Key, to: Key) -> impl Iterator<Item = Key> {
        self.keys.range(from..to.max(from)).copied()
    }

    /// Neighbours among the versions: a row, a version, and the one that replaced it.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = (Key, Value, Value)> {
        self.next.iter().flat_map(|((key, before), nexts)| {
            let both = nexts.iter().filter_map(|next| Some(((*before)?, *next)));
            both.map(|(before, next)| (*key, before, next))
        })
    }

    /// The final state is read by nobody, so its newest versions are looked at here.
    fn check_end(&self, verdict: &mut Verdict) {
        for (key, cell) in &self.history.finally {
            let Some(write) = cell.last().and_then(|value| self.write(*key, *value)) else {
                continue; // noted on the walk back
            };
            if write.cell != cell {
                let (cell, written) = (text(cell), text(write.cell));
                let line = format!("{key} is [{cell}] in the end, written as [{written}]");
                verdict.note(Anomaly::Garbage, vec![line]);
            }
            if !self.there[write.txn] {
                let no = self.history.txns[write.txn].no;
                let line = format!("{key} is [{}] in the end; {no} was rolled back", text(cell));
                verdict.note(Anomaly::AbortedRead, vec![line]);
            }
        }
    }

    /// Links the versions of transactions that are there.
    fn link(&mut self, verdict: &mut Verdict) {
        let (there, history) = (self.there.clone(), self.history);
        for txn in history.txns.iter().zip(there).filter_map(|(txn, there)| there.then_some(txn)) {
            for (key, cell, before) in txn.writes() {
                let Some(value) = cell.last().copied() else { continue };
                self.keys.insert(key);
                self.check_list((key, cell), before, verdict);
                let Ok(settled) = self.settled(key, before) else { continue };
                let nexts = self.next.entry((key, settled)).or_default();
                if let Some(rival) = nexts.first() {
                    let old = shown(settled);
                    let line = format!("{rival} and {value} both replaced {key} = {old}");
                    verdict.note(Anomaly::LostUpdate, vec![line]);
                }
                nexts.push(value);
            }
        }
    }

    /// The newest version at or before `version` whose writer is there; `Err` is one that nobody wrote,
    /// or that comes before itself.
    fn settled(&self, key: Key, mut version: Option<Value>) -> Result<Option<Value>, Value> {
        let mut steps = 0;
        while let Some(value) = version {
            let write = self.write(key, value).filter(|_| steps <= self.writes.len());
            let write = write.ok_or(value)?;
            if self.there[write.txn] {
                break;
            }
            version = write.before;
            steps += 1;
        }
        Ok(version)
    }

    /// A list must be the one it replaced and the new value: otherwise somebody's append is lost.
    fn check_list(&self, (key, cell): (Key, &Cell), before: Option<Value>, verdict: &mut Verdict) {
        let replaced = before.and_then(|value| self.write(key, value));
        let replaced = replaced.map_or(&[][..], |write| write.cell);
        let (kept, new) = cell.split_at(cell.len() - 1);
        if self.history.shape == Shape::ListAppend && kept != replaced {
            let seen = shown(kept.last().copied());
            let lost: Cell =
                replaced.iter().filter(|value| !kept.contains(value)).copied().collect();
            let (new, lost) = (text(new), text(&lost));
            let line = format!("{new} was appended to {key} behind {seen}, and lost [{lost}]");
            verdict.note(Anomaly::LostUpdate, vec![line]);
        }
    }
}

/// The versions that lead to the final state.
struct Survivors {
    versions: HashSet<(Key, Value)>,
    /// Rows whose versions could not be followed back to the first.
    broken: HashSet<Key>,
}

impl Survivors {
    fn of(history: &History, writes: &Writes<'_>, verdict: &mut Verdict) -> Self {
        let mut survivors = Self { versions: HashSet::new(), broken: HashSet::new() };
        for (key, cell) in &history.finally {
            if let Err(value) = survivors.walk(*key, cell.last().copied(), writes) {
                survivors.broken.insert(*key);
                let line = format!("{key} = {value} leads to the final state, but");
                if history.position(value.txn).is_some() {
                    let line = format!("{line} {} did not write it there once", value.txn);
                    verdict.note(Anomaly::Garbage, vec![line]);
                } else {
                    let line = format!("{line} {} never tried to commit", value.txn);
                    verdict.note(Anomaly::AbortedRead, vec![line]);
                }
            }
        }
        survivors
    }

    /// Follows the versions of a row back; `Err` is one that nobody wrote, or that comes twice.
    fn walk(
        &mut self,
        key: Key,
        mut version: Option<Value>,
        writes: &Writes<'_>,
    ) -> Result<(), Value> {
        while let Some(value) = version {
            let write = writes.get(&(key, value)).ok_or(value)?;
            if !self.versions.insert((key, value)) {
                return Err(value);
            }
            version = write.before;
        }
        Ok(())
    }

    /// Which transactions are there; notes commits of which something is missing.
    fn judge(&self, history: &History, verdict: &mut Verdict) -> Vec<bool> {
        let judged = history.txns.iter().map(|txn| {
            let last: HashMap<Key, Value> = txn
                .writes()
                .filter_map(|(key, cell, _)| Some((key, *cell.last()?)))
                .filter(|(key, _)| !self.broken.contains(key))
                .collect();
            let lost: Vec<_> = last.iter().filter(|at| !self.survived(at)).collect();
            let there = match txn.outcome {
                Outcome::Committed => true,
                Outcome::Aborted => false,
                Outcome::Unknown => lost.len() < last.len(),
            };
            if there {
                let anomaly = match txn.outcome {
                    Outcome::Unknown => Anomaly::HalfCommit,
                    Outcome::Committed | Outcome::Aborted => Anomaly::LostWrite,
                };
                for (key, value) in lost {
                    let line = format!("{key} = {value} of {} is missing in the end", txn.no);
                    verdict.note(anomaly, vec![line]);
                }
            }
            there
        });
        judged.collect()
    }

    fn survived(&self, (key, value): &(&Key, &Value)) -> bool {
        self.versions.contains(&(**key, **value))
    }
}

/// A version in words.
pub(super) fn shown(version: Option<Value>) -> String {
    version.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

fn index(history: &History) -> Writes<'_> {
    let mut writes = HashMap::new();
    for (at, txn) in history.txns.iter().enumerate() {
        let mut newest: HashMap<Key, Value> = HashMap::new();
        for (key, cell, before) in txn.writes() {
            let Some(value) = cell.last().copied() else { continue };
            writes.insert((key, value), Write { txn: at, cell, last: true, before });
            if let Some(earlier) = newest.insert(key, value).and_then(|v| writes.get_mut(&(key, v)))
            {
                earlier.last = false;
            }
        }
    }
    writes
}
