//! Loading many sorted rows at once.
//!
//! ```text
//!  lock the tree (X) ── has it rows? ── no ──► build leaf after leaf, take the whole over at the end
//!                             └───────── yes ─► put row after row, behind the last one
//! ```
//!
//! Nothing is locked, latched or pinned while the rows' source runs, but for the tree: it may well be a scan
//! of another tree in the same transaction. What is built is seen by nobody before the end, so whatever goes
//! wrong on the way leaves the tree as it was.

use std::ops::Bound;

use argali_access::{Entry, must_ascend};
use argali_base::Result;

use crate::session::Session;
use crate::tree::Tree;

/// Loads `rows` into `tree`; how many.
pub(crate) fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    session: &Session,
    tree: &Tree,
    rows: impl IntoIterator<Item = Result<(K, V)>>,
) -> Result<u64> {
    let last = session.own_tree(tree, |txn, btree, _| {
        let mut last = Entry::default();
        let any = btree.prev(txn, Bound::Unbounded, Bound::Unbounded, &mut last)?;
        Ok(any.then(|| last.key().to_vec()))
    })?;
    let rows = rows.into_iter();
    match last {
        None => build(session, tree, rows),
        Some(last) => append(session, tree, rows, last),
    }
}

/// By pages, into a tree that has no rows. Values too large for a leaf are stored as they come, and their
/// rows put at the end, one by one.
fn build<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    session: &Session,
    tree: &Tree,
    rows: impl Iterator<Item = Result<(K, V)>>,
) -> Result<u64> {
    let engine = &session.shared().engine;
    let mut loader = tree.btree().loader(&engine.txns, &engine.pending)?;
    let mut large: Vec<(Vec<u8>, _)> = Vec::new();
    for row in rows {
        let (key, value) = row?;
        let (key, value) = (key.as_ref(), value.as_ref());
        must_ascend(large.last().map(|(last, _)| &**last), key)?;
        if tree.btree().fits(key, value.len()) {
            if loader.has_room(key, value) {
                loader.push(key, value)?;
            } else {
                session.run(|_| loader.push(key, value))?;
            }
        } else {
            must_ascend(loader.last_key(), key)?;
            large.push((key.to_vec(), session.stored(tree, key, value)?));
        }
    }
    all_or_nothing(session, || {
        let small = session.own_tree(tree, |txn, _, moves| loader.finish(txn, moves))?;
        for (key, draft) in &mut large {
            session.write_rows(tree, |rows| rows.put_large(key, draft, None))?;
        }
        Ok(small + large.len() as u64)
    })
}

/// By rows, behind those that are there.
fn append<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    session: &Session,
    tree: &Tree,
    rows: impl Iterator<Item = Result<(K, V)>>,
    mut last: Vec<u8>,
) -> Result<u64> {
    all_or_nothing(session, || {
        let mut count = 0;
        for row in rows {
            let (key, value) = row?;
            must_ascend(Some(&last), key.as_ref())?;
            last.clear();
            last.extend_from_slice(key.as_ref());
            session.put(tree, key.as_ref(), value.as_ref(), None)?;
            count += 1;
        }
        Ok(count)
    })
}

/// Runs `body`; what it did before it failed is rolled back.
fn all_or_nothing<T>(session: &Session, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = session.mark()?;
    let result = body();
    if result.is_err() {
        session.rollback_to(&before)?;
    }
    result
}
