//! Claims: ranges of keys that a transaction has read and relies on, rows and gaps alike.
//!
//! ```text
//!  tree 7   ─────┬───┬────┬─────┬──────┬──┬─────────►  keys
//!                a   b    c     d      e  f
//!  t1 read      [=================)                    one claim: no lock for each row
//!  t2 writes c            ▲ waits for t1
//!  t2 writes e                         ▲ goes on
//! ```
//!
//! A lock is asked for by name, so a reader of a range has to lock each row and each gap in it. A claim is a
//! range and asks for nothing: the reader notes it in its own [`ClaimList`], and it is for the *writers* to
//! look whether somebody relies on what they are about to change. Both look at the page, too, and so one of
//! them sees the other:
//!
//! ```text
//!  reader   copy rows ─► note the claim ─► fence ─► page still as it was?  no: again
//!  writer   latch the page ──────────────► fence ─► a claim on the key?   yes: unlatch, wait, again
//! ```
//!
//! - **K1** A reader gives out only what it has found on a page that nobody active had changed there, and that was
//!   still the same *after* the claim stood in the list. Whoever changed it has ended; whoever will looks.
//! - **K2** A writer looks for claims on its key under the exclusive latch of the key's leaf, before it logs
//!   the change. Undo does not: the change it takes back did, and kept later claims away.
//! - **K3** Claims stay until their transaction ends.
//! - **K4** A list with claims behind a gate stands at that gate. Only writers take lists off, and only those
//!   without claims; so a reader writes to a shared line only if a writer has been there since it last did.
//! - **K5** A writer waits in the lock table, for a lock on [`LockName::Claims`] that it has the holder of the
//!   claims hold from then on, under the mutex of the holder's list. Whoever ends takes the claims off
//!   under that mutex, and gives the lock back afterwards. So queues, deadlocks and timeouts are those of
//!   all locks.
//! - **K6** While a writer waits for claims on its key, nobody claims that key anew: a reader waits for the lock
//!   that the writer has on it. Else readers who come and go could keep it waiting for ever.
//!
//! Mutexes are taken in the order gate, list, partition of the table. Trees share gates by their hash: meeting
//! by chance costs a look, never correctness.

use argali_base::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, RwLock, fence};
use argali_base::{Apart, TxnId, spread};

use super::LockName;
use super::ranges::{Ranges, Span};

const GATES: usize = 64;

/// The claims of one transaction; on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct ClaimList(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    txn: TxnId,
    ranges: Ranges,
    /// A bit for each gate where the list stands.
    gates: u64,
    /// Trees of which [`LockName::Claims`] is held in the table (K5).
    exposed: Vec<u64>,
    /// Claims noted so far, by whatever transaction.
    noted: u64,
}

/// A change about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Who makes it.
    pub txn: TxnId,
    /// Root page of the tree.
    pub tree: u64,
    /// What is to be inserted, changed or deleted.
    pub key: &'a [u8],
    /// The name under which it is locked exclusively.
    pub name: LockName,
}

/// Where readers and writers of some trees meet.
#[derive(Debug, Default)]
struct Gate {
    /// Lists that stand here; a writer passes at 0.
    lists: AtomicUsize,
    /// Writers that wait here; a reader passes at 0.
    writers: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lists: Vec<Arc<ClaimList>>,
    writers: Vec<Waiting>,
}

/// A [`Write`] that waits for claims (K6).
#[derive(Debug)]
struct Waiting {
    txn: TxnId,
    tree: u64,
    key: Vec<u8>,
    name: LockName,
}

/// All lists, and the gates.
#[derive(Debug)]
pub(super) struct Claims {
    lists: RwLock<Vec<Arc<ClaimList>>>,
    gates: Box<[Apart<Gate>]>,
}

impl ClaimList {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock()
    }

    /// Takes all claims off; the trees of which a lock stands in the table for them (K5).
    pub(super) fn clear(&self) -> Vec<u64> {
        let mut list = self.lock();
        list.txn = TxnId::NONE;
        list.ranges.clear();
        std::mem::take(&mut list.exposed)
    }
}

impl List {
    fn stands_at(&self, gate: usize) -> bool {
        self.gates & 1 << gate != 0
    }

    fn has_claims_at(&self, gate: usize) -> bool {
        self.ranges.trees().any(|tree| gate_of(tree) == gate)
    }

    /// The lock to wait for until these claims go; `adopt` puts it into the table.
    fn expose(&mut self, tree: u64, adopt: impl FnOnce(TxnId, LockName)) -> LockName {
        let name = LockName::Claims { tree, txn: self.txn };
        if !self.exposed.contains(&tree) {
            adopt(self.txn, name); // K5
            self.exposed.push(tree);
        }
        name
    }
}

