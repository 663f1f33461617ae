//! The slotted body: an array of slots that grows up, a heap of cells that grows down.
//!
//! ```text
//!  header │ slot 0 │ slot 1 │ slot 2 │ → hole (zeros) ← │ cell 1 │ (dead) │ cell 2 │ cell 0 │
//!         64                         slots_end          heap_start                      page size
//! ```
//!
//! A slot is one word: offset, length and the 4-byte head of the key, so that a binary search touches
//! few cells. Heads leave out the first `skip` bytes of a key, which all keys of the page share; what a key
//! is, only those know who write cells. Cells lie where there was room; removing one leaves dead bytes in the heap, and when the
//! hole is too small for a new cell the heap is compacted, cells in slot order. An empty cell lies
//! nowhere (offset 0).
//!
//! Two properties others build on. *Deterministic*: the same operations on the same page give the same
//! bytes, so redo repeats history to the byte. *The hole is zero*: it need not be logged with an image.
//!
//! Left out: aligning cells to words. Word-wise readers cost two loads and a shift instead of one, and
//! keys begin at odd offsets inside a cell anyway; padding would cost inner nodes a fifth of their fan-out.

use crate::page::{HEADER_BYTES, PageMut, PageRef, SLOT_BYTES, at};

/// A slot's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) head: u32,
}

impl<'a> PageRef<'a> {
    /// Number of slots, never more than the page has room for.
    pub fn slot_count(&self) -> usize {
        let room = self.bytes().len().saturating_sub(HEADER_BYTES) / SLOT_BYTES;
        self.u16(at::SLOT_COUNT).min(room)
    }

    pub(crate) fn slots_end(&self) -> usize {
        HEADER_BYTES + self.slot_count() * SLOT_BYTES
    }

    /// Start of the heap, never outside the room it may take.
    pub(crate) fn heap_start(&self) -> usize {
        let end = self.bytes().len();
        (self.u32(at::HEAP_START) as usize).clamp(self.slots_end().min(end), end)
    }

    fn dead(&self) -> usize {
        (self.u32(at::DEAD) as usize).min(self.bytes().len() - self.heap_start())
    }

    pub(crate) fn slot(&self, slot: usize) -> Option<Slot> {
        if slot >= self.slot_count() {
            return None;
        }
        let place = HEADER_BYTES + slot * SLOT_BYTES;
        Some(Slot { offset: self.u16(place), len: self.u16(place + 2), head: self.u32(place + 4) })
    }

