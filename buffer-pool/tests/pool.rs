//! What a pool promises, one promise per test, on the real log and pager.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use argali_base::disk::{Call, Failure, Fault, Loss, OpenMode};
use argali_base::{Disk, Error, Health, Lsn, PageId};
use argali_buffer_pool::{BufferPool, Mutations, PoolOptions, Restart};
use argali_pager::{PageBuf, PageOp, Pager, TornPages};
use argali_wal::DirtyPage;
use common::{Setup, World, add_op, counter_in, format_ops, page, pager_options};

const SIZE: u64 = 4096;

fn pool_options(mutations: Mutations) -> PoolOptions {
    PoolOptions { frames: 16, mutations, ..PoolOptions::default() }
}

/// The LSN of a page on disk.
fn lsn_on_disk(world: &World, number: u64) -> Lsn {
    let mut buf = PageBuf::new(world.pool.pager().options().page_size);
    world.pool.pager().read(page(number), &mut buf).unwrap();
    buf.page().lsn()
}

fn entry(number: u64, rec_lsn: Lsn) -> DirtyPage {
    DirtyPage { page: page(number), rec_lsn }
}

// ---- the dirty page table, transition by transition

#[test]
fn a_changed_page_is_in_the_table_until_a_sync_after_its_write() {
    let world = World::new();
    world.format(2);
    let first = world.add(1, 0, 1).unwrap();
    world.add(1, 0, 1).unwrap();
    assert_eq!(world.dirty(), [entry(1, first)]);
    assert_eq!(world.pool.write_back(&[page(1)]).unwrap(), 1);
    assert_eq!(world.dirty(), [entry(1, first)], "written is not durable");
    assert_eq!(world.pool.stats().dirty, 0);
    world.pool.sync().unwrap();
    assert_eq!(world.dirty(), []);
    assert_eq!(world.pool.write_back(&[page(1)]).unwrap(), 0, "clean pages are not written");
}

#[test]
fn a_page_changed_again_after_its_write_keeps_its_old_rec_lsn_until_the_sync() {
    let world = World::new();
    world.format(1);
    let first = world.add(0, 0, 1).unwrap();
    world.pool.write_back(&[page(0)]).unwrap();
    let second = world.add(0, 0, 1).unwrap();
    assert_eq!(world.dirty(), [entry(0, first)]);
    world.pool.sync().unwrap();
    assert_eq!(world.dirty(), [entry(0, second)]);
}

#[test]
fn an_evicted_page_stays_in_the_table_without_a_frame() {
    let world = World::new();
    world.format(40);
    let lsns: Vec<Lsn> = (0..16).map(|number| world.add(number, 0, 1).unwrap()).collect();
    let before = world.pool.stats().evictions_dirty;
    world.push_out(16, 24);
    assert_eq!(world.pool.stats().evictions_dirty, before + 16);
    assert_eq!(lsn_on_disk(&world, 0), lsns[0]);
    let all: Vec<_> = (0..16).map(|number| entry(number, lsns[number as usize])).collect();
    assert_eq!(world.dirty(), all);
    world.pool.sync().unwrap();
    assert_eq!(world.dirty(), []);
}

#[test]
fn dropping_the_entry_at_the_write_loses_what_the_disk_forgets() {
    let mutations = Mutations { drop_dirty_before_sync: true, ..Mutations::default() };
    let setup = Setup { pool: pool_options(mutations), ..Setup::default() };
    let world = World::with(setup.clone());
    world.format(1);
    let lsn = world.add(0, 0, 1).unwrap();
    world.pool.write_back(&[page(0)]).unwrap();
    assert_eq!(world.dirty(), [], "the broken rule: nothing needs redo, says the table");
    let cut: Arc<dyn Disk> = Arc::new(world.disk.power_cut(Loss::LoseAll));
    let pager = Pager::open(cut, pager_options(&setup), Health::new()).unwrap();
    let mut buf = PageBuf::new(pager.options().page_size);
    pager.read(page(0), &mut buf).unwrap();
    assert!(buf.page().lsn() < lsn, "but the disk forgot the write");
}

// ---- write-back

