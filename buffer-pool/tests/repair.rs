//! What the pool does with a page that is damaged on disk, whoever rebuilds it.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argali_base::disk::OpenMode;
use argali_base::{Disk, Error, Lsn};
use argali_pager::{Found, PageBuf};
use argali_wal::{DirtyPage, Holder, Wal};
use common::{World, counter_in, page};

const BAD: u64 = 3;

/// Pages with a counter of 5 each, none of them resident; page `BAD` is damaged on disk.
fn damaged() -> (World, Vec<u8>) {
    let world = World::new();
    world.format(40);
    world.add(BAD, 0, 5).unwrap();
    world.flush();
    world.push_out(20, 16);
    let file = world.disk.open("data", OpenMode::Existing).unwrap();
    let mut whole = vec![0; 4096];
    file.read_exact_at(&mut whole, BAD * 4096).unwrap();
    file.write_all_at(&[0xEE; 8], BAD * 4096 + 4000).unwrap();
    (world, whole)
}

/// Rebuilds by copying what was there; redo would begin at `rec_lsn`.
fn repair_with(world: &World, whole: &[u8], rec_lsn: Lsn) -> Arc<AtomicU64> {
    let (whole, called) = (whole.to_vec(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&called);
    world.pool.set_repair(Arc::new(move |id, damage, into: &mut PageBuf| {
        assert_eq!(id, page(BAD));
        assert!(damage.is_corruption(), "{damage}");
        counter.fetch_add(1, Ordering::Relaxed);
        into.bytes_mut().copy_from_slice(&whole);
        Ok(rec_lsn)
    }));
    called
}

fn on_disk(world: &World) -> Result<Found, Error> {
    let mut buf = PageBuf::new(world.pool.pager().options().page_size);
    world.pool.pager().read(page(BAD), &mut buf)
}

#[test]
fn a_rebuilt_page_is_given_to_the_reader_and_is_dirty_from_where_its_history_begins() {
    let (world, whole) = damaged();
    let rec_lsn = Lsn::new(72);
    let called = repair_with(&world, &whole, rec_lsn);
    assert_eq!(world.value(BAD, 0), 5);
    assert_eq!(world.dirty(), [DirtyPage { page: page(BAD), rec_lsn }]);
    world.add(BAD, 0, 1).unwrap();
    assert_eq!(world.dirty(), [DirtyPage { page: page(BAD), rec_lsn }], "still from there");
    world.flush();
    assert_eq!(on_disk(&world).unwrap(), Found::Page);
    assert_eq!((called.load(Ordering::Relaxed), world.pool.stats().pages_repaired), (1, 1));
}

#[test]
fn every_way_to_a_page_leads_past_the_repairer() {
    for way in 0..4 {
        let (world, whole) = damaged();
        let called = repair_with(&world, &whole, Lsn::new(72));
        let (pool, id) = (&world.pool, page(BAD));
        let mut buf = PageBuf::new(pool.pager().options().page_size);
        match way {
            0 => drop(pool.read(id).unwrap()),
            1 => drop(pool.write(id).unwrap()),
            2 => drop(pool.glimpse(id).unwrap()),
            _ => assert_eq!(pool.copy(id, &mut buf).unwrap(), Found::Page),
        }
        assert_eq!(called.load(Ordering::Relaxed), 1, "way {way}");
        assert_eq!(counter_in(pool.read(id).unwrap().page().cell(0).unwrap(), 0), 5);
    }
}

#[test]
fn a_page_of_zeros_that_a_pointer_leads_to_is_damaged_too() {
    let (world, whole) = damaged();
    let file = world.disk.open("data", OpenMode::Existing).unwrap();
    file.write_all_at(&[0; 4096], BAD * 4096).unwrap();
    repair_with(&world, &whole, Lsn::new(72));
    assert_eq!(world.value(BAD, 0), 5);
}

/// A checkpoint that ends while the page is being rebuilt must not take the log away: neither while it is
/// read nor before the dirty page table knows the page.
#[test]
fn the_log_is_held_until_the_page_is_in_the_dirty_page_table() {
    fn truncate(wal: &Wal) -> Lsn {
        wal.truncate(vec![Holder { what: "redo point".into(), lsn: wal.tail() }]).unwrap()
    }
    let (world, whole) = damaged();
    let (wal, held) = (Arc::clone(&world.wal), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&held);
    world.pool.set_repair(Arc::new(move |_, _, into: &mut PageBuf| {
        into.bytes_mut().copy_from_slice(&whole);
        seen.store(truncate(&wal).get(), Ordering::Relaxed);
        let holders = wal.stats().holders;
        assert!(holders.iter().any(|holder| holder.what == "repair of p3"), "{holders:?}");
        Ok(Lsn::new(72))
    }));
    assert_eq!(world.value(BAD, 0), 5);
    assert_eq!(held.load(Ordering::Relaxed), Lsn::FIRST.get(), "nothing was truncated");
    assert_eq!(truncate(&world.wal), world.wal.tail(), "and now nobody holds it");
}

#[test]
fn what_cannot_be_rebuilt_is_an_error_and_costs_no_frame() {
    let (world, _) = damaged();
    assert!(world.pool.read(page(BAD)).unwrap_err().is_corruption(), "nobody to ask");
    let beyond = || Error::corrupt("data", BAD * 4096, None, "beyond repair");
    world.pool.set_repair(Arc::new(move |_, _, _: &mut PageBuf| Err(beyond())));
    for _ in 0..100 {
        let error = world.pool.read(page(BAD)).unwrap_err();
        assert!(error.to_string().contains("beyond repair"), "{error}");
    }
    world.push_out(20, 16);
    assert_eq!(world.pool.stats().pages_repaired, 0);
    assert_eq!(world.dirty(), []);
}

#[test]
fn a_page_that_is_whole_in_its_frame_is_mended_from_there() {
    let (world, _) = damaged();
    let good = page(21);
    drop(world.pool.read(good).unwrap());
    let file = world.disk.open("data", OpenMode::Existing).unwrap();
    file.write_all_at(&[0xEE; 8], 21 * 4096 + 4000).unwrap();
    world.pool.mend(good).unwrap();
    let mut buf = PageBuf::new(world.pool.pager().options().page_size);
    assert_eq!(world.pool.pager().read(good, &mut buf).unwrap(), Found::Page);
    assert_eq!(world.pool.stats().pages_repaired, 1);
}
