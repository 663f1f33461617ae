//! A forward scan of 100 rows in the cache from some key on.

use argali::Isolation;
use argali_benches::Rows;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;

const ROWS_PER_SCAN: usize = 100;

fn scan(c: &mut Criterion) {
    let rows = Rows::in_memory().expect("a database in memory");
    let mut rng = Rng::with_seed(5);
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(ROWS_PER_SCAN as u64));
    for (name, isolation) in
        [("read_committed", Isolation::ReadCommitted), ("serializable", Isolation::Serializable)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                let read = rows.db.read_with(isolation).expect("a transaction");
                let scan = read.scan(&rows.tree, rows.some_key(&mut rng)..).expect("a scan");
                let seen = scan.take(ROWS_PER_SCAN).flatten().count();
                read.finish().expect("its end");
                seen
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
