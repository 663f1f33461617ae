//! Pages that come back damaged are rebuilt while the database runs, or reported; never believed.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use argali::disk::{Disk, File, Loss, OpenMode, SimDisk};
use argali::{Db, Error, Flush, Never, Options, Result, Stats, TornPages};
use crash::copies::{Counting, back_up, disk};
use crash::{State, TORN_PAGES, dump, open, options};

const PAGE: u64 = 4096;
/// All the log of a small test.
const ALL: u64 = 4 << 20;

fn data(sim: &SimDisk) -> Arc<dyn File> {
    sim.open("data", OpenMode::Existing).unwrap()
}

fn pages(sim: &SimDisk) -> u64 {
    data(sim).len().unwrap() / PAGE
}

/// What a disk may do to a page.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64),
    Zero,
    /// Another page stands there: a misdirected write.
    Misdirected,
    /// The second half is of another time.
    Torn,
}

const DAMAGES: [Damage; 5] =
    [Damage::Flip(9), Damage::Flip(2500), Damage::Zero, Damage::Misdirected, Damage::Torn];

/// `false` when the page was never written: nothing is there to be damaged.
fn spoil(sim: &SimDisk, page: u64, damage: Damage) -> bool {
    let file = data(sim);
    let mut bytes = vec![0; PAGE as usize];
    file.read_exact_at(&mut bytes, page * PAGE).unwrap();
    if bytes.iter().all(|byte| *byte == 0) {
        return false;
    }
    match damage {
        Damage::Flip(at) => bytes[at as usize] ^= 0x20,
        Damage::Zero => bytes.fill(0),
        Damage::Misdirected => {
            let other = if page == 1 { 2 } else { 1 };
            file.read_exact_at(&mut bytes, other * PAGE).unwrap();
        }
        Damage::Torn => bytes[2048..].iter_mut().for_each(|byte| *byte = byte.wrapping_add(3)),
    }
    file.write_all_at(&bytes, page * PAGE).unwrap();
    true
}

/// A clean database of a few dozen pages with a good deal of history, and what it holds.
fn worked(options: &Options, sim: &SimDisk) -> State {
    let mut client = Counting::new(open(options, sim).unwrap());
    for half in [0..60_u32, 60..120] {
        let mut write = client.db.begin().unwrap();
        let tree = write.tree("still").unwrap();
        half.for_each(|n| drop(write.put(&tree, n.to_be_bytes(), vec![7; 400]).unwrap()));
        write.commit().unwrap();
    }
    client.commits[0].1 = dump(&client.db).unwrap();
    for round in 0..4 {
        client.work(20).unwrap();
        client.db.checkpoint([Flush::Old, Flush::Everything][round % 2]).unwrap();
    }
    let state = client.state().clone();
    client.db.close().unwrap();
    state
}

fn sound(db: &Db) -> State {
    let state = dump(db).unwrap();
    let seen = db.verify().unwrap();
    assert!(seen.is_sound(), "{:#?}", seen.findings);
    state
}

fn stats(db: &Db) -> Stats {
    db.stats().unwrap()
}

#[test]
fn every_page_is_rebuilt_from_the_log_whatever_is_done_to_it() {
    for mode in TORN_PAGES.into_iter().chain([TornPages::None]) {
        let options = options().torn_pages(mode).keep_log_bytes(ALL);
        let sim = SimDisk::new(1);
        let state = worked(&options, &sim);
        let mut rebuilt = 0;
        for page in 0..pages(&sim) {
            for damage in DAMAGES {
                let image = sim.process_kill();
                if !spoil(&image, page, damage) {
                    continue;
                }
                let what = format!("{mode:?}, p{page}, {damage:?}");
                let db = open(&options, &image).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(sound(&db), state, "{what}");
                let Stats { pool, repairs, .. } = stats(&db);
                assert_eq!(pool.pages_repaired, 1, "{what}: {repairs:?}");
                assert_eq!(repairs[0].page.get(), page, "{what}");
                db.close().unwrap();
                let healed = options.clone().open_read_only_on(disk(&image)).unwrap();
                assert_eq!(sound(&healed), state, "{what}, read from the disk");
                assert_eq!(stats(&healed).pool.pages_repaired, 0, "{what}");
                rebuilt += 1;
            }
        }
        println!("{mode:?}: {rebuilt} damaged pages rebuilt");
        assert!(rebuilt > 60);
    }
}

