//! What a restart comes to, to be compared with what another one comes to: pages, counts, or the error.

use std::fmt;

use argali_base::Lsn;
use argali_pager::TornPages::FullPageImage;
use argali_recovery::{RecoveryObserver, Silent};

use super::campaign::catch;
use super::db::{CloneDisk, Config, Db, page_id};

/// A page without its checksum, which only a page that was written has, and its LSN, unless undo put images
/// into the log: then that depends on which pages were thrown out meanwhile.
#[derive(PartialEq, Eq)]
pub struct Page {
    lsn: Option<Lsn>,
    body: Vec<u8>,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.body.iter().fold(0_u64, |sum, byte| sum.rotate_left(7) ^ u64::from(*byte));
        write!(f, "{:?} {sum:016x}", self.lsn)
    }
}

/// What a restart comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Restarted {
    pub pages: Vec<Page>,
    /// Records read; changes applied and skipped, by reason; pages changed.
    pub counts: [u64; 7],
    pub losers: usize,
}

/// Restarts unobserved.
pub fn restart(disk: &dyn CloneDisk, config: &Config) -> Result<Restarted, String> {
    restart_seen(disk, config, &mut Silent)
}

/// Restarts, and looks at the pages.
pub fn restart_seen<O: RecoveryObserver>(
    disk: &dyn CloneDisk,
    config: &Config,
    observer: &mut O,
) -> Result<Restarted, String> {
    catch(|| {
        let db = Db::open(disk, config, observer).map_err(|e| e.to_string())?;
        let page = |page| {
            let latched = db.pool.read(page_id(page))?;
            let lsn = Some(latched.page().lsn()).filter(|_| config.torn_pages != FullPageImage);
            Ok(Page { lsn, body: latched.page().bytes()[24..].to_vec() })
        };
        let pages: argali_base::Result<_> = (0..config.pages).map(page).collect();
        let report = &db.report;
        let counts = [
            report.redo.records,
            report.applied,
            report.skipped_not_dirty,
            report.skipped_before_rec_lsn,
            report.skipped_page_newer,
            report.skipped_page_torn,
            report.redo.pages,
        ];
        let losers = report.losers.len();
        Ok(Restarted { pages: pages.map_err(|e| e.to_string())?, counts, losers })
    })
}
