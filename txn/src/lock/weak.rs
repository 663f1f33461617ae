//! Weak locks: intention locks that stay with their transaction while nobody asks for the whole.
//!
//! ```text
//!  weak    (IS, IX)      lock my list ─► gate open? ── yes ─► note it in my list
//!                                           └── no ─► move mine on that name to the table, ask there
//!  strong  (S, SIX, X)   shut the gate ─► go through all lists, move those on that name to the table
//!                        ─► ask the table … give it back ─► open the gate
//! ```
//!
//! Every transaction takes an intention lock on the tree it reads, and they are all compatible with each
//! other. In the table they would meet under one mutex; here a transaction writes only to its own [`WeakList`].
//! (The *fast-path locks* of `PostgreSQL`.) Gates are counters of strong holders and askers, shared by the hash
//! of names: meeting by chance costs a way through the table, never correctness.
//!
//! - **W1** A lock stands in its transaction's list or in the table, never in both. Both ends look in the list
//!   first, under its mutex.
//! - **W2** A gate is shut from before its strong request goes through the lists until that lock is gone. A
//!   weak request looks at the gate under its list's mutex: either it sees the gate shut, or whoever shut it
//!   comes by afterwards. So while a strong lock is held or waited for, every lock on its name is in the
//!   table, and what is said there of queues and deadlocks holds.
//! - **W3** What is moved is compatible with all that is there: when it was noted the gate was open, and
//!   no strong request has been through this list since.
//!
//! Early release: a weak holder that committed leaves no tag (that would be a write to a shared line); a
//! strong request depends on the horizon of all commits instead. An exclusive holder leaves its commit LSN at
//! the gate, where weak requests read it.

use argali_base::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, RwLock};
use argali_base::{Lsn, TxnId};

use super::{Granted, LockMode, LockName, Request, Term};

const GATES: usize = 64;
/// Locks a list takes; further ones go to the table.
const LIST_MAX: usize = 16;

/// The weak locks of one transaction that are not in the table; on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct WeakList(Mutex<List>);

#[derive(Debug)]
struct List {
    locks: Vec<Weak>,
    /// Requests granted so far.
    acquired: u64,
}

#[derive(Clone, Copy, Debug)]
struct Weak {
    txn: TxnId,
    name: LockName,
    mode: LockMode,
}

/// Whether somebody wants the whole of something.
#[derive(Debug, Default)]
struct Gate {
    /// Strong locks held or asked for: open at 0.
    strong: AtomicUsize,
    /// Greatest commit LSN with which an X lock was given back.
    exclusive: AtomicU64,
}

/// All lists, and the gates.
#[derive(Debug)]
pub(super) struct WeakLocks {
    lists: RwLock<Vec<Arc<WeakList>>>,
    gates: Box<[Gate]>,
    mutations: WeakMutations,
}

/// Rules a test can switch off.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent switches, one per rule
pub struct WeakMutations {
    /// A strong request does not look into the lists.
    pub strong_overlooks_weak: bool,
    /// A weak request does not look at the gate.
    pub weak_overlooks_strong: bool,
    /// A strong request depends on no commit that weak holders left.
    pub strong_without_horizon: bool,
    /// A gate opens without word of the X lock that was behind it.
    pub gate_without_horizon: bool,
    /// Who relies on a gap is not counted ([`super::gaps`]).
    pub gaps_uncounted: bool,
}

/// How a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strength {
    Weak,
    Strong,
    /// A lock on a key: none of this concerns it.
    Key,
}

impl Strength {
    #[inline]
    pub(super) const fn of(mode: LockMode) -> Self {
        match mode {
            LockMode::IS | LockMode::IX => Self::Weak,
            LockMode::S | LockMode::SIX | LockMode::X => Self::Strong,
            LockMode::Key { .. } => Self::Key,
        }
    }
}

