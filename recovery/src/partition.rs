//! A partition of the pages, and redo of the changes that fall into it.
//!
//! Three filters before a change is applied, cheapest first, each with its own counter:
//!
//! | question                                  | no means                                | cost        |
//! | ----------------------------------------- | --------------------------------------- | ----------- |
//! | is the page in the dirty page table?      | all its changes are on disk             | a look-up   |
//! | is the record at or past its recLSN?      | this change is on disk                  | nothing     |
//! | is pageLSN below the record's LSN?        | this change is in the page              | a page read |
//!
//! When a change is applied, the page must be at the record's `page_prev` (R2, in `chain.rs`): a gap means that
//! the disk lost a write it had acknowledged. A page never written is legal only before an operation that
//! overwrites it. A torn page waits for one: analysis may know an older recLSN of a page than the one it was
//! written with, and then changes of its former life come first (R7). What still waits when the log ends is
//! damage, rebuilt by `repair.rs` where that reaches.
//!
//! A pageLSN at or past the end of the log proves that the log is shorter than it was: the page could
//! only be written once its record was durable. Then the "tail" is damage, and restart must not go on
//! to erase it. While the end of the log is not known yet, the greatest pageLSN is kept for whoever will know.

use std::collections::HashMap;

use argali_base::sync::Arc;
use argali_base::{Error, Lsn, PageId, Result, spread};
use argali_buffer_pool::{BufferPool, PageWrite};
use argali_pager::PageOp;
use argali_wal::Change;
use foldhash::fast::FixedState;

use crate::analysis::{DirtyPages, corrupt};
use crate::batch::Batch;
use crate::chain::{Fit, Step};
use crate::observer::RedoDecision;
use crate::{Mutations, Parts, Report};

/// So many changes ahead of its turn, the processor is asked to fetch a page.
const FETCH_AHEAD: usize = 6;

/// The dirty pages of one partition, and what was done to them so far.
pub(crate) struct Partition {
    pool: Arc<BufferPool>,
    mutations: Mutations,
    /// Where the log ends.
    end: Lsn,
    dirty: HashMap<PageId, DirtyPage, FixedState>,
    /// The table is complete below this LSN; from here on, the first change of a page it lacks is its recLSN.
    complete_to: Lsn,
    /// Greatest pageLSN met.
    newest: Lsn,
    counts: Counts,
}

struct DirtyPage {
    rec_lsn: Lsn,
    changed: bool,
    torn: Option<Torn>,
}

/// Changes skipped because the page is torn: the first and the last.
#[derive(Clone, Copy)]
struct Torn {
    first: Lsn,
    last: Lsn,
}

/// Decisions of redo, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    applied: u64,
    not_dirty: u64,
    before_rec_lsn: u64,
    page_newer: u64,
    page_torn: u64,
    pages_changed: u64,
}

/// A change that could not be redone.
pub(crate) struct Failure {
    pub(crate) lsn: Lsn,
    pub(crate) error: Error,
}

impl Partition {
    /// All pages of `dirty`, which is complete for the log below `complete_to`; the log ends at `end`.
    pub(crate) fn new(parts: &Parts, (complete_to, end): (Lsn, Lsn), dirty: &DirtyPages) -> Self {
        let fresh = |(&page, &rec_lsn)| (page, DirtyPage { rec_lsn, changed: false, torn: None });
        Self {
            pool: Arc::clone(&parts.pool),
            mutations: parts.mutations,
            end,
            dirty: dirty.iter().map(fresh).collect(),
            complete_to,
            newest: Lsn::NONE,
            counts: Counts::default(),
        }
    }

    /// As [`Partition::new`], but a partition for each of `parts.workers`.
    pub(crate) fn cut(parts: &Parts, known: (Lsn, Lsn), dirty: &DirtyPages) -> Vec<Self> {
        if parts.mutations.redo_partitioned_by_record {
            return (0..parts.workers).map(|_| Self::new(parts, known, dirty)).collect();
        }
        let mut cut = vec![DirtyPages::default(); parts.workers];
        for (&page, &rec_lsn) in dirty {
            cut[Self::of(page, parts.workers)].insert(page, rec_lsn);
        }
        cut.iter().map(|dirty| Self::new(parts, known, dirty)).collect()
    }

    /// Which of `count` partitions `page` is in.
    pub(crate) fn of(page: PageId, count: usize) -> usize {
        // Mixed, so that no pattern in the page ids keeps one worker busy and the others idle.
        let mixed = spread(page.get()) >> 32;
        (mixed % count as u64) as usize
    }

