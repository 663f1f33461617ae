//! The B+tree: rows in key order.
//!
//! ```text
//!  level 2                 root                     never moves: it is the tree's name
//!                        /   │   \
//!  level 1            inner  …  inner ─► 0          separators, shortened
//!                    /  │  \
//!  level 0       leaf ─► leaf ─► leaf ─► … ─► 0     rows, ghosts; linked to the right
//! ```
//!
//! After *ARIES/IM* (Mohan and Levine, 1992) with these differences:
//!
//! - Readers and writers descend without latches and validate versions (optimistic lock coupling, Leis
//!   et al. 2016), instead of latch coupling with a `Delete_Bit` and an `SM_Bit`.
//! - A split is *one* log record that changes all its pages, so no half-done split exists after redo:
//!   there is no nested top action, no tree latch, and logical undo always finds a sound tree.
//! - A delete leaves a ghost, so a rollback never needs room, and the deleted key remains as a border
//!   for next-key locks.
//! - A node that has become thin is joined with a neighbour in the background, again by one record; a root
//!   with one child takes its place. Invariant **T1**: only the leaf of an empty tree is empty.
//!
//! Latch order: new pages (nobody knows them), down, right, the map page last. Nobody waits for a lock
//! under a latch; who cannot get a latch at once in a structure change lets go of everything and comes
//! again.
//!
//! Reading order: [`node`] (layout), [`heads`], [`search`] (in a node), [`descent`] (to a leaf), [`read`]; then
//! [`locks`], [`target`], [`revisit`], [`write`] with [`insert`], [`update`], [`delete`], and [`undo`]; then [`split`];
//! [`fill`], [`purge`], [`merge`] and [`tidy`]; [`scan`] and [`backward`], [`along`] leaves by [`cells`]; [`load`] with [`exchange`];
//! [`free`], [`verify`], [`estimate`].

mod along;
mod backward;
mod cells;
mod delete;
mod descent;
mod estimate;
mod exchange;
mod fill;
mod free;
mod heads;
mod insert;
mod load;
mod locks;
mod merge;
mod node;
mod purge;
mod read;
mod revisit;
mod scan;
mod search;
mod split;
mod target;
mod tidy;
mod undo;
mod update;
mod verify;
mod write;

use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::{HEADER_BYTES, PageKind, PageOp};
use argali_txn::{Edit, Txn, Undo};

use crate::Space;
use crate::overflow::REFERENCE_BYTES;

pub use cells::Way;
pub use estimate::TreeEstimate;
pub use load::{Loader, must_ascend};
pub(crate) use node::Stored;
pub use scan::Entry;
pub(crate) use undo::TreeUndo;
pub use verify::TreeStats;
pub(crate) use write::{Change, Done, LargeOld};

/// What a write found in its place.
pub type Old = Option<Vec<u8>>;

/// Log bytes of formatting a root.
const CREATE_BYTES: usize = 64;

/// One B+tree, known by its root page, which never moves. Holds no transaction state.
#[derive(Clone)]
pub struct BTree {
    space: Arc<Space>,
    root: PageId,
    /// What its nodes carry as their owner: the root, except in what is to replace another tree's content.
    owner: PageId,
}

impl BTree {
    /// Allocates and formats a root. A rollback of `txn`, or a crash before it commits, gives the root page
    /// back, but not the pages that splits add: so create a tree in a transaction of its own, which
    /// also writes down who frees the tree ([`Pending::allocate`](crate::Pending::allocate)), and use it
    /// afterwards.
    pub fn create(space: &Arc<Space>, txn: &mut Txn) -> Result<Self> {
        let root = space.create_first(txn, PageKind::Leaf, (&[], 0))?;
        Ok(Self::open(space, root))
    }

    /// At a fixed page (the catalog of a new database); the page's bit must be set already.
    pub fn create_at(space: &Arc<Space>, txn: &mut Txn, root: PageId) -> Result<Self> {
        let tree = Self::open(space, root);
        tree.pool().pager().grow_to(root)?;
        txn.admit(CREATE_BYTES, 1)?;
        let mut page = space.pool().create(root)?;
        let ops = [tree.format(PageKind::Leaf, 0)];
        txn.update(&mut [Edit { page: &mut page, ops: &ops }], Undo::Never);
        Ok(tree)
    }

    /// The tree with this root. Reads nothing.
    pub fn open(space: &Arc<Space>, root: PageId) -> Self {
        Self { space: Arc::clone(space), root, owner: root }
    }

    /// The tree at this page to be freed: its nodes are those of whatever tree the page says, since it may
    /// hold what another tree's content was [exchanged](exchange) with.
    pub(crate) fn remains(space: &Arc<Space>, root: PageId) -> Result<Self> {
        let owner = PageId::new(space.pool().read(root)?.page().owner());
        Ok(Self { space: Arc::clone(space), root, owner })
    }

    /// The page the tree is known by.
    pub fn root(&self) -> PageId {
        self.root
    }

    /// Largest key plus value, in bytes, that a leaf takes, for the database's page size: about a quarter of
    /// a page, so that every node holds at least four entries and a split always makes room.
    pub fn entry_bytes_max(&self) -> usize {
        let page = self.pool().pager().options().page_size.bytes();
        (page - HEADER_BYTES) / 4 - node::SLOT_BYTES - node::INNER_HEADER
    }

    /// Largest key, in bytes, when the value may be of any size.
    pub fn key_bytes_max(&self) -> usize {
        self.entry_bytes_max() - REFERENCE_BYTES
    }

    /// Whether a leaf takes a value of so many bytes under `key`.
    pub fn fits(&self, key: &[u8], value_len: usize) -> bool {
        key.len().saturating_add(value_len) <= self.entry_bytes_max()
    }

    /// `TooLarge` for a key that is longer than [`BTree::key_bytes_max`].
    pub fn check_key(&self, key: &[u8]) -> Result<()> {
        let (size, limit) = (key.len(), self.key_bytes_max());
        if size > limit { Err(Error::TooLarge { what: "key", size, limit }) } else { Ok(()) }
    }

    fn format(&self, kind: PageKind, level: u8) -> PageOp<'static> {
        PageOp::Format { kind, level, owner: self.owner.get() }
    }

    fn space(&self) -> &Space {
        &self.space
    }

    fn pool(&self) -> &BufferPool {
        self.space.pool()
    }
}

impl std::fmt::Debug for BTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BTree({})", self.root)
    }
}
