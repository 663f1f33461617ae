//! One file for each engine: how it is opened, and its five calls.

pub(crate) mod argali;
#[cfg(feature = "peers")]
pub(crate) mod canopydb;
#[cfg(feature = "peers")]
pub(crate) mod fjall;
#[cfg(feature = "peers")]
pub(crate) mod lmdb;
#[cfg(feature = "peers")]
pub(crate) mod redb;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb;
#[cfg(feature = "peers")]
pub(crate) mod sqlite;
