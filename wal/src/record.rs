//! Records: what they say, and how their bodies look in bytes.
//!
//! ```text
//!  kind             body (behind the header of frame.rs); numbers and LSNs are varints
//!  1 update         kind of the undo: 0 never · 1 physical · 2 + n logical, by owner n
//!                   length of the changes
//!                   changes (change.rs)
//!                   undo: nothing, inverse operations, or the access method's own bytes
//!  2 compensation   undo_next, changes
//!  3 commit         durable end known when it was appended
//!  4 end            empty
//!  5 ckpt begin     durable end
//!  6 ckpt end       LSN of the begin record, durable end, tables (tables.rs); bit 4 of the header's ninth
//!                   byte says "last chunk"
//!  8 prepare        durable end, bytes of the vote in earlier pieces, a piece of the vote (txn/src/vote.rs);
//!                   the same bit says "last piece"
//! ```
//!
//! There is no `Begin` record: `prev = 0` says it. A record is borrowed both ways, from the caller's
//! buffers while it is appended and from a [`RecordBuf`](crate::RecordBuf) when it is read, so neither
//! way allocates. Decoding trusts nothing: unknown kinds, flags, lengths and non-zero padding are
//! refused, never guessed at.

use argali_base::codec::{Reader, Writer};
use argali_base::{Lsn, TxnId};

use crate::change::Changes;
use crate::frame::{self, FrameBuf, HEAD_BYTES_MAX, KIND_AT, PADDING_SHIFT, put_lsn};
use crate::tables::CheckpointTables;

/// Most bytes a record takes beside its changes' operations, its undo and its tables, and beside
/// [`CHANGE_OVERHEAD`](crate::CHANGE_OVERHEAD) per change: header, fixed fields and padding.
pub const RECORD_OVERHEAD: usize = HEAD_BYTES_MAX + 7;

/// A record, borrowed both ways: from the scratch it is encoded from, and from the bytes it was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whose record it is; `NONE` for checkpoints.
    pub txn: TxnId,
    /// Previous record of the same transaction; `NONE` says: its first.
    pub prev: Lsn,
    /// What happened.
    pub body: Body<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Pages changed, and how to take the change back.
    Update {
        /// The pages and what was done to them.
        changes: Changes<'a>,
        /// How to take it back.
        undo: Undo<'a>,
    },
    /// A change taken back (CLR). Redo only; undo goes on at `undo_next`. Without changes it ends a
    /// nested top action.
    Compensation {
        /// The pages and what was done to them.
        changes: Changes<'a>,
        /// Predecessor of the record that was taken back (ARIES, section 3).
        undo_next: Lsn,
    },
    /// The transaction's changes stay, and it is over.
    Commit {
        /// Durable end known when this was appended (evidence for the end-of-log judgement).
        durable: Lsn,
    },
    /// The transaction is rolled back completely, and over.
    End,
    /// From here on, records are not in the tables of the checkpoint's end.
    CheckpointBegin {
        /// Durable end known when this was appended.
        durable: Lsn,
    },
    /// One chunk of the tables; the last one says so.
    CheckpointEnd {
        /// The `CheckpointBegin` it belongs to.
        begin: Lsn,
        /// Durable end known when this was appended.
        durable: Lsn,
        /// Whether the checkpoint is complete with this chunk.
        last: bool,
        /// The chunk.
        tables: CheckpointTables<'a>,
    },
    /// One piece of a transaction's vote to commit. With the last one the transaction is in doubt: it
    /// ends as somebody outside decides, whatever happens in between.
    Prepare {
        /// Durable end known when this was appended.
        durable: Lsn,
        /// Bytes of the vote in earlier pieces; 0 in its first.
        before: u64,
        /// Whether the vote is complete with this piece.
        last: bool,
        /// The piece, in the transaction manager's own bytes.
        piece: &'a [u8],
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
    Logical {
        /// Whose bytes they are.
        owner: Owner,
        /// What it needs to undo by meaning.
        body: &'a [u8],
    },
}

/// Number under which an access method registered its `LogicalUndo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub u8);

