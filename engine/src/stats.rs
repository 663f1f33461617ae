//! Counters and gauges: what a database is doing, and what keeps it from doing more.

use argali_base::sync::Ordering;
use argali_base::{Error, Lsn, Result, TxnId};

use crate::db::Engine;
use crate::handle::Named;

/// Counters since this opening, and gauges of now; names carry their units. `log.holders` names what
/// keeps the log from being truncated.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// The log: records, bytes, flushes, segments, first and last LSN, and who holds it.
    pub log: argali_wal::LogStats,
    /// The page cache.
    pub pool: argali_buffer_pool::PoolStats,
    /// The data file.
    pub pager: argali_pager::PagerStats,
    /// Locks, waits, deadlocks, timeouts.
    pub locks: argali_txn::LockStats,
    /// Transactions with a record in the log.
    pub active_transactions: usize,
    /// The one of them that began first, and its first record: undo may have to read back to there.
    pub oldest_transaction: Option<(TxnId, Lsn)>,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions that wrote and were rolled back.
    pub aborts: u64,
    /// Times `Db::update` ran its closure again.
    pub retries: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Named trees, those of open transactions included.
    pub trees: u64,
    /// Named heaps, likewise.
    pub heaps: u64,
    /// Sequences, likewise.
    pub sequences: u64,
    /// What was dropped, overwritten or created in vain and whose pages are not all free yet.
    pub frees_waiting: u64,
    /// Pages in use, the allocation maps' included.
    pub pages_in_use: u64,
    /// Page space: tree nodes joined, pages given back, thin leaves noted.
    pub space: argali_access::SpaceStats,
    /// Transactions prepared and not decided; see [`crate::Db::prepared`].
    pub in_doubt: usize,
    /// Transactions whose rollback failed, and why: they keep their locks and hold the log until a later try
    /// succeeds. Background work tries again and again.
    pub stranded: Vec<(TxnId, String)>,
    /// The latest pages that came back damaged and were rebuilt, oldest first; `pool.pages_repaired` counts all.
    pub repairs: Vec<argali_recovery::PageRepair>,
    /// Why the database is poisoned.
    pub poisoned: Option<String>,
    /// The last error of a background step; what it failed to do is tried again.
    pub background_error: Option<String>,
}

pub(crate) fn collect(engine: &Engine) -> Result<Stats> {
    let mut active = Vec::new();
    engine.txns.active(&mut active);
    let oldest = active.iter().min_by_key(|txn| txn.first);
    let (mut trees, mut heaps, mut sequences) = (0, 0, 0);
    let mut system = engine.txns.begin_system()?;
    engine.catalog.for_each(&mut system, |_, place| match place.named {
        Named::Tree => trees += 1,
        Named::Heap => heaps += 1,
        Named::Sequence => sequences += 1,
    })?;
    let counters = &engine.counters;
    Ok(Stats {
        log: engine.wal.stats(),
        pool: engine.pool.stats(),
        pager: engine.pager.stats(),
        locks: engine.txns.lock_stats(),
        active_transactions: active.len(),
        oldest_transaction: oldest.map(|txn| (txn.txn, txn.first)),
        commits: counters.commits.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum(),
        aborts: counters.aborts.load(Ordering::Relaxed),
        retries: counters.retries.load(Ordering::Relaxed),
        checkpoints: counters.checkpoints.load(Ordering::Relaxed),
        trees,
        heaps,
        sequences,
        frees_waiting: engine.pending.waiting() as u64,
        pages_in_use: engine.space.pages_in_use()?,
        space: engine.space.stats(),
        in_doubt: engine.register.len(),
        stranded: engine.txns.stranded(),
        repairs: engine.repairer.as_ref().map_or_else(Vec::new, |repairer| repairer.repairs()),
        poisoned: match engine.health.check() {
            Err(Error::Poisoned { cause }) => Some(cause),
            _ => None,
        },
        background_error: counters.background_error.lock().clone(),
    })
}
