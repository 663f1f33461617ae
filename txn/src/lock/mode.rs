//! Lock modes: who may hold what together, and what two requests of one transaction add up to.
//!
//! Database and trees carry the five modes of multi-granularity locking (Gray et al. 1976). `+` marks
//! compatible modes on the left, the supremum of two modes is on the right:
//!
//! ```text
//!  held╲asked  IS  IX  S  SIX  X          ∨   IS   IX   S    SIX  X
//!      IS      +   +   +   +   .          IS  IS   IX   S    SIX  X
//!      IX      +   +   .   .   .          IX  IX   IX   SIX  SIX  X
//!      S       +   .   +   .   .          S   S    SIX  S    SIX  X
//!      SIX     +   .   .   .   .          SIX SIX  SIX  SIX  SIX  X
//!      X       .   .   .   .   .          X   X    X    X    X    X
//! ```
//!
//! Keys carry a pair: a mode on the key itself and, independently, one on the open gap below it
//! (key-range locks, Lomet 1993 and Graefe 2007). Pairs are compatible when both halves are, and their
//! supremum is taken half by half:
//!
//! ```text
//!  key   None S  X     gap    None S  Insert X          ∨      None   S      Insert  X
//!  None   +   +  +     None    +   +    +    +          None   None   S      Insert  X
//!  S      +   +  .     S       +   +    .    .          S      S      S      X       X
//!  X      +   .  .     Insert  +   .    +    .          Insert Insert X      Insert  X
//!                      X       +   .    .    .          X      X      X      X       X
//! ```
//!
//! Two inserts into one gap do not disturb each other (they are kept apart by their own keys), so
//! `Insert` is compatible with itself: it is to a gap what IX is to a tree.
//!
//! A request is *asked* against what others hold, and a conversion asks for the supremum of what is
//! held and what is wanted. Both tables come from the same sets of permissions, so a mode conflicts
//! with `a ∨ b` exactly when it conflicts with `a` or with `b`; a test checks that on all modes.
//!
//! Left out: the update mode U, which trades upgrade deadlocks for fewer readers. A read that will write
//! asks for X at once.

// One arm per row of the tables above, even where two rows end alike.
#![allow(clippy::match_same_arms)]

use std::fmt;

/// Mode of a lock.
///
/// Databases and trees are locked with the first five, keys and tree ends with [`LockMode::Key`];
/// mixing them on one name is a bug and panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Some parts below will be locked for reading.
    IS,
    /// Some parts below will be locked for writing.
    IX,
    /// All of it is read.
    S,
    /// All of it is read, and some parts below will be locked for writing.
    SIX,
    /// All of it is written.
    X,
    /// Key-range lock: a mode on the key and one on the open gap below it.
    Key {
        /// Mode of the key itself.
        key: KeyMode,
        /// Mode of the gap below the key.
        gap: Gap,
    },
}

/// Mode of a key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyMode {
    /// The key is not locked, only the gap below it.
    None,
    /// Read.
    S,
    /// Written.
    X,
}

/// Mode of the open gap below a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gap {
    /// Not locked.
    None,
    /// Read: nobody may insert into it.
    S,
    /// Somebody inserts into it: nobody may rely on its being empty.
    Insert,
    /// Both: what a transaction holds that read a gap and then inserts into it.
    X,
}

impl LockMode {
    /// Whether one transaction may hold `self` while another holds `other`.
    ///
    /// # Panics
    /// When one is a key mode and the other is not.
    pub fn compatible(self, other: Self) -> bool {
        use LockMode::{IS, IX, Key, S, SIX, X};
        match (self, other) {
            (Key { key: a, gap: b }, Key { key: c, gap: d }) => a.compatible(c) && b.compatible(d),
            (IS, IS | IX | S | SIX) | (IX, IS | IX) | (S, IS | S) | (SIX, IS) => true,
            (IS, X) | (IX, S | SIX | X) | (S, IX | SIX | X) | (SIX, IX | S | SIX | X) => false,
            (X, IS | IX | S | SIX | X) => false,
            (Key { .. }, _) | (_, Key { .. }) => mixed(self, other),
        }
    }

