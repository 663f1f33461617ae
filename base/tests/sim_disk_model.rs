//! Property: whatever was done to a file, a crash image holds per sector a version it could hold.
//!
//! A second, naive model keeps for every sector all contents it has had since the last sync. It
//! allows more than the disk does (it knows nothing of order between sectors), so it is the upper
//! bound; that the bound is reached is shown by the golden tests.
#![cfg(not(feature = "shuttle"))]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use argali_base::disk::{Disk, File, Loss, OpenMode, SECTOR, SimDisk};
use proptest::prelude::*;

const SPACE: usize = 24 * SECTOR;

#[derive(Clone, Debug)]
enum Step {
    Write { offset: usize, len: usize, byte: u8 },
    SetLen(usize),
    Sync,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SPACE, 0..6 * SECTOR, 1_u8..).prop_map(|(offset, len, byte)| Step::Write {
            offset,
            len: len.min(SPACE - offset),
            byte,
        }),
        2 => (0..SPACE).prop_map(Step::SetLen),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::LoseAll),
        Just(Loss::KeepAll),
        any::<u64>().prop_map(Loss::Random),
        any::<u64>().prop_map(Loss::TornLast),
        any::<usize>().prop_map(Loss::DropOne),
        any::<usize>().prop_map(Loss::OnlyOne),
    ]
}

/// What the file may be after a crash.
struct Model {
    bytes: Vec<u8>,
    len: usize,
    synced: (Vec<u8>, usize),
    sectors: Vec<BTreeSet<Vec<u8>>>,
    lens: BTreeSet<usize>,
}

impl Model {
    fn new() -> Self {
        let bytes = vec![0; SPACE];
        let mut model = Self {
            synced: (bytes.clone(), 0),
            bytes,
            len: 0,
            sectors: Vec::new(),
            lens: BTreeSet::new(),
        };
        model.sync();
        model
    }

    fn sync(&mut self) {
        self.synced = (self.bytes.clone(), self.len);
        self.sectors = self.bytes.chunks(SECTOR).map(|s| BTreeSet::from([s.to_vec()])).collect();
        self.lens = BTreeSet::from([self.len]);
    }

    /// Called after each change.
    fn remember(&mut self) {
        self.lens.insert(self.len);
        for (versions, sector) in self.sectors.iter_mut().zip(self.bytes.chunks(SECTOR)) {
            versions.insert(sector.to_vec());
        }
    }

    fn check(&self, image: &[u8]) -> Result<(), TestCaseError> {
        prop_assert!(self.lens.contains(&image.len()), "length {} never was", image.len());
        for (i, found) in image.chunks(SECTOR).enumerate() {
            // The last sector of the image may be cut, and a cut may have zeroed a tail: compare up to
            // each length the file has had, and zeros behind it.
            let cuts = self.lens.iter().map(|len| len.saturating_sub(i * SECTOR).min(SECTOR));
            let fits = cuts.chain([SECTOR]).any(|cut| {
                let versions = &mut self.sectors[i].iter();
                versions.any(|version| {
                    let kept = cut.min(found.len());
                    found[..kept] == version[..kept] && found[kept..].iter().all(|byte| *byte == 0)
                })
            });
            prop_assert!(fits, "sector {i} never was {found:?}");
        }
        Ok(())
    }
}

fn read(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open("f", OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn apply(model: &mut Model, disk: &mut SimDisk, file: &mut Arc<dyn File>, step: &Step) {
    match *step {
        Step::Write { offset, len, byte } => {
            file.write_all_at(&vec![byte; len], offset as u64).unwrap();
            model.bytes[offset..offset + len].fill(byte);
            if len > 0 {
                model.len = model.len.max(offset + len);
            }
            model.remember();
        }
        Step::SetLen(len) => {
            file.set_len(len as u64).unwrap();
            model.bytes[len..].fill(0);
            model.len = len;
            model.remember();
        }
        Step::Sync => {
            file.sync().unwrap();
            model.sync();
        }
        Step::Kill => {
            *disk = disk.process_kill();
            *file = disk.open("f", OpenMode::Existing).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_crash_image_holds_only_versions_that_were_written(
        steps in prop::collection::vec(step(), 0..30),
        losses in prop::collection::vec(loss(), 8),
        seed: u64,
    ) {
        let mut disk = SimDisk::new(seed);
        let mut file = disk.open("f", OpenMode::Create).unwrap();
        disk.sync_dir("").unwrap();
        let mut model = Model::new();
        for step in &steps {
            apply(&mut model, &mut disk, &mut file, step);
        }
        prop_assert_eq!(&read(&disk), &model.bytes[..model.len], "what programs read");
        let synced = &model.synced.0[..model.synced.1];
        prop_assert_eq!(&read(&disk.power_cut(Loss::LoseAll)), synced);
        prop_assert_eq!(&read(&disk.power_cut(Loss::KeepAll)), &model.bytes[..model.len]);
        for loss in losses {
            let image = disk.power_cut(loss);
            model.check(&read(&image))?;
            prop_assert_eq!(read(&image.power_cut(Loss::LoseAll)), read(&image), "it is durable now");
        }
    }
}