/// All at once: each page is rebuilt by itself.
#[test]
fn all_pages_are_rebuilt_one_after_the_other() {
    let options = options().keep_log_bytes(ALL);
    let sim = SimDisk::new(1);
    let state = worked(&options, &sim);
    let spoiled = (0..pages(&sim)).filter(|page| spoil(&sim, *page, Damage::Flip(777))).count();
    let db = open(&options, &sim).unwrap();
    assert_eq!(sound(&db), state);
    assert_eq!(stats(&db).pool.pages_repaired, spoiled as u64);
    println!("{spoiled} pages");
}

/// With the log truncated some pages have no image left: those are reported, and nothing wrong is returned.
#[test]
fn without_an_image_in_the_log_a_page_is_reported() {
    for mode in TORN_PAGES {
        let (mut rebuilt, mut reported) = (0, 0);
        for keep in [0, 80 << 10, 160 << 10] {
            let options = options().torn_pages(mode).keep_log_bytes(keep);
            let sim = SimDisk::new(1);
            let state = worked(&options, &sim);
            for page in 0..pages(&sim) {
                let image = sim.process_kill();
                if !spoil(&image, page, Damage::Flip(2500)) {
                    continue;
                }
                match open(&options, &image).and_then(|db| dump(&db)) {
                    Ok(found) => {
                        assert_eq!(found, state, "{mode:?}, p{page}");
                        rebuilt += 1;
                    }
                    Err(error) => {
                        assert_out_of_reach(&error, page);
                        reported += 1;
                    }
                }
            }
        }
        println!("{mode:?}: {rebuilt} rebuilt, {reported} reported");
        assert!(rebuilt > 3 && reported > 3);
    }
}

fn assert_out_of_reach(error: &Error, page: u64) {
    let Error::Corrupt { file, offset, what, .. } = error else { panic!("p{page}: {error}") };
    assert_eq!((file.as_str(), *offset), ("data", page * PAGE));
    assert!(what.contains("the log reaches back to"), "{what}");
    assert!(what.contains("restore a backup"), "{what}");
}

/// The log since a backup and the backup rebuild what the log alone cannot.
#[test]
fn a_backup_reaches_further() {
    for mode in TORN_PAGES {
        let (sim, backup) = (SimDisk::new(1), SimDisk::new(2));
        let plain = options().torn_pages(mode);
        drop(worked(&plain, &sim));
        let kept = plain.clone().keep_log_bytes(ALL);
        let mut client = Counting::new(open(&kept, &sim).unwrap());
        client.commits[0].1 = dump(&client.db).unwrap();
        back_up(&client.db, &backup).unwrap();
        client.work(20).unwrap();
        let state = client.state().clone();
        client.db.close().unwrap();
        let helped = kept.clone().repair_from_disk(disk(&backup));
        let (mut rebuilt, mut with_backup) = (0, 0);
        for page in 0..pages(&sim) {
            let image = sim.process_kill();
            if !spoil(&image, page, Damage::Flip(2500)) {
                continue;
            }
            let db = open(&helped, &image).unwrap();
            assert_eq!(sound(&db), state, "{mode:?}, p{page}");
            let repairs = stats(&db).repairs;
            assert_eq!(repairs.len(), 1, "{repairs:?}");
            with_backup += u64::from(repairs[0].from_backup);
            rebuilt += 1;
        }
        println!("{mode:?}: {rebuilt} rebuilt, {with_backup} of them with the backup");
        assert!(with_backup > 0);
    }
}

