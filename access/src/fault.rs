//! Damaged pages, named by file and offset.

use argali_base::{Error, PageId};
use argali_buffer_pool::BufferPool;

/// The file that pages stand in.
pub(crate) const FILE: &str = "data";

/// Where page `id` stands in it.
pub(crate) fn offset(pool: &BufferPool, id: PageId) -> u64 {
    id.get().saturating_mul(pool.pager().options().page_size.bytes() as u64)
}

/// `Corrupt` for page `id` of the data file.
pub(crate) fn corrupt(pool: &BufferPool, id: PageId, what: impl AsRef<str>) -> Error {
    Error::corrupt(FILE, offset(pool, id), None, format!("{id}: {}", what.as_ref()))
}
