//! A small database without trees: pages of counters on a simulated disk, with the real log and pool.
//!
//! Counters are changed by `Add`, which is not idempotent: an update undone twice, or redone twice,
//! shows in the sum, where "set to" would hide it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use argali_base::disk::SimDisk;
use argali_base::{Disk, Health, Lsn, PageId, Result};
use argali_buffer_pool::{BufferPool, PoolOptions};
use argali_pager::{PageKind, PageOp, PageSize, Pager, PagerOptions, TornPages};
use argali_txn::{Durability, Edit, Txn, TxnManager, TxnOptions, Undo};
use argali_wal::{Body, Changes, LogId, LogOptions, RecordBuf, Wal};

/// Counters on one page.
pub(crate) const COUNTERS: usize = 16;
const DATABASE: u64 = 0xa11;

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) frames: usize,
    pub(crate) pages: u64,
    pub(crate) torn_pages: TornPages,
    pub(crate) log: LogOptions,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            frames: 16,
            pages: 4,
            torn_pages: TornPages::None,
            log: LogOptions {
                segment_bytes: 1 << 20,
                ring_bytes: 1 << 21,
                limit_bytes: 16 << 20,
                ..LogOptions::default()
            },
        }
    }
}

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) health: Health,
    pub(crate) wal: Arc<Wal>,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) txns: Arc<TxnManager>,
    /// Where the log stood when all pages were formatted.
    pub(crate) start: Lsn,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&Setup::default())
    }

    /// Pages 0 to `pages`, each with [`COUNTERS`] zeros.
    pub(crate) fn with(setup: &Setup) -> Self {
        let disk = SimDisk::new(7);
        let health = Health::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let id = LogId { database: DATABASE, timeline: 1, branch: 0 };
        let wal = Wal::create(shared.clone(), id, setup.log.clone(), health.clone()).unwrap();
        let wal = Arc::new(wal);
        let options = PagerOptions {
            page_size: PageSize::new(4096).unwrap(),
            torn_pages: setup.torn_pages,
            database: DATABASE,
            growth_pages: 16,
            doublewrite_slots: 32,
            pages_max: 1 << 16,
            mutations: argali_pager::Mutations::default(),
        };
        let pager = Arc::new(Pager::create(shared, options, health.clone()).unwrap());
        let frames = PoolOptions { frames: setup.frames, ..PoolOptions::default() };
        let pool = BufferPool::new(pager, wal.clone(), frames, health.clone()).unwrap();
        let txns = TxnManager::new(wal.clone(), pool.clone(), 1);
        let mut world = Self { disk, health, wal, pool, txns, start: Lsn::NONE };
        for page in 0..setup.pages {
            world.format(page);
        }
        world.wal.force(Lsn::MAX).unwrap();
        world.start = world.wal.tail();
        world
    }

    fn format(&self, page: u64) {
        let id = PageId::new(page);
        self.pool.pager().grow_to(id).unwrap();
        let mut txn = self.txns.begin_system().unwrap();
        txn.admit(COUNTERS * 8 + 64, 1).unwrap();
        let mut page = self.pool.create(id).unwrap();
        let ops = [
            PageOp::Format { kind: PageKind::Slotted, level: 0, owner: 0 },
            PageOp::Insert { slot: 0, head: 0, cell: &[0; COUNTERS * 8] },
        ];
        txn.update(&mut [Edit { page: &mut page, ops: &ops }], Undo::Never);
        drop(page);
        txn.commit(Durability::Relaxed).unwrap();
    }

    pub(crate) fn begin(&self) -> Txn {
        self.txns.begin(TxnOptions::default()).unwrap()
    }

    /// Adds to a counter, undone by subtracting.
    pub(crate) fn add(&self, txn: &mut Txn, page: u64, counter: usize, delta: u64) -> Result<Lsn> {
        txn.admit(64, 1)?;
        self.add_admitted(txn, page, counter, delta)
    }

    /// The same under an admission made before.
    pub(crate) fn add_admitted(
        &self,
        txn: &mut Txn,
        page: u64,
        counter: usize,
        delta: u64,
    ) -> Result<Lsn> {
        let op = PageOp::Add { slot: 0, at: (counter * 8) as u16, delta };
        let mut page = self.pool.write(PageId::new(page))?;
        let mut undo = Vec::new();
        op.inverse(page.page()).encode(&mut undo);
        Ok(txn.update(&mut [Edit { page: &mut page, ops: &[op] }], Undo::Physical(&undo)))
    }

    /// Adds to a counter for good: what a structure change is to a tree.
    pub(crate) fn add_for_good(&self, txn: &mut Txn, page: u64, counter: usize, delta: u64) -> Lsn {
        let op = PageOp::Add { slot: 0, at: (counter * 8) as u16, delta };
        txn.admit(64, 1).unwrap();
        let mut page = self.pool.write(PageId::new(page)).unwrap();
        txn.update(&mut [Edit { page: &mut page, ops: &[op] }], Undo::Never)
    }

    pub(crate) fn value(&self, page: u64, counter: usize) -> u64 {
        let page = self.pool.read(PageId::new(page)).unwrap();
        let cell = page.page().cell(0).unwrap();
        u64::from_le_bytes(cell[counter * 8..counter * 8 + 8].try_into().unwrap())
    }

    /// The log since the pages were formatted, one line per record. LSNs are the numbers of lines.
    pub(crate) fn log(&self) -> String {
        self.wal.force(Lsn::MAX).unwrap();
        let (mut scan, mut buf) = (self.wal.scan(self.start), RecordBuf::new());
        let mut lines: HashMap<Lsn, usize> = HashMap::new();
        let mut out = String::new();
        while scan.next(&mut buf).unwrap() {
            let number = lines.len() + 1;
            lines.insert(buf.lsn(), number);
            let line = |lsn: Lsn| lines.get(&lsn).map_or("-".to_owned(), ToString::to_string);
            let record = buf.record();
            let what = match record.body {
                Body::Update { changes, undo } => {
                    let undo = match undo {
                        Undo::Never => "never",
                        Undo::Physical(_) => "physical",
                        Undo::Logical { .. } => "logical",
                    };
                    format!("update {}undo {undo}", pages(changes))
                }
                Body::Compensation { changes, undo_next } => {
                    format!("clr {}undo_next {}", pages(changes), line(undo_next))
                }
                Body::Commit { .. } => "commit".to_owned(),
                Body::End => "end".to_owned(),
                Body::Prepare { before, last, piece, .. } => {
                    format!("prepare {before}+{}{}", piece.len(), if last { " last" } else { "" })
                }
                Body::CheckpointBegin { .. } | Body::CheckpointEnd { .. } => {
                    "checkpoint".to_owned()
                }
            };
            writeln!(out, "{number} {} prev {}: {what}", record.txn, line(record.prev)).unwrap();
        }
        out
    }

    /// Compares the log with what a story should have written.
    #[track_caller]
    pub(crate) fn assert_log(&self, expected: &[&str]) {
        let log = self.log();
        assert_eq!(log.lines().collect::<Vec<_>>(), expected, "\n{log}");
    }
}

fn pages(changes: Changes<'_>) -> String {
    changes.iter().fold(String::new(), |all, change| all + &change.page.to_string() + " ")
}
