//! Reading ahead for redo: analysis knows which pages it will need, and in which order first.
//!
//! ```text
//!  dirty pages by recLSN   p9@64 p4@70 p5@92 │ p3@110 p8@140 …        windows
//!  by page id              p4 p5 │ p9        │ p3 │ p8                runs: one read each
//! ```
//!
//! Redo by itself waits for one page after the other. A few threads bring the pages in ahead of it, sorted by
//! page id within a window of first needs, so that neighbours come with one read. They stop when the pool has
//! no free frames left: then redo has more pages than memory, and whatever they brought in would throw out what
//! it needs sooner. What they meet of damage is not their business ([`BufferPool::read_ahead`]).
//!
//! Left out: following redo through the log when the pool is smaller than what it needs.

use argali_base::sync::thread::{self, JoinHandle};
use argali_base::sync::{Arc, AtomicUsize, Ordering};
use argali_base::{Lsn, PageId};
use argali_buffer_pool::BufferPool;

use crate::analysis::DirtyPages;

/// Reads under way at once.
const THREADS: usize = 4;
/// Pages that are sorted by id together.
const WINDOW: usize = 2048;
/// Most pages of a run, so that all threads have work.
const RUN_MAX: u64 = 32;

/// Threads that bring pages in; dropping it ends them.
pub(crate) struct ReadAhead {
    plan: Arc<Plan>,
    threads: Vec<JoinHandle<()>>,
}

/// Pages that follow each other: the first one, and how many.
type Run = (PageId, u64);

struct Plan {
    runs: Vec<Run>,
    next: AtomicUsize,
}

impl ReadAhead {
    /// Begins to bring in the pages of `dirty`.
    pub(crate) fn start(pool: &Arc<BufferPool>, dirty: &DirtyPages) -> Self {
        let plan = Arc::new(Plan { runs: runs(dirty), next: AtomicUsize::new(0) });
        let start = |_| {
            let (pool, plan) = (Arc::clone(pool), Arc::clone(&plan));
            // It is a hint: a system that has no thread left gets its restart nevertheless.
            thread::spawn("read ahead", move || plan.follow(&pool)).ok()
        };
        let threads = (0..THREADS.min(plan.runs.len())).filter_map(start).collect();
        Self { plan, threads }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.plan.end();
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !std::thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Plan {
    fn follow(&self, pool: &BufferPool) {
        while let Some(&(first, pages)) = self.runs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if !pool.read_ahead(first, pages as usize) {
                self.end();
            }
        }
    }

    fn end(&self) {
        self.next.store(self.runs.len(), Ordering::Relaxed);
    }
}

fn runs(dirty: &DirtyPages) -> Vec<Run> {
    let mut pages: Vec<(Lsn, PageId)> = dirty.iter().map(|(&page, &lsn)| (lsn, page)).collect();
    pages.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for window in pages.chunks_mut(WINDOW) {
        window.sort_unstable_by_key(|(_, page)| *page);
        for &(_, page) in &*window {
            match runs.last_mut() {
                Some((first, count)) if first.get() + *count == page.get() && *count < RUN_MAX => {
                    *count += 1;
                }
                _ => runs.push((page, 1)),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_by_first_need_and_neighbours_together() {
        let dirty = |page, lsn| (PageId::new(page), Lsn::new(lsn));
        let late = (100..100 + WINDOW as u64).map(|page| dirty(page, 9000));
        let all = late.chain([dirty(7, 64), dirty(9, 72), dirty(8, 80), dirty(3, 96)]);
        let runs = runs(&all.collect());
        let seen: Vec<(u64, u64)> = runs.iter().map(|(page, count)| (page.get(), *count)).collect();
        assert_eq!(seen[..3], [(3, 1), (7, 3), (100, 32)]);
        assert_eq!(seen.iter().map(|(_, count)| count).sum::<u64>(), 4 + WINDOW as u64);
    }
}
