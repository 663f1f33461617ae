//! The latch word: where a page is, who uses it, and how often it changed, in 64 bits.
//!
//! ```text
//!  63                   36 35              12   11       10      9       0
//! ┌───────────────────────┬──────────────────┬─────────┬─────────┬─────────┐
//! │ version               │ frame + 1, or 0  │ waiters │exclusive│ shared  │
//! └───────────────────────┴──────────────────┴─────────┴─────────┴─────────┘
//!
//!             claim (page-in)                release: version + 1
//!   absent ───────────────────► exclusive ───────────────────────► free
//!     ▲  evict: version + 1        │  ▲                             │ ▲
//!     └────────────────────────────┘  └──────── try_exclusive ──────┤ │
//!                                               try_shared ► shared─┘ │
//!                                                  (count 1 … n) ─────┘
//! ```
//!
//! An optimistic reader notes the word, reads, and compares: same version, same frame, not exclusive
//! means that nothing changed. Shared holders do not disturb it. Whoever must wait sets the waiters bit
//! and sleeps in a bucket chosen by the word's address; the releaser who sees the bit wakes the bucket.
//!
//! A version has 28 bits: a reader is fooled only if a page changes 268 million times during one look.
//!
//! This is one of the three files that may use `unsafe`: the guards here are what makes a view of a
//! frame's bytes sound.
#![allow(unsafe_code)]

use argali_base::sync::{AtomicU64, Condvar, Mutex, Ordering, fence, spin_hint};
use argali_pager::{PageCell, PageMut, PageRef};

const SHARED_MASK: u64 = (1 << 10) - 1;
const EXCLUSIVE: u64 = 1 << 10;
const WAITERS: u64 = 1 << 11;
const FRAME_SHIFT: u32 = 12;
const FRAME_MASK: u64 = ((1 << 24) - 1) << FRAME_SHIFT;
const VERSION_ONE: u64 = 1 << 36;
const VERSION_MASK: u64 = !(VERSION_ONE - 1);
/// What an optimistic reader compares.
const SEEN_MASK: u64 = VERSION_MASK | FRAME_MASK | EXCLUSIVE;
/// Turns of spinning before a waiter sleeps: latches are held for less than a microsecond.
const SPINS: u32 = 40;
const BUCKETS: usize = 64;

/// Most frames a word can name.
pub(crate) const FRAMES_MAX: usize = (1 << 24) - 2;

/// What one load of the word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    /// The page's frame, if it is resident.
    pub(crate) fn frame(self) -> Option<u32> {
        (((self.0 & FRAME_MASK) >> FRAME_SHIFT) as u32).checked_sub(1)
    }

    pub(crate) fn is_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    fn shared(self) -> u64 {
        self.0 & SHARED_MASK
    }

    /// Grows with every change of the page or its place.
    pub(crate) fn version(self) -> u64 {
        self.0 >> 36
    }

    /// Whether an optimistic reader that saw `self` may believe what it read if the word is `now`.
    fn still(self, now: Self) -> bool {
        (self.0 ^ now.0) & SEEN_MASK == 0
    }
}

/// Why a latch was not to be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The page is not resident.
    Absent,
    /// Somebody holds it in a mode that conflicts.
    Busy,
}

/// Where threads sleep that wait for a word. Shared by all words of a pool.
#[derive(Debug)]
pub(crate) struct Parking {
    buckets: Vec<(Mutex<()>, Condvar)>,
}

impl Parking {
    pub(crate) fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| (Mutex::new(()), Condvar::new())).collect() }
    }

    fn bucket(&self, word: &AtomicU64) -> &(Mutex<()>, Condvar) {
        let address = std::ptr::from_ref(word) as usize;
        &self.buckets[(address / size_of::<AtomicU64>()) % BUCKETS]
    }
}

/// One page's word together with the place to wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latch<'a> {
    word: &'a AtomicU64,
    parking: &'a Parking,
}

impl<'a> Latch<'a> {
    pub(crate) fn new(word: &'a AtomicU64, parking: &'a Parking) -> Self {
        Self { word, parking }
    }

    /// Acquire-load of the word: the start of an optimistic read.
    #[inline]
    pub(crate) fn see(self) -> Seen {
        Seen(self.word.load(Ordering::Acquire))
    }

