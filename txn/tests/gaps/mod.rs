//! Who relies on a gap, and who enters it: rule G1 of `lock/gaps.rs`.

use std::sync::Arc;

use argali_base::sync::{Ordering, thread};
use argali_base::{Lsn, TxnId};
use argali_txn::{Gap, KeyMode, LockMode, LockName, LockTable, Request, Term, WeakMutations};

use super::{Leaf, model, run, table_with};

const KEY: LockName = LockName::Key { tree: 1, hash: 1 };
const RELIES: LockMode = LockMode::Key { key: KeyMode::S, gap: Gap::S };
const ENTERS: LockMode = LockMode::Key { key: KeyMode::None, gap: Gap::Insert };

impl Leaf {
    /// Relies on the gap for a while, if the leaf is as it was when the lock is there.
    fn rely(&self, table: &LockTable, txn: u64) {
        let txn = TxnId::new(txn);
        let request = Request { txn, name: KEY, mode: RELIES, held: None, term: Term::Long };
        let seen = self.version.load(Ordering::SeqCst);
        let rows = self.value.load(Ordering::SeqCst);
        if seen % 2 == 1 || table.try_acquire(&request).is_none() {
            return;
        }
        if self.version.load(Ordering::SeqCst) == seen {
            thread::yield_now();
            assert_eq!(self.value.load(Ordering::SeqCst), rows, "a row came into a gap");
        }
        table.release(txn, KEY, Lsn::NONE);
    }

    /// Inserts a row, unless somebody relies on the gap. `early`: looks before it latches.
    fn insert(&self, table: &LockTable, txn: u64, early: bool) {
        let early = early.then(|| table.gaps_are_free(1));
        let latched = self.version.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
        if latched.is_err() {
            return;
        }
        let (txn, term) = (TxnId::new(txn), Term::Instant);
        let request = Request { txn, name: KEY, mode: ENTERS, held: None, term };
        let free = early.unwrap_or_else(|| table.gaps_are_free(1));
        if free || table.try_acquire(&request).is_some() {
            self.value.fetch_add(1, Ordering::SeqCst);
        }
        self.version.store(2, Ordering::SeqCst);
    }
}

fn gaps(mutations: WeakMutations, early: bool) {
    let (table, leaf) = (table_with(mutations), Arc::new(Leaf::default()));
    let story = |body: fn(&Leaf, &LockTable, bool)| -> Box<dyn FnOnce() + Send> {
        let (table, leaf) = (Arc::clone(&table), Arc::clone(&leaf));
        Box::new(move || body(&leaf, &table, early))
    };
    run(vec![
        story(|leaf, table, _| leaf.rely(table, 1)),
        story(|leaf, table, _| leaf.rely(table, 2)),
        story(|leaf, table, early| leaf.insert(table, 3, early)),
    ]);
    assert!(table.gaps_are_free(1), "nobody is left");
}

#[test]
fn who_relies_on_a_gap_and_who_enters_it_see_each_other() {
    model(|| gaps(WeakMutations::default(), false));
}

#[test]
#[should_panic(expected = "a row came into a gap")]
fn relying_on_a_gap_without_being_counted_is_caught() {
    let mutations = WeakMutations { gaps_uncounted: true, ..WeakMutations::default() };
    model(move || gaps(mutations, false));
}

#[test]
#[should_panic(expected = "a row came into a gap")]
fn an_insert_that_looks_at_the_count_before_it_latches_is_caught() {
    model(|| gaps(WeakMutations::default(), true));
}
