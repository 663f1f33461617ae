//! What one transaction took over and gave up, until its end decides what becomes of it.
//!
//! ```text
//!               committed        taken back (abort, savepoint)
//!  taken        is in use        is to be freed: its row stands again
//!  given        is to be freed   is in use: its row is gone again
//! ```
//!
//! Kept in memory only: after a crash no transaction is left, and the rows alone decide.

use super::Structure;

/// Log of one transaction's dealings with the pending tree, in order.
#[derive(Debug, Default)]
pub struct Moves {
    moves: Vec<Move>,
    /// Taken over and taken back again by a savepoint: free at the transaction's end, whatever it is.
    orphans: Vec<Structure>,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Taken(Structure),
    Given(Structure),
}

impl Moves {
    pub(super) fn taken(&mut self, structure: Structure) {
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
    use super::super::Kind;
    use super::*;
    use argali_base::PageId;

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
    fn what_was_taken_and_given_is_freed_once() {
        let mut moves = Moves::default();
        moves.taken(tree(1));
        moves.given(tree(1));
        assert_eq!(moves.committed(), [tree(1)]);
    }
}
