//! Taking tree changes back, by meaning.
//!
//! The row may have moved to another page since, in any number of splits and joins, so the body names the tree
//! and the key, not the page. Undo is a search and one change of one leaf: the compensation.
//!
//! ```text
//!  done            taken back by
//!  insert          making the row a ghost
//!  update          writing the old value back      the cell never became shorter: it fits
//!  delete          the old value, no ghost         the ghost is still there: its page changed after
//!                                                  this transaction began, so it was not purged
//!  exchange        exchanging once more            whole contents; the key is the other page, u64
//!
//!  body   old value … │ key … │ root u64 │ key length u16 │ kind u8      read from its end
//!         kind: 0 insert · 1 update · 2 delete · 3 exchange; + 128 when the old value is the reference to
//!         a large one
//! ```
//!
//! A large value is taken back by its reference: its overflow pages are freed only after a commit.
//!
//! So undo needs no lock (the X lock on the key is still held, and restart admits nobody else), no new
//! page, no split, and no more log than was reserved. It is the same code in a rollback and a restart.

use std::fmt;

use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_buffer_pool::BufferPool;
use argali_pager::PageOp;
use argali_txn::{Edit, LogicalUndo, Txn, Undo};

use super::BTree;
use super::delete::{ghost_flag, make_ghost};
use super::descent::{Attempt, Stop, retry};
use super::node::{self, LeafCell, Stored};
use super::target::Target;
use super::update::overwrite;
use crate::fault::corrupt;
use crate::overflow::Reference;
use crate::{Space, TREE_OWNER};

/// Bit of the kind that says that the old value is a reference.
const LARGE: u8 = 128;
/// Bytes of a body beside key and old value.
const TRAILER: usize = 11;
/// Log bytes of a compensation beside the old value, generously.
const CLR_BYTES: usize = 40;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Insert = 0,
    Update = 1,
    Delete = 2,
    /// Of the whole content: the key is the spare page, the old value empty.
    Exchange = 3,
}

/// Bytes of a body.
pub(super) fn body_len(key: usize, old: usize) -> usize {
    old + key + TRAILER
}

/// What the undo of one record needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    kind: Kind,
    root: PageId,
    key: &'a [u8],
    old: Stored<'a>,
}

impl<'a> Body<'a> {
    pub(super) fn new(kind: Kind, root: PageId, key: &'a [u8], old: Stored<'a>) -> Self {
        Self { kind, root, key, old }
    }

    /// Encodes into `out` (cleared first); the old value stands at its beginning.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.old.bytes);
        out.extend_from_slice(self.key);
        out.extend_from_slice(&self.root.get().to_le_bytes());
        let key_len = u16::try_from(self.key.len()).expect("keys are at most a quarter of a page");
        out.extend_from_slice(&key_len.to_le_bytes());
        out.push(self.kind as u8 | if self.old.large { LARGE } else { 0 });
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (rest, trailer) = bytes.split_last_chunk::<TRAILER>()?;
        let (root, tail) = trailer.split_first_chunk::<8>()?;
        let &[low, high, kind] = tail else { return None };
        let key_len = usize::from(u16::from_le_bytes([low, high]));
        let (old, key) = rest.split_at_checked(rest.len().checked_sub(key_len)?)?;
        let old = Stored { bytes: old, large: kind & LARGE != 0 };
        let kind = match kind & !LARGE {
            0 => Kind::Insert,
            1 => Kind::Update,
            2 => Kind::Delete,
            3 => Kind::Exchange,
            _ => return None,
        };
        Some(Self { kind, root: PageId::new(u64::from_le_bytes(*root)), key, old })
    }
}

/// The undo of all trees of one database.
pub(crate) struct TreeUndo {
    space: Arc<Space>,
}

impl TreeUndo {
    pub(crate) fn new(space: Arc<Space>) -> Self {
        Self { space }
    }
}

impl LogicalUndo for TreeUndo {
    fn undo(&self, txn: &mut Txn, body: &[u8]) -> Result<()> {
        let Some(body) = Body::decode(body) else {
            let what = format!("undo of {} holds no tree operation", txn.id());
            return Err(Error::corrupt("wal", txn.last_lsn().get(), Some(txn.last_lsn()), what));
        };
        let tree = BTree::open(&self.space, body.root);
        if body.kind == Kind::Exchange {
            return tree.exchange_back(txn, body.key);
        }
        txn.admit(CLR_BYTES + body.old.bytes.len(), 1)?;
        retry(|patient| tree.take_back(txn, &body, patient))
    }

