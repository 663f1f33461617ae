//! Handles of named trees.
//!
//! A handle has no lifetime: it can be kept for as long as the database is open and used in any
//! transaction. What it must not do is reach pages that belong to somebody else by now. So each use
//! first takes the tree's intention lock, then looks at `dropped`: a drop holds the tree's exclusive lock
//! until its transaction ends, so whoever gets the lock afterwards reads a settled answer.

use std::fmt;

use argali_access::{BTree, Kind, Structure};
use argali_base::sync::{Arc, AtomicBool, Ordering};
use argali_base::{Error, PageId, Result};
use argali_txn::{LockMode, LockName, Txn};

/// A named tree. No lifetime; outlives transactions; `NotFound` once the tree is dropped.
#[derive(Clone)]
pub struct Tree(Arc<Meta>);

/// What all handles of one tree share.
pub(crate) struct Meta {
    name: String,
    btree: BTree,
    dropped: AtomicBool,
    /// Which opening of which database this belongs to.
    home: Home,
}

/// Identity of one opening: equal only to its clones.
#[derive(Clone, Default)]
pub(crate) struct Home(Arc<()>);

impl Home {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Tree {
    pub(crate) fn new(name: &str, btree: BTree, home: &Home) -> Self {
        let (name, home) = (name.to_owned(), home.clone());
        Self(Arc::new(Meta { name, btree, dropped: AtomicBool::new(false), home }))
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Largest key, in bytes: about a quarter of a page.
    pub fn key_bytes_max(&self) -> usize {
        self.0.btree.key_bytes_max()
    }

    /// Largest key plus value, in bytes, that stand in a leaf; a larger value gets pages of its own.
    pub fn entry_bytes_max(&self) -> usize {
        self.0.btree.entry_bytes_max()
    }

    pub(crate) fn root(&self) -> PageId {
        self.0.btree.root()
    }

    pub(crate) fn btree(&self) -> &BTree {
        &self.0.btree
    }

    pub(crate) fn structure(&self) -> Structure {
        Structure { kind: Kind::Tree, first: self.root() }
    }

    pub(crate) fn lock_name(&self) -> LockName {
        LockName::Tree(self.root().get())
    }

    pub(crate) fn downgrade(&self) -> std::sync::Weak<Meta> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(meta: &std::sync::Weak<Meta>) -> Option<Self> {
        meta.upgrade().map(Self)
    }

    pub(crate) fn check_home(&self, home: &Home) -> Result<()> {
        if self.0.home.is(home) {
            return Ok(());
        }
        let why = format!("{:?} was opened from another database, or before a reopen", self.0.name);
        Err(Error::Invalid { what: "tree", why })
    }

    /// Only the holder of the tree's exclusive lock may change it.
    pub(crate) fn set_dropped(&self, dropped: bool) {
        self.0.dropped.store(dropped, Ordering::Release);
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.0.dropped.load(Ordering::Acquire)
    }

    /// Locks the tree in `mode` and makes sure that it still exists.
    pub(crate) fn enter(&self, txn: &mut Txn, mode: LockMode) -> Result<()> {
        txn.lock(self.lock_name(), mode)?;
        if self.is_dropped() {
            return Err(Error::NotFound { what: "tree", name: self.0.name.clone() });
        }
        Ok(())
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({:?} at {})", self.0.name, self.root())
    }
}
