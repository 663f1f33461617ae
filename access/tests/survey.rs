//! The check of everything finds what is wrong *between* things: pages of two owners, of none, bits that
//! disagree. The damage is done as logged operations, so checksums are right.
#![allow(clippy::unwrap_used)]

mod common;

use argali_access::{BTree, Survey};
use argali_base::PageId;
use argali_pager::{PageKind, PageOp};
use argali_txn::{Durability, Edit, Undo};
use common::{World, key};

/// Two trees of some leaves each.
struct Victim {
    world: World,
    trees: [BTree; 2],
}

impl Victim {
    fn new() -> Self {
        let world = World::new();
        let trees = [world.tree(), world.tree()];
        let mut txn = world.begin();
        for n in 0..60 {
            for tree in &trees {
                tree.put(&mut txn, &key(n), &[1; 500]).unwrap();
            }
        }
        txn.commit(Durability::Sync).unwrap();
        let victim = Self { world, trees };
        assert_eq!(victim.findings(), Vec::<String>::new());
        victim
    }

    fn damage(&self, page: PageId, op: PageOp<'_>) {
        let mut txn = self.world.txns.begin_system().unwrap();
        txn.admit(8192, 1).unwrap();
        let mut page = self.world.pool.write(page).unwrap();
        txn.update(&mut [Edit { page: &mut page, ops: &[op] }], Undo::Never);
        drop(page);
        txn.commit(Durability::Relaxed).unwrap();
    }

    fn leaf(&self, tree: usize, slot: usize) -> PageId {
        let read = self.world.pool.read(self.trees[tree].root()).unwrap();
        let cell = read.page().cell(slot).unwrap();
        PageId::new(u64::from_le_bytes(cell[..8].try_into().unwrap()))
    }

    /// `owner: what` of each finding; all stand in the data file.
    fn findings(&self) -> Vec<String> {
        let mut survey = Survey::new(&self.world.pool);
        for (name, tree) in ["a", "b"].iter().zip(&self.trees) {
            tree.verify(survey.of(*name)).unwrap();
        }
        self.world.space.verify(&mut survey, &mut |_| ()).unwrap();
        let findings = survey.into_findings();
        let shown = findings.iter().map(|f| {
            assert_eq!((f.file.as_str(), f.offset % 4096), ("data", 0));
            format!("{}: {}", f.owner, f.what)
        });
        shown.collect()
    }
}

fn bit(page: PageId, value: bool) -> PageOp<'static> {
    PageOp::SetBit { index: page.get() as u32, value }
}

#[test]
fn a_page_of_two_trees_is_named_with_both() {
    let victim = Victim::new();
    let (mine, theirs) = (victim.leaf(0, 1), victim.leaf(1, 1));
    let bytes = mine.get().to_le_bytes();
    victim.damage(victim.trees[1].root(), PageOp::Patch { slot: 1, at: 0, bytes: &bytes });
    let findings = victim.findings();
    assert!(findings.contains(&format!("b: {mine} belongs to a, too")), "{findings:#?}");
    let lost = format!("allocation map: {theirs} is marked used, but belongs to nothing");
    assert!(findings.iter().any(|f| f.starts_with(&lost)), "{findings:#?}");
}

#[test]
fn bits_that_disagree_with_the_trees_are_named_with_the_page() {
    let victim = Victim::new();
    let leaf = victim.leaf(0, 2);
    victim.damage(PageId::new(0), bit(leaf, false));
    victim.damage(PageId::new(0), bit(PageId::new(60), true));
    let expected = [
        format!("allocation map: {leaf} is marked free, but belongs to a"),
        "allocation map: something points to p60, which was never written".to_owned(),
        "allocation map: p60 is marked used, but belongs to nothing".to_owned(),
    ];
    assert_eq!(victim.findings(), expected);
}

#[test]
fn a_leaked_page_is_named_with_what_it_was() {
    let victim = Victim::new();
    let (root, leaf) = (victim.trees[1].root(), victim.leaf(1, 1));
    victim.damage(root, PageOp::Remove { slot: 1 });
    let leaked = format!(
        "allocation map: {leaf} is marked used, but belongs to nothing: a Leaf page of {root}, it says"
    );
    assert!(victim.findings().contains(&leaked), "{:#?}", victim.findings());
}

#[test]
fn a_damaged_map_is_one_finding_not_one_for_each_page() {
    let victim = Victim::new();
    victim.damage(PageId::new(0), PageOp::Format { kind: PageKind::Slotted, level: 0, owner: 0 });
    assert_eq!(victim.findings(), ["allocation map: p0 is not an allocation map page"]);
}

#[test]
fn a_damaged_node_hides_nothing_behind_it() {
    let victim = Victim::new();
    let (first, third) = (victim.leaf(0, 1), victim.leaf(0, 3));
    for leaf in [first, third] {
        victim.damage(leaf, PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 999 });
    }
    let expected =
        [first, third].map(|leaf| format!("a: {leaf} has kind Some(Leaf), level 0, owner p999"));
    assert_eq!(victim.findings(), expected);
}
