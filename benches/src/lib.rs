//! What the benchmarks share: databases to measure, a raw file to measure against, paired slices, crashes.
//!
//! ```text
//!  cargo bench                                           criterion, one file per hot path
//!  cargo run --release -p argali-benches --bin ratios    ratios against the plainest thing that could work
//!  … --bin instructions                                  instructions per operation against a baseline
//!  … --bin growth                                        cost per operation as the work grows
//!  … --bin checkpoints                                   what checkpoints take from a bank at full speed
//!  … --bin log_bytes                                     bytes of log per transaction
//! ```
//!
//! Absolute numbers drift with the machine and its neighbours; a ratio of two slices measured one after
//! the other drifts much less. So `ratios` interleaves slices (ours, theirs, theirs, ours, …) and
//! reports the median of the paired ratios with its spread. Comparisons with other engines have a package
//! of their own (`benches/compare`), so that not every build of the workspace builds those engines.

mod bank;
mod crashed;
mod fixture;
mod pairs;
mod raw;

pub use bank::Bank;
pub use crashed::{Crash, Files};
pub use fixture::{ROWS, Rows, key, value};
pub use pairs::{Ratios, median, throughput};
pub use raw::RawLog;
