//! What a transfer may cost the log: a bound that must hold.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use argali::Options;
use argali_benches::Bank;

#[test]
fn a_transfer_takes_three_tenths_of_a_kilobyte_of_log() {
    let db = Options::new().background_threads(false).in_memory().unwrap();
    let mut bank = Bank::load(db, 100_000).unwrap();
    let bytes = bank.log_bytes(5_000, &mut fastrand::Rng::with_seed(1)).unwrap();
    assert!(bytes <= 300.0, "{bytes} bytes of log per transfer");
}
