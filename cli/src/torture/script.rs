//! One transaction of the workload, and the record of what it did.
//!
//! ```text
//!  put acct/3 (was 100#1-1-0-3)  ─┐
//!  savepoint                      │ effects: [put acct/3 …]
//!    put k/9                      │           [put acct/3 …, put k/9 …]
//!  rollback to savepoint          │           [put acct/3 …]        ← truncated, as the tree was
//!  del k/4 (was v-1-1-2-1)       ─┘           [put acct/3 …, del k/4 …]  ──► the TRY line
//! ```
//!
//! Every write reads first and compares: what the write says it replaced must be what was read, and
//! what was read goes into the TRY line. Each value ends in a tag, the transaction's id and a position
//! in it that counts rolled-back writes too, so no value is ever written twice.

use argali::{Tree, Write};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::json_bytes;

/// Values longer than this begin anew instead of being appended to.
const APPEND_BYTES_MAX: usize = 600;

/// A transaction being made.
pub(crate) struct Script<'t> {
    tree: &'t Tree,
    id: String,
    position: u32,
    effects: Vec<Value>,
}

impl<'t> Script<'t> {
    /// The transaction called `id`, without effects so far.
    pub(crate) fn new(tree: &'t Tree, id: String) -> Self {
        Self { tree, id, position: 0, effects: Vec::new() }
    }

    /// The tree it works on.
    pub(crate) fn tree(&self) -> &'t Tree {
        self.tree
    }

    /// How many effects survive so far: where a savepoint returns to.
    pub(crate) fn mark(&self) -> usize {
        self.effects.len()
    }

    /// Forgets the effects since `mark`: they were rolled back.
    pub(crate) fn forget_since(&mut self, mark: usize) {
        self.effects.truncate(mark);
    }

    /// The TRY line.
    pub(crate) fn try_line(&self, client: u32) -> String {
        let (id, ops) = (json!(self.id), json!(self.effects));
        format!(r#"TRY {{"t":{id},"c":{client},"ops":{ops}}}"#)
    }

    /// The ACK or ABT line.
    pub(crate) fn end_line(&self, word: &str) -> String {
        format!("{word} {}", json!({ "t": self.id }))
    }

    /// Sets `key` to a value that ends in nothing but its tag and `padding` bytes.
    pub(crate) fn put(&mut self, txn: &Write, key: &str, padding: usize) -> anyhow::Result<()> {
        self.change(txn, key, |_, tag| Ok(format!("v-{tag}.{}", "~".repeat(padding))))
    }

    /// Appends to the value of `key`: not idempotent.
    pub(crate) fn append(&mut self, txn: &Write, key: &str) -> anyhow::Result<()> {
        self.change(txn, key, |old, tag| match old {
            Some(old) if old.len() < APPEND_BYTES_MAX => Ok(format!("{old}|{tag}")),
            _ => Ok(format!("a-{tag}")),
        })
    }

    /// Adds `delta` to the number in front of the `#`: not idempotent. An absent key counts as 0.
    pub(crate) fn add(&mut self, txn: &Write, key: &str, delta: i64) -> anyhow::Result<()> {
        self.change(txn, key, |old, tag| {
            let number = old.map_or(Ok(0), |old| number(key, old))?;
            Ok(format!("{}#{tag}", number + delta))
        })
    }

    /// Deletes `key`; no effect when it is absent.
    pub(crate) fn delete(&mut self, txn: &Write, key: &str) -> anyhow::Result<()> {
        let read = txn.get_for_update(self.tree, key)?;
        let old = txn.delete(self.tree, key)?;
        self.same(key, read.as_deref(), old.as_deref())?;
        if let Some(old) = old {
            self.effects.push(json!(["del", key, json_bytes(&old)]));
        }
        Ok(())
    }

    fn change(
        &mut self,
        txn: &Write,
        key: &str,
        value: impl FnOnce(Option<&str>, &str) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let tag = format!("{}-{}", self.id, self.position);
        self.position += 1;
        let read = txn.get_for_update(self.tree, key)?;
        let text = read.as_deref().map(std::str::from_utf8).transpose().map_err(|_| {
            Failure::Disproved(format!("the value of {key} is not what any workload writes"))
        })?;
        let value = value(text, &tag)?;
        let old = txn.put(self.tree, key, &value)?;
        self.same(key, read.as_deref(), old.as_deref())?;
        self.effects.push(json!(["put", key, value, text]));
        Ok(())
    }

    /// A write must replace what this transaction read a moment before.
    fn same(&self, key: &str, read: Option<&[u8]>, old: Option<&[u8]>) -> anyhow::Result<()> {
        if read == old {
            return Ok(());
        }
        let show = |value: Option<&[u8]>| {
            value.map(String::from_utf8_lossy).map(std::borrow::Cow::into_owned)
        };
        let what = format!("{}: {key} was {:?}, then {:?}", self.id, show(read), show(old));
        Err(Failure::Disproved(what).into())
    }
}

/// The number in front of the `#`.
pub(crate) fn number(key: &str, value: &str) -> anyhow::Result<i64> {
    let number = value.split_once('#').and_then(|(number, _)| number.parse().ok());
    number.ok_or_else(|| {
        Failure::Disproved(format!("the value {value:?} of {key} is no number with a tag")).into()
    })
}
