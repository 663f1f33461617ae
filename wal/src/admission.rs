//! Admission: room in ring and segments is taken before the first latch, so that `append` never waits.
//!
//! ```text
//!   LSN ──────────────────────────────────────────────────────────────────────────►
//!       first kept      written       tail     promised                       ready end
//!       │               │             │        │                                  │
//!       │   on disk     │   in ring   │ tickets│ reserved for rollbacks │ margin  │
//!                                              └──── claimed ───────────┘
//! ```
//!
//! Each ticket moves `promised` on; what it did not use moves `promised` back when it is dropped. `claimed`
//! lies as far behind `promised` as bytes are reserved. Both resources are then one comparison each:
//!
//! - A1 (ring): `promised ≤ written + capacity`.
//! - A2 (disk): `claimed + margin ≤ ready end` for ordinary work; records that end something (rollback,
//!   commit, end, checkpoint) may use their reserve, then the margin.
//! - A3: Whoever waits for room first joins the `waiters`, then looks again; whoever makes room first makes
//!   it, then looks for waiters. So one of the two sees the other, and nobody sleeps beside free room.
//!
//! Every writer passes here, so nothing is locked: a bound is checked and its mark moved by one
//! compare-and-swap. A ticket can be filled again, and goes from transaction to transaction.
//!
//! Whoever waits for room must hold none: room comes back only from flushes and from tickets.

use argali_base::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};

use crate::frame::FrameBuf;
use crate::{RECORD_BYTES_MAX, Record};

/// Room in ring and segments, taken before the first latch. What is not used goes back on drop.
#[derive(Debug)]
pub struct LogTicket {
    admission: Arc<Admission>,
    left: u64,
    /// Where records are laid out.
    frame: FrameBuf,
}

impl LogTicket {
    /// A ticket for nothing, to be filled.
    pub(crate) fn empty(admission: &Arc<Admission>) -> Self {
        Self { admission: Arc::clone(admission), left: 0, frame: FrameBuf::default() }
    }

    /// Bytes of records it still covers.
    #[inline]
    pub fn left(&self) -> usize {
        self.left as usize
    }

    /// Gives back what is left.
    pub fn clear(&mut self) {
        let left = std::mem::take(&mut self.left);
        self.admission.give_back(left, left);
    }

    /// The frame of `record`, which uses room up. Panics when there is too little: admission was a bug.
    pub(crate) fn lay_out(&mut self, record: &Record<'_>) -> &mut FrameBuf {
        self.frame.write(record);
        let (len, left) = (self.frame.len() as u64, self.left);
        assert!(
            len <= RECORD_BYTES_MAX as u64,
            "record of {len} bytes; at most {RECORD_BYTES_MAX}"
        );
        assert!(len <= left, "record of {len} bytes on a ticket for {left}");
        self.left -= len;
        &mut self.frame
    }

    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }
}

impl Drop for LogTicket {
    fn drop(&mut self) {
        // Also when nothing is left: what was appended on it may be flushed to make room.
        self.clear();
    }
}

/// Log space promised to one transaction for its rollback and its end. Lives as long as it does; give it
/// back with [`Wal::release`](crate::Wal::release).
#[derive(Debug, Default)]
pub struct UndoReserve {
    pub(crate) bytes: u64,
}

impl UndoReserve {
    /// Bytes of records it still covers.
    pub fn left(&self) -> usize {
        self.bytes as usize
    }
}

/// Why a request cannot be granted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// The ring is full.
    Ring,
    /// Segments end at `ready_end`; make one more.
    Disk { ready_end: u64 },
}

#[derive(Debug)]
pub(crate) struct Admission {
    marks: Marks,
    bounds: Bounds,
    capacity: u64,
    margin: u64,
    /// A3 is broken on purpose.
    sleeps_at_once: bool,
    gate: Mutex<()>,
    room: Condvar,
}

/// What every admission moves: a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Marks {
    promised: AtomicU64,
    claimed: AtomicU64,
}

/// What every admission reads, and what moves seldom.
#[derive(Debug)]
#[repr(align(128))]
struct Bounds {
    written: AtomicU64,
    ready_end: AtomicU64,
    waiters: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(capacity: u64, margin: u64, tail: u64, ready_end: u64) -> Self {
        Self {
            marks: Marks { promised: AtomicU64::new(tail), claimed: AtomicU64::new(tail) },
            bounds: Bounds {
                written: AtomicU64::new(tail),
                ready_end: AtomicU64::new(ready_end),
                waiters: AtomicUsize::new(0),
            },
            capacity,
            margin,
            sleeps_at_once: false,
            gate: Mutex::new(()),
            room: Condvar::new(),
        }
    }

    /// Breaks A3 on purpose, if told so.
    pub(crate) fn with_mutation(self, sleeps_at_once: bool) -> Self {
        Self { sleeps_at_once, ..self }
    }

    /// Largest request that can ever be granted.
    pub(crate) fn most(&self) -> u64 {
        self.capacity / 2
    }

