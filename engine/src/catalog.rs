//! Which trees exist: itself two trees, so that creating and dropping are as transactional as a `put`.
//!
//! ```text
//!  page 1  catalog   name          ─► version u8 │ kind u8 │ root page u64
//!  page 2  pending   root page u64 ─► name         trees to be freed, unless a row is deleted again
//!
//!  create:  system transaction: allocate root, pending += root          (commits, not forced)
//!           user's transaction: pending -= root, catalog += name        (undone like any row)
//!  drop:    user's transaction: lock tree X, catalog -= name, pending += root
//!  later:   system transactions free the pages of committed pending rows, the row and the last page
//!           in one record
//! ```
//!
//! A page can be freed only when no rollback can want it back. So nothing is freed by the transaction
//! that decides it: aborting a creation just undoes "pending -= root", and the tree is freed later, by
//! the same code that frees a dropped one. A crash at any point leaves either a catalog row or a pending
//! row for every tree: nothing leaks.
//!
//! Which pending rows are settled is known without locks: [`Catalog::free_later`] is told when a
//! transaction has ended, and right after a restart, when no transaction is left, all of them are.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Weak;

use argali_access::{BTree, Entry, Space};
use argali_base::codec::{Reader, Writer};
use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Lsn, PageId, Result};
use argali_txn::{Durability, KeyMode, LockMode, LockName, Txn, TxnManager};

use crate::session::Ddl;
use crate::tree::{Home, Meta, Tree};

/// Root of the catalog tree. Page 0 is the first map page.
pub(crate) const CATALOG_ROOT: PageId = PageId::new(1);
/// Root of the tree of trees to be freed.
pub(crate) const PENDING_ROOT: PageId = PageId::new(2);
/// Pages every database has from the start.
pub(crate) const SYSTEM_PAGES: u64 = 3;

/// Longest tree name in bytes: with its row it fits a page of 4 KiB many times.
pub const NAME_BYTES_MAX: usize = 255;

/// Pages freed per system transaction: one record each, so this bounds how long one turn takes.
const FREE_BATCH: usize = 32;

const ROW_VERSION: u8 = 1;
const ROW_TREE: u8 = 1;

/// Held exclusively by whoever creates a tree, so that two who find the same name missing do not
/// deadlock on the gap that both have read. No key has this hash's name: the tree number is no tree's.
const CREATION: LockName = LockName::Key { tree: u64::MAX, hash: 0 };
const EXCLUSIVE: LockMode = LockMode::Key { key: KeyMode::X, gap: argali_txn::Gap::None };

/// The catalog of one open database.
pub(crate) struct Catalog {
    space: Arc<Space>,
    trees: BTree,
    pending: BTree,
    home: Home,
    handles: Mutex<HashMap<PageId, Weak<Meta>>>,
    /// Roots of trees whose pending row is committed.
    to_free: Mutex<Vec<PageId>>,
    /// Held while pages are freed; `verify` takes it to see no tree half freed.
    freeing: Mutex<()>,
}

impl Catalog {
    /// Makes both trees of a new database.
    pub(crate) fn create(space: &Arc<Space>, txn: &mut Txn) -> Result<()> {
        BTree::create_at(space, txn, CATALOG_ROOT)?;
        BTree::create_at(space, txn, PENDING_ROOT)?;
        Ok(())
    }

    pub(crate) fn open(space: &Arc<Space>) -> Self {
        Self {
            trees: BTree::open(space, CATALOG_ROOT),
            pending: BTree::open(space, PENDING_ROOT),
            space: Arc::clone(space),
            home: Home::default(),
            handles: Mutex::default(),
            to_free: Mutex::default(),
            freeing: Mutex::default(),
        }
    }

    pub(crate) fn check_home(&self, tree: &Tree) -> Result<()> {
        tree.check_home(&self.home)
    }

    /// The tree called `name`, if it exists.
    pub(crate) fn find(&self, txn: &mut Txn, name: &str) -> Result<Option<Tree>> {
        check_name(name)?;
        let mut row = Vec::new();
        if !self.trees.get(txn, name.as_bytes(), &mut row)? {
            return Ok(None);
        }
        Ok(Some(self.handle(name, decode_row(name, &row)?)))
    }

