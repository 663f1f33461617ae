//! Read-write transactions.
//!
//! Point operations take `&self`, so that a loop over a scan may write, into the scanned tree, too: the
//! scan holds nothing between its items. What changes the shape of the transaction (trees, savepoints)
//! takes `&mut self`, so that the borrow checker keeps savepoints nested.

use std::io;
use std::ops::{Deref, RangeBounds};

use argali_base::{Lsn, Result};
use argali_txn::{Durability, Txn};

use crate::handle::{Handle, Named};
use crate::heap::Heap;
use crate::load;
use crate::read::Read;
use crate::savepoint::Savepoint;
use crate::sequence::{Sequence, SequenceOptions};
use crate::session::{Effects, Session};
use crate::tree::Tree;

/// A read-write transaction; dropping it aborts it, as does a panic that unwinds through it.
///
/// After an error that no further call can make good (a lost deadlock, a timeout, a failed read) it can
/// only be aborted: every other call answers [`Error::TxnFailed`](crate::Error::TxnFailed).
///
/// Derefs to [`Read`]: whatever only reads takes a `&Read` and works in both.
pub struct Write {
    read: Read,
}

impl Deref for Write {
    type Target = Read;
    fn deref(&self) -> &Read {
        &self.read
    }
}

impl Write {
    pub(crate) fn new(session: Session) -> Self {
        Self { read: Read::new(session) }
    }

    pub(crate) fn session(&self) -> &Session {
        self.read.session()
    }

    /// Opens tree `name`, or creates it; an abort undoes the creation.
    /// [`Error::TooLarge`](crate::Error::TooLarge) beyond [`crate::NAME_BYTES_MAX`] bytes,
    /// [`Error::Invalid`](crate::Error::Invalid) when empty, or when it is a heap.
    pub fn tree(&mut self, name: &str) -> Result<Tree> {
        let handle = self.open_or_create(Named::Tree, name)?;
        Ok(Tree::new(handle, self.session().shared().engine.catalog.space()))
    }

    /// Opens heap `name`, or creates it; an abort undoes the creation. Errors as [`Write::tree`].
    pub fn heap(&mut self, name: &str) -> Result<Heap> {
        let handle = self.open_or_create(Named::Heap, name)?;
        Ok(Heap::new(handle, self.session().shared().engine.catalog.space()))
    }

    /// Opens without the write locks of a creation, if `name` seems to exist.
    fn open(&self, named: Named, name: &str) -> Result<Option<Handle>> {
        let engine = &self.session().shared().engine;
        self.session().run(|txn| {
            if engine.catalog.peek(&engine.txns, named, name)? {
                engine.catalog.find(txn, named, name)
            } else {
                Ok(None)
            }
        })
    }

    fn open_or_create(&self, named: Named, name: &str) -> Result<Handle> {
        let engine = &self.session().shared().engine;
        let open = self.open(named, name)?;
        let create = |txn: &mut Txn, effects: &mut Effects| {
            engine.catalog.find_or_create(&engine.txns, txn, (named, name), effects)
        };
        open.map_or_else(|| self.session().change_catalog(create), Ok)
    }

    /// Opens sequence `name`, or creates it with the default [`SequenceOptions`]. Errors as [`Write::tree`].
    pub fn sequence(&mut self, name: &str) -> Result<Sequence> {
        self.sequence_with(name, SequenceOptions::default())
    }

    /// Opens sequence `name`, or creates it as `options` say, which mean nothing when it exists.
    pub fn sequence_with(&mut self, name: &str, options: SequenceOptions) -> Result<Sequence> {
        options.check()?;
        let engine = &self.session().shared().engine;
        if let Some(handle) = self.open(Named::Sequence, name)? {
            return Ok(engine.sequence(handle));
        }
        self.session().change_catalog(|txn, effects| {
            let named = (Named::Sequence, name);
            let handle = engine.catalog.find_or_create(&engine.txns, txn, named, effects)?;
            let sequence = engine.sequence(handle);
            sequence.initialise(txn, options)?;
            Ok(sequence)
        })
    }

    /// Gives tree `old` the name `new`; its handles go on working and know it by that name. An abort undoes it.
    /// [`Error::NotFound`](crate::Error::NotFound) when there is no such tree, [`Error::Exists`](crate::Error::Exists)
    /// when something has that name already.
    pub fn rename_tree(&mut self, old: &str, new: &str) -> Result<()> {
        self.rename_named(Named::Tree, old, new)
    }

