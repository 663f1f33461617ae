//! Second pass: repeats history, whoever made it, until pages look as they did at the crash (ARIES,
//! section 6.2).
//!
//! ```text
//!  log    ─┬── p7 ── p9 ── p7 ── p8 ── p9 ──►        read once, from the least recLSN to the end
//!          ├─► batch: p7, p7 ──────────► worker      even pages, in log order
//!          └─► batch: p9, p8, p9 ──────► worker      odd pages, in log order
//! ```
//!
//! The order of history matters within a page only: no change of one page looks at another. So the pages
//! are cut into partitions (`partition.rs`, which is where changes are judged and applied), each with its own
//! worker (`workers.rs`), and a record that changes pages of several is taken apart. With one
//! partition the scan's own thread applies what it reads, batch by batch; then a restart makes the same disk
//! calls in the same order each time, and an observer hears of each decision in log order. Which is why
//! a restart that is observed has one.
//!
//! Of several failures the one at the least LSN is reported: what one worker alone would have met first.
//!
//! recLSNs are never raised to pageLSN + 1 after a page was read, a trick that treats that sum as the
//! address of a record. Winners are not told from losers here: a later winner's change to a page
//! stands on the loser's before it.

use std::collections::BTreeSet;

use argali_base::{Lsn, Result, TxnId};
use argali_pager::OpList;
use argali_wal::{Change, Lent};

use crate::analysis::{DirtyPages, History};
use crate::batch::Batch;
use crate::chain::changes_of;
use crate::observer::{Event, RecoveryObserver, RedoDecision, tell};
use crate::partition::{Failure, Partition};
use crate::read_ahead::ReadAhead;
use crate::workers::Workers;
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
        let done = redo_all(parts, history, report, observer);
        done.map_err(|Failure { error, .. }| error)?;
    }
    report.redo.time = parts.since(begun);
    Ok(())
}

fn redo_all<O: RecoveryObserver>(
    parts: &Parts,
    history: &History,
    report: &mut Report,
    observer: &mut O,
) -> Result<(), Failure> {
    let parts =
        &Parts { workers: if observer.wants() { 0 } else { parts.workers }, ..parts.clone() };
    let decided = |lsn, &Change { page, ops, .. }: &Change<'_>, decision| {
        let ops = || OpList::describe(page, ops);
        tell(observer, || Event::Redo { lsn, page, decision, ops: ops() });
    };
    let mut hands = Hands::take_up(parts, (Lsn::MAX, history.end), &history.dirty, decided)?;
    let left_out = left_out(parts, history);
    let records = &mut report.redo.records;
    let scanned =
        scan(parts, history.redo, records, &left_out, |lsn, change| hands.give(lsn, change));
    let partitions = hands.finish(scanned)?;
    let unsettled = partitions.iter().filter_map(|partition| partition.settle_torn().err());
    unsettled.min_by_key(|failure| failure.lsn).map_or(Ok(()), Err)?;
    for partition in &partitions {
        partition.report(report);
    }
    Ok(())
}

/// Those who redo changes, in the hands of whoever reads the log.
pub(crate) enum Hands<D> {
    /// The reader by itself.
    Own(Box<Own<D>>),
    /// Threads, and others that bring in the pages.
    Workers { workers: Workers, ahead: ReadAhead, complete_to: Lsn },
}

/// One partition, and the batch that is filled for it.
pub(crate) struct Own<D> {
    partition: Partition,
    batch: Batch,
    failed: Option<Failure>,
    decided: D,
}

impl<D: FnMut(Lsn, &Change<'_>, RedoDecision)> Hands<D> {
    /// As many as `parts` says, for the pages of `dirty` ([`Partition::new`]). Without workers, `decided` is told
    /// of each decision.
    pub(crate) fn take_up(
        parts: &Parts,
        known: (Lsn, Lsn),
        dirty: &DirtyPages,
        decided: D,
    ) -> Result<Self, Failure> {
        if parts.workers == 0 {
            let partition = Partition::new(parts, known, dirty);
            let own = Own { partition, batch: Batch::default(), failed: None, decided };
            return Ok(Self::Own(Box::new(own)));
        }
        let ahead = ReadAhead::start(&parts.pool, dirty);
        let partitions = Partition::cut(parts, known, dirty);
        let workers =
            Workers::start(parts, partitions).map_err(|error| Failure { lsn: Lsn::NONE, error })?;
        Ok(Self::Workers { workers, ahead, complete_to: known.0 })
    }

    /// Has a change redone, sooner or later; whether it makes sense to go on.
    pub(crate) fn give(&mut self, lsn: Lsn, change: &Change<'_>) -> bool {
        match self {
            Self::Own(own) => own.give(lsn, change),
            Self::Workers { workers, ahead, complete_to } => {
                if lsn >= *complete_to {
                    ahead.meet(change.page);
                }
                workers.give(lsn, change)
            }
        }
    }

    /// Waits until all is redone. Of all failures, and that of the scan, the one at the least LSN.
    pub(crate) fn finish(self, scanned: Result<(), Failure>) -> Result<Vec<Partition>, Failure> {
        match self {
            Self::Own(own) => own.finish(scanned).map(|partition| vec![partition]),
            Self::Workers { workers, .. } => workers.finish(scanned),
        }
    }
}

impl<D: FnMut(Lsn, &Change<'_>, RedoDecision)> Own<D> {
    fn give(&mut self, lsn: Lsn, change: &Change<'_>) -> bool {
        self.batch.push(lsn, change);
        if self.batch.is_full() {
            self.failed = self.redo().err();
        }
        self.failed.is_none()
    }

    fn redo(&mut self) -> Result<(), Failure> {
        let done = self.partition.redo(&self.batch, &mut self.decided);
        self.batch.clear();
        done
    }

    fn finish(mut self, scanned: Result<(), Failure>) -> Result<Partition, Failure> {
        // What was read before the scan failed comes before its failure.
        self.failed.take().map_or_else(|| self.redo(), Err).and(scanned)?;
        Ok(self.partition)
    }
}

/// Reads the log from `from` to where it is known to reach. `see` is given each change and says whether to go on.
pub(crate) fn scan(
    parts: &Parts,
    from: Lsn,
    records: &mut u64,
    left_out: &BTreeSet<TxnId>,
    mut see: impl FnMut(Lsn, &Change<'_>) -> bool,
) -> Result<(), Failure> {
    let mut scan = parts.wal.scan(from);
    loop {
        let at = scan.at();
        let lent = scan.lend().map_err(|error| Failure { lsn: at, error })?;
        let Some(Lent { lsn, record }) = lent else { return Ok(()) };
        *records += 1;
        if left_out.contains(&record.txn) {
            continue;
        }
        for change in changes_of(&record.body).iter() {
            if !see(lsn, &change) {
                return Ok(());
            }
        }
    }
}

/// Transactions whose records a broken redo leaves out; none unless a test breaks it.
fn left_out(parts: &Parts, history: &History) -> BTreeSet<TxnId> {
    let losers = history.losers.iter().map(|loser| loser.txn);
    losers.filter(|_| parts.mutations.winners_only_redo).collect()
}
