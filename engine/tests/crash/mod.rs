//! The crash laboratory: a client that remembers what it was promised, and a campaign that cuts the
//! power everywhere and compares.
//!
//! ```text
//!  one run on a disk with history          for each I/O n, each loss:
//!  ───┬──────┬─────────┬─────────►          disk.at(n).power_cut(loss) ─► open ─► verify, dump
//!    try 1  ack 1    try 2 (I/O numbers)    dump ∈ { state after k commits : acked(n) ≤ k ≤ tried(n) }
//! ```
//!
//! The oracle is the list of states after each commit. That the dump must be *one* of them, and which,
//! says everything at once: acknowledged ⇒ present, all or nothing, order kept.

// Each test binary uses its part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod copies;
pub mod doubt;
pub mod heaps;
pub mod loads;
pub mod workload;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use argali::disk::{Disk, Loss, SimDisk};
use argali::{Db, Error, Heap, Options, Result, RowId, Silent, Standard, TornPages, Tree, Write};

use doubt::Gid;

/// What a database holds: name → key → value. A heap's rows stand under the name behind [`HEAP`], with their
/// ids as keys.
pub type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What the name of a heap begins with in a [`State`].
const HEAP: &str = "heap ";

/// Small everything: sixteen pages of cache so that pages are stolen, segments small enough to be
/// recycled, a checkpoint every few transactions, no threads.
pub fn options() -> Options {
    Options::new()
        .page_size(4096)
        .cache_bytes(16 * 4096)
        .segment_bytes(64 << 10)
        .log_limit_bytes(8 << 20)
        .log_buffer_bytes(2 << 20)
        .pages_max(1 << 14)
        .background_threads(false)
        .checkpoint_policy(Arc::new(Standard { log_bytes: 24 << 10, ..Standard::default() }))
}

/// Opens on a simulated disk.
pub fn open(options: &Options, disk: &SimDisk) -> Result<Db> {
    options.clone().open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent)
}

/// Everything in the database.
pub fn dump(db: &Db) -> Result<State> {
    let read = db.read()?;
    let mut state = State::new();
    for name in read.trees()? {
        let tree = read.open_tree(&name)?.expect("listed a moment ago, under a lock");
        state.insert(name, read.scan_all(&tree)?.collect::<Result<_>>()?);
    }
    for name in read.heaps()? {
        let heap = read.open_heap(&name)?.expect("listed a moment ago, under a lock");
        let rows = heap.scan(&read)?.map(|row| row.map(|(id, row)| (id.to_bytes().to_vec(), row)));
        state.insert(format!("{HEAP}{name}"), rows.collect::<Result<_>>()?);
    }
    read.finish()?;
    Ok(state)
}

/// What was promised, and when (in I/O calls of the run).
#[derive(Clone, Default)]
pub struct Oracle {
    /// `states[k]`: after `k` commits.
    pub states: Vec<State>,
    /// When commit `k + 1` was asked for.
    tried: Vec<u64>,
    /// When it was acknowledged as durable.
    acked: Vec<u64>,
}

impl Oracle {
    /// Nothing was promised but an empty database.
    pub fn new() -> Self {
        Self { states: vec![State::new()], ..Self::default() }
    }

    /// Fails unless `found` is a state that the promises allow after I/O call `n`.
    pub fn check(&self, n: u64, found: &State) -> Result<(), String> {
        let least = self.acked.iter().filter(|at| **at <= n).count();
        let most = self.tried.iter().filter(|at| **at <= n).count();
        if self.states[least..=most].contains(found) {
            return Ok(());
        }
        let other = self.states.iter().position(|state| state == found);
        Err(match other {
            Some(k) => format!("holds {k} commits; promised were {least} to {most}"),
            None => format!(
                "is no state the run ever committed (promised: {least} to {most} commits); against \
                 the nearest: {}",
                difference(&self.states[most], found)
            ),
        })
    }

    pub fn commits(&self) -> usize {
        self.acked.len()
    }
}

