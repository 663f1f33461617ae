//! A database of raw slotted pages, put together from the engine's crates the way `engine` does it.
//!
//! ```text
//!  page p (1..=pages)   slot 0  counter u64          Add, undone by Add
//!                       slot 1  structure u64        Add, never undone or by a nested top action
//!                       slot 2  value                Replace, undone by Replace
//!                       slot 3… appended cells       Insert, undone by Remove
//! ```

use argali_base::sync::{Arc, Clock};
use argali_base::{Disk, Health, Lsn, PageId, Result};
use argali_buffer_pool::{BufferPool, PoolOptions};
use argali_pager::{PageBuf, PageKind, PageOp, PageSize, Pager, PagerOptions, TornPages};
use argali_recovery::{Checkpointer, Flush, Parts, RecoveryObserver, Report, restart};
use argali_txn::{Edit, Prepared, Txn, TxnManager, Undo};
use argali_wal::{Control, ControlFile, LogId, LogOptions, Wal};

use super::model::{PageState, State};

pub const COUNTER: u16 = 0;
pub const STRUCTURE: u16 = 1;
pub const VALUE: u16 = 2;
pub const FIRST_APPENDED: u16 = 3;

/// Shape of the database, and the rules broken in it.
#[derive(Clone, Debug)]
pub struct Config {
    pub torn_pages: TornPages,
    /// Data pages; the pool has 8 frames if nothing else is said, so more than 8 means steal.
    pub pages: usize,
    pub frames: usize,
    pub segment_bytes: u64,
    pub log_limit_bytes: u64,
    /// Threads of redo.
    pub workers: usize,
    pub broken: Broken,
}

/// The mutation switches of all crates.
#[derive(Clone, Debug, Default)]
pub struct Broken {
    pub wal: argali_wal::Mutations,
    pub pager: argali_pager::Mutations,
    pub pool: argali_buffer_pool::Mutations,
    pub txn: argali_txn::Mutations,
    pub recovery: argali_recovery::Mutations,
}

impl Config {
    /// 12 pages, segments of 8 KiB, at most 64 of them.
    pub fn new(torn_pages: TornPages) -> Self {
        Self {
            torn_pages,
            pages: 12,
            frames: 8,
            segment_bytes: 8 << 10,
            log_limit_bytes: 512 << 10,
            workers: 0,
            broken: Broken::default(),
        }
    }

    /// Segments of one block, so that recycling is frequent and log writes span files; and a limit that
    /// makes checkpoints necessary. Page images need more room.
    pub fn tight(torn_pages: TornPages) -> Self {
        let images = torn_pages == TornPages::FullPageImage;
        let log_limit_bytes = if images { 1 << 20 } else { 128 << 10 };
        Self { segment_bytes: 4096, log_limit_bytes, ..Self::new(torn_pages) }
    }

    fn log(&self) -> LogOptions {
        LogOptions {
            segment_bytes: self.segment_bytes,
            ring_bytes: 2 << 20,
            limit_bytes: self.log_limit_bytes,
            keep_bytes: 0,
            writer_thread: false,
            mutations: self.broken.wal.clone(),
        }
    }

    fn pager(&self) -> PagerOptions {
        PagerOptions {
            page_size: PageSize::new(PAGE_BYTES as u32).expect("a power of two"),
            torn_pages: self.torn_pages,
            database: DATABASE,
            growth_pages: 4,
            doublewrite_slots: 8,
            pages_max: 64,
            mutations: self.broken.pager,
        }
    }

    fn pool(&self) -> PoolOptions {
        let mutations = self.broken.pool;
        PoolOptions { frames: self.frames, clean_percent: 25, batch_pages: 4, mutations }
    }
}

const PAGE_BYTES: usize = 4096;
const DATABASE: u64 = 0xA26A_11DB;

/// An open database. Dropping it is a crash of the process: nothing is written.
pub struct Db {
    pub config: Config,
    pub control: Arc<ControlFile>,
    pub wal: Arc<Wal>,
    pub pool: Arc<BufferPool>,
    pub txns: Arc<TxnManager>,
    pub checkpointer: Checkpointer,
    pub report: Report,
    /// Transactions that opening found in doubt.
    pub in_doubt: Vec<Prepared>,
}

impl Db {
    /// Makes the database with its pages and closes it cleanly.
    pub fn create(disk: &dyn CloneDisk, config: &Config) -> Result<()> {
        let (disk, health) = (disk.share(), Health::new());
        let log = LogId { database: DATABASE, timeline: 1, branch: 0 };
        let control = Arc::new(ControlFile::create(
            disk.clone(),
            Control {
                log,
                page_size: PAGE_BYTES as u32,
                segment_bytes: config.segment_bytes,
                torn_pages: 0,
                checkpoint: Lsn::NONE,
                checkpoint_end: Lsn::NONE,
                log_first: Lsn::FIRST,
                clean_end: None,
                data_stamp: Lsn::NONE,
                next_txn: 1,
                pages: 0,
            },
        )?);
        let pager = Arc::new(Pager::create(disk.clone(), config.pager(), health.clone())?);
        let wal = Arc::new(Wal::create(disk, log, config.log(), health.clone())?);
        control.publish()?;
        let pool = BufferPool::new(pager, wal.clone(), config.pool(), health)?;
        let parts = config.parts(control, wal, pool, 1);
        let db = Self::assemble(config, parts, Report::default());
        db.format()?;
        db.checkpointer.shut_down(Lsn::NONE)
    }

