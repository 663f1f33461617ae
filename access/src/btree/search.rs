//! Binary search within one node.
//!
//! Slots are in key order. A probe goes only as far as it must:
//!
//! ```text
//!  head in the slot      4 bytes behind the prefix     decides unless equal
//!  first word of a key   8 bytes                       decides unless equal and one key is longer
//!  whole keys                                          word by word
//! ```
//!
//! Heads ([`super::heads`]) speak of keys that begin as all keys of the node do. Whether the wanted key does
//! is asked at the end, of a key that is looked at anyway: if it does not, it belongs before or
//! behind all of them, and what the heads said is forgotten.
//!
//! Written over [`View`], so latched pages and glimpses share it.

use std::cmp::Ordering;
use std::hint::select_unpredictable;

use argali_base::PageId;
use argali_buffer_pool::Restart;

use super::heads::head;
use super::node::{self, InnerCell, LeafCell, View};

/// A key looked for, with what most probes compare.
struct Wanted<'k> {
    key: &'k [u8],
    /// Leading bytes that the node's heads leave out.
    skip: usize,
    head: u32,
    /// First eight bytes, big-endian, padded with zeros.
    first: u64,
}

impl<'k> Wanted<'k> {
    #[inline]
    fn new(key: &'k [u8], skip: usize) -> Self {
        let first = key.first_chunk().copied().unwrap_or_else(|| {
            let mut first = [0; 8];
            first[..key.len()].copy_from_slice(key);
            first
        });
        let first = u64::from_be_bytes(first);
        // Usually the head stands in the first word.
        let head = match skip {
            0..=4 => (first << (8 * skip) >> 32) as u32,
            5..=7 if key.len() <= 8 => (first << (8 * skip) >> 32) as u32,
            _ => head(key, skip),
        };
        Self { key, skip, head, first }
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

    /// How the prefix of a node's keys, one of which has `len` bytes at `at`, compares with the beginning
    /// of the one looked for.
    #[inline]
    fn prefix_order(&self, view: &impl View, at: usize, len: usize) -> Result<Ordering, Restart> {
        if self.skip > len {
            return Err(Restart);
        }
        match self.skip {
            0 => Ok(Ordering::Equal),
            skip @ 1..=8 if skip <= self.key.len() => {
                let mask = u64::MAX << (64 - 8 * skip);
                Ok(view.word(at, skip)?.swap_bytes().cmp(&(self.first & mask)))
            }
            skip => view.order(at, skip, &self.key[..skip.min(self.key.len())]),
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
    /// Whether the key begins as all keys of the leaf do.
    pub(super) shares: bool,
}

/// Finds `key` in a leaf.
pub(super) fn in_leaf(view: &impl View, key: &[u8]) -> Result<Place, Restart> {
    let wanted = Wanted::new(key, node::skip(view)?);
    let count = view.slot_count()?;
    let mut found = None;
    let slot = first_past(view, wanted.head, (0, count), |slot| {
        let cell = LeafCell::read(view, slot)?;
        let order = wanted.order(view, cell.key_at(), cell.key_len)?;
        if order.is_eq() {
            found = Some(Place { slot, found: Some(cell), shares: true });
        }
        Ok(order.is_ge())
    })?;
    found.map_or_else(|| missing(view, &wanted, slot, count), Ok)
}

/// Where a key belongs that is greater than all others in a leaf that has any; `None` when it is not.
pub(super) fn behind_all(view: &impl View, key: &[u8]) -> Result<Option<Place>, Restart> {
    let wanted = Wanted::new(key, node::skip(view)?);
    let count = view.slot_count()?;
    let Some(last) = count.checked_sub(1) else { return Ok(None) };
    let last = LeafCell::read(view, last)?;
    if wanted.order(view, last.key_at(), last.key_len)?.is_ge() {
        return Ok(None);
    }
    let shares = wanted.prefix_order(view, last.key_at(), last.key_len)?.is_eq();
    Ok(Some(Place { slot: count, found: None, shares }))
}

/// Where a key belongs in a leaf that has not got it; `slot` is what the heads say.
fn missing(
    view: &impl View,
    wanted: &Wanted<'_>,
    slot: usize,
    count: usize,
) -> Result<Place, Restart> {
    let Some(last) = count.checked_sub(1) else {
        return Ok(Place { slot: 0, found: None, shares: wanted.skip == 0 });
    };
    let near = LeafCell::read(view, slot.min(last))?;
    Ok(match wanted.prefix_order(view, near.key_at(), near.key_len)? {
        Ordering::Equal => Place { slot, found: None, shares: true },
        Ordering::Less => Place { slot: count, found: None, shares: false },
        Ordering::Greater => Place { slot: 0, found: None, shares: false },
    })
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
    let wanted = Wanted::new(key, node::skip(view)?);
    let count = view.slot_count()?;
    // Slot 0 stands for minus infinity: it is never compared.
    let behind = first_past(view, wanted.head, (count.min(1), count), |slot| {
        let cell = InnerCell::read(view, slot)?;
        Ok(past(wanted.order(view, cell.separator_at, cell.separator_len)?))
    })?;
    let slot = behind.checked_sub(1).ok_or(Restart)?;
    let cell = InnerCell::read(view, slot)?;
    if wanted.skip == 0 || count < 2 {
        return Ok((slot, cell.child));
    }
    let near = if slot == 0 { InnerCell::read(view, 1)? } else { cell };
    match wanted.prefix_order(view, near.separator_at, near.separator_len)? {
        Ordering::Equal => Ok((slot, cell.child)),
        Ordering::Less => Ok((count - 1, InnerCell::read(view, count - 1)?.child)),
        Ordering::Greater => Ok((0, InnerCell::read(view, 0)?.child)),
    }
}

/// The first of the slots from `low` to below `high` that is past the wanted key: its head is greater, or it is
/// equal and the whole key `is_past`.
#[inline]
fn first_past(
    view: &impl View,
    head: u32,
    (low, high): (usize, usize),
    mut is_past: impl FnMut(usize) -> Result<bool, Restart>,
) -> Result<usize, Restart> {
    let first = not_below(view, head, (low, high))?;
    if first == high || view.head(first)? != head || is_past(first)? {
        return Ok(first);
    }
    // Several keys have this head: look at them whole.
    let next = head.checked_add(1).map(|next| not_below(view, next, (first, high)));
    let (mut low, mut high) = (first + 1, next.unwrap_or(Ok(high))?);
    while low < high {
        let mid = low + (high - low) / 2;
        if is_past(mid)? { high = mid } else { low = mid + 1 }
    }
    Ok(low)
}

/// The first of the slots from `low` to below `high` whose head is not below `head`. Which way a probe goes is
/// a coin toss, and a wrong guess of the processor costs more than a probe: so nothing branches on it.
#[inline]
fn not_below(
    view: &impl View,
    head: u32,
    (mut low, high): (usize, usize),
) -> Result<usize, Restart> {
    let mut left = high.saturating_sub(low);
    while left > 1 {
        let half = left / 2;
        let below = view.head(low + half - 1)? < head;
        low = select_unpredictable(below, low + half, low);
        left -= half;
    }
    Ok(low + usize::from(left == 1 && view.head(low)? < head))
}

#[cfg(test)]
mod tests {
    use argali_base::Lsn;
    use argali_pager::{PageBuf, PageKind, PageOp, PageRef, PageSize};

    use super::super::heads::{Heads, begin, common};
    use super::super::node::{Stored, push_inner_cell, push_leaf_cell};
    use super::*;

    /// Keys on both sides of every step of a comparison: of 4, of 8 bytes, with zeros where padding is.
    fn tails() -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = (0..13).map(|len| vec![0; len]).collect();
        for len in 1..13 {
            for (last, byte) in [(0, 1), (0, 255), (len - 1, 1), (len - 1, 255)] {
                let mut key = vec![0; len];
                key[last] = byte;
                keys.push(key);
            }
        }
        keys
    }

    /// Prefixes on both sides of the steps of comparing them.
    const PREFIXES: [&[u8]; 6] =
        [b"", b"p", b"prefix!", b"prefix!!", b"prefix!!!", b"a prefix, longer"];

    /// Tails behind the prefix, and keys that do not have it.
    fn wanted(prefix: &[u8]) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = tails().iter().map(|tail| [prefix, tail].concat()).collect();
        for at in 0..prefix.len() {
            for byte in [0, prefix[at] - 1, prefix[at] + 1, 255] {
                keys.push([&prefix[..at], &[byte]].concat());
                keys.push([&prefix[..at], &[byte], &prefix[at + 1..], &[0, 1, 0]].concat());
            }
            keys.push(prefix[..at].to_vec());
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// Every other key that has the prefix.
    fn stored(prefix: &[u8]) -> Vec<Vec<u8>> {
        let keys = wanted(prefix).into_iter().filter(|key| key.starts_with(prefix));
        keys.step_by(2).collect()
    }

    /// A node of these keys whose heads leave out `skip` bytes. An inner node has a first child, too.
    fn node(kind: PageKind, keys: &[Vec<u8>], skip: usize) -> PageBuf {
        let level = u8::from(kind == PageKind::Inner);
        let mut cells: Vec<(u32, Vec<u8>)> = Vec::new();
        if kind == PageKind::Inner {
            cells.push((0, 100_u64.to_le_bytes().to_vec()));
        }
        for (at, key) in keys.iter().enumerate() {
            let mut cell = Vec::new();
            match kind {
                PageKind::Inner => push_inner_cell(&mut cell, PageId::new(101 + at as u64), key),
                _ => push_leaf_cell(&mut cell, key, Stored::small(b"v")),
            }
            cells.push((head(key, skip), cell));
        }
        let mut ops = vec![PageOp::Format { kind, level, owner: 3 }];
        ops.extend(begin(skip));
        for (slot, (head, cell)) in cells.iter().enumerate() {
            ops.push(PageOp::Insert { slot: slot as u16, head: *head, cell });
        }
        let mut page = PageBuf::new(PageSize::DEFAULT);
        page.page_mut().apply(&ops, Lsn::new(64));
        page
    }

    #[test]
    fn every_key_is_found_and_every_other_one_has_its_place() {
        for prefix in PREFIXES {
            let keys = stored(prefix);
            for skip in 0..=prefix.len() {
                let leaf = node(PageKind::Leaf, &keys, skip);
                for key in wanted(prefix) {
                    let place = in_leaf(&leaf.page(), &key).unwrap();
                    let slot = keys.partition_point(|stored| *stored < key);
                    let found = keys.get(slot) == Some(&key);
                    assert_eq!((place.slot, place.found.is_some()), (slot, found), "{key:?}");
                    let behind = (slot == keys.len() && slot > 0).then_some(place);
                    assert_eq!(behind_all(&leaf.page(), &key), Ok(behind), "{key:?}");
                    assert_eq!(place.shares, key.starts_with(&prefix[..skip]), "{key:?}");
                }
            }
        }
    }

    #[test]
    fn every_key_goes_to_the_child_it_belongs_to() {
        for prefix in PREFIXES {
            let keys = stored(prefix);
            for skip in 0..=prefix.len() {
                let inner = node(PageKind::Inner, &keys, skip);
                for key in wanted(prefix) {
                    let at = keys.partition_point(|stored| *stored <= key);
                    let expected = (at, PageId::new(100 + at as u64));
                    assert_eq!(in_inner(&inner.page(), &key), Ok(expected), "{key:?}");
                    let below = keys.partition_point(|stored| *stored < key);
                    let expected = (below, PageId::new(100 + below as u64));
                    assert_eq!(below_in_inner(&inner.page(), &key), Ok(expected), "{key:?}");
                }
            }
        }
    }

    /// Keys enter a leaf one after the other; heads and prefix are right after each.
    fn enter(page: &mut PageBuf, key: &[u8], lsn: u64) {
        let before = page.clone();
        let place = in_leaf(&before.page(), key).unwrap();
        let (heads, skip) = Heads::before(before.page(), key).unwrap();
        assert!(place.shares || heads.is_some());
        let mut cell = Vec::new();
        push_leaf_cell(&mut cell, key, Stored::small(b"v"));
        let insert = PageOp::Insert { slot: place.slot as u16, head: head(key, skip), cell: &cell };
        let ops: Vec<_> = heads.iter().map(Heads::op).chain([insert]).collect();
        page.page_mut().apply(&ops, Lsn::new(lsn));
    }

    fn keys_of(page: PageRef<'_>) -> Vec<Vec<u8>> {
        let key = |slot| LeafCell::read(&page, slot).unwrap().key(page).to_vec();
        (0..page.slot_count()).map(key).collect()
    }

    #[test]
    fn heads_follow_the_keys_that_enter() {
        let mut leaf = node(PageKind::Leaf, &[], 0);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for (n, number) in
            [5_u64, 9, 1, 7, 3, 2, 8, 4, 200, 255, 256, 1 << 40, 6].iter().enumerate()
        {
            keys.push(number.to_be_bytes().to_vec());
            enter(&mut leaf, &keys[n], 100 + n as u64);
            let (page, mut sorted) = (leaf.page(), keys.clone());
            sorted.sort();
            assert_eq!(keys_of(page), sorted);
            let shared = common(&sorted[0], &sorted[n]);
            let skip = if keys.len() < 8 { 0 } else { shared };
            assert_eq!(page.skip(), skip, "{} keys", keys.len());
            for (slot, key) in sorted.iter().enumerate() {
                assert_eq!(page.head(slot), Some(head(key, skip)));
            }
        }
        assert_eq!(leaf.page().skip(), 2, "2^40 stands in the third byte");
    }
}
