//! What is to be freed: structures nobody can reach, each remembered by a row until its pages are free.
//!
//! ```text
//!  row       first page u64, big-endian ─► kind u8       1 tree, 2 heap, 3 overflow chain
//!
//!  allocate  system transaction    first page, += row          commits, not forced
//!  take      user's transaction    -= row                      it is in use now
//!  give      user's transaction    += row                      it is in use no more
//!  free      system transactions   page after page; row and first page in one record
//! ```
//!
//! A page can be freed only when no rollback can want it back. So nothing is freed by the transaction
//! that decides it: giving up is a row that an abort takes away again, and aborting a creation brings back
//! the row that was there before. A crash at any point leaves a structure either in use or with a row:
//! nothing leaks, and no log record kind of its own is needed.
//!
//! Which rows are settled is known without locks: a transaction keeps [`Moves`] and tells
//! [`Pending::free_later`] at its end; and right after a restart, when no transaction is left but those in
//! doubt, all but theirs are ([`Pending::resume`]). Nobody but the owner of the row's lock changes a row,
//! so each settled structure is queued once, and freed by [`Pending::step`], a batch of pages at a time.
//!
//! To add a kind of structure: a number in [`Kind`], and an arm in the two functions that follow it.

mod moves;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Bound;

use argali_base::sync::{Arc, Mutex, MutexGuard};
use argali_base::{Error, PageId, Result};
use argali_txn::{Durability, Txn, TxnManager};

use crate::btree::{BTree, Entry, Way};
use crate::heap::Heap;
use crate::{Space, Survey, overflow};

pub use moves::Moves;

/// Pages freed per system transaction: one record each, so this bounds how long one turn takes.
const FREE_BATCH: usize = 32;

/// What kind of structure begins at a page, by the number its row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A B+tree; the page is its root.
    Tree = 1,
    /// A heap; the page is its root.
    Heap = 2,
    /// A value too large for a leaf.
    Overflow = 3,
}

/// Something made of pages: its kind, and the page it begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// What it is.
    pub kind: Kind,
    /// The page it is known by, freed last.
    pub first: PageId,
}

impl Kind {
    const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::Tree),
            2 => Some(Self::Heap),
            3 => Some(Self::Overflow),
            _ => None,
        }
    }
}

impl Structure {
    /// Frees at most `pages` pages, each by a record that removes the last pointer to it; true when only
    /// the first page is left.
    fn free_some(self, space: &Arc<Space>, txn: &mut Txn, pages: usize) -> Result<bool> {
        match self.kind {
            Kind::Tree => BTree::remains(space, self.first)?.free_some(txn, pages),
            Kind::Heap => Heap::open(space, self.first).free_some(txn, pages),
            Kind::Overflow => overflow::free_some(space, txn, self.first, pages),
        }
    }

    /// Checks what [`Structure::free_some`] may have left.
    fn verify_remains(self, space: &Arc<Space>, survey: &mut Survey) -> Result<()> {
        match self.kind {
            Kind::Tree => BTree::remains(space, self.first)?.verify_remains(survey).map(drop),
            Kind::Heap => Heap::open(space, self.first).verify_remains(survey).map(drop),
            Kind::Overflow => overflow::verify_remains(survey, self.first).map(drop),
        }
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Tree => "tree",
            Kind::Heap => "heap",
            Kind::Overflow => "overflow chain",
        };
        write!(f, "{kind} at {}", self.first)
    }
}

/// The tree of structures to be freed, and the queue of those that may be freed now. One per database.
pub struct Pending {
    space: Arc<Space>,
    tree: BTree,
    /// Structures whose rows are settled, oldest first.
    settled: Mutex<VecDeque<Structure>>,
    /// Held while pages are freed, and by whoever must not meet that.
    freeing: Mutex<()>,
}

impl Pending {
    /// Makes the tree of a new database.
    pub fn create_at(space: &Arc<Space>, txn: &mut Txn, root: PageId) -> Result<()> {
        BTree::create_at(space, txn, root).map(drop)
    }

