//! Each anomaly by the shortest history that shows it, and by a neighbour that does not.

use argali::Isolation::{ReadCommitted, RepeatableRead, Serializable};

use super::super::super::model::Shape;
use super::super::Anomaly::{self, *};
use super::{check, found, found_in, told};

#[track_caller]
fn shows(anomaly: Anomaly, text: &str) {
    let found = found(&told(text));
    assert!(found.contains(&anomaly), "{anomaly}: found {found:?} in{text}");
}

/// Exactly this and nothing else.
#[track_caller]
fn is(anomaly: Anomaly, text: &str) {
    assert_eq!(found(&told(text)), [anomaly], "in{text}");
}

#[track_caller]
fn is_clean(text: &str) {
    let verdict = check(&told(text), Serializable);
    assert!(verdict.findings.is_empty(), "{:#?} in{text}", verdict.findings);
}

#[test]
fn dirty_write() {
    is(
        DirtyWrite,
        "1-9 ok write x=1.0/-    write y=1.1/2.1
         2-8 ok write x=2.0/1.0  write y=2.1/-
         end x=2.0 y=1.1",
    );
    is_clean(
        "1-9 ok write x=1.0/-    write y=1.1/-
         2-8 ok write x=2.0/1.0  write y=2.1/1.1
         end x=2.0 y=2.1",
    );
}

#[test]
fn aborted_read() {
    is(AbortedRead, "1-4 abort write x=1.0/-\n 2-3 ok read x=1.0\n end a=-");
    is(AbortedRead, "1-4 abort write x=1.0/-\n 2-3 ok write x=2.0/1.0\n end x=2.0");
    is(AbortedRead, "1-4 abort write x=1.0/-\n 2-3 ok scan a..z=x:1.0\n end a=-");
    is(AbortedRead, "2-3 ok read x=1.0\n end a=-");
    is(AbortedRead, "1-4 abort write x=1.0/-\n end x=1.0");
    is_clean("1-4 abort write x=1.0/-\n 2-3 ok read x=-\n end a=-");
    // What a loser saw was never told to anybody.
    is_clean("1-4 abort write x=1.0/-\n 2-3 abort read x=1.0\n end a=-");
}

#[test]
fn aborted_by_a_crash() {
    is(AbortedRead, "1-9 crash write x=1.0/-\n 2-3 ok read x=1.0\n 10-11 ok read x=-\n end a=-");
    is_clean("1-9 crash write x=1.0/-\n 2-3 ok read x=-\n 10-11 ok read x=-\n end a=-");
    is_clean("1-9 crash write x=1.0/-\n 2-3 ok read x=1.0\n 10-11 ok read x=1.0\n end x=1.0");
    // It can only have come before the crash.
    is(
        AgainstRealTime,
        "1-9 crash write x=1.0/-\n 10-11 ok read x=-\n 12-13 ok read x=1.0\n end x=1.0",
    );
}

#[test]
fn half_commit() {
    let text = "1-9 crash write x=1.0/- write y=1.1/-\n end x=1.0";
    is(HalfCommit, text);
    is_clean(&text.replace("end x=1.0", "end x=1.0 y=1.1"));
    is_clean(&text.replace("end x=1.0", "end a=-"));
}

#[test]
fn intermediate_read() {
    let text = "1-9 ok write x=1.0/-  write x=1.1/1.0\n 2-3 ok read x=1.0\n end x=1.1";
    shows(IntermediateRead, text);
    is_clean(&text.replace("read x=1.0", "read x=1.1"));
    is_clean(&text.replace("read x=1.0", "read x=-"));
}

#[test]
fn circular_flow() {
    is(
        CircularFlow,
        "1-9 ok write x=1.0/-  read y=2.0
         2-8 ok write y=2.0/-  read x=1.0
         end x=1.0 y=2.0",
    );
    is_clean(
        "1-9 ok write x=1.0/-  read y=-
         2-8 ok write y=2.0/-  read x=1.0
         end x=1.0 y=2.0",
    );
}

#[test]
fn lost_update() {
    is(
        LostUpdate,
        "1-9 ok read x=-  write x=1.0/-
         2-8 ok read x=-  write x=2.0/1.0
         end x=2.0",
    );
    is_clean(
        "1-9 ok read x=-    write x=1.0/-
         2-8 ok read x=1.0  write x=2.0/1.0
         end x=2.0",
    );
    // Replaced without having looked: nothing was lost that anybody counted on.
    is_clean("1-9 ok read x=- write x=1.0/-\n 2-8 ok write x=2.0/1.0\n end x=2.0");
}