#[test]
fn no_page_is_written_before_its_log() {
    let world = World::new();
    world.format(40);
    let lsns: Vec<Lsn> = (0..16).map(|number| world.add(number, 0, 1).unwrap()).collect();
    assert!(!world.wal.durable().covers(lsns[0]));
    let forces = world.pool.stats().log_forces;
    world.push_out(16, 24);
    assert_eq!(lsn_on_disk(&world, 15), lsns[15], "stolen while its change was not durable");
    assert!(world.wal.durable().covers(lsns[15]));
    assert!(world.pool.stats().log_forces > forces);
}

#[test]
fn a_pool_that_skips_the_force_is_stopped_by_the_pager() {
    let mutations = Mutations { page_before_log: true, ..Mutations::default() };
    let world = World::with(Setup { pool: pool_options(mutations), ..Setup::default() });
    let mut made = world.pool.create(page(0)).unwrap();
    world.change(&mut made, &format_ops());
    drop(made);
    let write = || drop(world.pool.write_back(&[page(0)]));
    let panic = catch_unwind(AssertUnwindSafe(write)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("must not be written"), "{text}");
}

#[test]
fn with_both_rules_broken_a_page_reaches_the_disk_before_its_log() {
    let mutations = Mutations { page_before_log: true, ..Mutations::default() };
    let pager = argali_pager::Mutations { page_before_log: true, ..Default::default() };
    let world = World::with(Setup { pool: pool_options(mutations), pager, ..Setup::default() });
    let mut made = world.pool.create(page(0)).unwrap();
    let lsn = world.change(&mut made, &format_ops());
    drop(made);
    world.pool.write_back(&[page(0)]).unwrap();
    assert_eq!(lsn_on_disk(&world, 0), lsn);
    assert!(!world.wal.durable().covers(lsn));
}

#[test]
fn a_page_held_exclusively_is_passed_over() {
    let world = World::new();
    world.format(2);
    world.add(0, 0, 1).unwrap();
    world.add(1, 0, 1).unwrap();
    let held = world.pool.write(page(0)).unwrap();
    assert_eq!(world.pool.write_back(&[page(0), page(1), page(0), page(77)]).unwrap(), 1);
    drop(held);
    assert_eq!(world.pool.write_back(&[page(0), page(1)]).unwrap(), 1);
}

#[test]
fn a_page_that_cannot_be_written_stays_dirty_and_its_neighbours_are_written() {
    let world = World::new();
    world.format(3);
    for number in 0..3 {
        world.add(number, 0, 1).unwrap();
    }
    // The batch fails at page 0 and again alone; pages 1 and 2 alone succeed.
    world.faults.fail(Fault::new(Call::Write, "data", Failure::Eio));
    world.faults.fail(Fault::new(Call::Write, "data", Failure::Eio));
    let error = world.pool.write_back(&[page(0), page(1), page(2)]).unwrap_err();
    assert!(matches!(error, Error::Io { op: "write", .. }), "{error}");
    let stats = world.pool.stats();
    assert_eq!((stats.write_errors, stats.dirty), (1, 1));
    assert!(stats.last_write_error.unwrap().contains("data"));
    assert!(!world.health.is_poisoned());
    world.flush();
    assert_eq!(world.pool.stats().dirty, 0);
}

#[test]
fn eviction_survives_a_page_that_cannot_be_written() {
    let world = World::new();
    world.format(40);
    world.add(0, 0, 5).unwrap();
    world.faults.fail(Fault::new(Call::Write, "data", Failure::Eio).forever());
    for number in 1..40 {
        drop(world.pool.read(page(number)).unwrap());
    }
    world.faults.heal();
    assert_eq!(world.value(0, 0), 5);
    world.flush();
}

#[test]
fn a_pool_of_pages_that_cannot_be_written_says_why() {
    let world = World::new();
    world.format(40);
    for number in 0..16 {
        world.add(number, 0, 1).unwrap();
    }
    world.faults.fail(Fault::new(Call::Write, "data", Failure::Eio).forever());
    let error = world.pool.read(page(30)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Io { op: "write", .. }), "{error}");
    world.faults.heal();
    assert_eq!(world.value(30, 0), 0);
}

