//! The ring: the log's newest bytes in memory, written by many threads at once and flushed by one.
//!
//! ```text
//!            written                complete        tail           written + capacity
//!   ─────────┼──────────────────────┼───────────────┼──────────────┼─────
//!   on disk  │ A ──► B ──► C ──► D ─┤  (E: copying) F │   room       │ = the first byte on disk still here
//!            └──────────────────────┘   links: A→B→C→D→(E)
//! ```
//!
//! An append takes three steps. *Reserve*: one compare-and-swap moves the tail on by the record's length and
//! leaves the length for the next record, which names it.
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
//! - R2: A link is valid iff it is greater than the LSN it is looked up for. There is one link per 16
//!   bytes; a frame has at least 16, so no two frames of one lap share a link, and what an earlier lap
//!   left there ended at least three quarters of the ring ago. So links are never cleared.

use std::sync::OnceLock;

use argali_base::Lsn;
use argali_base::sync::{AtomicU64, Ordering, fence};

use crate::RECORD_BYTES_MAX;
use crate::frame::{FRAME_BYTES_MIN, FrameBuf, Seed, plausible_len};

/// Bytes of log per chunk: so many that they come as zero pages of the system, which nobody has to clear. Models
/// make thousands of rings of a few records each.
const CHUNK_BYTES: usize = if cfg!(feature = "shuttle") { 256 } else { 256 << 10 };
const CHUNK_WORDS: usize = CHUNK_BYTES / 8;
const CHUNK_LINKS: usize = CHUNK_BYTES / FRAME_BYTES_MIN;

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
        &self.links[(lsn / FRAME_BYTES_MIN as u64) as usize % CHUNK_LINKS]
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "as much does not belong on the stack")]
fn zeros<const N: usize>() -> Box<[AtomicU64; N]> {
    let cells: Box<[AtomicU64]> = (0..N).map(|_| AtomicU64::new(0)).collect();
    cells.try_into().expect("N cells were made")
}

#[derive(Debug)]
pub(crate) struct Ring {
    head: Head,
    chunks: Box<[OnceLock<Chunk>]>,
    /// Where this ring began; below it there are only files.
    base: u64,
}

/// Where the next record goes: a cache line of its own, since every append changes it.
#[derive(Debug)]
#[repr(align(128))]
struct Head {
    /// [`Place`], packed. It moves on before any word of the new record is stored.
    place: AtomicU64,
    records: AtomicU64,
}

/// The tail, and the length of the record before it. Packed as words of 8 bytes: 48 bits and 16.
#[derive(Clone, Copy, Debug)]
struct Place {
    tail: u64,
    prev_len: u64,
}

const LEN_BITS: u32 = 16;
const _: () = assert!(RECORD_BYTES_MAX / 8 < 1 << LEN_BITS);

impl Place {
    const fn pack(self) -> u64 {
        assert!(self.tail >> (64 - LEN_BITS + 3) == 0, "a log of two pebibytes");
        ((self.tail / 8) << LEN_BITS) | (self.prev_len / 8)
    }

    const fn unpack(word: u64) -> Self {
        Self { tail: (word >> LEN_BITS) * 8, prev_len: word % (1 << LEN_BITS) * 8 }
    }
}

