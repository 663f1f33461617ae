//! What a heap promises: room found and given back, ids kept, readers kept apart from writers.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use argali_access::{Heap, HeapScan, RowId, Space};
use argali_base::{Error, PageId};
use argali_txn::{Durability, Isolation, Txn};
use common::{Setup, World, row, rows};

const LEVELS: [Isolation; 3] =
    [Isolation::Serializable, Isolation::RepeatableRead, Isolation::ReadCommitted];

fn commit(txn: Txn) {
    txn.commit(Durability::Sync).unwrap();
}

/// `count` committed rows of `len` bytes.
fn fill(world: &World, heap: &Heap, count: usize, len: usize) -> Vec<RowId> {
    let mut txn = world.begin();
    let ids = (0..count).map(|n| heap.insert(&mut txn, &vec![n as u8; len]).unwrap()).collect();
    commit(txn);
    ids
}

fn delete_all<'a>(heap: &Heap, txn: &mut Txn, ids: impl IntoIterator<Item = &'a RowId>) {
    for id in ids {
        heap.delete(txn, *id).unwrap();
    }
}

/// The heap as another opening finds it: memory knows nothing of its room.
fn reopened(world: &World, heap: &Heap) -> Heap {
    Heap::open(&Space::open(&world.txns).unwrap(), heap.root())
}

#[test]
fn a_row_of_every_size_fits_and_a_larger_one_is_refused() {
    let world = World::new();
    let heap = world.heap();
    assert_eq!(heap.row_bytes_max(), 4096 - 64 - 8 - 13);
    let mut txn = world.begin();
    for len in (0..heap.row_bytes_max()).step_by(97).chain([heap.row_bytes_max()]) {
        let id = heap.insert(&mut txn, &vec![7; len]).unwrap();
        assert_eq!(row(&heap, &mut txn, id), Some(vec![7; len]));
        // Away from home the header is longer, and the largest row still fits.
        heap.update(&mut txn, id, &vec![8; heap.row_bytes_max()]).unwrap();
        heap.update(&mut txn, id, &vec![9; len]).unwrap();
        assert_eq!(row(&heap, &mut txn, id), Some(vec![9; len]));
    }
    let large = vec![0; heap.row_bytes_max() + 1];
    let error = heap.insert(&mut txn, &large).unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "row", limit: 4011, .. }), "{error}");
    commit(txn);
    world.verify_heap(&heap);
}

#[test]
fn directories_grow_upward_and_numbers_lead_where_they_led() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 600, 3900);
    let stats = world.verify_heap(&heap);
    assert_eq!((stats.row_pages, stats.pages), (600, 600 + 4), "a root above three directories");
    let pages: Vec<PageId> = ids.iter().map(|id| id.page).collect();
    let scanned: Vec<_> = rows(&heap, &mut world.begin()).unwrap();
    assert_eq!(scanned.iter().map(|(id, _)| id.page).collect::<Vec<_>>(), pages, "as added");
}

/// 237 × 237 pages and one more: `cargo test --release -p argali-access --test heap -- --ignored`.
#[test]
#[ignore = "writes 230 MB into memory"]
fn directories_grow_to_a_third_level() {
    let world = World::with(&Setup { frames: 256, ..Setup::default() });
    let heap = world.heap();
    for _ in 0..57 {
        fill(&world, &heap, 1000, 3900);
    }
    let stats = world.verify_heap(&heap);
    assert_eq!(stats.row_pages, 57_000);
    assert_eq!(stats.pages, 57_000 + 241 + 2 + 1);
}

/// An insert right after an open reads a directory for each level and the page it goes to.
#[test]
fn an_insert_into_a_large_heap_reads_a_few_pages_right_after_an_open() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 2000, 3900);
    let mut txn = world.begin();
    heap.delete(&mut txn, ids[1500]).unwrap();
    commit(txn);
    world.relist();
    for len in [3900, 100] {
        let heap = reopened(&world, &heap);
        let mut txn = world.begin();
        world.pool.read(PageId::new(0)).unwrap();
        let before = world.pool.stats();
        let id = heap.insert(&mut txn, &vec![1; len]).unwrap();
        let after = world.pool.stats();
        let looked = after.hits + after.misses - before.hits - before.misses;
        assert!(looked < 30, "{looked} pages looked at for {len} bytes");
        if len == 3900 {
            assert_eq!(id.page, ids[1500].page, "the one page with room, found by its entry");
        }
        commit(txn);
    }
    world.verify_heap(&heap);
}

