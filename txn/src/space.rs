//! How much log a transaction may write, and how much is kept so that it can always be taken back.
//!
//! ```text
//!  admit ──► ticket   room in ring and segments for the next updates
//!        └─► reserve  disk space for their CLRs, and for the records that end the transaction
//! ```
//!
//! Whatever an admission covers is covered once more for its undo: an undo is about as large as what it
//! undoes, and in mode `FullPageImage` its CLR may have to carry the page's image again. An admission's
//! *share* of the reserve is spoken for by its first undoable update. One that is never used (a descent
//! began again, a structure change needs no undo) stays *spare* and serves the next admission.
//!
//! In compensating mode everything comes out of the reserve, so a rollback never fails for space.

use argali_base::Result;
use argali_pager::TornPages;
use argali_wal::{CHANGE_OVERHEAD, LogTicket, RECORD_OVERHEAD, UndoReserve, Wal};

/// Records that end a transaction: a commit, or the end of a rollback, with the decision of a vote before it.
/// The first ticket covers them, too, so that a short transaction is admitted once.
const ENDING_BYTES: usize = 2 * RECORD_OVERHEAD;

/// What the size of a record depends on beside its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Bytes an image may add per page.
    image: usize,
}

impl Rates {
    pub(crate) fn new(torn_pages: TornPages, page_bytes: usize) -> Self {
        let image = match torn_pages {
            // Tag and length of the operation, and the page.
            TornPages::FullPageImage => page_bytes + 8,
            TornPages::DoubleWrite | TornPages::None => 0,
        };
        Self { image }
    }

    /// Most bytes of log that updates of `pages` pages in total take, in one record or in several.
    fn records(self, payload: usize, pages: usize) -> usize {
        payload + pages.max(1) * (RECORD_OVERHEAD + CHANGE_OVERHEAD + self.image)
    }
}

/// Log space of one transaction at a time.
#[derive(Debug, Default)]
pub(crate) struct LogSpace {
    /// Empty between two transactions, and filled again by the next one.
    ticket: Option<LogTicket>,
    reserve: UndoReserve,
    /// Reserve for undo that no record has spoken for.
    spare: usize,
    /// What the first undoable update of the present admission will speak for.
    share: usize,
    /// Whether the reserve holds the records that end the transaction.
    ending: bool,
}

impl LogSpace {
    /// Room for ordinary updates.
    pub(crate) fn admit(&mut self, wal: &Wal, (rates, payload, pages): Demand) -> Result<()> {
        let bytes = rates.records(payload, pages);
        let ending = if self.ending { 0 } else { ENDING_BYTES };
        let undo = bytes.saturating_sub(self.spare) + ending;
        if self.left() < bytes || undo > 0 {
            let Self { ticket, reserve, .. } = self;
            wal.refill(ticket_in(ticket, wal)?, bytes + ENDING_BYTES, undo, reserve)?;
            self.spare += undo - ending;
            self.ending = true;
        }
        self.share = bytes;
        Ok(())
    }

    /// Room for a rollback's updates, out of the reserve.
    pub(crate) fn admit_undo(&mut self, wal: &Wal, (rates, payload, pages): Demand) -> Result<()> {
        self.admit_reserved(wal, rates.records(payload, pages))?;
        // A handler that asks for more than its forward work did eats what was spare.
        self.spare = self.spare.min(self.reserve.left());
        Ok(())
    }

    /// Room for the records that end the transaction.
    pub(crate) fn admit_ending(&mut self, wal: &Wal) -> Result<()> {
        self.admit_reserved(wal, ENDING_BYTES)
    }

    /// Whether the records that end the transaction can be appended at once.
    pub(crate) fn covers_ending(&self) -> bool {
        self.left() >= ENDING_BYTES
    }

    fn admit_reserved(&mut self, wal: &Wal, bytes: usize) -> Result<()> {
        if self.left() < bytes {
            let Self { ticket, reserve, .. } = self;
            wal.refill_reserved(ticket_in(ticket, wal)?, bytes, reserve)?;
        }
        Ok(())
    }

    /// Gives room in the ring back before a wait of unknown length; the bytes to take again.
    pub(crate) fn park(&mut self) -> usize {
        let left = self.left();
        if let Some(ticket) = &mut self.ticket {
            ticket.clear();
        }
        left
    }

    /// Bytes of disk space set aside for undo and end.
    pub(crate) fn reserved(&self) -> usize {
        self.reserve.left()
    }

    /// Sets `bytes` aside again, for a transaction that a restart found in doubt.
    pub(crate) fn restore(&mut self, wal: &Wal, bytes: u64) -> Result<()> {
        wal.reserve_again(bytes, &mut self.reserve)?;
        self.ending = true;
        Ok(())
    }

    /// Takes parked room again.
    pub(crate) fn unpark(&mut self, wal: &Wal, parked: usize) -> Result<()> {
        if parked > 0 {
            let Self { ticket, reserve, .. } = self;
            wal.refill(ticket_in(ticket, wal)?, parked, 0, reserve)?;
        }
        Ok(())
    }

    /// An undoable update was logged: its share of the reserve is spoken for.
    pub(crate) fn promise_undo(&mut self) {
        self.spare -= std::mem::take(&mut self.share).min(self.spare);
    }

    /// The ticket for a record of at most `bytes` bytes beside [`RECORD_OVERHEAD`].
    ///
    /// # Panics
    /// When the admission does not cover it: a bug of the caller.
    pub(crate) fn ticket(&mut self, bytes: usize) -> &mut LogTicket {
        let (need, left) = (RECORD_OVERHEAD + bytes, self.left());
        assert!(need <= left, "a record of up to {need} bytes, admitted were {left}");
        self.ticket.as_mut().expect("an absent ticket covers no record")
    }

    /// Gives everything back: the transaction is over.
    pub(crate) fn release(&mut self, wal: &Wal) {
        // Who only read was never admitted and has nothing to give back, and must not touch what writers share.
        let admitted = self.ending || self.reserve.left() > 0 || self.left() > 0;
        if let Some(ticket) = self.ticket.as_mut().filter(|_| admitted) {
            wal.release(ticket, &mut self.reserve);
        }
        (self.spare, self.share, self.ending) = (0, 0, false);
    }

    fn left(&self) -> usize {
        self.ticket.as_ref().map_or(0, LogTicket::left)
    }
}

/// The ticket, or a new one.
fn ticket_in<'t>(ticket: &'t mut Option<LogTicket>, wal: &Wal) -> Result<&'t mut LogTicket> {
    Ok(match ticket {
        Some(ticket) => ticket,
        none => none.insert(wal.ticket()?),
    })
}

/// What an admission asks for: rates, payload bytes, pages.
pub(crate) type Demand = (Rates, usize, usize);
