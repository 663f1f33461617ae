//! The main job, for a second: its proof, its story, its exit status.
#![allow(clippy::unwrap_used)]

mod common;

use common::{json, run};

#[test]
fn the_demo_proves_itself() {
    let dir = tempfile::tempdir().unwrap();
    let bank = &dir.path().join("bank");
    let story = run("demo --seconds 1 --seed 7 --accounts 100 --dir DIR", bank).expect(0);
    for part in
        ["SIGKILL", "analysis", "redo", "undo", "acknowledged transfers: every one", "power cut"]
    {
        assert!(story.contains(part), "no {part:?} in:\n{story}");
    }
    assert!(!story.contains('\x1b'), "colour without a terminal:\n{story}");
    // What it kept is the recovered bank.
    run("bank check DIR", bank).expect(0);
    run("demo --dir DIR", bank).expect_error(2, "not empty");
}

#[test]
fn several_seeds_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let args = "--format json demo --seconds 0.2 --seeds 2 --seed 1 --threads 3 --accounts 20";
    let out = run(args, dir.path()).expect(0);
    let seeds: Vec<_> = out.lines().map(json).collect();
    assert_eq!(seeds.len(), 2);
    for (seed, outcome) in seeds.iter().enumerate() {
        assert_eq!(outcome["seed"], seed + 1);
        assert_eq!(outcome["holds"], true);
        assert!(outcome["acknowledged"].as_u64().unwrap() > 0);
        assert!(outcome["recovery"]["analysis"]["records"].as_u64().unwrap() > 0);
        assert_eq!(outcome["power_cuts"].as_array().unwrap().len(), 8);
    }
}
