//! Admission: room in ring and segments is taken before the first latch, so that `append` never waits.
//!
//! ```text
//!   LSN ──────────────────────────────────────────────────────────────────────────►
//!       first kept      written       tail     promised                       ready end
//!       │               │             │        │                                  │
//!       │   on disk     │   in ring   │ tickets│ reserved for rollbacks │ margin  │
//! ```
//!
//! Each ticket moves `promised` on; what it did not use moves `promised` back when it is dropped. Both
//! resources are then one comparison each:
//!
//! - A1 (ring): `promised ≤ written + capacity`.
//! - A2 (disk): `promised + reserved + margin ≤ ready end` for ordinary work; records that end something
//!   (rollback, commit, end, checkpoint) may use their reserve, then the margin.
//!
//! Whoever waits for room must hold no ticket: room comes back only from flushes and from tickets.

use argali_base::sync::{Arc, Condvar, Mutex};

/// Room in ring and segments, taken before the first latch. What is not used goes back on drop.
#[derive(Debug)]
pub struct LogTicket {
    admission: Arc<Admission>,
    left: u64,
}

impl LogTicket {
    /// Bytes of records it still covers.
    pub fn left(&self) -> usize {
        self.left as usize
    }

    /// Uses `bytes` for one record. Panics when it does not cover them: admission was a bug.
    pub(crate) fn spend(&mut self, bytes: u64) {
        assert!(bytes <= self.left, "record of {bytes} bytes on a ticket for {}", self.left);
        self.left -= bytes;
    }

    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }
}

impl Drop for LogTicket {
    fn drop(&mut self) {
        self.admission.give_back(self.left);
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
    /// The ring is full up to `epoch`; wait for a later one.
    Ring { epoch: u64 },
    /// Segments end at `ready_end`; make one more.
    Disk { ready_end: u64 },
}

#[derive(Debug)]
pub(crate) struct Admission {
    capacity: u64,
    margin: u64,
    space: Mutex<Space>,
    room: Condvar,
}

#[derive(Debug)]
struct Space {
    promised: u64,
    written: u64,
    reserved: u64,
    ready_end: u64,
    /// Counts every event that may have made room.
    epoch: u64,
    waiters: usize,
}

impl Admission {
    pub(crate) fn new(capacity: u64, margin: u64, tail: u64, ready_end: u64) -> Arc<Self> {
        let space = Mutex::new(Space {
            promised: tail,
            written: tail,
            reserved: 0,
            ready_end,
            epoch: 0,
            waiters: 0,
        });
        Arc::new(Self { capacity, margin, space, room: Condvar::new() })
    }

    /// Largest request that can ever be granted.
    pub(crate) fn most(&self) -> u64 {
        self.capacity / 2
    }

    /// Ordinary work: `bytes` of records now, and `undo` bytes of disk space for `reserve`.
    pub(crate) fn grant(
        self: &Arc<Self>,
        bytes: u64,
        undo: u64,
        reserve: &mut UndoReserve,
    ) -> Result<LogTicket, Short> {
        let mut space = self.space.lock();
        space.check(self.capacity, bytes, bytes + undo + self.margin)?;
        space.promised += bytes;
        space.reserved += undo;
        reserve.bytes += undo;
        drop(space);
        Ok(LogTicket { admission: Arc::clone(self), left: bytes })
    }

    /// Records that end something: disk space comes out of `reserve`, then out of the margin.
    pub(crate) fn grant_reserved(
        self: &Arc<Self>,
        bytes: u64,
        reserve: &mut UndoReserve,
    ) -> Result<LogTicket, Short> {
        let mut space = self.space.lock();
        let own = bytes.min(reserve.bytes);
        space.check(self.capacity, bytes, bytes - own)?;
        space.promised += bytes;
        space.reserved -= own;
        reserve.bytes -= own;
        drop(space);
        Ok(LogTicket { admission: Arc::clone(self), left: bytes })
    }

    /// Turns what `ticket` has left into reserve again.
    pub(crate) fn settle(&self, mut ticket: LogTicket, reserve: &mut UndoReserve) {
        let left = std::mem::take(&mut ticket.left);
        let mut space = self.space.lock();
        space.promised -= left;
        space.reserved += left;
        reserve.bytes += left;
        // Dropping the ticket, after the lock is free, tells the waiters.
        drop(space);
    }

    pub(crate) fn release(&self, reserve: &mut UndoReserve) {
        let bytes = std::mem::take(&mut reserve.bytes);
        let mut space = self.space.lock();
        assert!(bytes <= space.reserved, "releasing {bytes} of {} reserved", space.reserved);
        space.reserved -= bytes;
    }

    fn give_back(&self, bytes: u64) {
        self.event(|space| space.promised -= bytes);
    }

    /// The flusher has written up to `end`.
    pub(crate) fn written(&self, end: u64) {
        self.event(|space| space.written = end);
    }

    /// Segments are ready up to `end`.
    pub(crate) fn ready(&self, end: u64) {
        self.event(|space| space.ready_end = end);
    }

    /// Wakes all who wait for room, to look at the world again.
    pub(crate) fn wake(&self) {
        self.event(|_| {});
    }

    fn event(&self, change: impl FnOnce(&mut Space)) {
        let mut space = self.space.lock();
        change(&mut space);
        space.epoch += 1;
        let waiters = space.waiters;
        drop(space);
        if waiters > 0 {
            self.room.notify_all();
        }
    }

    /// Sleeps until something happened since `epoch`.
    pub(crate) fn wait(&self, epoch: u64) {
        let mut space = self.space.lock();
        space.waiters += 1;
        while space.epoch == epoch {
            self.room.wait(&mut space);
        }
        space.waiters -= 1;
    }

    /// End of the segments that are ready.
    pub(crate) fn ready_end(&self) -> u64 {
        self.space.lock().ready_end
    }

    /// Bytes set aside for rollbacks.
    pub(crate) fn reserved(&self) -> u64 {
        self.space.lock().reserved
    }

    /// Room on disk that ordinary work may still take.
    pub(crate) fn room_ahead(&self) -> u64 {
        let space = self.space.lock();
        space.ready_end.saturating_sub(space.promised + space.reserved + self.margin)
    }
}

impl Space {
    /// Disk first: `LogFull` must not wait for a flush.
    fn check(&self, capacity: u64, ring: u64, disk: u64) -> Result<(), Short> {
        if self.promised + self.reserved + disk > self.ready_end {
            return Err(Short::Disk { ready_end: self.ready_end });
        }
        if self.promised + ring > self.written + capacity {
            return Err(Short::Ring { epoch: self.epoch });
        }
        Ok(())
    }
}
