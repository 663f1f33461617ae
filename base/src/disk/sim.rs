//! A disk in memory with a power switch.
//!
//! ```text
//!            ┌ power_cut(loss) ──► a new disk: one of the states the platter may be in
//!  SimDisk ──┤
//!            └ process_kill() ───► a new disk: everything readable, the un-synced still un-synced
//! ```
//!
//! A crash test runs a workload with [`SimDisk::stop_after`] (from the n-th change on the machine is
//! dead) or with [`SimDisk::with_history`] (one run, images of every instant), then opens what a power
//! cut left. Only calls that change the disk or make it durable are counted: between two of them every
//! image is the same. [`SimDisk::memory`] remembers no history and serves databases in memory.
//!
//! Left out: bit rot (tests write it themselves) and sectors that lie about being written. The lock
//! file of [`Disk::lock`] is not listed: the lock, like the process, does not survive.

mod content;
mod file;
mod world;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use self::world::{Entry, FileId, World};
use super::{Call, Disk, DiskLock, Event, File, OpenMode};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, RwLock};

pub use content::SECTOR;

/// What a power cut does to everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing un-synced reached the platter.
    LoseAll,
    /// Everything did.
    KeepAll,
    /// Every sector is any of its versions since the last sync, independently of all others; of each
    /// file's lengths and each directory's operations the first so many survive. By seed.
    Random(u64),
    /// Everything, but of the last write only a prefix or suffix of its sectors. By seed.
    TornLast(u64),
    /// Everything but the n-th un-synced call (modulo [`SimDisk::unsynced`]). Of a directory
    /// operation also those behind it in that directory.
    DropOne(usize),
    /// Nothing but the n-th un-synced call (modulo [`SimDisk::unsynced`]). Of a directory
    /// operation also those before it in that directory.
    OnlyOne(usize),
}

impl Loss {
    fn seed(self) -> u64 {
        match self {
            Self::Random(seed) | Self::TornLast(seed) => seed,
            Self::LoseAll | Self::KeepAll | Self::DropOne(_) | Self::OnlyOne(_) => 0,
        }
    }
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Machine>);

#[derive(Debug)]
struct Machine {
    seed: u64,
    world: RwLock<World>,
    /// Changing calls so far.
    count: AtomicU64,
    /// The changing call that finds the power off.
    stop: AtomicU64,
    dead: AtomicBool,
    /// Whether `trace` or `history` is on: two locks less on every call when not.
    observed: AtomicBool,
    trace: Mutex<Option<Vec<Event>>>,
    /// Element n is the disk before changing call n.
    history: Mutex<Option<Vec<World>>>,
    /// Bytes that all files together may have.
    capacity: AtomicU64,
    /// Syncs that will fail: file and how many successes before.
    sync_faults: Mutex<Vec<(String, u64)>>,
    /// Who holds each lock: a text and how many readers share it (0 = held exclusively).
    locks: Mutex<BTreeMap<String, (String, usize)>>,
}

impl SimDisk {
    /// An empty disk. `seed` is mixed into every random [`Loss`].
    pub fn new(seed: u64) -> Self {
        Self::of(World::new(true), seed)
    }

    /// An empty disk that cannot lose power: no un-synced history, every call durable at once.
    pub fn memory() -> Self {
        Self::of(World::new(false), 0)
    }

    /// An empty disk that remembers itself before every changing call, for [`SimDisk::at`].
    /// Each call then costs time by the number of 4 KiB chunks in the file it changes: for small files.
    pub fn with_history(seed: u64) -> Self {
        let disk = Self::new(seed);
        disk.record_history();
        disk
    }

    fn of(world: World, seed: u64) -> Self {
        Self(Arc::new(Machine {
            seed,
            world: RwLock::new(world),
            count: AtomicU64::new(0),
            stop: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
            observed: AtomicBool::new(false),
            trace: Mutex::new(None),
            history: Mutex::new(None),
            capacity: AtomicU64::new(u64::MAX),
            sync_faults: Mutex::new(Vec::new()),
            locks: Mutex::new(BTreeMap::new()),
        }))
    }

    /// A disk as it may be found after a power cut now. This one stays as it is, so that many images
    /// can be taken; locks and open files are gone, and counting starts at 0.
    #[must_use]
    pub fn power_cut(&self, loss: Loss) -> Self {
        Self::of(self.0.world.read().power_cut(loss, self.0.seed), self.0.seed)
    }

    /// The disk as the next process finds it when this one is killed now: all that was written can be
    /// read, but what was not synced is still not durable and may be lost by a later power cut. Cheap
    /// (contents are shared until written), so it also serves as a snapshot.
    #[must_use]
    pub fn process_kill(&self) -> Self {
        Self::of(self.0.world.read().snapshot(), self.0.seed)
    }

