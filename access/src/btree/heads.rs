//! Key heads, and the prefix they leave out.
//!
//! ```text
//!  keys    acct/00001230 │ acct/00001234 │ acct/00001290     all begin with acct/000012: skip is 11
//!  heads            30·· │          34·· │          90··     four bytes from there, zeros behind the end
//! ```
//!
//! Keys that stand in one node are near each other and so begin alike; heads taken from their beginning
//! would all be the same. Invariant **S1**: all keys of a node begin with the same `skip` bytes, and the
//! head in a key's slot is the key's next four. (The first slot of an inner node has no key: head 0.)
//! A key that does not share these bytes lies before or behind all keys of the node, so a search looks at
//! heads alone and asks once, at the end, whether it was right to ([`super::search`]).
//!
//! ```text
//!  a node is written anew (split, join, load)     skip becomes as long as it can be
//!  a key enters that shares fewer bytes           shorter; new heads in the same record
//!  the keys become 8, 16, 32, …                   as long as it can be, if that is longer
//!  a key leaves                                   stays
//! ```
//!
//! Left out: keeping the prefix once for all keys; see `docs/decisions/whole-keys-in-leaves.md`.

use std::ops::Range;

use argali_buffer_pool::Restart;
use argali_pager::{PageOp, PageRef};

use super::node::{InnerCell, LeafCell};

/// Log bytes of the operation beside the heads.
const OP_BYTES: usize = 8;
/// Fewer keys are searched as fast with whatever heads they have.
const KEYS_MIN: usize = 8;

/// Four key bytes behind the first `skip`, big-endian, padded with zeros: orders like the keys unless equal.
#[inline]
pub(super) fn head(key: &[u8], skip: usize) -> u32 {
    let rest = key.get(skip..).unwrap_or_default();
    let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; 4];
        bytes[..rest.len()].copy_from_slice(rest);
        bytes
    });
    u32::from_be_bytes(bytes)
}

/// How many bytes two keys have in common at their beginning.
pub(super) fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

/// Whether a node of `keys` keys looks for a longer prefix when one more enters.
pub(super) const fn reconsiders(keys: usize) -> bool {
    keys + 1 >= KEYS_MIN && (keys + 1).is_power_of_two()
}

/// Log bytes that new heads for `count` slots take.
pub(super) const fn log_bytes(count: usize) -> usize {
    OP_BYTES + 4 * count
}

/// How many bytes all keys share that stand in `slots` of `page`, in a node that begins with them.
pub(super) fn longest(page: PageRef<'_>, slots: Range<usize>) -> Result<usize, Restart> {
    let keys = slots.start + first_key(page)..slots.end;
    if keys.is_empty() {
        return Ok(0);
    }
    Ok(common(key(page, keys.start)?, key(page, keys.end - 1)?))
}

/// The key in `slot`, which has one.
pub(super) fn key(page: PageRef<'_>, slot: usize) -> Result<&[u8], Restart> {
    Ok(if page.level() == 0 {
        LeafCell::read(&page, slot)?.key(page)
    } else {
        InnerCell::read(&page, slot)?.separator(page)
    })
}

/// First slot with a key.
pub(super) fn first_key(page: PageRef<'_>) -> usize {
    usize::from(page.level() > 0)
}

/// Heads of all slots of a node, to be written.
pub(super) struct Heads {
    skip: usize,
    bytes: Vec<u8>,
}

impl Heads {
    /// Heads behind `skip` bytes for the first `count` slots.
    pub(super) fn new(page: PageRef<'_>, count: usize, skip: usize) -> Result<Self, Restart> {
        let mut bytes = Vec::with_capacity(4 * count);
        for slot in 0..count {
            let key = if slot < first_key(page) { &[] } else { key(page, slot)? };
            bytes.extend_from_slice(&head(key, skip).to_le_bytes());
        }
        Ok(Self { skip, bytes })
    }

    /// What a node needs before `key` enters it, and how many bytes its heads leave out then.
    pub(super) fn before(
        page: PageRef<'_>,
        entering: &[u8],
    ) -> Result<(Option<Self>, usize), Restart> {
        let (count, skip) = (page.slot_count(), page.skip());
        let shared = match count.saturating_sub(first_key(page)) {
            0 => 0,
            keys => {
                let shared = common(key(page, first_key(page))?, entering);
                shared.min(if reconsiders(keys) { longest(page, 0..count)? } else { skip })
            }
        };
        let heads = (shared != skip).then(|| Self::new(page, count, shared)).transpose()?;
        Ok((heads, shared))
    }

    /// What a node needs of which only the first `count` slots stay, if their keys share more.
    pub(super) fn after_cut(page: PageRef<'_>, count: usize) -> Result<Option<Self>, Restart> {
        let skip = longest(page, 0..count)?;
        (skip > page.skip()).then(|| Self::new(page, count, skip)).transpose()
    }

    pub(super) fn op(&self) -> PageOp<'_> {
        PageOp::Heads { skip: self.skip as u16, heads: &self.bytes }
    }
}

/// The operation with which an empty node begins whose keys will share `skip` bytes.
pub(super) fn begin(skip: usize) -> Option<PageOp<'static>> {
    (skip > 0).then_some(PageOp::Heads { skip: skip as u16, heads: &[] })
}

/// A separator with its child, about to enter an inner node.
pub(super) struct Entry<'a> {
    heads: Option<Heads>,
    insert: PageOp<'a>,
}

impl<'a> Entry<'a> {
    /// For `cell`, which holds `separator` (none in the first slot), at `slot` of a node as it is.
    pub(super) fn new(
        page: PageRef<'_>,
        slot: usize,
        (separator, cell): (&[u8], &'a [u8]),
    ) -> Result<Self, Restart> {
        let (heads, skip) =
            if slot == 0 { (None, page.skip()) } else { Heads::before(page, separator)? };
        let insert = PageOp::Insert { slot: slot as u16, head: head(separator, skip), cell };
        Ok(Self { heads, insert })
    }

    /// Whether the node has room.
    pub(super) fn fits(&self, page: PageRef<'_>) -> bool {
        self.insert.fits(page)
    }

    pub(super) fn ops(&self) -> Vec<PageOp<'_>> {
        self.heads.iter().map(Heads::op).chain([self.insert]).collect()
    }
}
