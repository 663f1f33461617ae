//! Any disk, with calls that fail on demand.
//!
//! ```text
//!  disk.fail(Fault::new(Call::Write, "wal/*", Failure::Enospc).after(3).forever());
//!
//!  write data ─ ok   write wal/a ─ ok ok ok ENOSPC ENOSPC …   until heal()
//! ```
//!
//! A refused call does not reach the disk below. What a failed sync does to the data is the business
//! of the disk that holds it: see [`SimDisk::fail_sync`](super::SimDisk::fail_sync).

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Call, Disk, DiskLock, File, OpenMode};
use crate::sync::Mutex;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device failed (EIO).
    Eio,
    /// No space is left (ENOSPC).
    Enospc,
    /// A read or write of more than one byte is done for the first half of its bytes only.
    Short,
    /// Interrupted by a signal (EINTR).
    Eintr,
}

/// A rule: which calls fail, and how; made by [`Fault::new`].
#[derive(Clone, Debug)]
pub struct Fault {
    /// `None`: any call that can fail like this.
    call: Option<Call>,
    name: String,
    failure: Failure,
    skip: u64,
    sticky: bool,
}

impl Fault {
    /// The next `call` on file or directory `name` fails once. A `name` that ends in `*` stands for all
    /// that begin so; a rename goes by its old name. Panics when a call other than read or write is to
    /// be short.
    pub fn new(call: Call, name: &str, failure: Failure) -> Self {
        assert!(fits(call, failure), "{call:?} has no count to be short of");
        Self { call: Some(call), name: name.to_owned(), failure, skip: 0, sticky: false }
    }

    /// The next call of any sort on `name` fails once; a short count is for reads and writes only.
    pub fn any(name: &str, failure: Failure) -> Self {
        Self { call: None, name: name.to_owned(), failure, skip: 0, sticky: false }
    }

    /// Lets `calls` matching calls pass first.
    #[must_use]
    pub fn after(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Goes on failing until [`FaultyDisk::heal`].
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.sticky = true;
        self
    }

    fn concerns(&self, call: Call, name: &str) -> bool {
        let named = match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.name,
        };
        let meant = self.call.map_or_else(|| fits(call, self.failure), |meant| meant == call);
        meant && named
    }
}

/// Whether `call` can fail like this.
fn fits(call: Call, failure: Failure) -> bool {
    failure != Failure::Short || matches!(call, Call::Read | Call::Write)
}

/// A disk whose calls fail as its rules say. Clones share the rules.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    below: Arc<dyn Disk>,
    rules: Arc<Rules>,
}

#[derive(Debug, Default)]
struct Rules(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    fired: u64,
}

impl FaultyDisk {
    /// `below`, without any fault yet.
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, rules: Arc::default() }
    }

    /// Adds a rule. Where several concern one call, the oldest that has nothing more to let pass wins,
    /// and all count the call.
    pub fn fail(&self, fault: Fault) {
        self.rules.0.lock().faults.push(fault);
    }

    /// Drops all rules.
    pub fn heal(&self) {
        self.rules.0.lock().faults.clear();
    }

    /// How many calls have failed or were cut short.
    pub fn fired(&self) -> u64 {
        self.rules.0.lock().fired
    }
}

impl FaultyDisk {
    fn open_below(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let present = if mode == OpenMode::Create { OpenMode::Existing } else { mode };
        match self.below.open(name, present) {
            Err(e) if mode == OpenMode::Create && e.kind() == io::ErrorKind::NotFound => {
                self.rules.check(Call::Create, name)?;
                self.below.open(name, mode)
            }
            found => self.rules.check(Call::Open, name).and(found),
        }
    }
}

impl Rules {
    fn failure(&self, call: Call, name: &str) -> Option<Failure> {
        let mut state = self.0.lock();
        let mut firing = None;
        for (at, fault) in state.faults.iter_mut().enumerate() {
            if !fault.concerns(call, name) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if firing.is_none() {
                firing = Some(at);
            }
        }
        let at = firing?;
        state.fired += 1;
        let failure = state.faults[at].failure;
        if !state.faults[at].sticky {
            state.faults.remove(at);
        }
        Some(failure)
    }

    /// For calls that have no count.
    fn check(&self, call: Call, name: &str) -> io::Result<()> {
        self.count(call, name, 0).map(|_| ())
    }

    /// How many of `len` bytes to read or write.
    fn count(&self, call: Call, name: &str, len: usize) -> io::Result<usize> {
        match self.failure(call, name) {
            None => Ok(len),
            Some(Failure::Short) => Ok(len.div_ceil(2)),
            Some(Failure::Eio) => Err(Errno::IO.into()),
            Some(Failure::Enospc) => Err(Errno::NOSPC.into()),
            Some(Failure::Eintr) => Err(Errno::INTR.into()),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let below = self.open_below(name, mode)?;
        Ok(Arc::new(FaultyFile { below, name: name.to_owned(), rules: self.rules.clone() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.rules.check(Call::Remove, name)?;
        self.below.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rules.check(Call::Rename, from)?;
        self.below.rename(from, to)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.rules.check(Call::List, dir)?;
        self.below.list(dir)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.rules.check(Call::MakeDir, dir)?;
        self.below.make_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.rules.check(Call::SyncDir, dir)?;
        self.below.sync_dir(dir)
    }

    fn lock(&self, name: &str, holder: &str) -> io::Result<Box<dyn DiskLock>> {
        self.rules.check(Call::Lock, name)?;
        self.below.lock(name, holder)
    }

    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.rules.check(Call::Lock, name)?;
        self.below.lock_shared(name)
    }

    fn describe(&self) -> String {
        format!("{} with faults", self.below.describe())
    }
}

#[derive(Debug)]
struct FaultyFile {
    below: Arc<dyn File>,
    name: String,
    rules: Arc<Rules>,
}

// `write_batch` and `write_through` are not passed on: their defaults end in `write_at` and `sync`, where each
// call can fail.
impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = self.rules.count(Call::Read, &self.name, buf.len())?;
        self.below.read_at(&mut buf[..n], offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let n = self.rules.count(Call::Write, &self.name, buf.len())?;
        self.below.write_at(&buf[..n], offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.rules.check(Call::Sync, &self.name)?;
        self.below.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.rules.check(Call::Len, &self.name)?;
        self.below.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.rules.check(Call::SetLen, &self.name)?;
        self.below.set_len(len)
    }

    fn alignment(&self) -> usize {
        self.below.alignment()
    }
}
