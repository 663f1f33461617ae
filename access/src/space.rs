//! Page space: which pages of the data file are in use.
//!
//! ```text
//!  page 0            page span          page 2·span
//!  ┌──────────┐ link ┌──────────┐ link  ┌──────────┐
//!  │ bits of  │─────►│ bits of  │──────►│ bits of  │──► 0 = no more map pages
//!  │ 0..span  │      │ span..   │       │ 2·span.. │
//!  └──────────┘      └──────────┘       └──────────┘
//! ```
//!
//! A page is taken in two steps, because nothing may wait under a latch and a map page is a hot spot:
//! 1. **Reserve**, nothing latched: pick ids whose bits are clear and that nobody else reserved, and
//!    make the file long enough. This lives in memory only; a crash forgets it, and the bits never said
//!    anything else. Dropping [`Reserved`] gives the ids back.
//! 2. **Set the bit** in the very record that formats the page and links it into its tree; the map page
//!    is latched last. So a page is reachable if and only if its bit is set, at every point of the log.
//!
//! A page is freed by clearing the bit in the record that removes the last pointer to it. It keeps its LSN,
//! which only grows, and its next life begins with `Format`. Frees are done by system transactions when no
//! rollback can want the page back: after the commit that made it garbage ([`Pending`](crate::Pending)
//! remembers what is to be freed), or when its rows stand elsewhere. The one exception is the first page
//! of something new ([`Space::create_first`]): until its creator has written down who frees it, a
//! rollback does ([`undo`]). (Left out: giving file space back to the system.)

pub(crate) mod undo;

use argali_base::sync::{Arc, AtomicU64, Mutex, Ordering};
use argali_base::{Lsn, PageId, Result};
use argali_buffer_pool::{BufferPool, PageRead, PageWrite};
use argali_pager::{HEADER_BYTES, MapLayout, PageBuf, PageKind, PageOp, PageRef};
use argali_txn::{CommitLsn, Edit, Txn, TxnManager, Undo};
use argali_wal::Wal;

use crate::fault::corrupt;
use crate::heap::Rooms;
use crate::thin::ThinLeaves;
use crate::{SPACE_OWNER, Survey};

/// First map page.
const FIRST_MAP: PageId = PageId::new(0);
/// Log bytes of operations on a map page, generously.
const MAP_OPS_BYTES: usize = 128;
/// Log bytes of formatting a page and marking it used, generously.
const CREATE_BYTES: usize = 64;
/// Most pages one structure change takes (a root split).
pub(crate) const RESERVE_MAX: usize = 2;

/// Logged page allocation over the map pages. One per database, shared by its trees.
pub struct Space {
    pool: Arc<BufferPool>,
    wal: Arc<Wal>,
    commit_lsn: CommitLsn,
    layout: MapLayout,
    state: Mutex<State>,
    rooms: Rooms,
    thin: ThinLeaves,
    joins: AtomicU64,
    released: AtomicU64,
    /// Counts exchanges of whole trees: a leaf found before one may be in no tree any more.
    era: AtomicU64,
}

/// Counters since open, and one gauge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Tree nodes joined with a neighbour or their parent: each gave one page back.
    pub joins: u64,
    /// Pages given back, by joins and by freeing whole trees.
    pub pages_released: u64,
    /// Leaves noted to be tidied.
    pub thin_leaves: usize,
}

/// What only memory knows.
#[derive(Default)]
struct State {
    /// No page below it is free. Starts at 0: the first search after an open reads the maps.
    hint: u64,
    /// Ids handed out whose bits are not set yet.
    reserved: Vec<PageId>,
}

/// Ids of free pages that nobody else gets while this lives. Drop it after the latches are gone.
pub(crate) struct Reserved<'s> {
    space: &'s Space,
    ids: [PageId; RESERVE_MAX],
    count: usize,
}

/// What one map page has to offer.
enum Found {
    Ids([PageId; RESERVE_MAX]),
    /// Too little; the next map page.
    NextMap(PageId),
    /// Too little, and there is no further map page.
    LastMap,
}

impl Space {
    /// Formats the first map page and marks the first `system_pages` pages used; for a new database.
    ///
    /// # Panics
    /// When `system_pages` does not fit under the first map page.
    pub fn create(txns: &Arc<TxnManager>, txn: &mut Txn, system_pages: u64) -> Result<Arc<Self>> {
        let space = Self::open(txns)?;
        let span = space.layout.span();
        assert!(system_pages <= span, "{system_pages} system pages, a map page covers {span}");
        space.pool.pager().grow_to(PageId::new(system_pages.max(1) - 1))?;
        txn.admit(MAP_OPS_BYTES + 16 * system_pages as usize, 1)?;
        let mut map = space.pool.create(FIRST_MAP)?;
        let mut ops = vec![FORMAT_MAP];
        ops.extend((0..system_pages.max(1)).map(|id| set_bit(id as u32)));
        txn.update(&mut [Edit { page: &mut map, ops: &ops }], Undo::Never);
        drop(map);
        Ok(space)
    }

