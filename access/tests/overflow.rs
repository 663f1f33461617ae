//! Chains that make no sense: whoever follows one ends in `Corrupt`, having allocated no more than was
//! there; freeing one ends; a check lists what is wrong. The damage is done as logged operations, so
//! checksums are right.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::Unbounded;

use argali_access::{BTree, Draft, Finding, Moves, Pending, Rows, Survey};
use argali_base::{Error, PageId, Result};
use argali_pager::{PageKind, PageOp, PageRef};
use argali_txn::{Durability, Edit, Isolation, Undo};
use common::{World, get, scan, scan_back};

/// Pages of each value.
const PAGES: usize = 5;

/// A tree with a small row and two large ones, `one` and `two`.
struct Victim {
    world: World,
    tree: BTree,
    pending: Pending,
    /// Pages of the two chains.
    chains: [Vec<PageId>; 2],
}

fn value(of: u8) -> Vec<u8> {
    vec![of; PAGES * 4020 - 7]
}

impl Victim {
    fn new() -> Self {
        let world = World::new();
        let tree = world.tree();
        let pending = Pending::open(&world.space, world.tree().root());
        let mut victim = Self { world, tree, pending, chains: [Vec::new(), Vec::new()] };
        victim.write(|rows, _| rows.put(b"a small one", b"value", None).map(drop)).unwrap();
        for (key, of) in [(b"one", 1), (b"two", 2)] {
            victim
                .write(|rows, draft| {
                    for part in value(of).chunks(draft.part_bytes()) {
                        draft.append(part)?;
                    }
                    rows.put_large(key, draft, None).map(drop)
                })
                .unwrap();
        }
        victim.chains = victim.find_chains();
        victim.world.verify(&[&victim.tree, victim.pending.tree()]);
        victim
    }

    /// One transaction that writes to the tree; what it gives up is freed at once.
    fn write(&self, body: impl FnOnce(&mut Rows<'_>, &mut Draft<'_>) -> Result<()>) -> Result<()> {
        let (mut txn, mut moves) = (self.world.begin(), Moves::default());
        let mut draft = Draft::new(&self.pending, &self.world.txns);
        let mut rows = Rows::new(&mut txn, &self.tree, &self.pending, &mut moves);
        body(&mut rows, &mut draft)?;
        txn.commit(Durability::Sync)?;
        self.pending.free_later(moves.committed());
        while self.pending.step(&self.world.txns)? {}
        Ok(())
    }

    fn find_chains(&self) -> [Vec<PageId>; 2] {
        let pages = (0..60).map(PageId::new);
        let first = |id: &PageId| {
            self.look(*id, |page| {
                page.kind() == Some(PageKind::Overflow) && page.owner() == id.get()
            })
        };
        let mut chains = pages.filter(first).map(|first| {
            let next = |id: &PageId| Some(self.look(*id, |page| page.link())).filter(|id| *id != 0);
            std::iter::successors(Some(first), |id| next(id).map(PageId::new)).collect()
        });
        let found = [chains.next().unwrap(), chains.next().unwrap()];
        assert!(found.iter().all(|chain: &Vec<_>| chain.len() == PAGES), "{found:?}");
        found
    }

