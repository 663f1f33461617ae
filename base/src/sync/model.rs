//! The shuttle back end: the same names, run by a scheduler that picks every interleaving.
//!
//! ```text
//!  futex_wait  lock ─ word == expected? ─ queue behind the word's address ─ wait until picked
//!  futex_wake  lock ─ pick the first `count` of that queue ─ notify
//! ```
//!
//! Shuttle's locks are those of `std` (results, guards by value); the wrappers here have the shape of
//! `parking_lot`. A timed wait never blocks: it lets others run and returns, sometimes as timed out, so
//! that no model deadlocks where the real thing would only be slow. Everything here panics outside of
//! a shuttle execution.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shuttle::lazy_static::Lazy;
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync as raw;

pub use raw::{RwLockReadGuard, RwLockWriteGuard};
pub use shuttle::hint::spin_loop as spin_hint;
use shuttle::sync::atomic::Ordering;
pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};
pub(super) use shuttle::thread::{Builder, sleep};
pub use shuttle::thread::{JoinHandle, yield_now};

/// How far time moves at each look at the clock.
const TICK: Duration = Duration::from_millis(1);

/// A mutual exclusion lock that ignores panics of its holders.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(raw::Mutex<T>);

/// Guard of a [`Mutex`].
pub struct MutexGuard<'a, T> {
    /// Empty only while [`Condvar::wait`] has it.
    guard: Option<raw::MutexGuard<'a, T>>,
    mutex: &'a raw::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(raw::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { guard: Some(unpoisoned(self.0.lock())), mutex: &self.0 }
    }

    /// The lock, unless somebody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = tried(self.0.try_lock())?;
        Some(MutexGuard { guard: Some(guard), mutex: &self.0 })
    }

    /// The value; nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        unpoisoned(self.0.get_mut())
    }

    /// The value.
    pub fn into_inner(self) -> T {
        unpoisoned(self.0.into_inner())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("only a wait takes the guard, and it puts one back")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("only a wait takes the guard, and it puts one back")
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A condition variable.
#[derive(Default)]
pub struct Condvar(raw::Condvar);

/// Whether a timed wait ended because time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether time was up.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition variable nobody waits for.
    pub const fn new() -> Self {
        Self(raw::Condvar::new())
    }

    /// Gives the lock back, waits for a notification, takes the lock again.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.guard.take().expect("only a wait takes the guard, and it puts one back");
        guard.guard = Some(unpoisoned(self.0.wait(held)));
    }

    /// Gives the lock back, lets others run, takes the lock again; now and then says that time was up.
    pub fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _timeout: Duration,
    ) -> WaitTimeoutResult {
        drop(guard.guard.take());
        yield_now();
        guard.guard = Some(unpoisoned(guard.mutex.lock()));
        WaitTimeoutResult(thread_rng().gen_ratio(1, 4))
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}

/// A lock for many readers or one writer that ignores panics of its holders.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(raw::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(raw::RwLock::new(value))
    }

    /// Waits to share the lock.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        unpoisoned(self.0.read())
    }

    /// Waits to have the lock alone.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        unpoisoned(self.0.write())
    }

    /// A share of the lock, unless a writer has it.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        tried(self.0.try_read())
    }

    /// The lock, unless somebody has it.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        tried(self.0.try_write())
    }

    /// The value; nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        unpoisoned(self.0.get_mut())
    }

    /// The value.
    pub fn into_inner(self) -> T {
        unpoisoned(self.0.into_inner())
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}

fn unpoisoned<G>(result: Result<G, PoisonError<G>>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn tried<G>(result: std::sync::TryLockResult<G>) -> Option<G> {
    match result {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// Who sleeps on which word, by its address. The kernel's table, one per execution.
static SLEEPERS: Lazy<Sleepers> = Lazy::new(Sleepers::default);

#[derive(Default)]
struct Sleepers {
    queues: Mutex<HashMap<usize, Vec<u64>>>,
    woken: Condvar,
    tickets: AtomicU64,
}

fn address(word: &AtomicU32) -> usize {
    std::ptr::from_ref(word).addr()
}

pub(super) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    if timeout.is_some() {
        return yield_now();
    }
    let sleepers = SLEEPERS.get();
    let mut queues = sleepers.queues.lock();
    if word.load(Ordering::SeqCst) != expected {
        return;
    }
    let ticket = sleepers.tickets.fetch_add(1, Ordering::SeqCst);
    queues.entry(address(word)).or_default().push(ticket);
    let sleeping = |queues: &HashMap<usize, Vec<u64>>| {
        queues.get(&address(word)).is_some_and(|queue| queue.contains(&ticket))
    };
    while sleeping(&queues) {
        sleepers.woken.wait(&mut queues);
    }
}

pub(super) fn futex_wake(word: &AtomicU32, count: u32) {
    let sleepers = SLEEPERS.get();
    let mut queues = sleepers.queues.lock();
    if let Some(queue) = queues.get_mut(&address(word)) {
        queue.drain(..queue.len().min(count as usize));
    }
    sleepers.woken.notify_all();
}

/// A clock that moves one [`TICK`] whenever somebody looks: deterministic, and deadlines pass.
#[derive(Clone, Debug)]
pub(super) struct Timer(Arc<AtomicU64>);

impl Timer {
    pub(super) fn start() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    pub(super) fn elapsed(&self) -> Duration {
        TICK * (self.0.fetch_add(1, Ordering::SeqCst) as u32)
    }
}
