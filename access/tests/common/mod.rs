//! A small database with trees: the real log, pool and transactions on a simulated disk.
#![allow(dead_code, clippy::unwrap_used)]

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use argali_access::{
    BTree, Entry, Heap, HeapScan, HeapStats, RowId, Space, Survey, TreeStats, Way, register_undo,
};
use argali_base::disk::SimDisk;
use argali_base::{Disk, Health, Result};
use argali_buffer_pool::{BufferPool, PoolOptions};
use argali_pager::{PageSize, Pager, PagerOptions, TornPages};
use argali_txn::{Durability, Isolation, Txn, TxnManager, TxnOptions, UndoHandlers};
use argali_wal::{LogId, LogOptions, Wal};

const DATABASE: u64 = 0xa11;

pub(crate) struct Setup {
    pub(crate) frames: usize,
    pub(crate) page_bytes: u32,
    pub(crate) torn_pages: TornPages,
    pub(crate) pages_max: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { frames: 16, page_bytes: 4096, torn_pages: TornPages::None, pages_max: 1 << 17 }
    }
}

pub(crate) struct World {
    pub(crate) wal: Arc<Wal>,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) txns: Arc<TxnManager>,
    pub(crate) space: Arc<Space>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&Setup::default())
    }

    pub(crate) fn with(setup: &Setup) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(7));
        let health = Health::new();
        let log = LogOptions {
            segment_bytes: 4 << 20,
            ring_bytes: 4 << 20,
            limit_bytes: 1 << 30,
            ..LogOptions::default()
        };
        let id = LogId { database: DATABASE, timeline: 1, branch: 0 };
        let wal = Arc::new(Wal::create(disk.clone(), id, log, health.clone()).unwrap());
        let options = PagerOptions {
            page_size: PageSize::new(setup.page_bytes).unwrap(),
            torn_pages: setup.torn_pages,
            database: DATABASE,
            growth_pages: 64,
            doublewrite_slots: 32,
            pages_max: setup.pages_max,
            mutations: argali_pager::Mutations::default(),
        };
        let pager = Arc::new(Pager::create(disk, options, health.clone()).unwrap());
        let frames = PoolOptions { frames: setup.frames, ..PoolOptions::default() };
        let pool = BufferPool::new(pager, wal.clone(), frames, health).unwrap();
        let txns = TxnManager::new(wal.clone(), pool.clone(), 1);
        let mut txn = txns.begin_system().unwrap();
        let space = Space::create(&txns, &mut txn, 1).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        let mut handlers = UndoHandlers::default();
        register_undo(&space, &mut handlers);
        txns.set_handlers(handlers);
        Self { wal, pool, txns, space }
    }

    pub(crate) fn tree(&self) -> BTree {
        let mut txn = self.txns.begin_system().unwrap();
        let tree = BTree::create(&self.space, &mut txn).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        tree
    }

    pub(crate) fn heap(&self) -> Heap {
        let mut txn = self.txns.begin_system().unwrap();
        let heap = Heap::create(&self.space, &mut txn).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
        heap
    }

    pub(crate) fn begin(&self) -> Txn {
        self.begin_at(Isolation::Serializable)
    }

    pub(crate) fn begin_at(&self, isolation: Isolation) -> Txn {
        let lock_timeout = Duration::from_secs(10);
        self.txns.begin(TxnOptions { isolation, lock_timeout }).unwrap()
    }

    /// A transaction that does not wait for locks: a conflict shows as `LockTimeout`.
    pub(crate) fn hasty(&self, isolation: Isolation) -> Txn {
        let lock_timeout = Duration::from_millis(20);
        self.txns.begin(TxnOptions { isolation, lock_timeout }).unwrap()
    }

    /// A serializable transaction that has no room for claims: its scans lock keys and gaps.
    pub(crate) fn begin_locking(&self) -> Txn {
        let mut txn = self.begin();
        without_claims(&mut txn);
        txn
    }

    /// Everything is as it should be: the tree is sound, and the pages in use are the map page and those
    /// of `trees`, each owned once.
    pub(crate) fn verify(&self, trees: &[&BTree]) -> Vec<TreeStats> {
        let mut survey = Survey::new(&self.pool);
        let stats: Vec<TreeStats> =
            trees.iter().map(|tree| tree.verify(survey.of(format!("{tree:?}"))).unwrap()).collect();
        let mut used = 0;
        self.space.verify(&mut survey, &mut |_| used += 1).unwrap();
        assert_eq!(survey.into_findings(), []);
        assert_eq!(self.space.pages_in_use().unwrap(), used);
        stats
    }
}

