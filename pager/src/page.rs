//! Page header and the read and write views of a page.
//!
//! ```text
//!  0 checksum u32 │ 4 kind u8 │ 5 format version u8 │ 6 level u8 │ 7 flags u8
//!  8 page id u64
//! 16 pageLSN u64
//! 24 database id u64
//! 32 slot count u16 │ 34 skip u16 │ 36 heap start u32 │ 40 dead bytes u32 │ 44 (reserved) u32
//! 48 link u64 (right sibling of a tree page, next page of a chain, 0 = none; number of a heap page)
//! 56 owner u64 (first page of the tree, heap or chain the page belongs to)
//! 64 slots, 8 bytes each: offset u16, len u16, head u32 (4 key bytes behind the first `skip` ones)
//!  … hole (zero bytes) … heap of cells, growing down from the end of the page
//! ```
//!
//! Everything is little-endian. The bytes may come from a disk, so every accessor checks its bounds: a
//! page that makes no sense gives `None` or small numbers, never a panic. Checksum, page id and
//! database id are verified by [`Pager::read`](crate::Pager::read) before anybody else sees the page.
//!
//! Left out: a `&mut` view of fields. [`PageMut::apply`] is the only way a page changes, because a
//! change without a log record could not be repeated.

use std::fmt;

use argali_base::{Lsn, PageId};

use crate::PageOp;
use crate::cell::{WORD, WordsMut};

/// Bytes of the page header; slots begin here.
pub const HEADER_BYTES: usize = 64;
/// Bytes of one slot.
pub const SLOT_BYTES: usize = 8;
/// Page format version written by this build.
pub const PAGE_VERSION: u8 = 2;

/// Byte offsets of the header's fields; the table in the head of this file.
pub(crate) mod at {
    pub(crate) const CHECKSUM: usize = 0;
    pub(crate) const KIND: usize = 4;
    pub(crate) const VERSION: usize = 5;
    pub(crate) const LEVEL: usize = 6;
    pub(crate) const ID: usize = 8;
    pub(crate) const LSN: usize = 16;
    pub(crate) const DATABASE: usize = 24;
    pub(crate) const SLOT_COUNT: usize = 32;
    pub(crate) const SKIP: usize = 34;
    pub(crate) const HEAP_START: usize = 36;
    pub(crate) const DEAD: usize = 40;
    pub(crate) const LINK: usize = 48;
    pub(crate) const OWNER: usize = 56;
}

/// What a page is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// Given back, or formatted for nothing yet.
    Free = 0,
    /// Allocation map.
    Map = 1,
    /// Tree leaf.
    Leaf = 2,
    /// Inner node of a tree.
    Inner = 3,
    /// Rows of a heap, or plain cells.
    Slotted = 4,
    /// Part of a value too large for a leaf: one cell.
    Overflow = 5,
    /// Which pages a heap has.
    Directory = 6,
}

impl PageKind {
    /// The kind with this number; `None` when there is none.
    pub const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            0 => Some(Self::Free),
            1 => Some(Self::Map),
            2 => Some(Self::Leaf),
            3 => Some(Self::Inner),
            4 => Some(Self::Slotted),
            5 => Some(Self::Overflow),
            6 => Some(Self::Directory),
            _ => None,
        }
    }

    /// Whether the body holds slots and cells.
    pub const fn is_slotted(self) -> bool {
        matches!(self, Self::Leaf | Self::Inner | Self::Slotted | Self::Overflow | Self::Directory)
    }
}

/// Read view of a page nobody is changing.
#[derive(Clone, Copy)]
pub struct PageRef<'a> {
    bytes: &'a [u8],
}