    /// From now on remembers the disk before every changing call, numbered from now.
    pub fn record_history(&self) {
        *self.0.history.lock() = Some(Vec::new());
        self.0.observed.store(true, Ordering::Relaxed);
    }

    /// The disk, as by [`SimDisk::process_kill`], before the `n`-th changing call since history is
    /// recorded; `None` when there were fewer calls.
    #[must_use]
    pub fn at(&self, n: usize) -> Option<Self> {
        let history = self.0.history.lock();
        let world = history.as_ref()?.get(n)?.snapshot();
        Some(Self::of(world, self.0.seed))
    }

    /// Changing calls so far: create, write, sync, set length, remove, rename, make and sync directory.
    pub fn io_count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Lets changing calls succeed until `n` of them have been made (counted as by
    /// [`SimDisk::io_count`]); the next one finds the power off, and so does every call after it.
    pub fn stop_after(&self, n: u64) {
        self.0.stop.store(n, Ordering::Relaxed);
    }

    /// Whether a call has found the power off.
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// How many calls a power cut now could undo.
    pub fn unsynced(&self) -> usize {
        self.0.world.read().unsynced().len()
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.0.world.read().used_bytes()
    }

    /// From now on the files together may have at most `bytes`: a call that would make them longer fails
    /// with ENOSPC and changes nothing. What is there can be written over, as on most file systems. Images
    /// taken of this disk have no limit.
    pub fn limit_bytes(&self, bytes: u64) {
        self.0.capacity.store(bytes, Ordering::Relaxed);
    }

    /// Makes one sync of file `name`, after `successes` more good ones, fail with EIO and drop its data
    /// the way Linux does: still readable, but no later sync makes it durable.
    pub fn fail_sync(&self, name: &str, successes: u64) {
        self.0.sync_faults.lock().push((name.to_owned(), successes));
    }

    /// Forgets all calls traced so far and traces every call from now on.
    pub fn start_trace(&self) {
        *self.0.trace.lock() = Some(Vec::new());
        self.0.observed.store(true, Ordering::Relaxed);
    }

    /// The calls made since [`SimDisk::start_trace`]; refused calls are not among them.
    pub fn trace(&self) -> Vec<Event> {
        self.0.trace.lock().clone().unwrap_or_default()
    }
}

/// A call about to be made.
#[derive(Clone, Copy)]
struct Step<'a> {
    call: Call,
    name: &'a str,
    offset: u64,
    len: usize,
}

impl<'a> Step<'a> {
    fn new(call: Call, name: &'a str) -> Self {
        Self { call, name, offset: 0, len: 0 }
    }

    fn at(self, offset: u64, len: usize) -> Self {
        Self { offset, len, ..self }
    }
}

impl Machine {
    /// A call that changes nothing.
    fn look<R>(
        &self,
        step: Step<'_>,
        answer: impl FnOnce(&World) -> io::Result<R>,
    ) -> io::Result<R> {
        let world = self.world.read();
        self.check_power()?;
        self.note(step);
        answer(&world)
    }

    /// A call that changes something: counted, remembered, and refused when the power is off.
    fn change<R>(
        &self,
        step: Step<'_>,
        act: impl FnOnce(&mut World, u64) -> io::Result<R>,
    ) -> io::Result<R> {
        self.change_in(&mut self.world.write(), step, act)
    }

    fn change_in<R>(
        &self,
        world: &mut World,
        step: Step<'_>,
        act: impl FnOnce(&mut World, u64) -> io::Result<R>,
    ) -> io::Result<R> {
        let count = self.count.load(Ordering::Relaxed);
        if count >= self.stop.load(Ordering::Relaxed) {
            self.dead.store(true, Ordering::Relaxed);
        }
        self.check_power()?;
        // The world's write lock is held: nobody else counts.
        self.count.store(count + 1, Ordering::Relaxed);
        if self.observed.load(Ordering::Relaxed)
            && let Some(history) = self.history.lock().as_mut()
        {
            history.push(world.snapshot());
        }
        self.note(step);
        let serial = world.take_serial();
        act(world, serial)
    }