    /// Renames a heap, as [`Write::rename_tree`] does a tree.
    pub fn rename_heap(&mut self, old: &str, new: &str) -> Result<()> {
        self.rename_named(Named::Heap, old, new)
    }

    /// Renames a sequence, as [`Write::rename_tree`] does a tree.
    pub fn rename_sequence(&mut self, old: &str, new: &str) -> Result<()> {
        self.rename_named(Named::Sequence, old, new)
    }

    fn rename_named(&self, named: Named, old: &str, new: &str) -> Result<()> {
        let engine = &self.session().shared().engine;
        self.session()
            .change_catalog(|txn, effects| engine.catalog.rename(txn, named, (old, new), effects))
    }

    /// Drops sequence `name`, as [`Write::drop_tree`] does a tree.
    pub fn drop_sequence(&mut self, name: &str) -> Result<()> {
        self.drop_named(Named::Sequence, name)
    }

    /// Drops tree `name`. Other transactions that use it are waited for; the pages are freed after the
    /// commit, in the background. [`Error::NotFound`](crate::Error::NotFound) when there is no such tree.
    pub fn drop_tree(&mut self, name: &str) -> Result<()> {
        self.drop_named(Named::Tree, name)
    }

    /// Drops heap `name`, as [`Write::drop_tree`] does a tree.
    pub fn drop_heap(&mut self, name: &str) -> Result<()> {
        self.drop_named(Named::Heap, name)
    }

    fn drop_named(&self, named: Named, name: &str) -> Result<()> {
        let engine = &self.session().shared().engine;
        self.session()
            .change_catalog(|txn, effects| engine.catalog.remove(txn, (named, name), effects))
    }

    /// As [`Read::get`], but locks the key for writing at once. Whoever reads in order to write should
    /// read with this: two readers who both want to write next can only deadlock.
    pub fn get_for_update(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.session().write_tree(tree, |txn, btree| {
            let mut value = Vec::new();
            Ok(btree.get_for_update(txn, key.as_ref(), &mut value)?.then_some(value))
        })
    }

    /// Sets `key` to `value`; returns the old value. [`Error::TooLarge`](crate::Error::TooLarge) for keys
    /// beyond [`Tree::key_bytes_max`] and values beyond [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
    ///
    /// A value that does not fit into its leaf ([`Tree::entry_bytes_max`]) is logged and stored page by page
    /// before its row is touched; other transactions go on meanwhile. See [`Write::put_stream`] for
    /// values that should not be in memory as a whole, the old one included.
    pub fn put(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        let mut old = Vec::new();
        let replaced = self.session().put(tree, key.as_ref(), value.as_ref(), Some(&mut old))?;
        Ok(replaced.then_some(old))
    }

    /// As [`Write::put`], without the old value; returns whether there was one. Cheaper than `put`: nothing is
    /// copied, and an old value of any size stays unread.
    pub fn set(&self, tree: &Tree, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.session().put(tree, key.as_ref(), value.as_ref(), None)
    }

    /// Sets `key` to all that `source` gives; returns how many bytes that was. Takes the memory of a few
    /// pages, whatever the size, and holds no latch while `source` is read, so that it may itself use this
    /// transaction: `tx.put_stream(&tree, "copy", tx.value_reader(&tree, "original")?.unwrap())`.
    ///
    /// The value may be larger than the log's limit, unless this transaction wrote before: then it holds
    /// the log, and [`Error::LogFull`](crate::Error::LogFull) comes when the rest is used up. An error of `source` leaves the
    /// row as it was, and is [`Error::Io`](crate::Error::Io).
    pub fn put_stream(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        mut source: impl io::Read,
    ) -> Result<u64> {
        self.session().put_stream(tree, key.as_ref(), &mut source)
    }

    /// Sets `key` to `value` unless the key exists; returns whether it did so.
    pub fn insert_new(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        self.session().insert_new(tree, key.as_ref(), value.as_ref())
    }

    /// Removes `key`; returns its value.
    pub fn delete(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let mut old = Vec::new();
        let key = key.as_ref();
        let found = self.session().write_rows(tree, |rows| rows.delete(key, Some(&mut old)))?;
        Ok(found.then_some(old))
    }

