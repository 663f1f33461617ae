//! The latch word: where a page is, who holds it, and whether it changed, in 64 bits.
//!
//! ```text
//!  63        37 36       13  12  11  10  9         0
//!  │ version  │ frame + 1  │ R │ W │ X │ shared    │     R referenced since the clock hand passed
//!                                                        W somebody sleeps for this word
//!                                                        X latched exclusively
//! ```
//!
//! One load tells an optimistic reader everything: not resident (frame 0), being written (X), or where
//! to look. Afterwards it loads the word again; if version, frame and X are as before, nobody stored
//! into the page in between, and what it read is true. Shared holders, R and W do not matter to it.
//!
//! ```text
//!  reader: load word (acquire) · relaxed loads of the page · fence(acquire) · load word, compare
//!  writer: CAS X · fence(release) · relaxed stores into the page · unlatch: version + 1 (release)
//! ```
//!
//! A reader that sees any of the writer's stores therefore sees X or a later version. The version moves
//! only when the holder stored something. It wraps after 2²⁷ changes of one page, which a reader would
//! have to sleep through exactly; it would also have to meet the same frame.
//!
//! Waiting: spin a little, then set W and sleep in a bucket of the parking lot. Whoever unlatches and
//! sees W clears it and wakes the bucket; sleepers look again. Nobody is handed the latch, but a new
//! shared request steps back for a moment when somebody sleeps, so that readers do not starve a writer.
//!
//! A frame number stands in at most one word: [`FreeFrame`] tokens are made once per frame, consumed by
//! `install` and given back by `evict`. That, and the latch, is what makes views of frames sound.
//!
//! This is one of the three files that may use `unsafe`.
#![allow(unsafe_code)]

use argali_base::sync::{AtomicU64, Condvar, Mutex, Ordering, fence, spin_hint};
use argali_base::{Lsn, PageId, Result};
use argali_pager::{PageCell, PageOp, PageRef, PageSize};

use crate::arena::{Arena, Translation};

const SHARED_MASK: u64 = (1 << 10) - 1;
const EXCLUSIVE: u64 = 1 << 10;
const WAITERS: u64 = 1 << 11;
const REFERENCED: u64 = 1 << 12;
const FRAME_SHIFT: u32 = 13;
const VERSION_SHIFT: u32 = 37;
const VERSION_ONE: u64 = 1 << VERSION_SHIFT;
const FRAME_MASK: u64 = VERSION_ONE - (1 << FRAME_SHIFT);
/// What an optimistic reader compares.
const COMPARED: u64 = !(SHARED_MASK | WAITERS | REFERENCED);

/// Most frames a pool may have: what the word has room for.
pub(crate) const FRAMES_MAX: usize = (1 << (VERSION_SHIFT - FRAME_SHIFT)) - 2;
/// Turns of a spin loop before sleeping; a page is latched for about this long.
const SPINS: u32 = if cfg!(feature = "shuttle") { 1 } else { 100 };

/// A value of the latch word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    /// Where the page is; `None` when it is not resident.
    #[inline]
    pub(crate) fn frame(self) -> Option<usize> {
        (((self.0 & FRAME_MASK) >> FRAME_SHIFT) as usize).checked_sub(1)
    }

    #[inline]
    pub(crate) const fn is_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    /// Nobody holds the latch.
    #[inline]
    pub(crate) const fn is_free(self) -> bool {
        self.0 & (EXCLUSIVE | SHARED_MASK) == 0
    }

    #[inline]
    pub(crate) const fn is_referenced(self) -> bool {
        self.0 & REFERENCED != 0
    }

    #[inline]
    pub(crate) const fn version(self) -> u64 {
        self.0 >> VERSION_SHIFT
    }

    /// A shared request must wait (no more can be counted, or somebody writes).
    const fn bars_shared(self) -> bool {
        self.is_exclusive() || self.0 & SHARED_MASK == SHARED_MASK
    }

    const fn bars_exclusive(self) -> bool {
        !self.is_free()
    }
}

/// Where threads sleep for a latch: a few buckets for all words.
#[derive(Debug)]
struct ParkingLot {
    buckets: Vec<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    gate: Mutex<()>,
    opened: Condvar,
}

impl ParkingLot {
    fn new() -> Self {
        let buckets = if cfg!(feature = "shuttle") { 1 } else { 64 };
        Self { buckets: std::iter::repeat_with(Bucket::default).take(buckets).collect() }
    }

