//! Tail or corruption? Every row of the table in `end.rs`, on a log damaged by hand.
#![allow(clippy::unwrap_used)]

mod common;

use argali_base::disk::{Call, Event, Loss, OpenMode, SimDisk};
use argali_base::{Disk, Error, Health, Lsn, Result};
use argali_wal::{Body, Control, Holder, LogOptions, Mutations, Wal};
use common::{all, append, commit, control, create, note, options};

const FIRST: &str = "wal/0000000000000000.log";
/// Makes a record of 48 bytes.
const NOTE: &[u8] = b"what else is there to note here";

/// Ten notes of 48 bytes at 64, 112, …, the last at 496; none forced with evidence.
fn notes(sim: &SimDisk) -> Wal {
    let wal = create(sim, options());
    for txn in 1..=10 {
        note(&wal, txn, NOTE).unwrap();
    }
    wal.force(Lsn::MAX).unwrap();
    assert_eq!(wal.tail(), Lsn::new(64 + 480));
    wal
}

fn damage(sim: &SimDisk, at: u64, bytes: &[u8]) {
    sim.open(FIRST, OpenMode::Existing).unwrap().write_all_at(bytes, at).unwrap();
}

fn reopen(sim: &SimDisk, control: &Control) -> Result<Wal> {
    Wal::open(common::disk(sim), control, options(), Health::new())
}

fn end(sim: &SimDisk) -> Lsn {
    reopen(sim, &control()).unwrap().end()
}

fn corrupt_at(result: Result<Wal>, offset: u64) -> String {
    match result {
        Err(Error::Corrupt { file, offset: at, lsn, what }) => {
            assert_eq!((file.as_str(), at, lsn), (FIRST, offset, Some(Lsn::new(offset))), "{what}");
            what
        }
        other => panic!("not corrupt: {:?}", other.map(|wal| wal.end())),
    }
}

#[test]
fn zeros_end_the_log() {
    let sim = SimDisk::memory();
    notes(&sim);
    assert_eq!(end(&sim), Lsn::new(544));
    damage(&sim, 256, &[0; 48]);
    assert_eq!(end(&sim), Lsn::new(256));
}

#[test]
fn a_short_file_ends_the_log() {
    let sim = SimDisk::memory();
    notes(&sim);
    for len in [0, 63, 64, 70, 95, 96, 100, 300] {
        sim.open(FIRST, OpenMode::Existing).unwrap().set_len(len).unwrap();
        let whole = len.saturating_sub(64) / 48;
        assert_eq!(end(&sim), Lsn::new(64 + whole * 48), "file of {len} bytes");
        let again = notes(&sim);
        drop(again);
    }
}

#[test]
fn a_bad_checksum_ends_the_log_even_with_good_frames_behind() {
    let sim = SimDisk::memory();
    notes(&sim);
    damage(&sim, 64 + 3 * 48 + 40, b"X");
    assert_eq!(end(&sim), Lsn::new(64 + 3 * 48));
}

#[test]
fn impossible_lengths_end_the_log() {
    for len in [1_u16, 2, 5, 7, 1000, u16::MAX] {
        let sim = SimDisk::memory();
        notes(&sim);
        damage(&sim, 64 + 3 * 48, &len.to_le_bytes());
        assert_eq!(end(&sim), Lsn::new(64 + 3 * 48), "{len} words");
    }
}

#[test]
fn a_frame_copied_to_another_place_is_not_one() {
    let sim = SimDisk::memory();
    notes(&sim);
    let mut frame = [0; 48];
    let file = sim.open(FIRST, OpenMode::ReadOnly).unwrap();
    file.read_exact_at(&mut frame, 64).unwrap();
    damage(&sim, 64 + 480, &frame);
    assert_eq!(end(&sim), Lsn::new(544));
    // The switch shows what the LSN in the seed is for.
    let mutations = Mutations { crc_without_lsn: true, ..Mutations::default() };
    let broken = LogOptions { mutations, ..options() };
    let sim = SimDisk::memory();
    let wal = create(&sim, broken.clone());
    note(&wal, 1, NOTE).unwrap();
    note(&wal, 2, NOTE).unwrap();
    wal.force(Lsn::MAX).unwrap();
    let file = sim.open(FIRST, OpenMode::ReadOnly).unwrap();
    file.read_exact_at(&mut frame, 64 + 48).unwrap();
    damage(&sim, 64 + 96, &frame);
    let wal = Wal::open(common::disk(&sim), &control(), broken, Health::new()).unwrap();
    assert_eq!(all(&wal, Lsn::FIRST).len(), 3, "a stale record was joined");
}

