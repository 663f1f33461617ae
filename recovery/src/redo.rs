//! Second pass: repeats history. Every change the crash took from a page is made again, losers' changes
//! too, in log order, by the same `apply` that made it first (ARIES, section 6.2).
//!
//! Most records need no page at all. Three filters, cheapest first, each with its own counter:
//!
//! | question                                  | no means                                | cost        |
//! | ----------------------------------------- | --------------------------------------- | ----------- |
//! | is the page in the dirty page table?      | all its changes are on disk             | a look-up   |
//! | is the record at or past its recLSN?      | this change is on disk                  | nothing     |
//! | is pageLSN below the record's LSN?        | this change is in the page              | a page read |
//!
//! When a change is applied, the page must be at the record's `page_prev` (R2, in `chain.rs`): a gap means that
//! the disk lost a write it had acknowledged. A page never written or torn is legal only before an operation
//! that overwrites it; torn elsewhere, it is rebuilt by `repair.rs` where that reaches.
//!
//! A pageLSN at or past the end of the log proves that the log is shorter than it was: the page could
//! only be written once its record was durable. Then the "tail" is damage, and restart must not go on
//! to erase it.
//!
//! recLSNs are never raised to pageLSN + 1 after a page was read, a trick that treats that sum as the
//! address of a record. Winners are not told from losers here: a later winner's change to a page
//! stands on the loser's before it.

use std::collections::BTreeSet;

use argali_base::{Error, Lsn, PageId, Result, TxnId};
use argali_buffer_pool::PageWrite;
use argali_pager::OpList;
use argali_wal::{Change, Changes, RecordBuf};

use crate::analysis::{History, corrupt};
use crate::chain::{Fit, Step, changes_of};
use crate::observer::{Event, RecoveryObserver, RedoDecision, tell};
use crate::{Parts, Report};

/// Runs the pass.
pub(crate) fn repeat_history<O: RecoveryObserver>(
    parts: &Parts,
    history: &History,
    report: &mut Report,
    observer: &mut O,
) -> Result<()> {
    let begun = parts.clock.now();
    report.redo.from = history.redo;
    report.redo.to = history.end;
    report.redo.bytes = history.end.get().saturating_sub(history.redo.get());
    if !history.dirty.is_empty() {
        let mut redo = Redo::new(parts, history, report, observer);
        redo.run()?;
        let changed = redo.changed.len() as u64;
        report.redo.pages = changed;
    }
    report.redo.time = parts.since(begun);
    Ok(())
}

struct Redo<'a, O> {
    parts: &'a Parts,
    history: &'a History,
    report: &'a mut Report,
    observer: &'a mut O,
    changed: BTreeSet<PageId>,
    /// Transactions whose records a broken redo leaves out; empty unless a test breaks it.
    left_out: BTreeSet<TxnId>,
}

impl<'a, O: RecoveryObserver> Redo<'a, O> {
    fn new(
        parts: &'a Parts,
        history: &'a History,
        report: &'a mut Report,
        observer: &'a mut O,
    ) -> Self {
        let mut left_out = BTreeSet::new();
        if parts.mutations.winners_only_redo {
            left_out.extend(history.losers.iter().map(|loser| loser.txn));
        }
        Self { parts, history, report, observer, changed: BTreeSet::new(), left_out }
    }

    fn run(&mut self) -> Result<()> {
        let mut scan = self.parts.wal.scan(self.history.redo);
        let mut buf = RecordBuf::new();
        while scan.next(&mut buf)? {
            self.report.redo.records += 1;
            let record = buf.record();
            if !self.left_out.contains(&record.txn) {
                self.changes(buf.lsn(), changes_of(&record.body))?;
            }
        }
        Ok(())
    }

    fn changes(&mut self, lsn: Lsn, changes: Changes<'_>) -> Result<()> {
        for change in changes.iter() {
            let decision = self.change(lsn, &change)?;
            self.count(change.page, decision);
            tell(self.observer, || Event::Redo {
                lsn,
                page: change.page,
                decision,
                ops: OpList::describe(change.page, change.ops),
            });
        }
        Ok(())
    }

    /// The three filters, then the change.
    fn change(&mut self, lsn: Lsn, change: &Change<'_>) -> Result<RedoDecision> {
        let Some(&rec_lsn) = self.history.dirty.get(&change.page) else {
            return Ok(RedoDecision::NotDirty);
        };
        if lsn < rec_lsn {
            return Ok(RedoDecision::BeforeRecLsn { rec_lsn });
        }
        let step = Step::decode(lsn, change)?;
        let mut page = self.parts.pool.write_for_redo(change.page, step.overwrites())?;
        let page_lsn = page.page().lsn();
        if page_lsn >= self.history.end {
            return Err(self.past_the_end(&page));
        }
        match step.fit(page_lsn) {
            Fit::Contained if !self.parts.mutations.redo_ignores_page_lsn => {
                return Ok(RedoDecision::PageIsNewer { page_lsn });
            }
            Fit::Gap(expected) if !self.chain_is_broken_on_purpose() => {
                return Err(self.lost_write(&page, lsn, expected)); // R2
            }
            Fit::Contained | Fit::Next | Fit::Gap(_) => {}
        }
        page.dirty_from(rec_lsn); // R3
        page.apply_in_redo(&step.ops, lsn).map_err(|why| step.refused(&why))?;
        Ok(RedoDecision::Applied)
    }

    fn count(&mut self, page: PageId, decision: RedoDecision) {
        match decision {
            RedoDecision::Applied => {
                self.report.applied += 1;
                self.changed.insert(page);
            }
            RedoDecision::NotDirty => self.report.skipped_not_dirty += 1,
            RedoDecision::BeforeRecLsn { .. } => self.report.skipped_before_rec_lsn += 1,
            RedoDecision::PageIsNewer { .. } => self.report.skipped_page_newer += 1,
        }
    }

    fn past_the_end(&self, page: &PageWrite<'_>) -> Error {
        let (id, page_lsn, end) = (page.id(), page.page().lsn(), self.history.end);
        let what =
            format!("{id} is at {page_lsn}, so the log reached past {end}, where it ends now");
        corrupt(end, what)
    }

    fn lost_write(&self, page: &PageWrite<'_>, lsn: Lsn, expected: Lsn) -> Error {
        let (id, page_lsn) = (page.id(), page.page().lsn());
        let size = self.parts.pool.pager().options().page_size.bytes() as u64;
        let what = format!(
            "a write of {id} was lost: the page is at {page_lsn}, the record at {lsn} follows {expected}"
        );
        Error::corrupt("data", id.get().saturating_mul(size), Some(page_lsn), what)
    }

    /// A redo that skips or repeats records on purpose breaks the chain at once; a test that wants to
    /// see what the rule protects has to look past that.
    fn chain_is_broken_on_purpose(&self) -> bool {
        let mutations = &self.parts.mutations;
        mutations.winners_only_redo || mutations.redo_ignores_page_lsn
    }
}
