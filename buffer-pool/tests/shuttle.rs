//! Latches, eviction and the dirty page table under a scheduler that picks the interleavings.
//!
//! Run: `cargo test -p argali-buffer-pool --features shuttle --test shuttle`.
//!
//! Every load, store and swap of a latch word is a point where another thread may run; a lost wake-up is
//! a deadlock, which the scheduler reports. Loads of page *bytes* are no such points, so the models yield
//! between the two halves of whatever must be seen whole. The model knows sequential consistency only:
//! fences and orderings are for `ThreadSanitizer` and the hardware.
#![allow(clippy::unwrap_used)]

mod common;

use argali_base::disk::{Loss, OpenMode, SimDisk};
use argali_base::sync::{Arc, Mutex, thread};
use argali_base::{Disk, Lsn};
use argali_buffer_pool::{PageWrite, PoolOptions, Restart};
use argali_pager::PageOp;
use common::{Setup, World, add_op, counter_in, page};

const SCHEDULES: usize = 800;

fn world(pages: u64) -> Arc<World> {
    world_on(SimDisk::memory(), pages)
}

fn world_on(disk: SimDisk, pages: u64) -> Arc<World> {
    let setup = Setup {
        disk,
        pool: PoolOptions { frames: 8, ..PoolOptions::default() },
        ..Setup::default()
    };
    let world = World::with(setup);
    world.format(pages);
    Arc::new(world)
}

type Body = Box<dyn FnOnce(&World) + Send>;

