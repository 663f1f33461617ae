//! Restart and checkpoints: how a database that lost its memory gets it back.
//!
//! ```text
//!                 master record                                    end of log
//!                      │                                               │
//!  log  ───────────────┼───────────────────────────────────────────────┤
//!            ▲         begin ····· end                                 │
//!            │         │                                               │
//!            │         ├── analysis ─► who was active, what was dirty ─►│   reads records
//!            │ redo point                                              │
//!            ├──────────── redo: repeat history ──────────────────────►│   reads and changes pages
//!            │                                                         │   log resumes here
//!  ◄─────────┴──────────── undo: losers, newest record first ──────────┤   writes CLRs behind the end
//!  oldest loser                                                        └─► checkpoint
//! ```
//!
//! Restart is ARIES (Mohan et al., ACM TODS 17(1), 1992, section 6), one file per pass:
//!
//! * `analysis.rs` reads the log from the last complete checkpoint and rebuilds the two tables the
//!   crash took: transactions and dirty pages.
//! * `redo.rs` repeats history, losers included, so that pages look as they did at the crash. It
//!   knows pages and their operations; it has never heard of a tree. `partition.rs` judges and applies,
//!   fed with `batch.rs`es, by several threads where `workers.rs` has them; `read_ahead.rs` brings in
//!   the pages meanwhile.
//! * `once.rs` makes both passes, and finds the end of the log, in one reading of it.
//! * `undo.rs` takes the losers back in one backward sweep, through the same `undo_one` that rollback
//!   uses, and logs each step as a CLR, which is never undone itself. That is why a crash during
//!   restart costs nothing but time.
//! * `repair.rs` redoes a single page that came back damaged; `chain.rs` is what it shares with redo.
//! * `checkpoint.rs` writes what `analysis.rs` reads; `policy.rs` decides when; `ahead.rs` spreads the writing of
//!   pages over the time between two.
//! * `observer.rs` tells anybody who asks about each decision; nobody re-implements the passes.
//!
//! Rules that hold across the files (numbers are cited where they live):
//!
//! * **R1** Nothing is appended before redo is over and the tail is erased ([`Wal::resume`]).
//! * **R2** A record is applied to a page exactly when pageLSN < LSN, and then pageLSN must be the
//!   record's `page_prev`: a page write the disk forgot is found here and not papered over.
//! * **R3** A page redone keeps the recLSN the dirty page table has for it, so that a checkpoint taken
//!   right after restart is true, and redo of a torn page still begins with its image.
//! * **R4** The master record moves only to a checkpoint whose end record is durable, and the log is
//!   truncated only after the master record has moved.
//! * **R5** A checkpoint's tables are never older than its begin record: the begin record is appended
//!   first, the tables are read afterwards, and analysis starts at the begin record.
//! * **R6** A transaction in doubt is neither winner nor loser. Its locks are taken again before undo
//!   begins, and so before anybody else can ask for them.
//! * **R7** A torn page waits for a record that overwrites it; only if none comes is it damage. (The pool
//!   writes a page without a copy on the side when its recLSN is that of such a record.)
//!
//! Left out: opening the database before undo is over.

mod ahead;
mod analysis;
mod batch;
mod chain;
mod checkpoint;
mod observer;
mod once;
mod partition;
mod policy;
mod read_ahead;
mod redo;
mod repair;
mod retention;
mod undo;
mod workers;

use std::time::Duration;

use argali_base::sync::{Arc, Clock};
use argali_base::{Lsn, Result, TxnId};
use argali_buffer_pool::BufferPool;
use argali_txn::{Prepared, TxnManager};
use argali_wal::{ControlFile, Wal};

pub use analysis::in_doubt;
pub use checkpoint::{CheckpointReport, Checkpointer};
pub use observer::{Event, RecoveryObserver, RedoDecision, Silent};
pub use policy::{CheckpointPolicy, Flush, Never, Observed, Standard};
pub use repair::{OldPages, PageRepair, Repairer};

/// What restart and checkpoint work on. Made by the engine.
#[derive(Clone)]
pub struct Parts {
    /// Master record, clean mark and the other facts that survive without a log.
    pub control: Arc<ControlFile>,
    /// The log.
    pub wal: Arc<Wal>,
    /// The pages in memory; empty when restart begins.
    pub pool: Arc<BufferPool>,
    /// The transaction table.
    pub txns: Arc<TxnManager>,
    /// For the times in the reports.
    pub clock: Clock,
    /// Threads of redo; 0: none but its own, and a restart makes the same disk calls each time.
    pub workers: usize,
    /// Rules broken on purpose, in tests only.
    #[doc(hidden)]
    pub mutations: Mutations,
}

impl Parts {
    /// Time since `begun`, a reading of the same clock.
    pub(crate) fn since(&self, begun: Duration) -> Duration {
        self.clock.now().saturating_sub(begun)
    }
}

/// Protocol rules a test can switch off, to show that the crash campaigns would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent switches, one per rule
pub struct Mutations {
    /// Redo leaves out the records of losers.
    pub winners_only_redo: bool,
    /// Redo applies a record whatever the page says.
    pub redo_ignores_page_lsn: bool,
    /// A worker gets whole records, not the changes of its pages.
    pub redo_partitioned_by_record: bool,
    /// The one reading of the log does not compare the pages it met with the end it found.
    pub newest_page_ignored: bool,
    /// A page that the table of the checkpoint lacks never enters it.
    pub new_pages_not_dirty: bool,
    /// Checkpoints record an empty dirty page table.
    pub checkpoint_without_dirty_table: bool,
    /// A torn page is damage, whatever the log says next.
    pub torn_is_damage: bool,
    /// The log is truncated below the checkpoint, whoever still needs it.
    pub early_truncation: bool,
    /// Transactions in doubt are undone like losers.
    pub prepared_are_losers: bool,
}

