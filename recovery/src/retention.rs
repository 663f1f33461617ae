//! How much log is kept beyond what restart needs, so that a damaged page finds its history there.
//!
//! ```text
//!              ├──────────── keep_bytes ────────────┤
//!   log  ──┼───┬───────────┼───────────┼────────────┼─
//!          ▲   └ oldest byte wanted                 end
//!          └ first record of that segment: kept from here
//! ```
//!
//! The log can begin only where a record does, and goes by whole segments. So it is kept from the first record of
//! the segment in which the oldest byte wanted lies: at most a segment more than was asked for. Where that record
//! stands is read from the segment itself, so that a database that is opened again and again, each time for
//! little, keeps no more than one that stays open. Nothing is looked for until a segment could go.

use argali_base::Lsn;
use argali_wal::Wal;

/// From where the log is kept.
#[derive(Debug)]
pub(crate) struct Retention {
    keep_bytes: u64,
    first: Lsn,
}

impl Retention {
    /// Goes on with a log that is kept from `first`.
    pub(crate) const fn new(keep_bytes: u64, first: Lsn) -> Self {
        Self { keep_bytes, first }
    }

    /// From where to keep a log that a restart needs from `needed`, and that ends at `end`.
    pub(crate) fn keep_from(&mut self, wal: &Wal, needed: Lsn, end: Lsn) -> Lsn {
        let oldest = Lsn::new(end.get().saturating_sub(self.keep_bytes));
        let segment = |lsn: Lsn| lsn.get() / wal.options().segment_bytes;
        if oldest >= needed {
            self.first = needed;
        } else if segment(oldest) > segment(self.first) {
            // None is found where one record fills the segment, or where it cannot be read: a later segment will
            // do, and no checkpoint fails for that.
            let found = wal.first_in_segment(oldest).unwrap_or(None);
            self.first = found.unwrap_or(self.first);
        }
        self.first = self.first.min(needed);
        self.first
    }
}
