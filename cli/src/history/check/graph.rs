//! Who depends on whom.
//!
//! ```text
//!  ww  T1 ─► T2   T2 replaced what T1 wrote
//!  wr  T1 ─► T2   T2 saw what T1 wrote
//!  rw  T1 ─► T2   T2 replaced what T1 saw (T1 saw too early to see T2)
//!  pr  T1 ─► T2   T2 made a row in a range in which T1 had seen none: the predicate's rw
//!  rt  T1 ─► T2   T1 was answered before T2 began
//! ```
//!
//! An edge says "must come before" in any serial order that explains the history.
//!
//! Real time alone would be an edge for nearly every pair of transactions. So time has nodes of its own,
//! one for each answer, in a chain; a transaction leads to the node of its answer, and the last node
//! before a transaction began leads to it. Two edges for a transaction, and the same paths:
//!
//! ```text
//!  T1 ──► answer 1 ──► answer 2 ──► answer 3        T1 before T4: both ends of the chain between
//!              T2 ─────────┘  └─► T4
//! ```

use std::collections::HashSet;

use super::super::model::{Cell, History, Key, Op, Value};
use super::versions::{Versions, shown};

/// A transaction's position in the history, or a node of time beyond those.
pub(super) type Node = u32;

/// What makes one transaction come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// `next` replaced `value`.
    Replaced { key: Key, value: Value, next: Value },
    /// `value` was seen.
    Saw { key: Key, value: Value },
    /// `next` replaced `seen`.
    Overtaken { key: Key, seen: Option<Value>, next: Value },
    /// `next` made a row in the range.
    Entered { key: Key, next: Value, range: (Key, Key) },
    /// One ended before the other began.
    Time,
}

/// Kinds of edges, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const WW: Self = Self(1);
    pub(super) const WR: Self = Self(2);
    pub(super) const RW: Self = Self(4);
    pub(super) const PREDICATE: Self = Self(8);
    pub(super) const TIME: Self = Self(16);

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn contains(self, kind: Self) -> bool {
        self.0 & kind.0 == kind.0
    }
}

/// An edge to `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) to: Node,
    pub(super) why: Why,
}

impl Edge {
    pub(super) fn kind(&self) -> Kinds {
        match self.why {
            Why::Replaced { .. } => Kinds::WW,
            Why::Saw { .. } => Kinds::WR,
            Why::Overtaken { .. } => Kinds::RW,
            Why::Entered { .. } => Kinds::PREDICATE,
            Why::Time => Kinds::TIME,
        }
    }

    /// The row it is about; none for a range or for time.
    pub(super) fn key(&self) -> Option<Key> {
        match self.why {
            Why::Replaced { key, .. } | Why::Saw { key, .. } | Why::Overtaken { key, .. } => {
                Some(key)
            }
            Why::Entered { .. } | Why::Time => None,
        }
    }
}

/// All dependencies between transactions that are there.
pub(super) struct Graph {
    edges: Vec<Vec<Edge>>,
    txns: usize,
}

impl Graph {
    /// The dependencies in `history`.
    pub(super) fn of(history: &History, versions: &Versions<'_>) -> Self {
        let txns = history.txns.len();
        let mut graph = Self { edges: vec![Vec::new(); txns], txns };
        for (key, value, next) in versions.neighbours() {
            if let (Some(from), Some(to)) =
                (versions.writer(key, value), versions.writer(key, next))
            {
                graph.connect(from, to, Why::Replaced { key, value, next });
            }
        }
        for reader in versions.txns() {
            for op in &history.txns[reader].ops {
                graph.add_reads(reader, op, versions);
            }
        }
        graph.add_time(history, versions);
        graph
    }

    /// Nodes, those of time included.
    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    /// Whether `node` is a transaction, not an instant.
    pub(super) fn is_txn(&self, node: Node) -> bool {
        (node as usize) < self.txns
    }

    /// What `node` comes before.
    pub(super) fn edges(&self, node: Node) -> &[Edge] {
        &self.edges[node as usize]
    }

