//! The locks of one transaction, in the order it took them.
//!
//! It answers "do I hold this already?" without touching the shared table: a transaction takes its
//! intention locks once and finds them here for every later key. Up to [`SCAN_MAX`] locks a scan of the
//! list is the fastest index; beyond that positions are kept beside it, by hash of the name:
//!
//! ```text
//!  list    │ tree 7 │ key a │ key b │ key c │ …
//!  places  │ · │ 3 │ · │ 1 │ 4 │ · │ · │ 2 │     position + 1, · free; probed from the hash on to the right
//! ```
//!
//! Only the transaction's own thread sees this list, so it needs no lock itself. Both go back to the pool with
//! their capacity, cut down when a transaction was unusually large.
//!
//! The entry of a tree counts the locks on keys below it, so that a transaction sees when it would be better
//! off with one lock on the tree.
//!
//! The vote of a prepared transaction carries the list, so that a restart can take the locks again:
//!
//! ```text
//!  0  1  name    0 database · 1 tree · 2 key · 3 end of a tree
//!  1  1  mode    0 IS · 1 IX · 2 S · 3 SIX · 4 X; of a key or an end 16 + 4 × key mode + gap mode
//!                key mode  0 none · 1 S · 2 X        gap mode  0 none · 1 S · 2 insert · 3 X
//!  2  8  tree: its root page (0: none)
//! 10  8  hash of the key (0: none); `access` pins which hash that is
//! ```

use argali_base::codec::{Reader, Writer};

use super::{Gap, KeyMode, LockMode, LockName};

/// Locks up to which the list is scanned rather than indexed.
const SCAN_MAX: usize = 12;
/// Capacity kept from one transaction to the next.
const KEPT_MAX: usize = 1024;

/// One lock.
#[derive(Debug)]
struct Held {
    name: LockName,
    mode: LockMode,
    /// Of a tree: locks taken on its keys and its end, and not given back, since the last
    /// [`HeldLocks::recount`].
    below: usize,
}

/// Names and modes held.
#[derive(Debug, Default)]
pub(crate) struct HeldLocks {
    list: Vec<Held>,
    /// Where the lock on a tree that was taken last stands, unless the list changed since: all locks on its
    /// keys ask for it.
    last_tree: usize,
    /// Filled only while the list is longer than [`SCAN_MAX`].
    index: Index,
}

/// Where each name of a list stands in it. Half of the places at least are free.
#[derive(Debug, Default)]
struct Index {
    places: Vec<u32>,
}

impl Index {
    /// The place where a search for `name` begins.
    #[inline]
    fn home(&self, name: LockName) -> usize {
        // The upper bits are spread best.
        ((name.spread() >> 32) as usize * self.places.len()) >> 32
    }

    #[inline]
    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    /// Position of `name` in `list`.
    #[inline]
    fn find(&self, list: &[Held], name: LockName) -> Option<usize> {
        let mut place = self.home(name);
        loop {
            let at = self.places[place].checked_sub(1)? as usize;
            if list[at].name == name {
                return Some(at);
            }
            place = self.next(place);
        }
    }

    /// Adds the last of `list`.
    #[inline]
    fn add(&mut self, list: &[Held]) {
        if self.places.len() < 2 * list.len() {
            return self.fill(list);
        }
        self.put(list, list.len() - 1);
    }

    #[inline]
    fn put(&mut self, list: &[Held], at: usize) {
        let mut place = self.home(list[at].name);
        while self.places[place] != 0 {
            place = self.next(place);
        }
        self.places[place] = u32::try_from(at + 1).expect("fewer locks than would fill the memory");
    }

    /// Anew, with room to grow.
    fn fill(&mut self, list: &[Held]) {
        self.places.clear();
        self.places.resize((4 * list.len()).next_power_of_two(), 0);
        (0..list.len()).for_each(|at| self.put(list, at));
    }

