//! Lock names and modes. (Skeleton.)

/// What can be locked. Keys are named by hash: two keys with one hash only wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockName {
    Database,
    Tree(u64),
    /// A key (and the gap below it) of the tree with this root.
    Key {
        tree: u64,
        hash: u64,
    },
    /// The gap above the last key of the tree.
    End {
        tree: u64,
    },
}

/// Modes. On database and tree: IS … X with gap `None`. On keys: S or X on the key itself, and
/// independently a mode on the open gap below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    IS,
    IX,
    S,
    SIX,
    X,
    /// Key-range lock: mode of the key, mode of the gap below it.
    Key {
        key: KeyMode,
        gap: Gap,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyMode {
    None,
    S,
    X,
}

/// Gap modes: `S` keeps the gap free of inserts; `Insert` inserts into it. `S`–`S` and
/// `Insert`–`Insert` are compatible, `S`–`Insert` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gap {
    None,
    S,
    Insert,
}

#[derive(Clone, Debug, Default)]
pub struct LockStats {
    pub acquired: u64,
    pub waited: u64,
    pub deadlocks: u64,
    pub timeouts: u64,
}
