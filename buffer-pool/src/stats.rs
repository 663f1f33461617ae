//! Counters: what `stats` shows, counted so that counting costs the hot path nothing to speak of.
//!
//! Hits happen on every core at once, so they are [`Striped`], and a thread adds with a plain load and
//! store. Two threads on one stripe may lose a count: hits are approximate. All other counters are exact.

use argali_base::Striped;
use argali_base::sync::{AtomicU64, Mutex, Ordering};

/// What the pool did since it was made.
#[derive(Clone, Debug, Default)]
pub struct PoolStats {
    /// Pages found resident (approximate: see `stats.rs`).
    pub hits: u64,
    /// Pages read from disk.
    pub misses: u64,
    /// Of these, pages read before anybody asked for them.
    pub read_ahead: u64,
    /// Pages that left the pool clean.
    pub evictions_clean: u64,
    /// Pages that had to be written to make room.
    pub evictions_dirty: u64,
    /// Page copies written by eviction, cleaner and checkpoints together.
    pub written_back: u64,
    /// Of these, pages written without a copy on the side, because redo would make them anew.
    pub written_once: u64,
    /// Times a write-back had to force the log.
    pub log_forces: u64,
    /// Torn pages that redo made anew.
    pub torn_overwritten: u64,
    /// Damaged pages that were rebuilt, or written again.
    pub pages_repaired: u64,
    /// Frames in the pool.
    pub frames: usize,
    /// Frames that are dirty or being written.
    pub dirty: usize,
    /// Page writes that failed; the pages stayed dirty.
    pub write_errors: u64,
    /// The last of them.
    pub last_write_error: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Counters {
    hits: Striped<AtomicU64>,
    pub(crate) misses: AtomicU64,
    pub(crate) read_ahead: AtomicU64,
    pub(crate) evictions_clean: AtomicU64,
    pub(crate) evictions_dirty: AtomicU64,
    pub(crate) written_back: AtomicU64,
    pub(crate) written_once: AtomicU64,
    pub(crate) log_forces: AtomicU64,
    pub(crate) torn_overwritten: AtomicU64,
    pub(crate) repaired: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    last_write_error: Mutex<Option<String>>,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            hits: Striped::new(|| AtomicU64::new(0)),
            misses: AtomicU64::new(0),
            read_ahead: AtomicU64::new(0),
            evictions_clean: AtomicU64::new(0),
            evictions_dirty: AtomicU64::new(0),
            written_back: AtomicU64::new(0),
            written_once: AtomicU64::new(0),
            log_forces: AtomicU64::new(0),
            torn_overwritten: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            last_write_error: Mutex::new(None),
        }
    }

    #[inline]
    pub(crate) fn hit(&self) {
        let hits = self.hits.mine();
        hits.store(hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn write_failed(&self, error: &argali_base::Error) {
        count(&self.write_errors);
        *self.last_write_error.lock() = Some(error.to_string());
    }

    pub(crate) fn snapshot(&self, frames: usize, dirty: usize) -> PoolStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolStats {
            hits: self.hits.iter().map(get).sum(),
            misses: get(&self.misses),
            read_ahead: get(&self.read_ahead),
            evictions_clean: get(&self.evictions_clean),
            evictions_dirty: get(&self.evictions_dirty),
            written_back: get(&self.written_back),
            written_once: get(&self.written_once),
            log_forces: get(&self.log_forces),
            torn_overwritten: get(&self.torn_overwritten),
            pages_repaired: get(&self.repaired),
            frames,
            dirty,
            write_errors: get(&self.write_errors),
            last_write_error: self.last_write_error.lock().clone(),
        }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
