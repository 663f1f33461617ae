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

use argali_base::disk::SimDisk;
use argali_base::sync::{Arc, AtomicU64, Mutex, Ordering, thread};
use argali_base::{Lsn, PageId};
use argali_buffer_pool::{BufferPool, PageWrite, PoolOptions, Restart};
use argali_pager::PageOp;
use common::{Setup, World, add_op, counter_in, page};

const SCHEDULES: usize = 800;

fn world(pages: u64) -> Arc<World> {
    let setup = Setup {
        disk: SimDisk::memory(),
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
/// is durable in place, or its recLSN in the table is at or below the record.
#[test]
fn the_dirty_page_table_misses_nothing() {
    static ROUNDS: u64 = 2;
    fn change(world: &World, logged: &Mutex<Vec<Lsn>>) {
        for _ in 0..ROUNDS {
            let mut latched = world.pool.write(page(0)).unwrap();
            let lsn = world.change(&mut latched, &[add_op(0, 1)]);
            logged.lock().push(lsn);
        }
    }
    /// Writes back and syncs; the LSN known durable is published before the sync can end.
    fn clean(pool: &BufferPool, durable: &AtomicU64) {
        for _ in 0..ROUNDS {
            pool.write_back(&[PageId::new(0)]).unwrap();
            let mut buf = argali_pager::PageBuf::new(pool.pager().options().page_size);
            pool.pager().read(PageId::new(0), &mut buf).unwrap();
            // What is in place now will be durable when the sync below ends.
            durable.fetch_max(buf.page().lsn().get(), Ordering::SeqCst);
            pool.sync().unwrap();
        }
    }
    let model = || {
        let world = world(1);
        let logged = Arc::new(Mutex::new(Vec::new()));
        let durable = Arc::new(AtomicU64::new(0));
        let writer = {
            let (world, logged) = (world.clone(), logged.clone());
            thread::spawn("writer", move || change(&world, &logged)).unwrap()
        };
        let cleaner = {
            let (world, durable) = (world.clone(), durable.clone());
            thread::spawn("cleaner", move || clean(&world.pool, &durable)).unwrap()
        };
        for _ in 0..3 {
            let before = logged.lock().clone();
            let dirty = world.dirty();
            let durable = Lsn::new(durable.load(Ordering::SeqCst));
            for lsn in before.into_iter().filter(|lsn| *lsn > durable) {
                assert!(
                    dirty.iter().any(|entry| entry.rec_lsn <= lsn),
                    "{lsn} is neither durable (up to {durable}) nor in {dirty:?}"
                );
            }
        }
        writer.join().unwrap();
        cleaner.join().unwrap();
        assert_eq!(world.value(0, 0), ROUNDS);
    };
    shuttle::check_random(model, SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
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
