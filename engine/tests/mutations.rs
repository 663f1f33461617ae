//! Do the crash tests have teeth? Each protocol rule is broken on purpose, one at a time, and the campaign
//! of `crash_points` must notice. A switch that nobody notices is a rule that nobody tests.
//!
//! Some switches are tried in the crates that own them, because here nothing can come of them: taking a
//! tree change back twice leaves what taking it back once leaves (`txn` and `recovery` count instead), and
//! a stale tail needs a record that ends exactly where an old one begins (`wal` arranges that). So are
//! a retried sync and a CRC without its LSN; and a torn page that redo does not let wait: it must have changed,
//! been written and become another page since the last checkpoint (`recovery` rewrites pages all the time). A
//! restart without its first sync shows when a page survives that is ahead of the log, which the copy of
//! one does (`recovery` changes old pages), but of a page written once hardly ever all sectors do.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use argali::{Mutations, Result, TornPages};
use crash::{Campaign, Client, doubt, options, workload};

/// A rule in words, the torn-page mode it matters in, and how it is broken.
type Switch = (&'static str, TornPages, fn(&mut Mutations));
type Workload = fn(&mut Client) -> Result<()>;

/// Workloads by how soon they tend to notice something.
const WORKLOADS: [(&str, Workload); 4] = [
    ("checkpoints", workload::checkpoints),
    ("steal", workload::steal),
    ("mix", workload::mix),
    ("in doubt", doubt::in_doubt),
];

/// What the campaign finds with `mutations`; `None` when all promises seem kept. A panic counts: an
/// assertion that fires is a rule that is watched.
fn found(mode: TornPages, mutations: &Mutations) -> Option<String> {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut result = None;
    'search: for seed in 1..4 {
        for (name, workload) in WORKLOADS {
            // Locks are refused at once: somebody asks for what is in doubt after each recovery.
            let options = options().lock_timeout(Duration::from_micros(1));
            let options = options.torn_pages(mode).mutations(mutations.clone());
            let campaign = Campaign { name, seed, options, workload, stride: 7, nested_every: 5 };
            let ended = catch_unwind(AssertUnwindSafe(|| campaign.try_run()));
            result = match ended {
                Ok(Ok(_)) => None,
                Ok(Err(broken)) => Some(broken),
                Err(panic) => Some(format!("panic: {:?}", panic.downcast_ref::<String>())),
            };
            if result.is_some() {
                break 'search;
            }
        }
    }
    std::panic::set_hook(quiet);
    result
}

/// All in one test: the panic hook is the process's.
#[test]
fn every_broken_rule_is_noticed() {
    use TornPages::{DoubleWrite, FullPageImage};
    let switches: [Switch; 15] = [
        ("no force at commit", DoubleWrite, |m| m.txn.no_force_at_commit = true),
        ("log written, not synced", DoubleWrite, |m| m.wal.no_force = true),
        ("page before log", DoubleWrite, |m| {
            m.pool.page_before_log = true;
            m.pager.page_before_log = true;
        }),
        ("dirty entry dropped before the sync", FullPageImage, |m| {
            m.pool.drop_dirty_before_sync = true;
        }),
        ("image decided per checkpoint", FullPageImage, |m| m.pool.image_per_checkpoint = true),
        ("no data sync", FullPageImage, |m| m.pager.no_sync = true),
        ("no torn-page repair", DoubleWrite, |m| m.pager.no_repair = true),
        ("page once overwritten, written once for ever", DoubleWrite, |m| {
            m.pool.overwritten_for_ever = true;
        }),
        ("winners-only redo", DoubleWrite, |m| m.recovery.winners_only_redo = true),
        ("redo ignores pageLSN", DoubleWrite, |m| m.recovery.redo_ignores_page_lsn = true),
        ("checkpoint without its dirty table", DoubleWrite, |m| {
            m.recovery.checkpoint_without_dirty_table = true;
        }),
        ("early truncation", DoubleWrite, |m| {
            m.recovery.early_truncation = true;
            m.wal.early_truncation = true;
        }),
        ("prepared counted as losers", DoubleWrite, |m| m.recovery.prepared_are_losers = true),
        ("locks of prepared not taken again", DoubleWrite, |m| m.txn.forget_prepared_locks = true),
        ("no directory sync", DoubleWrite, |m| m.wal.no_dir_sync = true),
    ];
    let mut unnoticed = Vec::new();
    for (name, mode, switch) in switches {
        // A page that a broken rule left torn would be rebuilt from the log, and the rule's use not be seen.
        let mut mutations = Mutations { no_page_repair: true, ..Mutations::default() };
        switch(&mut mutations);
        match found(mode, &mutations) {
            Some(how) => println!("{name}: {}", how.lines().next().unwrap_or_default()),
            None => unnoticed.push(name),
        }
    }
    // That the campaign finds nothing without a switch is what `crash_points` shows.
    assert_eq!(unnoticed, [""; 0], "nobody noticed these");
}
