//! Giving a whole heap's pages back, a few at a time.
//!
//! Nobody can reach the heap any more: its catalog entry is gone and that is committed. Each step removes
//! the last entry of the last directory, or the last directory itself when it has none left, and clears the
//! page's bit, in one record: a crash between two steps leaves a smaller heap, and the next call goes on.
//!
//! ```text
//!        root           each step:  directory  Remove{last entry}
//!       /    \                      map        SetBit{page, false}
//!      A      B
//!     / \    / \        order:  p4 p3 B p2 p1 A, and the root last, together with the row that
//!    p1 p2  p3 p4       remembers the heap ([`BTree::remove_and_free`](crate::BTree::remove_and_free))
//! ```
//!
//! Freed pages are not read or written at all: their next life begins with `Format`.

use argali_base::Result;
use argali_pager::PageOp;
use argali_txn::{Edit, Txn, Undo};

use super::Heap;
use crate::attempt::{Attempt, Stop, retry};

/// Log bytes of one step, generously.
const STEP_BYTES: usize = 64;

impl Heap {
    /// Frees pages of a heap nobody can reach, at most `pages` per call; each step one record, never undone.
    /// Returns true when only the root is left.
    pub fn free_some(&self, txn: &mut Txn, pages: usize) -> Result<bool> {
        self.space().rooms().forget(self.root());
        for _ in 0..pages {
            if retry(|patient| self.free_one(txn, patient))? {
                return Ok(true);
            }
        }
        Ok(self.directory(self.root(), None)?.0.page().slot_count() == 0)
    }

    /// One step; true when there was nothing to free.
    fn free_one(&self, txn: &mut Txn, patient: bool) -> Attempt<bool> {
        let edge = self.right_edge()?;
        let last = edge.iter().rev().find_map(|edge| Some((edge, edge.last?.page)));
        let Some((last, page)) = last else { return Ok(true) };
        txn.admit(STEP_BYTES, 2)?;
        let slot = last.count - 1;
        let mut directory = self.pool().write(last.directory)?;
        let Some(mut map) = self.space().try_map(page, patient)? else {
            drop(directory);
            self.space().await_map(page)?;
            return Err(Stop::Again);
        };
        let edits = &mut [
            Edit { page: &mut directory, ops: &[PageOp::Remove { slot: slot as u16 }] },
            Edit { page: &mut map, ops: &[self.space().bit(page, false)] },
        ];
        txn.update(edits, Undo::Never);
        drop(map);
        self.space().freed(page);
        Ok(false)
    }
}
