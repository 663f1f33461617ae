//! What the tests of this crate share: a database of raw pages on the simulated disk, workloads on it,
//! the oracle, and the campaigns that cut the power.
//!
//! ```text
//!  workload.rs ──► db.rs ──► the engine's crates ──► SimDisk (remembers every instant)
//!       │                                               │
//!       └► model.rs: what may be true after a crash ◄── campaign.rs: crash here, recover, look
//! ```
//!
//! There are no trees here on purpose: restart knows pages and transactions only, and what goes wrong
//! shows sooner on a counter that may not be added to twice.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses a part of this module

pub mod campaign;
pub mod db;
pub mod faults;
pub mod lives;
pub mod mix;
pub mod model;
pub mod outcome;
pub mod workload;
