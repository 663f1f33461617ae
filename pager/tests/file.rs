//! The data file on a disk that loses power: torn pages, growth, the write-ahead rule, damage.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use argali_base::disk::{Call, Failure, Fault, FaultyDisk, File, Loss, OpenMode, SECTOR, SimDisk};
use argali_base::{Disk, Error, Health, Lsn, PageId, Result};
use argali_pager::{
    Found, Mutations, PageBuf, PageKind, PageOp, PageSize, Pager, PagerOptions, TornPages,
};
use argali_wal::{Durable, LogId, LogOptions, Wal};

const SIZE: usize = 4096;
const DATABASE: u64 = 0xa11;

fn options(torn_pages: TornPages) -> PagerOptions {
    PagerOptions {
        page_size: PageSize::new(SIZE as u32).unwrap(),
        torn_pages,
        database: DATABASE,
        growth_pages: 16,
        doublewrite_slots: 4,
        pages_max: 100,
        mutations: Mutations::default(),
    }
}

/// Proof that everything below LSN 64 is durable; only a log gives one.
fn proof() -> Durable {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::memory());
    let id = LogId { database: DATABASE, timeline: 1, branch: 0 };
    Wal::create(disk, id, LogOptions::default(), Health::new()).unwrap().durable()
}

fn create(disk: &SimDisk, options: PagerOptions) -> Pager {
    Pager::create(Arc::new(disk.clone()), options, Health::new()).unwrap()
}

fn open(disk: &SimDisk, options: PagerOptions) -> Result<Pager> {
    Pager::open(Arc::new(disk.clone()), options, Health::new())
}

/// Page `id` as the record at `lsn` left it: a cell full of that LSN.
fn page(id: u64, lsn: u64) -> (PageId, PageBuf) {
    let mut buf = PageBuf::new(PageSize::new(SIZE as u32).unwrap());
    buf.page_mut().blank(PageId::new(id), DATABASE);
    let cell = [lsn as u8; 3000];
    let format = PageOp::Format { kind: PageKind::Slotted, level: 0, owner: 0 };
    let insert = PageOp::Insert { slot: 0, head: 0, cell: &cell };
    buf.page_mut().apply(&[format, insert], Lsn::new(lsn));
    (PageId::new(id), buf)
}

/// The LSN of page `id` on disk, provided all of it is of that LSN.
fn lsn_of(pager: &Pager, id: u64) -> Result<u64> {
    let mut buf = PageBuf::new(PageSize::new(SIZE as u32).unwrap());
    match pager.read(PageId::new(id), &mut buf)? {
        Found::Never => Ok(0),
        Found::Page => {
            let lsn = buf.page().lsn().get();
            assert!(buf.page().cell(0).unwrap().iter().all(|byte| u64::from(*byte) == lsn));
            Ok(lsn)
        }
    }
}

fn data(disk: &SimDisk) -> Arc<dyn File> {
    disk.open("data", OpenMode::Existing).unwrap()
}

#[test]
fn what_was_written_and_synced_is_read_back() {
    for torn_pages in [TornPages::DoubleWrite, TornPages::FullPageImage, TornPages::None] {
        let disk = SimDisk::new(1);
        let pager = create(&disk, options(torn_pages));
        pager.write(&mut [page(3, 7), page(1, 5)], proof()).unwrap();
        pager.sync().unwrap();
        let pager = open(&disk.power_cut(Loss::LoseAll), options(torn_pages)).unwrap();
        assert_eq!(lsn_of(&pager, 3).unwrap(), 7);
        assert_eq!(lsn_of(&pager, 1).unwrap(), 5);
        assert_eq!(lsn_of(&pager, 2).unwrap(), 0, "inside the file, never written");
        assert_eq!(lsn_of(&pager, 99).unwrap(), 0, "beyond the end of the file");
    }
}

#[test]
fn a_new_database_survives_the_power_cut_after_its_creation() {
    let disk = SimDisk::new(1);
    create(&disk, options(TornPages::DoubleWrite));
    let pager = open(&disk.power_cut(Loss::LoseAll), options(TornPages::DoubleWrite)).unwrap();
    assert_eq!(pager.pages(), 16);
}

#[test]
#[should_panic(expected = "p1 at @64 must not be written while the log is durable up to @64 only")]
fn a_page_whose_log_is_not_durable_is_not_written() {
    let pager = create(&SimDisk::new(1), options(TornPages::None));
    let _ = pager.write(&mut [page(1, 64)], proof());
}