    /// The tree called `name`, made if it does not exist; call it when `name` was not there a moment ago.
    pub(crate) fn find_or_create(
        &self,
        txns: &Arc<TxnManager>,
        txn: &mut Txn,
        name: &str,
        ddl: &mut Vec<Ddl>,
    ) -> Result<Tree> {
        check_name(name)?;
        txn.lock(CREATION, EXCLUSIVE)?;
        match self.find(txn, name)? {
            Some(tree) => Ok(tree),
            None => self.create_tree(txns, txn, name, ddl),
        }
    }

    /// Whether `name` seems to exist, committed or not: decides only which lock to take first.
    pub(crate) fn peek(&self, txns: &Arc<TxnManager>, name: &str) -> Result<bool> {
        check_name(name)?;
        let mut system = txns.begin_system()?;
        self.trees.get(&mut system, name.as_bytes(), &mut Vec::new())
    }

    fn create_tree(
        &self,
        txns: &Arc<TxnManager>,
        txn: &mut Txn,
        name: &str,
        ddl: &mut Vec<Ddl>,
    ) -> Result<Tree> {
        let tree = self.allocate(txns, name)?;
        // From here on a rollback must know of the root, wherever the rest may fail.
        ddl.push(Ddl::Created(tree.clone()));
        txn.lock(tree.lock_name(), LockMode::X)?;
        self.pending.delete(txn, &key_of(tree.root()))?;
        let created = self.trees.insert_new(txn, name.as_bytes(), &encode_row(tree.root()))?;
        assert!(created, "{name:?} was missing under a lock, and is there now");
        Ok(tree)
    }

    /// A root page with a pending row: freed unless somebody deletes the row.
    fn allocate(&self, txns: &Arc<TxnManager>, name: &str) -> Result<Tree> {
        let mut system = txns.begin_system()?;
        let btree = BTree::create(&self.space, &mut system)?;
        self.pending.put(&mut system, &key_of(btree.root()), name.as_bytes())?;
        system.commit(Durability::Relaxed)?;
        let tree = Tree::new(name, btree, &self.home);
        self.remember(&tree);
        Ok(tree)
    }

    /// Removes `name`; the pages go after the commit.
    pub(crate) fn remove(&self, txn: &mut Txn, name: &str, ddl: &mut Vec<Ddl>) -> Result<()> {
        let missing = || Error::NotFound { what: "tree", name: name.to_owned() };
        let tree = self.find(txn, name)?.ok_or_else(missing)?;
        tree.enter(txn, LockMode::X)?;
        // The name was read under a lock, but under read committed that lock is gone again.
        if self.trees.delete(txn, name.as_bytes())? != Some(encode_row(tree.root())) {
            return Err(missing());
        }
        self.pending.put(txn, &key_of(tree.root()), name.as_bytes())?;
        tree.set_dropped(true);
        ddl.push(Ddl::Dropped(tree));
        Ok(())
    }