    /// The tree with this root. Reads nothing.
    pub fn open(space: &Arc<Space>, root: PageId) -> Self {
        Self {
            space: Arc::clone(space),
            tree: BTree::open(space, root),
            settled: Mutex::default(),
            freeing: Mutex::default(),
        }
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// The tree that holds the rows, for checks.
    pub fn tree(&self) -> &BTree {
        &self.tree
    }

    /// Makes a structure that is freed unless somebody [takes](Pending::take) it: a system transaction
    /// runs `make`, which allocates the first page and says which it is, and adds the row. After an
    /// error there is neither.
    pub fn allocate(
        &self,
        txns: &Arc<TxnManager>,
        kind: Kind,
        make: impl FnOnce(&mut Txn) -> Result<PageId>,
    ) -> Result<Structure> {
        let mut system = txns.begin_system()?;
        let structure = Structure { kind, first: make(&mut system)? };
        self.tree.put(&mut system, &key_of(structure), &[kind as u8])?;
        system.commit(Durability::Relaxed)?;
        Ok(structure)
    }

    /// `txn` takes over what was allocated. When that fails, `txn` must be rolled back behind it; `moves`
    /// then knows what is to be freed.
    pub fn take(&self, txn: &mut Txn, structure: Structure, moves: &mut Moves) -> Result<()> {
        // Noted first: whatever fails from here on, the end of the transaction must know of it.
        moves.taken(structure);
        let row = self.tree.delete(txn, &key_of(structure))?;
        assert!(row.is_some(), "{structure} is taken over but was not pending");
        Ok(())
    }

    /// `txn` gives up what was in use; it must have kept everybody else out of it by a lock.
    pub fn give(&self, txn: &mut Txn, structure: Structure, moves: &mut Moves) -> Result<()> {
        self.tree.put(txn, &key_of(structure), &[structure.kind as u8])?;
        moves.given(structure);
        Ok(())
    }

    /// The rows of `structures` are settled: the transactions that changed them have ended.
    pub fn free_later(&self, structures: impl IntoIterator<Item = Structure>) {
        let mut structures = structures.into_iter().peekable();
        // Hardly any transaction has some, and all that write end here.
        if structures.peek().is_some() {
            self.settled.lock().extend(structures);
        }
    }

    /// After a restart, when no transaction is left but those in doubt: every row is settled that is in none
    /// of their moves.
    pub fn resume(&self, txns: &Arc<TxnManager>, in_doubt: &[Structure]) -> Result<()> {
        let rows = self.rows(&mut txns.begin_system()?)?;
        self.free_later(rows.into_iter().filter(|row| !in_doubt.contains(row)));
        Ok(())
    }

    /// Structures whose pages are still to be freed.
    pub fn waiting(&self) -> usize {
        self.settled.lock().len()
    }

    /// Keeps frees away while the guard lives.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.freeing.lock()
    }

    /// One turn of freeing: a batch of pages of one structure. Returns whether there is more to do. A
    /// structure whose pages cannot be freed lets the others go first.
    pub fn step(&self, txns: &Arc<TxnManager>) -> Result<bool> {
        let _one = self.freeing.lock();
        let Some(structure) = self.settled.lock().front().copied() else { return Ok(false) };
        let freed = self.free_batch(txns, structure);
        let mut settled = self.settled.lock();
        match freed {
            Ok(true) => drop(settled.pop_front()),
            Ok(false) => {}
            Err(_) => settled.rotate_left(1),
        }
        freed.map(|_| !settled.is_empty())
    }

    /// Frees some pages; true when all are free, and the row is gone.
    fn free_batch(&self, txns: &Arc<TxnManager>, structure: Structure) -> Result<bool> {
        let mut system = txns.begin_system()?;
        let bare = structure.free_some(&self.space, &mut system, FREE_BATCH)?;
        if bare {
            self.tree.remove_and_free(&mut system, &key_of(structure), structure.first)?;
        }
        system.commit(Durability::Relaxed)?;
        Ok(bare)
    }

    /// Every structure that has a row, settled or not.
    pub fn rows(&self, txn: &mut Txn) -> Result<Vec<Structure>> {
        let (mut rows, mut entry) = (Vec::new(), Entry::default());
        let mut found = self.tree.next(txn, Bound::Unbounded, Bound::Unbounded, &mut entry)?;
        while found {
            rows.push(decode(&entry)?);
            found = self.tree.advance(txn, Way::Forward, Bound::Unbounded, &mut entry)?;
        }
        Ok(rows)
    }

    /// Checks a structure that has a row; its last pages may be gone already. As [`BTree::verify`].
    pub fn verify(&self, structure: Structure, survey: &mut Survey) -> Result<()> {
        structure.verify_remains(&self.space, survey)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({:?}, {} settled)", self.tree, self.waiting())
    }
}

fn key_of(structure: Structure) -> [u8; 8] {
    structure.first.get().to_be_bytes()
}

fn decode(entry: &Entry) -> Result<Structure> {
    let (key, value) = (entry.key(), entry.value());
    let first = key.try_into().ok().map(u64::from_be_bytes);
    let kind = match value {
        [kind] => Kind::from_u8(*kind),
        _ => None,
    };
    let Some((first, kind)) = first.zip(kind) else {
        let what = format!("pending: {key:02x?} ─► {value:02x?} makes no sense");
        return Err(Error::corrupt("data", 0, None, what));
    };
    Ok(Structure { kind, first: PageId::new(first) })
}
