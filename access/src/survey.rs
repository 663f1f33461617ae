//! A check under way: whose each page is, and everything that is wrong so far.
//!
//! ```text
//!  survey.of("tree \"a\"")  ─► tree.verify(&mut survey) ─► claim(p7)  claim(p9)  fault(p9, "…")
//!  survey.of("tree \"b\"")  ─► tree.verify(&mut survey) ─► claim(p9)             ⇒ "p9 belongs to tree "a", too"
//!                             space.verify(&mut survey) ─► every claim against its bit in the maps
//!
//!  owners   p0  p1  p2  …  p7  p9     one number a page: 0 nobody, n the n-th name
//!            1   2   3      4   5
//! ```
//!
//! **What an access method owes a check.** Its `verify` walks everything the thing consists of, and for each
//! page, *before* it goes on through it, [`Survey::claim`]s it: pages of the tree itself, of chains that hang
//! on its cells, of whatever else the allocation map must know of. A refused claim ends that path (the page was
//! met before, or does not exist), and so every walk ends. It reads pages with [`Survey::read`], reports with
//! [`Survey::fault`], and goes on with what is sound: what to do about damage depends on how much there is.
//!
//! Left out: repair. A check changes nothing, so that evidence stays.

use std::collections::HashSet;
use std::fmt;

use argali_base::sync::Arc;
use argali_base::{Error, Lsn, PageId, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::PageBuf;

use crate::fault::{FILE, offset};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File within the database directory.
    pub file: String,
    /// Byte offset in it.
    pub offset: u64,
    /// LSN of the damaged page or record, when known.
    pub lsn: Option<Lsn>,
    /// What the place belongs to: `catalog`, `tree "accounts"`, `allocation map`.
    pub owner: String,
    /// What does not fit.
    pub what: String,
}

/// Collects findings and owners of pages; see the head of this file.
#[derive(Debug)]
pub struct Survey {
    pool: Arc<BufferPool>,
    /// Per page: whose it is, as an index into `names`.
    owners: Vec<u32>,
    /// Name 0 is nobody's.
    names: Vec<String>,
    findings: Vec<Finding>,
}

impl Survey {
    /// Nothing met so far. Takes four bytes a page of the data file.
    pub fn new(pool: &Arc<BufferPool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            owners: vec![0; pool.pager().pages() as usize],
            names: vec![String::new()],
            findings: Vec::new(),
        }
    }

    /// Claims and faults are `owner`'s from here on.
    pub fn of(&mut self, owner: impl Into<String>) -> &mut Self {
        self.names.push(owner.into());
        self
    }

    fn present(&self) -> u32 {
        (self.names.len() - 1) as u32
    }

    /// Notes that the present owner consists of `page`, too. `false` when it said so before, or when there
    /// is no such page: the walk must not go on there. That another owner claimed it is reported, but
    /// no reason to stop.
    pub fn claim(&mut self, page: PageId) -> bool {
        let present = self.present();
        let Some(owner) = self.owners.get_mut(page.get() as usize) else {
            self.fault(page, "is pointed at, but lies behind the end of the data file");
            return false;
        };
        match std::mem::replace(owner, present) {
            0 => true,
            before if before == present => {
                self.fault(page, "is pointed at twice");
                false
            }
            before => {
                let what = format!("belongs to {}, too", self.names[before as usize]);
                self.fault(page, what);
                true
            }
        }
    }

    /// Whose `page` is; `None` when nobody claimed it.
    pub fn owner(&self, page: PageId) -> Option<&str> {
        match self.owners.get(page.get() as usize) {
            None | Some(0) => None,
            Some(owner) => Some(&self.names[*owner as usize]),
        }
    }

    /// A copy of `page`; `None`, and a finding, when it is damaged.
    ///
    /// # Errors
    /// What keeps the page from being read at all.
    pub fn read(&mut self, page: PageId) -> Result<Option<PageBuf>> {
        let copied = self.pool.read(page).map(|read| {
            let mut copy = PageBuf::new(self.pool.pager().options().page_size);
            copy.copy_from(read.page());
            copy
        });
        self.keep(copied)
    }

    /// Reports something about `page`.
    pub fn fault(&mut self, page: PageId, what: impl fmt::Display) {
        let what = format!("{page} {what}");
        let offset = offset(&self.pool, page);
        self.report(Finding {
            file: FILE.to_owned(),
            offset,
            lsn: None,
            owner: String::new(),
            what,
        });
    }

    /// Damage is a finding; every other error ends the check.
    pub fn keep<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt { file, offset, lsn, what }) => {
                self.report(Finding { file, offset, lsn, owner: String::new(), what });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn report(&mut self, finding: Finding) {
        let owner = self.names[self.present() as usize].clone();
        self.findings.push(Finding { owner, ..finding });
    }

    /// Everything reported, in the order of reporting. What two walks met is told once, as the first's.
    pub fn into_findings(self) -> Vec<Finding> {
        let mut told = HashSet::new();
        let mut findings = self.findings;
        findings.retain(|f| told.insert((f.file.clone(), f.offset, f.what.clone())));
        findings
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, lsn, owner, what } = self;
        write!(f, "{file} at offset {offset}")?;
        lsn.map_or(Ok(()), |lsn| write!(f, " (lsn {lsn})"))?;
        if owner.is_empty() { write!(f, ": {what}") } else { write!(f, ": {owner}: {what}") }
    }
}
