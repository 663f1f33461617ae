//! Tellers: threads that make transfers until they are told to stop (or are killed).
//!
//! ```text
//!  teller 3:  000001/003/000000017 → 42 7 100 ──commit──► durable ──► done(key, transfer)
//! ```
//!
//! Each teller counts its own transfers, so that journal keys are unique without a shared counter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context as _;

use super::ledger::{Ledger, Transfer};

/// Who works, and on which transfers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    /// Number of tellers.
    pub(crate) tellers: u32,
    /// Decides their transfers.
    pub(crate) seed: u64,
    /// First part of journal keys; see [`Ledger::begin_run`].
    pub(crate) run: u64,
}

impl Shift {
    /// Lets the tellers work until `stop`, calling `done` after each durable transfer. The first error
    /// stops all of them.
    pub(crate) fn work(
        self,
        ledger: &Ledger,
        stop: &AtomicBool,
        done: &(dyn Fn(&str, Transfer) -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        thread::scope(|scope| {
            let tellers: Vec<_> = (0..self.tellers)
                .map(|teller| {
                    scope.spawn(move || {
                        let worked = self.teller(teller, ledger, stop, done);
                        stop.fetch_or(worked.is_err(), Ordering::Relaxed);
                        worked
                    })
                })
                .collect();
            tellers.into_iter().try_for_each(|teller| match teller.join() {
                Ok(worked) => worked,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn teller(
        self,
        teller: u32,
        ledger: &Ledger,
        stop: &AtomicBool,
        done: &(dyn Fn(&str, Transfer) -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ u64::from(teller) << 32 ^ self.run);
        for serial in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let key = self.key(teller, serial);
            let wanted = Transfer::random(&mut rng, ledger.size());
            let moved = ledger.transfer(&key, wanted).with_context(|| format!("transfer {key}"))?;
            done(&key, moved)?;
        }
        Ok(())
    }

    /// Journal key of a teller's `serial`-th transfer.
    pub(crate) fn key(self, teller: u32, serial: u64) -> String {
        format!("{:06}/{teller:03}/{serial:09}", self.run)
    }
}
