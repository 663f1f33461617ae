//! A key that has a cell gets a new value: update of a row, or revival of a ghost.
//!
//! ```text
//!  before   0│3│9│key│old value│sl         value fits the cell:   header if it changed, value
//!  after    0│3│5│key│new  lue │sl         does not:              a longer cell
//! ```
//!
//! A cell never gets shorter here: what the value gives up becomes slack, so that the undo of this
//! change, and of every earlier one by the same transaction, finds its room (feature trap 20).

use argali_pager::PageOp;
use argali_txn::{Edit, Undo};

use super::BTree;
use super::descent::Attempt;
use super::heads::head;
use super::node::{self, LEAF_HEADER, LeafCell, Stored};
use super::target::Target;
use super::undo::{self, Kind};
use super::write::{Done, Work};
use crate::TREE_OWNER;

impl BTree {
    pub(super) fn rewrite_at(
        &self,
        work: &mut Work<'_>,
        target: Target<'_>,
        (slot, cell): (usize, LeafCell),
        value: Stored<'_>,
    ) -> Attempt<Done> {
        let mut page = target.latch()?;
        let (kind, old) = if cell.ghost {
            (Kind::Insert, Stored::NOTHING)
        } else {
            (Kind::Update, cell.value(page.page()))
        };
        let old_len = old.bytes.len();
        undo::Body::new(kind, self.root(), work.key, old).encode(work.buffer);
        let body_len = work.buffer.len();
        if cell.holds(value.bytes.len()) {
            let header = node::live_header(cell.key_len, value);
            let ops = overwrite(slot, &cell, &header, value.bytes);
            let same =
                !cell.ghost && cell.value_len == value.bytes.len() && cell.large == value.large;
            let ops = if same { &ops[1..] } else { &ops[..] };
            let undo = Undo::Logical { owner: TREE_OWNER, body: work.buffer };
            work.txn.update(&mut [Edit { page: &mut page, ops }], undo);
        } else {
            node::push_leaf_cell(work.buffer, work.key, value);
            let (body, longer) = work.buffer.split_at(body_len);
            let head = head(work.key, page.page().skip());
            let ops = [PageOp::Replace { slot: slot as u16, head, cell: longer }];
            if !ops[0].fits(page.page()) {
                drop(page);
                let need = longer.len() - cell.len;
                return Err(work.room_for(self, need));
            }
            let undo = Undo::Logical { owner: TREE_OWNER, body };
            work.txn.update(&mut [Edit { page: &mut page, ops: &ops }], undo);
        }
        // The undo body begins with the old value: cut back, it is what the caller gets.
        work.buffer.truncate(old_len);
        Ok(if cell.ghost { Done::Inserted } else { Done::Replaced { large: cell.large } })
    }
}

/// A live row with `value` in a cell that has room for it.
pub(super) fn overwrite<'a>(
    slot: usize,
    cell: &LeafCell,
    header: &'a [u8; LEAF_HEADER],
    value: &'a [u8],
) -> [PageOp<'a>; 2] {
    let (slot, at) = (slot as u16, (LEAF_HEADER + cell.key_len) as u16);
    [PageOp::Patch { slot, at: 0, bytes: header }, PageOp::Patch { slot, at, bytes: value }]
}