    /// Opens and, if it was not closed cleanly, recovers.
    pub fn open<O: RecoveryObserver>(
        disk: &dyn CloneDisk,
        config: &Config,
        observer: &mut O,
    ) -> Result<Self> {
        let (disk, health) = (disk.share(), Health::new());
        let control = Arc::new(ControlFile::open(disk.clone(), true)?);
        let seen = control.get();
        let wal = Wal::open_for_restart(disk.clone(), &seen, config.log(), health.clone())?;
        let wal = Arc::new(wal);
        let pager = Arc::new(Pager::open(disk, config.pager(), health.clone())?);
        let pool = BufferPool::new(pager, wal.clone(), config.pool(), health)?;
        let parts = config.parts(control, wal, pool, seen.next_txn);
        let restarted = restart(&parts, observer)?;
        let db = Self::assemble(config, parts, restarted.report);
        Ok(Self { in_doubt: restarted.in_doubt, ..db })
    }

    fn assemble(config: &Config, parts: Parts, report: Report) -> Self {
        Self {
            config: config.clone(),
            control: parts.control.clone(),
            wal: parts.wal.clone(),
            pool: parts.pool.clone(),
            txns: parts.txns.clone(),
            checkpointer: Checkpointer::new(parts),
            report,
            in_doubt: Vec::new(),
        }
    }

    fn format(&self) -> Result<()> {
        let mut txn = self.txns.begin_system()?;
        let zero = 0u64.to_le_bytes();
        for page in 0..self.config.pages {
            let id = page_id(page);
            self.pool.pager().grow_to(id)?;
            txn.admit(256, 1)?;
            let ops = [
                PageOp::Format { kind: PageKind::Slotted, level: 0, owner: 0 },
                PageOp::Insert { slot: COUNTER, head: 0, cell: &zero },
                PageOp::Insert { slot: STRUCTURE, head: 0, cell: &zero },
                PageOp::Insert { slot: VALUE, head: 0, cell: &[] },
            ];
            let mut latched = self.pool.create(id)?;
            txn.update(&mut [Edit { page: &mut latched, ops: &ops }], Undo::Never);
        }
        txn.commit(argali_txn::Durability::Relaxed).map(drop)
    }

    /// Reads every page.
    pub fn state(&self) -> Result<State> {
        let pages = (0..self.config.pages).map(|page| self.page_state(page));
        Ok(State { pages: pages.collect::<Result<_>>()? })
    }

    fn page_state(&self, page: usize) -> Result<PageState> {
        let latched = self.pool.read(page_id(page))?;
        let view = latched.page();
        view.check().unwrap_or_else(|fault| panic!("page {page} after recovery: {fault}"));
        let cell = |slot: u16| view.cell(usize::from(slot)).expect("format made this cell");
        let number = |slot| u64::from_le_bytes(cell(slot).try_into().expect("a u64"));
        let appended = (usize::from(FIRST_APPENDED)..view.slot_count())
            .map(|slot| view.cell(slot).expect("below the slot count").to_vec());
        Ok(PageState {
            counter: number(COUNTER),
            structure: number(STRUCTURE),
            value: cell(VALUE).to_vec(),
            appended: appended.collect(),
        })
    }

    /// One undoable change of one page; the inverse goes into the record.
    pub fn change(&self, txn: &mut Txn, page: usize, op: PageOp<'_>) -> Result<Lsn> {
        let mut inverse = Vec::new();
        txn.admit(512, 1)?; // values have at most 200 bytes, old and new
        let mut latched = self.pool.write(page_id(page))?;
        assert!(op.fits(latched.page()), "the workload keeps pages from filling up");
        op.inverse(latched.page()).encode(&mut inverse);
        let mut edits = [Edit { page: &mut latched, ops: &[op] }];
        Ok(txn.update(&mut edits, Undo::Physical(&inverse)))
    }

    pub fn count(&self, txn: &mut Txn, page: usize, delta: u64) -> Result<Lsn> {
        self.change(txn, page, PageOp::Add { slot: COUNTER, at: 0, delta })
    }

    pub fn set(&self, txn: &mut Txn, page: usize, value: &[u8]) -> Result<Lsn> {
        self.change(txn, page, PageOp::Replace { slot: VALUE, head: 0, cell: value })
    }

