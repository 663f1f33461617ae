//! A row becomes a ghost: one flag changes, everything else stays where it is.
//!
//! The ghost keeps the row's room for the rollback, and keeps its key as a border between two gaps for
//! those who locked one of them. It goes when nobody can want either any more ([`super::purge`]).

use argali_pager::PageOp;
use argali_txn::{Edit, Undo};

use super::BTree;
use super::descent::Attempt;
use super::node::LeafCell;
use super::target::Target;
use super::undo::{self, Kind};
use super::write::{Done, Work};
use crate::TREE_OWNER;

impl BTree {
    pub(super) fn delete_at(
        &self,
        work: &mut Work<'_>,
        target: Target<'_>,
        (slot, cell): (usize, LeafCell),
    ) -> Attempt<Done> {
        let mut page = work.latch(self, target)?;
        let old = cell.value(page.page());
        work.give(old);
        undo::Body::new(Kind::Delete, self.root(), work.key, old).encode(&mut work.scratch);
        let undo = Undo::Logical { owner: TREE_OWNER, body: &work.scratch };
        let header = ghost_flag(&cell);
        let ops = [make_ghost(slot, &header)];
        work.txn.update(&mut [Edit { page: &mut page, ops: &ops }], undo);
        self.crumbled(page, slot, work.key);
        Ok(Done::Replaced { large: cell.large })
    }
}

/// First byte of the cell once it is a ghost.
pub(super) fn ghost_flag(cell: &LeafCell) -> [u8; 1] {
    [cell.ghost_flags()]
}

/// The operation that turns the row at `slot` into a ghost.
pub(super) fn make_ghost(slot: usize, flag: &[u8; 1]) -> PageOp<'_> {
    PageOp::Patch { slot: slot as u16, at: 0, bytes: flag }
}
