//! Restart and checkpoints. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

use std::time::Duration;

use argali_base::sync::{Arc, Clock};
use argali_base::{Lsn, PageId, Result, TxnId};
use argali_buffer_pool::BufferPool;
use argali_txn::TxnManager;
use argali_wal::{ActiveTxn, ControlFile, DirtyPage, Wal};

/// What restart and checkpoint work on. Made by the engine.
pub struct Parts {
    pub control: Arc<ControlFile>,
    pub wal: Arc<Wal>,
    pub pool: Arc<BufferPool>,
    pub txns: Arc<TxnManager>,
    pub clock: Clock,
}

/// One structured event per decision of a restart. The no-op observer costs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    AnalysisBegins {
        from: Lsn,
    },
    /// A transaction entered, changed or left the table.
    Transaction {
        lsn: Lsn,
        txn: ActiveTxn,
    },
    Ended {
        lsn: Lsn,
        txn: TxnId,
    },
    /// A page entered the dirty page table.
    Dirty {
        lsn: Lsn,
        page: DirtyPage,
    },
    AnalysisEnds {
        redo: Lsn,
        losers: Vec<ActiveTxn>,
        dirty: Vec<DirtyPage>,
    },
    Redo {
        lsn: Lsn,
        page: PageId,
        decision: RedoDecision,
        ops: String,
    },
    Undo {
        lsn: Lsn,
        txn: TxnId,
        clr: Option<Lsn>,
        undo_next: Lsn,
    },
    LoserEnded {
        txn: TxnId,
    },
    Finished {
        end: Lsn,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedoDecision {
    Applied,
    /// Page not in the dirty page table.
    NotDirty,
    /// recLSN greater than the record's LSN.
    BeforeRecLsn {
        rec_lsn: Lsn,
    },
    /// pageLSN at or past the record's LSN.
    PageIsNewer {
        page_lsn: Lsn,
    },
}

pub trait RecoveryObserver {
    /// Whether events are wanted at all; `false` lets the passes skip building them.
    fn wants(&self) -> bool {
        true
    }
    fn event(&mut self, event: Event);
}

/// Observes nothing.
pub struct Silent;
impl RecoveryObserver for Silent {
    fn wants(&self) -> bool {
        false
    }
    fn event(&mut self, _: Event) {}
}

/// What one pass did.
#[derive(Clone, Debug, Default)]
pub struct PassReport {
    pub from: Lsn,
    pub to: Lsn,
    pub records: u64,
    pub bytes: u64,
    pub pages: u64,
    pub time: Duration,
}

/// What a restart did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// False after a clean shutdown: nothing had to be done.
    pub recovered: bool,
    pub analysis: PassReport,
    pub redo: PassReport,
    pub undo: PassReport,
    pub winners: u64,
    pub losers: Vec<TxnId>,
    /// Records applied, and skipped for each reason.
    pub applied: u64,
    pub skipped_not_dirty: u64,
    pub skipped_before_rec_lsn: u64,
    pub skipped_page_newer: u64,
    pub clrs_written: u64,
    pub pages_repaired: u64,
    pub checkpoint_time: Duration,
    pub total_time: Duration,
}

/// Analysis, redo, undo, checkpoint. `wal` was opened (end judged), `pool` is empty. Redo meets a page
/// with pageLSN at or past the log's end → `Corrupt`. Resumes the log between redo and undo.
pub fn restart<O: RecoveryObserver>(parts: &Parts, observer: &mut O) -> Result<Report> {
    todo!()
}

/// Which pages a checkpoint writes before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flush {
    /// None: the pure fuzzy checkpoint of the paper.
    Nothing,
    /// Pages dirty since before the previous checkpoint: redo stays within two intervals.
    #[default]
    Old,
    /// Every dirty page.
    Everything,
}

/// When to take a checkpoint and what it writes: a pure decision over observed state.
pub trait CheckpointPolicy: Send + Sync {
    fn decide(&self, seen: &Observed) -> Option<Flush>;
}

/// What a policy sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed {
    pub since_last: Duration,
    pub log_bytes_since_last: u64,
    pub log_bytes_kept: u64,
    pub log_bytes_limit: u64,
    pub dirty_pages: usize,
    pub frames: usize,
}

/// What a checkpoint did.
#[derive(Clone, Debug, Default)]
pub struct CheckpointReport {
    pub begin: Lsn,
    pub end: Lsn,
    pub redo: Lsn,
    pub log_first: Lsn,
    pub pages_written: usize,
    pub time: Duration,
}

/// Fuzzy checkpoint: begin record, tables in chunks, end durable, data sync, master record, truncation.
/// No commit waits for it. `extra_holders` (backup, archive) keep the log.
pub struct Checkpointer {
    _todo: (),
}
impl Checkpointer {
    pub fn new(parts: Parts) -> Self {
        todo!()
    }
    /// Takes one checkpoint now; concurrent calls take turns.
    pub fn checkpoint(&self, flush: Flush) -> Result<CheckpointReport> {
        todo!()
    }
    /// Takes one if `policy` says so.
    pub fn step(&self, policy: &dyn CheckpointPolicy) -> Result<Option<CheckpointReport>> {
        todo!()
    }
    /// After everything is ended and written: the clean-shutdown mark.
    pub fn shut_down(&self) -> Result<()> {
        todo!()
    }
}
