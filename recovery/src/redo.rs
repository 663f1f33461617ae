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

use crate::analysis::History;
use crate::batch::Batch;
use crate::chain::changes_of;
use crate::observer::{Event, RecoveryObserver, tell};
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
        let alone = parts.workers == 0 || observer.wants();
        let done = if alone {
            in_turn(parts, history, report, observer)
        } else {
            by_workers(parts, history, report)
        };
        done.map_err(|Failure { error, .. }| error)?;
    }
    report.redo.time = parts.since(begun);
    Ok(())
}

/// One partition, on this thread.
fn in_turn<O: RecoveryObserver>(
    parts: &Parts,
    history: &History,
    report: &mut Report,
    observer: &mut O,
) -> Result<(), Failure> {
    let mut all = Partition::new(parts, history.end, &history.dirty);
    let mut redo = |batch: &mut Batch| {
        let done = all.redo(batch, |lsn, &Change { page, ops, .. }, decision| {
            let ops = || OpList::describe(page, ops);
            tell(observer, || Event::Redo { lsn, page, decision, ops: ops() });
        });
        batch.clear();
        done
    };
    let (mut batch, mut failed) = (Batch::default(), None);
    let scanned = scan(parts, history, report, |lsn, change| {
        batch.push(lsn, change);
        if batch.is_full() {
            failed = redo(&mut batch).err();
        }
        failed.is_none()
    });
    // What was read before the scan failed comes before its failure.
    failed.map_or_else(|| redo(&mut batch), Err).and(scanned)?;
    all.report(report);
    Ok(())
}

/// As many partitions as workers.
fn by_workers(parts: &Parts, history: &History, report: &mut Report) -> Result<(), Failure> {
    let _ahead = ReadAhead::start(&parts.pool, &history.dirty);
    let partitions = Partition::cut(parts, history.end, &history.dirty);
    let mut workers =
        Workers::start(parts, partitions).map_err(|error| Failure { lsn: history.redo, error })?;
    let scanned = scan(parts, history, report, |lsn, change| workers.give(lsn, change));
    let partitions = workers.finish(scanned)?;
    for partition in partitions {
        partition.report(report);
    }
    Ok(())
}

/// Reads the log from the redo point on. `see` is given each change and says whether to go on.
fn scan(
    parts: &Parts,
    history: &History,
    report: &mut Report,
    mut see: impl FnMut(Lsn, &Change<'_>) -> bool,
) -> Result<(), Failure> {
    let left_out = left_out(parts, history);
    let mut scan = parts.wal.scan(history.redo);
    loop {
        let at = scan.at();
        let lent = scan.lend().map_err(|error| Failure { lsn: at, error })?;
        let Some(Lent { lsn, record }) = lent else { return Ok(()) };
        report.redo.records += 1;
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