#[test]
fn a_failed_sync_keeps_the_table_and_poisons() {
    let world = World::new();
    world.format(1);
    let lsn = world.add(0, 0, 1).unwrap();
    world.pool.write_back(&[page(0)]).unwrap();
    world.faults.fail(Fault::new(Call::Sync, "data", Failure::Eio));
    assert!(world.pool.sync().is_err());
    assert_eq!(world.dirty(), [entry(0, lsn)]);
    assert!(world.health.is_poisoned());
    assert!(matches!(world.pool.sync(), Err(Error::Poisoned { .. })), "no retry");
}

#[test]
fn the_cleaner_writes_the_oldest_first_and_only_what_it_must() {
    let mut setup = Setup::default();
    setup.pool.batch_pages = 4;
    setup.pool.clean_percent = 25;
    let world = World::with(setup);
    world.format(16);
    let lsns: Vec<Lsn> = (0..12).map(|number| world.add(11 - number, 0, 1).unwrap()).collect();
    assert_eq!(world.pool.step(Lsn::NONE).unwrap(), 0, "a quarter of the pool is clean");
    assert_eq!(world.pool.step(lsns[2]).unwrap(), 2, "two are older than the target");
    assert!((0..2).all(|i| lsn_on_disk(&world, 11 - i) == lsns[i as usize]));
    for number in 9..16 {
        world.add(number, 0, 1).unwrap();
    }
    assert_eq!(world.pool.step(Lsn::NONE).unwrap(), 4, "too few clean frames");
    assert_eq!(lsn_on_disk(&world, 9), world.pool.read(page(9)).unwrap().page().lsn());
}

// ---- reading in

#[test]
fn a_failed_read_is_not_remembered() {
    let world = World::new();
    world.format(40);
    world.faults.fail(Fault::new(Call::Read, "data", Failure::Eio));
    assert!(matches!(world.pool.read(page(0)), Err(Error::Io { op: "read", .. })));
    assert_eq!(world.value(0, 0), 0);
    world.faults.fail(Fault::new(Call::Read, "data", Failure::Eio));
    assert!(world.pool.glimpse(page(1)).is_err());
    assert!(world.pool.glimpse(page(1)).is_ok());
    for _ in 0..50 {
        world.faults.fail(Fault::new(Call::Read, "data", Failure::Eio));
        assert!(world.pool.write(page(2)).is_err());
    }
    world.push_out(0, 40);
}

#[test]
fn pages_nobody_wrote_and_pages_beyond_the_file_are_corruption() {
    let world = World::new();
    world.format(1);
    for number in [5, 63, 64, 4095, 4096, u64::MAX] {
        for error in [
            world.pool.read(page(number)).map(|_| ()).unwrap_err(),
            world.pool.write(page(number)).map(|_| ()).unwrap_err(),
            world.pool.glimpse(page(number)).map(|_| ()).unwrap_err(),
        ] {
            let Error::Corrupt { offset, .. } = &error else { panic!("{error}") };
            assert_eq!(*offset, number.saturating_mul(SIZE));
        }
    }
    assert_eq!(world.value(0, 0), 0, "no frame was lost on the way");
}

