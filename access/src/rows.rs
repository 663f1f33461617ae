//! Rows with values of any size: a tree, and the chains that hang on its leaves.
//!
//! ```text
//!              small                         large
//!  write       into the leaf                 take the chain from pending, reference into the leaf
//!  replace     (the undo record has it)      give the chain to pending: freed after the commit
//! ```
//!
//! What takes several records is all or nothing: when one of them cannot be made, those before it are
//! rolled back, and the transaction goes on. The common case, small over small, is one record and costs
//! nothing more: the tree stops before it replaces a large value, and only then the long way is gone.

use std::ops::Bound;

use argali_base::Result;
use argali_txn::Txn;

use crate::btree::{BTree, Change, Done, Entry, LargeOld, Stored};
use crate::overflow::Draft;
use crate::{Moves, Pending};

/// What one transaction does to one tree.
pub struct Rows<'a> {
    txn: &'a mut Txn,
    tree: &'a BTree,
    pending: &'a Pending,
    moves: &'a mut Moves,
}

/// Where the value goes that a write finds in its place.
type Old<'o> = Option<&'o mut Vec<u8>>;

impl<'a> Rows<'a> {
    /// The rows of `tree` in the hands of `txn`, whose end must hear of `moves`.
    pub fn new(
        txn: &'a mut Txn,
        tree: &'a BTree,
        pending: &'a Pending,
        moves: &'a mut Moves,
    ) -> Self {
        Self { txn, tree, pending, moves }
    }

    /// Sets `key` to a value that [fits](BTree::fits) the leaf; whether there was an old one, which goes to
    /// `old`.
    ///
    /// # Errors
    /// `TooLarge`, `LogFull`, `Full`; deadlock and lock timeout (retryable); `Corrupt`, `Io`. The row is
    /// then as it was.
    pub fn put(&mut self, key: &[u8], value: &[u8], old: Old<'_>) -> Result<bool> {
        let done = self.change(key, Change::Put(Stored::small(value)), old)?;
        Ok(matches!(done, Done::Replaced { .. }))
    }

    /// As [`Rows::put`], with the value of `draft`, which is the row's from here on.
    ///
    /// # Panics
    /// When the draft is empty, or was taken before.
    pub fn put_large(&mut self, key: &[u8], draft: &mut Draft<'_>, old: Old<'_>) -> Result<bool> {
        self.tree.check_key(key)?;
        let (wanted, mut unwanted) = (old.is_some(), Vec::new());
        let buffer = old.unwrap_or(&mut unwanted);
        let reference = draft.built();
        let value = Stored { bytes: &reference.encode(), large: true };
        let done = self.all_or_nothing(|rows, moves| {
            rows.pending.take(rows.txn, reference.structure(), moves)?;
            rows.replace(key, Change::Put(value), (wanted, buffer), moves)
        })?;
        draft.hand_over();
        Ok(matches!(done, Done::Replaced { .. }))
    }

    /// Sets `key` to a value that fits the leaf unless there is one; whether it did so. Errors as [`Rows::put`].
    pub fn insert_new(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let done = self.change(key, Change::InsertNew(Stored::small(value)), None)?;
        Ok(matches!(done, Done::Inserted))
    }

    /// Removes `key`; whether it was there. Its value goes to `old`. Errors as [`Rows::put`].
    pub fn delete(&mut self, key: &[u8], old: Old<'_>) -> Result<bool> {
        let done = self.change(key, Change::Delete, old)?;
        Ok(matches!(done, Done::Replaced { .. }))
    }

    /// Deletes the rows within the bounds: all of them, or none when it fails. Returns how many. Each is
    /// locked exclusively; under serializable the range then takes no phantoms, below it others may fill
    /// it again behind the scan. Row by row, each with its own record, because each may stand elsewhere by
    /// the time it is brought back.
    ///
    /// # Errors
    /// As [`Rows::put`]; `LogFull` also for more rows than the log can take back.
    pub fn delete_range(&mut self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<u64> {
        self.all_or_nothing(|rows, moves| {
            let (mut entry, mut key, mut buffer) = (Entry::default(), Vec::new(), Vec::new());
            let (mut from, mut count) = (from, 0);
            while rows.tree.next_for_write(rows.txn, from, to, &mut entry)? {
                key.clear();
                key.extend_from_slice(entry.key());
                let done = rows.replace(&key, Change::Delete, (false, &mut buffer), moves)?;
                count += u64::from(matches!(done, Done::Replaced { .. }));
                from = Bound::Excluded(&key);
            }
            Ok(count)
        })
    }

    fn change(&mut self, key: &[u8], change: Change<'_>, old: Old<'_>) -> Result<Done> {
        self.tree.check_key(key)?;
        let mut old = old;
        match self.tree.write(self.txn, key, (change, LargeOld::Stop), old.as_deref_mut())? {
            Done::Stopped => {
                let (wanted, mut unwanted) = (old.is_some(), Vec::new());
                let buffer = old.unwrap_or(&mut unwanted);
                self.all_or_nothing(|rows, moves| {
                    rows.replace(key, change, (wanted, buffer), moves)
                })
            }
            done => Ok(done),
        }
    }

    /// Makes the change whatever stands in its place, and gives up a large value that does. The old value
    /// goes to the buffer if it is wanted.
    fn replace(
        &mut self,
        key: &[u8],
        change: Change<'_>,
        (wanted, buffer): (bool, &mut Vec<u8>),
        moves: &mut Moves,
    ) -> Result<Done> {
        let done = self.tree.write(self.txn, key, (change, LargeOld::Replace), Some(buffer))?;
        if matches!(done, Done::Replaced { large: true }) {
            let chain = self.tree.reference(buffer)?.structure();
            if wanted {
                self.tree.follow(buffer)?;
            }
            self.pending.give(self.txn, chain, moves)?;
        }
        Ok(done)
    }

    /// Runs `body`; what it did before it failed is rolled back.
    fn all_or_nothing<T>(
        &mut self,
        body: impl FnOnce(&mut Self, &mut Moves) -> Result<T>,
    ) -> Result<T> {
        let (point, mut moves) = (self.txn.savepoint(), Moves::default());
        let result = body(self, &mut moves);
        match &result {
            Ok(_) => self.moves.append(moves),
            Err(_) => self.txn.rollback_to(point)?,
        }
        result
    }
}
