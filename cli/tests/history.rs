//! The command `history`: its verdict, its exit status, and real kills.
#![allow(clippy::unwrap_used)]

mod common;

use common::{json, run};

#[test]
fn every_level_keeps_its_promise() {
    for level in ["serializable", "repeatable-read", "read-committed"] {
        for workload in ["list-append", "register"] {
            let args = format!("--transactions 400 --level {level} --workload {workload} --seed 5");
            let dir = tempfile::tempdir().unwrap();
            let line = format!("--format json history DIR {args}");
            let report = json(&run(&line, &dir.path().join("db")).expect(0));
            assert_eq!(report["holds"], true, "{report}");
            assert_eq!(report["level"], level);
            let ended = ["committed", "aborted"].map(|end| report[end].as_u64().unwrap());
            assert_eq!(ended.iter().sum::<u64>(), 400, "{report}");
            let anomalies = report["anomalies"].as_array().unwrap();
            assert!(anomalies.iter().all(|found| found["forbidden"] == false), "{report}");
        }
    }
}

/// The process is killed again and again; what it acknowledged stays, what it did not may be either.
#[test]
fn the_history_goes_on_across_kills() {
    let dir = tempfile::tempdir().unwrap();
    let line = "--format json history DIR --crash --transactions 4000 --seed 3";
    let report = json(&run(line, &dir.path().join("db")).expect(0));
    assert_eq!(report["holds"], true, "{report}");
    assert!(report["crashes"].as_u64().unwrap() >= 3, "{report}");
    // It left a whole database, from which the rows of the history are gone.
    assert_eq!(run("check DIR", &dir.path().join("db")).code, 0);
}

#[test]
fn it_begins_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter"), "dear").unwrap();
    run("history DIR", dir.path()).expect_error(2, "not empty");
}

#[test]
fn people_are_told_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let line = "history DIR --level read-committed --workload register --transactions 3000";
    let report = run(line, &dir.path().join("db")).expect(0);
    assert!(report.contains("read-committed, register, 4 clients, seed 1"), "{report}");
    assert!(report.contains("3,000 transactions"), "{report}");
    assert!(report.contains("nothing was seen that the level forbids"), "{report}");
}