fn difference(expected: &State, found: &State) -> String {
    let flat = |state: &State| -> BTreeMap<String, String> {
        let show =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
        let entries = state.iter().flat_map(|(name, tree)| {
            tree.iter().map(move |(key, value)| (format!("{name}/{}", show(key)), show(value)))
        });
        entries.collect()
    };
    let (expected, found) = (flat(expected), flat(found));
    let missing = expected.iter().filter(|entry| found.get(entry.0) != Some(entry.1)).take(3);
    let extra = found.iter().filter(|entry| expected.get(entry.0) != Some(entry.1)).take(3);
    format!("missing {:?}, unexpected {:?}", missing.collect::<Vec<_>>(), extra.collect::<Vec<_>>())
}

/// The one client of a run.
pub struct Client {
    pub db: Db,
    pub disk: SimDisk,
    pub rng: fastrand::Rng,
    pub oracle: Oracle,
    /// Gids, in the order they were prepared.
    pub in_doubt: VecDeque<String>,
    serial: u64,
}

/// One transaction of the client and the state it will leave.
pub struct Work<'w> {
    pub write: &'w mut Write,
    pub state: &'w mut State,
    pub rng: &'w mut fastrand::Rng,
    pub serial: &'w mut u64,
}

/// How a transaction ends.
#[derive(Clone, PartialEq, Eq)]
pub enum End {
    Commit,
    Abort,
    /// In doubt; the gid says how it will end.
    Prepare(String),
}

impl Client {
    pub fn new(db: Db, disk: SimDisk, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { db, disk, rng, oracle: Oracle::new(), in_doubt: VecDeque::new(), serial: 0 }
    }

    /// Runs one transaction and writes down what was promised.
    pub fn transaction(&mut self, body: impl FnOnce(&mut Work<'_>) -> Result<End>) -> Result<()> {
        let mut write = self.db.begin()?;
        let mut state = self.oracle.states.last().expect("the empty state is there").clone();
        let (rng, serial) = (&mut self.rng, &mut self.serial);
        let end = body(&mut Work { write: &mut write, state: &mut state, rng, serial })?;
        let promise = match &end {
            End::Abort => false,
            End::Commit => true,
            // From the vote on the end is certain, whenever somebody hears of it.
            End::Prepare(gid) => Gid::parse(gid).commits,
        };
        if promise {
            self.oracle.tried.push(self.disk.io_count());
            self.oracle.states.push(state);
        }
        match end {
            End::Abort => write.abort()?,
            End::Commit => drop(write.commit()?),
            End::Prepare(gid) => {
                write.prepare(&gid)?;
                self.in_doubt.push_back(gid);
            }
        }
        if promise {
            self.oracle.acked.push(self.disk.io_count());
        }
        Ok(())
    }

    /// Tells whoever has been in doubt longest how it ends.
    pub fn decide(&mut self) -> Result<()> {
        self.in_doubt.pop_front().map_or(Ok(()), |gid| doubt::decide(&self.db, &gid))
    }
}

impl Work<'_> {
    /// A value no other write ever had.
    pub fn fresh(&mut self, bytes: usize) -> Vec<u8> {
        *self.serial += 1;
        let mut value = format!("v{}-", self.serial).into_bytes();
        value.resize(value.len().max(bytes), b'.');
        value
    }

    pub fn tree(&mut self, name: &str) -> Result<Tree> {
        self.state.entry(name.to_owned()).or_default();
        self.write.tree(name)
    }

    pub fn put(&mut self, tree: &Tree, key: &[u8], value: Vec<u8>) -> Result<()> {
        let old = self.write.put(tree, key, &value)?;
        let model = self.state.get_mut(tree.name()).expect("opened by `tree`");
        assert_eq!(model.insert(key.to_vec(), value), old, "old value of a put");
        Ok(())
    }

    pub fn delete(&mut self, tree: &Tree, key: &[u8]) -> Result<()> {
        let old = self.write.delete(tree, key)?;
        let model = self.state.get_mut(tree.name()).expect("opened by `tree`");
        assert_eq!(model.remove(key), old, "old value of a delete");
        Ok(())
    }

    pub fn delete_range(&mut self, tree: &Tree, range: Range<Vec<u8>>) -> Result<()> {
        let deleted = self.write.delete_range(tree, range.clone())?;
        let model = self.state.get_mut(tree.name()).expect("opened by `tree`");
        let before = model.len();
        model.retain(|key, _| !range.contains(key));
        assert_eq!(deleted, (before - model.len()) as u64, "rows of a range");
        Ok(())
    }

