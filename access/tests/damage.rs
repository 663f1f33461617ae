//! Trees that make no sense: every operation ends, in `Corrupt` or in an answer; `verify` lists what is
//! wrong. The damage is done through the front door, as logged operations, so checksums are right.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Bound::{Excluded, Unbounded};

use argali_access::{BTree, Entry, Finding, Survey};
use argali_base::{Error, PageId};
use argali_pager::{PageKind, PageOp};
use argali_txn::{Durability, Edit, Isolation, Undo};
use common::{World, key, scan, scan_back};

/// A tree of three levels; the ids of its root, an inner node and three neighbouring leaves.
struct Victim {
    world: World,
    tree: BTree,
    inner: PageId,
    leaves: [PageId; 3],
}

fn child(world: &World, page: PageId, slot: usize) -> PageId {
    let read = world.pool.read(page).unwrap();
    let cell = read.page().cell(slot).unwrap();
    PageId::new(u64::from_le_bytes(cell[..8].try_into().unwrap()))
}

fn row(n: u64) -> Vec<u8> {
    let mut row = vec![b'k'; 300];
    row.extend_from_slice(&key(n));
    row
}

impl Victim {
    fn new() -> Self {
        let world = World::new();
        let tree = world.tree();
        let mut txn = world.begin();
        for n in 0..200 {
            tree.put(&mut txn, &row(n), &[1; 200]).unwrap();
        }
        txn.commit(Durability::Sync).unwrap();
        assert_eq!(world.verify(&[&tree])[0].depth, 3);
        let inner = child(&world, tree.root(), 0);
        let leaves = [0, 1, 2].map(|slot| child(&world, inner, slot));
        Self { world, tree, inner, leaves }
    }

