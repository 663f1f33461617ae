//! The check of everything: what `argali check` and every crash test run.
//!
//! ```text
//!  trees      order, separators, links, levels of catalog, pending, and each tree they name
//!  ownership  every page with its bit set belongs to exactly one tree or is a map page, and the reverse
//!  disk       every such page, read back from the file: checksum, id, slots, and a pageLSN the log has
//! ```
//!
//! All faults are listed, not only the first: what to do about damage depends on how much there is. The
//! check needs a moment without writers, so it locks the database for reading; a checkpoint then brings
//! the file up to date with the cache.

use argali_access::TreeStats;
use argali_base::{PageId, Result};
use argali_pager::{Found, MapLayout, PageBuf};
use argali_recovery::Flush;
use argali_txn::{Isolation, LockMode, LockName, Txn, TxnOptions};

use crate::db::Engine;

/// What [`crate::Db::verify`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Named trees.
    pub trees: u64,
    /// Live entries of the named trees.
    pub rows: u64,
    /// Pages in use, maps and catalog included.
    pub pages: u64,
    /// Everything that is wrong, in words; empty = sound.
    pub faults: Vec<String>,
}

impl Verification {
    /// Whether no fault was found.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

pub(crate) fn verify(engine: &Engine) -> Result<Verification> {
    let _no_frees = engine.catalog.pause_frees();
    let _no_writers = if engine.read_only {
        None
    } else {
        let quiet = quiet(engine)?;
        engine.checkpoint(Flush::Everything)?;
        Some(quiet)
    };
    let mut check = Check {
        engine,
        map: MapLayout::new(engine.pager.options().page_size),
        owned: PageSet::default(),
        seen: Verification::default(),
    };
    check.trees()?;
    check.ownership()?;
    Ok(check.seen)
}

/// A transaction whose lock keeps writers away while it lives.
fn quiet(engine: &Engine) -> Result<Txn> {
    let isolation = Isolation::Serializable;
    let lock_timeout = engine.options.lock_timeout;
    let mut txn = engine.txns.begin(TxnOptions { isolation, lock_timeout })?;
    txn.lock(LockName::Database, LockMode::S)?;
    Ok(txn)
}

struct Check<'e> {
    engine: &'e Engine,
    map: MapLayout,
    owned: PageSet,
    seen: Verification,
}

impl Check<'_> {
    fn trees(&mut self) -> Result<()> {
        let catalog = &self.engine.catalog;
        for (name, tree) in catalog.own_trees() {
            self.tree(name, |own, faults| tree.verify(own, faults))?;
        }
        let mut named = Vec::new();
        let mut system = self.engine.txns.begin_system()?;
        let listed =
            catalog.for_each(&mut system, |name, root| named.push((name.to_owned(), root)));
        self.keep_fault("catalog", listed)?;
        for (name, root) in named {
            let tree = catalog.btree_at(root);
            let name = format!("tree {name:?}");
            self.seen.rows += self.tree(&name, |own, faults| tree.verify(own, faults))?;
            self.seen.trees += 1;
        }
        let pending = catalog.pending(&mut system);
        for root in self.keep_fault("pending", pending)?.unwrap_or_default() {
            let tree = catalog.btree_at(root);
            let name = format!("dropped tree at {root}");
            self.tree(&name, |own, faults| tree.verify_remains(own, faults))?;
        }
        Ok(())
    }

    /// Checks one tree; returns its live entries.
    fn tree(
        &mut self,
        name: &str,
        check: impl FnOnce(&mut dyn FnMut(PageId), &mut Vec<String>) -> Result<TreeStats>,
    ) -> Result<u64> {
        let (owned, faults) = (&mut self.owned, &mut Vec::new());
        let mut twice = Vec::new();
        let limit = self.engine.pager.pages();
        let mut own = |page: PageId| {
            if page.get() >= limit {
                twice.push(format!("{page} lies beyond the data file"));
            } else if !owned.insert(page) {
                twice.push(format!("{page} belongs to another tree, too"));
            }
        };
        let checked = check(&mut own, faults);
        let found = faults.drain(..).chain(twice).map(|fault| format!("{name}: {fault}"));
        self.seen.faults.extend(found);
        Ok(self.keep_fault(name, checked)?.map_or(0, |stats| stats.rows))
    }

    /// Damage is a finding; everything else ends the check.
    fn keep_fault<T>(&mut self, name: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_corruption() => {
                self.seen.faults.push(format!("{name}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Compares the maps with what the trees own, and reads every page in use.
    fn ownership(&mut self) -> Result<()> {
        let engine = self.engine;
        let mut used = PageSet::default();
        let scanned = engine.space.for_each_used(&mut |page| {
            used.insert(page);
        });
        self.keep_fault("allocation map", scanned)?;
        let mut buf = PageBuf::new(engine.pager.options().page_size);
        for page in used.iter() {
            self.seen.pages += 1;
            let is_map = page.get().is_multiple_of(self.map.span());
            if !is_map && !self.owned.contains(page) {
                self.seen.faults.push(format!("{page} is marked used, but no tree owns it"));
            }
            self.read_back(page, &mut buf)?;
        }
        let unmarked = self.owned.iter().filter(|page| !used.contains(*page));
        let faults = unmarked.map(|page| format!("{page} is in a tree, but marked free"));
        self.seen.faults.extend(faults.collect::<Vec<_>>());
        Ok(())
    }

    fn read_back(&mut self, id: PageId, buf: &mut PageBuf) -> Result<()> {
        let read = self.engine.pager.read(id, buf);
        let name = id.to_string();
        match self.keep_fault(&name, read)? {
            None => {}
            Some(Found::Never) => {
                self.seen.faults.push(format!("{id} is marked used, but was never written"));
            }
            Some(Found::Page) => {
                let (page, tail) = (buf.page(), self.engine.wal.tail());
                if page.lsn() >= tail {
                    let fault = format!("{id} has pageLSN {}, the log ends at {tail}", page.lsn());
                    self.seen.faults.push(fault);
                }
                if let Err(fault) = page.check() {
                    self.seen.faults.push(format!("{id}: {fault}"));
                }
            }
        }
        Ok(())
    }
}

/// A set of page ids, one bit each.
#[derive(Default)]
struct PageSet(Vec<u64>);

impl PageSet {
    /// Returns whether `page` was new.
    fn insert(&mut self, page: PageId) -> bool {
        let (word, bit) = ((page.get() / 64) as usize, page.get() % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] >> bit & 1 == 0;
        self.0[word] |= 1 << bit;
        new
    }

    fn contains(&self, page: PageId) -> bool {
        let word = self.0.get((page.get() / 64) as usize);
        word.is_some_and(|word| word >> (page.get() % 64) & 1 == 1)
    }

    fn iter(&self) -> impl Iterator<Item = PageId> + '_ {
        let ids = (0..).step_by(64).zip(&self.0);
        ids.flat_map(|(first, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| PageId::new(first + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sets_know_what_is_new() {
        let mut set = PageSet::default();
        for id in [0, 63, 64, 1000] {
            assert!(set.insert(PageId::new(id)));
            assert!(!set.insert(PageId::new(id)));
        }
        assert!(set.contains(PageId::new(64)) && !set.contains(PageId::new(65)));
        assert!(!set.contains(PageId::new(1 << 40)));
        assert_eq!(set.iter().map(PageId::get).collect::<Vec<_>>(), [0, 63, 64, 1000]);
    }
}
