//! The bytes of a page, pinned: a change here is a change of the format and needs a new version.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::sync::Arc;

use argali_base::disk::{OpenMode, SimDisk};
use argali_base::{Disk, Health, Lsn, PageId};
use argali_pager::{
    Mutations, PageBuf, PageKind, PageOp, PageSize, Pager, PagerOptions, TornPages,
};
use argali_wal::{LogId, LogOptions, Wal};

const DATABASE: u64 = 0x1122_3344_5566_7788;

/// Lines of 16 bytes that are not all zero.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(out, "{:04x}  {}  {}", i * 16, hex[..8].join(" "), hex[8..].join(" "))
                .unwrap();
        }
    }
    out
}

#[test]
fn a_page_on_disk_has_these_bytes() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::memory());
    let options = PagerOptions {
        page_size: PageSize::new(4096).unwrap(),
        torn_pages: TornPages::None,
        database: DATABASE,
        growth_pages: 4,
        doublewrite_slots: 4,
        pages_max: 4,
        mutations: Mutations::default(),
    };
    let id = LogId { database: DATABASE, timeline: 1, branch: 0 };
    let wal = Wal::create(disk.clone(), id, LogOptions::default(), Health::new()).unwrap();
    let pager = Pager::create(disk.clone(), options, Health::new()).unwrap();
    let mut buf = PageBuf::new(pager.options().page_size);
    buf.page_mut().blank(PageId::new(3), DATABASE);
    let ops = [
        PageOp::Format { kind: PageKind::Leaf, level: 0, owner: 0x0102 },
        PageOp::Insert { slot: 0, head: 0x6b65_7932, cell: b"key2 = second" },
        PageOp::Insert { slot: 0, head: 0x6b65_7931, cell: b"key1 = first" },
        PageOp::Insert { slot: 2, head: 0, cell: b"" },
        PageOp::SetLink { link: 0x0a0b_0c0d },
        PageOp::Replace { slot: 0, head: 0x6b65_7931, cell: b"key1 = 1" },
        PageOp::Heads { skip: 3, heads: &[0, 0, 0, 0x31, 0, 0, 0, 0x32, 0, 0, 0, 0] },
    ];
    buf.page_mut().apply(&ops, Lsn::new(0x2a));
    pager.write(&mut [(PageId::new(3), buf)], wal.durable()).unwrap();
    let mut bytes = vec![0; 4096];
    disk.open("data", OpenMode::ReadOnly).unwrap().read_exact_at(&mut bytes, 3 * 4096).unwrap();
    assert_eq!(dump(&bytes), include_str!("golden/page.txt"), "the page format changed");
}

#[test]
fn operations_on_the_log_have_these_bytes() {
    let ops = [
        PageOp::Format { kind: PageKind::Inner, level: 2, owner: 7 },
        PageOp::Insert { slot: 1, head: 0x0102_0304, cell: b"ab" },
        PageOp::Remove { slot: 2 },
        PageOp::Replace { slot: 3, head: 5, cell: b"c" },
        PageOp::Patch { slot: 4, at: 6, bytes: b"d" },
        PageOp::Add { slot: 5, at: 8, delta: 9 },
        PageOp::Truncate { slot: 6 },
        PageOp::SetLink { link: 10 },
        PageOp::SetBit { index: 11, value: true },
        PageOp::Image { bytes: b"image" },
        PageOp::Heads { skip: 12, heads: b"head1234" },
    ];
    let mut out = String::new();
    for op in ops {
        let mut bytes = Vec::new();
        op.encode(&mut bytes);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "{op}\n    {}", hex.join(" ")).unwrap();
    }
    assert_eq!(out, include_str!("golden/ops.txt"), "the format of operations changed");
}
