//! From the root to a node, without latches.
//!
//! ```text
//!  glimpse parent (version 7) ── load child id ── parent still 7? ── glimpse child ── parent still 7?
//!                                                    │ the id is true                    │ and was so when
//!                                                    │                                   │ the child was seen
//!                                                    └── no: begin again at the root ◄───┘
//! ```
//!
//! Levels fall by one with each step and are checked, so a descent ends after as many steps as the root
//! is high, whatever the pages say. What makes no sense although no version changed is `Corrupt`.
//!
//! In a pool of a few frames somebody's eviction can spoil every round. After some rounds ([`retry`]) a
//! descent is *patient*: it holds a shared latch on the node it looks at (parent and child while it
//! steps down), so nothing it relies on can change or go. That may read a page under a latch, which is
//! why it is the last resort.

use argali_base::{PageId, Result};
use argali_buffer_pool::{PageGlimpse, PageRead, PageWrite, Restart};

use super::BTree;
use super::node;
use super::search;
pub(super) use crate::attempt::{Attempt, Stop, retry};
use crate::fault::corrupt;

/// A node somebody looks at. Patient ones are pinned by a shared latch.
pub(super) struct Node<'p> {
    pub(super) glimpse: PageGlimpse<'p>,
    /// Boxed, because hardly any node has one and all are handed around.
    pin: Option<Box<PageRead<'p>>>,
}

impl<'p> Node<'p> {
    pub(super) const fn unpinned(glimpse: PageGlimpse<'p>) -> Self {
        Self { glimpse, pin: None }
    }

    pub(super) fn validate(&self) -> Attempt<()> {
        Ok(self.glimpse.validate()?)
    }

    /// Exclusive latch on the node as it was looked at.
    pub(super) fn upgrade(self) -> Attempt<PageWrite<'p>> {
        // Its own shared latch would be in the way.
        drop(self.pin);
        Ok(self.glimpse.upgrade()?)
    }
}

impl BTree {
    /// Looks at page `id`; a patient look latches it, too.
    #[inline]
    pub(super) fn open_node(&self, id: PageId, patient: bool) -> Result<Node<'_>> {
        let pin = if patient { Some(self.pin(id)?) } else { None };
        Ok(Node { glimpse: self.pool().glimpse(id)?, pin })
    }

    #[cold]
    fn pin(&self, id: PageId) -> Result<Box<PageRead<'_>>> {
        self.pool().read(id).map(Box::new)
    }

    /// Reads something out of a glimpse. Nonsense on a page that did not change is damage.
    pub(super) fn look<T>(
        &self,
        glimpse: &PageGlimpse<'_>,
        read: impl FnOnce(&PageGlimpse<'_>) -> Result<T, Restart>,
    ) -> Attempt<T> {
        let seen = read(glimpse);
        glimpse.validate()?;
        seen.map_err(|Restart| self.nonsense(glimpse.id()))
    }

    /// As [`BTree::look`], on a latched page.
    pub(super) fn inspect<T>(
        &self,
        page: &PageWrite<'_>,
        read: impl FnOnce(&argali_pager::PageRef<'_>) -> Result<T, Restart>,
    ) -> Attempt<T> {
        read(&page.page()).map_err(|Restart| self.nonsense(page.id()))
    }

    #[cold]
    fn nonsense(&self, id: PageId) -> Stop {
        let what = format!("is no sound node of the tree with root {}", self.root());
        Stop::Failed(corrupt(self.pool(), id, what))
    }

    /// The node at `level` under which `key` belongs, with its level (less than asked for when the whole
    /// tree is lower).
    pub(super) fn descend(&self, key: &[u8], level: u8, patient: bool) -> Attempt<(Node<'_>, u8)> {
        self.descend_by(level, patient, |view| Ok(search::in_inner(view, key)?.1))
    }

    /// As [`BTree::descend`], by the children that `choose` names.
    pub(super) fn descend_by(
        &self,
        level: u8,
        patient: bool,
        mut choose: impl FnMut(&PageGlimpse<'_>) -> Result<PageId, Restart>,
    ) -> Attempt<(Node<'_>, u8)> {
        let mut node = self.open_node(self.root(), patient)?;
        // The root says how high the tree is.
        let mut expected = None;
        loop {
            let (here, child) = self.look(&node.glimpse, |view| {
                let here = node::level(view, self.owner)?;
                if expected.is_some_and(|expected| expected != here) {
                    return Err(Restart);
                }
                let child = if here > level { Some(choose(view)?) } else { None };
                Ok((here, child))
            })?;
            let Some(child) = child else { return Ok((node, here)) };
            node = self.step_down(&node, child, patient)?;
            expected = Some(here - 1);
            if here == 1 {
                // Inner nodes are few and stay in the processor's cache; leaves do not.
                node.glimpse.prefetch();
            }
        }
    }

    /// Looks at `child`, of which `parent` said it belongs there, and asks the parent again.
    #[inline]
    pub(super) fn step_down(
        &self,
        parent: &Node<'_>,
        child: PageId,
        patient: bool,
    ) -> Attempt<Node<'_>> {
        let opened = self.open_node(child, patient);
        // A page that cannot be read is news only if the pointer to it was true.
        parent.validate()?;
        Ok(opened?)
    }
}
