//! The checker against the definition: is there *any* order of the transactions, run one after another,
//! in which each gets the answers it got?
//!
//! Small enough histories can be tried in all orders. Checker and trial must agree on each of many random
//! histories, sound and broken ones: that makes the checker right in both directions.

use std::collections::BTreeMap;

use super::super::super::model::{Cell, History, Key, Op, Outcome, Shape, Txn, TxnNo, Value};
use super::super::Anomaly;
use super::found;

const KEYS: u32 = 3;

type Rows = BTreeMap<Key, Cell>;

/// Whether some order explains everything; `timely` orders keep to real time.
fn explainable(history: &History, timely: bool) -> bool {
    let open: Vec<usize> = (0..history.txns.len())
        .filter(|at| history.txns[*at].outcome == Outcome::Unknown)
        .collect();
    (0..1_u32 << open.len()).any(|subset| {
        let there: Vec<&Txn> = history
            .txns
            .iter()
            .enumerate()
            .filter(|(at, txn)| match txn.outcome {
                Outcome::Committed => true,
                Outcome::Aborted => false,
                Outcome::Unknown => {
                    open.iter().position(|o| o == at).is_some_and(|bit| subset >> bit & 1 == 1)
                }
            })
            .map(|(_, txn)| txn)
            .collect();
        some_order(history, &there, &Rows::new(), timely)
    })
}

/// Whether the transactions `left` can follow on `rows` in some order and lead to the final state.
fn some_order(history: &History, left: &[&Txn], rows: &Rows, timely: bool) -> bool {
    if left.is_empty() {
        return *rows == history.finally;
    }
    (0..left.len()).any(|at| {
        let mut others = left.to_vec();
        let next = others.remove(at);
        let early = timely && others.iter().any(|other| other.ended < next.no.0);
        let mut rows = rows.clone();
        !early
            && replay(history.shape, next, &mut rows)
            && some_order(history, &others, &rows, timely)
    })
}

/// Runs `txn` alone; whether it gets the answers it got.
fn replay(shape: Shape, txn: &Txn, rows: &mut Rows) -> bool {
    txn.ops.iter().all(|op| match op {
        Op::Read { key, cell } => rows.get(key).cloned().unwrap_or_default() == *cell,
        Op::Write { key, cell, before } => {
            let old = rows.insert(*key, cell.clone()).unwrap_or_default();
            let kept = if shape == Shape::ListAppend { &old[..] } else { &[] };
            old.last() == before.as_ref() && cell[..cell.len() - 1] == *kept
        }
        Op::Scan { from, to, rows: seen } => {
            let there: Vec<_> = rows.range(*from..*to).map(|(k, c)| (*k, c.clone())).collect();
            there == *seen
        }
    })
}

/// A store without any isolation, and the transactions that run on it interleaved.
struct Chaos {
    rng: fastrand::Rng,
    shape: Shape,
    rows: Rows,
    /// Every state the store was in.
    states: Vec<Rows>,
    /// How often an answer comes from an earlier state, in percent.
    stale: u32,
}

/// A transaction under way.
struct Open {
    txn: Txn,
    /// The rows when it began: what its rollback restores.
    before: Rows,
    /// An earlier state that it reads throughout, and writes nothing.
    view: Option<Rows>,
}

impl Chaos {
    fn history(seed: u64) -> History {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shape = if rng.bool() { Shape::ListAppend } else { Shape::Register };
        let stale = *rng.choice(&[0, 0, 10, 20]).expect("four");
        let mut chaos = Self { rng, shape, rows: Rows::new(), states: vec![Rows::new()], stale };
        let txns = chaos.run();
        let finally = if chaos.rng.u32(..20) == 0 { chaos.old_state() } else { chaos.rows };
        History { shape, txns, finally }
    }

