//! Work that may have to begin again: because something changed, or because a latch was not free.
//!
//! ```text
//!  retry(|patient| …)   round 1, 2, … : nobody waits for anybody while holding a latch
//!                       round 24, …   : patient: latches are waited for, in their order
//! ```
//!
//! Whoever cannot go on at once lets go of everything and says [`Stop::Again`]. In a pool of a few frames
//! somebody's eviction can spoil every round, so in the end an attempt is *patient*: it may then wait for a
//! latch, and for a page to be read in, while it holds others.

use argali_base::{Error, Result};
use argali_buffer_pool::Restart;

/// Rounds after which optimism ends.
const PATIENCE: u32 = 24;
/// Rounds that may fail for want of a frame before the caller hears of it.
const STARVED_ROUNDS: u32 = 3;

/// Why an attempt did not come to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something changed meanwhile: begin again.
    Again,
    /// No use in trying again.
    Failed(Error),
}

impl From<Restart> for Stop {
    fn from(_: Restart) -> Self {
        Self::Again
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What an attempt returns.
pub(crate) type Attempt<T> = Result<T, Stop>;

/// Runs `attempt(patient)` until it comes to an end.
pub(crate) fn retry<T>(mut attempt: impl FnMut(bool) -> Attempt<T>) -> Result<T> {
    let mut round = 0;
    loop {
        match attempt(round >= PATIENCE) {
            Ok(value) => return Ok(value),
            // The pool has waited for a frame already, but with our latches held.
            Err(Stop::Failed(Error::PoolExhausted { .. })) if round < STARVED_ROUNDS => {}
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Again) => {}
        }
        round += 1;
        if round > 2 {
            argali_base::sync::thread::yield_now();
        }
    }
}
