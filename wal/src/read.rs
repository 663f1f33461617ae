//! Reading: one record by LSN, all records forwards, all records backwards.
//!
//! ```text
//!   read(lsn)       from the ring while it is there (rollback rarely touches a file), else from a file
//!   scan(from)      ──► by each frame's length         through a window of read-ahead
//!   scan_back(from) ◄── by the length of the frame before, which each frame carries
//! ```
//!
//! A [`RecordBuf`] is reused from record to record, and so is the window: reading allocates nothing per
//! record. Below the durable end every record must be whole; one that is not is `Corrupt`. Restart, which
//! reads each record once and keeps none, has them lent to it where they lie in the window
//! ([`Scan::lend`]): nothing is copied, and each is decoded once.

use argali_base::{Lsn, Result};

use crate::Wal;
use crate::block::{AlignedBuf, BLOCK_BYTES, round_down};
use crate::frame::{self, FRAME_BYTES_MIN};
use crate::record::Record;
use crate::segment::Segments;

/// Read-ahead of a scan: at first, and after it has doubled from load to load.
const SCAN_BYTES_MIN: usize = 32 << 10;
const SCAN_BYTES_MAX: usize = 256 << 10;
/// Read around a single record.
const SINGLE_BYTES: usize = 16 << 10;

/// Why a whole frame may still say nothing.
const UNKNOWN: &str = "record of a kind or shape this version does not know";

/// One record read from the log, with the bytes it borrows from. Reused from record to record.
#[derive(Debug, Default)]
pub struct RecordBuf {
    bytes: Vec<u8>,
    lsn: Lsn,
    end: Lsn,
    prev_len: u32,
}

impl RecordBuf {
    /// An empty buffer: [`RecordBuf::record`] panics until something was read into it.
    pub fn new() -> Self {
        Self::default()
    }

    /// LSN of the record.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// LSN of the next record.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Bytes of the record that stands physically before this one; 0 when this is the log's first.
    pub fn prev_len(&self) -> u32 {
        self.prev_len
    }

    /// LSN of the record that stands physically before this one, whoever's it is.
    pub fn before(&self) -> Option<Lsn> {
        let before = self.lsn.get().checked_sub(u64::from(self.prev_len))?;
        (self.prev_len > 0 && before >= Lsn::FIRST.get()).then_some(Lsn::new(before))
    }

    /// The whole frame as it stands in the log.
    pub fn frame(&self) -> &[u8] {
        &self.bytes
    }

    /// The decoded record; it was validated when it was read. Panics when nothing was read yet.
    pub fn record(&self) -> Record<'_> {
        Record::decode(&self.bytes).expect("validated when it was read")
    }

    /// Takes the bytes a ring or file held for the record at `lsn`; their CRC is checked already.
    fn accept(&mut self, lsn: Lsn) -> Result<(), &'static str> {
        self.lsn = lsn;
        self.end = lsn.advance(self.bytes.len() as u64);
        self.prev_len = self
            .bytes
            .get(2..4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, |words| u32::from(u16::from_le_bytes(words)) * 8);
        Record::decode(&self.bytes).map(drop).ok_or(UNKNOWN)
    }
}

/// A piece of the log files in memory.
#[derive(Debug)]
pub(crate) struct Window {
    buf: AlignedBuf,
    start: u64,
    len: usize,
    /// Bytes it may grow to by itself.
    most: usize,
}

impl Window {
    fn new(bytes: usize) -> Self {
        Self { buf: AlignedBuf::new(bytes), start: 0, len: 0, most: bytes }
    }

    /// A window for going through the whole log.
    pub(crate) fn for_scan() -> Self {
        Self { most: SCAN_BYTES_MAX, ..Self::new(SCAN_BYTES_MIN) }
    }

    /// Whatever is on disk of the `len` bytes at `lsn`, at most up to `limit`: shorter when a file ends
    /// early or is missing. Reads on from `lsn` when it must.
    pub(crate) fn forward(
        &mut self,
        segments: &Segments,
        (lsn, len): (u64, usize),
        limit: u64,
    ) -> Result<&[u8]> {
        self.see_to(Direction::Forward, segments, (lsn, len), limit)?;
        Ok(self.part(lsn, len))
    }

