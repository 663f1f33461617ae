//! One error type for the whole engine: each variant says who is to blame and what to do next.
//!
//! Bugs panic; the world returns `Err`. Bytes read from a disk are the world: a page or a record that
//! makes no sense is [`Error::Corrupt`], with the file, the offset and, where one is known, the LSN.

use std::io;
use std::time::Duration;

use crate::{Lsn, TxnId};

/// Result of every engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Only [`Error::is_retryable`] errors are worth running the transaction again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call on one file. The operation failed; nothing was lost.
    #[error("{op} {file}: {source}")]
    Io {
        /// What was tried: "read", "write", "sync", "open", …
        op: &'static str,
        /// File name within the database directory.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Bytes on disk are not what was written. Restore from a backup, or run `argali check`.
    #[error("corrupt {file} at offset {offset}{}: {what}", at(*lsn))]
    Corrupt {
        /// File name within the database directory.
        file: String,
        /// Byte offset in that file.
        offset: u64,
        /// LSN of the damaged record or page, when known.
        lsn: Option<Lsn>,
        /// What does not fit.
        what: String,
    },
    /// A log write or a sync failed earlier. Nothing is acknowledged any more; reopen the database.
    #[error("database is poisoned by an earlier failure ({cause}); close it and open it again")]
    Poisoned {
        /// The failure that poisoned it.
        cause: String,
    },
    /// The log cannot take this work. Commit or abort long transactions, or raise the log limit.
    #[error("log is full: {what}; end long transactions, run a checkpoint, or raise the log limit")]
    LogFull {
        /// What holds the log, or which limit was met.
        what: String,
    },
    /// The data file may not grow further.
    #[error("database is full: {what}")]
    Full {
        /// The limit that was met.
        what: String,
    },
    /// Every frame of the buffer pool is pinned. Use a larger pool or fewer threads.
    #[error("all {frames} frames of the buffer pool are in use; enlarge the cache")]
    PoolExhausted {
        /// Frames in the pool.
        frames: usize,
    },
    /// A sequence has given all its numbers. Make another, with another start or step.
    #[error("sequence {name:?} has no number behind {last}")]
    Exhausted {
        /// Its name.
        name: String,
        /// The last one it gave.
        last: i64,
    },
    /// Chosen as the victim of a deadlock; the transaction must abort. Retry it.
    #[error("deadlock: {txn} waited for {lock}, held by {holder}, which waits for {txn}; retry")]
    Deadlock {
        /// The victim.
        txn: TxnId,
        /// The lock it asked for.
        lock: String,
        /// A transaction in its way.
        holder: TxnId,
    },
    /// A lock was not granted in time. Retry the transaction.
    #[error("{txn} gave up on {lock} after {waited:?}: held by {holder}; retry")]
    LockTimeout {
        /// Who waited.
        txn: TxnId,
        /// The lock it asked for.
        lock: String,
        /// How long it waited.
        waited: Duration,
        /// A transaction that holds it.
        holder: TxnId,
    },
    /// The commit record was appended but its durability could not be established.
    #[error("commit at {lsn} may or may not survive ({cause}); reopen to find out")]
    CommitUnknown {
        /// LSN of the commit record.
        lsn: Lsn,
        /// Why it is unknown.
        cause: String,
    },
    /// A tree, a heap or a savepoint of that name does not exist.
    #[error("no {what} named {name:?}")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Something of that name exists already.
    #[error("a {what} named {name:?} exists already")]
    Exists {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A key, a value or a name is larger than the documented limit.
    #[error("{what} of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Kind of thing.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// This handle's database was closed by another handle.
    #[error("the database was closed")]
    Closed,
    /// The database was opened read-only.
    #[error("the database is open read-only")]
    ReadOnly,
    /// The database was not shut down cleanly; open it for writing once to recover it.
    #[error("the database needs recovery; open it for writing once")]
    NeedsRecovery,
    /// Another process has the database open.
    #[error("the database is in use by {holder}")]
    InUse {
        /// What the holder wrote into the lock file, usually its process id.
        holder: String,
    },
    /// There is no database at that place.
    #[error("no database at {path}; create one with `Db::open`, or check the path")]
    NoDatabase {
        /// Where it was looked for.
        path: String,
    },
    /// A backup or a restore was cut short; what is there is of no use. Run it again.
    #[error("the {what} at {path} did not finish; run it again")]
    Unfinished {
        /// "backup" or "restore".
        what: &'static str,
        /// Where it is.
        path: String,
    },
    /// An option or an argument has a value that cannot be used.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// Which option or argument.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The transaction can do nothing more but abort: an earlier step in it failed.
    #[error("the transaction failed earlier ({cause}); abort it")]
    TxnFailed {
        /// The earlier failure.
        cause: String,
    },
}

impl Error {
    /// Whether running the whole transaction again may succeed: deadlock and lock timeout only.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Deadlock { .. } | Self::LockTimeout { .. })
    }

    /// Whether this reports damaged bytes.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// An [`Error::Io`] for operation `op` on `file`.
    pub fn io(op: &'static str, file: &str, source: io::Error) -> Self {
        Self::Io { op, file: file.to_owned(), source }
    }

    /// An [`Error::Corrupt`] at `offset` of `file`.
    pub fn corrupt(file: &str, offset: u64, lsn: Option<Lsn>, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, lsn, what: what.into() }
    }
}

fn at(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(String::new, |lsn| format!(" (lsn {lsn})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corruption_names_file_offset_and_lsn() {
        let error = Error::corrupt("data", 8192, Some(Lsn::new(120)), "checksum 1, expected 2");
        let text = "corrupt data at offset 8192 (lsn @120): checksum 1, expected 2";
        assert_eq!((error.to_string().as_str(), error.is_corruption()), (text, true));
        let error = Error::corrupt("control", 0, None, "both slots are bad");
        assert_eq!(error.to_string(), "corrupt control at offset 0: both slots are bad");
    }

    #[test]
    fn an_io_error_names_call_and_file_and_keeps_its_source() {
        let error = Error::io("write", "wal/0.log", io::ErrorKind::StorageFull.into());
        assert!(error.to_string().starts_with("write wal/0.log: "), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn only_conflicts_are_worth_a_retry() {
        let (txn, holder, lock) = (TxnId::new(3), TxnId::new(4), "tree 7".to_owned());
        let deadlock = Error::Deadlock { txn, lock: lock.clone(), holder };
        let timeout = Error::LockTimeout { txn, lock, waited: Duration::from_secs(1), holder };
        assert!(deadlock.is_retryable() && timeout.is_retryable());
        assert!(timeout.to_string().contains("held by t4"), "{timeout}");
        let unknown = Error::CommitUnknown { lsn: Lsn::FIRST, cause: "EIO".to_owned() };
        for error in [unknown, Error::Closed, Error::corrupt("data", 0, None, "x")] {
            assert!(!error.is_retryable(), "{error}");
        }
    }
}