    fn add_reads(&mut self, reader: usize, op: &Op, versions: &Versions<'_>) {
        match op {
            // What a write replaced is in the order of versions already.
            Op::Write { .. } => {}
            Op::Read { key, cell } => self.add_read(reader, *key, cell, versions),
            Op::Scan { from, to, rows } => {
                for (key, cell) in rows {
                    self.add_read(reader, *key, cell, versions);
                }
                let seen: HashSet<Key> = rows.iter().map(|(key, _)| *key).collect();
                let range = (*from, *to);
                for key in versions.keys(*from, *to).filter(|key| !seen.contains(key)) {
                    for next in versions.successors(key, None) {
                        let Some(to) = versions.writer(key, *next) else { continue };
                        self.connect(reader, to, Why::Entered { key, next: *next, range });
                    }
                }
            }
        }
    }

    fn add_read(&mut self, reader: usize, key: Key, cell: &Cell, versions: &Versions<'_>) {
        let seen = cell.last().copied();
        if let Some(value) = seen
            && let Some(from) = versions.writer(key, value)
        {
            if from == reader {
                return; // its own write: whoever replaces it is in the order of versions
            }
            self.connect(from, reader, Why::Saw { key, value });
        }
        for next in versions.successors(key, seen) {
            if let Some(to) = versions.writer(key, *next) {
                self.connect(reader, to, Why::Overtaken { key, seen, next: *next });
            }
        }
    }

    fn add_time(&mut self, history: &History, versions: &Versions<'_>) {
        let mut answers: Vec<(u64, usize)> =
            versions.txns().map(|txn| (history.txns[txn].ended, txn)).collect();
        answers.sort_unstable();
        for (at, (_, txn)) in answers.iter().enumerate() {
            let instant = self.edges.len() as Node;
            self.edges.push(Vec::new());
            if at > 0 {
                self.edges[instant as usize - 1].push(Edge { to: instant, why: Why::Time });
            }
            self.edges[*txn].push(Edge { to: instant, why: Why::Time });
        }
        for txn in versions.txns() {
            let before = answers.partition_point(|(ended, _)| *ended < history.txns[txn].no.0);
            if before > 0 {
                let instant = self.txns + before - 1;
                self.edges[instant].push(Edge { to: txn as Node, why: Why::Time });
            }
        }
    }

    fn connect(&mut self, from: usize, to: usize, why: Why) {
        if from != to {
            self.edges[from].push(Edge { to: to as Node, why });
        }
    }
}

/// A cycle, edge by edge, in lines for people. It begins at a transaction.
pub(super) fn explain(history: &History, graph: &Graph, cycle: &[(Node, Edge)]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut began = 0;
    for (from, edge) in cycle {
        if graph.is_txn(*from) {
            began = *from;
        }
        if graph.is_txn(edge.to) {
            lines.push(line(history, (began, edge.to), edge.why));
        }
    }
    lines
}

fn line(history: &History, (from, to): (Node, Node), why: Why) -> String {
    let (first, second) = (&history.txns[from as usize], &history.txns[to as usize]);
    let (a, b) = (first.no, second.no);
    match why {
        Why::Replaced { key, value, next } => {
            format!("{a} ─ww─► {b}   {b} replaced {key} = {value} of {a} by {next}")
        }
        Why::Saw { key, value } => format!("{a} ─wr─► {b}   {b} saw {key} = {value} of {a}"),
        Why::Overtaken { key, seen, next } => {
            let seen = shown(seen);
            format!("{a} ─rw─► {b}   {a} saw {key} = {seen}, which {b} replaced by {next}")
        }
        Why::Entered { key, next, range: (from, to) } => {
            format!("{a} ─pr─► {b}   {a} saw no {key} from {from} to {to}, where {b} made {next}")
        }
        Why::Time if first.client == second.client => {
            format!("{a} ─rt─► {b}   {b} came after {a} in the session of client {}", first.client)
        }
        Why::Time => {
            format!("{a} ─rt─► {b}   {a} was answered at {} before {b} began", first.ended)
        }
    }
}
