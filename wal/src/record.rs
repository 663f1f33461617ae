//! Records: what they say, and how their bodies look in bytes.
//!
//! ```text
//!  kind              body (behind the 32-byte header of frame.rs)
//!  1 update          0  4  length of the changes c
//!                    4  c  changes (change.rs)
//!                    …  …  undo: nothing, inverse operations, or the access method's own bytes
//!  2 compensation    0  8  undo_next
//!                    8  …  changes
//!  3 commit          0  8  durable end known when it was appended
//!  4 end             empty
//!  5 ckpt begin      0  8  durable end
//!  6 ckpt end        0  8  LSN of the begin record
//!                    8  8  durable end
//!                   16  …  tables (tables.rs); header flag bit 3 says "last chunk"
//!  8 prepare         0  8  durable end
//!                    8  8  bytes of the vote in earlier pieces
//!                   16  …  a piece of the vote (txn/src/vote.rs); header flag bit 3 says "last piece"
//! ```
//!
//! There is no `Begin` record: `prev = 0` says it. A record is borrowed both ways, from the caller's
//! buffers while it is appended and from a [`RecordBuf`](crate::RecordBuf) when it is read, so neither
//! way allocates. Decoding trusts nothing: unknown kinds, flags, lengths and non-zero padding are
//! refused, never guessed at.

use argali_base::codec::Reader;
use argali_base::{Lsn, TxnId};

use crate::change::Changes;
use crate::frame::{HEAD_BYTES_MAX, HEADER_BYTES, Seed};
use crate::tables::CheckpointTables;

/// Most bytes a record takes beside its changes' operations, its undo and its tables, and beside
/// [`CHANGE_OVERHEAD`](crate::CHANGE_OVERHEAD) per change: header, fixed fields and padding.
pub const RECORD_OVERHEAD: usize = HEAD_BYTES_MAX + 8;

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
    /// The transaction's changes stay.
    Commit {
        /// Durable end known when this was appended (evidence for the end-of-log judgement).
        durable: Lsn,
    },
    /// The transaction is over and needs nothing from a restart.
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

const UNDO_NEVER: u8 = 0;
const UNDO_PHYSICAL: u8 = 1;
const UNDO_LOGICAL: u8 = 2;

const FLAG_PADDING: u8 = 0b0111;
const FLAG_LAST: u8 = 0b1000;

impl<'a> Record<'a> {
    /// Bytes this record takes in the log.
    pub fn encoded_len(&self) -> usize {
        Encoded::new(self).len()
    }

    /// Decodes one whole frame whose CRC was checked. `None`: it says nothing this version knows.
    pub fn decode(frame: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let len = reader.u32()? as usize;
        let _crc = reader.u32()?;
        let txn = TxnId::new(reader.u64()?);
        let prev = Lsn::new(reader.u64()?);
        let tags = Tags {
            kind: reader.u8()?,
            undo: reader.u8()?,
            owner: reader.u8()?,
            flags: reader.u8()?,
        };
        let _prev_len = reader.u32()?;
        if len != frame.len()
            || !len.is_multiple_of(8)
            || tags.flags & !(FLAG_PADDING | FLAG_LAST) != 0
        {
            return None;
        }
        let padding = usize::from(tags.flags & FLAG_PADDING);
        let (body, zeros) =
            reader.rest().split_at_checked(reader.rest().len().checked_sub(padding)?)?;
        if zeros.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(Self { txn, prev, body: Body::decode(tags, body)? })
    }
}

/// The four bytes of the header that say what the body is.
#[derive(Clone, Copy, Debug)]
struct Tags {
    kind: u8,
    undo: u8,
    owner: u8,
    flags: u8,
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

    fn decode(tags: Tags, bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let last = tags.flags & FLAG_LAST != 0;
        let plain = tags.undo == UNDO_NEVER && tags.owner == 0;
        let body = match tags.kind {
            UPDATE if !last => {
                let changes = Changes::decode(reader.long_bytes()?)?;
                let undo = Undo::decode(tags, changes, reader.take(reader.rest().len())?)?;
                return Some(Self::Update { changes, undo });
            }
            COMPENSATION if plain && !last => {
                let undo_next = Lsn::new(reader.u64()?);
                let changes = Changes::decode(reader.take(reader.rest().len())?)?;
                Self::Compensation { changes, undo_next }
            }
            COMMIT if plain && !last => Self::Commit { durable: Lsn::new(reader.u64()?) },
            END if plain && !last => Self::End,
            CHECKPOINT_BEGIN if plain && !last => {
                Self::CheckpointBegin { durable: Lsn::new(reader.u64()?) }
            }
            CHECKPOINT_END if plain => {
                let begin = Lsn::new(reader.u64()?);
                let durable = Lsn::new(reader.u64()?);
                let tables = CheckpointTables::decode(reader.take(reader.rest().len())?)?;
                Self::CheckpointEnd { begin, durable, last, tables }
            }
            PREPARE if plain => {
                let durable = Lsn::new(reader.u64()?);
                let before = reader.u64()?;
                let piece = reader.take(reader.rest().len())?;
                Self::Prepare { durable, before, last, piece }
            }
            _ => return None,
        };
        reader.is_empty().then_some(body)
    }
}

