//! A database on which every call and its answer is written down.
//!
//! ```text
//!  stage.begin(client, level) ──► Recorded: read, write, scan ──► try ──► commit ──► end
//!                                              └───── abort, or an error ──► try ──► end
//! ```
//!
//! Rows are named so that their order is that of their numbers, with tails of different lengths, and some
//! are padded: leaves split, and gaps lie across leaves as well as within them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use argali::{Db, Isolation, Read, Tree, Write};

use super::model::{self, Cell, Key, Op, Outcome, Shape, Txn, TxnNo, Value};
use super::record::Event;
use crate::exit::Failure;

/// Values a list may have: a full one is only read, so that it fits its page.
const LIST_VALUES_MAX: usize = 48;
/// Digits of a row's number in its name.
const DIGITS: usize = 10;

/// Whoever listens to clients.
pub(crate) type Listener<'s> = &'s (dyn Fn(Event) -> anyhow::Result<()> + Sync);

/// A tree, its clock, and a listener.
pub(crate) struct Stage<'s> {
    db: &'s Db,
    tree: Tree,
    shape: Shape,
    ticks: AtomicU64,
    tell: Listener<'s>,
}

impl<'s> Stage<'s> {
    /// A stage on tree `name`, made if need be; its first tick is `tick`.
    pub(crate) fn open(
        db: &'s Db,
        name: &str,
        (shape, tick): (Shape, u64),
        tell: Listener<'s>,
    ) -> anyhow::Result<Self> {
        let tree = db.update(|txn| txn.tree(name))?;
        Ok(Self { db, tree, shape, ticks: AtomicU64::new(tick), tell })
    }

    /// A transaction that may write.
    pub(crate) fn begin(&self, client: u32, level: Isolation) -> anyhow::Result<Recorded<'_>> {
        let no = self.tick();
        Ok(self.recorded(no, client, Handle::Write(self.db.begin_with(level)?)))
    }

    /// A transaction that only reads.
    pub(crate) fn read(&self, client: u32, level: Isolation) -> anyhow::Result<Recorded<'_>> {
        let no = self.tick();
        Ok(self.recorded(no, client, Handle::Read(self.db.read_with(level)?)))
    }

    /// All rows as they are.
    pub(crate) fn rows(&self) -> anyhow::Result<BTreeMap<Key, Cell>> {
        let read = self.db.read()?;
        let rows = read.scan_all(&self.tree)?.map(|pair| row(&pair?)).collect();
        read.finish()?;
        rows
    }

    fn recorded(&self, no: u64, client: u32, handle: Handle) -> Recorded<'_> {
        let (no, ops) = (TxnNo(no), Vec::new());
        let txn = Txn { no, client, ops, outcome: Outcome::Unknown, ended: no.0 };
        Recorded { stage: self, handle: Some(handle), txn: Some(txn), step: 0 }
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }
}

/// The transaction behind a [`Recorded`].
enum Handle {
    Read(Read),
    Write(Write),
}

/// How a write comes to know what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It reads first, as any read does.
    Read,
    /// It reads first, for update.
    ForUpdate,
    /// Not at all. Only a register can be written blindly; a list is read for update.
    Blind,
    /// It takes the row away first, and so learns what was there.
    Delete,
}

/// From which end a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
    /// From both by turns.
    Both,
}

/// A transaction that writes down what it does. Dropped, it was rolled back.
pub(crate) struct Recorded<'s> {
    stage: &'s Stage<'s>,
    /// `None` once it has ended.
    handle: Option<Handle>,
    /// `None` once it was told.
    txn: Option<Txn>,
    /// Values written so far.
    step: u32,
}

