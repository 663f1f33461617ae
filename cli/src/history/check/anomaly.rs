//! The names of what can go wrong, and which isolation level permits what.
//!
//! ```text
//!                             read committed   repeatable read   serializable
//!  half commit … dirty write        ✗                ✗                ✗
//!  G1a, G1b, G1c                    ✗                ✗                ✗
//!  lost update … write skew      permitted           ✗                ✗
//!  phantom                       permitted       permitted            ✗
//!  against real time             permitted       permitted            ✗
//! ```
//!
//! `docs/isolation.md` says for each cell of this table which test shows it.

use std::fmt;

use argali::Isolation;

/// Most examples kept of one kind.
const EXAMPLES_MAX: usize = 3;

/// Something that no serial execution shows, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Anomaly {
    /// A value that nobody wrote, or not so.
    Garbage,
    /// A commit that was acknowledged is missing in the end.
    LostWrite,
    /// Of a transaction whose answer a crash swallowed, a part is there.
    HalfCommit,
    /// A transaction does not see its own write.
    OwnWriteUnseen,
    /// G0: writes of two transactions are interleaved.
    DirtyWrite,
    /// G1a: a value of a transaction that was rolled back, by itself or by a crash.
    AbortedRead,
    /// G1b: a value that its own transaction had replaced before it committed.
    IntermediateRead,
    /// G1c: information flows in a circle.
    CircularFlow,
    /// A version was replaced by somebody who had read an older one.
    LostUpdate,
    /// One row was read twice, with another's commit between.
    NonRepeatableRead,
    /// G-single: a part of the state was read before somebody's commit, a part after it.
    ReadSkew,
    /// G2-item: two or more decided by what the others then replaced.
    WriteSkew,
    /// G2: a row entered a range that somebody had read.
    Phantom,
    /// Serializable, but only in an order that real time contradicts.
    AgainstRealTime,
}

impl Anomaly {
    /// Every kind, the gravest first.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 14] = [
        Self::Garbage,
        Self::LostWrite,
        Self::HalfCommit,
        Self::OwnWriteUnseen,
        Self::DirtyWrite,
        Self::AbortedRead,
        Self::IntermediateRead,
        Self::CircularFlow,
        Self::LostUpdate,
        Self::NonRepeatableRead,
        Self::ReadSkew,
        Self::WriteSkew,
        Self::Phantom,
        Self::AgainstRealTime,
    ];

    /// Whether `level` promises that it does not happen.
    pub(crate) fn is_forbidden(self, level: Isolation) -> bool {
        let most_permissive = match self {
            Self::Garbage
            | Self::LostWrite
            | Self::HalfCommit
            | Self::OwnWriteUnseen
            | Self::DirtyWrite
            | Self::AbortedRead
            | Self::IntermediateRead
            | Self::CircularFlow => return true,
            Self::LostUpdate | Self::NonRepeatableRead | Self::ReadSkew | Self::WriteSkew => {
                Isolation::ReadCommitted
            }
            Self::Phantom | Self::AgainstRealTime => Isolation::RepeatableRead,
        };
        match level {
            Isolation::Serializable => true,
            Isolation::RepeatableRead => most_permissive == Isolation::ReadCommitted,
            Isolation::ReadCommitted => false,
        }
    }

    /// Stable name, for JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::LostWrite => "lost-write",
            Self::HalfCommit => "half-commit",
            Self::OwnWriteUnseen => "own-write-unseen",
            Self::DirtyWrite => "dirty-write",
            Self::AbortedRead => "aborted-read",
            Self::IntermediateRead => "intermediate-read",
            Self::CircularFlow => "circular-flow",
            Self::LostUpdate => "lost-update",
            Self::NonRepeatableRead => "non-repeatable-read",
            Self::ReadSkew => "read-skew",
            Self::WriteSkew => "write-skew",
            Self::Phantom => "phantom",
            Self::AgainstRealTime => "against-real-time",
        }
    }

    /// Adya's name, where there is one.
    pub(crate) fn adya(self) -> Option<&'static str> {
        match self {
            Self::DirtyWrite => Some("G0"),
            Self::AbortedRead => Some("G1a"),
            Self::IntermediateRead => Some("G1b"),
            Self::CircularFlow => Some("G1c"),
            Self::LostUpdate | Self::NonRepeatableRead | Self::ReadSkew => Some("G-single"),
            Self::WriteSkew => Some("G2-item"),
            Self::Phantom => Some("G2"),
            Self::Garbage
            | Self::LostWrite
            | Self::HalfCommit
            | Self::OwnWriteUnseen
            | Self::AgainstRealTime => None,
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().replace('-', " "))?;
        self.adya().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// One kind of anomaly as it was seen in a history.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) anomaly: Anomaly,
    /// How often; of cycles, how many were looked at.
    pub(crate) count: u64,
    /// The shortest ones, each as lines for people.
    pub(crate) examples: Vec<Vec<String>>,
}

impl Finding {
    /// Counts `example`, and keeps it if it is among the shortest.
    pub(super) fn add(&mut self, example: Vec<String>) {
        self.count += 1;
        let at = self.examples.partition_point(|kept| kept.len() <= example.len());
        if at < EXAMPLES_MAX {
            self.examples.insert(at, example);
            self.examples.truncate(EXAMPLES_MAX);
        }
    }

    /// Takes over what was seen in another history.
    pub(crate) fn merge(&mut self, other: Self) {
        let extra = other.count - other.examples.len() as u64;
        other.examples.into_iter().for_each(|example| self.add(example));
        self.count += extra;
    }
}
