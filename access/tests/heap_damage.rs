//! Heaps that make no sense: every operation ends, in `Corrupt` or in an answer, and `verify` lists what is
//! wrong. The damage is done through the front door, as logged operations, so checksums are right.
#![allow(clippy::unwrap_used)]

mod common;

use argali_access::{Heap, RowId, Survey};
use argali_base::{Error, PageId};
use argali_pager::{PageKind, PageOp};
use argali_txn::{Durability, Edit, Undo};
use common::{World, rows};

/// A heap with two levels of directories, and a row that has moved.
struct Victim {
    world: World,
    heap: Heap,
    ids: Vec<RowId>,
    /// The home of the row that has moved, and where it stands.
    home: RowId,
    away: RowId,
}

/// A page id and slot as a forward carries them.
fn encoded(id: RowId) -> Vec<u8> {
    [&id.page.get().to_le_bytes()[..], &id.slot.to_le_bytes()[..]].concat()
}

fn forward(to: RowId) -> &'static [u8] {
    Box::leak([&[2][..], &encoded(to)].concat().into_boxed_slice())
}

fn patch(at: RowId, bytes: &'static [u8]) -> Vec<PageOp<'static>> {
    vec![PageOp::Patch { slot: at.slot, at: 0, bytes }]
}

impl Victim {
    fn new() -> Self {
        let world = World::new();
        let heap = world.heap();
        let mut txn = world.begin();
        let ids: Vec<_> = (0..250).map(|_| heap.insert(&mut txn, &[1; 3000]).unwrap()).collect();
        let (home, small) = (ids[100], heap.insert(&mut txn, &[2; 200]).unwrap());
        assert_eq!(small.page, ids[249].page, "the last page has room");
        let beside = heap.insert(&mut txn, &[3; 600]).unwrap();
        let home = if beside.page == home.page { home } else { small };
        heap.update(&mut txn, home, &[4; 3500]).unwrap();
        txn.commit(Durability::Sync).unwrap();
        let read = world.pool.read(home.page).unwrap();
        let cell = read.page().cell(usize::from(home.slot)).unwrap();
        assert_eq!(cell[0], 2, "a forward");
        let page = PageId::new(u64::from_le_bytes(cell[1..9].try_into().unwrap()));
        let slot = u16::from_le_bytes(cell[9..11].try_into().unwrap());
        drop(read);
        Self { world, heap, ids, home, away: RowId { page, slot } }
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
            Ok(_) | Err(Error::NotFound { .. }) => false,
            Err(Error::Corrupt { file, offset, .. }) => {
                assert_eq!((file.as_str(), offset % 4096), ("data", 0));
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads, writes and scans all over the heap; how often it was found corrupt.
    fn use_it(&self) -> usize {
        let mut txn = self.world.begin();
        let mut found = usize::from(Self::ends(rows(&self.heap, &mut txn)));
        for id in self.ids.iter().step_by(7).chain([&self.home, &self.away, &self.ids[0]]) {
            found += usize::from(Self::ends(self.heap.get(&mut txn, *id, &mut Vec::new())));
            found += usize::from(Self::ends(self.heap.update(&mut txn, *id, &[5; 3600])));
            found += usize::from(Self::ends(self.heap.insert(&mut txn, &[6; 2000])));
            found += usize::from(Self::ends(self.heap.delete(&mut txn, *id)));
        }
        txn.commit(Durability::Relaxed).unwrap();
        self.world.relist_anyway();
        found
    }

    fn findings(&self) -> Vec<String> {
        let mut survey = Survey::new(&self.world.pool);
        self.heap.verify(survey.of("heap")).unwrap();
        survey.into_findings().iter().map(|finding| finding.what.clone()).collect()
    }

    /// Does the damage; it must be reported, and met by those who use the heap.
    fn suffers(
        page: impl Fn(&Self) -> PageId,
        ops: impl Fn(&Self) -> Vec<PageOp<'static>>,
    ) -> Self {
        let victim = Self::new();
        assert_eq!(victim.findings(), Vec::<String>::new());
        victim.damage(page(&victim), &ops(&victim));
        assert_ne!(victim.findings(), Vec::<String>::new());
        victim
    }

    fn directory(&self, slot: usize) -> PageId {
        let read = self.world.pool.read(self.heap.root()).unwrap();
        PageId::new(u64::from_le_bytes(read.page().cell(slot).unwrap()[1..9].try_into().unwrap()))
    }
}

trait Anyway {
    fn relist_anyway(&self);
}

impl Anyway for World {
    /// As [`World::relist`], on a heap that may be damaged.
    fn relist_anyway(&self) {
        while let Ok(true) = Heap::relist_step(&self.space, &self.txns) {}
    }
}

#[test]
fn forwards_to_nowhere_to_other_rows_and_in_circles() {
    let never = |_: &Victim| RowId { page: PageId::new(1 << 40), slot: 0 };
    let targets: [fn(&Victim) -> RowId; 7] = [
        never,
        |v| v.home,
        |v| v.ids[3],
        |v| RowId { slot: 77, ..v.away },
        |v| RowId { page: v.heap.root(), slot: 0 },
        |_| RowId { page: PageId::new(0), slot: 0 },
        |_| RowId { page: PageId::new(600), slot: 0 },
    ];
    for (n, target) in targets.into_iter().enumerate() {
        let victim = Victim::suffers(|v| v.home.page, |v| patch(v.home, forward(target(v))));
        let mut txn = victim.world.begin();
        let error = victim.heap.get(&mut txn, victim.home, &mut Vec::new()).unwrap_err();
        assert!(error.is_corruption(), "target {n}: {error}");
        drop(txn);
        assert!(victim.use_it() > 0, "target {n}");
    }
}

/// Two forwards that lead to each other: one hop, and the second is no row.
#[test]
fn forwards_that_lead_to_each_other() {
    let victim = Victim::new();
    let (a, b) = (victim.ids[5], victim.ids[6]);
    victim.damage(a.page, &patch(a, forward(b)));
    victim.damage(b.page, &patch(b, forward(a)));
    assert_eq!(victim.findings().len(), 2);
    assert!(victim.use_it() > 0);
}

#[test]
fn a_moved_row_that_names_another_home() {
    let victim = Victim::suffers(
        |v| v.away.page,
        |v| {
            let bytes = Box::leak(encoded(v.ids[9]).into_boxed_slice());
            vec![PageOp::Patch { slot: v.away.slot, at: 3, bytes }]
        },
    );
    assert_eq!(victim.findings().len(), 2, "both ways: {:?}", victim.findings());
    assert!(victim.use_it() > 0);
}

#[test]
fn cells_that_are_none() {
    let bad: [&'static [u8]; 4] =
        [&[0; 4], &[9; 20], &[0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 12]];
    for cell in bad {
        let replace = |v: &Victim| vec![PageOp::Replace { slot: v.ids[7].slot, head: 0, cell }];
        let victim = Victim::suffers(|v| v.ids[7].page, replace);
        assert!(victim.use_it() > 0, "{cell:?}");
    }
}

#[test]
fn pages_of_the_wrong_kind_owner_or_number() {
    for (kind, owner) in [
        (PageKind::Leaf, None),
        (PageKind::Map, None),
        (PageKind::Directory, None),
        (PageKind::Slotted, Some(999)),
    ] {
        let format = |v: &Victim| {
            let owner = owner.unwrap_or(v.heap.root().get());
            vec![PageOp::Format { kind, level: 0, owner }]
        };
        let victim = Victim::suffers(|v| v.ids[20].page, format);
        assert!(victim.use_it() > 0, "{kind:?}");
        let victim = Victim::suffers(|v| v.directory(0), format);
        assert!(victim.use_it() > 0 || kind == PageKind::Directory, "{kind:?}");
    }
    let victim = Victim::suffers(|v| v.ids[20].page, |_| vec![PageOp::SetLink { link: u64::MAX }]);
    assert!(victim.use_it() > 0);
}

#[test]
fn directories_that_point_in_circles_and_nowhere() {
    let targets: [fn(&Victim) -> PageId; 5] = [
        |v| v.heap.root(),
        |v| v.directory(1),
        |v| v.ids[1].page,
        |_| PageId::new(1 << 40),
        |_| PageId::new(0),
    ];
    for (n, target) in targets.into_iter().enumerate() {
        let entry = |v: &Victim| {
            let bytes = Box::leak(Box::new(target(v).get().to_le_bytes()));
            vec![PageOp::Patch { slot: 0, at: 1, bytes }]
        };
        let victim = Victim::suffers(|v| v.heap.root(), entry);
        assert!(victim.use_it() > 0, "target {n} under the root");
        let victim = Victim::suffers(|v| v.directory(0), entry);
        assert!(victim.use_it() > 0, "target {n} in a directory");
    }
}

#[test]
fn entries_that_are_none() {
    let replace = |_: &Victim| vec![PageOp::Replace { slot: 3, head: 0, cell: b"short" }];
    let victim = Victim::suffers(|v| v.directory(0), replace);
    assert!(victim.use_it() > 0);
    let victim = Victim::suffers(|v| v.directory(0), |_| vec![PageOp::Truncate { slot: 9 }]);
    assert!(victim.findings()[0].contains("others behind it"), "{:?}", victim.findings());
    victim.use_it();
}