    /// Removes `key` without reading a large value first; returns whether it was there.
    pub fn remove(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<bool> {
        self.session().write_rows(tree, |rows| rows.delete(key.as_ref(), None))
    }

    /// Deletes the rows of `range`: all of them, or none when it fails. Returns how many. Under serializable
    /// isolation the range stays empty of other transactions' rows until this one ends; below it, rows
    /// that others insert meanwhile may stay.
    pub fn delete_range<K: AsRef<[u8]>>(
        &self,
        tree: &Tree,
        range: impl RangeBounds<K>,
    ) -> Result<u64> {
        let from = range.start_bound().map(AsRef::as_ref);
        let to = range.end_bound().map(AsRef::as_ref);
        self.session().write_rows(tree, |rows| rows.delete_range(from, to))
    }

    /// Adds many rows at once; returns how many. They must come in ascending order of keys, the first above
    /// the last key of the tree; otherwise [`Error::Invalid`](crate::Error::Invalid). After an error nothing
    /// was added; an error among `rows` is given back.
    ///
    /// A tree without rows is built leaf by leaf, filled to nine tenths, with one log record a page: far less
    /// log than row by row, and never held by this transaction, so a load may be larger than the log. Behind
    /// rows that are there already, rows go in one by one. Either way nobody else can use the tree from now
    /// on until this transaction ends. `rows` may read and write other trees in this transaction.
    ///
    /// ```
    /// # fn main() -> argali::Result<()> {
    /// # let db = argali::Options::new().in_memory()?;
    /// let mut tx = db.begin()?;
    /// let squares = tx.tree("squares")?;
    /// let rows = (0..1000_u64).map(|n| Ok((n.to_be_bytes(), (n * n).to_string())));
    /// assert_eq!(tx.bulk_load(&squares, rows)?, 1000);
    /// assert_eq!(tx.get(&squares, 12_u64.to_be_bytes())?, Some(b"144".to_vec()));
    /// # tx.commit()?; Ok(()) }
    /// ```
    pub fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        tree: &Tree,
        rows: impl IntoIterator<Item = Result<(K, V)>>,
    ) -> Result<u64> {
        load::load(self.session(), tree, rows)
    }

    /// Marks a point to return to. The result derefs to `Write`; dropping it rolls back to that point.
    pub fn savepoint(&mut self) -> Result<Savepoint<'_>> {
        Savepoint::new(self)
    }

    /// Runs `body` as a nested top action: what it does stays even if this transaction is aborted later, for
    /// instance a note that somebody tried. When `body` fails or panics, what it did is taken back and the
    /// transaction goes on.
    ///
    /// * Nobody else sees the work before the transaction ends: its locks stay until then.
    /// * It is durable with the next durable commit of anybody. A crash in the middle takes it back, and so
    ///   does one before its last log record reached the disk.
    /// * It cannot write where the transaction itself wrote before (rows, or trees that it created, dropped or
    ///   locked as a whole): [`Error::Invalid`](crate::Error::Invalid), because rolling the transaction back
    ///   would take such work with it. Rows that only nested actions wrote may be written again.
    /// * Savepoints within it work as ever; nested actions within it are [`Error::Invalid`](crate::Error::Invalid).
    pub fn nested<T>(&mut self, body: impl FnOnce(&mut Write) -> Result<T>) -> Result<T> {
        let mut action = Savepoint::nested(self)?;
        let value = body(&mut action)?; // dropping the savepoint takes a failure back
        action.settle()?;
        Ok(value)
    }

    /// Commits with the default durability. The LSN is that of the commit record.
    pub fn commit(self) -> Result<Lsn> {
        let durability = self.session().shared().engine.options.durability;
        self.commit_with(durability)
    }

    /// Commits. After an error other than [`Error::CommitUnknown`](crate::Error::CommitUnknown) the transaction was aborted.
    pub fn commit_with(self, durability: Durability) -> Result<Lsn> {
        self.read.into_session().commit(durability)
    }

    /// First half of a two-phase commit: when this returns, the transaction survives any crash and can be both
    /// committed and aborted, by [`Db::commit_prepared`](crate::Db::commit_prepared) and
    /// [`Db::abort_prepared`](crate::Db::abort_prepared). Until then it keeps its locks. `gid` names it: at
    /// most [`GID_BYTES_MAX`](crate::GID_BYTES_MAX) bytes, not empty, and nobody else's
    /// ([`Error::Exists`](crate::Error::Exists)).
    ///
    /// After an error the transaction was aborted. Only after [`Error::Poisoned`](crate::Error::Poisoned) the next
    /// open may find it in doubt.
    pub fn prepare(self, gid: &str) -> Result<()> {
        self.read.into_session().prepare(gid)
    }

    /// Takes everything back, as dropping does, but reports errors.
    pub fn abort(self) -> Result<()> {
        self.read.into_session().abort()
    }
}