impl<'a> Undo<'a> {
    fn decode(tags: Tags, changes: Changes<'a>, bytes: &'a [u8]) -> Option<Self> {
        match tags.undo {
            UNDO_NEVER if tags.owner == 0 && bytes.is_empty() => Some(Self::Never),
            UNDO_PHYSICAL if tags.owner == 0 && changes.iter().count() == 1 => {
                Some(Self::Physical(bytes))
            }
            UNDO_LOGICAL => Some(Self::Logical { owner: Owner(tags.owner), body: bytes }),
            _ => None,
        }
    }
}

/// A record cut into pieces that lie one behind the other in its frame: nothing is copied before the
/// log's ring.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    /// Header and fixed fields.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    first: &'a [u8],
    second: &'a [u8],
    padding: usize,
}

impl<'a> Encoded<'a> {
    pub(crate) fn new(record: &Record<'a>) -> Self {
        let mut this = Self {
            head: [0; HEAD_BYTES_MAX],
            head_len: HEADER_BYTES,
            first: &[],
            second: &[],
            padding: 0,
        };
        let tags = this.lay_out(&record.body);
        let len = this.len_without_padding();
        this.padding = len.next_multiple_of(8) - len;
        let flags = tags.flags | this.padding as u8;
        let frame_len = u32::try_from(this.len()).expect("caller keeps records below 512 KiB");
        this.head[..4].copy_from_slice(&frame_len.to_le_bytes());
        this.head[8..16].copy_from_slice(&record.txn.get().to_le_bytes());
        this.head[16..24].copy_from_slice(&record.prev.get().to_le_bytes());
        this.head[24..28].copy_from_slice(&[tags.kind, tags.undo, tags.owner, flags]);
        this
    }

    fn lay_out(&mut self, body: &Body<'a>) -> Tags {
        let mut tags = Tags { kind: 0, undo: UNDO_NEVER, owner: 0, flags: 0 };
        match *body {
            Body::Update { changes, undo } => {
                tags.kind = UPDATE;
                self.first = changes.bytes();
                let len = u32::try_from(self.first.len()).expect("a record stays below 512 KiB");
                self.put_fixed(&len.to_le_bytes());
                let physical_changes = changes.iter().take(2).count();
                assert!(
                    !matches!(undo, Undo::Physical(_)) || physical_changes == 1,
                    "physical undo of a record that changes more or less than one page"
                );
                (tags.undo, tags.owner, self.second) = match undo {
                    Undo::Never => (UNDO_NEVER, 0, [].as_slice()),
                    Undo::Physical(ops) => (UNDO_PHYSICAL, 0, ops),
                    Undo::Logical { owner, body } => (UNDO_LOGICAL, owner.0, body),
                };
            }
            Body::Compensation { changes, undo_next } => {
                tags.kind = COMPENSATION;
                self.put_fixed(&undo_next.get().to_le_bytes());
                self.first = changes.bytes();
            }
            Body::Commit { durable } => {
                tags.kind = COMMIT;
                self.put_fixed(&durable.get().to_le_bytes());
            }
            Body::End => tags.kind = END,
            Body::CheckpointBegin { durable } => {
                tags.kind = CHECKPOINT_BEGIN;
                self.put_fixed(&durable.get().to_le_bytes());
            }
            Body::CheckpointEnd { begin, durable, last, tables } => {
                tags.kind = CHECKPOINT_END;
                tags.flags = if last { FLAG_LAST } else { 0 };
                self.put_fixed(&begin.get().to_le_bytes());
                self.put_fixed(&durable.get().to_le_bytes());
                self.first = tables.bytes();
            }
            Body::Prepare { durable, before, last, piece } => {
                tags.kind = PREPARE;
                tags.flags = if last { FLAG_LAST } else { 0 };
                self.put_fixed(&durable.get().to_le_bytes());
                self.put_fixed(&before.to_le_bytes());
                self.first = piece;
            }
        }
        tags
    }

    fn put_fixed(&mut self, bytes: &[u8]) {
        self.head[self.head_len..self.head_len + bytes.len()].copy_from_slice(bytes);
        self.head_len += bytes.len();
    }

    fn len_without_padding(&self) -> usize {
        self.head_len + self.first.len() + self.second.len()
    }

    /// Bytes of the frame.
    pub(crate) fn len(&self) -> usize {
        self.len_without_padding() + self.padding
    }

    /// Fills in what only the place in the log decides.
    pub(crate) fn seal(&mut self, seed: Seed, lsn: Lsn, prev_len: u32) {
        self.head[28..HEADER_BYTES].copy_from_slice(&prev_len.to_le_bytes());
        let [head, rest @ ..] = self.pieces();
        let crc = seed.crc(lsn, head, &rest);
        self.head[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The frame, piece by piece.
    pub(crate) fn pieces(&self) -> [&[u8]; 4] {
        static ZEROS: [u8; 8] = [0; 8];
        [&self.head[..self.head_len], self.first, self.second, &ZEROS[..self.padding]]
    }
}

#[cfg(test)]
mod tests;
