//! Transactions that run one after another are clean, whatever they do and whoever is lost in crashes.

use std::collections::BTreeMap;

use super::super::super::model::{Cell, History, Key, Op, Outcome, Shape, Txn, TxnNo, Value};
use super::found;

/// Runs `txns` random transactions one after another on `keys` rows.
fn serial(rng: &mut fastrand::Rng, shape: Shape, txns: u64, keys: u32) -> History {
    let mut rows: BTreeMap<Key, Cell> = BTreeMap::new();
    let mut told = Vec::new();
    for at in 0..txns {
        let no = TxnNo(2 * at);
        let outcome = match rng.u32(..10) {
            0 => Outcome::Aborted,
            1 | 2 => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        let mut after = rows.clone();
        let ops = (0..rng.u32(..5)).map(|step| op(rng, (shape, keys), &mut after, (no, step)));
        let ops = ops.collect();
        if outcome == Outcome::Committed || (outcome == Outcome::Unknown && rng.bool()) {
            rows = after;
        }
        told.push(Txn { no, client: rng.u32(..3), ops, outcome, ended: 2 * at + 1 });
    }
    History { shape, txns: told, finally: rows }
}

fn op(
    rng: &mut fastrand::Rng,
    (shape, keys): (Shape, u32),
    rows: &mut BTreeMap<Key, Cell>,
    (txn, step): (TxnNo, u32),
) -> Op {
    let key = Key(rng.u32(..keys));
    match rng.u32(..3) {
        0 => Op::Read { key, cell: rows.get(&key).cloned().unwrap_or_default() },
        1 => {
            let old = rows.get(&key).cloned().unwrap_or_default();
            let before = old.last().copied();
            let mut cell = if shape == Shape::ListAppend { old } else { Vec::new() };
            cell.push(Value { txn, step });
            rows.insert(key, cell.clone());
            Op::Write { key, cell, before }
        }
        _ => {
            let (from, to) = (key, Key(rng.u32(key.0..=keys)));
            let rows = rows.range(from..to).map(|(key, cell)| (*key, cell.clone()));
            Op::Scan { from, to, rows: rows.collect() }
        }
    }
}

#[test]
fn serial_executions_are_clean() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shape = if rng.bool() { Shape::ListAppend } else { Shape::Register };
        let (txns, keys) = (rng.u64(1..60), rng.u32(1..8));
        let history = serial(&mut rng, shape, txns, keys);
        assert_eq!(found(&history), [], "seed {seed}: {history:#?}");
    }
}

/// A single answer changed at random is noticed whenever it can be: a value that was never there, or not
/// the newest one then, cannot be explained by a serial order that real time confirms.
#[test]
fn one_changed_answer_is_noticed() {
    let mut changed = 0;
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut history = serial(&mut rng, Shape::Register, 30, 3);
        let values: Vec<Value> = history
            .txns
            .iter()
            .flat_map(Txn::writes)
            .filter_map(|(_, c, _)| c.last().copied())
            .collect();
        let committed = history.txns.iter_mut().filter(|txn| txn.outcome == Outcome::Committed);
        let reads = committed.flat_map(|txn| &mut txn.ops).filter_map(|op| match op {
            Op::Read { cell, .. } => Some(cell),
            Op::Write { .. } | Op::Scan { .. } => None,
        });
        let mut reads: Vec<_> = reads.collect();
        let (Some(cell), Some(value)) = (rng.choice(&mut reads), rng.choice(&values)) else {
            continue;
        };
        if cell.last() == Some(value) {
            continue;
        }
        **cell = vec![*value];
        changed += 1;
        assert_ne!(found(&history), [], "seed {seed}: {history:#?}");
    }
    assert!(changed > 200, "{changed}");
}
