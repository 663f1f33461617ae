//! Real threads on a pool far smaller than its data: counters tell whether a change was lost, made
//! twice or seen half.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use argali_base::{Error, Health, Lsn};
use argali_buffer_pool::{PoolOptions, Restart};
use argali_pager::{Pager, TornPages};
use common::{COUNTERS, Setup, World, add_op, counter_in, page, pager_options};

const PAGES: u64 = 64;
const TIME: Duration = Duration::from_millis(1500);

/// Adds one to two counters of a page that are always equal when nobody writes.
fn write_pair(world: &World, number: u64, added: &AtomicU64) -> Result<(), Error> {
    let mut page = world.pool.write(page(number))?;
    world.change(&mut page, &[add_op(0, 1)]);
    world.change(&mut page, &[add_op(1, 1)]);
    added.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Latches several pages in ascending order, as structure changes do, and changes them all.
fn write_several(world: &World, first: u64, added: &AtomicU64) -> Result<(), Error> {
    let ids = (0..4).map(|i| first + i).filter(|id| *id < PAGES);
    let mut pages = ids.map(|id| world.pool.write(page(id))).collect::<Result<Vec<_>, _>>()?;
    for page in &mut pages {
        world.change(page, &[add_op(0, 1), add_op(1, 1)]);
        added.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn read_pair(world: &World, number: u64) -> Result<(), Error> {
    let read = world.pool.read(page(number))?;
    let cell = read.page().cell(0).unwrap();
    assert_eq!(counter_in(cell, 0), counter_in(cell, 1), "a shared latch let a writer in");
    Ok(())
}

fn glimpse_pair(world: &World, number: u64) -> Result<Option<(u64, u64, u64)>, Error> {
    let look = world.pool.glimpse(page(number))?;
    let pair = || -> Result<_, Restart> {
        let (at, len) = look.cell(0)?;
        if len != COUNTERS * 8 {
            return Err(Restart);
        }
        let seen = (look.u64(8)?, look.u64(at)?, look.u64(at + 8)?);
        look.validate()?;
        Ok(seen)
    };
    Ok(pair().ok())
}

fn work(world: &World, seed: u64, added: &AtomicU64, looks: &AtomicU64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        let number = random.u64(..PAGES);
        let done = match random.u8(..10) {
            0..3 => write_pair(world, number, added),
            3 => write_several(world, number, added),
            4..6 => read_pair(world, number),
            _ => glimpse_pair(world, number).map(|seen| {
                if let Some((id, a, b)) = seen {
                    assert_eq!((id, a), (number, b), "a torn look at page {number} was validated");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            }),
        };
        match done {
            Ok(()) | Err(Error::PoolExhausted { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// Cleaner, checkpointer and the check that the dirty page table misses nothing.
fn clean(world: &World, stop: &AtomicBool) {
    let mut dirty = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let tail = world.wal.tail();
        world.pool.step(tail).unwrap();
        world.pool.dirty_pages(&mut dirty);
        assert!(dirty.windows(2).all(|pair| pair[0].page < pair[1].page));
        world.pool.sync().unwrap();
    }
}

fn hammer(torn_pages: TornPages) {
    let mut setup = Setup { torn_pages, ..Setup::default() };
    // No history of un-synced writes: this disk is not cut.
    setup.disk = argali_base::disk::SimDisk::memory();
    let world = World::with(setup.clone());
    world.format(PAGES);
    let (added, looks, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| clean(&world, &stop));
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                let (world, added, looks) = (&world, &added, &looks);
                scope.spawn(move || work(world, seed, added, looks))
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    world.flush();
    let stats = world.pool.stats();
    assert!(stats.evictions_clean + stats.evictions_dirty > 100, "{stats:?}");
    assert!(looks.into_inner() > 100, "glimpses must succeed, too");
    assert_eq!(stats.dirty, 0);
    assert_eq!(sum_on_disk(&setup), added.into_inner(), "{stats:?}");
}

/// What the data file says, read without the pool.
fn sum_on_disk(setup: &Setup) -> u64 {
    let disk = std::sync::Arc::new(setup.disk.clone());
    let pager = Pager::open(disk, pager_options(setup), Health::new()).unwrap();
    let mut buf = argali_pager::PageBuf::new(pager.options().page_size);
    let mut sum = 0;
    for number in 0..PAGES {
        pager.read(page(number), &mut buf).unwrap();
        let cell = buf.page().cell(0).unwrap();
        assert_eq!(counter_in(cell, 0), counter_in(cell, 1));
        assert_eq!(buf.page().check(), Ok(()));
        sum += counter_in(cell, 0);
    }
    sum
}

#[test]
fn no_change_is_lost_or_seen_half() {
    hammer(TornPages::None);
}

#[test]
fn no_change_is_lost_through_the_double_write_file() {
    hammer(TornPages::DoubleWrite);
}

#[test]
fn a_pool_that_is_wholly_latched_says_so_and_recovers() {
    let world = World::new();
    world.format(32);
    let held: Vec<_> = (0..16).map(|number| world.pool.write(page(number)).unwrap()).collect();
    let error = world.pool.read(page(20)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::PoolExhausted { frames: 16 }), "{error}");
    drop(held);
    assert_eq!(world.value(20, 0), 0);
}

#[test]
fn waiting_for_a_frame_ends_when_one_is_given_back() {
    let world = World::new();
    world.format(32);
    let mut held: Vec<_> = (0..16).map(|number| world.pool.write(page(number)).unwrap()).collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| world.value(20, 0));
        std::thread::sleep(Duration::from_millis(100));
        held.pop();
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn many_readers_and_few_writers_of_one_page_all_get_through() {
    let world = World::with(Setup {
        pool: PoolOptions { frames: 8, ..PoolOptions::default() },
        ..Setup::default()
    });
    world.format(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    read_pair(&world, 0).unwrap();
                }
            });
        }
        // Would hang for ever if readers could starve a writer.
        for _ in 0..2000 {
            let mut page = world.pool.write(page(0)).unwrap();
            world.change(&mut page, &[add_op(0, 1), add_op(1, 1)]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.value(0, 0), 2000);
    assert!(world.wal.tail() > Lsn::FIRST);
}
