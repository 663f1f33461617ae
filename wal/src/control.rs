//! Control file: two checksummed slots in separate 4 KiB blocks, written alternately. (Skeleton.)
use argali_base::sync::Arc;
use argali_base::{Disk, Lsn, Result};

use crate::LogId;

/// What one slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub log: LogId,
    pub page_size: u32,
    /// Bytes per log segment, fixed at creation.
    pub segment_bytes: u64,
    /// 0 DoubleWrite, 1 FullPageImage, 2 None; the pager's business, kept here as a number.
    pub torn_pages: u8,
    /// Master record: LSN of the `CheckpointBegin` of the last complete checkpoint.
    pub checkpoint: Lsn,
    /// LSN behind the last record of that checkpoint: proven durable.
    pub checkpoint_end: Lsn,
    /// First LSN that must be kept.
    pub log_first: Lsn,
    /// End LSN of a clean shutdown; holds only if no valid frame stands there.
    pub clean_end: Option<Lsn>,
    /// Every id below this may have been used.
    pub next_txn: u64,
    /// Pages whose existence in the data file is durable.
    pub pages: u64,
}

pub struct ControlFile {
    _todo: (),
}

impl ControlFile {
    /// Writes a new file under `control.tmp` and syncs it; [`ControlFile::publish`] renames it, which is
    /// the instant the database exists.
    pub fn create(disk: Arc<dyn Disk>, control: Control) -> Result<Self> {
        todo!()
    }
    pub fn publish(&self) -> Result<()> {
        todo!()
    }
    /// Reads the newer valid slot. Missing → `NoDatabase`; both bad → `Corrupt`.
    pub fn open(disk: Arc<dyn Disk>, writable: bool) -> Result<Self> {
        todo!()
    }
    pub fn get(&self) -> Control {
        todo!()
    }
    /// Changes a copy, writes it to the other slot, syncs. A failed sync poisons (caller's health).
    pub fn update(&self, change: impl FnOnce(&mut Control)) -> Result<()> {
        todo!()
    }
}
