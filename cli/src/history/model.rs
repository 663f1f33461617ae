//! What clients did and what they were told: the only thing the checker knows of the database.
//!
//! ```text
//!  tick  3      5   6        9   11      15            one counter for everything that can be ordered
//!        ├─T3───────┼────────┤   ·       ·
//!               ├─T5─────────────┤       ·             T3 ended before T11 began: T3 ─► T11 in real time
//!                                ├─T11───┤
//! ```
//!
//! A transaction is called by the tick at which it began, and each value it writes by its name and a
//! step: `3.0` is the first value that T3 wrote. So every value is written once, and tells who wrote it.
//! A row holds a [`Cell`]: of a register the newest value alone, of a list all values in the order of
//! their appends. A write also tells what it replaced, since the engine says so; that makes the order of
//! versions an observation, where other checkers must infer it.

use std::collections::BTreeMap;
use std::fmt;

/// Name of a transaction: the tick of its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TxnNo(pub(crate) u64);

/// Number of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) u32);

/// A value that was written once: by whom, and which of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Value {
    pub(crate) txn: TxnNo,
    pub(crate) step: u32,
}

/// What a row holds; empty where there is no row. The last value names the version.
pub(crate) type Cell = Vec<Value>;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// A row is a list; a write appends to it
    ListAppend,
    /// A row is one value; a write replaces it
    Register,
}

/// One call and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A point read.
    Read { key: Key, cell: Cell },
    /// A write of `cell`, whose last value is the new one, over the version `before`.
    Write { key: Key, cell: Cell, before: Option<Value> },
    /// A predicate read: all rows from `from` on and below `to`.
    Scan { from: Key, to: Key, rows: Vec<(Key, Cell)> },
}

/// How a transaction ended, as far as its client heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The commit was acknowledged.
    Committed,
    /// It was rolled back.
    Aborted,
    /// It tried to commit and a crash swallowed the answer.
    Unknown,
}

/// One transaction as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Txn {
    pub(crate) no: TxnNo,
    pub(crate) client: u32,
    pub(crate) ops: Vec<Op>,
    pub(crate) outcome: Outcome,
    /// Tick of the answer, or of the crash.
    pub(crate) ended: u64,
}

/// Everything that happened, and what was there in the end.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) shape: Shape,
    /// Ascending by number.
    pub(crate) txns: Vec<Txn>,
    /// All rows after the last transaction, read by nobody among them.
    pub(crate) finally: BTreeMap<Key, Cell>,
}

impl History {
    /// Where transaction `no` stands.
    pub(crate) fn position(&self, no: TxnNo) -> Option<usize> {
        self.txns.binary_search_by_key(&no, |txn| txn.no).ok()
    }

    /// Transactions that ended as `outcome`.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.txns.iter().filter(|txn| txn.outcome == outcome).count() as u64
    }
}

impl Txn {
    /// Its writes in order: row, new cell, version replaced.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (Key, &Cell, Option<Value>)> {
        self.ops.iter().filter_map(|op| match op {
            Op::Write { key, cell, before } => Some((*key, cell, *before)),
            Op::Read { .. } | Op::Scan { .. } => None,
        })
    }
}

impl fmt::Display for TxnNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.txn.0, self.step)
    }
}

/// The values of a cell, separated by spaces: how rows and recorded lines hold them.
pub(crate) fn text(cell: &[Value]) -> String {
    cell.iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
}

/// What [`text`] wrote, whatever space surrounds it; `None` when it is something else.
pub(crate) fn cell(text: &str) -> Option<Cell> {
    text.split_ascii_whitespace().map(value).collect()
}

/// One value of [`text`].
pub(crate) fn value(text: &str) -> Option<Value> {
    let (txn, step) = text.split_once('.')?;
    Some(Value { txn: TxnNo(txn.parse().ok()?), step: step.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_as_they_were_written() {
        let values = [(3, 0), (17, 2)].map(|(txn, step)| Value { txn: TxnNo(txn), step });
        assert_eq!(text(&values), "3.0 17.2");
        assert_eq!(cell(" 3.0  17.2   "), Some(values.to_vec()));
        assert_eq!(cell(""), Some(vec![]));
        for nonsense in ["3", "3.", ".1", "3.0 x", "-3.0", "3.0.1"] {
            assert_eq!(cell(nonsense), None, "{nonsense}");
        }
    }
}
