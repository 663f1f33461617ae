//! The checker against histories whose verdict is known.
//!
//! Hand-made histories are written as text, one transaction to a line; see [`told`].

mod anomalies;
mod orders;
mod serial;

use std::collections::BTreeMap;

use argali::Isolation;

use super::super::model::{Cell, History, Key, Op, Outcome, Shape, Txn, TxnNo, cell, value};
use super::{Anomaly, Verdict, check};

/// A history of registers from lines like these:
///
/// ```text
/// 1-4 ok   read x=-  write x=1.0/-  scan a..f=b:3.0,c:4.0
/// │ │  │          │        │    │
/// │ │  │          │        │    └ the version it replaced
/// │ │  │          │        └ the new value
/// │ │  │          └ "-" where nothing is
/// │ │  └ ok, abort, or crash
/// │ └ tick of its end
/// └ its name
/// end x=1.0
/// ```
///
/// Rows are letters; clients are numbered like lines.
fn told(text: &str) -> History {
    let mut history =
        History { shape: Shape::Register, txns: Vec::new(), finally: BTreeMap::new() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, rest) = line.split_once(' ').expect("a name");
        if name == "end" {
            history.finally = rest.split_whitespace().map(row).collect();
            continue;
        }
        let (no, ended) = name.split_once('-').expect("begin and end");
        let mut words = rest.split_whitespace();
        let outcome = match words.next() {
            Some("ok") => Outcome::Committed,
            Some("abort") => Outcome::Aborted,
            Some("crash") => Outcome::Unknown,
            other => panic!("outcome {other:?}"),
        };
        let mut ops = Vec::new();
        while let (Some(verb), Some(object)) = (words.next(), words.next()) {
            ops.push(op(verb, object));
        }
        history.txns.push(Txn {
            no: TxnNo(no.parse().unwrap()),
            client: history.txns.len() as u32,
            ops,
            outcome,
            ended: ended.parse().unwrap(),
        });
    }
    history
}

fn op(verb: &str, object: &str) -> Op {
    let (left, right) = object.split_once('=').expect("something = something");
    match verb {
        "read" => Op::Read { key: key(left), cell: seen(right) },
        "write" => {
            let (new, old) = right.split_once('/').expect("new/old");
            Op::Write { key: key(left), cell: seen(new), before: value(old) }
        }
        "scan" => {
            let (from, to) = left.split_once("..").expect("from..to");
            let rows = right.split(',').filter(|row| *row != "-");
            let rows = rows.map(|row_| row(&row_.replace(':', "="))).collect();
            Op::Scan { from: key(from), to: key(to), rows }
        }
        _ => panic!("operation {verb}"),
    }
}

fn row(text: &str) -> (Key, Cell) {
    let (name, held) = text.split_once('=').expect("row = cell");
    (key(name), seen(held))
}

/// A cell; `+` stands between the values of a list.
fn seen(text: &str) -> Cell {
    if text == "-" { Vec::new() } else { cell(&text.replace('+', " ")).expect("values") }
}

fn key(letter: &str) -> Key {
    Key(u32::from(letter.as_bytes()[0] - b'a'))
}

/// Everything that is found at full strength.
fn found(history: &History) -> Vec<Anomaly> {
    found_in(&check(history, Isolation::Serializable))
}

fn found_in(verdict: &Verdict) -> Vec<Anomaly> {
    verdict.findings.iter().map(|finding| finding.anomaly).collect()
}
