//! The manifest: what a backup is, and that it is finished.
//!
//! ```text
//!   0  8  magic "argali\r\b"
//!   8  4  format version
//!  12  4  CRC32C over all pages in file data
//!  16  8  pages in file data
//!  24  8  end of the log: LSN behind the last record
//!  32 116 a slot of the control file: what a restart from this backup begins with
//! 148  4  CRC32C over bytes 0 … 147
//! ```
//!
//! It is written under `manifest.tmp` and renamed when everything else is durable, so its name is the mark
//! that the backup is finished; the empty `manifest.tmp` is made first of all and says "somebody is making
//! a backup here".

use std::io;

use argali_base::codec::{Reader, Writer};
use argali_base::disk::OpenMode;
use argali_base::{Disk, Error, File, Lsn, Result};
use argali_wal::Control;

pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const MANIFEST_TMP: &str = "manifest.tmp";
const MAGIC: &[u8; 8] = b"argali\r\x08";
const VERSION: u32 = 1;
const CRC_AT: usize = 32 + Control::BYTES;
const BYTES: usize = CRC_AT + 4;

/// What a finished backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// What a restart from it begins with.
    pub(crate) control: Control,
    /// Pages in its data file.
    pub(crate) pages: u64,
    /// CRC32C over them.
    pub(crate) pages_crc: u32,
    /// LSN behind the last record of its log. No page holds a change at or beyond it.
    pub(crate) end: Lsn,
}

impl Manifest {
    /// Says, durably, that a backup is being made here.
    pub(crate) fn begin(disk: &dyn Disk) -> Result<()> {
        write(disk, &[])?;
        disk.sync_dir("").map_err(|e| Error::io("sync directory of", MANIFEST_TMP, e))
    }

    /// Finishes the backup; everything else in it is durable.
    pub(crate) fn publish(&self, disk: &dyn Disk) -> Result<()> {
        write(disk, &self.encode())?;
        disk.rename(MANIFEST_TMP, MANIFEST).map_err(|e| Error::io("publish", MANIFEST, e))?;
        disk.sync_dir("").map_err(|e| Error::io("sync directory of", MANIFEST, e))
    }

    /// The manifest of a finished backup; `Unfinished` or `NotFound` when there is none.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self> {
        let file = match disk.open(MANIFEST, OpenMode::ReadOnly) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing(disk)?),
            Err(e) => return Err(Error::io("open", MANIFEST, e)),
        };
        // One byte more, to see that the file ends where it should.
        let mut bytes = vec![0; BYTES + 1];
        let len = read_up_to(file.as_ref(), &mut bytes)?;
        decode(&bytes[..len]).map_err(|what| Error::corrupt(MANIFEST, 0, None, what))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.put(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(self.pages_crc);
        out.put_u64(self.pages);
        out.put_u64(self.end.get());
        out.put(&self.control.to_bytes());
        assert_eq!(out.len(), CRC_AT, "the table at the head of this file");
        out.put_u32(crc32c::crc32c(&out));
        out
    }
}

fn write(disk: &dyn Disk, bytes: &[u8]) -> Result<()> {
    let failed = |op, e| Error::io(op, MANIFEST_TMP, e);
    let file = disk.open(MANIFEST_TMP, OpenMode::Create).map_err(|e| failed("create", e))?;
    file.set_len(0).map_err(|e| failed("truncate", e))?;
    file.write_all_at(bytes, 0).map_err(|e| failed("write", e))?;
    file.sync().map_err(|e| failed("sync", e))
}

fn missing(disk: &dyn Disk) -> Result<Error> {
    let names = disk.list("").map_err(|e| Error::io("list", ".", e))?;
    let path = disk.describe();
    Ok(if names.iter().any(|name| name == MANIFEST_TMP) {
        Error::Unfinished { what: "backup", path }
    } else {
        Error::NotFound { what: "backup", name: path }
    })
}

fn read_up_to(file: &dyn File, bytes: &mut [u8]) -> Result<usize> {
    let failed = |e| Error::io("read", MANIFEST, e);
    let len = file.len().map_err(failed)?.min(bytes.len() as u64) as usize;
    file.read_exact_at(&mut bytes[..len], 0).map_err(failed)?;
    Ok(len)
}

fn decode(bytes: &[u8]) -> Result<Manifest, String> {
    if bytes.len() != BYTES {
        return Err(format!("it is not {BYTES} bytes long"));
    }
    let (body, mut crc) = (&bytes[..CRC_AT], Reader::new(&bytes[CRC_AT..]));
    if !body.starts_with(MAGIC) {
        return Err("it does not begin as a manifest does".to_owned());
    }
    if crc.u32() != Some(crc32c::crc32c(body)) {
        return Err("checksum does not match".to_owned());
    }
    fields(&body[MAGIC.len()..])
}

fn fields(body: &[u8]) -> Result<Manifest, String> {
    let mut reader = Reader::new(body);
    let short = || "too short".to_owned();
    let version = reader.u32().ok_or_else(short)?;
    if version != VERSION {
        return Err(format!("format version {version}; this build reads version {VERSION}"));
    }
    let pages_crc = reader.u32().ok_or_else(short)?;
    let pages = reader.u64().ok_or_else(short)?;
    let end = Lsn::new(reader.u64().ok_or_else(short)?);
    let control = Control::from_bytes(reader.rest()).map_err(|why| format!("control: {why}"))?;
    if end < control.checkpoint_end {
        return Err(format!("the log ends at {end}, before its checkpoint"));
    }
    Ok(Manifest { control, pages, pages_crc, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use argali_wal::LogId;

    fn sample() -> Manifest {
        let control = Control {
            log: LogId { database: 7, timeline: 2, branch: 9 },
            page_size: 8192,
            segment_bytes: 1 << 20,
            torn_pages: 0,
            checkpoint: Lsn::new(128),
            checkpoint_end: Lsn::new(256),
            log_first: Lsn::FIRST,
            clean_end: None,
            data_stamp: Lsn::NONE,
            next_txn: 7,
            pages: 9,
        };
        Manifest { control, pages: 12, pages_crc: 0x1234_5678, end: Lsn::new(512) }
    }

    #[test]
    fn it_comes_back_and_every_flipped_bit_and_cut_is_seen() {
        let bytes = sample().encode();
        assert_eq!(decode(&bytes), Ok(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "too long");
    }

    #[test]
    fn a_log_that_ends_before_its_checkpoint_is_refused() {
        let bytes = Manifest { end: Lsn::new(248), ..sample() }.encode();
        assert!(decode(&bytes).unwrap_err().contains("before its checkpoint"));
    }
}
