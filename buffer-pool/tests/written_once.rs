//! Which pages are written without a copy on the side.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

mod common;

use argali_pager::TornPages;
use common::{Setup, World, format_ops, page};

#[test]
fn a_page_is_written_once_while_its_rec_lsn_is_that_of_its_format() {
    let world = World::with(Setup { torn_pages: TornPages::DoubleWrite, ..Setup::default() });
    let written = |world: &World| {
        let (pool, pager) = (world.pool.stats(), world.pool.pager().stats());
        (pool.written_back, pool.written_once, pager.doublewrites)
    };
    world.format(4);
    assert_eq!(written(&world), (4, 4, 0), "new pages");
    world.add(0, 0, 1).unwrap();
    world.flush();
    assert_eq!(written(&world), (5, 4, 1), "a change of what is in place");
    world.change(&mut world.pool.write(page(1)).unwrap(), &format_ops());
    world.add(1, 0, 1).unwrap();
    world.add(2, 0, 1).unwrap();
    world.change(&mut world.pool.write(page(2)).unwrap(), &format_ops());
    world.flush();
    assert_eq!(written(&world), (7, 5, 2), "overwritten first; changed first");
    assert_eq!((world.value(1, 0), world.value(2, 0)), (1, 0));
}
