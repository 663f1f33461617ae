//! How a command ends: six codes that scripts can rely on, and a next step for people.
//!
//! ```text
//!  0  fine
//!  1  failure           anything not named below; the message says what to do
//!  2  usage             the arguments make no sense
//!  3  corruption found  damaged bytes, or a structure that does not hold together
//!  4  no database       nothing at that place, or no finished backup
//!  5  in use            another process has the database open
//! ```
//!
//! The code is decided here and nowhere else, from the error at the root of the chain; commands only
//! return errors. Code 3 is kept for damage alone: a database that merely needs recovery is not
//! damaged and gives 1.

use std::io::Write as _;
use std::process::ExitCode;

/// Anything not named by another code.
pub(crate) const FAILURE: u8 = 1;
/// The arguments make no sense (clap uses the same number).
pub(crate) const USAGE: u8 = 2;
/// Damaged bytes or structures.
pub(crate) const CORRUPTION: u8 = 3;
/// No database at that place.
pub(crate) const NO_DATABASE: u8 = 4;
/// Another process has it open.
pub(crate) const IN_USE: u8 = 5;

/// A failure that the command line itself finds, where the engine returned no error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A check went through the whole database and found faults (already printed).
    #[error("{count} fault{} found; the first: {first}", plural(*count))]
    Faults {
        /// How many.
        count: usize,
        /// The first, with file and offset.
        first: String,
    },
    /// A key that was asked for is not there.
    #[error("no such key in tree {tree:?}")]
    NoKey {
        /// The tree that was searched.
        tree: String,
    },
    /// A proof did not hold: the database lost, invented or mixed up something.
    #[error("the proof does not hold: {0}")]
    Disproved(String),
    /// Arguments that parse one by one, but not together.
    #[error("{0}")]
    Usage(String),
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Prints `error` with its next step and returns its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // The reader of our output went away (`argali scan … | head`): nobody is left to tell.
    if !is_broken_pipe(error) {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "error: {}", in_full(error));
        if let Some(step) = next_step(error) {
            let _ = writeln!(err, "hint: {step}");
        }
    }
    ExitCode::from(code(error))
}

/// The error and its causes in one line; a cause that the text before it quotes is not said again.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            before if before.ends_with(&cause) => text,
            before => format!("{before}: {cause}"),
        }
    })
}

/// The exit code `error` stands for.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    use argali::Error as E;
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return match failure {
            Failure::Faults { .. } => CORRUPTION,
            Failure::Usage(_) => USAGE,
            Failure::NoKey { .. } | Failure::Disproved(_) => FAILURE,
        };
    }
    match error.downcast_ref::<E>() {
        Some(E::Corrupt { .. }) => CORRUPTION,
        Some(E::NoDatabase { .. } | E::Unfinished { .. } | E::NotFound { what: "backup", .. }) => {
            NO_DATABASE
        }
        Some(E::InUse { .. }) => IN_USE,
        Some(E::Invalid { .. }) => USAGE,
        _ => FAILURE,
    }
}

/// What to do about `error`, where its own text does not say.
fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    use argali::Error as E;
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(match failure {
            Failure::Faults { .. } => {
                "keep a copy of the directory; argali repair DIR [--backup B] rebuilds what it can, argali restore brings a backup back elsewhere"
            }
            Failure::NoKey { .. } => "list the keys that are there: argali scan DIR [--prefix P]",
            Failure::Disproved(_) => {
                "this is a bug: keep the directory and the seed, and report both"
            }
            Failure::Usage(_) => "see argali --help",
        });
    }
    match error.downcast_ref::<E>()? {
        E::NeedsRecovery => Some(
            "it was not shut down cleanly; any command that writes recovers it, for instance: argali checkpoint DIR; decide what is in doubt first: argali prepared list DIR",
        ),
        E::NoDatabase { .. } => Some(
            "check the path, or make one: argali bank load DIR, or argali put DIR KEY VALUE --create",
        ),
        E::InUse { .. } => {
            Some("end that process first; a database belongs to one process at a time")
        }
        E::Corrupt { .. } => Some(
            "list all damage with: argali check DIR; then argali repair DIR, or restore a backup elsewhere",
        ),
        E::Io { .. } => {
            Some("look at the disk's space and health and at file permissions, then try again")
        }
        E::NotFound { what: "tree", .. } => {
            Some("argali info DIR names the trees of a database; argali put makes them")
        }
        E::NotFound { what: "backup", .. } => Some("argali backup DIR DEST makes a backup"),
        E::NotFound { what: "prepared transaction", .. } => Some(
            "it was decided before, or never prepared; argali prepared list DIR names the others",
        ),
        E::NotFound { .. } => Some("argali bank load DIR makes a bank"),
        E::Exists { .. } => Some("use what is there, or another directory"),
        E::Invalid { .. } => Some("see argali --help"),
        _ => None,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let of = |error: argali::Error| code(&anyhow::Error::from(error).context("while testing"));
        assert_eq!(of(argali::Error::NeedsRecovery), FAILURE);
        assert_eq!(of(argali::Error::corrupt("data", 8192, None, "bad")), CORRUPTION);
        assert_eq!(of(argali::Error::NoDatabase { path: "x".into() }), NO_DATABASE);
        assert_eq!(of(argali::Error::InUse { holder: "7".into() }), IN_USE);
        let none = argali::Error::NotFound { what: "backup", name: "x".into() };
        assert_eq!(of(none), NO_DATABASE);
        assert_eq!(of(argali::Error::Invalid { what: "page size", why: "odd".into() }), USAGE);
        let faults = Failure::Faults { count: 2, first: "p3".into() };
        assert_eq!(code(&faults.into()), CORRUPTION);
    }

    #[test]
    fn a_cause_is_told_once() {
        let full = std::io::Error::other("disk is full");
        let error = argali::Error::io("write", "data", full);
        let error = anyhow::Error::from(error).context("loading the bank");
        assert_eq!(in_full(&error), "loading the bank: write data: disk is full");
    }
}