    /// Whatever is on disk of the frame at `lsn`, or what is wrong with the length it begins with.
    #[inline]
    pub(crate) fn frame(
        &mut self,
        direction: Direction,
        segments: &Segments,
        lsn: u64,
        limit: u64,
    ) -> Result<Result<&[u8], &'static str>> {
        self.see_to(direction, segments, (lsn, FRAME_BYTES_MIN), limit)?;
        let len = match frame::plausible_len(self.part(lsn, FRAME_BYTES_MIN)) {
            Ok(len) => len,
            Err(what) => return Ok(Err(what)),
        };
        self.see_to(direction, segments, (lsn, len), limit)?;
        Ok(Ok(self.part(lsn, len)))
    }

    /// Sees to it that the window holds what there is of the `len` bytes at `lsn`. Going backward, what it
    /// must read begins well before `lsn`.
    #[inline]
    fn see_to(
        &mut self,
        direction: Direction,
        segments: &Segments,
        (lsn, len): (u64, usize),
        limit: u64,
    ) -> Result<()> {
        if self.holds(lsn, len, limit) {
            return Ok(());
        }
        let before = match direction {
            Direction::Forward => 0,
            Direction::Backward => {
                let wanted = len.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
                self.buf.len().saturating_sub(wanted) as u64
            }
        };
        // Not into the segment before: it may be gone, or be recycled this very moment, and the
        // read would end before it came to `lsn`.
        let floor = segments.index(Lsn::new(lsn)) * segments.size();
        let start = round_down(lsn.saturating_sub(before).max(floor), BLOCK_BYTES);
        self.load(segments, start, (lsn, len), limit)
    }

    #[inline]
    fn holds(&self, lsn: u64, len: usize, limit: u64) -> bool {
        let end = (lsn + len as u64).min(limit);
        self.len > 0 && self.start <= lsn && end <= self.start + self.len as u64
    }

    #[cold]
    fn load(
        &mut self,
        segments: &Segments,
        start: u64,
        (lsn, len): (u64, usize),
        limit: u64,
    ) -> Result<()> {
        let need = ((lsn - start) as usize + len).next_multiple_of(BLOCK_BYTES);
        let grown = if self.len > 0 { 2 * self.buf.len() } else { 0 };
        let want = need.max(grown.min(self.most));
        if want > self.buf.len() {
            self.buf = AlignedBuf::new(want);
        }
        self.len = 0;
        self.start = start;
        let useful = limit.saturating_sub(start).min(self.buf.len() as u64) as usize;
        let want = useful.next_multiple_of(BLOCK_BYTES).min(self.buf.len());
        let got = segments.read(start, &mut self.buf[..want])?;
        self.len = (got as u64).min(limit.saturating_sub(start)) as usize;
        Ok(())
    }

    #[inline]
    pub(crate) fn part(&self, lsn: u64, len: usize) -> &[u8] {
        let Some(from) = lsn.checked_sub(self.start).map(|from| from as usize) else {
            return &[];
        };
        self.buf.get(from..(from + len).min(self.len)).unwrap_or(&[])
    }
}

/// Which way a reader is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Wal {
    /// Reads the record at `lsn` (ring or file) into `buf`. `Corrupt` when no whole record stands there.
    pub fn read(&self, lsn: Lsn, buf: &mut RecordBuf) -> Result<()> {
        if self.read_ring(lsn, buf)? {
            return Ok(());
        }
        // One window is kept for whoever comes first: undo reads backwards through it.
        if let Some(mut window) = self.window().try_lock() {
            let window = window.get_or_insert_with(|| Window::new(SINGLE_BYTES));
            return self.read_file(lsn, buf, window, Direction::Backward);
        }
        self.read_file(lsn, buf, &mut Window::new(2 * BLOCK_BYTES), Direction::Backward)
    }

    /// Forward from the record at `from`; ends at the end of the log.
    pub fn scan(&self, from: Lsn) -> Scan<'_> {
        Scan { wal: self, next: from, window: Window::for_scan(), young: RecordBuf::new() }
    }

    /// Backward from the record at `from`, that one included; ends at the first record kept.
    pub fn scan_back(&self, from: Lsn) -> ScanBack<'_> {
        let next = (!from.is_none()).then_some(from);
        ScanBack { wal: self, next, window: Window::for_scan() }
    }

    /// Whether the record could be read from the ring.
    fn read_ring(&self, lsn: Lsn, buf: &mut RecordBuf) -> Result<bool> {
        let Some(ring) = self.ring() else { return Ok(false) };
        if !ring.read(lsn.get(), &mut buf.bytes) {
            return Ok(false);
        }
        buf.accept(lsn).map_err(|what| self.segments().corrupt(lsn, what))?;
        Ok(true)
    }

    fn read_file(
        &self,
        lsn: Lsn,
        buf: &mut RecordBuf,
        window: &mut Window,
        direction: Direction,
    ) -> Result<()> {
        let bytes = self.frame_in_file(lsn, window, direction)?;
        buf.bytes.clear();
        buf.bytes.extend_from_slice(bytes);
        buf.accept(lsn).map_err(|what| self.segments().corrupt(lsn, what))
    }

    /// The whole frame at `lsn`, its CRC checked, where it lies in the window.
    fn frame_in_file<'w>(
        &self,
        lsn: Lsn,
        window: &'w mut Window,
        direction: Direction,
    ) -> Result<&'w [u8]> {
        let (durable, first) = (self.durable().end(), self.first());
        let segments = self.segments();
        if lsn < first || lsn >= durable || !lsn.get().is_multiple_of(8) {
            let what =
                format!("no record can stand here: the log reaches from {first} to {durable}");
            return Err(segments.corrupt(lsn, what));
        }
        let bad = |what| segments.corrupt(lsn, what);
        let frame = window.frame(direction, segments, lsn.get(), durable.get())?;
        let whole = frame.map_err(bad)?;
        frame::check(whole, self.seed(), lsn).map_err(bad)?;
        Ok(whole)
    }
}