    /// Whether nothing changed since `seen`: the end of an optimistic read. The fence keeps the
    /// reader's relaxed loads before the second load of the word.
    #[inline]
    pub(crate) fn unchanged(self, seen: Seen) -> bool {
        fence(Ordering::Acquire);
        seen.still(Seen(self.word.load(Ordering::Relaxed)))
    }

    /// One more shared holder; the frame, or why not.
    pub(crate) fn try_shared(self) -> Result<u32, Denied> {
        loop {
            let seen = self.see();
            let frame = seen.frame().ok_or_else(|| absence(seen))?;
            if seen.is_exclusive() {
                return Err(Denied::Busy);
            }
            assert!(seen.shared() < SHARED_MASK, "{} shared holders of one page", seen.shared());
            if self.swap(seen, seen.0 + 1) {
                return Ok(frame);
            }
        }
    }

    /// The exclusive latch; the frame, or why not.
    pub(crate) fn try_exclusive(self) -> Result<u32, Denied> {
        loop {
            let seen = self.see();
            let frame = seen.frame().ok_or_else(|| absence(seen))?;
            if seen.is_exclusive() || seen.shared() > 0 {
                return Err(Denied::Busy);
            }
            if self.swap(seen, seen.0 | EXCLUSIVE) {
                enter_exclusive();
                return Ok(frame);
            }
        }
    }

    /// The exclusive latch, provided the page is as it was when `seen`. Waits for shared holders.
    pub(crate) fn upgrade(self, seen: Seen) -> Option<u32> {
        loop {
            let now = self.see();
            if !seen.still(now) {
                return None;
            }
            if now.shared() > 0 {
                self.wait_free();
            } else if self.swap(now, now.0 | EXCLUSIVE) {
                enter_exclusive();
                return now.frame();
            }
        }
    }

    /// Takes an absent page for page-in into `frame`: exclusive, and resident from now on.
    pub(crate) fn claim(self, frame: u32) -> bool {
        loop {
            let seen = self.see();
            if seen.frame().is_some() || seen.is_exclusive() {
                return false;
            }
            let placed = (u64::from(frame) + 1) << FRAME_SHIFT;
            if self.swap(seen, seen.0 | EXCLUSIVE | placed) {
                enter_exclusive();
                return true;
            }
        }
    }

    /// Ends an exclusive latch; whoever looked optimistically must look again.
    pub(crate) fn release_exclusive(self) {
        let old = self.word.fetch_add(VERSION_ONE.wrapping_sub(EXCLUSIVE), Ordering::Release);
        assert!(old & EXCLUSIVE != 0, "latch word {old:#x} released but not exclusive");
        self.wake(old);
    }

    /// Exclusive becomes shared with one holder.
    pub(crate) fn downgrade(self) {
        let change = VERSION_ONE.wrapping_sub(EXCLUSIVE).wrapping_add(1);
        let old = self.word.fetch_add(change, Ordering::Release);
        assert!(old & EXCLUSIVE != 0, "latch word {old:#x} downgraded but not exclusive");
        self.wake(old);
    }

    /// Ends a shared latch.
    pub(crate) fn release_shared(self) {
        let old = self.word.fetch_sub(1, Ordering::Release);
        assert!(old & SHARED_MASK != 0, "latch word {old:#x} released but not shared");
        if old & SHARED_MASK == 1 {
            self.wake(old);
        }
    }

    /// Ends an exclusive latch and the page's residence.
    pub(crate) fn evict(self) {
        loop {
            let old = self.word.load(Ordering::Relaxed);
            assert!(old & EXCLUSIVE != 0, "latch word {old:#x} evicted but not exclusive");
            let gone = (old & !(FRAME_MASK | EXCLUSIVE)).wrapping_add(VERSION_ONE);
            if self.word.compare_exchange(old, gone, Ordering::Release, Ordering::Relaxed).is_ok() {
                return self.wake(old);
            }
        }
    }

    /// Returns when nobody writes the page, or it went away.
    pub(crate) fn wait_readable(self) {
        self.wait_without(EXCLUSIVE);
    }

    /// Returns when nobody holds the page, or it went away.
    pub(crate) fn wait_free(self) {
        self.wait_without(EXCLUSIVE | SHARED_MASK);
    }

