//! What a planner wants to know of a tree, without reading all of it.
//!
//! ```text
//!  level 2              root                   every inner node is read: pages of each level are counted
//!                     ╱  │   ╲
//!  level 1       inner inner  inner
//!                ╱ │ ╲  …      ╱ ╲
//!  level 0      l  ·  l  ·  l  ·  l            every k-th leaf is read: rows, ghosts and bytes are estimated
//! ```
//!
//! Inner nodes are about a hundredth of a tree. The sample of leaves is spread evenly over the key order
//! and found in one pass: when it has grown to twice its size, every other leaf is dropped and from then
//! on half as many are taken.
//!
//! The numbers say nothing about a point in time. Nodes are looked at one after the other and no row is
//! locked: what others insert meanwhile, committed or not, may be counted or not, and a node that was split
//! or joined in between may be missed.

use std::collections::VecDeque;

use argali_base::{PageId, Result};
use argali_pager::HEADER_BYTES;

use super::BTree;
use super::descent::{Attempt, retry};
use super::node::{self, InnerCell, LeafCell, SLOT_BYTES};
use crate::fault::corrupt;

/// What is probably in a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TreeEstimate {
    /// Rows.
    pub rows: u64,
    /// How far `rows` is off in 19 cases of 20, as if the leaves read were drawn at random; 0 when all
    /// were read.
    pub rows_error: u64,
    /// Deleted rows whose cells are still there, estimated alike.
    pub ghosts: u64,
    /// Bytes of keys and values in leaves, estimated alike.
    pub bytes: u64,
    /// Which part of the leaves' room rows take, with what is kept about them; from 0 to 1.
    pub fill: f64,
    /// Pages of each level, leaves first.
    pub pages: Vec<u64>,
    /// Leaves that were read.
    pub leaves_read: u64,
}

impl TreeEstimate {
    /// Levels; 1 for a tree that is one leaf.
    pub fn depth(&self) -> usize {
        self.pages.len()
    }
}

/// Every k-th of the leaves that were offered.
struct Sample {
    leaves: Vec<PageId>,
    size: usize,
    /// Each how many-th is taken.
    stride: u64,
    offered: u64,
}

/// What is in one leaf.
#[derive(Clone, Copy, Default)]
struct Leaf {
    rows: u64,
    ghosts: u64,
    /// Of keys and values.
    bytes: u64,
    /// Of the rows' cells and slots.
    taken: u64,
}

impl BTree {
    /// Looks at all inner nodes and at about `leaves` leaves (up to twice as many; all, if there are no
    /// more).
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn estimate(&self, leaves: usize) -> Result<TreeEstimate> {
        let mut sample = Sample { leaves: Vec::new(), size: leaves.max(1), stride: 1, offered: 0 };
        let inner = self.count_inner(&mut sample)?;
        let pages: Vec<_> = std::iter::once(sample.offered).chain(inner).collect();
        let mut seen = Vec::with_capacity(sample.leaves.len());
        for id in sample.leaves {
            seen.extend(retry(|patient| self.leaf_content(id, patient))?);
        }
        let room = self.pool().pager().options().page_size.bytes() - HEADER_BYTES;
        Ok(extrapolate(&seen, pages, room))
    }

    /// Nodes of each level above the leaves, lowest first; offers the leaves to `sample`.
    fn count_inner(&self, sample: &mut Sample) -> Result<Vec<u64>> {
        let mut level = retry(|patient| self.root_level(patient))?;
        let (mut nodes, mut pages) = (vec![self.root()], VecDeque::new());
        while level > 0 {
            pages.push_front(nodes.len() as u64);
            if pages.iter().sum::<u64>() > self.pool().pager().pages() {
                let what = "has more nodes below it than there are pages";
                return Err(corrupt(self.pool(), self.root(), what));
            }
            let mut below = Vec::new();
            for id in nodes {
                let children = retry(|patient| self.children(id, level, patient))?;
                if level > 1 {
                    below.extend(children);
                } else {
                    for leaf in children {
                        sample.offer(leaf);
                    }
                }
            }
            (nodes, level) = (below, level - 1);
        }
        if pages.is_empty() {
            sample.offer(self.root());
        }
        Ok(pages.into())
    }

    fn root_level(&self, patient: bool) -> Attempt<u8> {
        let root = self.open_node(self.root(), patient)?;
        self.look(&root.glimpse, |view| node::level(view, self.owner))
    }

