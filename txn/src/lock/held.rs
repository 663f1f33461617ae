//! The locks of one transaction, in the order it took them.
//!
//! It answers "do I hold this already?" without touching the shared table: a transaction takes its
//! intention locks once and finds them here for every later key. Up to [`SCAN_MAX`] locks a scan of the
//! list is the fastest index; beyond that a map from name to position is kept beside it.
//!
//! Only the transaction's own thread sees this list, so it needs no lock itself. The list and the map
//! go back to the pool with their capacity, cut down when a transaction was unusually large.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{LockMode, LockName};

/// Locks up to which the list is scanned rather than indexed.
const SCAN_MAX: usize = 12;
/// Capacity kept from one transaction to the next.
const KEPT_MAX: usize = 1024;

/// Names and modes held.
#[derive(Debug, Default)]
pub(crate) struct HeldLocks {
    list: Vec<(LockName, LockMode)>,
    /// Position in `list` of every name; filled only while the list is longer than [`SCAN_MAX`].
    index: HashMap<LockName, usize, FixedState>,
}

impl HeldLocks {
    /// Mode held on `name`.
    pub(crate) fn get(&self, name: LockName) -> Option<LockMode> {
        self.position(name).map(|at| self.list[at].1)
    }

    /// Notes that `name` is now held in `mode`, newly or converted.
    pub(crate) fn set(&mut self, name: LockName, mode: LockMode) {
        if let Some(at) = self.position(name) {
            self.list[at].1 = mode;
            return;
        }
        self.list.push((name, mode));
        if self.list.len() == SCAN_MAX + 1 {
            self.index.extend(self.list.iter().enumerate().map(|(at, (name, _))| (*name, at)));
        } else if self.list.len() > SCAN_MAX {
            self.index.insert(name, self.list.len() - 1);
        }
    }

    /// Forgets `name`; whether it was held.
    pub(crate) fn remove(&mut self, name: LockName) -> bool {
        let Some(at) = self.position(name) else { return false };
        self.list.swap_remove(at);
        if self.list.len() == SCAN_MAX {
            self.index.clear();
        } else if self.list.len() > SCAN_MAX {
            self.index.remove(&name);
            if let Some((moved, _)) = self.list.get(at) {
                self.index.insert(*moved, at);
            }
        }
        true
    }

    /// Takes all locks off, the last taken first.
    pub(crate) fn take_all(&mut self, mut each: impl FnMut(LockName)) {
        while let Some((name, _)) = self.list.pop() {
            each(name);
        }
        self.list.shrink_to(KEPT_MAX);
        self.index.clear();
        self.index.shrink_to(KEPT_MAX);
    }

    fn position(&self, name: LockName) -> Option<usize> {
        if self.list.len() > SCAN_MAX {
            return self.index.get(&name).copied();
        }
        // From the back: what was locked last is asked for most.
        self.list.iter().rposition(|(held, _)| *held == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain map, across the border between scanning and indexing in both directions.
    #[test]
    fn it_behaves_like_a_map() {
        let mut held = HeldLocks::default();
        let mut model = std::collections::BTreeMap::new();
        let mut state = 7_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let name = LockName::Tree((state >> 33) % 40);
            let mode = if state >> 63 == 0 { LockMode::S } else { LockMode::X };
            if (state >> 50) % 40 < model.len() as u64 {
                assert_eq!(held.remove(name), model.remove(&name).is_some());
            } else {
                held.set(name, mode);
                model.insert(name, mode);
            }
            assert_eq!(held.get(name), model.get(&name).copied());
            assert_eq!(held.list.len(), model.len());
        }
        assert!(model.iter().all(|(name, mode)| held.get(*name) == Some(*mode)));
        let mut released = Vec::new();
        held.take_all(|name| released.push(name));
        released.sort_unstable();
        assert_eq!(released, model.keys().copied().collect::<Vec<_>>());
        assert_eq!(held.get(released[0]), None);
    }
}
