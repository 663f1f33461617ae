//! One transaction: its states, and `update`, the only way a page changes.
//!
//! ```text
//!            admit, update            rollback_to
//!            ┌────────┐              ┌───────────┐
//!  begin ──► running ─┴─► running ──►┤compensating├──► running
//!               │                    └───────────┘
//!               ├─ commit ──► committed ── durable ──► ended
//!               ├─ prepare ─► in doubt ── as decided (prepare.rs)
//!               └─ abort, drop ──► compensating ────► ended ◄── compensating ◄── adopt (restart)
//! ```
//!
//! In *compensating* mode the same `update` writes compensation log records (CLRs): access methods undo
//! by calling their ordinary code, which does not know. Structure changes made on the way stay ordinary
//! updates that are never undone.
//!
//! Rules, numbered as in `DESIGN.md` section 6, where they live:
//!
//! - **1** A page is marked dirty before the record is appended (`update`, step 2).
//! - **2** The transaction's slot stays locked from append to noting the last LSN (steps 3 to 5).
//! - **3** After the append nothing can fail (everything that can is step 1).
//! - **4** One record changes a page at most once (asserted in step 1).
//!
//! A warm transaction allocates nothing: buffers, lock list and table slot are its [`Kit`], which goes
//! back to the manager when it ends.

use argali_base::sync::Arc;
use argali_base::{Lsn, PageId, Result, TxnId};
use argali_buffer_pool::PageWrite;
use argali_pager::PageOp;
use argali_wal::{Body, Changes, ChangesBuilder, Record, RecordBuf, Undo};

use crate::lane::Lane;
use crate::lock::{ClaimList, HeldLocks, Waiter, WeakList};
use crate::manager::TxnCore;
use crate::nested::Nested;
use crate::space::LogSpace;
use crate::table::Slot;
use crate::{Isolation, TxnOptions};

/// Operations on one latched page, logged together with the others of the same `update`.
pub struct Edit<'g, 'p, 'o> {
    /// The page, exclusively latched.
    pub page: &'g mut PageWrite<'p>,
    /// What is done to it, in order; at least one operation.
    pub ops: &'o [PageOp<'o>],
}

/// One transaction. Dropping it aborts it.
pub struct Txn {
    /// The manager, by the lane it began on.
    pub(crate) manager: Arc<Lane>,
    pub(crate) id: TxnId,
    pub(crate) kind: Kind,
    pub(crate) options: TxnOptions,
    /// `None` once the transaction ended.
    pub(crate) kit: Option<Box<Kit>>,
    /// Greatest commit LSN it may have seen the effects of before they were durable.
    pub(crate) horizon: Lsn,
    pub(crate) mode: Mode,
    pub(crate) nested: Nested,
    /// Whether its slot in the table is in use: from its first record on, or since a restart.
    pub(crate) in_table: bool,
}

/// Who runs the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    /// The engine itself: no locks, no force.
    System,
    /// Restart, on behalf of a transaction that did not end before the crash.
    Loser,
}

/// What an undoable update becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An ordinary update.
    Forward,
    /// Prepared: nothing may be done until somebody decides.
    InDoubt,
    /// Rolling back, between two records: nothing undoable may be done.
    RollingBack,
    /// Rolling back the record `undone`: the one CLR that takes it back.
    Undoing { undone: Lsn, prev: Lsn, clr: Option<Lsn> },
}

/// What a transaction works with and the next one inherits: all of it that is large, for a transaction is handed
/// from function to function.
#[derive(Debug)]
pub(crate) struct Kit {
    pub(crate) slot: Arc<Slot>,
    pub(crate) held: HeldLocks,
    /// Locks that are not in the table.
    pub(crate) weak: Arc<WeakList>,
    pub(crate) claims: Arc<ClaimList>,
    /// Whether there are any in it.
    pub(crate) claimed: bool,
    /// Whether a write waits for claims of others, or did.
    pub(crate) waits: bool,
    pub(crate) waiter: Waiter,
    pub(crate) changes: ChangesBuilder,
    pub(crate) record: RecordBuf,
    pub(crate) space: LogSpace,
    /// Why the transaction can only be aborted.
    pub(crate) failed: Option<String>,
    /// Where access methods build what they log.
    pub(crate) scratch: Vec<u8>,
    /// Serials of the savepoints that can still be returned to, ascending.
    pub(crate) savepoints: Vec<u64>,
    /// Where the access method was last.
    pub(crate) visit: Option<Visit>,
}

/// Where an access method was last, noted for its next step. A transaction only carries it, and not on to the next
/// one: what it is worth depends on what is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// First page of the structure.
    pub structure: PageId,
    /// The page in it.
    pub page: PageId,
    /// When that was, as the access method counts.
    pub era: u64,
    /// Whether it was there the time before, too.
    pub again: bool,
}

