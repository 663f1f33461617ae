//! A point update of a row in the cache, in a transaction of its own with a relaxed commit: locks, one
//! log record, one page change, no wait for a disk.

use argali::Durability;
use argali_benches::Rows;
use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;

fn point_update(c: &mut Criterion) {
    let rows = Rows::in_memory().expect("a database in memory");
    let mut rng = Rng::with_seed(4);
    c.bench_function("point_update", |b| {
        b.iter(|| rows.update(&mut rng, Durability::Relaxed).expect("an update"));
    });
}

criterion_group!(benches, point_update);
criterion_main!(benches);