impl Ring {
    /// An empty ring of `bytes` (a power of two) for a log that goes on at `tail`, behind a frame of
    /// `prev_len` bytes.
    pub(crate) fn new(bytes: usize, tail: u64, prev_len: u32) -> Self {
        assert!(bytes.is_power_of_two() && bytes >= CHUNK_BYTES, "ring of {bytes} bytes");
        Self {
            head: Head {
                place: AtomicU64::new(Place { tail, prev_len: u64::from(prev_len) }.pack()),
                records: AtomicU64::new(0),
            },
            chunks: (0..bytes / CHUNK_BYTES).map(|_| OnceLock::new()).collect(),
            base: tail,
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        (self.chunks.len() * CHUNK_BYTES) as u64
    }

    /// LSN the next record will get.
    pub(crate) fn tail(&self) -> u64 {
        Place::unpack(self.head.place.load(Ordering::Acquire)).tail
    }

    /// LSN of the last record (0: none), and the records appended here.
    pub(crate) fn last(&self) -> (Lsn, u64) {
        let place = Place::unpack(self.head.place.load(Ordering::Acquire));
        let last = if place.prev_len == 0 { 0 } else { place.tail - place.prev_len };
        (Lsn::new(last), self.head.records.load(Ordering::Relaxed))
    }

    /// Appends a record there was room admitted for.
    pub(crate) fn append(&self, frame: &mut FrameBuf, seed: Seed) -> Lsn {
        let len = frame.len() as u64;
        let Place { tail: lsn, prev_len } = self.reserve(len);
        let (first, rest) = frame.seal(seed, Lsn::new(lsn), prev_len as u32);
        // Pairs with the fence in `read`: who sees a word of this record sees the new tail, too.
        fence(Ordering::Release);
        let mut out = Cursor::new(self, lsn);
        out.store(&[first]);
        out.store(rest);
        self.link(lsn).store(lsn + len, Ordering::Release);
        Lsn::new(lsn)
    }

    fn reserve(&self, len: u64) -> Place {
        let moved = |word| {
            let Place { tail, .. } = Place::unpack(word);
            Some(Place { tail: tail + len, prev_len: len }.pack())
        };
        let before = self.head.place.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved);
        self.head.records.fetch_add(1, Ordering::Relaxed);
        Place::unpack(before.expect("every place has a next one"))
    }

    fn chunk(&self, lsn: u64) -> &Chunk {
        let nth = (lsn / CHUNK_BYTES as u64) as usize & (self.chunks.len() - 1);
        self.chunks[nth].get_or_init(Chunk::new)
    }

    fn link(&self, lsn: u64) -> &AtomicU64 {
        self.chunk(lsn).link(lsn)
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
        let (mut words, mut from) = (words, Cursor::new(self, lsn));
        while !words.is_empty() {
            let sources = from.take(words.len());
            let (now, later) = words.split_at_mut(sources.len());
            for (word, source) in now.iter_mut().zip(sources) {
                *word = source.load(Ordering::Relaxed).to_le_bytes();
            }
            words = later;
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
        let tail = Place::unpack(self.head.place.load(Ordering::Relaxed)).tail;
        lsn < tail && tail - lsn <= self.capacity()
    }
}

/// Goes through the ring's words, chunk by chunk.
struct Cursor<'r> {
    ring: &'r Ring,
    at: u64,
    /// The words from here to the end of the chunk.
    here: &'r [AtomicU64],
}

impl<'r> Cursor<'r> {
    #[inline]
    fn new(ring: &'r Ring, at: u64) -> Self {
        let here = &ring.chunk(at).words[(at / 8) as usize % CHUNK_WORDS..];
        Self { ring, at, here }
    }

    /// Up to `most` words behind each other; fewer where the chunk ends. None only of none.
    #[inline]
    fn take(&mut self, most: usize) -> &'r [AtomicU64] {
        if self.here.is_empty() {
            *self = Self::new(self.ring, self.at);
        }
        let (taken, left) = self.here.split_at(most.min(self.here.len()));
        self.here = left;
        self.at += 8 * taken.len() as u64;
        taken
    }

    #[inline]
    fn store(&mut self, mut words: &[[u8; 8]]) {
        while !words.is_empty() {
            let targets = self.take(words.len());
            let (now, later) = words.split_at(targets.len());
            // By fours, since no compiler unrolls a loop of atomic stores.
            let ((fours, rest), (words_of_fours, words_of_rest)) =
                (targets.as_chunks::<4>(), now.as_chunks::<4>());
            for (targets, words) in fours.iter().zip(words_of_fours) {
                store_each(targets, words);
            }
            store_each(rest, words_of_rest);
            words = later;
        }
    }
}

#[inline]
fn store_each(targets: &[AtomicU64], words: &[[u8; 8]]) {
    for (target, word) in targets.iter().zip(words) {
        target.store(u64::from_le_bytes(*word), Ordering::Relaxed);
    }
}
