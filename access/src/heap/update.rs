//! A row gets new bytes: where it stands, back in its home, or in another page.
//!
//! ```text
//!  fits where it stands        │ row │            becomes  │ longer row │          one page
//!  has moved, fits its home    │ forward │ │ moved │       │ longer row │ │ghost│  two
//!  fits neither                │ row │                     │ forward │  │ moved │  two
//!                              │ forward │ │ moved │       │ forward │  │ghost│ │ moved │   three
//! ```
//!
//! A cell never gets shorter, and a row that leaves its page leaves its bytes behind the forward, or in a
//! ghost: so the undo always finds its room. The page a row leaves is never the one it enters.

use argali_base::{PageId, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::{PageOp, SLOT_BYTES};
use argali_txn::Txn;

use super::cell::{FORWARD_BYTES, Kind, forward, push_cell};
use super::change::{Part, Plan, page_of};
use super::delete::{flip, missing};
use super::write::{Entry, OP_BYTES, entry, kind_at};
use super::{Heap, RowId, undo};
use crate::attempt::{Attempt, retry};

/// An update under way.
struct Work<'a> {
    home: RowId,
    /// Where the row's bytes are.
    place: RowId,
    row: &'a [u8],
}

/// What came of an attempt that needs room in a certain page.
enum Outcome {
    Done,
    /// The page lacks room: so many bytes must be free.
    Needs(usize),
}

impl Work<'_> {
    fn has_moved(&self) -> bool {
        self.place != self.home
    }

    /// The row as a cell: in its home, or away from it.
    fn cell(&self, away: bool) -> Vec<u8> {
        let mut cell = Vec::new();
        push_cell(&mut cell, away.then_some(self.home), self.row);
        cell
    }
}

impl Heap {
    /// Gives a row new bytes; its id stays.
    ///
    /// # Errors
    /// `NotFound` when there is none; `TooLarge` beyond [`Heap::row_bytes_max`], `LogFull`, `Full`; deadlock
    /// and lock timeout (retryable); `Corrupt`, `Io`.
    pub fn update(&self, txn: &mut Txn, id: RowId, row: &[u8]) -> Result<()> {
        self.check_size(row)?;
        self.lock_for_write(txn, id)?;
        let found = self.find(id, BufferPool::read, &mut Vec::new())?;
        let place = found.place.ok_or_else(|| missing(id))?;
        let work = Work { home: id, place, row };
        let cell = work.cell(work.has_moved());
        if self.with_purge(txn, place.page, |txn| self.stay(txn, &work, &cell))? {
            return Ok(());
        }
        let cell = work.cell(false);
        if work.has_moved()
            && self.with_purge(txn, id.page, |txn| {
                retry(|patient| self.go_home(txn, &work, &cell, patient))
            })?
        {
            return Ok(());
        }
        let cell = work.cell(true);
        self.place(txn, cell.len() + SLOT_BYTES, vec![id.page, place.page], |txn, to| {
            let moved = retry(|patient| self.go_to(txn, &work, (to, &cell), patient))?;
            Ok(moved.then_some(()))
        })
    }

    /// Attempts, and again if clearing `page` gives it the room it needs; whether it is done.
    fn with_purge(
        &self,
        txn: &mut Txn,
        page: PageId,
        mut attempt: impl FnMut(&mut Txn) -> Result<Outcome>,
    ) -> Result<bool> {
        match attempt(txn)? {
            Outcome::Done => Ok(true),
            Outcome::Needs(bytes) if self.purge(txn, page, bytes)? => {
                Ok(matches!(attempt(txn)?, Outcome::Done))
            }
            Outcome::Needs(_) => Ok(false),
        }
    }

