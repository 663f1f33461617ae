//! Sets of ranges of keys, each of some tree.
//!
//! ```text
//!  tree 7   [=====]      [===)        add [b, d)        [=====]  [=======)
//!           a     a9     c   c5                         a     a9 b       d
//! ```
//!
//! A range lies between two [`Cut`]s, places between keys: before or after one, or at an end. So bounds that
//! include and bounds that exclude compare like numbers. The ranges of a set are sorted and do not touch:
//! those that would become one. A scan that goes on moves a cut, which allocates nothing once the cut's
//! buffer is large enough.

use std::ops::{Bound, Range};

/// Ranges a set takes.
const RANGES_MAX: usize = 256;
/// Capacity for a key that is kept when the set is emptied.
const KEY_KEPT: usize = 256;

/// A place between two keys, or at an end. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut<'a> {
    /// Above all keys; `key` is empty then.
    end: bool,
    key: &'a [u8],
    /// Above `key`, or below it.
    after: bool,
}

impl<'a> Cut<'a> {
    const BEGIN: Self = Self::before(&[]);
    const END: Self = Self { end: true, key: &[], after: false };

    const fn before(key: &'a [u8]) -> Self {
        Self { end: false, key, after: false }
    }

    const fn after(key: &'a [u8]) -> Self {
        Self { end: false, key, after: true }
    }
}

/// What lies between two cuts of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) tree: u64,
    low: Cut<'a>,
    high: Cut<'a>,
}

impl<'a> Span<'a> {
    /// What lies within bounds.
    pub(super) const fn new(tree: u64, (low, high): (Bound<&'a [u8]>, Bound<&'a [u8]>)) -> Self {
        let low = match low {
            Bound::Included(key) => Cut::before(key),
            Bound::Excluded(key) => Cut::after(key),
            Bound::Unbounded => Cut::BEGIN,
        };
        let high = match high {
            Bound::Included(key) => Cut::after(key),
            Bound::Excluded(key) => Cut::before(key),
            Bound::Unbounded => Cut::END,
        };
        Self { tree, low, high }
    }

    /// Whether no key can lie in it.
    pub(super) fn is_empty(&self) -> bool {
        self.low >= self.high
    }

    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.low <= Cut::before(key) && Cut::before(key) < self.high
    }
}

/// A [`Cut`] with the key's bytes.
#[derive(Debug, Default)]
struct KeptCut {
    end: bool,
    key: Vec<u8>,
    after: bool,
}

impl KeptCut {
    fn get(&self) -> Cut<'_> {
        Cut { end: self.end, key: &self.key, after: self.after }
    }

    fn set(&mut self, cut: Cut<'_>) {
        (self.end, self.after) = (cut.end, cut.after);
        self.key.clear();
        self.key.extend_from_slice(cut.key);
    }
}

/// A [`Span`] with the keys' bytes.
#[derive(Debug, Default)]
struct KeptSpan {
    tree: u64,
    low: KeptCut,
    high: KeptCut,
}

impl KeptSpan {
    fn touches(&self, span: &Span<'_>) -> bool {
        self.tree == span.tree && self.low.get() <= span.high && span.low <= self.high.get()
    }
}

/// Ranges that do not touch.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    spans: Vec<KeptSpan>,
    /// Buffers of former ones.
    spare: Vec<KeptSpan>,
    /// The one that grew last.
    recent: usize,
}

impl Ranges {
    /// Adds `span`, which is not empty; `false` when there is no room.
    pub(super) fn add(&mut self, span: &Span<'_>) -> bool {
        let touched = self.touched_by(span);
        if touched.is_empty() && self.spans.len() == RANGES_MAX {
            return false;
        }
        self.recent = touched.start;
        if touched.is_empty() {
            let mut new = self.spare.pop().unwrap_or_default();
            new.tree = span.tree;
            new.low.set(span.low);
            new.high.set(span.high);
            self.spans.insert(touched.start, new);
            return true;
        }
        let beyond = touched.start + 1..touched.end;
        if let [first, .., last] = &mut self.spans[touched] {
            std::mem::swap(&mut first.high, &mut last.high);
        }
        self.spare.extend(self.spans.drain(beyond));
        let grown = &mut self.spans[self.recent];
        if span.low < grown.low.get() {
            grown.low.set(span.low);
        }
        if grown.high.get() < span.high {
            grown.high.set(span.high);
        }
        true
    }

    /// Where those stand that touch `span`; if none does, where it belongs.
    fn touched_by(&self, span: &Span<'_>) -> Range<usize> {
        let touches = |at: usize| self.spans.get(at).is_some_and(|kept| kept.touches(span));
        let at = self.recent;
        if touches(at) && !touches(at + 1) && !at.checked_sub(1).is_some_and(touches) {
            return at..at + 1;
        }
        let key = (span.tree, span.low);
        let first = self.spans.partition_point(|kept| (kept.tree, kept.high.get()) < key);
        let key = (span.tree, span.high);
        first..self.spans.partition_point(|kept| (kept.tree, kept.low.get()) <= key)
    }

