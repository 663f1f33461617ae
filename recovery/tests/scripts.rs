//! Recovery stories: scripts whose outputs show log records, page LSNs, tables and decisions.
//!
//! ```text
//! create double-write|full-page-image|none
//! t1: count P N | set P TEXT | append P TEXT | restructure P Q N | nested P Q N
//! t1: savepoint NAME | rollback NAME | commit | abort | lock T | try-lock T
//! t1: prepare GID                       leaves it in doubt
//! commit-prepared GID | abort-prepared GID
//! force | sync | write-back P … | checkpoint nothing|old|everything
//! log | tables | pages P …              records since last asked; both tables; pages as they are
//! crash lose|keep|torn                  power cut: un-synced lost, kept, or the last write torn
//! damage LSN                            flips a byte of the record at LSN, on the disk
//! restart [cut=N]                       recovers, showing each decision; or loses power at disk call N
//! ```
//!
//! Regenerate with `UPDATE_GOLDENFILES=1 cargo test -p argali-recovery --test scripts` and read the diff.

mod harness;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use argali_base::disk::{Disk, Loss, OpenMode, SimDisk};
use argali_base::{Lsn, PageId};
use argali_pager::{OpList, TornPages};
use argali_recovery::{Event, Flush, RecoveryObserver};
use argali_txn::{Durability, LockMode, LockName, Prepared, Savepoint, Txn, TxnOptions};
use argali_wal::{Body, Changes, Record, RecordBuf, TxnState, Undo};
use goldenscript::{Command, Context, Runner};
use harness::campaign::created;
use harness::db::{Config, Db, page_id};

type Output = Result<String, Box<dyn Error>>;

#[derive(Default)]
struct Story {
    config: Option<Config>,
    disk: Option<SimDisk>,
    db: Option<Db>,
    txns: BTreeMap<String, Txn>,
    savepoints: BTreeMap<String, Savepoint>,
    prepared: Vec<Prepared>,
    shown: Lsn,
}

#[derive(Default)]
struct Lines(String);

impl RecoveryObserver for Lines {
    fn event(&mut self, event: Event) {
        writeln!(self.0, "{event}").expect("a string takes everything");
    }
}

/// Page `p1` is the first of the harness's pages.
fn index(name: &str) -> Result<usize, Box<dyn Error>> {
    let number: usize = name.strip_prefix('p').ok_or("pages are p1, p2, …")?.parse()?;
    Ok(number.checked_sub(1).ok_or("p0 is not a data page")?)
}

impl Story {
    fn db(&self) -> Result<&Db, Box<dyn Error>> {
        Ok(self.db.as_ref().ok_or("the database is not open")?)
    }

    fn open(&mut self, observer: &mut Lines) -> Result<(), Box<dyn Error>> {
        let (disk, config) =
            (self.disk.as_ref().ok_or("no disk")?, self.config.as_ref().ok_or("?")?);
        let mut db = Db::open(disk, config, observer)?;
        self.prepared = std::mem::take(&mut db.in_doubt);
        self.shown = db.wal.tail();
        self.db = Some(db);
        Ok(())
    }

    fn create(&mut self, mode: &str) -> Output {
        let mode = match mode {
            "double-write" => TornPages::DoubleWrite,
            "full-page-image" => TornPages::FullPageImage,
            "none" => TornPages::None,
            other => return Err(format!("no mode {other}").into()),
        };
        let config = Config::new(mode);
        self.disk = Some(created(&config, 1));
        self.config = Some(config);
        self.open(&mut Lines::default())?;
        Ok(String::new())
    }

