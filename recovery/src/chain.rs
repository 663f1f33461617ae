//! The chain of a page: whether a record's change is the next one for a page, and what it does to it.
//!
//! ```text
//!   p7   Format@64 ◄── @312 ◄── @980 ◄── @1204        each record names the page's LSN before it
//!                       page at @312: @312 contained · @980 next · @1204 does not follow
//! ```
//!
//! **R2** A change is applied exactly when pageLSN < LSN, and then pageLSN must be the record's `page_prev`:
//! history is a chain per page, and a gap in it means that the disk lost a write (redo), or the log a
//! record (repair). An operation that overwrites the page (`Format`, `Image`) needs nothing of what was there,
//! so a chain can be taken up at any of them.

use argali_base::{Lsn, PageId, Result};
use argali_pager::{OpList, PageOp};
use argali_wal::{Body, Change, Changes};

use crate::analysis::corrupt;

/// One record's change of one page, decoded.
pub(crate) struct Step<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) page: PageId,
    page_prev: Lsn,
    pub(crate) ops: Vec<PageOp<'a>>,
}

/// How a step and a page stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The page holds the change already.
    Contained,
    /// It is the next change of the page.
    Next,
    /// A change between the page and the record is missing: the record follows this one.
    Gap(Lsn),
}

impl<'a> Step<'a> {
    /// `Corrupt` when the record at `lsn` holds no operations. `room` is a vector for them.
    pub(crate) fn decode(lsn: Lsn, change: &Change<'a>, room: Vec<PageOp<'a>>) -> Result<Self> {
        let Change { page, page_prev, ops: bytes } = *change;
        let mut ops = room;
        OpList::decode_into(bytes, &mut ops)
            .ok_or_else(|| corrupt(lsn, format!("no list of operations for {page}")))?;
        Ok(Self { lsn, page, page_prev, ops })
    }

    /// Whether it needs nothing of what was in the page.
    pub(crate) fn overwrites(&self) -> bool {
        self.ops.first().is_some_and(PageOp::overwrites)
    }

    /// Holds the step against the page as it is (R2).
    pub(crate) fn fit(&self, page_lsn: Lsn) -> Fit {
        if page_lsn >= self.lsn {
            Fit::Contained
        } else if page_lsn == self.page_prev || self.overwrites() {
            Fit::Next
        } else {
            Fit::Gap(self.page_prev)
        }
    }

    /// `Corrupt`, because the page refused the operations for the reason `why`.
    pub(crate) fn refused(&self, why: &str) -> argali_base::Error {
        corrupt(self.lsn, format!("the record cannot be applied to {}: {why}", self.page))
    }
}

/// What a record does to pages: the only part of it redo and repair care about.
pub(crate) fn changes_of<'a>(body: &Body<'a>) -> Changes<'a> {
    match *body {
        Body::Update { changes, .. } | Body::Compensation { changes, .. } => changes,
        Body::Commit { .. }
        | Body::End
        | Body::Prepare { .. }
        | Body::CheckpointBegin { .. }
        | Body::CheckpointEnd { .. } => Changes::EMPTY,
    }
}
