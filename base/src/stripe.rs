//! Stripes: one of something for every thread, so that threads do not hand a cache line around.
//!
//! ```text
//!  thread a ──► │ stripe 17 │        thread b ──► │ stripe 42 │        each on cache lines of its own
//! ```
//!
//! What all threads write at every step costs each of them a transfer between cores, about as much as the
//! search for a key. So such things exist once a stripe, and a thread uses the stripe that the place of its
//! thread-local storage chooses. Two threads may meet on one stripe: that must cost time only, never
//! correctness, so a stripe is as safe to share as what it holds.

use std::ops::Deref;

use crate::spread;

const STRIPES: usize = 64;

thread_local! {
    static HERE: u8 = const { 0 };
}

/// The stripe of this thread.
#[inline]
fn stripe() -> usize {
    let address = HERE.with(|here| std::ptr::from_ref(here).addr() as u64);
    (spread(address) >> (64 - STRIPES.ilog2())) as usize
}

/// As many `T` as there are stripes.
#[derive(Debug)]
pub struct Striped<T>(Box<[Apart<T>]>);

/// A `T` on cache lines of its own (two, because processors fetch them in pairs): for what is written often
/// beside what everybody reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Apart<T>(pub T);

impl<T> Deref for Apart<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Striped<T> {
    /// One `make()` a stripe.
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        Self((0..STRIPES).map(|_| Apart(make())).collect())
    }

    /// That of this thread.
    #[inline]
    pub fn mine(&self) -> &T {
        &self.0[stripe()].0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicU64, Ordering, thread};

    #[test]
    fn a_thread_stays_on_its_stripe_and_nothing_is_lost() {
        let counts = Arc::new(Striped::new(|| AtomicU64::new(0)));
        let spawn = |()| {
            let counts = Arc::clone(&counts);
            let body = move || {
                let mine = std::ptr::from_ref(counts.mine());
                for _ in 0..100 {
                    assert!(std::ptr::eq(mine, counts.mine()));
                    counts.mine().fetch_add(1, Ordering::Relaxed);
                }
            };
            thread::spawn("striped", body).unwrap()
        };
        for thread in [(); 8].map(spawn) {
            thread.join().unwrap();
        }
        assert_eq!(counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>(), 800);
        assert_eq!(counts.iter().count(), STRIPES);
    }
}