impl WeakList {
    fn new() -> Self {
        Self(Mutex::new(List { locks: Vec::with_capacity(LIST_MAX), acquired: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock()
    }

    /// Takes `name` out; whether it was there.
    #[inline]
    pub(super) fn remove(&self, name: LockName) -> bool {
        let mut list = self.lock();
        let at = list.locks.iter().rposition(|weak| weak.name == name);
        at.map(|at| list.locks.swap_remove(at)).is_some()
    }
}

impl List {
    /// Notes what `request` asks for; `false` when that is for the table to do.
    fn note(&mut self, request: &Request) -> bool {
        let Request { txn, name, held, .. } = *request;
        let mode = request.asked();
        let here = self.locks.iter().rposition(|weak| weak.name == name);
        match (here, request.term) {
            // What is held and not here was moved to the table, by a strong request that is over.
            (None, _) if held.is_some() || self.locks.len() == LIST_MAX => return false,
            (_, Term::Instant) => {}
            (Some(at), Term::Long) => self.locks[at].mode = mode,
            (None, Term::Long) => self.locks.push(Weak { txn, name, mode }),
        }
        self.acquired += 1;
        true
    }

    /// As [`List::note`], of a name that `txn` does not hold.
    #[inline]
    fn note_new(&mut self, txn: TxnId, name: LockName, mode: LockMode) -> bool {
        let room = self.locks.len() < LIST_MAX;
        if room {
            self.locks.push(Weak { txn, name, mode });
            self.acquired += 1;
        }
        room
    }

    fn expose(&mut self, name: LockName, adopt: &mut impl FnMut(TxnId, LockMode)) {
        self.locks.retain(|weak| {
            if weak.name == name {
                adopt(weak.txn, weak.mode);
            }
            weak.name != name
        });
    }
}

impl WeakLocks {
    pub(super) fn new(mutations: WeakMutations) -> Self {
        let gates = (0..GATES).map(|_| Gate::default()).collect();
        Self { lists: RwLock::new(Vec::new()), gates, mutations }
    }

    pub(super) fn mutations(&self) -> WeakMutations {
        self.mutations
    }

    /// A list for one transaction at a time.
    pub(super) fn add_list(&self) -> Arc<WeakList> {
        let list = Arc::new(WeakList::new());
        self.lists.write().push(Arc::clone(&list));
        list
    }

    /// Grants a weak `request` in `list`. `None`: the gate is shut, and what the transaction held there has
    /// been told to `adopt`.
    #[inline]
    pub(super) fn try_note(
        &self,
        list: &WeakList,
        (request, hash): (&Request, u64),
        mut adopt: impl FnMut(TxnId, LockMode),
    ) -> Option<Granted> {
        let gate = self.gate(hash);
        let mut list = list.lock();
        if gate.strong.load(Ordering::SeqCst) > 0 && !self.mutations.weak_overlooks_strong {
            list.expose(request.name, &mut adopt); // W2
            return None;
        }
        let horizon = Lsn::new(gate.exclusive.load(Ordering::Acquire));
        list.note(request).then(|| Granted { mode: request.asked(), horizon })
    }

    /// As [`WeakLocks::try_note`], of a name that the transaction does not hold; the horizon that comes with it.
    /// Nothing has happened when that fails.
    #[inline]
    pub(super) fn try_note_new(
        &self,
        list: &WeakList,
        (txn, name, mode): (TxnId, LockName, LockMode),
    ) -> Option<Lsn> {
        let gate = self.gate(name.spread());
        let mut list = list.lock();
        let shut = gate.strong.load(Ordering::SeqCst) > 0;
        if shut && !self.mutations.weak_overlooks_strong {
            return None; // W2
        }
        let horizon = Lsn::new(gate.exclusive.load(Ordering::Acquire));
        list.note_new(txn, name, mode).then_some(horizon)
    }

    /// A strong request begins.
    pub(super) fn shut(&self, hash: u64) {
        self.gate(hash).strong.fetch_add(1, Ordering::SeqCst);
    }

    /// Tells `adopt` of all weak locks on `name`, which are in no list afterwards.
    pub(super) fn expose(&self, name: LockName, mut adopt: impl FnMut(TxnId, LockMode)) {
        if self.mutations.strong_overlooks_weak {
            return;
        }
        for list in self.lists.read().iter() {
            list.lock().expose(name, &mut adopt);
        }
    }

    /// A strong lock was given back, by a commit at `exclusive` if it was X, or a request was refused.
    pub(super) fn open(&self, hash: u64, exclusive: Lsn) {
        let gate = self.gate(hash);
        // Before the gate opens: whoever finds it open depends on this.
        if !self.mutations.gate_without_horizon {
            gate.exclusive.fetch_max(exclusive.get(), Ordering::AcqRel);
        }
        let before = gate.strong.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "W2: a gate is opened that nobody has shut");
    }

    /// Requests granted here.
    pub(super) fn acquired(&self) -> u64 {
        self.lists.read().iter().map(|list| list.lock().acquired).sum()
    }

    #[inline]
    fn gate(&self, hash: u64) -> &Gate {
        &self.gates[(hash >> 40) as usize % GATES]
    }
}
