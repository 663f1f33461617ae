//! Room for records: admission against the ring and the disk, segments made, recycled and removed.
//!
//! ```text
//!   admit ─► room in ring and segments? ─yes─► ticket
//!              │ ring short: force the oldest un-flushed record (by oneself if nobody does), or wait
//!              │             for a ticket to come back; again
//!              │ disk short: make the next segment; again
//!              └ beyond the limit, or no space on the disk: LogFull, naming the holders
//! ```
//!
//! What ends something (rollback, commit, end, checkpoint) is never refused for the limit: it draws on
//! its reserve, then on the margin, then goes beyond the limit. Only a disk that has no space at all,
//! after reserve and margin are used up, can stop it.

use argali_base::{Error, Lsn, Result};

use crate::admission::{LogTicket, Short, UndoReserve};
use crate::segment::is_full;
use crate::{Holder, Running, Wal};

/// Whose request it is that the log should grow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grow {
    WithinLimit,
    BeyondLimit,
}

impl Wal {
    /// Takes room for records of `record_bytes` in total, before any latch. May wait for a flush, may
    /// create segments. `undo_bytes` more (disk space only) go to `reserve` for the rollback.
    /// `LogFull` when limit or disk is met; poisoned → `Poisoned`.
    ///
    /// Hold no other ticket: room in the ring comes back only when tickets do.
    pub fn admit(
        &self,
        record_bytes: usize,
        undo_bytes: usize,
        reserve: &mut UndoReserve,
    ) -> Result<LogTicket> {
        let mut ticket = self.ticket()?;
        self.refill(&mut ticket, record_bytes, undo_bytes, reserve)?;
        Ok(ticket)
    }

    /// A ticket for nothing yet; see [`Wal::refill`].
    pub fn ticket(&self) -> Result<LogTicket> {
        Ok(LogTicket::empty(&self.admissible(0)?.admission))
    }

    /// As [`Wal::admit`], into a ticket that is there already, and first gives up what it has left. After an
    /// error the ticket is empty.
    pub fn refill(
        &self,
        ticket: &mut LogTicket,
        record_bytes: usize,
        undo_bytes: usize,
        reserve: &mut UndoReserve,
    ) -> Result<()> {
        let (bytes, undo) = (record_bytes as u64, undo_bytes as u64);
        let admission = &self.admissible(bytes)?.admission;
        let grant = || admission.grant(ticket, (bytes, undo), reserve);
        self.until_granted(Grow::WithinLimit, bytes, grant)
    }

    /// Like `admit`, for rollback, commit and end: disk space comes out of `reserve` (then from the
    /// margin kept for such records); never `LogFull` while the disk has space.
    pub fn admit_reserved(
        &self,
        record_bytes: usize,
        reserve: &mut UndoReserve,
    ) -> Result<LogTicket> {
        let mut ticket = self.ticket()?;
        self.refill_reserved(&mut ticket, record_bytes, reserve)?;
        Ok(ticket)
    }

    /// As [`Wal::admit_reserved`], into a ticket that is there already. What it has too much becomes reserve:
    /// admissions are estimates, and a rollback admits again and again. After an error, all of it does.
    pub fn refill_reserved(
        &self,
        ticket: &mut LogTicket,
        record_bytes: usize,
        reserve: &mut UndoReserve,
    ) -> Result<()> {
        let bytes = record_bytes as u64;
        let admission = &self.admissible(bytes)?.admission;
        let grant = || admission.grant_reserved(ticket, bytes, reserve);
        self.until_granted(Grow::BeyondLimit, bytes, grant)
    }

    /// Restart only: sets aside again what a transaction in doubt had set aside before the crash, beyond the
    /// limit if it must be. Never more than the limit itself, whatever the log claims.
    pub fn reserve_again(&self, bytes: u64, reserve: &mut UndoReserve) -> Result<()> {
        let admission = &self.admissible(0)?.admission;
        let bytes = bytes.min(self.options.limit_bytes);
        let mut ticket = LogTicket::empty(admission);
        let grant = || admission.grant(&mut ticket, (0, bytes), reserve);
        self.until_granted(Grow::BeyondLimit, 0, grant)
    }

    /// Gives back the whole reserve and what `ticket` has left (transaction over).
    pub fn release(&self, ticket: &mut LogTicket, reserve: &mut UndoReserve) {
        self.running().admission.release(ticket, reserve);
    }

