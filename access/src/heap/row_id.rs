//! The name of a row: where it stands.

use std::fmt;

use argali_base::PageId;
use argali_txn::LockName;

/// Bytes of an encoded row id.
pub(super) const ROW_ID_BYTES: usize = 10;

/// A row of a heap: its page and its slot there. Stays true for the row's life; after the row's deletion is
/// committed and forgotten, another row may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// Its page.
    pub page: PageId,
    /// Its slot in the page.
    pub slot: u16,
}

impl RowId {
    /// Ten bytes that order as row ids do: for keys and values of indexes.
    pub fn to_bytes(self) -> [u8; ROW_ID_BYTES] {
        let mut bytes = [0; ROW_ID_BYTES];
        bytes[..8].copy_from_slice(&self.page.get().to_be_bytes());
        bytes[8..].copy_from_slice(&self.slot.to_be_bytes());
        bytes
    }

    /// The row id that [`RowId::to_bytes`] gave these bytes; `None` when they are not ten.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (page, slot) = bytes.split_first_chunk::<8>()?;
        let slot = u16::from_be_bytes(slot.try_into().ok()?);
        Some(Self { page: PageId::new(u64::from_be_bytes(*page)), slot })
    }

    /// Lock name of the row in the heap with this root. Exact, not a hash, for every page there can be.
    pub(super) fn lock_name(self, root: PageId) -> LockName {
        let hash = self.page.get().rotate_left(16) ^ u64::from(self.slot);
        LockName::Key { tree: root.get(), hash }
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.page, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_order_like_ids() {
        let id = |page, slot| RowId { page: PageId::new(page), slot };
        let ids = [id(0, 0), id(0, 9), id(0, 256), id(1, 0), id(255, 65535), id(256, 0)];
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes(), "{pair:?}");
        }
        for id in ids {
            assert_eq!(RowId::from_bytes(&id.to_bytes()), Some(id));
        }
        assert_eq!(RowId::from_bytes(&[0; 9]), None);
        assert_eq!(RowId::from_bytes(&[0; 11]), None);
        assert_eq!(ids[4].to_string(), "p255.65535");
    }
}
