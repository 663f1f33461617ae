//! The leaf of a transaction's last write, where the next one looks first.
//!
//! ```text
//!  keys      a   b   c   d   e   f   g   h         in ascending order, as loads have them
//!  leaf      A   A   A   A   B   B   B   B
//!            ▼   ▼   ·   ·   ▼   ▼   ·   ·         ▼ by descent: the second one to the same leaf says "again"
//! ```
//!
//! What is remembered is a page, not a key, so all is asked anew, of a glimpse that is validated like any other:
//!
//! - **V1** The page is a leaf of this tree. It says so itself, for a page that leaves a tree becomes something
//!   else in the same record. Only an exchange of whole contents leaves leaves behind, and then the era is another
//!   ([`super::exchange`]). That this is so until the leaf is latched is due to the intention lock: whoever
//!   exchanges contents, or drops a tree, locks it exclusively first. So who takes no locks remembers nothing.
//! - **V2** The key lies between its first and its last one, or behind the last one of all. A leaf holds every
//!   key of the tree from its first to its last, so what lies between belongs there. What lies behind the last one
//!   may belong to the sibling; only the parent knows, and is asked.
//!
//! Writes in random order pay for this with one comparison of page numbers.

use argali_base::PageId;
use argali_buffer_pool::{PageGlimpse, Restart};
use argali_txn::{Txn, Visit};

use super::descent::{Attempt, Node};
use super::node::{self, LeafCell, View};
use super::target::{Spot, Target};
use super::{BTree, search};

impl BTree {
    /// The leaf to be changed, and the spot of `key` in it.
    pub(super) fn locate(
        &self,
        txn: &mut Txn,
        key: &[u8],
        patient: bool,
    ) -> Attempt<(Target<'_>, Spot)> {
        // Before the descent, which then shows that the leaf is the tree's in this era.
        let era = self.space().era();
        let again = if patient { None } else { self.revisit(txn, key, era) };
        let (target, spot) = if let Some((leaf, spot)) = again {
            (Target::Seen(leaf), spot)
        } else {
            let target = self.target(key, patient)?;
            let spot = self.spot(&target, key)?;
            (target, spot)
        };
        if txn.takes_locks() {
            self.remember(txn, target.page(), era);
        }
        Ok((target, spot))
    }

    /// The leaf of the last write and the spot of `key` in it, if the writes stay there and it certainly belongs
    /// there, too.
    fn revisit(&self, txn: &Txn, key: &[u8], now: u64) -> Option<(Node<'_>, Spot)> {
        let Visit { structure, page, era, again } = txn.visit()?;
        if !again || structure != self.root() || era != now {
            return None;
        }
        // Whatever is wrong with it, the descent will tell.
        let leaf = self.pool().glimpse(page).ok()?;
        let spot = spot_in(&leaf, self.owner, key);
        leaf.validate().ok()?;
        Some((Node::unpinned(leaf), spot.ok()??))
    }

    fn remember(&self, txn: &mut Txn, page: PageId, era: u64) {
        let structure = self.root();
        let same = |last: Visit| (last.structure, last.page) == (structure, page);
        let again = txn.visit().is_some_and(same);
        txn.note_visit(Visit { structure, page, era, again });
    }
}

/// The spot of `key`, if the page is a leaf of the tree (V1) to which it belongs (V2).
fn spot_in(leaf: &PageGlimpse<'_>, owner: PageId, key: &[u8]) -> Result<Option<Spot>, Restart> {
    if node::level(leaf, owner)? != 0 {
        return Ok(None);
    }
    if let Some(place) = search::behind_all(leaf, key)? {
        return Ok(Some(Spot::of(leaf, place)?).filter(|spot| spot.link.is_none()));
    }
    if leaf.slot_count()? == 0 {
        return Ok(None);
    }
    let first = LeafCell::read(leaf, 0)?;
    let inside = leaf.order(first.key_at(), first.key_len, key)?.is_le();
    inside.then(|| Spot::read(leaf, key)).transpose()
}
