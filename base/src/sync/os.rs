//! The operating system's back end: re-exports, so that the hot paths pay nothing for the door.

use std::time::{Duration, Instant};

pub use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult,
};
pub use std::hint::spin_loop as spin_hint;
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};
pub(super) use std::thread::{Builder, sleep};
pub use std::thread::{JoinHandle, yield_now};

pub(super) fn futex_wait(word: &AtomicU32, expected: u32) {
    atomic_wait::wait(word, expected);
}

/// Wakes one sleeper, or all when `count` is more.
pub(super) fn futex_wake(word: &AtomicU32, count: usize) {
    if count == 1 {
        atomic_wait::wake_one(word);
    } else {
        atomic_wait::wake_all(word);
    }
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