impl Kit {
    pub(crate) fn new(slot: Arc<Slot>, weak: Arc<WeakList>, claims: Arc<ClaimList>) -> Self {
        Self {
            slot,
            held: HeldLocks::default(),
            weak,
            claims,
            claimed: false,
            waits: false,
            waiter: Waiter::default(),
            changes: ChangesBuilder::default(),
            record: RecordBuf::new(),
            space: LogSpace::default(),
            failed: None,
            scratch: Vec::new(),
            savepoints: Vec::new(),
            visit: None,
        }
    }
}

impl Txn {
    #[inline]
    pub(crate) fn new(
        manager: Arc<Lane>,
        id: TxnId,
        kind: Kind,
        (options, kit): (TxnOptions, Box<Kit>),
    ) -> Self {
        let mode = match kind {
            Kind::User | Kind::System => Mode::Forward,
            Kind::Loser => Mode::RollingBack,
        };
        Self {
            manager,
            id,
            kind,
            options,
            kit: Some(kit),
            horizon: Lsn::NONE,
            mode,
            nested: Nested::default(),
            in_table: false,
        }
    }

    #[inline]
    pub(crate) fn kit(&self) -> &Kit {
        self.kit.as_deref().expect("a transaction keeps its kit until it ends")
    }

    #[inline]
    pub(crate) fn kit_mut(&mut self) -> &mut Kit {
        self.kit.as_deref_mut().expect("a transaction keeps its kit until it ends")
    }

    /// The manager beside the kit.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&TxnCore, &mut Kit) {
        let kit = self.kit.as_deref_mut().expect("a transaction keeps its kit until it ends");
        (&self.manager, kit)
    }

    /// Its number, never used by another transaction of this database.
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// What it may see of others.
    #[inline]
    pub fn isolation(&self) -> Isolation {
        self.options.isolation
    }

    /// Whether it locks what it touches. The engine's own transactions and those of a restart do not:
    /// their lock calls succeed and do nothing.
    #[inline]
    pub fn takes_locks(&self) -> bool {
        self.kind == Kind::User
    }

    /// A buffer for whoever builds what is to be logged; it goes from transaction to transaction, and holds
    /// rubbish.
    pub fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.kit_mut().scratch
    }

    /// Where the access method was last in this transaction.
    #[inline]
    pub fn visit(&self) -> Option<Visit> {
        self.kit().visit
    }

    /// Notes where the access method is.
    #[inline]
    pub fn note_visit(&mut self, visit: Visit) {
        self.kit_mut().visit = Some(visit);
    }

    /// Its last record, `NONE` while it has none.
    pub fn last_lsn(&self) -> Lsn {
        if self.in_table { self.kit().slot.lock().last } else { Lsn::NONE }
    }

    /// Whether it may have records: if not, its slot in the table is free.
    pub(crate) fn is_in_table(&self) -> bool {
        self.in_table
    }

    /// Whether this transaction is undoing (rollback or restart).
    pub fn compensating(&self) -> bool {
        matches!(self.mode, Mode::RollingBack | Mode::Undoing { .. })
    }

    /// Takes log space for the next `update`s before the first latch: `payload` bytes of encoded
    /// operations and undo on up to `pages` pages in total (images are added in that torn-page mode),
    /// plus the CLR's. It replaces what an earlier admission left. In compensating mode it draws on the
    /// transaction's reserve and never fails for space.
    pub fn admit(&mut self, payload: usize, pages: usize) -> Result<()> {
        let forward = self.mode == Mode::Forward;
        let (manager, kit) = self.parts();
        let demand = (manager.rates, payload, pages);
        if forward {
            kit.space.admit(&manager.wal, demand)
        } else {
            kit.space.admit_undo(&manager.wal, demand)
        }
    }

    /// Logs `edits` as one record and applies them: the only way a page changes. Consumes part of the
    /// admission. In compensating mode an undoable update becomes the CLR (with `undo_next` =
    /// predecessor of the record being undone), `Undo::Never` ones stay updates.
    ///
    /// # Panics
    /// When there is no edit, two edits name one page, an operation does not fit its page,
    /// `Undo::Physical` comes with several pages, or the admission does not cover the record.
    pub fn update(&mut self, edits: &mut [Edit<'_, '_, '_>], undo: Undo<'_>) -> Lsn {
        check(edits, undo); //                                             1. everything that can fail
        self.encode(edits);
        let next = self.next_record(undo);
        self.in_table = true;
        let id = self.id;
        let (TxnCore { wal, .. }, Kit { changes, slot, space, .. }) = self.parts();
        let changes = changes.changes();
        let ticket = space.ticket(changes.bytes().len() + undo_len(undo));
        let tail = wal.tail();
        for edit in &mut *edits {
            edit.page.dirty_from(tail, edit.ops[0].overwrites()); //       2. rule 1
        }
        let mut chain = slot.lock(); //                                    3. rule 2 begins
        slot.enter(&mut chain, id, tail);
        let record = Record { txn: id, prev: chain.last, body: next.body(changes, undo) };
        let lsn = wal.append(ticket, &record); //                          4.
        let undo_next = next.undo_next(lsn, chain.undo_next);
        chain.extend(lsn, undo_next); //                                   5. rule 2 ends
        drop(chain);
        for edit in &mut *edits {
            edit.page.apply(edit.ops, lsn); //                             6. rule 3
        }
        self.logged(next, lsn);
        lsn
    }

    /// Encodes what `edits` do, each page's image first where torn pages are repaired from the log.
    fn encode(&mut self, edits: &[Edit<'_, '_, '_>]) {
        let changes = &mut self.kit_mut().changes;
        changes.clear();
        for Edit { page, ops } in edits {
            let before = page.page();
            // A formatted page has no past that redo could check.
            let formats = matches!(ops[0], PageOp::Format { .. });
            let page_prev = if formats { Lsn::NONE } else { before.lsn() };
            changes.push(page.id(), page_prev, |out| {
                if page.needs_image() && !ops[0].overwrites() {
                    PageOp::Image { bytes: before.bytes() }.encode(out);
                }
                for op in *ops {
                    op.encode(out);
                }
            });
        }
    }

    /// Which kind of record an update with this undo becomes.
    fn next_record(&self, undo: Undo<'_>) -> Next {
        match (undo, self.mode) {
            (_, Mode::InDoubt) => panic!("P2: {} is in doubt and changes nothing", self.id),
            (Undo::Never, Mode::Forward) => Next::Update,
            (Undo::Never, Mode::RollingBack | Mode::Undoing { .. }) => Next::UpdateAside,
            (Undo::Physical(_) | Undo::Logical { .. }, Mode::Forward) => Next::Undoable,
            (Undo::Physical(_) | Undo::Logical { .. }, Mode::Undoing { undone, prev, clr }) => {
                assert!(clr.is_none(), "rule 5: {undone} has its CLR {clr:?} already");
                let ignored = self.manager.mutations().clr_ignores_undo_next;
                Next::Clr { logged: if ignored { undone } else { prev }, prev }
            }
            (Undo::Physical(_) | Undo::Logical { .. }, Mode::RollingBack) => {
                panic!("{} is rolling back and undoes no record just now", self.id)
            }
        }
    }

    fn logged(&mut self, next: Next, lsn: Lsn) {
        match next {
            Next::Update | Next::UpdateAside => {}
            Next::Undoable => self.kit_mut().space.promise_undo(),
            Next::Clr { .. } => {
                if let Mode::Undoing { clr, .. } = &mut self.mode {
                    *clr = Some(lsn);
                }
            }
        }
    }
}

impl std::fmt::Debug for Txn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Txn")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The record an update becomes.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Forward, never undone.
    Update,
    /// Never undone, on the way of a rollback: undo goes on where it was.
    UpdateAside,
    /// Forward, undoable.
    Undoable,
    /// Takes a record back. `logged` differs from `prev` only under a mutation.
    Clr { logged: Lsn, prev: Lsn },
}

