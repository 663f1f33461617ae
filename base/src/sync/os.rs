//! The operating system's back end: re-exports, so that the hot paths pay nothing for the door.

use std::time::{Duration, Instant};

pub use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult,
};
pub use std::hint::spin_loop as spin_hint;
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};
pub(super) use std::thread::{Builder, sleep};
pub use std::thread::{JoinHandle, yield_now};

use rustix::thread::futex::{self, Timespec};

/// Sleeps at most `timeout`; `None`: as long as it takes. That the word changed, a signal and the timeout all
/// end it, and are no errors.
pub(super) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    let _ = futex::wait(word, futex::Flags::PRIVATE, expected, timeout.as_ref());
}

/// Wakes at most `count` sleepers.
pub(super) fn futex_wake(word: &AtomicU32, count: u32) {
    // Fails only for a word that is none.
    let _ = futex::wake(word, futex::Flags::PRIVATE, count);
}

/// Time since some moment.
#[derive(Clone, Debug)]
pub(super) struct Timer(Instant);

impl Timer {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
