//! `verify` goes on behind damage: every damaged page is listed, with the name of what it belongs to.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::sync::Arc;

use argali::disk::{Disk, OpenMode, SimDisk};
use argali::{Options, Silent};

const PAGE: u64 = 4096;

fn options() -> Options {
    Options::new().page_size(4096).segment_bytes(64 << 10).background_threads(false)
}

/// A clean database of two trees, and the number of its pages.
fn clean() -> (SimDisk, u64) {
    let disk = SimDisk::memory();
    let db = options().open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, &mut Silent).unwrap();
    db.update(|tx| {
        for name in ["apples", "pears"] {
            let tree = tx.tree(name)?;
            (0..80_u32).try_for_each(|n| tx.put(&tree, n.to_be_bytes(), [7; 300]).map(drop))?;
        }
        Ok(())
    })
    .unwrap();
    let pages = db.verify().unwrap().pages;
    db.close().unwrap();
    (disk, pages)
}

fn spoil(disk: &SimDisk, page: u64) {
    let file = disk.open("data", OpenMode::Existing).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, page * PAGE + 2000).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], page * PAGE + 2000).unwrap();
}

#[test]
fn each_of_many_damaged_pages_is_listed_once_by_its_offset() {
    let (disk, pages) = clean();
    // Every third page; the roots stay, so that everything can be reached.
    let spoiled: Vec<u64> = (5..pages).step_by(3).collect();
    for page in &spoiled {
        spoil(&disk, *page);
    }
    let db = options().open_read_only_on(Arc::new(disk)).unwrap();
    let seen = db.verify().unwrap();
    let mut offsets: Vec<u64> = seen.findings.iter().map(|finding| finding.offset).collect();
    offsets.sort_unstable();
    let expected: Vec<u64> = spoiled.iter().map(|page| page * PAGE).collect();
    assert!(expected.len() > 5, "{pages} pages");
    assert_eq!(offsets, expected, "{:#?}", seen.findings);
    for finding in &seen.findings {
        let text = finding.to_string();
        assert!(text.contains("checksum") && text.starts_with("data at offset"), "{text}");
        assert!(finding.owner == "tree \"apples\"" || finding.owner == "tree \"pears\"", "{text}");
    }
}