#[test]
fn the_control_file_is_evidence() {
    let sim = SimDisk::memory();
    notes(&sim);
    damage(&sim, 256, b"X");
    let checkpoint_end = |end| Control { checkpoint_end: Lsn::new(end), ..control() };
    assert_eq!(reopen(&sim, &checkpoint_end(256)).unwrap().end(), Lsn::new(256));
    let what = corrupt_at(reopen(&sim, &checkpoint_end(264)), 256);
    assert!(what.contains("control file"), "{what}");

    let clean = |end| Control { clean_end: Some(Lsn::new(end)), ..control() };
    assert_eq!(reopen(&sim, &clean(256)).unwrap().end(), Lsn::new(256));
    let what = corrupt_at(reopen(&sim, &clean(544)), 256);
    assert!(what.contains("clean-shutdown"), "{what}");
}

#[test]
fn a_clean_mark_does_not_hold_when_a_frame_stands_there() {
    let sim = SimDisk::memory();
    notes(&sim);
    let control = Control { clean_end: Some(Lsn::new(64 + 48)), ..control() };
    assert_eq!(reopen(&sim, &control).unwrap().end(), Lsn::new(544));
}

#[test]
fn a_later_durable_end_is_evidence() {
    for kind in 0..4 {
        for (durable, proves) in [(208, false), (256, false), (264, true), (544, true)] {
            let sim = SimDisk::memory();
            let wal = notes(&sim);
            let durable = Lsn::new(durable);
            let mut out = Vec::new();
            let tables = argali_wal::CheckpointTables::encode(&mut out, &[], &[]);
            let body = match kind {
                0 => Body::Commit { durable },
                1 => Body::CheckpointBegin { durable },
                2 => Body::CheckpointEnd { begin: Lsn::FIRST, durable, last: true, tables },
                _ => Body::Prepare { durable, before: 0, last: true, piece: b"vote" },
            };
            // Far behind, in another segment.
            for _ in 0..3 {
                common::update(&wal, 1, 50_000).unwrap();
            }
            append(&wal, 1, body).unwrap();
            wal.force(Lsn::MAX).unwrap();
            damage(&sim, 256 + 33, b"X");
            let result = reopen(&sim, &control());
            if proves {
                let what = corrupt_at(result, 256);
                assert!(what.contains("the record at @"), "{what}");
            } else {
                assert_eq!(result.unwrap().end(), Lsn::new(256));
            }
        }
    }
}

/// A log far longer than its rings, of records that prove nothing; and behind them, perhaps, one that does.
fn long(sim: &SimDisk, segment_bytes: u64, bytes: u64) -> (Wal, LogOptions) {
    let options = LogOptions { segment_bytes, limit_bytes: 256 << 20, ..options() };
    let wal = create(sim, options.clone());
    while wal.tail().get() < bytes {
        common::update(&wal, 1, 30_000).unwrap();
        wal.force(Lsn::MAX).unwrap();
    }
    (wal, options)
}

#[test]
fn evidence_is_found_however_far_behind() {
    for (segment_bytes, proves) in [(64 << 10, true), (1 << 20, true), (1 << 20, false)] {
        let sim = SimDisk::memory();
        let (wal, options) = long(&sim, segment_bytes, 5 * options().ring_bytes as u64);
        if proves {
            commit(&wal, 1).unwrap();
        }
        damage(&sim, 64 + 33, b"X");
        let control = Control { segment_bytes, ..control() };
        let opened = Wal::open(common::disk(&sim), &control, options, Health::new());
        assert_eq!(opened.is_err(), proves, "segments of {segment_bytes} bytes");
    }
}

/// Segments made ready for later are full of old records. Each is looked into, and not read through.
#[test]
fn segments_never_written_in_are_not_read_through() {
    let sim = SimDisk::memory();
    let segment_bytes = 4 << 20;
    let (wal, options) = long(&sim, segment_bytes, 9 * segment_bytes);
    let holder = Holder { what: "redo point".into(), lsn: wal.tail() };
    commit(&wal, 1).unwrap();
    let first = wal.truncate(vec![holder]).unwrap();
    assert!(wal.stats().segments_recycled >= 7, "{:?}", wal.stats());
    let control = Control { segment_bytes, log_first: first, checkpoint: first, ..control() };
    sim.start_trace();
    let opened = Wal::open(common::disk(&sim), &control, options, Health::new()).unwrap();
    assert_eq!(opened.end(), wal.tail());
    let read = |event: Event| if event.call == Call::Read { event.len as u64 } else { 0 };
    let read: u64 = sim.trace().into_iter().map(read).sum();
    let ready = wal.stats().kept_bytes;
    assert!(ready >= 8 * segment_bytes && read < ready / 3 * 2, "{read} bytes of {ready}");
}

