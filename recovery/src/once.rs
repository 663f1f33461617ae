//! Both passes, analysis and redo, in the one reading of the log that finds its end.
//!
//! ```text
//!        redo point      begin ─────── end of the checkpoint                       end of log
//!            │             ├─── 1 ────────►│                                            │
//!            │             │   both tables │                                            │
//!            ├────────────────── 2 ───────►│                                            │
//!            │        redo by that table   ├──────────────────── 3 ────────────────────►│
//!                                              transactions, redo, and what the end is
//! ```
//!
//! When the checkpoint has been read, its dirty page table is known, and from there on the table grows in one
//! way only: the first change of a page it lacks is that page's recLSN. Whoever redoes that change is the first to
//! need the entry. So the log behind the checkpoint, which is most of it, is read, checked and decoded once, on one
//! processor, while others apply what was read.
//!
//! - O1: A change is redone only when its record stands in the unbroken run of whole frames that begins at
//!   the checkpoint, and it is durable. Wherever that run ends, and whether that is then judged to be a tail or
//!   damage, what is in it happened. Pages that went to disk meanwhile are no further than it (the write-ahead
//!   rule, by [`Wal::durable`](argali_wal::Wal::durable), which grows with the run).
//! - O2: A pageLSN beyond the run is no evidence before its end is known. The greatest one met is compared
//!   with the end afterwards.
//! - O3: This reading gives no verdict on damage. Whenever a record, a table or a page is odd, the two passes are
//!   made one after the other, over what was redone already, and their errors count. A page that has to
//!   be rebuilt from the log, because it is torn and nothing overwrote it (R7), is one such case: that needs its
//!   end. Damage of the log goes before all others.
//!
//! Observed, the passes are made one after the other as well: that is how they are understood.

use std::collections::BTreeSet;

use argali_base::{Error, Lsn, Result};
use argali_wal::{Change, Changes, EndSearch, Record};

use crate::analysis::{History, Tables};
use crate::chain::changes_of;
use crate::observer::{RecoveryObserver, RedoDecision, Silent};
use crate::partition::{Failure, Partition};
use crate::redo::{Hands, scan};
use crate::{Parts, PassReport, Report};

/// Finds the end of the log, unless it is known, and makes both passes; `None` when they are still to be made.
pub(crate) fn read<O: RecoveryObserver>(
    parts: &Parts,
    report: &mut Report,
    observer: &O,
) -> Result<Option<History>> {
    let control = parts.control.get();
    let Some(search) = parts.wal.search_end(&control)? else { return Ok(None) };
    if observer.wants() || parts.mutations.winners_only_redo {
        return search.finish().map(|()| None);
    }
    let mut reading = Reading { search, tables: Tables::new(&control, Lsn::NONE), records: 0 };
    let begun = parts.clock.now();
    while reading.search.at() < control.checkpoint_end {
        let Step::Seen = reading.step(|_, _| ())? else { break };
    }
    if reading.search.at() < control.checkpoint_end || !reading.tables.is_complete() {
        return reading.search.finish().map(|()| None);
    }
    let analysed = parts.since(begun);
    let history = reading.redo(parts, report)?;
    report.analysis.time = analysed;
    report.redo.time = parts.since(begun).saturating_sub(analysed);
    Ok(history)
}

/// The log as it is read, and the transaction table.
struct Reading<'w> {
    search: EndSearch<'w>,
    tables: Tables,
    records: u64,
}

/// What became of the next record.
enum Step {
    Seen,
    /// It contradicts something.
    Odd,
    /// There is none.
    End,
}

/// What redo came to.
type Redone = Result<Vec<Partition>, Failure>;

impl Reading<'_> {
    /// The next record: into the table, and its changes to `see`.
    fn step(&mut self, see: impl FnOnce(Lsn, Changes<'_>)) -> Result<Step> {
        let Some((lsn, frame)) = self.search.lend()? else { return Ok(Step::End) };
        self.records += 1;
        let Some(record) = Record::decode(frame) else { return Ok(Step::Odd) };
        if self.tables.see(lsn, &record, &mut Silent).is_err() {
            return Ok(Step::Odd);
        }
        see(lsn, changes_of(&record.body));
        Ok(Step::Seen)
    }

    /// Steps 2 and 3; `None` when the passes have to be made again (O3).
    fn redo(mut self, parts: &Parts, report: &mut Report) -> Result<Option<History>> {
        let dirty = self.tables.hand_over_pages();
        let complete_to = self.search.at();
        let decided: fn(Lsn, &Change<'_>, RedoDecision) = |_, _, _| ();
        let hands = Hands::take_up(parts, (complete_to, Lsn::MAX), &dirty, decided);
        let mut hands = hands.map_err(|Failure { error, .. }| error)?;
        let mut pass = PassReport { from: Lsn::MAX, ..PassReport::default() };
        let mut scanned = Ok(());
        if let Some(&from) = dirty.values().min() {
            pass.from = from.min(complete_to);
            let none = BTreeSet::new();
            let give = |lsn, change: &Change<'_>| hands.give(lsn, change);
            scanned = scan(parts, pass.from, &mut pass.records, &none, give);
        }
        let read = if scanned.is_ok() { self.onward(&mut hands, &mut pass) } else { Ok(false) };
        // Nobody is left at work, whatever was read.
        let redone = hands.finish(scanned);
        let sound = read?;
        let Self { search, tables, records } = self;
        search.finish()?;
        let Some(partitions) = accept(parts, sound, redone)? else { return Ok(None) };
        let mut history = tables.conclude(parts, report)?;
        pass.to = history.end;
        pass.from = pass.from.min(history.end);
        pass.bytes = pass.to.get() - pass.from.get();
        history.redo = pass.from;
        report.redo = pass;
        report.analysis.records = records;
        report.analysis.pages = partitions.iter().map(|part| part.dirty_pages() as u64).sum();
        for partition in &partitions {
            partition.report(report);
        }
        Ok(Some(history))
    }

    /// Step 3; whether all of the log was seen and given out.
    fn onward<D>(&mut self, hands: &mut Hands<D>, pass: &mut PassReport) -> Result<bool>
    where
        D: FnMut(Lsn, &Change<'_>, RedoDecision),
    {
        let mut going = true;
        while going {
            let step = self.step(|lsn, changes| {
                if pass.from > lsn && !changes.is_empty() {
                    pass.from = lsn; // no page was dirty so far
                }
                pass.records += u64::from(pass.from <= lsn);
                going = changes.iter().all(|change| hands.give(lsn, &change));
            })?;
            match step {
                Step::Seen => {}
                Step::Odd => return Ok(false),
                Step::End => return Ok(going),
            }
        }
        Ok(false)
    }
}

/// The partitions, if their verdict may stand (O2, O3).
fn accept(parts: &Parts, sound: bool, redone: Redone) -> Result<Option<Vec<Partition>>> {
    match redone {
        Ok(partitions) => {
            let end = parts.wal.end();
            let ahead = partitions.iter().any(|partition| partition.newest() >= end)
                && !parts.mutations.newest_page_ignored;
            let waits = partitions.iter().any(Partition::waits);
            Ok(Some(partitions).filter(|_| sound && !ahead && !waits))
        }
        // A page that was changed by half can be judged by nobody else.
        Err(Failure { error, .. }) if stays(parts, &error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether a failure is not one of damage, or would be hidden if the passes were made again.
fn stays(parts: &Parts, error: &Error) -> bool {
    let hidden = parts.wal.health().is_poisoned() || parts.mutations.redo_partitioned_by_record;
    hidden || !error.is_corruption()
}
