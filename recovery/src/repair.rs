//! Single-page repair: a page that comes back damaged from the disk is made anew from its history.
//!
//! ```text
//!   log    … │ Image p7@312 │ … │ p7@980 │ … │ p7@1204 │ …        end
//!            ◄───────── 1. back to the last record that overwrites p7 ─┤
//!            ├───────── 2. forward, applying p7's chain ──────────────►│   p7 at @1204
//!
//!   without one:   p7 as the backup has it ─► the backup's log ─► this log
//! ```
//!
//! Redo is physical and page by page, so one page can be redone alone (Graefe and Kuno, *Definition, detection
//! and recovery of single-page failures*, VLDB 2012). The chain is the one redo follows, R2 included.
//!
//! - S1: The page's newest record is in the durable log: only a page wholly on disk leaves the pool, and it is
//!   written under the write-ahead rule. So a chain followed to the durable end is complete. The caller
//!   holds the page's latch; nobody adds to its chain meanwhile.
//! - S2: The chain begins at a record that overwrites the page, or in a copy of it. From a copy in a backup
//!   the chain must lead here without a break: either the log reaches back to the backup's end, or the
//!   page's oldest record in it follows, by its `page_prev`, what was rebuilt so far.
//! - S3: Whoever asks holds the log, so that its beginning is not truncated meanwhile.
//!
//! One page and a window of the log are in memory, however long the log is. Damage in the log itself is
//! an error of the log, unless it lies before the chain begins.
//!
//! Left out: an index from pages to records. A repair reads the log from the page's last image on, twice;
//! for many pages a restore is the better way.

use std::collections::VecDeque;
use std::fmt;

use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Lsn, PageId, Result};
use argali_pager::{Found, OpList, PageBuf, Pager};
use argali_wal::{RecordBuf, Wal};

use crate::chain::{Fit, Step, changes_of};

/// Most repairs remembered.
const REMEMBERED_MAX: usize = 64;

/// Copies of pages and the log behind them: a backup of the same history.
#[derive(Debug)]
pub struct OldPages {
    /// The pages. None has an LSN at or beyond the end of `wal`.
    pub pages: Pager,
    /// Records from before the first page was copied to after the last one was.
    pub wal: Wal,
}

/// A page that was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRepair {
    /// The page.
    pub page: PageId,
    /// What was wrong with it.
    pub damage: String,
    /// Whether a backup was needed.
    pub from_backup: bool,
    /// LSN of the image or copy it began with.
    pub base: Lsn,
    /// LSN of its newest record.
    pub last: Lsn,
}

impl fmt::Display for PageRepair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, damage, base, last, .. } = self;
        let source = if self.from_backup { "the backup and the log" } else { "the log" };
        write!(f, "{page} rebuilt from {source}, {base} to {last} ({damage})")
    }
}

/// Rebuilds pages of one database.
#[derive(Debug)]
pub struct Repairer {
    wal: Arc<Wal>,
    database: u64,
    old: Option<OldPages>,
    done: Mutex<VecDeque<PageRepair>>,
}

impl Repairer {
    /// For the pages of `database`, whose log is `wal`; `old` helps where the log does not reach.
    pub fn new(wal: Arc<Wal>, database: u64, old: Option<OldPages>) -> Self {
        Self { wal, database, old, done: Mutex::default() }
    }

    /// Makes in `page` what page `id` should be, after `damage` was found. Returns the LSN from which redo
    /// would have to begin. The caller holds page and log (S1, S3).
    ///
    /// # Errors
    /// `Corrupt` with the page's place, the damage, and why it cannot be rebuilt.
    pub fn rebuild(&self, id: PageId, damage: &Error, page: &mut PageBuf) -> Result<Lsn> {
        let mut chain = Chain { id, page };
        chain.page.page_mut().blank(id, self.database);
        let (base, rec_lsn) =
            self.follow(&mut chain).map_err(|why| beyond_repair(id, damage, &why))?;
        self.remember(PageRepair {
            page: id,
            damage: damage.to_string(),
            from_backup: base.from_backup,
            base: base.lsn,
            last: chain.lsn(),
        });
        Ok(rec_lsn)
    }

    /// The latest repairs, oldest first.
    pub fn repairs(&self) -> Vec<PageRepair> {
        self.done.lock().iter().cloned().collect()
    }

    fn remember(&self, repair: PageRepair) {
        let mut done = self.done.lock();
        if done.len() == REMEMBERED_MAX {
            done.pop_front();
        }
        done.push_back(repair);
    }