    /// Forgets the name at `at`, whose position the last of `list` is about to take.
    fn remove(&mut self, list: &[Held], at: usize) {
        let mut free = self.place_of(list, at);
        let mut place = self.next(free);
        while let Some(other) = self.places[place].checked_sub(1) {
            // Whoever is searched for by way of the free place moves there.
            let home = self.home(list[other as usize].name);
            if self.steps(home, place) >= self.steps(free, place) {
                self.places[free] = self.places[place];
                free = place;
            }
            place = self.next(place);
        }
        self.places[free] = 0;
        let last = list.len() - 1;
        if at != last {
            let moved = self.place_of(list, last);
            self.places[moved] = at as u32 + 1;
        }
    }

    /// The place of the name at `at`.
    fn place_of(&self, list: &[Held], at: usize) -> usize {
        let mut place = self.home(list[at].name);
        while self.places[place] as usize != at + 1 {
            place = self.next(place);
        }
        place
    }

    /// From one place to another, to the right.
    fn steps(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len() - 1)
    }

    fn clear(&mut self) {
        self.places.clear();
    }
}

impl HeldLocks {
    /// Mode held on `name`.
    #[inline]
    pub(crate) fn get(&self, name: LockName) -> Option<LockMode> {
        self.position(name).map(|at| self.list[at].mode)
    }

    /// Notes that `name`, which is held, is now held in `mode`.
    pub(crate) fn convert(&mut self, name: LockName, mode: LockMode) {
        let at = self.position(name).expect("a conversion is of a lock that is held");
        self.list[at].mode = mode;
    }

    /// Notes that `name`, which was not held, is now held in `mode`.
    #[inline]
    pub(crate) fn add(&mut self, name: LockName, mode: LockMode) {
        if let LockName::Tree(_) = name {
            self.last_tree = self.list.len();
        }
        if let Some(tree) = self.tree_above(name) {
            tree.below += 1;
        }
        self.list.push(Held { name, mode, below: 0 });
        if self.list.len() == SCAN_MAX + 1 {
            self.index.fill(&self.list);
        } else if self.list.len() > SCAN_MAX {
            self.index.add(&self.list);
        }
    }

    /// Forgets `name`; the mode it was held in.
    pub(crate) fn remove(&mut self, name: LockName) -> Option<LockMode> {
        let at = self.position(name)?;
        if let Some(tree) = self.tree_above(name) {
            tree.below = tree.below.saturating_sub(1);
        }
        if self.list.len() == SCAN_MAX + 1 {
            self.index.clear();
        } else if self.list.len() > SCAN_MAX {
            self.index.remove(&self.list, at);
        }
        Some(self.list.swap_remove(at).mode)
    }

    /// Mode held on `tree`, and [`HeldLocks::below`].
    #[inline]
    pub(crate) fn tree(&self, tree: u64) -> Option<(LockMode, usize)> {
        self.tree_position(tree).map(|at| (self.list[at].mode, self.list[at].below))
    }

    /// Locks on keys of `tree` taken since the last [`HeldLocks::recount`].
    pub(crate) fn below(&self, tree: u64) -> usize {
        self.tree(tree).map_or(0, |(_, below)| below)
    }

    /// Counts locks on keys of `tree` from 0 again.
    pub(crate) fn recount(&mut self, tree: u64) {
        if let Some(at) = self.tree_position(tree) {
            self.list[at].below = 0;
        }
    }

    /// Takes all locks on keys of `tree` and on its end off; the lock on the tree stays.
    pub(crate) fn take_below(&mut self, tree: u64, mut each: impl FnMut(LockName)) {
        self.list.retain(|held| {
            let goes = held.name.tree_above() == Some(tree);
            if goes {
                each(held.name);
            }
            !goes
        });
        self.index.clear();
        if self.list.len() > SCAN_MAX {
            self.index.fill(&self.list);
        }
        self.recount(tree);
    }

    #[inline]
    fn tree_above(&mut self, name: LockName) -> Option<&mut Held> {
        let at = self.tree_position(name.tree_above()?)?;
        Some(&mut self.list[at])
    }

