//! First pass: reads the log from the last complete checkpoint to its end and rebuilds what the crash
//! took, the transaction table and the dirty page table (ARIES, section 6.1).
//!
//! ```text
//!  begin          t1's update   t2's commit     chunk: t1, t2, p3 dirty from 90      end of log
//!  ──┼─────────────────┼────────────┼──────────────────────┼──────────────────────────┼
//!    └ start here      └ t1 enters  └ t2 is over            └ t2 is *not* let in again
//! ```
//!
//! The checkpoint's tables were read while others kept logging, so they are somewhat older than the
//! record that carries them. The scan has seen everything since the begin record by then, and wins
//! every conflict:
//!
//! | in the chunk                   | seen by the scan        | result                               |
//! | ------------------------------ | ----------------------- | ------------------------------------ |
//! | transaction                    | nothing                 | the chunk's entry                    |
//! | transaction                    | its records             | least `first`, greater `last`        |
//! | transaction                    | its commit, or its end  | stays out (**A1**: no resurrection)  |
//! | page                           | nothing                 | the chunk's recLSN                   |
//! | page                           | a change                | the smaller recLSN                   |
//!
//! **A2** When the scan is over, the first record of each transaction in the table is known. If not,
//! the checkpoint lost an entry, and undo would stop too early: `Corrupt`.
//!
//! A vote ([`Body::Prepare`], its last piece) takes a transaction out of the losers and into doubt. Its next
//! record is the decision, whichever it is: a commit, or the CLR that begins its rollback.
//!
//! **A3** Each record of a transaction names its predecessor, so a record missing from the middle of
//! the log cannot go unseen.
//!
//! Whoever looks for the end of the log reads the same records, and redo reads them, too: `once.rs` has one
//! reading serve all three. Observed, or when anything was odd in that reading, analysis reads the log
//! as if nobody had, and that is the pass whose decisions and errors count.
//!
//! Chunks of a checkpoint other than the one the master record names are passed over: the scan knows
//! all they say. Analysis changes nothing, on disk or in the pool.

use std::collections::{BTreeSet, HashMap};

use argali_base::{Error, Lsn, PageId, Result, TxnId};
use argali_wal::{
    ActiveTxn, Body, Changes, CheckpointTables, Control, DirtyPage, Lent, Record, TxnState, Wal,
};

use foldhash::fast::FixedState;

use crate::observer::{Event, RecoveryObserver, Silent, tell};
use crate::{Parts, Report};

/// A dirty page table: page and recLSN.
pub(crate) type DirtyPages = HashMap<PageId, Lsn, FixedState>;

/// What analysis found out: all that redo and undo need to know about the crash.
pub(crate) struct History {
    /// Where redo begins: the least recLSN, or the end of the log when no page is dirty.
    pub(crate) redo: Lsn,
    /// Where the log ends.
    pub(crate) end: Lsn,
    /// The dirty page table: page and recLSN.
    pub(crate) dirty: DirtyPages,
    /// Transactions without vote, commit or end, by id.
    pub(crate) losers: Vec<ActiveTxn>,
    /// Transactions that voted and were not decided, by id.
    pub(crate) in_doubt: Vec<ActiveTxn>,
    /// Every transaction id below this may have been used.
    pub(crate) next_txn: u64,
}

/// Runs the pass.
pub(crate) fn analyse<O: RecoveryObserver>(
    parts: &Parts,
    report: &mut Report,
    observer: &mut O,
) -> Result<History> {
    let begun = parts.clock.now();
    let (tables, records) = read(&parts.control.get(), &parts.wal, observer)?;
    report.analysis.records = records;
    report.analysis.pages = tables.dirty.len() as u64;
    let history = tables.conclude(parts, report)?;
    report.analysis.time = parts.since(begun);
    tell(observer, || Event::AnalysisEnds {
        redo: history.redo,
        losers: history.losers.clone(),
        dirty: sorted(&history.dirty),
    });
    Ok(history)
}

/// Reads the log from the master record on; the tables, and how many records there were.
fn read<O: RecoveryObserver>(
    control: &Control,
    wal: &Wal,
    observer: &mut O,
) -> Result<(Tables, u64)> {
    let mut tables = Tables::new(control, wal.durable().end());
    tell(observer, || Event::AnalysisBegins { from: tables.from });
    let mut scan = wal.scan(tables.from);
    let mut records = 0;
    while let Some(Lent { lsn, record }) = scan.lend()? {
        tables.see(lsn, &record, observer)?;
        records += 1;
    }
    Ok((tables, records))
}