const UPDATE: u8 = 1;
const COMPENSATION: u8 = 2;
const COMMIT: u8 = 3;
const END: u8 = 4;
const CHECKPOINT_BEGIN: u8 = 5;
const CHECKPOINT_END: u8 = 6;
const PREPARE: u8 = 8;

const UNDO_NEVER: u64 = 0;
const UNDO_PHYSICAL: u64 = 1;
/// Plus the owner.
const UNDO_LOGICAL: u64 = 2;

/// Bits of the header's ninth byte.
const KIND_MASK: u8 = 0b1111;
const LAST: u8 = 0b1_0000;

impl<'a> Record<'a> {
    /// Bytes this record takes in the log.
    pub fn encoded_len(&self) -> usize {
        let mut frame = FrameBuf::default();
        frame.write(self);
        frame.len()
    }

    /// Decodes one whole frame whose CRC was checked. `None`: it says nothing this version knows.
    pub fn decode(frame: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let len = usize::from(reader.u16()?) * 8;
        let _prev_len = reader.u16()?;
        let _crc = reader.u32()?;
        let tag = reader.u8()?;
        let (txn, prev) = (TxnId::new(reader.varint()?), frame::lsn(&mut reader)?);
        let padding = usize::from(tag >> PADDING_SHIFT);
        let (body, zeros) =
            reader.rest().split_at_checked(reader.rest().len().checked_sub(padding)?)?;
        if len != frame.len() || zeros.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(Self { txn, prev, body: Body::decode(tag & KIND_MASK, tag & LAST != 0, body)? })
    }
}

/// Whether a frame with this ninth byte is of a kind this version knows.
pub(crate) fn is_known(tag: u8) -> bool {
    matches!(tag & KIND_MASK, UPDATE..=CHECKPOINT_END | PREPARE)
}

/// Whether a frame that begins with these two words may carry a durable end: by its kind, and by its length if all
/// of that kind are short. Megabytes of old records are asked this.
#[inline]
pub(crate) const fn may_claim(first: u64, second: u64) -> bool {
    let kind = (second & KIND_MASK as u64) as u8;
    let short = first & 0xffff <= HEAD_BYTES_MAX.div_ceil(8) as u64;
    matches!(kind, CHECKPOINT_END | PREPARE) || short && matches!(kind, COMMIT | CHECKPOINT_BEGIN)
}

/// The durable end that a frame beginning with `head` would prove, as far as its first bytes go: none for
/// kinds that prove nothing.
pub(crate) fn durable_claimed(head: &[u8]) -> Option<Lsn> {
    let mut reader = Reader::new(head.get(KIND_AT..)?);
    let kind = reader.u8()? & KIND_MASK;
    if !matches!(kind, COMMIT | CHECKPOINT_BEGIN | CHECKPOINT_END | PREPARE) {
        return None;
    }
    let (_txn, _prev) = (reader.varint()?, frame::lsn(&mut reader)?);
    if kind == CHECKPOINT_END {
        let _begin = frame::lsn(&mut reader)?;
    }
    frame::lsn(&mut reader)
}

