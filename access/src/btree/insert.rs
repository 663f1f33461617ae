//! A key that is nowhere in its leaf enters it.
//!
//! The next key, whose gap is being entered, stands in the next slot, or first in the right sibling, or
//! nowhere. If nobody relies on any gap of the tree it need not be asked for. The sibling is looked at before the leaf is latched and validated after: while the leaf's
//! latch is held, nobody can complete a scan across the border.
//!
//! A key that does not begin as all others in the leaf do brings new heads for all of them
//! ([`super::heads`]).

use argali_buffer_pool::PageWrite;
use argali_pager::PageOp;
use argali_txn::{Edit, LockName, Undo};

use super::BTree;
use super::descent::{Attempt, Node};
use super::heads::{Heads, head};
use super::node::{self, LeafCell, SLOT_BYTES, Stored};
use super::target::{Spot, Target};
use super::undo::{self, Kind};
use super::write::{Done, Work};
use crate::TREE_OWNER;
use crate::fault::corrupt;

impl BTree {
    pub(super) fn insert_at(
        &self,
        work: &mut Work<'_>,
        target: Target<'_>,
        spot: &Spot,
        value: Stored<'_>,
    ) -> Attempt<Done> {
        let sibling = match spot.link {
            Some(id) if work.gaps && !spot.next_is_here() => Some(self.open_node(id, false)),
            _ => None,
        };
        let mut page = work.latch(self, target)?;
        // That a sibling cannot be read is news only if the link to it was true.
        let sibling = sibling.transpose()?;
        if work.gaps && !work.txn.gaps_are_free(self.root().get()) {
            let next = self.next_name(&page, spot, sibling, &mut work.scratch)?;
            if let Err(wanted) = self.enter_gap(work.txn, work.key, next) {
                drop(page);
                return Err(work.wait_for(wanted));
            }
        }
        undo::Body::new(Kind::Insert, self.root(), work.key, Stored::NOTHING)
            .encode(&mut work.scratch);
        let body_len = work.scratch.len();
        node::push_leaf_cell(&mut work.scratch, work.key, value);
        let (body, cell) = work.scratch.split_at(body_len);
        let (heads, skip) = if spot.changes_heads() {
            self.inspect(&page, |page| Heads::before(*page, work.key))?
        } else {
            (None, page.page().skip())
        };
        let insert = PageOp::Insert { slot: spot.slot as u16, head: head(work.key, skip), cell };
        let need = cell.len() + SLOT_BYTES;
        if page.page().free_bytes() < need {
            drop(page);
            return Err(work.room_for(self, need));
        }
        let undo = Undo::Logical { owner: TREE_OWNER, body };
        let ops = heads.as_ref().map_or([insert; 2], |heads| [heads.op(), insert]);
        let ops = if heads.is_some() { &ops[..] } else { &ops[1..] };
        work.txn.update(&mut [Edit { page: &mut page, ops }], undo);
        Ok(Done::Inserted)
    }

    /// Lock name of the first key behind the spot; `key` is scratch space.
    fn next_name(
        &self,
        leaf: &PageWrite<'_>,
        spot: &Spot,
        sibling: Option<Node<'_>>,
        key: &mut Vec<u8>,
    ) -> Attempt<LockName> {
        if spot.next_is_here() {
            let cell = self.inspect(leaf, |view| LeafCell::read(view, spot.slot))?;
            return Ok(self.key_name(cell.key(leaf.page())));
        }
        let Some(sibling) = sibling else { return Ok(self.end_name()) };
        key.clear();
        let found = self.look(&sibling.glimpse, |view| {
            if node::level(view, self.owner)? != 0 {
                return Err(argali_buffer_pool::Restart);
            }
            if view.slot_count()? == 0 {
                return Ok(false);
            }
            let cell = LeafCell::read(view, 0)?;
            view.copy(cell.key_at(), cell.key_len, key)?;
            Ok(true)
        })?;
        if !found {
            // Invariant T1 of the tree: only a root leaf is ever empty.
            return Err(corrupt(self.pool(), sibling.glimpse.id(), "is an empty leaf").into());
        }
        Ok(self.key_name(key))
    }
}