    /// Opens the space of an existing database. Reads nothing yet: restart may still have to redo it.
    pub fn open(txns: &Arc<TxnManager>) -> Result<Arc<Self>> {
        let pool = Arc::clone(txns.pool());
        let layout = MapLayout::new(pool.pager().options().page_size);
        Ok(Arc::new(Self {
            pool,
            wal: Arc::clone(txns.wal()),
            commit_lsn: txns.commit_lsn_reader(),
            layout,
            state: Mutex::new(State::default()),
            rooms: Rooms::default(),
            thin: ThinLeaves::default(),
            joins: AtomicU64::new(0),
            released: AtomicU64::new(0),
            era: AtomicU64::new(0),
        }))
    }

    /// Pages whose bit is set, map pages included.
    pub fn pages_in_use(&self) -> Result<u64> {
        let mut used = 0;
        self.for_each_map(&mut |_, map| {
            used +=
                map.bytes()[HEADER_BYTES..].iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
        })?;
        Ok(used)
    }

    /// Gives the first map page a new LSN, one that no older copy of the data file can show.
    pub fn stamp(&self, txn: &mut Txn) -> Result<()> {
        txn.admit(MAP_OPS_BYTES, 1)?;
        let mut map = self.pool.write(FIRST_MAP)?;
        txn.update(&mut [Edit { page: &mut map, ops: &[set_bit(0)] }], Undo::Never);
        Ok(())
    }

    /// LSN of the first map page.
    pub fn stamped(&self) -> Result<Lsn> {
        Ok(self.read_map(FIRST_MAP)?.page().lsn())
    }

    /// Holds every claim of `survey` against its bit in the maps: a page is marked used if and only if
    /// somebody owns it. Claims the map pages itself, and calls `visit` with every page that is used by
    /// either account, in ascending order. Everybody else's claims come first; writers must be kept out.
    ///
    /// # Errors
    /// What keeps map pages from being read at all; damage is reported to `survey`.
    pub fn verify(&self, survey: &mut Survey, visit: &mut dyn FnMut(PageId)) -> Result<()> {
        survey.of("allocation map");
        let mut next = Some(FIRST_MAP);
        while let Some(id) = next {
            survey.claim(id);
            let map = survey.read(id)?.filter(|map| {
                let sound = map.page().kind() == Some(PageKind::Map);
                if !sound {
                    survey.fault(id, "is not an allocation map page");
                }
                sound
            });
            let map = map.as_ref().map(PageBuf::page);
            self.compare(survey, id, map, visit)?;
            // A damaged map says nothing about its pages, but the next one stands where it must.
            let beyond = PageId::new(id.get() + self.layout.span());
            let beyond = (beyond.get() < self.pool.pager().pages()).then_some(beyond);
            let link = map.map(|map| self.next_map(id, map)).transpose();
            next = survey.keep(link)?.flatten().unwrap_or(beyond);
        }
        Ok(())
    }

    /// Compares owners and bits of the pages under map page `id`; `None` = no bits are known.
    fn compare(
        &self,
        survey: &mut Survey,
        id: PageId,
        map: Option<PageRef<'_>>,
        visit: &mut dyn FnMut(PageId),
    ) -> Result<()> {
        for bit in 0..self.layout.span() as u32 {
            let page = PageId::new(id.get() + u64::from(bit));
            let used = map.map(|map| MapLayout::is_set(map, bit));
            match (used, survey.owner(page)) {
                (Some(true), None) => leaked(survey, page)?,
                (Some(false), Some(owner)) => {
                    let what = format!("is marked free, but belongs to {owner}");
                    survey.fault(page, what);
                }
                (None | Some(false), None) => continue,
                (None | Some(true), Some(_)) => {}
            }
            visit(page);
        }
        Ok(())
    }

    fn for_each_map(&self, visit: &mut dyn FnMut(PageId, PageRef<'_>)) -> Result<()> {
        let mut next = Some(FIRST_MAP);
        while let Some(id) = next {
            let map = self.read_map(id)?;
            visit(id, map.page());
            next = self.next_map(id, map.page())?;
        }
        Ok(())
    }

    fn read_map(&self, id: PageId) -> Result<PageRead<'_>> {
        let map = self.pool.read(id)?;
        if map.page().kind() != Some(PageKind::Map) {
            return Err(corrupt(&self.pool, id, "is not an allocation map page"));
        }
        Ok(map)
    }

