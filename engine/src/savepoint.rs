//! Savepoints: points within a transaction to return to.
//!
//! ```text
//! let mut tx = db.begin()?;            tx.put(a)
//! {   let mut one = tx.savepoint()?;      one.put(b)
//!     {   let two = one.savepoint()?;        two.put(c)
//!         two.rollback()?;                                 // c is gone
//!     }   one.release();                                   // b stays
//! }   tx.commit()?;                                        // a and b
//! ```
//!
//! A savepoint borrows its transaction, so the innermost one is the only one that can be used: the borrow
//! checker keeps them nested, and no names can collide. Rolling back writes compensation records by the
//! same code as an abort; locks stay, because others may have been told to wait for them.

use std::ops::{Deref, DerefMut};

use argali_base::Result;

use crate::session::Mark;
use crate::write::Write;

/// A point to return to. Derefs to [`Write`]; dropping it rolls back to it.
pub struct Savepoint<'w> {
    write: &'w mut Write,
    /// `None` once released or rolled back.
    mark: Option<Mark>,
}

impl<'w> Savepoint<'w> {
    pub(crate) fn new(write: &'w mut Write) -> Result<Self> {
        let mark = Some(write.session().mark()?);
        Ok(Self { write, mark })
    }

    /// As [`Savepoint::new`], around a nested top action.
    pub(crate) fn nested(write: &'w mut Write) -> Result<Self> {
        let mark = Some(write.session().begin_nested()?);
        Ok(Self { write, mark })
    }

    /// Ends the nested action: what was done since stays, whatever becomes of the transaction.
    pub(crate) fn settle(mut self) -> Result<()> {
        if let Some(mark) = &self.mark {
            self.write.session().end_nested(mark)?;
        }
        self.mark = None;
        Ok(())
    }

    /// Keeps what was done since; an abort or an outer savepoint can still take it back.
    pub fn release(mut self) {
        self.mark = None;
    }

    /// Takes back what was done since. On an error the transaction can only be aborted.
    pub fn rollback(mut self) -> Result<()> {
        self.roll_back()
    }

    fn roll_back(&mut self) -> Result<()> {
        self.mark.take().map_or(Ok(()), |mark| self.write.session().rollback_to(&mark))
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        // A failure leaves the transaction failed, so that it cannot commit half of what was meant.
        let _ = self.roll_back();
    }
}

impl Deref for Savepoint<'_> {
    type Target = Write;
    fn deref(&self) -> &Write {
        self.write
    }
}

impl DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut Write {
        self.write
    }
}
