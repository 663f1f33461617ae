//! What the simulated disk promises, and above all what it does not.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;

use argali_base::disk::{Call, Disk, File, Loss, OpenMode, SECTOR, SimDisk};

fn create(disk: &SimDisk, name: &str) -> Arc<dyn File> {
    disk.open(name, OpenMode::Create).unwrap()
}

/// A file whose name and whose contents `bytes` are durable.
fn settled(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(disk, name);
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file
}

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(name, OpenMode::ReadOnly).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// The first byte of each sector: tests fill whole sectors with one byte.
fn sectors(disk: &SimDisk, name: &str) -> Vec<u8> {
    content(disk, name).unwrap().chunks(SECTOR).map(|sector| sector[0]).collect()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list("").unwrap()
}

#[test]
fn unsynced_writes_and_lengths_are_lost() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[1; 1000]);
    file.write_all_at(&[2; 1000], 500).unwrap();
    assert_eq!(content(&disk, "f").unwrap().len(), 1500);
    assert_eq!(content(&disk.power_cut(Loss::LoseAll), "f").unwrap(), [1; 1000]);
    assert_eq!(content(&disk.power_cut(Loss::KeepAll), "f"), content(&disk, "f"));
    file.set_len(10).unwrap();
    assert_eq!(content(&disk.power_cut(Loss::LoseAll), "f").unwrap(), [1; 1000]);
    assert_eq!(content(&disk.power_cut(Loss::KeepAll), "f").unwrap(), [1; 10]);
    file.sync().unwrap();
    assert_eq!(content(&disk.power_cut(Loss::LoseAll), "f").unwrap(), [1; 10]);
}

#[test]
fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[1; 10_000]);
    file.set_len(600).unwrap();
    file.set_len(10_000).unwrap();
    file.write_all_at(&[3; 10], 5000).unwrap();
    file.sync().unwrap();
    let mut expected = vec![0; 10_000];
    expected[..600].fill(1);
    expected[5000..5010].fill(3);
    assert_eq!(content(&disk, "f").unwrap(), expected);
    assert_eq!(content(&disk.power_cut(Loss::LoseAll), "f").unwrap(), expected);
}

#[test]
fn a_later_write_may_survive_an_earlier_one_and_a_write_may_tear() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[0; 4 * SECTOR]);
    file.write_all_at(&[1; 2 * SECTOR], 0).unwrap();
    file.write_all_at(&[2; 2 * SECTOR], 2 * SECTOR as u64).unwrap();
    let seen: std::collections::BTreeSet<Vec<u8>> =
        (0..500).map(|seed| sectors(&disk.power_cut(Loss::Random(seed)), "f")).collect();
    assert_eq!(seen.len(), 16, "every sector is old or new whatever its neighbours are: {seen:?}");
    assert!(seen.contains(&vec![0, 0, 2, 2]), "reordered");
    assert!(seen.contains(&vec![1, 0, 2, 2]), "torn");
}

#[test]
fn a_sector_may_be_any_of_its_unsynced_versions() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[0; SECTOR]);
    (1..=3).for_each(|version| file.write_all_at(&[version; SECTOR], 0).unwrap());
    let mut counts = [0; 4];
    for seed in 0..400 {
        counts[usize::from(sectors(&disk.power_cut(Loss::Random(seed)), "f")[0])] += 1;
    }
    assert!(counts.iter().all(|n| *n > 50), "all versions are about equally likely: {counts:?}");
}

#[test]
fn a_partial_write_goes_out_with_its_whole_sector() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[0; SECTOR]);
    file.write_all_at(&[1; 100], 0).unwrap();
    file.write_all_at(&[2; 100], 100).unwrap();
    let image = content(&disk.power_cut(Loss::OnlyOne(1)), "f").unwrap();
    assert_eq!((image[0], image[100], image[200]), (1, 2, 0), "the cache held both by then");
}

#[test]
fn the_last_write_tears_into_a_prefix_or_a_suffix() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[0; 4 * SECTOR]);
    file.write_all_at(&[1; 4 * SECTOR], 0).unwrap();
    file.write_all_at(&[2; 3 * SECTOR], 0).unwrap();
    let seen: std::collections::BTreeSet<Vec<u8>> =
        (0..100).map(|seed| sectors(&disk.power_cut(Loss::TornLast(seed)), "f")).collect();
    let torn = [[1, 1, 2, 1], [1, 2, 2, 1], [2, 1, 1, 1], [2, 2, 1, 1]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), torn);
}

