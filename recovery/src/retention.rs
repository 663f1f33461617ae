//! How much log is kept beyond what restart needs, so that a damaged page finds its history there.
//!
//! ```text
//!          ├───────────── keep_bytes ─────────────┤
//!   log  ──┼───────┼──────────┼───────────┼───────┼─
//!          kept    restart points of checkpoints  end
//! ```
//!
//! The log can begin only where a record does, so what is remembered are the places from which a restart
//! would have read, and it is kept from one of them. They are remembered coarsely: a sixteenth of
//! `keep_bytes` apart.

use std::collections::VecDeque;

use argali_base::Lsn;

/// Where the log was needed from, oldest first.
#[derive(Debug)]
pub(crate) struct Retention {
    keep_bytes: u64,
    points: VecDeque<Lsn>,
}

impl Retention {
    /// Goes on with a log that is kept from `first`.
    pub(crate) fn new(keep_bytes: u64, first: Lsn) -> Self {
        Self { keep_bytes, points: VecDeque::from([first]) }
    }

    /// From where to keep a log that a restart needs from `needed`, and that ends at `end`.
    pub(crate) fn keep_from(&mut self, needed: Lsn, end: Lsn) -> Lsn {
        let apart = self.keep_bytes / 16;
        if self.points.back().is_none_or(|last| last.advance(apart) < needed) {
            self.points.push_back(needed);
        }
        let oldest = Lsn::new(end.get().saturating_sub(self.keep_bytes));
        while self.points.get(1).is_some_and(|second| *second <= oldest) {
            self.points.pop_front();
        }
        let first = self.points.front().copied().unwrap_or(needed);
        if self.keep_bytes == 0 { needed } else { first.min(needed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(retention: &mut Retention, needed: u64, end: u64) -> u64 {
        retention.keep_from(Lsn::new(needed), Lsn::new(end)).get()
    }

    #[test]
    fn nothing_more_is_kept_unless_asked() {
        let mut retention = Retention::new(0, Lsn::FIRST);
        assert_eq!(keep(&mut retention, 500, 600), 500);
        assert_eq!(keep(&mut retention, 400, 700), 400, "an older page was found dirty");
    }

    #[test]
    fn the_log_begins_at_a_point_at_least_so_far_back() {
        let mut retention = Retention::new(1000, Lsn::FIRST);
        let kept: Vec<_> = (1..10).map(|n| keep(&mut retention, n * 400, n * 400 + 50)).collect();
        assert_eq!(kept, [64, 64, 64, 400, 800, 1200, 1600, 2000, 2400]);
    }

    #[test]
    fn points_are_few_however_often_one_is_taken() {
        let mut retention = Retention::new(1000, Lsn::FIRST);
        for n in 8..4000 {
            let kept = keep(&mut retention, n * 8, n * 8 + 8);
            assert!(n * 8 < 1064 || (1000..1100).contains(&(n * 8 + 8 - kept)), "{n}: {kept}");
            assert!(retention.points.len() < 20);
        }
    }
}
