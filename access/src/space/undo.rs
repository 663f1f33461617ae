//! Taking the allocation of a first page back: clearing its bit.
//!
//! ```text
//!  done     format page p, set its bit       taken back by   clearing the bit
//!
//!  body     page id u64
//! ```
//!
//! Nobody else knew the page: what makes it known is written later, in the same transaction, and is taken
//! back first. The page keeps its bytes and its LSN; its next life begins with `Format`.

use std::fmt;

use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_txn::{Edit, LogicalUndo, Txn, Undo};

use crate::{SPACE_OWNER, Space};

/// Log bytes of clearing a bit, generously.
const CLR_BYTES: usize = 40;

/// The undo of first pages.
pub(crate) struct SpaceUndo {
    space: Arc<Space>,
}

impl SpaceUndo {
    pub(crate) fn new(space: Arc<Space>) -> Self {
        Self { space }
    }
}

impl LogicalUndo for SpaceUndo {
    fn undo(&self, txn: &mut Txn, body: &[u8]) -> Result<()> {
        let Some(page) = decode(body) else {
            let what = format!("undo of {} names no page", txn.id());
            return Err(Error::corrupt("wal", txn.last_lsn().get(), Some(txn.last_lsn()), what));
        };
        txn.admit(CLR_BYTES, 1)?;
        let mut map = self.space.map(page)?;
        let undo = Undo::Logical { owner: SPACE_OWNER, body: &[] };
        txn.update(&mut [Edit { page: &mut map, ops: &[self.space.bit(page, false)] }], undo);
        drop(map);
        self.space.freed(page);
        Ok(())
    }

    fn describe(&self, body: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match decode(body) {
            Some(page) => write!(f, "{page} is given back"),
            None => write!(f, "{} bytes that name no page", body.len()),
        }
    }
}

fn decode(body: &[u8]) -> Option<PageId> {
    body.try_into().ok().map(|id| PageId::new(u64::from_le_bytes(id)))
}
