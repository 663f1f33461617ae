//! Every way a page can change: a closed set, because redo must know all of it.
//!
//! A log record holds, per page, a list of these operations. Forward work, redo and rollback all hand
//! them to [`PageMut::apply`], which repeats them exactly:
//!
//! ```text
//!  forward   fits? ── log ── apply           undo   inverse(before) ── log as CLR ── apply
//!  redo                 read the log ── apply
//! ```
//!
//! One operation on the log: a tag byte, then the fields in order. Numbers without a type are varints; cells
//! and bytes carry their length in front.
//!
//! ```text
//!  1 Format  kind u8, level u8, owner         6 Add      slot, at, delta u64
//!  2 Insert  slot, head u32, cell             7 Truncate slot
//!  3 Remove  slot                             8 SetLink  link
//!  4 Replace slot, head u32, cell             9 SetBit   index, value u8
//!  5 Patch   slot, at, bytes                 10 Image    bytes
//! 11 Heads   skip, heads: u32 for each slot
//! ```
//!
//! An image omits the hole between slots and heap; its length says how large the hole was, its header
//! where it began. Left out: compression, and operations with a meaning above slots (a B+tree split is
//! a list of these).

use std::fmt;

use argali_base::PageId;
use argali_base::codec::{Reader, Writer};

use crate::page::{HEADER_BYTES, PAGE_VERSION, SLOT_BYTES, at};
use crate::{MapLayout, PageKind, PageMut, PageRef};

/// One change of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOp<'a> {
    /// An empty page of this kind; needs nothing of what was there. First operation of its change.
    /// A map page begins with bit 0 set: it covers itself.
    Format {
        /// What the page becomes.
        kind: PageKind,
        /// Height above the leaves.
        level: u8,
        /// Root page id of the tree it belongs to.
        owner: u64,
    },
    /// New cell at `slot`; later slots move up.
    Insert {
        /// Where the cell goes, at most the slot count.
        slot: u16,
        /// Its key head.
        head: u32,
        /// Its bytes.
        cell: &'a [u8],
    },
    /// Removes the cell at `slot`; later slots move down.
    Remove {
        /// Which cell.
        slot: u16,
    },
    /// New bytes for the cell at `slot` (any length).
    Replace {
        /// Which cell.
        slot: u16,
        /// Its new key head.
        head: u32,
        /// Its new bytes.
        cell: &'a [u8],
    },
    /// Overwrites bytes inside a cell: flags, child ids, counters.
    Patch {
        /// Which cell.
        slot: u16,
        /// Offset inside the cell.
        at: u16,
        /// What stands there afterwards.
        bytes: &'a [u8],
    },
    /// Adds `delta` (wrapping) to the u64 at `at` inside the cell: deliberately not idempotent.
    Add {
        /// Which cell.
        slot: u16,
        /// Offset of the u64 inside the cell.
        at: u16,
        /// What is added.
        delta: u64,
    },
    /// Removes every cell from `slot` on (left half of a split).
    Truncate {
        /// First cell to go.
        slot: u16,
    },
    /// Sets the link field.
    SetLink {
        /// Its new value.
        link: u64,
    },
    /// Sets or clears bit `index` of a map page.
    SetBit {
        /// Which bit.
        index: u32,
        /// What it becomes.
        value: bool,
    },
    /// The whole page as it was before the following operations. Give it all bytes of the page
    /// ([`PageRef::bytes`]): encoding leaves the hole out, decoding gives the bytes without it, and
    /// applying takes either.
    Image {
        /// The page's bytes, with or without its hole.
        bytes: &'a [u8],
    },
    /// How many leading key bytes the heads leave out from now on, and so the head of each slot anew.
    Heads {
        /// Bytes left out; all keys of the page share them.
        skip: u16,
        /// Four bytes for each slot, a little-endian number.
        heads: &'a [u8],
    },
}

