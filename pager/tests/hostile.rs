//! Pages that make no sense: accessors, checks and operations answer, they never panic.
#![allow(clippy::unwrap_used)]

use argali_base::{Lsn, PageId};
use argali_pager::{MapLayout, OpList, PageBuf, PageKind, PageOp, PageRef, PageSize};
use proptest::prelude::*;

/// Calls everything a reader can call.
fn look_at(page: PageRef<'_>) {
    let _ = (page.lsn(), page.id(), page.kind(), page.level(), page.link(), page.owner());
    let _ = (page.database(), page.version(), page.checksum(), page.is_zero());
    assert!(page.free_bytes() <= page.bytes().len());
    for slot in (0..page.slot_count() + 2).chain([usize::MAX]) {
        assert!(page.cell(slot).is_none_or(|cell| cell.len() <= page.bytes().len()));
        let _ = page.head(slot);
    }
    let _ = page.check();
    for index in [0, 7, 8, 1000, 32_255, 32_256, u32::MAX] {
        let _ = (MapLayout::is_set(page, index), MapLayout::first_clear(page, index));
    }
    let _ = format!("{page:?}");
}

/// A page whose header is damaged in ways that matter, over a body of anything.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 4096);
    let small = prop_oneof![Just(0_u16), 1..600_u16, any::<u16>()];
    let heap = prop_oneof![0..5000_u32, any::<u32>()];
    (body, 0..6_u8, small, heap.clone(), heap).prop_map(|(mut bytes, kind, slots, heap, dead)| {
        bytes[4] = kind;
        bytes[16..24].fill(0);
        bytes[32..34].copy_from_slice(&slots.to_le_bytes());
        bytes[36..40].copy_from_slice(&heap.to_le_bytes());
        bytes[40..44].copy_from_slice(&dead.to_le_bytes());
        bytes
    })
}

fn op() -> impl Strategy<Value = PageOp<'static>> {
    static CELL: [u8; 5000] = [0xAB; 5000];
    let cell = (0..5000_usize).prop_map(|len| &CELL[..len]);
    let slot = prop_oneof![0..20_u16, any::<u16>()];
    prop_oneof![
        (slot.clone(), cell.clone()).prop_map(|(slot, cell)| PageOp::Insert {
            slot,
            head: 1,
            cell
        }),
        (slot.clone(), cell).prop_map(|(slot, cell)| PageOp::Replace { slot, head: 1, cell }),
        slot.clone().prop_map(|slot| PageOp::Remove { slot }),
        slot.clone().prop_map(|slot| PageOp::Truncate { slot }),
        (slot.clone(), any::<u16>()).prop_map(|(slot, at)| PageOp::Add { slot, at, delta: 1 }),
        (slot, any::<u16>()).prop_map(|(slot, at)| PageOp::Patch { slot, at, bytes: b"patched" }),
        any::<u32>().prop_map(|index| PageOp::SetBit { index, value: true }),
        Just(PageOp::SetLink { link: 3 }),
        Just(PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 1 }),
        (0..5000_usize).prop_map(|len| PageOp::Image { bytes: &CELL[..len] }),
        (any::<u16>(), 0..20_usize)
            .prop_map(|(skip, slots)| PageOp::Heads { skip, heads: &CELL[..4 * slots] }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn random_bytes_are_looked_at_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..5000)
    ) {
        look_at(PageRef::new(&bytes));
    }

    #[test]
    fn a_damaged_page_is_changed_or_refused_without_a_panic(
        bytes in damaged(),
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let mut buf = PageBuf::new(PageSize::new(4096).unwrap());
        buf.bytes_mut().copy_from_slice(&bytes);
        look_at(buf.page());
        for op in ops {
            let lsn = Lsn::new(buf.page().lsn().get().saturating_add(1));
            if lsn <= buf.page().lsn() {
                break; // an image may carry the greatest LSN
            }
            let _ = op.fits(buf.page());
            let _ = buf.page_mut().try_apply(&[op], lsn);
            look_at(buf.page());
        }
    }

    #[test]
    fn a_sound_page_with_one_damaged_byte_is_looked_at_without_a_panic(
        at in 0..4096_usize, byte in any::<u8>(),
    ) {
        let mut buf = PageBuf::new(PageSize::new(4096).unwrap());
        buf.page_mut().blank(PageId::new(1), 2);
        let mut ops = vec![PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 1 }];
        let cells: Vec<Vec<u8>> = (0..30).map(|len| vec![len; usize::from(len) * 3]).collect();
        ops.extend(cells.iter().map(|cell| PageOp::Insert { slot: 0, head: 0, cell }));
        buf.page_mut().apply(&ops, Lsn::new(10));
        buf.bytes_mut()[at] = byte;
        look_at(buf.page());
    }
}

#[test]
fn lengths_in_a_list_of_operations_are_not_believed() {
    // An image that claims 4 GiB, a cell that claims 64 KiB.
    assert_eq!(OpList::decode(&[10, 255, 255, 255, 255, 1, 2]), None);
    assert_eq!(OpList::decode(&[2, 0, 0, 0, 0, 0, 0, 255, 255, 1]), None);
}