    /// Returns when none of `bits` is set: spins a little, then sleeps.
    fn wait_without(self, bits: u64) {
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) & bits == 0 {
                return;
            }
            spin_hint();
        }
        let (lock, condvar) = self.parking.bucket(self.word);
        let mut guard = lock.lock();
        loop {
            let now = self.word.load(Ordering::Relaxed);
            if now & bits == 0 {
                return;
            }
            if self.swap(Seen(now), now | WAITERS) {
                condvar.wait(&mut guard);
            }
        }
    }

    /// Wakes the sleepers of the bucket if `old` says that there are some. The bit goes under the
    /// bucket's lock, so a waiter that has just set it is either seen or sees the free word.
    fn wake(self, old: u64) {
        if old & WAITERS == 0 {
            return;
        }
        let (lock, condvar) = self.parking.bucket(self.word);
        let guard = lock.lock();
        self.word.fetch_and(!WAITERS, Ordering::Relaxed);
        condvar.notify_all();
        drop(guard);
    }

    fn swap(self, from: Seen, to: u64) -> bool {
        self.word.compare_exchange(from.0, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// A page on its way out is exclusive and absent for no one else: only a claim makes both at once.
fn absence(seen: Seen) -> Denied {
    if seen.is_exclusive() { Denied::Busy } else { Denied::Absent }
}

/// Keeps the holder's relaxed stores behind the exclusive bit, so that a reader that meets one of them
/// also meets the bit (or the greater version) when it validates.
fn enter_exclusive() {
    fence(Ordering::Release);
}

/// A shared latch on a resident page.
#[derive(Debug)]
pub(crate) struct SharedGuard<'a> {
    latch: Latch<'a>,
    cell: &'a PageCell,
}

impl<'a> SharedGuard<'a> {
    /// Takes over one shared count of `latch`, whose page stands in `cell`.
    pub(crate) fn adopt(latch: Latch<'a>, cell: &'a PageCell) -> Self {
        debug_assert!(latch.see().shared() > 0, "no shared holder");
        Self { latch, cell }
    }

    pub(crate) fn page(&self) -> PageRef<'_> {
        // SAFETY: this guard's shared count keeps every writer out while the borrow lives.
        unsafe { self.cell.page() }
    }

    pub(crate) fn version(&self) -> u64 {
        self.latch.see().version()
    }
}

impl Drop for SharedGuard<'_> {
    fn drop(&mut self) {
        self.latch.release_shared();
    }
}

/// The exclusive latch on a resident page.
#[derive(Debug)]
pub(crate) struct ExclusiveGuard<'a> {
    latch: Latch<'a>,
    cell: &'a PageCell,
}

impl<'a> ExclusiveGuard<'a> {
    /// Takes over the exclusive state of `latch`, whose page stands in `cell`.
    pub(crate) fn adopt(latch: Latch<'a>, cell: &'a PageCell) -> Self {
        debug_assert!(latch.see().is_exclusive(), "not exclusive");
        Self { latch, cell }
    }

    pub(crate) fn page(&self) -> PageRef<'_> {
        // SAFETY: the exclusive holder is this guard, and it writes only through `&mut self`.
        unsafe { self.cell.page() }
    }

    pub(crate) fn page_mut(&mut self) -> PageMut<'_> {
        // SAFETY: the exclusive holder is this guard, borrowed mutably while the view lives.
        unsafe { self.cell.page_mut() }
    }

    /// Page-in: the bytes of `from` become the page.
    pub(crate) fn fill(&mut self, from: PageRef<'_>) {
        // SAFETY: as `page_mut`.
        unsafe { self.cell.fill(from) }
    }

    /// Keeps the page, shared.
    pub(crate) fn downgrade(self) -> SharedGuard<'a> {
        let (latch, cell) = (self.latch, self.cell);
        std::mem::forget(self);
        latch.downgrade();
        SharedGuard::adopt(latch, cell)
    }

    /// Ends the page's residence instead of just the latch.
    pub(crate) fn evict(self) {
        let latch = self.latch;
        std::mem::forget(self);
        latch.evict();
    }
}

impl Drop for ExclusiveGuard<'_> {
    fn drop(&mut self) {
        self.latch.release_exclusive();
    }
}