    /// The locks, in the order they were taken as far as none was given back early.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (LockName, LockMode)> {
        self.list.iter().map(|held| (held.name, held.mode))
    }

    /// Takes all locks off, the last taken first.
    #[inline]
    pub(crate) fn take_all(&mut self, mut each: impl FnMut(LockName, LockMode)) {
        self.index.clear();
        while let Some(held) = self.list.pop() {
            each(held.name, held.mode);
        }
        if self.list.capacity() > KEPT_MAX {
            self.list.shrink_to(KEPT_MAX);
            self.index.places.shrink_to(4 * KEPT_MAX);
        }
    }

    #[inline]
    fn tree_position(&self, tree: u64) -> Option<usize> {
        let name = LockName::Tree(tree);
        if self.list.get(self.last_tree).is_some_and(|held| held.name == name) {
            return Some(self.last_tree);
        }
        self.position(name)
    }

    #[inline]
    fn position(&self, name: LockName) -> Option<usize> {
        if self.list.len() > SCAN_MAX {
            return self.index.find(&self.list, name);
        }
        // From the back: what was locked last is asked for most.
        self.list.iter().rposition(|held| held.name == name)
    }
}

/// Appends a lock to `out`, by the table at the head of this file.
pub(crate) fn encode(out: &mut Vec<u8>, (name, mode): (LockName, LockMode)) {
    let (kind, tree, hash) = match name {
        LockName::Database => (0, 0, 0),
        LockName::Tree(tree) => (1, tree, 0),
        LockName::Key { tree, hash } => (2, tree, hash),
        LockName::End { tree } => (3, tree, 0),
        LockName::Claims { .. } => panic!("{name} is held in the table only, and never voted"),
    };
    out.put_u8(kind);
    out.put_u8(mode_code(mode));
    out.put_u64(tree);
    out.put_u64(hash);
}

/// Reads one lock back; `None` when the bytes are none.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<(LockName, LockMode)> {
    let (kind, code, tree, hash) = (reader.u8()?, reader.u8()?, reader.u64()?, reader.u64()?);
    let name = match (kind, tree, hash) {
        (0, 0, 0) => LockName::Database,
        (1, tree, 0) => LockName::Tree(tree),
        (2, tree, hash) => LockName::Key { tree, hash },
        (3, tree, 0) => LockName::End { tree },
        _ => return None,
    };
    let of_key = matches!(name, LockName::Key { .. } | LockName::End { .. });
    let mode = mode_of(code)?;
    (of_key == matches!(mode, LockMode::Key { .. })).then_some((name, mode)) // L1
}

const PLAIN: [LockMode; 5] = [LockMode::IS, LockMode::IX, LockMode::S, LockMode::SIX, LockMode::X];
const KEYS: [KeyMode; 3] = [KeyMode::None, KeyMode::S, KeyMode::X];
const GAPS: [Gap; 4] = [Gap::None, Gap::S, Gap::Insert, Gap::X];

/// Code of the first mode of a key.
const KEY_CODE: u8 = 16;

fn mode_code(mode: LockMode) -> u8 {
    match mode {
        LockMode::IS => 0,
        LockMode::IX => 1,
        LockMode::S => 2,
        LockMode::SIX => 3,
        LockMode::X => 4,
        LockMode::Key { key, gap } => {
            let key = match key {
                KeyMode::None => 0,
                KeyMode::S => 1,
                KeyMode::X => 2,
            };
            let gap = match gap {
                Gap::None => 0,
                Gap::S => 1,
                Gap::Insert => 2,
                Gap::X => 3,
            };
            KEY_CODE + 4 * key + gap
        }
    }
}