impl<'a> PageOp<'a> {
    /// Everything that can fail, asked before logging.
    pub fn fits(&self, page: PageRef<'_>) -> bool {
        let slotted = page.kind().is_some_and(PageKind::is_slotted);
        let cell_len = |slot: u16| page.cell(usize::from(slot)).map(<[u8]>::len);
        match *self {
            Self::Format { .. } | Self::SetLink { .. } => true,
            Self::Insert { slot, cell, .. } => {
                slotted
                    && usize::from(slot) <= page.slot_count()
                    && cell.len() + SLOT_BYTES <= page.free_bytes()
            }
            Self::Remove { slot } => slotted && cell_len(slot).is_some(),
            Self::Replace { slot, cell, .. } => {
                slotted && cell_len(slot).is_some_and(|old| cell.len() <= page.free_bytes() + old)
            }
            Self::Patch { slot, at, bytes } => {
                slotted && cell_len(slot).is_some_and(|len| usize::from(at) + bytes.len() <= len)
            }
            Self::Add { slot, at, .. } => {
                slotted && cell_len(slot).is_some_and(|len| usize::from(at) + 8 <= len)
            }
            Self::Truncate { slot } => slotted && usize::from(slot) <= page.slot_count(),
            Self::SetBit { index, .. } => {
                page.kind() == Some(PageKind::Map) && MapLayout::bit_place(page, index).is_some()
            }
            Self::Image { bytes } => image_parts(bytes, page.bytes().len()).is_some(),
            Self::Heads { heads, .. } => slotted && heads.len() == 4 * page.slot_count(),
        }
    }

    /// The operation that takes this one back, given the page before it. Borrows from that page.
    ///
    /// # Panics
    /// For `Format`, `Truncate`, `Image` and `Heads`, which only structure changes use, and when the operation
    /// does not fit the page.
    #[must_use]
    pub fn inverse<'p>(&self, before: PageRef<'p>) -> PageOp<'p> {
        let old = |slot: u16| {
            let index = usize::from(slot);
            let found = before.cell(index).zip(before.head(index));
            found.unwrap_or_else(|| panic!("{self} does not fit {before:?}: no cell {slot}"))
        };
        match *self {
            Self::Insert { slot, .. } => PageOp::Remove { slot },
            Self::Remove { slot } => {
                let (cell, head) = old(slot);
                PageOp::Insert { slot, head, cell }
            }
            Self::Replace { slot, .. } => {
                let (cell, head) = old(slot);
                PageOp::Replace { slot, head, cell }
            }
            Self::Patch { slot, at, bytes } => {
                let start = usize::from(at);
                PageOp::Patch { slot, at, bytes: &old(slot).0[start..start + bytes.len()] }
            }
            Self::Add { slot, at, delta } => PageOp::Add { slot, at, delta: delta.wrapping_neg() },
            Self::SetLink { .. } => PageOp::SetLink { link: before.link() },
            Self::SetBit { index, .. } => {
                PageOp::SetBit { index, value: MapLayout::is_set(before, index) }
            }
            Self::Format { .. }
            | Self::Truncate { .. }
            | Self::Image { .. }
            | Self::Heads { .. } => {
                panic!("{self} has no inverse: structure changes are never undone")
            }
        }
    }

    /// Whether redo needs nothing of the old page (`Format`, `Image`).
    pub const fn overwrites(&self) -> bool {
        matches!(self, Self::Format { .. } | Self::Image { .. })
    }

    /// Appends the operation to a change.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.tag());
        match *self {
            Self::Format { kind, level, owner } => {
                out.put_u8(kind as u8);
                out.put_u8(level);
                out.put_varint(owner);
            }
            Self::Insert { slot, head, cell } | Self::Replace { slot, head, cell } => {
                out.put_varint(slot.into());
                out.put_u32(head);
                out.put_var_bytes(cell);
            }
            Self::Remove { slot } | Self::Truncate { slot } => out.put_varint(slot.into()),
            Self::Patch { slot, at, bytes } => {
                out.put_varint(slot.into());
                out.put_varint(at.into());
                out.put_var_bytes(bytes);
            }
            Self::Add { slot, at, delta } => {
                out.put_varint(slot.into());
                out.put_varint(at.into());
                out.put_u64(delta);
            }
            Self::SetLink { link } => out.put_varint(link),
            Self::SetBit { index, value } => {
                out.put_varint(index.into());
                out.put_u8(u8::from(value));
            }
            Self::Image { bytes } => encode_image(bytes, out),
            Self::Heads { skip, heads } => {
                out.put_varint(skip.into());
                out.put_var_bytes(heads);
            }
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Format { .. } => 1,
            Self::Insert { .. } => 2,
            Self::Remove { .. } => 3,
            Self::Replace { .. } => 4,
            Self::Patch { .. } => 5,
            Self::Add { .. } => 6,
            Self::Truncate { .. } => 7,
            Self::SetLink { .. } => 8,
            Self::SetBit { .. } => 9,
            Self::Image { .. } => 10,
            Self::Heads { .. } => 11,
        }
    }

    fn decode(from: &mut Reader<'a>) -> Option<Self> {
        Some(match from.u8()? {
            1 => Self::Format {
                kind: PageKind::from_u8(from.u8()?)?,
                level: from.u8()?,
                owner: from.varint()?,
            },
            2 => Self::Insert { slot: short(from)?, head: from.u32()?, cell: from.var_bytes()? },
            3 => Self::Remove { slot: short(from)? },
            4 => Self::Replace { slot: short(from)?, head: from.u32()?, cell: from.var_bytes()? },
            5 => Self::Patch { slot: short(from)?, at: short(from)?, bytes: from.var_bytes()? },
            6 => Self::Add { slot: short(from)?, at: short(from)?, delta: from.u64()? },
            7 => Self::Truncate { slot: short(from)? },
            8 => Self::SetLink { link: from.varint()? },
            9 => Self::SetBit { index: from.varint()?.try_into().ok()?, value: from.u8()? != 0 },
            10 => Self::Image { bytes: from.var_bytes()? },
            11 => Self::Heads { skip: short(from)?, heads: from.var_bytes()? },
            _ => return None,
        })
    }

    /// Carries the operation out, or says why it cannot be.
    pub(crate) fn apply_to(&self, page: &mut PageMut<'_>) -> Result<(), String> {
        let fits = match self {
            // They look for themselves before they change anything.
            Self::Insert { .. }
            | Self::Remove { .. }
            | Self::Replace { .. }
            | Self::Patch { .. }
            | Self::Add { .. }
            | Self::Truncate { .. } => page.page().kind().is_some_and(PageKind::is_slotted),
            Self::Format { .. }
            | Self::SetLink { .. }
            | Self::SetBit { .. }
            | Self::Image { .. }
            | Self::Heads { .. } => self.fits(page.page()),
        };
        if !fits {
            return Err(format!("does not fit {:?}", page.page()));
        }
        match *self {
            Self::Format { kind, level, owner } => format(page, kind, level, owner),
            Self::Insert { slot, head, cell } => page.insert(usize::from(slot), head, cell)?,
            Self::Remove { slot } => page.remove(usize::from(slot))?,
            Self::Replace { slot, head, cell } => page.replace(usize::from(slot), head, cell)?,
            Self::Patch { slot, at, bytes } => {
                page.patch(usize::from(slot), usize::from(at), bytes)?;
            }
            Self::Add { slot, at, delta } => add(page, slot, at, delta)?,
            Self::Truncate { slot } => page.truncate(usize::from(slot))?,
            Self::SetLink { link } => page.put_u64(at::LINK, link),
            Self::SetBit { index, value } => MapLayout::put_bit(page, index, value),
            Self::Image { bytes } => restore(page, bytes)?,
            Self::Heads { skip, heads } => page.set_heads(usize::from(skip), heads),
        }
        Ok(())
    }
}

