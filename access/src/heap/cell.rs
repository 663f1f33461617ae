//! What stands in a slot of a heap page.
//!
//! ```text
//!  row      flags u8 │ length u16 │ bytes │ slack                                kind 0
//!  moved    flags u8 │ length u16 │ home page u64 │ home slot u16 │ bytes │ slack     1
//!  forward  flags u8 │ page u64 │ slot u16 │ slack                                    2
//!  free     a cell without bytes
//!
//!  flags    bits 0 to 3: kind; bit 7: ghost
//! ```
//!
//! A row stands as `row` in its home, or there is a `forward` in its home and the row stands as `moved`
//! where that points; each knows the other. No cell that is not free is shorter than a forward, so a row
//! can always leave its page without more room in it. A ghost keeps its bytes: taking a deletion back is
//! flipping one bit.

use argali_base::PageId;
use argali_base::codec::Reader;
use argali_pager::PageRef;

use super::RowId;
use super::row_id::ROW_ID_BYTES;

/// Bytes before those of a row in its home.
pub(super) const ROW_HEADER: usize = 3;
/// Bytes before those of a row that has moved.
pub(super) const MOVED_HEADER: usize = ROW_HEADER + ROW_ID_BYTES;
/// Bytes of a forward, and of the shortest cell.
pub(super) const FORWARD_BYTES: usize = 1 + ROW_ID_BYTES;

const ROW: u8 = 0;
const MOVED: u8 = 1;
const FORWARD: u8 = 2;
const GHOST: u8 = 0x80;

/// What a cell is, and where else to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Row,
    Moved { home: RowId },
    Forward { to: RowId },
}

/// A cell that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    pub(super) kind: Kind,
    pub(super) ghost: bool,
    /// The row's bytes; none in a forward.
    pub(super) row: &'a [u8],
    /// The whole cell, with its slack.
    pub(super) bytes: &'a [u8],
}

/// Bytes that are no cell of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

impl<'a> Cell<'a> {
    /// The cell in `slot`; `None` when it is free or there is no such slot.
    pub(super) fn read(page: PageRef<'a>, slot: usize) -> Result<Option<Self>, Nonsense> {
        if slot >= page.slot_count() {
            return Ok(None);
        }
        match page.cell(slot).ok_or(Nonsense)? {
            [] => Ok(None),
            bytes => Self::parse(bytes).map(Some).ok_or(Nonsense),
        }
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < FORWARD_BYTES {
            return None;
        }
        let mut fields = Reader::new(bytes);
        let flags = fields.u8()?;
        let (kind, row) = match flags & !GHOST {
            ROW => {
                let len = fields.u16()?;
                (Kind::Row, fields.take(usize::from(len))?)
            }
            MOVED => {
                let len = fields.u16()?;
                let home = read_id(&mut fields)?;
                (Kind::Moved { home }, fields.take(usize::from(len))?)
            }
            FORWARD => (Kind::Forward { to: read_id(&mut fields)? }, &[][..]),
            _ => return None,
        };
        Some(Self { kind, ghost: flags & GHOST != 0, row, bytes })
    }

    /// Bytes in use, the rest is slack.
    pub(super) fn used(&self) -> usize {
        match self.kind {
            Kind::Row => row_cell_bytes(self.row.len()),
            Kind::Moved { .. } => MOVED_HEADER + self.row.len(),
            Kind::Forward { .. } => FORWARD_BYTES,
        }
    }

    /// The cell's first byte once its ghost flag is turned over.
    pub(super) fn flipped(&self) -> [u8; 1] {
        [self.bytes[0] ^ GHOST]
    }
}

fn read_id(fields: &mut Reader<'_>) -> Option<RowId> {
    Some(RowId { page: PageId::new(fields.u64()?), slot: fields.u16()? })
}

/// Bytes of the cell of a row in its home.
pub(super) fn row_cell_bytes(row: usize) -> usize {
    (ROW_HEADER + row).max(FORWARD_BYTES)
}

/// Appends the cell of a row: in its home, or away from it.
///
/// # Panics
/// When the row is longer than 64 KiB; callers checked that it fits a page.
pub(super) fn push_cell(out: &mut Vec<u8>, home: Option<RowId>, row: &[u8]) {
    let begin = out.len();
    let len = u16::try_from(row.len()).expect("a row fits a page");
    out.push(if home.is_some() { MOVED } else { ROW });
    out.extend_from_slice(&len.to_le_bytes());
    if let Some(home) = home {
        push_id(out, home);
    }
    out.extend_from_slice(row);
    out.resize(out.len().max(begin + FORWARD_BYTES), 0);
}

/// The beginning of a cell whose row is now at `to`.
pub(super) fn forward(to: RowId) -> [u8; FORWARD_BYTES] {
    let mut bytes = [0; FORWARD_BYTES];
    bytes[0] = FORWARD;
    bytes[1..9].copy_from_slice(&to.page.get().to_le_bytes());
    bytes[9..].copy_from_slice(&to.slot.to_le_bytes());
    bytes
}

fn push_id(out: &mut Vec<u8>, id: RowId) {
    out.extend_from_slice(&id.page.get().to_le_bytes());
    out.extend_from_slice(&id.slot.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RowId = RowId { page: PageId::new(0x0102), slot: 3 };

    #[test]
    fn cells_have_the_documented_bytes() {
        let mut out = Vec::new();
        push_cell(&mut out, None, b"ab");
        assert_eq!(out, [0, 2, 0, b'a', b'b', 0, 0, 0, 0, 0, 0], "padded to a forward");
        let cell = Cell::parse(&out).unwrap();
        assert_eq!((cell.kind, cell.row, cell.used()), (Kind::Row, &b"ab"[..], 11));
        out.clear();
        push_cell(&mut out, Some(ID), b"abc");
        assert_eq!(out, [1, 3, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, b'a', b'b', b'c']);
        let cell = Cell::parse(&out).unwrap();
        assert_eq!((cell.kind, cell.row), (Kind::Moved { home: ID }, &b"abc"[..]));
        assert_eq!(forward(ID), [2, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0]);
        let mut ghost = forward(ID);
        ghost[0] = Cell::parse(&forward(ID)).unwrap().flipped()[0];
        let cell = Cell::parse(&ghost).unwrap();
        assert_eq!((ghost[0], cell.kind, cell.ghost), (0x82, Kind::Forward { to: ID }, true));
        assert_eq!(cell.flipped(), [2]);
    }

    #[test]
    fn what_is_no_cell_is_refused() {
        let bad: [&[u8]; 5] = [
            &[0; 10],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for bytes in bad {
            assert_eq!(Cell::parse(bytes), None, "{bytes:?}");
        }
        assert!(Cell::parse(&[0; 11]).is_some(), "an empty row");
    }
}
