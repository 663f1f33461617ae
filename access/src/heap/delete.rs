//! A row becomes a ghost: one bit changes, in its home and, if it has moved, where it stands.
//!
//! The ghost keeps its bytes and its slot for the rollback, and its id for those who locked it. It goes
//! when nobody can want it any more ([`super::purge`]).

use argali_base::{Error, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::PageOp;
use argali_txn::Txn;

use super::cell::{Cell, Kind};
use super::change::{Part, Plan, page_of};
use super::write::{OP_BYTES, kind_at};
use super::{Heap, RowId, undo};
use crate::attempt::{Attempt, retry};

impl Heap {
    /// Removes a row.
    ///
    /// # Errors
    /// `NotFound` when there is none; `LogFull`; deadlock and lock timeout (retryable); `Corrupt`, `Io`.
    pub fn delete(&self, txn: &mut Txn, id: RowId) -> Result<()> {
        self.lock_for_write(txn, id)?;
        let found = self.find(id, BufferPool::read, &mut Vec::new())?;
        let place = found.place.ok_or_else(|| missing(id))?;
        retry(|patient| self.make_ghost(txn, id, place, patient))
    }

    fn make_ghost(&self, txn: &mut Txn, id: RowId, place: RowId, patient: bool) -> Attempt<()> {
        let mut ids = vec![id, place];
        ids.sort_unstable();
        ids.dedup();
        txn.admit(ids.len() * (OP_BYTES + 1) + undo::body_len(ids.len(), ids.len()), ids.len())?;
        let mut pages = self.latch(&ids, patient)?;
        let mut cells = Vec::with_capacity(ids.len());
        for at in ids {
            let kind = if at == place { kind_at(place, id) } else { Kind::Forward { to: place } };
            cells.push((at, self.expect(page_of(&pages, at), at, kind)?));
        }
        let flags: Vec<_> = cells.iter().map(|(_, cell)| cell.flipped()).collect();
        let mut parts: Vec<_> =
            cells.iter().zip(&flags).map(|((at, cell), flag)| flip(*at, cell, flag)).collect();
        let plan = Plan::new(self, &mut parts);
        plan.carry_out(txn, &mut pages);
        for page in &pages {
            self.room.note(page.page());
        }
        Ok(())
    }
}

/// Turns the ghost flag over; `flag` is the first byte then.
pub(super) fn flip<'o, 'b>(at: RowId, cell: &Cell<'b>, flag: &'o [u8; 1]) -> Part<'o, 'b> {
    let op = PageOp::Patch { slot: at.slot, at: 0, bytes: flag };
    Part { at, op, before: &cell.bytes[..1] }
}

/// There is no row with this id.
pub(super) fn missing(id: RowId) -> Error {
    Error::NotFound { what: "row", name: id.to_string() }
}
