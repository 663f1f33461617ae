//! Control file: what must be known before the log can be read.
//!
//! Two slots in separate 4 KiB blocks are written alternately, each synced before it counts; so whatever
//! a power cut does to the one being written, the other is whole. The newer valid one stands.
//!
//! ```text
//!   0  8  magic "argali\r\n"          64  8  checkpoint: the master record
//!   8  4  format version              72  8  end of that checkpoint: proven durable
//!  12  4  page size                   80  8  first LSN that must be kept
//!  16  8  sequence number             88  8  end of a clean shutdown
//!  24  8  database id                 96  8  next transaction id
//!  32  4  timeline                   104  8  pages in the data file
//!  36  1  torn-page mode             112  4  CRC32C over bytes 0 … 111
//!  37  1  flags: bit 0 clean         116  …  zeros up to 4096
//!  38  2  zero
//!  40  8  bytes per log segment
//!  48  8  branch of the timeline
//!  56  8  LSN of page 0 at that shutdown
//! ```
//!
//! A database exists when its control file does: creation writes `control.tmp`, a restore
//! `control.restore`, and [`ControlFile::publish`] renames it when everything else is durable. A backup
//! keeps one slot, without its block, in its manifest.

use std::io;

use argali_base::codec::{Reader, Writer};
use argali_base::disk::OpenMode;
use argali_base::sync::{Arc, Mutex};
use argali_base::{Disk, Error, File, Lsn, Result};

use crate::LogId;
use crate::block::{AlignedBuf, BLOCK_BYTES};

const NAME: &str = "control";
const NAME_TMP: &str = "control.tmp";
const NAME_RESTORE: &str = "control.restore";
const MAGIC: &[u8; 8] = b"argali\r\n";
const VERSION: u32 = 1;
const CRC_AT: usize = 112;
const FLAG_CLEAN: u8 = 1;

/// What one slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which database and history.
    pub log: LogId,
    /// Bytes per page, fixed at creation.
    pub page_size: u32,
    /// Bytes per log segment, fixed at creation.
    pub segment_bytes: u64,
    /// 0 `DoubleWrite`, 1 `FullPageImage`, 2 None; the pager's business, kept here as a number.
    pub torn_pages: u8,
    /// Master record: LSN of the `CheckpointBegin` of the last complete checkpoint.
    pub checkpoint: Lsn,
    /// LSN behind the last record of that checkpoint: proven durable.
    pub checkpoint_end: Lsn,
    /// First LSN that must be kept.
    pub log_first: Lsn,
    /// End LSN of a clean shutdown; holds only if no valid frame stands there.
    pub clean_end: Option<Lsn>,
    /// LSN of page 0 at the last clean shutdown: which data file belongs to the mark.
    pub data_stamp: Lsn,
    /// Every id below this may have been used.
    pub next_txn: u64,
    /// Pages whose existence in the data file is durable.
    pub pages: u64,
}

impl Control {
    /// Bytes of [`Control::to_bytes`].
    pub const BYTES: usize = CRC_AT + 4;

    /// One slot as it stands in the file, its checksum included.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self, 0)
    }

    /// The slot in `bytes`; says why there is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        match decode(bytes) {
            Ok((_, control)) => Ok(control),
            Err(Slot::Bad(what)) => Err(what),
            Err(Slot::Version(_)) => Err("another format version"),
        }
    }
}

/// The control file of one database.
#[derive(Debug)]
pub struct ControlFile {
    disk: Arc<dyn Disk>,
    /// The name it has until it is published.
    unpublished: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Arc<dyn File>,
    control: Control,
    sequence: u64,
    writable: bool,
    /// A sync failed: nothing is known about the file any more, so nothing is written to it any more.
    failed: Option<String>,
}

impl ControlFile {
    /// Writes a new file under `control.tmp` and syncs it; [`ControlFile::publish`] renames it, which is
    /// the instant the database exists.
    pub fn create(disk: Arc<dyn Disk>, control: Control) -> Result<Self> {
        Self::create_as(NAME_TMP, disk, control)
    }

