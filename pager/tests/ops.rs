//! Operations against a model: a page is a list of cells, a link and nothing else.
#![allow(clippy::unwrap_used)]

use argali_base::{Lsn, PageId};
use argali_pager::{OpList, PageBuf, PageKind, PageOp, PageSize};
use proptest::prelude::*;

const SIZE: usize = 4096;
const FORMAT: PageOp<'static> = PageOp::Format { kind: PageKind::Slotted, level: 3, owner: 77 };

/// What an operation does, with places as fractions of what there is.
#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u32, Vec<u8>),
    Remove(u16),
    Replace(u16, u32, Vec<u8>),
    Patch(u16, u16, Vec<u8>),
    Add(u16, u16, u64),
    Truncate(u16),
    SetLink(u64),
    Heads(u16, Vec<u8>),
}

fn cell() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..60),
        2 => prop::collection::vec(any::<u8>(), 200..900),
        1 => prop::collection::vec(any::<u8>(), 3000..4100),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = any::<u16>();
    prop_oneof![
        12 => (at, any::<u32>(), cell()).prop_map(|(s, h, c)| Step::Insert(s, h, c)),
        5 => at.prop_map(Step::Remove),
        5 => (at, any::<u32>(), cell()).prop_map(|(s, h, c)| Step::Replace(s, h, c)),
        3 => (at, at, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(s, a, b)| Step::Patch(s, a, b)),
        3 => (at, at, any::<u64>()).prop_map(|(s, a, d)| Step::Add(s, a, d)),
        1 => at.prop_map(Step::Truncate),
        1 => any::<u64>().prop_map(Step::SetLink),
        1 => (at, prop::collection::vec(any::<u8>(), 400)).prop_map(|(s, h)| Step::Heads(s, h)),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    cells: Vec<(u32, Vec<u8>)>,
    link: u64,
    skip: usize,
}

impl Model {
    fn free(&self) -> usize {
        let used: usize = self.cells.iter().map(|(_, cell)| 8 + cell.len()).sum();
        SIZE - 64 - used
    }

    fn len(&self, slot: u16) -> Option<usize> {
        self.cells.get(usize::from(slot)).map(|(_, cell)| cell.len())
    }

    fn fits(&self, op: &PageOp<'_>) -> bool {
        match *op {
            PageOp::Insert { slot, cell, .. } => {
                usize::from(slot) <= self.cells.len() && cell.len() + 8 <= self.free()
            }
            PageOp::Remove { slot } => self.len(slot).is_some(),
            PageOp::Replace { slot, cell, .. } => {
                self.len(slot).is_some_and(|old| cell.len() <= self.free() + old)
            }
            PageOp::Patch { slot, at, bytes } => {
                self.len(slot).is_some_and(|len| usize::from(at) + bytes.len() <= len)
            }
            PageOp::Add { slot, at, .. } => {
                self.len(slot).is_some_and(|len| usize::from(at) + 8 <= len)
            }
            PageOp::Truncate { slot } => usize::from(slot) <= self.cells.len(),
            PageOp::Heads { heads, .. } => heads.len() == 4 * self.cells.len(),
            _ => true,
        }
    }

    fn apply(&mut self, op: &PageOp<'_>) {
        match *op {
            PageOp::Insert { slot, head, cell } => {
                self.cells.insert(usize::from(slot), (head, cell.to_vec()));
            }
            PageOp::Remove { slot } => drop(self.cells.remove(usize::from(slot))),
            PageOp::Replace { slot, head, cell } => {
                self.cells[usize::from(slot)] = (head, cell.to_vec());
            }
            PageOp::Patch { slot, at, bytes } => {
                self.cells[usize::from(slot)].1[usize::from(at)..][..bytes.len()]
                    .copy_from_slice(bytes);
            }
            PageOp::Add { slot, at, delta } => {
                let field = &mut self.cells[usize::from(slot)].1[usize::from(at)..][..8];
                let sum = u64::from_le_bytes((&*field).try_into().unwrap()).wrapping_add(delta);
                field.copy_from_slice(&sum.to_le_bytes());
            }
            PageOp::Truncate { slot } => self.cells.truncate(usize::from(slot)),
            PageOp::SetLink { link } => self.link = link,
            PageOp::Heads { skip, heads } => {
                self.skip = usize::from(skip);
                for ((head, _), new) in self.cells.iter_mut().zip(heads.as_chunks().0) {
                    *head = u32::from_le_bytes(*new);
                }
            }
            _ => unreachable!("not a step"),
        }
    }