/// Between the end of the backup and the beginning of the log anything may have happened to a page. Only a
/// record that follows what the backup has proves that nothing did.
#[test]
fn a_backup_too_old_is_not_believed() {
    let (mut reported, mut unproven) = (0, 0);
    for keep in [0, 8 << 10, 24 << 10] {
        let (sim, backup) = (SimDisk::new(1), SimDisk::new(2));
        let options = options().keep_log_bytes(keep);
        drop(worked(&options, &sim));
        let mut client = Counting::new(open(&options, &sim).unwrap());
        client.commits[0].1 = dump(&client.db).unwrap();
        back_up(&client.db, &backup).unwrap();
        for _ in 0..4 {
            client.work(40).unwrap();
            client.db.checkpoint(Flush::Everything).unwrap();
        }
        client.work(6).unwrap();
        let state = client.state().clone();
        client.db.close().unwrap();
        let helped = options.repair_from_disk(disk(&backup));
        for page in 0..pages(&sim) {
            let image = sim.process_kill();
            if !spoil(&image, page, Damage::Flip(2500)) {
                continue;
            }
            match open(&helped, &image).and_then(|db| dump(&db)) {
                Ok(found) => assert_eq!(found, state, "p{page}"),
                Err(Error::Corrupt { what, .. }) => {
                    assert!(what.contains("restore a backup"), "{what}");
                    reported += u32::from(what.contains("may have changed between"));
                    unproven += u32::from(what.contains("which is not there"));
                }
                Err(error) => panic!("p{page}: {error}"),
            }
        }
    }
    println!("{reported} without a record, {unproven} with one that does not follow");
    assert!(reported > 3 && unproven > 3);
}