#[test]
fn a_lost_segment_is_corruption_when_commits_stand_behind_it() {
    let sim = SimDisk::memory();
    let wal = create(&sim, options());
    for txn in 1..5 {
        common::update(&wal, txn, 50_000).unwrap();
        commit(&wal, txn).unwrap();
    }
    sim.remove("wal/0000000000010000.log").unwrap();
    assert!(reopen(&sim, &control()).unwrap_err().is_corruption());
    sim.remove(FIRST).unwrap();
    let error = reopen(&sim, &control()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_frame_nobody_understands_is_corrupt_when_read() {
    let sim = SimDisk::memory();
    notes(&sim);
    // A newer version's kind 7 with a right checksum.
    let file = sim.open(FIRST, OpenMode::Existing).unwrap();
    let mut frame = [0; 48];
    file.read_exact_at(&mut frame, 112).unwrap();
    frame[8] = frame[8] & 0xf0 | 7;
    let mut seed = 42_u64.to_le_bytes().to_vec();
    seed.extend(1_u32.to_le_bytes());
    seed.extend(0_u64.to_le_bytes());
    seed.extend(112_u64.to_le_bytes());
    seed.extend(&frame[..4]);
    seed.extend(&frame[8..]);
    frame[4..8].copy_from_slice(&crc32c(&seed).to_le_bytes());
    damage(&sim, 112, &frame);
    let wal = reopen(&sim, &control()).unwrap();
    assert_eq!(wal.end(), Lsn::new(544), "it is a whole frame");
    let error = wal.read(Lsn::new(112), &mut argali_wal::RecordBuf::new()).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("does not know"), "{error}");
}

/// The polynomial bit by bit: an independent check of the format, too.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

#[test]
fn resume_erases_what_stands_behind_the_end() {
    let sim = SimDisk::new(3);
    let wal = create(&sim, options());
    note(&wal, 1, NOTE).unwrap();
    let hole = note(&wal, 2, NOTE).unwrap();
    note(&wal, 3, NOTE).unwrap();
    common::update(&wal, 4, 60_000).unwrap();
    common::update(&wal, 5, 60_000).unwrap();
    wal.force(Lsn::MAX).unwrap();
    for (stale, expected) in [(false, vec![1, 9]), (true, vec![1, 9, 3, 4, 5])] {
        let sim = sim.power_cut(Loss::KeepAll);
        damage(&sim, hole.get() + 33, b"X");
        let mutations = Mutations { stale_tail: stale, ..Mutations::default() };
        let wal = common::open(&sim, LogOptions { mutations, ..options() }).unwrap();
        assert_eq!(note(&wal, 9, NOTE).unwrap(), hole);
        wal.force(hole).unwrap();
        let wal = common::open(&sim.power_cut(Loss::LoseAll), options()).unwrap();
        let txns: Vec<_> = all(&wal, Lsn::FIRST).iter().map(|r| r.1).collect();
        assert_eq!(txns, expected, "stale tail: {stale}");
    }
}

#[test]
fn random_damage_never_panics_and_never_invents_records() {
    let sim = SimDisk::memory();
    let wal = create(&sim, options());
    let mut lsns = std::collections::BTreeMap::new();
    for txn in 1..60 {
        lsns.insert(note(&wal, txn, &vec![7; txn as usize * 31]).unwrap(), txn);
        commit(&wal, txn).unwrap();
        lsns.insert(wal.last(), txn);
    }
    let size = wal.tail().get();
    drop(wal);
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..400 {
        let sim = sim.process_kill();
        for _ in 0..random.usize(1..4) {
            let bytes: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
            damage(&sim, random.u64(0..size), &bytes);
        }
        match reopen(&sim, &control()) {
            Err(error) => assert!(error.is_corruption(), "round {round}: {error}"),
            Ok(wal) => {
                for (lsn, txn) in all(&wal, Lsn::FIRST) {
                    assert_eq!(lsns.get(&lsn), Some(&txn), "round {round}");
                }
            }
        }
    }
}
