//! The table of levels and anomalies, cell by cell.
//!
//! Each anomaly has a story, the shortest interleaving that would show it. One thread plays both clients,
//! so that nothing is left to chance. Where the level permits the anomaly, the story runs to its end and
//! the checker finds that and nothing else. Where it forbids it, some call is made to wait, here in vain.

use argali::Isolation::{self, ReadCommitted, RepeatableRead, Serializable};

use super::super::check::Anomaly::{self, *};
use super::super::model::Key;
use super::super::model::Shape::{ListAppend, Register};
use super::super::stage::{Look, Recorded, Stage, Way};
use super::{found, told};

const X: Key = Key(3);
const Y: Key = Key(7);

type Story = fn(Recorded<'_>, Recorded<'_>) -> anyhow::Result<()>;

fn two_clients(stage: &Stage<'_>, level: Isolation, story: Story) -> anyhow::Result<()> {
    story(stage.begin(0, level)?, stage.begin(1, level)?)
}

/// The levels that permit `anomaly` show it, the others refuse the story.
#[track_caller]
fn cells(anomaly: Anomaly, permitting: &[Isolation], story: Story) {
    for level in [ReadCommitted, RepeatableRead, Serializable] {
        let mut ended = Ok(());
        let verdict = told(level, Register, |stage| ended = two_clients(stage, level, story));
        let permitted = permitting.contains(&level);
        assert_eq!(!anomaly.is_forbidden(level), permitted, "{anomaly} at {level:?}");
        if permitted {
            assert!(ended.is_ok(), "{level:?}: {ended:?}");
            assert_eq!(found(&verdict), [anomaly], "{level:?}: {verdict:#?}");
        } else {
            let error = ended.expect_err("somebody has to wait").downcast::<argali::Error>();
            assert!(error.as_ref().is_ok_and(argali::Error::is_retryable), "{level:?}: {error:?}");
            assert!(found(&verdict).is_empty(), "{level:?}: {verdict:#?}");
        }
    }
}

#[test]
fn dirty_writes() {
    cells(DirtyWrite, &[], |mut a, mut b| {
        a.write(X, Look::Blind)?;
        b.write(X, Look::Blind)?;
        b.write(Y, Look::Blind)?;
        b.commit()?;
        a.write(Y, Look::Blind)?;
        a.commit()
    });
}

#[test]
fn aborted_reads() {
    cells(AbortedRead, &[], |mut a, mut b| {
        a.write(X, Look::Blind)?;
        b.read(X)?;
        a.abort()?;
        b.commit()
    });
    cells(AbortedRead, &[], |mut a, mut b| {
        a.write(X, Look::Blind)?;
        b.scan(Key(0), Key(16), Way::Up)?;
        a.abort()?;
        b.commit()
    });
}

#[test]
fn intermediate_reads() {
    cells(IntermediateRead, &[], |mut a, mut b| {
        a.write(X, Look::Blind)?;
        b.read(X)?;
        a.write(X, Look::Blind)?;
        a.commit()?;
        b.commit()
    });
}

#[test]
fn circular_flows() {
    cells(CircularFlow, &[], |mut a, mut b| {
        a.write(X, Look::Blind)?;
        b.write(Y, Look::Blind)?;
        a.read(Y)?;
        b.read(X)?;
        a.commit()?;
        b.commit()
    });
}

#[test]
fn lost_updates() {
    cells(LostUpdate, &[ReadCommitted], |mut a, mut b| {
        a.read(X)?;
        b.write(X, Look::Read)?;
        b.commit()?;
        a.write(X, Look::Blind)?;
        a.commit()
    });
}

#[test]
fn non_repeatable_reads() {
    cells(NonRepeatableRead, &[ReadCommitted], |mut a, mut b| {
        a.read(X)?;
        b.write(X, Look::Blind)?;
        b.commit()?;
        a.read(X)?;
        a.commit()
    });
}

#[test]
fn read_skew() {
    cells(ReadSkew, &[ReadCommitted], |mut a, mut b| {
        a.read(X)?;
        b.write(X, Look::Blind)?;
        b.write(Y, Look::Blind)?;
        b.commit()?;
        a.read(Y)?;
        a.commit()
    });
}

#[test]
fn write_skew() {
    cells(WriteSkew, &[ReadCommitted], |mut a, mut b| {
        a.read(X)?;
        b.read(Y)?;
        a.write(Y, Look::Blind)?;
        b.write(X, Look::Blind)?;
        a.commit()?;
        b.commit()
    });
}

/// Two scans of one range, a new row between them; from either end.
#[test]
fn phantoms() {
    fn seen_from(a: &mut Recorded<'_>, mut b: Recorded<'_>, way: Way) -> anyhow::Result<()> {
        a.scan(Key(0), Key(16), way)?;
        b.write(X, Look::Blind)?;
        b.commit()?;
        a.scan(Key(0), Key(16), way).map(drop)
    }
    let stories: [Story; 2] = [
        |mut a, b| seen_from(&mut a, b, Way::Up).and_then(|()| a.commit()),
        |mut a, b| seen_from(&mut a, b, Way::Down).and_then(|()| a.commit()),
    ];
    for story in stories {
        cells(Phantom, &[ReadCommitted, RepeatableRead], story);
    }
}

/// Each counts a range and adds a row to the other's: the phantom that hurts.
#[test]
fn phantoms_that_skew_writes() {
    cells(Phantom, &[ReadCommitted, RepeatableRead], |mut a, mut b| {
        a.scan(Key(0), Key(5), Way::Up)?;
        b.scan(Key(5), Key(9), Way::Up)?;
        a.write(Y, Look::Blind)?;
        b.write(X, Look::Blind)?;
        a.commit()?;
        b.commit()
    });
}

/// An append that reads for update loses nothing, whatever the level: the second one waits.
#[test]
fn appends_for_update_lose_nothing() {
    for level in [ReadCommitted, RepeatableRead, Serializable] {
        let verdict = told(level, ListAppend, |stage| {
            let story: Story = |mut a, mut b| {
                a.write(X, Look::ForUpdate)?;
                assert!(b.write(X, Look::ForUpdate).is_err(), "the first holds it for writing");
                a.commit()
            };
            two_clients(stage, level, story).unwrap();
        });
        assert!(found(&verdict).is_empty(), "{level:?}: {verdict:#?}");
    }
}
