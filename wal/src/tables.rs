//! Checkpoint tables: who was running and which pages were dirty, as `CheckpointEnd` carries them.
//!
//! ```text
//!  0  4  number of dirty pages d
//!  4  4  number of transactions t
//!  8  d × 16   page id 8, recLSN 8
//!  …  t × 33   txn 8, first LSN 8, last LSN 8, undo_next 8, state 1 (0 running, 1 committed, 2 prepared)
//! ```
//!
//! Large tables go out in chunks, one record each; only the last chunk completes the checkpoint.

use argali_base::codec::{Reader, Writer};
use argali_base::{Lsn, PageId, TxnId};

const DIRTY_BYTES: usize = 16;
const ACTIVE_BYTES: usize = 33;
const HEAD_BYTES: usize = 8;

/// A dirty page table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPage {
    /// The page.
    pub page: PageId,
    /// First record that may not be in the page on disk.
    pub rec_lsn: Lsn,
}

/// A transaction table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveTxn {
    /// The transaction.
    pub txn: TxnId,
    /// How far it got.
    pub state: TxnState,
    /// First record: undo may read back to here, so the log is kept from here.
    pub first: Lsn,
    /// Last record.
    pub last: Lsn,
    /// Next record to undo.
    pub undo_next: Lsn,
}

/// What a restart does with a transaction it finds in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnState {
    /// Will be undone unless it commits.
    Running,
    /// Commit record appended, and not known to be durable yet.
    Committed,
    /// Prepared: in doubt until somebody outside decides.
    Prepared,
}

impl TxnState {
    const fn code(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Committed => 1,
            Self::Prepared => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Running),
            1 => Some(Self::Committed),
            2 => Some(Self::Prepared),
            _ => None,
        }
    }
}

/// One chunk of checkpoint tables, encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointTables<'a> {
    /// Invariant: as in the table at the head of this file. Only this file makes one.
    bytes: &'a [u8],
}

impl<'a> CheckpointTables<'a> {
    /// Encodes into `out` (cleared first) and borrows it.
    pub fn encode(out: &'a mut Vec<u8>, dirty: &[DirtyPage], active: &[ActiveTxn]) -> Self {
        out.clear();
        out.put_u32(u32::try_from(dirty.len()).expect("a chunk stays below 512 KiB"));
        out.put_u32(u32::try_from(active.len()).expect("a chunk stays below 512 KiB"));
        for entry in dirty {
            out.put_u64(entry.page.get());
            out.put_u64(entry.rec_lsn.get());
        }
        for entry in active {
            out.put_u64(entry.txn.get());
            out.put_u64(entry.first.get());
            out.put_u64(entry.last.get());
            out.put_u64(entry.undo_next.get());
            out.put_u8(entry.state.code());
        }
        Self { bytes: out }
    }

    /// Bytes that tables of these sizes take when encoded.
    pub const fn encoded_len(dirty: usize, active: usize) -> usize {
        HEAD_BYTES + dirty * DIRTY_BYTES + active * ACTIVE_BYTES
    }

    /// Checks that `bytes` holds exactly the tables it announces; `None` when it does not.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let dirty = u64::from(reader.u32()?) * DIRTY_BYTES as u64;
        let active = u64::from(reader.u32()?) * ACTIVE_BYTES as u64;
        if dirty + active != reader.rest().len() as u64 {
            return None;
        }
        reader.take(usize::try_from(dirty).ok()?)?;
        while !reader.is_empty() {
            active_txn(&mut reader)?;
        }
        Some(Self { bytes })
    }

    /// The dirty page table entries of this chunk.
    pub fn dirty(&self) -> impl Iterator<Item = DirtyPage> + use<'a> {
        let (dirty, _) = self.split();
        let mut reader = Reader::new(dirty);
        std::iter::from_fn(move || dirty_page(&mut reader))
    }

    /// The transaction table entries of this chunk.
    pub fn active(&self) -> impl Iterator<Item = ActiveTxn> + use<'a> {
        let (_, active) = self.split();
        let mut reader = Reader::new(active);
        std::iter::from_fn(move || active_txn(&mut reader))
    }

    /// The encoded form.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn split(self) -> (&'a [u8], &'a [u8]) {
        let mut reader = Reader::new(self.bytes);
        let dirty = reader.u32().unwrap_or(0) as usize;
        let active = reader.u32();
        debug_assert!(active.is_some(), "checked when this value was made");
        reader.rest().split_at(dirty * DIRTY_BYTES)
    }
}

fn dirty_page(reader: &mut Reader<'_>) -> Option<DirtyPage> {
    let page = PageId::new(reader.u64()?);
    let rec_lsn = Lsn::new(reader.u64()?);
    Some(DirtyPage { page, rec_lsn })
}

fn active_txn(reader: &mut Reader<'_>) -> Option<ActiveTxn> {
    let txn = TxnId::new(reader.u64()?);
    let first = Lsn::new(reader.u64()?);
    let last = Lsn::new(reader.u64()?);
    let undo_next = Lsn::new(reader.u64()?);
    let state = TxnState::from_code(reader.u8()?)?;
    Some(ActiveTxn { txn, state, first, last, undo_next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<DirtyPage>, Vec<ActiveTxn>) {
        let dirty = vec![DirtyPage { page: PageId::new(3), rec_lsn: Lsn::new(64) }];
        let active = vec![
            ActiveTxn {
                txn: TxnId::new(9),
                state: TxnState::Running,
                first: Lsn::new(64),
                last: Lsn::new(128),
                undo_next: Lsn::new(96),
            },
            ActiveTxn {
                txn: TxnId::new(10),
                state: TxnState::Prepared,
                first: Lsn::new(200),
                last: Lsn::new(200),
                undo_next: Lsn::new(200),
            },
        ];
        (dirty, active)
    }

    #[test]
    fn tables_come_back() {
        let (dirty, active) = sample();
        let mut out = Vec::new();
        let tables = CheckpointTables::encode(&mut out, &dirty, &active);
        assert_eq!(tables.bytes().len(), CheckpointTables::encoded_len(1, 2));
        let again = CheckpointTables::decode(tables.bytes()).unwrap();
        assert_eq!(again.dirty().collect::<Vec<_>>(), dirty);
        assert_eq!(again.active().collect::<Vec<_>>(), active);
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        let (dirty, active) = sample();
        let mut out = Vec::new();
        CheckpointTables::encode(&mut out, &dirty, &active);
        for cut in 0..out.len() {
            assert!(CheckpointTables::decode(&out[..cut]).is_none(), "cut at {cut}");
        }
        for (at, value) in [(0, u32::MAX), (4, u32::MAX), (0, 2), (4, 1)] {
            let mut bad = out.clone();
            bad[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            assert!(CheckpointTables::decode(&bad).is_none(), "count {value} at {at}");
        }
        let last = out.len() - 1;
        out[last] = 3;
        assert!(CheckpointTables::decode(&out).is_none(), "state 3 does not exist");
    }
}
