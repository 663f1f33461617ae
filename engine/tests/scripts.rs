//! Stories told through the facade, with everything on: see `tests/scripts`. Regenerate with
//! `UPDATE_GOLDENFILES=1 cargo test -p argali --test scripts`, then read the difference.
//!
//! ```text
//! open [keeping-log]                   opens (or creates), shows what the restart decided
//! t1: begin | put T k=v … | delete T k … | get T k | tree T | drop T | commit | abort | prepare GID
//! t1: try T k=v … keep=no              the puts behind a savepoint, released or rolled back
//! t1: nested T k=v …                   the puts as a nested top action
//! t1: insert H row | update H id row | remove H id        rows of a heap; x=900 is 900 times x
//! checkpoint nothing|old|everything
//! commit-prepared GID | abort-prepared GID
//! prepared                             who is in doubt, since when, with which locks
//! crash | kill | close                 power cut losing all that was not synced; process kill; shutdown
//! rot pN | repairs                     damages page N on disk; what was rebuilt
//! scan T | rows H | trees | verify | log        `log` shows the records on disk since it was last asked
//! ```

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use argali::disk::{Disk, Loss, OpenMode, SimDisk};
use argali::{Db, Event, Flush, Lsn, Never, Options, PageId, RecoveryObserver, RowId, Tree, Write};
use argali_pager::OpList;
use argali_wal::{Body, Changes, ControlFile, LogOptions, RecordBuf, Undo, Wal};
use goldenscript::{Argument, ArgumentConsumer, Command, Context, Runner};

type Output = Result<String, Box<dyn Error>>;

struct Story {
    disk: SimDisk,
    db: Option<Db>,
    writes: BTreeMap<String, Write>,
    /// Where the next `log` goes on.
    log_from: Option<Lsn>,
}

/// Collects the decisions of a restart, without the table's every change.
#[derive(Default)]
struct Lines(String);

impl RecoveryObserver for Lines {
    fn event(&mut self, event: Event) {
        let detail = matches!(event, Event::Transaction { .. } | Event::Dirty { .. });
        if !detail {
            writeln!(self.0, "{event}").unwrap();
        }
    }
}

impl Story {
    fn new() -> Self {
        Self { disk: SimDisk::new(1), db: None, writes: BTreeMap::new(), log_from: None }
    }

