//! What the clients do: short transactions that meet on a few rows.
//!
//! ```text
//!  rows      …  16 17 18 19 20 21 22 23 24 …       a window of eight rows, which moves on with the clock
//!                    └──── window ────┘            every row is born, written some twenty times, and left
//!  order     within sixteen rows mixed: 19 10 17 …  new rows enter between old ones, and at the end
//! ```
//!
//! Because the window moves, rows appear all the time: whoever scans a range can meet phantoms at any
//! moment. Three in ten transactions only read, half of those through [`argali::Read`]; one in twelve
//! aborts. Between two calls a client sometimes yields or sleeps, so that transactions overlap even where
//! nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use argali::{Error, Isolation};
use fastrand::Rng;

use super::model::Key;
use super::stage::{Look, Recorded, Stage, Way};

/// Rows that are written at a time.
const WINDOW: u32 = 8;
/// Ticks after which the window moves on by a row: some twenty writes for each row.
const TICKS_PER_ROW: u64 = 40;
/// Rows whose order is mixed.
const GROUP: u32 = 16;

/// Who works, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) level: Isolation,
    pub(crate) clients: u32,
    /// Transactions of all clients together.
    pub(crate) transactions: u64,
    pub(crate) seed: u64,
}

/// Lets the clients work until all transactions have ended. The first error ends it.
pub(crate) fn run(stage: &Stage<'_>, plan: Plan) -> anyhow::Result<()> {
    let left = AtomicU64::new(plan.transactions);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|number| {
                let rng = Rng::with_seed(plan.seed << 8 ^ u64::from(number));
                let left = &left;
                scope.spawn(move || Client { stage, plan, number, rng }.work(left))
            })
            .collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

struct Client<'s> {
    stage: &'s Stage<'s>,
    plan: Plan,
    number: u32,
    rng: Rng,
}

impl Client<'_> {
    fn work(mut self, left: &AtomicU64) -> anyhow::Result<()> {
        let take = |left: u64| left.checked_sub(1);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let done = self.transaction();
            if done.is_err() {
                // The others need not go on for nothing.
                left.store(0, Ordering::Relaxed);
            }
            done?;
        }
        Ok(())
    }

    /// One transaction; a lost deadlock is an abort like any other.
    fn transaction(&mut self) -> anyhow::Result<()> {
        let reads = self.rng.u32(..10) < 3;
        let mut txn = if reads && self.rng.bool() {
            self.stage.read(self.number, self.plan.level)?
        } else {
            self.stage.begin(self.number, self.plan.level)?
        };
        for _ in 0..self.rng.u32(1..=4) {
            let done = if reads { self.look(&mut txn) } else { self.act(&mut txn) };
            match done {
                Err(error) if is_retryable(&error) => return txn.abort(),
                done => done?,
            }
            self.pause();
        }
        if self.rng.u32(..12) == 0 { txn.abort() } else { txn.commit() }
    }

    fn act(&mut self, txn: &mut Recorded<'_>) -> anyhow::Result<()> {
        let key = self.key(txn);
        match self.rng.u32(..20) {
            0..9 => self.look(txn),
            9..12 => txn.write(key, Look::Read),
            12..16 => txn.write(key, Look::ForUpdate),
            16..18 => txn.write(key, Look::Blind),
            18 if self.plan.level == Isolation::Serializable && self.rng.bool() => {
                let (from, to) = self.range(txn);
                txn.rewrite(from, to, self.way())
            }
            18 => txn.write(key, Look::Delete),
            _ => txn.write_in_vain(key),
        }
    }

    fn look(&mut self, txn: &mut Recorded<'_>) -> anyhow::Result<()> {
        if self.rng.u32(..3) > 0 {
            let key = self.key(txn);
            return txn.read(key).map(drop);
        }
        let (from, to) = self.range(txn);
        txn.scan(from, to, self.way()).map(drop)
    }

    /// A range that begins within the group of the window, and may end in the next.
    fn range(&mut self, txn: &Recorded<'_>) -> (Key, Key) {
        let from = base(txn) / GROUP * GROUP + self.rng.u32(..GROUP);
        (Key(from), Key(from + self.rng.u32(1..=GROUP)))
    }

    fn way(&mut self) -> Way {
        *self.rng.choice(&[Way::Up, Way::Down, Way::Both]).expect("three")
    }

    /// A row of the window.
    fn key(&mut self, txn: &Recorded<'_>) -> Key {
        let row = base(txn) + self.rng.u32(..WINDOW);
        Key(row / GROUP * GROUP + (row % GROUP * 7 + 3) % GROUP)
    }

    fn pause(&mut self) {
        match self.rng.u32(..40) {
            0 => thread::sleep(Duration::from_micros(self.rng.u64(..200))),
            1..12 => thread::yield_now(),
            _ => {}
        }
    }
}

/// First row of the window when `txn` began.
fn base(txn: &Recorded<'_>) -> u32 {
    (txn.no().0 / TICKS_PER_ROW) as u32
}

fn is_retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(Error::is_retryable)
}
