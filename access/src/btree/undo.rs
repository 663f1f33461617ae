//! Taking tree changes back, by meaning.
//!
//! The row may have moved to another page since, in any number of splits and joins, so the body names the tree
//! and the key, not the page. Undo is a search and one change of one leaf: the compensation.
//!
//! ```text
//!  done            taken back by
//!  insert          making the row a ghost
//!  update          writing the old value back      the cell never became shorter: it fits
//!  patch           the old bytes of a part         a value that kept its length: the rest is as it was,
//!                                                  since changes are taken back last one first
//!  delete          the old value, no ghost         the ghost is still there: its page changed after
//!                                                  this transaction began, so it was not purged
//!  exchange        exchanging once more            whole contents; the key is the other page, u64
//!
//!  body   kind u8 │ root │ key length │ key … │ patch only: place in the value │ old bytes …
//!         kind: 0 insert · 1 update · 2 delete · 3 exchange · 4 patch; + 128 when the old value is the
//!         reference to a large one. Numbers are varints.
//! ```
//!
//! A large value is taken back by its reference: its overflow pages are freed only after a commit.
//!
//! So undo needs no lock (the X lock on the key is still held, and restart admits nobody else), no new
//! page, no split, and no more log than was reserved. It is the same code in a rollback and a restart.

use std::fmt;

use argali_base::codec::{Reader, VARINT_BYTES_MAX, Writer};
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
use super::update::{overwrite, patch};
use crate::fault::corrupt;
use crate::overflow::Reference;
use crate::{Space, TREE_OWNER};

/// Bit of the kind that says that the old value is a reference.
const LARGE: u8 = 128;
/// Most bytes of a body beside key and old value: kind, root, and two numbers below 64 Ki.
const HEAD_BYTES_MAX: usize = 1 + VARINT_BYTES_MAX + 2 * 3;
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
    /// Of a part of the value; its length stayed.
    Patch = 4,
}

/// Most bytes of a body.
pub(super) fn body_len(key: usize, old: usize) -> usize {
    HEAD_BYTES_MAX + key + old
}

/// What the undo of one record needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    kind: Kind,
    root: PageId,
    key: &'a [u8],
    /// Where `old` stood in the value; 0 unless it is a patch.
    at: usize,
    old: Stored<'a>,
}

impl<'a> Body<'a> {
    pub(super) fn new(kind: Kind, root: PageId, key: &'a [u8], old: Stored<'a>) -> Self {
        Self { kind, root, key, at: 0, old }
    }

    /// `old` stood at `at` in a value that kept its length.
    pub(super) fn patch(root: PageId, key: &'a [u8], at: usize, old: &'a [u8]) -> Self {
        Self { kind: Kind::Patch, root, key, at, old: Stored::small(old) }
    }

    /// Replaces what is in `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(body_len(self.key.len(), self.old.bytes.len()));
        out.put_u8(self.kind as u8 | if self.old.large { LARGE } else { 0 });
        out.put_varint(self.root.get());
        out.put_var_bytes(self.key);
        if self.kind == Kind::Patch {
            out.put_varint(self.at as u64);
        }
        out.put(self.old.bytes);
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes);
        let tag = fields.u8()?;
        let kind = match tag & !LARGE {
            0 => Kind::Insert,
            1 => Kind::Update,
            2 => Kind::Delete,
            3 => Kind::Exchange,
            4 if tag & LARGE == 0 => Kind::Patch,
            _ => return None,
        };
        let (root, key) = (PageId::new(fields.varint()?), fields.var_bytes()?);
        let at = if kind == Kind::Patch { usize::try_from(fields.varint()?).ok()? } else { 0 };
        let old = Stored { bytes: fields.rest(), large: tag & LARGE != 0 };
        Some(Self { kind, root, key, at, old })
    }

    /// Whether `cell`, as the change left it, has room for what it gets back.
    fn suits(&self, cell: &LeafCell) -> bool {
        match self.kind {
            Kind::Insert => true,
            Kind::Patch => {
                !cell.ghost && self.at.saturating_add(self.old.bytes.len()) <= cell.value_len
            }
            Kind::Update | Kind::Delete | Kind::Exchange => cell.holds(self.old.bytes.len()),
        }
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
        let Some(Body { kind, root, key, at, old }) = Body::decode(body) else {
            return write!(f, "{} bytes that are no tree undo", body.len());
        };
        let shown = key[..key.len().min(24)].escape_ascii();
        let large = Reference::decode(old.bytes).filter(|_| old.large);
        let len = large.map_or(old.bytes.len() as u64, |reference| reference.len);
        match kind {
            Kind::Insert => write!(f, "tree {root}: \"{shown}\" becomes a ghost"),
            Kind::Update => write!(f, "tree {root}: \"{shown}\" gets {len} bytes back"),
            Kind::Patch => write!(f, "tree {root}: \"{shown}\" gets {len} bytes back at {at}"),
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
        if !body.suits(&cell) {
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
            Kind::Patch => &[patch(slot, &cell, body.at, body.old.bytes)],
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
        assert_eq!(bytes, [&[129, 7, 3][..], b"key", b"old value"].concat());
        for cut in 0..6 {
            assert_eq!(Body::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let part = Body::patch(PageId::new(300), b"k", 200, b"8 bytes.");
        let mut patched = Vec::new();
        part.encode(&mut patched);
        assert_eq!(patched, [&[4, 0xac, 2, 1, b'k', 200, 1][..], b"8 bytes."].concat());
        assert_eq!(Body::decode(&patched), Some(part));
        let mut spare = Vec::new();
        Body::new(Kind::Exchange, PageId::new(7), &9_u64.to_le_bytes(), Stored::small(&[]))
            .encode(&mut spare);
        assert_eq!(spare, [3, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0]);
        for kind in [5, 9, 128 + 4] {
            patched[0] = kind;
            assert_eq!(Body::decode(&patched), None, "kind {kind}");
        }
        bytes[2] = 100;
        assert_eq!(Body::decode(&bytes), None, "a key longer than the body");
    }
}
