//! The fuzzy checkpoint: a note in the log of who is active and which pages are dirty, so that restart
//! need not read the log from its beginning (ARIES, section 5.4). Written here, read by `analysis.rs`.
//!
//! ```text
//!  1 write back pages        as the policy asks; none, old ones, or all
//!  2 sync the data file      pages written before leave the dirty page table
//!  3 append begin            ┐ others log on; what happens from here on
//!  4 read the two tables     │ analysis will see for itself
//!  5 append end, in chunks   ┘
//!  6 force the log
//!  7 move the master record  the checkpoint exists from this instant
//!  8 truncate the log        below the least of those who need it
//! ```
//!
//! Numbered, because the order is the protocol:
//!
//! * **C1** The data sync comes before the tables are read: a page that was written but not synced
//!   stays in the dirty page table, and would hold the redo point back for nothing.
//! * **C2** Begin is appended before the tables are read (R5). What changed before begin is in the
//!   tables, what changed after it is in the log after begin; nothing can fall between.
//! * **C3** The master record moves after the end record is durable (R4). A crash before that leaves
//!   the old checkpoint in force and two useless records in the log.
//! * **C4** The log is truncated after the master record has moved, below
//!   `min(begin, least recLSN, first record of the oldest transaction)`, every hold on the log, and what is to
//!   be kept for page repair.
//!
//! No commit waits for a checkpoint: it holds no latch and no lock while it does I/O, the tables are
//! read entry by entry, and it shares the log's forces like any committer. Its records draw on the
//! space kept for ending transactions, since it is the checkpoint that frees a full log.
//!
//! Chunks keep the end record below the largest record the log takes: a table of a million dirty pages
//! is 16 MB.

use std::time::Duration;

use argali_base::sync::Mutex;
use argali_base::{Error, Lsn, Result, TxnId};
use argali_wal::{
    ActiveTxn, Body, CheckpointTables, Control, DirtyPage, Holder, RECORD_BYTES_MAX, Record,
    TxnState, UndoReserve, Wal,
};

use crate::Parts;
use crate::ahead::Ahead;
use crate::policy::{CheckpointPolicy, Flush, Observed};
use crate::retention::Retention;

/// Entries of both tables in one chunk.
const CHUNK_ENTRIES: usize = 4096;

/// Upper bound of an encoded table entry, in bytes.
const ENTRY_BYTES_MAX: usize = 64;

/// Upper bound of what a record's frame and fixed fields add to its tables, in bytes.
const RECORD_OVERHEAD: usize = 128;

const _: () = assert!(RECORD_OVERHEAD + CHUNK_ENTRIES * ENTRY_BYTES_MAX <= RECORD_BYTES_MAX);

/// What a checkpoint did.
#[derive(Clone, Debug, Default)]
pub struct CheckpointReport {
    /// Its begin record: the new master record.
    pub begin: Lsn,
    /// Where the log stood behind its last chunk.
    pub end: Lsn,
    /// Where redo would begin.
    pub redo: Lsn,
    /// First LSN a restart from this checkpoint reads: redo or undo.
    pub restart_first: Lsn,
    /// First LSN the log still keeps a record for.
    pub log_first: Lsn,
    /// Pages written back before it.
    pub pages_written: usize,
    /// Entries of the dirty page table it recorded.
    pub dirty_pages: usize,
    /// Entries of the transaction table it recorded.
    pub active_txns: usize,
    /// How long it took.
    pub time: Duration,
}

/// Takes checkpoints of one database. `Send` and `Sync`; concurrent calls take turns.
pub struct Checkpointer {
    parts: Parts,
    /// Held for the whole of a checkpoint.
    turn: Mutex<Turn>,
    /// Apart from `turn`, so that looking at the clock never waits for a running checkpoint.
    last: Mutex<Last>,
    ahead: Mutex<Ahead>,
}

