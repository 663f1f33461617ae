//! Damage done to the files of a database: found and named by file and offset, or harmless; never wrong data,
//! never a panic, never a wait without end.
//!
//! ```text
//!  clean   after a shutdown    one bit a sector of every file, each flip alone · pages and segments zeroed, swapped
//!  killed  in mid-flight       files cut, removed, taken from another database or another time of this one
//!
//!  each image: open read-only, check · open, read everything, check · if that finds nothing: work goes on
//! ```
//!
//! In a killed database the end of the log may be taken for a torn tail, and the transactions there for ones
//! that never were: but only bytes that nothing proves durable (`wal/src/end.rs`). `ARGALI_SEEDS=1..20` flips
//! other bits.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::collections::BTreeMap;
use std::sync::Arc;

use argali::disk::{Disk, OpenMode, SimDisk};
use argali::{Db, Error, Flush, Lsn, Options, Result, TornPages, info_on};
use argali_base::Health;
use argali_wal::{LogOptions, RecordBuf, Wal};
use crash::{Client, End, Oracle, State, TORN_PAGES, dump, open, options, seeds, workload};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A database, and what it may be found to hold.
struct Patient {
    options: Options,
    disk: SimDisk,
    oracle: Oracle,
    /// Up to here something proves the log durable.
    proven: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Detected,
    Harmless,
    /// The end of the log was taken for a torn tail.
    Torn,
}

/// How often each verdict was given, by kind of file.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, [u32; 3]>);

impl Tally {
    fn count(&mut self, what: &str, verdict: Verdict) {
        self.0.entry(what.to_owned()).or_default()[verdict as usize] += 1;
    }

    fn print(&self, of: &str) {
        for (what, [detected, harmless, torn]) in &self.0 {
            println!("{of}: {what}: {detected} detected, {harmless} harmless, {torn} torn tails");
        }
    }

    fn of(&self, what: &str) -> [u32; 3] {
        self.0.get(what).copied().unwrap_or_default()
    }
}

fn client(options: &Options, seed: u64) -> Client {
    let disk = SimDisk::new(seed);
    Client::new(open(options, &disk).unwrap(), disk.clone(), seed)
}

impl Patient {
    fn of(options: &Options, disk: SimDisk, oracle: Oracle) -> Self {
        let proven = proven(&disk);
        Self { options: options.clone(), disk, oracle, proven }
    }

    /// After a shutdown.
    fn clean(options: &Options, seed: u64) -> Self {
        let mut client = client(options, seed);
        workload::mix(&mut client).unwrap();
        workload::splits(&mut client).unwrap();
        let Client { db, disk, oracle, .. } = client;
        db.close().unwrap();
        Self::of(options, disk, oracle)
    }

    /// Killed while a transaction larger than the cache was under way.
    fn killed(options: &Options, seed: u64) -> Self {
        let mut client = client(options, seed);
        workload::mix(&mut client).unwrap();
        workload::splits(&mut client).unwrap();
        let loser = client.db.begin().unwrap();
        let tree = loser.open_tree("splits").unwrap().unwrap();
        for n in 0..60_u64 {
            loser.put(&tree, format!("k{n:04}"), [9; 500]).unwrap();
        }
        client.db.checkpoint(Flush::Nothing).unwrap();
        // Behind the last evidence: what a flip in here may take for a torn tail.
        client
            .transaction(|work| {
                let tree = work.tree("mix")?;
                for n in 0..20_u64 {
                    let value = work.fresh(300);
                    work.put(&tree, format!("last{n:02}").as_bytes(), value)?;
                }
                Ok(End::Commit)
            })
            .unwrap();
        Self::of(options, client.disk.process_kill(), client.oracle)
    }

    fn state(&self) -> &State {
        self.oracle.states.last().unwrap()
    }

    /// The patient with one file changed, or taken away.
    fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
        let image = self.disk.process_kill();
        let mut bytes = read(&image, name);
        change(&mut bytes);
        write(&image, name, &bytes);
        image
    }

    /// Opens, reads and checks everything on `image`, whose damage may pass for a torn tail if `tail`.
    fn judge(&self, image: &SimDisk, tail: bool, what: &str) -> Verdict {
        self.look(image, what);
        let found = match self.read_all(image) {
            Ok(found) => found,
            Err(error) => {
                assert!(is_corrupt(&error), "{what}: {error}");
                return Verdict::Detected;
            }
        };
        if &found == self.state() {
            return Verdict::Harmless;
        }
        let committed = self.oracle.states.contains(&found);
        assert!(tail && committed, "{what}: wrong data; one of its states: {committed}");
        Verdict::Torn
    }

    /// Whether `image` is this database in one of its states.
    fn recovers(&self, image: &SimDisk) -> bool {
        let found = self.read_all(&image.process_kill());
        found.is_ok_and(|found| self.oracle.states.contains(&found))
    }

    /// As `argali check` does: any answer but a panic.
    fn look(&self, image: &SimDisk, what: &str) {
        let disk: Arc<dyn Disk> = Arc::new(image.process_kill());
        let seen = self.options.clone().open_read_only_on(disk).and_then(|db| db.verify());
        if let Err(error) = seen {
            let refused = matches!(error, Error::NeedsRecovery);
            assert!(refused || is_corrupt(&error), "{what}: {error}");
        }
    }

    /// Everything there is, checked; when nothing is found, work goes on and nothing is found later.
    fn read_all(&self, image: &SimDisk) -> Result<State> {
        let db = open(&self.options, image)?;
        let found = dump(&db)?;
        checked(&db)?;
        db.update(|tx| {
            let tree = tx.tree("later")?;
            (0..20_u8).try_for_each(|n| tx.put(&tree, [n], [n; 300]).map(drop))
        })?;
        db.close()?;
        let db = open(&self.options, image)?;
        let mut later = dump(&db)?;
        checked(&db)?;
        assert_eq!(later.remove("later").map(|rows| rows.len()), Some(20));
        assert_eq!(later, found, "what was there changed when work went on");
        Ok(found)
    }
}

