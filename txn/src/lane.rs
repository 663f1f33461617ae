//! Lanes: how transactions begin and end without a write to what other threads write.
//!
//! ```text
//!  thread a ─► lane 17: ids 65..=128, kits ─┐
//!                                           ├─► TxnCore: log, pool, table, locks
//!  thread b ─► lane 42: ids 129..=192, kits ┘   (its reference count is the lanes' alone)
//! ```
//!
//! A reader's whole transaction takes less time than a few cache lines need to come from another core. So
//! what every begin and end must write is [`Striped`]: a block of transaction ids, the kits of transactions
//! that ended, and the reference count itself: a transaction holds its lane, and the lane holds the rest. It
//! ends on the lane it began on, on whatever thread that is.
//!
//! Ids are unique, and no longer in the order of beginnings. A block is taken from the table whole, so "every
//! id below [`TxnTable::next_txn`](crate::table::TxnTable) may be in use" stays true for checkpoints.

use std::ops::{Deref, Range};

use argali_base::TxnId;
use argali_base::sync::{Arc, Mutex};

use crate::manager::TxnCore;
use crate::txn::{Kind, Kit};
use crate::{Txn, TxnOptions};

/// Ids a lane takes at a time.
const BLOCK: u64 = 64;

/// What the transactions of one thread have in common, beside the core they share with all.
pub(crate) struct Lane {
    core: Arc<TxnCore>,
    idle: Mutex<Idle>,
}

/// What waits for the next transaction.
#[derive(Default)]
struct Idle {
    /// Transaction ids that nobody has had.
    ids: Range<u64>,
    /// Boxed, because a kit moves between here and its transaction all the time.
    #[allow(clippy::vec_box)]
    kits: Vec<Box<Kit>>,
}

impl Deref for Lane {
    type Target = TxnCore;
    #[inline]
    fn deref(&self) -> &TxnCore {
        &self.core
    }
}

impl Lane {
    pub(crate) fn new(core: &Arc<TxnCore>) -> Self {
        Self { core: Arc::clone(core), idle: Mutex::default() }
    }

    /// A new transaction.
    #[inline]
    pub(crate) fn begin(self: &Arc<Self>, kind: Kind, options: TxnOptions) -> Txn {
        let mut idle = self.idle.lock();
        let (id, kit) = (idle.take_id(&self.core), idle.kits.pop());
        drop(idle);
        Txn::new(Arc::clone(self), id, kind, (options, kit.unwrap_or_else(|| self.new_kit())))
    }

    /// A transaction that a restart found.
    pub(crate) fn resume(self: &Arc<Self>, id: TxnId, kind: Kind) -> Txn {
        let kit = self.idle.lock().kits.pop().unwrap_or_else(|| self.new_kit());
        Txn::new(Arc::clone(self), id, kind, (TxnOptions::default(), kit))
    }

    /// Takes a kit back from a transaction that ended; its slot is free.
    #[inline]
    pub(crate) fn recycle(&self, kit: Box<Kit>) {
        self.idle.lock().kits.push(kit);
    }

    /// Uses no id that was taken from the table before.
    pub(crate) fn drop_ids(&self) {
        self.idle.lock().ids = 0..0;
    }

    fn new_kit(&self) -> Box<Kit> {
        let locks = &self.core.locks;
        Box::new(Kit::new(self.core.table.add_slot(), locks.add_list(), locks.add_claims()))
    }
}

impl Idle {
    #[inline]
    fn take_id(&mut self, core: &TxnCore) -> TxnId {
        if self.ids.is_empty() {
            self.ids = core.table.take_ids(BLOCK);
        }
        TxnId::new(self.ids.next().expect("a block has ids"))
    }
}
