//! The rows of the comparison: what is done, by how many clients, on which data, and what we aim at.
//!
//! ```text
//!  name               data    each operation
//!  update-durable-N   rows    one row, committed to the device
//!  update-relaxed-N   rows    one row, committed to memory
//!  bank-N             bank    three balances and a row of history, durable (TPC-B, scale 10)
//!  read-uniform-N     rows    one row in the cache
//!  read-zipf-N        rows    the same, skewed
//!  ycsb-a-2, -b-2     rows    half, a twentieth of them updates, skewed
//!  ycsb-e-2           rows    scans of 1 to 100 rows, a twentieth inserts
//!  load-seq, -rand    none    1,000 rows a transaction, ascending or not
//!  load-bulk          none    ascending rows by the engine's own way of loading, if it has one
//!  read-cold-N        rows    one row, with a cache for a quarter of the data
//!  reopen             rows    updates per second of opening, after a kill behind 800,000 relaxed ones
//! ```

use anyhow::{Result, ensure};
use fastrand::Rng;

use crate::store::{Key, Store, Transfer, VALUE_BYTES, Value, Wait, balance, put_all};
use crate::zipf::Zipf;

/// Branches of the bank; ten tellers and `rows / 10` accounts each.
const BRANCHES: u64 = 10;
const TELLERS: u64 = 100;

/// Which data a workload runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Rows, all in the cache.
    Rows,
    /// Rows, a quarter of them in the cache.
    Cold,
    /// Accounts, tellers, branches.
    Bank,
    /// A new database for each slice.
    Fresh,
}

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Update(Wait),
    Bank,
    ReadUniform,
    ReadZipf,
    /// Percent of operations that read; the others update.
    Mixed(u32),
    Scans,
    Load(Load),
    Reopen,
}

/// How rows are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Ascending,
    Random,
    /// Ascending, by the engine's fastest way.
    Bulk,
}

/// One row of the comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) clients: usize,
    pub(crate) data: Data,
    pub(crate) kind: Kind,
    /// Ours divided by the best peer's, as we want it.
    pub(crate) goal: f64,
}

const fn row(name: &'static str, clients: usize, data: Data, kind: Kind, goal: f64) -> Workload {
    Workload { name, clients, data, kind, goal }
}

const DURABLE: Kind = Kind::Update(Wait::Durable);
const RELAXED: Kind = Kind::Update(Wait::Relaxed);

/// All rows.
pub(crate) const ALL: &[Workload] = &[
    row("update-durable-1", 1, Data::Rows, DURABLE, 1.0),
    row("update-durable-4", 4, Data::Rows, DURABLE, 1.8),
    row("update-durable-16", 16, Data::Rows, DURABLE, 2.2),
    row("update-durable-64", 64, Data::Rows, DURABLE, 2.5),
    row("bank-1", 1, Data::Bank, Kind::Bank, 1.1),
    row("bank-4", 4, Data::Bank, Kind::Bank, 2.0),
    row("bank-16", 16, Data::Bank, Kind::Bank, 2.5),
    row("bank-64", 64, Data::Bank, Kind::Bank, 3.5),
    row("update-relaxed-1", 1, Data::Rows, RELAXED, 1.5),
    row("update-relaxed-4", 4, Data::Rows, RELAXED, 2.5),
    row("read-uniform-1", 1, Data::Rows, Kind::ReadUniform, 1.0),
    row("read-uniform-2", 2, Data::Rows, Kind::ReadUniform, 1.0),
    row("read-zipf-1", 1, Data::Rows, Kind::ReadZipf, 1.0),
    row("read-zipf-2", 2, Data::Rows, Kind::ReadZipf, 1.0),
    row("ycsb-a-2", 2, Data::Rows, Kind::Mixed(50), 2.2),
    row("ycsb-b-2", 2, Data::Rows, Kind::Mixed(95), 1.5),
    row("ycsb-e-2", 2, Data::Rows, Kind::Scans, 0.7),
    row("load-seq", 1, Data::Fresh, Kind::Load(Load::Ascending), 0.5),
    row("load-bulk", 1, Data::Fresh, Kind::Load(Load::Bulk), 1.0),
    row("load-rand", 1, Data::Fresh, Kind::Load(Load::Random), 1.2),
    row("read-cold-1", 1, Data::Cold, Kind::ReadUniform, 1.1),
    row("read-cold-16", 16, Data::Cold, Kind::ReadUniform, 1.0),
    row("reopen", 2, Data::Rows, Kind::Reopen, 4.0),
];

/// The workload called `name`.
pub(crate) fn named(name: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.name == name)
}

/// Key `number` of `table`.
fn key(table: u8, number: u64) -> Key {
    (u64::from(table) << 56 | number).to_be_bytes()
}

const ROWS: u8 = 0;
const ACCOUNTS: u8 = 1;
const TELLER: u8 = 2;
const BRANCH: u8 = 3;
const HISTORY: u8 = 4;

fn value(rng: &mut Rng) -> Value {
    let mut value = [0; VALUE_BYTES];
    rng.fill(&mut value);
    value
}

