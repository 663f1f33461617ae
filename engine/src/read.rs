//! Read-only transactions, and with them the reading half of [`crate::Write`], which derefs to [`Read`]:
//! what a transaction may see does not depend on whether it also writes.

use std::ops::{Bound, RangeBounds};

use argali_access::TreeEstimate;
use argali_base::{Result, TxnId};

use crate::cursor::{Bookmark, Cursor};
use crate::handle::Named;
use crate::heap::Heap;
use crate::scan::{Scan, prefix_end};
use crate::sequence::Sequence;
use crate::session::Session;
use crate::tree::Tree;
use crate::value::ValueReader;

/// Leaves that [`Read::tree_stats`] reads, or up to twice as many: enough that rows of uneven sizes are known
/// to some percent, few enough for a query's planning.
const LEAVES_SAMPLED: usize = 64;

/// A read-only transaction under its isolation level; writes no log record.
///
/// It may see commits whose locks were released before they were durable (early lock release). So what
/// it returned is provisional until [`Read::finish`], which waits until every commit it may have seen is
/// durable. Dropping it is right when nothing was told to anybody.
pub struct Read {
    session: Session,
}

impl Read {
    #[inline]
    pub(crate) fn new(session: Session) -> Self {
        Self { session }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    #[inline]
    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    /// Its number, as log records and lock errors show it.
    pub fn id(&self) -> TxnId {
        self.session.id()
    }

    /// Opens tree `name` if it exists; [`Error::Invalid`](crate::Error::Invalid) when it is a heap.
    pub fn open_tree(&self, name: &str) -> Result<Option<Tree>> {
        let catalog = &self.session.shared().engine.catalog;
        let handle = self.session.run(|txn| catalog.find(txn, Named::Tree, name))?;
        Ok(handle.map(|handle| Tree::new(handle, catalog.space())))
    }

    /// Opens heap `name` if it exists; [`Error::Invalid`](crate::Error::Invalid) when it is a tree.
    pub fn open_heap(&self, name: &str) -> Result<Option<Heap>> {
        let catalog = &self.session.shared().engine.catalog;
        let handle = self.session.run(|txn| catalog.find(txn, Named::Heap, name))?;
        Ok(handle.map(|handle| Heap::new(handle, catalog.space())))
    }

    /// Opens sequence `name` if it exists; numbers come out of it in a [`crate::Write`] only.
    pub fn open_sequence(&self, name: &str) -> Result<Option<Sequence>> {
        let engine = &self.session.shared().engine;
        let handle = self.session.run(|txn| engine.catalog.find(txn, Named::Sequence, name))?;
        Ok(handle.map(|handle| engine.sequence(handle)))
    }

    /// Names of all sequences, sorted.
    pub fn sequences(&self) -> Result<Vec<String>> {
        let engine = &self.session.shared().engine;
        self.session.run(|txn| engine.catalog.names(txn, Named::Sequence))
    }

    /// Names of all trees, sorted.
    pub fn trees(&self) -> Result<Vec<String>> {
        let engine = &self.session.shared().engine;
        self.session.run(|txn| engine.catalog.names(txn, Named::Tree))
    }

    /// Names of all heaps, sorted.
    pub fn heaps(&self) -> Result<Vec<String>> {
        let engine = &self.session.shared().engine;
        self.session.run(|txn| engine.catalog.names(txn, Named::Heap))
    }

    /// The value under `key`.
    pub fn get(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        Ok(self.get_into(tree, key, &mut value)?.then_some(value))
    }

    /// As [`Read::get`], into a buffer of the caller's, which is cleared first: after warm-up such a read
    /// allocates nothing. Returns whether the key was there.
    pub fn get_into(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        value: &mut Vec<u8>,
    ) -> Result<bool> {
        self.session.read_tree(tree, |txn, btree| {
            value.clear();
            btree.get(txn, key.as_ref(), value)
        })
    }

    /// A cursor at the start of `tree`.
    pub fn cursor<'t>(&'t self, tree: &'t Tree) -> Result<Cursor<'t>> {
        Cursor::new(&self.session, tree)
    }

    /// A cursor where another one was left; it shows no row until it moves.
    pub fn cursor_at(&self, bookmark: Bookmark) -> Result<Cursor<'_>> {
        Cursor::resume(&self.session, bookmark)
    }

    /// The value under `key` as a stream, with its length: takes the memory of one page, whatever the size.
    /// The key stays locked for reading until the transaction ends, under read committed, too: that keeps
    /// the value where it is, whatever else this transaction does meanwhile.
    pub fn value_reader(
        &self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<ValueReader<'_>>> {
        ValueReader::open(&self.session, tree, key.as_ref())
    }

    /// The entries of `range` in key order; `.rev()` turns it. Holds no latch between items: writing while scanning is fine.
    pub fn scan<'t, K: AsRef<[u8]>>(
        &'t self,
        tree: &'t Tree,
        range: impl RangeBounds<K>,
    ) -> Result<Scan<'t>> {
        Scan::new(&self.session, tree, range.start_bound(), range.end_bound())
    }

    /// All entries in key order; `.rev()` turns it.
    pub fn scan_all<'t>(&'t self, tree: &'t Tree) -> Result<Scan<'t>> {
        self.scan::<&[u8]>(tree, ..)
    }

    /// The entries whose keys begin with `prefix`, in key order; `.rev()` turns it.
    pub fn scan_prefix<'t>(&'t self, tree: &'t Tree, prefix: impl AsRef<[u8]>) -> Result<Scan<'t>> {
        let prefix = prefix.as_ref();
        let end = prefix_end(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        Scan::new(&self.session, tree, Bound::Included(&prefix), to.as_ref())
    }

    /// What a planner wants to know of `tree`: pages of each level, counted, and rows, estimated from a sample
    /// of its leaves. Reads the inner nodes (about a hundredth of the tree) and some leaves, and locks
    /// no row: see [`TreeEstimate`] for what the numbers mean.
    pub fn tree_stats(&self, tree: &Tree) -> Result<TreeEstimate> {
        self.session.read_tree(tree, |_, btree| btree.estimate(LEAVES_SAMPLED))
    }

    /// Ends the transaction; what it returned is durable when this returns `Ok`.
    #[inline]
    pub fn finish(self) -> Result<()> {
        self.session.finish()
    }
}
