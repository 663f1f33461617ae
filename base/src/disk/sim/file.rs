//! One simulated file: what programs read, what the platter holds, and what lies between.
//!
//! ```text
//!  write ──► current ──────────────── read
//!               │ pending: [write 0..2][len 4096][write 1..3]     (one entry per call, in order)
//!     sync ──► durable                                            (entries applied and forgotten)
//! ```
//!
//! At a power cut each un-synced *sector* is any of its versions since the sync, whatever happened to
//! its neighbours: the disk reorders and tears. *Lengths* are file system metadata, which journals
//! keep in order: the first so many changes of length survive.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::content::{Content, SECTOR};

/// A call that changed the file and has not been synced.
#[derive(Clone, Debug)]
struct Change {
    /// Number of the I/O call, unique on the disk.
    serial: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// Whole sectors from sector `first` as the cache held them after the write; a new length if it grew.
    Write {
        first: u64,
        sectors: Arc<[u8]>,
        grows_to: Option<u64>,
    },
    SetLen(u64),
}

/// What becomes of one un-synced change.
pub(super) enum Fate {
    Keep,
    Lose,
    /// Of its sectors only these reach the disk.
    Torn(Range<usize>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    current: Content,
    durable: Content,
    pending: Vec<Change>,
    /// A sync failed and dropped data: `durable` is no longer "`current` without `pending`".
    diverged: bool,
}

impl FileState {
    /// A file that holds `content`, durably.
    pub(super) fn settled(content: Content) -> Self {
        Self { durable: content.clone(), current: content, ..Self::default() }
    }

    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    /// Writes; remembers it as call `serial` unless the disk keeps no history.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, serial: Option<u64>) {
        let before = self.current.len();
        self.current.write(bytes, offset);
        let Some(serial) = serial.filter(|_| !bytes.is_empty()) else { return };
        let grows_to = Some(self.current.len()).filter(|len| *len > before);
        let (first, end) = (offset / SECTOR as u64, offset + bytes.len() as u64);
        let count = (end.div_ceil(SECTOR as u64) - first) as usize;
        let sectors = self.current.sectors(first, count);
        self.pending.push(Change { serial, what: What::Write { first, sectors, grows_to } });
    }

    pub(super) fn set_len(&mut self, len: u64, serial: Option<u64>) {
        self.current.set_len(len);
        if let Some(serial) = serial {
            self.pending.push(Change { serial, what: What::SetLen(len) });
        }
    }

    /// Everything pending becomes durable.
    pub(super) fn sync(&mut self) {
        if self.diverged {
            // What an earlier failed sync dropped stays lost; the length, being metadata, does not.
            self.durable = self.replay(|_| Fate::Keep);
        } else {
            for change in &self.pending {
                match &change.what {
                    What::Write { first, sectors, .. } => {
                        self.durable.share(&self.current, first * SECTOR as u64, sectors.len());
                    }
                    What::SetLen(len) => self.durable.set_len(*len),
                }
            }
        }
        self.durable.set_len(self.current.len());
        self.pending.clear();
    }

    /// A sync that fails as Linux fails it: the dirty data is marked clean, stays readable for now, and
    /// no later sync will write it.
    pub(super) fn drop_unsynced(&mut self) {
        self.pending.clear();
        self.diverged = true;
    }

    /// Numbers of the calls that are not durable.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|change| change.serial)
    }

    /// The un-synced write made by call `serial`: how many sectors it covers.
    pub(super) fn sectors_of(&self, serial: u64) -> Option<usize> {
        self.pending.iter().find(|c| c.serial == serial).and_then(|c| match &c.what {
            What::Write { sectors, .. } => Some(sectors.len() / SECTOR),
            What::SetLen(_) => None,
        })
    }

    /// The file after a power cut in which `fate` decides call by call.
    pub(super) fn replay(&self, mut fate: impl FnMut(u64) -> Fate) -> Content {
        let mut image = self.durable.clone();
        let mut len = image.len();
        for change in &self.pending {
            let kept = fate(change.serial);
            match (&change.what, kept) {
                (_, Fate::Lose) => {}
                (What::SetLen(to), Fate::Keep | Fate::Torn(_)) => {
                    image.set_len(*to);
                    len = *to;
                }
                (What::Write { first, sectors, grows_to }, kept) => {
                    let range = match kept {
                        Fate::Torn(range) => range,
                        Fate::Keep | Fate::Lose => 0..sectors.len() / SECTOR,
                    };
                    let bytes = &sectors[range.start * SECTOR..range.end * SECTOR];
                    image.write(bytes, (first + range.start as u64) * SECTOR as u64);
                    len = grows_to.unwrap_or(len);
                }
            }
        }
        image.set_len(len);
        image
    }

    /// The file after a power cut in which every un-synced sector is any of its versions.
    pub(super) fn scatter(&self, rng: &mut fastrand::Rng) -> Content {
        let mut image = self.durable.clone();
        let mut len = image.len();
        let mut resizes_left = rng.usize(0..=self.resizes());
        // Versions seen of each sector, the durable one included: the k-th replaces the choice so far
        // with probability 1/k, which makes all of them equally likely (but for cut files).
        let mut versions: HashMap<u64, u32> = HashMap::new();
        for change in &self.pending {
            match &change.what {
                What::Write { first, sectors, grows_to } => {
                    for (sector, bytes) in (*first..).zip(sectors.chunks(SECTOR)) {
                        let seen = versions.entry(sector).or_insert(1);
                        *seen += 1;
                        if rng.u32(0..*seen) == 0 {
                            image.write(bytes, sector * SECTOR as u64);
                        }
                    }
                    if let Some(to) = grows_to.filter(|_| resizes_left > 0) {
                        resizes_left -= 1;
                        len = to;
                    }
                }
                What::SetLen(to) if resizes_left > 0 => {
                    resizes_left -= 1;
                    image.set_len(*to);
                    len = *to;
                }
                What::SetLen(_) => {}
            }
        }
        image.set_len(len);
        image
    }

    fn resizes(&self) -> usize {
        let resizes = |c: &&Change| !matches!(&c.what, What::Write { grows_to: None, .. });
        self.pending.iter().filter(resizes).count()
    }
}
