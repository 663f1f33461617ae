//! Copies of records in another directory: the log of a backup, and the log of a restored database.
//!
//! ```text
//!   records of a log, read and checked          another directory
//!   │ r1 │ r2 │ r3 │ …  ──same LSN, new seal──►  wal/…0000.log │…000r1│r2│   wal/…1000.log │r3│…
//! ```
//!
//! A record keeps its LSN, for pages refer to it. Its CRC is computed anew with the id of the log it goes
//! to: a backup is a piece of the same log, while a restored database has a timeline of its own, and with
//! it no record of the old history can ever be joined to the new one.
//!
//! The segments written here are not made for appending: they begin with a hole when the first record
//! stands in their middle, and end with the last record. `Wal::resume` makes the last one full length.

use argali_base::disk::OpenMode;
use argali_base::sync::Arc;
use argali_base::{Disk, Health, Lsn, Result};

use crate::frame::{FRAME_BYTES_MIN, Seed};
use crate::options::Mutations;
use crate::segment::Segments;
use crate::{LogId, RecordBuf};

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// Records on their way to another directory. Nothing of it is durable before [`LogCopy::finish`].
#[derive(Debug)]
pub struct LogCopy {
    segments: Segments,
    seed: Seed,
    /// Sealed records that are not written yet.
    pending: Vec<u8>,
    /// Where `pending` begins.
    written: u64,
    /// The segment last written to and not yet synced.
    unsynced: Option<u64>,
    /// Length of the last record, 0 before the first one.
    prev_len: u32,
}

impl LogCopy {
    /// Empties `wal/` on `disk` for a copy that begins with the record at `first`, for the log `id` with
    /// segments of `segment_bytes`.
    pub fn create(disk: Arc<dyn Disk>, id: LogId, segment_bytes: u64, first: Lsn) -> Result<Self> {
        // A failure here is no failure of the log that is read: it poisons nobody.
        let rules = (Health::new(), Mutations::default());
        let segments = Segments::open(disk, segment_bytes, rules, OpenMode::Existing)?;
        segments.start_over()?;
        Ok(Self {
            segments,
            seed: Seed::new(id, false),
            pending: Vec::new(),
            written: first.get(),
            unsynced: None,
            prev_len: 0,
        })
    }

    /// LSN behind the last record copied.
    pub fn end(&self) -> Lsn {
        Lsn::new(self.written + self.pending.len() as u64)
    }

    /// Copies the next record, which must stand where the one before it ends: else `Corrupt`.
    pub fn append(&mut self, record: &RecordBuf) -> Result<()> {
        let follows = self.prev_len == 0 || record.prev_len() == self.prev_len;
        if record.lsn() != self.end() || !follows {
            let what = format!("the record does not follow the one that ends at {}", self.end());
            return Err(self.segments.corrupt(record.lsn(), what));
        }
        self.seal(record);
        self.prev_len = record.frame().len() as u32;
        if self.pending.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn seal(&mut self, record: &RecordBuf) {
        let (head, body) = record.frame().split_at(FRAME_BYTES_MIN);
        let crc = self.seed.crc(record.lsn(), head, &[body]);
        self.pending.extend_from_slice(&head[..4]);
        self.pending.extend_from_slice(&crc.to_le_bytes());
        self.pending.extend_from_slice(&head[8..]);
        self.pending.extend_from_slice(body);
    }

    /// Writes what is pending, segment by segment.
    fn write(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let index = self.written / self.segments.size();
            let room = self.segments.end_of(index) - self.written;
            let (now, later) = rest.split_at(rest.len().min(room as usize));
            self.enter(index)?;
            self.segments.write(self.written, now)?;
            self.written += now.len() as u64;
            rest = later;
        }
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    /// Makes segment `index` if it is not the one written to, which is finished then.
    fn enter(&mut self, index: u64) -> Result<()> {
        if self.unsynced == Some(index) {
            return Ok(());
        }
        if let Some(finished) = self.unsynced {
            self.segments.sync(finished)?;
        }
        self.unsynced = Some(index);
        self.segments.create_empty(index)
    }

    /// Makes the copy durable, names included. Returns its end.
    pub fn finish(mut self) -> Result<Lsn> {
        self.write()?;
        if let Some(last) = self.unsynced {
            self.segments.sync(last)?;
        }
        self.segments.sync_dir()?;
        Ok(Lsn::new(self.written))
    }
}
