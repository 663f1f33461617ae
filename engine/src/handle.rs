//! What a handle of a named tree or heap knows.
//!
//! A handle has no lifetime: it can be kept for as long as the database is open and used in any
//! transaction. What it must not do is reach pages that belong to somebody else by now. So each use
//! first takes the intention lock of what it stands for, then looks at `dropped`: a drop holds the
//! exclusive lock until its transaction ends, so whoever gets the lock afterwards reads a settled answer.

use std::sync::{OnceLock, Weak};

use argali_access::{Kind, Structure};
use argali_base::sync::{Arc, AtomicBool, Ordering};
use argali_base::{Error, PageId, Result};
use argali_txn::{LockMode, LockName, Txn};

/// What can have a name, by the number its catalog row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Named {
    Tree = 1,
    Heap = 2,
    Sequence = 3,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) named: Named,
    pub(crate) root: PageId,
}

/// A handle of whatever has a name.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Meta>);

/// What all handles of one thing share.
pub(crate) struct Meta {
    name: Name,
    place: Place,
    dropped: AtomicBool,
    /// Which opening of which database this belongs to.
    home: Home,
}

/// A name and those it was changed to, the last one being right: so that it can be borrowed from a handle.
/// Renaming is rare enough for the old ones to stay as long as the handles.
struct Name {
    text: String,
    next: OnceLock<Box<Name>>,
}

impl Name {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), next: OnceLock::new() }
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }
}

/// Identity of one opening: equal only to its clones.
#[derive(Clone, Default)]
pub(crate) struct Home(Arc<()>);

impl Home {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Handle {
    pub(crate) fn new(name: &str, place: Place, home: &Home) -> Self {
        let (name, home) = (Name::new(name), home.clone());
        Self(Arc::new(Meta { name, place, dropped: AtomicBool::new(false), home }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name.last().text
    }

    /// Only the holder of the exclusive locks on the rows of both names may change it.
    pub(crate) fn set_name(&self, name: &str) {
        let next = Box::new(Name::new(name));
        assert!(self.0.name.last().next.set(next).is_ok(), "two transactions rename {name:?}");
    }

    pub(crate) fn place(&self) -> Place {
        self.0.place
    }

    pub(crate) fn root(&self) -> PageId {
        self.0.place.root
    }

    pub(crate) fn lock_name(&self) -> LockName {
        LockName::Tree(self.root().get())
    }

    pub(crate) fn downgrade(&self) -> Weak<Meta> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(meta: &Weak<Meta>) -> Option<Self> {
        meta.upgrade().map(Self)
    }

    pub(crate) fn check_home(&self, home: &Home) -> Result<()> {
        if self.0.home.is(home) {
            return Ok(());
        }
        let name = self.name();
        let why = format!("{name:?} was opened from another database, or before a reopen");
        Err(Error::Invalid { what: self.0.place.named.noun(), why })
    }

    /// Only the holder of the exclusive lock may change it.
    pub(crate) fn set_dropped(&self, dropped: bool) {
        self.0.dropped.store(dropped, Ordering::Release);
    }

    /// Takes the lock in `mode` and makes sure that what it stands for still exists.
    pub(crate) fn enter(&self, txn: &mut Txn, mode: LockMode) -> Result<()> {
        // Nearly always it is held, since the first use in this transaction.
        if txn.intention(self.root().get(), mode).is_none() {
            txn.lock(self.lock_name(), mode)?;
        }
        if self.is_dropped() {
            return Err(self.0.place.named.missing(self.name()));
        }
        Ok(())
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.0.dropped.load(Ordering::Acquire)
    }
}

impl Named {
    /// The sort with this number in the catalog; `None` when there is none.
    pub(crate) const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Tree),
            2 => Some(Self::Heap),
            3 => Some(Self::Sequence),
            _ => None,
        }
    }

    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Tree | Self::Sequence => Kind::Tree,
            Self::Heap => Kind::Heap,
        }
    }

    /// What it is called in errors.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Heap => "heap",
            Self::Sequence => "sequence",
        }
    }

    /// There is no such thing of that name.
    pub(crate) fn missing(self, name: &str) -> Error {
        Error::NotFound { what: self.noun(), name: name.to_owned() }
    }
}

impl Place {
    pub(crate) const fn structure(self) -> Structure {
        Structure { kind: self.named.kind(), first: self.root }
    }
}