    /// Whether `key` lies in one of them.
    pub(super) fn cover(&self, tree: u64, key: &[u8]) -> bool {
        let key = Cut::before(key);
        let at = self.spans.partition_point(|kept| (kept.tree, kept.high.get()) <= (tree, key));
        self.spans.get(at).is_some_and(|kept| kept.tree == tree && kept.low.get() <= key)
    }

    /// The trees they are of.
    pub(super) fn trees(&self) -> impl Iterator<Item = u64> {
        self.spans.iter().map(|kept| kept.tree)
    }

    /// Forgets all, and keeps buffers of ordinary size.
    pub(super) fn clear(&mut self) {
        self.recent = 0;
        self.spare.append(&mut self.spans);
        self.spare.truncate(RANGES_MAX);
        for cut in self.spare.iter_mut().flat_map(|span| [&mut span.low, &mut span.high]) {
            cut.key.clear();
            cut.key.shrink_to(KEY_KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Bound::{Excluded, Included, Unbounded};

    fn bound(kind: u64, key: &[u8]) -> Bound<&[u8]> {
        match kind {
            0 => Unbounded,
            1..10 => Included(key),
            _ => Excluded(key),
        }
    }

    /// Against a plain set of keys; `(key, false)` is a key and `(key, true)` what lies between it and the next.
    #[test]
    fn it_behaves_like_a_set_of_keys() {
        let mut state = 7_u64;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % end
        };
        for round in 0..400 {
            let mut ranges = Ranges::default();
            let mut model = std::collections::BTreeSet::new();
            for _ in 0..=below(30) {
                let (low_key, high_key) = ([below(60) as u8], [below(70) as u8]);
                let low = bound(below(20), &low_key);
                let high = bound(below(20), &high_key);
                let span = Span::new(1 + below(2), (low, high));
                if span.is_empty() {
                    continue;
                }
                assert!(ranges.add(&span));
                for n in 0..=60 {
                    for key in [vec![n], vec![n, 1]] {
                        if span.covers(&key) {
                            model.insert((span.tree, key));
                        }
                    }
                }
            }
            for tree in 0..4 {
                for key in (0..=60).flat_map(|n| [vec![n], vec![n, 1]]) {
                    let expected = model.contains(&(tree, key.clone()));
                    assert_eq!(ranges.cover(tree, &key), expected, "{round}: {tree} {key:?}");
                }
            }
            for pair in ranges.spans.windows(2) {
                let [a, b] = pair else { unreachable!() };
                assert!((a.tree, a.high.get()) < (b.tree, b.low.get()), "{a:?} touches {b:?}");
            }
            ranges.clear();
            assert!(!ranges.cover(1, &[5]) && ranges.trees().next().is_none());
        }
    }

    #[test]
    fn bounds_meet_or_leave_a_key_between_them() {
        let mut ranges = Ranges::default();
        ranges.add(&Span::new(1, (Included(b"a"), Excluded(b"m"))));
        ranges.add(&Span::new(1, (Excluded(b"m"), Unbounded)));
        assert_eq!(ranges.spans.len(), 2, "m is in neither");
        assert!(!ranges.cover(1, b"m") && ranges.cover(1, b"lz") && ranges.cover(1, b"m\0"));
        ranges.add(&Span::new(1, (Included(b"m"), Included(b"m"))));
        assert_eq!(ranges.spans.len(), 1);
        assert!(ranges.cover(1, b"m") && !ranges.cover(1, b"Z") && !ranges.cover(2, b"m"));
        assert!(Span::new(1, (Excluded(b"a"), Excluded(b"a"))).is_empty());
        assert!(!Span::new(1, (Unbounded, Unbounded)).is_empty());
    }

    #[test]
    fn a_full_set_still_grows_what_it_has() {
        let mut ranges = Ranges::default();
        let key = |n: usize| u32::try_from(n).expect("small").to_be_bytes();
        for n in 0..RANGES_MAX {
            assert!(ranges.add(&Span::new(1, (Included(&key(2 * n)), Included(&key(2 * n))))));
        }
        assert!(!ranges.add(&Span::new(2, (Unbounded, Unbounded))));
        assert!(ranges.add(&Span::new(1, (Excluded(&key(4)), Excluded(&key(6))))));
        assert_eq!(ranges.spans.len(), RANGES_MAX - 1);
        assert!(ranges.add(&Span::new(2, (Unbounded, Unbounded))));
    }
}
