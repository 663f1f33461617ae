//! Segment files: where the endless log lies on disk.
//!
//! ```text
//!   wal/0000000000000000.log   wal/0000000000100000.log   wal/0000000000200000.log
//!   ┌────────────────────────┐┌────────────────────────┐┌────────────────────────┐
//!   │ LSN 0 … 0xfffff        ││ 0x100000 …             ││ ready: zeros or stale  │
//!   └────────────────────────┘└────────────────────────┘└────────────────────────┘
//!   first kept                 tail                       ready end ─────────────►
//! ```
//!
//! A file is named by its first LSN and has no header: LSN and place are the same number, and a frame's
//! CRC says whether it belongs there. Two rules make a segment safe to append to:
//!
//! - S1: It is written with zeros, synced, and its name synced, *before* the first append may enter it.
//!   Then a force needs to sync file contents only, into space the file system has already given out
//!   (a sync into unwritten space costs twice), and running out of space is met at admission.
//! - S2: A segment nobody needs becomes a later one by rename, then directory sync, then use. A write
//!   before that sync could be found under the old name after a power cut, that is, lost. It keeps its
//!   old bytes; they are no frames at their new LSNs.

use std::collections::BTreeMap;
use std::io;

use argali_base::disk::OpenMode;
use argali_base::sync::{Arc, AtomicU64, Mutex, Ordering};
use argali_base::{Disk, Error, File, Health, Lsn, Result};

use crate::block::{AlignedBuf, is_zero, round_down};
use crate::options::Mutations;

const DIR: &str = "wal";
/// Bytes per write when a segment is filled with zeros.
const FILL_BYTES: usize = 256 << 10;
/// Bytes of zeros given to the device at once: a commit that comes meanwhile waits behind so many.
const FILL_SYNC_BYTES: u64 = 2 << 20;
/// Open files kept; a log of any length needs only those around its two ends.
const HANDLES_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    /// Bytes per segment.
    size: u64,
    health: Health,
    mutations: Mutations,
    files: Mutex<Files>,
    created: AtomicU64,
    recycled: AtomicU64,
}

#[derive(Debug, Default)]
struct Files {
    /// Every segment that exists, by number, with its file once opened.
    open: BTreeMap<u64, Option<Arc<dyn File>>>,
    handles: usize,
    mode: Option<OpenMode>,
}

