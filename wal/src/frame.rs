//! Frames: how a record stands in the log, and how a damaged one is told from a whole one.
//!
//! ```text
//!  0  4  length of the frame: header, body and padding; a multiple of 8
//!  4  4  CRC32C, seeded with database id, timeline, branch and the frame's LSN, over all other bytes
//!  8  8  transaction (0: none)
//! 16  8  prevLSN: the transaction's record before this one (0: its first)
//! 24  1  kind                        1 update · 2 compensation · 3 commit · 4 end
//!                                    5 checkpoint begin · 6 checkpoint end · 8 prepare
//!                                    reserved: 7 page image · 9 pages written · 10 pending action
//! 25  1  undo kind                   0 never · 1 physical · 2 logical
//! 26  1  owner of a logical undo
//! 27  1  flags: bits 0–2 bytes of padding, bit 3 last chunk or piece, others 0
//! 28  4  length of the frame physically before this one (0: none): the way back
//! 32  …  body (see record.rs), padded with zeros to a multiple of 8
//! ```
//!
//! Because the LSN is in the seed, a frame is valid only where it was written: bytes of a recycled
//! segment, a misdirected write, or another database's log never pass. What a scan can meet at X:
//!
//! | bytes at X | meaning |
//! | --- | --- |
//! | zeros, or the file ends | never written: the end |
//! | an impossible length, a wrong CRC | torn, damaged or stale: see `end.rs` for the judgement |
//! | right CRC, wrong `prev_len` | a frame of another history: as a wrong CRC |
//! | right CRC, body that does not decode | written so: by a newer version, or by a bug; always `Corrupt` |

use argali_base::Lsn;

use crate::{LogId, RECORD_BYTES_MAX};

/// Bytes of a frame before its body.
pub(crate) const HEADER_BYTES: usize = 32;
/// Most bytes of a header and the fixed fields behind it.
pub(crate) const HEAD_BYTES_MAX: usize = HEADER_BYTES + 16;

/// The part of a frame's CRC that is the same for a whole log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed {
    log: u32,
    /// Mutation switch: frames are then valid wherever they stand.
    without_lsn: bool,
}

impl Seed {
    pub(crate) fn new(id: LogId, without_lsn: bool) -> Self {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&id.database.to_le_bytes());
        bytes[8..12].copy_from_slice(&id.timeline.to_le_bytes());
        bytes[12..].copy_from_slice(&id.branch.to_le_bytes());
        Self { log: crc32c::crc32c(&bytes), without_lsn }
    }

    /// CRC of the frame at `lsn` that begins with `head` (header and fixed fields) and goes on with
    /// `rest`. The log's part of the seed comes first, then LSN, length, and all behind the CRC field.
    pub(crate) fn crc(self, lsn: Lsn, head: &[u8], rest: &[&[u8]]) -> u32 {
        // In one piece: several short calls cost more than the checksum itself.
        let mut bytes = [0; 12 + HEAD_BYTES_MAX];
        let lsn = if self.without_lsn { 0 } else { lsn.get() };
        let (behind, len) = (&head[8..], head.len() + 4);
        bytes[..8].copy_from_slice(&lsn.to_le_bytes());
        bytes[8..12].copy_from_slice(&head[..4]);
        bytes[12..len].copy_from_slice(behind);
        let crc = crc32c::crc32c_append(self.log, &bytes[..len]);
        rest.iter().fold(crc, |crc, piece| match piece.len() {
            0 => crc,
            _ => crc32c::crc32c_append(crc, piece),
        })
    }
}

/// What a frame's header says, once its CRC was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) prev_len: u32,
}

/// Length in the first four bytes, if a frame can have it.
pub(crate) fn plausible_len(head: &[u8]) -> Result<usize, &'static str> {
    let Some((len, _)) = head.split_first_chunk::<4>() else {
        return Err("the log file ends here");
    };
    match u32::from_le_bytes(*len) as usize {
        0 => Err("no record was written here"),
        len if !(HEADER_BYTES..=RECORD_BYTES_MAX).contains(&len) || !len.is_multiple_of(8) => {
            Err("impossible record length")
        }
        len => Ok(len),
    }
}

/// Checks the CRC of `frame`, which must be exactly one frame long.
pub(crate) fn check(frame: &[u8], seed: Seed, lsn: Lsn) -> Result<Header, &'static str> {
    let len = plausible_len(frame)?;
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err("the log file ends inside the record");
    };
    if frame.len() != len {
        return Err("the log file ends inside the record");
    }
    if seed.crc(lsn, header, &[body]) != u32_at(header, 4) {
        return Err("record checksum does not match");
    }
    Ok(Header { len, prev_len: u32_at(header, 28) })
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    u32::from_le_bytes(bytes)
}
