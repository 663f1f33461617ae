//! Building a chain, page by page, in front of the transaction that will own it.
//!
//! ```text
//!  first page   system transaction: format, bit; pending row        freed from here on, unless taken
//!  each next    system transaction: format, link from the page before, bit: one record
//!  last         the user's transaction takes the pending row, and puts the reference into its leaf
//! ```
//!
//! At every point of the log the pages reached from the first are those whose bits are set, so whoever
//! finds the pending row frees them all. Nothing is held between two pages: the bytes may come from
//! code that takes its time.

use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_pager::{PageKind, PageOp};
use argali_txn::{Durability, Edit, Txn, TxnManager, Undo};

use super::{Reference, VALUE_BYTES_MAX, part_bytes};
use crate::attempt::{Attempt, Stop, retry};
use crate::{Kind, Pending, Structure};

/// Log bytes of a page's operations beside the value's bytes, generously.
const PAGE_BYTES: usize = 96;

/// A large value under construction. Dropping it frees its pages, unless a row has
/// [taken](crate::Rows::put_large) it.
pub struct Draft<'p> {
    pending: &'p Pending,
    txns: &'p Arc<TxnManager>,
    /// `None` before the first page, and again when the chain is a row's.
    first: Option<PageId>,
    last: PageId,
    pages: u32,
    /// Bytes of the value.
    len: u64,
    /// The cell of the page being built.
    cell: Vec<u8>,
}

impl<'p> Draft<'p> {
    /// Nothing yet.
    pub fn new(pending: &'p Pending, txns: &'p Arc<TxnManager>) -> Self {
        let last = PageId::default();
        Self { pending, txns, first: None, last, pages: 0, len: 0, cell: Vec::new() }
    }

    /// Most bytes that [`Draft::append`] takes; all but the last should be as long.
    pub fn part_bytes(&self) -> usize {
        part_bytes(self.pending.space().pool())
    }

    /// Bytes appended.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a page with the next part of the value.
    ///
    /// # Errors
    /// `TooLarge` beyond [`VALUE_BYTES_MAX`]; `LogFull`, after which it may be called again; `Full`, `Io`.
    ///
    /// # Panics
    /// When `part` is empty, or longer than [`Draft::part_bytes`].
    pub fn append(&mut self, part: &[u8]) -> Result<()> {
        let (size, most) = (part.len(), self.part_bytes());
        assert!((1..=most).contains(&size), "a part of {size} bytes, a page takes 1 to {most}");
        let len = self.len + size as u64;
        if len > VALUE_BYTES_MAX {
            let limit = VALUE_BYTES_MAX as usize;
            return Err(Error::TooLarge { what: "value", size: len as usize, limit });
        }
        self.cell.clear();
        self.cell.extend_from_slice(&self.pages.to_le_bytes());
        self.cell.extend_from_slice(part);
        match self.first {
            None => self.begin()?,
            Some(first) => self.extend(first)?,
        }
        self.pages += 1;
        self.len = len;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let (space, cell) = (self.pending.space(), &self.cell);
        let content = [PageOp::Insert { slot: 0, head: 0, cell }];
        let begun = self.pending.allocate(self.txns, Kind::Overflow, |system| {
            space.create_first(system, PageKind::Overflow, (&content, PAGE_BYTES + cell.len()))
        })?;
        self.last = begun.first;
        self.first = Some(begun.first);
        Ok(())
    }

    fn extend(&mut self, first: PageId) -> Result<()> {
        let mut system = self.txns.begin_system()?;
        self.last = retry(|_| self.link_in(&mut system, first))?;
        system.commit(Durability::Relaxed).map(drop)
    }

    /// Formats a page behind the last one and links it.
    fn link_in(&self, system: &mut Txn, first: PageId) -> Attempt<PageId> {
        let space = self.pending.space();
        let reserved = space.reserve(system, 1)?;
        let id = reserved.ids()[0];
        system.admit(PAGE_BYTES + self.cell.len(), 3)?;
        // Both are in memory as a rule; if not, better read them before anything is latched.
        space.pool().glimpse(self.last)?;
        space.await_map(id)?;
        let mut page = space.pool().create(id)?;
        let mut last = space.pool().write(self.last)?;
        let Some(mut map) = space.try_map(id, true)? else { return Err(Stop::Again) };
        let ops = [
            PageOp::Format { kind: PageKind::Overflow, level: 0, owner: first.get() },
            PageOp::Insert { slot: 0, head: 0, cell: &self.cell },
        ];
        let edits = &mut [
            Edit { page: &mut page, ops: &ops },
            Edit { page: &mut last, ops: &[PageOp::SetLink { link: id.get() }] },
            Edit { page: &mut map, ops: &[space.bit(id, true)] },
        ];
        system.update(edits, Undo::Never);
        Ok(id)
    }

    /// What a row refers to it by.
    ///
    /// # Panics
    /// When it has no page, or belongs to a row already.
    pub(crate) fn built(&self) -> Reference {
        let first = self.first.expect("a row takes a chain once, and a chain has a page");
        Reference { first, len: self.len }
    }

    /// The chain is a row's from here on.
    pub(crate) fn hand_over(&mut self) {
        self.first = None;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let kind = Kind::Overflow;
        self.pending.free_later(self.first.map(|first| Structure { kind, first }));
    }
}

impl std::fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft({:?}, {} bytes)", self.first, self.len)
    }
}