    fn bucket(&self, id: PageId) -> &Bucket {
        &self.buckets[id.get() as usize % self.buckets.len()]
    }

    /// Sleeps until somebody wakes the word's bucket, unless `barred` no longer holds.
    #[cold]
    fn sleep(&self, id: PageId, word: &AtomicU64, barred: fn(State) -> bool) {
        let bucket = self.bucket(id);
        let mut gate = bucket.gate.lock();
        // Set under the gate: whoever unlatches later sees it and must pass the gate before waking, and
        // we release the gate only by sleeping. If the latch was released before, `barred` says so.
        let state = State(word.fetch_or(WAITERS, Ordering::Relaxed));
        if barred(state) {
            bucket.opened.wait(&mut gate);
        }
    }

    #[cold]
    fn wake(&self, id: PageId, word: &AtomicU64) {
        let bucket = self.bucket(id);
        let gate = bucket.gate.lock();
        // Everybody who relied on this bit sleeps by now and is woken below.
        word.fetch_and(!WAITERS, Ordering::Relaxed);
        drop(gate);
        bucket.opened.notify_all();
    }
}

/// A frame no page stands in. The only way to own a frame.
#[derive(Debug)]
pub(crate) struct FreeFrame(usize);

impl FreeFrame {
    pub(crate) const fn number(&self) -> usize {
        self.0
    }
}

/// All latch words, and the frames they point to.
#[derive(Debug)]
pub(crate) struct PageTable {
    arena: Arena,
    translation: Translation,
    lot: ParkingLot,
}

impl PageTable {
    /// The table and its frames, all free.
    pub(crate) fn new(
        frames: usize,
        size: PageSize,
        pages_max: u64,
    ) -> Result<(Self, Vec<FreeFrame>)> {
        let arena = Arena::new(frames, size)?;
        let free = (0..arena.frames()).rev().map(FreeFrame).collect();
        let table =
            Self { arena, translation: Translation::new(pages_max)?, lot: ParkingLot::new() };
        Ok((table, free))
    }

    /// The latch of page `id`; `None` beyond the greatest page the file may have.
    #[inline]
    pub(crate) fn latch(&self, id: PageId) -> Option<Latch<'_>> {
        self.translation.word(id).map(|word| Latch { table: self, word, id })
    }
}

/// One page's latch word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latch<'p> {
    table: &'p PageTable,
    word: &'p AtomicU64,
    id: PageId,
}

impl<'p> Latch<'p> {
    pub(crate) const fn id(self) -> PageId {
        self.id
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        State(self.word.load(Ordering::Acquire))
    }