    /// Redoes the changes of a batch, in order, and tells what was decided about each.
    pub(crate) fn redo(
        &mut self,
        batch: &Batch,
        mut decided: impl FnMut(Lsn, &Change<'_>, RedoDecision),
    ) -> Result<(), Failure> {
        let mut room = Vec::new();
        for (at, (lsn, change)) in batch.iter().enumerate() {
            if let Some(page) = batch.page(at + FETCH_AHEAD) {
                self.pool.prefetch(page);
            }
            let decision = self.change(lsn, &change, &mut room);
            let decision = decision.map_err(|error| Failure { lsn, error })?;
            self.counts.add(decision);
            decided(lsn, &change, decision);
        }
        Ok(())
    }

    /// The three filters, then the change. `room` is for its operations, one change after the other.
    fn change<'b>(
        &mut self,
        lsn: Lsn,
        change: &Change<'b>,
        room: &mut Vec<PageOp<'b>>,
    ) -> Result<RedoDecision> {
        let dirty = if lsn < self.complete_to || self.mutations.new_pages_not_dirty {
            let Some(dirty) = self.dirty.get_mut(&change.page) else {
                return Ok(RedoDecision::NotDirty);
            };
            dirty
        } else {
            let fresh = DirtyPage { rec_lsn: lsn, changed: false, torn: None };
            self.dirty.entry(change.page).or_insert(fresh)
        };
        let rec_lsn = dirty.rec_lsn;
        if lsn < rec_lsn {
            return Ok(RedoDecision::BeforeRecLsn { rec_lsn });
        }
        let step = Step::decode(lsn, change, std::mem::take(room))?;
        let Some(mut page) = dirty.latch(&self.pool, &step, self.mutations)? else {
            return Ok(RedoDecision::PageIsTorn);
        };
        let page_lsn = page.page().lsn();
        self.newest = self.newest.max(page_lsn);
        if page_lsn >= self.end {
            return Err(past_the_end(&page, self.end));
        }
        match step.fit(page_lsn) {
            Fit::Contained if !self.mutations.redo_ignores_page_lsn => {
                return Ok(RedoDecision::PageIsNewer { page_lsn });
            }
            Fit::Gap(expected) if !self.mutations.break_chains() => {
                return Err(lost_write(&page, lsn, expected)); // R2
            }
            Fit::Contained | Fit::Next | Fit::Gap(_) => {}
        }
        page.dirty_from(rec_lsn, step.overwrites()); // R3
        page.apply_in_redo(&step.ops, lsn).map_err(|why| step.refused(&why))?;
        self.counts.pages_changed += u64::from(!std::mem::replace(&mut dirty.changed, true));
        *room = step.ops;
        Ok(RedoDecision::Applied)
    }

    /// Entries of the dirty page table.
    pub(crate) fn dirty_pages(&self) -> usize {
        self.dirty.len()
    }

    /// The greatest pageLSN that any change met in its page.
    pub(crate) fn newest(&self) -> Lsn {
        self.newest
    }

    /// Whether some page is torn and waits.
    pub(crate) fn waits(&self) -> bool {
        self.dirty.values().any(|dirty| dirty.torn.is_some())
    }

    /// Redo is over: pages that were torn and that nothing overwrote are rebuilt, or reported.
    pub(crate) fn settle_torn(&self) -> Result<(), Failure> {
        let torn = self.dirty.iter().filter_map(|(page, dirty)| Some((dirty.torn?, *page)));
        let mut torn: Vec<(Torn, PageId)> = torn.collect();
        torn.sort_unstable_by_key(|(torn, _)| torn.first);
        torn.iter().try_for_each(|(torn, page)| {
            self.rebuild(*page, torn.last).map_err(|error| Failure { lsn: torn.first, error })
        })
    }

    fn rebuild(&self, page: PageId, last: Lsn) -> Result<()> {
        let page = self.pool.read(page)?;
        let page_lsn = page.page().lsn();
        if page_lsn < last {
            let what = format!("{} at {page_lsn} was torn when redo came to {last}", page.id());
            return Err(corrupt(last, what));
        }
        Ok(())
    }

    /// Adds what was done to the report.
    pub(crate) fn report(&self, report: &mut Report) {
        report.applied += self.counts.applied;
        report.skipped_not_dirty += self.counts.not_dirty;
        report.skipped_before_rec_lsn += self.counts.before_rec_lsn;
        report.skipped_page_newer += self.counts.page_newer;
        report.skipped_page_torn += self.counts.page_torn;
        report.redo.pages += self.counts.pages_changed;
    }
}

impl DirtyPage {
    /// The page, to redo `step` on; `None` while it is torn and waits (R7).
    fn latch<'p>(
        &mut self,
        pool: &'p BufferPool,
        step: &Step<'_>,
        mutations: Mutations,
    ) -> Result<Option<PageWrite<'p>>> {
        if !step.overwrites() && self.torn.is_some() {
            self.wait(step.lsn);
            return Ok(None);
        }
        match pool.write_for_redo(step.page, step.overwrites()) {
            Err(e) if e.is_corruption() && !step.overwrites() && !mutations.torn_is_damage => {
                self.wait(step.lsn);
                Ok(None)
            }
            page => {
                self.torn = None;
                page.map(Some)
            }
        }
    }

    fn wait(&mut self, lsn: Lsn) {
        let first = self.torn.map_or(lsn, |torn| torn.first);
        self.torn = Some(Torn { first, last: lsn });
    }
}

impl Counts {
    fn add(&mut self, decision: RedoDecision) {
        *match decision {
            RedoDecision::Applied => &mut self.applied,
            RedoDecision::NotDirty => &mut self.not_dirty,
            RedoDecision::BeforeRecLsn { .. } => &mut self.before_rec_lsn,
            RedoDecision::PageIsNewer { .. } => &mut self.page_newer,
            RedoDecision::PageIsTorn => &mut self.page_torn,
        } += 1;
    }
}

fn past_the_end(page: &PageWrite<'_>, end: Lsn) -> Error {
    let (id, page_lsn) = (page.id(), page.page().lsn());
    let what = format!("{id} is at {page_lsn}, so the log reached past {end}, where it ends now");
    corrupt(end, what)
}

fn lost_write(page: &PageWrite<'_>, lsn: Lsn, expected: Lsn) -> Error {
    let (id, page_lsn) = (page.id(), page.page().lsn());
    let size = page.page().bytes().len() as u64;
    let what = format!(
        "a write of {id} was lost: the page is at {page_lsn}, the record at {lsn} follows {expected}"
    );
    Error::corrupt("data", id.get().saturating_mul(size), Some(page_lsn), what)
}
