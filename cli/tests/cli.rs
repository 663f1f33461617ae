//! Every command once, every exit code, and what must not happen on the way.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::{argali, contents, json, run};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn bare_argali_orients_in_five_lines() {
    let out = run("", Path::new("")).expect(0);
    assert_eq!(out.lines().count(), 5, "{out}");
    assert!(out.contains("argali demo"));
}

#[test]
fn short_help_fits_on_one_screen_and_long_help_has_examples() {
    let commands = [
        "",
        "demo",
        "bank",
        "bank load",
        "bank run",
        "bank check",
        "info",
        "check",
        "stats",
        "checkpoint",
        "prepared",
        "prepared list",
        "prepared commit",
        "get",
        "put",
        "delete",
        "scan",
        "backup",
        "restore",
        "repair",
        "torture",
        "torture workload",
        "torture verify",
        "torture soak",
    ];
    for command in commands {
        let short = run(&format!("{command} -h"), Path::new("")).expect(0);
        let lines = short.lines().count();
        assert!((5..=40).contains(&lines), "argali {command} -h: {lines} lines");
        let long = run(&format!("{command} --help"), Path::new("")).expect(0);
        assert!(long.len() >= short.len(), "argali {command}: --help says less than -h");
    }
    let long = run("--help", Path::new("")).expect(0);
    assert!(long.contains("Examples:") && long.contains("Exit codes:"), "{long}");
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for line in
        ["nonsense", "get", "demo --threads 0", "demo --seconds NaN", "torture workload DIR"]
    {
        run(line, Path::new("x")).expect(2);
    }
    let dir = dir();
    run("put DIR k v --create", dir.path()).expect(0);
    run("get DIR zz --encoding hex", dir.path()).expect_error(2, "hexadecimal");
}

#[test]
fn pairs_go_in_and_come_out() {
    let dir = dir();
    let db = &dir.path().join("db");
    run("put DIR colour blue --create", db).expect(0);
    run("put DIR count 7", db).expect(0);
    let old = run("--format json put DIR colour red", db).expect(0);
    assert_eq!(json(&old)["old"], "blue");
    assert_eq!(run("get DIR colour", db).expect(0), "red\n");
    run("put DIR 00ff fe --encoding hex", db).expect(0);
    assert_eq!(run("scan DIR", db).expect(0), "\\u{0}\\xff\t\\xfe\ncolour\tred\ncount\t7\n");
    assert_eq!(run("scan DIR --prefix co --limit 1", db).expect(0), "colour\tred\n");
    let line = run("--format json scan DIR --limit 1", db).expect(0);
    assert_eq!(json(&line)["k"]["hex"], "00ff");
    run("scan DIR --prefix c --encoding hex", db).expect(2);
    run("delete DIR colour", db).expect(0);
    run("delete DIR colour", db).expect_error(1, "no such key");
    run("get DIR colour", db).expect_error(1, "no such key");
    run("get DIR x --tree other", db).expect_error(1, "no tree");
}

#[test]
fn no_database_is_code_4_and_nothing_is_made() {
    let dir = dir();
    let none = &dir.path().join("none");
    let lines = [
        "info DIR",
        "check DIR",
        "stats DIR",
        "checkpoint DIR",
        "get DIR k",
        "put DIR k v",
        "delete DIR k",
        "scan DIR",
        "bank run DIR",
        "bank check DIR",
        "torture verify DIR",
    ];
    for line in lines {
        run(line, none).expect_error(4, "no database");
        assert!(!none.join("control").exists(), "argali {line} made something");
    }
    assert!(contents(dir.path()).is_empty());
}

