//! The documents say what the code says.
//!
//! `docs/formats.md` repeats the byte tables that stand at the heads of the source files. Here each of its
//! tables is looked up in the file it names: whoever changes one must change the other.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The tables of the document: the file each is from, and its lines.
fn tables(document: &str) -> Vec<(String, Vec<String>)> {
    let mut tables = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("From `") {
            let file = rest.split('`').next().unwrap().to_owned();
            let table = lines
                .by_ref()
                .skip_while(|line| !line.starts_with("```"))
                .skip(1)
                .take_while(|line| !line.starts_with("```"));
            tables.push((file, table.map(str::to_owned).collect()));
        }
    }
    tables
}

/// The head of a source file, without its comment marks.
fn head(source: &str) -> String {
    let lines = source.lines().take_while(|line| line.starts_with("//!"));
    lines.map(|line| line.trim_start_matches("//!").strip_prefix(' ').unwrap_or("")).fold(
        String::new(),
        |mut head, line| {
            head.push_str(line);
            head.push('\n');
            head
        },
    )
}

#[test]
fn byte_tables_are_those_of_the_sources() {
    let document = fs::read_to_string(root().join("docs/formats.md")).unwrap();
    let tables = tables(&document);
    assert!(tables.len() >= 12, "only {} tables found", tables.len());
    for (file, table) in tables {
        let source = fs::read_to_string(root().join(&file)).unwrap();
        let table = table.join("\n");
        assert!(!table.trim().is_empty(), "an empty table from {file}");
        assert!(head(&source).contains(&table), "docs/formats.md and {file} differ in\n{table}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = target.split('#').next().unwrap();
            assert!(root().join(file).exists(), "{name} links to {target}");
        }
    }
}

/// A test that a document names by its function exists.
#[test]
fn named_tests_exist() {
    let text = fs::read_to_string(root().join("docs/isolation.md")).unwrap();
    let mut sources = String::new();
    for tests in ["cli/src/history", "cli/tests"] {
        collect(&root().join(tests), &mut sources);
    }
    let quoted = text.split('`').skip(1).step_by(2);
    // Everything quoted that looks like a function, but for those that are told apart from tests.
    let function = |name: &&str| name.contains('_') && !name.contains(['/', ' ', ':']);
    let names: Vec<_> = quoted.filter(function).filter(|name| *name != "get_for_update").collect();
    assert!(names.len() > 20, "only {} tests are named", names.len());
    for name in names {
        assert!(sources.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}

fn collect(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, text);
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
