//! The leaf a change goes to, and the spot in it.
//!
//! Usually the leaf is found without latches and latched only if it is still as it was seen
//! ([`Target::Seen`]): the spot found in the glimpse then holds, and the search is not repeated. A
//! patient writer (see [`super::descent`]) latches the leaf first and searches it afterwards.

use argali_base::PageId;
use argali_buffer_pool::{PageWrite, Restart};

use super::descent::{Attempt, Node, Stop};
use super::node::{self, LeafCell, View};
use super::search::{self, Place};
use super::{BTree, heads};
use crate::fault::corrupt;

/// A leaf to be changed.
pub(super) enum Target<'p> {
    Seen(Node<'p>),
    Latched(PageWrite<'p>),
}

impl<'p> Target<'p> {
    /// The leaf.
    pub(super) fn page(&self) -> PageId {
        match self {
            Self::Seen(node) => node.glimpse.id(),
            Self::Latched(page) => page.id(),
        }
    }

    /// Exclusive latch on the leaf, provided it is as it was when its spot was found.
    pub(super) fn latch(self) -> Attempt<PageWrite<'p>> {
        match self {
            Self::Seen(node) => node.upgrade(),
            Self::Latched(page) => Ok(page),
        }
    }
}

/// Where a key is, or belongs, and what lies to the right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// First slot whose key is not less.
    pub(super) slot: usize,
    /// The key's cell, live or ghost.
    pub(super) found: Option<LeafCell>,
    /// Cells in the leaf.
    pub(super) count: usize,
    /// Whether the key begins as all keys of the leaf do.
    pub(super) shares: bool,
    /// Right sibling of the leaf.
    pub(super) link: Option<PageId>,
}

impl Spot {
    pub(super) fn read(view: &impl View, key: &[u8]) -> Result<Self, Restart> {
        Self::of(view, search::in_leaf(view, key)?)
    }

    pub(super) fn of(view: &impl View, place: Place) -> Result<Self, Restart> {
        let (count, link) = (view.slot_count()?, node::link(view)?);
        if count == 0 && link.is_some() {
            return Err(Restart); // T1: only the leaf of an empty tree is empty
        }
        Ok(Self { slot: place.slot, found: place.found, count, shares: place.shares, link })
    }

    /// Whether the leaf needs new heads before the key enters.
    pub(super) fn changes_heads(&self) -> bool {
        !self.shares || heads::reconsiders(self.count)
    }

    /// Whether the next key stands in the same leaf.
    pub(super) fn next_is_here(&self) -> bool {
        self.slot < self.count
    }

    /// The cell of the key if it is a row, not a ghost.
    pub(super) fn live(&self) -> Option<LeafCell> {
        self.found.filter(|cell| !cell.ghost)
    }
}

impl BTree {
    /// The leaf of `key`, to be changed.
    pub(super) fn target(&self, key: &[u8], patient: bool) -> Attempt<Target<'_>> {
        if !patient {
            return Ok(Target::Seen(self.descend(key, 0, false)?.0));
        }
        let (parent, level) = self.descend(key, 1, true)?;
        if level == 0 {
            drop(parent);
            let page = self.pool().write(self.root())?;
            // The root may have become an inner node while nobody held it.
            return match self.inspect(&page, |view| node::level(view, self.owner))? {
                0 => Ok(Target::Latched(page)),
                _ => Err(Stop::Again),
            };
        }
        // The parent's shared latch keeps the leaf responsible for `key` until it is latched.
        let (_, child) = self.look(&parent.glimpse, |view| search::in_inner(view, key))?;
        let page = self.pool().write(child)?;
        match self.inspect(&page, |view| node::level(view, self.owner))? {
            0 => Ok(Target::Latched(page)),
            level => {
                Err(corrupt(self.pool(), child, format!("level {level} under level 1")).into())
            }
        }
    }

    /// Finds `key`'s spot in the leaf.
    pub(super) fn spot(&self, target: &Target<'_>, key: &[u8]) -> Attempt<Spot> {
        match target {
            Target::Seen(node) => self.look(&node.glimpse, |view| Spot::read(view, key)),
            Target::Latched(page) => self.inspect(page, |view| Spot::read(view, key)),
        }
    }
}
