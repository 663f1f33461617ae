//! One durable commit: a put of 100 bytes, its record, write and sync of the log. On the disk of the
//! working directory, by one thread, so this is the lone committer's path.

use argali::{Durability, Options};
use argali_benches::Rows;
use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;

fn commit(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(".").expect("the working directory is writable");
    let db = Options::new().open(dir.path().join("db")).expect("a new database");
    let rows = Rows::load(db, 10_000).expect("rows");
    let mut rng = Rng::with_seed(2);
    let mut group = c.benchmark_group("commit");
    for (name, durability) in [("sync", Durability::Sync), ("relaxed", Durability::Relaxed)] {
        group.bench_function(name, |b| {
            b.iter(|| rows.update(&mut rng, durability).expect("an update"));
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
