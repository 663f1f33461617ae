//! Binary search within one node.
//!
//! Slots are in key order. A probe goes only as far as it must:
//!
//! ```text
//!  head in the slot      4 bytes    decides unless equal (small numbers as keys: all are)
//!  first word of a key   8 bytes    decides unless equal and one of the keys is longer
//!  whole keys                       byte by byte
//! ```
//!
//! Written over [`View`], so latched pages and glimpses share it.

use std::cmp::Ordering;

use argali_base::PageId;
use argali_buffer_pool::Restart;

use super::node::{INNER_HEADER, InnerCell, LeafCell, View, head};

/// A key looked for, with what most probes compare.
struct Wanted<'k> {
    key: &'k [u8],
    head: u32,
    /// First eight bytes, big-endian, padded with zeros.
    first: u64,
}

impl<'k> Wanted<'k> {
    fn new(key: &'k [u8]) -> Self {
        let mut first = [0; 8];
        let len = key.len().min(8);
        first[..len].copy_from_slice(&key[..len]);
        Self { key, head: head(key), first: u64::from_be_bytes(first) }
    }

    /// How the stored key of `len` bytes at `at` compares with the one looked for.
    #[inline]
    fn order(&self, view: &impl View, at: usize, len: usize) -> Result<Ordering, Restart> {
        let stored = if len == 0 { 0 } else { view.word(at, len.min(8))?.swap_bytes() };
        match stored.cmp(&self.first) {
            // Equal but for padding: the shorter one is a beginning of the other.
            Ordering::Equal if len <= 8 && self.key.len() <= 8 => Ok(len.cmp(&self.key.len())),
            Ordering::Equal => view.order(at, len, self.key),
            // Padding is the least byte, and so it never turns the order of unequal keys round.
            unequal => Ok(unequal),
        }
    }
}

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
    let wanted = Wanted::new(key);
    let (mut low, mut high) = (0, view.slot_count()?);
    while low < high {
        let mid = low + (high - low) / 2;
        let (at, len, head) = view.slot(mid)?;
        let order = match head.cmp(&wanted.head) {
            Ordering::Equal => {
                let cell = LeafCell::at(view, at, len)?;
                match wanted.order(view, cell.key_at(), cell.key_len)? {
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
    let wanted = Wanted::new(key);
    // Slot 0 stands for minus infinity: it is never compared.
    let (mut low, mut high) = (1, view.slot_count()?);
    while low < high {
        let mid = low + (high - low) / 2;
        let (at, len, head) = view.slot(mid)?;
        let order = match head.cmp(&wanted.head) {
            Ordering::Equal => {
                let len = len.checked_sub(INNER_HEADER).ok_or(Restart)?;
                wanted.order(view, at + INNER_HEADER, len)?
            }
            unequal => unequal,
        };
        if past(order) { high = mid } else { low = mid + 1 }
    }
    let slot = low - 1;
    Ok((slot, InnerCell::read(view, slot)?.child))
}

#[cfg(test)]
mod tests {
    use argali_pager::{PageKind, PageOp, PageSize};

    use super::super::node::push_leaf_cell;
    use super::*;

    /// Keys on both sides of every step of a comparison: of 4, of 8 bytes, with zeros where padding is.
    fn keys() -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = (0..13).map(|len| vec![0; len]).collect();
        for len in 1..13 {
            for (last, byte) in [(0, 1), (0, 255), (len - 1, 1), (len - 1, 255)] {
                let mut key = vec![0; len];
                key[last] = byte;
                keys.push(key);
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    #[test]
    fn every_key_is_found_and_every_other_one_has_its_place() {
        let keys = keys();
        let mut page = argali_pager::PageBuf::new(PageSize::DEFAULT);
        let mut ops = vec![PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 3 }];
        let mut cells: Vec<Vec<u8>> = vec![Vec::new(); keys.len()];
        for (key, cell) in keys.iter().zip(&mut cells).step_by(2) {
            push_leaf_cell(cell, key, super::super::node::Stored::small(b"v"));
        }
        for (slot, cell) in cells.iter().step_by(2).enumerate() {
            ops.push(PageOp::Insert {
                slot: slot as u16,
                head: head(&cell[5..cell.len() - 1]),
                cell,
            });
        }
        page.page_mut().apply(&ops, argali_base::Lsn::new(64));
        for (at, key) in keys.iter().enumerate() {
            let place = in_leaf(&page.page(), key).unwrap();
            assert_eq!(place.slot, at.div_ceil(2), "{key:?}");
            assert_eq!(place.found.is_some(), at.is_multiple_of(2), "{key:?}");
        }
    }
}