    /// The least mode that permits everything `self` and `other` permit.
    ///
    /// # Panics
    /// When one is a key mode and the other is not.
    #[must_use]
    pub fn supremum(self, other: Self) -> Self {
        use LockMode::{IS, IX, Key, S, SIX, X};
        match (self, other) {
            (Key { key: a, gap: b }, Key { key: c, gap: d }) => {
                Key { key: a.supremum(c), gap: b.supremum(d) }
            }
            (Key { .. }, _) | (_, Key { .. }) => mixed(self, other),
            (X, _) | (_, X) => X,
            (SIX, _) | (_, SIX) | (IX, S) | (S, IX) => SIX,
            (IX, IX | IS) | (IS, IX) => IX,
            (S, S | IS) | (IS, S) => S,
            (IS, IS) => IS,
        }
    }

    /// Whether it is taken in order to write, here or below.
    #[inline]
    pub fn writes(self) -> bool {
        matches!(self, Self::IX | Self::SIX) || self.is_exclusive()
    }

    /// Whether whoever holds it may write all it names.
    pub fn is_exclusive(self) -> bool {
        matches!(self, Self::X | Self::Key { key: KeyMode::X, .. })
    }

    /// Whether a transaction that holds `self` needs to ask for nothing more to have `other`.
    ///
    /// # Panics
    /// When one is a key mode and the other is not.
    #[inline]
    pub fn covers(self, other: Self) -> bool {
        let (held, asked) = (self.permissions(), other.permissions());
        if (held ^ asked) & KEY_FAMILY != 0 {
            mixed(self, other)
        }
        held & asked == asked
    }

    /// What the mode permits, as a set: the supremum permits what both do.
    #[inline]
    const fn permissions(self) -> u8 {
        match self {
            Self::IS => 0b0001,
            Self::IX => 0b0011,
            Self::S => 0b0101,
            Self::SIX => 0b0111,
            Self::X => 0b1111,
            Self::Key { key, gap } => {
                let key = match key {
                    KeyMode::None => 0b00,
                    KeyMode::S => 0b01,
                    KeyMode::X => 0b11,
                };
                let gap = match gap {
                    Gap::None => 0b00,
                    Gap::S => 0b01,
                    Gap::Insert => 0b10,
                    Gap::X => 0b11,
                };
                KEY_FAMILY | key << 2 | gap
            }
        }
    }
}

/// Permission that tells the modes of keys from the others.
const KEY_FAMILY: u8 = 0b1000_0000;

/// Two families of modes on one name: a bug of the caller.
fn mixed(a: LockMode, b: LockMode) -> ! {
    panic!("L1: one name is locked either with key modes or with tree modes: {a} and {b}")
}

impl KeyMode {
    fn compatible(self, other: Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::None) | (Self::S, Self::S) => true,
            (Self::X, Self::S | Self::X) | (Self::S, Self::X) => false,
        }
    }

    fn supremum(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, mode) | (mode, Self::None) => mode,
            (Self::S, Self::S) => Self::S,
            (Self::X, Self::S | Self::X) | (Self::S, Self::X) => Self::X,
        }
    }
}