    /// The frame's bytes, for loads that are validated afterwards.
    #[inline]
    pub(crate) fn cell(self, frame: usize) -> &'p PageCell {
        self.table.arena.cell(frame)
    }

    /// Notes the state for an optimistic read; waits while somebody writes. The page may not be resident.
    #[inline]
    pub(crate) fn glimpse(self) -> State {
        let mut spins = 0;
        loop {
            let state = self.state();
            if !state.is_exclusive() {
                if !state.is_referenced() {
                    self.word.fetch_or(REFERENCED, Ordering::Relaxed);
                }
                return state;
            }
            self.pause(&mut spins, State::is_exclusive);
        }
    }

    /// Whether nobody stored into the page since `seen`. Call after the loads it vouches for.
    #[inline]
    pub(crate) fn is_unchanged(self, seen: State) -> bool {
        fence(Ordering::Acquire);
        (self.word.load(Ordering::Relaxed) ^ seen.0) & COMPARED == 0
    }

    /// The clock hand passes: takes the second chance away.
    pub(crate) fn forget_reference(self) {
        self.word.fetch_and(!REFERENCED, Ordering::Relaxed);
    }

    /// Latches shared, waiting for a writer. `None`: not resident.
    #[inline]
    pub(crate) fn shared(self) -> Option<Shared<'p>> {
        self.shared_marking(REFERENCED)
    }

    /// As [`Latch::shared`], but leaves no reference behind: for whoever passes and does not come back.
    pub(crate) fn shared_passing(self) -> Option<Shared<'p>> {
        self.shared_marking(0)
    }

    #[inline]
    fn shared_marking(self, mark: u64) -> Option<Shared<'p>> {
        let mut spins = 0;
        loop {
            let state = self.state();
            if state.bars_shared() {
                self.pause(&mut spins, State::bars_shared);
            } else if state.0 & WAITERS != 0 && spins < SPINS {
                spins += 1;
                spin_hint();
            } else if state.frame().is_none() {
                return None;
            } else if let Some(shared) = self.count_shared(state, mark) {
                return Some(shared);
            }
        }
    }

    /// Latches shared if nobody writes and the page is resident. Leaves no reference behind: for
    /// write-back.
    pub(crate) fn try_shared(self) -> Option<Shared<'p>> {
        loop {
            let state = self.state();
            if state.bars_shared() || state.frame().is_none() {
                return None;
            }
            if let Some(shared) = self.count_shared(state, 0) {
                return Some(shared);
            }
        }
    }

    fn count_shared(self, state: State, mark: u64) -> Option<Shared<'p>> {
        let next = (state.0 + 1) | mark;
        let cell = self.cell(state.frame()?);
        let swap = self.word.compare_exchange(state.0, next, Ordering::Acquire, Ordering::Relaxed);
        // `then`, not `then_some`: a guard made in vain would count somebody else out when dropped.
        swap.is_ok().then(|| Shared { latch: self, cell, state })
    }

    /// Latches exclusively, waiting for whoever holds it. The page may not be resident.
    pub(crate) fn exclusive(self) -> Exclusive<'p> {
        let mut spins = 0;
        loop {
            if let Some(exclusive) = self.try_exclusive() {
                return exclusive;
            }
            self.pause(&mut spins, State::bars_exclusive);
        }
    }

    /// Latches exclusively if nobody holds it.
    pub(crate) fn try_exclusive(self) -> Option<Exclusive<'p>> {
        loop {
            let state = self.state();
            if state.bars_exclusive() {
                return None;
            }
            if let Some(exclusive) = self.take_exclusive(state, REFERENCED) {
                return Some(exclusive);
            }
        }
    }

    /// Latches exclusively if nothing changed since `seen` and nobody holds it.
    pub(crate) fn upgrade(self, seen: State) -> Option<Exclusive<'p>> {
        loop {
            let state = self.state();
            if state.bars_exclusive() || (state.0 ^ seen.0) & COMPARED != 0 {
                return None;
            }
            if let Some(exclusive) = self.take_exclusive(state, REFERENCED) {
                return Some(exclusive);
            }
        }
    }

    /// Latches exclusively for eviction from `frame`: only if nobody holds or lately used the page.
    pub(crate) fn try_evict(self, frame: usize) -> Option<Exclusive<'p>> {
        let state = self.state();
        if state.bars_exclusive() || state.is_referenced() || state.frame() != Some(frame) {
            return None;
        }
        self.take_exclusive(state, 0)
    }

    fn take_exclusive(self, state: State, mark: u64) -> Option<Exclusive<'p>> {
        let next = state.0 | EXCLUSIVE | mark;
        let swap = self.word.compare_exchange(state.0, next, Ordering::Acquire, Ordering::Relaxed);
        swap.is_ok().then(|| {
            // Stores into the page stay behind the X bit: see the head of this file.
            fence(Ordering::Release);
            Exclusive { latch: self, frame: state.frame(), changed: false }
        })
    }

    fn pause(self, spins: &mut u32, barred: fn(State) -> bool) {
        if *spins < SPINS {
            *spins += 1;
            spin_hint();
        } else {
            self.table.lot.sleep(self.id, self.word, barred);
        }
    }

    fn wake_if_asked(self, old: u64) {
        if old & WAITERS != 0 {
            self.table.lot.wake(self.id, self.word);
        }
    }
}

/// A shared latch on a resident page.
#[derive(Debug)]
pub(crate) struct Shared<'p> {
    latch: Latch<'p>,
    cell: &'p PageCell,
    state: State,
}

impl Shared<'_> {
    pub(crate) const fn id(&self) -> PageId {
        self.latch.id
    }

    pub(crate) fn frame(&self) -> usize {
        self.state.frame().expect("a shared latch is taken on resident pages only")
    }

    /// Constant while the latch is held.
    pub(crate) const fn version(&self) -> u64 {
        self.state.version()
    }

    #[inline]
    pub(crate) fn page(&self) -> PageRef<'_> {
        // SAFETY: the word counts us as a shared holder, so nobody holds X; only a holder of X stores
        // into the frame its word names, and no other word names this frame (one `FreeFrame` each).
        unsafe { self.cell.page() }
    }
}