impl Segments {
    /// Looks at the directory; opens no file yet.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        size: u64,
        (health, mutations): (Health, Mutations),
        mode: OpenMode,
    ) -> Result<Self> {
        let names = match disk.list(DIR) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io("list", DIR, error)),
        };
        let mut files = Files { mode: Some(mode), ..Files::default() };
        for name in &names {
            if let Some(index) = parse(name, size) {
                files.open.insert(index, None);
            }
        }
        let files = Mutex::new(files);
        let (created, recycled) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { disk, size, health, mutations, files, created, recycled })
    }

    /// Makes the directory, empty: what an unfinished creation left is removed.
    pub(crate) fn start_over(&self) -> Result<()> {
        self.disk.make_dir(DIR).map_err(|error| Error::io("make", DIR, error))?;
        self.sync_names("")?;
        let names = self.disk.list(DIR).map_err(|error| Error::io("list", DIR, error))?;
        for name in names {
            let name = format!("{DIR}/{name}");
            self.disk.remove(&name).map_err(|error| Error::io("remove", &name, error))?;
        }
        *self.files.lock() = Files { mode: Some(OpenMode::Existing), ..Files::default() };
        Ok(())
    }

    /// Bytes per segment.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Number of the segment that holds `lsn`.
    pub(crate) fn index(&self, lsn: Lsn) -> u64 {
        lsn.get() / self.size
    }

    /// LSN behind the last byte of segment `index`.
    pub(crate) fn end_of(&self, index: u64) -> u64 {
        (index + 1) * self.size
    }

    pub(crate) fn name(&self, index: u64) -> String {
        format!("{DIR}/{:016x}.log", index * self.size)
    }

    /// Numbers of all segments that exist, ascending.
    pub(crate) fn indexes(&self) -> Vec<u64> {
        self.files.lock().open.keys().copied().collect()
    }

    /// Segments made new, and segments recycled, since open.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.created.load(Ordering::Relaxed), self.recycled.load(Ordering::Relaxed))
    }

    /// `Corrupt` at `lsn`, with file and offset.
    pub(crate) fn corrupt(&self, lsn: Lsn, what: impl Into<String>) -> Error {
        let index = self.index(lsn);
        Error::corrupt(&self.name(index), lsn.get() % self.size, Some(lsn), what)
    }

    /// The file of segment `index`; `None` when there is no such segment.
    pub(crate) fn file(&self, index: u64) -> Result<Option<Arc<dyn File>>> {
        let mut files = self.files.lock();
        let mode = files.mode.unwrap_or(OpenMode::ReadOnly);
        let Some(slot) = files.open.get(&index) else { return Ok(None) };
        if let Some(file) = slot {
            return Ok(Some(Arc::clone(file)));
        }
        let name = self.name(index);
        let file = self.disk.open(&name, mode).map_err(|error| Error::io("open", &name, error))?;
        files.remember(index, Arc::clone(&file));
        Ok(Some(file))
    }

    fn existing(&self, index: u64) -> Result<Arc<dyn File>> {
        self.file(index)?
            .ok_or_else(|| Error::corrupt(&self.name(index), 0, None, "log segment is missing"))
    }

    /// Reads from `start` on until `buf` is full, a file ends early or a segment is missing. Returns the
    /// bytes read. `start` and the buffer are aligned.
    pub(crate) fn read(&self, start: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = start + done as u64;
            let index = at / self.size;
            let Some(file) = self.file(index)? else { break };
            let room = usize::try_from(self.end_of(index) - at).unwrap_or(usize::MAX);
            let want = room.min(buf.len() - done);
            let part = &mut buf[done..done + want];
            let got = file
                .read_until_end_at(part, at % self.size)
                .map_err(|error| Error::io("read", &self.name(index), error))?;
            done += got;
            if got < want {
                break;
            }
        }
        Ok(done)
    }

    /// Writes into one segment. `lsn` and the buffer are aligned. A failed log write poisons.
    pub(crate) fn write(&self, lsn: u64, bytes: &[u8]) -> Result<()> {
        let index = lsn / self.size;
        let file = self.existing(index)?;
        file.write_all_at(bytes, lsn % self.size)
            .map_err(|error| self.health.poison(Error::io("write", &self.name(index), error)))
    }

    /// Writes into one segment and makes it durable, as [`Segments::write`] and [`Segments::sync`] do. Everything
    /// written to that segment before is durable already. A failure poisons.
    pub(crate) fn write_through(&self, lsn: u64, bytes: &[u8]) -> Result<()> {
        let index = lsn / self.size;
        let file = self.existing(index)?;
        let synced = match file.write_through(bytes, lsn % self.size) {
            Err(_) if self.mutations.retry_sync => file.sync(),
            first => first,
        };
        synced.map_err(|error| self.health.poison(Error::io("write", &self.name(index), error)))
    }

    /// Makes the contents of segment `index` durable. A failure poisons.
    pub(crate) fn sync(&self, index: u64) -> Result<()> {
        let file = self.existing(index)?;
        let synced = match file.sync() {
            Err(_) if self.mutations.retry_sync => file.sync(),
            first => first,
        };
        synced.map_err(|error| self.health.poison(Error::io("sync", &self.name(index), error)))
    }

    /// Makes the names of the segments durable. A failure poisons: it is a failed sync.
    pub(crate) fn sync_dir(&self) -> Result<()> {
        self.sync_names(DIR)
    }

    fn sync_names(&self, dir: &str) -> Result<()> {
        if self.mutations.no_dir_sync {
            return Ok(());
        }
        let synced = match self.disk.sync_dir(dir) {
            Err(_) if self.mutations.retry_sync => self.disk.sync_dir(dir),
            first => first,
        };
        synced.map_err(|error| self.health.poison(Error::io("sync directory", dir, error)))
    }

    /// Makes segment `index`: zeros, synced, name synced (S1). Without space nothing is left behind, and
    /// the error's kind says so ([`is_full`]).
    pub(crate) fn create(&self, index: u64) -> Result<()> {
        let name = self.name(index);
        let written = self.fill(&name).inspect_err(|_| {
            // Best effort: the space goes back; a left-over is overwritten by the next attempt.
            drop(self.disk.remove(&name));
        })?;
        self.files.lock().insert(index, written);
        self.sync(index)?;
        self.sync_dir()?;
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes segment `index` without a byte in it: for a copy, which is never appended to.
    pub(crate) fn create_empty(&self, index: u64) -> Result<()> {
        let name = self.name(index);
        let file = self.disk.open(&name, OpenMode::Create);
        let file = file.map_err(|error| Error::io("create", &name, error))?;
        self.files.lock().insert(index, file);
        Ok(())
    }

    fn fill(&self, name: &str) -> Result<Arc<dyn File>> {
        let failed = |error| Error::io("create", name, error);
        let file = self.disk.open(name, OpenMode::Create).map_err(failed)?;
        let zeros = AlignedBuf::new(FILL_BYTES.min(self.size as usize));
        let mut at = 0;
        while at < self.size {
            let len = (self.size - at).min(zeros.len() as u64) as usize;
            file.write_all_at(&zeros[..len], at).map_err(failed)?;
            at += len as u64;
            if at < self.size && at.is_multiple_of(FILL_SYNC_BYTES) {
                let synced = file.sync().map_err(|error| Error::io("sync", name, error));
                synced.map_err(|error| self.health.poison(error))?;
            }
        }
        Ok(file)
    }

    /// Zeroes segment `index(end)` from `end` to its end, where it is not zero already, and makes it
    /// full length. Returns whether anything had to be written; the caller syncs.
    pub(crate) fn erase_from(&self, end: u64) -> Result<bool> {
        let index = end / self.size;
        let file = self.existing(index)?;
        let mut buf = AlignedBuf::new(FILL_BYTES.min(self.size as usize));
        let mut at = round_down(end, crate::block::BLOCK_BYTES);
        let mut wrote = false;
        while at < self.end_of(index) {
            let len = (self.end_of(index) - at).min(buf.len() as u64) as usize;
            let part = &mut buf[..len];
            let got = file
                .read_until_end_at(part, at % self.size)
                .map_err(|error| Error::io("read", &self.name(index), error))?;
            let keep = end.saturating_sub(at) as usize;
            if got < len || !is_zero(&part[keep..]) {
                part[keep..].fill(0);
                self.write(at, part)?;
                wrote = true;
            }
            at += len as u64;
        }
        Ok(wrote)
    }

    /// Removes segment `index`; durable after [`Segments::sync_dir`].
    pub(crate) fn remove(&self, index: u64) -> Result<()> {
        let name = self.name(index);
        self.disk.remove(&name).map_err(|error| Error::io("remove", &name, error))?;
        self.files.lock().forget(index);
        Ok(())
    }

    /// Makes segment `from` into segment `to` by rename; usable after [`Segments::sync_dir`] (S2).
    pub(crate) fn recycle(&self, from: u64, to: u64) -> Result<()> {
        let name = self.name(from);
        self.disk
            .rename(&name, &self.name(to))
            .map_err(|error| Error::io("rename", &name, error))?;
        let mut files = self.files.lock();
        files.forget(from);
        files.open.insert(to, None);
        self.recycled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// What offsets and lengths in these files must be multiples of.
    pub(crate) fn alignment(&self, index: u64) -> Result<usize> {
        let alignment = self.existing(index)?.alignment();
        assert!(
            crate::block::BLOCK_BYTES.is_multiple_of(alignment),
            "a disk asks for blocks of {alignment} bytes; the log's are {}",
            crate::block::BLOCK_BYTES
        );
        Ok(alignment)
    }
}

impl Files {
    fn insert(&mut self, index: u64, file: Arc<dyn File>) {
        self.forget(index);
        self.open.insert(index, None);
        self.remember(index, file);
    }

    fn remember(&mut self, index: u64, file: Arc<dyn File>) {
        if self.handles >= HANDLES_MAX {
            // The oldest is the least wanted; it lies below the durable end, so nothing is un-synced.
            if let Some(oldest) = self.open.values_mut().find(|file| file.is_some()) {
                *oldest = None;
                self.handles -= 1;
            }
        }
        self.open.insert(index, Some(file));
        self.handles += 1;
    }

    fn forget(&mut self, index: u64) {
        if let Some(Some(_)) = self.open.remove(&index) {
            self.handles -= 1;
        }
    }
}

/// Whether an error says that there is no room left on the disk.
pub(crate) fn is_full(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Number of the segment a file name stands for; `None` for files that are no segments.
fn parse(name: &str, size: u64) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() != 16
        || digits.bytes().any(|b| !b.is_ascii_digit() && !(b'a'..=b'f').contains(&b))
    {
        return None;
    }
    let first = u64::from_str_radix(digits, 16).ok()?;
    // Far-away names cannot be ours; leaving them out keeps the arithmetic below from overflowing.
    (first.is_multiple_of(size) && first < 1 << 62).then_some(first / size)
}
