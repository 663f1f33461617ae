//! The transaction table: which transactions have records in the log, and where their chains stand.
//!
//! ```text
//!  slots:  │ t7 first=@64 last=@512 undo_next=@512 │ (free) │ t9 … │
//!               ▲ locked from append to setting `last`
//!  bounds: │ @64                                   │ 0      │ @96  │      read without a lock
//! ```
//!
//! A transaction keeps one slot for its life, and slots go from transaction to transaction. A checkpoint
//! walks the slots, locking one at a time: nobody waits for it longer than it takes to copy five words.
//!
//! - **T1** A slot stays locked from appending a record to noting it, commit and end included. Else a
//!   checkpoint could copy a `last` that is older than its own begin record, and restart would never see
//!   the record in between.
//!
//! **`Commit_LSN`** (Mohan 1990) is the first LSN of the oldest transaction in the table: every change
//! below it is committed for good. It only grows, so a remembered value is never too high, merely old.
//! It is therefore computed when the transaction that held it back ends, and reading it is one load:
//!
//! ```text
//!  end:  free the slot ──► am I the holder, or is there none? ──► scan
//!  scan: no holder ──► read the tail ──► read every bound ──► note the new holder, if any
//! ```
//!
//! - **T2** A transaction's bound is the log's tail before its first record, and stands at its slot before that
//!   record is appended. The tail is read before the bounds: who finds a tail behind a record finds its
//!   transaction's bound, too, and a transaction whose bound the scan misses appends behind that tail.
//!
//! A transaction that ends while a scan runs finds no holder and scans after it, so no end is overlooked. No
//! scan waits for a slot: every transaction that others run would hand its cache line over, twice.
//!
//! A committed transaction stays in the table until its commit is durable, so what is below `Commit_LSN`
//! needs no horizon (relaxed commits never give one).

use std::ops::Range;

use argali_base::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, RwLock};
use argali_base::{Apart, Lsn, TxnId};
use argali_wal::{ActiveTxn, TxnState};

/// Where one transaction's chain of records stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) txn: TxnId,
    pub(crate) state: TxnState,
    /// First record; `NONE` while there is none.
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Next record to undo; `NONE` when everything is undone.
    pub(crate) undo_next: Lsn,
}

impl Chain {
    const FREE: Self = Self {
        txn: TxnId::NONE,
        state: TxnState::Running,
        first: Lsn::NONE,
        last: Lsn::NONE,
        undo_next: Lsn::NONE,
    };

    /// Notes the record just appended at `lsn`.
    pub(crate) fn extend(&mut self, lsn: Lsn, undo_next: Lsn) {
        assert!(self.last < lsn, "T1: {} logged {lsn} after {}", self.txn, self.last);
        if self.first.is_none() {
            self.first = lsn;
        }
        self.last = lsn;
        self.undo_next = undo_next;
    }

    /// The entry a checkpoint keeps.
    pub(crate) fn entry(&self) -> ActiveTxn {
        let Self { txn, state, first, last, undo_next } = *self;
        ActiveTxn { txn, state, first, last, undo_next }
    }
}

/// A place in the table.
#[derive(Debug)]
pub(crate) struct Slot {
    chain: Mutex<Chain>,
    /// No record of the transaction stands below (T2); 0 while it has none.
    bound: AtomicU64,
    /// Which slot it is, from 1 on.
    number: u64,
}

impl Slot {
    fn new(number: u64) -> Self {
        Self { chain: Mutex::new(Chain::FREE), bound: AtomicU64::new(0), number }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock()
    }

    /// `txn` is about to append a record to this slot's `chain`, at `tail` or behind it.
    #[inline]
    pub(crate) fn enter(&self, chain: &mut Chain, txn: TxnId, tail: Lsn) {
        if chain.first.is_none() {
            chain.txn = txn;
            self.bound.store(tail.get(), Ordering::SeqCst); // T2
        }
    }

    /// Goes on where a restart found the transaction.
    pub(crate) fn resume(&self, found: &ActiveTxn) {
        let ActiveTxn { txn, state, first, last, undo_next } = *found;
        *self.lock() = Chain { txn, state, first, last, undo_next };
        self.bound.store(first.get(), Ordering::SeqCst);
    }

