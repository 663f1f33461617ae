//! Giving a whole tree's pages back, a few at a time.
//!
//! The tree is one nobody can reach: its catalog entry is gone and that is committed. Each step removes
//! the last pointer of the last node in the path of last children and clears the page's bit, in one
//! record: a crash between two steps leaves a smaller tree, and the next call goes on.
//!
//! ```text
//!        root            each step:  parent  Remove{last slot}
//!       /    \                       map     SetBit{page, false}
//!     n1      n2
//!    / \     / \         order:  l4 l3 n2 l2 l1 n1, and the root last, together with the row that
//!   l1  l2  l3  l4       remembers the tree ([`BTree::remove_and_free`])
//! ```
//!
//! Before a leaf goes, so do the large values in it, the last one first: page by page, and the first page
//! of each together with its cell.
//!
//! Freed pages are not written at all. They keep their LSN; their next life begins with `Format`.

use argali_base::{PageId, Result};
use argali_buffer_pool::PageWrite;
use argali_pager::PageOp;
use argali_txn::{Edit, Txn, Undo};

use super::BTree;
use super::delete::{ghost_flag, make_ghost};
use super::descent::{Attempt, Stop, retry};
use super::node::{self, InnerCell, LeafCell};
use crate::fault::corrupt;
use crate::overflow;

/// Log bytes of one step, generously.
const STEP_BYTES: usize = 64;

/// What one step did.
enum Step {
    /// A page is free.
    Freed,
    /// Nothing: only the root is left.
    Bare,
    /// Nothing: this row's value, which begins at that page, must go first.
    Large(Vec<u8>, PageId),
}

impl BTree {
    /// Frees pages of a tree nobody can reach, at most `pages` per call, deepest last child first; each
    /// step one record, never undone. Returns true when only the root is left.
    pub fn free_some(&self, txn: &mut Txn, pages: usize) -> Result<bool> {
        self.space().thin_leaves().forget(self.root());
        for _ in 0..pages {
            match retry(|patient| self.free_one(txn, patient))? {
                Step::Bare => return Ok(true),
                Step::Freed => {}
                Step::Large(key, first) => {
                    if overflow::free_some(self.space(), txn, first, 1)? {
                        self.remove_and_free(txn, &key, first)?;
                    }
                }
            }
        }
        Ok(false)
    }

    /// One step, or what must go before it.
    fn free_one(&self, txn: &mut Txn, patient: bool) -> Attempt<Step> {
        txn.admit(STEP_BYTES, 2)?;
        let mut parent = self.pool().write(self.root())?;
        let mut level = self.inspect(&parent, |view| node::level(view, self.owner))?;
        if level == 0 {
            return Ok(self.last_large(&parent)?.unwrap_or(Step::Bare));
        }
        while level > 0 {
            let Some((slot, child)) = self.last_child(&parent)? else { break };
            let page = self.pool().write(child)?;
            let below = self.inspect(&page, |view| node::level(view, self.owner))?;
            if below + 1 != level {
                let what = format!("level {below} under level {level}");
                return Err(corrupt(self.pool(), child, what).into());
            }
            if below == 0 || page.page().slot_count() == 0 {
                if let Some(large) = self.last_large(&page)? {
                    return Ok(large);
                }
                drop(page);
                self.cut_off(txn, parent, (slot, child), patient)?;
                return Ok(Step::Freed);
            }
            (parent, level) = (page, below);
        }
        Ok(Step::Bare)
    }

    /// The last row of a leaf with a large value; none in an inner node, which has no children left.
    fn last_large(&self, page: &PageWrite<'_>) -> Attempt<Option<Step>> {
        if page.page().level() > 0 {
            return Ok(None);
        }
        for slot in (0..page.page().slot_count()).rev() {
            let cell = self.inspect(page, |view| LeafCell::read(view, slot))?;
            if cell.large && !cell.ghost {
                let value = cell.value(page.page());
                let reference = self.reference(value.bytes)?;
                return Ok(Some(Step::Large(cell.key(page.page()).to_vec(), reference.first)));
            }
        }
        Ok(None)
    }

    fn last_child(&self, page: &PageWrite<'_>) -> Attempt<Option<(usize, PageId)>> {
        self.inspect(page, |view| {
            let Some(slot) = view.slot_count().checked_sub(1) else { return Ok(None) };
            Ok(Some((slot, InnerCell::read(view, slot)?.child)))
        })
    }

    fn cut_off<'p>(
        &'p self,
        txn: &mut Txn,
        mut parent: PageWrite<'p>,
        (slot, child): (usize, PageId),
        patient: bool,
    ) -> Attempt<()> {
        let Some(mut map) = self.space().try_map(child, patient)? else { return Err(Stop::Again) };
        let edits = &mut [
            Edit { page: &mut parent, ops: &[PageOp::Remove { slot: slot as u16 }] },
            Edit { page: &mut map, ops: &[self.space().bit(child, false)] },
        ];
        txn.update(edits, Undo::Never);
        drop(map);
        self.space().freed(child);
        Ok(())
    }

    /// Removes entry `key` of this tree and frees page `root` (another tree's last page) in one record,
    /// never undone. A key that is not there any more frees nothing: the step was done before.
    pub fn remove_and_free(&self, txn: &mut Txn, key: &[u8], root: PageId) -> Result<()> {
        retry(|patient| {
            self.space().await_map(root)?;
            txn.admit(STEP_BYTES, 2)?;
            let target = self.target(key, patient)?;
            let spot = self.spot(&target, key)?;
            let Some(cell) = spot.live() else { return Ok(()) };
            let mut page = target.latch()?;
            let Some(mut map) = self.space().try_map(root, patient)? else {
                return Err(Stop::Again);
            };
            let flag = ghost_flag(&cell);
            let edits = &mut [
                Edit { page: &mut page, ops: &[make_ghost(spot.slot, &flag)] },
                Edit { page: &mut map, ops: &[self.space().bit(root, false)] },
            ];
            txn.update(edits, Undo::Never);
            drop(map);
            self.space().freed(root);
            Ok(())
        })
    }
}
