//! A power cut and the restart after it, pass by pass, on a disk that forgets what was not synced.
//!
//! `cargo run --example crash`

use std::sync::Arc;

use argali::disk::{Disk, Loss, SimDisk};
use argali::{Db, Event, Flush, Options, RecoveryObserver, Result};

/// Prints the decisions of a restart.
struct Narrator;

impl RecoveryObserver for Narrator {
    fn event(&mut self, event: Event) {
        println!("{event}");
    }
}

fn open(disk: &SimDisk, observer: &mut impl RecoveryObserver) -> Result<Db> {
    let options = Options::new().segment_bytes(256 << 10).background_threads(false);
    options.open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, observer)
}

fn main() -> Result<()> {
    let disk = SimDisk::new(1);
    let db = open(&disk, &mut Narrator)?;
    db.update(|tx| {
        let tree = tx.tree("accounts")?;
        tx.put(&tree, "alice", "1000")?;
        tx.put(&tree, "bob", "1000")
    })?;
    // A fuzzy checkpoint that writes no page: redo will have something to do.
    db.checkpoint(Flush::Nothing)?;
    db.update(|tx| {
        let tree = tx.tree("accounts")?;
        tx.put(&tree, "alice", "800")?;
        tx.put(&tree, "bob", "1200")
    })?;
    let mut half = db.begin()?;
    let tree = half.tree("accounts")?;
    half.put(&tree, "alice", "0")?;
    println!("{} has taken alice's money and has not committed", half.id());
    // Somebody else's commit forces the log, and with it the half transfer.
    db.update(|tx| tx.tree("other").map(|_| ()))?;

    let image = disk.power_cut(Loss::LoseAll);
    println!("\n-- power cut --\n");
    drop(half);
    drop(db);

    let db = open(&image, &mut Narrator)?;
    let report = db.recovery();
    println!(
        "\n{} records analysed, {} applied, {} skipped, {} winners, {} losers, {} CLRs, {:?}",
        report.analysis.records,
        report.applied,
        report.skipped_not_dirty
            + report.skipped_before_rec_lsn
            + report.skipped_page_newer
            + report.skipped_page_torn,
        report.winners,
        report.losers.len(),
        report.clrs_written,
        report.total_time
    );
    let read = db.read()?;
    let tree = read.open_tree("accounts")?.expect("committed");
    for row in read.scan_all(&tree)? {
        let (who, balance) = row?;
        println!("{} {}", String::from_utf8_lossy(&who), String::from_utf8_lossy(&balance));
    }
    read.finish()
}