    /// The transaction is over, and the slot, whose `chain` this is, free.
    pub(crate) fn leave(&self, chain: &mut Chain) {
        *chain = Chain::FREE;
        self.bound.store(0, Ordering::SeqCst);
    }
}

/// `Commit_LSN`, to be read by whoever asks for it again and again. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct CommitLsn(Arc<Apart<AtomicU64>>);

impl CommitLsn {
    /// Below it every change is committed for good.
    #[inline]
    pub fn get(&self) -> Lsn {
        Lsn::new(self.0.load(Ordering::Acquire))
    }
}

#[derive(Debug)]
pub(crate) struct TxnTable {
    slots: RwLock<Vec<Arc<Slot>>>,
    next_txn: AtomicU64,
    commit_lsn: CommitLsn,
    /// Number of the slot that holds `commit_lsn` back; 0 when none did at the last scan.
    holder: AtomicU64,
    scanning: Mutex<()>,
}

impl TxnTable {
    pub(crate) fn new(next_txn: u64) -> Self {
        Self {
            slots: RwLock::new(Vec::new()),
            // Id 0 is `TxnId::NONE`.
            next_txn: AtomicU64::new(next_txn.max(1)),
            commit_lsn: CommitLsn::default(),
            holder: AtomicU64::new(0),
            scanning: Mutex::new(()),
        }
    }

    /// One more slot, for one more transaction at a time.
    pub(crate) fn add_slot(&self) -> Arc<Slot> {
        let mut slots = self.slots.write();
        let slot = Arc::new(Slot::new(slots.len() as u64 + 1));
        slots.push(Arc::clone(&slot));
        slot
    }

