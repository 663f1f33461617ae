//! Sequences: numbers that no two committed transactions ever get both.
//!
//! ```text
//!  on disk    a tree with the one row "state":
//!             start i64 │ step i64 │ cache u32 │ used u64      numbers reserved so far
//!  in memory  a block: the next number, how many are left, the LSN of their reservation
//!
//!  next       block empty? ─► system transaction: used += cache         (commits, not forced)
//!             one number off the block; whoever gets it depends on that LSN
//! ```
//!
//! Nobody forces the log for a number. The log is in order, and the reservation stands in it before the number
//! is given out; so whatever commit becomes durable, the reservation is durable before it, and after a crash no
//! number of that block is given out again. A number is nobody's before the commit returns: told to the world
//! earlier, it may be given to somebody else after a crash.
//!
//! There are gaps: an abort gives no number back, a crash or a shutdown loses the rest of the block. In return
//! nobody waits for anybody's transaction: users of a sequence share a lock that only dropping it excludes.
//!
//! It is a tree to everybody else: created, dropped, renamed, freed and checked like one. Left out: setting a
//! sequence back, cycles, and bounds other than those of `i64`.

use std::fmt;

use argali_access::{BTree, Space};
use argali_base::codec::{Reader, Writer};
use argali_base::sync::{Arc, Mutex};
use argali_base::{Error, Lsn, Result};
use argali_txn::{Durability, Txn, TxnManager};

use crate::handle::Handle;
use crate::write::Write;

/// Key of the one row.
const ROW: &[u8] = b"state";

/// Which numbers a sequence gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceOptions {
    /// The first number. Default 1.
    pub start: i64,
    /// From one number to the next; not 0. Default 1. The sequence ends where `i64` does.
    pub step: i64,
    /// Numbers reserved at a time, at least 1: what a crash may lose, and how many numbers share a log record.
    /// Default 64.
    pub cache: u32,
}

impl Default for SequenceOptions {
    fn default() -> Self {
        Self { start: 1, step: 1, cache: 64 }
    }
}

impl SequenceOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |why: &str| Err(Error::Invalid { what: "sequence", why: why.to_owned() });
        match (self.step, self.cache) {
            (0, _) => invalid("a step of 0 gives one number again and again"),
            (_, 0) => invalid("a cache of 0 reserves nothing"),
            _ => Ok(()),
        }
    }
}

/// A named sequence. No lifetime; outlives transactions; `NotFound` once it is dropped.
#[derive(Clone)]
pub struct Sequence {
    handle: Handle,
    btree: BTree,
    txns: Arc<TxnManager>,
    block: Arc<Mutex<Block>>,
}

/// Numbers reserved and not given out yet; shared by all handles of one sequence.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Meaningless when none is left. Wider than the numbers: behind the last one there may be no other.
    next: i128,
    left: u64,
    step: i64,
    /// Commit LSN of the reservation.
    reserved: Lsn,
}

/// The row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    options: SequenceOptions,
    /// Numbers reserved so far.
    used: u64,
}

impl Sequence {
    pub(crate) fn new(
        handle: Handle,
        (space, txns): (&Arc<Space>, &Arc<TxnManager>),
        block: Arc<Mutex<Block>>,
    ) -> Self {
        let btree = BTree::open(space, handle.root());
        Self { handle, btree, txns: Arc::clone(txns), block }
    }

    /// The name it has.
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// A number that no committed transaction has got or will get. An abort does not give it back.
    ///
    /// # Errors
    /// [`Error::Exhausted`] behind the last number that `i64` has room for.
    pub fn next(&self, tx: &Write) -> Result<i64> {
        tx.session().write(&self.handle, |txn| {
            let mut block = self.block.lock();
            if block.left == 0 {
                *block = self.reserve()?;
            }
            let value = i64::try_from(block.next).expect("only numbers within i64 are reserved");
            block.left -= 1;
            block.next += i128::from(block.step);
            txn.depend_on(block.reserved);
            Ok(value)
        })
    }

    /// Writes the row of a sequence just made; does nothing if there is one.
    pub(crate) fn initialise(&self, txn: &mut Txn, options: SequenceOptions) -> Result<()> {
        if !self.btree.get(txn, ROW, &mut Vec::new())? {
            self.btree.put(txn, ROW, &State { options, used: 0 }.encode())?;
        }
        Ok(())
    }

