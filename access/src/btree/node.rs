//! What a tree page looks like, for latched pages and for optimistic glimpses alike.
//!
//! ```text
//!  leaf cell   flags u8 │ key length u16 │ value length u16 │ key │ value │ slack
//!              flags: bit 0 ghost; bit 1 large: the value is in overflow pages, here is its reference
//!  inner cell  child u64 │ separator              slot 0 has an empty separator (= minus infinity)
//! ```
//!
//! The slack of a leaf cell is what a shrunk value left behind: an abort may need it again. Every slot
//! carries the key's *head* ([`super::heads`]), so most comparisons never touch the cell.
//!
//! [`View`] is the little that searching needs to read. A glimpse may answer nonsense while somebody
//! writes; all readers here check what they compute with and say [`Restart`], and the caller finds out
//! (by validating the version) whether that was a race or damage.

use std::cmp::Ordering;

use argali_base::PageId;
use argali_buffer_pool::{PageGlimpse, Restart};
use argali_pager::{HEADER_BYTES, PageKind, PageRef};

/// Bytes before the key of a leaf cell.
pub(super) const LEAF_HEADER: usize = 5;
/// Bytes before the separator of an inner cell.
pub(super) const INNER_HEADER: usize = 8;
/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = 8;
/// Deepest tree believed in: 2^64 pages of two children each.
pub(super) const LEVEL_MAX: u8 = 64;

const GHOST: u8 = 1;
const LARGE: u8 = 2;

// Offsets in the page header; the table stands in `pager/src/page.rs`.
const KIND_AT: usize = 4;
const LEVEL_AT: usize = 6;
const LSN_AT: usize = 16;
const SKIP_AT: usize = 34;
const LINK_AT: usize = 48;
const OWNER_AT: usize = 56;

/// Bounds-checked reading of a page that may be changing meanwhile.
pub(super) trait View {
    /// The `len` bytes (1 to 8) at `at`, the first one lowest, zeros above the last.
    fn word(&self, at: usize, len: usize) -> Result<u64, Restart>;
    /// Slots in the page.
    fn slot_count(&self) -> Result<usize, Restart>;
    /// The key head in a slot.
    fn head(&self, slot: usize) -> Result<u32, Restart>;
    /// Offset and length of a cell, inside the page.
    fn cell(&self, slot: usize) -> Result<(usize, usize), Restart>;
    /// How the `len` bytes at `at` compare with `key`.
    fn order(&self, at: usize, len: usize, key: &[u8]) -> Result<Ordering, Restart>;
}

/// Level of a node of the tree rooted at `owner` (0 = leaf); `Restart` when it is no such node.
pub(super) fn level(view: &impl View, owner: PageId) -> Result<u8, Restart> {
    let first = view.word(0, 8)?.to_le_bytes();
    let (kind, level) = (first[KIND_AT], first[LEVEL_AT]);
    let fits = match level {
        0 => kind == PageKind::Leaf as u8,
        1..=LEVEL_MAX => kind == PageKind::Inner as u8,
        _ => false,
    };
    if fits && view.word(OWNER_AT, 8)? == owner.get() { Ok(level) } else { Err(Restart) }
}

/// pageLSN.
pub(super) fn lsn(view: &impl View) -> Result<argali_base::Lsn, Restart> {
    view.word(LSN_AT, 8).map(argali_base::Lsn::new)
}

/// Leading key bytes that the heads leave out.
#[inline]
pub(super) fn skip(view: &impl View) -> Result<usize, Restart> {
    view.word(SKIP_AT, 2).map(|skip| skip as usize)
}

/// Right sibling; `None` for the last node of a level.
pub(super) fn link(view: &impl View) -> Result<Option<PageId>, Restart> {
    Ok(match view.word(LINK_AT, 8)? {
        0 => None,
        id => Some(PageId::new(id)),
    })
}

/// What a leaf cell has for a value: the value itself, or a reference to a large one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) bytes: &'a [u8],
    /// Whether they are the reference to an overflow chain.
    pub(crate) large: bool,
}

impl<'a> Stored<'a> {
    pub(super) const NOTHING: Self = Self::small(&[]);

    pub(crate) const fn small(bytes: &'a [u8]) -> Self {
        Self { bytes, large: false }
    }
}

/// Where the parts of a leaf cell are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafCell {
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) ghost: bool,
    pub(super) large: bool,
    pub(super) key_len: usize,
    pub(super) value_len: usize,
}

impl LeafCell {
    pub(super) fn read(view: &impl View, slot: usize) -> Result<Self, Restart> {
        let (at, len) = view.cell(slot)?;
        if len < LEAF_HEADER {
            return Err(Restart);
        }
        let header = view.word(at, LEAF_HEADER)?;
        let (flags, short) = (header as u8, |shift: u32| usize::from((header >> shift) as u16));
        let cell = Self {
            at,
            len,
            ghost: flags & GHOST != 0,
            large: flags & LARGE != 0,
            key_len: short(8),
            value_len: short(24),
        };
        if cell.used() <= len { Ok(cell) } else { Err(Restart) }
    }

    pub(super) fn key_at(&self) -> usize {
        self.at + LEAF_HEADER
    }

    pub(super) fn value_at(&self) -> usize {
        self.key_at() + self.key_len
    }

    /// Bytes in use; the rest of `len` is slack.
    pub(super) fn used(&self) -> usize {
        LEAF_HEADER + self.key_len + self.value_len
    }

    /// Whether `value_len` bytes fit without making the cell longer.
    pub(super) fn holds(&self, value_len: usize) -> bool {
        LEAF_HEADER + self.key_len + value_len <= self.len
    }

