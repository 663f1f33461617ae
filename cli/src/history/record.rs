//! What clients tell while they work, and the history it adds up to.
//!
//! ```text
//!  try   before the commit, all operations with their answers
//!  end   after the answer to commit or rollback, with the tick of the answer
//!
//!  {"try":17,"client":2,"ops":[["r",5,"3.0"],["w",5,"17.0","3.0"],["s",0,16,[[5,"17.0"]]]]}
//!  {"end":17,"tick":23,"committed":true}
//! ```
//!
//! A client tells each event before it goes on. So when its process is killed, what it told is all that
//! matters: a transaction that did not tell its try had not asked for its commit, and one that told no
//! end may be there or not.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::model::{self, Cell, History, Key, Op, Outcome, Shape, Txn, TxnNo};

/// One thing a client tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// What a transaction did, its end still open.
    Tried(Txn),
    /// The answer.
    Ended { no: TxnNo, tick: u64, committed: bool },
}

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    txns: Vec<Txn>,
    /// Where those without an end stand in `txns`.
    open: HashMap<TxnNo, usize>,
    /// Greatest tick heard of.
    tick: u64,
    ended: u64,
}

impl Record {
    /// Takes in one event. An end without a try is an error.
    pub(crate) fn hear(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Tried(txn) => {
                self.tick = self.tick.max(txn.no.0);
                self.open.insert(txn.no, self.txns.len());
                self.txns.push(txn);
            }
            Event::Ended { no, tick, committed } => {
                self.tick = self.tick.max(tick);
                self.ended += 1;
                let at = self.open.remove(&no).with_context(|| format!("{no} never tried"))?;
                let txn = &mut self.txns[at];
                txn.outcome = if committed { Outcome::Committed } else { Outcome::Aborted };
                txn.ended = tick;
            }
        }
        Ok(())
    }

    /// The clients are dead: whoever has no end by now may be there or not, but comes before whatever
    /// is done from now on. Returns a tick beyond all that `clients` clients can have taken.
    pub(crate) fn crash(&mut self, clients: u32) -> u64 {
        // Each client can have begun one transaction, and ended one, that nobody heard of.
        let crash = self.tick + 2 * u64::from(clients) + 1;
        for (_, at) in self.open.drain() {
            self.txns[at].ended = crash;
        }
        self.tick = crash;
        crash + 1
    }

    /// Transactions whose end was told.
    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }

    /// The history, now that everybody is done.
    pub(crate) fn finish(mut self, shape: Shape, finally: BTreeMap<Key, Cell>) -> History {
        self.crash(0);
        self.txns.sort_by_key(|txn| txn.no);
        History { shape, txns: self.txns, finally }
    }
}

impl Event {
    /// As a line without its end.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Tried(txn) => {
                let ops: Vec<Json> = txn.ops.iter().map(op_json).collect();
                json!({ "try": txn.no.0, "client": txn.client, "ops": ops }).to_string()
            }
            Self::Ended { no, tick, committed } => {
                json!({ "end": no.0, "tick": tick, "committed": committed }).to_string()
            }
        }
    }

    /// What [`Event::line`] wrote.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let json = serde_json::from_str(line).ok();
        json.and_then(|json| event(&json)).with_context(|| format!("a client said {line:?}"))
    }
}

fn op_json(op: &Op) -> Json {
    match op {
        Op::Read { key, cell } => json!(["r", key.0, model::text(cell)]),
        Op::Write { key, cell, before } => {
            json!(["w", key.0, model::text(cell), before.map(|value| value.to_string())])
        }
        Op::Scan { from, to, rows } => {
            let rows: Vec<Json> =
                rows.iter().map(|(key, cell)| json!([key.0, model::text(cell)])).collect();
            json!(["s", from.0, to.0, rows])
        }
    }
}

fn event(json: &Json) -> Option<Event> {
    if let Some(no) = json["try"].as_u64() {
        let ops = json["ops"].as_array()?.iter().map(op).collect::<Option<_>>()?;
        let client = u32::try_from(json["client"].as_u64()?).ok()?;
        let txn = Txn { no: TxnNo(no), client, ops, outcome: Outcome::Unknown, ended: no };
        return Some(Event::Tried(txn));
    }
    let (no, tick) = (TxnNo(json["end"].as_u64()?), json["tick"].as_u64()?);
    Some(Event::Ended { no, tick, committed: json["committed"].as_bool()? })
}

fn op(json: &Json) -> Option<Op> {
    match json[0].as_str()? {
        "r" => Some(Op::Read { key: key(&json[1])?, cell: cell(&json[2])? }),
        "w" => {
            let before = match &json[3] {
                Json::Null => None,
                told => Some(model::value(told.as_str()?)?),
            };
            Some(Op::Write { key: key(&json[1])?, cell: cell(&json[2])?, before })
        }
        "s" => {
            let rows = json[3].as_array()?.iter();
            let rows = rows.map(|row| Some((key(&row[0])?, cell(&row[1])?))).collect::<Option<_>>();
            Some(Op::Scan { from: key(&json[1])?, to: key(&json[2])?, rows: rows? })
        }
        _ => None,
    }
}

fn key(json: &Json) -> Option<Key> {
    u32::try_from(json.as_u64()?).ok().map(Key)
}

fn cell(json: &Json) -> Option<Cell> {
    model::cell(json.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(no: u64) -> Txn {
        let cell = model::cell("3.0 17.2").unwrap();
        let ops = vec![
            Op::Read { key: Key(1), cell: Vec::new() },
            Op::Write { key: Key(2), cell: cell.clone(), before: model::value("3.0") },
            Op::Write { key: Key(2), cell: cell.clone(), before: None },
            Op::Scan { from: Key(0), to: Key(9), rows: vec![(Key(2), cell)] },
        ];
        Txn { no: TxnNo(no), client: 3, ops, outcome: Outcome::Unknown, ended: no }
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let end = Event::Ended { no: TxnNo(17), tick: 23, committed: false };
        for event in [Event::Tried(tried(17)), end] {
            assert_eq!(Event::parse(&event.line()).unwrap(), event);
        }
        for nonsense in ["", "{}", r#"{"try":1}"#, r#"{"try":1,"client":0,"ops":[["x"]]}"#] {
            assert!(Event::parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_crash_leaves_open_ends_before_everything_later() {
        let mut record = Record::default();
        for no in [4, 2, 7] {
            record.hear(Event::Tried(tried(no))).unwrap();
        }
        record.hear(Event::Ended { no: TxnNo(2), tick: 9, committed: true }).unwrap();
        assert!(record.hear(Event::Ended { no: TxnNo(2), tick: 9, committed: true }).is_err());
        assert_eq!(record.crash(4), 19);
        record.hear(Event::Tried(tried(19))).unwrap();
        record.hear(Event::Ended { no: TxnNo(19), tick: 20, committed: false }).unwrap();
        let history = record.finish(Shape::Register, BTreeMap::new());
        let ends: Vec<_> =
            history.txns.iter().map(|txn| (txn.no.0, txn.ended, txn.outcome)).collect();
        let expected = [
            (2, 9, Outcome::Committed),
            (4, 18, Outcome::Unknown),
            (7, 18, Outcome::Unknown),
            (19, 20, Outcome::Aborted),
        ];
        assert_eq!(ends, expected);
    }
}