    /// The operation a step stands for on a page in this state.
    fn op<'a>(&self, step: &'a Step) -> PageOp<'a> {
        let existing = |at: u16| at % (self.cells.len() as u16 + 1);
        let inside = |slot: u16, at: u16| at % (self.len(slot).unwrap_or(0) as u16 + 1);
        match step {
            Step::Insert(s, head, cell) => PageOp::Insert { slot: existing(*s), head: *head, cell },
            Step::Remove(s) => PageOp::Remove { slot: existing(*s) },
            Step::Replace(s, head, cell) => {
                PageOp::Replace { slot: existing(*s), head: *head, cell }
            }
            Step::Patch(s, at, bytes) => {
                let slot = existing(*s);
                PageOp::Patch { slot, at: inside(slot, *at), bytes }
            }
            Step::Add(s, at, delta) => {
                let slot = existing(*s);
                PageOp::Add { slot, at: inside(slot, *at), delta: *delta }
            }
            Step::Truncate(s) => PageOp::Truncate { slot: existing(*s) },
            Step::SetLink(link) => PageOp::SetLink { link: *link },
            Step::Heads(skip, heads) => {
                let heads = &heads[..heads.len().min(4 * self.cells.len())];
                PageOp::Heads { skip: *skip, heads }
            }
        }
    }
}

fn read(buf: &PageBuf) -> Model {
    let page = buf.page();
    let cells = (0..page.slot_count())
        .map(|slot| (page.head(slot).unwrap(), page.cell(slot).unwrap().to_vec()))
        .collect();
    assert_eq!(page.cell(page.slot_count()), None);
    Model { cells, link: page.link(), skip: page.skip() }
}

fn blank() -> PageBuf {
    let mut buf = PageBuf::new(PageSize::new(SIZE as u32).unwrap());
    buf.page_mut().blank(PageId::new(9), 0xa11);
    buf.page_mut().apply(&[FORMAT], Lsn::new(1));
    buf
}