#[test]
fn a_foreign_backup_is_refused() {
    let (sim, backup, target) = (SimDisk::new(1), SimDisk::new(2), SimDisk::new(3));
    let client = Counting::new(open(&options(), &sim).unwrap());
    back_up(&client.db, &backup).unwrap();
    drop(crash::copies::restore(&options(), &backup, &target).unwrap());
    let helped = options().repair_from_disk(disk(&backup));
    for (place, why) in [(&target, "timeline"), (&SimDisk::new(4), "does not exist yet")] {
        let error = open(&helped, place).unwrap_err();
        assert!(matches!(error, Error::Invalid { what: "repair_from", .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// A read-only database gives whole pages back, too, and says what is wrong on disk.
#[test]
fn reading_only_repairs_nothing_on_disk() {
    let options = options().keep_log_bytes(ALL);
    let sim = SimDisk::new(1);
    let state = worked(&options, &sim);
    for page in 0..pages(&sim) {
        let image = sim.process_kill();
        if !spoil(&image, page, Damage::Flip(2500)) {
            continue;
        }
        let db = options.clone().open_read_only_on(disk(&image)).unwrap();
        assert_eq!(dump(&db).unwrap(), state);
        let seen = db.verify().unwrap();
        let findings: Vec<_> = seen.findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 1, "p{page}: {findings:?}");
        assert!(findings[0].contains("it can be rebuilt"), "{findings:?}");
        drop(db);
        assert_eq!(image.io_count(), 1, "only the damage itself was written");
    }
}

/// Damage met by redo, on a database that was killed.
#[test]
fn a_restart_rebuilds_what_it_cannot_redo() {
    // In mode `DoubleWrite` there is nothing for redo to meet: the copy is put over the page before.
    for mode in [TornPages::FullPageImage, TornPages::None] {
        let options =
            options().torn_pages(mode).keep_log_bytes(ALL).checkpoint_policy(Arc::new(Never));
        let sim = SimDisk::new(1);
        let mut client = Counting::new(open(&options, &sim).unwrap());
        client.work(30).unwrap();
        client.db.checkpoint(Flush::Everything).unwrap();
        client.work(30).unwrap();
        let killed = sim.process_kill();
        let mut rebuilt = 0;
        for page in 0..pages(&killed) {
            for damage in [Damage::Flip(2500), Damage::Torn] {
                let image = killed.process_kill();
                if !spoil(&image, page, damage) {
                    continue;
                }
                let db = open(&options, &image).unwrap_or_else(|error| panic!("p{page}: {error}"));
                assert_eq!(&sound(&db), client.state(), "{mode:?}, p{page}, {damage:?}");
                rebuilt += stats(&db).pool.pages_repaired;
            }
        }
        println!("{mode:?}: {rebuilt} rebuilt");
        assert!(rebuilt > 4, "{mode:?}: {rebuilt}");
    }
}

/// The power goes while a repaired page is still in memory. Its place on disk is as damaged as before, and
/// what rebuilt it is kept by nothing but its place in the dirty page table: no log is kept otherwise.
#[test]
fn a_crash_after_a_repair_loses_nothing() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode).checkpoint_policy(Arc::new(Never));
        let sim = SimDisk::new(1);
        let state = worked(&options.clone().keep_log_bytes(ALL), &sim);
        let mut images = 0;
        for page in (1..pages(&sim)).step_by(3) {
            let image = sim.process_kill();
            if !spoil(&image, page, Damage::Flip(2500)) {
                continue;
            }
            let db = open(&options, &image).unwrap();
            assert_eq!(dump(&db).unwrap(), state);
            assert_eq!(stats(&db).pool.pages_repaired, 1);
            db.checkpoint(Flush::Nothing).unwrap();
            image.record_history();
            db.checkpoint(Flush::Nothing).unwrap();
            db.checkpoint(Flush::Everything).unwrap();
            drop(db);
            for n in 0.. {
                let Some(cut) = image.at(n) else { break };
                for loss in [Loss::LoseAll, Loss::Random(n as u64)] {
                    let again = open(&options, &cut.power_cut(loss));
                    let again = again.unwrap_or_else(|error| panic!("p{page} at {n}: {error}"));
                    assert_eq!(sound(&again), state, "{mode:?}, p{page}, cut at {n}, {loss:?}");
                    images += 1;
                }
            }
        }
        println!("{mode:?}: {images} images");
        assert!(images > 50);
    }
}

/// Opened again and again, each time for less log than is to be kept: no more is kept than while it stays open.
#[test]
fn short_openings_keep_no_more_log() {
    let (limit, keep, segment) = (2 << 20, 192 << 10, 64 << 10);
    let options = options().log_limit_bytes(limit).keep_log_bytes(keep);
    let sim = SimDisk::new(1);
    let (mut most, mut commits) = (0, Counting::new(open(&options, &sim).unwrap()).commits);
    for _ in 0..60 {
        let mut client = Counting { db: open(&options, &sim).unwrap(), commits };
        let before = stats(&client.db).log.tail;
        client.work(100).unwrap();
        client.db.checkpoint(Flush::Everything).unwrap();
        let log = stats(&client.db).log;
        assert!(log.tail.get() - before.get() < keep / 3, "it logged {before} to {}", log.tail);
        let kept = log.tail.get() - log.first_lsn.get();
        assert!(kept >= keep.min(before.get() - 64), "{kept} bytes kept");
        most = most.max(kept);
        client.db.close().unwrap();
        commits = client.commits;
    }
    assert!(most < keep + keep / 3 + segment, "{most} bytes kept");
}

/// So much log is kept, no less and not much more, over checkpoints and openings, and it fills nobody's log.
#[test]
fn log_is_kept_for_repair_within_bounds() {
    let (limit, keep) = (512 << 10, 192 << 10);
    let options = options().log_limit_bytes(limit).keep_log_bytes(keep);
    let sim = SimDisk::new(1);
    let mut client = Counting::new(open(&options, &sim).unwrap());
    for round in 0..10 {
        client.work(420).unwrap();
        client.db.checkpoint(Flush::Everything).unwrap();
        let log = stats(&client.db).log;
        let kept = log.tail.get() - log.first_lsn.get();
        assert!(kept <= limit && (round < 3 || kept >= keep), "{kept} bytes kept");
        if round >= 3 {
            let named = |what: &str| log.holders.iter().any(|holder| holder.what.contains(what));
            assert!(named("keep_log_bytes"), "{:?}", log.holders);
        }
        if round % 2 == 1 {
            let Counting { db, commits } = client;
            db.close().unwrap();
            client = Counting { db: open(&options, &sim).unwrap(), commits };
            let log = stats(&client.db).log;
            assert!(round < 3 || log.tail.get() - log.first_lsn.get() >= keep);
        }
    }
    assert!(stats(&client.db).log.tail.get() > 2 * limit, "the log went round");
    let error = open(&options.keep_log_bytes(limit), &SimDisk::new(2)).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "keep_log_bytes", .. }), "{error}");
}