/// The two tables while the scan goes on.
pub(crate) struct Tables {
    /// First record read: the master record, or the log's first record before any checkpoint.
    from: Lsn,
    end: Lsn,
    checkpoint: Progress,
    txns: HashMap<TxnId, ActiveTxn, FixedState>,
    /// Seen to end before the checkpoint's last chunk (A1); empty afterwards.
    ended: BTreeSet<TxnId>,
    dirty: DirtyPages,
    /// Somebody else keeps the dirty page table.
    without_pages: bool,
    winners: u64,
    next_txn: u64,
}

/// How much of the master record's checkpoint has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The begin record must be the first record read.
    BeginExpected,
    /// Chunks are outstanding.
    ChunksExpected,
    /// All read, or there was never a checkpoint.
    Complete,
}

impl Tables {
    /// Before the first record; the log ends at `end`.
    pub(crate) fn new(control: &Control, end: Lsn) -> Self {
        let taken = control.checkpoint_end > control.checkpoint;
        Self {
            from: control.checkpoint.max(Lsn::FIRST),
            end,
            checkpoint: if taken { Progress::BeginExpected } else { Progress::Complete },
            txns: HashMap::default(),
            ended: BTreeSet::new(),
            dirty: DirtyPages::default(),
            without_pages: false,
            winners: 0,
            next_txn: control.next_txn,
        }
    }

