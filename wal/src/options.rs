//! What a log is told when it is made or opened, and what it tells about itself.

use argali_base::{Error, Lsn, Result};

use crate::block::BLOCK_BYTES;

/// Largest encoded record in bytes; access methods keep structure changes below it.
pub const RECORD_BYTES_MAX: usize = (1 << 19) - 8;

/// Which database and which history a log belongs to; seeds the CRC of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    /// Random number of the database, drawn at creation.
    pub database: u64,
    /// Number of its history: 1 at creation, one more with each restore.
    pub timeline: u32,
    /// Random number drawn with a timeline, 0 for the first one: two restores of one backup have the
    /// same number and are different histories.
    pub branch: u64,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes per segment file (multiple of 4096). Segment k holds LSNs [k*n, (k+1)*n).
    pub segment_bytes: u64,
    /// Bytes of the in-memory ring (power of two, at least 4 × the largest record).
    pub ring_bytes: usize,
    /// Most bytes of log that may be kept; admission beyond it is `LogFull`. At least four segments.
    pub limit_bytes: u64,
    /// Bytes of log that checkpoints keep beyond what restart needs, about; well below `limit_bytes`.
    pub keep_bytes: u64,
    /// Whether a log-writer thread will call [`Wal::step`](crate::Wal::step); without one, waiters
    /// flush for each other and patience (`force_within`) is not exercised.
    pub writer_thread: bool,
    /// Protocol rules to break on purpose. For tests only.
    #[doc(hidden)]
    pub mutations: Mutations,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            ring_bytes: 4 << 20,
            limit_bytes: 1 << 30,
            keep_bytes: 0,
            writer_thread: false,
            mutations: Mutations::default(),
        }
    }
}

impl LogOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |what, why: String| Err(Error::Invalid { what, why });
        let segment = self.segment_bytes;
        if segment == 0 || !segment.is_multiple_of(BLOCK_BYTES as u64) {
            return invalid("segment_bytes", format!("{segment} is not a multiple of 4096"));
        }
        // A model run makes thousands of logs, each with a few records: it needs rings that wrap soon.
        let least = if cfg!(feature = "shuttle") { 256 } else { 4 * RECORD_BYTES_MAX };
        if !self.ring_bytes.is_power_of_two() || self.ring_bytes < least {
            let why = format!("{} is not a power of two of at least {least}", self.ring_bytes);
            return invalid("ring_bytes", why);
        }
        if self.limit_bytes / 4 < segment {
            let why = format!("{} is less than four segments of {segment}", self.limit_bytes);
            return invalid("limit_bytes", why);
        }
        Ok(())
    }

    /// Log space that only records ending something may use: rollback beyond its reserve, checkpoints.
    pub(crate) fn margin_bytes(&self) -> u64 {
        (self.limit_bytes / 16).min(1 << 20).min(4 * self.segment_bytes)
    }

    /// Segments kept ready ahead of the tail instead of being removed.
    pub(crate) fn spare_segments(&self) -> u64 {
        (self.limit_bytes / self.segment_bytes / 8).clamp(2, 8)
    }
}

/// Rules a test can switch off to see which guarantee falls.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Mutations {
    /// A force writes but does not sync.
    pub no_force: bool,
    /// A record's CRC does not depend on its LSN.
    pub crc_without_lsn: bool,
    /// What stands behind the end stays there when the log is resumed.
    pub stale_tail: bool,
    /// Opening trusts what is merely readable.
    pub skip_first_sync: bool,
    /// A failed sync is tried again, and the second answer believed.
    pub retry_sync: bool,
    /// Names are never made durable.
    pub no_dir_sync: bool,
    /// Truncation ignores the oldest transaction.
    pub early_truncation: bool,
    /// Nobody in a gathering group minds the clock.
    pub endless_gathering: bool,
    /// Whoever waits for room in the ring does not look again when others can see it wait (A3).
    pub sleep_at_once: bool,
}

/// Who still needs the log from `lsn` on: named in `stats` and `LogFull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// "redo point", "oldest transaction t7", "backup", …
    pub what: String,
    /// First LSN it needs.
    pub lsn: Lsn,
}

/// Counters since open; all in the units their names say.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Records appended.
    pub records: u64,
    /// Bytes appended.
    pub bytes: u64,
    /// Flushes: write and sync of everything complete.
    pub flushes: u64,
    /// Bytes those wrote, without rewritten blocks.
    pub flushed_bytes: u64,
    /// Segments made new and zero-filled.
    pub segments_created: u64,
    /// Segments renamed to a later place.
    pub segments_recycled: u64,
    /// First record still kept.
    pub first_lsn: Lsn,
    /// Everything below is on disk.
    pub durable_end: Lsn,
    /// LSN the next record will get.
    pub tail: Lsn,
    /// Bytes of log files kept, segments ready ahead included.
    pub kept_bytes: u64,
    /// Bytes set aside for rolling back the active transactions.
    pub reserved_bytes: u64,
    /// Who held the log back at the last truncation, and whoever holds it now.
    pub holders: Vec<Holder>,
}
