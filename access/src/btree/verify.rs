//! Checking a whole tree, and saying everything that is wrong with it.
//!
//! ```text
//!  bounds   low ≤ every key of the subtree < high      handed down from the separators
//!  levels   a child is one below its parent            so the walk ends
//!  links    the nodes of a level, in key order, link each to the next, the last to none
//!  pages    kind, owner, slots and heap sound, prefix and heads right, no page met twice
//! ```
//!
//! The walk copies one page at a time and holds no latch between pages. Writers must be kept out (a lock
//! on the tree): otherwise a split under the walk looks like damage. Damaged nodes are reported to the
//! [`Survey`] and skipped, their siblings still checked.

use argali_base::{PageId, Result};
use argali_pager::{PageBuf, PageRef};

use super::BTree;
use super::heads::{common, head};
use super::node::{self, InnerCell, LeafCell, Stored};
use crate::Survey;
use crate::overflow::{self, Reference};

/// What is in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// Live entries.
    pub rows: u64,
    /// Deleted entries whose cells are still there.
    pub ghosts: u64,
    /// Levels; 1 for a tree that is one leaf.
    pub depth: u32,
    /// Pages.
    pub pages: u64,
    /// Pages of large values.
    pub overflow_pages: u64,
    /// Bytes of live keys and values.
    pub bytes: u64,
}

/// A walk over a tree under way.
struct Check<'c> {
    tree: &'c BTree,
    state: State,
    survey: &'c mut Survey,
    stats: TreeStats,
    /// Per level: the node visited last, and where it links to.
    before: Vec<Option<(PageId, Option<PageId>)>>,
}

/// What a tree must look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Being freed, last nodes first.
    Remains,
}

/// Where a node stands in its tree.
#[derive(Clone, Copy)]
struct Expected<'k> {
    page: PageId,
    /// `None` for the root, whose level is what it says.
    level: Option<u8>,
    low: &'k [u8],
    high: Option<&'k [u8]>,
}

impl BTree {
    /// Checks order, separators, links, levels and checksums of every page; claims every page it consists
    /// of and reports every fault. Writers must be kept out.
    ///
    /// # Errors
    /// What keeps pages from being read at all (`Io`); damage is reported to `survey`.
    pub fn verify(&self, survey: &mut Survey) -> Result<TreeStats> {
        self.check(State::Whole, survey)
    }

    /// As [`BTree::verify`], for a tree that [`BTree::free_some`] may have begun to free: its last nodes may
    /// be gone, so that those before them link to nothing, inner nodes may have no child left, and the last
    /// large values may lack pages.
    pub fn verify_remains(&self, survey: &mut Survey) -> Result<TreeStats> {
        self.check(State::Remains, survey)
    }

    fn check(&self, state: State, survey: &mut Survey) -> Result<TreeStats> {
        let stats = TreeStats::default();
        let mut check = Check { tree: self, state, survey, stats, before: Vec::new() };
        check.node(Expected { page: self.root(), level: None, low: &[], high: None })?;
        if state == State::Whole {
            check.ends();
        }
        Ok(check.stats)
    }
}