impl<'a> Body<'a> {
    /// Name of the kind, for messages and dumps.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Update { .. } => "update",
            Self::Compensation { .. } => "compensation",
            Self::Commit { .. } => "commit",
            Self::End => "end",
            Self::CheckpointBegin { .. } => "checkpoint begin",
            Self::CheckpointEnd { .. } => "checkpoint end",
            Self::Prepare { .. } => "prepare",
        }
    }

    /// The durable end this record proves, if it carries one.
    pub fn durable(&self) -> Option<Lsn> {
        match self {
            Self::Commit { durable }
            | Self::CheckpointBegin { durable }
            | Self::CheckpointEnd { durable, .. }
            | Self::Prepare { durable, .. } => Some(*durable),
            Self::Update { .. } | Self::Compensation { .. } | Self::End => None,
        }
    }

    fn decode(kind: u8, last: bool, bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let body = match kind {
            UPDATE if !last => {
                let undo = reader.varint()?;
                let changes = Changes::decode(reader.var_bytes()?)?;
                let undo = Undo::decode(undo, changes, reader.rest())?;
                return Some(Self::Update { changes, undo });
            }
            COMPENSATION if !last => {
                let undo_next = frame::lsn(&mut reader)?;
                let changes = Changes::decode(reader.take(reader.rest().len())?)?;
                Self::Compensation { changes, undo_next }
            }
            COMMIT if !last => Self::Commit { durable: frame::lsn(&mut reader)? },
            END if !last => Self::End,
            CHECKPOINT_BEGIN if !last => {
                Self::CheckpointBegin { durable: frame::lsn(&mut reader)? }
            }
            CHECKPOINT_END => {
                let begin = frame::lsn(&mut reader)?;
                let durable = frame::lsn(&mut reader)?;
                let tables = CheckpointTables::decode(reader.take(reader.rest().len())?)?;
                Self::CheckpointEnd { begin, durable, last, tables }
            }
            PREPARE => {
                let durable = frame::lsn(&mut reader)?;
                let before = reader.varint()?;
                let piece = reader.take(reader.rest().len())?;
                Self::Prepare { durable, before, last, piece }
            }
            _ => return None,
        };
        reader.is_empty().then_some(body)
    }
}

impl<'a> Undo<'a> {
    fn decode(kind: u64, changes: Changes<'a>, bytes: &'a [u8]) -> Option<Self> {
        match kind {
            UNDO_NEVER if bytes.is_empty() => Some(Self::Never),
            UNDO_PHYSICAL if changes.iter().count() == 1 => Some(Self::Physical(bytes)),
            UNDO_NEVER | UNDO_PHYSICAL => None,
            logical => {
                let owner = Owner(u8::try_from(logical - UNDO_LOGICAL).ok()?);
                Some(Self::Logical { owner, body: bytes })
            }
        }
    }
}

impl FrameBuf {
    /// Lays `record` out, in place of what was here.
    pub(crate) fn write(&mut self, record: &Record<'_>) {
        self.begin();
        self.put_varint(record.txn.get());
        put_lsn(self, record.prev);
        let kind = self.lay_out(&record.body);
        self.finish(kind);
    }

    /// Numbers, then the rest; the kind, with its flag.
    fn lay_out(&mut self, body: &Body<'_>) -> u8 {
        let flag = |last| if last { LAST } else { 0 };
        match *body {
            Body::Update { changes, undo } => {
                let (kind, bytes) = undo_bytes(changes, undo);
                self.put_varint(kind);
                self.put_var_bytes(changes.bytes());
                self.put(bytes);
                UPDATE
            }
            Body::Compensation { changes, undo_next } => {
                put_lsn(self, undo_next);
                self.put(changes.bytes());
                COMPENSATION
            }
            Body::Commit { durable } => {
                put_lsn(self, durable);
                COMMIT
            }
            Body::End => END,
            Body::CheckpointBegin { durable } => {
                put_lsn(self, durable);
                CHECKPOINT_BEGIN
            }
            Body::CheckpointEnd { begin, durable, last, tables } => {
                put_lsn(self, begin);
                put_lsn(self, durable);
                self.put(tables.bytes());
                CHECKPOINT_END | flag(last)
            }
            Body::Prepare { durable, before, last, piece } => {
                put_lsn(self, durable);
                self.put_varint(before);
                self.put(piece);
                PREPARE | flag(last)
            }
        }
    }
}

/// Kind and bytes of an undo.
fn undo_bytes<'a>(changes: Changes<'a>, undo: Undo<'a>) -> (u64, &'a [u8]) {
    match undo {
        Undo::Never => (UNDO_NEVER, &[]),
        Undo::Physical(ops) => {
            let pages = changes.iter().take(2).count();
            assert!(
                pages == 1,
                "physical undo of a record that changes more or less than one page"
            );
            (UNDO_PHYSICAL, ops)
        }
        Undo::Logical { owner, body } => (UNDO_LOGICAL + u64::from(owner.0), body),
    }
}

#[cfg(test)]
mod tests;
