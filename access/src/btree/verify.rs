//! Checking a whole tree, and saying everything that is wrong with it.
//!
//! ```text
//!  bounds   low ≤ every key of the subtree < high      handed down from the separators
//!  levels   a child is one below its parent            so the walk ends
//!  links    the nodes of a level, in key order, link each to the next, the last to none
//!  pages    kind, owner, slots and heap sound, heads right, no page met twice
//! ```
//!
//! The walk copies one page at a time and holds no latch between pages. Writers must be kept out (a lock
//! on the tree): otherwise a split under the walk looks like damage. Damaged nodes are reported and
//! skipped, their siblings still checked.

use argali_base::{Error, PageId, Result};
use argali_pager::{PageBuf, PageRef};

use super::BTree;
use super::node::{self, InnerCell, LeafCell};

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
    /// Bytes of live keys and values.
    pub bytes: u64,
}

/// A walk over a tree under way.
struct Check<'c> {
    tree: &'c BTree,
    state: State,
    owned: &'c mut dyn FnMut(PageId),
    faults: &'c mut Vec<String>,
    stats: TreeStats,
    /// Pages met, one bit each.
    met: Vec<u64>,
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
    /// Checks order, separators, links, levels and checksums of every page; reports every page it owns
    /// to `owned`, once, and every fault to `faults`. Writers must be kept out.
    ///
    /// # Errors
    /// What keeps pages from being read at all (`Io`); damage is reported in `faults`.
    pub fn verify(
        &self,
        owned: &mut dyn FnMut(PageId),
        faults: &mut Vec<String>,
    ) -> Result<TreeStats> {
        self.check(State::Whole, owned, faults)
    }

    /// As [`BTree::verify`], for a tree that [`BTree::free_some`] may have begun to free: its last nodes may
    /// be gone, so that those before them link to nothing, and inner nodes may have no child left.
    pub fn verify_remains(
        &self,
        owned: &mut dyn FnMut(PageId),
        faults: &mut Vec<String>,
    ) -> Result<TreeStats> {
        self.check(State::Remains, owned, faults)
    }

    fn check(
        &self,
        state: State,
        owned: &mut dyn FnMut(PageId),
        faults: &mut Vec<String>,
    ) -> Result<TreeStats> {
        let words = self.pool().pager().pages().div_ceil(64) as usize;
        let mut check = Check {
            tree: self,
            state,
            owned,
            faults,
            stats: TreeStats::default(),
            met: vec![0; words],
            before: Vec::new(),
        };
        check.node(Expected { page: self.root(), level: None, low: &[], high: None })?;
        if state == State::Whole {
            check.ends();
        }
        Ok(check.stats)
    }
}

