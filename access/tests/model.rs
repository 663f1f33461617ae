//! The tree against `BTreeMap`, through commits, aborts and savepoints, in a pool of 16 frames.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use argali_access::{BTree, Entry, Moves, Pending, Rows, Way};
use argali_base::Error;
use argali_pager::TornPages;
use argali_txn::{Durability, Isolation, Savepoint, Txn};
use common::{Setup, World, get, scan, scan_all, scan_back, tidy};
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    InsertNew(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, usize),
    Get(Vec<u8>),
    Scan(Bound<Vec<u8>>, Bound<Vec<u8>>),
    /// Back and forth from a key, with changes under way.
    Walk(Vec<u8>, Vec<Move>),
    Savepoint,
    RollBack,
    Commit,
    Abort,
    Tidy,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Next,
    Prev,
    /// Deletes the row stood upon.
    Delete,
    /// Writes a row where the walk stands, of this many bytes.
    Put(usize),
    /// The same right behind it, and somewhere before it.
    PutBehind(u8, usize),
    PutBefore(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => Just(Move::Next),
        8 => Just(Move::Prev),
        1 => Just(Move::Delete),
        1 => (0_usize..700).prop_map(Move::Put),
        1 => (any::<u8>(), 0_usize..200).prop_map(|(byte, len)| Move::PutBehind(byte, len)),
        1 => (0_usize..200).prop_map(Move::PutBefore),
    ];
    prop::collection::vec(one, 0..60)
}

/// Few distinct prefixes, so that keys meet, nest and share their heads; some long.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(&b"\0ab\xff"[..]), 0..6),
        4 => (0_u16..400).prop_map(|n| format!("row{n:05}").into_bytes()),
        1 => (0_u8..20, 0_usize..900).prop_map(|(n, len)| { let mut k = vec![n; len]; k.push(n); k }),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop_oneof![3 => 0_usize..60, 1 => 0_usize..900])
        .prop_map(|(byte, len)| vec![byte; len])
}

fn bounds() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        keys().prop_map(Bound::Included),
        keys().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (keys(), values()).prop_map(|(k, v)| Step::Put(k, v)),
        6 => (keys(), values()).prop_map(|(k, v)| Step::InsertNew(k, v)),
        8 => keys().prop_map(Step::Delete),
        2 => (keys(), 0_usize..100).prop_map(|(k, n)| Step::DeleteRange(k, n)),
        3 => keys().prop_map(Step::Get),
        2 => (bounds(), bounds()).prop_map(|(a, b)| Step::Scan(a, b)),
        2 => (keys(), moves()).prop_map(|(key, moves)| Step::Walk(key, moves)),
        2 => Just(Step::Savepoint),
        2 => Just(Step::RollBack),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
        3 => Just(Step::Tidy),
    ]
}

struct Run {
    world: World,
    tree: BTree,
    pending: Arc<Pending>,
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

    fn fits(&self, key: &[u8], value: &[u8]) -> bool {
        key.len() + value.len() <= self.tree.entry_bytes_max()
    }

    fn step(&mut self, step: &Step) {
        let tree = self.tree.clone();
        match step {
            Step::Put(key, value) => {
                let result = tree.put(self.txn(), key, value);
                if self.fits(key, value) {
                    assert_eq!(result.unwrap(), self.now.insert(key.clone(), value.clone()));
                } else {
                    assert!(matches!(result, Err(Error::TooLarge { .. })));
                }
            }
            Step::InsertNew(key, value) if self.fits(key, value) => {
                let inserted = tree.insert_new(self.txn(), key, value).unwrap();
                assert_eq!(inserted, !self.now.contains_key(key));
                self.now.entry(key.clone()).or_insert(value.clone());
            }
            Step::InsertNew(..) => {}
            Step::Delete(key) => {
                assert_eq!(tree.delete(self.txn(), key).unwrap(), self.now.remove(key));
            }
            Step::DeleteRange(from, count) => {
                let doomed: Vec<_> =
                    self.now.range(from.clone()..).take(*count).map(|(k, _)| k.clone()).collect();
                let to = doomed.last().map_or(Bound::Excluded(&from[..]), |k| Bound::Included(k));
                let (pending, mut moves) = (self.pending.clone(), Moves::default());
                let mut rows = Rows::new(self.txn(), &tree, &pending, &mut moves);
                let deleted = rows.delete_range(Bound::Included(from), to).unwrap();
                assert_eq!(deleted, doomed.len() as u64);
                for key in &doomed {
                    self.now.remove(key);
                }
            }
            Step::Get(key) => assert_eq!(get(&tree, self.txn(), key), self.now.get(key).cloned()),
            Step::Scan(from, to) => {
                let expected: Vec<_> = self
                    .now
                    .iter()
                    .filter(|(key, _)| after(key, from) && before(key, to))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
                assert_eq!(scan(&tree, self.txn(), from, to).unwrap(), expected);
                let mut back = scan_back(&tree, self.txn(), from, to).unwrap();
                back.reverse();
                assert_eq!(back, expected, "backward");
            }
            Step::Walk(key, moves) => self.walk(key.clone(), moves),
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
            Step::Tidy => tidy(&self.world),
        }
    }