#[test]
#[should_panic(expected = "a copy of another page was to be written")]
fn a_page_is_not_written_into_another_ones_place() {
    let pager = create(&SimDisk::new(1), options(TornPages::None));
    let _ = pager.write(&mut [(PageId::new(2), page(1, 5).1)], proof());
}

/// Page 1 is at LSN 5, synced; its write at LSN 9 is cut after each number of sectors, from each side.
fn torn(torn_pages: TornPages, mutations: Mutations, mut see: impl FnMut(usize, Result<u64>, u64)) {
    let disk = SimDisk::new(1);
    let options = PagerOptions { mutations, ..options(torn_pages) };
    let pager = create(&disk, options.clone());
    pager.write(&mut [page(1, 5)], proof()).unwrap();
    pager.sync().unwrap();
    let old = data_page(&disk, 1);
    pager.write(&mut [page(1, 9)], proof()).unwrap();
    let new = data_page(&disk, 1);
    for sectors in 0..=SIZE / SECTOR {
        for head_is_new in [true, false] {
            let image = disk.power_cut(Loss::KeepAll);
            let (first, last) = if head_is_new { (&new, &old) } else { (&old, &new) };
            let cut = sectors * SECTOR;
            let mixed = [&first[..cut], &last[cut..]].concat();
            data(&image).write_all_at(&mixed, SIZE as u64).unwrap();
            let pager = open(&image, options.clone()).unwrap();
            see(sectors, lsn_of(&pager, 1), pager.stats().repaired);
        }
    }
}

fn data_page(disk: &SimDisk, id: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    data(disk).read_exact_at(&mut bytes, id * SIZE as u64).unwrap();
    bytes
}

#[test]
fn a_page_torn_at_any_sector_is_repaired_from_its_copy() {
    let mut repaired = 0;
    torn(TornPages::DoubleWrite, Mutations::default(), |sectors, lsn, repairs| {
        let lsn = lsn.unwrap();
        assert!(lsn == 9 || lsn == 5 && repairs == 0, "cut after {sectors} sectors: at {lsn}");
        repaired += repairs;
    });
    // Sectors that are the same in both versions hide some cuts; most must have been repairs.
    assert!(repaired > 8, "only {repaired} cuts tore the page");
}

#[test]
fn without_repair_a_torn_page_is_reported_never_returned() {
    let skip_repair = Mutations { no_repair: true, ..Mutations::default() };
    for (torn_pages, mutations) in [
        (TornPages::None, Mutations::default()),
        (TornPages::FullPageImage, Mutations::default()),
        (TornPages::DoubleWrite, skip_repair),
    ] {
        let mut corrupt = 0;
        torn(torn_pages, mutations, |_, lsn, _| match lsn {
            Ok(lsn) => assert!(lsn == 5 || lsn == 9),
            Err(Error::Corrupt { file, offset, .. }) => {
                assert_eq!((file.as_str(), offset), ("data", SIZE as u64));
                corrupt += 1;
            }
            Err(e) => panic!("{e}"),
        });
        assert!(corrupt > 8, "the missing repair must show");
    }
}

/// Writes pages over and over through few slots, and cuts power before every call in many ways.
/// `see` gets, for each image, what each page was last synced at and may have become, and the pager.
fn cut_everywhere(mutations: Mutations) -> Result<()> {
    let disk = SimDisk::with_history(3);
    let options = PagerOptions { mutations, ..options(TornPages::DoubleWrite) };
    let pager = create(&disk, options.clone());
    // From which call on a page is at least at that LSN; LSNs grow with the round.
    let mut floors = vec![(disk.io_count(), [0; 6])];
    for round in 1..12_u64 {
        let pages = [round % 6, (round * 5 + 1) % 6];
        let mut batch: Vec<_> = pages.iter().map(|id| page(*id, round)).collect();
        batch.dedup_by_key(|(id, _)| *id);
        pager.write(&mut batch, proof()).unwrap();
        if round % 3 == 0 {
            pager.sync().unwrap();
            let now = std::array::from_fn(|id| lsn_of(&pager, id as u64).unwrap());
            floors.push((disk.io_count(), now));
        }
    }
    let first = floors[0].0;
    for call in first..disk.io_count() {
        let floor = floors.iter().rev().find(|(from, _)| *from <= call).unwrap().1;
        for seed in 0..12 {
            let loss = if seed == 0 { Loss::TornLast(call) } else { Loss::Random(seed) };
            let image = disk.at(call as usize).unwrap().power_cut(loss);
            let pager = open(&image, options.clone()).unwrap();
            for (id, floor) in floor.iter().enumerate() {
                let lsn = lsn_of(&pager, id as u64)?;
                assert!(lsn >= *floor, "call {call} seed {seed}: p{id} {lsn} < {floor}");
            }
            // Nothing is lost by a second cut, right after the repair.
            let again = open(&image.power_cut(Loss::LoseAll), options.clone()).unwrap();
            for id in 0..6 {
                assert_eq!(lsn_of(&again, id).ok(), lsn_of(&pager, id).ok());
            }
        }
    }
    Ok(())
}

