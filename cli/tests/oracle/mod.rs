//! An outside crash tester in one file: believes only lines, knows nothing of the engine.
//!
//! The state a database must have is what it had before, plus every transaction with an ACK, plus any
//! subset of those whose end nobody heard of, all in the order of their TRY lines. That each operation
//! names the value it replaced makes every wrong order and every lost update visible.
#![allow(unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Pairs, as `torture verify` prints them.
pub type State = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Acknowledged,
    Aborted,
    Unheard,
}

#[derive(Debug)]
struct Transaction {
    id: String,
    ops: Vec<Op>,
    end: End,
}

#[derive(Debug)]
struct Op {
    key: String,
    value: Option<String>,
    old: Option<String>,
}

/// What a run of the workload said.
#[derive(Debug, Default)]
pub struct Told {
    transactions: Vec<Transaction>,
    meta: Option<(String, i64)>,
}

/// What all runs together said: ids and values must never come twice.
#[derive(Debug, Default)]
pub struct Ever {
    ids: BTreeSet<String>,
    values: BTreeSet<String>,
}

impl Told {
    /// Reads the lines of one run; a last line without its end was never said.
    pub fn parse(output: &str, ever: &mut Ever) -> Self {
        let mut told = Self::default();
        for line in output.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("line {line:?}"));
            let json: Value = serde_json::from_str(rest).unwrap_or_else(|e| panic!("{e}: {line}"));
            match word {
                "META" => told.take_meta(&json),
                "TRY" => told.take_try(&json, ever),
                "ACK" => told.take_end(&json, End::Acknowledged),
                "ABT" => told.take_end(&json, End::Aborted),
                _ => panic!("line {line:?}"),
            }
        }
        told
    }

    /// Transactions that were acknowledged, that were aborted, and whose end nobody heard of.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |end| self.transactions.iter().filter(|txn| txn.end == end).count();
        (count(End::Acknowledged), count(End::Aborted), count(End::Unheard))
    }

    fn take_meta(&mut self, json: &Value) {
        assert!(self.meta.is_none(), "META twice in one run");
        assert!(self.transactions.is_empty(), "META comes first");
        let prefix = json["bank_prefix"].as_str().expect("a prefix").to_owned();
        self.meta = Some((prefix, json["bank_total"].as_i64().expect("a total")));
    }

    fn take_try(&mut self, json: &Value, ever: &mut Ever) {
        let id = json["t"].as_str().expect("an id").to_owned();
        assert!(ever.ids.insert(id.clone()), "id {id} twice");
        assert!(json["c"].is_u64(), "{json}");
        let ops: Vec<Op> = json["ops"].as_array().expect("operations").iter().map(op).collect();
        for value in ops.iter().filter_map(|op| op.value.as_ref()) {
            assert!(ever.values.insert(value.clone()), "value {value} twice");
            assert!(value.contains(&id), "value {value} of {id}");
        }
        self.transactions.push(Transaction { id, ops, end: End::Unheard });
    }

    fn take_end(&mut self, json: &Value, end: End) {
        let id = json["t"].as_str().expect("an id");
        let txn = self.transactions.iter_mut().rev().find(|txn| txn.id == id);
        let txn = txn.unwrap_or_else(|| panic!("{end:?} of {id}, which never tried"));
        assert_eq!(txn.end, End::Unheard, "{id} ended twice");
        txn.end = end;
    }

    /// Whether `found` is a state these transactions may have left, starting from `before`.
    pub fn explains(&self, before: &State, found: &State) -> Result<(), String> {
        self.check_bank(found)?;
        let unheard: Vec<usize> = (0..self.transactions.len())
            .filter(|n| self.transactions[*n].end == End::Unheard)
            .collect();
        assert!(unheard.len() <= 16, "{} transactions without an end", unheard.len());
        let mut nearest = String::new();
        for subset in 0..1_u32 << unheard.len() {
            let present = |n: usize| match self.transactions[n].end {
                End::Acknowledged => true,
                End::Aborted => false,
                End::Unheard => {
                    let place = unheard.iter().position(|u| *u == n).expect("listed");
                    subset >> place & 1 == 1
                }
            };
            match self.apply(before, present) {
                Ok(state) if state == *found => return Ok(()),
                Ok(state) => nearest = difference(&state, found),
                Err(why) if nearest.is_empty() => nearest = why,
                Err(_) => {}
            }
        }
        Err(format!("{} unheard; nearest: {nearest}", unheard.len()))
    }

    fn apply(&self, before: &State, present: impl Fn(usize) -> bool) -> Result<State, String> {
        let mut state = before.clone();
        for (_, txn) in self.transactions.iter().enumerate().filter(|(n, _)| present(*n)) {
            for op in &txn.ops {
                let old = match &op.value {
                    Some(value) => state.insert(op.key.clone(), value.clone()),
                    None => state.remove(&op.key),
                };
                if old != op.old {
                    return Err(format!("{}: {op:?} met {old:?}", txn.id));
                }
            }
        }
        Ok(state)
    }

    fn check_bank(&self, found: &State) -> Result<(), String> {
        let Some((prefix, total)) = &self.meta else { return Ok(()) };
        let accounts = found.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
        let balances: Vec<i64> = accounts
            .map(|(_, value)| value.split_once('#').expect("a tag").0.parse().expect("a number"))
            .collect();
        let sum: i64 = balances.iter().sum();
        match (balances.len(), sum) {
            (0, _) => Ok(()), // made in one transaction, which is not there
            (_, sum) if sum == *total => Ok(()),
            (n, sum) => Err(format!("{n} accounts hold {sum} of {total}")),
        }
    }
}

fn op(json: &Value) -> Op {
    let field = |n: usize| json[n].as_str().map(str::to_owned);
    let key = field(1).expect("a key");
    match json[0].as_str() {
        Some("put") => Op { key, value: Some(field(2).expect("a value")), old: field(3) },
        Some("del") => Op { key, value: None, old: field(2) },
        _ => panic!("operation {json}"),
    }
}

fn difference(expected: &State, found: &State) -> String {
    let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let wrong = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key));
    wrong.take(5).fold(String::new(), |text, key| {
        format!("{text}\n  {key}: expected {:?}, found {:?}", expected.get(key), found.get(key))
    })
}

/// Reads what `torture verify` printed.
pub fn state(output: &str) -> State {
    let mut lines: Vec<Value> = output
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    let end = lines.pop().expect("an end line");
    assert_eq!(end["end"], lines.len(), "the end line counts the pairs");
    let text = |value: &Value| value.as_str().expect("UTF-8").to_owned();
    let state: State = lines.iter().map(|pair| (text(&pair["k"]), text(&pair["v"]))).collect();
    assert_eq!(state.len(), lines.len(), "no key twice");
    state
}