impl<'a> PageRef<'a> {
    /// Views bytes as a page. They may be anything: accessors check.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// All bytes of the page.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// `N` bytes at `at`; zeros beyond the end.
    pub(crate) fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    pub(crate) fn u16(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes(self.field(at)))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }

    /// Checksum the page carries (CRC32C over everything behind it).
    pub fn checksum(&self) -> u32 {
        self.u32(at::CHECKSUM)
    }

    /// LSN of the last record applied to the page; `NONE` on a page never formatted.
    pub fn lsn(&self) -> Lsn {
        Lsn::new(self.u64(at::LSN))
    }

    /// The page's own id.
    pub fn id(&self) -> PageId {
        PageId::new(self.u64(at::ID))
    }

    /// Id of the database the page belongs to.
    pub fn database(&self) -> u64 {
        self.u64(at::DATABASE)
    }

    /// Format version of the page; 0 on a page never formatted.
    pub fn version(&self) -> u8 {
        self.field::<1>(at::VERSION)[0]
    }

    /// What the page is used for; `None` when the number is unknown.
    pub fn kind(&self) -> Option<PageKind> {
        PageKind::from_u8(self.field::<1>(at::KIND)[0])
    }

    /// Height above the leaves.
    pub fn level(&self) -> u8 {
        self.field::<1>(at::LEVEL)[0]
    }

    /// The link field: right sibling of a tree page, next page of a chain; 0 = none.
    pub fn link(&self) -> u64 {
        self.u64(at::LINK)
    }

    /// First page of the structure the page belongs to: a tree's root.
    pub fn owner(&self) -> u64 {
        self.u64(at::OWNER)
    }

    /// Whether every byte is zero: a page that was never written.
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }
}

impl fmt::Debug for PageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("id", &self.id())
            .field("lsn", &self.lsn())
            .field("kind", &self.kind())
            .field("level", &self.level())
            .field("slots", &self.slot_count())
            .finish_non_exhaustive()
    }
}

/// Write view of a page: one thread, exclusive latch. Its only mutator is `apply`.
#[derive(Debug)]
pub struct PageMut<'a> {
    words: WordsMut<'a>,
}

impl<'a> PageMut<'a> {
    pub(crate) const fn new(words: WordsMut<'a>) -> Self {
        Self { words }
    }

    /// Read view; ends before the next change.
    pub fn page(&self) -> PageRef<'_> {
        PageRef::new(self.words.bytes())
    }

    /// Turns a frame or buffer into the page that was never written: zeros, its id and its database.
    /// Not a change: such a page has LSN 0 and reaches the disk only after a record formatted it.
    pub fn blank(&mut self, id: PageId, database: u64) {
        let size = self.page().bytes().len();
        self.words.zero(0, size);
        self.put_u64(at::ID, id.get());
        self.put_u64(at::DATABASE, database);
    }

    /// Applies operations and stamps the page with `lsn`; forward, redo and undo all end here. Cannot
    /// fail: `fits` was asked, or the record says it did fit once.
    ///
    /// # Panics
    /// When `lsn` is not greater than the page's (a record applied twice), or an operation does not fit.
    pub fn apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) {
        if let Err(why) = self.try_apply(ops, lsn) {
            panic!(
                "{} at {}: record {lsn} cannot be applied: {why}",
                self.page().id(),
                self.page().lsn()
            );
        }
    }

    /// As [`PageMut::apply`], but says what does not fit. For redo, where page and record come from a
    /// disk. After `Err` the page is half changed and must not be used.
    pub fn try_apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) -> Result<(), String> {
        // Invariant P1: the pageLSN only grows, so no record is ever applied twice.
        let page_lsn = self.page().lsn();
        assert!(page_lsn < lsn, "pageLSN {page_lsn} must be less than the record's LSN {lsn}");
        for op in ops {
            op.apply_to(self).map_err(|why| format!("{op}: {why}"))?;
        }
        self.put_u64(at::LSN, lsn.get());
        Ok(())
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.words.store(at, bytes);
    }

    pub(crate) fn put_u16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).expect("offsets and counts of a page fit 16 bits");
        self.words.store(at, &value.to_le_bytes());
    }

    pub(crate) fn put_u32(&mut self, at: usize, value: u32) {
        self.words.store(at, &value.to_le_bytes());
    }

    /// A field that is a word of its own, as all of eight bytes are.
    #[inline]
    pub(crate) fn put_u64(&mut self, at: usize, value: u64) {
        const { assert!(SLOT_BYTES == WORD, "slots are words, too") };
        assert_eq!(at % WORD, 0, "a field of eight bytes at {at}");
        self.words.store_word(at / WORD, value);
    }

    pub(crate) const fn words(&mut self) -> &mut WordsMut<'a> {
        &mut self.words
    }
}
