//! `backup`, `restore` and `repair`, on real directories.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{argali, contents, json};

/// Runs `argali args…`; paths are given relative to `dir`.
fn at(dir: &Path, line: &str) -> common::Ran {
    let args: Vec<_> = line.split_whitespace().collect();
    let mut command = argali(args);
    command.current_dir(dir);
    common::Ran::of(command.output().unwrap(), line)
}

/// A database `db` with three pairs, backed up to `backup` after two.
fn backed_up() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    at(dir.path(), "put db a 1 --create").expect(0);
    at(dir.path(), "put db b 2").expect(0);
    at(dir.path(), "backup db backup").expect(0);
    at(dir.path(), "put db c 3").expect(0);
    dir
}

#[test]
fn a_backup_is_made_and_restored() {
    let dir = backed_up();
    let at = |line: &str| at(dir.path(), line);
    let restored = json(&at("--format json restore backup new").expect(0));
    assert_eq!(restored["timeline"], 2);
    assert_eq!(at("scan new").expect(0), "a\t1\nb\t2\n");
    let text = at("restore backup newer --log db").expect(0);
    assert!(text.starts_with("restored on timeline 2"), "{text}");
    assert_eq!(at("scan newer").expect(0), "a\t1\nb\t2\nc\t3\n");
    at("check newer").expect(0);
    let again = json(&at("--format json backup new backup2 --rate 500").expect(0));
    assert!(again["pages"].as_u64().unwrap() > 3 && again["end_lsn"].as_u64().unwrap() > 64);
    at("restore backup2 newest").expect(0);
    let info = json(&at("--format json info newest").expect(0));
    assert_eq!(info["timeline"], 3);
}

#[test]
fn backing_up_a_clean_database_writes_nothing_there() {
    let dir = backed_up();
    let db = dir.path().join("db");
    let before = contents(&db);
    at(dir.path(), "backup db other").expect(0);
    assert_eq!(contents(&db), before);
}

#[test]
fn what_is_no_backup_and_what_is_no_empty_place_is_refused() {
    let dir = backed_up();
    let at = |line: &str| at(dir.path(), line);
    at("backup db backup").expect_error(1, "exists already");
    at("backup none other").expect_error(4, "no database");
    at("restore backup db").expect_error(1, "exists already");
    at("restore db new").expect_error(4, "no backup");
    at("restore none new").expect_error(4, "no");
    at("get backup a").expect_error(2, "holds a backup");
    at("restore backup new --to-lsn 64").expect_error(2, "to_lsn");
    fs::rename(dir.path().join("backup/manifest"), dir.path().join("backup/manifest.tmp")).unwrap();
    at("restore backup new").expect_error(4, "did not finish");
    assert!(!dir.path().join("new/control").exists());
    at("backup db backup").expect(0);
    at("restore backup new").expect(0);
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 4;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_backup_is_refused() {
    let dir = backed_up();
    flip(&dir.path().join("backup/data"), 3 * 8192 + 100);
    at(dir.path(), "restore backup new").expect_error(3, "corrupt data at offset 24576");
}

#[test]
fn a_damaged_page_is_reported_and_then_repaired_from_the_backup() {
    let dir = backed_up();
    let at = |line: &str| at(dir.path(), line);
    at("backup db fresh").expect(0);
    let page = 8192 * 3;
    flip(&dir.path().join("db/data"), page + 100);
    let seen = at("check db");
    assert!(seen.out.contains("offset 24576"), "{}", seen.out);
    seen.expect(3);
    let text = at("repair db").out;
    assert!(text.contains("restore a backup"), "{text}");
    let repaired = json(&at("--format json repair db --backup fresh").expect(0));
    assert_eq!(repaired["repaired"], 1);
    assert!(repaired["repairs"][0].as_str().unwrap().starts_with("p3 rebuilt from the backup"));
    at("check db").expect(0);
    assert_eq!(at("scan db").expect(0), "a\t1\nb\t2\nc\t3\n");
}