#[test]
fn one_call_is_dropped_or_is_the_only_one() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[0; 3 * SECTOR]);
    for sector in 0..3 {
        file.write_all_at(&[1; SECTOR], sector * SECTOR as u64).unwrap();
    }
    assert_eq!(disk.unsynced(), 3);
    assert_eq!(sectors(&disk.power_cut(Loss::DropOne(1)), "f"), [1, 0, 1]);
    assert_eq!(sectors(&disk.power_cut(Loss::OnlyOne(1)), "f"), [0, 1, 0]);
    assert_eq!(sectors(&disk.power_cut(Loss::OnlyOne(3)), "f"), [1, 0, 0], "counted modulo");
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "new");
    file.write_all_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(names(&disk.power_cut(Loss::LoseAll)), [""; 0]);
    disk.sync_dir("").unwrap();
    disk.remove("new").unwrap();
    assert_eq!(names(&disk), [""; 0]);
    assert_eq!(content(&disk.power_cut(Loss::LoseAll), "new").unwrap(), b"x", "it is back");
    disk.sync_dir("").unwrap();
    assert_eq!(names(&disk.power_cut(Loss::LoseAll)), [""; 0]);
}

#[test]
fn a_rename_is_there_or_not_and_never_half() {
    let disk = SimDisk::new(1);
    settled(&disk, "control", b"old");
    settled(&disk, "control.tmp", b"new");
    disk.rename("control.tmp", "control").unwrap();
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let image = disk.power_cut(Loss::Random(seed));
        outcomes.insert((content(&image, "control"), content(&image, "control.tmp")));
    }
    let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [(new.clone(), None), (old, new)]);
    assert!(disk.rename("control", "wal/control").is_err(), "a rename stays in its directory");
}

#[test]
fn directory_operations_survive_in_order() {
    let disk = SimDisk::new(1);
    for name in ["a", "b", "c"] {
        create(&disk, name);
    }
    let mut counts: Vec<usize> =
        (0..50).map(|seed| names(&disk.power_cut(Loss::Random(seed)))).map(|n| n.len()).collect();
    for seed in 0..50 {
        let names = names(&disk.power_cut(Loss::Random(seed)));
        assert_eq!(names, ["a", "b", "c"][..names.len()]);
    }
    counts.sort_unstable();
    counts.dedup();
    assert_eq!(counts, [0, 1, 2, 3]);
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_with_it() {
    let disk = SimDisk::new(1);
    disk.make_dir("wal").unwrap();
    disk.make_dir("wal").unwrap();
    create(&disk, "wal/0.log").sync().unwrap();
    disk.sync_dir("wal").unwrap();
    let lost = disk.power_cut(Loss::LoseAll);
    assert_eq!(lost.list("wal").unwrap_err().kind(), io::ErrorKind::NotFound);
    disk.sync_dir("").unwrap();
    assert_eq!(disk.power_cut(Loss::LoseAll).list("wal").unwrap(), ["0.log"]);
}

#[test]
fn a_process_kill_loses_nothing_but_the_power_cut_after_it_does() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[1; SECTOR]);
    file.write_all_at(&[2; SECTOR], 0).unwrap();
    create(&disk, "g");
    let _lock = disk.lock("lock", "pid 1").unwrap();

    let next = disk.process_kill();
    let _second_lock = next.lock("lock", "pid 2").expect("the lock died with its process");
    assert_eq!((sectors(&next, "f"), names(&next).len()), (vec![2], 2));
    let cut = next.power_cut(Loss::LoseAll);
    assert_eq!((sectors(&cut, "f"), names(&cut).len()), (vec![1], 1));

    // What the next process syncs is durable, though another one wrote it.
    next.open("f", OpenMode::Existing).unwrap().sync().unwrap();
    next.sync_dir("").unwrap();
    let cut = next.power_cut(Loss::LoseAll);
    assert_eq!((sectors(&cut, "f"), names(&cut).len()), (vec![2], 2));
    // The killed one's disk is its own.
    assert_eq!(sectors(&disk.power_cut(Loss::LoseAll), "f"), [1]);
}