/// Runs the bodies on a thread each, in as many interleavings as there are schedules, then `check`.
fn explore(pages: u64, bodies: fn() -> Vec<Body>, check: impl Fn(&World) + Send + Sync + 'static) {
    let check = Arc::new(check);
    let model = move || {
        let world = world(pages);
        let threads: Vec<_> = bodies()
            .into_iter()
            .map(|body| {
                let world = world.clone();
                thread::spawn("model", move || body(&world)).unwrap()
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        check(&world);
    };
    shuttle::check_random(model.clone(), SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
}

/// Adds one to both counters of a page, with a pause between the two.
fn add_pair(world: &World, latched: &mut PageWrite<'_>) {
    world.change(latched, &[add_op(0, 1)]);
    thread::yield_now();
    world.change(latched, &[add_op(1, 1)]);
}

fn write_pair(number: u64) -> Body {
    Box::new(move |world| add_pair(world, &mut world.pool.write(page(number)).unwrap()))
}

fn assert_pair(world: &World, number: u64) {
    let read = world.pool.read(page(number)).unwrap();
    let first = counter_in(read.page().cell(0).unwrap(), 0);
    thread::yield_now();
    assert_eq!(first, counter_in(read.page().cell(0).unwrap(), 1));
}

/// Two counters and the page id, looked at optimistically; `None` when it has to be tried again.
fn glimpse_pair(world: &World, number: u64) -> Option<(u64, u64)> {
    let look = world.pool.glimpse(page(number)).unwrap();
    let halves = || -> Result<_, Restart> {
        let (at, len) = look.cell(0)?;
        if len < 16 {
            return Err(Restart);
        }
        let (id, first) = (look.u64(8)?, look.u64(at)?);
        thread::yield_now();
        let second = look.u64(at + 8)?;
        look.validate()?;
        assert_eq!((id, first), (number, second), "a torn look was validated");
        Ok((first, second))
    };
    halves().ok()
}

#[test]
fn writers_exclude_each_other_and_readers() {
    explore(
        1,
        || {
            let reader: Body = Box::new(|world| assert_pair(world, 0));
            vec![write_pair(0), write_pair(0), reader, write_pair(0)]
        },
        |world| assert_eq!((world.value(0, 0), world.value(0, 1)), (3, 3)),
    );
}

#[test]
fn a_torn_look_is_never_validated() {
    explore(
        1,
        || {
            let looker = || -> Body {
                Box::new(|world| {
                    for _ in 0..3 {
                        glimpse_pair(world, 0);
                    }
                })
            };
            vec![write_pair(0), write_pair(0), looker(), looker()]
        },
        |world| assert_eq!(glimpse_pair(world, 0), Some((2, 2))),
    );
}

#[test]
fn an_upgrade_sees_what_the_glimpse_saw() {
    fn bodies() -> Vec<Body> {
        (0..3)
            .map(|_| -> Body {
                Box::new(|world| {
                    while !increment_once(world) {
                        thread::yield_now();
                    }
                })
            })
            .collect()
    }
    explore(1, bodies, |world| assert_eq!(world.value(0, 0), 3));
}

/// Adds one by glimpse and upgrade; whether it worked.
fn increment_once(world: &World) -> bool {
    let look = world.pool.glimpse(page(0)).unwrap();
    let Ok((at, _)) = look.cell(0) else { return false };
    let Ok(seen) = look.u64(at) else { return false };
    thread::yield_now();
    let Ok(mut latched) = look.upgrade() else { return false };
    let bytes = (seen + 1).to_le_bytes();
    world.change(&mut latched, &[PageOp::Patch { slot: 0, at: 0, bytes: &bytes }]);
    true
}

/// Pages 0 to 11 on 8 frames: every look may meet a frame that holds another page by now.
#[test]
fn a_look_at_an_evicted_frame_is_never_validated() {
    fn bodies() -> Vec<Body> {
        let scan = |from: u64| -> Body {
            Box::new(move |world| {
                for number in from..from + 6 {
                    drop(world.pool.read(page(number)).unwrap());
                }
            })
        };
        let look: Body = Box::new(|world| {
            for number in [0, 11, 0, 5] {
                glimpse_pair(world, number);
            }
        });
        vec![scan(0), scan(6), look, write_pair(5)]
    }
    explore(12, bodies, |world| assert_eq!(world.value(5, 1), 1));
}

/// What the dirty page table owes a checkpoint: of every change logged before the call, either the page
/// is durable in place, which a power cut shows, or its recLSN in the table is at or below the record.
#[test]
fn the_dirty_page_table_misses_nothing() {
    fn change(world: &World, logged: &Mutex<Vec<Lsn>>) {
        for _ in 0..3 {
            let mut latched = world.pool.write(page(0)).unwrap();
            let lsn = world.change(&mut latched, &[add_op(0, 1)]);
            logged.lock().push(lsn);
        }
    }
    fn clean(world: &World) {
        for _ in 0..2 {
            world.pool.write_back(&[page(0)]).unwrap();
            world.pool.sync().unwrap();
        }
    }
    fn check(world: &World, logged: &Mutex<Vec<Lsn>>) {
        let before = logged.lock().clone();
        let dirty = world.dirty();
        let durable = durable_lsn(world);
        for lsn in before.into_iter().filter(|lsn| *lsn > durable) {
            assert!(
                dirty.iter().any(|entry| entry.rec_lsn <= lsn),
                "{lsn} is neither durable (up to {durable}) nor in {dirty:?}"
            );
        }
    }
    let model = || {
        let world = world_on(SimDisk::new(7), 1);
        let logged = Arc::new(Mutex::new(Vec::new()));
        let spawn = |body: fn(&World, &Mutex<Vec<Lsn>>)| {
            let (world, logged) = (world.clone(), logged.clone());
            thread::spawn("model", move || body(&world, &logged)).unwrap()
        };
        let threads =
            [spawn(change), spawn(|world, _| clean(world)), spawn(|world, _| clean(world))];
        for _ in 0..8 {
            check(&world, &logged);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        check(&world, &logged);
        assert_eq!(world.value(0, 0), 3);
    };
    shuttle::check_random(model, SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
}

/// The LSN page 0 has if power fails now.
fn durable_lsn(world: &World) -> Lsn {
    let cut = world.disk.power_cut(Loss::LoseAll);
    let file = cut.open("data", OpenMode::ReadOnly).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 16).unwrap();
    Lsn::new(u64::from_le_bytes(bytes))
}

/// Write-backs of one page, eviction's and the checkpoint's, never pass each other.
#[test]
fn write_backs_of_a_page_do_not_overtake_each_other() {
    fn bodies() -> Vec<Body> {
        let write_back = || -> Body {
            Box::new(|world| {
                for _ in 0..2 {
                    world.pool.write_back(&[page(0)]).unwrap();
                }
            })
        };
        vec![write_pair(0), write_pair(0), write_back(), write_back()]
    }
    explore(1, bodies, |world| {
        world.flush();
        let mut buf = argali_pager::PageBuf::new(world.pool.pager().options().page_size);
        world.pool.pager().read(page(0), &mut buf).unwrap();
        assert_eq!(counter_in(buf.page().cell(0).unwrap(), 0), 2);
    });
}