impl Mutations {
    /// A redo that skips or repeats records on purpose breaks the chain at once; a test that wants to
    /// see what the rule protects has to look past that.
    pub(crate) fn break_chains(self) -> bool {
        self.winners_only_redo || self.redo_ignores_page_lsn
    }
}

/// What one pass did.
#[derive(Clone, Debug, Default)]
pub struct PassReport {
    /// Where in the log the pass began.
    pub from: Lsn,
    /// Where in the log it ended (undo goes backward: `to` is below `from`).
    pub to: Lsn,
    /// Records read.
    pub records: u64,
    /// Bytes of log between `from` and `to`.
    pub bytes: u64,
    /// Analysis: pages in the dirty page table. Redo: pages changed. Undo: 0, it works by record.
    pub pages: u64,
    /// How long it took.
    pub time: Duration,
}

/// What a restart did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// False after a clean shutdown: nothing had to be done.
    pub recovered: bool,
    /// First pass. Made in one reading of the log with the second, its time is that up to the checkpoint's end.
    pub analysis: PassReport,
    /// Second pass.
    pub redo: PassReport,
    /// Third pass.
    pub undo: PassReport,
    /// Transactions found committed at or after the checkpoint.
    pub winners: u64,
    /// Transactions that were active at the crash, by id.
    pub losers: Vec<TxnId>,
    /// Transactions prepared and not decided, by id.
    pub in_doubt: Vec<TxnId>,
    /// Page changes applied.
    pub applied: u64,
    /// Page changes skipped because the page is not in the dirty page table.
    pub skipped_not_dirty: u64,
    /// Page changes skipped because they are older than the page's recLSN.
    pub skipped_before_rec_lsn: u64,
    /// Page changes skipped because the page has them already.
    pub skipped_page_newer: u64,
    /// Page changes skipped because the page is torn and a later one overwrites it.
    pub skipped_page_torn: u64,
    /// CLRs written by undo.
    pub clrs_written: u64,
    /// Torn pages the pager put a whole copy over before restart began.
    pub pages_repaired: u64,
    /// Torn pages that redo made anew, from records that overwrite them.
    pub pages_overwritten: u64,
    /// Time of the checkpoint that ends the restart.
    pub checkpoint_time: Duration,
    /// Time of all of it.
    pub total_time: Duration,
}

/// What a restart leaves to whoever called it.
pub struct Restarted {
    /// What it did.
    pub report: Report,
    /// The transactions in doubt, by id. Somebody outside knows how they end.
    pub in_doubt: Vec<Prepared>,
}

/// Analysis, redo, undo, checkpoint (ARIES, section 6). Call it once, on a log just opened
/// ([`Wal::open_for_restart`]), with an empty pool and the undo handlers set; afterwards the log takes records.
///
/// A clean-shutdown mark that holds makes it return at once. A crash during it, at any point and any
/// number of times, costs only the repetition: undo goes on where its last durable CLR says.
///
/// # Errors
/// `Corrupt` when the end of the log is damage, when the log's chain, a checkpoint or a page contradicts the log: a
/// page at or past the end of the log, a page that misses a change it should have, a table that misses a
/// transaction. Anything the parts return. After an error the database stays closed; nothing is lost by trying again.
pub fn restart<O: RecoveryObserver>(parts: &Parts, observer: &mut O) -> Result<Restarted> {
    let begun = parts.clock.now();
    let mut report = Report { recovered: true, ..Report::default() };
    let at_once = once::read(parts, &mut report, observer)?;
    if parts.control.get().clean_end == Some(parts.wal.end()) {
        parts.wal.resume()?;
        let report = Report { total_time: parts.since(begun), ..Report::default() };
        return Ok(Restarted { report, in_doubt: Vec::new() });
    }
    report.pages_repaired = parts.pool.pager().stats().repaired;
    let history = match at_once {
        Some(history) => history,
        None => pass_by_pass(parts, &mut report, observer)?,
    };
    report.pages_overwritten = parts.pool.stats().torn_overwritten;
    parts.wal.resume()?; // R1
    parts.txns.raise_next_txn(history.next_txn);
    let in_doubt = undo::adopt_in_doubt(parts, &history, &mut report, observer)?; // R6
    undo::take_back_losers(parts, &history, &mut report, observer)?;
    let checkpoint = Checkpointer::new(parts.clone()).checkpoint(Flush::Nothing)?;
    report.checkpoint_time = checkpoint.time;
    report.total_time = parts.since(begun);
    observer::tell(observer, || Event::Finished { end: checkpoint.end });
    Ok(Restarted { report, in_doubt })
}

/// The first two passes, one after the other.
fn pass_by_pass<O: RecoveryObserver>(
    parts: &Parts,
    report: &mut Report,
    observer: &mut O,
) -> Result<analysis::History> {
    let history = analysis::analyse(parts, report, observer)?;
    redo::repeat_history(parts, &history, report, observer)?;
    Ok(history)
}
