//! The heap against a map, through commits, aborts and savepoints, in a pool of 16 frames.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use argali_access::{Heap, RowId};
use argali_base::{Error, PageId};
use argali_pager::TornPages;
use argali_txn::{Durability, Isolation, Savepoint, Txn};
use common::{Setup, World, row, rows};
use proptest::prelude::*;

type Model = BTreeMap<RowId, Vec<u8>>;

/// `usize` chooses among the rows there are.
#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>),
    Update(usize, Vec<u8>),
    /// The same row again and again, ever longer: it moves, and moves again.
    Grow(usize, u8),
    Delete(usize),
    Get(usize),
    GetStray(u64, u16),
    Scan,
    Savepoint,
    RollBack,
    Commit,
    Abort,
    Relist,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![6 => 0_usize..80, 3 => 80_usize..900, 1 => 900_usize..4100];
    (any::<u8>(), len).prop_map(|(byte, len)| vec![byte; len])
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => bytes().prop_map(Step::Insert),
        14 => (any::<usize>(), bytes()).prop_map(|(n, row)| Step::Update(n, row)),
        3 => (any::<usize>(), any::<u8>()).prop_map(|(n, byte)| Step::Grow(n, byte)),
        8 => any::<usize>().prop_map(Step::Delete),
        3 => any::<usize>().prop_map(Step::Get),
        1 => (0_u64..120, 0_u16..40).prop_map(|(page, slot)| Step::GetStray(page, slot)),
        2 => Just(Step::Scan),
        2 => Just(Step::Savepoint),
        2 => Just(Step::RollBack),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Relist),
    ]
}

struct Run {
    world: World,
    heap: Heap,
    isolation: Isolation,
    committed: Model,
    now: Model,
    txn: Option<Txn>,
    savepoints: Vec<(Savepoint, Model)>,
}

impl Run {
    fn txn(&mut self) -> &mut Txn {
        let (world, isolation) = (&self.world, self.isolation);
        self.txn.get_or_insert_with(|| world.begin_at(isolation))
    }

    fn pick(&self, n: usize) -> Option<RowId> {
        self.now.keys().nth(n.checked_rem(self.now.len())?).copied()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Insert(row) => self.insert(row),
            Step::Update(n, row) => {
                if let Some(id) = self.pick(*n) {
                    self.update(id, row);
                }
            }
            Step::Grow(n, byte) => {
                let Some(id) = self.pick(*n) else { return };
                for len in [700, 1500, 2300, 3900, 40] {
                    self.update(id, &vec![*byte; len]);
                }
            }
            Step::Delete(n) => {
                let Some(id) = self.pick(*n) else { return };
                let heap = self.heap.clone();
                heap.delete(self.txn(), id).unwrap();
                self.now.remove(&id);
                let again = heap.delete(self.txn(), id);
                assert!(matches!(again, Err(Error::NotFound { what: "row", .. })), "{again:?}");
                let update = heap.update(self.txn(), id, b"x");
                assert!(matches!(update, Err(Error::NotFound { .. })), "{update:?}");
            }
            Step::Get(n) => {
                if let Some(id) = self.pick(*n) {
                    self.get(id);
                }
            }
            Step::GetStray(page, slot) => {
                self.get(RowId { page: PageId::new(*page), slot: *slot });
            }
            Step::Scan => self.scan(),
            Step::Savepoint => {
                let savepoint = self.txn().savepoint();
                self.savepoints.push((savepoint, self.now.clone()));
            }
            Step::RollBack => {
                if let Some((savepoint, model)) = self.savepoints.pop() {
                    self.txn().rollback_to(savepoint).unwrap();
                    self.now = model;
                }
            }
            Step::Commit => self.end(true),
            Step::Abort => self.end(false),
            Step::Relist => self.world.relist(),
        }
    }

    fn insert(&mut self, row: &[u8]) {
        let heap = self.heap.clone();
        let inserted = heap.insert(self.txn(), row);
        if row.len() > heap.row_bytes_max() {
            assert!(matches!(inserted, Err(Error::TooLarge { what: "row", .. })));
            return;
        }
        let id = inserted.unwrap();
        // An id that a rollback would need is not free.
        assert!(!self.committed.contains_key(&id), "{id} is a ghost's or a row's");
        assert_eq!(self.now.insert(id, row.to_vec()), None, "{id} is a row's");
    }

    fn update(&mut self, id: RowId, row: &[u8]) {
        let heap = self.heap.clone();
        let updated = heap.update(self.txn(), id, row);
        if row.len() > heap.row_bytes_max() {
            assert!(matches!(updated, Err(Error::TooLarge { .. })));
            return;
        }
        updated.unwrap();
        self.now.insert(id, row.to_vec()).unwrap();
    }

    fn get(&mut self, id: RowId) {
        let heap = self.heap.clone();
        assert_eq!(row(&heap, self.txn(), id), self.now.get(&id).cloned(), "{id}");
    }

    /// Every row once, in the order of pages; ids within a page ascend.
    fn scan(&mut self) {
        let heap = self.heap.clone();
        let found = rows(&heap, self.txn()).unwrap();
        let map: Model = found.iter().cloned().collect();
        assert_eq!(map.len(), found.len(), "a row was seen twice");
        assert_eq!(map, self.now);
    }

    fn end(&mut self, commit: bool) {
        self.savepoints.clear();
        let Some(txn) = self.txn.take() else { return };
        if commit {
            txn.commit(Durability::Sync).unwrap();
            self.committed = self.now.clone();
        } else {
            txn.abort().unwrap();
            self.now = self.committed.clone();
        }
    }

    fn check(&mut self) {
        self.world.relist();
        let stats = self.world.verify_heap(&self.heap);
        assert_eq!(stats.listed_low, 0, "whoever made room noted it");
        assert_eq!(stats.rows, self.now.len() as u64);
        assert_eq!(stats.bytes, self.now.values().map(|row| row.len() as u64).sum::<u64>());
        self.scan();
        self.end(true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_heap_is_a_map(
        steps in prop::collection::vec(steps(), 1..500),
        isolation in prop::sample::select(
            &[Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted][..]
        ),
        torn_pages in prop::sample::select(&[TornPages::None, TornPages::FullPageImage][..]),
    ) {
        let world = World::with(&Setup { torn_pages, ..Setup::default() });
        let heap = world.heap();
        let mut run = Run {
            world,
            heap,
            isolation,
            committed: Model::new(),
            now: Model::new(),
            txn: None,
            savepoints: Vec::new(),
        };
        for step in &steps {
            run.step(step);
        }
        run.end(false);
        run.check();
    }
}
