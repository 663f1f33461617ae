//! Real files behave as the disk seam promises.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;

use argali_base::disk::{Disk, OpenMode, OsDisk};

fn temp() -> (tempfile::TempDir, OsDisk) {
    let dir = tempfile::tempdir().unwrap();
    let disk = OsDisk::create(dir.path().join("db")).unwrap();
    (dir, disk)
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

#[test]
fn bytes_come_back_from_their_offsets() {
    let (_dir, disk) = temp();
    let file = disk.open("data", OpenMode::Create).unwrap();
    file.write_all_at(b"hello", 10).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    let file = disk.open("data", OpenMode::ReadOnly).unwrap();
    let mut bytes = [9; 15];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0\0\0hello");
    assert_eq!((file.len().unwrap(), file.is_empty().unwrap(), file.alignment()), (15, false, 1));
    assert_eq!(kind(file.read_exact_at(&mut bytes, 1)), io::ErrorKind::UnexpectedEof);
    assert!(file.write_all_at(b"x", 0).is_err(), "opened for reading only");
}

#[test]
fn a_file_is_cut_and_grows_with_zeros() {
    let (_dir, disk) = temp();
    let file = disk.open("data", OpenMode::Create).unwrap();
    file.write_all_at(&[1; 100], 0).unwrap();
    file.set_len(50).unwrap();
    file.set_len(100).unwrap();
    let mut bytes = [9; 100];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes[..50], &bytes[50..]), (&[1; 50][..], &[0; 50][..]));
}

#[test]
fn a_batch_writes_runs_and_lone_buffers() {
    let (_dir, disk) = temp();
    let file = disk.open("data", OpenMode::Create).unwrap();
    let blocks: Vec<[u8; 16]> = (0..=255).cycle().take(600).map(|byte| [byte; 16]).collect();
    // A run longer than one call takes, then a hole of one block, then single blocks.
    let place = |i: usize| if i < 500 { i } else { i * 2 + 1 };
    let batch: Vec<(u64, &[u8])> =
        blocks.iter().enumerate().map(|(i, b)| (place(i) as u64 * 16, &b[..])).collect();
    file.write_batch(&batch).unwrap();
    file.write_batch(&[]).unwrap();
    for (offset, expected) in batch {
        let mut found = [0; 16];
        file.read_exact_at(&mut found, offset).unwrap();
        assert_eq!(found, expected, "at {offset}");
    }
    assert_eq!(file.len().unwrap(), 1200 * 16);
}

#[test]
fn allocated_room_is_in_the_file_and_reads_as_zeros() {
    let (_dir, disk) = temp();
    let file = disk.open("a", OpenMode::Create).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    // A file system that cannot do it says so and does nothing.
    let len = if file.allocate(6, 10_000).unwrap() { 10_006 } else { 6 };
    assert_eq!(file.len().unwrap(), len);
    let mut found = vec![1; len as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found.starts_with(b"before") && found[6..].iter().all(|byte| *byte == 0));
    file.sync().unwrap();
}

#[test]
fn names_are_opened_renamed_listed_and_removed() {
    let (_dir, disk) = temp();
    assert_eq!(kind(disk.open("a", OpenMode::Existing)), io::ErrorKind::NotFound);
    disk.open("b", OpenMode::Create).unwrap();
    disk.open("a", OpenMode::Create).unwrap().write_all_at(b"a", 0).unwrap();
    disk.make_dir("wal").unwrap();
    disk.make_dir("wal").unwrap();
    disk.open("wal/1", OpenMode::Create).unwrap();
    assert_eq!(disk.list("").unwrap(), ["a", "b"], "sorted, files only");
    assert_eq!(disk.list("wal").unwrap(), ["1"]);
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.open("b", OpenMode::Existing).unwrap().len().unwrap(), 1);
    disk.rename("wal/1", "wal/2").unwrap();
    disk.sync_dir("wal").unwrap();
    disk.remove("wal/2").unwrap();
    assert_eq!(disk.list("wal").unwrap(), [""; 0]);
    assert_eq!(kind(disk.list("nowhere")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir("nowhere")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("wal/2")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.make_dir("b")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.open("wal", OpenMode::ReadOnly)), io::ErrorKind::IsADirectory);
}

#[test]
fn names_stay_inside_the_directory() {
    let (_dir, disk) = temp();
    for name in ["../outside", "/etc/passwd", "wal/../../x"] {
        assert_eq!(kind(disk.open(name, OpenMode::Create)), io::ErrorKind::InvalidFilename);
    }
    assert_eq!(kind(disk.rename("a", "wal/a")), io::ErrorKind::InvalidInput);
}

