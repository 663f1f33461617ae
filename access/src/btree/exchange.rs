//! A tree's whole content changes places with a spare one: one record, undone by the same again.
//!
//! ```text
//!  root R      spare S                    root R      spare S
//!  │ old │     │ n1 n2 │     exchange     │ n1 n2 │   │ old │
//!                │  │       ─────────►      │  │
//!               ▼   ▼                      ▼   ▼
//!               new leaves                 new leaves
//! ```
//!
//! A root never moves, so what is to replace a tree is built under a page of its own whose nodes carry
//! the tree's root as their owner from the start. Whichever content stands in the spare page is to be
//! freed when the transaction has ended: the old one after a commit, the new one after a rollback. So
//! neither way moves more than two pages.
//!
//! The tree must be locked exclusively. What other transactions did to the old content is settled then;
//! what this one did is undone after the contents have changed back, in the content where it was done.

use argali_base::{Error, PageId, Result};
use argali_pager::PageRef;
use argali_txn::{Edit, Txn, Undo};

use super::BTree;
use super::descent::{Attempt, Stop, retry};
use super::node::{self, Stored};
use super::undo::{self, Kind};
use crate::TREE_OWNER;

impl BTree {
    /// Exchanges the contents of root and `spare`; the undo of this is [`BTree::exchange_back`].
    pub(super) fn exchange(&self, txn: &mut Txn, spare: PageId) -> Result<()> {
        let mut body = Vec::new();
        let key = spare.get().to_le_bytes();
        undo::Body::new(Kind::Exchange, self.root(), &key, Stored::small(&[])).encode(&mut body);
        self.exchange_with(txn, spare, &body)
    }

    /// The compensation of an exchange; its own undo body is not logged.
    pub(super) fn exchange_back(&self, txn: &mut Txn, key: &[u8]) -> Result<()> {
        let Ok(spare) = key.try_into().map(u64::from_le_bytes) else {
            let what = format!("undo of an exchange of {} names no page", self.root());
            return Err(Error::corrupt("wal", txn.last_lsn().get(), Some(txn.last_lsn()), what));
        };
        self.exchange_with(txn, PageId::new(spare), &[])
    }

    fn exchange_with(&self, txn: &mut Txn, spare: PageId, body: &[u8]) -> Result<()> {
        // Cells are a little longer in the log than in the page.
        txn.admit(3 * self.pool().pager().options().page_size.bytes(), 2)?;
        retry(|patient| self.exchange_once(txn, spare, body, patient))?;
        self.space().new_era();
        Ok(())
    }

    fn exchange_once(
        &self,
        txn: &mut Txn,
        spare: PageId,
        body: &[u8],
        patient: bool,
    ) -> Attempt<()> {
        self.pool().glimpse(spare)?;
        let mut root = self.pool().write(self.root())?;
        let other =
            if patient { Some(self.pool().write(spare)?) } else { self.pool().try_write(spare)? };
        let Some(mut other) = other else { return Err(Stop::Again) };
        for page in [&root, &other] {
            self.inspect(page, |view| node::level(view, self.owner))?;
        }
        let (here, there) = (self.copy_of(&root), self.copy_of(&other));
        let all = |page: PageRef<'_>| 0..page.slot_count();
        let to_root = self.inspect(&other, |_| self.moved(there.page(), all(there.page()), 0))?;
        let to_other = self.inspect(&root, |_| self.moved(here.page(), all(here.page()), 0))?;
        let edits = &mut [
            Edit { page: &mut root, ops: &to_root },
            Edit { page: &mut other, ops: &to_other },
        ];
        txn.update(edits, Undo::Logical { owner: TREE_OWNER, body });
        Ok(())
    }
}
