//! Third pass: takes the losers back, all of them in one backward sweep (ARIES, section 6.3).
//!
//! ```text
//!  log      @10 t1   @20 t2   @30 t1   @40 t2  ┆ end
//!  sweep                               ◄─ t2   ┆ CLR of @40, undo_next @20
//!                             ◄─ t1            ┆ CLR of @30, undo_next @10
//!                    ◄─ t2                     ┆ CLR of @20, undo_next none;  t2 ends
//!           ◄─ t1                              ┆ CLR of @10, undo_next none;  t1 ends
//! ```
//!
//! The greatest LSN goes first, whoever's it is: what was built last is taken down first, so a logical
//! undo always meets the structure its record left. One sweep also reads the log once, backward.
//!
//! Each step is [`TxnManager::undo_one`](argali_txn::TxnManager::undo_one), the one undo that rollback
//! and savepoints use too. A crash here loses nothing: the CLRs that reached the disk are redone, and
//! the next sweep goes on at their `undo_next`. Undo does not look at pageLSNs, because history was
//! repeated and each change is there.
//!
//! Transactions in doubt are passed over: undo leaves them alone, whatever their LSNs. They only get back
//! what they had in memory, before anything is undone.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use argali_base::{Lsn, Result};
use argali_txn::{Prepared, Txn};
use argali_wal::{ActiveTxn, RecordBuf};

use crate::analysis::History;
use crate::observer::{Event, RecoveryObserver, tell};
use crate::{Parts, Report};

/// Takes the transactions in doubt into the new life: table entry, locks, log space. Before the losers go:
/// `Commit_LSN` must not pass a transaction whose rollback may still be asked for.
pub(crate) fn adopt_in_doubt<O: RecoveryObserver>(
    parts: &Parts,
    history: &History,
    report: &mut Report,
    observer: &mut O,
) -> Result<Vec<Prepared>> {
    let mut all = Vec::new();
    for active in &history.in_doubt {
        let prepared = parts.txns.adopt_prepared(*active)?;
        report.in_doubt.push(active.txn);
        tell(observer, || Event::InDoubt {
            txn: active.txn,
            gid: prepared.vote().gid.clone(),
            locks: prepared.vote().locks.len(),
        });
        all.push(prepared);
    }
    Ok(all)
}

/// Runs the pass.
pub(crate) fn take_back_losers<O: RecoveryObserver>(
    parts: &Parts,
    history: &History,
    report: &mut Report,
    observer: &mut O,
) -> Result<()> {
    let begun = parts.clock.now();
    let mut losers: BinaryHeap<Loser> =
        history.losers.iter().map(|&loser| Loser::adopt(parts, loser)).collect();
    report.undo.from = losers.peek().map_or(history.end, |loser| loser.undo_next);
    report.undo.to = report.undo.from;
    let mut buf = RecordBuf::new();
    while let Some(loser) = losers.pop() {
        losers.extend(step(parts, loser, &mut buf, report, observer)?);
    }
    report.undo.bytes = report.undo.from.get().saturating_sub(report.undo.to.get());
    report.undo.time = parts.since(begun);
    Ok(())
}

/// A transaction being taken back, ordered by the record that comes next.
struct Loser {
    undo_next: Lsn,
    txn: Txn,
}

impl Loser {
    fn adopt(parts: &Parts, loser: ActiveTxn) -> Self {
        Self { undo_next: loser.undo_next, txn: parts.txns.adopt(loser) }
    }
}

/// Takes back the next record of the loser with the greatest one; gives it back unless it is over.
fn step<O: RecoveryObserver>(
    parts: &Parts,
    mut loser: Loser,
    buf: &mut RecordBuf,
    report: &mut Report,
    observer: &mut O,
) -> Result<Option<Loser>> {
    let txn = loser.txn.id();
    if loser.undo_next.is_none() {
        loser.txn.abort()?; // nothing is left to take back: this logs the end
        tell(observer, || Event::LoserEnded { txn });
        return Ok(None);
    }
    let undone = parts.txns.undo_one(&mut loser.txn, buf)?;
    report.undo.records += 1;
    report.undo.to = undone.lsn;
    report.clrs_written += u64::from(undone.clr.is_some());
    tell(observer, || Event::Undo {
        lsn: undone.lsn,
        txn,
        clr: undone.clr,
        undo_next: undone.undo_next,
    });
    // U1: the sweep only goes backward, so it ends.
    assert!(
        undone.undo_next < undone.lsn,
        "U1: undo of {} in {txn} goes on at {}",
        undone.lsn,
        undone.undo_next
    );
    loser.undo_next = undone.undo_next;
    Ok(Some(loser))
}

impl Ord for Loser {
    fn cmp(&self, other: &Self) -> Ordering {
        self.undo_next.cmp(&other.undo_next)
    }
}

impl PartialOrd for Loser {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Loser {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Loser {}