    /// Ordinary work: fills `ticket` up to `bytes` of records, and `reserve` by `undo` bytes of disk space.
    /// After an error the ticket is empty.
    pub(crate) fn grant(
        &self,
        ticket: &mut LogTicket,
        (bytes, undo): (u64, u64),
        reserve: &mut UndoReserve,
    ) -> Result<(), Short> {
        let held = std::mem::take(&mut ticket.left);
        let taken = self.take((held, bytes), (held, bytes + undo), self.margin);
        if taken.is_err() {
            self.marks.claimed.fetch_sub(held, Ordering::Relaxed);
            return taken;
        }
        ticket.left = bytes;
        reserve.bytes += undo;
        Ok(())
    }

    /// Records that end something: disk space comes out of ticket and `reserve`, then out of the margin. What
    /// the ticket has too much of becomes reserve; after an error, all of it.
    pub(crate) fn grant_reserved(
        &self,
        ticket: &mut LogTicket,
        bytes: u64,
        reserve: &mut UndoReserve,
    ) -> Result<(), Short> {
        let held = std::mem::take(&mut ticket.left);
        reserve.bytes += held;
        let more = bytes.saturating_sub(reserve.bytes);
        self.take((held, bytes), (0, more), 0)?;
        ticket.left = bytes;
        reserve.bytes += more;
        reserve.bytes -= bytes;
        Ok(())
    }

    /// Moves `promised` and `claimed` on, each by the second number less the first. After an error `promised` has
    /// lost what it should give up, and nothing else has happened.
    fn take(
        &self,
        (held, bytes): (u64, u64),
        (returned, claim): (u64, u64),
        margin: u64,
    ) -> Result<(), Short> {
        let (promised, claimed) = (&self.marks.promised, &self.marks.claimed);
        let ready_end = self.ready_end();
        let disk_end = ready_end.saturating_sub(margin);
        // Disk first: `LogFull` must not wait for a flush.
        let mut undone = held;
        let mut result = Err(Short::Disk { ready_end });
        if claimed.load(Ordering::Relaxed) - returned + claim <= disk_end {
            let ring_end = self.bounds.written.load(Ordering::Acquire) + self.capacity;
            if !move_on(promised, (held, bytes), ring_end) {
                result = Err(Short::Ring);
            } else if move_on(claimed, (returned, claim), disk_end) {
                result = Ok(());
            } else {
                undone = bytes;
            }
        }
        if result.is_err() {
            promised.fetch_sub(undone, Ordering::SeqCst);
        }
        self.tell();
        result
    }

    /// Gives back what `ticket` has left and the whole reserve.
    pub(crate) fn release(&self, ticket: &mut LogTicket, reserve: &mut UndoReserve) {
        let left = std::mem::take(&mut ticket.left);
        self.give_back(left, left + std::mem::take(&mut reserve.bytes));
    }

    fn give_back(&self, ring: u64, disk: u64) {
        let claimed = self.marks.claimed.fetch_sub(disk, Ordering::Relaxed);
        let promised = self.marks.promised.fetch_sub(ring, Ordering::SeqCst);
        assert!(ring <= promised && disk <= claimed, "{ring} of {promised}, {disk} of {claimed}");
        self.tell();
    }

    /// The flusher has written up to `end`.
    pub(crate) fn written(&self, end: u64) {
        self.bounds.written.store(end, Ordering::SeqCst);
        self.tell();
    }

    /// Segments are ready up to `end`.
    pub(crate) fn ready(&self, end: u64) {
        self.bounds.ready_end.store(end, Ordering::SeqCst);
        self.tell();
    }

    /// A3: room was made, or is to be looked for elsewhere.
    fn tell(&self) {
        if self.bounds.waiters.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Wakes all who wait for room, to look at the world again.
    pub(crate) fn wake(&self) {
        let _gate = self.gate.lock();
        self.room.notify_all();
    }

    /// Sleeps until something happened, unless there is room for `bytes` in the ring, or `else_hope`.
    pub(crate) fn wait(&self, bytes: u64, else_hope: impl Fn() -> bool) {
        let mut gate = self.gate.lock();
        self.bounds.waiters.fetch_add(1, Ordering::SeqCst);
        let promised = self.marks.promised.load(Ordering::SeqCst);
        let full = promised + bytes > self.bounds.written.load(Ordering::SeqCst) + self.capacity;
        if self.sleeps_at_once || (full && !else_hope()) {
            self.room.wait(&mut gate);
        }
        self.bounds.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// End of the segments that are ready.
    pub(crate) fn ready_end(&self) -> u64 {
        self.bounds.ready_end.load(Ordering::Acquire)
    }

    /// Bytes set aside for rollbacks: exact while nobody is being admitted.
    pub(crate) fn reserved(&self) -> u64 {
        let promised = self.marks.promised.load(Ordering::Acquire);
        self.marks.claimed.load(Ordering::Acquire).saturating_sub(promised)
    }

    /// Room on disk that ordinary work may still take.
    pub(crate) fn room_ahead(&self) -> u64 {
        let claimed = self.marks.claimed.load(Ordering::Acquire);
        self.ready_end().saturating_sub(claimed + self.margin)
    }
}

/// `mark − back + on`, unless that lies beyond `limit`; whether it was done.
fn move_on(mark: &AtomicU64, (back, on): (u64, u64), limit: u64) -> bool {
    let moved = |mark: u64| Some(mark - back + on).filter(|mark| *mark <= limit);
    mark.fetch_update(Ordering::SeqCst, Ordering::Relaxed, moved).is_ok()
}
