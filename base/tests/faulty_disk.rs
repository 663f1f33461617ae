//! Calls fail as told, once or for ever, and `*_exact` and `*_all` deal with what is no failure.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;

use argali_base::disk::{
    Call, Disk, Failure, Fault, FaultyDisk, File, INTERRUPTIONS_MAX, OpenMode, SimDisk,
};

fn setup() -> (SimDisk, FaultyDisk, Arc<dyn File>) {
    let below = SimDisk::new(1);
    let disk = FaultyDisk::new(Arc::new(below.clone()));
    let file = disk.open("f", OpenMode::Create).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    (below, disk, file)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.map(|_| ()).unwrap_err().raw_os_error()
}

const EIO: Option<i32> = Some(5);
const ENOSPC: Option<i32> = Some(28);

#[test]
fn a_fault_strikes_once_unless_it_is_for_ever() {
    let (below, disk, file) = setup();
    disk.fail(Fault::new(Call::Write, "f", Failure::Eio).after(1));
    file.write_all_at(b"a", 0).unwrap();
    let before = below.io_count();
    assert_eq!(errno(file.write_all_at(b"b", 0)), EIO);
    assert_eq!(below.io_count(), before, "a refused call does not reach the disk");
    file.write_all_at(b"c", 0).unwrap();

    disk.fail(Fault::new(Call::Write, "f", Failure::Enospc).forever());
    for _ in 0..3 {
        assert_eq!(errno(file.write_all_at(b"d", 0)), ENOSPC);
    }
    file.read_exact_at(&mut [0; 10], 0).expect("only writes fail");
    assert_eq!(disk.fired(), 4);
    disk.heal();
    file.write_all_at(b"e", 0).unwrap();
}

#[test]
fn interruptions_are_retried() {
    let (_, disk, file) = setup();
    for call in [Call::Read, Call::Write] {
        disk.fail(Fault::new(call, "f", Failure::Eintr));
        disk.fail(Fault::new(call, "f", Failure::Eintr).after(1));
    }
    file.write_all_at(b"ABCDEFGHIJ", 0).unwrap();
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, disk.fired()), (b"ABCDEFGHIJ", 4));
}

#[test]
fn a_call_that_is_interrupted_for_ever_has_failed() {
    let (_, disk, file) = setup();
    disk.fail(Fault::any("f", Failure::Eintr).forever());
    let interrupted = io::ErrorKind::Interrupted;
    assert_eq!(file.write_all_at(b"a", 0).unwrap_err().kind(), interrupted);
    assert_eq!(file.read_exact_at(&mut [0; 10], 0).unwrap_err().kind(), interrupted);
    assert_eq!(disk.fired(), 2 * u64::from(INTERRUPTIONS_MAX));
}

#[test]
fn a_fault_of_any_call_counts_them_all() {
    let (_, disk, file) = setup();
    disk.fail(Fault::any("*", Failure::Eio).after(3));
    file.write_all_at(b"a", 0).unwrap();
    file.sync().unwrap();
    disk.list("").expect("directories are listed by the name \"\", which begins as all do");
    assert_eq!(errno(file.len()), EIO);
    // Only what has a count can be short.
    disk.fail(Fault::any("*", Failure::Short));
    file.sync().unwrap();
    assert_eq!((file.len().unwrap(), file.write_at(b"abcd", 0).unwrap()), (10, 2));
}

#[test]
fn short_counts_are_continued() {
    let (_, disk, file) = setup();
    disk.fail(Fault::new(Call::Write, "f", Failure::Short).forever());
    disk.fail(Fault::new(Call::Read, "f", Failure::Short).forever());
    assert_eq!(file.write_at(b"abcd", 0).unwrap(), 2);
    assert_eq!(file.read_at(&mut [0; 5], 0).unwrap(), 3);
    file.write_batch(&[(0, b"ABCDE"), (5, b"FGHIJ")]).unwrap();
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"ABCDEFGHIJ");
    assert!(disk.fired() > 8, "5 bytes are at least 3 calls: {}", disk.fired());
}

#[test]
fn a_short_write_then_an_error_leaves_half() {
    let (_, disk, file) = setup();
    disk.fail(Fault::new(Call::Write, "f", Failure::Short));
    disk.fail(Fault::new(Call::Write, "f", Failure::Enospc).after(1));
    assert_eq!(errno(file.write_all_at(b"ABCDEFGHIJ", 0)), ENOSPC);
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"ABCDE56789");
}

#[test]
fn rules_go_by_call_and_name() {
    let (_, disk, file) = setup();
    disk.make_dir("wal").unwrap();
    let fail = |call, name| disk.fail(Fault::new(call, name, Failure::Eio).forever());
    fail(Call::Sync, "f");
    fail(Call::Create, "wal/*");
    fail(Call::SyncDir, "");
    fail(Call::Rename, "f");
    fail(Call::Remove, "f");
    fail(Call::Len, "f");
    fail(Call::SetLen, "f");
    fail(Call::List, "wal");
    fail(Call::Lock, "lock");
    fail(Call::MakeDir, "other");
    assert_eq!(errno(file.sync()), EIO);
    assert_eq!(errno(disk.open("wal/1", OpenMode::Create)), EIO);
    disk.open("g", OpenMode::Create).expect("not in wal/").sync().expect("not f");
    assert_eq!(errno(disk.sync_dir("")), EIO);
    disk.sync_dir("wal").unwrap();
    assert_eq!(errno(disk.rename("f", "h")), EIO);
    assert_eq!(errno(disk.remove("f")), EIO);
    assert_eq!(errno(file.len()), EIO);
    assert_eq!(errno(file.set_len(0)), EIO);
    assert_eq!(errno(disk.list("wal")), EIO);
    assert_eq!(disk.list("").unwrap(), ["f", "g"]);
    assert_eq!(errno(disk.lock("lock", "me")), EIO);
    assert_eq!(errno(disk.make_dir("other")), EIO);
    fail(Call::Open, "f");
    assert_eq!(errno(disk.open("f", OpenMode::ReadOnly)), EIO);
}

#[test]
fn a_create_fault_leaves_existing_files_alone() {
    let (_, disk, _) = setup();
    disk.fail(Fault::new(Call::Create, "*", Failure::Enospc).forever());
    disk.open("f", OpenMode::Create).expect("it exists");
    assert_eq!(errno(disk.open("new", OpenMode::Create)), ENOSPC);
    disk.fail(Fault::new(Call::Open, "*", Failure::Eio));
    assert_eq!(errno(disk.open("f", OpenMode::Create)), EIO);
}

#[test]
#[should_panic(expected = "Sync has no count to be short of")]
fn a_sync_cannot_be_short() {
    let _ = Fault::new(Call::Sync, "f", Failure::Short);
}