/// What a checkpoint needs from the one before: its begin record, and buffers.
struct Turn {
    previous_begin: Lsn,
    retention: Retention,
    dirty: Vec<DirtyPage>,
    active: Vec<ActiveTxn>,
    encoded: Vec<u8>,
}

/// When and where the last checkpoint ended.
struct Last {
    at: Duration,
    end: Lsn,
}

impl Checkpointer {
    /// Goes on where the master record says. Make it after [`restart`](crate::restart).
    pub fn new(parts: Parts) -> Self {
        let control = parts.control.get();
        let last = Last { at: parts.clock.now(), end: control.checkpoint_end };
        let keep_bytes = parts.wal.options().keep_bytes;
        let turn = Turn {
            previous_begin: control.checkpoint,
            retention: Retention::new(keep_bytes, control.log_first),
            dirty: Vec::new(),
            active: Vec::new(),
            encoded: Vec::new(),
        };
        Self { parts, turn: Mutex::new(turn), last: Mutex::new(last), ahead: Mutex::default() }
    }

    /// Takes one checkpoint now; concurrent calls take turns.
    ///
    /// # Errors
    /// A page that could not be written back is reported after the checkpoint was taken without it:
    /// it stays in the dirty page table. Any other error means that the old checkpoint is in force.
    pub fn checkpoint(&self, flush: Flush) -> Result<CheckpointReport> {
        let begun = self.parts.clock.now();
        let mut turn = self.turn.lock();
        let written = self.write_back(&mut turn, flush);
        self.sync_data(&mut turn)?;
        let mut report = self.log_tables(&mut turn)?;
        self.move_master(&mut report, &mut turn)?;
        turn.previous_begin = report.begin;
        report.pages_written = written?;
        report.time = self.parts.since(begun);
        *self.last.lock() = Last { at: self.parts.clock.now(), end: report.end };
        self.ahead.lock().start(&turn.dirty);
        Ok(report)
    }

    /// Writes a batch of the pages that the next checkpoint would write, if `policy` wants them written by now;
    /// how many it took up. The body of a background thread.
    pub fn write_ahead(&self, policy: &dyn CheckpointPolicy) -> Result<usize> {
        let seen = self.observe();
        let mut ahead = self.ahead.lock();
        let by_now = policy.written_by_now(&seen, ahead.len());
        let due = ahead.due(by_now);
        drop(ahead);
        self.parts.pool.write_back(&due)?;
        Ok(due.len())
    }

    /// Takes one if `policy` says so: the body of a background thread, or a call between transactions.
    pub fn step(&self, policy: &dyn CheckpointPolicy) -> Result<Option<CheckpointReport>> {
        policy.decide(&self.observe()).map(|flush| self.checkpoint(flush)).transpose()
    }

    /// What a policy would see now.
    pub fn observe(&self) -> Observed {
        let (log, pool) = (self.parts.wal.stats(), self.parts.pool.stats());
        let last = self.last.lock();
        Observed {
            since_last: self.parts.clock.now().saturating_sub(last.at),
            log_bytes_since_last: log.tail.get().saturating_sub(last.end.get()),
            log_bytes_kept: log.tail.get().saturating_sub(log.first_lsn.get()),
            log_bytes_limit: self.parts.wal.options().limit_bytes,
            dirty_pages: pool.dirty,
            frames: pool.frames,
        }
    }

    /// Writes everything, takes a checkpoint and marks the database clean: the next open has nothing to
    /// do but to see that page 0 is at `data_stamp`. Call it after every transaction has ended. If one has
    /// not, or a page could not be written, there is no mark and the next open recovers. Nor is there one with
    /// transactions in doubt: the next open has their locks to take again.
    pub fn shut_down(&self, data_stamp: Lsn) -> Result<()> {
        let report = self.checkpoint(Flush::Everything)?;
        let nothing_left = report.dirty_pages == 0 && report.active_txns == 0;
        if !nothing_left || self.parts.wal.tail() != report.end {
            return Ok(());
        }
        // Everything in place is synced, so no copy is needed; the next open need not look at any.
        self.parts.pool.pager().clear_doublewrite()?;
        self.update_control(|control| {
            control.clean_end = Some(report.end);
            control.data_stamp = data_stamp;
        })
    }

