//! What a pool is made with, and the rules that tests may break.

/// How large a pool is and how its cleaner works.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Frames in the pool (at least 8).
    pub frames: usize,
    /// The cleaner keeps at least this share of the frames clean, in percent.
    pub clean_percent: u8,
    /// Most pages that one batch writes.
    pub batch_pages: usize,
    /// Protocol rules to break, for tests that show what each rule is for.
    #[doc(hidden)]
    pub mutations: Mutations,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { frames: 1024, clean_percent: 10, batch_pages: 64, mutations: Mutations::default() }
    }
}

/// Rules of the pool that a test may break on purpose.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutations {
    /// Write pages without forcing the log first (the pager's assert must be off, too).
    pub page_before_log: bool,
    /// Drop a page from the dirty page table when it is written, not when it is synced.
    pub drop_dirty_before_sync: bool,
    /// Decide on images once per checkpoint instead of once per copy.
    pub image_per_checkpoint: bool,
}
