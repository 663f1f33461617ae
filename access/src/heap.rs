//! The heap: rows without a key, known by where they stand.
//!
//! ```text
//!                   root                       a directory; never moves: it is the heap's name
//!                 /      \
//!            directory  directory              room and id of each page, in the order they were added
//!             /  |  \     |    \
//!           page page page page page           rows
//!             │  forward      ▲
//!             └───────────────┘ one hop        a row that outgrew its page leaves a forward behind
//! ```
//!
//! A row's id is its page and slot, and stays true for the row's life: it never moves without leaving a
//! forward in its place, and when it moves again that forward is changed, so no row is more than one hop
//! away. Whoever reads, locks or scans goes by the row's own place, its *home*.
//!
//! - A page of the heap stays in the heap until the whole heap is freed, and a directory entry stays where
//!   it is counted from the beginning. So pointers read without latches are true for ever.
//! - A delete leaves a ghost, and a cell never gets shorter: no rollback needs room ([`undo`]). Both are
//!   cleared away when no active transaction can want them ([`purge`]).
//! - How much room pages have is a *hint* in the directory: wrong entries are corrected when they are
//!   met, and nothing depends on them ([`room`]).
//!
//! Latch order: a new page (nobody knows it), pages of rows by ascending id, directories downward, the map
//! page last. Nobody waits for a lock under a latch.
//!
//! Reading order: [`cell`] (layout), [`directory`], [`read`], [`scan`]; then [`room`], [`hunt`], [`grow`], then
//! [`change`], [`write`] with [`insert`], [`update`], [`delete`], and [`undo`]; then [`purge`], [`free`], [`verify`].
//!
//! Left out: giving single empty pages back (they are filled again), rows larger than a page.

mod cell;
mod change;
mod delete;
mod directory;
mod free;
mod grow;
mod hunt;
mod insert;
mod purge;
mod read;
mod room;
mod row_id;
mod scan;
mod undo;
mod update;
mod verify;
mod write;

use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::{HEADER_BYTES, PageKind, PageOp, PageRef, SLOT_BYTES};
use argali_txn::Txn;

use crate::Space;
use crate::fault::corrupt;

pub(crate) use room::Rooms;
pub use row_id::RowId;
pub use scan::HeapScan;
pub(crate) use undo::HeapUndo;
pub use verify::HeapStats;

/// One heap, known by its root page, which never moves. Holds no transaction state.
#[derive(Clone)]
pub struct Heap {
    space: Arc<Space>,
    root: PageId,
    room: Arc<room::Room>,
}

impl Heap {
    /// Allocates and formats a root. As with trees, a rollback of `txn` gives the root back, but not pages
    /// added later: create a heap in a transaction of its own, which also writes down who frees it
    /// ([`Pending::allocate`](crate::Pending::allocate)), and use it afterwards.
    pub fn create(space: &Arc<Space>, txn: &mut Txn) -> Result<Self> {
        let root = space.create_first(txn, PageKind::Directory, (&[], 0))?;
        Ok(Self::open(space, root))
    }

    /// The heap with this root. Reads nothing.
    pub fn open(space: &Arc<Space>, root: PageId) -> Self {
        Self { space: Arc::clone(space), root, room: space.rooms().of(root) }
    }

    /// The page the heap is known by.
    pub fn root(&self) -> PageId {
        self.root
    }

    /// Largest row, in bytes, for the database's page size: what one page holds.
    pub fn row_bytes_max(&self) -> usize {
        self.usable() - SLOT_BYTES - cell::MOVED_HEADER
    }

    /// Bytes of a page for slots and cells.
    fn usable(&self) -> usize {
        self.pool().pager().options().page_size.bytes() - HEADER_BYTES
    }

    fn format(&self, kind: PageKind, level: u8) -> PageOp<'static> {
        PageOp::Format { kind, level, owner: self.root.get() }
    }

    /// Whether `page` holds rows of this heap.
    fn is_row_page(&self, page: PageRef<'_>) -> bool {
        page.kind() == Some(PageKind::Slotted) && page.owner() == self.root.get()
    }

    /// As [`Heap::is_row_page`], where it must be one.
    fn check_row_page(&self, page: PageRef<'_>) -> Result<()> {
        if self.is_row_page(page) {
            return Ok(());
        }
        Err(self.corrupt(page.id(), "is no page of its rows"))
    }

    fn corrupt(&self, page: PageId, what: impl AsRef<str>) -> Error {
        corrupt(self.pool(), page, format!("heap {}: {}", self.root, what.as_ref()))
    }

    fn space(&self) -> &Space {
        &self.space
    }

    fn pool(&self) -> &BufferPool {
        self.space.pool()
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heap({})", self.root)
    }
}
