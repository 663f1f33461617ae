//! The three names every record and page is known by.
//!
//! They are newtypes so that a page id can never be passed where an LSN is meant, and they print in
//! one form everywhere: `@120` is an LSN, `p7` a page, `t3` a transaction.

use std::fmt;

/// Log sequence number: the byte offset of a record in an endless log (ARIES, section 3).
///
/// LSNs only grow, across restarts too. [`Lsn::NONE`] means "no record": it ends a `prev` chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// No record. No record ever stands at offset 0.
    pub const NONE: Self = Self(0);
    /// Where the first record of a new database stands.
    pub const FIRST: Self = Self(64);
    /// Greater than every LSN of a record.
    pub const MAX: Self = Self(u64::MAX);

    /// The LSN at `offset` bytes into the log.
    pub const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// Byte offset in the log.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this names no record.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The LSN `bytes` further on.
    #[must_use]
    pub const fn advance(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// Number of a page: its offset in the data file divided by the page size. Ids are dense.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PageId(u64);

impl PageId {
    /// The page numbered `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The page's number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Number of a transaction. Never reused within a database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TxnId(u64);

impl TxnId {
    /// Owner of records that belong to no transaction (checkpoints).
    pub const NONE: Self = Self(0);

    /// The transaction numbered `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The transaction's number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

macro_rules! prefixed {
    ($name:ident, $prefix:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
prefixed!(Lsn, "@");
prefixed!(PageId, "p");
prefixed!(TxnId, "t");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_prints_in_its_one_form() {
        let (lsn, page, txn) = (Lsn::new(120), PageId::new(7), TxnId::new(3));
        assert_eq!(format!("{lsn} {page} {txn}"), "@120 p7 t3");
        assert_eq!(format!("{lsn:?} {page:?} {txn:?}"), "@120 p7 t3");
        assert_eq!((lsn.get(), page.get(), txn.get()), (120, 7, 3));
    }

    #[test]
    fn no_record_is_before_all_records() {
        assert!(Lsn::NONE.is_none() && !Lsn::FIRST.is_none());
        assert!(Lsn::NONE < Lsn::FIRST && Lsn::FIRST < Lsn::MAX);
        assert_eq!(Lsn::FIRST.advance(8), Lsn::new(72));
        assert_eq!((Lsn::default(), TxnId::default()), (Lsn::NONE, TxnId::NONE));
    }
}
