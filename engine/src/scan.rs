//! Scans: an iterator, from both ends, that holds nothing between its items.
//!
//! ```text
//!   from ─►  b   d   f   g  ◄─ to         next ─► b: from is now "after b"
//!            └─ what is left ─┘           next_back ─► g: to is now "before g"
//! ```
//!
//! Each step asks the tree for the first entry after one place, or the last before the other. So user code
//! may run as long as it likes, and write where it likes, between two items: no latch is held, no cursor
//! can dangle, and claims on what was read, not latches, keep phantoms out.

use std::ops::Bound;

use argali_access::{Entry, Way};
use argali_base::Result;

use crate::session::Session;
use crate::tree::Tree;

/// Iterator over `Result<(key, value)>`, from either end; after an error it ends. Each item is two
/// allocations; a [`Cursor`](crate::Cursor) lends its rows and needs none.
pub struct Scan<'t> {
    session: &'t Session,
    tree: &'t Tree,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    /// How far it has come from either end.
    front: Option<Box<Entry>>,
    back: Option<Box<Entry>>,
    done: bool,
}

/// What a scan yields.
type Item = Result<(Vec<u8>, Vec<u8>)>;

impl<'t> Scan<'t> {
    pub(crate) fn new<K: AsRef<[u8]>>(
        session: &'t Session,
        tree: &'t Tree,
        from: Bound<&K>,
        to: Bound<&K>,
    ) -> Result<Self> {
        session.read_tree(tree, |_, _| Ok(()))?;
        let (from, to) = (owned(from), owned(to));
        let done = is_empty(from.as_ref(), to.as_ref());
        Ok(Self { session, tree, from, to, front: None, back: None, done })
    }

    /// The next row from the end where this `way` begins.
    fn step(&mut self, way: Way) -> Option<Item> {
        if self.done {
            return None;
        }
        let found = self.find(way);
        self.done = !matches!(found, Ok(true));
        let entry = match way {
            Way::Forward => &self.front,
            Way::Backward => &self.back,
        };
        match found {
            Ok(_) => entry.as_ref()?.row().map(|(key, value)| Ok((key.to_vec(), value.to_vec()))),
            Err(error) => Some(Err(error)),
        }
    }

    fn find(&mut self, way: Way) -> Result<bool> {
        let Self { session, tree, front, back, .. } = self;
        let (from, to) = (borrowed(&self.from), borrowed(&self.to));
        let (own, other, limit) = match way {
            Way::Forward => (front, back, to),
            Way::Backward => (back, front, from),
        };
        // Both ends meet somewhere.
        let limit = other.as_ref().map_or(limit, |other| Bound::Excluded(other.key()));
        if let Some(entry) = own {
            return session.advance(tree, way, limit, entry);
        }
        let entry = &mut **own.insert(Box::default());
        session.read_tree(tree, |txn, btree| match way {
            Way::Forward => btree.next(txn, from, limit, entry),
            Way::Backward => btree.prev(txn, limit, to, entry),
        })
    }
}

impl Iterator for Scan<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.step(Way::Forward)
    }
}

impl DoubleEndedIterator for Scan<'_> {
    fn next_back(&mut self) -> Option<Item> {
        self.step(Way::Backward)
    }
}

impl std::iter::FusedIterator for Scan<'_> {}

/// The least key greater than every key that begins with `prefix`; `None` when there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn owned<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<Vec<u8>> {
    bound.map(|key| key.as_ref().to_vec())
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Whether nothing can lie between the bounds; spares the tree bounds that cross.
fn is_empty(from: Bound<&Vec<u8>>, to: Bound<&Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn crossed_bounds_are_empty() {
        let (a, b) = (b"a".to_vec(), b"b".to_vec());
        assert!(is_empty(Bound::Included(&b), Bound::Included(&a)));
        assert!(is_empty(Bound::Excluded(&a), Bound::Included(&a)));
        assert!(is_empty(Bound::Included(&a), Bound::Excluded(&a)));
        assert!(!is_empty(Bound::Included(&a), Bound::Included(&a)));
        assert!(!is_empty(Bound::Unbounded, Bound::Excluded(&a)));
    }
}