    /// One entry for all steps, as cursors do. It keeps its place whatever happens to the rows there.
    fn walk(&mut self, mut at: Vec<u8>, moves: &[Move]) {
        let (tree, mut entry) = (self.tree.clone(), Entry::at(at.clone()));
        for step in moves {
            let (way, expected) = match step {
                Move::Next => {
                    let above = (Bound::Excluded(&at), Bound::Unbounded);
                    (Way::Forward, self.now.range::<Vec<u8>, _>(above).next())
                }
                Move::Prev => (Way::Backward, self.now.range::<Vec<u8>, _>(..&at).next_back()),
                Move::Delete => {
                    assert_eq!(tree.delete(self.txn(), &at).unwrap(), self.now.remove(&at));
                    continue;
                }
                Move::Put(len) => {
                    self.step(&Step::Put(at.clone(), vec![1; *len]));
                    continue;
                }
                Move::PutBehind(byte, len) => {
                    self.step(&Step::Put([&at[..], &[*byte]].concat(), vec![2; *len]));
                    continue;
                }
                Move::PutBefore(len) => {
                    self.step(&Step::Put(at[..at.len() / 2].to_vec(), vec![3; *len]));
                    continue;
                }
            };
            let expected = expected.map(|(key, value)| (key.clone(), value.clone()));
            let txn = self.txn();
            let found = tree.glide(txn.id(), way, Bound::Unbounded, &mut entry)
                || tree.advance(txn, way, Bound::Unbounded, &mut entry).unwrap();
            let row = found.then(|| (entry.key().to_vec(), entry.value().to_vec()));
            assert_eq!(row, expected, "{step:?} {at:?}");
            at = expected.map_or(at, |(key, _)| key);
            assert_eq!(entry.key(), at);
        }
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
        let stats = self.world.verify(&[&self.tree, self.pending.tree()]);
        assert_eq!(stats[0].rows, self.now.len() as u64);
        let bytes: usize = self.now.iter().map(|(k, v)| k.len() + v.len()).sum();
        assert_eq!(stats[0].bytes, bytes as u64);
        let tree = self.tree.clone();
        let expected: Vec<_> = self.now.clone().into_iter().collect();
        assert_eq!(scan_all(&tree, self.txn()), expected);
        self.txn.take().unwrap().commit(Durability::Sync).unwrap();
    }
}

fn after(key: &Vec<u8>, from: &Bound<Vec<u8>>) -> bool {
    match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    }
}

fn before(key: &Vec<u8>, to: &Bound<Vec<u8>>) -> bool {
    match to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_a_map(
        steps in prop::collection::vec(steps(), 1..700),
        isolation in prop::sample::select(
            &[Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted][..]
        ),
        torn_pages in prop::sample::select(&[TornPages::None, TornPages::FullPageImage][..]),
    ) {
        let world = World::with(&Setup { torn_pages, ..Setup::default() });
        let tree = world.tree();
        let pending = Arc::new(Pending::open(&world.space, world.tree().root()));
        let mut run = Run {
            world,
            tree,
            pending,
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
