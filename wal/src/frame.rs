//! Frames: how a record stands in the log, and how a damaged one is told from a whole one.
//!
//! ```text
//!  0  2  length of the frame in words of 8 bytes: header, body and padding
//!  2  2  length in words of the frame physically before this one (0: none): the way back
//!  4  4  CRC32C, seeded with database id, timeline, branch and the frame's LSN, over all other bytes
//!  8  1  bits 0–3  kind               1 update · 2 compensation · 3 commit · 4 end
//!                                    5 checkpoint begin · 6 checkpoint end · 8 prepare
//!                                    reserved: 7 page image · 9 pages written · 10 pending action
//!        bit 4     last chunk or piece
//!        bits 5–7  bytes of padding
//!  9  …  transaction (0: none)
//!  …  …  prevLSN: the transaction's record before this one (0: its first)
//!  …  …  body (see record.rs), padded with zeros to a multiple of 8
//! ```
//!
//! A length of a field that reads … is that of a *varint*: seven bits a byte, the lowest first. LSNs are varints
//! of their number of words (see [`put_lsn`]). Most records are small, so most of their bytes would be zeros
//! otherwise.
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
use argali_base::codec::{Reader, VARINT_BYTES_MAX, Writer};

use crate::{LogId, RECORD_BYTES_MAX};

/// Fewest bytes of a frame.
pub(crate) const FRAME_BYTES_MIN: usize = 16;
/// Where a frame says its kind, after length, length of the frame before, and CRC.
pub(crate) const KIND_AT: usize = 8;
/// Where, in the byte of the kind, the bytes of padding are counted.
pub(crate) const PADDING_SHIFT: u32 = 5;
/// Most bytes of a header and the numbers behind it.
pub(crate) const HEAD_BYTES_MAX: usize = KIND_AT + 1 + 4 * VARINT_BYTES_MAX;

/// Appends an LSN as a varint of words. One that is not whole words (only a damaged page can have such a one)
/// takes ten bytes.
pub(crate) fn put_lsn(out: &mut impl Writer, lsn: Lsn) {
    out.put_varint(lsn.get().rotate_right(3));
}

/// The next LSN.
#[inline]
pub(crate) fn lsn(from: &mut Reader<'_>) -> Option<Lsn> {
    from.varint().map(|words| Lsn::new(words.rotate_left(3)))
}

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

    /// How the place of a frame takes part in its CRC.
    #[inline]
    fn place(self, lsn: Lsn) -> [u8; 8] {
        if self.without_lsn { [0; 8] } else { lsn.get().to_le_bytes() }
    }

    /// CRC of the frame at `lsn` that begins with `head` (16 bytes or more) and goes on with
    /// `rest`. The log's part of the seed comes first, then LSN, length, and all behind the CRC field.
    pub(crate) fn crc(self, lsn: Lsn, head: &[u8], rest: &[&[u8]]) -> u32 {
        // In one piece: several short calls cost more than the checksum itself.
        let mut bytes = [0; 12 + HEAD_BYTES_MAX];
        let (behind, len) = (&head[8..], head.len() + 4);
        bytes[..8].copy_from_slice(&self.place(lsn));
        bytes[8..12].copy_from_slice(&head[..4]);
        bytes[12..len].copy_from_slice(behind);
        let crc = crc32c::crc32c_append(self.log, &bytes[..len]);
        rest.iter().fold(crc, |crc, piece| match piece.len() {
            0 => crc,
            _ => crc32c::crc32c_append(crc, piece),
        })
    }
}

/// Bytes before the kind in a [`FrameBuf`].
const LEAD: usize = 12;
/// Memory a buffer keeps: few records are longer than a page and its image.
const KEPT_MAX: usize = 64 << 10;

/// A frame on its way to the log, written as the CRC reads it, so that it is checksummed in one piece and copied
/// in two:
///
/// ```text
///  0      8     10         12
///  │ LSN  │ len │ prev_len │ kind … body … padding │        all of it is what the CRC covers
///         │ len │ prev_len │ CRC │ kind …                   the frame
/// ```
#[derive(Debug, Default)]
pub(crate) struct FrameBuf {
    bytes: Vec<u8>,
}

impl Writer for FrameBuf {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl FrameBuf {
    /// An empty frame, whose kind comes last.
    pub(crate) fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; LEAD + 1]);
    }

    /// What was put since the beginning is a record of this kind.
    pub(crate) fn finish(&mut self, kind: u8) {
        let end = (self.bytes.len() - LEAD).next_multiple_of(8) + LEAD;
        let padding = end - self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.truncate(end);
        self.bytes[LEAD] = kind | (padding as u8) << PADDING_SHIFT;
        let len = in_words(self.len()).to_le_bytes();
        self.bytes[8..10].copy_from_slice(&len);
    }

    /// Bytes of the frame.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - LEAD + KIND_AT
    }

    /// Fills in what only the place in the log decides. Returns the frame: its first word, and the others.
    pub(crate) fn seal(&mut self, seed: Seed, lsn: Lsn, prev_len: u32) -> ([u8; 8], &[[u8; 8]]) {
        let mut first = [0; 8];
        self.bytes[..8].copy_from_slice(&seed.place(lsn));
        self.bytes[10..LEAD].copy_from_slice(&in_words(prev_len as usize).to_le_bytes());
        first[..4].copy_from_slice(&self.bytes[8..LEAD]);
        first[4..].copy_from_slice(&crc32c::crc32c_append(seed.log, &self.bytes).to_le_bytes());
        let (words, rest) = self.bytes[LEAD..].as_chunks();
        assert!(rest.is_empty(), "a frame is a whole number of words");
        (first, words)
    }

    /// Gives back the memory that an unusually long record took.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// What a frame's header says, once its CRC was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) prev_len: u32,
}

/// Length in the first two bytes, if a frame can have it.
pub(crate) fn plausible_len(head: &[u8]) -> Result<usize, &'static str> {
    match Reader::new(head).u16().map(words) {
        None => Err("the log file ends here"),
        Some(0) => Err("no record was written here"),
        Some(len) if !(FRAME_BYTES_MIN..=RECORD_BYTES_MAX).contains(&len) => {
            Err("impossible record length")
        }
        Some(len) => Ok(len),
    }
}

/// Length of the frame before the one that begins with `head`, as that one says.
pub(crate) fn prev_len(head: &[u8]) -> Option<usize> {
    Reader::new(head.get(2..)?).u16().map(words)
}

/// Checks the CRC of `frame`, which must be exactly one frame long.
pub(crate) fn check(frame: &[u8], seed: Seed, lsn: Lsn) -> Result<Header, &'static str> {
    let len = plausible_len(frame)?;
    if frame.len() != len {
        return Err("the log file ends inside the record");
    }
    let mut fields = Reader::new(&frame[2..]);
    let (prev_len, crc) = (fields.u16().unwrap_or(0), fields.u32().unwrap_or(0));
    // A short frame in one piece, a long one in one that is copied and one that is not.
    let head = if len <= HEAD_BYTES_MAX { len } else { FRAME_BYTES_MIN };
    let (head, rest) = frame.split_at(head);
    if seed.crc(lsn, head, &[rest]) != crc {
        return Err("record checksum does not match");
    }
    Ok(Header { len, prev_len: words(prev_len) as u32 })
}

/// Bytes of so many words.
fn words(count: u16) -> usize {
    usize::from(count) * 8
}

/// Words of so many bytes.
///
/// # Panics
/// When they are more than a frame can have.
pub(crate) fn in_words(bytes: usize) -> u16 {
    u16::try_from(bytes / 8).expect("caller keeps records below 512 KiB")
}
