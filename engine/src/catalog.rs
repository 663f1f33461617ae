//! Which trees and heaps exist: itself a tree, so that creating and dropping are as transactional as a
//! `put`.
//!
//! ```text
//!  page 1  catalog   name ─► version u8 │ kind u8 (1 tree, 2 heap, 3 sequence) │ root page u64
//!  page 2  pending   see access/src/pending.rs
//!
//!  create:  system transaction: allocate root, pending += root          (commits, not forced)
//!           user's transaction: pending -= root, catalog += name        (undone like any row)
//!  drop:    user's transaction: lock it X, catalog -= name, pending += root
//!  rename:  user's transaction: catalog -= old name, catalog += new name, with the same root
//! ```
//!
//! What is pending is freed when no rollback can want it back ([`Pending`]). A crash at any point leaves
//! either a catalog row or a pending row for each of them: nothing leaks.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Weak;

use argali_access::{BTree, Entry, Heap, Pending, Space, Way};
use argali_base::codec::{Reader, Writer};
use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Lsn, PageId, Result};
use argali_txn::{KeyMode, LockMode, LockName, Txn, TxnManager};

use crate::handle::{Handle, Home, Meta, Named, Place};
use crate::sequence::Block;
use crate::session::{Ddl, Effects};

/// Root of the catalog tree. Page 0 is the first map page.
pub(crate) const CATALOG_ROOT: PageId = PageId::new(1);
/// Root of the tree of what is to be freed.
pub(crate) const PENDING_ROOT: PageId = PageId::new(2);
/// Pages every database has from the start.
pub(crate) const SYSTEM_PAGES: u64 = 3;

/// Longest name of a tree or heap in bytes: with its row it fits a page of 4 KiB many times.
pub const NAME_BYTES_MAX: usize = 255;

const ROW_VERSION: u8 = 1;

/// Held exclusively by whoever creates a tree or heap, so that two who find the same name missing do not
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
    names: BTree,
    pending: Arc<Pending>,
    home: Home,
    handles: Mutex<HashMap<PageId, Weak<Meta>>>,
    /// What is left of the numbers that sequences have reserved.
    blocks: Mutex<HashMap<PageId, Arc<Mutex<Block>>>>,
}

impl Catalog {
    /// Makes both trees of a new database.
    pub(crate) fn create(space: &Arc<Space>, txn: &mut Txn) -> Result<()> {
        BTree::create_at(space, txn, CATALOG_ROOT)?;
        Pending::create_at(space, txn, PENDING_ROOT)
    }

    pub(crate) fn open(space: &Arc<Space>, pending: &Arc<Pending>) -> Self {
        Self {
            names: BTree::open(space, CATALOG_ROOT),
            pending: Arc::clone(pending),
            space: Arc::clone(space),
            home: Home::default(),
            handles: Mutex::default(),
            blocks: Mutex::default(),
        }
    }

    pub(crate) fn check_home(&self, handle: &Handle) -> Result<()> {
        handle.check_home(&self.home)
    }

    /// What is called `name`, if it exists; `Invalid` when it is of another kind.
    pub(crate) fn find(&self, txn: &mut Txn, named: Named, name: &str) -> Result<Option<Handle>> {
        check_name(named, name)?;
        let mut row = Vec::new();
        if !self.names.get(txn, name.as_bytes(), &mut row)? {
            return Ok(None);
        }
        let place = decode_row(name, &row)?;
        if place.named != named {
            let why = format!("{name:?} is the name of a {}", place.named.noun());
            return Err(Error::Invalid { what: named.noun(), why });
        }
        Ok(Some(self.handle(name, place)))
    }

