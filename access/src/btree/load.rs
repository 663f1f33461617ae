//! Building a tree from sorted rows, leaf after leaf, with one record for each page.
//!
//! ```text
//!  spine  root ─────────────┐            a leaf is full:   new leaf   its image
//!           n1   n2 ◄ last inner         one record of     last leaf  link
//!          ╱ ╲    │                      four pages        parent     separator, child
//!        l1  l2  l3 ◄ last leaf                            map        bit
//!  rows ───────────────► l4, a draft in memory
//! ```
//!
//! The new tree grows under a spare page with a pending row (see [`crate::Pending`]), by system
//! transactions of one record each: a crash in the middle leaves a smaller tree that is freed, and the log
//! is never held by a load, however long it takes. Only the last step is the user's: take the spare page
//! over, [exchange](super::exchange) it with the root, give it up again with the old content. That is a few
//! records whatever the number of rows, and so is its undo.
//!
//! Nodes are filled to nine tenths; the rest is for rows that come later. A parent without room gets a
//! right sibling without children first (and so do its ancestors, up to a root that grows by a level), so
//! no step needs more than four pages.
//!
//! Left out: building into a tree that has rows. Its last leaves cannot be replaced without their left
//! neighbours' knowing.

use argali_base::sync::Arc;
use argali_base::{Error, PageId, Result};
use argali_pager::{Draft, HEADER_BYTES, PageKind, PageOp};
use argali_txn::{Durability, Edit, Txn, TxnManager, Undo};

use super::BTree;
use super::descent::{Attempt, Stop, retry};
use super::heads::{Entry, common, head};
use super::node::{self, SLOT_BYTES, Stored};
use super::split::{SPLIT_PAGES, separate};
use crate::pending::{Kind, Moves, Pending, Structure};

/// A tree being built. Dropping it gives up what was built.
pub struct Loader {
    txns: Arc<TxnManager>,
    pending: Arc<Pending>,
    /// The tree the rows are for.
    tree: BTree,
    built: Built,
    /// The leaf to come.
    next: Draft,
    /// Last key of the leaves that are built.
    before: Vec<u8>,
    leaves: u64,
    rows: u64,
    /// Whether some transaction's end decides about the spare page.
    taken: bool,
}

/// What is built.
struct Built {
    /// Its root is the spare page.
    spare: BTree,
    /// Last node of each level, leaves first; the spare page is the last of them.
    spine: Vec<PageId>,
}

/// What came of an attempt to add a node.
enum Added {
    Done(PageId),
    ParentFull,
}

impl BTree {
    /// Begins to build what is to replace this tree, which must have no rows and be locked exclusively
    /// until the end of the transaction that will [finish](Loader::finish) the work.
    pub fn loader(&self, txns: &Arc<TxnManager>, pending: &Arc<Pending>) -> Result<Loader> {
        let allocated = pending.allocate(txns, Kind::Tree, |system| {
            // Nodes under the spare page are this tree's from the start.
            let own = [self.format(PageKind::Leaf, 0)];
            self.space().create_first(system, PageKind::Leaf, (&own, 0))
        })?;
        let spare = BTree { root: allocated.first, ..self.clone() };
        Ok(Loader {
            txns: Arc::clone(txns),
            pending: Arc::clone(pending),
            tree: self.clone(),
            next: Draft::new(self.pool().pager().options().page_size),
            built: Built { spine: vec![spare.root], spare },
            before: Vec::new(),
            leaves: 0,
            rows: 0,
            taken: false,
        })
    }
}