impl Drop for Shared<'_> {
    #[inline]
    fn drop(&mut self) {
        let old = self.latch.word.fetch_sub(1, Ordering::Release);
        assert!(old & SHARED_MASK != 0, "latch word {old:#x} of {} is not shared", self.id());
        if old & SHARED_MASK == 1 || old & SHARED_MASK == SHARED_MASK {
            self.latch.wake_if_asked(old);
        }
    }
}

/// An exclusive latch on a page, resident or not.
#[derive(Debug)]
pub(crate) struct Exclusive<'p> {
    latch: Latch<'p>,
    frame: Option<usize>,
    /// Whether the version must move when the latch is released.
    changed: bool,
}

impl<'p> Exclusive<'p> {
    #[inline]
    pub(crate) const fn id(&self) -> PageId {
        self.latch.id
    }

    /// Where the page is, if it is resident.
    pub(crate) const fn resident(&self) -> Option<usize> {
        self.frame
    }

    /// Panics when the page is not resident.
    #[inline]
    pub(crate) fn frame(&self) -> usize {
        self.frame.expect("the page was made resident before")
    }

    #[inline]
    fn cell(&self) -> &PageCell {
        self.latch.cell(self.frame())
    }

    #[inline]
    pub(crate) fn page(&self) -> PageRef<'_> {
        // SAFETY: we hold X on the only word that names this frame, so nobody else stores into it, and
        // our own stores take `&mut self`.
        unsafe { self.cell().page() }
    }

    pub(crate) fn try_apply(&mut self, ops: &[PageOp<'_>], lsn: Lsn) -> Result<(), String> {
        self.changed = true;
        // SAFETY: as in `page`; `&mut self` keeps our own read views out.
        unsafe { self.cell().page_mut() }.try_apply(ops, lsn)
    }

    /// Gives the page a frame, for good: the token is gone. What stands in it is undefined until `fill` or `blank`.
    #[expect(clippy::needless_pass_by_value, reason = "the token must be used up")]
    pub(crate) fn install(&mut self, frame: FreeFrame) {
        assert_eq!(self.frame, None, "{} is resident already", self.latch.id);
        self.frame = Some(frame.0);
        self.changed = true;
        self.latch.word.fetch_add((frame.0 as u64 + 1) << FRAME_SHIFT, Ordering::Relaxed);
    }

    /// Copies a page just read into the frame.
    pub(crate) fn fill(&mut self, from: PageRef<'_>) {
        self.changed = true;
        // SAFETY: as in `try_apply`.
        unsafe { self.cell().fill(from) };
    }

    /// Makes the frame the page that was never written.
    pub(crate) fn blank(&mut self, database: u64) {
        self.changed = true;
        // SAFETY: as in `try_apply`.
        unsafe { self.cell().page_mut() }.blank(self.latch.id, database);
    }

    /// Takes the frame away from the page and unlatches it. The version moves before the frame can be
    /// used again, so no optimistic reader of this page trusts what the next one writes there.
    pub(crate) fn evict(mut self) -> FreeFrame {
        let frame = self.frame();
        self.latch.word.fetch_sub((frame as u64 + 1) << FRAME_SHIFT, Ordering::Relaxed);
        self.frame = None;
        self.changed = true;
        FreeFrame(frame)
    }

    /// Lets readers in without a moment in which a writer could pass.
    pub(crate) fn downgrade(self) -> Shared<'p> {
        let this = std::mem::ManuallyDrop::new(self);
        let (latch, cell) = (this.latch, this.latch.cell(this.frame()));
        let old = latch.word.fetch_add(this.release() + 1, Ordering::Release);
        latch.wake_if_asked(old);
        let state = State(old.wrapping_add(this.release()));
        Shared { latch, cell, state }
    }

    /// What to add to the word so that X goes and, after a change, the version moves.
    const fn release(&self) -> u64 {
        let version = if self.changed { VERSION_ONE } else { 0 };
        version.wrapping_sub(EXCLUSIVE)
    }
}

impl Drop for Exclusive<'_> {
    #[inline]
    fn drop(&mut self) {
        let old = self.latch.word.fetch_add(self.release(), Ordering::Release);
        assert!(old & EXCLUSIVE != 0, "latch word {old:#x} of {} is not exclusive", self.id());
        self.latch.wake_if_asked(old);
    }
}