    pub fn heap(&mut self, name: &str) -> Result<Heap> {
        self.state.entry(format!("{HEAP}{name}")).or_default();
        self.write.heap(name)
    }

    /// What the model holds of a heap.
    pub fn rows(&mut self, heap: &Heap) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        self.state.get_mut(&format!("{HEAP}{}", heap.name())).expect("opened by `heap`")
    }

    pub fn insert(&mut self, heap: &Heap, row: Vec<u8>) -> Result<RowId> {
        let id = heap.insert(self.write, &row)?;
        let before = self.rows(heap).insert(id.to_bytes().to_vec(), row);
        assert_eq!(before, None, "{id} is another row's");
        Ok(id)
    }

    pub fn update(&mut self, heap: &Heap, id: RowId, row: Vec<u8>) -> Result<()> {
        heap.update(self.write, id, &row)?;
        self.rows(heap).insert(id.to_bytes().to_vec(), row);
        Ok(())
    }

    pub fn remove(&mut self, heap: &Heap, id: RowId) -> Result<()> {
        heap.delete(self.write, id)?;
        self.rows(heap).remove(&id.to_bytes()[..]);
        Ok(())
    }

    pub fn drop_heap(&mut self, name: &str) -> Result<()> {
        self.state.remove(&format!("{HEAP}{name}"));
        self.write.drop_heap(name)
    }

    /// Loads sorted rows behind those that the tree has.
    pub fn bulk_load(&mut self, tree: &Tree, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<()> {
        let count = rows.len() as u64;
        assert_eq!(
            self.write.bulk_load(tree, rows.iter().map(|(key, value)| Ok((key, value))))?,
            count
        );
        self.state.get_mut(tree.name()).expect("opened by `tree`").extend(rows);
        Ok(())
    }

    pub fn drop_tree(&mut self, name: &str) -> Result<()> {
        self.state.remove(name);
        self.write.drop_tree(name)
    }
}

/// A workload cut everywhere.
pub struct Campaign {
    pub name: &'static str,
    pub seed: u64,
    pub options: Options,
    pub workload: fn(&mut Client) -> Result<()>,
    /// Every how many I/O calls the power is cut; 1 = everywhere.
    pub stride: usize,
    /// Every how many cuts recovery itself is cut at a sample of its calls.
    pub nested_every: usize,
}

/// What a campaign did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub calls: u64,
    pub images: u64,
    pub nested: u64,
    /// Torn pages that redo made anew.
    pub anew: u64,
}

impl Campaign {
    /// Runs the workload once, then recovers from every image. Panics at the first broken promise.
    pub fn run(&self) -> Tally {
        self.try_run().unwrap_or_else(|broken| panic!("{broken}"))
    }

    /// As [`Campaign::run`], for those who expect a promise to be broken.
    pub fn try_run(&self) -> Result<Tally, String> {
        let (client, calls) = self.record();
        let mut tally = Tally { calls, ..Tally::default() };
        for (cut, n) in (0..=calls).step_by(self.stride).enumerate() {
            let image = image_at(&client.disk, n);
            for loss in self.losses(n) {
                let what = format!("cut at {n}, {loss:?}");
                tally.anew += self.recover(&client.oracle, n, &image.power_cut(loss), &what)?;
                tally.images += 1;
            }
            if cut % self.nested_every == self.nested_every - 1 {
                tally.nested += self.cut_recovery(&client.oracle, n, &image)?;
            }
        }
        Ok(tally)
    }

    /// The run itself: the promises, and the disk at every instant of it.
    fn record(&self) -> (Client, u64) {
        let disk = SimDisk::new(self.seed);
        let db = open(&self.options, &disk).expect("creation on a sound disk");
        let created = disk.io_count();
        disk.record_history();
        let mut client = Client::new(db, disk.clone(), self.seed);
        (self.workload)(&mut client).expect("the disk is sound");
        let calls = disk.io_count() - created;
        for at in client.oracle.tried.iter_mut().chain(&mut client.oracle.acked) {
            *at -= created;
        }
        (client, calls)
    }