#[test]
fn a_lock_names_its_holder_and_ends_with_its_guard() {
    let (_dir, disk) = temp();
    let lock = disk.lock("lock", "process 4711, a very long name").unwrap();
    let other = OsDisk::open(disk.root()).unwrap();
    let error = other.lock("lock", "process 4712").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(error.to_string(), "process 4711, a very long name");
    drop(lock);
    let _lock = other.lock("lock", "process 4712").unwrap();
    assert_eq!(disk.lock("lock", "x").unwrap_err().to_string(), "process 4712");
}

#[test]
fn readers_share_a_lock_and_keep_the_writer_out() {
    let (_dir, disk) = temp();
    assert!(disk.lock_shared("lock").unwrap().is_none(), "nothing to lock");
    std::fs::write(disk.root().join("lock"), "a process long dead").unwrap();
    let one = disk.lock_shared("lock").unwrap();
    let two = disk.lock_shared("lock").unwrap();
    assert_eq!(disk.lock("lock", "me").unwrap_err().to_string(), "a reader");
    drop((one, two));
    let writer = disk.lock("lock", "process 12").unwrap();
    assert_eq!(disk.lock_shared("lock").unwrap_err().to_string(), "process 12");
    drop(writer);
    assert!(disk.lock_shared("lock").unwrap().is_some());
}

#[test]
fn the_directory_is_made_once_and_must_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("db");
    assert_eq!(kind(OsDisk::open(&root)), io::ErrorKind::NotFound);
    OsDisk::create(&root).unwrap();
    let again = OsDisk::create(&root).unwrap();
    assert_eq!((again.root(), again.describe()), (root.as_path(), root.display().to_string()));
    assert_eq!(kind(OsDisk::create(root.join("x/y"))), io::ErrorKind::NotFound);
    std::fs::write(root.join("file"), "").unwrap();
    assert_eq!(kind(OsDisk::create(root.join("file"))), io::ErrorKind::NotADirectory);
}

/// Memory that starts at a multiple of 4096, without unsafe code.
fn aligned(memory: &mut Vec<u8>, len: usize) -> &mut [u8] {
    memory.resize(len + 4096, 0);
    let skip = memory.as_ptr().align_offset(4096);
    &mut memory[skip..skip + len]
}

#[test]
fn direct_io_works_or_says_why_not() {
    let (_dir, disk) = temp();
    let disk = disk.with_direct_io(&["data"]);
    assert_eq!(disk.open("other", OpenMode::Create).unwrap().alignment(), 1);
    let file = match disk.open("data", OpenMode::Create) {
        Ok(file) => file,
        Err(e) => {
            assert_eq!(e.kind(), io::ErrorKind::Unsupported);
            assert!(e.to_string().contains("direct I/O for data"), "{e}");
            return;
        }
    };
    assert_eq!(file.alignment(), 4096);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let out = aligned(&mut out, 8192);
    out.fill(7);
    file.write_batch(&[(0, &*out), (8192, &*out)]).unwrap();
    file.sync().unwrap();
    let back = aligned(&mut back, 8192);
    file.read_exact_at(back, 8192).unwrap();
    assert_eq!(out, back);
    assert!(Path::new(disk.root()).join("data").exists());
}

#[test]
fn what_is_written_through_and_what_is_not_are_one_file() {
    let (_dir, disk) = temp();
    let disk = disk.with_write_through("log");
    disk.make_dir("log").unwrap();
    assert_eq!(disk.open("other", OpenMode::Create).unwrap().alignment(), 1);
    let file = disk.open("log/a", OpenMode::Create).unwrap();
    assert_eq!(file.alignment(), 4096);
    let mut memory = Vec::new();
    // Small writes past the cache, large ones through it, each over what the other left.
    for (round, blocks) in [(1, 32), (2, 1), (3, 64), (4, 16), (5, 17)] {
        let out = aligned(&mut memory, blocks * 4096);
        out.fill(round);
        file.write_through(out, 4096).unwrap();
        let mut back = vec![0; blocks * 4096];
        file.read_exact_at(&mut back, 4096).unwrap();
        assert!(back.iter().all(|byte| *byte == round), "round {round}");
    }
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 4096 * 63).unwrap();
    assert_eq!(block, [3; 4096]);
    let read_only = disk.open("log/a", OpenMode::ReadOnly).unwrap();
    assert!(read_only.write_through(aligned(&mut memory, 4096), 0).is_err());
}
