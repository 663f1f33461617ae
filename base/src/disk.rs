//! The one seam to the outside world: a place that keeps files.
//!
//! ```text
//!              Disk / File
//!    ┌────────────┼──────────────┐
//!  OsDisk      SimDisk        FaultyDisk
//!  real files  memory with    any disk, with calls
//!              a power switch that fail on demand
//! ```
//!
//! Contract, the same for every implementation: nothing is durable before [`File::sync`] (contents and
//! length) and [`Disk::sync_dir`] (names) returned `Ok`; after an `Err` of either nothing is known. Names
//! are relative to the database directory and use `/`.

mod faulty;
mod os;
mod sim;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use faulty::{Failure, Fault, FaultyDisk};
pub use os::OsDisk;
pub use sim::{Loss, SECTOR, SimDisk};

/// Interruptions in a row after which a read or write has failed.
pub const INTERRUPTIONS_MAX: u32 = 1000;

/// How [`Disk::open`] treats a file that is or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; opened for reading only.
    ReadOnly,
    /// It must exist; opened for reading and writing.
    Existing,
    /// Opened for reading and writing; made, empty, when it does not exist.
    Create,
}

/// The calls a disk answers, as traces and fault rules name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Disk::open`] of a file that exists.
    Open,
    /// [`Disk::open`] that makes the file.
    Create,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::list`].
    List,
    /// [`Disk::make_dir`].
    MakeDir,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::lock`], [`Disk::lock_shared`].
    Lock,
    /// [`File::read_at`].
    Read,
    /// [`File::write_at`].
    Write,
    /// [`File::sync`].
    Sync,
    /// [`File::len`].
    Len,
    /// [`File::set_len`].
    SetLen,
}

/// One call, as [`SimDisk::trace`] reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which call.
    pub call: Call,
    /// File or directory; `from -> to` for a rename.
    pub name: String,
    /// First byte of a read or write; the new length of a `SetLen`; else 0.
    pub offset: u64,
    /// Bytes asked for by a read or write; else 0.
    pub len: usize,
}

/// A directory that keeps files. `OsDisk` keeps them; `SimDisk` can lose power.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. A file it makes is durable only after [`Disk::sync_dir`] of its directory.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file, within its directory, over whatever has the new name; atomic; durable after
    /// [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Names of the files in directory `dir` (`""` is the root), sorted, without the directory part.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes directory `dir` unless it exists; durable after `sync_dir("")`.
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes the names in `dir` durable. A failure is a failed sync.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes the advisory lock on file `name`, writing `holder` into it; released when the guard drops
    /// or the process dies. `Err(WouldBlock)` with the present holder's text when it is taken.
    fn lock(&self, name: &str, holder: &str) -> io::Result<Box<dyn DiskLock>>;
    /// Shares the lock on file `name` with other readers, writing nothing: `None` when there is no such
    /// file and so nobody to exclude. `Err(WouldBlock)` as for [`Disk::lock`], which it keeps out in turn.
    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>>;
    /// For messages: where this disk is.
    fn describe(&self) -> String;
}

/// Guard of [`Disk::lock`] and [`Disk::lock_shared`].
pub trait DiskLock: Send + Sync + Debug {}

/// Bytes at offsets.
///
/// `read_at` and `write_at` may be short and may be interrupted, like the system calls they stand for;
/// callers use [`File::read_exact_at`] and [`File::write_all_at`], which deal with both (a call that is
/// interrupted [`INTERRUPTIONS_MAX`] times in a row has failed, so that nobody waits for ever).
pub trait File: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes at `offset`; 0 only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes up to `buf.len()` bytes at `offset`, growing the file when it must.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, into bytes the file has already, and makes those durable: a write and a
    /// sync, unless the file knows a shorter way. After an error nothing is known, as after a failed sync.
    fn write_through(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)?;
        self.sync()
    }
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or zero-extends to `len` bytes; durable after [`File::sync`].
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Lengthens the file by `len` zero bytes at `offset`, its end, and gives it the room for them on the disk
    /// without writing them; durable after [`File::sync`]. `false` when the file cannot do that: write zeros.
    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Offsets, lengths and buffers must be multiples of this (1 unless the file bypasses the OS cache).
    fn alignment(&self) -> usize {
        1
    }

    /// Fills `buf` from `offset` as far as the file goes; returns how many bytes there were.
    fn read_until_end_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match uninterrupted(|| self.read_at(&mut buf[done..], offset + done as u64))? {
                0 => break,
                n => done += n,
            }
            // Only the end of the file cuts a block.
            if !done.is_multiple_of(self.alignment()) {
                break;
            }
        }
        Ok(done)
    }

    /// Fills `buf` from `offset`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.read_until_end_at(buf, offset)?;
        if read == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Fills buffers that follow each other in the file from `offset` on, or fails with `UnexpectedEof`.
    fn read_run_at(&self, run: &mut [&mut [u8]], mut offset: u64) -> io::Result<()> {
        for buf in run {
            self.read_exact_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match uninterrupted(|| self.write_at(buf, offset))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    buf = &buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes each buffer at its offset. The order in which they reach the disk is not defined.
    fn write_batch(&self, batch: &[(u64, &[u8])]) -> io::Result<()> {
        batch.iter().try_for_each(|(offset, bytes)| self.write_all_at(bytes, *offset))
    }
}

/// Repeats a read or write while signals interrupt it.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    for _ in 1..INTERRUPTIONS_MAX {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
    call()
}

/// The directory part of `name` and the rest; the directory is `""` for a file in the root.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn same_directory(from: &str, to: &str) -> io::Result<()> {
    if split(from).0 == split(to).0 {
        return Ok(());
    }
    let why = format!("rename {from} -> {to} leaves its directory");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}