impl Check<'_> {
    fn node(&mut self, at: Expected<'_>) -> Result<()> {
        let Some((copy, level)) = self.sound_node(at)? else {
            // Nobody can say whether the next node on this level is the one this one links to.
            let level = at.level.map(usize::from);
            if let Some(before) = level.and_then(|level| self.before.get_mut(level)) {
                *before = None;
            }
            return Ok(());
        };
        let page = copy.page();
        if at.level.is_none() {
            self.stats.depth = u32::from(level) + 1;
            self.before = vec![None; usize::from(level) + 1];
        }
        self.link(at.page, level, page);
        if level == 0 {
            return self.leaf(at, page);
        }
        self.inner(at, level, page)
    }

    /// Claims and copies a node that can be walked through, with its level; reports why it cannot.
    fn sound_node(&mut self, at: Expected<'_>) -> Result<Option<(PageBuf, u8)>> {
        if !self.survey.claim(at.page) {
            return Ok(None);
        }
        self.stats.pages += 1;
        let Some(copy) = self.survey.read(at.page)? else { return Ok(None) };
        let page = copy.page();
        let level = node::level(&page, self.tree.owner);
        let what = match (page.check(), level, at.level) {
            (Err(why), _, _) => format!("has an unsound body: {why}"),
            (_, Err(_), _) => {
                let (kind, level, owner) = (page.kind(), page.level(), page.owner());
                format!("has kind {kind:?}, level {level}, owner p{owner}")
            }
            (_, Ok(level), Some(expected)) if level != expected => {
                format!("has level {level} where level {expected} belongs")
            }
            (Ok(()), Ok(level), _) => return Ok(Some((copy, level))),
        };
        self.survey.fault(at.page, what);
        Ok(None)
    }

    /// The node visited before on this level must link here.
    fn link(&mut self, id: PageId, level: u8, page: PageRef<'_>) {
        let link = node::link(&page).unwrap_or(None);
        let before = self.before[usize::from(level)].replace((id, link));
        if let Some((left, link)) = before
            && link != Some(id)
        {
            let link = shown(link);
            let what = format_args!("links to {link}, but {id} follows it on level {level}");
            self.survey.fault(left, what);
        }
    }

    /// The last node of each level links nowhere.
    fn ends(&mut self) {
        for (last, link) in self.before.clone().into_iter().flatten() {
            if link.is_some() {
                let what = format_args!("is the last of its level, but links to {}", shown(link));
                self.survey.fault(last, what);
            }
        }
    }

    fn leaf(&mut self, at: Expected<'_>, page: PageRef<'_>) -> Result<()> {
        if page.slot_count() == 0 && at.level.is_some() {
            self.survey.fault(at.page, "is an empty leaf below the root");
        }
        let mut before: Option<&[u8]> = None;
        for slot in 0..page.slot_count() {
            let Ok(cell) = LeafCell::read(&page, slot) else {
                self.survey.fault(at.page, format_args!("has no leaf cell in slot {slot}"));
                continue;
            };
            let key = cell.key(page);
            self.key(at, (slot, key, page), before);
            before = Some(key);
            if cell.ghost {
                self.stats.ghosts += 1;
            } else {
                self.stats.rows += 1;
                self.stats.bytes += cell.key_len as u64 + self.value(at, cell.value(page))?;
            }
        }
        Ok(())
    }

    /// Walks the chain of a large value; returns the value's length. (A ghost's chain is not the tree's
    /// any more: it is pending, or free.)
    fn value(&mut self, at: Expected<'_>, value: Stored<'_>) -> Result<u64> {
        if !value.large {
            return Ok(value.bytes.len() as u64);
        }
        let Some(reference) = Reference::decode(value.bytes) else {
            let what = format!("has a reference that is none: {:02x?}", value.bytes);
            self.survey.fault(at.page, what);
            return Ok(0);
        };
        self.stats.overflow_pages += match self.state {
            State::Whole => overflow::verify(self.survey, reference)?,
            State::Remains => overflow::verify_remains(self.survey, reference.first)?,
        };
        Ok(reference.len)
    }

    /// Order, bounds and head of one key or separator.
    fn key(
        &mut self,
        at: Expected<'_>,
        (slot, key, page): (usize, &[u8], PageRef<'_>),
        before: Option<&[u8]>,
    ) {
        if before.is_some_and(|before| before >= key) {
            let what = format_args!("has a key {slot} that is not greater than the one before");
            self.survey.fault(at.page, what);
        }
        if key < at.low || at.high.is_some_and(|high| key >= high) {
            self.survey
                .fault(at.page, format_args!("has a key {slot} outside the bounds of its parent"));
        }
        if before.is_some_and(|before| common(before, key) < page.skip()) {
            let what =
                format_args!("has a key {slot} that does not share the prefix of the others");
            self.survey.fault(at.page, what);
        }
        if page.head(slot) != Some(head(key, page.skip())) {
            self.survey.fault(at.page, format_args!("has a wrong key head in slot {slot}"));
        }
    }

    fn inner(&mut self, at: Expected<'_>, level: u8, page: PageRef<'_>) -> Result<()> {
        if page.slot_count() == 0 && self.state == State::Whole {
            self.survey.fault(at.page, "is an inner node without children");
        }
        let cells: Vec<_> = (0..page.slot_count()).map(|s| InnerCell::read(&page, s)).collect();
        let separator = |slot: usize| match cells.get(slot) {
            Some(Ok(cell)) => Some(cell.separator(page)),
            Some(Err(_)) | None => None,
        };
        for (slot, cell) in cells.iter().enumerate() {
            let Ok(cell) = cell else {
                self.survey.fault(at.page, format_args!("has no inner cell in slot {slot}"));
                continue;
            };
            let low = if slot == 0 { at.low } else { separator(slot).unwrap_or(at.low) };
            if slot == 0 && cell.separator_len != 0 {
                self.survey.fault(at.page, "has a separator before its first child");
            }
            if slot > 0 {
                let before = (slot > 1).then(|| separator(slot - 1)).flatten();
                self.key(at, (slot, low, page), before);
            }
            let high = separator(slot + 1).or(at.high);
            self.node(Expected { page: cell.child, level: Some(level - 1), low, high })?;
        }
        Ok(())
    }
}

fn shown(link: Option<PageId>) -> String {
    link.map_or_else(|| "nothing".to_owned(), |page| page.to_string())
}