    /// What a transaction does. It begins with its first command.
    fn act(&mut self, name: &str, verb: &str, args: &[&str]) -> Output {
        let db = self.db.as_ref().ok_or("the database is not open")?;
        if !self.txns.contains_key(name) {
            self.txns.insert(name.to_owned(), db.txns.begin(TxnOptions::default())?);
        }
        let txn = self.txns.get_mut(name).ok_or("just begun")?;
        match (verb, args) {
            ("count", [page, delta]) => {
                db.count(txn, index(page)?, delta.parse::<i64>()?.cast_unsigned())?;
            }
            ("set", [page, text]) => drop(db.set(txn, index(page)?, text.as_bytes())?),
            ("append", [page, text]) => drop(db.append(txn, index(page)?, text.as_bytes())?),
            ("restructure", [low, high, delta]) => {
                db.restructure(txn, [index(low)?, index(high)?], delta.parse()?)?;
            }
            ("nested", [low, high, delta]) => {
                db.nested(txn, [index(low)?, index(high)?], delta.parse()?)?;
            }
            ("savepoint", [mark]) => {
                self.savepoints.insert((*mark).to_owned(), txn.savepoint());
            }
            ("rollback", [mark]) => {
                txn.rollback_to(*self.savepoints.get(*mark).ok_or("no such savepoint")?)?;
            }
            ("commit", []) => {
                let txn = self.txns.remove(name).ok_or("just begun")?;
                txn.commit(Durability::Sync)?;
            }
            ("lock", [tree]) => txn.lock(LockName::Tree(tree.parse()?), LockMode::X)?,
            ("try-lock", [tree]) => {
                let got = txn.try_lock(LockName::Tree(tree.parse()?), LockMode::X);
                return Ok(format!("{}\n", if got { "granted" } else { "refused" }));
            }
            ("prepare", [gid]) => {
                let mut txn = self.txns.remove(name).ok_or("just begun")?;
                let vote = txn.prepare(gid, &[])?;
                self.prepared.push(Prepared::new(txn, vote));
            }
            ("abort", []) => self.txns.remove(name).ok_or("just begun")?.abort()?,
            _ => return Err(format!("a transaction cannot {verb} {args:?}").into()),
        }
        Ok(String::new())
    }

    fn decide(&mut self, gid: &str, commits: bool) -> Output {
        let at = self.prepared.iter().position(|one| one.vote().gid == gid);
        let mut one = self.prepared.remove(at.ok_or("nobody of that name is in doubt")?);
        if commits {
            one.admit_commit()?;
            one.commit()?;
        } else {
            one.decide_abort()?;
            one.abort()?;
        }
        Ok(String::new())
    }

    /// The power fails; what was open is gone.
    fn crash(&mut self, how: &str) -> Output {
        let loss = match how {
            "lose" => Loss::LoseAll,
            "keep" => Loss::KeepAll,
            "torn" => Loss::TornLast(1),
            other => return Err(format!("no such loss: {other}").into()),
        };
        let disk = self.disk.take().ok_or("no disk")?;
        self.disk = Some(disk.power_cut(loss));
        disk.stop_after(0); // dropping open transactions must not write
        self.txns.clear();
        self.savepoints.clear();
        self.prepared.clear();
        self.db = None;
        Ok(String::new())
    }

    fn restart(&mut self, cut: Option<u64>) -> Output {
        let mut lines = Lines::default();
        if let (Some(calls), Some(disk)) = (cut, &self.disk) {
            disk.stop_after(calls);
        }
        if let Err(error) = self.open(&mut lines) {
            let dead = self.disk.as_ref().is_some_and(SimDisk::is_dead);
            if dead {
                self.crash("keep")?;
                writeln!(lines.0, "the power fails at disk call {}", cut.unwrap_or_default())?;
            } else {
                writeln!(lines.0, "refused   {error}")?;
            }
        }
        Ok(lines.0)
    }