    /// All names, sorted.
    pub(crate) fn names(&self, txn: &mut Txn) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.for_each(txn, |name, _| names.push(name.to_owned()))?;
        Ok(names)
    }

    /// Calls `visit` with each name and root.
    pub(crate) fn for_each(
        &self,
        txn: &mut Txn,
        mut visit: impl FnMut(&str, PageId),
    ) -> Result<()> {
        each_entry(&self.trees, txn, |key, value| {
            let name = std::str::from_utf8(key).map_err(|_| damaged("a name is not UTF-8"))?;
            visit(name, decode_row(name, value)?);
            Ok(())
        })
    }

    /// Roots of the trees that are to be freed.
    pub(crate) fn pending(&self, txn: &mut Txn) -> Result<Vec<PageId>> {
        let mut roots = Vec::new();
        each_entry(&self.pending, txn, |key, _| {
            let bytes = key.try_into().map_err(|_| damaged("a pending key is not 8 bytes long"))?;
            roots.push(PageId::new(u64::from_be_bytes(bytes)));
            Ok(())
        })?;
        Ok(roots)
    }

    /// The two trees that hold the catalog.
    pub(crate) fn own_trees(&self) -> [(&'static str, &BTree); 2] {
        [("catalog", &self.trees), ("pending", &self.pending)]
    }

    /// A handle without name and home, for checks.
    pub(crate) fn btree_at(&self, root: PageId) -> BTree {
        BTree::open(&self.space, root)
    }

    fn handle(&self, name: &str, root: PageId) -> Tree {
        let mut handles = self.handles.lock();
        if let Some(tree) = handles.get(&root).and_then(Tree::upgrade)
            && tree.name() == name
        {
            return tree;
        }
        let tree = Tree::new(name, BTree::open(&self.space, root), &self.home);
        handles.insert(root, tree.downgrade());
        tree
    }

    fn remember(&self, tree: &Tree) {
        let mut handles = self.handles.lock();
        if handles.len() >= 64 && handles.len() == handles.capacity() {
            handles.retain(|_, meta| meta.strong_count() > 0);
        }
        handles.insert(tree.root(), tree.downgrade());
    }

    /// The pending rows of `roots` are committed now: their pages may be freed.
    pub(crate) fn free_later(&self, roots: Vec<PageId>) {
        if !roots.is_empty() {
            self.to_free.lock().extend(roots);
        }
    }

    /// After a restart, when no transaction is left: every pending row is settled.
    pub(crate) fn resume_frees(&self, txns: &Arc<TxnManager>) -> Result<()> {
        let mut system = txns.begin_system()?;
        let roots = self.pending(&mut system)?;
        self.free_later(roots);
        Ok(())
    }

    /// Trees whose pages are still to be freed.
    pub(crate) fn frees_waiting(&self) -> usize {
        self.to_free.lock().len()
    }

    /// Keeps frees away while the guard lives.
    pub(crate) fn pause_frees(&self) -> argali_base::sync::MutexGuard<'_, ()> {
        self.freeing.lock()
    }

    /// One turn of freeing: a batch of pages of one tree. Returns whether there is more to do.
    pub(crate) fn free_step(&self, txns: &Arc<TxnManager>) -> Result<bool> {
        let _one = self.freeing.lock();
        let Some(root) = self.to_free.lock().last().copied() else { return Ok(false) };
        let mut system = txns.begin_system()?;
        let tree = BTree::open(&self.space, root);
        if tree.free_some(&mut system, FREE_BATCH)? {
            self.pending.remove_and_free(&mut system, &key_of(root), root)?;
            self.to_free.lock().retain(|other| *other != root);
        }
        system.commit(Durability::Relaxed)?;
        Ok(self.frees_waiting() > 0)
    }
}

fn each_entry(
    tree: &BTree,
    txn: &mut Txn,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut entry = Entry::default();
    let mut last: Option<Vec<u8>> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if !tree.next(txn, from, Bound::Unbounded, &mut entry)? {
            return Ok(());
        }
        visit(&entry.key, &entry.value)?;
        last.get_or_insert_default().clone_from(&entry.key);
    }
}

fn key_of(root: PageId) -> [u8; 8] {
    root.get().to_be_bytes()
}

fn encode_row(root: PageId) -> Vec<u8> {
    let mut row = Vec::with_capacity(10);
    row.put_u8(ROW_VERSION);
    row.put_u8(ROW_TREE);
    row.put_u64(root.get());
    row
}

fn decode_row(name: &str, row: &[u8]) -> Result<PageId> {
    let mut fields = Reader::new(row);
    let parsed = (fields.u8(), fields.u8(), fields.u64(), fields.is_empty());
    match parsed {
        (Some(ROW_VERSION), Some(ROW_TREE), Some(root), true) => Ok(PageId::new(root)),
        _ => Err(damaged(&format!("the row of {name:?} makes no sense: {row:02x?}"))),
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt("data", 0, None::<Lsn>, format!("catalog: {what}"))
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Invalid { what: "tree name", why: "empty".to_owned() });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::TooLarge { what: "tree name", size: name.len(), limit: NAME_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_reject_everything_else() {
        let row = encode_row(PageId::new(77));
        assert_eq!(row, [1, 1, 77, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode_row("t", &row).unwrap(), PageId::new(77));
        for bad in [&row[..9], &[], &[2, 1, 77, 0, 0, 0, 0, 0, 0, 0], &[&row[..], &[0]].concat()] {
            assert!(decode_row("t", bad).unwrap_err().is_corruption(), "{bad:?}");
        }
    }

    #[test]
    fn names_have_limits() {
        assert!(check_name("a").is_ok());
        assert!(check_name(&"x".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(matches!(check_name(""), Err(Error::Invalid { .. })));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(check_name(&long), Err(Error::TooLarge { size: 256, .. })));
    }
}