#[test]
fn creating_reads_nothing_and_keeps_a_resident_lsn_growing() {
    let world = World::new();
    world.format(1);
    let misses = world.pool.stats().misses;
    let mut made = world.pool.create(page(1)).unwrap();
    assert_eq!(made.page().lsn(), Lsn::NONE);
    let lsn = world.change(&mut made, &format_ops());
    drop(made);
    assert_eq!(world.pool.stats().misses, misses);
    assert_eq!(world.pool.create(page(1)).unwrap().page().lsn(), lsn, "resident");
    let error = world.pool.create(page(4096)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
}

#[test]
fn a_created_page_nobody_changed_leaves_what_is_on_disk() {
    let world = World::new();
    world.format(40);
    world.add(0, 0, 9).unwrap();
    world.flush();
    world.push_out(10, 20);
    drop(world.pool.create(page(0)).unwrap());
    assert_eq!(world.value(0, 0), 9);
    drop(world.pool.create(page(50)).unwrap());
    assert!(world.pool.read(page(50)).is_err(), "still never written");
    // And no frame is lost by it.
    for _ in 0..100 {
        drop(world.pool.create(page(51)).unwrap());
    }
    world.push_out(0, 40);
}

#[test]
fn redo_may_meet_pages_that_were_never_written_or_are_torn() {
    let world = World::new();
    world.format(1);
    let fresh = world.pool.write_for_redo(page(100), false).unwrap();
    assert_eq!((fresh.page().lsn(), fresh.page().id()), (Lsn::NONE, page(100)));
    drop(fresh);
    assert!(world.pool.read(page(100)).is_err(), "for redo only");
    let file = world.disk.open("data", OpenMode::Existing).unwrap();
    file.write_all_at(&[0xEE; 512], 7 * SIZE).unwrap();
    let error = world.pool.write_for_redo(page(7), false).map(|_| ()).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    let mut torn = world.pool.write_for_redo(page(7), true).unwrap();
    assert_eq!(torn.page().lsn(), Lsn::NONE);
    world.change(&mut torn, &format_ops());
    drop(torn);
    world.flush();
    assert_eq!(world.value(7, 0), 0);
}

#[test]
fn try_write_neither_waits_nor_reads() {
    let world = World::new();
    world.format(40);
    assert!(world.pool.try_write(page(39)).unwrap().is_some());
    assert!(world.pool.try_write(page(0)).unwrap().is_none(), "not resident");
    let held = world.pool.read(page(39)).unwrap();
    assert!(world.pool.try_write(page(39)).unwrap().is_none());
    drop(held);
    assert!(world.pool.try_write(page(39)).unwrap().is_some());
}

// ---- glimpses

#[test]
fn a_glimpse_is_true_until_the_page_changes() {
    let world = World::new();
    world.format(40);
    world.add(3, 1, 7).unwrap();
    let look = world.pool.glimpse(page(3)).unwrap();
    let mut bytes = Vec::new();
    let (at, len) = look.cell(0).unwrap();
    look.copy(at, len, &mut bytes).unwrap();
    assert_eq!((look.slot_count(), look.u64(at + 8)), (Ok(1), Ok(7)));
    assert_eq!(look.compare(at, len, &bytes), Ok(std::cmp::Ordering::Equal));
    assert_eq!(counter_in(&bytes, 1), 7);
    let reader = world.pool.read(page(3)).unwrap();
    assert_eq!(look.validate(), Ok(()), "readers do not disturb it");
    assert_eq!(reader.version(), look.version());
    drop(reader);
    drop(world.pool.write(page(3)).unwrap());
    assert_eq!(look.validate(), Ok(()), "nor a writer who wrote nothing");
    let held = world.pool.write(page(3)).unwrap();
    assert_eq!(look.validate(), Err(Restart), "but while one holds the page, who knows");
    drop(held);
    world.add(3, 1, 1).unwrap();
    assert_eq!(look.validate(), Err(Restart));
    assert!(look.upgrade().is_err());
}

#[test]
fn a_glimpse_does_not_outlive_an_eviction() {
    let world = World::new();
    world.format(40);
    let look = world.pool.glimpse(page(3)).unwrap();
    world.push_out(10, 30);
    assert_eq!(look.validate(), Err(Restart));
    drop(world.pool.read(page(3)).unwrap());
    assert_eq!(look.validate(), Err(Restart), "read in again is not the same");
}

#[test]
fn a_glimpse_becomes_a_latch_only_on_the_page_it_saw() {
    let world = World::new();
    world.format(2);
    let look = world.pool.glimpse(page(0)).unwrap();
    let mut page0 = look.upgrade().unwrap();
    world.change(&mut page0, &[add_op(0, 1)]);
    drop(page0);
    let look = world.pool.glimpse(page(0)).unwrap();
    let reader = world.pool.read(page(0)).unwrap();
    assert_eq!(look.upgrade().map(|_| ()), Err(Restart), "somebody reads it");
    drop(reader);
}

// ---- images

#[test]
fn an_image_is_due_after_reading_in_and_after_every_copy() {
    let world = World::with(Setup { torn_pages: TornPages::FullPageImage, ..Setup::default() });
    let due = |number| world.pool.write(page(number)).unwrap().needs_image();
    world.format(40);
    let mut made = world.pool.create(page(40)).unwrap();
    assert!(made.needs_image());
    world.change(&mut made, &format_ops());
    assert!(!made.needs_image(), "a format is as good as an image");
    drop(made);
    assert!(due(0), "read in");
    world.add(0, 0, 1).unwrap();
    assert!(!due(0));
    world.pool.write_back(&[page(0)]).unwrap();
    assert!(due(0), "copied: the write may have torn it");
    world.add(0, 0, 1).unwrap();
    world.faults.fail(Fault::new(Call::Write, "data", Failure::Eio).forever());
    assert!(world.pool.write_back(&[page(0)]).is_err());
    assert!(due(0), "and so may a write that failed");
}

#[test]
fn other_modes_need_no_images() {
    let world = World::new();
    world.format(1);
    assert!(!world.pool.write(page(0)).unwrap().needs_image());
}

#[test]
fn the_broken_image_rule_asks_once_per_checkpoint() {
    let mutations = Mutations { image_per_checkpoint: true, ..Mutations::default() };
    let world = World::with(Setup {
        pool: pool_options(mutations),
        torn_pages: TornPages::FullPageImage,
        ..Setup::default()
    });
    world.format(1);
    let due = || world.pool.write(page(0)).unwrap().needs_image();
    world.add(0, 0, 1).unwrap();
    world.pool.write_back(&[page(0)]).unwrap();
    assert!(!due(), "broken: a torn write now finds no image");
    world.pool.begin_image_epoch();
    assert!(due());
}

// ---- bugs

#[test]
fn a_change_without_dirty_from_panics() {
    let world = World::new();
    world.format(1);
    let mut held = world.pool.write(page(0)).unwrap();
    let change = || held.apply(&[add_op(0, 1)], Lsn::new(1 << 40));
    let panic = catch_unwind(AssertUnwindSafe(change)).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("while clean"));
}