#[test]
fn bank_step_by_step() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 50", db).expect(0);
    run("bank load DIR --accounts 50", db).expect_error(1, "exists already");
    let ran = json(&run("--format json bank run DIR --threads 4 --seconds 0.3", db).expect(0));
    let transfers = ran["transfers"].as_u64().unwrap();
    assert!(transfers > 0);
    run("bank run DIR --threads 2 --seconds 0.1 --durability relaxed", db).expect(0);
    run("bank run DIR --threads 2 --seconds 0.1 --durability group", db).expect(0);
    let seen = json(&run("--format json bank check DIR", db).expect(0));
    assert_eq!(seen["recovered"], false);
    assert_eq!(seen["sum"], 50_000);
    assert_eq!(seen["holds"], true);
    assert!(seen["transfers"].as_u64().unwrap() > transfers);
}

#[test]
fn bank_check_sees_a_forged_balance() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 5", db).expect(0);
    run("put DIR 00000003 1001 --tree accounts", db).expect(0);
    run("bank check DIR", db).expect_error(1, "account 00000003 has 1001");
}

#[test]
fn inspection_tells_and_writes_nothing() {
    let dir = dir();
    let db = &dir.path().join("db");
    run("put DIR k v --create --tree fruit", db).expect(0);
    let before = contents(db);
    let info = json(&run("--format json info DIR", db).expect(0));
    assert_eq!(info["clean"], true);
    assert_eq!(info["trees"][0], "fruit");
    assert_eq!(info["page_bytes"], 8192);
    let seen = json(&run("--format json check DIR", db).expect(0));
    assert_eq!((&seen["trees"], &seen["rows"]), (&1.into(), &1.into()));
    let stats = json(&run("--format json stats DIR", db).expect(0));
    assert_eq!(stats["trees"], 1);
    assert_eq!(stats["tree_stats"][0]["name"], "fruit");
    assert_eq!(stats["tree_stats"][0]["rows"], 1);
    for line in ["info DIR", "check DIR", "stats DIR"] {
        run(line, db).expect(0);
    }
    assert!(contents(db) == before, "inspection wrote something");
}

#[test]
fn an_unclean_database_needs_recovery_and_stays_as_it_is() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 10", db).expect(0);
    kill_while_running(db);
    let before = contents(db);
    assert_eq!(json(&run("--format json info DIR", db).expect(0))["clean"], false);
    run("check DIR", db).expect_error(1, "needs recovery");
    run("stats DIR", db).expect_error(1, "needs recovery");
    assert!(contents(db) == before, "inspection wrote something");
    run("checkpoint DIR", db).expect(0);
    run("check DIR", db).expect(0);
}

#[test]
fn a_second_process_is_told_that_the_database_is_in_use() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 10", db).expect(0);
    let mut child = busy(db);
    for line in ["put DIR k v", "scan DIR", "check DIR", "bank check DIR", "torture verify DIR"] {
        run(line, db).expect_error(5, "in use");
    }
    run("info DIR", db).expect(0);
    child.kill().unwrap();
    child.wait().unwrap();
    run("bank check DIR", db).expect(0);
}

#[test]
fn a_byte_changed_in_a_page_is_code_3_with_file_and_offset() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 500", db).expect(0);
    let data = db.join("data");
    let good = std::fs::read(&data).unwrap();
    let pages: Vec<usize> = (0..good.len() / 8192)
        .filter(|p| good[p * 8192..][..8192].iter().any(|b| *b != 0))
        .collect();
    assert!(pages.len() > 3, "a bank has some pages: {pages:?}");
    for page in pages {
        let mut bad = good.clone();
        bad[page * 8192 + 100] ^= 0x40;
        std::fs::write(&data, &bad).unwrap();
        let ran = run("check DIR", db);
        let (out, err) = (ran.out.clone(), ran.err.clone());
        ran.expect_error(3, "data");
        assert!(out.contains("data") && out.contains("offset"), "page {page}: {out}{err}");
        assert!(!out.contains("sound"), "page {page}: {out}");
    }
}

