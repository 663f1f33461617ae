//! Tidying: thin leaves are noticed where rows go, and joined when there is time.
//!
//! ```text
//!  delete, rollback of an insert ─ crumbled ─┐                      tidy(key)
//!  purge ──────────────────────── note_leaf ─┼─► ThinLeaves ─►      purge the leaf
//!  scan ──────────────────────────── notice ─┤  (in memory)         level 0: join left, or right ──┐
//!  not possible just now ──────── note_leaf ─┘                      level 1: …      after a join: ─┘
//!                                                                   up to the root  level 0 again
//! ```
//!
//! Nobody waits for it: a note is a short look at the leaf and an entry in a list, and the work is done by a
//! transaction of the engine that takes no locks and asks only whether there are some. What cannot be
//! done now, because an active transaction may want a ghost back or a reader has locked its gap, is noted
//! again; where the neighbours are full, the leaf waits until one of them is thin.

use argali_base::Result;
use argali_base::sync::Arc;
use argali_buffer_pool::{PageGlimpse, PageWrite, Restart};
use argali_txn::Txn;

use super::descent::{Attempt, Node, retry};
use super::merge::{Join, Side};
use super::node;
use super::{BTree, fill};
use crate::Space;

impl BTree {
    /// Whether [`BTree::tidy_some`] would find a leaf to tidy. Asks memory only.
    pub fn can_tidy(space: &Space) -> bool {
        space.thin_leaves().any(space.commit_lsn())
    }

    /// Tidies up to `leaves` of the leaves noted as thin, of whatever trees, and the nodes above them: clears
    /// ghosts that are nobody's any more and joins nodes that fit into one. Each change is one record, never
    /// undone. `txn` should be one of the engine's own; trees that nobody can reach any more must not be
    /// freed meanwhile. Once `txn` has committed, [`BTree::can_tidy`] says whether there is more to do.
    ///
    /// # Errors
    /// `LogFull`, `Corrupt`, `Io`. But for damage, the leaf is noted again.
    pub fn tidy_some(space: &Arc<Space>, txn: &mut Txn, leaves: usize) -> Result<()> {
        for _ in 0..leaves {
            let Some((leaf, thin)) = space.thin_leaves().take(space.commit_lsn()) else {
                break;
            };
            let tidied = Self::open(space, thin.root).tidy(txn, &thin.key);
            if let Err(error) = tidied {
                if !error.is_corruption() {
                    let tail = space.log_tail();
                    space.thin_leaves().note(leaf, (thin.root, &thin.key), tail);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn tidy(&self, txn: &mut Txn, key: &[u8]) -> Result<()> {
        self.purge(txn, key, 0)?;
        let (mut level, mut again) = (0, false);
        loop {
            match self.tidy_level(txn, key, level)? {
                // It has new neighbours. Each join frees a page, so this comes to an end.
                Join::Done => level = 0,
                Join::Refused => level += 1,
                Join::Burdened(_) => (level, again) = (level + 1, true),
                Join::Top => break,
            }
        }
        self.note_leaf(key, |leaf, room| {
            let ghosts = fill::removable_bytes(leaf)?;
            Ok((again || fill::is_worth_purging(ghosts, room)) && fill::is_thin(leaf, 0, room)?)
        })
    }

    /// Joins the node at `level` above `key` with a neighbour, which is purged first if it is a leaf too full
    /// of ghosts.
    fn tidy_level(&self, txn: &mut Txn, key: &[u8], level: u8) -> Result<Join> {
        let mut outcome = Join::Refused;
        for side in [Side::Left, Side::Right] {
            let mut join = retry(|patient| self.join(txn, key, (level, side), patient))?;
            if let Join::Burdened(neighbour) = &join
                && self.purge(txn, neighbour, 0)?
            {
                join = retry(|patient| self.join(txn, key, (level, side), patient))?;
            }
            match join {
                Join::Done | Join::Top => return Ok(join),
                Join::Burdened(_) => outcome = join,
                Join::Refused => {}
            }
        }
        Ok(outcome)
    }

    /// The row at `slot` of `leaf`, `key`, became a ghost just now. Lets go of the latch.
    pub(super) fn crumbled(&self, leaf: PageWrite<'_>, slot: usize, key: &[u8]) {
        let crumbles = leaf.id() != self.root()
            && fill::crumbles(&leaf.page(), slot, self.room()).unwrap_or(false);
        let (id, lsn) = (leaf.id(), leaf.page().lsn());
        drop(leaf);
        if crumbles {
            self.space().thin_leaves().note(id, (self.root(), key), lsn);
        }
    }

    /// Notes the leaf of `key` if it `is_due`, to be looked at when the transactions of now have ended.
    pub(super) fn note_leaf(
        &self,
        key: &[u8],
        is_due: impl Fn(&PageGlimpse<'_>, usize) -> Result<bool, Restart>,
    ) -> Result<()> {
        retry(|patient| {
            let (leaf, _) = self.descend(key, 0, patient)?;
            let id = leaf.glimpse.id();
            if id != self.root() && self.look(&leaf.glimpse, |view| is_due(view, self.room()))? {
                self.space().thin_leaves().note(id, (self.root(), key), self.space().log_tail());
            }
            Ok(())
        })
    }

    /// A scan came to `leaf`, whose first key is `key`.
    pub(super) fn notice(&self, leaf: &Node<'_>, key: &[u8]) -> Attempt<()> {
        let id = leaf.glimpse.id();
        let (haunted, lsn) = self.look(&leaf.glimpse, |view| {
            Ok((fill::is_haunted(view, self.room())?, node::lsn(view)?))
        })?;
        if haunted && id != self.root() {
            self.space().thin_leaves().note(id, (self.root(), key), lsn);
        }
        Ok(())
    }
}
