//! Reading ahead for redo: it is known which pages redo will need, before it needs them.
//!
//! ```text
//!  dirty pages by recLSN   p9@64 p4@70 p5@92 │ p3@110 p8@140 …        windows
//!  by page id              p4 p5 │ p9        │ p3 │ p8                runs: one read each
//!
//!  the log, as it is read  p9 p7 p9 p2 │ p7 p1 p6 …       pages the table lacks, as they are first met
//! ```
//!
//! Redo by itself waits for one page after the other. A few threads bring the pages in ahead of it, sorted by
//! page id within a window of first needs, so that neighbours come with one read. The table of the last
//! checkpoint names many of them; those that were first changed after it are met in the log, by a reader that
//! is thousands of changes ahead of whoever redoes them. The threads stop when the pool has
//! no free frames left: then redo has more pages than memory, and whatever they brought in would throw out what
//! it needs sooner. What they meet of damage is not their business ([`BufferPool::read_ahead`]).
//!
//! In memory: a bit for each page of the data file, and at most [`RUNS_MAX`] runs beside the table's.
//!
//! Left out: following redo through the log when the pool is smaller than what it needs.

use std::collections::VecDeque;

use argali_base::sync::thread::{self, JoinHandle};
use argali_base::sync::{Arc, Condvar, Mutex};
use argali_base::{Lsn, PageId};
use argali_buffer_pool::BufferPool;

use crate::analysis::DirtyPages;

/// Reads under way at once.
const THREADS: usize = 4;
/// Pages of the table that are sorted by id together.
const WINDOW: usize = 2048;
/// As many of those that are met in the log: they are needed sooner.
const MET_MAX: usize = 128;
/// Runs that may wait when another window is added; more are given up.
const RUNS_MAX: usize = 4096;
/// Most pages of a run, so that all threads have work.
const RUN_MAX: u64 = 32;

/// Threads that bring pages in; dropping it ends them.
pub(crate) struct ReadAhead {
    plan: Arc<Plan>,
    threads: Vec<JoinHandle<()>>,
    known: PageSet,
    met: Vec<PageId>,
}

/// Pages that follow each other: the first one, and how many.
type Run = (PageId, u64);

struct Plan {
    queue: Mutex<Queue>,
    added: Condvar,
}

struct Queue {
    runs: VecDeque<Run>,
    closed: bool,
}

impl ReadAhead {
    /// Begins to bring in the pages of `dirty`.
    pub(crate) fn start(pool: &Arc<BufferPool>, dirty: &DirtyPages) -> Self {
        let runs = VecDeque::from(runs_of_table(dirty));
        let plan = Arc::new(Plan {
            queue: Mutex::new(Queue { runs, closed: false }),
            added: Condvar::new(),
        });
        let start = |_| {
            let (pool, plan) = (Arc::clone(pool), Arc::clone(&plan));
            // It is a hint: a system that has no thread left gets its restart nevertheless.
            thread::spawn("read ahead", move || plan.follow(&pool)).ok()
        };
        let threads = (0..THREADS).filter_map(start).collect();
        let mut known = PageSet::below(pool.pager().pages());
        for page in dirty.keys() {
            known.insert(*page);
        }
        Self { plan, threads, known, met: Vec::new() }
    }

    /// The log changes a page that redo will need, perhaps one that nobody knew of.
    pub(crate) fn meet(&mut self, page: PageId) {
        if !self.known.insert(page) {
            return;
        }
        self.met.push(page);
        if self.met.len() == MET_MAX {
            self.met.sort_unstable();
            self.plan.add(runs(self.met.drain(..)));
        }
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
        while let Some((first, pages)) = self.next() {
            if !pool.read_ahead(first, pages as usize) {
                self.end();
            }
        }
    }

    fn next(&self) -> Option<Run> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(run) = queue.runs.pop_front() {
                return Some(run);
            }
            self.added.wait(&mut queue);
        }
    }

    fn add(&self, runs: Vec<Run>) {
        let mut queue = self.queue.lock();
        if queue.runs.len() < RUNS_MAX {
            queue.runs.extend(runs);
        }
        drop(queue);
        self.added.notify_all();
    }

    fn end(&self) {
        self.queue.lock().closed = true;
        self.added.notify_all();
    }
}

/// A set of page ids: a bit for each page of a file.
struct PageSet(Vec<u64>);

impl PageSet {
    /// The empty set, for pages below `end`.
    fn below(end: u64) -> Self {
        Self(vec![0; end.div_ceil(64) as usize])
    }

    /// Whether it was not in the set; a page far behind the end of the file never is new.
    fn insert(&mut self, page: PageId) -> bool {
        let (word, bit) = (page.get() / 64, 1 << (page.get() % 64));
        let Some(word) = usize::try_from(word).ok().and_then(|at| self.0.get_mut(at)) else {
            return false;
        };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

fn runs_of_table(dirty: &DirtyPages) -> Vec<Run> {
    let mut pages: Vec<(Lsn, PageId)> = dirty.iter().map(|(&page, &lsn)| (lsn, page)).collect();
    pages.sort_unstable();
    for window in pages.chunks_mut(WINDOW) {
        window.sort_unstable_by_key(|(_, page)| *page);
    }
    runs(pages.into_iter().map(|(_, page)| page))
}

fn runs(pages: impl Iterator<Item = PageId>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((first, count)) if first.get() + *count == page.get() && *count < RUN_MAX => {
                *count += 1;
            }
            _ => runs.push((page, 1)),
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
        let runs = runs_of_table(&all.collect());
        let seen: Vec<(u64, u64)> = runs.iter().map(|(page, count)| (page.get(), *count)).collect();
        assert_eq!(seen[..3], [(3, 1), (7, 3), (100, 32)]);
        assert_eq!(seen.iter().map(|(_, count)| count).sum::<u64>(), 4 + WINDOW as u64);
    }

    #[test]
    fn a_set_of_pages_knows_those_of_the_file() {
        let mut set = PageSet::below(65);
        let new: Vec<bool> =
            [0, 64, 64, 0, 63, 127, 128, u64::MAX].map(|n| set.insert(PageId::new(n))).into();
        assert_eq!(new, [true, true, false, false, true, true, false, false]);
    }
}