fn short(from: &mut Reader<'_>) -> Option<u16> {
    from.varint()?.try_into().ok()
}

/// Id, LSN and database survive: a page keeps its identity and its LSN keeps growing.
fn format(page: &mut PageMut<'_>, kind: PageKind, level: u8, owner: u64) {
    let (id, lsn, database) = (page.page().id(), page.page().lsn(), page.page().database());
    let size = page.page().bytes().len();
    page.blank(id, database);
    page.put(at::KIND, &[kind as u8, PAGE_VERSION, level]);
    page.put_u64(at::LSN, lsn.get());
    page.put_u32(at::HEAP_START, size as u32);
    page.put_u64(at::OWNER, owner);
    if kind == PageKind::Map {
        MapLayout::put_bit(page, 0, true);
    }
}

fn add(page: &mut PageMut<'_>, slot: u16, at: u16, delta: u64) -> Result<(), String> {
    let start = usize::from(at);
    let cell = page.page().cell(usize::from(slot)).ok_or("no such cell")?;
    let old = *cell.get(start..).and_then(|rest| rest.first_chunk()).ok_or("no u64 there")?;
    let sum = u64::from_le_bytes(old).wrapping_add(delta);
    page.patch(usize::from(slot), start, &sum.to_le_bytes())
}

/// Whether `bytes` are a page with its hole: see [`encode_image`].
fn is_whole(bytes: &[u8]) -> bool {
    let image = PageRef::new(bytes);
    // An image without its hole whose length happens to be a power of two lost half a page or more, so
    // the heap start it carries lies beyond its own end.
    bytes.len().is_power_of_two()
        && bytes.len() >= 4096
        && image.u32(at::HEAP_START) as usize <= bytes.len()
}