#[test]
fn all_damage_is_listed_not_the_first() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 80000", db).expect(0);
    let data = db.join("data");
    let mut bytes = std::fs::read(&data).unwrap();
    let mut spoiled: Vec<usize> = (10..bytes.len() / 8192)
        .step_by(2)
        .filter(|page| bytes[page * 8192..][..8192].iter().any(|b| *b != 0))
        .collect();
    for page in &spoiled {
        bytes[page * 8192 + 100] ^= 0x40;
    }
    std::fs::write(&data, &bytes).unwrap();
    let ran = run("--format json check DIR", db);
    let (count, seen) = (spoiled.len(), json(&ran.out));
    ran.expect_error(3, &format!("{count} faults found"));
    let mut offsets: Vec<usize> = seen["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["offset"].as_u64().unwrap() as usize / 8192)
        .collect();
    offsets.sort_unstable();
    spoiled.sort_unstable();
    assert!(count > 100, "{count} pages");
    assert_eq!(offsets, spoiled);
    // People are shown the first hundred.
    let text = run("check DIR", db).expect(3);
    assert_eq!(text.lines().count(), 101, "{text}");
    assert!(text.contains(&format!("and {} more", count - 100)), "{text}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let dir = dir();
    let db = &dir.path().join("bank");
    run("bank load DIR --accounts 20000", db).expect(0);
    let scan = ["scan".as_ref(), db.as_os_str(), "--tree".as_ref(), "accounts".as_ref()];
    let mut child = argali(scan).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let err = child.wait_with_output().unwrap().stderr;
    assert!(err.is_empty(), "{}", String::from_utf8_lossy(&err));
}

/// A process that has the bank in `db` open and at work.
fn busy(db: &Path) -> std::process::Child {
    let args = ["demo-child".as_ref(), db.as_os_str(), "--threads".as_ref(), "2".as_ref()];
    let mut child =
        argali(args).args(["--seed", "1"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut ack = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut ack).unwrap();
    assert!(ack.ends_with('\n'), "no acknowledgement: {ack:?}");
    // Keep reading, so that the child does not stop at a full pipe.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    child
}

fn kill_while_running(db: &Path) {
    let mut child = busy(db);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Two in doubt, left by a process that prepared them and went away; decided one by one from outside.
#[test]
fn transactions_in_doubt_are_listed_and_decided() {
    let dir = dir();
    let db = argali::Db::open(dir.path()).unwrap();
    for (gid, key) in [("order 1", "a"), ("order-2", "b")] {
        let mut tx = db.begin().unwrap();
        let tree = tx.tree(key).unwrap();
        tx.put(&tree, key, gid).unwrap();
        tx.prepare(gid).unwrap();
    }
    db.close().unwrap();
    let before = contents(dir.path());
    let list = run("prepared list DIR", dir.path()).expect(0);
    assert!(
        list.contains("order 1") && list.contains("order-2") && list.contains("locks"),
        "{list}"
    );
    let info = run("info DIR", dir.path()).expect(0);
    assert_eq!(info.matches("in doubt").count(), 2, "{info}");
    let all = json(&run("--format json prepared list DIR", dir.path()).expect(0));
    assert_eq!(all["prepared"][1]["gid"], "order-2");
    run("check DIR", dir.path()).expect_error(1, "needs recovery");
    assert_eq!(contents(dir.path()), before, "looking changed something");

    let abort = argali(["prepared", "abort"]).arg(dir.path()).arg("order 1").output().unwrap();
    assert!(abort.status.success());
    run("prepared commit DIR order-2", dir.path()).expect(0);
    run("prepared commit DIR order-2", dir.path()).expect_error(1, "no prepared transaction");
    assert_eq!(run("prepared list DIR", dir.path()).expect(0), "nobody is in doubt\n");
    assert_eq!(run("get DIR --tree b b", dir.path()).expect(0), "order-2\n");
    run("get DIR --tree a a", dir.path()).expect_error(1, "no tree");
    run("check DIR", dir.path()).expect(0);
}