impl Loader {
    /// Adds a row; keys must come in ascending order. After an error the row is not in, and after
    /// `LogFull` it may be offered again.
    ///
    /// # Errors
    /// `Invalid` when `key` is not above the one before, `TooLarge`, `LogFull`, `Full`, `Io`.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (size, limit) = (key.len() + value.len(), self.tree.entry_bytes_max());
        if size > limit {
            return Err(Error::TooLarge { what: "entry (key and value)", size, limit });
        }
        must_ascend(self.last_key(), key)?;
        if !self.has_room(key, value) {
            self.flush()?;
        }
        let cell = self.next.push(node::leaf_cell_bytes(key.len(), value.len()));
        node::write_leaf_cell(cell, key, Stored::small(value));
        self.rows += 1;
        Ok(())
    }

    /// Whether [`Loader::push`] would only take the row in, and write nothing.
    pub fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        let bytes = node::leaf_cell_bytes(key.len(), value.len()) + SLOT_BYTES;
        self.next.free_bytes() >= bytes + self.built.reserve()
    }

    /// The key of the last row.
    pub fn last_key(&self) -> Option<&[u8]> {
        let last = self.next.len().checked_sub(1).and_then(|slot| self.next.cell(slot));
        let before = (self.rows > 0).then_some(&*self.before);
        last.map(node::key_of_leaf_cell).or(before)
    }

    /// `txn`, which holds the tree's exclusive lock, takes the rows over; how many. The old content is
    /// freed after its commit.
    pub fn finish(&mut self, txn: &mut Txn, moves: &mut Moves) -> Result<u64> {
        if self.rows == 0 {
            return Ok(0);
        }
        self.flush()?;
        self.taken = true;
        self.pending.take(txn, self.structure(), moves)?;
        self.tree.exchange(txn, self.built.spare.root)?;
        self.pending.give(txn, self.structure(), moves)?;
        Ok(self.rows)
    }

    fn structure(&self) -> Structure {
        Structure { kind: Kind::Tree, first: self.built.spare.root }
    }

    /// Writes the rows at hand as a leaf of their own, in a system transaction.
    fn flush(&mut self) -> Result<()> {
        let Some(first) = self.next.cell(0).map(node::key_of_leaf_cell) else { return Ok(()) };
        let last = self.last_key().unwrap_or(first).to_vec();
        let (skip, separator) = (common(first, &last), separate(&self.before, first).to_vec());
        self.next.set_heads(skip, |cell| head(node::key_of_leaf_cell(cell), skip));
        let mut system = self.txns.begin_system()?;
        if self.leaves == 0 {
            self.built.fill_root(&mut system, &mut self.next)?;
        } else {
            self.built.append(&mut system, 0, &mut Some(&mut self.next), &separator)?;
        }
        system.commit(Durability::Relaxed)?;
        self.leaves += 1;
        self.before = last;
        self.next.clear();
        Ok(())
    }
}

/// `Invalid` unless `key` is above the `last` one.
pub fn must_ascend(last: Option<&[u8]>, key: &[u8]) -> Result<()> {
    match last.filter(|last| *last >= key) {
        None => Ok(()),
        Some(last) => Err(out_of_order(last, key)),
    }
}

#[cold]
fn out_of_order(last: &[u8], key: &[u8]) -> Error {
    let (key, last) = (key.escape_ascii(), last.escape_ascii());
    let why = format!("key \"{key}\" comes behind \"{last}\": not in ascending order");
    Error::Invalid { what: "bulk load", why }
}

impl Drop for Loader {
    /// What no transaction took over is nobody's.
    fn drop(&mut self) {
        if !self.taken {
            self.pending.free_later([self.structure()]);
        }
    }
}

impl Built {
    /// Bytes of a node that stay free.
    fn reserve(&self) -> usize {
        (self.spare.pool().pager().options().page_size.bytes() - HEADER_BYTES) / 10
    }

