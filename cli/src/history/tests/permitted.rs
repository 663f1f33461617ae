//! What a level permits, exhibited: the shortest interleaving that shows each permitted anomaly.
//!
//! One thread plays two clients, so that nothing is left to chance; what a stronger level would make wait
//! would wait here for ever.

use argali::Isolation::{self, ReadCommitted, RepeatableRead};

use super::super::check::Anomaly::{self, *};
use super::super::model::Key;
use super::super::model::Shape::{ListAppend, Register};
use super::super::stage::{Look, Stage};
use super::{begin, found, told};

const X: Key = Key(3);
const Y: Key = Key(7);

#[track_caller]
fn permits(level: Isolation, anomaly: Anomaly, story: impl FnOnce(&Stage<'_>)) {
    let verdict = told(level, Register, story);
    assert_eq!(found(&verdict), [anomaly], "{verdict:#?}");
    assert!(verdict.violation(level).is_none(), "{level:?} permits {anomaly}");
}

#[test]
fn read_committed_permits_lost_updates() {
    permits(ReadCommitted, LostUpdate, |stage| {
        let (mut a, mut b) = (begin(stage, 0, ReadCommitted), begin(stage, 1, ReadCommitted));
        a.read(X).unwrap();
        b.write(X, Look::Read).unwrap();
        b.commit().unwrap();
        a.write(X, Look::Blind).unwrap();
        a.commit().unwrap();
    });
}

#[test]
fn read_committed_permits_non_repeatable_reads() {
    permits(ReadCommitted, NonRepeatableRead, |stage| {
        let (mut a, mut b) = (begin(stage, 0, ReadCommitted), begin(stage, 1, ReadCommitted));
        a.read(X).unwrap();
        b.write(X, Look::Blind).unwrap();
        b.commit().unwrap();
        a.read(X).unwrap();
        a.commit().unwrap();
    });
}

#[test]
fn read_committed_permits_read_skew() {
    permits(ReadCommitted, ReadSkew, |stage| {
        let (mut a, mut b) = (begin(stage, 0, ReadCommitted), begin(stage, 1, ReadCommitted));
        a.read(X).unwrap();
        b.write(X, Look::Blind).unwrap();
        b.write(Y, Look::Blind).unwrap();
        b.commit().unwrap();
        a.read(Y).unwrap();
        a.commit().unwrap();
    });
}

#[test]
fn read_committed_permits_write_skew() {
    permits(ReadCommitted, WriteSkew, |stage| {
        let (mut a, mut b) = (begin(stage, 0, ReadCommitted), begin(stage, 1, ReadCommitted));
        a.read(X).unwrap();
        b.read(Y).unwrap();
        a.write(Y, Look::Blind).unwrap();
        b.write(X, Look::Blind).unwrap();
        a.commit().unwrap();
        b.commit().unwrap();
    });
}

/// Two scans of one range, a new row between them.
fn phantom(stage: &Stage<'_>, level: Isolation) {
    let (mut a, mut b) = (begin(stage, 0, level), begin(stage, 1, level));
    a.scan(Key(0), Key(16)).unwrap();
    b.write(X, Look::Blind).unwrap();
    b.commit().unwrap();
    a.scan(Key(0), Key(16)).unwrap();
    a.commit().unwrap();
}

#[test]
fn read_committed_permits_phantoms() {
    permits(ReadCommitted, Phantom, |stage| phantom(stage, ReadCommitted));
}

#[test]
fn repeatable_read_permits_phantoms() {
    permits(RepeatableRead, Phantom, |stage| phantom(stage, RepeatableRead));
}

/// Each counts a range and adds a row to the other's: the phantom that hurts.
#[test]
fn repeatable_read_permits_predicate_write_skew() {
    permits(RepeatableRead, Phantom, |stage| {
        let (mut a, mut b) = (begin(stage, 0, RepeatableRead), begin(stage, 1, RepeatableRead));
        a.scan(Key(0), Key(5)).unwrap();
        b.scan(Key(5), Key(9)).unwrap();
        a.write(Y, Look::Blind).unwrap();
        b.write(X, Look::Blind).unwrap();
        a.commit().unwrap();
        b.commit().unwrap();
    });
}

/// An append that reads for update loses nothing, whatever the level.
#[test]
fn appends_for_update_lose_nothing_at_read_committed() {
    let verdict = told(ReadCommitted, ListAppend, |stage| {
        for round in 0..20 {
            let mut txn = begin(stage, round % 2, ReadCommitted);
            txn.write(X, Look::ForUpdate).unwrap();
            txn.commit().unwrap();
        }
    });
    assert!(found(&verdict).is_empty(), "{verdict:#?}");
}