    fn db(&self) -> Result<&Db, &'static str> {
        self.db.as_ref().ok_or("the database is not open")
    }

    fn open(&mut self, keep_log_bytes: u64) -> Output {
        let options = Options::new().page_size(4096).segment_bytes(64 << 10);
        let options = options
            .keep_log_bytes(keep_log_bytes)
            .log_limit_bytes(8 << 20)
            .background_threads(false);
        let options = options.lock_timeout(std::time::Duration::ZERO);
        let options = options.checkpoint_policy(Arc::new(Never));
        let mut lines = Lines::default();
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let db = options.open_on(disk, &mut lines)?;
        let report = db.recovery();
        if report.recovered {
            let losers: Vec<_> = report.losers.iter().map(ToString::to_string).collect();
            writeln!(
                lines.0,
                "recovered: {} winners, losers [{}], {} applied, {} CLRs",
                report.winners,
                losers.join(" "),
                report.applied,
                report.clrs_written
            )?;
        } else {
            lines.0.push_str("nothing to recover\n");
        }
        self.db = Some(db);
        Ok(lines.0)
    }

    /// The disk as another process finds it; whatever was open is gone.
    fn lose(&mut self, image: SimDisk) {
        self.disk = image;
        self.writes.clear();
        self.db = None;
    }

    fn log(&mut self) -> Output {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.process_kill());
        let control = ControlFile::open(Arc::clone(&disk), false)?.get();
        let options = LogOptions { segment_bytes: control.segment_bytes, ..LogOptions::default() };
        let wal = Wal::open_read_only(disk, &control, options)?;
        let from = self.log_from.unwrap_or(Lsn::FIRST).max(wal.first());
        let mut out = String::new();
        let mut scan = wal.scan(from);
        let mut buf = RecordBuf::new();
        while scan.next(&mut buf)? {
            writeln!(out, "{}", describe(&buf))?;
        }
        self.log_from = Some(wal.durable().end());
        Ok(out)
    }

    fn in_transaction(&mut self, id: &str, command: &Command) -> Output {
        match command.name.as_str() {
            "begin" => {
                let write = self.db()?.begin()?;
                let out = format!("{}\n", write.id());
                self.writes.insert(id.to_owned(), write);
                Ok(out)
            }
            "commit" => {
                let write = self.writes.remove(id).ok_or("no such transaction")?;
                Ok(format!("{}\n", write.commit()?))
            }
            "prepare" => {
                let gid = command.consume_args().next_pos().ok_or("which gid?")?.to_owned();
                self.writes.remove(id).ok_or("no such transaction")?.prepare(&gid)?;
                Ok(String::new())
            }
            "abort" => {
                self.writes.remove(id).ok_or("no such transaction")?.abort()?;
                Ok(String::new())
            }
            "insert" | "update" | "remove" => {
                on_heap(self.writes.get_mut(id).ok_or("no such transaction")?, command)
            }
            _ => on_tree(self.writes.get_mut(id).ok_or("no such transaction")?, command),
        }
    }

    /// A bit of the page on disk changes. For a page that is not in memory.
    fn rot(&self, page: &str) -> Result<(), Box<dyn Error>> {
        let page: u64 = page.strip_prefix('p').ok_or("a page, like p3")?.parse()?;
        let file = self.disk.open("data", OpenMode::Existing)?;
        let (at, mut byte) = (page * 4096 + 4090, [0]);
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
        Ok(())
    }

    fn repairs(&self) -> Output {
        let repairs = self.db()?.stats()?.repairs;
        let mut out = String::new();
        for repair in repairs {
            writeln!(out, "{} rebuilt, {} to {}", repair.page, repair.base, repair.last)?;
        }
        Ok(out)
    }

    fn scan(&self, name: &str) -> Output {
        let read = self.db()?.read()?;
        let tree = read.open_tree(name)?.ok_or("no such tree")?;
        let mut out = String::new();
        for row in read.scan_all(&tree)? {
            let (key, value) = row?;
            writeln!(out, "{} = {}", text(&key), text(&value))?;
        }
        read.finish()?;
        Ok(if out.is_empty() { "(empty)\n".into() } else { out })
    }

    fn prepared(&self) -> Output {
        let mut out = String::new();
        for one in self.db()?.prepared() {
            writeln!(
                out,
                "{} is {}, first {}, vote {}",
                one.gid, one.txn, one.first, one.prepared
            )?;
            for (name, mode) in &one.locks {
                writeln!(out, "    {mode} on {name}")?;
            }
        }
        Ok(if out.is_empty() { "nobody\n".into() } else { out })
    }

    fn rows(&self, name: &str) -> Output {
        let read = self.db()?.read()?;
        let heap = read.open_heap(name)?.ok_or("no such heap")?;
        let mut out = String::new();
        for row in heap.scan(&read)? {
            let (id, row) = row?;
            writeln!(out, "{id} = {}* {} bytes", text(&row[..1]), row.len())?;
        }
        read.finish()?;
        Ok(if out.is_empty() { "(empty)\n".into() } else { out })
    }

    fn checkpoint(&self, kind: &str) -> Output {
        let flush = match kind {
            "nothing" => Flush::Nothing,
            "old" => Flush::Old,
            "everything" => Flush::Everything,
            other => return Err(format!("no checkpoint {other}").into()),
        };
        let report = self.db()?.checkpoint(flush)?;
        Ok(format!("wrote {} pages, redo from {}\n", report.pages_written, report.redo))
    }
}

/// Commands whose first argument is a heap.
fn on_heap(write: &mut Write, command: &Command) -> Output {
    let mut args = command.consume_args();
    let heap = write.heap(args.next_pos().ok_or("which heap?")?)?;
    let row = args.next_key().map(|(what, times)| times.parse().map(|times| what.repeat(times)));
    let row = row.transpose()?;
    if command.name == "insert" {
        return Ok(format!("{}\n", heap.insert(write, row.ok_or("which row?")?)?));
    }
    let (page, slot) = args.next_pos().and_then(|id| id.split_once('.')).ok_or("which id?")?;
    let page = PageId::new(page.trim_start_matches('p').parse()?);
    let id = RowId { page, slot: slot.parse()? };
    match row {
        Some(row) => heap.update(write, id, row)?,
        None => heap.delete(write, id)?,
    }
    Ok(String::new())
}

