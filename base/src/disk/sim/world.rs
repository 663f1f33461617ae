//! Everything a simulated disk holds: directories, files, and what of both a power cut may take.
//!
//! ```text
//!  dirs   ""   { control → f1, data → f2, wal → dir }      pending: [rename control.tmp → control]
//!         wal  { 0…40.log → f3 }                           pending: [add 0…40.log]
//!  files  f1 f2 f3                                         each with its own pending changes
//! ```
//!
//! Directory operations survive in order within one directory, and different directories know nothing
//! of each other; a rename is one operation, so it is there or not. A file's own sync does not make its
//! name durable: some file systems are kinder, none promises it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::Loss;
use super::file::{Fate, FileState};
use crate::disk::split;

pub(super) type FileId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    File(FileId),
    Dir,
}

#[derive(Clone, Debug)]
enum DirOp {
    Add(String, Entry),
    Remove(String),
    Rename(String, String),
}

type Names = BTreeMap<String, Entry>;

#[derive(Clone, Debug, Default)]
struct Dir {
    current: Names,
    durable: Names,
    pending: Vec<(u64, DirOp)>,
}

/// A file and whoever has it open.
#[derive(Debug)]
struct Slot {
    state: Arc<FileState>,
    handles: Arc<()>,
}

#[derive(Debug)]
pub(super) struct World {
    dirs: BTreeMap<String, Dir>,
    files: BTreeMap<FileId, Slot>,
    next_file: FileId,
    /// Number of the next change. Goes on where the killed process stopped: what that one left
    /// un-synced must not share numbers with what its successor does.
    next_serial: u64,
    /// Whether what is not synced is remembered, so that it can be lost.
    volatile: bool,
}

impl World {
    pub(super) fn new(volatile: bool) -> Self {
        let dirs = BTreeMap::from([(String::new(), Dir::default())]);
        Self { dirs, files: BTreeMap::new(), next_file: 1, next_serial: 0, volatile }
    }

    /// The same disk under another owner: nobody has a file open. Cheap: contents are shared.
    pub(super) fn snapshot(&self) -> Self {
        let slot = |s: &Slot| Slot { state: s.state.clone(), handles: Arc::default() };
        let files = self.files.iter().map(|(id, s)| (*id, slot(s))).collect();
        Self { dirs: self.dirs.clone(), files, ..*self }
    }

    pub(super) fn find(&self, name: &str) -> io::Result<Entry> {
        let (dir, base) = split(name);
        self.dir(dir)?.current.get(base).copied().ok_or_else(|| not_found(name))
    }

    pub(super) fn file(&self, id: FileId) -> &FileState {
        &self.files.get(&id).expect("a handle keeps its file").state
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> &mut FileState {
        Arc::make_mut(&mut self.files.get_mut(&id).expect("a handle keeps its file").state)
    }

    /// Bytes of all files that have a name or are open: a file system gives the others' space back at once.
    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<Entry> =
            self.dirs.values().flat_map(|dir| dir.current.values()).copied().collect();
        let there = self.files.iter().filter(|(id, slot)| {
            named.contains(&Entry::File(**id)) || Arc::strong_count(&slot.handles) > 1
        });
        there.map(|(_, slot)| slot.state.current().len()).sum()
    }

    /// What a handle holds while it is open.
    pub(super) fn handle(&self, id: FileId) -> Arc<()> {
        self.files.get(&id).expect("a named file exists").handles.clone()
    }

    /// The number of the change that is about to be made.
    pub(super) fn take_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// `serial`, or nothing where no history is kept.
    pub(super) fn remembered(&self, serial: u64) -> Option<u64> {
        self.volatile.then_some(serial)
    }

    pub(super) fn create(&mut self, name: &str, serial: u64) -> io::Result<FileId> {
        let (dir, base) = split(name);
        let id = self.next_file;
        self.alter(dir, serial, DirOp::Add(base.to_owned(), Entry::File(id)))?;
        self.next_file += 1;
        self.files.insert(id, Slot { state: Arc::default(), handles: Arc::default() });
        Ok(id)
    }