#[test]
fn a_change_that_stops_half_way_poisons_and_is_never_written() {
    let world = World::new();
    world.format(1);
    let on_disk = lsn_on_disk(&world, 0);
    let half = || {
        world
            .pool
            .write(page(0))
            .map(|mut held| world.change(&mut held, &[add_op(0, 1), PageOp::Remove { slot: 9 }]))
    };
    assert!(catch_unwind(AssertUnwindSafe(half)).is_err());
    assert!(world.health.is_poisoned());
    assert!(world.pool.write_back(&[page(0)]).is_err());
    assert_eq!(lsn_on_disk(&world, 0), on_disk);
}

#[test]
fn pools_of_impossible_size_are_refused() {
    let world = World::new();
    let health = Health::new();
    for frames in [0, 7, 1 << 30] {
        let options = PoolOptions { frames, ..PoolOptions::default() };
        let shared: Arc<dyn Disk> = Arc::new(world.disk.process_kill());
        let pager = Pager::open_read_only(shared, pager_options(&Setup::default())).unwrap();
        let pool = BufferPool::new(Arc::new(pager), world.wal.clone(), options, health.clone());
        assert!(matches!(pool.unwrap_err(), Error::Invalid { what: "frames", .. }));
    }
}

#[test]
fn every_page_of_a_larger_file_is_found_again() {
    let world = World::new();
    world.format(200);
    for number in 0..200_u64 {
        world.add(number, (number % 8) as usize, number).unwrap();
    }
    for number in (0..200).rev() {
        let read = world.pool.read(PageId::new(number)).unwrap();
        assert_eq!(read.id(), read.page().id());
        assert_eq!(counter_in(read.page().cell(0).unwrap(), (number % 8) as usize), number);
    }
    let stats = world.pool.stats();
    assert!(stats.misses > 180 && stats.evictions_dirty + stats.evictions_clean > 180, "{stats:?}");
}