    /// Map pages stand at multiples of the span; a link to anything else (a cycle, say) is damage.
    fn next_map(&self, id: PageId, map: PageRef<'_>) -> Result<Option<PageId>> {
        match map.link() {
            0 => Ok(None),
            link if link == id.get() + self.layout.span() => Ok(Some(PageId::new(link))),
            link => Err(corrupt(&self.pool, id, format!("links to {link} as the next map page"))),
        }
    }

    /// Formats the first page of something new, with `content` (of `content_bytes` when encoded) behind the
    /// format, and marks it used. A rollback of `txn`, or a crash before it commits, gives this page back,
    /// but none that is added to it: so do this in a transaction of its own, which also writes down who
    /// frees the whole ([`Pending::allocate`](crate::Pending::allocate)).
    pub(crate) fn create_first(
        &self,
        txn: &mut Txn,
        kind: PageKind,
        (content, content_bytes): (&[PageOp<'_>], usize),
    ) -> Result<PageId> {
        let reserved = self.reserve(txn, 1)?;
        let id = reserved.ids()[0];
        txn.admit(CREATE_BYTES + content_bytes, 2)?;
        let mut page = self.pool.create(id)?;
        let mut map = self.map(id)?;
        let mut ops = vec![PageOp::Format { kind, level: 0, owner: id.get() }];
        ops.extend_from_slice(content);
        let edits = &mut [
            Edit { page: &mut page, ops: &ops },
            Edit { page: &mut map, ops: &[self.bit(id, true)] },
        ];
        let body = id.get().to_le_bytes();
        txn.update(edits, Undo::Logical { owner: SPACE_OWNER, body: &body });
        Ok(id)
    }

    /// Reserves `count` pages that one map page covers, and sees to it that the file has room for them.
    /// Nothing may be latched: this does I/O. May log a new map page in `txn`.
    pub(crate) fn reserve(&self, txn: &mut Txn, count: usize) -> Result<Reserved<'_>> {
        assert!((1..=RESERVE_MAX).contains(&count), "{count} pages asked, limit {RESERVE_MAX}");
        let mut state = self.state.lock();
        let mut map = self.layout.locate(PageId::new(state.hint)).0;
        let ids = loop {
            match self.search(&mut state, map, count)? {
                Found::Ids(ids) => break ids,
                Found::NextMap(next) => map = next,
                Found::LastMap => map = self.add_map(txn, map)?,
            }
        };
        self.pool.pager().grow_to(ids[count - 1])?;
        state.reserved.extend_from_slice(&ids[..count]);
        Ok(Reserved { space: self, ids, count })
    }

    /// Looks for `count` ids under map page `id`. The lock on `state` is held from reading the bits to
    /// reserving the ids: whoever sets a bit gives its reservation back only afterwards.
    fn search(&self, state: &mut State, id: PageId, count: usize) -> Result<Found> {
        let map = self.read_map(id)?;
        let mut ids = [PageId::default(); RESERVE_MAX];
        let mut found = 0;
        let mut bit = state.hint.saturating_sub(id.get()) as u32;
        let mut first = true;
        while let Some(clear) = MapLayout::first_clear(map.page(), bit) {
            let page = PageId::new(id.get() + u64::from(clear));
            if first && page.get() > state.hint && self.hint_is_under(id, state.hint) {
                state.hint = page.get();
            }
            first = false;
            if !state.reserved.contains(&page) {
                ids[found] = page;
                found += 1;
            }
            if found == count {
                return Ok(Found::Ids(ids));
            }
            bit = clear + 1;
        }
        if first && self.hint_is_under(id, state.hint) {
            state.hint = id.get() + self.layout.span();
        }
        Ok(self.next_map(id, map.page())?.map_or(Found::LastMap, Found::NextMap))
    }

    /// The hint may move on only from the map page it points into: all pages below it are used.
    fn hint_is_under(&self, map: PageId, hint: u64) -> bool {
        hint >= map.get() && hint < map.get() + self.layout.span()
    }

    /// Formats the map page behind `last` and links it, in one record.
    fn add_map(&self, txn: &mut Txn, last: PageId) -> Result<PageId> {
        let id = PageId::new(last.get() + self.layout.span());
        self.pool.pager().grow_to(id)?;
        txn.admit(2 * MAP_OPS_BYTES, 2)?;
        let mut new = self.pool.create(id)?;
        let mut before = self.pool.write(last)?;
        let edits = &mut [
            Edit { page: &mut new, ops: &[FORMAT_MAP, set_bit(0)] },
            Edit { page: &mut before, ops: &[PageOp::SetLink { link: id.get() }] },
        ];
        txn.update(edits, Undo::Never);
        Ok(id)
    }

    /// Latches the map page of `page` (last in the latch order) without waiting; `None` = come again.
    pub(crate) fn try_map(&self, page: PageId, patient: bool) -> Result<Option<PageWrite<'_>>> {
        if patient {
            return self.map(page).map(Some);
        }
        self.pool.try_write(self.layout.locate(page).0)
    }