    /// As [`ControlFile::create`], for a database that is being restored: under `control.restore`, so
    /// that nobody takes what is there for a creation to be started over.
    pub fn create_restored(disk: Arc<dyn Disk>, control: Control) -> Result<Self> {
        Self::create_as(NAME_RESTORE, disk, control)
    }

    fn create_as(name: &'static str, disk: Arc<dyn Disk>, control: Control) -> Result<Self> {
        let failed = |op, error| Error::io(op, name, error);
        let file = disk.open(name, OpenMode::Create).map_err(|e| failed("create", e))?;
        file.set_len(0).map_err(|e| failed("create", e))?;
        let mut slots = AlignedBuf::new(2 * BLOCK_BYTES);
        put(&encode(&control, 0), &mut slots);
        file.write_all_at(&slots, 0).map_err(|e| failed("write", e))?;
        file.sync().map_err(|e| failed("sync", e))?;
        disk.sync_dir("").map_err(|e| failed("sync directory of", e))?;
        let state = State { file, control, sequence: 0, writable: true, failed: None };
        Ok(Self { disk, unpublished: name, state: Mutex::new(state) })
    }

    /// Gives a new file its name, durably. Updates before this go to the same file and come with it.
    pub fn publish(&self) -> Result<()> {
        let failed = |op, error| Error::io(op, NAME, error);
        self.disk.rename(self.unpublished, NAME).map_err(|e| failed("publish", e))?;
        self.disk.sync_dir("").map_err(|e| failed("sync directory of", e))
    }

    /// Reads the newer valid slot. Missing → `NoDatabase`, or `Corrupt` when the rest of a database is
    /// there; both bad → `Corrupt`. When `writable`, first makes durable what is merely readable.
    pub fn open(disk: Arc<dyn Disk>, writable: bool) -> Result<Self> {
        let mode = if writable { OpenMode::Existing } else { OpenMode::ReadOnly };
        let file = match disk.open(NAME, mode) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(disk.as_ref()));
            }
            Err(error) => return Err(Error::io("open", NAME, error)),
        };
        if writable {
            file.sync().map_err(|error| Error::io("sync", NAME, error))?;
            disk.sync_dir("").map_err(|error| Error::io("sync directory of", NAME, error))?;
        }
        let (sequence, control) = newest(file.as_ref())?;
        let state = State { file, control, sequence, writable, failed: None };
        Ok(Self { disk, unpublished: NAME_TMP, state: Mutex::new(state) })
    }

    /// What it says now.
    pub fn get(&self) -> Control {
        self.state.lock().control.clone()
    }

    /// Changes a copy, writes it to the other slot, syncs. A failed sync poisons (caller's health).
    /// After an error the old contents stand; after a failed sync every later update fails, too.
    pub fn update(&self, change: impl FnOnce(&mut Control)) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(cause) = &state.failed {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        if !state.writable {
            return Err(Error::ReadOnly);
        }
        let mut control = state.control.clone();
        change(&mut control);
        let sequence = state.sequence + 1;
        let mut block = AlignedBuf::new(BLOCK_BYTES);
        put(&encode(&control, sequence), &mut block);
        state
            .file
            .write_all_at(&block, offset_of(sequence))
            .map_err(|error| Error::io("write", NAME, error))?;
        if let Err(error) = state.file.sync() {
            let error = Error::io("sync", NAME, error);
            state.failed = Some(error.to_string());
            return Err(error);
        }
        state.control = control;
        state.sequence = sequence;
        Ok(())
    }
}

fn offset_of(sequence: u64) -> u64 {
    (sequence % 2) * BLOCK_BYTES as u64
}

/// Why there is no control file: no database, or one that lost it?
fn missing(disk: &dyn Disk) -> Error {
    let Ok(names) = disk.list("") else {
        return Error::NoDatabase { path: disk.describe() };
    };
    let has = |name| names.iter().any(|have| have == name);
    let log = disk.list("wal").is_ok_and(|segments| !segments.is_empty());
    if !has(NAME_TMP) && !has(NAME_RESTORE) && (has("data") || log) {
        return Error::corrupt(NAME, 0, None, "control file missing, yet data or log are there");
    }
    Error::NoDatabase { path: disk.describe() }
}

