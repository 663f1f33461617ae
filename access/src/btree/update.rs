//! A key that has a cell gets a new value: update of a row, or revival of a ghost.
//!
//! ```text
//!  before   0│3│9│key│old value│sl         value fits the cell:   header and value
//!  after    0│3│5│key│new  lue │sl         does not:              a longer cell
//!
//!  before   0│3│9│key│old value│           same length:           only from the first byte that differs
//!  after    0│3│9│key│odd value│                                  to the last, old and new
//! ```
//!
//! A cell never gets shorter here: what the value gives up becomes slack, so that the undo of this
//! change, and of every earlier one by the same transaction, finds its room (feature trap 20).

use std::ops::Range;

use argali_buffer_pool::PageWrite;
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
        let mut page = work.latch(self, target)?;
        if cell.ghost {
            let body = undo::Body::new(Kind::Insert, self.root(), work.key, Stored::NOTHING);
            body.encode(&mut work.scratch);
            self.rewrite(work, page, (slot, cell), value)?;
            return Ok(Done::Inserted);
        }
        let old = cell.value(page.page());
        work.give(old);
        if !cell.large && !value.large && cell.value_len == value.bytes.len() {
            let Range { start, end } = differing(old.bytes, value.bytes);
            let body = undo::Body::patch(self.root(), work.key, start, &old.bytes[start..end]);
            body.encode(&mut work.scratch);
            let ops = [patch(slot, &cell, start, &value.bytes[start..end])];
            let undo = Undo::Logical { owner: TREE_OWNER, body: &work.scratch };
            work.txn.update(&mut [Edit { page: &mut page, ops: &ops }], undo);
        } else {
            undo::Body::new(Kind::Update, self.root(), work.key, old).encode(&mut work.scratch);
            self.rewrite(work, page, (slot, cell), value)?;
        }
        Ok(Done::Replaced { large: cell.large })
    }

    /// Header and value anew; the undo body stands in the scratch buffer.
    fn rewrite(
        &self,
        work: &mut Work<'_>,
        mut page: PageWrite<'_>,
        (slot, cell): (usize, LeafCell),
        value: Stored<'_>,
    ) -> Attempt<()> {
        let body_len = work.scratch.len();
        if cell.holds(value.bytes.len()) {
            let header = node::live_header(cell.key_len, value);
            let ops = overwrite(slot, &cell, &header, value.bytes);
            let undo = Undo::Logical { owner: TREE_OWNER, body: &work.scratch };
            work.txn.update(&mut [Edit { page: &mut page, ops: &ops }], undo);
            return Ok(());
        }
        node::push_leaf_cell(&mut work.scratch, work.key, value);
        let (body, longer) = work.scratch.split_at(body_len);
        let head = head(work.key, page.page().skip());
        let ops = [PageOp::Replace { slot: slot as u16, head, cell: longer }];
        if !ops[0].fits(page.page()) {
            drop(page);
            let need = longer.len() - cell.len;
            return Err(work.room_for(self, need));
        }
        let undo = Undo::Logical { owner: TREE_OWNER, body };
        work.txn.update(&mut [Edit { page: &mut page, ops: &ops }], undo);
        Ok(())
    }
}

/// From the first byte in which two values of one length differ to the last.
fn differing(old: &[u8], new: &[u8]) -> Range<usize> {
    assert_eq!(old.len(), new.len(), "values of one length are compared");
    let words = old.as_chunks::<8>().0.iter().zip(new.as_chunks::<8>().0);
    let start = 8 * words.take_while(|(old, new)| old == new).count();
    let bytes = old[start..].iter().zip(&new[start..]);
    let start = start + bytes.take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[start..], &new[start..]);
    let words = old.as_rchunks::<8>().1.iter().rev().zip(new.as_rchunks::<8>().1.iter().rev());
    let end = old.len() - 8 * words.take_while(|(old, new)| old == new).count();
    let bytes = old[..end].iter().rev().zip(new[..end].iter().rev());
    let end = end - bytes.take_while(|(old, new)| old == new).count();
    start..start + end
}

/// `bytes` from `at` on in the value of a row.
pub(super) fn patch<'a>(slot: usize, cell: &LeafCell, at: usize, bytes: &'a [u8]) -> PageOp<'a> {
    let at = (LEAF_HEADER + cell.key_len + at) as u16;
    PageOp::Patch { slot: slot as u16, at, bytes }
}

/// A live row with `value` in a cell that has room for it.
pub(super) fn overwrite<'a>(
    slot: usize,
    cell: &LeafCell,
    header: &'a [u8; LEAF_HEADER],
    value: &'a [u8],
) -> [PageOp<'a>; 2] {
    let header = PageOp::Patch { slot: slot as u16, at: 0, bytes: header };
    [header, patch(slot, cell, 0, value)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_lies_between_the_first_and_the_last_difference() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let old: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..3)).collect();
            let mut new = old.clone();
            for _ in 0..rng.usize(..3).min(new.len()) {
                let at = rng.usize(..new.len());
                new[at] = rng.u8(..3);
            }
            let found = differing(&old, &new);
            let differs = |at: &usize| old[*at] != new[*at];
            let first = (0..old.len()).find(differs).unwrap_or(old.len());
            let end = (0..old.len()).rev().find(differs).map_or(first, |at| at + 1);
            assert_eq!(found, first..end, "{old:?} {new:?}");
        }
    }
}