#[test]
fn two_replace_the_same_version() {
    let text = "1-9 ok write x=1.0/-\n 2-8 ok write x=2.0/-\n end x=2.0";
    shows(LostUpdate, text);
    shows(LostWrite, text);
}

#[test]
fn a_list_that_forgets() {
    let mut history = told(
        "1-2 ok write x=1.0/-\n 3-4 ok write x=1.0+3.0/1.0\n 5-6 ok write x=1.0+5.0/3.0
         end x=1.0+5.0",
    );
    history.shape = Shape::ListAppend;
    assert_eq!(found(&history), [LostUpdate]);
    let mut history = told("1-2 ok write x=1.0/-\n 3-4 ok write x=1.0+3.0/1.0\n end x=1.0+3.0");
    history.shape = Shape::ListAppend;
    assert!(found(&history).is_empty());
}

#[test]
fn lost_write() {
    is(LostWrite, "1-2 ok write x=1.0/-\n 3-4 ok write y=3.0/-\n end y=3.0");
    is_clean("1-2 ok write x=1.0/-\n 3-4 ok write y=3.0/-\n end x=1.0 y=3.0");
}

#[test]
fn own_write_unseen() {
    shows(OwnWriteUnseen, "1-2 ok write x=1.0/- read x=-\n end x=1.0");
    shows(OwnWriteUnseen, "1-2 ok write x=1.0/- scan a..z=-\n end x=1.0");
    shows(OwnWriteUnseen, "1-2 ok write x=1.0/- write x=1.1/-\n end x=1.1");
    is_clean("1-2 ok write x=1.0/- read x=1.0 scan a..z=x:1.0 write x=1.1/1.0\n end x=1.1");
    is_clean("1-2 ok write x=1.0/- scan a..f=-\n end x=1.0");
}

#[test]
fn garbage() {
    is(Garbage, "1-2 ok write x=1.0/-\n 3-4 ok read y=1.0\n end x=1.0");
    is(Garbage, "1-2 ok write x=1.0/-\n 3-4 ok read x=9.0+1.0\n end x=1.0");
    is(Garbage, "1-2 ok write x=1.0/-\n 3-4 ok scan a..b=x:1.0\n end x=1.0");
    is(Garbage, "1-2 ok write x=1.0/-\n end x=9.0+1.0");
    shows(Garbage, "1-4 ok read x=1.0 write x=1.0/-\n end x=1.0");
    shows(Garbage, "1-4 ok write x=1.0/1.0\n end x=1.0");
}

#[test]
fn non_repeatable_read() {
    is(
        NonRepeatableRead,
        "1-9 ok read x=-  read x=2.0
         2-3 ok write x=2.0/-
         end x=2.0",
    );
    is_clean("1-9 ok read x=- read x=-\n 2-3 ok write x=2.0/-\n end x=2.0");
}

#[test]
fn read_skew() {
    is(
        ReadSkew,
        "1-9 ok read x=-  read y=2.1
         2-3 ok write x=2.0/-  write y=2.1/-
         end x=2.0 y=2.1",
    );
    is_clean(
        "1-9 ok read x=-  read y=-
         2-3 ok write x=2.0/-  write y=2.1/-
         end x=2.0 y=2.1",
    );
}

#[test]
fn write_skew() {
    is(
        WriteSkew,
        "1-9 ok read x=-  write y=1.0/-
         2-8 ok read y=-  write x=2.0/-
         end x=2.0 y=1.0",
    );
    is_clean(
        "1-9 ok read x=-    write y=1.0/-
         2-8 ok read y=1.0  write x=2.0/-
         end x=2.0 y=1.0",
    );
}

#[test]
fn write_skew_of_three() {
    is(
        WriteSkew,
        "1-9 ok read x=-  write y=1.0/-
         2-8 ok read y=-  write z=2.0/-
         3-7 ok read z=-  write x=3.0/-
         end x=3.0 y=1.0 z=2.0",
    );
}