    fn damage(&self, page: PageId, ops: &[PageOp<'_>]) {
        let mut txn = self.world.txns.begin_system().unwrap();
        txn.admit(8192, 1).unwrap();
        let mut page = self.world.pool.write(page).unwrap();
        txn.update(&mut [Edit { page: &mut page, ops }], Undo::Never);
        drop(page);
        txn.commit(Durability::Relaxed).unwrap();
    }

    /// Everything that may come of damage: an answer, or `Corrupt`. Never a hang or a panic.
    fn ends<T>(result: Result<T, Error>) -> bool {
        match result {
            Ok(_) => false,
            Err(Error::Corrupt { file, offset, .. }) => {
                assert_eq!((file.as_str(), offset % 4096), ("data", 0));
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads, writes and scans all over the tree; how often it was found corrupt.
    fn use_it(&self) -> usize {
        let mut txn = self.world.begin();
        let mut found = 0;
        for n in (0..200).step_by(5) {
            found += usize::from(Self::ends(self.tree.get(&mut txn, &row(n), &mut Vec::new())));
            found += usize::from(Self::ends(self.tree.put(&mut txn, &row(n), &[2; 250])));
            found += usize::from(Self::ends(self.tree.delete(&mut txn, &row(n + 1))));
            let mut between = row(n);
            between.push(b'+');
            found += usize::from(Self::ends(self.tree.put(&mut txn, &between, &[2; 600])));
        }
        found += usize::from(Self::ends(scan(&self.tree, &mut txn, Unbounded, Unbounded)));
        found += usize::from(Self::ends(scan_back(&self.tree, &mut txn, Unbounded, Unbounded)));
        for n in (0..200).step_by(9) {
            let (bound, mut entry) = (row(n), Entry::default());
            let to = Excluded(&bound[..]);
            let step = self.tree.prev(&mut txn, Unbounded, to, &mut entry);
            found += usize::from(Self::ends(step));
        }
        let mut entry = Entry::default();
        found +=
            usize::from(Self::ends(self.tree.next(&mut txn, Unbounded, Unbounded, &mut entry)));
        let failed = (0..200).filter(|n| Self::ends(self.tree.delete(&mut txn, &row(*n)))).count();
        txn.commit(Durability::Relaxed).unwrap();
        found + failed + self.tidy(failed < 200)
    }

    /// Joins what is thin by now, in spite of the damage, if there is anything that could be deleted.
    fn tidy(&self, thinned: bool) -> usize {
        let mut found = 0;
        while BTree::can_tidy(&self.world.space) {
            let mut txn = self.world.txns.begin_system().unwrap();
            found += usize::from(Self::ends(BTree::tidy_some(&self.world.space, &mut txn, 1)));
            txn.commit(Durability::Relaxed).unwrap();
        }
        assert_eq!(self.world.space.stats().joins > 0, thinned, "{:?}", self.world.space.stats());
        found
    }

    fn faults(&self) -> Vec<String> {
        let mut survey = Survey::new(&self.world.pool);
        self.tree.verify(survey.of("tree")).unwrap();
        survey.into_findings().iter().map(Finding::to_string).collect()
    }

    /// Does the damage; it must be reported, and met by somebody unless it is `quiet`.
    fn suffers(
        page: impl Fn(&Self) -> PageId,
        ops: impl Fn(&Self) -> Vec<PageOp<'static>>,
    ) -> Self {
        let victim = Self::new();
        victim.damage(page(&victim), &ops(&victim));
        assert_ne!(victim.faults(), Vec::<String>::new());
        victim
    }
}

fn leak(page: PageId) -> &'static [u8] {
    Box::leak(Box::new(page.get().to_le_bytes()))
}

fn point(slot: u16, page: PageId) -> Vec<PageOp<'static>> {
    vec![PageOp::Patch { slot, at: 0, bytes: leak(page) }]
}

#[test]
fn children_that_point_in_circles() {
    for target in [|v: &Victim| v.tree.root(), |v: &Victim| v.inner] {
        let victim = Victim::suffers(|v| v.inner, |v| point(1, target(v)));
        assert!(victim.use_it() > 0);
    }
    let victim = Victim::suffers(|v| v.tree.root(), |v| point(0, v.tree.root()));
    assert!(victim.use_it() > 0);
}

#[test]
fn children_of_the_wrong_kind_level_or_owner() {
    for (kind, level, owner) in [
        (PageKind::Leaf, 0, 999),
        (PageKind::Inner, 1, 1),
        (PageKind::Leaf, 1, 1),
        (PageKind::Map, 0, 0),
        (PageKind::Slotted, 0, 1),
        (PageKind::Inner, 200, 1),
    ] {
        let op = PageOp::Format { kind, level, owner };
        let victim = Victim::suffers(|v| v.leaves[1], |_| vec![op]);
        assert!(victim.use_it() > 0, "{op}");
    }
}

#[test]
fn children_that_were_never_written_or_do_not_exist() {
    for page in [0, 70, 1 << 30, 1 << 50] {
        let victim = Victim::suffers(|v| v.inner, |_| point(1, PageId::new(page)));
        assert!(victim.use_it() > 0, "p{page}");
    }
}

#[test]
fn a_page_with_two_parents() {
    let victim = Victim::suffers(|v| v.inner, |v| point(1, v.leaves[0]));
    victim.use_it();
    assert!(victim.faults().iter().any(|fault| fault.contains("twice")));
}

#[test]
fn links_in_circles_and_into_nowhere() {
    for link in [
        |v: &Victim| v.leaves[0],
        |v: &Victim| v.leaves[1],
        |v: &Victim| v.tree.root(),
        |_: &Victim| PageId::new(1 << 50),
    ] {
        let victim =
            Victim::suffers(|v| v.leaves[1], |v| vec![PageOp::SetLink { link: link(v).get() }]);
        assert!(victim.use_it() > 0);
    }
    let victim = Victim::suffers(|v| v.leaves[1], |_| vec![PageOp::SetLink { link: 0 }]);
    assert!(victim.faults()[0].contains("links to"), "{:?}", victim.faults());
}

#[test]
fn empty_nodes() {
    let victim = Victim::suffers(|v| v.leaves[1], |_| vec![PageOp::Truncate { slot: 0 }]);
    assert!(victim.use_it() > 0, "an empty leaf that links on");
    let victim = Victim::suffers(|v| v.inner, |_| vec![PageOp::Truncate { slot: 0 }]);
    assert!(victim.use_it() > 0);
}

#[test]
fn cells_that_are_none() {
    for cell in [&[][..], &[0], &[0, 255, 255, 255, 255, 1, 2], &[0, 9, 0, 9, 0, 1]] {
        for page in [|v: &Victim| v.leaves[0], |v: &Victim| v.inner, |v: &Victim| v.tree.root()] {
            let ops = |_: &Victim| vec![PageOp::Replace { slot: 1, head: 0x6b6b_6b6b, cell }];
            let victim = Victim::suffers(page, ops);
            victim.use_it();
        }
    }
}

#[test]
fn heads_that_lie() {
    static HEADS: [[u8; 4096]; 2] = [[0; 4096], [255; 4096]];
    for page in [|v: &Victim| v.leaves[0], |v: &Victim| v.inner] {
        for (skip, heads) in [(0, 0), (1, 1), (303, 0), (303, 1), (400, 0), (u16::MAX, 1)] {
            let count = |v: &Victim| v.world.pool.read(page(v)).unwrap().page().slot_count();
            let ops =
                |v: &Victim| vec![PageOp::Heads { skip, heads: &HEADS[heads][..4 * count(v)] }];
            Victim::suffers(page, ops).use_it();
        }
    }
}

/// Keys that do not begin alike, though the heads say so.
#[test]
fn a_prefix_that_is_none() {
    let victim = Victim::new();
    let mut cell = vec![0, 4, 0, 0, 0];
    cell.extend_from_slice(b"kkka");
    victim.damage(victim.leaves[1], &[PageOp::Replace { slot: 1, head: 0, cell: &cell }]);
    let faults = victim.faults();
    assert!(faults.iter().any(|fault| fault.contains("share the prefix")), "{faults:#?}");
    victim.use_it();
}

/// Only a backward walk follows separators again and again: they must lead to the left. Here one has a
/// head that says so, and is none.
#[test]
fn separators_in_circles() {
    let victim = Victim::new();
    let mut cell = child(&victim.world, victim.inner, 1).get().to_le_bytes().to_vec();
    cell.extend_from_slice(b"zzz");
    let head = u32::from_be_bytes(*b"aaaa");
    let cell: &'static [u8] = Box::leak(cell.into_boxed_slice());
    victim.damage(victim.inner, &[PageOp::Replace { slot: 1, head, cell }]);
    victim.damage(victim.leaves[1], &[PageOp::Truncate { slot: 0 }]);
    let mut txn = victim.world.begin_at(Isolation::ReadCommitted);
    assert!(Victim::ends(scan_back(&victim.tree, &mut txn, Unbounded, Unbounded)));
}

#[test]
fn all_faults_are_listed_not_the_first() {
    let victim = Victim::new();
    victim.damage(victim.leaves[0], &[PageOp::SetLink { link: 300 }]);
    let cell = [0, 1, 0, 0, 0, b'a'];
    victim.damage(victim.leaves[1], &[PageOp::Insert { slot: 3, head: 7, cell: &cell }]);
    victim.damage(victim.leaves[2], &[PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 9 }]);
    let faults = victim.faults();
    for expected in ["links to", "not greater", "outside the bounds", "wrong key head", "owner p9"]
    {
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:#?}");
    }
}