/// Puts the data of `data` into an empty store.
pub(crate) fn fill(store: &dyn Store, data: Data, rows: u64) -> Result<()> {
    match data {
        Data::Rows | Data::Cold => load(store, rows, Load::Ascending).map(drop),
        Data::Bank => {
            put_all(store, (0..rows).map(|n| (key(ACCOUNTS, n), [0; VALUE_BYTES])))?;
            put_all(store, (0..TELLERS).map(|n| (key(TELLER, n), [0; VALUE_BYTES])))?;
            put_all(store, (0..BRANCHES).map(|n| (key(BRANCH, n), [0; VALUE_BYTES])))
        }
        Data::Fresh => Ok(()),
    }
}

/// Loads `rows` rows, ascending or in an order that jumps; the last transaction is durable.
pub(crate) fn load(store: &dyn Store, rows: u64, how: Load) -> Result<u64> {
    let mut rng = Rng::with_seed(1);
    // An odd multiplier modulo a power of two visits each number once.
    let space = rows.next_power_of_two();
    let number = |n: u64| match how {
        Load::Ascending | Load::Bulk => n,
        Load::Random => n.wrapping_mul(0x9E37_79B9) % space,
    };
    let mut all = (0..rows).map(|n| (key(ROWS, number(n)), value(&mut rng)));
    match how {
        Load::Ascending | Load::Random => put_all(store, all)?,
        Load::Bulk => store.bulk_load(&mut all)?,
    }
    sync(store)?;
    Ok(rows)
}

/// One durable commit: what was committed before it is durable, too, in every engine here.
pub(crate) fn sync(store: &dyn Store) -> Result<()> {
    store.put(&[(key(ROWS, 0), [0; VALUE_BYTES])], Wait::Durable)
}

/// One client of a workload.
pub(crate) struct Client<'s> {
    store: &'s dyn Store,
    kind: Kind,
    rows: u64,
    zipf: Option<Zipf>,
    rng: Rng,
    /// Keys of rows it inserts begin here.
    next: u64,
    out: Vec<u8>,
}

impl<'s> Client<'s> {
    /// Client `number`; `serial` differs from slice to slice, so that no key is inserted twice.
    pub(crate) fn new(
        store: &'s dyn Store,
        kind: Kind,
        rows: u64,
        (number, serial): (usize, u64),
    ) -> Self {
        let skewed = matches!(kind, Kind::ReadZipf | Kind::Mixed(_) | Kind::Scans);
        Self {
            store,
            kind,
            rows,
            zipf: skewed.then(|| Zipf::new(rows)),
            rng: Rng::with_seed(serial << 16 | number as u64),
            next: serial << 40 | (number as u64) << 32,
            out: Vec::new(),
        }
    }

    /// One operation.
    pub(crate) fn step(&mut self) -> Result<()> {
        match self.kind {
            Kind::Update(wait) => self.update(wait),
            Kind::Bank => self.transfer(),
            Kind::ReadUniform | Kind::ReadZipf => self.read(),
            Kind::Mixed(reads) if self.rng.u32(..100) < reads => self.read(),
            Kind::Mixed(_) | Kind::Reopen => self.update(Wait::Relaxed),
            Kind::Scans if self.rng.u32(..100) < 95 => self.scan(),
            Kind::Scans => self.insert(),
            Kind::Load(_) => unreachable!("loads have no clients"),
        }
    }

    fn pick(&mut self) -> Key {
        let number = match &self.zipf {
            Some(zipf) => zipf.pick(&mut self.rng),
            None => self.rng.u64(..self.rows),
        };
        key(ROWS, number)
    }

    fn update(&mut self, wait: Wait) -> Result<()> {
        let row = (self.pick(), value(&mut self.rng));
        self.store.put(&[row], wait)
    }

    fn insert(&mut self) -> Result<()> {
        self.next += 1;
        let row = (key(ROWS, self.next | 1 << 55), value(&mut self.rng));
        self.store.put(&[row], Wait::Relaxed)
    }

    fn read(&mut self) -> Result<()> {
        let key = self.pick();
        ensure!(self.store.get(key, &mut self.out)?, "row {key:?} is missing");
        ensure!(self.out.len() == VALUE_BYTES, "row {key:?} has {} bytes", self.out.len());
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        let (from, limit) = (self.pick(), self.rng.usize(1..=100));
        let mut bytes = 0;
        self.store.scan(from, limit, &mut |_, value| bytes += value.len())?;
        ensure!(bytes > 0, "nothing behind {from:?}");
        Ok(())
    }

    fn transfer(&mut self) -> Result<()> {
        let teller = self.rng.u64(..TELLERS);
        let account = self.rng.u64(..self.rows);
        self.next += 1;
        self.store.transfer(&Transfer {
            balances: [key(ACCOUNTS, account), key(TELLER, teller), key(BRANCH, teller / 10)],
            amount: self.rng.i64(-99_999..=99_999),
            history: key(HISTORY, self.next),
        })
    }
}

/// Checks that accounts, tellers, branches and history have the same sum; returns the rows of history.
pub(crate) fn audit(store: &dyn Store) -> Result<u64> {
    let mut sums = [0_i64; 5];
    let mut history = 0;
    store.scan(key(ACCOUNTS, 0), usize::MAX, &mut |key, value| {
        let table = usize::from(key[0]).min(4);
        sums[table] += balance(value);
        history += u64::from(table == 4);
    })?;
    let [_, accounts, tellers, branches, booked] = sums;
    ensure!(
        accounts == tellers && tellers == branches && branches == booked,
        "the books disagree: accounts {accounts}, tellers {tellers}, branches {branches}, history {booked}"
    );
    Ok(history)
}