    /// The next block. A nested top action in all but name: its own transaction, which nobody takes back.
    fn reserve(&self) -> Result<Block> {
        let mut system = self.txns.begin_system()?;
        let State { options, used } = State::read(&self.btree, &mut system)?;
        let grant = u64::from(options.cache).min(options.numbers() - used);
        if grant == 0 {
            let last = i64::try_from(options.nth(used - 1)).expect("as above");
            return Err(Error::Exhausted { name: self.name().to_owned(), last });
        }
        self.btree.put(&mut system, ROW, &State { options, used: used + grant }.encode())?;
        let reserved = system.commit(Durability::Relaxed)?;
        Ok(Block { next: options.nth(used), left: grant, step: options.step, reserved })
    }
}

impl SequenceOptions {
    /// The number at position `n`, from 0.
    fn nth(&self, n: u64) -> i128 {
        i128::from(self.start) + i128::from(n) * i128::from(self.step)
    }

    /// How many numbers there are. (All of `i64` would be one more than `u64` counts; the last one is left out.)
    fn numbers(&self) -> u64 {
        let room = if self.step > 0 {
            i128::from(i64::MAX) - i128::from(self.start)
        } else {
            i128::from(self.start) - i128::from(i64::MIN)
        };
        let count = room / i128::from(self.step).abs() + 1;
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

/// Checks the row of the sequence whose tree is `btree`.
pub(crate) fn verify(btree: &BTree, txn: &mut Txn) -> Result<()> {
    State::read(btree, txn).map(drop)
}

impl State {
    fn read(btree: &BTree, txn: &mut Txn) -> Result<Self> {
        let mut row = Vec::new();
        btree.get(txn, ROW, &mut row)?;
        Self::decode(&row).ok_or_else(|| {
            let what =
                format!("the state of the sequence at {} makes no sense: {row:02x?}", btree.root());
            Error::corrupt("data", 0, None, what)
        })
    }

    fn encode(self) -> Vec<u8> {
        let mut row = Vec::with_capacity(28);
        row.put_u64(self.options.start.cast_unsigned());
        row.put_u64(self.options.step.cast_unsigned());
        row.put_u32(self.options.cache);
        row.put_u64(self.used);
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(row);
        let (start, step) = (fields.u64()?.cast_signed(), fields.u64()?.cast_signed());
        let options = SequenceOptions { start, step, cache: fields.u32()? };
        let used = fields.u64()?;
        options.check().ok()?;
        (fields.is_empty() && used <= options.numbers()).then_some(Self { options, used })
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequence({:?} at {})", self.name(), self.handle.root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(start: i64, step: i64) -> SequenceOptions {
        SequenceOptions { start, step, cache: 3 }
    }

    #[test]
    fn numbers_end_where_i64_does() {
        assert_eq!(options(i64::MAX, 1).numbers(), 1);
        assert_eq!(options(i64::MAX - 5, 2).numbers(), 3);
        assert_eq!(options(i64::MIN + 1, -1).numbers(), 2);
        assert_eq!(options(i64::MIN, i64::MIN).numbers(), 1);
        assert_eq!(options(i64::MAX, i64::MIN).numbers(), 2);
        assert_eq!(options(i64::MIN, 1).numbers(), u64::MAX);
        for (start, step) in [(1, 1), (i64::MAX - 5, 2), (i64::MAX, i64::MIN), (i64::MIN, 1)] {
            let all = options(start, step);
            let last = all.nth(all.numbers() - 1);
            assert!(i64::try_from(last).is_ok(), "{all:?} ends with {last}");
        }
    }

    #[test]
    fn rows_round_trip_and_reject_everything_else() {
        let state = State { options: options(-7, 2), used: 9 };
        let row = state.encode();
        assert_eq!(row.len(), 28);
        assert_eq!((row[0], row[8], row[16], row[20]), (0xf9, 2, 3, 9));
        assert_eq!(State::decode(&row), Some(state));
        let mut no_step = row.clone();
        no_step[8] = 0;
        let mut overdrawn = State { options: options(i64::MAX, 1), used: 1 }.encode();
        overdrawn[20] = 2;
        for bad in [&row[..27], &[], &no_step, &overdrawn, &[&row[..], &[0]].concat()] {
            assert_eq!(State::decode(bad), None, "{bad:?}");
        }
    }
}