    fn describe(&self, body: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Body { kind, root, key, old }) = Body::decode(body) else {
            return write!(f, "{} bytes that are no tree undo", body.len());
        };
        let shown = key[..key.len().min(24)].escape_ascii();
        let large = Reference::decode(old.bytes).filter(|_| old.large);
        let len = large.map_or(old.bytes.len() as u64, |reference| reference.len);
        match kind {
            Kind::Insert => write!(f, "tree {root}: \"{shown}\" becomes a ghost"),
            Kind::Update => write!(f, "tree {root}: \"{shown}\" gets {len} bytes back"),
            Kind::Delete => write!(f, "tree {root}: \"{shown}\" lives again, {len} bytes"),
            Kind::Exchange => write!(f, "tree {root} gets its old content back"),
        }
    }
}

impl BTree {
    fn take_back(&self, txn: &mut Txn, body: &Body<'_>, patient: bool) -> Attempt<()> {
        let target = self.target(body.key, patient)?;
        let spot = self.spot(&target, body.key)?;
        let Some(cell) = spot.found else {
            return Err(gone(self.pool(), &target, body, "no such cell"));
        };
        if body.kind != Kind::Insert && !cell.holds(body.old.bytes.len()) {
            return Err(gone(self.pool(), &target, body, "a cell too short for the old value"));
        }
        self.compensate(txn, target, (spot.slot, cell), body)
    }

    fn compensate(
        &self,
        txn: &mut Txn,
        target: Target<'_>,
        (slot, cell): (usize, LeafCell),
        body: &Body<'_>,
    ) -> Attempt<()> {
        let mut page = target.latch()?;
        // In compensating mode the undoable update is the compensation; its body is not logged.
        let undo = Undo::Logical { owner: TREE_OWNER, body: &[] };
        let flag = ghost_flag(&cell);
        let header = node::live_header(cell.key_len, body.old);
        let ops: &[PageOp<'_>] = match body.kind {
            Kind::Insert => &[make_ghost(slot, &flag)],
            Kind::Update | Kind::Delete => &overwrite(slot, &cell, &header, body.old.bytes),
            Kind::Exchange => unreachable!("`undo` sends exchanges to `exchange_back`"),
        };
        txn.update(&mut [Edit { page: &mut page, ops }], undo);
        if body.kind == Kind::Insert {
            self.crumbled(page, slot, body.key);
        }
        Ok(())
    }
}

/// What undo relies on is not there: damage, since rows are never moved out of their tree.
fn gone(pool: &BufferPool, target: &Target<'_>, body: &Body<'_>, what: &str) -> Stop {
    let page = match target {
        Target::Seen(node) => node.glimpse.id(),
        Target::Latched(page) => page.id(),
    };
    Stop::Failed(corrupt(pool, page, format!("undo of {:?} finds {what}", body.kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_survive_the_round_trip_and_reject_cuts() {
        let old = Stored { bytes: b"old value", large: true };
        let expected = Body::new(Kind::Update, PageId::new(7), b"key", old);
        let mut bytes = b"rubbish".to_vec();
        expected.encode(&mut bytes);
        assert_eq!(Body::decode(&bytes), Some(expected));
        assert_eq!(bytes.len(), body_len(3, 9));
        assert_eq!(&bytes[..9], b"old value");
        assert_eq!(Body::decode(&bytes[..10]), None);
        let mut spare = Vec::new();
        Body::new(Kind::Exchange, PageId::new(7), &9_u64.to_le_bytes(), Stored::small(&[]))
            .encode(&mut spare);
        assert_eq!(spare, [9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 3]);
        let mut wrong = bytes.clone();
        *wrong.last_mut().unwrap() = 9;
        assert_eq!(Body::decode(&wrong), None);
        let mut too_long = bytes;
        let at = too_long.len() - 3;
        too_long[at..at + 2].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(Body::decode(&too_long), None);
    }
}