    /// What is called `name`, made if it does not exist; call it when `name` was not there a moment ago.
    pub(crate) fn find_or_create(
        &self,
        txns: &Arc<TxnManager>,
        txn: &mut Txn,
        (named, name): (Named, &str),
        effects: &mut Effects,
    ) -> Result<Handle> {
        txn.lock(CREATION, EXCLUSIVE)?;
        match self.find(txn, named, name)? {
            Some(handle) => Ok(handle),
            None => self.create_new(txns, txn, (named, name), effects),
        }
    }

    /// Whether `name` seems to exist, committed or not: decides only which lock to take first.
    pub(crate) fn peek(&self, txns: &Arc<TxnManager>, named: Named, name: &str) -> Result<bool> {
        check_name(named, name)?;
        let mut system = txns.begin_system()?;
        self.names.get(&mut system, name.as_bytes(), &mut Vec::new())
    }

    fn create_new(
        &self,
        txns: &Arc<TxnManager>,
        txn: &mut Txn,
        (named, name): (Named, &str),
        effects: &mut Effects,
    ) -> Result<Handle> {
        let create = |system: &mut Txn| match named {
            Named::Tree | Named::Sequence => Ok(BTree::create(&self.space, system)?.root()),
            Named::Heap => Ok(Heap::create(&self.space, system)?.root()),
        };
        let structure = self.pending.allocate(txns, named.kind(), create)?;
        let handle = Handle::new(name, Place { named, root: structure.first }, &self.home);
        self.remember(&handle);
        self.blocks.lock().remove(&structure.first); // of the page's life before
        // From here on a rollback must know of the root, wherever the rest may fail.
        effects.ddl.push(Ddl::Created(handle.clone()));
        self.pending.take(txn, structure, &mut effects.moves)?;
        txn.lock(handle.lock_name(), LockMode::X)?;
        let created = self.names.insert_new(txn, name.as_bytes(), &encode_row(handle.place()))?;
        assert!(created, "{name:?} was missing under a lock, and is there now");
        Ok(handle)
    }

    /// Removes `name`; the pages go after the commit.
    pub(crate) fn remove(
        &self,
        txn: &mut Txn,
        (named, name): (Named, &str),
        effects: &mut Effects,
    ) -> Result<()> {
        let handle = self.find(txn, named, name)?.ok_or_else(|| named.missing(name))?;
        handle.enter(txn, LockMode::X)?;
        // The name was read under a lock, but under read committed that lock is gone again.
        if self.names.delete(txn, name.as_bytes())? != Some(encode_row(handle.place())) {
            return Err(named.missing(name));
        }
        self.pending.give(txn, handle.place().structure(), &mut effects.moves)?;
        handle.set_dropped(true);
        effects.ddl.push(Ddl::Dropped(handle));
        Ok(())
    }

    /// Gives what is called `old` the name `new`. Who uses it is not disturbed: a handle stands for pages.
    pub(crate) fn rename(
        &self,
        txn: &mut Txn,
        named: Named,
        (old, new): (&str, &str),
        effects: &mut Effects,
    ) -> Result<()> {
        check_name(named, new)?;
        txn.lock(CREATION, EXCLUSIVE)?;
        let handle = self.find(txn, named, old)?.ok_or_else(|| named.missing(old))?;
        let row = encode_row(handle.place());
        // As in `remove`: under read committed the name may be another's by now.
        if self.names.delete(txn, old.as_bytes())?.as_ref() != Some(&row) {
            return Err(named.missing(old));
        }
        if !self.names.insert_new(txn, new.as_bytes(), &row)? {
            return Err(Error::Exists { what: "name", name: new.to_owned() });
        }
        handle.set_name(new);
        effects.ddl.push(Ddl::Renamed { handle, from: old.to_owned() });
        Ok(())
    }

    /// What is left of the numbers reserved by the sequence at `root`.
    pub(crate) fn block(&self, root: PageId) -> Arc<Mutex<Block>> {
        Arc::clone(self.blocks.lock().entry(root).or_default())
    }