#[test]
fn what_a_killed_process_left_is_not_taken_for_the_last_write_of_the_next() {
    let disk = SimDisk::new(1);
    settled(&disk, "f", &[0; 2 * SECTOR]);
    let before = disk.process_kill();
    before.open("f", OpenMode::Existing).unwrap().write_all_at(&[1; 2 * SECTOR], 0).unwrap();
    let after = before.process_kill();
    after.open("f", OpenMode::Existing).unwrap().write_all_at(&[2; SECTOR], 0).unwrap();
    assert_eq!(
        sectors(&after.power_cut(Loss::TornLast(1)), "f"),
        [1, 1],
        "only the last one tears"
    );
    assert_eq!(sectors(&after.power_cut(Loss::DropOne(0)), "f"), [2, 0]);
}

#[test]
fn a_failed_sync_drops_its_data_though_a_later_one_succeeds() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[1; 2 * SECTOR]);
    disk.fail_sync("f", 1);
    file.sync().unwrap();
    file.write_all_at(&[2; 2 * SECTOR], SECTOR as u64).unwrap();
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5), "EIO");
    file.sync().expect("the kernel has marked the pages clean");
    assert_eq!(sectors(&disk, "f"), [1, 2, 2], "still readable");
    assert_eq!(sectors(&disk.power_cut(Loss::KeepAll), "f"), [1, 1, 0], "but lost");
    file.write_all_at(&[3; SECTOR], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(sectors(&disk.power_cut(Loss::LoseAll), "f"), [3, 1, 0], "later data is kept");
}

#[test]
fn from_the_nth_change_on_the_machine_is_dead() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", &[1; SECTOR]);
    assert_eq!(disk.io_count(), 4, "create, write, sync, sync_dir");
    disk.stop_after(5);
    file.write_all_at(&[2; SECTOR], 0).unwrap();
    file.read_exact_at(&mut [0; 10], 0).expect("reads are not counted");
    assert!(!disk.is_dead());
    assert!(file.sync().is_err());
    assert!(disk.is_dead());
    assert!(file.read_at(&mut [0; 10], 0).is_err());
    assert!(file.len().is_err());
    assert!(disk.open("f", OpenMode::ReadOnly).is_err());
    assert!(disk.list("").is_err());
    assert!(disk.lock("lock", "me").is_err());
    assert_eq!(disk.io_count(), 5);
    let image = disk.power_cut(Loss::LoseAll);
    assert_eq!((sectors(&image, "f"), image.io_count()), (vec![1], 0));
    assert_eq!(sectors(&disk.power_cut(Loss::KeepAll), "f"), [2]);
}

#[test]
fn history_gives_the_same_images_as_stopping() {
    let workload = |disk: &SimDisk| -> io::Result<()> {
        let file = disk.open("f", OpenMode::Create)?;
        for round in 0..10_u8 {
            file.write_all_at(&[round; 700], u64::from(round) * 300)?;
            if round % 3 == 0 {
                file.sync()?;
            }
            disk.sync_dir("")?;
        }
        Ok(())
    };
    let recorded = SimDisk::with_history(7);
    workload(&recorded).unwrap();
    let total = recorded.io_count();
    assert_eq!(total, 25);
    for n in 0..total {
        let stopped = SimDisk::new(7);
        stopped.stop_after(n);
        workload(&stopped).unwrap_err();
        let remembered = recorded.at(n as usize).unwrap();
        for loss in [Loss::LoseAll, Loss::KeepAll, Loss::Random(n), Loss::TornLast(n)] {
            let images = [&stopped, &remembered].map(|d| content(&d.power_cut(loss), "f"));
            assert_eq!(images[0], images[1], "change {n}, {loss:?}");
        }
    }
    assert!(recorded.at(total as usize).is_none());
}

#[test]
fn the_trace_names_calls_in_order() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f");
    disk.start_trace();
    file.write_all_at(&[0; 10], 20).unwrap();
    file.sync().unwrap();
    disk.rename("f", "g").unwrap();
    file.set_len(5).unwrap();
    file.read_exact_at(&mut [0; 3], 1).unwrap();
    let trace: Vec<_> =
        disk.trace().into_iter().map(|e| (e.call, e.name, e.offset, e.len)).collect();
    let expected = [
        (Call::Write, "f", 20, 10),
        (Call::Sync, "f", 0, 0),
        (Call::Rename, "f -> g", 0, 0),
        (Call::SetLen, "f", 5, 0),
        (Call::Read, "f", 1, 3),
    ];
    assert_eq!(trace, expected.map(|(call, name, at, len)| (call, name.to_owned(), at, len)));
}

