//! Pages and the file they live in. (Skeleton: signatures and contracts; bodies follow.)
#![allow(missing_docs, clippy::todo, unused_variables, dead_code)]

mod cell;
mod map;
mod op;
mod page;

use argali_base::sync::Arc;
use argali_base::{Disk, Health, PageId, Result};
use argali_wal::Durable;

pub use cell::{PageBuf, PageCell};
pub use map::MapLayout;
pub use op::{OpList, PageOp};
pub use page::{HEADER_BYTES, PageKind, PageMut, PageRef};

/// Page size in bytes: a power of two from 4 KiB to 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u32);
impl PageSize {
    pub const DEFAULT: Self = Self(8192);
    pub fn new(bytes: u32) -> Result<Self> {
        todo!()
    }
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

/// What protects a page whose write was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TornPages {
    #[default]
    DoubleWrite,
    FullPageImage,
    None,
}

#[derive(Clone, Debug)]
pub struct PagerOptions {
    pub page_size: PageSize,
    pub torn_pages: TornPages,
    /// Written into every page and checked on read.
    pub database: u64,
    /// The data file grows by this many pages at a time.
    pub growth_pages: u64,
    /// Slots of the double-write file.
    pub doublewrite_slots: usize,
    /// Most pages the data file may have; beyond it `Full`.
    pub pages_max: u64,
}

/// What a read met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A page whose checksum, id and database fit.
    Page,
    /// All zero, or beyond the end of the file: never written.
    Never,
}

#[derive(Clone, Debug, Default)]
pub struct PagerStats {
    pub reads: u64,
    pub writes: u64,
    pub doublewrites: u64,
    pub syncs: u64,
    pub repaired: u64,
    pub pages: u64,
}

/// The data file and, in that mode, the double-write file.
pub struct Pager {
    _todo: (),
}

impl Pager {
    pub fn create(disk: Arc<dyn Disk>, options: PagerOptions, health: Health) -> Result<Self> {
        todo!()
    }
    /// Opens for restart: syncs both files, then puts whole copies from the double-write file over torn
    /// pages and syncs again.
    pub fn open(disk: Arc<dyn Disk>, options: PagerOptions, health: Health) -> Result<Self> {
        todo!()
    }
    pub fn open_read_only(disk: Arc<dyn Disk>, options: PagerOptions) -> Result<Self> {
        todo!()
    }
    pub fn options(&self) -> &PagerOptions {
        todo!()
    }
    /// Reads page `id` into `into`, verifying checksum, id and database before anything is believed.
    /// `Corrupt` names file, offset and (if the header is legible) LSN.
    pub fn read(&self, id: PageId, into: &mut PageBuf) -> Result<Found> {
        todo!()
    }
    /// Writes sealed copies (checksums are computed here), sorted by id: double-write first in that
    /// mode. Not durable before [`Pager::sync`]. Panics when `durable` does not cover a page: that is
    /// the write-ahead rule.
    pub fn write(&self, batch: &mut [(PageId, PageBuf)], durable: Durable) -> Result<()> {
        todo!()
    }
    /// Makes all completed writes durable. Poisons on failure.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }
    /// Grows the file so that `id` exists, durably, before anything refers to it.
    pub fn grow_to(&self, id: PageId) -> Result<()> {
        todo!()
    }
    /// Pages the file has room for.
    pub fn pages(&self) -> u64 {
        todo!()
    }
    /// Clean shutdown: nothing in the double-write file is needed any more.
    pub fn clear_doublewrite(&self) -> Result<()> {
        todo!()
    }
    pub fn stats(&self) -> PagerStats {
        todo!()
    }
}