/// Reads records one after another.
#[derive(Debug)]
pub struct Scan<'w> {
    wal: &'w Wal,
    next: Lsn,
    window: Window,
    /// A lent record that only the ring has.
    young: RecordBuf,
}

/// A record lent by a [`Scan`].
#[derive(Clone, Copy, Debug)]
pub struct Lent<'s> {
    /// Where it stands.
    pub lsn: Lsn,
    /// What it says.
    pub record: Record<'s>,
}

impl Scan<'_> {
    /// LSN of the record that comes next.
    pub fn at(&self) -> Lsn {
        self.next
    }

    /// Reads the next record into `buf`; `false` at the end of the log.
    pub fn next(&mut self, buf: &mut RecordBuf) -> Result<bool> {
        if self.next >= self.wal.tail() {
            return Ok(false);
        }
        self.wal.read_onward(self.next, buf, &mut self.window, Direction::Forward)?;
        self.next = buf.end();
        Ok(true)
    }

    /// As [`Scan::next`], but the record stays where it lies until the next call; `None` at the end.
    pub fn lend(&mut self) -> Result<Option<Lent<'_>>> {
        let lsn = self.next;
        if !self.wal.durable().covers(lsn) {
            let mut young = std::mem::take(&mut self.young);
            let found = self.next(&mut young);
            self.young = young;
            return Ok(found?.then(|| Lent { lsn, record: self.young.record() }));
        }
        let frame = self.wal.frame_in_file(lsn, &mut self.window, Direction::Forward)?;
        let record = Record::decode(frame).ok_or_else(|| self.wal.segments().corrupt(lsn, UNKNOWN));
        self.next = lsn.advance(frame.len() as u64);
        Ok(Some(Lent { lsn, record: record? }))
    }
}

/// Reads records one before another.
#[derive(Debug)]
pub struct ScanBack<'w> {
    wal: &'w Wal,
    next: Option<Lsn>,
    window: Window,
}

impl ScanBack<'_> {
    /// Reads the record before the last one into `buf`; `false` at the beginning of the log.
    pub fn next(&mut self, buf: &mut RecordBuf) -> Result<bool> {
        let Some(lsn) = self.next.filter(|lsn| *lsn >= self.wal.first()) else { return Ok(false) };
        self.wal.read_onward(lsn, buf, &mut self.window, Direction::Backward)?;
        self.next = buf.before();
        Ok(true)
    }
}

impl Wal {
    /// From the file while the record is durable, else from the ring. A record that leaves the ring in
    /// between has become durable by then.
    fn read_onward(
        &self,
        lsn: Lsn,
        buf: &mut RecordBuf,
        window: &mut Window,
        direction: Direction,
    ) -> Result<()> {
        while !self.durable().covers(lsn) {
            if self.read_ring(lsn, buf)? {
                return Ok(());
            }
            if lsn >= self.tail() || lsn.get() < self.base() {
                break;
            }
            // Reserved, but its copy is under way.
            argali_base::sync::thread::yield_now();
        }
        self.read_file(lsn, buf, window, direction)
    }
}
