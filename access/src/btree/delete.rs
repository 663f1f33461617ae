//! A row becomes a ghost: one flag changes, everything else stays where it is.
//!
//! The ghost keeps the row's room for the rollback, and keeps its key as a border between two gaps for
//! those who locked one of them. It goes when nobody can want either any more ([`super::purge`]).
//!
//! A range is deleted row by row: each row has its own record, because each may stand elsewhere by the
//! time it is brought back. The scan in front takes the locks that the deletions need.

use std::ops::Bound;

use argali_base::Result;
use argali_pager::PageOp;
use argali_txn::{Edit, Txn, Undo};

use super::BTree;
use super::descent::{Attempt, retry};
use super::node::{self, LeafCell};
use super::scan::{Entry, Order};
use super::target::Target;
use super::undo::{self, Kind};
use super::write::{Done, Work};
use crate::TREE_OWNER;

impl BTree {
    /// Deletes the rows within the bounds: all of them, or none when it fails. Returns how many. Each is
    /// locked exclusively; under serializable the range then takes no phantoms, below it others may fill
    /// it again behind the scan.
    ///
    /// # Errors
    /// As [`BTree::put`] and [`BTree::next`]; `LogFull` also for more rows than the log can take back.
    pub fn delete_range(&self, txn: &mut Txn, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<u64> {
        let before = txn.savepoint();
        let result = self.delete_rows(txn, from, to);
        if result.is_err() {
            txn.rollback_to(before)?;
        }
        result
    }

    fn delete_rows(&self, txn: &mut Txn, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<u64> {
        let locks = self.scan_locks_for_write(txn)?;
        let (mut entry, mut key, mut old) = (Entry::default(), Vec::new(), Vec::new());
        let (mut from, mut count) = (from, 0);
        loop {
            let mut order = Order { txn, locks, from, to };
            if !retry(|patient| self.step(&mut order, &mut entry, patient))? {
                return Ok(count);
            }
            key.clone_from(&entry.key);
            count += u64::from(self.delete_into(txn, &key, &mut old)?);
            from = Bound::Excluded(&key);
        }
    }

    pub(super) fn delete_at(
        &self,
        work: &mut Work<'_>,
        target: Target<'_>,
        (slot, cell): (usize, LeafCell),
    ) -> Attempt<Done> {
        let mut page = target.latch()?;
        let body = undo::Body::new(Kind::Delete, self.root(), work.key, cell.value(page.page()));
        body.encode(work.buffer);
        let undo = Undo::Logical { owner: TREE_OWNER, body: work.buffer };
        let header = ghost_flag(&cell);
        let ops = [make_ghost(slot, &header)];
        work.txn.update(&mut [Edit { page: &mut page, ops: &ops }], undo);
        self.crumbled(page, slot, work.key);
        work.buffer.truncate(cell.value_len);
        Ok(Done::Replaced)
    }
}

/// First byte of the cell once it is a ghost.
pub(super) fn ghost_flag(cell: &LeafCell) -> [u8; 1] {
    [node::leaf_header(true, cell.key_len, cell.value_len)[0]]
}

/// The operation that turns the row at `slot` into a ghost.
pub(super) fn make_ghost(slot: usize, flag: &[u8; 1]) -> PageOp<'_> {
    PageOp::Patch { slot: slot as u16, at: 0, bytes: flag }
}
