//! Whether the database may still promise anything.
//!
//! A failed sync may have dropped the very data it was asked to keep, and a second sync may then
//! report success (the kernel marks the pages clean). So after a failed log write or any failed sync
//! the engine is *poisoned*: it acknowledges nothing more, retries nothing, and only a reopen, which
//! reads what the disk really holds, heals it.

use std::sync::{Arc, OnceLock};

use crate::{Error, Result};

/// Shared by log, pager and everything above: set once, never cleared.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<OnceLock<String>>);

impl Health {
    /// A healthy database.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails with [`Error::Poisoned`] once [`Health::poison`] was called.
    pub fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// Whether the database is poisoned.
    pub fn is_poisoned(&self) -> bool {
        self.0.get().is_some()
    }

    /// Records the failure that ends all promises; the first cause stays. Returns `cause`, so that a
    /// caller can write `return Err(health.poison(error))`. Set this before any waiter wakes.
    pub fn poison(&self, cause: Error) -> Error {
        let _ = self.0.set(cause.to_string());
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stays_and_all_clones_know_it() {
        let health = Health::new();
        let clone = health.clone();
        health.check().expect("nothing happened yet");
        let eio = || std::io::Error::from_raw_os_error(5);
        let returned = clone.poison(Error::io("sync", "wal/0.log", eio()));
        assert!(matches!(returned, Error::Io { op: "sync", .. }));
        clone.poison(Error::Closed);
        assert!(health.is_poisoned());
        let message = health.check().expect_err("poisoned").to_string();
        assert!(message.contains("sync wal/0.log"), "{message}");
        assert!(message.contains("open it again"), "{message}");
    }
}
