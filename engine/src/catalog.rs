//! Which trees exist: itself a tree, so that creating and dropping are as transactional as a `put`.
//!
//! ```text
//!  page 1  catalog   name ─► version u8 │ kind u8 │ root page u64
//!  page 2  pending   see access/src/pending.rs
//!
//!  create:  system transaction: allocate root, pending += root          (commits, not forced)
//!           user's transaction: pending -= root, catalog += name        (undone like any row)
//!  drop:    user's transaction: lock tree X, catalog -= name, pending += root
//! ```
//!
//! What is pending is freed when no rollback can want it back ([`Pending`]). A crash at any point leaves
//! either a catalog row or a pending row for every tree: nothing leaks.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Weak;

use argali_access::{BTree, Entry, Kind, Pending, Space};
use argali_base::codec::{Reader, Writer};
use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Lsn, PageId, Result};
use argali_txn::{KeyMode, LockMode, LockName, Txn, TxnManager};

use crate::session::{Ddl, Effects};
use crate::tree::{Home, Meta, Tree};

/// Root of the catalog tree. Page 0 is the first map page.
pub(crate) const CATALOG_ROOT: PageId = PageId::new(1);
/// Root of the tree of what is to be freed.
pub(crate) const PENDING_ROOT: PageId = PageId::new(2);
/// Pages every database has from the start.
pub(crate) const SYSTEM_PAGES: u64 = 3;

/// Longest tree name in bytes: with its row it fits a page of 4 KiB many times.
pub const NAME_BYTES_MAX: usize = 255;

const ROW_VERSION: u8 = 1;
const ROW_TREE: u8 = Kind::Tree as u8;

/// Held exclusively by whoever creates a tree, so that two who find the same name missing do not
/// deadlock on the gap that both have read. No key has this hash's name: the tree number is no tree's.
const CREATION: LockName = LockName::Key { tree: u64::MAX, hash: 0 };
const EXCLUSIVE: LockMode = LockMode::Key { key: KeyMode::X, gap: argali_txn::Gap::None };

/// Lets others create trees although `txn`, which may have created one, goes on: what it found missing and
/// made is locked by name. For a transaction in doubt, which may do so for long.
pub(crate) fn release_creation(txn: &mut Txn) {
    txn.unlock(CREATION);
}

/// Whether `txn` may begin a nested action: not if it has changed so many names that it locked the catalog
/// itself, since then nobody can tell which.
pub(crate) fn check_nested(txn: &Txn) -> Result<()> {
    let whole = |root: PageId| txn.holds(LockName::Tree(root.get())) == Some(LockMode::X);
    if whole(CATALOG_ROOT) || whole(PENDING_ROOT) {
        let why = "its transaction changed too many names".to_owned();
        return Err(Error::Invalid { what: "nested action", why });
    }
    Ok(())
}

/// The catalog of one open database.
pub(crate) struct Catalog {
    space: Arc<Space>,
    trees: BTree,
    pending: Arc<Pending>,
    home: Home,
    handles: Mutex<HashMap<PageId, Weak<Meta>>>,
}

impl Catalog {
    /// Makes both trees of a new database.
    pub(crate) fn create(space: &Arc<Space>, txn: &mut Txn) -> Result<()> {
        BTree::create_at(space, txn, CATALOG_ROOT)?;
        Pending::create_at(space, txn, PENDING_ROOT)
    }

    pub(crate) fn open(space: &Arc<Space>, pending: &Arc<Pending>) -> Self {
        Self {
            trees: BTree::open(space, CATALOG_ROOT),
            pending: Arc::clone(pending),
            space: Arc::clone(space),
            home: Home::default(),
            handles: Mutex::default(),
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
        effects: &mut Effects,
    ) -> Result<Tree> {
        check_name(name)?;
        txn.lock(CREATION, EXCLUSIVE)?;
        match self.find(txn, name)? {
            Some(tree) => Ok(tree),
            None => self.create_tree(txns, txn, name, effects),
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
        effects: &mut Effects,
    ) -> Result<Tree> {
        let create = |system: &mut Txn| Ok(BTree::create(&self.space, system)?.root());
        let structure = self.pending.allocate(txns, Kind::Tree, create)?;
        let tree = Tree::new(name, self.btree_at(structure.first), &self.home);
        self.remember(&tree);
        // From here on a rollback must know of the root, wherever the rest may fail.
        effects.ddl.push(Ddl::Created(tree.clone()));
        self.pending.take(txn, structure, &mut effects.moves)?;
        txn.lock(tree.lock_name(), LockMode::X)?;
        let created = self.trees.insert_new(txn, name.as_bytes(), &encode_row(tree.root()))?;
        assert!(created, "{name:?} was missing under a lock, and is there now");
        Ok(tree)
    }

    /// Removes `name`; the pages go after the commit.
    pub(crate) fn remove(&self, txn: &mut Txn, name: &str, effects: &mut Effects) -> Result<()> {
        let missing = || Error::NotFound { what: "tree", name: name.to_owned() };
        let tree = self.find(txn, name)?.ok_or_else(missing)?;
        tree.enter(txn, LockMode::X)?;
        // The name was read under a lock, but under read committed that lock is gone again.
        if self.trees.delete(txn, name.as_bytes())? != Some(encode_row(tree.root())) {
            return Err(missing());
        }
        self.pending.give(txn, tree.structure(), &mut effects.moves)?;
        tree.set_dropped(true);
        effects.ddl.push(Ddl::Dropped(tree));
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
        let mut entry = Entry::default();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            if !self.trees.next(txn, from, Bound::Unbounded, &mut entry)? {
                return Ok(());
            }
            let name = std::str::from_utf8(&entry.key);
            let name = name.map_err(|_| damaged("a name is not UTF-8"))?;
            visit(name, decode_row(name, &entry.value)?);
            last.get_or_insert_default().clone_from(&entry.key);
        }
    }

    /// The tree that holds the catalog.
    pub(crate) fn own_tree(&self) -> &BTree {
        &self.trees
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