#[test]
fn room_of_deleted_rows_is_used_again_after_the_commit_and_after_an_open() {
    let world = World::new();
    let heap = world.heap();
    let mut ids = fill(&world, &heap, 400, 500);
    let pages = world.verify_heap(&heap).pages;
    for round in 0..6 {
        let mut txn = world.begin();
        delete_all(&heap, &mut txn, &ids);
        commit(txn);
        world.relist();
        let heap = if round % 2 == 0 { heap.clone() } else { reopened(&world, &heap) };
        ids = fill(&world, &heap, 400, 500);
        let stats = world.verify_heap(&heap);
        assert_eq!((stats.pages, stats.rows), (pages, 400), "round {round}");
    }
}

#[test]
fn room_of_an_aborted_load_is_used_again() {
    let world = World::new();
    let heap = world.heap();
    let mut used = BTreeSet::new();
    for _ in 0..4 {
        let mut txn = world.begin();
        for n in 0..300_u64 {
            heap.insert(&mut txn, &vec![n as u8; 400]).unwrap();
        }
        txn.abort().unwrap();
        world.relist();
        let stats = world.verify_heap(&heap);
        assert_eq!((stats.rows, stats.ghosts), (0, 0), "an undone insert leaves nothing");
        used.insert(stats.pages);
    }
    assert_eq!(used.len(), 1, "the heap grew: {used:?}");
}

/// Wrong hints, in both directions, cost a look and are corrected.
#[test]
fn nothing_depends_on_the_listed_room() {
    let world = World::new();
    let heap = world.heap();
    fill(&world, &heap, 300, 600);
    let truth = world.verify_heap(&heap);
    for class in [0, 16] {
        list_all(&world, &heap, class);
        let stats = world.verify_heap(&heap);
        assert!(stats.listed_low + stats.listed_high > 40, "{stats:?}");
        let heap = reopened(&world, &heap);
        let ids = fill(&world, &heap, 60, 600);
        let stats = world.verify_heap(&heap);
        assert_eq!(stats.rows, truth.rows + 60);
        let mut txn = world.begin();
        delete_all(&heap, &mut txn, &ids);
        commit(txn);
        // A scan meets every page and notes what is wrong.
        rows(&heap, &mut world.begin()).unwrap();
        let mut system = world.txns.begin_system().unwrap();
        let space = Space::open(&world.txns).unwrap();
        let again = Heap::open(&space, heap.root());
        rows(&again, &mut system).unwrap();
        commit(system);
        while Heap::relist_step(&space, &world.txns).unwrap() {}
        let stats = world.verify_heap(&heap);
        assert_eq!((stats.listed_low, stats.listed_high), (0, 0));
    }
}

/// Lists every page with `class`, as a crash at the worst moment might have left it.
fn list_all(world: &World, heap: &Heap, class: u8) {
    use argali_pager::PageOp;
    use argali_txn::{Edit, Undo};
    let mut txn = world.txns.begin_system().unwrap();
    let count = world.pool.read(heap.root()).unwrap().page().slot_count();
    for slot in 0..count as u16 {
        txn.admit(64, 1).unwrap();
        let mut page = world.pool.write(heap.root()).unwrap();
        let ops = [PageOp::Patch { slot, at: 0, bytes: &[class] }];
        txn.update(&mut [Edit { page: &mut page, ops: &ops }], Undo::Never);
    }
    commit(txn);
}

/// Every page promises room that only comes free when a long transaction ends: inserts must not try them
/// all, each time.
#[test]
fn a_long_deleter_does_not_slow_inserts_down() {
    let world = World::with(&Setup { frames: 64, ..Setup::default() });
    let heap = world.heap();
    let ids = fill(&world, &heap, 2000, 500);
    let mut long = world.begin();
    delete_all(&heap, &mut long, &ids);
    world.relist();
    let before = world.pool.stats();
    fill(&world, &heap, 700, 500);
    let after = world.pool.stats();
    let looked = (after.hits + after.misses - before.hits - before.misses) / 700;
    assert!(looked < 40, "{looked} pages looked at for each insert");
    long.abort().unwrap();
    assert_eq!(world.verify_heap(&heap).rows, 2700);
}

