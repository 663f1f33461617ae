//! What is fixed when a pool is made.

/// How a [`BufferPool`](crate::BufferPool) is made.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Frames in the pool (at least [`FRAMES_MIN`](crate::FRAMES_MIN)). One structure change latches up to six pages at once, so a pool
    /// for n writing threads wants 6 n frames.
    pub frames: usize,
    /// The cleaner keeps at least this share of frames clean, in percent.
    pub clean_percent: u8,
    /// Most pages one cleaner batch writes.
    pub batch_pages: usize,
    /// Rules broken on purpose, in tests only.
    #[doc(hidden)]
    pub mutations: Mutations,
}

impl Default for PoolOptions {
    /// 1024 frames, a tenth of them kept clean, 64 pages per batch.
    fn default() -> Self {
        Self { frames: 1024, clean_percent: 10, batch_pages: 64, mutations: Mutations::default() }
    }
}

/// Rules a test may break to show which guarantee falls. All off by default.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent switches, one per rule
pub struct Mutations {
    /// Pages are written without forcing the log (set the pager's mutation of this name, too).
    pub page_before_log: bool,
    /// A page leaves the dirty page table when written, not when synced.
    pub drop_dirty_before_sync: bool,
    /// The need for an image is decided once per checkpoint, not once per copy.
    pub image_per_checkpoint: bool,
    /// A page that a record has overwritten is written without a copy on the side ever after.
    pub overwritten_for_ever: bool,
}
