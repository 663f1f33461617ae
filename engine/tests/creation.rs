//! A crash during creation leaves no database or a whole one, never a refusal.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use argali::disk::{Disk, Loss, OpenMode, SimDisk};
use argali::{Error, Options};
use crash::{TORN_PAGES, dump, open, options};

/// Every I/O of a creation is cut, with several losses, for a machine that loses power and for a process
/// that is only killed. Then somebody opens what is there.
#[test]
fn a_crash_at_every_call_of_a_creation() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode);
        let disk = SimDisk::with_history(1);
        drop(open(&options, &disk).unwrap());
        let calls = disk.io_count();
        assert!(calls > 10, "{calls} calls are no creation");
        for n in 0..calls {
            let image = disk.at(n as usize).unwrap();
            let losses = [Loss::LoseAll, Loss::KeepAll, Loss::Random(n), Loss::TornLast(n)];
            let single = (0..image.unsynced()).flat_map(|k| [Loss::DropOne(k), Loss::OnlyOne(k)]);
            for loss in losses.into_iter().chain(single) {
                check(&options, &image.power_cut(loss), &format!("cut at {n}, {loss:?}"));
            }
            check(&options, &image.process_kill(), &format!("killed at {n}"));
            cut_again(&options, &image, n);
        }
    }
}

/// Killed at `n`, and the next open, whatever it is doing then, loses power.
fn cut_again(options: &Options, image: &SimDisk, n: u64) {
    let disk = image.process_kill();
    disk.record_history();
    drop(open(options, &disk).unwrap());
    for m in (0..disk.io_count()).step_by(5) {
        for loss in [Loss::LoseAll, Loss::Random(m)] {
            let image = disk.at(m as usize).unwrap().power_cut(loss);
            check(options, &image, &format!("killed at {n}, cut again at {m}, {loss:?}"));
        }
    }
}

fn check(options: &Options, disk: &SimDisk, what: &str) {
    let existed = disk.open("control", OpenMode::ReadOnly).is_ok();
    let unopened = open(&options.clone().create(false), disk);
    match unopened {
        Ok(db) => {
            assert!(existed, "{what}");
            drop(db);
        }
        Err(Error::NoDatabase { .. }) => assert!(!existed, "{what}: a whole one is refused"),
        Err(error) => panic!("{what}: {error}"),
    }
    let db = open(options, disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(dump(&db).unwrap().is_empty(), "{what}");
    db.update(|tx| tx.tree("t").map(|_| ())).unwrap_or_else(|error| panic!("{what}: {error}"));
    let seen = db.verify().unwrap();
    assert!(seen.is_sound(), "{what}: {:#?}", seen.findings);
}