    /// Flips one byte of the record's body.
    fn damage(&mut self, lsn: u64) -> Output {
        let (disk, config) =
            (self.disk.as_ref().ok_or("no disk")?, self.config.as_ref().ok_or("?")?);
        let start = lsn / config.segment_bytes * config.segment_bytes;
        let file = disk.open(&format!("wal/{start:016x}.log"), OpenMode::Existing)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, lsn - start + 33)?;
        file.write_all_at(&[byte[0] ^ 0x55], lsn - start + 33)?;
        file.sync()?;
        Ok(String::new())
    }

    fn log(&mut self) -> Output {
        let (db, mut out, mut buf) = (self.db()?, String::new(), RecordBuf::new());
        let mut scan = db.wal.scan(self.shown);
        while scan.next(&mut buf)? {
            writeln!(out, "{} {}", buf.lsn(), describe(&buf.record()))?;
        }
        self.shown = self.db()?.wal.tail();
        Ok(out)
    }

    fn tables(&self) -> Output {
        let (db, mut out) = (self.db()?, String::new());
        let (mut dirty, mut active) = (Vec::new(), Vec::new());
        db.pool.dirty_pages(&mut dirty);
        dirty.sort_by_key(|entry| entry.page);
        db.txns.active(&mut active);
        active.sort_by_key(|entry| entry.txn);
        for entry in dirty {
            writeln!(out, "dirty {} from {}", entry.page, entry.rec_lsn)?;
        }
        for txn in active {
            let (first, last, next) = (txn.first, txn.last, txn.undo_next);
            writeln!(
                out,
                "active {} {:?} first {first} last {last} undo {next}",
                txn.txn, txn.state
            )?;
        }
        Ok(out)
    }

    fn pages(&self, names: &[&str]) -> Output {
        let (db, mut out) = (self.db()?, String::new());
        let state = db.state()?;
        for name in names {
            let at = index(name)?;
            let lsn = db.pool.read(page_id(at))?.page().lsn();
            writeln!(out, "{name} {lsn}: {:?}", state.pages[at])?;
        }
        Ok(out)
    }

    fn plain(&mut self, verb: &str, args: &[&str]) -> Output {
        match (verb, args) {
            ("create", [mode]) => return self.create(mode),
            ("crash", [how]) => return self.crash(how),
            ("damage", [lsn]) => return self.damage(lsn.parse()?),
            ("commit-prepared", [gid]) => return self.decide(gid, true),
            ("abort-prepared", [gid]) => return self.decide(gid, false),
            ("log", []) => return self.log(),
            ("tables", []) => return self.tables(),
            ("pages", names) => return self.pages(names),
            ("force", []) => drop(self.db()?.wal.force(Lsn::MAX)?),
            ("sync", []) => self.db()?.pool.sync()?,
            ("write-back", names) => {
                let ids = names.iter().map(|name| Ok(page_id(index(name)?)));
                let ids: Vec<PageId> = ids.collect::<Result<_, Box<dyn Error>>>()?;
                self.db()?.pool.write_back(&ids)?;
            }
            ("checkpoint", [what]) => {
                let flush = match *what {
                    "nothing" => Flush::Nothing,
                    "old" => Flush::Old,
                    "everything" => Flush::Everything,
                    other => return Err(format!("no flush {other}").into()),
                };
                let report = self.db()?.checkpointer.checkpoint(flush)?;
                let (begin, redo, first) = (report.begin, report.redo, report.log_first);
                return Ok(format!("begin {begin}, redo {redo}, log kept from {first}\n"));
            }
            _ => return Err(format!("no command {verb} {args:?}").into()),
        }
        Ok(String::new())
    }
}

fn describe(record: &Record<'_>) -> String {
    let (txn, prev) = (record.txn, record.prev);
    match record.body {
        Body::Update { changes, undo } => {
            let undo = match undo {
                Undo::Never => "never undone".to_owned(),
                Undo::Physical(ops) => {
                    let inverse = OpList::decode(ops).unwrap_or_default();
                    format!("undo {}", inverse.first().map(ToString::to_string).unwrap_or_default())
                }
                Undo::Logical { owner, .. } => format!("undo by {owner:?}"),
            };
            format!("{txn} update{}; {undo}; prev {prev}", pages_of(changes))
        }
        Body::Compensation { changes, undo_next } => {
            format!("{txn} CLR{}; undo_next {undo_next}; prev {prev}", pages_of(changes))
        }
        Body::Commit { durable } => format!("{txn} commit; durable up to {durable}; prev {prev}"),
        Body::End => format!("{txn} end; prev {prev}"),
        Body::Prepare { last, piece, .. } => {
            format!("{txn} prepare, {} bytes of vote; last {last}; prev {prev}", piece.len())
        }
        Body::CheckpointBegin { durable } => format!("checkpoint begins; durable up to {durable}"),
        Body::CheckpointEnd { begin, tables, last, .. } => {
            let dirty = tables.dirty().map(|d| format!(" {} from {}", d.page, d.rec_lsn));
            let active = tables.active().map(|t| match t.state {
                TxnState::Prepared => format!(" {} prepared", t.txn),
                TxnState::Running | TxnState::Committed => format!(" {}", t.txn),
            });
            let (dirty, active): (String, String) = (dirty.collect(), active.collect());
            format!("checkpoint of {begin} ends: dirty{dirty}; active{active}; last {last}")
        }
    }
}

fn pages_of(changes: Changes<'_>) -> String {
    let one = |c: argali_wal::Change<'_>| {
        format!(" [{} after {}]", OpList::describe(c.page, c.ops), c.page_prev)
    };
    changes.iter().map(one).collect()
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Output {
        let mut args = command.consume_args();
        let cut = args.take_key("cut").map(str::parse).transpose()?;
        let list: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
        args.reject_next()?;
        match &context.prefix {
            Some(txn) => self.act(txn, &command.name, &list),
            None if command.name == "restart" => self.restart(cut),
            None => self.plain(&command.name, &list),
        }
    }
}

#[test]
fn stories() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "only {} stories", paths.len());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with('#'), "{} does not say what it tells", path.display());
        goldenscript::run(&mut Story::default(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