#[test]
fn phantom() {
    is(
        Phantom,
        "1-9 ok scan a..f=-  scan a..f=b:2.0
         2-3 ok write b=2.0/-
         end b=2.0",
    );
    // Two who each count a range and then add to the other's.
    is(
        Phantom,
        "1-9 ok scan a..f=-  write m=1.0/-
         2-8 ok scan m..p=-  write b=2.0/-
         end b=2.0 m=1.0",
    );
    is_clean(
        "1-9 ok scan a..f=-      write m=1.0/-
         2-8 ok scan m..p=m:1.0  write b=2.0/-
         end b=2.0 m=1.0",
    );
    // Outside the range.
    is_clean("1-9 ok scan a..c=- read d=2.0 scan a..c=-\n 2-3 ok write d=2.0/-\n end d=2.0");
}

#[test]
fn a_row_in_a_range_is_an_item() {
    is(
        ReadSkew,
        "1-2 ok write b=1.0/-
         3-9 ok scan a..f=b:1.0  read x=4.1
         4-5 ok write b=4.0/1.0  write x=4.1/-
         end b=4.0 x=4.1",
    );
}

#[test]
fn against_real_time() {
    let text = "1-2 ok write x=1.0/-\n 3-4 ok read x=-\n end x=1.0";
    is(AgainstRealTime, text);
    is_clean(&text.replace("3-4", "2-4").replace("1-2", "1-3"));
    // Through a third one that neither of them met.
    is(
        AgainstRealTime,
        "1-2 ok write x=1.0/-
         3-4 ok write y=3.0/-
         5-6 ok read y=3.0 read x=-
         end x=1.0 y=3.0",
    );
}

#[test]
fn levels_permit_what_the_table_says() {
    for anomaly in Anomaly::ALL {
        let at = [ReadCommitted, RepeatableRead, Serializable];
        let forbidden = at.map(|level| anomaly.is_forbidden(level));
        assert!(forbidden.is_sorted(), "{anomaly}: a stronger level forbids as much");
        assert!(forbidden[2], "{anomaly}");
    }
    let text = "1-2 ok write x=1.0/-\n 3-4 ok read x=-\n end x=1.0";
    for level in [ReadCommitted, RepeatableRead] {
        assert_eq!(check(&told(text), level).count(AgainstRealTime), 0, "{level:?} is not timely");
    }
    let skew = "1-9 ok read x=- write y=1.0/-\n 2-8 ok read y=- write x=2.0/-\n end x=2.0 y=1.0";
    let found = |level| check(&told(skew), level).violation(level).map(|finding| finding.anomaly);
    assert_eq!(found(ReadCommitted), None);
    assert_eq!(found(RepeatableRead), Some(WriteSkew));
}

/// A student can follow it: who, which row, which values.
#[test]
fn a_cycle_is_told_edge_by_edge() {
    let history = told(
        "1-9 ok read x=-  write x=1.0/-
         2-8 ok read x=-  write x=2.0/1.0
         end x=2.0",
    );
    let verdict = check(&history, Serializable);
    let lines = &verdict.findings[0].examples[0];
    assert_eq!(
        lines,
        &[
            "T2 ─rw─► T1   T2 saw k23 = nothing, which T1 replaced by 1.0",
            "T1 ─ww─► T2   T2 replaced k23 = 1.0 of T1 by 2.0",
        ]
    );
    assert_eq!(verdict.findings[0].anomaly.to_string(), "lost update (G-single)");
}

/// Of many cycles the shortest are shown, in a history too long for a recursive search.
#[test]
fn the_shortest_cycle_is_shown_of_many() {
    let mut lines = vec!["1-200000 ok write x=1.0/- read y=150000.0".to_owned()];
    let mut last = 1;
    for no in (2..=120_000).step_by(4) {
        lines.push(format!("{no}-{} ok write x={no}.0/{last}.0", no + 1));
        last = no;
    }
    lines.push(format!("150000-150001 ok read x={last}.0 write y=150000.0/-"));
    lines.push("170000-170009 ok read z=- write z=170000.0/-".to_owned());
    lines.push("170001-170008 ok read z=- write z=170001.0/170000.0".to_owned());
    lines.push(format!("end x={last}.0 y=150000.0 z=170001.0"));
    let verdict = check(&told(&lines.join("\n")), ReadCommitted);
    assert_eq!(found_in(&verdict), [CircularFlow, LostUpdate]);
    let lengths: Vec<_> =
        verdict.findings.iter().map(|finding| finding.examples[0].len()).collect();
    assert_eq!(lengths, [30_002, 2], "T1, all who wrote x, and the reader; two who met on z");
}
