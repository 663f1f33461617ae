//! Threads, locks, atomics, parking and time behind one door.
//!
//! ```text
//!  argali_base::sync::{Mutex, Condvar, RwLock, AtomicU64, futex, thread, …}
//!        │ default: os.rs                  │ feature `shuttle`: model.rs
//!        ▼                                 ▼
//!   parking_lot, std, futex           a scheduler that explores interleavings
//! ```
//!
//! Engine crates never name `std::sync`, `std::thread` or a clock directly for anything two threads
//! share. The model back end knows sequential consistency only: a missing `Release` is for
//! `ThreadSanitizer` to find. Timed waits may time out at any moment there, and no time passes but by
//! looking at the clock.
//!
//! The third back end is no code at all: background work is written as `step()` functions, which the
//! engine calls inline when there is no thread to call them, and with [`Clock::manual`] time moves only
//! when told. Such a run is deterministic.

use std::time::Duration;

#[cfg(feature = "shuttle")]
mod model;
#[cfg(not(feature = "shuttle"))]
mod os;

#[cfg(feature = "shuttle")]
use model as back;
#[cfg(not(feature = "shuttle"))]
use os as back;

pub use std::sync::Arc;
pub use std::sync::atomic::Ordering;

pub use back::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, RwLock,
    RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult, fence, spin_hint,
};

/// Sleeping on a 32-bit word until its value changes.
pub mod futex {
    use std::time::Duration;

    use super::{AtomicU32, back};

    /// Sleeps while `word` holds `expected`; may wake for no reason.
    pub fn wait(word: &AtomicU32, expected: u32) {
        back::futex_wait(word, expected, None);
    }

    /// As [`wait`], but at most `timeout`.
    pub fn wait_for(word: &AtomicU32, expected: u32, timeout: Duration) {
        back::futex_wait(word, expected, Some(timeout));
    }

    /// Wakes every sleeper on `word`. Change the word first.
    pub fn wake_all(word: &AtomicU32) {
        back::futex_wake(word, i32::MAX as u32);
    }

    /// Wakes one sleeper on `word`. Change the word first.
    pub fn wake_one(word: &AtomicU32) {
        back::futex_wake(word, 1);
    }
}

/// Threads.
pub mod thread {
    use std::time::Duration;

    use super::back;

    pub use back::{JoinHandle, yield_now};

    /// Starts a thread called `name`.
    pub fn spawn<T: Send + 'static>(
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<T>> {
        back::Builder::new().name(name.to_owned()).spawn(body)
    }

    /// Gives the time slice away for at least `duration`.
    pub fn sleep(duration: Duration) {
        back::sleep(duration);
    }
}

/// Where time comes from. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(back::Timer),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's monotonic clock, counted from now.
    pub fn system() -> Self {
        Self(Source::System(back::Timer::start()))
    }

    /// A clock that stands still until it is advanced.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(0))))
    }

    /// Time since the clock was made.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System(timer) => timer.elapsed(),
            Source::Manual(nanos) => Duration::from_nanos(nanos.load(Ordering::Relaxed)),
        }
    }

    /// Whether time moves only by [`Clock::advance`].
    pub fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }

    /// Moves a manual clock on; a system clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(nanos) = &self.0 {
            nanos.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual();
        let same = clock.clone();
        assert_eq!((clock.now(), clock.is_manual()), (Duration::ZERO, true));
        same.advance(Duration::from_millis(5));
        same.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Duration::from_millis(12));
    }

    #[test]
    fn the_system_clock_moves_by_itself() {
        let clock = Clock::system();
        let before = clock.now();
        thread::sleep(Duration::from_millis(2));
        clock.advance(Duration::from_hours(1));
        let passed = clock.now().saturating_sub(before);
        assert!(passed >= Duration::from_millis(2), "{passed:?}");
        assert!(passed < Duration::from_mins(15), "advance is for manual clocks: {passed:?}");
    }

    #[test]
    fn a_sleeper_on_a_word_wakes_when_it_changed() {
        let word = Arc::new(AtomicU32::new(0));
        let sleeper = {
            let word = word.clone();
            let body = move || {
                while word.load(Ordering::Acquire) == 0 {
                    futex::wait(&word, 0);
                }
            };
            thread::spawn("sleeper", body).unwrap()
        };
        word.store(1, Ordering::Release);
        futex::wake_all(&word);
        sleeper.join().unwrap();
        futex::wait(&word, 0);
        let clock = Clock::system();
        futex::wait_for(&word, 1, Duration::from_millis(2));
        assert!(clock.now() >= Duration::from_millis(2), "nobody changes it, so time is up");
    }
}