    /// Finds where to begin, and goes from there to the durable end.
    fn follow(&self, chain: &mut Chain<'_>) -> Result<(Base, Lsn)> {
        let end = self.wal.durable().end();
        if !self.wal.is_judged() {
            return Err(unreachable(self.wal.first(), "where it ends is not known yet")); // S1
        }
        let seen = self.look_back(chain.id)?;
        let (base, from) = match seen.overwritten {
            Some(lsn) => (Base { lsn, from_backup: false }, lsn),
            None => self.begin_with_backup(chain, &seen)?,
        };
        chain.follow(&self.wal, from, end)?;
        chain.check()?;
        // Without a record here there is nothing that redo could do.
        let rec_lsn =
            if base.from_backup { seen.oldest.map_or(end, |oldest| oldest) } else { from };
        Ok((base, rec_lsn))
    }

    /// Reads back to the last record that overwrites the page, or to the beginning of the log.
    fn look_back(&self, id: PageId) -> Result<Seen> {
        let mut seen = Seen::default();
        let (mut scan, mut buf) = (self.wal.scan_back(self.wal.last()), RecordBuf::new());
        while scan.next(&mut buf)? {
            let record = buf.record();
            let Some(change) = changes_of(&record.body).iter().find(|change| change.page == id)
            else {
                continue;
            };
            seen.oldest = Some(buf.lsn());
            if OpList::overwrites(change.ops) {
                seen.overwritten = Some(buf.lsn());
                break;
            }
        }
        Ok(seen)
    }

    /// Takes the page as the backup has it, up to the backup's end. Returns where this log takes over (S2).
    fn begin_with_backup(&self, chain: &mut Chain<'_>, seen: &Seen) -> Result<(Base, Lsn)> {
        let first = self.wal.first();
        let Some(old) = &self.old else {
            return Err(unreachable(
                first,
                "the log holds no image of it, and no backup is at hand",
            ));
        };
        if old.pages.read(chain.id, chain.page)? == Found::Never {
            chain.page.page_mut().blank(chain.id, self.database);
        }
        let (copied, end) = (chain.lsn(), old.wal.end());
        chain.follow(&old.wal, old.wal.first(), end)?;
        if chain.lsn().is_none() {
            return Err(unreachable(first, "neither the log nor the backup holds an image of it"));
        }
        if first > end && seen.oldest.is_none() {
            let what = "it may have changed between the backup's end and there";
            return Err(unreachable(first, what));
        }
        let lsn = if copied.is_none() { chain.lsn() } else { copied };
        Ok((Base { lsn, from_backup: true }, first))
    }
}

/// What a chain began with.
struct Base {
    lsn: Lsn,
    from_backup: bool,
}

/// What the way back through the log met of a page.
#[derive(Default)]
struct Seen {
    /// Its last record that overwrites it.
    overwritten: Option<Lsn>,
    /// Its oldest record, from there on.
    oldest: Option<Lsn>,
}

/// A page on its way through its history.
struct Chain<'p> {
    id: PageId,
    page: &'p mut PageBuf,
}

impl Chain<'_> {
    fn lsn(&self) -> Lsn {
        self.page.page().lsn()
    }

    /// Applies what the records of `wal` from `from` up to `end` did to the page.
    fn follow(&mut self, wal: &Wal, from: Lsn, end: Lsn) -> Result<()> {
        let (mut scan, mut buf) = (wal.scan(from), RecordBuf::new());
        while scan.at() < end && scan.next(&mut buf)? {
            let record = buf.record();
            let changes = changes_of(&record.body);
            if let Some(change) = changes.iter().find(|change| change.page == self.id) {
                self.apply(&Step::decode(buf.lsn(), &change, Vec::new())?)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, step: &Step<'_>) -> Result<()> {
        match step.fit(self.lsn()) {
            Fit::Contained => Ok(()),
            Fit::Next => self
                .page
                .page_mut()
                .try_apply(&step.ops, step.lsn)
                .map_err(|why| step.refused(&why)),
            Fit::Gap(missing) => {
                let what =
                    format!("the record at {} follows {missing}, which is not there", step.lsn);
                Err(crate::analysis::corrupt(step.lsn, what))
            }
        }
    }

    fn check(&self) -> Result<()> {
        self.page.page().check().map_err(|why| {
            let what = format!("its history makes no sound page: {why}");
            crate::analysis::corrupt(self.lsn(), what)
        })
    }
}

fn unreachable(first: Lsn, what: &str) -> Error {
    crate::analysis::corrupt(first, format!("the log reaches back to {first}; {what}"))
}

/// The damage, with the reason why it stays.
fn beyond_repair(id: PageId, damage: &Error, why: &Error) -> Error {
    let Error::Corrupt { file, offset, lsn, what } = damage else {
        return Error::corrupt("data", 0, None, format!("{id}: {damage}; not repaired: {why}"));
    };
    let reason = match why {
        Error::Corrupt { file, what, .. } if file == "wal" => what.clone(),
        other => other.to_string(),
    };
    Error::corrupt(file, *offset, *lsn, format!("{what}; not repaired: {reason}; restore a backup"))
}