/// Damage in the log ends a repair that needs it, and is named.
#[test]
fn a_damaged_log_is_named() {
    let options = options().keep_log_bytes(ALL);
    let sim = SimDisk::new(1);
    drop(worked(&options, &sim));
    let file = sim.open("wal/0000000000000000.log", OpenMode::Existing).unwrap();
    file.write_all_at(&[0x55; 64], 40_000).unwrap();
    // The root of the first tree: formatted before that, changed behind it.
    assert!(spoil(&sim, 3, Damage::Flip(100)));
    let error = open(&options, &sim).and_then(|db| dump(&db)).unwrap_err().to_string();
    assert!(error.starts_with("corrupt data at offset 12288"), "{error}");
    assert!(error.contains("wal/0000000000000000.log at offset"), "{error}");
}

/// Readers and writers, evictions and checkpoints, and somebody who damages pages under them.
#[test]
fn nobody_notices() {
    for mode in TORN_PAGES {
        let options = options()
            .torn_pages(mode)
            .background_threads(true)
            .segment_bytes(1 << 20)
            .log_limit_bytes(512 << 20)
            .keep_log_bytes(256 << 20);
        let sim = SimDisk::memory();
        let db = open(&options, &sim).unwrap();
        let tree = db
            .update(|tx| {
                let tree = tx.tree("rows")?;
                for row in 0..300_u32 {
                    tx.put(&tree, row.to_be_bytes(), vec![0; 300])?;
                }
                Ok(tree)
            })
            .unwrap();
        db.checkpoint(Flush::Everything).unwrap();
        let (stop, sums) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
        std::thread::scope(|scope| {
            let (db, tree, stop) = (&db, &tree, &stop);
            for (n, sum) in sums.iter().enumerate() {
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(n as u64);
                    while !stop.load(Ordering::Relaxed) {
                        match add_one(db, tree, rng.u32(0..300)) {
                            Ok(()) => _ = sum.fetch_add(1, Ordering::Relaxed),
                            Err(error) => assert!(error.is_retryable(), "{error}"),
                        }
                    }
                });
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let read = db.read_with(argali::Isolation::ReadCommitted).unwrap();
                        assert_eq!(read.scan_all(tree).unwrap().map(Result::unwrap).count(), 300);
                    }
                });
            }
            let mut rng = fastrand::Rng::with_seed(9);
            let used = stats(db).pages_in_use;
            for round in 0..300 {
                spoil(&sim, rng.u64(0..used), Damage::Flip(rng.u64(0..PAGE)));
                std::thread::sleep(std::time::Duration::from_millis(1));
                if round % 50 == 49 {
                    db.checkpoint(Flush::Old).unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let seen = db.verify().unwrap();
        assert!(seen.is_sound(), "{:#?}", seen.findings);
        let total: u64 = dump(&db).unwrap()["rows"].values().map(|row| counter(row)).sum();
        assert_eq!(total, sums.iter().map(|sum| sum.load(Ordering::Relaxed)).sum::<u64>());
        let Stats { pool, commits, .. } = stats(&db);
        println!("{mode:?}: {} pages repaired under {commits} commits", pool.pages_repaired);
        assert!(pool.pages_repaired > 10);
    }
}

fn add_one(db: &Db, tree: &argali::Tree, row: u32) -> Result<()> {
    let write = db.begin()?;
    let mut value = write.get_for_update(tree, row.to_be_bytes())?.expect("it is there");
    let next = counter(&value) + 1;
    value[..8].copy_from_slice(&next.to_le_bytes());
    write.put(tree, row.to_be_bytes(), value)?;
    write.commit_with(argali::Durability::Relaxed).map(|_| ())
}

fn counter(row: &[u8]) -> u64 {
    u64::from_le_bytes(row[..8].try_into().unwrap())
}
