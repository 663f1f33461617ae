//! Pages read in passing: a scan leaves the pool as it found it.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

mod common;

use argali_base::PageId;
use common::{World, page};

/// A long scan reads through a pool of sixteen frames; eight pages in it were used before and stay.
#[test]
fn a_scan_that_lets_go_leaves_the_pages_in_use_resident() {
    let world = World::new();
    world.format(1000);
    world.push_out(0, 8);
    let misses = || world.pool.stats().misses;
    let before = misses();
    for number in 8..1000 {
        drop(world.pool.read_passing(page(number)).unwrap());
        world.pool.let_go(page(number));
    }
    assert!(misses() > before + 970, "the scan read its pages in: {} of 992", misses() - before);
    assert!((0..8).all(|number| world.pool.is_resident(page(number))));
    // Read the usual way, the same scan takes every frame.
    world.push_out(8, 992);
    assert!((0..8).all(|number| !world.pool.is_resident(page(number))));
}

#[test]
fn letting_go_of_a_page_that_is_held_changed_or_used_does_nothing() {
    let world = World::new();
    world.format(100);
    world.push_out(50, 50);
    let held = world.pool.read_passing(page(1)).unwrap();
    world.pool.let_go(page(1));
    assert!(world.pool.is_resident(page(1)), "held");
    drop(held);
    world.add(2, 0, 1).unwrap();
    drop(world.pool.read_passing(page(3)).unwrap());
    drop(world.pool.read(page(3)).unwrap());
    drop(world.pool.read_passing(page(4)).unwrap());
    for number in 2..=4 {
        world.pool.let_go(page(number));
    }
    assert!(world.pool.is_resident(page(2)), "dirty");
    assert!(world.pool.is_resident(page(3)), "used by somebody who did not just pass");
    assert!(!world.pool.is_resident(page(4)));
    world.pool.let_go(page(4));
    world.pool.let_go(PageId::new(u64::MAX));
    assert_eq!(world.value(2, 0), 1);
}
