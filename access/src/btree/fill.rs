//! How much of a node is alive.
//!
//! ```text
//!  room   page without its header            thin      live cells take less than a quarter of the room
//!  live   rows with their slots,             roomy     two nodes fit into one, a sixteenth to spare,
//!         inner cells with theirs                      and at most half a page has to move
//! ```
//!
//! A quarter and not a half, because a split leaves halves: a node must lose as much as it has left before
//! it is joined again. Nothing is counted in the page itself, so nothing can be counted wrong; who asks
//! pays with a look at the cells, which ends as soon as a quarter was found alive.

use argali_buffer_pool::Restart;
use argali_pager::PageRef;

use super::node::{LeafCell, SLOT_BYTES, View};

/// Whether what lives in the node at `level` takes less than a quarter of `room` bytes.
pub(super) fn is_thin(view: &impl View, level: u8, room: usize) -> Result<bool, Restart> {
    let mut live = 0;
    for slot in 0..view.slot_count()? {
        live += if level == 0 { row_bytes(view, slot)? } else { view.cell(slot)?.1 + SLOT_BYTES };
        if live >= room / 4 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a leaf is thin and has a ghost.
pub(super) fn is_haunted(view: &impl View, room: usize) -> Result<bool, Restart> {
    Ok(is_thin(view, 0, room)? && ghost_bytes(view, 0)? > 0)
}

/// Bytes that a purge of a leaf could free at most. The first cell does not count: if there are only
/// ghosts, it is the one that stays.
pub(super) fn removable_bytes(view: &impl View) -> Result<usize, Restart> {
    ghost_bytes(view, 1)
}

/// Whether `bytes` of dead cells are worth a record: if they are few, the next insert is soon back for more.
pub(super) const fn is_worth_purging(bytes: usize, room: usize) -> bool {
    bytes >= room / 16
}

/// Whether the ghost just made at `slot` leaves a thin leaf. One between two rows is not worth counting
/// the others for: a leaf does not become thin without gaps.
pub(super) fn crumbles(view: &impl View, slot: usize, room: usize) -> Result<bool, Restart> {
    let dead = |slot: usize| Ok(slot >= view.slot_count()? || LeafCell::read(view, slot)?.ghost);
    let gap = slot == 0 || dead(slot - 1)? || dead(slot + 1)?;
    Ok(gap && is_thin(view, 0, room)?)
}

/// Bytes of all cells with their slots; `Restart` when a cell lies outside the page.
pub(super) fn cell_bytes(page: PageRef<'_>) -> Result<usize, Restart> {
    (0..page.slot_count())
        .try_fold(0, |sum, slot| page.cell(slot).map(|cell| sum + cell.len() + SLOT_BYTES))
        .ok_or(Restart)
}

/// Whether a node with `kept` bytes of cells in `room` bytes should take in `moved` bytes more.
pub(super) const fn is_roomy(kept: usize, moved: usize, room: usize) -> bool {
    moved <= room / 2 && kept + moved <= room - room / 16
}

fn row_bytes(view: &impl View, slot: usize) -> Result<usize, Restart> {
    let cell = LeafCell::read(view, slot)?;
    Ok(if cell.ghost { 0 } else { cell.used() + SLOT_BYTES })
}

fn ghost_bytes(view: &impl View, first: usize) -> Result<usize, Restart> {
    (first..view.slot_count()?).try_fold(0, |sum, slot| {
        let cell = LeafCell::read(view, slot)?;
        Ok(if cell.ghost { sum + cell.len + SLOT_BYTES } else { sum })
    })
}