/// What a transaction deleted or shrank is its room until it ends, however hard others press for it.
#[test]
fn undo_of_deletes_and_shrinks_always_fits() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 60, 600);
    let before = rows(&heap, &mut world.begin()).unwrap();
    let mut loser = world.begin();
    for (n, id) in ids.iter().enumerate() {
        match n % 3 {
            0 => heap.delete(&mut loser, *id).unwrap(),
            1 => heap.update(&mut loser, *id, b"").unwrap(),
            _ => heap.update(&mut loser, *id, &[5; 3000]).unwrap(),
        }
    }
    let others = fill(&world, &heap, 200, 300);
    loser.abort().unwrap();
    world.verify_heap(&heap);
    let others: BTreeSet<_> = others.into_iter().collect();
    let after = rows(&heap, &mut world.begin()).unwrap();
    let after: Vec<_> = after.into_iter().filter(|(id, _)| !others.contains(id)).collect();
    assert_eq!(after, before);
}

#[test]
fn an_id_is_not_used_again_while_a_rollback_or_a_reader_wants_it() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 3, 100);
    // The deleter has not ended.
    let mut deleter = world.begin();
    heap.delete(&mut deleter, ids[1]).unwrap();
    let mut other = world.begin();
    assert_ne!(heap.insert(&mut other, b"x").unwrap(), ids[1]);
    commit(other);
    commit(deleter);
    // A reader found nothing there and relies on it.
    let mut reader = world.begin();
    assert_eq!(row(&heap, &mut reader, ids[1]), None);
    let fresh: BTreeSet<_> = fill(&world, &heap, 100, 100).into_iter().collect();
    assert!(!fresh.contains(&ids[1]));
    assert_eq!(row(&heap, &mut reader, ids[1]), None);
    commit(reader);
    // Now nobody does; when the page has room again, the id is taken.
    let mut txn = world.begin();
    delete_all(&heap, &mut txn, &fresh);
    commit(txn);
    world.relist();
    let mut txn = world.begin();
    let again: Vec<_> = (0..120).map(|_| heap.insert(&mut txn, &[1; 100]).unwrap()).collect();
    assert!(again.contains(&ids[1]), "free at last");
    commit(txn);
    world.verify_heap(&heap);
}

#[test]
fn a_slot_that_is_barred_at_the_end_of_every_page_is_waited_for() {
    let world = World::new();
    let heap = world.heap();
    fill(&world, &heap, 1, 10);
    let mut reader = world.begin();
    for page in 0..50 {
        for slot in 0..3 {
            assert!(
                row(&heap, &mut reader, RowId { page: PageId::new(page), slot }).is_none()
                    || slot == 0
            );
        }
    }
    let mut hasty = world.hasty(Isolation::Serializable);
    let error = heap.insert(&mut hasty, b"x").unwrap_err();
    assert!(matches!(error, Error::LockTimeout { .. }), "{error}");
    hasty.abort().unwrap();
    commit(reader);
    fill(&world, &heap, 1, 10);
    world.verify_heap(&heap);
}

#[test]
fn nobody_sees_uncommitted_rows_at_any_level() {
    for level in LEVELS {
        let world = World::new();
        let heap = world.heap();
        let ids = fill(&world, &heap, 4, 100);
        let mut writer = world.begin();
        heap.update(&mut writer, ids[0], b"dirty").unwrap();
        heap.update(&mut writer, ids[1], &[9; 4000]).unwrap();
        heap.delete(&mut writer, ids[2]).unwrap();
        let new = heap.insert(&mut writer, b"new").unwrap();
        for id in [ids[0], ids[1], ids[2], new] {
            let mut reader = world.hasty(level);
            let error = heap.get(&mut reader, id, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, Error::LockTimeout { .. }), "{level:?}: {error}");
        }
        let error = rows(&heap, &mut world.hasty(level)).unwrap_err();
        assert!(matches!(error, Error::LockTimeout { .. }), "{level:?}: {error}");
        assert_eq!(row(&heap, &mut world.hasty(level), ids[3]), Some(vec![3; 100]));
        writer.abort().unwrap();
        assert_eq!(rows(&heap, &mut world.hasty(level)).unwrap().len(), 4);
        world.verify_heap(&heap);
    }
}

