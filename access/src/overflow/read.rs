//! Reading a chain, one page at a time.
//!
//! The caller holds a lock on the key whose row refers to the chain, so the chain stays as it is for as
//! long as the reading takes; a latch is held only while one page is copied. What is allocated grows
//! with the pages that were really there, never by a length that was only read.

use argali_base::{PageId, Result};
use argali_buffer_pool::BufferPool;

use super::{Part, Reference, no_part};
use crate::Space;
use crate::attempt::retry;
use crate::fault::corrupt;

/// A value, part by part: the whole of a small one, or page after page of a large one. Valid while the
/// transaction that got it lives.
#[derive(Debug)]
pub struct Parts {
    source: Source,
    len: u64,
}

#[derive(Debug)]
enum Source {
    Small(Option<Vec<u8>>),
    Large(Walk),
}

/// Where the reading of a chain stands.
#[derive(Debug)]
struct Walk {
    reference: Reference,
    /// `None` at the end.
    next: Option<PageId>,
    index: u32,
    /// Bytes read.
    read: u64,
}

impl Parts {
    pub(crate) fn small(value: Vec<u8>) -> Self {
        Self { len: value.len() as u64, source: Source::Small(Some(value)) }
    }

    pub(crate) fn large(reference: Reference) -> Self {
        Self { len: reference.len, source: Source::Large(Walk::new(reference)) }
    }

    /// Bytes of the value.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the next part into `part` (cleared first); empty at the end.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn next(&mut self, space: &Space, part: &mut Vec<u8>) -> Result<()> {
        part.clear();
        match &mut self.source {
            Source::Small(value) => {
                *part = value.take().unwrap_or_default();
                Ok(())
            }
            Source::Large(walk) => walk.step(space.pool(), part),
        }
    }
}

impl Walk {
    fn new(reference: Reference) -> Self {
        Self { reference, next: Some(reference.first), index: 0, read: 0 }
    }

    /// Appends the bytes of the next page.
    fn step(&mut self, pool: &BufferPool, out: &mut Vec<u8>) -> Result<()> {
        let Some(id) = self.next else { return Ok(()) };
        let Reference { first, len } = self.reference;
        let page = retry(|_| Ok(pool.read_passing(id)?))?;
        let part = Part::read(page.page(), first).filter(|part| part.index == self.index);
        let Some(part) = part else { return Err(no_part(pool, id, first)) };
        let read = self.read + part.data.len() as u64;
        // At its last page a chain has its length, and before that it has less.
        if read > len || (read == len) != part.next.is_none() {
            let what = format!("ends {read} bytes of the overflow chain at {first} of {len} bytes");
            return Err(corrupt(pool, id, what));
        }
        out.extend_from_slice(part.data);
        (self.next, self.read) = (part.next, read);
        self.index += 1;
        Ok(())
    }
}

/// Appends the whole value to `out`.
pub(crate) fn read_all(pool: &BufferPool, reference: Reference, out: &mut Vec<u8>) -> Result<()> {
    let mut walk = Walk::new(reference);
    while walk.next.is_some() {
        walk.step(pool, out)?;
    }
    Ok(())
}
