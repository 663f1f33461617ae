//! Forcing: the calls around the protocol of `force.rs`, and the one flush.
//!
//! A committer calls [`Wal::force`] (or [`Wal::force_within`], when others may share the flush), the log
//! writer calls [`Wal::step`]; whoever gets the turn flushes for all. Without a log writer everything
//! works the same, the first to come flushing for the rest.

use std::time::Duration;

use argali_base::sync::{Clock, Ordering};
use argali_base::{Error, Lsn, Result};

use crate::force::{Role, Turn};
use crate::{Durable, Wal};

impl Wal {
    /// Returns once the record at `lsn` is durable; shared by a group. Poisons on failure. With an `lsn`
    /// at or beyond the tail, everything appended so far is made durable.
    pub fn force(&self, lsn: Lsn) -> Result<Durable> {
        let lsn = lsn.min(Lsn::new(self.tail().get() - 1));
        loop {
            if self.durable().covers(lsn) {
                return Ok(self.durable());
            }
            self.health.check()?;
            match self.groups.join(lsn.get()) {
                Role::Flush(turn) => self.flush(turn)?,
                Role::Wait(seat) => {
                    if let Some(turn) = self.groups.sleep(&seat) {
                        self.flush(turn)?;
                    }
                }
            }
        }
    }

    /// Waits for durability without asking for a flush of its own before `patience` is over.
    pub fn force_within(&self, lsn: Lsn, patience: Duration) -> Result<Durable> {
        let satisfied = || self.durable().covers(lsn) || self.health.is_poisoned();
        if self.options.writer_thread && !patience.is_zero() && lsn < self.tail() && !satisfied() {
            self.groups.wait_patiently(patience, satisfied);
        }
        self.force(lsn)
    }

    /// The one flush (F1), by whoever has the turn. All who wait are woken, whatever comes of it.
    fn flush(&self, turn: Turn) -> Result<()> {
        let guard = TurnGuard { wal: self, turn };
        self.health.check()?;
        let running = self.running();
        let mut flusher = running.flusher.lock();
        // A boundary of records, which what a failed flush had written need not be.
        let before = self.durable().end().get();
        let end = running.ring.complete(before, guard.turn.want);
        if end == before {
            return Ok(());
        }
        let sync = !self.options.mutations.no_force;
        flusher.flush(&running.ring, &self.segments, end, sync)?;
        self.durable.store(end, Ordering::Release);
        running.admission.written(end);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flushed_bytes.fetch_add(end - before, Ordering::Relaxed);
        Ok(())
    }

    /// One turn of the log writer: flushes if anybody waits or a relaxed commit is due (`max_delay`);
    /// otherwise sleeps until woken, at most `idle`. Returns whether it flushed.
    ///
    /// A record nobody waits for is flushed at most `max_delay` after its append, given a step every half
    /// of it; so this never sleeps longer than that. A quarter of the ring is flushed at once, and while much
    /// of it waits this looks more often: a writer that meets a full ring has to flush by itself.
    pub fn step(&self, clock: &Clock, max_delay: Duration, idle: Duration) -> Result<bool> {
        self.health.check()?;
        if self.flush_waiting()? || self.flush_overdue(clock, max_delay)? {
            return Ok(true);
        }
        self.prepare_ahead()?;
        let often = if self.waiting_share() >= 16 { 2 } else { 16 };
        self.groups.writer_sleeps(idle.min(max_delay / often));
        self.flush_waiting()
    }

    /// Flushes group after group while there is one.
    fn flush_waiting(&self) -> Result<bool> {
        let mut flushed = false;
        while let Some(turn) = self.groups.turn_for_waiters() {
            self.flush(turn)?;
            flushed = true;
        }
        Ok(flushed)
    }

    fn flush_overdue(&self, clock: &Clock, max_delay: Duration) -> Result<bool> {
        let now = clock.now();
        let due = {
            let mut since = self.dirty_since.lock();
            if self.tail() == self.durable().end() {
                *since = None;
                return Ok(false);
            }
            // Seen now, it may have been appended up to half the delay ago: just after the last step.
            let late = now.saturating_sub(*since.get_or_insert(now)) >= max_delay / 2;
            late || self.waiting_share() <= 4
        };
        if due {
            *self.dirty_since.lock() = None;
            self.force(Lsn::MAX)?;
        }
        Ok(due)
    }

    /// The ring is so many times as large as what in it waits to be flushed.
    fn waiting_share(&self) -> u64 {
        let capacity = self.running.get().map_or(u64::MAX, |running| running.ring.capacity());
        let waiting = self.tail().get().saturating_sub(self.durable().end().get());
        capacity / waiting.max(1)
    }

    /// Wakes the log writer and everybody who waits (shutdown, poison).
    pub fn wake(&self) {
        self.groups.wake();
        if let Some(running) = self.running.get() {
            running.admission.wake();
        }
    }
}

/// Ends the turn on every way out of a flush; on a panic nothing more may be promised.
struct TurnGuard<'w> {
    wal: &'w Wal,
    turn: Turn,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = "a flush of the log panicked".to_owned();
            self.wal.health.poison(Error::Poisoned { cause });
        }
        if self.wal.health.is_poisoned() {
            self.wal.wake();
        }
        self.wal.groups.finish(&self.turn, self.wal.durable().end().get());
    }
}