    /// `count` transaction ids nobody had before.
    pub(crate) fn take_ids(&self, count: u64) -> Range<u64> {
        let first = self.next_txn.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    /// Hands out no id below `next`: the log has them already.
    pub(crate) fn raise_next_txn(&self, next: u64) {
        self.next_txn.fetch_max(next, Ordering::Relaxed);
    }

    pub(crate) fn next_txn(&self) -> u64 {
        self.next_txn.load(Ordering::Relaxed)
    }

    /// Replaces `out` by every transaction with a record in the log.
    pub(crate) fn active(&self, out: &mut Vec<ActiveTxn>) {
        out.clear();
        for slot in self.slots.read().iter() {
            let entry = slot.lock().entry();
            if !entry.first.is_none() {
                out.push(entry);
            }
        }
    }

    pub(crate) fn commit_lsn(&self) -> Lsn {
        self.commit_lsn.get()
    }

    pub(crate) fn commit_lsn_reader(&self) -> CommitLsn {
        self.commit_lsn.clone()
    }

    /// A transaction with records has left `slot`.
    pub(crate) fn ended(&self, slot: &Slot, tail: impl Fn() -> Lsn) {
        let holder = self.holder.load(Ordering::SeqCst);
        if holder == 0 || holder == slot.number {
            self.find_holder(tail);
        }
    }

    pub(crate) fn find_holder(&self, tail: impl Fn() -> Lsn) {
        let _one_at_a_time = self.scanning.lock();
        // Whoever ends during the scan finds no holder and scans again, after this one.
        self.holder.store(0, Ordering::SeqCst);
        let tail = tail().get();
        let slots = self.slots.read();
        let bounds = slots.iter().map(|slot| (slot.bound.load(Ordering::SeqCst), slot.number));
        let oldest = bounds.filter(|(bound, _)| *bound != 0).min();
        if let Some((_, number)) = oldest {
            self.holder.store(number, Ordering::SeqCst);
        }
        let bound = oldest.map_or(tail, |(bound, _)| bound.min(tail));
        self.commit_lsn.0.fetch_max(bound, Ordering::Release);
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    fn take_id(table: &TxnTable) -> TxnId {
        TxnId::new(table.take_ids(1).start)
    }

    fn begin(table: &TxnTable) -> (TxnId, Arc<Slot>) {
        (take_id(table), table.add_slot())
    }

    fn log((id, slot): &(TxnId, Arc<Slot>), lsn: u64) {
        let mut chain = slot.lock();
        slot.enter(&mut chain, *id, Lsn::new(lsn));
        chain.extend(Lsn::new(lsn), Lsn::new(lsn));
    }

    fn leave(slot: &Slot) {
        slot.leave(&mut slot.lock());
    }

    #[test]
    fn the_table_lists_those_with_records() {
        let table = TxnTable::new(5);
        let (_reader, _) = begin(&table);
        let writer = begin(&table);
        log(&writer, 64);
        log(&writer, 128);
        let (writer, slot) = writer;
        let mut active = Vec::new();
        table.active(&mut active);
        let expected = ActiveTxn {
            txn: writer,
            state: TxnState::Running,
            first: Lsn::new(64),
            last: Lsn::new(128),
            undo_next: Lsn::new(128),
        };
        assert_eq!((active, writer), (vec![expected], TxnId::new(6)));
        leave(&slot);
        let mut active = Vec::new();
        table.active(&mut active);
        assert!(active.is_empty());
    }

    #[test]
    fn commit_lsn_follows_the_oldest_writer() {
        let table = TxnTable::new(1);
        let ended = |(_, slot): (TxnId, Arc<Slot>), tail: u64| {
            leave(&slot);
            table.ended(&slot, || Lsn::new(tail));
            table.commit_lsn().get()
        };
        let [a, b, c] = [begin(&table), begin(&table), begin(&table)];
        log(&a, 64);
        log(&b, 100);
        log(&c, 200);
        assert_eq!(ended(b, 300), 64, "a is the oldest");
        assert_eq!(ended(a, 300), 200, "now c is");
        assert_eq!(ended(c, 300), 300, "nobody: the tail");
    }

    #[test]
    fn ids_from_the_log_are_not_used_again() {
        let table = TxnTable::new(0);
        assert_eq!(table.take_ids(3), 1..4);
        table.raise_next_txn(40);
        table.raise_next_txn(7);
        assert_eq!((table.take_ids(2), table.next_txn()), (40..42, 42));
    }

    #[test]
    #[should_panic(expected = "T1")]
    fn a_chain_only_grows() {
        let table = TxnTable::new(1);
        let writer = begin(&table);
        log(&writer, 128);
        log(&writer, 64);
    }
}

/// Run with `cargo test -p argali-txn --features shuttle --lib`.
#[cfg(all(test, feature = "shuttle"))]
mod model {
    use super::*;
    use argali_base::sync::thread;

    /// Begins, logs two records, ends. The log is a counter.
    fn writer(table: &TxnTable, slot: &Slot, log: &AtomicU64) {
        let id = TxnId::new(table.take_ids(1).start);
        for _ in 0..2 {
            let bound = table.commit_lsn();
            let mut chain = slot.lock();
            slot.enter(&mut chain, id, Lsn::new(log.load(Ordering::SeqCst)));
            let lsn = Lsn::new(log.fetch_add(10, Ordering::SeqCst));
            chain.extend(lsn, lsn);
            assert!(bound <= chain.first, "{id} begins at {}, below {bound}", chain.first);
            let first = chain.first;
            drop(chain);
            let bound = table.commit_lsn();
            assert!(bound <= first, "{id} is active from {first}, below {bound}");
        }
        slot.leave(&mut slot.lock());
        table.ended(slot, || Lsn::new(log.load(Ordering::SeqCst)));
    }

    fn story() {
        let (table, log) = (Arc::new(TxnTable::new(1)), Arc::new(AtomicU64::new(64)));
        let spawn = |rounds: usize| {
            let (table, log, slot) = (table.clone(), log.clone(), table.add_slot());
            let body = move || (0..rounds).for_each(|_| writer(&table, &slot, &log));
            thread::spawn("writer", body).expect("models always start threads")
        };
        let threads = [2, 1, 1].map(spawn);
        for thread in threads {
            thread.join().expect("a writer found the bound too high");
        }
        let tail = log.load(Ordering::SeqCst);
        assert_eq!(table.commit_lsn().get(), tail, "whoever ends last moves it to the tail");
    }

    #[test]
    fn commit_lsn_is_never_too_high_and_never_stuck() {
        shuttle::check_random(story, 3000);
        shuttle::check_pct(story, 3000, 3);
    }
}
