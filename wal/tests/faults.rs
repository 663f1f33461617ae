//! Calls that fail, disks that are full, disks that want whole blocks.
#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::sync::Arc;

use argali_base::disk::{Call, DiskLock, Failure, Fault, FaultyDisk, Loss, OpenMode, SimDisk};
use argali_base::{Disk, Error, File, Health, Lsn};
use argali_wal::{Body, LogOptions, Record, UndoReserve, Wal};
use common::{all, commit, note, options, update};

fn faulty() -> (SimDisk, FaultyDisk, Wal) {
    let sim = SimDisk::new(1);
    let faulty = FaultyDisk::new(Arc::new(sim.clone()));
    let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
    let wal = Wal::create(disk, common::ID, options(), Health::new()).unwrap();
    (sim, faulty, wal)
}

#[test]
fn a_full_disk_is_log_full_and_rollback_still_works() {
    let (sim, faulty, wal) = faulty();
    let mut reserve = UndoReserve::default();
    drop(wal.admit(100, 30_000, &mut reserve).unwrap());
    faulty.fail(Fault::new(Call::Write, "wal/*", Failure::Enospc).after(10).forever());
    // Ordinary work ends with LogFull, not with a poisoned log …
    let error = (0..20).find_map(|txn| update(&wal, txn, 60_000).err()).unwrap();
    assert!(matches!(error, Error::LogFull { .. }), "{error}");
    faulty.heal();
    faulty.fail(Fault::new(Call::Create, "wal/*", Failure::Enospc).forever());
    let error = (0..20).find_map(|txn| update(&wal, txn, 60_000).err()).unwrap();
    assert!(matches!(error, Error::LogFull { .. }), "{error}");
    // … and what was reserved can be logged and forced without another segment.
    let record = Record { txn: argali_base::TxnId::new(1), prev: Lsn::NONE, body: Body::End };
    for _ in 0..30_000 / record.encoded_len() {
        let mut ticket = wal.admit_reserved(record.encoded_len(), &mut reserve).unwrap();
        wal.append(&mut ticket, &record);
    }
    assert!(reserve.left() < record.encoded_len());
    let end = wal.force(Lsn::MAX).unwrap().end();
    faulty.heal();
    update(&wal, 1, 60_000).unwrap();
    let after = common::open(&sim.power_cut(Loss::LoseAll), options()).unwrap();
    assert_eq!(after.tail(), end);
}

#[test]
fn a_ticket_filled_again_gives_its_rest_to_the_reserve() {
    let (_, _, wal) = faulty();
    let mut reserve = UndoReserve::default();
    drop(wal.admit(100, 10_000, &mut reserve).unwrap());
    let record = Record { txn: argali_base::TxnId::new(1), prev: Lsn::NONE, body: Body::End };
    let mut ticket = wal.ticket().unwrap();
    for _ in 0..100 {
        wal.refill_reserved(&mut ticket, 5000, &mut reserve).unwrap();
        wal.append(&mut ticket, &record);
    }
    assert_eq!(reserve.left() + ticket.left(), 10_000 - 100 * record.encoded_len());
    assert_eq!(wal.stats().reserved_bytes, reserve.left() as u64);
    wal.release(&mut ticket, &mut reserve);
    assert_eq!((reserve.left(), ticket.left()), (0, 0));
    assert_eq!(wal.stats().reserved_bytes, 0);
}

#[test]
fn a_failed_log_write_poisons() {
    let (sim, faulty, wal) = faulty();
    let durable = commit(&wal, 1).unwrap().end();
    faulty.fail(Fault::new(Call::Write, "wal/*", Failure::Eio));
    assert!(matches!(commit(&wal, 2), Err(Error::Io { op: "write", .. })));
    assert!(matches!(commit(&wal, 3), Err(Error::Poisoned { .. })));
    assert!(matches!(update(&wal, 3, 10), Err(Error::Poisoned { .. })));
    let after = common::open(&sim.power_cut(Loss::KeepAll), options()).unwrap();
    assert_eq!(after.tail(), durable);
}

/// It had written a part of a record; a log of more segments than are kept open was waiting for it.
#[test]
fn a_flush_that_failed_half_way_is_taken_up_again() {
    let large = LogOptions { limit_bytes: 4 << 20, ..options() };
    let sim = SimDisk::new(1);
    let faulty = FaultyDisk::new(Arc::new(sim.clone()));
    let wal = Wal::create(Arc::new(faulty.clone()), common::ID, large.clone(), Health::new());
    let wal = wal.unwrap();
    for txn in 0..60 {
        update(&wal, txn, 30_000).unwrap();
    }
    faulty.fail(Fault::new(Call::Open, "wal/*", Failure::Eio).after(1));
    let error = wal.force(Lsn::MAX).unwrap_err();
    assert!(matches!(error, Error::Io { op: "open", .. }), "{error}");
    let end = wal.force(Lsn::MAX).unwrap().end();
    let after = common::open(&sim.power_cut(Loss::LoseAll), large).unwrap();
    assert_eq!((all(&after, Lsn::FIRST).len(), after.tail()), (60, end));
}