    /// All names of one kind, sorted.
    pub(crate) fn names(&self, txn: &mut Txn, named: Named) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.for_each(txn, |name, place| {
            if place.named == named {
                names.push(name.to_owned());
            }
        })?;
        Ok(names)
    }

    /// Calls `visit` with each name and what it names.
    pub(crate) fn for_each(&self, txn: &mut Txn, mut visit: impl FnMut(&str, Place)) -> Result<()> {
        let mut entry = Entry::default();
        let mut found = self.names.next(txn, Bound::Unbounded, Bound::Unbounded, &mut entry)?;
        while found {
            let name = std::str::from_utf8(entry.key());
            let name = name.map_err(|_| damaged("a name is not UTF-8"))?;
            visit(name, decode_row(name, entry.value())?);
            found = self.names.advance(txn, Way::Forward, Bound::Unbounded, &mut entry)?;
        }
        Ok(())
    }

    /// The tree that holds the catalog.
    pub(crate) fn own_tree(&self) -> &BTree {
        &self.names
    }

    /// Where everything named stands.
    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    fn handle(&self, name: &str, place: Place) -> Handle {
        let mut handles = self.handles.lock();
        if let Some(handle) = handles.get(&place.root).and_then(Handle::upgrade)
            && !handle.is_dropped()
        {
            return handle;
        }
        let handle = Handle::new(name, place, &self.home);
        handles.insert(place.root, handle.downgrade());
        handle
    }

    fn remember(&self, handle: &Handle) {
        let mut handles = self.handles.lock();
        if handles.len() >= 64 && handles.len() == handles.capacity() {
            handles.retain(|_, meta| meta.strong_count() > 0);
        }
        handles.insert(handle.root(), handle.downgrade());
    }
}

fn encode_row(place: Place) -> Vec<u8> {
    let mut row = Vec::with_capacity(10);
    row.put_u8(ROW_VERSION);
    row.put_u8(place.named as u8);
    row.put_u64(place.root.get());
    row
}

fn decode_row(name: &str, row: &[u8]) -> Result<Place> {
    let mut fields = Reader::new(row);
    let parsed = (fields.u8(), fields.u8().and_then(Named::from_u8), fields.u64());
    match parsed {
        (Some(ROW_VERSION), Some(named), Some(root)) if fields.is_empty() => {
            Ok(Place { named, root: PageId::new(root) })
        }
        _ => Err(damaged(&format!("the row of {name:?} makes no sense: {row:02x?}"))),
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt("data", 0, None::<Lsn>, format!("catalog: {what}"))
}

fn check_name(named: Named, name: &str) -> Result<()> {
    let what = match named {
        Named::Tree => "tree name",
        Named::Heap => "heap name",
        Named::Sequence => "sequence name",
    };
    if name.is_empty() {
        return Err(Error::Invalid { what, why: "empty".to_owned() });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::TooLarge { what, size: name.len(), limit: NAME_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_reject_everything_else() {
        for (named, number) in [(Named::Tree, 1), (Named::Heap, 2), (Named::Sequence, 3)] {
            let place = Place { named, root: PageId::new(77) };
            let row = encode_row(place);
            assert_eq!(row, [1, number, 77, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(decode_row("t", &row).unwrap(), place);
            let (mut version, mut kind) = (row.clone(), row.clone());
            (version[0], kind[1]) = (2, 99);
            for bad in [&row[..9], &[], &version, &kind, &[&row[..], &[0]].concat()] {
                assert!(decode_row("t", bad).unwrap_err().is_corruption(), "{bad:?}");
            }
        }
    }

    #[test]
    fn names_have_limits() {
        assert!(check_name(Named::Tree, "a").is_ok());
        assert!(check_name(Named::Heap, &"x".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(matches!(check_name(Named::Heap, ""), Err(Error::Invalid { .. })));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let refused = check_name(Named::Tree, &long);
        assert!(matches!(refused, Err(Error::TooLarge { size: 256, .. })));
    }
}