#[test]
fn no_power_cut_leaves_a_torn_page() {
    cut_everywhere(Mutations::default()).unwrap();
}

#[test]
fn reusing_a_slot_before_the_data_sync_is_caught() {
    let broken = Mutations { early_slot_reuse: true, ..Mutations::default() };
    let error = cut_everywhere(broken).expect_err("a torn page without a copy");
    assert!(error.is_corruption(), "{error}");
}

#[test]
fn skipping_the_repair_is_caught() {
    let broken = Mutations { no_repair: true, ..Mutations::default() };
    assert!(cut_everywhere(broken).expect_err("a torn page").is_corruption());
}

#[test]
fn a_sync_that_only_says_so_is_caught() {
    let disk = SimDisk::new(1);
    let mutations = Mutations { no_sync: true, ..Mutations::default() };
    let pager = create(&disk, PagerOptions { mutations, ..options(TornPages::DoubleWrite) });
    pager.write(&mut [page(1, 5)], proof()).unwrap();
    pager.sync().unwrap();
    let pager = open(&disk.power_cut(Loss::LoseAll), options(TornPages::DoubleWrite)).unwrap();
    assert_ne!(lsn_of(&pager, 1).ok(), Some(5), "the broken sync must lose the page");
}

#[test]
fn a_page_whose_write_in_place_failed_keeps_its_copy() {
    let disk = SimDisk::new(1);
    let faulty = FaultyDisk::new(Arc::new(disk.clone()));
    let options = options(TornPages::DoubleWrite);
    let shared: Arc<dyn Disk> = Arc::new(faulty.clone());
    let pager = Pager::create(shared, options.clone(), Health::new()).unwrap();
    pager.write(&mut [page(1, 5)], proof()).unwrap();
    pager.sync().unwrap();
    // Half of page 1 gets written, then the device fails.
    faulty.fail(Fault::new(Call::Write, "data", Failure::Short));
    faulty.fail(Fault::new(Call::Write, "data", Failure::Eio));
    assert!(pager.write(&mut [page(1, 9)], proof()).is_err());
    assert!(faulty.fired() >= 2, "the page must be half written");
    faulty.heal();
    // Others pass through the ring several times and are synced; the copy of page 1 must survive it.
    for round in 10..30 {
        pager.write(&mut [page(2 + round % 5, round)], proof()).unwrap();
        pager.sync().unwrap();
    }
    pager.clear_doublewrite().unwrap();
    let opened = open(&disk.power_cut(Loss::LoseAll), options.clone()).unwrap();
    assert_eq!(lsn_of(&opened, 1).unwrap(), 9);
    // Written again, it needs the copy no more.
    pager.write(&mut [page(1, 40)], proof()).unwrap();
    pager.sync().unwrap();
    pager.clear_doublewrite().unwrap();
    let opened = open(&disk.power_cut(Loss::LoseAll), options).unwrap();
    assert_eq!(lsn_of(&opened, 1).unwrap(), 40);
}

#[test]
fn after_a_clean_shutdown_no_copy_is_left() {
    let disk = SimDisk::new(1);
    let pager = create(&disk, options(TornPages::DoubleWrite));
    pager.write(&mut [page(1, 5)], proof()).unwrap();
    pager.clear_doublewrite().unwrap();
    let copies = disk.open("doublewrite", OpenMode::Existing).unwrap();
    let mut bytes = vec![1; 4 * SIZE];
    copies.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let opened = open(&disk.power_cut(Loss::LoseAll), options(TornPages::DoubleWrite)).unwrap();
    assert_eq!(lsn_of(&opened, 1).unwrap(), 5, "clearing synced the data first");
}