#[test]
fn short_and_interrupted_calls_are_carried_through() {
    let (sim, faulty, wal) = faulty();
    for round in 0..30 {
        faulty.fail(Fault::new(Call::Write, "wal/*", Failure::Short));
        faulty.fail(Fault::new(Call::Write, "wal/*", Failure::Eintr).after(1));
        update(&wal, round, 5000).unwrap();
        commit(&wal, round).unwrap();
    }
    let faulty = FaultyDisk::new(Arc::new(sim.power_cut(Loss::LoseAll)));
    for calls in 0..20 {
        faulty.fail(Fault::new(Call::Read, "wal/*", Failure::Short).after(calls));
        faulty.fail(Fault::new(Call::Read, "wal/*", Failure::Eintr).after(calls));
    }
    let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
    let wal = Wal::open(disk, &common::control(), options(), Health::new()).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST).len(), 60);
    faulty.heal();
    faulty.fail(Fault::new(Call::Read, "wal/*", Failure::Eio));
    let disk: Arc<dyn Disk> = Arc::new(faulty);
    let error = Wal::open(disk, &common::control(), options(), Health::new()).unwrap_err();
    assert!(
        matches!(error, Error::Io { op: "read", .. }),
        "an unreadable sector is no end: {error}"
    );
}

#[test]
fn a_failed_directory_sync_is_a_failed_sync() {
    let (_, faulty, wal) = faulty();
    faulty.fail(Fault::new(Call::SyncDir, "wal", Failure::Eio));
    let error = (0..20).find_map(|txn| update(&wal, txn, 30_000).err()).unwrap();
    assert!(matches!(error, Error::Io { op: "sync directory", .. }), "{error}");
    assert!(matches!(commit(&wal, 3), Err(Error::Poisoned { .. })));
}

#[test]
fn reading_only_changes_nothing() {
    let (sim, _, wal) = faulty();
    note(&wal, 1, b"x").unwrap();
    commit(&wal, 1).unwrap();
    let before = sim.io_count();
    let wal = Wal::open_read_only(common::disk(&sim), &common::control(), options()).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST).len(), 2);
    assert!(matches!(wal.resume(), Err(Error::ReadOnly)));
    assert!(matches!(update(&wal, 1, 10), Err(Error::ReadOnly)));
    assert!(matches!(wal.truncate(Vec::new()), Err(Error::ReadOnly)));
    assert_eq!(sim.io_count(), before);
}

/// A disk that, like one opened around the operating system's cache, takes whole blocks only.
#[derive(Debug)]
struct Blocks(SimDisk, usize);

#[derive(Debug)]
struct BlockFile(Arc<dyn File>, usize);

impl BlockFile {
    fn check(&self, bytes: &[u8], offset: u64) {
        let whole = |n: usize| n.is_multiple_of(self.1);
        assert!(whole(bytes.len()) && whole(offset as usize) && whole(bytes.as_ptr() as usize));
    }
}

impl File for BlockFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check(buf, offset);
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check(buf, offset);
        self.0.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn alignment(&self) -> usize {
        self.1
    }
}

impl Disk for Blocks {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BlockFile(self.0.open(name, mode)?, self.1)))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.0.make_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, name: &str, holder: &str) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(name, holder)
    }
    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.0.lock_shared(name)
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[test]
fn disks_that_take_whole_blocks_only() {
    for alignment in [512, 4096] {
        let mut sim = SimDisk::new(1);
        let options = LogOptions { limit_bytes: 8 << 20, ..options() };
        let disk = |sim: &SimDisk| -> Arc<dyn Disk> { Arc::new(Blocks(sim.clone(), alignment)) };
        let mut wal = Wal::create(disk(&sim), common::ID, options.clone(), Health::new()).unwrap();
        let mut expected = Vec::new();
        let mut random = fastrand::Rng::with_seed(9);
        for txn in 1..200 {
            let len = random.usize(1..12_000);
            expected.push((update(&wal, txn, len).unwrap(), txn));
            if random.bool() {
                wal.force(Lsn::MAX).unwrap();
            }
            if txn % 40 == 0 {
                wal.force(Lsn::MAX).unwrap();
                sim = sim.power_cut(Loss::LoseAll);
                let control = common::control();
                let open = Wal::open(disk(&sim), &control, options.clone(), Health::new());
                wal = open.unwrap();
                assert_eq!(all(&wal, Lsn::FIRST), expected);
                wal.resume().unwrap();
                assert_eq!(all(&wal, Lsn::FIRST), expected);
            }
        }
        // Blocks and bytes are one format.
        wal.force(Lsn::MAX).unwrap();
        let wal = common::open(&sim.power_cut(Loss::LoseAll), options).unwrap();
        assert_eq!(all(&wal, Lsn::FIRST), expected);
    }
}

#[test]
fn a_sync_that_fails_while_a_large_segment_is_filled_poisons() {
    for nth in 0..4 {
        let disk = FaultyDisk::new(Arc::new(SimDisk::new(1)));
        disk.fail(Fault::new(Call::Sync, "wal/*", Failure::Eio).after(nth));
        let options =
            LogOptions { segment_bytes: 4 << 20, limit_bytes: 16 << 20, ..LogOptions::default() };
        let health = Health::new();
        let made = Wal::create(Arc::new(disk.clone()), common::ID, options, health.clone());
        assert_eq!(made.is_err(), disk.fired() > 0, "sync {nth}");
        assert_eq!(health.is_poisoned(), disk.fired() > 0, "sync {nth}");
        assert!(nth > 1 || disk.fired() == 1, "a segment of 4 MiB takes two syncs, not {nth}");
    }
}