impl Gap {
    fn compatible(self, other: Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => true,
            (Self::S, Self::S) | (Self::Insert, Self::Insert) => true,
            (Self::S, Self::Insert | Self::X) | (Self::Insert, Self::S | Self::X) => false,
            (Self::X, Self::S | Self::Insert | Self::X) => false,
        }
    }

    fn supremum(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, mode) | (mode, Self::None) => mode,
            (Self::S, Self::S) => Self::S,
            (Self::Insert, Self::Insert) => Self::Insert,
            (Self::S, Self::Insert | Self::X) | (Self::Insert, Self::S | Self::X) => Self::X,
            (Self::X, Self::S | Self::Insert | Self::X) => Self::X,
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IS => f.write_str("IS"),
            Self::IX => f.write_str("IX"),
            Self::S => f.write_str("S"),
            Self::SIX => f.write_str("SIX"),
            Self::X => f.write_str("X"),
            Self::Key { key, gap: Gap::None } => write!(f, "{key:?}"),
            Self::Key { key, gap } => write!(f, "{key:?}+gap {gap:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [KeyMode; 3] = [KeyMode::None, KeyMode::S, KeyMode::X];
    const GAPS: [Gap; 4] = [Gap::None, Gap::S, Gap::Insert, Gap::X];
    const TREES: [LockMode; 5] =
        [LockMode::IS, LockMode::IX, LockMode::S, LockMode::SIX, LockMode::X];

    fn pairs() -> Vec<LockMode> {
        let pair = |key| GAPS.map(|gap| LockMode::Key { key, gap });
        KEYS.into_iter().flat_map(pair).collect()
    }

    /// The head's tables, typed in a second time and independently of the code.
    #[test]
    fn tree_modes_are_as_tabulated() {
        let compatible = ["++++.", "++...", "+.+..", "+....", "....."];
        let suprema =
            ["IS IX S SIX X", "IX IX SIX SIX X", "S SIX S SIX X", "SIX SIX SIX SIX X", "X X X X X"];
        for (a, row) in TREES.iter().enumerate() {
            let got: String =
                TREES.iter().map(|b| if row.compatible(*b) { '+' } else { '.' }).collect();
            assert_eq!(got, compatible[a], "compatibility of {row}");
            let got: Vec<String> = TREES.iter().map(|b| row.supremum(*b).to_string()).collect();
            assert_eq!(got.join(" "), suprema[a], "suprema of {row}");
        }
    }

    #[test]
    fn key_and_gap_modes_are_as_tabulated() {
        let keys = ["+++", "++.", "+.."];
        let gaps = ["++++", "++..", "+.+.", "+..."];
        for a in pairs() {
            for b in pairs() {
                let (LockMode::Key { key: ka, gap: ga }, LockMode::Key { key: kb, gap: gb }) =
                    (a, b)
                else {
                    unreachable!("pairs() makes key modes only");
                };
                let key = keys[ka as usize].as_bytes()[kb as usize] == b'+';
                let gap = gaps[ga as usize].as_bytes()[gb as usize] == b'+';
                assert_eq!(a.compatible(b), key && gap, "{a} with {b}");
            }
        }
    }

    /// Laws that must hold on every triple of a family, whatever the tables say.
    #[test]
    fn suprema_form_a_lattice_that_agrees_with_compatibility() {
        for family in [TREES.to_vec(), pairs()] {
            for &a in &family {
                assert_eq!(a.supremum(a), a);
                for &b in &family {
                    let join = a.supremum(b);
                    assert_eq!(join, b.supremum(a), "commutative: {a} {b}");
                    assert_eq!(a.compatible(b), b.compatible(a), "symmetric: {a} {b}");
                    assert!(join.covers(a) && join.covers(b), "upper bound: {a} {b}");
                    assert_eq!(a.covers(b), join == a, "{a} covers {b}");
                    for &c in &family {
                        assert_eq!(join.supremum(c), a.supremum(b.supremum(c)), "{a} {b} {c}");
                        let each = a.compatible(c) && b.compatible(c);
                        assert_eq!(join.compatible(c), each, "{a} ∨ {b} against {c}");
                        if c.covers(a) && c.covers(b) {
                            assert!(c.covers(join), "least upper bound: {a} {b} {c}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "L1")]
    fn families_do_not_mix() {
        LockMode::IS.compatible(LockMode::Key { key: KeyMode::S, gap: Gap::None });
    }
}
