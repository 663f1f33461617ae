//! Opening and closing: who may, what is made, what is left, what is recovered.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::sync::Arc;
use std::time::Duration;

use argali::disk::{Disk, OpenMode, SimDisk};
use argali::{Error, Flush, Options, Silent};

use common::*;

#[test]
fn a_second_open_names_the_holder() {
    let disk = SimDisk::new(4);
    let db = on(&disk).unwrap();
    let refused = on(&disk);
    let Err(Error::InUse { holder }) = refused else { panic!("{refused:?}") };
    assert_eq!(holder, format!("process {}", std::process::id()));
    let read_only = options().open_read_only_on(Arc::new(disk.clone()));
    assert!(matches!(read_only, Err(Error::InUse { .. })), "{read_only:?}");
    db.close().unwrap();
    on(&disk).unwrap();
}

#[test]
fn after_a_clean_shutdown_nothing_is_recovered() {
    let disk = SimDisk::new(5);
    let db = on(&disk).unwrap();
    fill(&db, "t", 300);
    db.close().unwrap();
    let db = on(&disk).unwrap();
    assert!(!db.recovery().recovered);
    // A drop is as good as a close.
    drop(db);
    let db = on(&disk).unwrap();
    assert!(!db.recovery().recovered);
    let tree = db.read().unwrap().open_tree("t").unwrap().unwrap();
    assert_eq!(db.read().unwrap().scan_all(&tree).unwrap().count(), 300);
    assert_sound(&db);
    // The mark went at this open: a crash now means recovery.
    let db = on(&disk.power_cut(argali::disk::Loss::LoseAll)).unwrap();
    assert!(db.recovery().recovered);
}

#[test]
fn close_waits_for_nobody_and_says_so() {
    let db = memory();
    let tree = fill(&db, "t", 1);
    let tx = db.begin().unwrap();
    tx.put(&tree, "a", "b").unwrap();
    let refused = db.clone().close();
    assert!(matches!(refused, Err(Error::Invalid { what: "close", .. })), "{refused:?}");
    tx.commit().unwrap();
    db.clone().close().unwrap();
    assert!(matches!(db.begin(), Err(Error::Closed)));
    assert!(matches!(db.checkpoint(Flush::Nothing), Err(Error::Closed)));
}

#[test]
fn a_transaction_keeps_its_database_open() {
    let disk = SimDisk::new(6);
    let db = on(&disk).unwrap();
    let tree = fill(&db, "t", 1);
    let tx = db.begin().unwrap();
    drop(db);
    tx.put(&tree, "late", "1").unwrap();
    assert!(matches!(on(&disk), Err(Error::InUse { .. })));
    tx.commit().unwrap();
    let db = on(&disk).unwrap();
    assert!(!db.recovery().recovered, "the commit's drop was the shutdown");
}

#[test]
fn read_only_never_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let missing = Options::new().open_read_only(&path);
    assert!(matches!(missing, Err(Error::NoDatabase { .. })), "{missing:?}");
    let db = options().open(&path).unwrap();
    fill(&db, "t", 300);
    db.close().unwrap();

    let before = contents(&path);
    let db = options().open_read_only(&path).unwrap();
    let _second = options().open_read_only(&path).expect("readers share");
    assert!(matches!(options().open(&path), Err(Error::InUse { .. })));
    assert!(matches!(db.begin(), Err(Error::ReadOnly)));
    assert!(matches!(db.checkpoint(Flush::Old), Err(Error::ReadOnly)));
    let read = db.read().unwrap();
    let tree = read.open_tree("t").unwrap().unwrap();
    assert_eq!(read.scan_all(&tree).unwrap().count(), 300);
    read.finish().unwrap();
    assert_eq!(db.stats().unwrap().trees, 1);
    assert_sound(&db);
    db.close().unwrap();
    assert!(argali::info(&path).unwrap().clean);
    assert!(contents(&path) == before, "something was written");
}

fn contents(path: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

#[test]
fn read_only_refuses_what_needs_recovery() {
    let disk = SimDisk::new(7);
    let db = on(&disk).unwrap();
    fill(&db, "t", 10);
    let killed = disk.process_kill();
    let refused = options().open_read_only_on(Arc::new(killed.clone()));
    assert!(matches!(refused, Err(Error::NeedsRecovery)), "{refused:?}");
    let killed: Arc<dyn Disk> = Arc::new(killed);
    let info = argali::info_on(&killed).unwrap();
    assert!(!info.clean && info.log_fault.is_none() && info.data_bytes > 0, "{info:?}");
}

#[test]
fn create_false_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let refused = Options::new().create(false).open(&path);
    assert!(matches!(refused, Err(Error::NoDatabase { .. })), "{refused:?}");
    assert!(!path.exists());
    let refused = Options::new().create(false).open(directory.path());
    assert!(matches!(refused, Err(Error::NoDatabase { .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn data_without_control_is_damage() {
    let disk = SimDisk::new(8);
    on(&disk).unwrap().close().unwrap();
    disk.remove("control").unwrap();
    let refused = on(&disk);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert!(disk.open("data", OpenMode::ReadOnly).is_ok(), "and it is not touched");
}

#[test]
fn bad_options_touch_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let bad = [
        Options::new().page_size(5000),
        Options::new().cache_bytes(1000),
        Options::new().segment_bytes(1000),
        Options::new().log_limit_bytes(1 << 20),
        Options::new().log_buffer_bytes(3 << 20),
        Options::new().pages_max(1),
        Options::new().relaxed_delay(Duration::ZERO),
    ];
    for options in bad {
        let shown = format!("{options:?}");
        let refused = options.open(&path);
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{shown}: {refused:?}");
        assert!(!path.join("control").exists() && !path.join("control.tmp").exists());
    }
}

#[test]
fn page_sizes_and_torn_page_modes() {
    use argali::TornPages::{DoubleWrite, FullPageImage, None};
    for page_size in [4096, 8192, 65536] {
        for mode in [DoubleWrite, FullPageImage, None] {
            let disk = SimDisk::new(9);
            let open = || {
                let options = options().page_size(page_size).torn_pages(mode);
                let options = options.cache_bytes(16 * page_size as usize);
                options.open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent).unwrap()
            };
            let db = open();
            fill(&db, "t", 3000);
            assert_sound(&db);
            db.close().unwrap();
            let db = open();
            let tree = db.read().unwrap().open_tree("t").unwrap().unwrap();
            assert_eq!(db.read().unwrap().scan_all(&tree).unwrap().count(), 3000);
        }
    }
}

#[test]
fn temporary_databases_leave_nothing() {
    let db = options().temporary().unwrap();
    fill(&db, "t", 100);
    assert_sound(&db);
    db.close().unwrap();
}

#[test]
fn direct_io_works_or_says_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let direct = || options().cache_bytes(16 * 8192).direct_io(true);
    let db = match direct().open(&path) {
        Ok(db) => db,
        Err(error) => {
            assert!(error.to_string().contains("refuses direct I/O"), "{error}");
            return;
        }
    };
    let tree = fill(&db, "t", 5000);
    db.update(|tx| tx.put(&tree, 7_u32.to_be_bytes(), "changed")).unwrap();
    assert_sound(&db);
    db.close().unwrap();
    let db = direct().open_read_only(&path).unwrap();
    let read = db.read().unwrap();
    let tree = read.open_tree("t").unwrap().unwrap();
    assert_eq!(read.scan_all(&tree).unwrap().count(), 5000);
    assert_eq!(read.get(&tree, 7_u32.to_be_bytes()).unwrap(), Some(b"changed".to_vec()));
}
