//! When to take a checkpoint, and which pages it writes: pure decisions over observed state.
//!
//! ```text
//!  Observed ──► CheckpointPolicy::decide ──► None | Some(Flush) ──► Checkpointer
//! ```
//!
//! A policy holds no state and does no I/O, so that one mechanism serves all policies (the only fair
//! way to compare them) and a simulation can replay its decisions.
//!
//! What writes pages matters more than how often a record is taken: a fuzzy checkpoint that writes
//! nothing costs microseconds, but one hot page that is never evicted then pins the redo point for
//! ever. [`Flush::Old`] is the second-chance rule (Bernstein, Hadzilacos, Goodman 1987, chapter 6):
//! each checkpoint writes what was dirty before the one before it, which bounds redo by two intervals
//! without an ordered list of dirty pages.

use std::time::Duration;

/// Which pages a checkpoint writes before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flush {
    /// None: the pure fuzzy checkpoint of the paper.
    Nothing,
    /// Pages dirty since before the previous checkpoint: redo stays within two intervals.
    #[default]
    Old,
    /// Every dirty page.
    Everything,
}

/// When to take a checkpoint and what it writes: a pure decision over observed state.
pub trait CheckpointPolicy: Send + Sync {
    /// `None`: not now.
    fn decide(&self, seen: &Observed) -> Option<Flush>;
    /// Of `pages` that were dirty at the last checkpoint: how many should be written by now, so that the next
    /// one need not write them all at once. None, unless the policy says so.
    fn written_by_now(&self, _seen: &Observed, _pages: usize) -> usize {
        0
    }
}

/// What a policy sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed {
    /// Since the last checkpoint ended.
    pub since_last: Duration,
    /// Appended since the last checkpoint ended.
    pub log_bytes_since_last: u64,
    /// From the first record kept to the tail.
    pub log_bytes_kept: u64,
    /// Most that may be kept.
    pub log_bytes_limit: u64,
    /// Size of the dirty page table.
    pub dirty_pages: usize,
    /// Frames in the pool.
    pub frames: usize,
}

/// Takes no checkpoint: the baseline of comparisons, and for databases in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl CheckpointPolicy for Never {
    fn decide(&self, _: &Observed) -> Option<Flush> {
        None
    }
}

/// By log volume, by time, and in time before the log is full; the default.
///
/// Volume bounds what a restart reads; time bounds how long a quiet database stays unclean; the third
/// rule keeps admission from failing with `LogFull` while the log could be truncated.
#[derive(Clone, Copy, Debug)]
pub struct Standard {
    /// A checkpoint after so many bytes of log.
    pub log_bytes: u64,
    /// A checkpoint after so long, if anything was logged.
    pub interval: Duration,
    /// What each writes.
    pub flush: Flush,
}

impl Default for Standard {
    /// 64 MiB (about a second of redo), one minute, old pages.
    fn default() -> Self {
        Self { log_bytes: 64 << 20, interval: Duration::from_mins(1), flush: Flush::Old }
    }
}

impl CheckpointPolicy for Standard {
    fn decide(&self, seen: &Observed) -> Option<Flush> {
        if seen.log_bytes_since_last == 0 {
            return None;
        }
        // A transaction that holds the log cannot be hurried, so pressure asks again only after
        // another sixteenth of the limit; else checkpoints would follow each other without end.
        let pressed = seen.log_bytes_kept > seen.log_bytes_limit / 2
            && seen.log_bytes_since_last > seen.log_bytes_limit / 16;
        if pressed {
            return Some(Flush::Everything);
        }
        let due = seen.log_bytes_since_last >= self.log_bytes || seen.since_last >= self.interval;
        due.then_some(self.flush)
    }

    /// As evenly as log and time go, and a little early.
    fn written_by_now(&self, seen: &Observed, pages: usize) -> usize {
        if self.flush != Flush::Old {
            return 0;
        }
        let part = |gone: u128, of: u128| {
            let early = of - of / 8;
            pages as u128 * gone.min(early) / early.max(1)
        };
        let bytes = part(seen.log_bytes_since_last.into(), self.log_bytes.into());
        let time = part(seen.since_last.as_millis(), self.interval.as_millis());
        usize::try_from(bytes.max(time)).expect("a part of the pages")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes: u64, kept: u64, seconds: u64) -> Observed {
        Observed {
            since_last: Duration::from_secs(seconds),
            log_bytes_since_last: bytes,
            log_bytes_kept: kept,
            log_bytes_limit: 1 << 30,
            ..Observed::default()
        }
    }

    #[test]
    fn standard_decides_by_volume_time_and_pressure() {
        let policy = Standard::default();
        assert_eq!(policy.decide(&seen(0, 900 << 20, 3600)), None, "nothing was logged");
        assert_eq!(policy.decide(&seen(1 << 20, 1 << 20, 1)), None);
        assert_eq!(policy.decide(&seen(64 << 20, 64 << 20, 1)), Some(Flush::Old));
        assert_eq!(policy.decide(&seen(1, 1, 60)), Some(Flush::Old));
        assert_eq!(policy.decide(&seen(65 << 20, 600 << 20, 1)), Some(Flush::Everything));
        assert_eq!(policy.decide(&seen(1 << 20, 600 << 20, 1)), None, "asked a moment ago");
    }

    #[test]
    fn standard_spreads_what_the_next_checkpoint_would_write() {
        let policy =
            Standard { log_bytes: 800, interval: Duration::from_secs(80), flush: Flush::Old };
        for (bytes, seconds, written) in [(0, 0, 0), (70, 0, 100), (0, 35, 500), (350, 7, 500)] {
            assert_eq!(policy.written_by_now(&seen(bytes, bytes, seconds), 1000), written);
        }
        assert_eq!(policy.written_by_now(&seen(700, 700, 0), 1000), 1000, "early");
        assert_eq!(policy.written_by_now(&seen(u64::MAX, 1, 9999), 1000), 1000);
        let other = Standard { flush: Flush::Nothing, ..policy };
        assert_eq!(other.written_by_now(&seen(700, 700, 70), 1000), 0, "nobody would write them");
        assert_eq!(Never.written_by_now(&seen(700, 700, 70), 1000), 0);
    }

    #[test]
    fn never_is_never() {
        assert_eq!(Never.decide(&seen(u64::MAX, u64::MAX, 1 << 40)), None);
    }
}
