//! One reading of the log beside one pass after the other: the same pages, the same verdict, half the reading.
//!
//! ```text
//!  a crash image ─┬─► observed: end, analysis, redo, each by itself ──► pages, counts, or the error
//!                 ├─► one reading, in turn ───────────────────────────► must be the same
//!                 └─► one reading, by workers ────────────────────────► must be the same
//! ```
//!
//! Not only of whole images: of logs that were cut short, too, where pages are ahead of what is left.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod harness;

use argali_base::disk::{Call, Loss, OpenMode, SimDisk};
use argali_base::{Disk as _, Lsn, TxnId};
use argali_pager::TornPages::{self, DoubleWrite, FullPageImage};
use argali_recovery::{Event, RecoveryObserver, Silent};
use argali_txn::{Durability, TxnOptions};
use argali_wal::{Body, Changes, ControlFile, Record, UndoReserve};
use harness::campaign::{Run, Violation, run};
use harness::db::{Config, Db};
use harness::outcome::{Restarted, restart, restart_seen};
use harness::workload::{ALL, CHECKPOINTS, LOSERS, MIXED, Mix, REWRITES, STEAL, STRUCTURE};

const MODES: [TornPages; 3] = [DoubleWrite, FullPageImage, TornPages::None];
const FRAMES: [usize; 2] = [8, 64];

/// Wants every event, and so has the passes made one after the other.
struct Watching;

impl RecoveryObserver for Watching {
    fn event(&mut self, _: Event) {}
}

fn runs(mode: TornPages, seeds: u64) -> impl Iterator<Item = Run> {
    let mixes: [Mix; 7] = [MIXED, STEAL, LOSERS, STRUCTURE, CHECKPOINTS, REWRITES, ALL];
    let each = move |mix| (0..seeds).map(move |seed| (mix, seed));
    mixes.into_iter().flat_map(each).map(move |(mix, seed)| {
        run(&Config::new(mode), mix, seed).unwrap_or_else(|Violation(what)| panic!("{what}"))
    })
}

/// Without the difference between a page that is not in the table and one that is not in it yet.
fn comparable(outcome: Result<Restarted, String>) -> Result<Restarted, String> {
    outcome.map(|mut restarted| {
        let [_, _, not_dirty, before_rec_lsn, ..] = &mut restarted.counts;
        *before_rec_lsn += std::mem::take(not_dirty);
        restarted
    })
}

/// Restarts images all three ways; what observing came to.
fn compare(image: impl Fn() -> SimDisk, config: &Config, what: &str) -> Vec<Result<(), String>> {
    let each = |frames| {
        let config = Config { frames, ..config.clone() };
        let observed = comparable(restart_seen(&image(), &config, &mut Watching));
        for workers in [0, 2] {
            let config = Config { workers, ..config.clone() };
            let at_once = comparable(restart(&image(), &config));
            assert_eq!(at_once, observed, "{workers} workers, {frames} frames, {what}");
        }
        observed.map(drop)
    };
    FRAMES.into_iter().map(each).collect()
}

#[test]
fn one_reading_makes_the_same_pages() {
    for run in MODES.into_iter().flat_map(|mode| runs(mode, 3)) {
        for call in [run.calls / 3, run.calls / 2, run.calls] {
            for loss in [Loss::LoseAll, Loss::KeepAll] {
                let image = || run.disk_before(call).power_cut(loss);
                compare(image, &run.config, &format!("call {call}"));
            }
        }
    }
}

/// Zeroes the log from `end` on.
fn cut_short(image: &SimDisk, config: &Config, end: u64) {
    for name in image.list("wal").unwrap() {
        let first = u64::from_str_radix(name.trim_end_matches(".log"), 16).unwrap();
        let file = image.open(&format!("wal/{name}"), OpenMode::Existing).unwrap();
        let keep = end.saturating_sub(first).min(config.segment_bytes);
        file.write_all_at(&vec![0; (config.segment_bytes - keep) as usize], keep).unwrap();
        file.sync().unwrap();
    }
}

fn proven(image: &SimDisk) -> Lsn {
    let disk: std::sync::Arc<dyn argali_base::Disk> = std::sync::Arc::new(image.clone());
    ControlFile::open(disk, false).unwrap().get().checkpoint_end
}

/// Logs of several runs, cut short at several places behind the checkpoint.
fn for_each_cut(mut see: impl FnMut(&dyn Fn() -> SimDisk, &Config, u64)) {
    for run in MODES.into_iter().flat_map(|mode| runs(mode, 2)) {
        let whole = || run.disk_before(run.calls).power_cut(Loss::KeepAll);
        let from = proven(&whole()).get().max(Lsn::FIRST.get());
        for end in (1..6).map(|missing| from + missing * 1000) {
            let image = || {
                let image = whole();
                cut_short(&image, &run.config, end);
                image
            };
            see(&image, &run.config, end);
        }
    }
}