fn mode_of(code: u8) -> Option<LockMode> {
    let Some(pair) = code.checked_sub(KEY_CODE) else {
        return PLAIN.get(usize::from(code)).copied();
    };
    let key = *KEYS.get(usize::from(pair / 4))?;
    Some(LockMode::Key { key, gap: GAPS[usize::from(pair % 4)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(held: &mut HeldLocks, name: LockName, mode: LockMode) {
        match held.get(name) {
            Some(_) => held.convert(name, mode),
            None => held.add(name, mode),
        }
    }

    #[test]
    fn locks_come_back_and_nothing_else_is_one() {
        let plain = [LockName::Database, LockName::Tree(7)].map(|name| (name, &PLAIN[..]));
        let keys = |name| KEYS.map(|key| GAPS.map(|gap| (name, LockMode::Key { key, gap })));
        let mut all: Vec<_> = plain
            .iter()
            .flat_map(|(name, modes)| modes.iter().map(move |mode| (*name, *mode)))
            .collect();
        all.extend(keys(LockName::Key { tree: 7, hash: 9 }).into_iter().flatten());
        all.extend(keys(LockName::End { tree: 7 }).into_iter().flatten());
        for lock in &all {
            let mut bytes = Vec::new();
            encode(&mut bytes, *lock);
            assert_eq!(bytes.len(), 18);
            let mut reader = Reader::new(&bytes);
            assert_eq!(decode(&mut reader), Some(*lock));
            assert!(reader.is_empty());
        }
        let known = (0..=255).flat_map(|name| (0..=255).map(move |mode| [name, mode]));
        let decoded = known.filter(|head| {
            let bytes = [&head[..], &[0; 16]].concat();
            decode(&mut Reader::new(&bytes)).is_some()
        });
        assert_eq!(decoded.count(), all.len());
        assert_eq!(decode(&mut Reader::new(&[1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1])), None);
    }

    #[test]
    fn a_tree_counts_its_keys_and_can_be_rid_of_them() {
        let key = |tree, hash| LockName::Key { tree, hash };
        let mut held = HeldLocks::default();
        set(&mut held, key(1, 0), LockMode::S);
        set(&mut held, LockName::Tree(1), LockMode::IX);
        set(&mut held, LockName::Tree(2), LockMode::IX);
        assert_eq!(held.below(1), 0, "locked before its tree was");
        for hash in 1..=20 {
            set(&mut held, key(1, hash), LockMode::S);
            set(&mut held, key(1, hash), LockMode::X);
            set(&mut held, key(2, hash), LockMode::S);
        }
        set(&mut held, LockName::End { tree: 1 }, LockMode::S);
        assert_eq!(held.remove(key(1, 5)), Some(LockMode::X));
        assert_eq!((held.below(1), held.below(2), held.below(3)), (20, 20, 0));
        held.recount(2);
        set(&mut held, key(2, 99), LockMode::S);
        assert_eq!(held.below(2), 1);
        let mut taken = 0;
        held.take_below(1, |name| {
            assert_eq!(name.tree_above(), Some(1));
            taken += 1;
        });
        assert_eq!((taken, held.below(1), held.list.len()), (21, 0, 23));
        assert_eq!(held.get(LockName::Tree(1)), Some(LockMode::IX));
        assert_eq!((held.get(key(1, 3)), held.get(key(2, 3))), (None, Some(LockMode::S)));
        held.take_below(2, |_| ());
        assert_eq!(held.iter().count(), 2);
        assert_eq!(held.remove(LockName::Tree(2)), Some(LockMode::IX));
        assert_eq!(held.remove(key(2, 3)), None);
    }

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
                assert_eq!(held.remove(name), model.remove(&name));
            } else {
                set(&mut held, name, mode);
                model.insert(name, mode);
            }
            assert_eq!(held.get(name), model.get(&name).copied());
            assert_eq!(held.list.len(), model.len());
        }
        assert!(model.iter().all(|(name, mode)| held.get(*name) == Some(*mode)));
        let mut released = Vec::new();
        held.take_all(|name, _| released.push(name));
        released.sort_unstable();
        assert_eq!(released, model.keys().copied().collect::<Vec<_>>());
        assert_eq!(held.get(released[0]), None);
    }
}