impl Recorded<'_> {
    /// Its name.
    pub(crate) fn no(&self) -> TxnNo {
        self.txn.as_ref().expect("told when it ends, and the end consumes it").no
    }

    /// A point read.
    pub(crate) fn read(&mut self, key: Key) -> anyhow::Result<Cell> {
        let found = self.reader().get(&self.stage.tree, name(key))?;
        self.note_read(key, found.as_deref())
    }

    /// A predicate read of the rows from `from` on and below `to`; returns them in order.
    pub(crate) fn scan(
        &mut self,
        from: Key,
        to: Key,
        way: Way,
    ) -> anyhow::Result<Vec<(Key, Cell)>> {
        let mut scan = self.reader().scan(&self.stage.tree, name(from)..name(to))?;
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let mut upward = way != Way::Down;
        while let Some(pair) = if upward { scan.next() } else { scan.next_back() } {
            if upward { &mut low } else { &mut high }.push(row(&pair?)?);
            upward ^= way == Way::Both;
        }
        low.extend(high.into_iter().rev());
        self.note(Op::Scan { from, to, rows: low.clone() });
        Ok(low)
    }

    /// Writes a new value.
    pub(crate) fn write(&mut self, key: Key, look: Look) -> anyhow::Result<()> {
        let tree = &self.stage.tree;
        let old = match (look, self.stage.shape) {
            (Look::Read, _) => self.read(key)?,
            (Look::ForUpdate, _) | (Look::Blind, Shape::ListAppend) => {
                let found = self.writer().get_for_update(tree, name(key))?;
                self.note_read(key, found.as_deref())?
            }
            (Look::Blind, Shape::Register) => Cell::new(),
            (Look::Delete, _) => {
                let found = self.writer().delete(tree, name(key))?;
                let old = self.note_read(key, found.as_deref())?;
                let gone = old.last().copied();
                return self.put(key, old, gone);
            }
        };
        if old.len() < LIST_VALUES_MAX { self.put(key, old, None) } else { Ok(()) }
    }

    /// Reads a range, deletes it, and writes every row of it anew. Only where what was read stays as it
    /// was is it known what the deletion took away.
    pub(crate) fn rewrite(&mut self, from: Key, to: Key, way: Way) -> anyhow::Result<()> {
        let rows = self.scan(from, to, way)?;
        if rows.iter().any(|(_, cell)| cell.len() >= LIST_VALUES_MAX) {
            return Ok(());
        }
        // Should it delete more or less than was seen, versions are missing or replaced twice in the end.
        self.writer().delete_range(&self.stage.tree, name(from)..name(to))?;
        rows.into_iter().try_for_each(|(key, old)| {
            let gone = old.last().copied();
            self.put(key, old, gone)
        })
    }

    /// Puts a new value behind those of `old`; `gone` is what an own deletion took away.
    fn put(&mut self, key: Key, old: Cell, gone: Option<Value>) -> anyhow::Result<()> {
        let cell = self.next_cell(old);
        let replaced = self.writer().put(&self.stage.tree, name(key), encode(key, &cell))?;
        let replaced = decode(key, replaced.as_deref())?;
        let before = replaced.last().copied().or(gone);
        self.note(Op::Write { key, cell, before });
        Ok(())
    }

    /// Writes a value behind a savepoint and takes it back: nobody may ever see it.
    pub(crate) fn write_in_vain(&mut self, key: Key) -> anyhow::Result<()> {
        let cell = self.next_cell(Cell::new());
        let tree = &self.stage.tree;
        let Some(Handle::Write(write)) = &mut self.handle else {
            unreachable!("readers write not")
        };
        let point = write.savepoint()?;
        point.put(tree, name(key), encode(key, &cell))?;
        Ok(point.rollback()?)
    }

    /// Tells what it did, commits, tells the answer.
    pub(crate) fn commit(mut self) -> anyhow::Result<()> {
        let no = self.tell_try()?;
        match self.handle.take() {
            Some(Handle::Read(read)) => read.finish()?,
            Some(Handle::Write(write)) => drop(write.commit()?),
            None => unreachable!("only an end takes it, and consumes the rest"),
        }
        self.tell_end(no, true)
    }

    /// Rolls back and tells so.
    pub(crate) fn abort(mut self) -> anyhow::Result<()> {
        let no = self.tell_try()?;
        match self.handle.take() {
            Some(Handle::Write(write)) => write.abort()?,
            Some(Handle::Read(_)) | None => {}
        }
        self.tell_end(no, false)
    }

    fn tell_try(&mut self) -> anyhow::Result<TxnNo> {
        let txn = self.txn.take().expect("told when it ends, and the end consumes it");
        let no = txn.no;
        (self.stage.tell)(Event::Tried(txn))?;
        Ok(no)
    }

    fn tell_end(&self, no: TxnNo, committed: bool) -> anyhow::Result<()> {
        (self.stage.tell)(Event::Ended { no, tick: self.stage.tick(), committed })
    }

    fn reader(&self) -> &Read {
        match &self.handle {
            Some(Handle::Read(read)) => read,
            Some(Handle::Write(write)) => write,
            None => unreachable!("only an end takes it, and consumes the rest"),
        }
    }

    fn writer(&self) -> &Write {
        match &self.handle {
            Some(Handle::Write(write)) => write,
            Some(Handle::Read(_)) | None => unreachable!("readers write not"),
        }
    }

    fn next_cell(&mut self, old: Cell) -> Cell {
        let value = Value { txn: self.no(), step: self.step };
        self.step += 1;
        let mut cell = if self.stage.shape == Shape::ListAppend { old } else { Cell::new() };
        cell.push(value);
        cell
    }

    fn note_read(&mut self, key: Key, found: Option<&[u8]>) -> anyhow::Result<Cell> {
        let cell = decode(key, found)?;
        self.note(Op::Read { key, cell: cell.clone() });
        Ok(cell)
    }

    fn note(&mut self, op: Op) {
        self.txn.as_mut().expect("told when it ends, and the end consumes it").ops.push(op);
    }
}

/// The name of a row.
fn name(key: Key) -> String {
    format!("{:0DIGITS$}{}", key.0, "x".repeat((key.0 * 37 % 60) as usize))
}

/// Every fourth row is a tenth of a page and more.
fn encode(key: Key, cell: &[Value]) -> String {
    let width = if key.0.is_multiple_of(4) { 400 } else { 0 };
    format!("{:width$}", model::text(cell))
}

fn decode(key: Key, found: Option<&[u8]>) -> anyhow::Result<Cell> {
    let Some(bytes) = found else { return Ok(Cell::new()) };
    let cell =
        std::str::from_utf8(bytes).ok().and_then(model::cell).filter(|cell| !cell.is_empty());
    cell.ok_or_else(|| {
        let bytes = crate::output::escaped(bytes);
        Failure::Disproved(format!("{key} holds {bytes}, which no client writes")).into()
    })
}

fn row((name, bytes): &(Vec<u8>, Vec<u8>)) -> anyhow::Result<(Key, Cell)> {
    let digits = name.get(..DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
    let key = digits.and_then(|digits| digits.parse().ok()).map(Key).ok_or_else(|| {
        let name = crate::output::escaped(name);
        Failure::Disproved(format!("a row is called {name}, as no client calls one"))
    })?;
    Ok((key, decode(key, Some(bytes))?))
}
