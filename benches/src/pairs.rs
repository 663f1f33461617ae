//! Interleaved slices and the ratios between them.
//!
//! ```text
//!  pair     1             2             3             4
//!  order    ours theirs   theirs ours   ours theirs   theirs ours
//!  ratio    r1            r2            r3            r4             → median, least, greatest
//! ```
//!
//! The order alternates, so that a machine that slows down does not favour one side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// Measurements of two sides, pair by pair, in operations (or bytes) per second.
#[derive(Clone, Debug, Default)]
pub struct Ratios {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Ratios {
    /// Measures `pairs` pairs of slices. The first error ends it.
    pub fn measure<E>(
        pairs: usize,
        mut ours: impl FnMut() -> Result<f64, E>,
        mut theirs: impl FnMut() -> Result<f64, E>,
    ) -> Result<Self, E> {
        let mut measured = Self::default();
        for pair in 0..pairs {
            if pair.is_multiple_of(2) {
                measured.ours.push(ours()?);
                measured.theirs.push(theirs()?);
            } else {
                measured.theirs.push(theirs()?);
                measured.ours.push(ours()?);
            }
        }
        Ok(measured)
    }

    /// Median of our side.
    pub fn ours(&self) -> f64 {
        median(self.ours.clone())
    }

    /// Median of the other side.
    pub fn theirs(&self) -> f64 {
        median(self.theirs.clone())
    }

    /// Median of the paired ratios, ours divided by theirs.
    pub fn ratio(&self) -> f64 {
        median(self.paired())
    }

    /// Least and greatest paired ratio.
    pub fn spread(&self) -> (f64, f64) {
        let paired = self.paired();
        let least = paired.iter().copied().fold(f64::INFINITY, f64::min);
        (least, paired.iter().copied().fold(0.0, f64::max))
    }

    fn paired(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect()
    }
}

/// The middle value; the mean of the two middle ones of an even number; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Operations per second of `threads` threads that call `operation` for `time` (each with its number
/// and its own random numbers). The first error ends all of them.
pub fn throughput<E: Send>(
    threads: usize,
    time: Duration,
    operation: impl Fn(usize, &mut Rng) -> Result<(), E> + Sync,
) -> Result<f64, E> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let (stop, done, operation) = (&stop, &done, &operation);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(number as u64);
                    let mut count = 0;
                    let mut outcome = Ok(());
                    while outcome.is_ok() && !stop.load(Ordering::Relaxed) {
                        outcome = operation(number, &mut rng);
                        count += 1;
                    }
                    done.fetch_add(count, Ordering::Relaxed);
                    outcome
                })
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_paired_ratios_ignores_drift() {
        let (mut a, mut b) = ([1.0, 10.0, 100.0].into_iter(), [2.0, 20.0, 200.0].into_iter());
        let ratios =
            Ratios::measure::<()>(3, || a.next().ok_or(()), || b.next().ok_or(())).unwrap();
        assert!((ratios.ratio() - 0.5).abs() < 1e-9);
        assert!((ratios.ours() - 10.0).abs() < 1e-9);
        let (least, greatest) = ratios.spread();
        assert!((greatest - least).abs() < 1e-9);
    }

    #[test]
    fn throughput_counts_and_stops_at_an_error() {
        let rate = throughput::<()>(2, Duration::from_millis(20), |_, _| Ok(())).unwrap();
        assert!(rate > 0.0);
        let failed = throughput(1, Duration::from_millis(1), |_, _| Err("broken"));
        assert_eq!(failed, Err("broken"));
    }
}