    fn look<T: Default>(&self, id: PageId, read: impl FnOnce(PageRef<'_>) -> T) -> T {
        self.world.pool.read(id).map_or_else(|_| T::default(), |page| read(page.page()))
    }

    fn damage(&self, page: PageId, ops: &[PageOp<'_>]) {
        let mut txn = self.world.txns.begin_system().unwrap();
        txn.admit(8192, 1).unwrap();
        let mut page = self.world.pool.write(page).unwrap();
        txn.update(&mut [Edit { page: &mut page, ops }], Undo::Never);
        drop(page);
        txn.commit(Durability::Relaxed).unwrap();
    }

    fn faults(&self) -> Vec<String> {
        let mut survey = Survey::new(&self.world.pool);
        self.tree.verify(survey.of("tree")).unwrap();
        survey.into_findings().iter().map(Finding::to_string).collect()
    }

    /// Everything that reads `one` finds the damage, nothing else suffers from it, and its row can be
    /// removed: whether the pages could then be freed.
    fn suffers(self, expected: &str) -> bool {
        let faults = self.faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:#?}");
        let is_corrupt = |result: Result<()>| match result {
            Err(Error::Corrupt { file, .. }) => assert_eq!(file, "data"),
            other => panic!("{expected}: {other:?}"),
        };
        for isolation in [Isolation::Serializable, Isolation::ReadCommitted] {
            let mut txn = self.world.begin_at(isolation);
            let counted = allocation_counter::measure(|| {
                is_corrupt(self.tree.get(&mut txn, b"one", &mut Vec::new()).map(drop));
            });
            assert!(counted.bytes_max < 4 * value(1).len() as u64, "{expected}: {counted:?}");
            is_corrupt(scan(&self.tree, &mut txn, Unbounded, Unbounded).map(drop));
            is_corrupt(scan_back(&self.tree, &mut txn, Unbounded, Unbounded).map(drop));
            let parts = self.tree.get_parts(&mut txn, b"one").map(Option::unwrap);
            is_corrupt(parts.and_then(|mut parts| {
                let mut part = vec![0];
                while !part.is_empty() {
                    parts.next(&self.world.space, &mut part)?;
                }
                Ok(())
            }));
            assert_eq!(get(&self.tree, &mut txn, b"a small one"), Some(b"value".to_vec()));
            txn.commit(Durability::Relaxed).unwrap();
        }
        let read_first = self.write(|rows, _| rows.delete(b"one", Some(&mut Vec::new())).map(drop));
        is_corrupt(read_first);
        match self.write(|rows, _| rows.delete(b"one", None).map(|found| assert!(found))) {
            Ok(()) => true,
            Err(Error::Corrupt { .. }) => false,
            Err(error) => panic!("{expected}: {error}"),
        }
    }
}

/// Links page `at` of chain `one` to what `target` says; whether the chain could be freed.
fn link(at: usize, target: impl Fn(&Victim) -> u64, expected: &str) -> bool {
    let victim = Victim::new();
    let page = victim.chains[0][at];
    victim.damage(page, &[PageOp::SetLink { link: target(&victim) }]);
    victim.suffers(expected)
}

#[test]
fn what_is_sound_is_read() {
    let victim = Victim::new();
    assert_eq!(victim.faults(), Vec::<String>::new());
    let mut txn = victim.world.begin();
    assert!(get(&victim.tree, &mut txn, b"one") == Some(value(1)));
    assert!(get(&victim.tree, &mut txn, b"two") == Some(value(2)));
    drop(txn);
    victim.write(|rows, _| rows.delete(b"one", None).map(drop)).unwrap();
    victim.world.verify(&[&victim.tree, victim.pending.tree()]);
}

/// The bytes of docs/formats.md: a change here is a change of the format.
#[test]
fn a_large_row_has_these_bytes() {
    let victim = Victim::new();
    let [first, second] = [victim.chains[0][0], victim.chains[0][1]];
    let leaf = victim.world.pool.read(victim.tree.root()).unwrap();
    let mut cell = vec![2, 3, 0, 16, 0]; // large; key and reference lengths
    cell.extend_from_slice(b"one");
    cell.extend_from_slice(&first.get().to_le_bytes());
    cell.extend_from_slice(&(value(1).len() as u64).to_le_bytes());
    assert_eq!(leaf.page().cell(1), Some(&cell[..]));
    for (index, (id, link)) in [(first, second), (second, victim.chains[0][2])].iter().enumerate() {
        let page = victim.world.pool.read(*id).unwrap();
        let bytes = page.page().bytes();
        assert_eq!((bytes[4], bytes[6]), (5, 0), "kind and level");
        assert_eq!(bytes[48..56], link.get().to_le_bytes(), "link");
        assert_eq!(bytes[56..64], first.get().to_le_bytes(), "owner");
        assert_eq!(bytes[64..72], [72, 0, 184, 15, 0, 0, 0, 0], "slot: offset 72, 4024 bytes");
        assert_eq!(bytes[72..76], (index as u32).to_le_bytes(), "index");
        assert!(bytes[76..].iter().all(|byte| *byte == 1), "the value");
    }
    drop(leaf);
    // What is given up has a row of the pending tree until its pages are free.
    let (mut txn, mut moves) = (victim.world.begin(), Moves::default());
    let mut rows = Rows::new(&mut txn, &victim.tree, &victim.pending, &mut moves);
    rows.delete(b"one", None).unwrap();
    let row = get(victim.pending.tree(), &mut txn, &first.get().to_be_bytes());
    assert_eq!(row, Some(vec![3]), "kind: overflow chain");
}

#[test]
fn chains_in_circles() {
    for (at, target) in [(4, 0), (4, 4), (2, 2), (3, 1), (1, 0)] {
        let freed = link(at, |v| v.chains[0][target].get(), "twice");
        assert!(!freed, "{at} links back to {target}");
    }
}

#[test]
fn chains_that_are_cut_or_skip_a_page() {
    assert!(link(2, |_| 0, "chain of 12060 bytes"), "a cut chain can be freed");
    link(1, |v| v.chains[0][3].get(), "is page 3 of the overflow chain");
}

#[test]
fn chains_that_lead_elsewhere() {
    link(2, |v| v.chains[1][3].get(), "no sound page of the overflow chain");
    link(4, |v| v.chains[1][0].get(), "no sound page of the overflow chain");
    link(2, |v| v.tree.root().get(), "twice");
    link(2, |v| v.pending.tree().root().get(), "no sound page of the overflow chain");
    link(2, |_| 50, "never written");
    link(2, |_| 1 << 40, "lies behind the end");
}

#[test]
fn pages_that_are_none_of_the_chain() {
    let format = |kind, owner| PageOp::Format { kind, level: 0, owner };
    let two_cells = [
        PageOp::Replace { slot: 0, head: 0, cell: &[4, 0, 0, 0, 1] },
        PageOp::Insert { slot: 1, head: 0, cell: &[5, 0, 0, 0, 1] },
    ];
    let ops: [&[PageOp<'_>]; 6] = [
        &[format(PageKind::Free, 0)],
        &[format(PageKind::Leaf, 1)],
        &[format(PageKind::Overflow, 999)],
        &[PageOp::Truncate { slot: 0 }],
        &[PageOp::Replace { slot: 0, head: 0, cell: &[2, 0, 0, 0] }],
        &[PageOp::Replace { slot: 0, head: 0, cell: &[2, 0] }],
    ];
    for ops in ops {
        for at in [0, 2] {
            let victim = Victim::new();
            victim.damage(victim.chains[0][at], ops);
            victim.suffers("no sound page of the overflow chain");
        }
    }
    let victim = Victim::new();
    victim.damage(victim.chains[0][4], &two_cells);
    victim.suffers("no sound page of the overflow chain");
}

#[test]
fn pages_that_were_swapped() {
    let victim = Victim::new();
    let cell = |at: usize| {
        let page = victim.world.pool.read(victim.chains[0][at]).unwrap();
        page.page().cell(0).unwrap().to_vec()
    };
    let (second, third) = (cell(1), cell(2));
    let replace = |cell| [PageOp::Replace { slot: 0, head: 0, cell }];
    victim.damage(victim.chains[0][1], &replace(&third[..]));
    victim.damage(victim.chains[0][2], &replace(&second[..]));
    victim.suffers("is page 2 of the overflow chain");
}

/// The length in the row, not the chain, is wrong: nothing may be allocated by it.
#[test]
fn lengths_that_are_wrong() {
    let slot = 1; // of `one`, behind the small row
    let at = 5 + 3 + 8; // cell header, key, first page
    let len = value(1).len() as u64;
    for (wrong, expected) in [
        (len - 1, "its row says"),
        (len + 1, "its row says"),
        (1 << 30, "its row says"),
        (4020, "its row says"),
        (0, "reference that is none"),
        (u64::MAX, "reference that is none"),
    ] {
        let victim = Victim::new();
        let bytes = &wrong.to_le_bytes();
        victim.damage(victim.tree.root(), &[PageOp::Patch { slot, at, bytes }]);
        victim.suffers(expected);
    }
}