    /// Two to four transactions; how much they overlap is chance.
    fn run(&mut self) -> Vec<Txn> {
        let count = self.rng.usize(2..=4);
        let overlap = *self.rng.choice(&[2, 3, 4]).expect("three");
        let (mut tick, mut begun) = (0, 0);
        let mut open: Vec<Open> = Vec::new();
        let mut ended = Vec::new();
        while ended.len() < count {
            tick += 1;
            if begun < count && open.len() < overlap && (open.is_empty() || self.rng.bool()) {
                let (no, outcome) = (TxnNo(tick), Outcome::Unknown);
                let client = begun as u32;
                let view = (self.rng.u32(..5) == 0).then(|| self.old_state());
                let txn = Txn { no, client, ops: vec![], outcome, ended: 0 };
                open.push(Open { txn, before: self.rows.clone(), view });
                begun += 1;
                continue;
            }
            let at = self.rng.usize(..open.len());
            if open[at].txn.ops.len() < 4 && self.rng.u32(..5) > 0 {
                let op = self.op(&open[at]);
                open[at].txn.ops.push(op);
                continue;
            }
            let Open { mut txn, before, .. } = open.remove(at);
            (txn.outcome, txn.ended) = (self.ending(&txn, &before), tick);
            ended.push(txn);
        }
        ended.sort_by_key(|txn| txn.no);
        ended
    }

    /// Commits, or takes back what it wrote (as if it had been alone).
    fn ending(&mut self, txn: &Txn, before: &Rows) -> Outcome {
        let outcome = match self.rng.u32(..12) {
            0 => Outcome::Aborted,
            1 => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        if outcome == Outcome::Aborted || (outcome == Outcome::Unknown && self.rng.bool()) {
            for (key, _, _) in txn.writes() {
                match before.get(&key) {
                    Some(cell) => self.rows.insert(key, cell.clone()),
                    None => self.rows.remove(&key),
                };
            }
        }
        outcome
    }

    fn op(&mut self, Open { txn, view, .. }: &Open) -> Op {
        let seen = match view {
            Some(view) => view.clone(),
            None if self.rng.u32(..100) < self.stale => self.old_state(),
            None => self.rows.clone(),
        };
        let key = Key(self.rng.u32(..KEYS));
        let cell = |rows: &Rows| rows.get(&key).cloned().unwrap_or_default();
        match self.rng.u32(..if view.is_some() { 2 } else { 4 }) {
            0 => Op::Read { key, cell: cell(&seen) },
            1 => {
                let (from, to) = (key, Key(self.rng.u32(key.0..=KEYS)));
                let rows = seen.range(from..to).map(|(key, cell)| (*key, cell.clone()));
                Op::Scan { from, to, rows: rows.collect() }
            }
            _ => {
                let old = cell(&seen);
                let before = old.last().copied();
                let mut cell = if self.shape == Shape::ListAppend { old } else { Vec::new() };
                cell.push(Value { txn: txn.no, step: txn.ops.len() as u32 });
                self.rows.insert(key, cell.clone());
                self.states.push(self.rows.clone());
                Op::Write { key, cell, before }
            }
        }
    }

    fn old_state(&mut self) -> Rows {
        self.rng.choice(&self.states).cloned().unwrap_or_default()
    }
}

#[test]
fn the_checker_agrees_with_all_orders() {
    let (mut clean, mut untimely, mut broken) = (0, 0, 0);
    for seed in 0..10_000 {
        let history = Chaos::history(seed);
        let found = found(&history);
        let serializable = found.iter().all(|anomaly| *anomaly == Anomaly::AgainstRealTime);
        let what = || format!("seed {seed}: {found:?} in {history:#?}");
        assert_eq!(serializable, explainable(&history, false), "{}", what());
        assert_eq!(found.is_empty(), explainable(&history, true), "{}", what());
        match (serializable, found.is_empty()) {
            (true, true) => clean += 1,
            (true, false) => untimely += 1,
            (false, _) => broken += 1,
        }
    }
    let all = format!("{clean} clean, {untimely} against real time, {broken} broken");
    assert!(clean > 1000 && untimely > 50 && broken > 1000, "{all}");
}