fn newest(file: &dyn File) -> Result<(u64, Control)> {
    let read_failed = |error| Error::io("read", NAME, error);
    let len = file.len().map_err(read_failed)?;
    let mut found: Option<(u64, Control)> = None;
    let mut why = "the file is too short";
    for slot in 0..2 {
        let at = slot * BLOCK_BYTES as u64;
        if len < at + BLOCK_BYTES as u64 {
            continue;
        }
        let mut block = AlignedBuf::new(BLOCK_BYTES);
        file.read_exact_at(&mut block, at).map_err(read_failed)?;
        match decode(&block) {
            Ok((sequence, _)) if sequence % 2 != slot => why = "a slot stands in the wrong place",
            Ok(new) if found.as_ref().is_none_or(|old| old.0 < new.0) => found = Some(new),
            Ok(_) => {}
            Err(Slot::Version(version)) => return Err(newer(version)),
            Err(Slot::Bad(what)) => why = what,
        }
    }
    found.ok_or_else(|| Error::corrupt(NAME, 0, None, format!("no valid slot: {why}")))
}

fn newer(version: u32) -> Error {
    let why = format!("it has format version {version}; this build reads version {VERSION}");
    Error::Invalid { what: "database", why }
}

fn encode(control: &Control, sequence: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(Control::BYTES);
    out.put(MAGIC);
    out.put_u32(VERSION);
    out.put_u32(control.page_size);
    out.put_u64(sequence);
    out.put_u64(control.log.database);
    out.put_u32(control.log.timeline);
    out.put_u8(control.torn_pages);
    out.put_u8(if control.clean_end.is_some() { FLAG_CLEAN } else { 0 });
    out.put_u16(0);
    out.put_u64(control.segment_bytes);
    out.put_u64(control.log.branch);
    out.put_u64(control.data_stamp.get());
    out.put_u64(control.checkpoint.get());
    out.put_u64(control.checkpoint_end.get());
    out.put_u64(control.log_first.get());
    out.put_u64(control.clean_end.unwrap_or(Lsn::NONE).get());
    out.put_u64(control.next_txn);
    out.put_u64(control.pages);
    assert_eq!(out.len(), CRC_AT, "the table at the head of this file");
    out.put_u32(crc32c::crc32c(&out));
    out
}

/// A slot at the beginning of a block, zeros behind it.
fn put(slot: &[u8], block: &mut [u8]) {
    block.fill(0);
    block[..slot.len()].copy_from_slice(slot);
}

