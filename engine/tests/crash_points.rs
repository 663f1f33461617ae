//! Every crash point: each workload is cut at every I/O call, with several losses each, and recovery is
//! cut in turn at a sample of its calls. `ARGALI_SEEDS=1..100` runs a long campaign; `ARGALI_STRIDE=1`
//! makes every workload exhaustive.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::time::Duration;

use argali::{Options, Result, TornPages};
use crash::{Campaign, Client, TORN_PAGES, doubt, options, seeds, workload};

/// Runs `workload` over the seeds in both torn-page modes.
fn campaign(name: &'static str, stride: usize, workload: fn(&mut Client) -> Result<()>) {
    campaign_with(&options(), name, stride, workload);
}

fn campaign_with(
    options: &Options,
    name: &'static str,
    stride: usize,
    workload: fn(&mut Client) -> Result<()>,
) {
    let stride = std::env::var("ARGALI_STRIDE").map_or(stride, |text| text.parse().unwrap());
    for seed in seeds() {
        for mode in TORN_PAGES {
            let options = options.clone().torn_pages(mode);
            let campaign = Campaign { name, seed, options, workload, stride, nested_every: 40 };
            let tally = campaign.run();
            println!("{name} seed {seed} {mode:?}: {tally:?}");
            assert!(tally.calls > 60, "{name} is too small to show anything: {tally:?}");
            assert!(
                name != "steal" || mode != TornPages::DoubleWrite || tally.anew > 300,
                "hardly any page written once was torn: {tally:?}"
            );
        }
    }
}

#[test]
fn mix_of_puts_and_deletes() {
    campaign("mix", 1, workload::mix);
}

#[test]
fn heaps() {
    campaign("heaps", 2, crash::heaps::heaps);
}

#[test]
fn bank() {
    campaign("bank", 1, workload::bank);
}

#[test]
fn splits() {
    campaign("splits", 1, workload::splits);
}

#[test]
fn nodes_joined() {
    campaign("joins", 2, workload::joins);
}

#[test]
fn aborts_with_steal() {
    campaign("steal", 1, workload::steal);
}

#[test]
fn checkpoints_under_load() {
    campaign("checkpoints", 1, workload::checkpoints);
}

#[test]
fn trees_created_and_dropped() {
    campaign("ddl", 1, workload::ddl);
}

#[test]
fn ranges_deleted() {
    campaign("ranges", 1, workload::ranges);
}

#[test]
fn loads() {
    campaign("loads", 1, crash::loads::loads);
}

/// With locks that are refused at once: after each recovery somebody asks for what is in doubt.
#[test]
fn prepared_transactions() {
    let options = options().lock_timeout(Duration::from_micros(1));
    campaign_with(&options, "in doubt", 1, doubt::in_doubt);
}

#[test]
fn values_larger_than_a_page() {
    campaign("values", 1, workload::values);
}