    /// Bytes of cell `slot`; `None` when slot or cell lies outside the page.
    pub fn cell(&self, slot: usize) -> Option<&'a [u8]> {
        let slot = self.slot(slot)?;
        if slot.len == 0 {
            return Some(&[]);
        }
        if slot.offset < self.slots_end() {
            return None;
        }
        self.bytes().get(slot.offset..slot.offset + slot.len)
    }

    /// Leading key bytes that the heads leave out.
    pub fn skip(&self) -> usize {
        self.u16(at::SKIP)
    }

    /// The 4-byte key head kept in the slot.
    pub fn head(&self, slot: usize) -> Option<u32> {
        self.slot(slot).map(|slot| slot.head)
    }

    /// Bytes an insert may take, slot included, after compaction.
    pub fn free_bytes(&self) -> usize {
        self.hole_bytes() + self.dead()
    }

    /// Bytes between slots and heap.
    fn hole_bytes(&self) -> usize {
        self.heap_start().saturating_sub(self.slots_end())
    }

    /// The part of the page an image may omit: zeros between slots and heap.
    pub(crate) fn hole(&self) -> std::ops::Range<usize> {
        if self.kind().is_some_and(crate::PageKind::is_slotted) {
            self.slots_end()..self.heap_start()
        } else {
            self.bytes().len()..self.bytes().len()
        }
    }

    /// Whether the slotted structure is sound: offsets inside the page, no overlap, counts add up.
    /// Pages of other kinds have no such structure.
    pub fn check(&self) -> Result<(), String> {
        let kind =
            self.kind().ok_or_else(|| format!("unknown page kind {}", self.bytes()[at::KIND]))?;
        if !kind.is_slotted() {
            return Ok(());
        }
        self.check_counts()?;
        let mut cells = self.cells_by_offset()?;
        cells.sort_unstable();
        for pair in cells.windows(2) {
            if pair[0].1 > pair[1].0 {
                return Err(format!("cells {:?} and {:?} overlap", pair[0], pair[1]));
            }
        }
        let live: usize = cells.iter().map(|(start, end)| end - start).sum();
        let heap = self.bytes().len() - self.heap_start();
        if live + self.dead() != heap {
            return Err(format!("{live} live + {} dead bytes in a heap of {heap}", self.dead()));
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), String> {
        let (slots, heap) = (self.u16(at::SLOT_COUNT), self.u32(at::HEAP_START) as usize);
        if slots != self.slot_count() {
            return Err(format!("{slots} slots do not fit the page"));
        }
        if heap != self.heap_start() {
            return Err(format!(
                "heap start {heap} outside {}..={}",
                self.slots_end(),
                self.bytes().len()
            ));
        }
        Ok(())
    }

    fn cells_by_offset(&self) -> Result<Vec<(usize, usize)>, String> {
        let mut cells = Vec::with_capacity(self.slot_count());
        for index in 0..self.slot_count() {
            let Some(slot) = self.slot(index) else { break };
            let end = slot.offset + slot.len;
            if slot.len == 0 {
                continue;
            }
            if slot.offset < self.heap_start() || end > self.bytes().len() {
                return Err(format!(
                    "cell {index} at {}..{end} lies outside the heap",
                    slot.offset
                ));
            }
            cells.push((slot.offset, end));
        }
        Ok(cells)
    }
}

/// What makes a change impossible; only pages and records from a disk can cause it.
type Refusal = Result<(), String>;

