//! A finished backup, opened to be read: by a restore, and by the repair of a damaged page.
//!
//! Its files have the layout of a database's, so that log and pager read them with all their checks; the
//! manifest takes the place of the control file.

use argali_base::disk::OsDisk;
use argali_base::sync::Arc;
use argali_base::{Disk, Error, Result};
use argali_pager::{PageSize, Pager, PagerOptions, TornPages};
use argali_recovery::OldPages;
use argali_wal::{Control, LogId, LogOptions, Wal};

use super::manifest::Manifest;
use crate::create::DATA;
use crate::open::at_path;
use crate::options::{Options, Place};

/// A backup whose manifest, end of log and length of data are as they should be.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) manifest: Manifest,
    /// Its log, from `manifest.control.log_first` to `manifest.end`.
    pub(crate) wal: Wal,
    /// Its pages.
    pub(crate) pages: Pager,
}

impl Finished {
    /// Opens the backup on `disk`, writing nothing. `Unfinished` or `NotFound` when there is none, `Corrupt`
    /// when it is visibly damaged. Its pages and the beginning of its log are looked at when they are read.
    pub(crate) fn open(disk: &Arc<dyn Disk>) -> Result<Self> {
        let manifest = Manifest::read(disk.as_ref())?;
        let wal = open_log(disk, &manifest.control)?;
        if wal.end() != manifest.end {
            let what = format!("the log of the backup ends here, not at {}", manifest.end);
            return Err(Error::corrupt("wal", wal.end().get(), Some(wal.end()), what));
        }
        let pages = open_pages(disk, &manifest)?;
        if pages.pages() != manifest.pages {
            let what = format!("it has {} pages, not {}", pages.pages(), manifest.pages);
            return Err(Error::corrupt(DATA, 0, None, what));
        }
        Ok(Self { manifest, wal, pages })
    }
}

impl Options {
    /// The backup that pages may be repaired from, if one was named: it must be of the history `log`.
    pub(crate) fn old_pages(&self, log: LogId) -> Result<Option<OldPages>> {
        let disk: Arc<dyn Disk> = match &self.repair_from {
            None => return Ok(None),
            Some(Place::Disk(disk)) => Arc::clone(disk),
            Some(Place::Directory(path)) => {
                Arc::new(OsDisk::open(path).map_err(|e| at_path(path, e))?)
            }
        };
        let Finished { manifest, wal, pages } = Finished::open(&disk)?;
        if manifest.control.log != log {
            let why = format!("{} is of another database or timeline", disk.describe());
            return Err(Error::Invalid { what: "repair_from", why });
        }
        Ok(Some(OldPages { pages, wal }))
    }
}

/// The log on `disk` as `control` describes it, to be read only. None of its records is ever appended to, so
/// limits do not matter.
pub(crate) fn open_log(disk: &Arc<dyn Disk>, control: &Control) -> Result<Wal> {
    let segment_bytes = control.segment_bytes;
    let limit_bytes = segment_bytes.saturating_mul(4);
    let options = LogOptions { segment_bytes, limit_bytes, ..LogOptions::default() };
    Wal::open_read_only(Arc::clone(disk), control, options)
}

fn open_pages(disk: &Arc<dyn Disk>, manifest: &Manifest) -> Result<Pager> {
    let options = PagerOptions {
        page_size: PageSize::new(manifest.control.page_size)?,
        torn_pages: TornPages::None,
        database: manifest.control.log.database,
        growth_pages: 1,
        doublewrite_slots: 0,
        pages_max: u64::MAX,
        mutations: argali_pager::Mutations::default(),
    };
    Pager::open_read_only(Arc::clone(disk), options)
}