fn encode_image(bytes: &[u8], out: &mut Vec<u8>) {
    let hole = if is_whole(bytes) { PageRef::new(bytes).hole() } else { bytes.len()..bytes.len() };
    out.put_varint((bytes.len() - hole.len()) as u64);
    out.put(&bytes[..hole.start]);
    out.put(&bytes[hole.end..]);
}

/// What stands before and behind the hole of an image of a page of `size` bytes; `None` when it is not
/// one.
fn image_parts(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    if bytes.len() < HEADER_BYTES || bytes.len() > size {
        return None;
    }
    let before = PageRef::new(bytes).slots_end();
    let whole = bytes.len() == size;
    bytes.split_at_checked(if whole { size } else { before })
}

fn restore(page: &mut PageMut<'_>, bytes: &[u8]) -> Result<(), String> {
    let size = page.page().bytes().len();
    let (before, behind) = image_parts(bytes, size).ok_or("not an image of a page this size")?;
    let image = PageRef::new(before);
    if image.id() != page.page().id() {
        return Err(format!("image of {} for {}", image.id(), page.page().id()));
    }
    page.put(0, before);
    page.words().zero(before.len(), size - behind.len());
    page.put(size - behind.len(), behind);
    Ok(())
}

impl fmt::Display for PageOp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Format { kind, level, owner } => {
                write!(f, "format {kind:?} level {level} of p{owner}")
            }
            Self::Insert { slot, cell, .. } => write!(f, "insert [{slot}] {}", Cell(cell)),
            Self::Remove { slot } => write!(f, "remove [{slot}]"),
            Self::Replace { slot, cell, .. } => write!(f, "replace [{slot}] {}", Cell(cell)),
            Self::Patch { slot, at, bytes } => write!(f, "patch [{slot}]+{at} {}", Cell(bytes)),
            Self::Add { slot, at, delta } => write!(f, "add [{slot}]+{at} {}", delta as i64),
            Self::Truncate { slot } => write!(f, "truncate [{slot}..]"),
            Self::SetLink { link } => write!(f, "link p{link}"),
            Self::SetBit { index, value } => write!(f, "bit {index} = {}", u8::from(value)),
            Self::Image { bytes } => write!(f, "image of {} bytes", bytes.len()),
            Self::Heads { skip, .. } => write!(f, "heads behind {skip} bytes"),
        }
    }
}

/// Up to 32 bytes, printable ones as they are.
struct Cell<'a>(&'a [u8]);

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(32)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Decodes the operations of one change.
#[derive(Clone, Copy, Debug)]
pub struct OpList;

impl OpList {
    /// The operations, borrowing from `bytes`; `None` when the bytes are not a list of operations.
    pub fn decode(bytes: &[u8]) -> Option<Vec<PageOp<'_>>> {
        let mut ops = Vec::new();
        Self::decode_into(bytes, &mut ops)?;
        Some(ops)
    }

    /// As [`OpList::decode`], into a vector whose contents go and whose room is used again.
    pub fn decode_into<'a>(bytes: &'a [u8], ops: &mut Vec<PageOp<'a>>) -> Option<()> {
        ops.clear();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            ops.push(PageOp::decode(&mut reader)?);
        }
        Some(())
    }

    /// Whether redo of the change needs nothing of the old page: its first operation overwrites it.
    pub fn overwrites(bytes: &[u8]) -> bool {
        PageOp::decode(&mut Reader::new(bytes)).is_some_and(|op| op.overwrites())
    }

    /// For dumps and restart events: `p7: insert [3] "k"; link p9`.
    pub fn describe(page: PageId, bytes: &[u8]) -> String {
        let Some(ops) = Self::decode(bytes) else {
            return format!("{page}: {} bytes that are not operations", bytes.len());
        };
        let ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
        format!("{page}: {}", ops.join("; "))
    }
}
