//! From a row's id to the row.
//!
//! ```text
//!  home page ── row ──► copy it
//!      │
//!      └── forward ──► the page it names ── a row that moved from here? ──► copy it
//!                              │ no
//!                              └── home as it was before? damage : begin again
//! ```
//!
//! Pages are latched one at a time. Whoever moves or deletes a row that has moved changes its home in the
//! same record, with all latches held until the last page is changed. So if the home has the same pageLSN
//! after the second page was looked at as before, the forward was true meanwhile.

use argali_base::{Lsn, PageId, Result};
use argali_buffer_pool::{BufferPool, PageRead};
use argali_txn::{Isolation, LockMode, Txn};

use super::cell::{Cell, Kind};
use super::{Heap, RowId};
use crate::intention::{KEY_S, KEY_X, intend};

/// How pages are read: to stay, or in passing.
pub(super) type ReadPage = for<'p> fn(&'p BufferPool, PageId) -> Result<PageRead<'p>>;

/// How a row is read.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Whether the heap's lock spares the row's.
    pub(super) covered: bool,
    pub(super) read: ReadPage,
}

/// What stands at a row's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the row's bytes are; `None` when there is no such row (any more).
    pub(super) place: Option<RowId>,
    /// Greatest pageLSN of those looked at.
    pub(super) lsn: Lsn,
}

/// What a look at the home says.
enum Home {
    Here,
    At(RowId),
    Nothing,
}

impl Heap {
    /// Reads a row under the transaction's isolation level. Copies it into `out`; `false` when there is no
    /// such row (`out` is then empty), whatever the id.
    ///
    /// # Errors
    /// Deadlock and lock timeout (retryable), `Corrupt`, `Io`.
    pub fn get(&self, txn: &mut Txn, id: RowId, out: &mut Vec<u8>) -> Result<bool> {
        let covered = intend(txn, self.root(), LockMode::IS)?.covers(LockMode::S);
        self.read_row(txn, id, Manner { covered, read: BufferPool::read }, out)
    }

    /// As `get`, with an exclusive lock that stays, for reads that a write will follow.
    pub fn get_for_update(&self, txn: &mut Txn, id: RowId, out: &mut Vec<u8>) -> Result<bool> {
        if !intend(txn, self.root(), LockMode::IX)?.covers(LockMode::X) {
            txn.lock(id.lock_name(self.root()), KEY_X)?;
        }
        Ok(self.find(id, BufferPool::read, out)?.place.is_some())
    }

    /// Locks, looks and copies, as the isolation level says.
    pub(super) fn read_row(
        &self,
        txn: &mut Txn,
        id: RowId,
        manner: Manner,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let name = id.lock_name(self.root());
        if !manner.covered && txn.isolation() == Isolation::ReadCommitted {
            let found = self.find(id, manner.read, out)?;
            if self.space().settled(found.lsn) || txn.holds(name).is_some() {
                return Ok(found.place.is_some());
            }
            txn.lock(name, KEY_S)?;
            let found = self.find(id, manner.read, out);
            txn.unlock(name);
            return Ok(found?.place.is_some());
        }
        if !manner.covered {
            txn.lock(name, KEY_S)?;
        }
        Ok(self.find(id, manner.read, out)?.place.is_some())
    }

    /// Copies the row as it is now, whoever wrote it.
    pub(super) fn find(&self, id: RowId, read: ReadPage, out: &mut Vec<u8>) -> Result<Found> {
        out.clear();
        let mut before = None;
        loop {
            let Some(page) = self.page_of_row(id, read)? else {
                return Ok(Found { place: None, lsn: Lsn::NONE });
            };
            let lsn = page.page().lsn();
            let to = match self.look_home(&page, id, out)? {
                Home::Here => return Ok(Found { place: Some(id), lsn }),
                Home::Nothing => return Ok(Found { place: None, lsn }),
                Home::At(to) => to,
            };
            drop(page);
            if before == Some(lsn) {
                return Err(
                    self.corrupt(id.page, format!("row {id} is forwarded to {to}, not there"))
                );
            }
            if let Some(other) = self.look_away(id, to, read, out)? {
                return Ok(Found { place: Some(to), lsn: lsn.max(other) });
            }
            before = Some(lsn);
        }
    }

    fn look_home(&self, page: &PageRead<'_>, id: RowId, out: &mut Vec<u8>) -> Result<Home> {
        Ok(match self.cell(page.page(), id.slot)? {
            None | Some(Cell { ghost: true, .. } | Cell { kind: Kind::Moved { .. }, .. }) => {
                Home::Nothing
            }
            Some(Cell { kind: Kind::Forward { to }, .. }) => Home::At(to),
            Some(Cell { kind: Kind::Row, row, .. }) => {
                out.extend_from_slice(row);
                Home::Here
            }
        })
    }

    /// Copies the row of `home` from where it was said to be; its pageLSN. `None` when it is not there.
    fn look_away(
        &self,
        home: RowId,
        at: RowId,
        read: ReadPage,
        out: &mut Vec<u8>,
    ) -> Result<Option<Lsn>> {
        let Some(page) = self.page_of_row(at, read)? else { return Ok(None) };
        let kind = Kind::Moved { home };
        Ok(match self.cell(page.page(), at.slot)? {
            Some(cell) if cell.kind == kind && !cell.ghost => {
                out.extend_from_slice(cell.row);
                Some(page.page().lsn())
            }
            Some(_) | None => None,
        })
    }

    pub(super) fn cell<'a>(
        &self,
        page: argali_pager::PageRef<'a>,
        slot: u16,
    ) -> Result<Option<Cell<'a>>> {
        let nonsense = |_| self.corrupt(page.id(), format!("cell {slot} is none of a heap"));
        Cell::read(page, usize::from(slot)).map_err(nonsense)
    }

    /// The page of a row, if it is one of this heap. An id may come from anywhere, so a page that is not in
    /// use is no damage.
    fn page_of_row(&self, id: RowId, read: ReadPage) -> Result<Option<PageRead<'_>>> {
        if id.page.get() >= self.pool().pager().pages() {
            return Ok(None);
        }
        match read(self.pool(), id.page) {
            Ok(page) => Ok(Some(page).filter(|page| self.is_row_page(page.page()))),
            Err(error) if error.is_corruption() && !self.space().is_used(id.page)? => Ok(None),
            Err(error) => Err(error),
        }
    }
}
