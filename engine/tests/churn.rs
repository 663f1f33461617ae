//! Rows come and go; the file stays as large as the rows that are there at one time.
//!
//! ```text
//!  up      inserted at the end, deleted at the beginning       a queue
//!  down    inserted at the beginning, deleted at the end       the same, the other way
//!  random  inserted and deleted anywhere
//! ```
//!
//! Ten million rows in all (some minutes, prints what it saw):
//!
//! ```text
//! ARGALI_ROWS=3400000 cargo test --release -p argali --test churn -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

use std::time::Instant;

use argali::{Db, Durability, Options, Result, Tree, Write};

/// Rows per transaction and tree.
const BATCH: u64 = 100;
const VALUE: [u8; 100] = [b'v'; 100];

/// Name of a tree, and the key that is the n-th to come and the n-th to go.
type Order = (&'static str, fn(u64) -> u64);

const ORDERS: [Order; 3] = [
    ("up", |n| n),
    ("down", |n| u64::MAX - n),
    // An odd factor: no two n have one key.
    ("random", |n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
];

struct Churn {
    db: Db,
    trees: Vec<(Tree, Order)>,
    /// Rows in a tree at one time.
    window: u64,
    /// Most pages the file ever had.
    most: u64,
}

impl Churn {
    fn new(options: Options, window: u64) -> Self {
        let db = options.durability(Durability::Relaxed).temporary().unwrap();
        let open = |write: &mut Write, order: Order| Ok((write.tree(order.0)?, order));
        let trees = db.update(|write| ORDERS.map(|order| open(write, order)).into_iter().collect());
        Self { db, trees: trees.unwrap(), window, most: 0 }
    }

    /// The `n`-th batch of each tree comes, and the one a window before it goes.
    fn turn(&mut self, n: u64) -> Result<()> {
        let (trees, window) = (&self.trees, self.window);
        self.db.update(|write| {
            for (tree, (_, key)) in trees {
                for row in n * BATCH..(n + 1) * BATCH {
                    write.put(tree, key(row).to_be_bytes(), VALUE)?;
                    if let Some(old) = row.checked_sub(window) {
                        assert!(write.delete(tree, key(old).to_be_bytes())?.is_some());
                    }
                }
            }
            Ok(())
        })
    }

    fn look(&mut self) -> (u64, u64) {
        let stats = self.db.stats().unwrap();
        assert_eq!(stats.background_error, None);
        self.most = self.most.max(stats.pager.pages);
        (stats.pages_in_use, stats.space.joins)
    }

    /// `rows` rows through each tree; then at most `end` pages are in use, and nothing is wrong. The file
    /// never had more than `most` pages.
    fn run(mut self, rows: u64, (end, most): (u64, u64)) {
        let begun = Instant::now();
        let turns = rows / BATCH;
        for n in 0..turns {
            self.turn(n).unwrap();
            if n % (turns / 20).max(1) == 0 {
                let (used, joins) = self.look();
                let (passed, seconds) = ((n + 1) * BATCH, begun.elapsed().as_secs());
                println!("{passed} rows, {seconds} s: {used} pages in use, {joins} joins");
            }
        }
        let (used, joins) = self.look();
        let seen = self.db.verify().unwrap();
        println!("{used} pages in use, at most {} in the file, {joins} joins; {seen:?}", self.most);
        assert!(seen.is_sound(), "{seen:?}");
        assert_eq!(seen.rows, 3 * self.window);
        assert!(used <= end, "{used} pages in use, at most {end} were to be");
        assert!(self.most <= most, "{} pages in the file, at most {most} were to be", self.most);
    }
}

/// Pages of full leaves that the windows of all trees fill.
fn full_leaves(window: u64, page: u64) -> u64 {
    // Key, value, the cell's five bytes, its slot; page header.
    let rows_per_page = (page - 64) / (8 + VALUE.len() as u64 + 5 + 8);
    3 * window / rows_per_page
}

#[test]
fn a_little_churn_leaves_a_little_file() {
    let options = Options::new().page_size(4096).cache_bytes(1 << 20).background_threads(false);
    let window = 1000;
    // Leaves in the middle of a random tree are not full, and what was deleted just now is not gone yet;
    // the file grows by many pages at a time.
    let full = full_leaves(window, 4096);
    Churn::new(options, window).run(30_000, (3 * full, 3 * full + 64));
}

#[test]
#[ignore = "minutes: the command stands in the head"]
fn much_churn_leaves_a_bounded_file() {
    let rows = std::env::var("ARGALI_ROWS").map_or(1_000_000, |text| text.parse().unwrap());
    let window = 20_000;
    let full = full_leaves(window, 8192);
    // Nobody waits for the thread that tidies; while it takes a checkpoint, dead leaves pile up.
    Churn::new(Options::new(), window).run(rows, (3 * full, 8 * full + 1024));
}