#[test]
fn what_was_read_stays_so_as_the_level_says() {
    for level in LEVELS {
        let world = World::new();
        let heap = world.heap();
        let ids = fill(&world, &heap, 3, 100);
        let mut reader = world.begin_at(level);
        assert_eq!(rows(&heap, &mut reader).unwrap().len(), 3);
        let mut writer = world.hasty(Isolation::Serializable);
        let changed = heap.update(&mut writer, ids[0], b"changed");
        writer.abort().unwrap();
        assert_eq!(changed.is_ok(), level == Isolation::ReadCommitted, "{level:?}");
        let mut writer = world.hasty(Isolation::Serializable);
        let added = heap.insert(&mut writer, b"phantom");
        writer.abort().unwrap();
        assert_eq!(added.is_ok(), level != Isolation::Serializable, "{level:?}");
        assert_eq!(rows(&heap, &mut reader).unwrap().len(), 3);
    }
}

/// Rows that the scanning transaction moves away and back while it scans are met once.
#[test]
fn a_scan_sees_each_row_once_while_rows_move() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 100, 300);
    let mut txn = world.begin();
    let (mut scan, mut row, mut seen) = (HeapScan::default(), Vec::new(), Vec::new());
    while let Some(id) = heap.next(&mut txn, &mut scan, &mut row).unwrap() {
        seen.push(id);
        heap.update(&mut txn, id, &[1; 2000]).unwrap();
        let ahead = ids[(seen.len() * 37) % 100];
        heap.update(&mut txn, ahead, &[2; 1500]).unwrap();
        assert!(seen.len() <= 100, "the scan runs after what it moves");
    }
    assert_eq!(seen, ids);
    commit(txn);
    let stats = world.verify_heap(&heap);
    assert!(stats.moved > 50, "{stats:?}");
}

#[test]
fn a_row_that_has_moved_comes_home_when_there_is_room() {
    let world = World::new();
    let heap = world.heap();
    let ids = fill(&world, &heap, 8, 450);
    let mut txn = world.begin();
    heap.update(&mut txn, ids[0], &[1; 2000]).unwrap();
    commit(txn);
    assert_eq!(world.verify_heap(&heap).moved, 1);
    let mut txn = world.begin();
    delete_all(&heap, &mut txn, &ids[1..]);
    commit(txn);
    // Its present page must be too full for what it becomes.
    fill(&world, &heap, 8, 230);
    let mut txn = world.begin();
    heap.update(&mut txn, ids[0], &[2; 2900]).unwrap();
    commit(txn);
    let stats = world.verify_heap(&heap);
    assert_eq!((stats.moved, stats.rows), (0, 9));
    assert_eq!(row(&heap, &mut world.begin(), ids[0]), Some(vec![2; 2900]));
}

#[test]
fn a_full_data_file_says_so_and_nothing_is_lost() {
    let world = World::with(&Setup { pages_max: 64, ..Setup::default() });
    let heap = world.heap();
    let mut txn = world.begin();
    let mut count = 0;
    let error = loop {
        match heap.insert(&mut txn, &[1; 700]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    commit(txn);
    let stats = world.verify_heap(&heap);
    assert_eq!(stats.rows, count);
    assert!(stats.pages > 55, "{stats:?}");
    // An abort needs no page.
    let mut txn = world.begin();
    for (id, _) in rows(&heap, &mut txn).unwrap() {
        heap.update(&mut txn, id, b"short").unwrap();
    }
    txn.abort().unwrap();
    assert_eq!(world.verify_heap(&heap).bytes, count * 700);
}

/// A scan of a heap much larger than the pool leaves the pages in use where they are.
#[test]
fn a_long_scan_leaves_the_hot_pages_resident() {
    let world = World::with(&Setup { frames: 32, ..Setup::default() });
    let heap = world.heap();
    fill(&world, &heap, 600, 3900);
    let hot = world.tree();
    let mut txn = world.begin();
    for n in 0..60 {
        hot.put(&mut txn, &common::key(n), &[1; 400]).unwrap();
    }
    commit(txn);
    let mut txn = world.begin();
    let used = |txn: &mut Txn| {
        assert!((0..60).all(|n| common::get(&hot, txn, &common::key(n)).is_some()));
    };
    used(&mut txn);
    used(&mut txn);
    let before = world.pool.stats().misses;
    assert_eq!(rows(&heap, &mut txn).unwrap().len(), 600);
    let scanned = world.pool.stats().misses;
    assert!(scanned >= before + 580, "the heap was not in the pool");
    used(&mut txn);
    let again = world.pool.stats().misses - scanned;
    assert!(again <= 3, "{again} pages of the hot tree had to be read in again");
}
