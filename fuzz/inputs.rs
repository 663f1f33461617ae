//! What is done with one input of the fuzzer; the tests of `engine` do the same with the corpus.
//!
//! ```text
//!  page       a page of these bytes ─► every accessor · operations from the rest applied to it
//!  record     these bytes as a record ─► its changes, operations, tables
//!  control    these bytes as the control file, checksums put right
//!  directory  edits of a whole database, checksums put right ─► open, read, check, write, close, open
//! ```
//!
//! Whatever the bytes are, the answer is a value or an error: no panic, no undefined behaviour, memory by what
//! is there and not by what a length says, and an end within a second. Checksums are put right because they
//! would otherwise catch nearly every input at the door; how they are computed is written down here a second
//! time, from `docs/formats.md`.
//!
//! Left out: judging what is read. With checksums put right any data may be there.

// Each target uses its own.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::{Arc, OnceLock};

use argali::disk::{Disk, OpenMode, SimDisk};
use argali::{Db, Error, Options, Result, Silent};
use argali_base::Lsn;
use argali_base::codec::Reader;
use argali_pager::{MapLayout, OpList, PageBuf, PageRef, PageSize};
use argali_wal::{Body, Changes, Control, ControlFile, Record};

const PAGE: usize = 4096;

/// A page, and operations on it.
pub(crate) fn page(input: &[u8]) {
    let mut buf = PageBuf::new(PageSize::new(PAGE as u32).unwrap());
    let (bytes, rest) = input.split_at(input.len().min(PAGE));
    buf.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    look_at(buf.page());
    if let Some(ops) = OpList::decode(rest)
        && buf.page().lsn() < Lsn::MAX
    {
        for op in &ops {
            let _ = (op.fits(buf.page()), op.overwrites(), op.to_string());
        }
        let _ = buf.page_mut().try_apply(&ops, Lsn::MAX);
        look_at(buf.page());
    }
}

fn look_at(page: PageRef<'_>) {
    let _ = (page.check(), page.free_bytes(), page.is_zero(), format!("{page:?}"));
    for slot in 0..page.slot_count() + 2 {
        let _ = (page.cell(slot), page.head(slot));
    }
    for index in [0, 7, 8, 32_255, 32_256, u32::MAX] {
        let _ = (MapLayout::is_set(page, index), MapLayout::first_clear(page, index));
    }
}

/// A record, its frame included.
pub(crate) fn record(input: &[u8]) {
    let Some(record) = Record::decode(input) else { return };
    let _ = (record.body.durable(), format!("{record:?}"));
    match record.body {
        Body::Update { changes, .. } | Body::Compensation { changes, .. } => look_at_all(changes),
        Body::CheckpointEnd { tables, .. } => {
            let _ = (tables.dirty().count(), tables.active().count());
        }
        _ => {}
    }
}

fn look_at_all(changes: Changes<'_>) {
    for change in changes.iter() {
        let _ = (OpList::decode(change.ops), OpList::describe(change.page, change.ops));
    }
}

/// A control file.
pub(crate) fn control(input: &[u8]) {
    let disk = SimDisk::memory();
    let mut bytes = input.to_vec();
    seal_control(&mut bytes);
    write(&disk, "control", &bytes);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    if let Ok(file) = ControlFile::open(Arc::clone(&disk), true) {
        file.update(|control| control.next_txn = 7).unwrap();
        ControlFile::open(disk, false).expect("what was just written is there");
    }
}

/// A database with some of its bytes changed.
///
/// ```text
///  1  which: bit 0 clean or killed, bit 1 checksums put right, bit 2 control file as it was
///  …  edits: file u8 · place u32 · length u8 · bytes         (length 0: cut there; 255: zeros to a page's end)
/// ```
pub(crate) fn directory(input: &[u8]) {
    static BASES: OnceLock<[Base; 2]> = OnceLock::new();
    let [clean, killed] = BASES.get_or_init(|| [Base::new(true), Base::new(false)]);
    let mut reader = Reader::new(input);
    let which = reader.u8().unwrap_or_default();
    let base = if which & 1 == 0 { clean } else { killed };
    let disk = base.disk.process_kill();
    while let Some(()) = edit(&disk, &base.files, &mut reader) {}
    if which & 2 != 0 {
        base.seal(&disk);
    }
    if which & 4 != 0 {
        write(&disk, "control", &read(&base.disk, "control"));
    }
    let shared: Arc<dyn Disk> = Arc::new(disk.process_kill());
    let _ = options().open_read_only_on(shared).and_then(|db| db.verify());
    for _ in 0..2 {
        if let Err(error) = live(&disk) {
            assert!(!matches!(error, Error::Exists { .. } | Error::Closed), "{error}");
        }
    }
}

/// Everything a program may do, as far as it comes.
fn live(disk: &SimDisk) -> Result<()> {
    let db = open(disk)?;
    let read = db.read()?;
    for name in read.trees()? {
        if let Some(tree) = read.open_tree(&name)? {
            // After damage the next pair may be sound again, so a limit keeps the scan from going round.
            read.scan_all(&tree)?.take(10_000).for_each(drop);
        }
    }
    drop(read);
    let _ = (db.stats(), db.verify());
    let _ = db.update(|tx| {
        let tree = tx.tree("t")?;
        for n in 0..40_u32 {
            let _ = tx.put(&tree, key(n * 3), [3; 200]);
            let _ = tx.delete(&tree, key(n * 5));
        }
        Ok(())
    });
    let _ = db.update(|tx| tx.drop_tree("u"));
    db.close()
}

