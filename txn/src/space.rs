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

/// Records that end a transaction: commit and end, or end alone after a rollback.
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

/// Log space of one transaction.
#[derive(Debug)]
pub(crate) struct LogSpace {
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
    pub(crate) fn new() -> Self {
        Self { ticket: None, reserve: UndoReserve::default(), spare: 0, share: 0, ending: false }
    }

    /// Room for ordinary updates.
    pub(crate) fn admit(&mut self, wal: &Wal, (rates, payload, pages): Demand) -> Result<()> {
        let bytes = rates.records(payload, pages);
        let ending = if self.ending { 0 } else { ENDING_BYTES };
        let undo = bytes.saturating_sub(self.spare) + ending;
        if self.left() < bytes || undo > 0 {
            // Whoever waits for room must hold none.
            self.ticket = None;
            self.ticket = Some(wal.admit(bytes, undo, &mut self.reserve)?);
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
            // What the last record did not need stays reserved: admissions are estimates.
            if let Some(ticket) = self.ticket.take() {
                wal.settle(ticket, &mut self.reserve);
            }
            self.ticket = Some(wal.admit_reserved(bytes, &mut self.reserve)?);
        }
        Ok(())
    }

    /// Gives room in the ring back before a wait of unknown length; the bytes to take again.
    pub(crate) fn park(&mut self) -> usize {
        self.ticket.take().map_or(0, |ticket| ticket.left())
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
            self.ticket = Some(wal.admit(parked, 0, &mut self.reserve)?);
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
        if self.ending {
            wal.release(&mut self.reserve);
            *self = Self::new();
        }
    }

    fn left(&self) -> usize {
        self.ticket.as_ref().map_or(0, LogTicket::left)
    }
}

/// What an admission asks for: rates, payload bytes, pages.
pub(crate) type Demand = (Rates, usize, usize);