/// Why a slot does not count.
#[derive(Debug)]
enum Slot {
    Bad(&'static str),
    Version(u32),
}

fn decode(block: &[u8]) -> Result<(u64, Control), Slot> {
    let Some((body, crc)) = block.split_at_checked(CRC_AT) else {
        return Err(Slot::Bad("too short"));
    };
    let mut crc = Reader::new(crc);
    if !body.starts_with(MAGIC) {
        return Err(Slot::Bad("it does not begin as a control file does"));
    }
    if crc.u32() != Some(crc32c::crc32c(body)) {
        return Err(Slot::Bad("checksum does not match"));
    }
    let mut reader = Reader::new(&body[MAGIC.len()..]);
    let version = reader.u32().ok_or(Slot::Bad("too short"))?;
    if version != VERSION {
        return Err(Slot::Version(version));
    }
    let (sequence, control) = fields(&mut reader).ok_or(Slot::Bad("impossible flags"))?;
    check(&control).map_err(Slot::Bad)?;
    Ok((sequence, control))
}

fn fields(reader: &mut Reader<'_>) -> Option<(u64, Control)> {
    let page_size = reader.u32()?;
    let sequence = reader.u64()?;
    let (database, timeline) = (reader.u64()?, reader.u32()?);
    let torn_pages = reader.u8()?;
    let flags = reader.u8()?;
    reader.take(2)?;
    let segment_bytes = reader.u64()?;
    let branch = reader.u64()?;
    let data_stamp = Lsn::new(reader.u64()?);
    let checkpoint = Lsn::new(reader.u64()?);
    let checkpoint_end = Lsn::new(reader.u64()?);
    let log_first = Lsn::new(reader.u64()?);
    let clean = Lsn::new(reader.u64()?);
    let clean_end = match flags {
        0 => None,
        FLAG_CLEAN => Some(clean),
        _ => return None,
    };
    let (next_txn, pages) = (reader.u64()?, reader.u64()?);
    let control = Control {
        log: LogId { database, timeline, branch },
        page_size,
        segment_bytes,
        torn_pages,
        checkpoint,
        checkpoint_end,
        log_first,
        clean_end,
        data_stamp,
        next_txn,
        pages,
    };
    Some((sequence, control))
}

/// Values no writer makes, refused here so that nothing above has to expect them.
fn check(control: &Control) -> Result<(), &'static str> {
    let lsn_fits = |lsn: Lsn| lsn.get() < 1 << 60 && lsn.get().is_multiple_of(8);
    let segment = control.segment_bytes;
    if !control.page_size.is_power_of_two() || !(4096..=65536).contains(&control.page_size) {
        return Err("impossible page size");
    }
    if segment == 0 || segment > 1 << 40 || !segment.is_multiple_of(BLOCK_BYTES as u64) {
        return Err("impossible log segment size");
    }
    let lsns = [control.checkpoint, control.checkpoint_end, control.log_first];
    if !lsns.into_iter().chain(control.clean_end).all(lsn_fits) || control.log_first < Lsn::FIRST {
        return Err("impossible LSN");
    }
    if control.checkpoint > control.checkpoint_end {
        return Err("the checkpoint ends before it begins");
    }
    if !control.checkpoint.is_none() && control.log_first > control.checkpoint {
        return Err("the checkpoint lies before the log kept");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Control {
        Control {
            log: LogId { database: 0x1122_3344_5566_7788, timeline: 1, branch: 0 },
            page_size: 8192,
            segment_bytes: 1 << 20,
            torn_pages: 1,
            checkpoint: Lsn::new(128),
            checkpoint_end: Lsn::new(256),
            log_first: Lsn::new(64),
            clean_end: Some(Lsn::new(512)),
            data_stamp: Lsn::new(448),
            next_txn: 7,
            pages: 9,
        }
    }

    #[test]
    fn slot_comes_back_and_every_flipped_bit_is_seen() {
        let mut block = vec![0; BLOCK_BYTES];
        put(&encode(&sample(), 5), &mut block);
        assert_eq!(decode(&block).unwrap(), (5, sample()));
        for bit in 0..(CRC_AT + 4) * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bad), Err(Slot::Bad(_))), "bit {bit}");
        }
    }

    #[test]
    fn values_no_writer_makes_are_refused() {
        let changes: [fn(&mut Control); 6] = [
            |c| c.segment_bytes = 0,
            |c| c.page_size = 0,
            |c| c.checkpoint = Lsn::new(260),
            |c| c.checkpoint_end = Lsn::new(8 * (u64::MAX / 8)),
            |c| c.log_first = Lsn::new(0),
            |c| c.log_first = Lsn::new(136),
        ];
        for (which, change) in changes.iter().enumerate() {
            let mut control = sample();
            change(&mut control);
            let mut block = vec![0; BLOCK_BYTES];
            put(&encode(&control, 0), &mut block);
            assert!(matches!(decode(&block), Err(Slot::Bad(_))), "change {which}");
        }
    }

    #[test]
    fn a_slot_without_its_block_comes_back_whole_or_not_at_all() {
        let bytes = sample().to_bytes();
        assert_eq!(bytes.len(), Control::BYTES);
        assert_eq!(Control::from_bytes(&bytes), Ok(sample()));
        for cut in 0..bytes.len() {
            assert!(Control::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn updates_before_the_name_come_with_it() {
        let disk: Arc<dyn Disk> = Arc::new(argali_base::disk::SimDisk::new(1));
        let control = ControlFile::create(Arc::clone(&disk), sample()).unwrap();
        control.update(|c| c.next_txn = 8).unwrap();
        assert!(matches!(
            ControlFile::open(Arc::clone(&disk), true),
            Err(Error::NoDatabase { .. })
        ));
        control.publish().unwrap();
        control.update(|c| c.pages = 10).unwrap();
        let again = ControlFile::open(disk, true).unwrap().get();
        assert_eq!((again.next_txn, again.pages), (8, 10));
    }
}
