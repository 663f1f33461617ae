//! A pool over a simulated disk with the real log and the real pager, and pages of counters.
//!
//! Changes go the way transactions make them go: dirty first, then log, then apply, under one latch.
#![allow(dead_code)]

use argali_base::sync::Arc;

use argali_base::disk::{FaultyDisk, SimDisk};
use argali_base::{Disk, Health, Lsn, PageId, Result, TxnId};
use argali_buffer_pool::{BufferPool, PageWrite, PoolOptions};
use argali_pager::{PageKind, PageOp, PageSize, Pager, PagerOptions, TornPages};
use argali_wal::{
    Body, ChangesBuilder, DirtyPage, LogId, LogOptions, Record, Undo, UndoReserve, Wal,
};

pub(crate) const DATABASE: u64 = 0xa11;
/// Pages the file may have.
pub(crate) const PAGES_MAX: u64 = if cfg!(feature = "shuttle") { 64 } else { 1 << 12 };
/// Counters on one page, all in one cell.
pub(crate) const COUNTERS: usize = 8;

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) faults: FaultyDisk,
    pub(crate) health: Health,
    pub(crate) wal: Arc<Wal>,
    pub(crate) pool: Arc<BufferPool>,
}

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) disk: SimDisk,
    pub(crate) pool: PoolOptions,
    pub(crate) torn_pages: TornPages,
    pub(crate) pager: argali_pager::Mutations,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            disk: SimDisk::new(7),
            pool: PoolOptions { frames: 16, ..PoolOptions::default() },
            torn_pages: TornPages::None,
            pager: argali_pager::Mutations::default(),
        }
    }
}

pub(crate) fn page(number: u64) -> PageId {
    PageId::new(number)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let faults = FaultyDisk::new(Arc::new(setup.disk.clone()));
        let shared: Arc<dyn Disk> = Arc::new(faults.clone());
        let health = Health::new();
        let id = LogId { database: DATABASE, timeline: 1, branch: 0 };
        let log = LogOptions {
            segment_bytes: 256 << 10,
            ring_bytes: if cfg!(feature = "shuttle") { 8 << 10 } else { 2 << 20 },
            limit_bytes: 64 << 20,
            ..LogOptions::default()
        };
        let wal = Arc::new(Wal::create(shared.clone(), id, log, health.clone()).unwrap());
        let options = pager_options(&setup);
        let pager = Arc::new(Pager::create(shared, options, health.clone()).unwrap());
        let pool = BufferPool::new(pager, wal.clone(), setup.pool, health.clone()).unwrap();
        Self { disk: setup.disk, faults, health, wal, pool }
    }

    /// Logs `ops` on a latched page and applies them.
    pub(crate) fn change(&self, page: &mut PageWrite<'_>, ops: &[PageOp<'_>]) -> Lsn {
        let mut ticket = self.wal.admit(1 << 10, 0, &mut UndoReserve::default()).unwrap();
        page.dirty_from(self.wal.tail(), ops[0].overwrites());
        let mut changes = ChangesBuilder::default();
        changes.push(page.id(), page.page().lsn(), |out| ops.iter().for_each(|op| op.encode(out)));
        let body = Body::Update { changes: changes.changes(), undo: Undo::Never };
        let record = Record { txn: TxnId::new(1), prev: Lsn::NONE, body };
        let lsn = self.wal.append(&mut ticket, &record);
        page.apply(ops, lsn);
        lsn
    }

    /// Makes pages `0..pages` with [`COUNTERS`] zeros each, written and synced.
    pub(crate) fn format(&self, pages: u64) {
        for number in 0..pages {
            let mut page = self.pool.create(page(number)).unwrap();
            self.change(&mut page, &format_ops());
        }
        self.flush();
    }

    /// Adds to a counter of a page.
    pub(crate) fn add(&self, number: u64, counter: usize, delta: u64) -> Result<Lsn> {
        let mut page = self.pool.write(page(number))?;
        Ok(self.change(&mut page, &[add_op(counter, delta)]))
    }

    pub(crate) fn value(&self, number: u64, counter: usize) -> u64 {
        counter_in(self.pool.read(page(number)).unwrap().page().cell(0).unwrap(), counter)
    }

    /// Everything written and synced.
    pub(crate) fn flush(&self) {
        let ids: Vec<PageId> = self.dirty().iter().map(|dirty| dirty.page).collect();
        self.pool.write_back(&ids).unwrap();
        self.pool.sync().unwrap();
        assert_eq!(self.dirty(), []);
    }

    pub(crate) fn dirty(&self) -> Vec<DirtyPage> {
        let mut out = Vec::new();
        self.pool.dirty_pages(&mut out);
        out
    }

    /// Reads pages until none of `0..from` can be resident.
    pub(crate) fn push_out(&self, from: u64, pages: u64) {
        for number in from..from + pages {
            drop(self.pool.read(page(number)).unwrap());
        }
    }
}

pub(crate) fn pager_options(setup: &Setup) -> PagerOptions {
    PagerOptions {
        page_size: PageSize::new(4096).unwrap(),
        torn_pages: setup.torn_pages,
        database: DATABASE,
        growth_pages: 64,
        doublewrite_slots: 16,
        pages_max: PAGES_MAX,
        mutations: setup.pager,
    }
}

pub(crate) fn format_ops() -> [PageOp<'static>; 2] {
    [
        PageOp::Format { kind: PageKind::Slotted, level: 0, owner: 0 },
        PageOp::Insert { slot: 0, head: 0, cell: &[0; COUNTERS * 8] },
    ]
}

pub(crate) fn add_op(counter: usize, delta: u64) -> PageOp<'static> {
    PageOp::Add { slot: 0, at: (counter * 8) as u16, delta }
}

pub(crate) fn counter_in(cell: &[u8], counter: usize) -> u64 {
    u64::from_le_bytes(cell[counter * 8..counter * 8 + 8].try_into().unwrap())
}
