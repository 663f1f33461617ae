//! Values of any size: which way one is stored, and reading and writing one as a stream.
//!
//! ```text
//!  put         small ─► leaf
//!              large ─► draft: page, page, page … ─► leaf: reference      the draft logs by itself; only
//!  put_stream  part by part into a draft ──────────► leaf: reference      the last step is the transaction's
//!
//!  value_reader   S lock on the key ─► page ─► page ─► …                  no latch between two pages
//! ```
//!
//! The database lock is taken before a draft begins, so that `verify` meets no half of one. Everything
//! else of the transaction, its own lock on the row included, comes afterwards. Each page is appended by
//! [`Session::run`], and so a full log is answered by a checkpoint in the middle of a value.

use std::io::{self, BufRead, Read};

use argali_access::{Draft, Parts, VALUE_BYTES_MAX};
use argali_base::{Error, Result};

use crate::session::Session;
use crate::tree::Tree;

impl Session {
    /// Sets `key` to `value`; whether there was an old value, which goes to `old`.
    pub(crate) fn put(
        &self,
        tree: &Tree,
        key: &[u8],
        value: &[u8],
        mut old: Option<&mut Vec<u8>>,
    ) -> Result<bool> {
        if tree.btree().fits(key, value.len()) {
            return self.write_rows(tree, |rows| rows.put(key, value, old.as_deref_mut()));
        }
        let mut draft = self.stored(tree, key, value)?;
        self.write_rows(tree, |rows| rows.put_large(key, &mut draft, old.as_deref_mut()))
    }

    /// A large value for `key`, which no row has yet.
    pub(crate) fn stored(&self, tree: &Tree, key: &[u8], value: &[u8]) -> Result<Draft<'_>> {
        if value.len() as u64 > VALUE_BYTES_MAX {
            let limit = VALUE_BYTES_MAX as usize;
            return Err(Error::TooLarge { what: "value", size: value.len(), limit });
        }
        let mut draft = self.draft(tree, key)?;
        for part in value.chunks(draft.part_bytes()) {
            self.run(|_| draft.append(part))?;
        }
        Ok(draft)
    }

    /// Sets `key` to `value` unless the key exists; whether it did so.
    pub(crate) fn insert_new(&self, tree: &Tree, key: &[u8], value: &[u8]) -> Result<bool> {
        if tree.btree().fits(key, value.len()) {
            return self.write_rows(tree, |rows| rows.insert_new(key, value));
        }
        // Locked for writing by the question, so the answer holds while the value is stored.
        let exists = self.write_tree(tree, |txn, btree| btree.contains_for_update(txn, key))?;
        if !exists {
            self.put(tree, key, value, None)?;
        }
        Ok(!exists)
    }

    /// Sets `key` to all that `source` gives; its length.
    pub(crate) fn put_stream(&self, tree: &Tree, key: &[u8], source: &mut dyn Read) -> Result<u64> {
        let mut draft = self.draft(tree, key)?;
        let most = draft.part_bytes();
        let mut part = Vec::with_capacity(most);
        loop {
            part.clear();
            let limit = most as u64;
            source.take(limit).read_to_end(&mut part).map_err(of_source)?;
            if draft.is_empty() && tree.btree().fits(key, part.len()) {
                self.write_rows(tree, |rows| rows.put(key, &part, None))?;
                return Ok(part.len() as u64);
            }
            if !part.is_empty() {
                self.run(|_| draft.append(&part))?;
            }
            if part.len() < most {
                break;
            }
        }
        let len = draft.len();
        self.write_rows(tree, |rows| rows.put_large(key, &mut draft, None))?;
        Ok(len)
    }

    /// A draft for the value of `key`, if there may be one.
    fn draft(&self, tree: &Tree, key: &[u8]) -> Result<Draft<'_>> {
        self.write_tree(tree, |_, btree| btree.check_key(key))?;
        let engine = &self.shared().engine;
        Ok(Draft::new(&engine.pending, &engine.txns))
    }
}

/// An error of the source of a value; one of ours, if the source is a [`ValueReader`].
fn of_source(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(theirs) => Error::io("read", "the source of a value", theirs),
    }
}

/// Reads a value as a stream; see [`Read::value_reader`](crate::Read::value_reader). Errors are those of
/// [`Read::get`](crate::Read::get), as [`std::io::Error`] with an [`Error`] inside.
pub struct ValueReader<'t> {
    session: &'t Session,
    parts: Parts,
    part: Vec<u8>,
    /// Bytes of `part` that were given out.
    at: usize,
}

impl<'t> ValueReader<'t> {
    pub(crate) fn open(session: &'t Session, tree: &Tree, key: &[u8]) -> Result<Option<Self>> {
        let parts = session.read_tree(tree, |txn, btree| btree.get_parts(txn, key))?;
        Ok(parts.map(|parts| Self { session, parts, part: Vec::new(), at: 0 }))
    }

    /// Bytes of the whole value.
    pub fn len(&self) -> u64 {
        self.parts.len()
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl BufRead for ValueReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.part.len() {
            let Self { session, parts, part, .. } = self;
            let space = &session.shared().engine.space;
            session.run(|_| parts.next(space, part)).map_err(io::Error::other)?;
            self.at = 0;
        }
        Ok(&self.part[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.part.len());
    }
}

impl Read for ValueReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut part = self.fill_buf()?;
        let bytes = part.read(buf)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

impl std::fmt::Debug for ValueReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueReader").field("len", &self.len()).finish_non_exhaustive()
    }
}