    /// A failed sync of the control file is a failed sync: nothing is promised any more.
    fn update_control(&self, change: impl FnOnce(&mut Control)) -> Result<()> {
        self.parts.control.update(change).map_err(|error| match error {
            Error::Io { op: "sync", .. } => self.parts.wal.health().poison(error),
            error => error,
        })
    }

    /// Step 1. A page somebody is changing is passed over; it stays in the table.
    fn write_back(&self, turn: &mut Turn, flush: Flush) -> Result<usize> {
        let before = match flush {
            Flush::Nothing => return Ok(0),
            Flush::Old => turn.previous_begin,
            Flush::Everything => Lsn::MAX,
        };
        self.parts.pool.dirty_pages(&mut turn.dirty);
        let old = turn.dirty.iter().filter(|page| page.rec_lsn < before);
        let ids: Vec<_> = old.map(|page| page.page).collect();
        self.parts.pool.write_back(&ids)
    }

    /// Step 2 (C1). Without dirty pages there is nothing a sync could take from the table.
    fn sync_data(&self, turn: &mut Turn) -> Result<()> {
        self.parts.pool.dirty_pages(&mut turn.dirty);
        if turn.dirty.is_empty() { Ok(()) } else { self.parts.pool.sync() }
    }

    /// Steps 3 to 6.
    fn log_tables(&self, turn: &mut Turn) -> Result<CheckpointReport> {
        let Parts { wal, pool, txns, mutations, .. } = &self.parts;
        pool.begin_image_epoch(); // means something only to a pool that a test has broken
        let durable = wal.durable().end();
        let begin = append(wal, &outside(Body::CheckpointBegin { durable }), 0)?; // C2
        pool.dirty_pages(&mut turn.dirty);
        txns.active(&mut turn.active);
        let redo = turn.dirty.iter().map(|page| page.rec_lsn).fold(begin, Lsn::min);
        let dirty_pages = turn.dirty.len();
        if mutations.checkpoint_without_dirty_table {
            turn.dirty.clear();
        }
        let last = self.append_chunks(turn, begin)?;
        let end = wal.force(last)?.end(); // C3
        Ok(CheckpointReport {
            begin,
            end,
            redo,
            dirty_pages,
            active_txns: turn.active.len(),
            ..CheckpointReport::default()
        })
    }

    /// Step 5; returns the LSN of the last chunk.
    fn append_chunks(&self, turn: &mut Turn, begin: Lsn) -> Result<Lsn> {
        let mut lsn = begin;
        for (dirty, active, last) in chunks(&turn.dirty, &turn.active, CHUNK_ENTRIES) {
            let tables = CheckpointTables::encode(&mut turn.encoded, dirty, active);
            let durable = self.parts.wal.durable().end();
            let body = Body::CheckpointEnd { begin, durable, last, tables };
            lsn = append(&self.parts.wal, &outside(body), dirty.len() + active.len())?;
        }
        Ok(lsn)
    }

    /// Steps 7 and 8.
    fn move_master(&self, report: &mut CheckpointReport, turn: &mut Turn) -> Result<()> {
        let Parts { wal, pool, txns, mutations, .. } = &self.parts;
        let mut holders = vec![Holder { what: "redo point".into(), lsn: report.redo }];
        holders.extend(transactions_that_hold(&turn.active));
        if mutations.early_truncation {
            holders = vec![Holder { what: "checkpoint".into(), lsn: report.begin }];
        }
        report.restart_first =
            holders.iter().map(|holder| holder.lsn).min().unwrap_or(report.begin);
        let log_first = turn.retention.keep_from(wal, report.restart_first, report.end);
        if log_first < report.restart_first {
            holders.push(Holder { what: "page repair (keep_log_bytes)".into(), lsn: log_first });
        }
        let (next_txn, pages) = (txns.next_txn(), pool.pager().pages());
        self.update_control(|control| {
            control.checkpoint = report.begin;
            control.checkpoint_end = report.end;
            control.log_first = log_first;
            control.clean_end = None;
            control.next_txn = next_txn;
            control.pages = pages;
        })?;
        report.log_first = wal.truncate(holders)?; // C4
        Ok(())
    }
}