fn checked(db: &Db) -> Result<()> {
    match db.verify()?.findings.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Error::corrupt(&first.file, first.offset, first.lsn, first.what)),
    }
}

/// Damage, with the file it is in.
fn is_corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt { file, .. } if !file.is_empty())
}

/// How far control file and records prove the log durable.
fn proven(disk: &SimDisk) -> Lsn {
    let disk: Arc<dyn Disk> = Arc::new(disk.process_kill());
    let control = info_on(&disk).unwrap().control;
    let options = LogOptions { segment_bytes: control.segment_bytes, ..LogOptions::default() };
    let wal = Wal::open(disk, &control, options, Health::new()).unwrap();
    let mut scan = wal.scan(control.checkpoint);
    let mut proven = control.clean_end.map_or(control.checkpoint_end, |end| end);
    let mut record = RecordBuf::new();
    while scan.next(&mut record).unwrap() {
        proven = proven.max(record.record().body.durable().unwrap_or(Lsn::NONE));
    }
    proven
}

fn read(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.open(name, OpenMode::Create).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// All files, by full name.
fn files(disk: &SimDisk) -> Vec<String> {
    let segments = disk.list("wal").unwrap().into_iter();
    let mut names: Vec<String> = segments.map(|name| format!("wal/{name}")).collect();
    names.extend(disk.list("").unwrap());
    names.retain(|name| name != "wal" && name != "lock");
    names
}

fn kind(name: &str) -> &str {
    if name.starts_with("wal/") { "wal" } else { name }
}

/// Whether the byte `at` of `name` may pass for a torn tail.
fn may_be_torn(patient: &Patient, name: &str, at: usize) -> bool {
    let Some(first) = name.strip_prefix("wal/").and_then(|name| name.strip_suffix(".log")) else {
        return false;
    };
    let first = u64::from_str_radix(first, 16).unwrap();
    first + at as u64 >= patient.proven.get()
}

/// One bit of each sector of each file; without `ARGALI_STRIDE=1` only of every fifth where they are many.
fn flip_everything(patient: &Patient, seed: u64, tally: &mut Tally) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for name in files(&patient.disk) {
        let len = read(&patient.disk, &name).len();
        let step = if matches!(kind(&name), "control" | "data") { 1 } else { stride(5) };
        for sector in (0..len).step_by(step * SECTOR) {
            let (at, bit) = (sector + rng.usize(..SECTOR.min(len - sector)), rng.u8(..8));
            let image = patient.with(&name, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("{name}: byte {at}, bit {bit}");
            let verdict = patient.judge(&image, may_be_torn(patient, &name, at), &what);
            tally.count(kind(&name), verdict);
        }
    }
}

fn stride(default: usize) -> usize {
    std::env::var("ARGALI_STRIDE").map_or(default, |text| text.parse().unwrap())
}

/// Pages and segments zeroed, swapped with the next, cut; files removed.
fn break_everything(patient: &Patient, tally: &mut Tally) {
    for name in files(&patient.disk) {
        let len = read(&patient.disk, &name).len();
        for at in (0..len).step_by(PAGE * if kind(&name) == "wal" { 4 } else { 1 }) {
            let end = (at + PAGE).min(len);
            for (how, image) in [
                ("zeroed", patient.with(&name, |bytes| bytes[at..end].fill(0))),
                ("swapped", patient.with(&name, |bytes| swap_with_next(&mut bytes[at..]))),
                ("cut", patient.with(&name, |bytes| bytes.truncate(at))),
                ("cut short", patient.with(&name, |bytes| bytes.truncate(at + SECTOR))),
            ] {
                // What is gone may reach behind what is proven, but it begins at `at`.
                let tail = may_be_torn(patient, &name, at);
                let verdict = patient.judge(&image, tail, &format!("{name} {how} at {at}"));
                tally.count(&format!("{} {how}", kind(&name)), verdict);
            }
        }
        let removed = patient.disk.process_kill();
        removed.remove(&name).unwrap();
        let tail = may_be_torn(patient, &name, 0);
        let verdict = patient.judge(&removed, tail, &format!("{name} removed"));
        tally.count(&format!("{} removed", kind(&name)), verdict);
    }
    let segments = patient.disk.list("wal").unwrap();
    for pair in segments.windows(2) {
        let [one, two] = [&pair[0], &pair[1]].map(|name| format!("wal/{name}"));
        let first = read(&patient.disk, &one);
        let image = patient.with(&one, |bytes| *bytes = read(&patient.disk, &two));
        write(&image, &two, &first);
        let tail = may_be_torn(patient, &one, 0);
        let verdict = patient.judge(&image, tail, &format!("{one} and {two} exchanged"));
        tally.count("wal exchanged", verdict);
    }
}

fn swap_with_next(bytes: &mut [u8]) {
    let (page, next) = bytes.split_at_mut(PAGE.min(bytes.len()));
    let len = next.len().min(page.len());
    page[..len].swap_with_slice(&mut next[..len]);
}

/// Each kind of file taken from `other`. Its log may be what would have come next, had this database gone on as
/// the other did: then it is the other that recovers, and nothing is wrong.
fn mix_up(patient: &Patient, other: &Patient, tally: &mut Tally) {
    for which in ["control", "data", "doublewrite", "wal"] {
        let image = patient.disk.process_kill();
        for name in files(&image).iter().filter(|name| kind(name) == which) {
            image.remove(name).unwrap();
        }
        for name in files(&other.disk).iter().filter(|name| kind(name) == which) {
            write(&image, name, &read(&other.disk, name));
        }
        let verdict = if which == "wal" && other.recovers(&image) {
            Verdict::Harmless
        } else {
            patient.judge(&image, false, &format!("{which} of another"))
        };
        tally.count(which, verdict);
    }
}

/// Pages in use, and how many pages the file has.
fn pages(patient: &Patient) -> (u32, u32) {
    let db = open(&patient.options, &patient.disk.process_kill()).unwrap();
    let used = db.verify().unwrap().pages as u32;
    (used, (read(&patient.disk, "data").len() / PAGE) as u32)
}

#[test]
fn a_flipped_bit_in_a_clean_database() {
    for seed in seeds() {
        for mode in TORN_PAGES {
            let patient = Patient::clean(&options().torn_pages(mode), seed);
            let mut tally = Tally::default();
            flip_everything(&patient, seed, &mut tally);
            tally.print(&format!("seed {seed}, {mode:?}, clean"));
            // Every bit of a page in use is found, and no bit of another page matters.
            let ((used, all), sectors) = (pages(&patient), (PAGE / SECTOR) as u32);
            assert_eq!(tally.of("data"), [used * sectors, (all - used) * sectors, 0]);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_killed_database() {
    for seed in seeds() {
        for mode in TORN_PAGES {
            let patient = Patient::killed(&options().torn_pages(mode), seed);
            let mut tally = Tally::default();
            flip_everything(&patient, seed, &mut tally);
            tally.print(&format!("seed {seed}, {mode:?}, killed"));
            let [detected, harmless, torn] = tally.of("wal");
            assert!(detected > 0 && harmless > 0 && torn < detected, "{tally:?}");
        }
    }
}

#[test]
fn pages_and_segments_zeroed_swapped_cut_removed() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode);
        for patient in [Patient::clean(&options, 1), Patient::killed(&options, 1)] {
            let mut tally = Tally::default();
            break_everything(&patient, &mut tally);
            tally.print(&format!("{mode:?}"));
        }
    }
}

#[test]
fn files_of_another_database() {
    let options = options().torn_pages(TornPages::DoubleWrite);
    let other = Patient::clean(&options, 2);
    for patient in [Patient::clean(&options, 1), Patient::killed(&options, 1)] {
        let mut tally = Tally::default();
        mix_up(&patient, &other, &mut tally);
        tally.print("another database");
        for which in ["control", "data", "wal"] {
            assert_eq!(tally.of(which), [1, 0, 0], "{which}");
        }
    }
}

/// Copies of the same database that went different ways, and one that stood still.
#[test]
fn files_of_another_time() {
    let options = options().torn_pages(TornPages::DoubleWrite);
    let before = Patient::clean(&options, 1);
    let go_on = |seed, close: bool| {
        let disk = before.disk.process_kill();
        let mut client = Client::new(open(&options, &disk).unwrap(), disk, seed);
        client.oracle = before.oracle.clone();
        workload::mix(&mut client).unwrap();
        let Client { db, disk, oracle, .. } = client;
        let killed = disk.process_kill();
        db.close().unwrap();
        Patient::of(&options, if close { disk } else { killed }, oracle)
    };
    let mut tally = Tally::default();
    for seed in 5..10 {
        let one = go_on(seed, true);
        for other in [&before, &go_on(seed + 100, true), &go_on(seed + 200, false)] {
            mix_up(&one, other, &mut tally);
            mix_up(other, &one, &mut tally);
        }
    }
    tally.print("another time");
    assert_eq!(tally.of("data")[0], 30, "{tally:?}");
}
