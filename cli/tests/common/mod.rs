//! Runs the real binary and looks at what it said.
// Each test binary uses its own part.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary with `args`; no colour, no terminal.
pub fn argali<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_argali"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `argali args… dir rest…`, separated at the place where `DIR` stands.
pub fn run(line: &str, dir: &Path) -> Ran {
    let args = line.split_whitespace().map(|word| match word {
        "DIR" => dir.as_os_str().to_owned(),
        word => word.into(),
    });
    Ran::of(argali(args).output().expect("the binary starts"), line)
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    line: String,
}

impl Ran {
    pub fn of(output: Output, line: &str) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("output is UTF-8"),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            line: line.to_owned(),
        }
    }

    /// Panics unless the exit code is `code`; returns standard output.
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(self.code, code, "argali {}\n{}\n{}", self.line, self.out, self.err);
        assert!(!self.err.contains("panicked"), "argali {}: {}", self.line, self.err);
        self.out
    }

    /// Panics unless the exit code is `code` and standard error has `text` and a next step.
    #[track_caller]
    pub fn expect_error(self, code: i32, text: &str) {
        let (line, err) = (self.line.clone(), self.err.clone());
        self.expect(code);
        assert!(err.contains(text), "argali {line}: no {text:?} in {err}");
        let step = err.contains("hint: ") || err.contains("; ");
        assert!(step, "argali {line}: no next step in {err}");
    }
}

/// Output as JSON.
#[track_caller]
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// All files under `dir` with their contents: to show that a command wrote nothing.
pub fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in dir.read_dir().unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(contents(&entry.path()));
        } else if entry.file_name() != "lock" {
            files.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}
