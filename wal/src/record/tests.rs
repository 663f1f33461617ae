//! Records against bytes: whatever is written comes back, and nothing else is ever taken for a record.

use proptest::prelude::*;

use super::*;
use crate::change::ChangesBuilder;
use crate::frame::{FRAME_BYTES_MIN, Seed, check, in_words};
use crate::tables::{ActiveTxn, DirtyPage, TxnState};
use crate::{CHANGE_OVERHEAD, LogId};
use argali_base::PageId;

const AT: Lsn = Lsn::new(640);

fn seed() -> Seed {
    Seed::new(LogId { database: 7, timeline: 1, branch: 0 }, false)
}

fn frame(record: &Record<'_>) -> Vec<u8> {
    let mut frame = FrameBuf::default();
    frame.write(record);
    let (first, rest) = frame.seal(seed(), AT, 48);
    let bytes = [&first, rest.as_flattened()].concat();
    assert_eq!(bytes.len(), record.encoded_len());
    bytes
}

fn changes(list: &[(u64, u64, Vec<u8>)]) -> ChangesBuilder {
    let mut builder = ChangesBuilder::default();
    for (page, prev, ops) in list {
        builder.push(PageId::new(*page), Lsn::new(*prev), |out| out.extend_from_slice(ops));
    }
    builder
}

/// One record of each kind and shape.
fn with_samples(mut look: impl FnMut(&Record<'_>)) {
    let one = changes(&[(7, 64, b"operations".to_vec())]);
    let two = changes(&[(7, 64, b"left".to_vec()), (8, 0, b"right!".to_vec())]);
    let mut out = Vec::new();
    let dirty = [DirtyPage { page: PageId::new(7), rec_lsn: Lsn::new(64) }];
    let active = [ActiveTxn {
        txn: TxnId::new(3),
        state: TxnState::Committed,
        first: Lsn::new(64),
        last: Lsn::new(80),
        undo_next: Lsn::NONE,
    }];
    let tables = CheckpointTables::encode(&mut out, &dirty, &active);
    let durable = Lsn::new(512);
    let owner = Owner(2);
    let bodies = [
        Body::Update { changes: one.changes(), undo: Undo::Physical(b"inverse") },
        Body::Update { changes: two.changes(), undo: Undo::Never },
        Body::Update { changes: two.changes(), undo: Undo::Logical { owner, body: b"key" } },
        Body::Update { changes: Changes::EMPTY, undo: Undo::Never },
        Body::Compensation { changes: one.changes(), undo_next: Lsn::new(64) },
        Body::Compensation { changes: Changes::EMPTY, undo_next: Lsn::NONE },
        Body::Commit { durable },
        Body::End,
        Body::CheckpointBegin { durable },
        Body::CheckpointEnd { begin: Lsn::new(560), durable, last: false, tables },
        Body::CheckpointEnd { begin: Lsn::new(560), durable, last: true, tables },
        Body::Prepare { durable, before: 0, last: false, piece: b"the first part" },
        Body::Prepare { durable, before: 14, last: true, piece: b"" },
    ];
    for body in bodies {
        look(&Record { txn: TxnId::new(3), prev: Lsn::new(80), body });
    }
}

#[test]
fn every_kind_comes_back() {
    with_samples(|record| {
        let bytes = frame(record);
        assert_eq!(check(&bytes, seed(), AT).unwrap().prev_len, 48);
        assert_eq!(Record::decode(&bytes).as_ref(), Some(record));
    });
}

#[test]
fn no_flipped_bit_passes() {
    with_samples(|record| {
        let bytes = frame(record);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad, seed(), AT).is_err(), "{record:?} bit {bit}");
            // Without the CRC it may decode, but it must not panic.
            if let Some(wrong) = Record::decode(&bad) {
                let _ = format!("{wrong:?}");
            }
        }
    });
}

#[test]
fn no_prefix_passes() {
    with_samples(|record| {
        let bytes = frame(record);
        for cut in 0..bytes.len() {
            assert!(check(&bytes[..cut], seed(), AT).is_err());
            assert_eq!(Record::decode(&bytes[..cut]), None);
        }
    });
}

#[test]
fn a_frame_is_valid_only_in_its_place() {
    let bytes = frame(&Record { txn: TxnId::new(1), prev: Lsn::NONE, body: Body::End });
    assert!(check(&bytes, seed(), AT).is_ok());
    assert!(check(&bytes, seed(), AT.advance(8)).is_err());
    let id = |database, timeline, branch| LogId { database, timeline, branch };
    for id in [id(8, 1, 0), id(7, 2, 0), id(7, 1, 9)] {
        assert!(check(&bytes, Seed::new(id, false), AT).is_err());
    }
    let mutated = Seed::new(LogId { database: 7, timeline: 1, branch: 0 }, true);
    assert!(check(&bytes, mutated, AT).is_err());
}

