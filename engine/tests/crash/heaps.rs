//! Heaps under crashes: rows come, grow, move, shrink, count and go; heaps come and go; a part is taken back.

use argali::{Heap, Result, RowId};

use super::{Client, End, Work};

/// Small transactions on one heap, among them counters, which must not be changed twice; every so often one
/// that is larger than the cache, and a heap that is dropped again.
pub fn heaps(client: &mut Client) -> Result<()> {
    for round in 0..27_u64 {
        client.transaction(|work| {
            let heap = work.heap("rows")?;
            for _ in 0..work.rng.usize(1..8) {
                change(work, &heap)?;
            }
            if work.rng.u8(0..4) == 0 {
                roll_back_part(work, &heap)?;
            }
            Ok(if work.rng.u8(0..5) == 0 { End::Abort } else { End::Commit })
        })?;
        if round % 9 == 4 {
            client.transaction(|work| {
                let heap = work.heap("large")?;
                load(work, &heap)?;
                Ok(if round % 27 == 22 { End::Abort } else { End::Commit })
            })?;
        }
        if round % 9 == 6 {
            client.transaction(|work| {
                let heap = work.heap("large")?;
                move_again(work, &heap)?;
                Ok(if round % 18 == 15 { End::Abort } else { End::Commit })
            })?;
        }
        if round % 9 == 8 {
            client.transaction(|work| {
                work.heap("large")?;
                work.drop_heap("large")?;
                Ok(if round % 18 == 8 { End::Abort } else { End::Commit })
            })?;
        }
    }
    Ok(())
}

fn pick(work: &mut Work<'_>, heap: &Heap) -> Option<RowId> {
    let ids: Vec<RowId> = work.rows(heap).keys().filter_map(|id| RowId::from_bytes(id)).collect();
    work.rng.choice(&ids).copied()
}

/// Something happens to the heap, or to one of its rows.
pub fn change(work: &mut Work<'_>, heap: &Heap) -> Result<()> {
    let (Some(id), 2..) = (pick(work, heap), work.rng.u8(0..10)) else {
        let len = work.rng.usize(8..400);
        let row = work.fresh(len);
        return work.insert(heap, row).map(drop);
    };
    match work.rng.u8(0..6) {
        0 => work.remove(heap, id),
        1 | 2 => count(work, heap, id),
        3 => {
            // Larger than what most pages have left: it moves, and may move again.
            let len = work.rng.usize(900..2500);
            let row = work.fresh(len);
            work.update(heap, id, row)
        }
        _ => {
            let len = work.rng.usize(8..300);
            let row = work.fresh(len);
            work.update(heap, id, row)
        }
    }
}

/// Adds to the row what it holds: done twice, or taken back once too often, it shows.
fn count(work: &mut Work<'_>, heap: &Heap, id: RowId) -> Result<()> {
    let mut row = heap.get_for_update(work.write, id)?.expect("a row of the model");
    row.push(b'+');
    work.update(heap, id, row)
}

/// Rows for more pages than the cache has, some of which grow out of theirs.
fn load(work: &mut Work<'_>, heap: &Heap) -> Result<()> {
    for n in 0..45 {
        let row = work.fresh(900);
        let id = work.insert(heap, row)?;
        if n % 6 == 0 {
            let row = work.fresh(2000);
            work.update(heap, id, row)?;
        }
    }
    Ok(())
}

/// Rows that have moved grow once more, so that no page has room for two of them: they move again, first
/// in vain, then for good.
fn move_again(work: &mut Work<'_>, heap: &Heap) -> Result<()> {
    let moved = work.rows(heap).iter().filter(|(_, row)| row.len() > 1500);
    let moved: Vec<RowId> = moved.filter_map(|(id, _)| RowId::from_bytes(id)).collect();
    let savepoint = work.write.savepoint()?;
    moved.iter().try_for_each(|id| heap.update(&savepoint, *id, [b'x'; 3700]))?;
    savepoint.rollback()?;
    for id in moved {
        let row = work.fresh(3500);
        work.update(heap, id, row)?;
    }
    Ok(())
}

/// Changes rows behind a savepoint and takes them back; the model never hears of it.
fn roll_back_part(work: &mut Work<'_>, heap: &Heap) -> Result<()> {
    let ids: Vec<_> = (0..4).filter_map(|_| pick(work, heap)).collect();
    let savepoint = work.write.savepoint()?;
    heap.insert(&savepoint, "rolled back")?;
    for (n, id) in ids.into_iter().enumerate() {
        // One id may have come twice, and be gone by now.
        let done = match n % 3 {
            0 => heap.update(&savepoint, id, [b'x'; 1800]),
            1 => heap.delete(&savepoint, id),
            _ => heap.update(&savepoint, id, "short"),
        };
        assert!(matches!(done, Ok(()) | Err(argali::Error::NotFound { .. })), "{done:?}");
    }
    savepoint.rollback()
}
