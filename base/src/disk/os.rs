//! Real files: positional I/O, one descriptor per open file, no user-space cache.
//!
//! ```text
//!  write_at  pwrite      sync      fdatasync (contents and, when it grew, the length)
//!  batch     pwritev     sync_dir  fsync of the directory: its error is a failed sync
//!  read_at   pread       lock      flock, so it dies with the process
//!  run       preadv
//!  write_through   one pwrite past the OS cache, where the directory is meant for it
//!  allocate  fallocate: room that reads as zeros and was never written
//! ```
//!
//! `O_DIRECT` is by name of file or directory, because only callers that look at [`File::alignment`] can
//! use it. A file to write through has two descriptors: everything but [`File::write_through`] takes the
//! one that goes by the OS cache, and the kernel drops from that cache what the other one writes. Bytes
//! written the one way are synced before they are written the other way, so neither finds the other's un-synced.
//! Left out: `io_uring` (a batch seam is there for it). A sync into allocated room that was never written costs
//! twice, for it has a journal to commit, too: nothing beside a data file's thousand pages, but the log,
//! which is synced by the block, writes zeros.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{Disk, DiskLock, File, OpenMode};

/// Alignment that every Linux file system in use accepts for direct I/O.
const DIRECT_ALIGNMENT: usize = 4096;
/// Bytes written past the OS cache at most: beyond, the copy is little beside the transfer, and who reads the
/// file soon (a restart after a kill) finds the bulk of it in memory.
const THROUGH_BYTES_MAX: usize = 64 << 10;
/// Buffers in one `pwritev`; the kernel's limit is 1024.
const MAX_SLICES: usize = 256;

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct OsDisk {
    root: PathBuf,
    direct: Vec<String>,
    through: Option<String>,
}

impl OsDisk {
    /// Makes directory `root` unless it exists (its parent must), durably.
    pub fn create(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref();
        let made = match fs::create_dir(root) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(e),
        };
        let parent = root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Also for a directory that was there: an earlier run may have died before this sync.
        match sync_directory(parent) {
            Err(e) if !made && e.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
        Self::open(root)
    }

    /// Uses the existing directory `root`.
    pub fn open(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref().to_path_buf();
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root, direct: Vec::new(), through: None })
    }

    /// Bypasses the OS cache (`O_DIRECT`) for the files called `names`: their [`File::alignment`] is
    /// 4096 bytes. Where the file system cannot do that, opening such a file fails with `Unsupported`.
    #[must_use]
    pub fn with_direct_io(mut self, names: &[&str]) -> Self {
        self.direct = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Lets [`File::write_through`] bypass the OS cache (`O_DIRECT`) in directory `dir`, where the file system
    /// can do that: a write and its sync are one call, which copies nothing. Their [`File::alignment`] is
    /// 4096 bytes.
    #[must_use]
    pub fn with_write_through(mut self, dir: &str) -> Self {
        self.through = Some(dir.to_owned());
        self
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if inside { Ok(self.root.join(name)) } else { Err(io::ErrorKind::InvalidFilename.into()) }
    }
}

impl Disk for OsDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let path = self.path(name)?;
        let direct = self.direct.iter().any(|n| n == name);
        let through = !direct && self.through.as_deref() == Some(super::split(name).0);
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::ReadOnly).create(mode == OpenMode::Create);
        if direct {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        let file = options.open(&path).map_err(|e| explain_direct(e, direct, name))?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let alignment = if direct || through { DIRECT_ALIGNMENT } else { 1 };
        let through =
            if through && mode != OpenMode::ReadOnly { past_the_cache(&path)? } else { None };
        Ok(Arc::new(OsFile { file, through, alignment }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        super::same_directory(from, to)?;
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir)?)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.path(dir)?;
        match fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_directory(&self.path(dir)?)
    }

    fn lock(&self, name: &str, holder: &str) -> io::Result<Box<dyn DiskLock>> {
        let path = self.path(name)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(&mut file)),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        file.set_len(0)?;
        file.write_all(holder.as_bytes())?;
        Ok(Box::new(OsLock { file }))
    }

    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut file = match fs::File::open(self.path(name)?) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(OsSharedLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Err(taken(&mut file)),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// The file once more, for writes that are durable when they return; `None` where the file system refuses.
fn past_the_cache(path: &Path) -> io::Result<Option<fs::File>> {
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(e) => Err(e),
    }
}

