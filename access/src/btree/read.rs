//! Point reads: no latch, no allocation, one lock.
//!
//! The lock comes first (its name needs no page), then the value is copied out of a glimpse and the
//! glimpse validated: what is returned was there, and the lock keeps it there. Read committed turns this
//! round, because it can often do without the lock.

use argali_base::{Lsn, Result};
use argali_txn::{Isolation, LockMode, Txn};

use super::BTree;
use super::descent::{Attempt, retry};
use super::locks::{KEY_S, KEY_X};
use super::node;
use super::search;

impl BTree {
    /// Point read under the transaction's isolation level. Copies the value into `out`; `false` when
    /// there is no such key (`out` is then empty).
    ///
    /// # Errors
    /// Deadlock and lock timeout (retryable), `Corrupt`, `Io`.
    pub fn get(&self, txn: &mut Txn, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        if self.intend(txn, LockMode::IS)?.covers(LockMode::S) {
            return Ok(self.find(key, out)?.0);
        }
        let name = self.key_name(key);
        if txn.isolation() != Isolation::ReadCommitted {
            txn.lock(name, KEY_S)?;
            return Ok(self.find(key, out)?.0);
        }
        let (found, lsn) = self.find(key, out)?;
        if self.space().settled(lsn) || txn.holds(name).is_some() {
            return Ok(found);
        }
        txn.lock(name, KEY_S)?;
        let found = self.find(key, out);
        txn.unlock(name);
        Ok(found?.0)
    }

    /// As `get`, with an exclusive lock that stays, whatever the isolation level: for reads that a write
    /// will follow. Two readers that both want to write cannot deadlock this way.
    pub fn get_for_update(&self, txn: &mut Txn, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        if !self.intend(txn, LockMode::IX)?.covers(LockMode::X) {
            txn.lock(self.key_name(key), KEY_X)?;
        }
        Ok(self.find(key, out)?.0)
    }

    /// Copies the value of `key` as it is now, whoever wrote it, with the leaf's pageLSN.
    fn find(&self, key: &[u8], out: &mut Vec<u8>) -> Result<(bool, Lsn)> {
        retry(|patient| self.find_once(key, out, patient))
    }

    fn find_once(&self, key: &[u8], out: &mut Vec<u8>, patient: bool) -> Attempt<(bool, Lsn)> {
        let (leaf, _) = self.descend(key, 0, patient)?;
        self.look(&leaf.glimpse, |view| {
            out.clear();
            let live = search::in_leaf(view, key)?.found.filter(|cell| !cell.ghost);
            if let Some(cell) = live {
                view.copy(cell.value_at(), cell.value_len, out)?;
            }
            Ok((live.is_some(), node::lsn(view)?))
        })
    }
}