    /// Latches the map page of `page`; last in the latch order.
    pub(crate) fn map(&self, page: PageId) -> Result<PageWrite<'_>> {
        self.pool.write(self.layout.locate(page).0)
    }

    /// Brings the map page of `page` into memory and waits until nobody writes it.
    pub(crate) fn await_map(&self, page: PageId) -> Result<()> {
        self.pool.glimpse(self.layout.locate(page).0).map(drop)
    }

    /// The operation that marks `page` used or free in its map page.
    pub(crate) fn bit(&self, page: PageId, value: bool) -> PageOp<'static> {
        PageOp::SetBit { index: self.layout.locate(page).1, value }
    }

    /// Whether `page` is marked used. One that is not begins its next life with `Format`. Nothing may be
    /// latched.
    pub fn is_used(&self, page: PageId) -> Result<bool> {
        let (map, bit) = self.layout.locate(page);
        Ok(MapLayout::is_set(self.read_map(map)?.page(), bit))
    }

    /// As [`Space::is_used`], when the page's map page is latched.
    pub(crate) fn is_set(&self, map: PageRef<'_>, page: PageId) -> bool {
        MapLayout::is_set(map, self.layout.locate(page).1)
    }

    /// Where the heaps' room is, as far as memory knows.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// `page`'s bit was cleared: it may be handed out again.
    pub(crate) fn freed(&self, page: PageId) {
        self.released.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.hint = state.hint.min(page.get());
    }

    /// As [`Space::freed`], for a page whose node was joined with another one.
    pub(crate) fn given_back(&self, page: PageId) {
        self.joins.fetch_add(1, Ordering::Relaxed);
        self.freed(page);
    }

    /// What is to be tidied.
    pub(crate) fn thin_leaves(&self) -> &ThinLeaves {
        &self.thin
    }

    /// Counters and gauges.
    pub fn stats(&self) -> SpaceStats {
        SpaceStats {
            joins: self.joins.load(Ordering::Relaxed),
            pages_released: self.released.load(Ordering::Relaxed),
            thin_leaves: self.thin.len(),
        }
    }

    /// Which exchange of a whole tree was the last.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Leaves were taken out of their tree without a change of their own: no trace leads there.
    pub(crate) fn new_era(&self) {
        self.era.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    /// Whether every change on a page with this pageLSN is committed (or taken back) and durable, so that
    /// nobody can need its ghosts and slack (`Commit_LSN`, Mohan 1990). The page must be latched, or its
    /// version validated afterwards.
    pub(crate) fn settled(&self, page_lsn: Lsn) -> bool {
        page_lsn < self.commit_lsn()
    }

    /// Below it every change is committed and durable.
    pub(crate) fn commit_lsn(&self) -> Lsn {
        self.commit_lsn.get()
    }

    /// Where the next record goes; greater than every pageLSN.
    pub(crate) fn log_tail(&self) -> Lsn {
        self.wal.tail()
    }
}

impl Reserved<'_> {
    /// The reserved ids, ascending.
    pub(crate) fn ids(&self) -> &[PageId] {
        &self.ids[..self.count]
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.space.state.lock();
        state.reserved.retain(|id| !self.ids[..self.count].contains(id));
    }
}

/// Reports a page that is marked used without an owner, with what the page says about itself.
fn leaked(survey: &mut Survey, page: PageId) -> Result<()> {
    let claims = survey.read(page)?.map(|copy| {
        let (kind, owner) = (copy.page().kind(), copy.page().owner());
        kind.map_or_else(String::new, |kind| format!(": a {kind:?} page of p{owner}, it says"))
    });
    survey.fault(
        page,
        format_args!("is marked used, but belongs to nothing{}", claims.unwrap_or_default()),
    );
    Ok(())
}

const FORMAT_MAP: PageOp<'static> = PageOp::Format { kind: PageKind::Map, level: 0, owner: 0 };

const fn set_bit(index: u32) -> PageOp<'static> {
    PageOp::SetBit { index, value: true }
}
