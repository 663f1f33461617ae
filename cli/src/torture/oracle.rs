//! An outside crash tester in one file: believes only lines, knows nothing of the engine. `soak` judges by it,
//! and so do the tests.
//!
//! ```text
//!  TRY 1 (was a, now b)  ACK 1        found = before + 1      + any subset of the unheard, in order
//!  TRY 2 (was b, now c)  ABT 2                (never 2)
//!  TRY 3 (was b, now d)  ✂ killed             + 3, or not
//! ```
//!
//! The state a database must have is what it had before, plus every transaction with an ACK, plus any
//! subset of those whose end nobody heard of, all in the order of their TRY lines. That each operation
//! names the value it replaced makes every wrong order and every lost update visible.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Pairs, as `torture verify` prints them.
pub(crate) type State = BTreeMap<String, String>;

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
pub(crate) struct Told {
    transactions: Vec<Transaction>,
    meta: Option<(String, i64)>,
}

/// What all runs together said: ids and values must never come twice.
#[derive(Debug, Default)]
pub(crate) struct Ever {
    ids: BTreeSet<String>,
    values: BTreeSet<String>,
}

impl Told {
    /// Reads the lines of one run; a last line without its end was never said.
    ///
    /// # Errors
    /// A line that breaks the protocol.
    pub(crate) fn parse(output: &str, ever: &mut Ever) -> Result<Self, String> {
        let mut told = Self::default();
        for line in output.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            told.take(line, ever).map_err(|why| format!("{why}: {line}"))?;
        }
        Ok(told)
    }

    fn take(&mut self, line: &str, ever: &mut Ever) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').ok_or("no protocol line")?;
        let json: Value = serde_json::from_str(rest).map_err(|why| why.to_string())?;
        match word {
            "META" => self.take_meta(&json),
            "TRY" => self.take_try(&json, ever),
            "ACK" => self.take_end(&json, End::Acknowledged),
            "ABT" => self.take_end(&json, End::Aborted),
            _ => Err("no protocol line".to_owned()),
        }
    }

    /// Transactions that were acknowledged, that were aborted, and whose end nobody heard of.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count = |end| self.transactions.iter().filter(|txn| txn.end == end).count();
        (count(End::Acknowledged), count(End::Aborted), count(End::Unheard))
    }

    fn take_meta(&mut self, json: &Value) -> Result<(), String> {
        ensure(self.meta.is_none() && self.transactions.is_empty(), "META comes once, and first")?;
        let prefix = json["bank_prefix"].as_str().ok_or("no prefix")?.to_owned();
        self.meta = Some((prefix, json["bank_total"].as_i64().ok_or("no total")?));
        Ok(())
    }

    fn take_try(&mut self, json: &Value, ever: &mut Ever) -> Result<(), String> {
        let id = json["t"].as_str().ok_or("no id")?.to_owned();
        ensure(ever.ids.insert(id.clone()), "an id that was there before")?;
        ensure(json["c"].is_u64(), "no client")?;
        let ops = json["ops"].as_array().ok_or("no operations")?;
        let ops: Vec<Op> = ops.iter().map(op).collect::<Option<_>>().ok_or("no operation")?;
        for value in ops.iter().filter_map(|op| op.value.as_ref()) {
            ensure(value.contains(&id), "a value without the transaction's id")?;
            ensure(ever.values.insert(value.clone()), "a value that was there before")?;
        }
        self.transactions.push(Transaction { id, ops, end: End::Unheard });
        Ok(())
    }

    fn take_end(&mut self, json: &Value, end: End) -> Result<(), String> {
        let id = json["t"].as_str().ok_or("no id")?;
        let txn = self.transactions.iter_mut().rev().find(|txn| txn.id == id);
        let txn = txn.ok_or("a transaction that never tried")?;
        ensure(txn.end == End::Unheard, "a transaction that ended before")?;
        txn.end = end;
        Ok(())
    }

    /// Whether `found` is a state these transactions may have left, starting from `before`.
    pub(crate) fn explains(&self, before: &State, found: &State) -> Result<(), String> {
        self.check_bank(found)?;
        let unheard: Vec<usize> = (0..self.transactions.len())
            .filter(|n| self.transactions[*n].end == End::Unheard)
            .collect();
        ensure(unheard.len() <= 16, "too many transactions without an end to try all subsets")?;
        let mut nearest = String::new();
        for subset in 0..1_u32 << unheard.len() {
            let present = |n: usize| match self.transactions[n].end {
                End::Acknowledged => true,
                End::Aborted => false,
                End::Unheard => {
                    let place = unheard.iter().position(|unheard| *unheard == n);
                    place.is_some_and(|place| subset >> place & 1 == 1)
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
            .map(|(_, value)| value.split_once('#').and_then(|(number, _)| number.parse().ok()))
            .collect::<Option<_>>()
            .ok_or("an account without a number")?;
        let sum: i64 = balances.iter().sum();
        match (balances.len(), sum) {
            (0, _) => Ok(()), // made in one transaction, which is not there
            (_, sum) if sum == *total => Ok(()),
            (n, sum) => Err(format!("{n} accounts hold {sum} of {total}")),
        }
    }
}

fn op(json: &Value) -> Option<Op> {
    let field = |n: usize| json[n].as_str().map(str::to_owned);
    let key = field(1)?;
    match json[0].as_str()? {
        "put" => Some(Op { key, value: Some(field(2)?), old: field(3) }),
        "del" => Some(Op { key, value: None, old: field(2) }),
        _ => None,
    }
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn difference(expected: &State, found: &State) -> String {
    let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let wrong = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key));
    wrong.take(5).fold(String::new(), |text, key| {
        format!("{text}\n  {key}: expected {:?}, found {:?}", expected.get(key), found.get(key))
    })
}

/// Reads what `torture verify` printed.
///
/// # Errors
/// A line is missing, comes twice or is none of its lines.
pub(crate) fn state(output: &str) -> Result<State, String> {
    let lines = output.lines().map(serde_json::from_str::<Value>);
    let mut lines: Vec<Value> = lines.collect::<Result<_, _>>().map_err(|why| why.to_string())?;
    let end = lines.pop().ok_or("nothing was printed")?;
    ensure(end["end"] == lines.len(), "the end line does not count the pairs")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pairs = lines.iter().map(|pair| Some((text(&pair["k"])?, text(&pair["v"])?)));
    let state: State = pairs.collect::<Option<_>>().ok_or("a pair that is no text")?;
    ensure(state.len() == lines.len(), "a key comes twice")?;
    Ok(state)
}