fn explain_direct(e: io::Error, direct: bool, name: &str) -> io::Error {
    if direct && e.kind() == io::ErrorKind::InvalidInput {
        let why = format!("the file system refuses direct I/O for {name}; open without it");
        return io::Error::new(io::ErrorKind::Unsupported, why);
    }
    e
}

/// The error that names whoever has the lock.
fn taken(file: &mut fs::File) -> io::Error {
    // Readers write no name, and the name that stands there may be that of a process long dead.
    if file.try_lock_shared().is_ok() {
        return io::Error::new(io::ErrorKind::WouldBlock, "a reader");
    }
    let mut holder = String::new();
    // Its text is a courtesy: a holder that is just starting or has odd bytes there is "another process".
    let read = file.read_to_string(&mut holder);
    if read.is_err() || holder.is_empty() {
        "another process".clone_into(&mut holder);
    }
    io::Error::new(io::ErrorKind::WouldBlock, holder)
}

#[derive(Debug)]
struct OsLock {
    file: fs::File,
}

impl DiskLock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // So that the next contender never reads the name of somebody who is gone. Closing unlocks.
        let _ = self.file.set_len(0);
    }
}

/// One of several readers; closing the file unlocks.
#[derive(Debug)]
struct OsSharedLock {
    _file: fs::File,
}

impl DiskLock for OsSharedLock {}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    /// The same file, opened for [`File::write_through`].
    through: Option<fs::File>,
    alignment: usize,
}

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_through(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Some(through) = self.through.as_ref().filter(|_| buf.len() <= THROUGH_BYTES_MAX) {
            match through.write_all_at(buf, offset) {
                // A device whose blocks are larger than we know: it has taken nothing.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                done => return done,
            }
        }
        self.write_all_at(buf, offset)?;
        self.sync()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<bool> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn alignment(&self) -> usize {
        self.alignment
    }

    fn read_run_at(&self, run: &mut [&mut [u8]], mut offset: u64) -> io::Result<()> {
        for part in run.chunks_mut(MAX_SLICES) {
            let wanted: usize = part.iter().map(|buf| buf.len()).sum();
            let mut slices: Vec<IoSliceMut<'_>> =
                part.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
            // A short count or an interruption is rare: read again, buffer by buffer.
            if rustix::io::preadv(&self.file, &mut slices, offset) != Ok(wanted) {
                for buf in &mut *slices {
                    self.read_exact_at(buf, offset)?;
                    offset += buf.len() as u64;
                }
                continue;
            }
            offset += wanted as u64;
        }
        Ok(())
    }

    fn write_batch(&self, batch: &[(u64, &[u8])]) -> io::Result<()> {
        let mut rest = batch;
        while !rest.is_empty() {
            let (run, tail) = rest.split_at(adjacent(rest));
            self.write_run(run)?;
            rest = tail;
        }
        Ok(())
    }
}

impl OsFile {
    /// Writes buffers that lie one behind the other in the file with one call.
    fn write_run(&self, run: &[(u64, &[u8])]) -> io::Result<()> {
        let [first, _, ..] = run else {
            return run.iter().try_for_each(|(offset, bytes)| self.write_all_at(bytes, *offset));
        };
        let slices: Vec<IoSlice<'_>> = run.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
        let mut done = match rustix::io::pwritev(&self.file, &slices, first.0) {
            Ok(n) => n,
            Err(Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        // A short count is rare: finish buffer by buffer.
        for (offset, bytes) in run {
            let skip = done.min(bytes.len());
            self.write_all_at(&bytes[skip..], offset + skip as u64)?;
            done -= skip;
        }
        Ok(())
    }
}

/// How many buffers at the front of `batch` follow each other without a hole.
fn adjacent(batch: &[(u64, &[u8])]) -> usize {
    let follows = |pair: &[(u64, &[u8])]| pair[0].0 + pair[0].1.len() as u64 == pair[1].0;
    let links = batch.windows(2).take(MAX_SLICES - 1).take_while(|pair| follows(pair)).count();
    links + 1
}
