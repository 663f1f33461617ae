//! Ghosts and slack are cleared away when a leaf is full, before it is split, and when it is thin.
//!
//! Two questions per leaf and ghost, both asked under the leaf's exclusive latch:
//!
//! 1. *May an active transaction want the room back?* Not if the pageLSN is below `Commit_LSN`: then
//!    every change on the page is committed for good.
//! 2. *Does somebody rely on the ghost as a border between gaps?* A reader leaves no LSN behind, but it
//!    leaves locks: a ghost goes only if nobody, this transaction included, has anything locked there.
//!    (Otherwise a scanner's gap would lose its name, and a phantom could enter.) It is a question and takes
//!    no lock, so the engine's own transactions ask it, too. Claims are ranges of keys, and need no border.
//!
//! The last cell of a leaf stays, ghost or not: only the leaf of an empty tree is empty, so the next key
//! of any key is at most one leaf away. The record is never undone.

use argali_base::Result;
use argali_buffer_pool::PageWrite;
use argali_pager::{PageOp, PageRef};
use argali_txn::{Edit, Txn, Undo};

use super::descent::{Attempt, retry};
use super::locks::REMOVE;
use super::node::{LeafCell, SLOT_BYTES};
use super::{BTree, fill};
use crate::fault::corrupt;

impl BTree {
    /// Clears the leaf of `key`; whether it then has `need` free bytes. Nothing may be latched.
    pub(super) fn purge(&self, txn: &mut Txn, key: &[u8], need: usize) -> Result<bool> {
        assert!(!txn.compensating(), "{} makes room while it rolls back", txn.id());
        retry(|patient| self.purge_once(txn, key, need, patient))
    }

    fn purge_once(&self, txn: &mut Txn, key: &[u8], need: usize, patient: bool) -> Attempt<bool> {
        txn.admit(self.split_bytes(), 1)?;
        let target = self.target(key, patient)?;
        self.spot(&target, key)?;
        let mut page = target.latch()?;
        if !self.space().settled(page.page().lsn()) {
            return Ok(false);
        }
        let copy = self.copy_of(&page);
        let (ops, gained) = self.clearance(txn, &page, copy.page())?;
        let free = page.page().free_bytes();
        if !fill::is_worth_purging(gained, self.room()) {
            return Ok(free >= need);
        }
        txn.update(&mut [Edit { page: &mut page, ops: &ops }], Undo::Never);
        Ok(free + gained >= need)
    }

    /// What to remove and cut back, last slot first, and the bytes that gains.
    fn clearance<'a>(
        &self,
        txn: &Txn,
        page: &PageWrite<'_>,
        copy: PageRef<'a>,
    ) -> Attempt<(Vec<PageOp<'a>>, usize)> {
        let (mut ops, mut gained) = (Vec::new(), 0);
        let mut left = copy.slot_count();
        for slot in (0..copy.slot_count()).rev() {
            let cell = self.inspect(page, |view| LeafCell::read(view, slot))?;
            if cell.ghost && left > 1 && txn.is_unlocked(self.key_name(cell.key(copy)), REMOVE) {
                ops.push(PageOp::Remove { slot: slot as u16 });
                gained += cell.len + SLOT_BYTES;
                left -= 1;
            } else if cell.used() < cell.len {
                let Some((head, bytes)) = copy.head(slot).zip(copy.cell(slot)) else {
                    return Err(corrupt(self.pool(), page.id(), "has a cell outside itself").into());
                };
                ops.push(PageOp::Replace { slot: slot as u16, head, cell: &bytes[..cell.used()] });
                gained += cell.len - cell.used();
            }
        }
        Ok((ops, gained))
    }
}
