//! Names, bytes, errors, the disk and time: what every other crate needs and nothing more.
//!
//! ```text
//!  base ──► wal ──► pager ──► buffer-pool ──► txn ──► access, recovery ──► engine
//!  Lsn, PageId, TxnId · codec · Error · Health · Disk/File · sync · Striped
//! ```
//!
//! `base` knows no page contents, no log and no transactions. It is the only crate that names the
//! operating system's files, its clock or its randomness; everything above reaches them through
//! [`Disk`] and [`sync`], so that a test can put a disk that loses power, or a scheduler that
//! explores interleavings, in their place.

pub mod codec;
pub mod disk;
mod error;
mod health;
mod id;
mod spread;
mod stripe;
pub mod sync;

pub use disk::{Disk, File};
pub use error::{Error, Result};
pub use health::Health;
pub use id::{Lsn, PageId, TxnId};
pub use spread::spread;
pub use stripe::{Apart, Striped};
