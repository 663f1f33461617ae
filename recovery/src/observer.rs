//! What a restart tells whoever watches: one event per decision.
//!
//! ```text
//! analysis  @64: t1 running, first @64, last @64, undo from @64
//! redo      @64 p3: skipped, page at @128
//! undo      @64 t1: CLR @512, next none
//! ```
//!
//! Dump, stepper, visualiser and tests read these events; none of them re-implements a pass. Building
//! an event may cost an allocation, so the passes build one only when [`RecoveryObserver::wants`] says
//! so; for [`Silent`] that is a constant and the compiler removes the rest.

use std::fmt;

use argali_base::{Lsn, PageId, TxnId};
use argali_wal::{ActiveTxn, DirtyPage, TxnState};

/// One decision of a restart. `Display` gives the line the command line tools print.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The first pass starts.
    AnalysisBegins {
        /// The master record, or the first record of a log without a checkpoint.
        from: Lsn,
    },
    /// A transaction entered the table or changed in it.
    Transaction {
        /// The record that says so.
        lsn: Lsn,
        /// The entry as it is now.
        txn: ActiveTxn,
    },
    /// A transaction left the table.
    Ended {
        /// Its end record.
        lsn: Lsn,
        /// Which.
        txn: TxnId,
    },
    /// A page entered the dirty page table, or got a smaller recLSN.
    Dirty {
        /// The record that says so.
        lsn: Lsn,
        /// The entry as it is now.
        page: DirtyPage,
    },
    /// The first pass is over.
    AnalysisEnds {
        /// Where redo begins: the least recLSN.
        redo: Lsn,
        /// Transactions to undo, by id.
        losers: Vec<ActiveTxn>,
        /// The dirty page table, by page.
        dirty: Vec<DirtyPage>,
    },
    /// Redo looked at one change of one record.
    Redo {
        /// The record.
        lsn: Lsn,
        /// The page it changes.
        page: PageId,
        /// What was done about it.
        decision: RedoDecision,
        /// The operations, in words.
        ops: String,
    },
    /// A transaction whose vote is in the log and whose decision is not: undo leaves it alone.
    InDoubt {
        /// Which.
        txn: TxnId,
        /// Its global name.
        gid: String,
        /// How many locks it has taken again.
        locks: usize,
    },
    /// Undo took one record back, or stepped over one that is never undone.
    Undo {
        /// The record.
        lsn: Lsn,
        /// Whose it is.
        txn: TxnId,
        /// The compensation written, if any.
        clr: Option<Lsn>,
        /// Where this transaction's undo goes on; `NONE` = finished.
        undo_next: Lsn,
    },
    /// A loser got its end record.
    LoserEnded {
        /// Which.
        txn: TxnId,
    },
    /// The restart is over, its checkpoint durable.
    Finished {
        /// Where the log ends now.
        end: Lsn,
    },
}

/// What redo did with one change. The first three filters of ARIES, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedoDecision {
    /// The page lacked the change; it has it now.
    Applied,
    /// The page is not in the dirty page table: everything in the log is in it on disk.
    NotDirty,
    /// The change is older than the page's recLSN: it is in the page on disk.
    BeforeRecLsn {
        /// First record that may not be in the page on disk.
        rec_lsn: Lsn,
    },
    /// The page was read and says it has the change.
    PageIsNewer {
        /// What the page says.
        page_lsn: Lsn,
    },
    /// The page is torn. A later record overwrites it, or redo ends with the damage.
    PageIsTorn,
}

/// Receives the events of a restart, in order.
pub trait RecoveryObserver {
    /// Whether events are wanted at all; `false` lets the passes skip building them.
    fn wants(&self) -> bool {
        true
    }
    /// Takes one event.
    fn event(&mut self, event: Event);
}

/// Observes nothing and costs nothing.
pub struct Silent;

impl RecoveryObserver for Silent {
    fn wants(&self) -> bool {
        false
    }
    fn event(&mut self, _: Event) {}
}

/// Builds and sends an event only if anybody wants it.
pub(crate) fn tell<O: RecoveryObserver>(observer: &mut O, event: impl FnOnce() -> Event) {
    if observer.wants() {
        observer.event(event());
    }
}

/// Prints an LSN, or "none".
struct Or(Lsn);

impl fmt::Display for Or {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_none() { f.write_str("none") } else { self.0.fmt(f) }
    }
}

/// Prints a transaction table entry.
struct Entry<'a>(&'a ActiveTxn);

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ActiveTxn { txn, state, first, last, undo_next } = *self.0;
        let state = match state {
            TxnState::Running => "running",
            TxnState::Committed => "committed",
            TxnState::Prepared => "prepared",
        };
        write!(
            f,
            "{txn} {state}, first {}, last {}, undo from {}",
            Or(first),
            Or(last),
            Or(undo_next)
        )
    }
}

impl fmt::Display for RedoDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::NotDirty => f.write_str("skipped, not in the dirty page table"),
            Self::BeforeRecLsn { rec_lsn } => write!(f, "skipped, older than recLSN {rec_lsn}"),
            Self::PageIsNewer { page_lsn } => write!(f, "skipped, page at {page_lsn}"),
            Self::PageIsTorn => f.write_str("skipped, page torn"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnalysisBegins { from } => write!(f, "analysis  from {from}"),
            Self::Transaction { lsn, txn } => write!(f, "analysis  {lsn}: {}", Entry(txn)),
            Self::Ended { lsn, txn } => write!(f, "analysis  {lsn}: {txn} ended"),
            Self::Dirty { lsn, page } => {
                write!(f, "analysis  {lsn}: {} dirty from {}", page.page, page.rec_lsn)
            }
            Self::AnalysisEnds { redo, losers, dirty } => {
                write!(f, "analysis  ends: redo from {redo}")?;
                losers.iter().try_for_each(|loser| write!(f, "\nloser     {}", Entry(loser)))?;
                dirty.iter().try_for_each(|page| {
                    write!(f, "\ndirty     {} from {}", page.page, page.rec_lsn)
                })
            }
            Self::Redo { lsn, page, decision, ops } => {
                write!(f, "redo      {lsn} {page} {ops}: {decision}")
            }
            Self::InDoubt { txn, gid, locks } => {
                write!(
                    f,
                    "in doubt  {txn} is \"{}\": {locks} locks taken again",
                    gid.escape_debug()
                )
            }
            Self::Undo { lsn, txn, clr, undo_next } => {
                write!(f, "undo      {lsn} {txn}: ")?;
                match clr {
                    Some(clr) => write!(f, "CLR {clr}, ")?,
                    None => f.write_str("stepped over, ")?,
                }
                write!(f, "next {}", Or(*undo_next))
            }
            Self::LoserEnded { txn } => write!(f, "undo      {txn} ended"),
            Self::Finished { end } => write!(f, "finished  log ends at {end}"),
        }
    }
}