#[test]
fn growth_is_durable_before_it_is_used_and_ends_at_the_limit() {
    let disk = SimDisk::new(1);
    let pager = create(&disk, options(TornPages::None));
    pager.grow_to(PageId::new(40)).unwrap();
    assert_eq!(pager.pages(), 48, "by whole chunks");
    let opened = open(&disk.power_cut(Loss::LoseAll), options(TornPages::None)).unwrap();
    assert_eq!(opened.pages(), 48);
    pager.grow_to(PageId::new(99)).unwrap();
    assert_eq!(pager.pages(), 100);
    let error = pager.grow_to(PageId::new(100)).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
}

#[test]
fn a_full_disk_is_met_when_growing_and_is_not_forever() {
    let faulty = FaultyDisk::new(Arc::new(SimDisk::new(1)));
    let shared: Arc<dyn Disk> = Arc::new(faulty.clone());
    let health = Health::new();
    let pager = Pager::create(shared, options(TornPages::None), health.clone()).unwrap();
    faulty.fail(Fault::new(Call::Write, "data", Failure::Enospc).after(5).forever());
    let error = pager.grow_to(PageId::new(16)).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(pager.pages(), 16);
    assert!(!health.is_poisoned());
    faulty.heal();
    pager.grow_to(PageId::new(16)).unwrap();
    assert_eq!(pager.pages(), 32);
    assert_eq!(lsn_of(&pager, 20).unwrap(), 0);
}

#[test]
fn a_failed_sync_poisons() {
    let disk = SimDisk::new(1);
    let health = Health::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let pager = Pager::create(shared, options(TornPages::DoubleWrite), health.clone()).unwrap();
    disk.fail_sync("doublewrite", 0);
    assert!(pager.write(&mut [page(1, 5)], proof()).is_err());
    assert!(health.is_poisoned());
    assert!(matches!(pager.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(pager.write(&mut [page(2, 5)], proof()), Err(Error::Poisoned { .. })));
}

#[test]
fn damage_is_reported_with_its_place() {
    let disk = SimDisk::new(1);
    let pager = create(&disk, options(TornPages::None));
    pager.write(&mut [page(1, 5), page(2, 6)], proof()).unwrap();
    let whole = data_page(&disk, 2);
    let at = SIZE as u64;
    let report = |bytes: &[u8], id: u64| {
        data(&disk).write_all_at(bytes, id * at).unwrap();
        let error = lsn_of(&pager, id).unwrap_err();
        let Error::Corrupt { offset, .. } = &error else { panic!("{error}") };
        assert_eq!(*offset, id * at);
        error.to_string()
    };
    let misdirected = report(&whole, 1);
    assert!(misdirected.contains("p2 stands where p1 belongs"), "{misdirected}");
    // A flipped bit anywhere is noticed; with a legible header the LSN is named.
    for byte in [0, 4, 9, 16, 63, 64, 2000, 4095] {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x10;
        let text = report(&damaged, 2);
        assert!(text.contains("checksum"), "byte {byte}: {text}");
        assert_eq!(text.contains("(lsn @6)"), !(8..24).contains(&byte), "byte {byte}: {text}");
    }
    let other = PagerOptions { database: 0xbad, ..options(TornPages::None) };
    data(&disk).write_all_at(&whole, 2 * at).unwrap();
    let stranger = open(&disk, other).unwrap();
    assert!(lsn_of(&stranger, 2).unwrap_err().to_string().contains("belongs to database 0xa11"));
}

#[test]
fn missing_files_are_corruption_and_a_reader_changes_nothing() {
    let disk = SimDisk::new(1);
    assert!(open(&disk, options(TornPages::None)).unwrap_err().is_corruption());
    create(&disk, options(TornPages::DoubleWrite));
    let calls = disk.io_count();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let reader = Pager::open_read_only(shared, options(TornPages::DoubleWrite)).unwrap();
    assert_eq!(lsn_of(&reader, 1).unwrap(), 0);
    assert!(matches!(reader.write(&mut [page(1, 5)], proof()), Err(Error::ReadOnly)));
    assert!(matches!(reader.grow_to(PageId::new(50)), Err(Error::ReadOnly)));
    assert_eq!(disk.io_count(), calls);
    disk.remove("doublewrite").unwrap();
    assert!(open(&disk, options(TornPages::DoubleWrite)).unwrap_err().is_corruption());
}
