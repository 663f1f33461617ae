//! Leaves that have become thin: what to tidy when there is time.
//!
//! ```text
//!  delete, rollback, purge, scan ── note(leaf, tree, key, ripe) ──► list ── take ──► BTree::tidy_some
//!                                                                    │
//!          nobody waits, nothing is promised                         └ only once Commit_LSN passed `ripe`:
//!                                                                      before, its ghosts must stay
//! ```
//!
//! The list is a hint in memory. It may be wrong (the leaf filled up again: tidying finds nothing to do),
//! incomplete (it is bounded) and is lost in a crash; scans note again what they come across, and a leaf
//! that cannot be joined notes a neighbour full of ghosts. A leaf is noted once, however many rows it
//! loses; what is kept is a key, because leaves come and go.

use std::collections::BTreeMap;

use argali_base::sync::Mutex;
use argali_base::{Lsn, PageId};

/// Most leaves noted: what a busy writer may leave behind between two turns, in at most some MiB of keys.
const LEAVES_MAX: usize = 1024;

/// A leaf to be tidied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thin {
    /// The tree.
    pub(crate) root: PageId,
    /// A key that belongs into the leaf.
    pub(crate) key: Vec<u8>,
    /// Its ghosts are nobody's once `Commit_LSN` is greater.
    pub(crate) ripe: Lsn,
}

/// The list, by page id: a run without threads repeats exactly.
#[derive(Debug, Default)]
pub(crate) struct ThinLeaves {
    leaves: Mutex<BTreeMap<PageId, Thin>>,
}

impl ThinLeaves {
    /// Notes `leaf` of the tree `root`, in which `key` belongs, unless the list is full.
    pub(crate) fn note(&self, leaf: PageId, (root, key): (PageId, &[u8]), ripe: Lsn) {
        let mut leaves = self.leaves.lock();
        let full = leaves.len() == LEAVES_MAX;
        match leaves.get(&leaf) {
            // Noted before: it will be looked at soon enough, and noted again if that was too early.
            Some(known) if known.root == root => {}
            None if full => {}
            // A page noted for another tree has changed hands.
            Some(_) | None => {
                leaves.insert(leaf, Thin { root, key: key.to_vec(), ripe });
            }
        }
    }

    /// Takes the first leaf whose ghosts are settled off the list.
    pub(crate) fn take(&self, commit_lsn: Lsn) -> Option<(PageId, Thin)> {
        let mut leaves = self.leaves.lock();
        let ripe = leaves.iter().find(|(_, thin)| thin.ripe < commit_lsn);
        let leaf = ripe.map(|(leaf, _)| *leaf)?;
        leaves.remove_entry(&leaf)
    }

    /// Whether there is anything to take.
    pub(crate) fn any(&self, commit_lsn: Lsn) -> bool {
        self.leaves.lock().values().any(|thin| thin.ripe < commit_lsn)
    }

    /// Forgets a whole tree: nobody can reach it any more.
    pub(crate) fn forget(&self, root: PageId) {
        self.leaves.lock().retain(|_, thin| thin.root != root);
    }

    /// Leaves noted.
    pub(crate) fn len(&self) -> usize {
        self.leaves.lock().len()
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    const ROOT: PageId = PageId::new(7);

    #[test]
    fn a_leaf_is_noted_once_and_taken_when_its_ghosts_are_settled() {
        let thin = ThinLeaves::default();
        thin.note(PageId::new(9), (ROOT, b"k"), Lsn::new(100));
        thin.note(PageId::new(9), (ROOT, b"l"), Lsn::new(300));
        thin.note(PageId::new(8), (ROOT, b"a"), Lsn::new(200));
        assert!(!thin.any(Lsn::new(100)) && thin.take(Lsn::new(100)).is_none());
        let first = thin.take(Lsn::new(101)).unwrap().1;
        assert_eq!((first.key, first.ripe), (b"k".to_vec(), Lsn::new(100)));
        assert!(thin.take(Lsn::new(200)).is_none());
        let second = Thin { root: ROOT, key: b"a".to_vec(), ripe: Lsn::new(200) };
        assert_eq!(thin.take(Lsn::new(250)), Some((PageId::new(8), second)));
        assert_eq!(thin.len(), 0);
    }

    #[test]
    fn the_list_is_bounded_and_forgets_trees() {
        let thin = ThinLeaves::default();
        for id in 0..2 * LEAVES_MAX as u64 {
            thin.note(PageId::new(id), (PageId::new(id % 2), b""), Lsn::new(1));
        }
        assert_eq!(thin.len(), LEAVES_MAX);
        thin.forget(PageId::new(1));
        assert_eq!(thin.len(), LEAVES_MAX / 2);
        thin.note(PageId::new(2), (ROOT, b"reused"), Lsn::new(1));
        assert_eq!(thin.len(), LEAVES_MAX / 2);
        assert_eq!(thin.take(Lsn::new(2)).unwrap().1.root, PageId::new(0));
        assert_eq!(thin.take(Lsn::new(2)).unwrap().1.root, ROOT);
    }
}