fn encoded(ops: &[PageOp<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for op in ops {
        op.encode(&mut bytes);
    }
    bytes
}

/// The hole is zero: what lets an image omit it.
fn assert_hole_is_zero(buf: &PageBuf) {
    let bytes = buf.bytes();
    let slots_end = 64 + 8 * buf.page().slot_count();
    let heap_start = u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
    assert!(bytes[slots_end..heap_start].iter().all(|byte| *byte == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_page_is_its_list_of_cells(steps in prop::collection::vec(step(), 1..80)) {
        let (mut buf, mut model) = (blank(), Model::default());
        let mut log: Vec<(Lsn, Vec<u8>)> = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let (op, lsn) = (model.op(step), Lsn::new(10 + i as u64));
            prop_assert_eq!(op.fits(buf.page()), model.fits(&op), "{} on {:?}", op, buf.page());
            prop_assert_eq!(buf.page().free_bytes(), model.free());
            if !model.fits(&op) {
                continue;
            }
            let bytes = encoded(&[op]);
            prop_assert_eq!(OpList::decode(&bytes).unwrap(), vec![op]);
            check_inverse(&buf, &model, op, lsn);
            buf.page_mut().apply(&[op], lsn);
            model.apply(&op);
            prop_assert_eq!(read(&buf), model.clone());
            prop_assert_eq!(buf.page().check(), Ok(()));
            prop_assert_eq!(buf.page().lsn(), lsn);
            assert_hole_is_zero(&buf);
            log.push((lsn, bytes));
        }
        check_image(&buf);
        // Redo from the log, twice: each record is applied once, and the bytes are the same.
        let mut redone = blank();
        for (lsn, bytes) in log.iter().chain(&log) {
            if redone.page().lsn() < *lsn {
                redone.page_mut().apply(&OpList::decode(bytes).unwrap(), *lsn);
            }
        }
        prop_assert_eq!(redone.bytes(), buf.bytes());
    }

    #[test]
    fn anything_but_operations_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Some(ops) = OpList::decode(&bytes) {
            // What decodes is exactly what would be encoded, but for the value of a bit.
            let again = encoded(&ops);
            prop_assert_eq!(OpList::decode(&again).unwrap(), ops);
        }
        OpList::describe(PageId::new(1), &bytes);
        OpList::overwrites(&bytes);
    }

    #[test]
    fn a_list_cut_short_is_refused(steps in prop::collection::vec(step(), 1..5), cut in 1..9_usize) {
        let ops: Vec<_> = steps.iter().map(|step| Model::default().op(step)).collect();
        let bytes = encoded(&ops);
        let last = encoded(&ops[ops.len() - 1..]).len();
        if cut < last {
            prop_assert_eq!(OpList::decode(&bytes[..bytes.len() - cut]), None);
        }
    }
}

fn check_inverse(buf: &PageBuf, model: &Model, op: PageOp<'_>, lsn: Lsn) {
    if matches!(op, PageOp::Truncate { .. } | PageOp::Heads { .. }) {
        return;
    }
    let inverse = encoded(&[op.inverse(buf.page())]);
    let mut there_and_back = buf.clone();
    there_and_back.page_mut().apply(&[op], lsn);
    let ops = OpList::decode(&inverse).unwrap();
    assert!(ops[0].fits(there_and_back.page()), "{} does not fit after {op}", ops[0]);
    there_and_back.page_mut().apply(&ops, Lsn::new(lsn.get() + 1));
    assert_eq!(&read(&there_and_back), model, "{op} and back by {}", ops[0]);
}

/// An image restores every byte onto whatever is there, whole or without its hole.
fn check_image(buf: &PageBuf) {
    let image = PageOp::Image { bytes: buf.bytes() };
    let bytes = encoded(&[image]);
    let decoded = OpList::decode(&bytes).unwrap();
    assert!(decoded[0].overwrites() && OpList::overwrites(&bytes));
    for image in [image, decoded[0]] {
        let mut other = blank();
        other.page_mut().apply(&[PageOp::SetLink { link: 5 }], Lsn::new(2));
        other.page_mut().apply(&[image], Lsn::new(1000));
        let mut expected = buf.clone();
        expected.page_mut().apply(&[PageOp::SetLink { link: buf.page().link() }], Lsn::new(1000));
        assert_eq!(other.bytes(), expected.bytes());
    }
    assert_eq!(encoded(&decoded), bytes, "an image is encoded the same with and without its hole");
}

#[test]
fn images_of_every_hole_length_survive_every_page_size() {
    for size in [4096, 8192, 16384, 32768, 65536_u32] {
        let page_size = PageSize::new(size).unwrap();
        // Lengths that leave a power of two, where an image could be mistaken for a whole page.
        let powers = (12..size.ilog2()).map(|bits| (1_usize << bits) - 72);
        for len in [1, 100, 4000].into_iter().chain(powers).chain([size as usize - 72]) {
            let len = len.min(size as usize - 72).min(65535);
            let cell = vec![7; len];
            let mut buf = PageBuf::new(page_size);
            buf.page_mut().apply(&[FORMAT], Lsn::new(1));
            let insert = PageOp::Insert { slot: 0, head: 1, cell: &cell };
            assert!(insert.fits(buf.page()), "{len} bytes into {size}");
            buf.page_mut().apply(&[insert], Lsn::new(2));
            let bytes = encoded(&[PageOp::Image { bytes: buf.bytes() }]);
            let decoded = OpList::decode(&bytes).unwrap();
            assert_eq!(encoded(&decoded), bytes);
            let mut other = PageBuf::new(page_size);
            other.page_mut().apply(&decoded, Lsn::new(3));
            assert_eq!(other.bytes()[32..], buf.bytes()[32..], "{len} bytes on {size}");
        }
    }
}

#[test]
#[should_panic(expected = "pageLSN @10 must be less than the record's LSN @10")]
fn a_record_is_not_applied_twice() {
    let mut buf = blank();
    buf.page_mut().apply(&[PageOp::SetLink { link: 1 }], Lsn::new(10));
    buf.page_mut().apply(&[PageOp::SetLink { link: 1 }], Lsn::new(10));
}

#[test]
#[should_panic(expected = "remove [0]: no cell 0")]
fn an_operation_that_does_not_fit_panics() {
    blank().page_mut().apply(&[PageOp::Remove { slot: 0 }], Lsn::new(10));
}

#[test]
fn redo_of_what_does_not_fit_is_an_answer_not_a_panic() {
    let mut buf = blank();
    let map = PageOp::SetBit { index: 3, value: true };
    assert!(buf.page_mut().try_apply(&[map], Lsn::new(10)).unwrap_err().contains("bit 3 = 1"));
    assert_eq!(buf.page().lsn(), Lsn::new(1));
}

#[test]
fn an_image_of_another_page_is_refused() {
    let mut other = PageBuf::new(PageSize::new(SIZE as u32).unwrap());
    other.page_mut().blank(PageId::new(8), 0xa11);
    let image = PageOp::Image { bytes: other.bytes() };
    let error = blank().page_mut().try_apply(&[image], Lsn::new(10)).unwrap_err();
    assert!(error.contains("image of p8 for p9"), "{error}");
}

#[test]
fn formatting_keeps_identity_and_lsn_and_clears_the_rest() {
    let mut buf = blank();
    let insert = PageOp::Insert { slot: 0, head: 1, cell: b"old" };
    buf.page_mut().apply(&[insert, PageOp::SetLink { link: 4 }], Lsn::new(10));
    let format = PageOp::Format { kind: PageKind::Map, level: 0, owner: 0 };
    buf.page_mut().apply(&[format], Lsn::new(20));
    let page = buf.page();
    assert_eq!((page.id(), page.database(), page.lsn()), (PageId::new(9), 0xa11, Lsn::new(20)));
    assert_eq!((page.kind(), page.link(), page.slot_count()), (Some(PageKind::Map), 0, 0));
    assert_eq!(page.bytes()[64], 1, "a map page covers itself");
    assert!(page.bytes()[65..].iter().all(|byte| *byte == 0));
}

#[test]
fn operations_read_well() {
    let ops = [
        FORMAT,
        PageOp::Insert { slot: 1, head: 0, cell: b"key\0" },
        PageOp::Add { slot: 0, at: 8, delta: 3_u64.wrapping_neg() },
        PageOp::Patch { slot: 2, at: 1, bytes: &[b'x'; 40] },
    ];
    let text = OpList::describe(PageId::new(7), &encoded(&ops));
    let expected = concat!(
        "p7: format Slotted level 3 of p77; insert [1] \"key\\x00\"; add [0]+8 -3; ",
        "patch [2]+1 \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"… (40 bytes)"
    );
    assert_eq!(text, expected);
    assert_eq!(OpList::describe(PageId::new(7), &[99]), "p7: 1 bytes that are not operations");
}