    /// What makes page `id` of the draft of a leaf.
    fn image<'d>(&self, leaf: &'d mut Draft, id: PageId) -> PageOp<'d> {
        let database = self.spare.pool().pager().options().database;
        leaf.image((id, database), (PageKind::Leaf, 0, self.spare.owner))
    }

    /// The first leaf is the spare page itself.
    fn fill_root(&self, system: &mut Txn, leaf: &mut Draft) -> Result<()> {
        system.admit(self.spare.split_bytes(), 1)?;
        let mut root = self.spare.pool().write(self.spare.root)?;
        let ops = [self.image(leaf, self.spare.root)];
        system.update(&mut [Edit { page: &mut root, ops: &ops }], Undo::Never);
        Ok(())
    }

    /// Adds a node behind the last one of its level: `leaf`, or else an inner one without children.
    fn append(
        &mut self,
        system: &mut Txn,
        level: usize,
        leaf: &mut Option<&mut Draft>,
        separator: &[u8],
    ) -> Result<()> {
        if level + 1 == self.spine.len() {
            self.raise(system)?;
        }
        loop {
            let step = |patient| self.append_once(system, level, (leaf, separator), patient);
            match retry(step)? {
                Added::Done(id) => {
                    self.spine[level] = id;
                    return Ok(());
                }
                Added::ParentFull => self.append(system, level + 1, &mut None, separator)?,
            }
        }
    }

    fn append_once(
        &self,
        system: &mut Txn,
        level: usize,
        (leaf, separator): (&mut Option<&mut Draft>, &[u8]),
        patient: bool,
    ) -> Attempt<Added> {
        let (tree, space) = (&self.spare, self.spare.space());
        let reserved = space.reserve(system, 1)?;
        let id = reserved.ids()[0];
        system.admit(tree.split_bytes(), SPLIT_PAGES)?;
        space.await_map(id)?;
        let mut node = tree.pool().create(id)?;
        let mut parent = tree.pool().write(self.spine[level + 1])?;
        // The first child stands for minus infinity: no separator.
        let slot = parent.page().slot_count();
        let separator = if slot == 0 { &[][..] } else { separator };
        let mut cell = Vec::with_capacity(node::INNER_HEADER + separator.len());
        node::push_inner_cell(&mut cell, id, separator);
        if slot > 1 && parent.page().free_bytes() < cell.len() + SLOT_BYTES + self.reserve() {
            return Ok(Added::ParentFull);
        }
        let mut left = tree.pool().write(self.spine[level])?;
        let Some(mut map) = space.try_map(id, patient)? else { return Err(Stop::Again) };
        let made = match leaf {
            Some(leaf) => self.image(leaf, id),
            None => tree.format(PageKind::Inner, level as u8),
        };
        let entry = tree.inspect(&parent, |page| Entry::new(*page, slot, (separator, &cell)))?;
        let edits = &mut [
            Edit { page: &mut node, ops: &[made] },
            Edit { page: &mut left, ops: &[PageOp::SetLink { link: id.get() }] },
            Edit { page: &mut parent, ops: &entry.ops() },
            Edit { page: &mut map, ops: &[space.bit(id, true)] },
        ];
        system.update(edits, Undo::Never);
        Ok(Added::Done(id))
    }

    /// The root's content moves to a page of its own; the root becomes its parent.
    fn raise(&mut self, system: &mut Txn) -> Result<()> {
        let level = self.spine.len();
        assert!(level <= usize::from(node::LEVEL_MAX), "a tree of {level} levels is being built");
        let id = retry(|patient| self.raise_once(system, level as u8, patient))?;
        self.spine.insert(level - 1, id);
        Ok(())
    }

    fn raise_once(&self, system: &mut Txn, level: u8, patient: bool) -> Attempt<PageId> {
        let (tree, space) = (&self.spare, self.spare.space());
        let reserved = space.reserve(system, 1)?;
        let id = reserved.ids()[0];
        system.admit(tree.split_bytes(), SPLIT_PAGES)?;
        space.await_map(id)?;
        let mut below = tree.pool().create(id)?;
        let mut root = tree.pool().write(tree.root)?;
        let Some(mut map) = space.try_map(id, patient)? else { return Err(Stop::Again) };
        let copy = tree.copy_of(&root);
        let count = copy.page().slot_count();
        let moved = tree.inspect(&root, |_| tree.moved(copy.page(), 0..count, 0))?;
        let mut cell = Vec::new();
        node::push_inner_cell(&mut cell, id, &[]);
        let above =
            [tree.format(PageKind::Inner, level), PageOp::Insert { slot: 0, head: 0, cell: &cell }];
        let edits = &mut [
            Edit { page: &mut below, ops: &moved },
            Edit { page: &mut root, ops: &above },
            Edit { page: &mut map, ops: &[space.bit(id, true)] },
        ];
        system.update(edits, Undo::Never);
        Ok(id)
    }
}