#[test]
fn reserved_and_unknown_kinds_flags_and_padding_are_refused() {
    let good = frame(&Record { txn: TxnId::new(1), prev: Lsn::NONE, body: Body::End });
    assert_eq!((good.len(), good[KIND_AT]), (FRAME_BYTES_MIN, END | 5 << PADDING_SHIFT));
    for kind in [0, 7, 9, 10, 11, 12, 13, 14, 15] {
        let mut bad = good.clone();
        bad[KIND_AT] = kind | 5 << PADDING_SHIFT;
        assert_eq!(Record::decode(&bad), None, "kind {kind}");
    }
    for tag in [END, END | 4 << PADDING_SHIFT, END | 7 << PADDING_SHIFT, good[KIND_AT] | LAST] {
        let mut bad = good.clone();
        bad[KIND_AT] = tag;
        assert_eq!(Record::decode(&bad), None, "tag {tag:08b}");
    }
    let undo = Undo::Logical { owner: Owner(1), body: b"1" };
    let body = Body::Update { changes: Changes::EMPTY, undo };
    let mut padded = frame(&Record { txn: TxnId::new(1), prev: Lsn::NONE, body });
    assert_eq!(padded[KIND_AT..], [UPDATE | 2 << PADDING_SHIFT, 1, 0, 3, 0, b'1', 0, 0]);
    assert!(Record::decode(&padded).is_some());
    padded[15] = 1;
    assert_eq!(Record::decode(&padded), None, "padding that is not zero");
    padded[15] = 0;
    // An undo that is none, though bytes follow; and an owner beyond the 255th.
    padded[11] = 0;
    assert_eq!(Record::decode(&padded), None, "never undone, and yet an undo");
    padded[11..14].copy_from_slice(&[0x82, 2, 0]);
    assert_eq!(Record::decode(&padded), None, "owner 256");
}

#[test]
fn the_head_alone_says_which_durable_end_is_claimed() {
    with_samples(|record| {
        let bytes = frame(record);
        let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        assert_eq!(durable_claimed(head), record.body.durable(), "{record:?}");
    });
    for len in 0..40 {
        assert_eq!(durable_claimed(&[0; 40][..len]), None);
    }
}

#[test]
fn overheads_are_what_they_say() {
    with_samples(|record| {
        let (changes, rest) = match record.body {
            Body::Update { changes, undo } => match undo {
                Undo::Never => (changes, 0),
                Undo::Physical(ops) => (changes, ops.len()),
                Undo::Logical { body, .. } => (changes, body.len()),
            },
            Body::Compensation { changes, .. } => (changes, 0),
            Body::CheckpointEnd { tables, .. } => (Changes::EMPTY, tables.bytes().len()),
            Body::Prepare { piece, .. } => (Changes::EMPTY, piece.len()),
            Body::Commit { .. } | Body::End | Body::CheckpointBegin { .. } => (Changes::EMPTY, 0),
        };
        let ops: usize = changes.iter().map(|change| CHANGE_OVERHEAD + change.ops.len()).sum();
        assert!(record.encoded_len() <= RECORD_OVERHEAD + ops + rest, "{record:?}");
    });
}

prop_compose! {
    fn any_changes()(
        list in prop::collection::vec(
            (any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..5),
    ) -> ChangesBuilder {
        changes(&list)
    }
}

proptest! {
    #[test]
    fn updates_and_compensations_come_back(
        builder in any_changes(),
        undo in prop::collection::vec(any::<u8>(), 0..40),
        (txn, prev, owner, how) in (any::<u64>(), any::<u64>(), any::<u8>(), 0_u8..4),
    ) {
        let changes = builder.changes();
        let undo = match how {
            0 => Undo::Never,
            1 if changes.iter().count() == 1 => Undo::Physical(&undo),
            _ => Undo::Logical { owner: Owner(owner), body: &undo },
        };
        let body = if how == 3 {
            Body::Compensation { changes, undo_next: Lsn::new(prev) }
        } else {
            Body::Update { changes, undo }
        };
        let record = Record { txn: TxnId::new(txn), prev: Lsn::new(prev), body };
        let bytes = frame(&record);
        prop_assert!(check(&bytes, seed(), AT).is_ok());
        prop_assert_eq!(Record::decode(&bytes), Some(record));
    }

    #[test]
    fn decoding_nonsense_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..10, last in 0_u8..2) {
        bytes.truncate(bytes.len() / 8 * 8);
        if bytes.len() >= FRAME_BYTES_MIN {
            // Get past the first checks more often than chance would.
            let words = in_words(bytes.len());
            bytes[..2].copy_from_slice(&words.to_le_bytes());
            bytes[KIND_AT] = kind | last << 4;
            bytes[9..13].iter_mut().for_each(|byte| *byte &= 0x7f);
        }
        if let Some(record) = Record::decode(&bytes) {
            let again = frame(&record);
            prop_assert_eq!(again.len(), bytes.len());
            prop_assert_eq!(&again[KIND_AT..], &bytes[KIND_AT..]);
        }
        let _ = durable_claimed(&bytes);
        let _ = check(&bytes, seed(), AT);
    }
}