    /// Appends behind the cells there are; the caller keeps other transactions off the page.
    pub fn append(&self, txn: &mut Txn, page: usize, cell: &[u8]) -> Result<Lsn> {
        let slot = self.pool.read(page_id(page))?.page().slot_count() as u16;
        self.change(txn, page, PageOp::Insert { slot, head: 0, cell })
    }

    /// Sets the value for good, whatever becomes of the transaction.
    pub fn overwrite(&self, txn: &mut Txn, page: usize, value: &[u8]) -> Result<Lsn> {
        txn.admit(value.len() + 64, 1)?;
        let mut latched = self.pool.write(page_id(page))?;
        let ops = [PageOp::Replace { slot: VALUE, head: 0, cell: value }];
        assert!(ops[0].fits(latched.page()), "{} bytes are too many", value.len());
        Ok(txn.update(&mut [Edit { page: &mut latched, ops: &ops }], Undo::Never))
    }

    /// A structure change: two pages in one record, never undone.
    pub fn restructure(&self, txn: &mut Txn, pages: [usize; 2], delta: u64) -> Result<Lsn> {
        txn.admit(64, 2)?;
        let (mut low, mut high) =
            (self.pool.write(page_id(pages[0]))?, self.pool.write(page_id(pages[1]))?);
        let op = [PageOp::Add { slot: STRUCTURE, at: 0, delta }];
        let mut edits = [Edit { page: &mut low, ops: &op }, Edit { page: &mut high, ops: &op }];
        Ok(txn.update(&mut edits, Undo::Never))
    }

    /// A structure change that makes a page anew as it is, from its image or cell by cell.
    pub fn rewrite(&self, page: usize, from_image: bool) -> Result<()> {
        let mut txn = self.txns.begin_system()?;
        txn.admit(2 * PAGE_BYTES, 1)?;
        let mut latched = self.pool.write(page_id(page))?;
        let mut copy = PageBuf::new(PageSize::new(PAGE_BYTES as u32)?);
        copy.copy_from(latched.page());
        let ops =
            if from_image { vec![PageOp::Image { bytes: copy.bytes() }] } else { anew(&copy) };
        txn.update(&mut [Edit { page: &mut latched, ops: &ops }], Undo::Never);
        drop(latched);
        txn.commit(argali_txn::Durability::Relaxed).map(drop)
    }

    /// A nested top action over two records, each undoable until it ends.
    pub fn nested(&self, txn: &mut Txn, pages: [usize; 2], delta: u64) -> Result<()> {
        let start = txn.last_lsn();
        for page in pages {
            self.change(txn, page, PageOp::Add { slot: STRUCTURE, at: 0, delta })?;
        }
        txn.end_nested(start)
    }

    /// Decides everything in doubt, each as its gid says it will be.
    pub fn decide_all(&mut self) -> Result<()> {
        self.in_doubt.drain(..).try_for_each(decide)
    }

    /// A checkpoint, and what it says.
    pub fn checkpoint(&self, flush: Flush) -> Result<()> {
        self.checkpointer.checkpoint(flush).map(drop)
    }
}

impl Config {
    fn parts(
        &self,
        control: Arc<ControlFile>,
        wal: Arc<Wal>,
        pool: Arc<BufferPool>,
        next_txn: u64,
    ) -> Parts {
        let txns = TxnManager::new(wal.clone(), pool.clone(), next_txn);
        txns.set_mutations(self.broken.txn);
        let mutations = self.broken.recovery;
        let (clock, workers) = (Clock::manual(), self.workers);
        Parts { control, wal, pool, txns, clock, workers, mutations }
    }
}

/// What makes a page with the cells of `copy`.
fn anew(copy: &PageBuf) -> Vec<PageOp<'_>> {
    let format = PageOp::Format { kind: PageKind::Slotted, level: 0, owner: 0 };
    let cells = (0..copy.page().slot_count()).map(|slot| {
        let cell = copy.page().cell(slot).expect("below the slot count");
        PageOp::Insert { slot: slot as u16, head: 0, cell }
    });
    std::iter::once(format).chain(cells).collect()
}

/// The gid of a transaction of which the coordinator of these tests knows the end from the start.
pub fn gid(commits: bool, serial: u64) -> String {
    format!("{}-{serial}", if commits { "commit" } else { "abort" })
}

/// Ends a prepared transaction as its gid says.
pub fn decide(mut prepared: Prepared) -> Result<()> {
    if prepared.vote().gid.starts_with("commit") {
        prepared.admit_commit()?;
        return prepared.commit().map(drop);
    }
    prepared.decide_abort()?;
    prepared.abort()
}

/// Any simulated disk, shared as the engine wants it.
pub trait CloneDisk {
    fn share(&self) -> Arc<dyn Disk>;
}

impl<D: Disk + Clone + 'static> CloneDisk for D {
    fn share(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }
}

/// The `index`-th data page. Page 0 is left alone: in a real database it is a map page.
pub fn page_id(index: usize) -> PageId {
    PageId::new(index as u64 + 1)
}