    fn admissible(&self, bytes: u64) -> Result<&Running> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.health.check()?;
        let running = self.running();
        let limit = running.admission.most();
        if bytes > limit {
            let (size, limit) = (bytes as usize, limit as usize);
            return Err(Error::TooLarge { what: "log records of one admission", size, limit });
        }
        Ok(running)
    }

    fn until_granted(
        &self,
        grow: Grow,
        bytes: u64,
        mut grant: impl FnMut() -> Result<(), Short>,
    ) -> Result<()> {
        loop {
            match grant() {
                Ok(()) => return Ok(()),
                Err(Short::Disk { ready_end }) => self.grow(ready_end, grow)?,
                Err(Short::Ring) => self.make_room_in_ring(bytes)?,
            }
            self.health.check()?;
        }
    }

    /// Flushes if there is anything to flush; else all of the ring is out on tickets, so waits for one.
    fn make_room_in_ring(&self, bytes: u64) -> Result<()> {
        let flushable = || self.durable().end() < self.tail();
        if flushable() {
            self.force(self.durable().end())?;
        } else {
            let hope = || flushable() || self.health.is_poisoned();
            self.running().admission.wait(bytes, hope);
        }
        Ok(())
    }

    /// Makes one more segment, unless somebody did since `seen` was the end.
    fn grow(&self, seen: u64, grow: Grow) -> Result<()> {
        let _growth = self.growth.lock();
        let admission = &self.running().admission;
        if admission.ready_end() != seen {
            return Ok(());
        }
        let size = self.segments.size();
        let limit = self.options.limit_bytes;
        if grow == Grow::WithinLimit && self.kept_bytes() + size > limit {
            return Err(self.full(&format!("the limit of {limit} bytes is reached")));
        }
        match self.segments.create(seen / size) {
            Ok(()) => {
                admission.ready(seen + size);
                Ok(())
            }
            Err(error) if is_full(&error) && !self.health.is_poisoned() => {
                Err(self.full(&format!("no space for another segment ({error})")))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the next segment before anybody has to wait for it. Unless it poisons, a failure is no
    /// error here: whoever needs the space will be told.
    pub(crate) fn prepare_ahead(&self) -> Result<()> {
        let Some(running) = self.running.get() else { return Ok(()) };
        if running.admission.room_ahead() >= self.segments.size() / 2 {
            return Ok(());
        }
        match self.grow(running.admission.ready_end(), Grow::WithinLimit) {
            Err(error) if self.health.is_poisoned() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Bytes of log files, from the first segment kept to the last one ready.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let begin = self.segments.index(self.first()) * self.segments.size();
        self.running.get().map_or(self.end().get(), |running| running.admission.ready_end()) - begin
    }

    fn full(&self, why: &str) -> Error {
        let holders = self.holders();
        let held: Vec<String> =
            holders.iter().map(|holder| format!("{} at {}", holder.what, holder.lsn)).collect();
        let held = if held.is_empty() { "nobody".to_owned() } else { held.join(", ") };
        let reserved = self.running().admission.reserved();
        let what = format!(
            "{why}; it is kept from {}, held by {held}; {reserved} bytes are set aside for rollbacks",
            self.first()
        );
        Error::LogFull { what }
    }

    /// Recycles or removes segments that lie wholly below the least holder and every [`Hold`](crate::Hold). The control
    /// slot that stops referring to them must be durable before. Remembers the holders for `stats`. Returns the
    /// first LSN now kept.
    pub fn truncate(&self, mut holders: Vec<Holder>) -> Result<Lsn> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.health.check()?;
        let _growth = self.growth.lock();
        holders.sort_by_key(|holder| holder.lsn);
        let heeded = |holder: &&Holder| {
            !(self.options.mutations.early_truncation && holder.what.contains("transaction"))
        };
        let least = holders.iter().find(heeded).map_or(Lsn::MAX, |holder| holder.lsn);
        let first = self.move_first(least);
        *self.holders.lock() = holders;
        let keep = self.segments.index(first);
        let free: Vec<u64> =
            self.segments.indexes().into_iter().take_while(|index| *index < keep).collect();
        if !free.is_empty() {
            self.reuse(&free)?;
        }
        Ok(first)
    }

    /// S2: rename → directory sync → use.
    fn reuse(&self, free: &[u64]) -> Result<()> {
        let admission = &self.running().admission;
        let size = self.segments.size();
        let tail_segment = self.segments.index(self.tail());
        let mut next = admission.ready_end() / size;
        let mut outcome = Ok(());
        for &index in free {
            let spare = next.saturating_sub(tail_segment + 1);
            outcome = if spare < self.options.spare_segments() {
                self.segments.recycle(index, next).map(|()| next += 1)
            } else {
                self.segments.remove(index)
            };
            if outcome.is_err() {
                break;
            }
        }
        self.segments.sync_dir()?;
        admission.ready(next * size);
        outcome
    }
}
