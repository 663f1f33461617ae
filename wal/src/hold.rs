//! Holds: readers of old records (backup, page repair) keep the log from being truncated under them.
//!
//! ```text
//!            first                    a hold moves on        checkpoint wants to truncate here
//!  log  ───────┼──────────────────────────┼──────────────────────────────────┼──────────
//!              └ a new hold begins here   └ freed up to here, no further
//! ```
//!
//! - H1: A hold begins at the first record kept, in one step with reading where that is, so no truncation
//!   can fall between.
//! - H2: A hold moves forward only, to the beginning of a record, and ends when its guard drops: a reader
//!   that fails, or panics, lets go.
//!
//! What restart needs (redo point, oldest transaction) is not held but told to [`Wal::truncate`] anew by
//! each checkpoint. Holds are in memory: nobody who reads survives a crash.

use std::collections::BTreeMap;

use argali_base::Lsn;
use argali_base::sync::Ordering;

use crate::{Holder, Wal};

/// Everybody who holds the log now, by the number of his guard.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    begun: u64,
    holders: BTreeMap<u64, Holder>,
}

/// Keeps the log from some record on while it lives; `stats` and `LogFull` name it.
#[derive(Debug)]
pub struct Hold<'w> {
    wal: &'w Wal,
    number: u64,
}

impl Wal {
    /// Holds the log from its first record on (H1). `what` is the name in `stats`.
    pub fn hold(&self, what: impl Into<String>) -> Hold<'_> {
        let mut holds = self.holds.lock();
        holds.begun += 1;
        let number = holds.begun;
        holds.holders.insert(number, Holder { what: what.into(), lsn: self.first() });
        Hold { wal: self, number }
    }

    /// Who held the log at the last truncation, and whoever holds it now.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let mut all = self.holders.lock().clone();
        all.extend(self.holds.lock().holders.values().cloned());
        all.sort_by_key(|holder| holder.lsn);
        all
    }

    /// Truncation: moves the first record kept to `least`, as far as holds and the durable end allow.
    pub(crate) fn move_first(&self, least: Lsn) -> Lsn {
        let holds = self.holds.lock();
        let held = holds.holders.values().map(|holder| holder.lsn).fold(least, Lsn::min);
        let first = held.min(self.durable().end()).max(self.first());
        self.first.store(first.get(), Ordering::Release);
        first
    }
}

impl Hold<'_> {
    /// The first record it keeps.
    pub fn lsn(&self) -> Lsn {
        self.wal.holds.lock().holders.get(&self.number).map_or(Lsn::MAX, |holder| holder.lsn)
    }

    /// From now on only records from `lsn` on are needed (H2).
    ///
    /// # Panics
    /// When `lsn` lies before what is held: the records may be gone.
    pub fn advance(&self, lsn: Lsn) {
        let mut holds = self.wal.holds.lock();
        let holder = holds.holders.get_mut(&self.number).expect("there while its guard lives");
        assert!(holder.lsn <= lsn, "H2: a hold at {} cannot go back to {lsn}", holder.lsn);
        holder.lsn = lsn;
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.wal.holds.lock().holders.remove(&self.number);
    }
}
