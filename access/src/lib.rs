//! Access methods: page space and B+trees. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

use std::ops::Bound;

use argali_base::sync::Arc;
use argali_base::{PageId, Result};
use argali_txn::{Owner, Txn, TxnManager, UndoHandlers};

/// Owner number of B+tree undo.
pub const TREE_OWNER: Owner = Owner(1);

/// Logged page allocation over the map pages.
pub struct Space {
    _todo: (),
}
impl Space {
    /// Formats the first map page and marks the `system_pages` first pages used; for a new database.
    pub fn create(txns: &Arc<TxnManager>, txn: &mut Txn, system_pages: u64) -> Result<Arc<Self>> {
        todo!()
    }
    pub fn open(txns: &Arc<TxnManager>) -> Result<Arc<Self>> {
        todo!()
    }
    pub fn pages_in_use(&self) -> Result<u64> {
        todo!()
    }
    /// Calls `visit` with every page whose bit is set.
    pub fn for_each_used(&self, visit: &mut dyn FnMut(PageId)) -> Result<()> {
        todo!()
    }
}

/// One B+tree, known by its root page, which never moves. Holds no transaction state.
#[derive(Clone)]
pub struct BTree {
    _todo: (),
}

/// What a write found in its place.
pub type Old = Option<Vec<u8>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    pub rows: u64,
    pub ghosts: u64,
    pub depth: u32,
    pub pages: u64,
    pub bytes: u64,
}

impl BTree {
    /// Allocates and formats a root: a structure change that survives the transaction's rollback, so
    /// the caller sees to it that an aborted creation is freed again (see `engine::catalog`).
    pub fn create(space: &Arc<Space>, txn: &mut Txn) -> Result<Self> {
        todo!()
    }
    /// At a fixed page (the catalog of a new database); the page's bit must be set already.
    pub fn create_at(space: &Arc<Space>, txn: &mut Txn, root: PageId) -> Result<Self> {
        todo!()
    }
    pub fn open(space: &Arc<Space>, root: PageId) -> Self {
        todo!()
    }
    pub fn root(&self) -> PageId {
        todo!()
    }
    /// Largest key plus value, in bytes, for the database's page size.
    pub fn entry_bytes_max(&self) -> usize {
        todo!()
    }
    /// Point read under the transaction's isolation level. Copies the value into `out`.
    pub fn get(&self, txn: &mut Txn, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        todo!()
    }
    /// As `get`, with an exclusive lock.
    pub fn get_for_update(&self, txn: &mut Txn, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        todo!()
    }
    pub fn put(&self, txn: &mut Txn, key: &[u8], value: &[u8]) -> Result<Old> {
        todo!()
    }
    /// Inserts only if the key is absent.
    pub fn insert_new(&self, txn: &mut Txn, key: &[u8], value: &[u8]) -> Result<bool> {
        todo!()
    }
    pub fn delete(&self, txn: &mut Txn, key: &[u8]) -> Result<Old> {
        todo!()
    }
    /// The first live entry within the bounds, in key order, copied into `key` and `value`. Scans are
    /// loops around this with `Excluded(last key)`; next-key locks make them serializable.
    pub fn next(
        &self,
        txn: &mut Txn,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        entry: &mut Entry,
    ) -> Result<bool> {
        todo!()
    }
    /// Frees pages of a tree nobody can reach, at most `pages` per call, deepest last child first; each
    /// step one record. Returns true when only the root is left.
    pub fn free_some(&self, txn: &mut Txn, pages: usize) -> Result<bool> {
        todo!()
    }
    /// Removes entry `key` of this tree and frees page `root` (another tree's last page) in one record.
    pub fn remove_and_free(&self, txn: &mut Txn, key: &[u8], root: PageId) -> Result<()> {
        todo!()
    }
    /// Checks order, separators, links, levels and checksums of every page; reports every page it owns
    /// to `owned` and every fault to `faults`.
    pub fn verify(
        &self,
        owned: &mut dyn FnMut(PageId),
        faults: &mut Vec<String>,
    ) -> Result<TreeStats> {
        todo!()
    }
}

/// An entry copied out of a leaf; reused from call to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Registers the undo of every access method.
pub fn register_undo(space: &Arc<Space>, handlers: &mut UndoHandlers) {
    todo!()
}
