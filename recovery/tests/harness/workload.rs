//! Workloads: several transactions at a time, from one thread, by seed.
//!
//! A workload is a sequence of random steps by the weights of its [`Mix`]. It is hard on purpose:
//! counters and appends (a step made twice or not at all shows), transactions that touch more pages
//! than the pool has frames (steal), aborts and partial rollbacks, structure changes in the middle of
//! transactions that abort later, checkpoints and page writes at any moment.
//!
//! One thread keeps it deterministic. Conflicts are avoided by bookkeeping: a page is set or appended to
//! by one transaction at a time; counters may be added to by all, since additions commute.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use argali_base::disk::SimDisk;
use argali_base::{Lsn, Result};
use argali_recovery::{Flush, Standard};
use argali_txn::{Durability, Isolation, Prepared, Savepoint, Txn, TxnOptions};

use super::db::{Db, decide, gid, page_id};
pub use super::mix::*;
use super::model::{Effect, Story};

/// One client.
#[derive(Default)]
struct Session {
    txn: Option<Txn>,
    effects: Vec<Effect>,
    /// Savepoints and how many effects there were.
    marks: Vec<(Savepoint, usize)>,
    owned: BTreeSet<usize>,
}

/// A running workload.
pub struct Workload<'d> {
    db: &'d Db,
    disk: &'d SimDisk,
    mix: Mix,
    rng: fastrand::Rng,
    sessions: Vec<Session>,
    /// In the order they were prepared, with the pages nobody else may set or append to meanwhile.
    prepared: VecDeque<(Prepared, BTreeSet<usize>)>,
    gids: u64,
    pub story: Story,
}

/// Cells one page takes at most: keeps pages from filling up.
const APPENDS_MAX: usize = 40;

impl<'d> Workload<'d> {
    /// On a database in the state `story` ends with.
    pub fn new(db: &'d Db, disk: &'d SimDisk, mix: Mix, seed: u64, story: Story) -> Self {
        let sessions = (0..mix.sessions).map(|_| Session::default()).collect();
        let rng = fastrand::Rng::with_seed(seed);
        Self { db, disk, mix, rng, sessions, prepared: VecDeque::new(), gids: 0, story }
    }

    /// Takes all steps, or as many as go well.
    pub fn run(&mut self) -> Result<()> {
        (0..self.mix.steps).try_for_each(|_| {
            self.relieve_the_log()?;
            let step = self.mix.draw(&mut self.rng);
            let session = self.rng.usize(0..self.sessions.len());
            self.step(step, session)
        })
    }

    /// What keeps a log within its limit when the mix takes no checkpoints.
    fn relieve_the_log(&mut self) -> Result<()> {
        let policy =
            Standard { log_bytes: u64::MAX, interval: Duration::MAX, ..Standard::default() };
        if self.db.checkpointer.step(&policy)?.is_some() {
            self.story.acknowledge(self.disk.io_count());
        }
        Ok(())
    }

    fn step(&mut self, step: Step, at: usize) -> Result<()> {
        match step {
            Step::Count => self.count(at),
            Step::Set => self.own(at).map_or(Ok(()), |page| self.set(at, page)),
            Step::Append => self.own(at).map_or(Ok(()), |page| self.append(at, page)),
            Step::Sweep => (0..10).try_for_each(|_| self.count(at)),
            Step::Restructure => self.restructure(at),
            Step::Rewrite => self.rewrite(),
            Step::Nested => self.nested(at),
            Step::Savepoint => self.savepoint(at),
            Step::Rollback => self.rollback(at),
            Step::Commit(durability) => self.commit(at, durability),
            Step::Abort => self.abort(at),
            Step::Prepare => self.prepare(at),
            Step::Decide => self.decide(),
            Step::Checkpoint => self.checkpoint(),
            Step::WriteBack => self.write_back(),
            Step::Sync => self.db.pool.sync(),
        }
    }

    fn txn(&mut self, at: usize) -> Result<&mut Txn> {
        let slot = &mut self.sessions[at].txn;
        if slot.is_none() {
            let options = TxnOptions {
                isolation: Isolation::Serializable,
                lock_timeout: Duration::from_secs(1),
            };
            *slot = Some(self.db.txns.begin(options)?);
        }
        Ok(slot.as_mut().expect("just begun"))
    }

    fn count(&mut self, at: usize) -> Result<()> {
        let page = self.rng.usize(0..self.db.config.pages);
        let delta = self.rng.u64(1..1000);
        let db = self.db;
        db.count(self.txn(at)?, page, delta)?;
        self.sessions[at].effects.push(Effect::Count(page, delta));
        Ok(())
    }

    /// A page this session may set or append to, if one is found at once.
    fn own(&mut self, at: usize) -> Option<usize> {
        let page = self.rng.usize(0..self.db.config.pages);
        let taken =
            self.sessions.iter().enumerate().any(|(s, o)| s != at && o.owned.contains(&page));
        let in_doubt = self.prepared.iter().any(|(_, owned)| owned.contains(&page));
        if taken || in_doubt {
            return None;
        }
        self.sessions[at].owned.insert(page);
        Some(page)
    }

    fn set(&mut self, at: usize, page: usize) -> Result<()> {
        let value: Vec<u8> =
            (0..self.rng.usize(0..200)).map(|_| self.rng.u8(b'a'..=b'z')).collect();
        let db = self.db;
        db.set(self.txn(at)?, page, &value)?;
        self.sessions[at].effects.push(Effect::Set(page, value));
        Ok(())
    }

