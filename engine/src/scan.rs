//! Scans: an iterator that holds nothing between its items.
//!
//! Each step asks the tree for the first entry after the last key. That costs a descent per item, and
//! buys that user code may run as long as it likes, and write where it likes, between two items: no latch
//! is held, no cursor can dangle, and next-key locks, not latches, keep phantoms out.

use std::ops::Bound;

use argali_access::Entry;
use argali_base::Result;

use crate::session::Session;
use crate::tree::Tree;

/// Iterator over `Result<(key, value)>`; after an error it ends.
pub struct Scan<'t> {
    session: &'t Session,
    tree: Tree,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    entry: Entry,
    done: bool,
}

impl<'t> Scan<'t> {
    pub(crate) fn new<K: AsRef<[u8]>>(
        session: &'t Session,
        tree: &Tree,
        from: Bound<&K>,
        to: Bound<&K>,
    ) -> Result<Self> {
        session.read_tree(tree, |_, _| Ok(()))?;
        let (from, to) = (owned(from), owned(to));
        let done = is_empty(from.as_ref(), to.as_ref());
        Ok(Self { session, tree: tree.clone(), from, to, entry: Entry::default(), done })
    }

    fn step(&mut self) -> Result<bool> {
        let Self { session, tree, from, to, entry, .. } = self;
        let (from, to) = (borrowed(from), borrowed(to));
        session.read_tree(tree, |txn, btree| btree.next(txn, from, to, entry))
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.step() {
            Ok(true) => {
                let Entry { key, value, .. } = self.entry.clone();
                self.from = Bound::Excluded(key.clone());
                Some(Ok((key, value)))
            }
            Ok(false) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
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