    /// A few of the infinitely many things a power cut can do; which, varies from cut to cut.
    fn losses(&self, n: u64) -> Vec<Loss> {
        let seed = self.seed << 32 | n;
        let varying = match n % 3 {
            0 => Loss::TornLast(seed),
            1 => Loss::DropOne(n as usize),
            _ => Loss::OnlyOne(n as usize),
        };
        vec![Loss::LoseAll, Loss::Random(seed), varying]
    }

    /// One recovery, checked: promises kept, structures sound, a second recovery changes nothing.
    fn recover(&self, oracle: &Oracle, n: u64, disk: &SimDisk, what: &str) -> Result<u64, String> {
        recover(&self.options, oracle, n, disk)
            .map_err(|broken| format!("{} seed {} {what}: {broken}", self.name, self.seed))
    }

    /// Process killed at `n`, power cut somewhere in the recovery from that: what was merely readable
    /// after the kill must not be built upon before it is durable.
    fn cut_recovery(&self, oracle: &Oracle, n: u64, image: &SimDisk) -> Result<u64, String> {
        let disk = image.process_kill();
        disk.record_history();
        let begun = disk.io_count();
        drop(open(&self.options, &disk).map_err(|e| format!("{} at {n}: {e}", self.name))?);
        let calls = disk.io_count() - begun;
        let mut done = 0;
        for m in (0..calls).step_by((calls as usize / 24).max(1)) {
            let seed = self.seed << 40 | n << 16 | m;
            for loss in [Loss::LoseAll, Loss::Random(seed)] {
                let what = format!("killed at {n}, recovery cut at {m}, {loss:?}");
                self.recover(oracle, n, &image_at(&disk, m).power_cut(loss), &what)?;
                done += 1;
            }
        }
        Ok(done)
    }
}

/// Opens what is on `disk` and holds it against the promises made before call `n`; then a second time,
/// as the process after a kill would find it. How many torn pages redo made anew.
pub fn recover(options: &Options, oracle: &Oracle, n: u64, disk: &SimDisk) -> Result<u64, String> {
    let in_step = |step: &'static str| move |error: Error| format!("{step}: {error}");
    let db = open(options, disk).map_err(in_step("open"))?;
    let anew = db.recovery().pages_overwritten;
    doubt::decide_all(&db, disk)?;
    let found = dump(&db).map_err(in_step("dump"))?;
    oracle.check(n, &found)?;
    no_page_was_repaired(&db)?;
    let again = disk.process_kill();
    let seen = db.verify().map_err(in_step("verify"))?;
    if seen.repaired > 0 {
        return Err(format!("{} pages had to be written again", seen.repaired));
    }
    if !seen.is_sound() {
        return Err(format!("{:#?}", seen.findings));
    }
    drop(db);
    let db = open(options, &again).map_err(in_step("second open"))?;
    let second = dump(&db).map_err(in_step("second dump"))?;
    if second != found {
        return Err("a second recovery changed the state".into());
    }
    Ok(anew)
}

/// A power cut damages no page that redo does not expect. Were one repaired, a broken rule would go unseen.
fn no_page_was_repaired(db: &Db) -> Result<(), String> {
    let stats = db.stats().map_err(|error| format!("stats: {error}"))?;
    match stats.repairs.first() {
        None => Ok(()),
        Some(repair) => Err(format!("{repair}, and others")),
    }
}

/// `disk` as it was before changing call `n`. Behind the last call nothing was remembered: the disk itself
/// is that instant.
fn image_at(disk: &SimDisk, n: u64) -> SimDisk {
    disk.at(n as usize).unwrap_or_else(|| disk.process_kill())
}

/// Seeds of a campaign: a fixed one, or `ARGALI_SEEDS=first..last` for a long one.
pub fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("ARGALI_SEEDS") else { return 1..2 };
    let (first, last) = text.split_once("..").expect("ARGALI_SEEDS=first..last");
    first.parse().expect("a number")..last.parse().expect("a number")
}

/// Both ways of repairing torn pages.
pub const TORN_PAGES: [TornPages; 2] = [TornPages::DoubleWrite, TornPages::FullPageImage];

/// Whether `error` is an honest report of a dead disk and not of damage.
pub fn is_io(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Poisoned { .. } | Error::CommitUnknown { .. })
}