#[test]
fn a_lock_excludes_until_it_is_dropped() {
    let disk = SimDisk::new(1);
    let lock = disk.lock("lock", "process 12").unwrap();
    let error = disk.lock("lock", "process 13").unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::WouldBlock, "process 12".into()));
    drop(lock);
    disk.lock("lock", "process 13").unwrap();
}

#[test]
fn an_open_file_outlives_its_name() {
    let disk = SimDisk::new(1);
    let file = settled(&disk, "f", b"abc");
    settled(&disk, "g", b"xyz");
    disk.rename("g", "f").unwrap();
    disk.sync_dir("").unwrap();
    let mut bytes = [0; 3];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, content(&disk, "f").unwrap()), (b"abc", b"xyz".to_vec()));
}

#[test]
fn a_memory_disk_keeps_everything() {
    let disk = SimDisk::memory();
    let file = create(&disk, "f");
    file.write_all_at(&vec![7; 100_000], 5).unwrap();
    assert_eq!(disk.unsynced(), 0);
    assert_eq!(content(&disk.power_cut(Loss::LoseAll), "f"), content(&disk, "f"));
    file.write_all_at(&[8; 10], 0).unwrap();
    assert_eq!(content(&disk.process_kill(), "f"), content(&disk, "f"));
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    let disk = SimDisk::new(1);
    let kind = |r: io::Result<()>| r.unwrap_err().kind();
    settled(&disk, "f", b"abc");
    disk.make_dir("d").unwrap();
    let reader = disk.open("f", OpenMode::ReadOnly).unwrap();
    let file = disk.open("f", OpenMode::Existing).unwrap();
    assert_eq!(kind(reader.write_all_at(b"x", 0)), io::ErrorKind::PermissionDenied);
    assert_eq!(kind(reader.set_len(0)), io::ErrorKind::PermissionDenied);
    assert_eq!(kind(file.write_all_at(b"x", u64::MAX)), io::ErrorKind::FileTooLarge);
    assert_eq!(kind(file.set_len(u64::MAX)), io::ErrorKind::FileTooLarge);
    assert_eq!(kind(file.read_exact_at(&mut [0; 4], 0)), io::ErrorKind::UnexpectedEof);
    assert_eq!(file.read_at(&mut [0; 4], u64::MAX).unwrap(), 0);
    assert_eq!(kind(disk.open("x", OpenMode::Existing).map(|_| ())), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open("x/y", OpenMode::Create).map(|_| ())), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open("d", OpenMode::Create).map(|_| ())), io::ErrorKind::IsADirectory);
    assert_eq!(kind(disk.remove("x")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("d")), io::ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename("f", "d")), io::ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename("x", "f")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.make_dir("f")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.sync_dir("x")), io::ErrorKind::NotFound);
}

#[test]
fn readers_share_a_lock_and_keep_the_writer_out() {
    let disk = SimDisk::new(1);
    let one = disk.lock_shared("lock").unwrap();
    let two = disk.lock_shared("lock").unwrap();
    drop(one);
    assert_eq!(disk.lock("lock", "me").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(two);
    let writer = disk.lock("lock", "process 12").unwrap();
    let error = disk.lock_shared("lock").unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::WouldBlock, "process 12".into()));
    drop(writer);
    disk.lock_shared("lock").unwrap();
}

#[test]
fn a_full_disk_takes_what_does_not_grow() {
    let disk = SimDisk::new(1);
    settled(&disk, "f", b"0123456789");
    let file = disk.open("f", OpenMode::Existing).unwrap();
    disk.limit_bytes(12);
    file.write_all_at(b"ab", 10).expect("the last two bytes");
    let full = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::StorageFull;
    assert!(full(file.write_all_at(b"abc", 10)) && full(file.set_len(13)));
    assert!(full(disk.open("g", OpenMode::Create).unwrap().write_all_at(b"x", 0)));
    assert_eq!((file.len().unwrap(), disk.used_bytes()), (12, 12));
    file.write_all_at(b"over", 0).expect("in place");
    disk.remove("f").unwrap();
    drop(file);
    disk.open("g", OpenMode::Existing).unwrap().write_all_at(b"x", 0).expect("space came back");
}