impl PageMut<'_> {
    pub(crate) fn insert(&mut self, slot: usize, head: u32, cell: &[u8]) -> Refusal {
        let count = self.page().slot_count();
        if slot > count {
            return Err(format!("slot {slot} of {count}"));
        }
        let heap_start = self.make_room(cell.len(), SLOT_BYTES)?;
        let offset = if cell.is_empty() { 0 } else { heap_start };
        let first = HEADER_BYTES / SLOT_BYTES;
        self.words().shift_words(first + slot, first + count, true);
        self.put_counts(count + 1, heap_start);
        self.put_slot(slot, Slot { offset, len: cell.len(), head });
        self.put(offset, cell);
        Ok(())
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Refusal {
        let old = self.live_slot(slot)?;
        let count = self.page().slot_count();
        self.add_dead(old.len);
        let first = HEADER_BYTES / SLOT_BYTES;
        self.words().shift_words(first + slot + 1, first + count, false);
        self.drop_slots_from(count - 1);
        Ok(())
    }

    pub(crate) fn replace(&mut self, slot: usize, head: u32, cell: &[u8]) -> Refusal {
        let old = self.live_slot(slot)?;
        if cell.len() <= old.len {
            let offset = if cell.is_empty() { 0 } else { old.offset };
            self.add_dead(old.len - cell.len());
            self.put_slot(slot, Slot { offset, len: cell.len(), head });
            self.put(offset, cell);
            return Ok(());
        }
        // The old cell dies first: a compaction on the way may then use its bytes.
        self.add_dead(old.len);
        self.put_slot(slot, Slot { offset: 0, len: 0, head });
        let offset = self.make_room(cell.len(), 0)?;
        self.put_heap_start(offset);
        self.put_slot(slot, Slot { offset, len: cell.len(), head });
        self.put(offset, cell);
        Ok(())
    }

    pub(crate) fn patch(&mut self, slot: usize, inside: usize, bytes: &[u8]) -> Refusal {
        let old = self.live_slot(slot)?;
        if inside + bytes.len() > old.len {
            return Err(format!(
                "bytes {inside}..{} of a cell of {}",
                inside + bytes.len(),
                old.len
            ));
        }
        self.put(old.offset + inside, bytes);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, slot: usize) -> Refusal {
        let count = self.page().slot_count();
        if slot > count {
            return Err(format!("slot {slot} of {count}"));
        }
        let dead: usize = (slot..count).filter_map(|i| self.page().slot(i)).map(|s| s.len).sum();
        self.add_dead(dead);
        self.drop_slots_from(slot);
        Ok(())
    }

    /// New heads for all slots, `u32` each.
    pub(crate) fn set_heads(&mut self, skip: usize, heads: &[u8]) {
        self.put_u16(at::SKIP, skip);
        let (heads, _) = heads.as_chunks::<4>();
        for (slot, head) in heads.iter().enumerate() {
            self.put(HEADER_BYTES + slot * SLOT_BYTES + 4, head);
        }
    }

    /// The slot, provided its cell lies inside the page: what `cell` checks, for writers.
    fn live_slot(&self, slot: usize) -> Result<Slot, String> {
        let page = self.page();
        page.cell(slot)
            .and_then(|_| page.slot(slot))
            .ok_or_else(|| format!("no cell {slot} in {} slots", page.slot_count()))
    }

    /// Sees to it that the heap can grow by `len` bytes, and the slot array by `slots`; where it starts then.
    fn make_room(&mut self, len: usize, slots: usize) -> Result<usize, String> {
        if len + slots > self.page().hole_bytes() {
            self.compact_for(len + slots)?;
        }
        Ok(self.page().heap_start() - len)
    }

    /// Makes the hole `wanted` bytes large.
    #[cold]
    fn compact_for(&mut self, wanted: usize) -> Refusal {
        let free = self.page().free_bytes();
        if wanted > free {
            return Err(format!("{wanted} bytes into {free} free ones"));
        }
        self.compact()?;
        let left = self.page().hole_bytes();
        if wanted > left {
            return Err(format!("{wanted} bytes into {left} after compaction"));
        }
        Ok(())
    }

    /// Packs the cells at the end of the page, slot 0 last, and clears the hole.
    fn compact(&mut self) -> Refusal {
        self.page().check()?;
        let old = self.page().bytes().to_vec();
        let old = PageRef::new(&old);
        let mut offset = old.bytes().len();
        for index in 0..old.slot_count() {
            let (Some(slot), Some(cell)) = (old.slot(index), old.cell(index)) else { continue };
            if slot.len == 0 {
                continue;
            }
            offset -= slot.len;
            self.put_slot(index, Slot { offset, ..slot });
            self.put(offset, cell);
        }
        self.words().zero(old.slots_end(), offset);
        self.put_heap_start(offset);
        self.put_u32(at::DEAD, 0);
        Ok(())
    }

    /// Forgets the slots from `count` on and zeroes them: they become part of the hole.
    fn drop_slots_from(&mut self, count: usize) {
        let end = self.page().slots_end();
        self.words().zero(HEADER_BYTES + count * SLOT_BYTES, end);
        self.put_u16(at::SLOT_COUNT, count);
    }

    fn put_slot(&mut self, index: usize, slot: Slot) {
        let Slot { offset, len, head } = slot;
        let place = u64::from(offset as u16) | u64::from(len as u16) << 16;
        self.put_u64(HEADER_BYTES + index * SLOT_BYTES, place | u64::from(head) << 32);
    }

    /// Slot count and heap start, which stand in one word.
    fn put_counts(&mut self, slots: usize, heap_start: usize) {
        const { assert!(at::SKIP == at::SLOT_COUNT + 2 && at::HEAP_START == at::SLOT_COUNT + 4) };
        let short = |value| u64::from(u16::try_from(value).expect("counts of a page fit 16 bits"));
        let (slots, skip) = (short(slots), short(self.page().skip()));
        self.put_u64(at::SLOT_COUNT, slots | skip << 16 | (heap_start as u64) << 32);
    }

    fn put_heap_start(&mut self, offset: usize) {
        self.put_u32(at::HEAP_START, offset as u32);
    }

    fn add_dead(&mut self, len: usize) {
        let dead = self.page().u32(at::DEAD).saturating_add(len as u32);
        self.put_u32(at::DEAD, dead);
    }
}
