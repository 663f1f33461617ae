//! A point read of a row in the cache: one transaction for many reads, and one for each.

use argali::Isolation;
use argali_benches::Rows;
use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;

fn point_read(c: &mut Criterion) {
    let rows = Rows::in_memory().expect("a database in memory");
    let mut rng = Rng::with_seed(3);
    let mut group = c.benchmark_group("point_read");
    let mut out = Vec::new();
    let read = rows.db.read_with(Isolation::ReadCommitted).expect("a transaction");
    group.bench_function("one_transaction", |b| {
        b.iter(|| read.get_into(&rows.tree, rows.some_key(&mut rng), &mut out).expect("a read"));
    });
    read.finish().expect("its end");
    for (name, isolation) in
        [("read_committed", Isolation::ReadCommitted), ("serializable", Isolation::Serializable)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                let read = rows.db.read_with(isolation).expect("a transaction");
                read.get_into(&rows.tree, rows.some_key(&mut rng), &mut out).expect("a read");
                read.finish().expect("its end");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, point_read);
criterion_main!(benches);
