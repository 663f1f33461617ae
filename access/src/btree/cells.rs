//! Cells copied out of a leaf ahead of their turn, many under one version check.
//!
//! ```text
//!  leaf, version 7     │ a │ b │ c │ d │ e │ f │ g │ …
//!                            └────┬────┘                  one at first, then four times as many each time
//!  copy                      │ b │ c │ d │
//!                              ▲   ▲
//!                            row   next: given out if the leaf is still at version 7 then
//! ```
//!
//! A copy is no answer. Each cell is locked and its leaf looked at again when its turn comes, so a scan
//! returns what it would return if it came to the leaf anew for each row, and locks no row that nobody has
//! asked for. What is left of the copy when the leaf has changed, by whomever, is thrown away. The pageLSN
//! is compared beside the version, which is too short for a user who thinks for hours between two rows.
//!
//! Where everything on the page is committed for good, or the tree is locked as a whole, a cell at hand is
//! *free*: to give it out takes no lock, and so no transaction. Under serializable, what was copied is claimed
//! first, all of it that lies within the scan's bounds; then it is free, too.

use std::cmp::Ordering;
use std::ops::{Bound, Range};

use argali_base::{Lsn, PageId, TxnId};
use argali_buffer_pool::{PageGlimpse, Restart, Sighting};

use super::along::within;
use super::locks::ScanLocks;
use super::node::{self, LeafCell};

/// Most cells copied at once: then what a copy costs beside its bytes is little for each.
const CELLS_MAX: usize = 16;
/// How many times as many are copied as were before: each copy costs a look and, under serializable, a claim.
const GROWTH: usize = 4;
/// Words after which no further cell is copied.
const WORDS_MAX: usize = 1024;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To greater keys.
    Forward,
    /// To smaller ones.
    Backward,
}

impl Way {
    /// How a key compares with the one before it on this way.
    pub(super) const fn order(self) -> Ordering {
        match self {
            Self::Forward => Ordering::Greater,
            Self::Backward => Ordering::Less,
        }
    }

    /// The slots of the next `want` cells from the border at `slot` on, of a leaf with `count`.
    pub(super) fn slots(self, slot: usize, count: usize, want: usize) -> Range<usize> {
        match self {
            Self::Forward => slot..count.min(slot.saturating_add(want)),
            Self::Backward => slot.saturating_sub(want)..slot,
        }
    }

    /// The one of `slots` that comes in place `n` on this way.
    pub(super) fn nth(self, slots: &Range<usize>, n: usize) -> usize {
        match self {
            Self::Forward => slots.start + n,
            Self::Backward => slots.end - 1 - n,
        }
    }
}

/// Who copies, and which locks it takes as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanner {
    pub(super) txn: TxnId,
    pub(super) tree: PageId,
    pub(super) way: Way,
    pub(super) locks: ScanLocks,
}

/// The leaf that was copied from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) leaf: Sighting,
    pub(super) lsn: Lsn,
    /// See [`Space::era`](crate::Space).
    pub(super) era: u64,
    /// Whether everything on it is committed for good.
    pub(super) settled: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    /// Where its key begins; the value follows.
    at: u32,
    key_len: u16,
    value_len: u16,
    pub(super) ghost: bool,
    pub(super) large: bool,
}

/// Cells of one leaf, in the order of a scan; reused from copy to copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells {
    /// Keys and values, by the words they stand in: so nothing has to be shifted.
    words: Vec<[u8; 8]>,
    copied: [Cell; CELLS_MAX],
    count: usize,
    /// How many the scan has passed, and the last row among them: the one it gave out.
    next: usize,
    row: Option<usize>,
    /// Between which slots of the leaf the copy began: below this one, and not below it.
    pub(super) border: usize,
    /// The key before the first one, if `edged`: keys ascend (or descend), or links run in a circle.
    edge: Vec<u8>,
    edged: bool,
    /// How many to copy the next time.
    want: usize,
    /// How many from the first on can be given out without a lock.
    covered: usize,
    /// Whether they take no look elsewhere, either.
    free: bool,
    pub(super) scanner: Option<Scanner>,
    pub(super) source: Option<Source>,
}

impl Cells {
    /// A scan begins behind `edge`, if there is one.
    pub(super) fn begin(&mut self, scanner: Scanner, edge: Option<&[u8]>) {
        self.clear();
        self.scanner = Some(scanner);
        self.edged = edge.is_some();
        self.edge.clear();
        self.edge.extend_from_slice(edge.unwrap_or_default());
    }

    /// The next copy is a small one: either nobody knows how far the scan goes, or the leaf is changing.
    pub(super) fn be_modest(&mut self) {
        self.want = 1;
    }

    /// The scan comes to a leaf, between its slots below `border` and the others.
    pub(super) fn stand(&mut self, border: usize) {
        self.turn();
        self.border = border;
    }

