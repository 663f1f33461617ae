//! Counters. Hits are the one thing counted on every access, so they are striped over cache lines: a
//! shared counter would be the hottest line of the machine.

use std::cell::Cell;

use argali_base::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use crossbeam::utils::CachePadded;

const STRIPES: usize = 16;

/// Counts since the pool was made, and gauges.
#[derive(Clone, Debug, Default)]
pub struct PoolStats {
    /// Pages found in the pool.
    pub hits: u64,
    /// Pages read from disk.
    pub misses: u64,
    /// Clean pages that made room.
    pub evictions_clean: u64,
    /// Dirty pages that had to be written first to make room.
    pub evictions_dirty: u64,
    /// Pages written back.
    pub written_back: u64,
    /// Write-backs that had to force the log first.
    pub log_forces: u64,
    /// Frames in the pool.
    pub frames: usize,
    /// Frames that are dirty now.
    pub dirty: usize,
    /// Page writes that failed; their pages stay dirty.
    pub write_errors: u64,
    /// The last such failure.
    pub last_write_error: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: [CachePadded<AtomicU64>; STRIPES],
    pub(crate) misses: AtomicU64,
    pub(crate) evictions_clean: AtomicU64,
    pub(crate) evictions_dirty: AtomicU64,
    pub(crate) written_back: AtomicU64,
    pub(crate) log_forces: AtomicU64,
    pub(crate) dirty: AtomicUsize,
    pub(crate) write_errors: AtomicU64,
    pub(crate) last_write_error: Mutex<Option<String>>,
}

impl Counters {
    #[inline]
    pub(crate) fn hit(&self) {
        self.hits[stripe()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, frames: usize) -> PoolStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolStats {
            hits: self.hits.iter().map(|stripe| read(stripe)).sum(),
            misses: read(&self.misses),
            evictions_clean: read(&self.evictions_clean),
            evictions_dirty: read(&self.evictions_dirty),
            written_back: read(&self.written_back),
            log_forces: read(&self.log_forces),
            frames,
            dirty: self.dirty.load(Ordering::Relaxed),
            write_errors: read(&self.write_errors),
            last_write_error: self.last_write_error.lock().clone(),
        }
    }
}

/// Adds one to a counter that nobody reads for its exact value.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// This thread's stripe, dealt out in turn.
fn stripe() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        mine.get()
    })
}
