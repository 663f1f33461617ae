//! The ring: the log's newest bytes in memory, written by many threads at once and flushed by one.
//!
//! ```text
//!            written                complete        tail           written + capacity
//!   ─────────┼──────────────────────┼───────────────┼──────────────┼─────
//!   on disk  │ A ──► B ──► C ──► D ─┤  (E: copying) F │   room       │ = the first byte on disk still here
//!            └──────────────────────┘   links: A→B→C→D→(E)
//! ```
//!
//! An append takes three steps. *Reserve*: under a short mutex the tail moves on by the record's length.
//! *Copy*: the record's words are stored, in parallel with other appends. *Publish*: the record's link is
//! set to its end. The flusher follows links from `written` and stops at the first record that is not
//! published yet. Nobody waits for anybody else's copy.
//!
//! Memory model: words and links are atomics, so racing accesses are defined. A published link (release)
//! makes the record's words visible to whoever follows it (acquire). A reader of an old record copies
//! its words and then checks that the tail has not come round (a seqlock whose version is the tail).
//!
//! The ring is made of chunks, each allocated when the tail first comes to it: a small database that is
//! opened, asked one thing and closed never touches the rest.
//!
//! - R1: `tail ≤ written + capacity`; admission sees to it. Hence nothing un-flushed is overwritten.
//! - R2: A link is valid iff it is greater than the LSN it is looked up for. There is one link per 32
//!   bytes; a frame has at least 32, so no two frames of one lap share a link, and what an earlier lap
//!   left there ended at least three quarters of the ring ago. So links are never cleared.

use std::sync::OnceLock;

use argali_base::Lsn;
use argali_base::sync::{AtomicU64, Mutex, Ordering, fence};

use crate::frame::{HEADER_BYTES, Seed, plausible_len};
use crate::record::Encoded;

/// Bytes of log per chunk. Models make thousands of rings of a few records each.
const CHUNK_BYTES: usize = if cfg!(feature = "shuttle") { 256 } else { 64 << 10 };
const CHUNK_WORDS: usize = CHUNK_BYTES / 8;
const CHUNK_LINKS: usize = CHUNK_BYTES / HEADER_BYTES;

#[derive(Debug)]
struct Chunk {
    words: Box<[AtomicU64; CHUNK_WORDS]>,
    links: Box<[AtomicU64; CHUNK_LINKS]>,
}

impl Chunk {
    fn new() -> Self {
        Self { words: zeros(), links: zeros() }
    }

    fn word(&self, lsn: u64) -> &AtomicU64 {
        &self.words[(lsn / 8) as usize % CHUNK_WORDS]
    }

    fn link(&self, lsn: u64) -> &AtomicU64 {
        &self.links[(lsn / HEADER_BYTES as u64) as usize % CHUNK_LINKS]
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "64 KiB do not belong on the stack")]
fn zeros<const N: usize>() -> Box<[AtomicU64; N]> {
    let cells: Box<[AtomicU64]> = (0..N).map(|_| AtomicU64::new(0)).collect();
    cells.try_into().expect("N cells were made")
}

#[derive(Debug)]
pub(crate) struct Ring {
    chunks: Box<[OnceLock<Chunk>]>,
    head: Mutex<Head>,
    /// Copy of `head.tail`: what readers check. It moves on before any word of the new record is stored.
    tail: AtomicU64,
    /// Where this ring began; below it there are only files.
    base: u64,
}

#[derive(Debug)]
struct Head {
    tail: u64,
    prev_len: u32,
    records: u64,
}

