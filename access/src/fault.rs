//! Damaged pages, named by file and offset.

use argali_base::{Error, PageId};
use argali_buffer_pool::BufferPool;

/// `Corrupt` for page `id` of the data file.
pub(crate) fn corrupt(pool: &BufferPool, id: PageId, what: impl AsRef<str>) -> Error {
    let offset = id.get().saturating_mul(pool.pager().options().page_size.bytes() as u64);
    Error::corrupt("data", offset, None, format!("{id}: {}", what.as_ref()))
}