impl World {
    /// As [`World::verify`], where there is nothing but `heap`.
    pub(crate) fn verify_heap(&self, heap: &Heap) -> HeapStats {
        let mut survey = Survey::new(&self.pool);
        let stats = heap.verify(survey.of("heap")).unwrap();
        self.space.verify(&mut survey, &mut |_| ()).unwrap();
        assert_eq!(survey.into_findings(), []);
        stats
    }

    /// What the background does for heaps.
    pub(crate) fn relist(&self) {
        while Heap::relist_step(&self.space, &self.txns).unwrap() {}
    }
}

/// All rows, in the order of their homes.
pub(crate) fn rows(heap: &Heap, txn: &mut Txn) -> argali_base::Result<Vec<(RowId, Vec<u8>)>> {
    let (mut scan, mut row, mut out) = (HeapScan::default(), Vec::new(), Vec::new());
    while let Some(id) = heap.next(txn, &mut scan, &mut row)? {
        out.push((id, row.clone()));
    }
    Ok(out)
}

pub(crate) fn row(heap: &Heap, txn: &mut Txn, id: RowId) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    heap.get(txn, id, &mut out).unwrap().then_some(out)
}

/// All entries within the bounds.
pub(crate) fn scan(
    tree: &BTree,
    txn: &mut Txn,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> argali_base::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut entry, mut out) = (Entry::default(), Vec::new());
    let mut found = tree.next(txn, from, to, &mut entry)?;
    while found {
        out.push((entry.key().to_vec(), entry.value().to_vec()));
        found = onward(tree, txn, (Way::Forward, to), &mut entry)?;
    }
    Ok(out)
}

/// The next row, without a lock if that can be.
fn onward(
    tree: &BTree,
    txn: &mut Txn,
    (way, limit): (Way, Bound<&[u8]>),
    entry: &mut Entry,
) -> argali_base::Result<bool> {
    Ok(tree.glide(txn.id(), way, limit, entry) || tree.advance(txn, way, limit, entry)?)
}

/// As [`scan`], from the end to the beginning.
pub(crate) fn scan_back(
    tree: &BTree,
    txn: &mut Txn,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> argali_base::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut entry, mut out) = (Entry::default(), Vec::new());
    let mut found = tree.prev(txn, from, to, &mut entry)?;
    while found {
        out.push((entry.key().to_vec(), entry.value().to_vec()));
        found = onward(tree, txn, (Way::Backward, from), &mut entry)?;
    }
    Ok(out)
}

pub(crate) fn scan_all(tree: &BTree, txn: &mut Txn) -> Vec<(Vec<u8>, Vec<u8>)> {
    scan(tree, txn, Bound::Unbounded, Bound::Unbounded).unwrap()
}

pub(crate) fn get(tree: &BTree, txn: &mut Txn, key: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    tree.get(txn, key, &mut out).unwrap().then_some(out)
}

/// Leaves no room for claims.
pub(crate) fn without_claims(txn: &mut Txn) {
    let one = |n: u64| key(2 * n);
    let no_tree = u64::MAX;
    let full = (0..10_000).find(|n| {
        let one = one(*n);
        !txn.claim(no_tree, (Bound::Included(&one), Bound::Included(&one)))
    });
    assert!(full.is_some(), "there is always room for claims");
}

/// Tidies until there is nothing more to do, as the engine does in the background.
pub(crate) fn tidy(world: &World) {
    while BTree::can_tidy(&world.space) {
        let mut txn = world.txns.begin_system().unwrap();
        BTree::tidy_some(&world.space, &mut txn, 16).unwrap();
        txn.commit(Durability::Relaxed).unwrap();
    }
}

pub(crate) fn key(n: u64) -> Vec<u8> {
    format!("key{n:08}").into_bytes()
}

/// A tree with committed rows 10, 20, … 10·`count`.
pub(crate) fn tens(world: &World, count: u64, value: &[u8]) -> BTree {
    let tree = world.tree();
    let mut txn = world.begin();
    for n in 1..=count {
        tree.put(&mut txn, &key(10 * n), value).unwrap();
    }
    txn.commit(Durability::Sync).unwrap();
    tree
}

pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;
pub(crate) type Scan = fn(&BTree, &mut Txn, Bound<&[u8]>, Bound<&[u8]>) -> Result<Rows>;

/// What holds for one direction holds for the other.
pub(crate) const WAYS: [(&str, Scan); 2] = [("forward", scan), ("backward", scan_back)];
