//! Threads, locks, atomics, parking and time behind one door.
//!
//! Engine crates never name `std::sync`, `std::thread` or a clock directly for anything two threads
//! share. With feature `shuttle` the same names come from a scheduler that explores interleavings.
//! Background work is written as `step()` functions; with no thread to call them the engine calls them
//! inline, and with [`Clock::manual`] time moves only when told: that is the deterministic back end.

pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Sleeping on a 32-bit word until its value changes.
pub mod futex {
    use super::AtomicU32;

    /// Sleeps while `word` holds `expected`; may wake for no reason.
    pub fn wait(word: &AtomicU32, expected: u32) {
        atomic_wait::wait(word, expected);
    }

    /// Wakes every sleeper on `word`. Change the word first.
    pub fn wake_all(word: &AtomicU32) {
        atomic_wait::wake_all(word);
    }

    /// Wakes one sleeper on `word`.
    pub fn wake_one(word: &AtomicU32) {
        atomic_wait::wake_one(word);
    }
}

/// Threads.
pub mod thread {
    pub use std::thread::{JoinHandle, yield_now};
    use std::time::Duration;

    /// Starts a thread called `name`.
    pub fn spawn<T: Send + 'static>(
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<T>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body)
    }

    /// Gives the time slice away for at least `duration`.
    pub fn sleep(duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// One turn of a spin loop.
pub fn spin_hint() {
    std::hint::spin_loop();
}

/// Where time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's monotonic clock, counted from when this clock was made.
    System(std::time::Instant),
    /// Moves only by [`Clock::advance`].
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::System(std::time::Instant::now())
    }

    /// A clock that stands still until it is advanced.
    pub fn manual() -> Self {
        Self::Manual(Arc::new(AtomicU64::new(0)))
    }

    /// Time since the clock was made.
    pub fn now(&self) -> std::time::Duration {
        match self {
            Self::System(start) => start.elapsed(),
            Self::Manual(nanos) => std::time::Duration::from_nanos(nanos.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock on; a system clock moves by itself.
    pub fn advance(&self, by: std::time::Duration) {
        if let Self::Manual(nanos) = self {
            nanos.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}
