//! Point reads: no latch, no allocation, one lock.
//!
//! The lock comes first (its name needs no page), then the value is copied out of a glimpse and the
//! glimpse validated: what is returned was there, and the lock keeps it there. Read committed turns this
//! round, because it can often do without the lock. Not for a large value: its pages are followed one
//! after the other, and only the lock keeps them from being freed meanwhile.

use argali_base::{Lsn, Result};
use argali_txn::{Isolation, LockMode, Txn};

use super::BTree;
use super::descent::{Attempt, retry};
use super::locks::KEY_S;
use super::node::{self, LeafCell};
use super::search;
use crate::fault::corrupt;
use crate::overflow::{Parts, Reference, read_all};

/// What was found at a key.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Small,
    Large(Reference),
}

impl BTree {
    /// Point read under the transaction's isolation level. Copies the value into `out`; `false` when
    /// there is no such key (`out` is then empty).
    ///
    /// # Errors
    /// Deadlock and lock timeout (retryable), `Corrupt`, `Io`.
    pub fn get(&self, txn: &mut Txn, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        if self.intend(txn, LockMode::IS)?.covers(LockMode::S) {
            return self.load(key, out);
        }
        let name = self.key_name(key);
        if txn.isolation() != Isolation::ReadCommitted || txn.holds(name).is_some() {
            txn.lock(name, KEY_S)?;
            return self.load(key, out);
        }
        let (found, lsn) = self.find(key, out)?;
        if self.space().settled(lsn) && !matches!(found, Found::Large(_)) {
            return Ok(matches!(found, Found::Small));
        }
        txn.lock(name, KEY_S)?;
        let found = self.load(key, out);
        txn.unlock(name);
        found
    }

    /// As `get`, with an exclusive lock that stays, whatever the isolation level: for reads that a write
    /// will follow. Two readers that both want to write cannot deadlock this way.
    pub fn get_for_update(&self, txn: &mut Txn, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.lock_for_write(txn, key)?;
        self.load(key, out)
    }

    /// Whether `key` is there, with the lock of [`BTree::get_for_update`].
    pub fn contains_for_update(&self, txn: &mut Txn, key: &[u8]) -> Result<bool> {
        self.lock_for_write(txn, key)?;
        Ok(!matches!(self.find(key, &mut Vec::new())?.0, Found::Nothing))
    }

    /// The value of `key`, to be read part by part; `None` when there is no such key. The lock stays,
    /// under read committed, too: it keeps the value's pages where they are.
    pub fn get_parts(&self, txn: &mut Txn, key: &[u8]) -> Result<Option<Parts>> {
        if !self.intend(txn, LockMode::IS)?.covers(LockMode::S) {
            txn.lock(self.key_name(key), KEY_S)?;
        }
        let mut value = Vec::new();
        Ok(match self.find(key, &mut value)?.0 {
            Found::Nothing => None,
            Found::Small => Some(Parts::small(value)),
            Found::Large(reference) => Some(Parts::large(reference)),
        })
    }

    /// Copies the value of `key`, which is locked, with all its pages; whether there is one.
    fn load(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        match self.find(key, out)?.0 {
            Found::Nothing => Ok(false),
            Found::Small => Ok(true),
            Found::Large(reference) => {
                out.clear();
                read_all(self.pool(), reference, out)?;
                Ok(true)
            }
        }
    }

    /// Turns the reference in `value`, whose key is locked, into the large value it stands for.
    pub(crate) fn follow(&self, value: &mut Vec<u8>) -> Result<()> {
        let reference = self.reference(value)?;
        value.clear();
        read_all(self.pool(), reference, value)
    }

    /// Reads a reference that stood in a leaf of this tree.
    pub(crate) fn reference(&self, bytes: &[u8]) -> Result<Reference> {
        let nonsense = || format!("its tree has a reference that is none: {bytes:02x?}");
        Reference::decode(bytes).ok_or_else(|| corrupt(self.pool(), self.root(), nonsense()))
    }

    /// Copies what `key`'s cell has for a value now, whoever wrote it, with the leaf's pageLSN.
    fn find(&self, key: &[u8], out: &mut Vec<u8>) -> Result<(Found, Lsn)> {
        let (cell, lsn) = retry(|patient| self.find_once(key, out, patient))?;
        Ok(match cell {
            None => (Found::Nothing, lsn),
            Some(cell) if cell.large => (Found::Large(self.reference(out)?), lsn),
            Some(_) => (Found::Small, lsn),
        })
    }

    fn find_once(
        &self,
        key: &[u8],
        out: &mut Vec<u8>,
        patient: bool,
    ) -> Attempt<(Option<LeafCell>, Lsn)> {
        let (leaf, _) = self.descend(key, 0, patient)?;
        self.look(&leaf.glimpse, |view| {
            out.clear();
            let live = search::in_leaf(view, key)?.found.filter(|cell| !cell.ghost);
            if let Some(cell) = live {
                view.copy(cell.value_at(), cell.value_len, out)?;
            }
            Ok((live, node::lsn(view)?))
        })
    }
}