impl Ring {
    /// An empty ring of `bytes` (a power of two) for a log that goes on at `tail`, behind a frame of
    /// `prev_len` bytes.
    pub(crate) fn new(bytes: usize, tail: u64, prev_len: u32) -> Self {
        assert!(bytes.is_power_of_two() && bytes >= CHUNK_BYTES, "ring of {bytes} bytes");
        Self {
            chunks: (0..bytes / CHUNK_BYTES).map(|_| OnceLock::new()).collect(),
            head: Mutex::new(Head { tail, prev_len, records: 0 }),
            tail: AtomicU64::new(tail),
            base: tail,
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        (self.chunks.len() * CHUNK_BYTES) as u64
    }

    /// LSN the next record will get.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// LSN of the last record (0: none), and the records appended here.
    pub(crate) fn last(&self) -> (Lsn, u64) {
        let head = self.head.lock();
        let last = if head.prev_len == 0 { 0 } else { head.tail - u64::from(head.prev_len) };
        (Lsn::new(last), head.records)
    }

    /// Appends a record there was room admitted for.
    pub(crate) fn append(&self, record: &mut Encoded<'_>, seed: Seed) -> Lsn {
        let len = record.len() as u64;
        let (lsn, prev_len) = self.reserve(len);
        record.seal(seed, Lsn::new(lsn), prev_len);
        // Pairs with the fence in `read`: who sees a word of this record sees the new tail, too.
        fence(Ordering::Release);
        self.copy_in(lsn, &record.pieces());
        self.link(lsn).store(lsn + len, Ordering::Release);
        Lsn::new(lsn)
    }

    fn reserve(&self, len: u64) -> (u64, u32) {
        let mut head = self.head.lock();
        let (lsn, prev_len) = (head.tail, head.prev_len);
        head.tail += len;
        head.prev_len = len as u32;
        head.records += 1;
        self.tail.store(head.tail, Ordering::Release);
        (lsn, prev_len)
    }

    fn chunk(&self, lsn: u64) -> &Chunk {
        let nth = (lsn / CHUNK_BYTES as u64) as usize & (self.chunks.len() - 1);
        self.chunks[nth].get_or_init(Chunk::new)
    }

    fn link(&self, lsn: u64) -> &AtomicU64 {
        self.chunk(lsn).link(lsn)
    }

    /// Stores the pieces one behind the other as whole words; their total is a multiple of 8.
    fn copy_in(&self, lsn: u64, pieces: &[&[u8]]) {
        let mut out = Cursor { ring: self, chunk: self.chunk(lsn), at: lsn };
        let mut carry = [0_u8; 8];
        let mut filled = 0;
        for piece in pieces {
            let mut rest = *piece;
            if filled > 0 {
                let take = rest.len().min(8 - filled);
                carry[filled..filled + take].copy_from_slice(&rest[..take]);
                filled += take;
                rest = &rest[take..];
                if filled < 8 {
                    continue;
                }
                out.next().store(u64::from_le_bytes(carry), Ordering::Relaxed);
            }
            let (words, remainder) = rest.as_chunks::<8>();
            for word in words {
                out.next().store(u64::from_le_bytes(*word), Ordering::Relaxed);
            }
            carry[..remainder.len()].copy_from_slice(remainder);
            filled = remainder.len();
        }
        assert_eq!(filled, 0, "a frame is a whole number of words");
    }

    /// End of the complete records from `from` on. Waits until it lies beyond `need`, which must have
    /// been reserved: a copy takes well under a microsecond unless its thread lost its processor.
    pub(crate) fn complete(&self, from: u64, need: u64) -> u64 {
        assert!(need < self.tail() || need < from, "nothing reserved at {need}");
        let mut at = from;
        let mut spins = 0_u32;
        loop {
            let end = self.link(at).load(Ordering::Acquire);
            if end > at {
                at = end;
            } else if at > need {
                return at;
            } else if spins < 64 {
                spins += 1;
                argali_base::sync::spin_hint();
            } else {
                argali_base::sync::thread::yield_now();
            }
        }
    }

    /// Copies the bytes from `lsn` on, which the caller knows to be complete and not yet overwritten.
    pub(crate) fn copy_out(&self, lsn: u64, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        assert!(rest.is_empty(), "the log is a whole number of words");
        let mut from = Cursor { ring: self, chunk: self.chunk(lsn), at: lsn };
        for word in words {
            *word = from.next().load(Ordering::Relaxed).to_le_bytes();
        }
    }

    /// Copies the record at `lsn` into `out`; `false` when it is no longer (or not yet) here, or when no
    /// record begins there.
    pub(crate) fn read(&self, lsn: u64, out: &mut Vec<u8>) -> bool {
        if lsn < self.base || !self.still_here(lsn) {
            return false;
        }
        let end = self.link(lsn).load(Ordering::Acquire);
        let head = self.chunk(lsn).word(lsn).load(Ordering::Relaxed).to_le_bytes();
        let Ok(len) = plausible_len(&head) else { return false };
        if end != lsn + len as u64 {
            return false;
        }
        out.resize(len, 0);
        self.copy_out(lsn, out);
        self.still_here(lsn)
    }

    /// Whether no append has overwritten, or is overwriting, what begins at `lsn`.
    fn still_here(&self, lsn: u64) -> bool {
        fence(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Relaxed);
        lsn < tail && tail - lsn <= self.capacity()
    }
}

/// Goes through the ring's words.
struct Cursor<'r> {
    ring: &'r Ring,
    chunk: &'r Chunk,
    at: u64,
}

impl<'r> Cursor<'r> {
    fn next(&mut self) -> &'r AtomicU64 {
        if self.at.is_multiple_of(CHUNK_BYTES as u64) {
            self.chunk = self.ring.chunk(self.at);
        }
        let word = self.chunk.word(self.at);
        self.at += 8;
        word
    }
}
