//! What one transaction took over and gave up, until its end decides what becomes of it.
//!
//! ```text
//!               committed        taken back (abort, savepoint)
//!  taken        is in use        is to be freed: its row stands again
//!  given        is to be freed   is in use: its row is gone again
//! ```
//!
//! Kept in memory: after a crash no transaction is left, and the rows alone decide. Only a prepared
//! transaction outlives a crash, so its vote carries them, as far as its end must act on them:
//!
//! ```text
//!  0  1  1 taken · 2 given · 3 to be freed at the end, whatever it is
//!  1  1  kind of the structure (pending.rs)
//!  2  8  its first page
//! ```

use argali_base::PageId;
use argali_base::codec::{Reader, Writer};

use super::{Kind, Structure};

/// Log of one transaction's dealings with the pending tree, in order.
#[derive(Debug, Default)]
pub struct Moves {
    moves: Vec<Move>,
    /// Taken over and taken back again by a savepoint: free at the transaction's end, whatever it is.
    orphans: Vec<Structure>,
}

const TAKEN: u8 = 1;
const GIVEN: u8 = 2;
const ORPHAN: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Move {
    Taken(Structure),
    Given(Structure),
}

impl Moves {
    pub(super) fn taken(&mut self, structure: Structure) {
        // Perhaps once more, after a first try was rolled back.
        self.orphans.retain(|orphan| *orphan != structure);
        self.moves.push(Move::Taken(structure));
    }

    pub(super) fn given(&mut self, structure: Structure) {
        self.moves.push(Move::Given(structure));
    }

    /// What was done in several steps, all of which succeeded.
    pub(crate) fn append(&mut self, done: Self) {
        self.moves.extend(done.moves);
        self.orphans.extend(done.orphans);
    }

    /// The present point, for [`Moves::take_back`].
    pub fn mark(&self) -> usize {
        self.moves.len()
    }

    /// Everything since `mark` was rolled back.
    pub fn take_back(&mut self, mark: usize) {
        let undone = self.moves.drain(mark..);
        self.orphans.extend(undone.filter_map(|step| match step {
            Move::Taken(structure) => Some(structure),
            Move::Given(_) => None,
        }));
    }

    /// Everything since `mark` stays, even if the transaction is rolled back.
    pub fn settle(&mut self, mark: usize) {
        let kept = self.moves.drain(mark..);
        self.orphans.extend(kept.filter_map(|step| match step {
            Move::Given(structure) => Some(structure),
            Move::Taken(_) => None,
        }));
    }

    /// Every structure whose row the transaction has changed and may change again.
    pub fn structures(&self) -> impl Iterator<Item = Structure> {
        let moved = self.moves.iter().map(|step| match *step {
            Move::Taken(structure) | Move::Given(structure) => structure,
        });
        moved.chain(self.orphans.iter().copied())
    }

    /// For the vote, by the table at the head of this file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |code: u8, structure: Structure| {
            out.put_u8(code);
            out.put_u8(structure.kind as u8);
            out.put_u64(structure.first.get());
        };
        for step in &self.moves {
            match *step {
                Move::Taken(structure) => put(TAKEN, structure),
                Move::Given(structure) => put(GIVEN, structure),
            }
        }
        self.orphans.iter().for_each(|structure| put(ORPHAN, *structure));
        out
    }

    /// Out of a vote; `None` when the bytes make no sense.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut this = Self::default();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let (code, kind, first) = (reader.u8()?, reader.u8()?, reader.u64()?);
            let structure = Structure { kind: Kind::from_u8(kind)?, first: PageId::new(first) };
            match code {
                TAKEN => this.taken(structure),
                GIVEN => this.given(structure),
                ORPHAN => this.orphans.push(structure),
                _ => return None,
            }
        }
        Some(this)
    }

    /// What is to be freed once the transaction has committed.
    pub fn committed(mut self) -> Vec<Structure> {
        self.orphans.extend(self.moves.drain(..).filter_map(|step| match step {
            Move::Given(structure) => Some(structure),
            Move::Taken(_) => None,
        }));
        self.orphans
    }

    /// What is to be freed once the transaction was rolled back.
    pub fn aborted(mut self) -> Vec<Structure> {
        self.take_back(0);
        self.orphans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(page: u64) -> Structure {
        Structure { kind: Kind::Tree, first: PageId::new(page) }
    }

    fn example() -> Moves {
        let mut moves = Moves::default();
        moves.taken(tree(1));
        moves.given(tree(2));
        let mark = moves.mark();
        moves.taken(tree(3));
        moves.given(tree(4));
        moves.given(tree(1));
        moves.take_back(mark);
        moves
    }

    #[test]
    fn a_commit_frees_what_was_given_and_what_a_savepoint_took_back() {
        assert_eq!(example().committed(), [tree(3), tree(2)]);
    }

    #[test]
    fn an_abort_frees_all_that_was_taken() {
        assert_eq!(example().aborted(), [tree(3), tree(1)]);
    }

    #[test]
    fn what_was_taken_again_is_freed_once() {
        let mut moves = Moves::default();
        moves.taken(tree(1));
        moves.take_back(0);
        moves.taken(tree(1));
        moves.given(tree(1));
        assert_eq!(moves.committed(), [tree(1)]);
    }

    #[test]
    fn what_was_taken_and_given_is_freed_once() {
        let mut moves = Moves::default();
        moves.taken(tree(1));
        moves.given(tree(1));
        assert_eq!(moves.committed(), [tree(1)]);
    }

    #[test]
    fn what_is_settled_survives_an_abort() {
        let mut moves = Moves::default();
        moves.taken(tree(1));
        let mark = moves.mark();
        moves.taken(tree(2));
        moves.given(tree(3));
        moves.settle(mark);
        assert_eq!(moves.aborted(), [tree(3), tree(1)]);
    }

    #[test]
    fn votes_carry_them_and_hostile_bytes_are_refused() {
        let bytes = example().encode();
        assert_eq!(bytes.len(), 30);
        assert_eq!(bytes[..10], [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        let again = || Moves::decode(&bytes).expect("just encoded");
        assert_eq!(again().committed(), example().committed());
        assert_eq!(again().aborted(), example().aborted());
        assert_eq!(again().structures().collect::<Vec<_>>(), [tree(1), tree(2), tree(3)]);
        for (at, value) in [(0, 0), (0, 4), (1, 0), (1, 255)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert!(Moves::decode(&bad).is_none(), "byte {at} = {value}");
        }
        assert!(Moves::decode(&bytes[..29]).is_none());
    }
}
