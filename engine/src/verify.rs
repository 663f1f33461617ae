//! The check of everything: what `argali check` and every crash test run.
//!
//! ```text
//!  things     catalog, pending, and each thing they name: its own `verify` walks it and claims its pages
//!  ownership  every page with its bit set is claimed exactly once, and the reverse
//!  disk       every such page, read back from the file: checksum, id, slots, and a pageLSN the log has
//! ```
//!
//! All faults are listed, not only the first: what to do about damage depends on how much there is. The
//! check needs a moment without writers, so it locks the database for reading; a checkpoint then brings
//! the file up to date with the cache. Pages that are damaged on disk, but whole in the cache or to be rebuilt
//! from log or backup, are written again: a check is also a scrub.
//!
//! Whatever comes to live in pages is checked by a line in [`Check::named`]: a name for it, and its `verify`
//! (what that owes stands in `access/src/survey.rs`).

use argali_access::{BTree, Finding, Heap, Survey};
use argali_base::{Error, PageId, Result};
use argali_pager::{Found, PageBuf};
use argali_recovery::Flush;
use argali_txn::{Isolation, LockMode, LockName, Txn, TxnOptions};

use crate::create::DATA;
use crate::db::Engine;
use crate::handle::{Named, Place};
use crate::sequence;

/// What [`crate::Db::verify`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Named trees.
    pub trees: u64,
    /// Named heaps.
    pub heaps: u64,
    /// Sequences.
    pub sequences: u64,
    /// Live entries of the named trees, and rows of the named heaps.
    pub rows: u64,
    /// Of the rows of heaps, those that stand in another page than their home.
    pub rows_moved: u64,
    /// Pages of heaps that are listed with less room than they have: it lies idle until a deletion there or
    /// a scan notices. No fault.
    pub heap_pages_listed_low: u64,
    /// Pages of heaps that are listed with more room than they have: an insert that tries them corrects
    /// that. No fault.
    pub heap_pages_listed_high: u64,
    /// Pages in use, maps and catalog included.
    pub pages: u64,
    /// Pages whose place on disk was damaged and is whole again.
    pub repaired: u64,
    /// Everything that is wrong; empty = sound.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// Whether nothing wrong was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

pub(crate) fn verify(engine: &Engine) -> Result<Verification> {
    let _no_frees = engine.pending.pause();
    let _no_writers = if engine.read_only {
        None
    } else {
        let quiet = quiet(engine)?;
        engine.checkpoint(Flush::Everything)?;
        Some(quiet)
    };
    let survey = Survey::new(&engine.pool);
    let mut check = Check { engine, survey, seen: Verification::default() };
    check.things()?;
    check.ownership()?;
    Ok(Verification { findings: check.survey.into_findings(), ..check.seen })
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
    survey: Survey,
    seen: Verification,
}

impl Check<'_> {
    fn things(&mut self) -> Result<()> {
        let (catalog, pending) = (&self.engine.catalog, &self.engine.pending);
        for (name, tree) in [("catalog", catalog.own_tree()), ("pending", pending.tree())] {
            tree.verify(self.survey.of(name))?;
        }
        let mut system = self.engine.txns.begin_system()?;
        let mut named = Vec::new();
        let listed =
            catalog.for_each(&mut system, |name, what| named.push((name.to_owned(), what)));
        self.survey.of("catalog").keep(listed)?;
        for (name, place) in named {
            self.named(&name, place)?;
        }
        let rows = pending.rows(&mut system);
        for structure in self.survey.of("pending").keep(rows)?.unwrap_or_default() {
            pending.verify(structure, self.survey.of(format!("pending {structure}")))?;
        }
        Ok(())
    }

    fn named(&mut self, name: &str, Place { named, root }: Place) -> Result<()> {
        let survey = self.survey.of(format!("{} {name:?}", named.noun()));
        let space = self.engine.catalog.space();
        match named {
            Named::Tree => {
                self.seen.rows += BTree::open(space, root).verify(survey)?.rows;
                self.seen.trees += 1;
            }
            Named::Sequence => {
                let tree = BTree::open(space, root);
                tree.verify(survey)?;
                let mut system = self.engine.txns.begin_system()?;
                survey.keep(sequence::verify(&tree, &mut system))?;
                self.seen.sequences += 1;
            }
            Named::Heap => {
                let heap = Heap::open(space, root).verify(survey)?;
                self.seen.rows += heap.rows;
                self.seen.heaps += 1;
                self.seen.rows_moved += heap.moved;
                self.seen.heap_pages_listed_low += heap.listed_low;
                self.seen.heap_pages_listed_high += heap.listed_high;
            }
        }
        Ok(())
    }

    /// Compares the maps with what is claimed, and reads every page in use.
    fn ownership(&mut self) -> Result<()> {
        let mut used = Vec::new();
        self.engine.space.verify(&mut self.survey, &mut |page| used.push(page))?;
        self.seen.pages = used.len() as u64;
        let mut buf = PageBuf::new(self.engine.pager.options().page_size);
        self.survey.of("file");
        used.into_iter().try_for_each(|page| self.read_back(page, &mut buf))?;
        if self.seen.repaired > 0 { self.engine.pool.sync() } else { Ok(()) }
    }

    fn read_back(&mut self, id: PageId, buf: &mut PageBuf) -> Result<()> {
        let read = match self.engine.pager.read(id, buf) {
            Err(damage) if damage.is_corruption() => self.mend(id, damage, buf),
            Ok(Found::Never) => self.mend(id, self.never_written(id), buf),
            read => read,
        };
        match self.survey.keep(read)? {
            None | Some(Found::Never) => {}
            Some(Found::Page) => {
                let (page, tail) = (buf.page(), self.engine.wal.tail());
                if page.lsn() >= tail {
                    let what = format!("has pageLSN {}, the log ends at {tail}", page.lsn());
                    self.survey.fault(id, what);
                }
                if let Err(why) = page.check() {
                    self.survey.fault(id, format_args!("has an unsound body: {why}"));
                }
            }
        }
        Ok(())
    }

    fn never_written(&self, id: PageId) -> Error {
        let offset = id.get() * self.engine.pager.options().page_size.bytes() as u64;
        Error::corrupt(DATA, offset, None, format!("{id} is in use, but was never written"))
    }

    /// Has a damaged page written again, from the cache or rebuilt. Where nothing may be written, says whether
    /// that would help.
    fn mend(&mut self, id: PageId, damage: Error, buf: &mut PageBuf) -> Result<Found> {
        if !self.engine.read_only {
            self.engine.pool.mend(id)?;
            self.seen.repaired += 1;
            return self.engine.pager.read(id, buf);
        }
        match (self.engine.pool.read(id), damage) {
            (Ok(_), Error::Corrupt { file, offset, lsn, what }) => {
                let what = format!("{what}; it can be rebuilt: open the database for writing");
                Err(Error::Corrupt { file, offset, lsn, what })
            }
            (Err(beyond_repair), _) => Err(beyond_repair),
            (Ok(_), damage) => Err(damage),
        }
    }
}