    /// The children of a node; none if it is no node of this level any more.
    fn children(&self, id: PageId, level: u8, patient: bool) -> Attempt<Vec<PageId>> {
        let inner = self.open_node(id, patient)?;
        self.look(&inner.glimpse, |view| {
            if node::level(view, self.owner) != Ok(level) {
                return Ok(Vec::new());
            }
            let child = |slot| InnerCell::read(view, slot).map(|cell| cell.child);
            (0..view.slot_count()?).map(child).collect()
        })
    }

    /// What is in a leaf, if it still is one.
    fn leaf_content(&self, id: PageId, patient: bool) -> Attempt<Option<Leaf>> {
        let leaf = self.open_node(id, patient)?;
        self.look(&leaf.glimpse, |view| {
            if node::level(view, self.owner) != Ok(0) {
                return Ok(None);
            }
            let mut content = Leaf::default();
            for slot in 0..view.slot_count()? {
                content.add(LeafCell::read(view, slot)?);
            }
            Ok(Some(content))
        })
    }
}

impl Leaf {
    fn add(&mut self, cell: LeafCell) {
        if cell.ghost {
            self.ghosts += 1;
        } else {
            self.rows += 1;
            self.bytes += (cell.key_len + cell.value_len) as u64;
            self.taken += (cell.used() + SLOT_BYTES) as u64;
        }
    }
}

impl Sample {
    fn offer(&mut self, leaf: PageId) {
        if self.offered.is_multiple_of(self.stride) {
            self.leaves.push(leaf);
        }
        self.offered += 1;
        if self.leaves.len() > 2 * self.size {
            let mut place = 0;
            self.leaves.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.stride *= 2;
        }
    }
}

/// From the leaves seen to all of them.
fn extrapolate(seen: &[Leaf], pages: Vec<u64>, room: usize) -> TreeEstimate {
    let (read, all) = (seen.len() as f64, pages[0] as f64);
    let mean = |part: fn(&Leaf) -> u64| seen.iter().map(part).sum::<u64>() as f64 / read.max(1.0);
    let rows = mean(|leaf| leaf.rows);
    let squares = seen.iter().map(|leaf| (leaf.rows as f64 - rows).powi(2)).sum::<f64>();
    let variance = squares / (read - 1.0).max(1.0);
    // Drawn without putting back: who has seen all leaves has no error.
    let unseen = (1.0 - read / all).max(0.0);
    TreeEstimate {
        rows: (rows * all).round() as u64,
        rows_error: (2.0 * all * (variance / read.max(1.0) * unseen).sqrt()).ceil() as u64,
        ghosts: (mean(|leaf| leaf.ghosts) * all).round() as u64,
        bytes: (mean(|leaf| leaf.bytes) * all).round() as u64,
        fill: mean(|leaf| leaf.taken) / room as f64,
        pages,
        leaves_read: seen.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(rows: u64) -> Leaf {
        Leaf { rows, ghosts: 1, bytes: 10 * rows, taken: 20 * rows }
    }

    #[test]
    fn samples_are_spread_and_bounded() {
        for offered in [0, 1, 7, 8, 9, 100, 1000, 12_345] {
            let mut sample = Sample { leaves: Vec::new(), size: 4, stride: 1, offered: 0 };
            (0..offered).for_each(|n| sample.offer(PageId::new(n)));
            let taken: Vec<_> = sample.leaves.iter().map(|id| id.get()).collect();
            let stride = sample.stride;
            assert!(taken.iter().copied().eq((0..offered).step_by(stride as usize)), "{taken:?}");
            assert!(taken.len() <= 8 && (offered <= 8 || taken.len() >= 4), "{offered}: {taken:?}");
        }
    }

    #[test]
    fn all_leaves_leave_no_error_and_some_do() {
        let all = extrapolate(&[leaf(10), leaf(20)], vec![2, 1], 1000);
        assert_eq!((all.rows, all.rows_error, all.ghosts, all.bytes), (30, 0, 2, 300));
        assert_eq!((all.depth(), all.fill), (2, 0.3));
        let some = extrapolate(&[leaf(10), leaf(20)], vec![200, 1], 1000);
        assert_eq!(some.rows, 3000);
        // Deviation 7.1, mean of two known to 5, times 200 leaves, twice.
        assert_eq!(some.rows_error, 1990);
        let even = extrapolate(&[leaf(10), leaf(10)], vec![200, 1], 1000);
        assert_eq!((even.rows, even.rows_error), (2000, 0));
        assert_eq!(extrapolate(&[], vec![1], 1000).rows, 0);
    }
}
