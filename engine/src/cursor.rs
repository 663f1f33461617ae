//! Cursors: a place in the order of keys that can be moved both ways.
//!
//! ```text
//!   start   a   c   d   end        seek("b") ─► c      next ─► d, next ─► none: at the end
//!     │     │   │   │    │         seek_before("c") ─► a      prev ─► none: at the start
//!     └─────┴───┴───┴────┘         at the end, prev ─► d; at the start, next ─► a
//! ```
//!
//! A cursor stands at a *key*, not at a cell of a page. So nothing that happens to pages concerns it:
//! splits, merges, changes of its own transaction. If its key is deleted, it stays where that key was:
//! `next` leads to the first key above, `prev` to the last key below, and so does it all again when a
//! rollback to a savepoint brings the key back. Some rows are copied ahead, and each is given out only while
//! its page is as it was then; so a step usually needs no descent, and no lock where the page is committed
//! for good and the isolation level asks for no more.
//!
//! Between calls a cursor holds no latch and no page: only the locks that its transaction holds anyway.
//!
//! Left out: cursors with bounds (that is [`Scan`](crate::Scan)) and writing through a cursor: `put` and
//! `delete` take the key it shows.

use std::borrow::Cow;
use std::ops::Bound;

use argali_access::{Entry, Way};
use argali_base::Result;

use crate::session::Session;
use crate::tree::Tree;

/// Key and value, borrowed from a cursor until it moves.
pub type Row<'c> = (&'c [u8], &'c [u8]);

/// A place in a tree. Allocates nothing once its buffers are as large as the rows it meets.
///
/// ```
/// # fn main() -> argali::Result<()> {
/// # let db = argali::Options::new().in_memory()?;
/// # db.update(|tx| {
/// let tree = tx.tree("fruit")?;
/// for fruit in ["apple", "banana", "cherry"] {
///     tx.put(&tree, fruit, "")?;
/// }
/// let mut cursor = tx.cursor(&tree)?;
/// assert_eq!(cursor.seek("b")?.unwrap().0, b"banana");
/// tx.delete(&tree, "banana")?; // the cursor stays in the gap
/// assert_eq!(cursor.prev()?.unwrap().0, b"apple");
/// assert_eq!(cursor.next()?.unwrap().0, b"cherry");
/// assert_eq!(cursor.next()?, None);
/// # Ok(()) }) }
/// ```
pub struct Cursor<'t> {
    session: &'t Session,
    tree: Cow<'t, Tree>,
    place: Place,
    /// The row, if there is one; the key, if it stands at one.
    entry: Entry,
}

/// Where a cursor stood. Holds nothing, not even its transaction: see [`Cursor::leave`].
#[derive(Clone, Debug)]
pub struct Bookmark {
    tree: Tree,
    place: Place,
    /// The key, if it stands at one; otherwise only a buffer.
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first key.
    Start,
    Key,
    /// Behind the last key.
    End,
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(session: &'t Session, tree: &'t Tree) -> Result<Self> {
        Self::open(session, Cow::Borrowed(tree), Place::Start, Entry::default())
    }

    pub(crate) fn resume(session: &'t Session, at: Bookmark) -> Result<Self> {
        Self::open(session, Cow::Owned(at.tree), at.place, Entry::at(at.key))
    }

    fn open(session: &'t Session, tree: Cow<'t, Tree>, place: Place, entry: Entry) -> Result<Self> {
        session.read_tree(&tree, |_, _| Ok(()))?;
        Ok(Self { session, tree, place, entry })
    }

    /// To the first row whose key is `key` or above; without one, to the end.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Row<'_>>> {
        self.seek_from(Bound::Included(key.as_ref()))
    }

    /// To the last row whose key is below `key`; without one, to the start.
    pub fn seek_before(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Row<'_>>> {
        self.seek_to(Bound::Excluded(key.as_ref()))
    }

    /// To the first row; without one, to the end.
    pub fn seek_first(&mut self) -> Result<Option<Row<'_>>> {
        self.seek_from(Bound::Unbounded)
    }

    /// To the last row; without one, to the start.
    pub fn seek_last(&mut self) -> Result<Option<Row<'_>>> {
        self.seek_to(Bound::Unbounded)
    }

    /// To the first row above the place; without one, to the end. A new cursor stands at the start.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend its rows")]
    pub fn next(&mut self) -> Result<Option<Row<'_>>> {
        match self.place {
            Place::Start => self.seek_from(Bound::Unbounded),
            Place::Key => self.advance(Way::Forward),
            Place::End => Ok(None),
        }
    }

    /// To the last row below the place; without one, to the start.
    pub fn prev(&mut self) -> Result<Option<Row<'_>>> {
        match self.place {
            Place::Start => Ok(None),
            Place::Key => self.advance(Way::Backward),
            Place::End => self.seek_to(Bound::Unbounded),
        }
    }

    /// Key and value as they were when the cursor came here; `None` at start and end, and after an error.
    pub fn row(&self) -> Option<Row<'_>> {
        self.entry.row()
    }

    /// The key of [`Cursor::row`].
    pub fn key(&self) -> Option<&[u8]> {
        self.row().map(|(key, _)| key)
    }

    /// The value of [`Cursor::row`].
    pub fn value(&self) -> Option<&[u8]> {
        self.row().map(|(_, value)| value)
    }

    /// Gives the cursor up but not its place. A savepoint borrows the transaction for itself; a bookmark
    /// does not mind, and [`Read::cursor_at`](crate::Read::cursor_at) makes a cursor of it again.
    pub fn leave(self) -> Bookmark {
        let Self { tree, place, entry, .. } = self;
        Bookmark { tree: tree.into_owned(), place, key: entry.key().to_vec() }
    }

    fn seek_from(&mut self, from: Bound<&[u8]>) -> Result<Option<Row<'_>>> {
        let Self { session, tree, entry, .. } = self;
        let found =
            session.read_tree(tree, |txn, btree| btree.next(txn, from, Bound::Unbounded, entry));
        self.arrive(found, Place::End)
    }

    fn seek_to(&mut self, to: Bound<&[u8]>) -> Result<Option<Row<'_>>> {
        let Self { session, tree, entry, .. } = self;
        let found =
            session.read_tree(tree, |txn, btree| btree.prev(txn, Bound::Unbounded, to, entry));
        self.arrive(found, Place::Start)
    }

    fn advance(&mut self, way: Way) -> Result<Option<Row<'_>>> {
        let found = self.session.advance(&self.tree, way, Bound::Unbounded, &mut self.entry);
        let beyond = match way {
            Way::Forward => Place::End,
            Way::Backward => Place::Start,
        };
        self.arrive(found, beyond)
    }

    /// A step has ended: on a row, or `beyond` all rows. After an error the place is where it was.
    fn arrive(&mut self, found: Result<bool>, beyond: Place) -> Result<Option<Row<'_>>> {
        self.place = if found? { Place::Key } else { beyond };
        Ok(self.row())
    }
}
