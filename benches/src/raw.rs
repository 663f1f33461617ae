//! The plainest durable log: write a record at the end of a file, then fdatasync.
//!
//! It is what a commit costs at least. Each thread does both calls for each record, without a group;
//! the file is filled with zeroes before, because a sync that must also record new blocks costs about
//! twice as much, and beating that would prove nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the file; appends begin again at its start.
const FILE_BYTES: u64 = 64 << 20;

/// A file that records are appended to.
#[derive(Debug)]
pub struct RawLog {
    file: File,
    tail: AtomicU64,
    syncs: AtomicU64,
}

impl RawLog {
    /// Makes the file in `dir`, filled with zeroes and synced.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let mut file = File::create(dir.join("raw.log"))?;
        let zeroes = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES >> 20 {
            file.write_all(&zeroes)?;
        }
        file.sync_all()?;
        Ok(Self { file, tail: AtomicU64::new(0), syncs: AtomicU64::new(0) })
    }

    /// Appends `record` and returns when it is durable.
    pub fn commit(&self, record: &[u8]) -> io::Result<()> {
        let len = record.len() as u64;
        let at = self.tail.fetch_add(len, Ordering::Relaxed) % (FILE_BYTES - len);
        self.file.write_all_at(record, at)?;
        self.file.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