    pub(super) fn key(self, page: PageRef<'_>) -> &[u8] {
        &page.bytes()[self.key_at()..self.value_at()]
    }

    pub(super) fn value(self, page: PageRef<'_>) -> Stored<'_> {
        let bytes = &page.bytes()[self.value_at()..self.at + self.used()];
        Stored { bytes, large: self.large }
    }

    /// First byte of the cell once it is a ghost; all else stays.
    pub(super) fn ghost_flags(&self) -> u8 {
        flags(true, self.large)
    }
}

fn flags(ghost: bool, large: bool) -> u8 {
    u8::from(ghost) * GHOST + u8::from(large) * LARGE
}

/// First five bytes of a live leaf cell.
///
/// # Panics
/// When a length exceeds 64 KiB; callers checked sizes against a quarter of a page.
pub(super) fn live_header(key_len: usize, value: Stored<'_>) -> [u8; LEAF_HEADER] {
    let short = |len: usize| u16::try_from(len).expect("entries are at most a quarter of a page");
    let (k, v) = (short(key_len).to_le_bytes(), short(value.bytes.len()).to_le_bytes());
    [flags(false, value.large), k[0], k[1], v[0], v[1]]
}

/// Appends a live leaf cell without slack.
pub(super) fn push_leaf_cell(out: &mut Vec<u8>, key: &[u8], value: Stored<'_>) {
    out.extend_from_slice(&live_header(key.len(), value));
    out.extend_from_slice(key);
    out.extend_from_slice(value.bytes);
}

/// Bytes of a live leaf cell without slack.
pub(super) const fn leaf_cell_bytes(key_len: usize, value_len: usize) -> usize {
    LEAF_HEADER + key_len + value_len
}

/// Writes a live leaf cell into as many bytes as it takes.
pub(super) fn write_leaf_cell(out: &mut [u8], key: &[u8], value: Stored<'_>) {
    let (header, rest) = out.split_at_mut(LEAF_HEADER);
    let (key_bytes, value_bytes) = rest.split_at_mut(key.len());
    header.copy_from_slice(&live_header(key.len(), value));
    key_bytes.copy_from_slice(key);
    value_bytes.copy_from_slice(value.bytes);
}

/// The key in the bytes of a leaf cell.
pub(super) fn key_of_leaf_cell(cell: &[u8]) -> &[u8] {
    let len = usize::from(u16::from_le_bytes([cell[1], cell[2]]));
    &cell[LEAF_HEADER..LEAF_HEADER + len]
}

/// Where the parts of an inner cell are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InnerCell {
    pub(super) child: PageId,
    pub(super) separator_at: usize,
    pub(super) separator_len: usize,
}

impl InnerCell {
    pub(super) fn read(view: &impl View, slot: usize) -> Result<Self, Restart> {
        let (at, len) = view.cell(slot)?;
        let separator_len = len.checked_sub(INNER_HEADER).ok_or(Restart)?;
        let child = PageId::new(view.word(at, INNER_HEADER)?);
        Ok(Self { child, separator_at: at + INNER_HEADER, separator_len })
    }

    pub(super) fn separator(self, page: PageRef<'_>) -> &[u8] {
        &page.bytes()[self.separator_at..self.separator_at + self.separator_len]
    }
}

/// Appends an inner cell.
pub(super) fn push_inner_cell(out: &mut Vec<u8>, child: PageId, separator: &[u8]) {
    out.extend_from_slice(&child.get().to_le_bytes());
    out.extend_from_slice(separator);
}

impl View for PageGlimpse<'_> {
    #[inline]
    fn word(&self, at: usize, len: usize) -> Result<u64, Restart> {
        PageGlimpse::word(self, at, len)
    }
    #[inline]
    fn slot_count(&self) -> Result<usize, Restart> {
        PageGlimpse::slot_count(self)
    }
    #[inline]
    fn head(&self, slot: usize) -> Result<u32, Restart> {
        PageGlimpse::head(self, slot)
    }
    #[inline]
    fn cell(&self, slot: usize) -> Result<(usize, usize), Restart> {
        PageGlimpse::cell(self, slot)
    }
    fn order(&self, at: usize, len: usize, key: &[u8]) -> Result<Ordering, Restart> {
        self.compare(at, len, key)
    }
}

impl View for PageRef<'_> {
    fn word(&self, at: usize, len: usize) -> Result<u64, Restart> {
        let end = at.checked_add(len).ok_or(Restart)?;
        let bytes = self.bytes().get(at..end).ok_or(Restart)?;
        let mut word = [0; 8];
        word.get_mut(..len).ok_or(Restart)?.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(word))
    }
    fn slot_count(&self) -> Result<usize, Restart> {
        Ok(PageRef::slot_count(self))
    }
    fn head(&self, slot: usize) -> Result<u32, Restart> {
        PageRef::head(self, slot).ok_or(Restart)
    }
    fn cell(&self, slot: usize) -> Result<(usize, usize), Restart> {
        if slot >= PageRef::slot_count(self) {
            return Err(Restart);
        }
        let word = self.word(HEADER_BYTES + slot * SLOT_BYTES, SLOT_BYTES)?;
        let (offset, len) = (usize::from(word as u16), usize::from((word >> 16) as u16));
        let inside = offset + len <= self.bytes().len();
        if inside { Ok((offset, len)) } else { Err(Restart) }
    }
    fn order(&self, at: usize, len: usize, key: &[u8]) -> Result<Ordering, Restart> {
        let end = at.checked_add(len).ok_or(Restart)?;
        self.bytes().get(at..end).map(|stored| stored.cmp(key)).ok_or(Restart)
    }
}