/// Commands whose first argument is a tree.
fn on_tree(write: &mut Write, command: &Command) -> Output {
    let mut args = command.consume_args();
    let name = args.next_pos().ok_or("which tree?")?;
    if command.name == "drop" {
        write.drop_tree(name)?;
        return Ok(String::new());
    }
    let tree = write.tree(name)?;
    match command.name.as_str() {
        "tree" => {}
        "get" => {
            let value = write.get(&tree, args.next_pos().ok_or("which key?")?);
            if let Err(argali::Error::LockTimeout { lock, holder, .. }) = value {
                return Ok(format!("not granted: {lock}, held by {holder}\n"));
            }
            let value = value?;
            return Ok(value.map_or("none\n".into(), |value| format!("{}\n", text(&value))));
        }
        "put" => put(write, &tree, &mut args)?,
        "nested" => write.nested(|tx| put(tx, &tree, &mut args))?,
        "try" => {
            let keep = args.take_key("keep") != Some("no");
            let savepoint = write.savepoint()?;
            put(&savepoint, &tree, &mut args)?;
            if keep { savepoint.release() } else { savepoint.rollback()? }
        }
        "delete" => {
            for argument in args {
                let Argument::Positional(key) = argument else { return Err("keys only".into()) };
                write.delete(&tree, key)?;
            }
        }
        other => return Err(format!("unknown command {other}").into()),
    }
    Ok(String::new())
}

fn put(write: &Write, tree: &Tree, args: &mut ArgumentConsumer<'_>) -> argali::Result<()> {
    while let Some((key, value)) = args.next_key() {
        write.put(tree, key, value)?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn describe(buf: &RecordBuf) -> String {
    let record = buf.record();
    let head = format!("{} {}", buf.lsn(), record.txn);
    match record.body {
        Body::Update { changes, undo } => {
            let undo = match undo {
                Undo::Never => "never undone",
                Undo::Physical(_) => "undo physical",
                Undo::Logical { .. } => "undo logical",
            };
            format!("{head} update, {undo}{}", pages(changes))
        }
        Body::Compensation { changes, undo_next } => {
            format!("{head} CLR, undo next {undo_next}{}", pages(changes))
        }
        Body::Commit { .. } => format!("{head} commit"),
        Body::End => format!("{head} end"),
        Body::Prepare { .. } => format!("{head} prepare"),
        Body::CheckpointBegin { .. } => format!("{} checkpoint begins", buf.lsn()),
        Body::CheckpointEnd { tables, .. } => {
            let mut out = format!("{} checkpoint ends", buf.lsn());
            for page in tables.dirty() {
                write!(out, "\n    {} dirty from {}", page.page, page.rec_lsn).unwrap();
            }
            for txn in tables.active() {
                write!(out, "\n    {} active, first {}", txn.txn, txn.first).unwrap();
            }
            out
        }
    }
}

fn pages(changes: Changes<'_>) -> String {
    let line = |change: argali_wal::Change<'_>| {
        let ops = OpList::describe(change.page, change.ops);
        format!("\n    {ops}  (was {})", change.page_prev)
    };
    changes.iter().map(line).collect()
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Output {
        if let Some(id) = &context.prefix {
            return self.in_transaction(id, command);
        }
        let mut args = command.consume_args();
        let first = args.next_pos();
        args.reject_next()?;
        match (command.name.as_str(), first) {
            ("open", None) => return self.open(0),
            ("open", Some("keeping-log")) => return self.open(1 << 20),
            ("checkpoint", Some(kind)) => return self.checkpoint(kind),
            ("crash", None) => self.lose(self.disk.power_cut(Loss::LoseAll)),
            ("kill", None) => self.lose(self.disk.process_kill()),
            ("close", None) => {
                self.writes.clear();
                self.db.take().ok_or("the database is not open")?.close()?;
            }
            ("commit-prepared", Some(gid)) => drop(self.db()?.commit_prepared(gid)?),
            ("abort-prepared", Some(gid)) => self.db()?.abort_prepared(gid)?,
            ("prepared", None) => return self.prepared(),
            ("rot", Some(page)) => self.rot(page)?,
            ("repairs", None) => return self.repairs(),
            ("scan", Some(name)) => return self.scan(name),
            ("rows", Some(name)) => return self.rows(name),
            ("trees", None) => return Ok(format!("{:?}\n", self.db()?.read()?.trees()?)),
            ("verify", None) => {
                let seen = self.db()?.verify()?;
                let findings = seen.findings;
                return Ok(format!(
                    "{} trees, {} rows, faults {findings:?}\n",
                    seen.trees, seen.rows
                ));
            }
            ("log", None) => return self.log(),
            (name, _) => return Err(format!("unknown command {name}, or wrong arguments").into()),
        }
        Ok(String::new())
    }
}

#[test]
fn stories() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "found only {paths:?}");
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Story::new(), &path).unwrap();
    }
}