    pub(super) fn remove(&mut self, name: &str, serial: u64) -> io::Result<()> {
        self.expect_file(name)?;
        let (dir, base) = split(name);
        self.alter(dir, serial, DirOp::Remove(base.to_owned()))?;
        self.collect();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, serial: u64) -> io::Result<()> {
        self.expect_file(from)?;
        if matches!(self.find(to), Ok(Entry::Dir)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let ((dir, base), (_, target)) = (split(from), split(to));
        self.alter(dir, serial, DirOp::Rename(base.to_owned(), target.to_owned()))?;
        self.collect();
        Ok(())
    }

    pub(super) fn make_dir(&mut self, name: &str, serial: u64) -> io::Result<()> {
        match self.find(name) {
            Ok(Entry::Dir) => return Ok(()),
            Ok(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => {}
        }
        let (dir, base) = split(name);
        self.alter(dir, serial, DirOp::Add(base.to_owned(), Entry::Dir))?;
        self.dirs.insert(name.to_owned(), Dir::default());
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, name: &str) -> io::Result<()> {
        let dir = self.dirs.get_mut(name).ok_or_else(|| not_found(name))?;
        if !dir.pending.is_empty() {
            dir.durable.clone_from(&dir.current);
            dir.pending.clear();
        }
        self.collect();
        Ok(())
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let names = self.dir(dir)?.current.iter();
        Ok(names.filter(|(_, e)| **e != Entry::Dir).map(|(name, _)| name.clone()).collect())
    }

    /// Numbers of all calls whose effect is not durable, in the order of the calls.
    pub(super) fn unsynced(&self) -> Vec<u64> {
        let files = self.files.values().flat_map(|slot| slot.state.unsynced());
        let names =
            self.dirs.values().flat_map(|dir| dir.pending.iter().map(|(serial, _)| *serial));
        let mut serials: Vec<u64> = files.chain(names).collect();
        serials.sort_unstable();
        serials
    }

    /// What the platter may hold if the power fails now and `loss` is what happens.
    pub(super) fn power_cut(&self, loss: Loss, seed: u64) -> Self {
        if !self.volatile {
            return self.snapshot();
        }
        let mut rng = fastrand::Rng::with_seed(loss.seed() ^ seed);
        let verdict = Verdict::new(self, loss, &mut rng);
        let mut image = Self { next_file: self.next_file, ..Self::new(true) };
        image.dirs = self.surviving_dirs(&verdict, &mut rng);
        for id in image.referenced() {
            let state = &self.files.get(&id).expect("a named file exists").state;
            let content = match loss {
                Loss::Random(_) => state.scatter(&mut rng),
                _ => state.replay(|serial| verdict.fate(serial)),
            };
            let state = Arc::new(FileState::settled(content));
            image.files.insert(id, Slot { state, handles: Arc::default() });
        }
        image
    }

    fn surviving_dirs(&self, verdict: &Verdict, rng: &mut fastrand::Rng) -> BTreeMap<String, Dir> {
        let mut survivors = BTreeMap::new();
        // Parents sort before their children, so a child finds out whether its parent lost it.
        for (name, dir) in &self.dirs {
            let (parent, base) = split(name);
            let named = |parent: &Dir| parent.current.get(base) == Some(&Entry::Dir);
            if !name.is_empty() && !survivors.get(parent).is_some_and(named) {
                continue;
            }
            let mut names = dir.durable.clone();
            let kept = verdict.prefix(&dir.pending, rng);
            dir.pending[..kept].iter().for_each(|(_, op)| op.apply(&mut names));
            survivors.insert(
                name.clone(),
                Dir { durable: names.clone(), current: names, pending: Vec::new() },
            );
        }
        survivors
    }

    fn dir(&self, name: &str) -> io::Result<&Dir> {
        self.dirs.get(name).ok_or_else(|| not_found(name))
    }

    fn expect_file(&self, name: &str) -> io::Result<()> {
        match self.find(name)? {
            Entry::File(_) => Ok(()),
            Entry::Dir => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn alter(&mut self, dir: &str, serial: u64, op: DirOp) -> io::Result<()> {
        let serial = self.remembered(serial);
        let dir = self.dirs.get_mut(dir).ok_or_else(|| not_found(dir))?;
        op.apply(&mut dir.current);
        if let Some(serial) = serial {
            dir.pending.push((serial, op));
        }
        Ok(())
    }

    /// Files that have a name now or may have one after a power cut.
    fn referenced(&self) -> BTreeSet<FileId> {
        let entries = self.dirs.values().flat_map(|dir| {
            let pending = dir.pending.iter().filter_map(|(_, op)| match op {
                DirOp::Add(_, entry) => Some(entry),
                DirOp::Remove(_) | DirOp::Rename(..) => None,
            });
            dir.current.values().chain(dir.durable.values()).chain(pending)
        });
        let files = entries.filter_map(|entry| match entry {
            Entry::File(id) => Some(*id),
            Entry::Dir => None,
        });
        files.collect()
    }

    /// Forgets files without a name that nobody has open.
    fn collect(&mut self) {
        let referenced = self.referenced();
        self.files
            .retain(|id, slot| referenced.contains(id) || Arc::strong_count(&slot.handles) > 1);
    }
}

impl DirOp {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(name, entry) => {
                names.insert(name.clone(), *entry);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
        }
    }
}

/// A [`Loss`] worked out for the calls that are pending on one disk.
struct Verdict {
    loss: Loss,
    /// The call that [`Loss::DropOne`], [`Loss::OnlyOne`] or [`Loss::TornLast`] singles out.
    chosen: Option<u64>,
    torn: std::ops::Range<usize>,
}

impl Verdict {
    fn new(world: &World, loss: Loss, rng: &mut fastrand::Rng) -> Self {
        let unsynced = world.unsynced();
        let sectors = |serial| world.files.values().find_map(|s| s.state.sectors_of(serial));
        let nth = |n: usize| (!unsynced.is_empty()).then(|| unsynced[n % unsynced.len()]);
        let (chosen, torn) = match loss {
            Loss::DropOne(n) | Loss::OnlyOne(n) => (nth(n), 0..0),
            Loss::TornLast(_) => {
                let last = unsynced.iter().rev().find_map(|s| Some((*s, sectors(*s)?)));
                let torn = last.map_or(0..0, |(_, count)| tear(count, rng));
                (last.map(|(serial, _)| serial), torn)
            }
            Loss::LoseAll | Loss::KeepAll | Loss::Random(_) => (None, 0..0),
        };
        Self { loss, chosen, torn }
    }

    fn fate(&self, serial: u64) -> Fate {
        let chosen = self.chosen == Some(serial);
        match self.loss {
            Loss::LoseAll => Fate::Lose,
            Loss::DropOne(_) if chosen => Fate::Lose,
            Loss::OnlyOne(_) if !chosen => Fate::Lose,
            Loss::TornLast(_) if chosen => Fate::Torn(self.torn.clone()),
            _ => Fate::Keep,
        }
    }

    /// How many of a directory's pending operations survive: order is kept, so always the first ones.
    fn prefix(&self, pending: &[(u64, DirOp)], rng: &mut fastrand::Rng) -> usize {
        let chosen = pending.iter().position(|(serial, _)| self.chosen == Some(*serial));
        match self.loss {
            Loss::LoseAll => 0,
            Loss::KeepAll | Loss::TornLast(_) => pending.len(),
            Loss::Random(_) => rng.usize(0..=pending.len()),
            Loss::DropOne(_) => chosen.unwrap_or(pending.len()),
            Loss::OnlyOne(_) => chosen.map_or(0, |at| at + 1),
        }
    }
}

/// A proper prefix or suffix of `count` sectors; of a single sector nothing.
fn tear(count: usize, rng: &mut fastrand::Rng) -> std::ops::Range<usize> {
    if count < 2 {
        return 0..0;
    }
    let cut = rng.usize(1..count);
    if rng.bool() { 0..cut } else { cut..count }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no {name:?} on the simulated disk"))
}