    /// The row gets its bytes where it stands.
    fn stay(&self, txn: &mut Txn, work: &Work<'_>, cell: &[u8]) -> Result<Outcome> {
        let at = work.place;
        txn.admit(OP_BYTES + cell.len() + undo::body_len(1, cell.len()), 1)?;
        let page = self.pool().write(at.page)?;
        self.check_row_page(page.page())?;
        let old = self.expect(&page, at, kind_at(at, work.home))?;
        let part = rewrite(at, old.bytes, cell);
        if !part.op.fits(page.page()) {
            return Ok(Outcome::Needs(cell.len() - old.bytes.len()));
        }
        let shrinks = cell.len() < old.used();
        let plan = Plan::new(self, &mut [part]);
        let mut pages = [page];
        plan.carry_out(txn, &mut pages);
        if shrinks {
            self.room.note(pages[0].page());
        }
        Ok(Outcome::Done)
    }

    /// The row returns to its home.
    fn go_home(
        &self,
        txn: &mut Txn,
        work: &Work<'_>,
        cell: &[u8],
        patient: bool,
    ) -> Attempt<Outcome> {
        let mut ids = [work.home, work.place];
        ids.sort_unstable();
        let payload = 2 * OP_BYTES + 1 + cell.len() + undo::body_len(2, cell.len() + 1);
        txn.admit(payload, ids.len())?;
        let mut pages = self.latch(&ids, patient)?;
        let home = page_of(&pages, work.home);
        let away = Kind::Forward { to: work.place };
        let old_home = self.expect(home, work.home, away)?;
        let enter = rewrite(work.home, old_home.bytes, cell);
        if !enter.op.fits(home.page()) {
            return Ok(Outcome::Needs(cell.len() - old_home.bytes.len()));
        }
        let kind = Kind::Moved { home: work.home };
        let old = self.expect(page_of(&pages, work.place), work.place, kind)?;
        let flag = old.flipped();
        let plan = Plan::new(self, &mut [enter, flip(work.place, &old, &flag)]);
        plan.carry_out(txn, &mut pages);
        self.room.note(page_of(&pages, work.place).page());
        Ok(Outcome::Done)
    }

    /// The row goes to page `to`, and its home forwards there; `false` when there is no room.
    fn go_to(
        &self,
        txn: &mut Txn,
        work: &Work<'_>,
        (to, cell): (PageId, &[u8]),
        patient: bool,
    ) -> Attempt<bool> {
        // The slot is not known before the page is latched; for the latches the page is enough.
        let mut ids = vec![work.home, RowId { page: to, slot: 0 }];
        ids.extend(work.has_moved().then_some(work.place));
        ids.sort_unstable();
        let payload = 3 * OP_BYTES + cell.len() + FORWARD_BYTES + 1;
        txn.admit(payload + undo::body_len(3, FORWARD_BYTES + 1), ids.len())?;
        let mut pages = self.latch(&ids, patient)?;
        let new = page_of(&pages, RowId { page: to, slot: 0 });
        let Entry::At(slot, op) = entry(new.page(), cell, |_| true) else { return Ok(false) };
        let new = RowId { page: to, slot };
        let forward = forward(new);
        let flag;
        let mut parts = vec![Part { at: new, op, before: &[] }];
        let kind = if work.has_moved() {
            let kind = Kind::Moved { home: work.home };
            let old = self.expect(page_of(&pages, work.place), work.place, kind)?;
            flag = old.flipped();
            parts.push(flip(work.place, &old, &flag));
            Kind::Forward { to: work.place }
        } else {
            Kind::Row
        };
        let home = self.expect(page_of(&pages, work.home), work.home, kind)?;
        parts.push(rewrite(work.home, home.bytes, &forward));
        let plan = Plan::new(self, &mut parts);
        plan.carry_out(txn, &mut pages);
        let left = if work.has_moved() { work.place } else { work.home };
        self.room.note(page_of(&pages, left).page());
        Ok(true)
    }
}

/// A cell becomes `new`; it never gets shorter.
fn rewrite<'o, 'b>(at: RowId, old: &'b [u8], new: &'o [u8]) -> Part<'o, 'b> {
    let slot = at.slot;
    let op = if new.len() <= old.len() {
        PageOp::Patch { slot, at: 0, bytes: new }
    } else {
        PageOp::Replace { slot, head: 0, cell: new }
    };
    Part { at, op, before: &old[..old.len().min(new.len())] }
}
