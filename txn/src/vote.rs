//! The vote of a prepared transaction: all that must outlive the process so that it can be decided later.
//!
//! ```text
//!  0  8  bytes of log set aside for a rollback
//!  8  1  length of the gid g (1 … 200)
//!  9  g  gid, UTF-8
//!  …  4  number of locks n
//!  …  n × 18  locks (lock/held.rs)
//!  …  …  note: what the layer above wants to find again
//! ```
//!
//! A transaction may hold more locks than a record has room for, so a vote goes out in pieces, and only
//! the last piece counts:
//!
//! ```text
//!  … @300 update ◄─ @400 prepare 0… ◄─ @500 prepare 131072… ◄─ @600 prepare 262144…, last
//!                   └────────────── read backward along prevLSN, up to the piece with nothing before it
//! ```
//!
//! A vote that ran out of log half-way leaves pieces that nobody reads: the next try begins at 0 again.

use argali_base::codec::{Reader, Writer};
use argali_base::{Error, Lsn, Result};
use argali_wal::{ActiveTxn, Body, RecordBuf, TxnState, Wal};

use crate::lock::held;
use crate::{LockMode, LockName};

/// Longest name of a prepared transaction, in bytes. X/Open's transaction identifiers take 140.
pub const GID_BYTES_MAX: usize = 200;

/// Bytes of a vote in one record: far below the largest record, and below what the smallest log admits.
pub(crate) const PIECE_BYTES: usize = 128 << 10;

/// What a prepared transaction promised to be able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Its global name, given by whoever decides it.
    pub gid: String,
    /// The locks it holds until then.
    pub locks: Vec<(LockName, LockMode)>,
    /// Bytes of log set aside for its rollback.
    pub reserve_bytes: u64,
    /// What the layer above noted.
    pub note: Vec<u8>,
}

impl Vote {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.reserve_bytes);
        out.put_u8(u8::try_from(self.gid.len()).expect("a gid was checked when it was given"));
        out.put(self.gid.as_bytes());
        out.put_u32(u32::try_from(self.locks.len()).expect("the lock table is smaller than that"));
        for lock in &self.locks {
            held::encode(&mut out, *lock);
        }
        out.put(&self.note);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let reserve_bytes = reader.u64()?;
        let gid_len = usize::from(reader.u8()?);
        let gid = std::str::from_utf8(reader.take(gid_len)?).ok()?.to_owned();
        check_gid(&gid).ok()?;
        let count = reader.u32()?;
        let locks = (0..count).map(|_| held::decode(&mut reader)).collect::<Option<_>>()?;
        let note = reader.rest().to_vec();
        Some(Self { gid, locks, reserve_bytes, note })
    }

    /// Reads the vote of a transaction in doubt back from the log. Changes nothing.
    ///
    /// # Errors
    /// `Corrupt` when the log holds no whole vote there.
    ///
    /// # Panics
    /// When `txn` is not in doubt.
    pub fn read(wal: &Wal, txn: &ActiveTxn) -> Result<Self> {
        assert_eq!(txn.state, TxnState::Prepared, "{} is not in doubt", txn.txn);
        let mut pieces = Vec::new();
        let mut buf = RecordBuf::new();
        let mut at = txn.last;
        loop {
            wal.read(at, &mut buf)?;
            let record = buf.record();
            let Body::Prepare { before, last, piece, .. } = record.body else {
                return Err(torn(at, txn, record.body.name()));
            };
            // Each piece begins before the one behind it, so this ends.
            let behind = pieces.last().map_or(u64::MAX, |(before, _): &(u64, Vec<u8>)| *before);
            if record.txn != txn.txn || last != pieces.is_empty() || before >= behind {
                return Err(torn(at, txn, "another vote's piece"));
            }
            pieces.push((before, piece.to_vec()));
            if before == 0 {
                break;
            }
            at = record.prev;
        }
        let mut bytes = Vec::new();
        for (before, piece) in pieces.into_iter().rev() {
            if before != bytes.len() as u64 {
                return Err(torn(at, txn, "a vote with a piece missing"));
            }
            bytes.extend_from_slice(&piece);
        }
        Self::decode(&bytes).ok_or_else(|| torn(at, txn, "a vote that makes no sense"))
    }
}

/// Refuses gids that are empty or too long.
pub(crate) fn check_gid(gid: &str) -> Result<()> {
    if gid.is_empty() {
        return Err(Error::Invalid { what: "gid", why: "empty".to_owned() });
    }
    if gid.len() > GID_BYTES_MAX {
        return Err(Error::TooLarge { what: "gid", size: gid.len(), limit: GID_BYTES_MAX });
    }
    Ok(())
}

fn torn(lsn: Lsn, txn: &ActiveTxn, found: &str) -> Error {
    let what =
        format!("the vote of {}, which is in doubt, is expected here; found {found}", txn.txn);
    Error::corrupt("wal", lsn.get(), Some(lsn), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vote {
        Vote {
            gid: "branch 7 of order 12".to_owned(),
            locks: vec![(LockName::Tree(5), LockMode::IX), (LockName::Tree(6), LockMode::X)],
            reserve_bytes: 4711,
            note: b"note".to_vec(),
        }
    }

    #[test]
    fn votes_come_back_and_hostile_ones_are_refused() {
        let vote = sample();
        let bytes = vote.encode();
        assert_eq!(Vote::decode(&bytes), Some(vote));
        let fixed = bytes.len() - b"note".len();
        for cut in 0..fixed {
            assert_eq!(Vote::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        for (at, value) in [(8, 0), (8, 255), (9, 0xff), (29, 255), (32, 255)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(Vote::decode(&bad), None, "byte {at} = {value}");
        }
    }

    #[test]
    fn gids_have_limits() {
        assert!(check_gid("x").is_ok() && check_gid(&"x".repeat(GID_BYTES_MAX)).is_ok());
        assert!(matches!(check_gid(""), Err(Error::Invalid { .. })));
        let long = "x".repeat(GID_BYTES_MAX + 1);
        assert!(matches!(check_gid(&long), Err(Error::TooLarge { size: 201, .. })));
    }
}
