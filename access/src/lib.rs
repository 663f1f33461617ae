//! Access methods: how rows find their pages. Page space, B+trees and heaps.
//!
//! ```text
//!  engine ──► BTree, Heap ──► Txn::update ──► log, page     every change is logged by the one `update`
//!                │   └──────► Space           which pages are free (bits in map pages)
//!                └──────────► Txn::lock       keys, the gaps between them, rows; Txn::claim: ranges
//!  engine ──► Rows ──► BTree, chains          rows with values of any size
//!  engine ──► Pending                         what is to be freed when nobody can want it back
//! ```
//!
//! What an access method owes the engine:
//! 1. It changes pages only through [`Txn::update`](argali_txn::Txn::update), under exclusive latches,
//!    at most four pages in one record.
//! 2. It never waits for a lock, for log space or (but for a last resort) for I/O under a latch.
//! 3. What it logs as `Undo::Logical` it can take back by meaning, wherever other transactions moved
//!    the row: without a lock, without a split, without new pages ([`register_undo`]).
//! 4. Bytes it reads are input: nonsense that stays nonsense is `Corrupt`, never a panic or a loop.
//! 5. It can be checked: its `verify` tells a [`Survey`] every page it consists of and every fault.
//!
//! Left out: moving rows between nodes that stay: nodes split and join, no more.

mod attempt;
mod btree;
mod fault;
mod heap;
mod intention;
mod overflow;
mod pending;
mod rows;
mod space;
mod survey;
mod thin;

use argali_base::sync::Arc;
use argali_txn::{Owner, UndoHandlers};

pub use btree::{BTree, Entry, Loader, Old, TreeEstimate, TreeStats, Way, must_ascend};
pub use heap::{Heap, HeapScan, HeapStats, RowId};
pub use overflow::{Draft, Parts, VALUE_BYTES_MAX};
pub use pending::{Kind, Moves, Pending, Structure};
pub use rows::Rows;
pub use space::{Space, SpaceStats};
pub use survey::{Finding, Survey};

/// Owner number of B+tree undo.
pub const TREE_OWNER: Owner = Owner(1);

/// Owner number of heap undo.
pub const HEAP_OWNER: Owner = Owner(2);
/// Owner number of the undo of page allocation.
pub const SPACE_OWNER: Owner = Owner(3);

/// Registers the undo of every access method.
pub fn register_undo(space: &Arc<Space>, handlers: &mut UndoHandlers) {
    handlers.register(TREE_OWNER, Arc::new(btree::TreeUndo::new(Arc::clone(space))));
    handlers.register(HEAP_OWNER, Arc::new(heap::HeapUndo::new(Arc::clone(space))));
    handlers.register(SPACE_OWNER, Arc::new(space::undo::SpaceUndo::new(Arc::clone(space))));
}
