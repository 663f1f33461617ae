//! Fixing a page that is in the pool: shared latch, exclusive latch, and an optimistic glimpse with its
//! validation. A hit is one load of the page's word; this measures the rest.

use argali_base::disk::SimDisk;
use argali_base::sync::Arc;
use argali_base::{Disk, Health, Lsn, PageId, TxnId};
use argali_buffer_pool::{BufferPool, PoolOptions};
use argali_pager::{PageKind, PageOp, PageSize, Pager, PagerOptions, TornPages};
use argali_wal::{Body, LogId, LogOptions, Record, UndoReserve, Wal};
use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;

const PAGES: u64 = 1024;

fn page_fix(c: &mut Criterion) {
    let pool = pool_of_formatted_pages();
    let mut rng = Rng::with_seed(6);
    let mut some_page = || PageId::new(rng.u64(..PAGES));
    let mut group = c.benchmark_group("page_fix");
    group.bench_function("shared", |b| {
        b.iter(|| pool.read(some_page()).expect("a page in the pool").page().lsn());
    });
    group.bench_function("exclusive", |b| {
        b.iter(|| pool.write(some_page()).expect("a page in the pool").page().lsn());
    });
    group.bench_function("glimpse", |b| {
        b.iter(|| {
            let glimpse = pool.glimpse(some_page()).expect("a page in the pool");
            let slots = glimpse.slot_count().expect("nobody writes");
            glimpse.validate().expect("nobody writes");
            slots
        });
    });
    group.finish();
}

fn pool_of_formatted_pages() -> Arc<BufferPool> {
    let (disk, health) = (Arc::new(SimDisk::memory()) as Arc<dyn Disk>, Health::new());
    let log_options = LogOptions {
        segment_bytes: 16 << 20,
        ring_bytes: 4 << 20,
        limit_bytes: 1 << 30,
        keep_bytes: 0,
        writer_thread: false,
        mutations: argali_wal::Mutations::default(),
    };
    let id = LogId { database: 1, timeline: 1, branch: 0 };
    let wal = Wal::create(Arc::clone(&disk), id, log_options, health.clone()).expect("a new log");
    let pager_options = PagerOptions {
        page_size: PageSize::DEFAULT,
        torn_pages: TornPages::DoubleWrite,
        database: 1,
        growth_pages: PAGES,
        doublewrite_slots: 64,
        pages_max: 1 << 20,
        mutations: argali_pager::Mutations::default(),
    };
    let pager = Arc::new(Pager::create(disk, pager_options, health.clone()).expect("a new file"));
    pager.grow_to(PageId::new(PAGES)).expect("room");
    let options = PoolOptions { frames: 2 * PAGES as usize, ..PoolOptions::default() };
    let wal = Arc::new(wal);
    let pool = BufferPool::new(pager, Arc::clone(&wal), options, health).expect("a pool");
    let mut reserve = UndoReserve::default();
    for id in 0..PAGES {
        let mut page = pool.create(PageId::new(id)).expect("a frame");
        let mut ticket = wal.admit(256, 0, &mut reserve).expect("room");
        page.dirty_from(wal.tail(), false);
        let lsn = wal.append(
            &mut ticket,
            &Record {
                txn: TxnId::NONE,
                prev: Lsn::NONE,
                body: Body::CheckpointBegin { durable: Lsn::NONE },
            },
        );
        page.apply(&[PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 0 }], lsn);
    }
    pool
}

criterion_group!(benches, page_fix);
criterion_main!(benches);
