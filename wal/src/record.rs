//! What a log record says. (Skeleton.)
use argali_base::{Lsn, PageId, Result, TxnId};

/// A record, borrowed both ways: from the scratch it is encoded from, and from the bytes it was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub txn: TxnId,
    /// Previous record of the same transaction; `NONE` says: its first.
    pub prev: Lsn,
    pub body: Body<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Pages changed, and how to take the change back.
    Update {
        changes: Changes<'a>,
        undo: Undo<'a>,
    },
    /// A change taken back (CLR). Redo only; undo goes on at `undo_next`. Without changes it ends a
    /// nested top action.
    Compensation {
        changes: Changes<'a>,
        undo_next: Lsn,
    },
    /// `durable`: the durable end known when this was appended (evidence for the end-of-log judgement).
    Commit {
        durable: Lsn,
    },
    /// The transaction is over and needs nothing from a restart.
    End,
    CheckpointBegin {
        durable: Lsn,
    },
    /// One chunk of the tables; the last one says so.
    CheckpointEnd {
        begin: Lsn,
        durable: Lsn,
        last: bool,
        tables: CheckpointTables<'a>,
    },
}

/// How an update is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo<'a> {
    /// Structure changes: history keeps them.
    Never,
    /// Inverse operations for the record's one changed page, encoded as in `Change::ops`.
    Physical(&'a [u8]),
    /// The access method registered as `owner` knows how.
    Logical { owner: Owner, body: &'a [u8] },
}

/// Number under which an access method registered its `LogicalUndo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub u8);

/// What a record does to one page. `ops` is encoded by `pager::PageOp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    pub page: PageId,
    /// LSN the page had before (`NONE` after `Format`): redo demands it.
    pub page_prev: Lsn,
    pub ops: &'a [u8],
}

/// The encoded changes of one record, in order; at most one per page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Changes<'a> {
    bytes: &'a [u8],
}
impl std::fmt::Debug for Changes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
impl<'a> Changes<'a> {
    pub const EMPTY: Changes<'static> = Changes { bytes: &[] };
    pub fn iter(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        std::iter::empty()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Encodes changes into a reusable buffer.
#[derive(Debug, Default)]
pub struct ChangesBuilder {
    bytes: Vec<u8>,
}
impl ChangesBuilder {
    pub fn clear(&mut self) {
        todo!()
    }
    /// Starts the change of `page`; `encode` appends its operations.
    pub fn push(&mut self, page: PageId, page_prev: Lsn, encode: impl FnOnce(&mut Vec<u8>)) {
        todo!()
    }
    pub fn changes(&self) -> Changes<'_> {
        Changes { bytes: &self.bytes }
    }
}

/// A dirty page table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPage {
    pub page: PageId,
    /// First record that may not be in the page on disk.
    pub rec_lsn: Lsn,
}

/// A transaction table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveTxn {
    pub txn: TxnId,
    pub state: TxnState,
    /// First record: undo may read back to here, so the log is kept from here.
    pub first: Lsn,
    pub last: Lsn,
    /// Next record to undo.
    pub undo_next: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnState {
    /// Will be undone unless it commits.
    Running,
    /// Commit record appended, `End` not yet.
    Committed,
    /// Prepared: in doubt (reserved).
    Prepared,
}

/// One chunk of checkpoint tables, encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointTables<'a> {
    bytes: &'a [u8],
}
impl<'a> CheckpointTables<'a> {
    /// Encodes into `out` (cleared first) and borrows it.
    pub fn encode(out: &'a mut Vec<u8>, dirty: &[DirtyPage], active: &[ActiveTxn]) -> Self {
        todo!()
    }
    pub fn dirty(&self) -> impl Iterator<Item = DirtyPage> + use<'a> {
        std::iter::empty()
    }
    pub fn active(&self) -> impl Iterator<Item = ActiveTxn> + use<'a> {
        std::iter::empty()
    }
}

/// One record read from the log, with the bytes it borrows from. Reused from record to record.
#[derive(Debug, Default)]
pub struct RecordBuf {
    bytes: Vec<u8>,
    lsn: Lsn,
    end: Lsn,
}
impl RecordBuf {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
    /// LSN of the next record.
    pub fn end(&self) -> Lsn {
        self.end
    }
    /// The decoded record; it was validated when it was read.
    pub fn record(&self) -> Record<'_> {
        todo!()
    }
    /// Checks and takes `bytes` as the record at `lsn`.
    pub(crate) fn fill(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        todo!()
    }
}
