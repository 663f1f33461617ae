//! Taking heap changes back: putting the beginnings of cells back as they were.
//!
//! ```text
//!  done                 undo holds, for each cell
//!  insert               nothing                             the slot is free again
//!  update in place      the bytes overwritten               the cell never became shorter: they fit
//!  delete               the flags byte                      ghosts keep their bytes; a moved row has two
//!  move                 home: the first 11 bytes            the rest still stands there
//!                       new place: nothing                  the slot is free again
//!                       old place, if there was one: flags
//!  return               home: the bytes overwritten
//!                       old place: flags
//!
//!  body   root u64 │ each, by ascending page: page u64, slot u16, length u16, bytes
//! ```
//!
//! A row never leaves its slot, so where is known; what must not happen is that somebody else has used the
//! room since. Nobody has: a page with changes of an active transaction is not purged ([`super::purge`]),
//! and only this transaction, which holds the row's lock, writes into its cells. So undo takes no lock and
//! no page, needs no room, and changes as many pages as the record it takes back, in one compensation.

use std::fmt;

use argali_base::codec::Reader;
use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_pager::PageOp;
use argali_txn::{LogicalUndo, Txn};

use super::change::Plan;
use super::{Heap, RowId};
use crate::Space;
use crate::attempt::{Attempt, retry};

/// Most cells one record changes.
const CELLS_MAX: usize = 3;
/// Bytes of a body beside its cells.
const HEAD_BYTES: usize = 8;
/// Bytes of a cell in a body beside those put back.
const CELL_HEAD_BYTES: usize = 12;
/// Log bytes of a compensation for each page, beside what is put back, generously.
const CLR_BYTES: usize = 16;

/// A cell as it was: its first bytes, or none when its slot was free.
pub(super) type Before<'a> = (RowId, &'a [u8]);

/// Bytes of a body for `cells` cells with `bytes` in all.
pub(super) const fn body_len(cells: usize, bytes: usize) -> usize {
    HEAD_BYTES + cells * CELL_HEAD_BYTES + bytes
}

/// What the undo of one record needs to know.
pub(super) fn body(root: PageId, cells: &[Before<'_>]) -> Vec<u8> {
    let bytes = cells.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut body = Vec::with_capacity(body_len(cells.len(), bytes));
    body.extend_from_slice(&root.get().to_le_bytes());
    for (at, bytes) in cells {
        let len = u16::try_from(bytes.len()).expect("a cell fits a page");
        body.extend_from_slice(&at.page.get().to_le_bytes());
        body.extend_from_slice(&at.slot.to_le_bytes());
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(bytes);
    }
    body
}

/// The root and the cells; `None` when the bytes are no body.
fn decode(body: &[u8]) -> Option<(PageId, Vec<Before<'_>>)> {
    let mut fields = Reader::new(body);
    let root = PageId::new(fields.u64()?);
    let mut cells: Vec<Before<'_>> = Vec::with_capacity(CELLS_MAX);
    while !fields.is_empty() {
        let at = RowId { page: PageId::new(fields.u64()?), slot: fields.u16()? };
        let ascends = cells.last().is_none_or(|(before, _)| before.page < at.page);
        if !ascends || cells.len() == CELLS_MAX {
            return None;
        }
        cells.push((at, fields.short_bytes()?));
    }
    (!cells.is_empty()).then_some((root, cells))
}

/// The undo of all heaps of one database.
pub(crate) struct HeapUndo {
    space: Arc<Space>,
}

impl HeapUndo {
    pub(crate) fn new(space: Arc<Space>) -> Self {
        Self { space }
    }
}

impl LogicalUndo for HeapUndo {
    fn undo(&self, txn: &mut Txn, body: &[u8]) -> Result<()> {
        let Some((root, cells)) = decode(body) else {
            let what = format!("undo of {} holds no heap operation", txn.id());
            return Err(Error::corrupt("wal", txn.last_lsn().get(), Some(txn.last_lsn()), what));
        };
        let heap = Heap::open(&self.space, root);
        let bytes: usize = cells.iter().map(|(_, bytes)| CLR_BYTES + bytes.len()).sum();
        txn.admit(bytes, cells.len())?;
        retry(|patient| heap.take_back(txn, &cells, patient))
    }

    fn describe(&self, body: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((root, cells)) = decode(body) else {
            return write!(f, "{} bytes that are no heap undo", body.len());
        };
        write!(f, "heap {root}:")?;
        for (n, (at, bytes)) in cells.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match bytes.len() {
                0 => write!(f, "{comma} {at} is free again")?,
                len => write!(f, "{comma} {at} gets {len} bytes back")?,
            }
        }
        Ok(())
    }
}

impl Heap {
    fn take_back(&self, txn: &mut Txn, cells: &[Before<'_>], patient: bool) -> Attempt<()> {
        let ids: Vec<RowId> = cells.iter().map(|(at, _)| *at).collect();
        let mut pages = self.latch(&ids, patient)?;
        let ops: Vec<PageOp<'_>> = cells.iter().map(put_back).collect();
        for ((page, op), at) in pages.iter().zip(&ops).zip(&ids) {
            if !op.fits(page.page()) {
                return Err(self.corrupt(at.page, format!("undo finds no cell {at}")).into());
            }
        }
        // In compensating mode the undoable update is the compensation; its body is not logged.
        Plan::undoing(ops).carry_out(txn, &mut pages);
        for page in &pages {
            self.room.note(page.page());
        }
        Ok(())
    }
}

fn put_back<'a>((at, bytes): &Before<'a>) -> PageOp<'a> {
    match bytes {
        [] => free(at.slot),
        bytes => PageOp::Patch { slot: at.slot, at: 0, bytes },
    }
}

/// The operation that frees a slot: its cell loses all its bytes.
pub(super) const fn free(slot: u16) -> PageOp<'static> {
    PageOp::Replace { slot, head: 0, cell: &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_survive_the_round_trip_and_reject_everything_else() {
        let id = |page, slot| RowId { page: PageId::new(page), slot };
        let cells = [(id(3, 1), &b"old"[..]), (id(4, 0), &[][..]), (id(9, 7), &[0x80][..])];
        let bytes = body(PageId::new(2), &cells);
        assert_eq!(bytes.len(), body_len(3, 4));
        assert_eq!(decode(&bytes), Some((PageId::new(2), cells.to_vec())));
        for end in 0..bytes.len() {
            let whole = [8 + 12 + 3, 8 + 12 + 3 + 12].contains(&end);
            assert_eq!(decode(&bytes[..end]).is_some(), whole, "cut at {end}");
        }
        assert_eq!(decode(&body(PageId::new(2), &[cells[1], cells[0]])), None, "descending");
        assert_eq!(decode(&body(PageId::new(2), &[cells[1], cells[1]])), None, "a page twice");
        let four = [cells[0], cells[1], (id(5, 5), &[]), cells[2]];
        assert_eq!(decode(&body(PageId::new(2), &four)), None, "more than a record changes");
    }
}