impl Next {
    fn body<'a>(self, changes: Changes<'a>, undo: Undo<'a>) -> Body<'a> {
        match self {
            Self::Update | Self::UpdateAside | Self::Undoable => Body::Update { changes, undo },
            Self::Clr { logged, .. } => Body::Compensation { changes, undo_next: logged },
        }
    }

    /// Where undo goes on once the record stands at `lsn`.
    fn undo_next(self, lsn: Lsn, before: Lsn) -> Lsn {
        match self {
            Self::Update | Self::Undoable => lsn,
            Self::UpdateAside => before,
            Self::Clr { prev, .. } => prev,
        }
    }
}

/// Step 1: what a caller must have seen to. Only the first operation on a page can be held against the
/// page as it is; the following ones are checked where they are applied, one after the other.
fn check(edits: &[Edit<'_, '_, '_>], undo: Undo<'_>) {
    assert!(!edits.is_empty(), "an update changes at least one page");
    let physical = matches!(undo, Undo::Physical(_));
    assert!(!physical || edits.len() == 1, "physical undo on {} pages", edits.len());
    for (at, Edit { page, ops }) in edits.iter().enumerate() {
        let twice = edits[..at].iter().any(|earlier| earlier.page.id() == page.id());
        assert!(!twice, "rule 4: two edits of {} in one record", page.id());
        let first = ops.first().expect("an edit has at least one operation");
        assert!(first.fits(page.page()), "rule 3: {first} does not fit {}", page.id());
    }
}

fn undo_len(undo: Undo<'_>) -> usize {
    match undo {
        Undo::Never => 0,
        Undo::Physical(body) | Undo::Logical { body, .. } => body.len(),
    }
}
