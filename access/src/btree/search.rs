//! Binary search within one node.
//!
//! Slots are in key order. A probe looks at the 4-byte head in the slot; only equal heads make it
//! fetch the cell and compare whole keys. Written over [`View`], so latched pages and glimpses share it.

use std::cmp::Ordering;

use argali_base::PageId;
use argali_buffer_pool::Restart;

use super::node::{InnerCell, LeafCell, View, head};

/// Where a key is, or belongs, in a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// First slot whose key is not less.
    pub(super) slot: usize,
    /// The cell at `slot`, when its key is the one looked for.
    pub(super) found: Option<LeafCell>,
}

/// Finds `key` in a leaf.
pub(super) fn in_leaf(view: &impl View, key: &[u8]) -> Result<Place, Restart> {
    let wanted = head(key);
    let (mut low, mut high) = (0, view.slot_count()?);
    while low < high {
        let mid = low + (high - low) / 2;
        let order = match view.head(mid)?.cmp(&wanted) {
            Ordering::Equal => {
                let cell = LeafCell::read(view, mid)?;
                match view.order(cell.key_at(), cell.key_len, key)? {
                    Ordering::Equal => return Ok(Place { slot: mid, found: Some(cell) }),
                    unequal => unequal,
                }
            }
            unequal => unequal,
        };
        if order == Ordering::Less { low = mid + 1 } else { high = mid }
    }
    Ok(Place { slot: low, found: None })
}

/// The slot and child of an inner node under which `key` belongs: the last separator not above it.
pub(super) fn in_inner(view: &impl View, key: &[u8]) -> Result<(usize, PageId), Restart> {
    child_before(view, key, Ordering::is_gt)
}

/// The slot and child of an inner node under which the keys just below `key` belong: the last separator
/// below it.
pub(super) fn below_in_inner(view: &impl View, key: &[u8]) -> Result<(usize, PageId), Restart> {
    child_before(view, key, Ordering::is_ge)
}

/// The last slot and child of an inner node.
pub(super) fn last_in_inner(view: &impl View) -> Result<(usize, PageId), Restart> {
    let slot = view.slot_count()?.checked_sub(1).ok_or(Restart)?;
    Ok((slot, InnerCell::read(view, slot)?.child))
}

/// The child before the first separator that is `past` the key, as it compares with it.
fn child_before(
    view: &impl View,
    key: &[u8],
    past: impl Fn(Ordering) -> bool,
) -> Result<(usize, PageId), Restart> {
    let wanted = head(key);
    // Slot 0 stands for minus infinity: it is never compared.
    let (mut low, mut high) = (1, view.slot_count()?);
    while low < high {
        let mid = low + (high - low) / 2;
        let order = match view.head(mid)?.cmp(&wanted) {
            Ordering::Equal => {
                let cell = InnerCell::read(view, mid)?;
                view.order(cell.separator_at, cell.separator_len, key)?
            }
            unequal => unequal,
        };
        if past(order) { high = mid } else { low = mid + 1 }
    }
    let slot = low - 1;
    Ok((slot, InnerCell::read(view, slot)?.child))
}
