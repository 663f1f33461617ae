//! Pages and the file they live in.
//!
//! ```text
//!  page.rs     header, views              op.rs       the closed set of changes; apply
//!  slotted.rs  slots and cells            map.rs      allocation map
//!  cell.rs     words under optimistic readers          checksum.rs  seal, verify
//!  draft.rs    whole pages made outside the pool
//!  pager.rs    the data file: read, write, grow, sync  doublewrite.rs  torn pages, repaired
//! ```
//!
//! The pager knows one thing of the log: an LSN and the proof that it is durable. A page changes only
//! through [`PageMut::apply`], which takes an LSN, and reaches the disk only through [`Pager::write`],
//! which takes a [`Durable`](argali_wal::Durable) that covers it: the write-ahead rule as two types.
//!
//! Left out: caching (that is `buffer-pool`), the meaning of cells (`access`), compression.

mod cell;
mod checksum;
mod doublewrite;
mod draft;
mod map;
mod op;
mod options;
mod page;
mod pager;
mod slotted;

pub use cell::{PageBuf, PageCell};
pub use draft::Draft;
pub use map::MapLayout;
pub use op::{OpList, PageOp};
pub use options::{Mutations, PageSize, PagerOptions, TornPages};
pub use page::{HEADER_BYTES, PAGE_VERSION, PageKind, PageMut, PageRef, SLOT_BYTES};
pub use pager::{Found, Pager, PagerStats};