    fn check_power(&self) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(io::Error::other("power is off"));
        }
        Ok(())
    }

    fn note(&self, step: Step<'_>) {
        if !self.observed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(trace) = self.trace.lock().as_mut() {
            let Step { call, name, offset, len } = step;
            trace.push(Event { call, name: name.to_owned(), offset, len });
        }
    }

    /// Whether the disk has room for a file of `len` bytes.
    fn check_room(&self, world: &World, id: FileId, len: u64) -> io::Result<()> {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let growth = len.saturating_sub(world.file(id).current().len());
        if growth > 0 && capacity < u64::MAX && world.used_bytes() + growth > capacity {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    fn sync_fails(&self, name: &str) -> bool {
        let mut faults = self.sync_faults.lock();
        let Some(at) = faults.iter().position(|(file, _)| file == name) else { return false };
        if faults[at].1 == 0 {
            faults.remove(at);
            return true;
        }
        faults[at].1 -= 1;
        false
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let machine = &self.0;
        let mut world = machine.world.write();
        let id = match world.find(name) {
            Ok(Entry::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(Entry::File(id)) => {
                machine.check_power()?;
                machine.note(Step::new(Call::Open, name));
                id
            }
            Err(_) if mode == OpenMode::Create => {
                let step = Step::new(Call::Create, name);
                machine.change_in(&mut world, step, |world, serial| world.create(name, serial))?
            }
            Err(e) => return machine.check_power().and(Err(e)),
        };
        Ok(Arc::new(SimFile {
            machine: machine.clone(),
            name: name.to_owned(),
            id,
            writable: mode != OpenMode::ReadOnly,
            _open: world.handle(id),
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.change(Step::new(Call::Remove, name), |world, serial| world.remove(name, serial))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        super::same_directory(from, to)?;
        let both = format!("{from} -> {to}");
        let step = Step::new(Call::Rename, &both);
        self.0.change(step, |world, serial| world.rename(from, to, serial))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.look(Step::new(Call::List, dir), |world| world.list(dir))
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.0.change(Step::new(Call::MakeDir, dir), |world, serial| world.make_dir(dir, serial))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.change(Step::new(Call::SyncDir, dir), |world, _| world.sync_dir(dir))
    }

    fn lock(&self, name: &str, holder: &str) -> io::Result<Box<dyn DiskLock>> {
        self.0.look(Step::new(Call::Lock, name), |_| {
            let mut locks = self.0.locks.lock();
            if let Some((present, _)) = locks.get(name) {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, present.clone()));
            }
            locks.insert(name.to_owned(), (holder.to_owned(), 0));
            let lock = SimLock { machine: self.0.clone(), name: name.to_owned() };
            Ok(Box::new(lock) as Box<dyn DiskLock>)
        })
    }

    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.0.look(Step::new(Call::Lock, name), |_| {
            let mut locks = self.0.locks.lock();
            match locks.get_mut(name) {
                None => {
                    locks.insert(name.to_owned(), ("a reader".to_owned(), 1));
                }
                Some((holder, 0)) => {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.clone()));
                }
                Some((_, readers)) => *readers += 1,
            }
            let lock = SimLock { machine: self.0.clone(), name: name.to_owned() };
            Ok(Some(Box::new(lock) as Box<dyn DiskLock>))
        })
    }

    fn describe(&self) -> String {
        format!("simulated disk (seed {})", self.0.seed)
    }
}

#[derive(Debug)]
struct SimLock {
    machine: Arc<Machine>,
    name: String,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut locks = self.machine.locks.lock();
        if let Some((_, shared)) = locks.get_mut(&self.name) {
            *shared = shared.saturating_sub(1);
            if *shared == 0 {
                locks.remove(&self.name);
            }
        }
    }
}

/// An open file; lives on, nameless, when the file is removed.
#[derive(Debug)]
struct SimFile {
    machine: Arc<Machine>,
    /// The name it was opened by.
    name: String,
    id: FileId,
    writable: bool,
    _open: Arc<()>,
}

impl SimFile {
    fn step(&self, call: Call) -> Step<'_> {
        Step::new(call, &self.name)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let step = self.step(Call::Read).at(offset, buf.len());
        self.machine.look(step, |world| Ok(world.file(self.id).current().read(buf, offset)))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        content::fits(offset, buf.len())?;
        self.machine.change(self.step(Call::Write).at(offset, buf.len()), |world, serial| {
            self.machine.check_room(world, self.id, offset + buf.len() as u64)?;
            let serial = world.remembered(serial);
            world.file_mut(self.id).write(buf, offset, serial);
            Ok(buf.len())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.machine.change(self.step(Call::Sync), |world, _| {
            if self.machine.sync_fails(&self.name) {
                world.file_mut(self.id).drop_unsynced();
                return Err(rustix::io::Errno::IO.into());
            }
            world.file_mut(self.id).sync();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.machine.look(self.step(Call::Len), |world| Ok(world.file(self.id).current().len()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        content::fits(len, 0)?;
        self.machine.change(self.step(Call::SetLen).at(len, 0), |world, serial| {
            self.machine.check_room(world, self.id, len)?;
            let serial = world.remembered(serial);
            world.file_mut(self.id).set_len(len, serial);
            Ok(())
        })
    }
}