/// A log that was cut short is a tail, or damage: whatever it is, it is found in one reading, too. A page that is
/// ahead of what is left proves damage, though while it is met nobody knows where the log ends.
#[test]
fn a_log_cut_short_is_judged_the_same_way() {
    let (mut ahead, mut tails) = (0, 0);
    for_each_cut(|image, config, end| {
        for observed in compare(image, config, &format!("cut at {end}")) {
            match observed {
                Ok(()) => tails += 1,
                Err(error) => ahead += u32::from(error.contains("so the log reached past")),
            }
        }
    });
    assert!(ahead > 10 && tails > 10, "{ahead} logs with pages ahead of them, {tails} tails");
}

/// What looking at the newest page is for: without it, a log that lost what was durable is taken for whole.
#[test]
fn pages_ahead_of_the_log_not_looked_at() {
    let mut missed = 0;
    for_each_cut(|image, config, _| {
        let mut broken = Config { frames: 64, ..config.clone() };
        broken.broken.recovery.newest_page_ignored = true;
        let at_once = restart(&image(), &broken);
        let observed = restart_seen(&image(), &broken, &mut Watching);
        missed += u32::from(observed.is_err() && at_once.is_ok());
    });
    assert!(missed > 0, "nobody noticed that pages ahead of the log are not looked at");
}

/// Bytes of log that a restart reads before it appends anything.
fn bytes_read(image: &SimDisk, restart: impl FnOnce(&SimDisk)) -> u64 {
    image.start_trace();
    restart(image);
    let trace = image.trace();
    let own = trace.iter().take_while(|event| event.call != Call::Write || event.name != "control");
    let log = own.filter(|event| event.call == Call::Read && event.name.starts_with("wal/"));
    log.map(|event| event.len as u64).sum()
}

/// Adds to all pages in turn, a commit each. No page is written as long as all fit into the pool.
fn add(db: &Db, times: usize) {
    for nth in 0..times {
        let mut txn = db.txns.begin(TxnOptions::default()).unwrap();
        db.count(&mut txn, nth % db.config.pages, 1).unwrap();
        txn.commit(Durability::Sync).unwrap();
    }
}

fn opened(disk: &SimDisk) -> (Config, Db) {
    let config = Config { frames: 64, log_limit_bytes: 16 << 20, ..Config::new(TornPages::None) };
    Db::create(disk, &config).unwrap();
    let db = Db::open(disk, &config, &mut Silent).unwrap();
    (config, db)
}

/// Also with a pool smaller than what redo changes: it throws changed pages out, for which the log must be known
/// durable as far as it was read.
#[test]
fn the_log_behind_the_checkpoint_is_read_once() {
    let disk = SimDisk::new(1);
    let (config, db) = opened(&disk);
    add(&db, 2000);
    let image = || disk.power_cut(Loss::KeepAll);
    for frames in FRAMES {
        let config = Config { frames, ..config.clone() };
        let once = bytes_read(&image(), |image| {
            let applied = restart(image, &config).unwrap().counts[1];
            assert!(applied >= 2000, "{applied}");
        });
        let passes = bytes_read(&image(), |image| {
            drop(restart_seen(image, &config, &mut Watching).unwrap());
        });
        assert!(
            passes > once / 2 * 3,
            "{once} bytes in one reading, {passes} pass by pass, {frames}"
        );
    }
}

/// A record that does not follow its transaction's last one is met by analysis, in whichever reading.
#[test]
fn a_log_that_contradicts_itself_is_reported() {
    let disk = SimDisk::new(1);
    let (config, db) = opened(&disk);
    add(&db, 10);
    let body = Body::Compensation { changes: Changes::EMPTY, undo_next: Lsn::NONE };
    let record = Record { txn: TxnId::new(1 << 20), prev: Lsn::NONE, body };
    let mut ticket = db.wal.admit(1000, 0, &mut UndoReserve::default()).unwrap();
    let first_twice = [(); 2].map(|()| db.wal.append(&mut ticket, &record));
    drop(ticket);
    add(&db, 10);
    let image = || disk.power_cut(Loss::KeepAll);
    for observed in compare(image, &config, &format!("records at {first_twice:?}")) {
        let error = observed.unwrap_err();
        assert!(error.contains("whose last record is"), "{error}");
    }
}