    /// Makes room for a new copy, behind what was passed.
    pub(super) fn turn(&mut self) {
        if let Some(passed) = self.next.checked_sub(1) {
            self.edge.clear();
            self.edge.extend_from_slice(key(&self.words, self.copied[passed]));
            self.edged = true;
            self.border = match self.scanner.map(|scanner| scanner.way) {
                Some(Way::Backward) => self.border - self.next,
                Some(Way::Forward) | None => self.border + self.next,
            };
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.words.clear();
        (self.count, self.next, self.row, self.source) = (0, 0, None, None);
        (self.covered, self.free) = (0, false);
    }

    /// Copies the next cells of a leaf; `Restart` also when their keys are not behind each other.
    pub(super) fn copy(&mut self, view: &PageGlimpse<'_>, way: Way) -> Result<Lsn, Restart> {
        let want = self.want.max(1);
        self.want = (GROWTH * want).min(CELLS_MAX);
        let slots = way.slots(self.border, view.slot_count()?, want);
        for n in 0..slots.len() {
            let large = self.push(view, LeafCell::read(view, way.nth(&slots, n))?, way)?;
            if large || self.words.len() > WORDS_MAX {
                break;
            }
        }
        node::lsn(view)
    }

    /// Copies one; whether it is that of a large value.
    fn push(&mut self, view: &PageGlimpse<'_>, from: LeafCell, way: Way) -> Result<bool, Restart> {
        let at = view.copy_words(from.key_at(), from.key_len + from.value_len, &mut self.words)?;
        let cell = Cell {
            at: at as u32,
            key_len: from.key_len as u16,
            value_len: from.value_len as u16,
            ghost: from.ghost,
            large: from.large && !from.ghost,
        };
        let before = match self.count.checked_sub(1) {
            Some(last) => Some(key(&self.words, self.copied[last])),
            None => self.edged.then_some(&self.edge[..]),
        };
        if before.is_some_and(|before| compare(key(&self.words, cell), before) != way.order()) {
            return Err(Restart);
        }
        *self.copied.get_mut(self.count).ok_or(Restart)? = cell;
        self.count += 1;
        Ok(cell.large)
    }

    /// Where they are from, once that is known to be true.
    pub(super) fn come_from(&mut self, source: Source) {
        let locks = self.scanner.map(|scanner| scanner.locks);
        let unlocked = locks == Some(ScanLocks::None);
        let claimed = locks == Some(ScanLocks::Claims);
        self.covered = if claimed { 0 } else { self.count };
        let large = self.count.checked_sub(1).is_some_and(|last| self.copied[last].large);
        self.free = (unlocked || source.settled) && !large;
        self.source = Some(source);
    }

    /// Whether the scan has passed all of them.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.next == self.count
    }

    /// The next one.
    #[inline]
    pub(super) fn peek(&self) -> Option<&Cell> {
        self.copied[..self.count].get(self.next)
    }

    /// The scan passes the next one; whether that is a row.
    #[inline]
    pub(super) fn pass(&mut self) -> bool {
        let row = self.peek().is_some_and(|cell| !cell.ghost);
        if row {
            self.row = Some(self.next);
        }
        self.next += 1;
        row
    }

    /// The row given out last.
    #[inline]
    pub(super) fn row(&self) -> Option<&Cell> {
        self.row.map(|row| &self.copied[row])
    }

    /// Its slot.
    pub(super) fn row_slot(&self) -> Option<usize> {
        let (row, scanner) = self.row.zip(self.scanner)?;
        Some(match scanner.way {
            Way::Forward => self.border + row,
            Way::Backward => self.border - 1 - row,
        })
    }

    /// The key of a cell of these.
    #[inline]
    pub(super) fn key(&self, cell: Cell) -> &[u8] {
        key(&self.words, cell)
    }

    /// Its value.
    #[inline]
    pub(super) fn value(&self, cell: Cell) -> &[u8] {
        let at = cell.at as usize + usize::from(cell.key_len);
        &self.words.as_flattened()[at..at + usize::from(cell.value_len)]
    }

    /// The key that the scan passed last, or began behind.
    pub(super) fn behind(&self) -> Option<&[u8]> {
        match self.next.checked_sub(1) {
            Some(passed) => Some(key(&self.words, self.copied[passed])),
            None => self.edged.then_some(&self.edge[..]),
        }
    }

    /// How many of those to come lie within `limit`, and how far that reaches: as far as the limit, if there is
    /// one beyond it.
    pub(super) fn reach<'a>(
        &'a self,
        limit: Bound<&'a [u8]>,
        way: Way,
    ) -> (usize, Bound<&'a [u8]>) {
        let to_come = &self.copied[self.next..self.count];
        match to_come.last().map(|last| self.key(*last)) {
            Some(last) if within(last, limit, way) => (to_come.len(), Bound::Included(last)),
            _ => (to_come.partition_point(|cell| within(self.key(*cell), limit, way)), limit),
        }
    }

    /// The next `reach` can be given out without a lock.
    pub(super) fn cover_next(&mut self, reach: usize) {
        self.covered = self.next + reach;
    }

    /// Whether the next one can be given out without a lock.
    #[inline]
    pub(super) fn is_covered(&self) -> bool {
        self.next < self.covered
    }

    /// The key that the next copy must be behind.
    pub(super) fn edge(&self) -> &[u8] {
        &self.edge
    }

    /// Whether everything on their leaf is committed for good, and nobody minds what becomes of it later.
    pub(super) fn are_settled(&self) -> bool {
        self.source.is_some_and(|source| source.settled)
    }

    /// Whether giving them out takes neither a lock nor a look elsewhere.
    #[inline]
    pub(super) fn are_free(&self) -> bool {
        self.free && self.is_covered()
    }
}

#[inline]
fn key(words: &[[u8; 8]], cell: Cell) -> &[u8] {
    let at = cell.at as usize;
    &words.as_flattened()[at..at + usize::from(cell.key_len)]
}

/// As `a.cmp(b)`: eight bytes at once settle it for most neighbours.
#[inline]
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(x), Some(y)) if x != y => u64::from_be_bytes(*x).cmp(&u64::from_be_bytes(*y)),
        _ => a.cmp(b),
    }
}