impl Gate {
    fn admit(&self, inner: &mut Inner, list: &Arc<ClaimList>) {
        inner.lists.push(Arc::clone(list));
        self.lists.store(inner.lists.len(), Ordering::SeqCst);
    }
}

impl Claims {
    pub(super) fn new() -> Self {
        let gates = (0..GATES).map(|_| Apart::default()).collect();
        Self { lists: RwLock::new(Vec::new()), gates }
    }

    /// A list for one transaction at a time.
    pub(super) fn add_list(&self) -> Arc<ClaimList> {
        let list = Arc::new(ClaimList(Mutex::new(List::default())));
        self.lists.write().push(Arc::clone(&list));
        list
    }

    /// Notes in `list` that `txn` relies on `span`; `false` when there is no room. Nothing can be relied on
    /// that is not validated afterwards (K1).
    pub(super) fn claim(&self, list: &Arc<ClaimList>, txn: TxnId, span: &Span<'_>) -> bool {
        if span.is_empty() {
            return true;
        }
        let at = gate_of(span.tree);
        let mut own = list.lock();
        // Held until the claim stands, so that no writer takes the list off again before (K4).
        let mut standing = None;
        if !own.stands_at(at) {
            drop(own);
            let inner = standing.insert(self.gates[at].inner.lock());
            own = list.lock();
            own.gates |= 1 << at;
            self.gates[at].admit(inner, list);
        }
        own.txn = txn;
        own.noted += 1;
        let noted = own.ranges.add(span);
        drop(own);
        drop(standing);
        fence(Ordering::SeqCst); // K1
        noted
    }

    /// Whether somebody else may have claims in `tree`. A leaf is latched (K2).
    #[inline]
    pub(super) fn are_in(&self, tree: u64) -> bool {
        fence(Ordering::SeqCst); // K2
        self.gates[gate_of(tree)].lists.load(Ordering::Relaxed) > 0
    }

    /// The lock that `write` must wait for, put into the table by `adopt`: then the writer waits, until
    /// [`Claims::is_done`]. The leaf of its key is latched (K2), and [`Claims::are_in`] its tree.
    pub(super) fn against(
        &self,
        own: &Arc<ClaimList>,
        write: &Write<'_>,
        mut adopt: impl FnMut(TxnId, LockName),
    ) -> Option<LockName> {
        let at = gate_of(write.tree);
        let gate = &self.gates[at];
        let mut inner = gate.inner.lock();
        let mut found = None;
        inner.lists.retain(|list| {
            if Arc::ptr_eq(list, own) {
                return true;
            }
            let mut theirs = list.lock();
            if !theirs.has_claims_at(at) {
                theirs.gates &= !(1 << at); // K4
                return false;
            }
            if found.is_none() && theirs.ranges.cover(write.tree, write.key) {
                found = Some(theirs.expose(write.tree, &mut adopt));
            }
            true
        });
        gate.lists.store(inner.lists.len(), Ordering::SeqCst);
        if found.is_some() && !inner.writers.iter().any(|waiting| waiting.txn == write.txn) {
            let Write { txn, tree, key, name } = *write;
            inner.writers.push(Waiting { txn, tree, key: key.to_vec(), name }); // K6
            gate.writers.store(inner.writers.len(), Ordering::Relaxed);
        }
        found
    }

    /// `txn`, a writer that waited in `tree`, has made its change or given up.
    pub(super) fn is_done(&self, txn: TxnId, tree: u64) {
        let gate = &self.gates[gate_of(tree)];
        let mut inner = gate.inner.lock();
        inner.writers.retain(|waiting| waiting.txn != txn);
        gate.writers.store(inner.writers.len(), Ordering::Relaxed);
    }

    /// What a writer has locked who waits for claims on a key that `txn` is about to claim, and has not yet (K6).
    /// It may come too late to be seen: then it waits a little longer.
    #[inline]
    pub(super) fn writer_in(
        &self,
        list: &ClaimList,
        txn: TxnId,
        span: &Span<'_>,
    ) -> Option<LockName> {
        let gate = &self.gates[gate_of(span.tree)];
        if gate.writers.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let inner = gate.inner.lock();
        let own = list.lock();
        let mut others = inner.writers.iter().filter(|w| w.txn != txn && w.tree == span.tree);
        let first = others.find(|w| span.covers(&w.key) && !own.ranges.cover(w.tree, &w.key));
        first.map(|waiting| waiting.name)
    }

    /// Claims noted so far.
    pub(super) fn noted(&self) -> u64 {
        self.lists.read().iter().map(|list| list.lock().noted).sum()
    }
}

#[inline]
fn gate_of(tree: u64) -> usize {
    (spread(tree) >> 58) as usize
}