impl Check<'_> {
    fn fault(&mut self, page: PageId, what: impl AsRef<str>) {
        self.faults.push(format!("tree {}: {page}: {}", self.tree.root(), what.as_ref()));
    }

    /// Notes that a page was met; false when it was met before or does not exist.
    fn meet(&mut self, page: PageId) -> bool {
        let (word, bit) = ((page.get() / 64) as usize, 1 << (page.get() % 64));
        let Some(seen) = self.met.get_mut(word) else {
            self.fault(page, "is pointed at but lies behind the end of the data file");
            return false;
        };
        if *seen & bit != 0 {
            self.fault(page, "is pointed at twice");
            return false;
        }
        *seen |= bit;
        true
    }

    fn copy(&mut self, page: PageId) -> Result<Option<PageBuf>> {
        match self.tree.pool().read(page) {
            Ok(read) => {
                let mut copy = PageBuf::new(self.tree.pool().pager().options().page_size);
                copy.copy_from(read.page());
                Ok(Some(copy))
            }
            Err(error @ Error::Corrupt { .. }) => {
                self.faults.push(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn node(&mut self, at: Expected<'_>) -> Result<()> {
        if !self.meet(at.page) {
            return Ok(());
        }
        (self.owned)(at.page);
        self.stats.pages += 1;
        let Some(copy) = self.copy(at.page)? else { return Ok(()) };
        let page = copy.page();
        if let Err(why) = page.check() {
            self.fault(at.page, why);
            return Ok(());
        }
        let Ok(level) = node::level(&page, self.tree.root()) else {
            let (kind, level, owner) = (page.kind(), page.level(), page.owner());
            self.fault(at.page, format!("kind {kind:?}, level {level}, owner p{owner}"));
            return Ok(());
        };
        if at.level.is_some_and(|expected| expected != level) {
            self.fault(at.page, format!("level {level} where {:?} belongs", at.level));
            return Ok(());
        }
        if at.level.is_none() {
            self.stats.depth = u32::from(level) + 1;
            self.before = vec![None; usize::from(level) + 1];
        }
        self.link(at.page, level, page);
        if level == 0 {
            self.leaf(at, page);
            return Ok(());
        }
        self.inner(at, level, page)
    }

    /// The node visited before on this level must link here.
    fn link(&mut self, id: PageId, level: u8, page: PageRef<'_>) {
        let link = node::link(&page).unwrap_or(None);
        let before = self.before[usize::from(level)].replace((id, link));
        if let Some((left, link)) = before
            && link != Some(id)
        {
            self.fault(left, format!("links to {link:?}, but {id} follows it on level {level}"));
        }
    }

    /// The last node of each level links nowhere.
    fn ends(&mut self) {
        for (last, link) in self.before.clone().into_iter().flatten() {
            if link.is_some() {
                self.fault(last, format!("is the last of its level but links to {link:?}"));
            }
        }
    }

    fn leaf(&mut self, at: Expected<'_>, page: PageRef<'_>) {
        if page.slot_count() == 0 && at.level.is_some() {
            self.fault(at.page, "is an empty leaf below the root");
        }
        let mut before: Option<&[u8]> = None;
        for slot in 0..page.slot_count() {
            let Ok(cell) = LeafCell::read(&page, slot) else {
                self.fault(at.page, format!("cell {slot} is no leaf cell"));
                continue;
            };
            let key = cell.key(page);
            self.key(at, (slot, key, page), before);
            before = Some(key);
            if cell.ghost {
                self.stats.ghosts += 1;
            } else {
                self.stats.rows += 1;
                self.stats.bytes += (cell.key_len + cell.value_len) as u64;
            }
        }
    }

    /// Order, bounds and head of one key or separator.
    fn key(
        &mut self,
        at: Expected<'_>,
        (slot, key, page): (usize, &[u8], PageRef<'_>),
        before: Option<&[u8]>,
    ) {
        if before.is_some_and(|before| before >= key) {
            self.fault(at.page, format!("key {slot} is not greater than the one before"));
        }
        if key < at.low || at.high.is_some_and(|high| key >= high) {
            self.fault(at.page, format!("key {slot} lies outside the bounds of its parent"));
        }
        if page.head(slot) != Some(node::head(key)) {
            self.fault(at.page, format!("slot {slot} has a wrong key head"));
        }
    }

    fn inner(&mut self, at: Expected<'_>, level: u8, page: PageRef<'_>) -> Result<()> {
        if page.slot_count() == 0 && self.state == State::Whole {
            self.fault(at.page, "is an inner node without children");
        }
        let cells: Vec<_> = (0..page.slot_count()).map(|s| InnerCell::read(&page, s)).collect();
        let separator = |slot: usize| match cells.get(slot) {
            Some(Ok(cell)) => Some(cell.separator(page)),
            Some(Err(_)) | None => None,
        };
        for (slot, cell) in cells.iter().enumerate() {
            let Ok(cell) = cell else {
                self.fault(at.page, format!("cell {slot} is no inner cell"));
                continue;
            };
            let low = if slot == 0 { at.low } else { separator(slot).unwrap_or(at.low) };
            if slot == 0 && cell.separator_len != 0 {
                self.fault(at.page, "the first child has a separator");
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
