//! Sealing a page before it is written and judging one that was read.
//!
//! The checksum is CRC32C over everything behind its own field, pageLSN included, so nothing in the
//! header may be believed before it was verified: a torn page can carry a new LSN in its first sector
//! and old bytes in the others, and redo would skip it for ever. The page id catches a write that
//! landed in the wrong place, the database id a file that was copied from elsewhere.

use argali_base::{Lsn, PageId};

use crate::PageBuf;
use crate::page::{PAGE_VERSION, PageRef, at};

/// CRC32C over the page except the checksum field.
fn compute(page: PageRef<'_>) -> u32 {
    crc32c::crc32c(page.bytes().get(at::KIND..).unwrap_or_default())
}

/// Puts the checksum into the copy that goes to disk.
pub(crate) fn seal(copy: &mut PageBuf) {
    let checksum = compute(copy.page());
    copy.bytes_mut()[at::CHECKSUM..at::KIND].copy_from_slice(&checksum.to_le_bytes());
}

/// Why a page is not what it should be.
pub(crate) struct Bad {
    /// Its LSN, when at least the page id is legible.
    pub(crate) lsn: Option<Lsn>,
    pub(crate) what: String,
}

/// Whether `page` is page `id` of `database`, whole.
pub(crate) fn verify(page: PageRef<'_>, id: PageId, database: u64) -> Result<(), Bad> {
    let bad = |what: String| {
        let legible = page.id() == id && !page.lsn().is_none();
        Err(Bad { lsn: legible.then(|| page.lsn()), what })
    };
    let (stored, computed) = (page.checksum(), compute(page));
    if stored != computed {
        return bad(format!("{id} has checksum {stored:#010x}, its bytes give {computed:#010x}"));
    }
    if page.database() != database {
        return bad(format!("{id} belongs to database {:#x}, not {database:#x}", page.database()));
    }
    if page.id() != id {
        return bad(format!("{} stands where {id} belongs: a misdirected write", page.id()));
    }
    if page.version() != PAGE_VERSION || page.kind().is_none() {
        let kind = page.bytes()[at::KIND];
        return bad(format!("{id} has format version {} and kind {kind}", page.version()));
    }
    Ok(())
}