struct Base {
    disk: SimDisk,
    files: Vec<String>,
    /// Where records stand in the log, and how long they are.
    frames: Vec<(u64, usize)>,
    control: Control,
}

fn options() -> Options {
    Options::new()
        .page_size(PAGE as u32)
        .cache_bytes(16 * PAGE)
        .segment_bytes(64 << 10)
        .log_limit_bytes(8 << 20)
        .log_buffer_bytes(2 << 20)
        .pages_max(1 << 12)
        .lock_timeout(std::time::Duration::from_millis(1))
        .background_threads(false)
}

fn open(disk: &SimDisk) -> Result<Db> {
    options().open_on(Arc::new(disk.clone()), &mut Silent)
}

fn key(n: u32) -> Vec<u8> {
    format!("key{n:05}").into_bytes()
}

impl Base {
    fn new(clean: bool) -> Self {
        let disk = SimDisk::memory();
        let db = open(&disk).unwrap();
        for name in ["t", "u"] {
            db.update(|tx| {
                let tree = tx.tree(name)?;
                (0..80).try_for_each(|n| tx.put(&tree, key(n), [1; 250]).map(drop))
            })
            .unwrap();
        }
        let loser = db.begin().unwrap();
        let tree = loser.open_tree("t").unwrap().unwrap();
        (0..30).for_each(|n| drop(loser.put(&tree, key(n * 2), [2; 400]).unwrap()));
        db.update(|tx| tx.tree("v").map(drop)).unwrap();
        let killed = disk.process_kill();
        drop((tree, loser));
        db.close().unwrap();
        Self::of(if clean { disk } else { killed })
    }

    fn of(disk: SimDisk) -> Self {
        let mut files: Vec<String> = ["control", "data", "doublewrite"].map(str::to_owned).into();
        files.extend(disk.list("wal").unwrap().into_iter().map(|name| format!("wal/{name}")));
        let control = ControlFile::open(Arc::new(disk.clone()), false).unwrap().get();
        let mut base = Self { disk, files, frames: Vec::new(), control };
        base.frames = base.find_frames();
        base
    }

    /// Walks the log from the checkpoint on. Records that cross segments are left alone.
    fn find_frames(&self) -> Vec<(u64, usize)> {
        let (mut at, mut frames) = (self.control.checkpoint.get(), Vec::new());
        loop {
            let name = self.segment(at);
            let Some(bytes) = self.files.contains(&name).then(|| read(&self.disk, &name)) else {
                return frames;
            };
            let from = (at % self.control.segment_bytes) as usize;
            let len =
                usize::from(u16::from_le_bytes(bytes[from..from + 2].try_into().unwrap())) * 8;
            match bytes.get(from..from + len) {
                Some(frame) if len > 0 && self.crc(at, frame).to_le_bytes() == frame[4..8] => {
                    frames.push((at, len));
                }
                _ => return frames,
            }
            at += len as u64;
        }
    }

    fn segment(&self, lsn: u64) -> String {
        format!("wal/{:016x}.log", lsn / self.control.segment_bytes * self.control.segment_bytes)
    }

    fn crc(&self, lsn: u64, frame: &[u8]) -> u32 {
        let id = self.control.log;
        let parts: [&[u8]; 6] = [
            &id.database.to_le_bytes(),
            &id.timeline.to_le_bytes(),
            &id.branch.to_le_bytes(),
            &lsn.to_le_bytes(),
            &frame[..4],
            &frame[8..],
        ];
        parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
    }

    /// Puts every checksum right.
    fn seal(&self, disk: &SimDisk) {
        let mut control = read(disk, "control");
        seal_control(&mut control);
        write(disk, "control", &control);
        let mut data = read(disk, "data");
        for page in data.chunks_exact_mut(PAGE).filter(|page| page.iter().any(|b| *b != 0)) {
            let crc = crc32c::crc32c(&page[4..]);
            page[..4].copy_from_slice(&crc.to_le_bytes());
        }
        write(disk, "data", &data);
        for (lsn, len) in &self.frames {
            let name = self.segment(*lsn);
            let mut bytes = read(disk, &name);
            let from = (*lsn % self.control.segment_bytes) as usize;
            if let Some(frame) = bytes.get_mut(from..from + len) {
                let crc = self.crc(*lsn, frame);
                frame[4..8].copy_from_slice(&crc.to_le_bytes());
                write_at(disk, &name, from as u64 + 4, &crc.to_le_bytes());
            }
        }
    }
}

fn seal_control(bytes: &mut [u8]) {
    for slot in bytes.chunks_mut(PAGE).filter(|slot| slot.len() >= 116) {
        let crc = crc32c::crc32c(&slot[..112]);
        slot[112..116].copy_from_slice(&crc.to_le_bytes());
    }
}

fn edit(disk: &SimDisk, files: &[String], reader: &mut Reader<'_>) -> Option<()> {
    let name = &files[usize::from(reader.u8()?) % files.len()];
    let (at, len) = (reader.u32()?, reader.u8()?);
    let file = disk.open(name, OpenMode::Existing).unwrap();
    let size = file.len().unwrap();
    let at = u64::from(at) % size.max(1);
    match len {
        0 => file.set_len(at).unwrap(),
        u8::MAX => write_at(disk, name, at, &vec![0; PAGE - at as usize % PAGE]),
        len => {
            let bytes = reader.take(usize::from(len).min(reader.rest().len()))?;
            write_at(disk, name, at, bytes);
        }
    }
    Some(())
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

fn write_at(disk: &SimDisk, name: &str, at: u64, bytes: &[u8]) {
    disk.open(name, OpenMode::Existing).unwrap().write_all_at(bytes, at).unwrap();
}
