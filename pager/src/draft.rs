//! A page made outside the pool, one cell behind the other, to enter it as one [image](PageOp::Image).
//!
//! ```text
//!  begin       header │                                             │
//!  push ×3     header │ slot 0 │ slot 1 │ slot 2 │ hole │ c2 │ c1 │ c0 │      cells are written by the caller
//!  image                 heads ▲                                             into the page itself
//! ```
//!
//! Whoever fills whole pages (a bulk load) need not spell each cell out as an operation, only to have it encoded,
//! logged and put together again one by one: the image has the same bytes as `Format`, `Heads` and an
//! `Insert` for each cell would make, and as many in the log.
//!
//! Left out: anything but adding behind the last cell. A draft is no page: it has no LSN, and nobody reads it
//! but who makes it.

use argali_base::PageId;

use crate::page::at;
use crate::{HEADER_BYTES, PAGE_VERSION, PageBuf, PageKind, PageOp, PageSize, SLOT_BYTES};

/// What will be a page.
#[derive(Debug)]
pub struct Draft {
    page: PageBuf,
    slots: usize,
    /// Where the last cell begins.
    heap: usize,
}

impl Draft {
    /// An empty one for a page of this size.
    pub fn new(size: PageSize) -> Self {
        Self { page: PageBuf::new(size), slots: 0, heap: size.bytes() }
    }

    /// Forgets all cells.
    pub fn clear(&mut self) {
        (self.slots, self.heap) = (0, self.page.bytes().len());
    }

    /// Cells pushed.
    pub const fn len(&self) -> usize {
        self.slots
    }

    /// Whether none was.
    pub const fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Bytes for further cells and their slots.
    pub const fn free_bytes(&self) -> usize {
        self.heap - HEADER_BYTES - self.slots * SLOT_BYTES
    }

    /// A cell of `len` bytes behind the last one, to be written.
    ///
    /// # Panics
    /// When it has no bytes, or there is no room for it and its slot.
    pub fn push(&mut self, len: usize) -> &mut [u8] {
        let free = self.free_bytes();
        assert!(len > 0 && len + SLOT_BYTES <= free, "a cell of {len} bytes into {free} free ones");
        let place = HEADER_BYTES + self.slots * SLOT_BYTES;
        self.heap -= len;
        self.slots += 1;
        let (heap, bytes) = (self.heap, self.page.bytes_mut());
        let [low, high] = number(heap);
        let [short, long] = number(len);
        bytes[place..place + 4].copy_from_slice(&[low, high, short, long]);
        &mut bytes[heap..heap + len]
    }

    /// The cell in `slot`, if it was pushed.
    pub fn cell(&self, slot: usize) -> Option<&[u8]> {
        if slot >= self.slots {
            return None;
        }
        let (at, len) = self.place(slot);
        self.page.bytes().get(at..at + len)
    }

    fn place(&self, slot: usize) -> (usize, usize) {
        let at = HEADER_BYTES + slot * SLOT_BYTES;
        let number = |at| usize::from(u16::from_le_bytes(self.page.page().field(at)));
        (number(at), number(at + 2))
    }

    /// Gives each slot its head, made from its cell; they leave out `skip` key bytes.
    pub fn set_heads(&mut self, skip: usize, head: impl Fn(&[u8]) -> u32) {
        let bytes = self.page.bytes_mut();
        bytes[at::SKIP..at::SKIP + 2].copy_from_slice(&number(skip));
        for slot in 0..self.slots {
            let (at, len) = self.place(slot);
            let bytes = self.page.bytes_mut();
            let head = head(&bytes[at..at + len]);
            let place = HEADER_BYTES + slot * SLOT_BYTES + 4;
            bytes[place..place + 4].copy_from_slice(&head.to_le_bytes());
        }
    }

    /// The operation that makes page `id` of `database` so, formatted as `kind`, `level` and `owner` say.
    pub fn image(
        &mut self,
        (id, database): (PageId, u64),
        (kind, level, owner): (PageKind, u8, PageId),
    ) -> PageOp<'_> {
        let (slots, heap) = (number(self.slots), self.heap as u32);
        let hole = HEADER_BYTES + self.slots * SLOT_BYTES..self.heap;
        let bytes = self.page.bytes_mut();
        bytes[hole].fill(0);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(at::KIND, &[kind as u8, PAGE_VERSION, level]);
        put(at::ID, &id.get().to_le_bytes());
        put(at::DATABASE, &database.to_le_bytes());
        put(at::SLOT_COUNT, &slots);
        put(at::HEAP_START, &heap.to_le_bytes());
        put(at::OWNER, &owner.get().to_le_bytes());
        PageOp::Image { bytes: self.page.bytes() }
    }
}

/// As it stands in a page.
fn number(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("offsets and counts of a page fit 16 bits").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use argali_base::Lsn;

    use super::*;

    const ID: PageId = PageId::new(7);
    const OWNER: PageId = PageId::new(3);

    fn applied(ops: &[PageOp<'_>]) -> PageBuf {
        let mut page = PageBuf::new(PageSize::DEFAULT);
        page.page_mut().blank(ID, 99);
        page.page_mut().apply(ops, Lsn::new(640));
        page
    }

    #[test]
    fn an_image_has_the_bytes_that_operations_make() {
        let mut draft = Draft::new(PageSize::DEFAULT);
        for cells in [0, 1, 60, 3] {
            draft.clear();
            let cells: Vec<Vec<u8>> = (0..cells).map(|n| vec![n; 10 + usize::from(n)]).collect();
            for cell in &cells {
                draft.push(cell.len()).copy_from_slice(cell);
            }
            draft.set_heads(4, |cell| u32::from(cell[9]));
            let format = PageOp::Format { kind: PageKind::Leaf, level: 0, owner: OWNER.get() };
            let mut ops = vec![format, PageOp::Heads { skip: 4, heads: &[] }];
            ops.extend(cells.iter().enumerate().map(|(slot, cell)| {
                let head = u32::from(cell[9]);
                PageOp::Insert { slot: slot as u16, head, cell }
            }));
            let expected = applied(&ops);
            assert_eq!(draft.free_bytes(), expected.page().free_bytes());
            assert_eq!(draft.cell(cells.len()), None);
            assert_eq!(draft.cell(0), cells.first().map(Vec::as_slice));
            let image = draft.image((ID, 99), (PageKind::Leaf, 0, OWNER));
            assert_eq!(applied(&[image]).bytes(), expected.bytes(), "{} cells", cells.len());
        }
    }

    #[test]
    #[should_panic(expected = "into 28 free ones")]
    fn a_cell_without_room_is_refused() {
        let mut draft = Draft::new(PageSize::DEFAULT);
        let free = draft.free_bytes();
        draft.push(free - 36);
        draft.push(21);
    }
}
