//! What the benchmarks share: databases to measure, a raw file to measure against, paired slices.
//!
//! ```text
//!  cargo bench                                           criterion, one file per hot path
//!  cargo run --release -p argali-benches --bin ratios    ratios against the plainest thing that could work
//! ```
//!
//! Absolute numbers drift with the machine and its neighbours; a ratio of two slices measured one after
//! the other drifts much less. So `ratios` interleaves slices (ours, theirs, theirs, ours, …) and
//! reports the median of the paired ratios with its spread. Comparisons with other engines are left
//! out: they would make every build of the workspace build those engines.

mod fixture;
mod pairs;
mod raw;

pub use fixture::{ROWS, Rows, key, value};
pub use pairs::{Ratios, throughput};
pub use raw::RawLog;
