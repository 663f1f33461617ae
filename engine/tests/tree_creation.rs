//! Trees that come and go with aborted transactions, cut at every I/O of their creation: no page may be lost for ever.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::sync::Arc;

use argali::disk::{Loss, SimDisk};
use argali::{Db, Never, Options, Silent};

/// So few frames that pages are stolen, and the log forced, in the middle of everything.
fn open(disk: &SimDisk) -> Db {
    Options::new()
        .page_size(4096)
        .cache_bytes(16 * 4096)
        .segment_bytes(64 << 10)
        .checkpoint_policy(Arc::new(Never))
        .background_threads(false)
        .open_on(Arc::new(disk.clone()), &mut Silent)
        .unwrap()
}

#[test]
fn an_interrupted_creation_leaves_no_page_behind() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let rows = db.update(|tx| tx.tree("rows")).unwrap();
    let mut cuts = 0;
    for round in 0..60 {
        let mut tx = db.begin().unwrap();
        for row in 0..60 + round % 17 {
            // All over the tree, so that the pages of catalog and queue are evicted every time.
            let row = row * 37 % 100;
            tx.put(&rows, format!("{row:03}"), format!("{round}{}", "v".repeat(500))).unwrap();
        }
        disk.record_history();
        let scratch = tx.tree(&format!("scratch{}", round % 3)).unwrap();
        let mut instants: Vec<SimDisk> = (0..).map_while(|call| disk.at(call)).collect();
        instants.push(disk.process_kill());
        for (call, instant) in instants.iter().enumerate() {
            let found = open(&instant.power_cut(Loss::KeepAll)).verify().unwrap();
            assert_eq!(found.findings, [], "round {round}, cut at call {call}");
            cuts += 1;
        }
        tx.put(&scratch, "key", "value").unwrap();
        tx.abort().unwrap();
    }
    assert!(cuts > 100, "only {cuts} cuts");
}
