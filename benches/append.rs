//! Appending one record of about 150 bytes to the log ring: admission, encoding, checksum, copy. A memory
//! disk takes the flushes, so what is measured is the path of every change before anything waits.

use std::time::Duration;

use argali_base::disk::SimDisk;
use argali_base::sync::Arc;
use argali_base::{Health, Lsn, PageId, TxnId};
use argali_wal::{Body, ChangesBuilder, LogId, LogOptions, Owner, Record, Undo, UndoReserve, Wal};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Room asked for per record; what is not used goes back.
const ADMITTED: usize = 512;

fn append(c: &mut Criterion) {
    let options = LogOptions {
        segment_bytes: 16 << 20,
        ring_bytes: 4 << 20,
        limit_bytes: 1 << 40,
        keep_bytes: 0,
        writer_thread: false,
        mutations: argali_wal::Mutations::default(),
    };
    let disk = Arc::new(SimDisk::memory());
    let id = LogId { database: 1, timeline: 1, branch: 0 };
    let wal = Wal::create(disk, id, options, Health::new()).expect("a new log");
    let mut changes = ChangesBuilder::default();
    changes.push(PageId::new(7), Lsn::NONE, |out| out.extend_from_slice(&[7; 64]));
    let undo = Undo::Logical { owner: Owner(1), body: &[7; 32] };
    let body = Body::Update { changes: changes.changes(), undo };
    let record = Record { txn: TxnId::new(1), prev: Lsn::NONE, body };
    let mut reserve = UndoReserve::default();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_secs(1));
    group.bench_function("record", |b| {
        b.iter(|| {
            let mut ticket = wal.admit(ADMITTED, 0, &mut reserve).expect("room");
            let lsn = wal.append(&mut ticket, &record);
            drop(ticket);
            // Keeps the memory disk from filling up: old segments are not needed.
            if lsn.get() % (64 << 20) < 256 {
                wal.force(lsn).expect("a flush");
                wal.truncate(vec![argali_wal::Holder { what: "bench".into(), lsn }])
                    .expect("recycling");
            }
            lsn
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
