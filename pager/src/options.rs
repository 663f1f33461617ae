//! What is fixed when a data file is made or opened: page size, torn-page protection, limits.

use argali_base::{Error, Result};

/// Page size in bytes: a power of two from 4 KiB to 64 KiB. Fixed when the database is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u32);

impl PageSize {
    /// 8 KiB: one page read or written per row touched, few enough rows per page to latch apart.
    pub const DEFAULT: Self = Self(8192);

    /// `bytes`, provided it is a power of two from 4096 to 65536.
    pub fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (4096..=65536).contains(&bytes) {
            return Ok(Self(bytes));
        }
        let why = format!("{bytes} is not a power of two from 4096 to 65536");
        Err(Error::Invalid { what: "page size", why })
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

/// What protects a page whose write was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TornPages {
    /// Pages are written twice, first into a side file; a torn page is replaced at open.
    #[default]
    DoubleWrite,
    /// The log carries the page's image with its first change; redo replaces the torn page.
    FullPageImage,
    /// The user promises that page writes are atomic; a torn page is reported as `Corrupt`.
    None,
}

/// How a [`Pager`](crate::Pager) is made or opened.
#[derive(Clone, Debug)]
pub struct PagerOptions {
    /// Bytes per page.
    pub page_size: PageSize,
    /// What protects a page whose write was cut short.
    pub torn_pages: TornPages,
    /// Written into every page and checked on read.
    pub database: u64,
    /// The data file grows by this many pages at a time.
    pub growth_pages: u64,
    /// Slots of the double-write file.
    pub doublewrite_slots: usize,
    /// Most pages the data file may have; beyond it `Full`.
    pub pages_max: u64,
    /// Rules broken on purpose, in tests only.
    #[doc(hidden)]
    pub mutations: Mutations,
}

/// Rules a test may break to show which guarantee falls. All off by default.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Mutations {
    /// Opening does not put whole copies over torn pages.
    pub no_repair: bool,
    /// Double-write slots are reused without a data sync.
    pub early_slot_reuse: bool,
    /// `sync` reports success without syncing.
    pub no_sync: bool,
    /// `write` accepts pages whose log is not durable.
    pub page_before_log: bool,
}