    fn append(&mut self, at: usize, page: usize) -> Result<()> {
        let ours = self.sessions[at].effects.iter();
        let ours = ours.filter(|e| matches!(e, Effect::Append(p, _) if *p == page)).count();
        if self.story.last().pages[page].appended.len() + ours >= APPENDS_MAX {
            return Ok(());
        }
        let cell: Vec<u8> = (0..self.rng.usize(1..40)).map(|_| self.rng.u8(b'A'..=b'Z')).collect();
        let db = self.db;
        db.append(self.txn(at)?, page, &cell)?;
        self.sessions[at].effects.push(Effect::Append(page, cell));
        Ok(())
    }

    fn two_pages(&mut self) -> [usize; 2] {
        let high = self.rng.usize(1..self.db.config.pages);
        [self.rng.usize(0..high), high]
    }

    /// Permanent from the moment it is logged, whatever becomes of the transaction.
    fn restructure(&mut self, at: usize) -> Result<()> {
        let (pages, delta, db) = (self.two_pages(), self.rng.u64(1..1000), self.db);
        self.structure_event(pages, delta);
        db.restructure(self.txn(at)?, pages, delta).map(drop)
    }

    /// Changes nothing that anybody could see, so it is no event. Now and then the page is written before and
    /// goes on changing after.
    fn rewrite(&mut self) -> Result<()> {
        let page = self.rng.usize(0..self.db.config.pages);
        if self.rng.bool() {
            self.db.pool.write_back(&[page_id(page)])?;
        }
        self.db.rewrite(page, self.rng.bool())?;
        if self.rng.bool() {
            self.db.pool.write_back(&[page_id(page)])?;
        }
        Ok(())
    }

    fn nested(&mut self, at: usize) -> Result<()> {
        let (pages, delta, db) = (self.two_pages(), self.rng.u64(1..1000), self.db);
        self.structure_event(pages, delta);
        db.nested(self.txn(at)?, pages, delta)
    }

    fn structure_event(&mut self, pages: [usize; 2], delta: u64) {
        let effects = pages.map(|page| Effect::Structure(page, delta));
        self.story.event(self.disk.io_count(), &effects);
    }

    fn savepoint(&mut self, at: usize) -> Result<()> {
        let savepoint = self.txn(at)?.savepoint();
        let session = &mut self.sessions[at];
        session.marks.push((savepoint, session.effects.len()));
        Ok(())
    }

    fn rollback(&mut self, at: usize) -> Result<()> {
        let marks = self.sessions[at].marks.len();
        if marks == 0 {
            return Ok(());
        }
        let chosen = self.rng.usize(0..marks);
        let (savepoint, effects) = self.sessions[at].marks[chosen];
        self.txn(at)?.rollback_to(savepoint)?;
        self.sessions[at].marks.truncate(chosen + 1);
        self.sessions[at].effects.truncate(effects);
        Ok(())
    }

    fn commit(&mut self, at: usize, durability: Durability) -> Result<()> {
        let session = std::mem::take(&mut self.sessions[at]);
        let Some(txn) = session.txn else { return Ok(()) };
        let logged = !txn.last_lsn().is_none();
        self.story.event(self.disk.io_count(), &session.effects);
        txn.commit(durability)?;
        // A transaction without records waits for nobody's, so it acknowledges nothing.
        if durability == Durability::Sync && logged {
            self.story.acknowledge(self.disk.io_count());
        }
        Ok(())
    }

    fn abort(&mut self, at: usize) -> Result<()> {
        let session = std::mem::take(&mut self.sessions[at]);
        session.txn.map_or(Ok(()), Txn::abort)
    }

    /// From the vote on the end is certain, whatever crashes: a transaction that will commit is an event
    /// now, one that will abort never is.
    fn prepare(&mut self, at: usize) -> Result<()> {
        let session = std::mem::take(&mut self.sessions[at]);
        let Some(mut txn) = session.txn else { return Ok(()) };
        let commits = self.rng.bool();
        self.gids += 1;
        if commits {
            self.story.event(self.disk.io_count(), &session.effects);
        }
        let vote = txn.prepare(&gid(commits, self.gids), &[])?;
        let prepared = Prepared::new(txn, vote);
        self.story.acknowledge(self.disk.io_count());
        self.prepared.push_back((prepared, session.owned));
        Ok(())
    }

    fn decide(&mut self) -> Result<()> {
        let Some((prepared, _)) = self.prepared.pop_front() else { return Ok(()) };
        decide(prepared)?;
        self.story.acknowledge(self.disk.io_count());
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        let flush = self.rng.choice([Flush::Nothing, Flush::Old, Flush::Everything]);
        self.db.checkpoint(flush.expect("three to choose from"))?;
        // Its end record is durable, and everything before it.
        self.story.acknowledge(self.disk.io_count());
        Ok(())
    }

    /// Some pages as eviction would write them, or a turn of the cleaner.
    fn write_back(&mut self) -> Result<()> {
        if self.rng.u8(0..4) == 0 {
            return self.db.pool.step(Lsn::MAX).map(drop);
        }
        let pages = self.db.config.pages;
        let ids: Vec<_> = (0..3).map(|_| page_id(self.rng.usize(0..pages))).collect();
        self.db.pool.write_back(&ids).map(drop)
    }
}
