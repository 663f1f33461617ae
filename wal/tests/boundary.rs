//! Where a log may be cut is told from the log itself, whatever its records are made to look like.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use argali_base::disk::{OpenMode, SimDisk};
use argali_base::{Disk as _, Lsn};
use argali_wal::Wal;
use common::{SEGMENT, all, note, options};
use fastrand::Rng;

/// All bytes of the log files, by LSN.
fn raw(sim: &SimDisk) -> Vec<u8> {
    let read = |name: &String| {
        let file = sim.open(&format!("wal/{name}"), OpenMode::ReadOnly).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    sim.list("wal").unwrap().iter().flat_map(read).collect()
}

/// Holds what is found in each segment, from each of some places in it, against where records do begin.
fn check(wal: &Wal) {
    let end = wal.force(Lsn::MAX).unwrap().end();
    let records: Vec<u64> = all(wal, Lsn::FIRST).iter().map(|(lsn, _)| lsn.get()).collect();
    for segment in 0..end.get().div_ceil(SEGMENT) {
        let begin = segment * SEGMENT;
        let first = records.iter().copied().find(|lsn| *lsn >= begin);
        for at in [0, 8, 1000, SEGMENT / 2, SEGMENT - 1].map(|ahead| begin + ahead) {
            if at < end.get() {
                let found = wal.first_in_segment(Lsn::new(at)).unwrap();
                let expected = first.filter(|first| *first <= at).map(Lsn::new);
                assert_eq!(found, expected, "segment {segment}, up to {at}");
            }
        }
    }
}

#[test]
fn the_first_record_of_each_segment_is_found() {
    for seed in 0..20 {
        let (wal, mut rng) = (common::create(&SimDisk::new(seed), options()), Rng::with_seed(seed));
        while wal.tail().get() < 6 * SEGMENT {
            let len = if rng.u8(..) < 10 { rng.usize(..150_000) } else { rng.usize(..500) };
            let value: Vec<u8> = match len {
                0..1000 => vec![rng.u8(..); len],
                _ => std::iter::repeat_with(|| rng.u8(..)).take(len).collect(),
            };
            note(&wal, 1, &value).unwrap();
        }
        check(&wal);
    }
}

/// A value may hold frames that would be valid where they lie: those of another run of the same log.
#[test]
fn frames_inside_a_record_are_not_believed() {
    let other = SimDisk::new(1);
    let wal = common::create(&other, options());
    while wal.tail().get() < 4 * SEGMENT {
        note(&wal, 7, &[7; 60]).unwrap();
    }
    wal.force(Lsn::MAX).unwrap();
    let frames = raw(&other);

    let long = 2 * SEGMENT as usize + 4000;
    let write = |value: &[u8]| {
        let sim = SimDisk::new(2);
        let wal = common::create(&sim, options());
        note(&wal, 1, &[1; 1000]).unwrap();
        let lsn = note(&wal, 1, value).unwrap();
        (0..500).for_each(|_| _ = note(&wal, 1, &[1; 300]).unwrap());
        wal.force(Lsn::MAX).unwrap();
        (sim, wal, lsn.get() as usize)
    };
    let (plain, _, lsn) = write(&vec![0xEE; long]);
    let begin = raw(&plain).iter().position(|byte| *byte == 0xEE).unwrap();
    assert!(begin > lsn && begin < lsn + 40);
    let (sim, wal, _) = write(&frames[begin..begin + long]);
    assert!(raw(&sim)[begin..].starts_with(&frames[begin..begin + long]));
    check(&wal);
}