    /// Whether all of the master record's checkpoint has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.checkpoint == Progress::Complete
    }

    /// Hands the dirty page table over to somebody who keeps it from here on.
    pub(crate) fn hand_over_pages(&mut self) -> DirtyPages {
        self.without_pages = true;
        std::mem::take(&mut self.dirty)
    }

    /// Takes one record into account.
    pub(crate) fn see<O: RecoveryObserver>(
        &mut self,
        lsn: Lsn,
        record: &Record<'_>,
        observer: &mut O,
    ) -> Result<()> {
        let begins = matches!(record.body, Body::CheckpointBegin { .. });
        if self.checkpoint == Progress::BeginExpected {
            if !begins {
                return Err(corrupt(lsn, "the master record names no begin of a checkpoint"));
            }
            self.checkpoint = Progress::ChunksExpected;
        }
        match record.body {
            Body::Update { changes, .. } => {
                self.chain(lsn, record, observer, |txn| txn.undo_next = lsn)?;
                self.dirty(lsn, changes, observer);
            }
            Body::Compensation { changes, undo_next } => {
                self.chain(lsn, record, observer, |txn| {
                    txn.undo_next = undo_next;
                    txn.state = TxnState::Running;
                })?;
                self.dirty(lsn, changes, observer);
            }
            Body::Prepare { last, .. } => {
                self.chain(lsn, record, observer, |txn| {
                    txn.undo_next = lsn;
                    txn.state = if last { TxnState::Prepared } else { txn.state };
                })?;
            }
            Body::Commit { .. } => {
                self.winners += 1;
                self.chain(lsn, record, observer, |txn| txn.state = TxnState::Committed)?;
                self.end(lsn, record.txn, observer);
            }
            Body::End => self.end(lsn, record.txn, observer),
            Body::CheckpointBegin { .. } => {}
            Body::CheckpointEnd { begin, last, tables, .. } => {
                if begin == self.from {
                    self.merge(lsn, tables, last, observer);
                }
            }
        }
        Ok(())
    }

    /// Brings the record's transaction up to date (A3), then lets `change` say what is special.
    fn chain<O: RecoveryObserver>(
        &mut self,
        lsn: Lsn,
        record: &Record<'_>,
        observer: &mut O,
        change: impl FnOnce(&mut ActiveTxn),
    ) -> Result<()> {
        let id = record.txn;
        self.next_txn = self.next_txn.max(id.get() + 1);
        let txn = self.txns.entry(id).or_insert(ActiveTxn {
            txn: id,
            state: TxnState::Running,
            // A transaction seen in mid-life has its first record before the checkpoint: the chunk says.
            first: if record.prev.is_none() { lsn } else { Lsn::NONE },
            last: record.prev,
            undo_next: lsn,
        });
        if txn.last != record.prev {
            let (prev, last) = (record.prev, txn.last);
            let what = format!("the record follows {prev} of {id}, whose last record is {last}");
            return Err(corrupt(lsn, what));
        }
        txn.last = lsn;
        change(txn);
        tell(observer, || Event::Transaction { lsn, txn: *txn });
        Ok(())
    }

    fn end<O: RecoveryObserver>(&mut self, lsn: Lsn, id: TxnId, observer: &mut O) {
        self.txns.remove(&id);
        self.next_txn = self.next_txn.max(id.get() + 1);
        if self.checkpoint == Progress::ChunksExpected {
            self.ended.insert(id);
        }
        tell(observer, || Event::Ended { lsn, txn: id });
    }

    /// The first record that changes a page since the checkpoint is its recLSN, unless the chunk knows
    /// an older one.
    fn dirty<O: RecoveryObserver>(&mut self, lsn: Lsn, changes: Changes<'_>, observer: &mut O) {
        if self.without_pages {
            return;
        }
        for change in changes.iter() {
            self.lower(lsn, DirtyPage { page: change.page, rec_lsn: lsn }, observer);
        }
    }

    fn lower<O: RecoveryObserver>(&mut self, lsn: Lsn, page: DirtyPage, observer: &mut O) {
        let rec_lsn = self.dirty.entry(page.page).or_insert(Lsn::MAX);
        if page.rec_lsn < *rec_lsn {
            *rec_lsn = page.rec_lsn;
            tell(observer, || Event::Dirty { lsn, page });
        }
    }

    /// Merges one chunk by the table at the head of this file.
    fn merge<O: RecoveryObserver>(
        &mut self,
        lsn: Lsn,
        chunk: CheckpointTables<'_>,
        last: bool,
        observer: &mut O,
    ) {
        for page in chunk.dirty() {
            self.lower(lsn, page, observer);
        }
        for txn in chunk.active() {
            self.next_txn = self.next_txn.max(txn.txn.get() + 1);
            if !self.ended.contains(&txn.txn) {
                self.admit(lsn, txn, observer);
            }
        }
        if last {
            self.checkpoint = Progress::Complete;
            self.ended.clear();
        }
    }

    fn admit<O: RecoveryObserver>(&mut self, lsn: Lsn, chunk: ActiveTxn, observer: &mut O) {
        let entry = self.txns.entry(chunk.txn).or_insert_with(|| {
            self.winners += u64::from(chunk.state == TxnState::Committed);
            chunk
        });
        let first = chunk.first;
        if chunk.last > entry.last {
            *entry = chunk;
        }
        entry.first = first;
        let txn = *entry;
        tell(observer, || Event::Transaction { lsn, txn });
    }

    /// What the pass found out, and in the report.
    pub(crate) fn conclude(mut self, parts: &Parts, report: &mut Report) -> Result<History> {
        self.end = parts.wal.end();
        report.analysis.from = self.from;
        report.analysis.to = self.end;
        report.analysis.bytes = self.end.get().saturating_sub(self.from.get());
        report.winners = self.winners;
        let history = self.finish(parts.mutations.prepared_are_losers)?;
        report.losers = history.losers.iter().map(|loser| loser.txn).collect();
        Ok(history)
    }

    /// Sorts the transactions into losers and undecided ones, and checks A2. A transaction that a chunk calls
    /// committed is over.
    fn finish(self, prepared_are_losers: bool) -> Result<History> {
        if self.checkpoint != Progress::Complete {
            return Err(corrupt(self.from, "the checkpoint of the master record has no end"));
        }
        let (mut losers, mut in_doubt) = (Vec::new(), Vec::new());
        let mut txns: Vec<ActiveTxn> = self.txns.into_values().collect();
        txns.sort_unstable_by_key(|txn| txn.txn);
        for txn in txns {
            if txn.first.is_none() {
                let what = format!("the checkpoint lacks {}, active since before it", txn.txn);
                return Err(corrupt(txn.last, what));
            }
            match txn.state {
                TxnState::Running => losers.push(txn),
                TxnState::Prepared if prepared_are_losers => {
                    losers.push(ActiveTxn { state: TxnState::Running, ..txn });
                }
                TxnState::Prepared => in_doubt.push(txn),
                TxnState::Committed => {}
            }
        }
        let redo = self.dirty.values().min().map_or(self.end, |&rec_lsn| rec_lsn.min(self.end));
        let (end, dirty, next_txn) = (self.end, self.dirty, self.next_txn);
        Ok(History { redo, end, dirty, losers, in_doubt, next_txn })
    }
}

/// A dirty page table as observers get it: by page.
fn sorted(dirty: &DirtyPages) -> Vec<DirtyPage> {
    let pages = dirty.iter().map(|(&page, &rec_lsn)| DirtyPage { page, rec_lsn });
    let mut pages: Vec<DirtyPage> = pages.collect();
    pages.sort_unstable_by_key(|dirty| dirty.page);
    pages
}

/// The transactions in doubt in the log of a closed database, by id. Reads only.
///
/// # Errors
/// As [`restart`](crate::restart), of its first pass.
pub fn in_doubt(control: &Control, wal: &Wal) -> Result<Vec<ActiveTxn>> {
    let (tables, _) = read(control, wal, &mut Silent)?;
    Ok(tables.finish(false)?.in_doubt)
}

/// Damage found in the log at `lsn`, which is also its offset.
pub(crate) fn corrupt(lsn: Lsn, what: impl Into<String>) -> Error {
    Error::corrupt("wal", lsn.get(), Some(lsn), what)
}
