//! A checkpoint policy of one's own, and what it costs and saves against never taking one.
//!
//! `cargo run --release --example custom_checkpoint_policy`

use std::sync::Arc;

use argali::disk::{Disk, Loss, SimDisk};
use argali::{CheckpointPolicy, Flush, Never, Observed, Options, Result, Silent};

/// A checkpoint each 256 KiB of log; pages are written only when many are dirty.
struct Thrifty;

impl CheckpointPolicy for Thrifty {
    fn decide(&self, seen: &Observed) -> Option<Flush> {
        if seen.log_bytes_since_last < 256 << 10 {
            return None;
        }
        let crowded = seen.dirty_pages * 2 > seen.frames;
        Some(if crowded { Flush::Everything } else { Flush::Old })
    }
}

fn main() -> Result<()> {
    println!(
        "{:<10} {:>11} {:>13} {:>14} {:>12}",
        "policy", "checkpoints", "pages written", "redo records", "redo pages"
    );
    measure("never", Arc::new(Never))?;
    measure("thrifty", Arc::new(Thrifty))
}

fn measure(name: &str, policy: Arc<dyn CheckpointPolicy>) -> Result<()> {
    let disk = SimDisk::new(1);
    let options = Options::new()
        .cache_bytes(2 << 20)
        .segment_bytes(1 << 20)
        .background_threads(false)
        .checkpoint_policy(policy);
    let open = || options.clone().open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent);
    let db = open()?;
    let tree = db.update(|tx| tx.tree("t"))?;
    for round in 0..400_u32 {
        db.update(|tx| {
            (0..20).try_for_each(|n| {
                let key = round.wrapping_mul(2_654_435_761).wrapping_add(n * 97) % 5000;
                tx.put(&tree, key.to_be_bytes(), [round as u8; 200]).map(|_| ())
            })
        })?;
    }
    let stats = db.stats()?;
    let image = disk.power_cut(Loss::LoseAll);
    drop(db);
    let db = options.open_on(Arc::new(image), &mut Silent)?;
    let redo = &db.recovery().redo;
    println!(
        "{name:<10} {:>11} {:>13} {:>14} {:>12}",
        stats.checkpoints, stats.pool.written_back, redo.records, redo.pages
    );
    db.close()
}
