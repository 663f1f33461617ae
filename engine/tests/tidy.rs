//! Rules about the source itself that no compiler checks: see the developers' conventions in
//! `ARCHITECTURE.md`. A rule that is not tested is a wish.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates in dependency order: each may use only those before it, and of the two in the middle neither
/// the other.
const LINE: [&str; 10] = [
    "base",
    "wal",
    "pager",
    "buffer-pool",
    "txn",
    "access",
    "recovery",
    "engine",
    "cli",
    "benches",
];

/// The only files that may contain `unsafe`: three of the engine, and one of a benchmark that opens
/// another engine's memory map.
const UNSAFE: [&str; 4] = [
    "pager/src/cell.rs",
    "buffer-pool/src/arena.rs",
    "buffer-pool/src/latch.rs",
    "benches/compare/src/stores/lmdb.rs",
];

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All Rust files of the workspace with their text, by path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for krate in LINE {
        collect(&root(), Path::new(krate), &mut files);
    }
    assert!(files.len() > 50, "found only {} files", files.len());
    files
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(root.join(dir)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = dir.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                collect(root, &path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(entry.path()).unwrap();
            files.insert(path.to_str().unwrap().to_owned(), text);
        }
    }
}

/// Text before the unit tests, which do not count.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

#[test]
fn every_file_begins_with_its_idea() {
    for (path, text) in sources() {
        let first = text.lines().find(|line| !line.starts_with("#![")).unwrap_or_default();
        assert!(first.starts_with("//! "), "{path} begins with {first:?}, not with `//!`");
    }
}

#[test]
fn files_stay_short() {
    for (path, text) in sources() {
        let lines = without_tests(&text).lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; split it by topic");
    }
}

#[test]
fn crates_depend_leftward_only() {
    for (place, krate) in LINE.iter().enumerate() {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        let uses = |other: &str| {
            let name = if other == "engine" { "argali".into() } else { format!("argali-{other}") };
            let mut lines = manifest.lines();
            lines.any(|line| line.split(['.', ' ', '=']).next() == Some(&name))
        };
        let allowed = if *krate == "recovery" { &LINE[..5] } else { &LINE[..place] };
        for other in LINE.iter().filter(|other| !allowed.contains(other)) {
            assert!(!uses(other), "{krate} must not use {other}");
        }
        // What users of the engine may reach is the engine's to decide.
        if ["cli", "benches"].contains(krate) {
            assert!(uses("engine"), "{krate} stands on the engine");
        }
    }
}

#[test]
fn unsafe_stays_where_it_is() {
    for (path, text) in sources() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let word = |line: &str| {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == "unsafe")
        };
        let found = code.filter(|line| word(line)).count();
        let allowed = UNSAFE.contains(&path.as_str()) || path == "engine/tests/tidy.rs";
        assert!(found == 0 || allowed, "{path} uses `unsafe`; only {UNSAFE:?} may");
    }
}

#[test]
fn scripts_explain_themselves() {
    for krate in LINE {
        let mut scripts = Vec::new();
        walk(&root().join(krate).join("tests/scripts"), &mut scripts);
        for path in scripts {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("# "), "{} does not begin with a comment", path.display());
        }
    }
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}