/// Undo may read back to the oldest transaction. Those in doubt are all named: they may last, and somebody
/// can do something about each.
fn transactions_that_hold(active: &[ActiveTxn]) -> impl Iterator<Item = Holder> {
    let oldest = active.iter().min_by_key(|txn| txn.first).map(|txn| txn.txn);
    let holds = move |txn: &&ActiveTxn| txn.state == TxnState::Prepared || Some(txn.txn) == oldest;
    active.iter().filter(holds).map(|txn| {
        let kind = match txn.state {
            TxnState::Prepared => "prepared",
            TxnState::Running | TxnState::Committed => "oldest",
        };
        Holder { what: format!("{kind} transaction {}", txn.txn), lsn: txn.first }
    })
}

/// A record that belongs to no transaction.
fn outside(body: Body<'_>) -> Record<'_> {
    Record { txn: TxnId::NONE, prev: Lsn::NONE, body }
}

/// Appends a record out of the space kept for records that must never fail; `entries` is how many
/// table entries it carries.
fn append(wal: &Wal, record: &Record<'_>, entries: usize) -> Result<Lsn> {
    let bytes = RECORD_OVERHEAD + entries * ENTRY_BYTES_MAX;
    let mut ticket = wal.admit_reserved(bytes, &mut UndoReserve::default())?;
    Ok(wal.append(&mut ticket, record))
}

/// Cuts both tables into pieces of at most `most` entries, dirty pages first; there is always a last
/// piece, empty if need be.
fn chunks<'t>(
    mut dirty: &'t [DirtyPage],
    mut active: &'t [ActiveTxn],
    most: usize,
) -> impl Iterator<Item = (&'t [DirtyPage], &'t [ActiveTxn], bool)> {
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let (pages, rest) = dirty.split_at(dirty.len().min(most));
        dirty = rest;
        let (txns, rest) = active.split_at(active.len().min(most - pages.len()));
        active = rest;
        over = dirty.is_empty() && active.is_empty();
        Some((pages, txns, over))
    })
}

#[cfg(test)]
mod tests {
    use argali_base::PageId;

    use super::*;

    fn tables(pages: u64, txns: u64) -> (Vec<DirtyPage>, Vec<ActiveTxn>) {
        let lsn = Lsn::FIRST;
        let dirty = (0..pages).map(|n| DirtyPage { page: PageId::new(n), rec_lsn: lsn }).collect();
        let active = (1..=txns).map(|n| ActiveTxn {
            txn: TxnId::new(n),
            state: TxnState::Running,
            first: lsn,
            last: lsn,
            undo_next: lsn,
        });
        (dirty, active.collect())
    }

    #[test]
    fn chunks_hold_everything_once_and_end_once() {
        for (pages, txns, expected) in [
            (0, 0, vec![0]),
            (3, 0, vec![3]),
            (4, 0, vec![4]),
            (5, 2, vec![4, 3]),
            (4, 5, vec![4, 4, 1]),
        ] {
            let (dirty, active) = tables(pages, txns);
            let all: Vec<_> = chunks(&dirty, &active, 4).collect();
            let sizes: Vec<_> = all.iter().map(|(d, a, _)| d.len() + a.len()).collect();
            assert_eq!(sizes, expected);
            assert!(all.iter().rev().skip(1).all(|chunk| !chunk.2) && all.last().unwrap().2);
            assert_eq!(all.iter().flat_map(|c| c.0).copied().collect::<Vec<_>>(), dirty);
            assert_eq!(all.iter().flat_map(|c| c.1).copied().collect::<Vec<_>>(), active);
        }
    }
}
