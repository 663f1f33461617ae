//! Handles of named trees.

use std::fmt;

use argali_access::{BTree, Space};
use argali_base::sync::Arc;

use crate::handle::Handle;

/// A named tree. No lifetime; outlives transactions; `NotFound` once the tree is dropped.
#[derive(Clone)]
pub struct Tree {
    handle: Handle,
    btree: BTree,
}

impl Tree {
    pub(crate) fn new(handle: Handle, space: &Arc<Space>) -> Self {
        let btree = BTree::open(space, handle.root());
        Self { handle, btree }
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// Largest key, in bytes: about a quarter of a page.
    pub fn key_bytes_max(&self) -> usize {
        self.btree.key_bytes_max()
    }

    /// Largest key plus value, in bytes, that stand in a leaf; a larger value gets pages of its own.
    pub fn entry_bytes_max(&self) -> usize {
        self.btree.entry_bytes_max()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn btree(&self) -> &BTree {
        &self.btree
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({:?} at {})", self.name(), self.handle.root())
    }
}
