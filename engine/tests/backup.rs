//! Backups made while others work: complete or refused, and never in anybody's way.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argali::disk::{Call, Disk, Failure, Fault, FaultyDisk, Loss, OpenMode, SimDisk};
use argali::{BackupOptions, Db, Error, Flush, Lsn, Options, Result};
use crash::copies::{Counting, back_up, contents, disk, is_unfinished, restore};
use crash::{Campaign, Client, End, TORN_PAGES, dump, open, options, workload};

/// A database with some history in every torn-page mode, half of it not on disk.
fn counted(options: &Options, sim: &SimDisk) -> Counting {
    let mut client = Counting::new(open(options, sim).unwrap());
    client.work(30).unwrap();
    client.db.checkpoint(Flush::Old).unwrap();
    client.work(12).unwrap();
    client
}

#[test]
fn a_backup_holds_what_was_committed_and_nothing_that_came_later() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode);
        let mut client = counted(&options, &SimDisk::new(1));
        let mut open_txn = client.db.begin().unwrap();
        let tree = open_txn.tree("uncommitted").unwrap();
        open_txn.put(&tree, "k", "never").unwrap();

        let backup = SimDisk::new(2);
        let report = back_up(&client.db, &backup).unwrap();
        let then = client.state().clone();
        assert!(client.commits.last().unwrap().0 < report.end);
        drop(open_txn);
        client.work(5).unwrap();
        assert_eq!(contents(&options, &backup).unwrap(), then, "{mode:?}");
        assert_eq!(contents(&options, &backup).unwrap(), then, "{mode:?}, and once more");
    }
}

#[test]
fn a_backup_is_cut_at_every_call() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode);
        let client = counted(&options, &SimDisk::new(1));
        let backup = SimDisk::with_history(2);
        back_up(&client.db, &backup).unwrap();
        let (mut refused, mut good) = (0, 0);
        for n in 0..=backup.io_count() {
            let image = backup.at(n as usize).unwrap_or_else(|| backup.process_kill());
            let losses = [Loss::LoseAll, Loss::KeepAll, Loss::Random(n), Loss::TornLast(n)];
            for loss in losses {
                match contents(&options, &image.power_cut(loss)) {
                    Ok(state) => {
                        assert_eq!(&state, client.state(), "cut at {n}, {loss:?}");
                        good += 1;
                    }
                    Err(error) if is_unfinished(&error) => refused += 1,
                    Err(error) => panic!("cut at {n}, {loss:?}: {error}"),
                }
            }
            if n % 4 == 0 {
                start_over(&options, &client, &image.power_cut(Loss::Random(n)));
            }
        }
        println!("{mode:?}: {refused} images refused, {good} good");
        assert!(refused > 40 && good > 0);
    }
}

/// A second attempt in the same place, unless the first one was finished.
fn start_over(options: &Options, client: &Counting, image: &SimDisk) {
    match back_up(&client.db, image) {
        Ok(_) | Err(Error::Exists { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(&contents(options, image).unwrap(), client.state());
}

/// The machine of the database dies, at every call, while it is backed up: between transactions and inside
/// of them.
fn backed_up(client: &mut Client) -> Result<()> {
    for round in 0..6 {
        workload::step_of_mix(client)?;
        let backup = SimDisk::new(round);
        back_up(&client.db, &backup)?;
        let state = client.oracle.states.last().unwrap().clone();
        assert_eq!(contents(&options(), &backup)?, state);
        let (db, inside) = (client.db.clone(), SimDisk::new(round + 100));
        client.transaction(|work| {
            let tree = work.tree("mix")?;
            let value = work.fresh(40);
            work.put(&tree, b"k0001", value)?;
            back_up(&db, &inside)?;
            Ok(if round % 2 == 0 { End::Commit } else { End::Abort })
        })?;
        assert_eq!(contents(&options(), &inside)?, state);
    }
    Ok(())
}

#[test]
fn the_database_is_cut_at_every_call_of_a_backup() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode);
        let name = "backed up";
        let campaign =
            Campaign { name, seed: 1, options, workload: backed_up, stride: 1, nested_every: 40 };
        let tally = campaign.run();
        println!("{mode:?}: {tally:?}");
        assert!(tally.calls > 60, "{tally:?}");
    }
}

/// Whatever fails where the backup goes, the database does not mind, and holds no log for it.
#[test]
fn every_call_to_the_backup_fails_once() {
    let options = options();
    let sim = SimDisk::new(1);
    let mut client = counted(&options, &sim);
    let calls = [
        Call::Create,
        Call::Write,
        Call::Sync,
        Call::SetLen,
        Call::Rename,
        Call::SyncDir,
        Call::MakeDir,
        Call::List,
        Call::Lock,
    ];
    for call in calls {
        for failure in [Failure::Eio, Failure::Enospc] {
            let mut failed = 0;
            for n in 0.. {
                let backup = SimDisk::new(2);
                let faulty = FaultyDisk::new(disk(&backup));
                faulty.fail(Fault::new(call, "*", failure).after(n));
                let made = client.db.backup_on(Arc::new(faulty.clone()), BackupOptions::new());
                let what = format!("{call:?} {n} {failure:?}: {made:?}");
                if faulty.fired() == 0 {
                    made.expect("nothing failed");
                    break;
                }
                failed += 1;
                assert!(made.is_err(), "{what}");
                match contents(&options, &backup) {
                    // The very last call: the name was not proven durable, but it is there.
                    Ok(state) => assert_eq!(&state, client.state(), "{what}"),
                    Err(error) => assert!(is_unfinished(&error), "{what}: {error}"),
                }
                client.work(1).unwrap_or_else(|error| panic!("{what}: {error}"));
                client.db.checkpoint(Flush::Nothing).unwrap();
                let holders = client.db.stats().unwrap().log.holders;
                assert!(holders.iter().all(|holder| holder.what != "backup"), "{what}");
            }
            assert!(failed > 0, "{call:?} is never made");
        }
    }
    let seen = client.db.verify().unwrap();
    assert!(seen.is_sound(), "{:#?}", seen.findings);
}

#[test]
fn a_read_of_the_database_fails() {
    let options = options();
    let sim = SimDisk::new(1);
    drop(counted(&options, &sim));
    let faulty = FaultyDisk::new(disk(&sim));
    let db = options.clone().open_on(Arc::new(faulty.clone()), &mut argali::Silent).unwrap();
    let state = dump(&db).unwrap();
    for n in [0, 3, 11] {
        faulty.fail(Fault::new(Call::Read, "*", Failure::Eio).after(n));
        let (fired, backup) = (faulty.fired(), SimDisk::new(2));
        let made = back_up(&db, &backup);
        assert_eq!(made.is_err(), faulty.fired() > fired, "read {n}: {made:?}");
        assert_eq!(contents(&options, &backup).is_ok(), made.is_ok());
        faulty.heal();
    }
    let backup = SimDisk::new(2);
    back_up(&db, &backup).unwrap();
    assert_eq!(contents(&options, &backup).unwrap(), state);
}

/// Damage is found where it is, and not carried on.
#[test]
fn a_damaged_page_is_not_copied() {
    let options = options();
    let sim = SimDisk::new(1);
    drop(counted(&options, &sim));
    let file = sim.open("data", OpenMode::Existing).unwrap();
    let at = 3 * 4096;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 700).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at + 700).unwrap();
    let db = options.open_read_only_on(disk(&sim)).unwrap();
    match back_up(&db, &SimDisk::new(2)) {
        Err(Error::Corrupt { file, offset, .. }) => {
            assert_eq!((file.as_str(), offset), ("data", at));
        }
        other => panic!("{other:?}"),
    }
}

/// Nor does it matter: a page in use ends the backup, a free one is left out.
#[test]
fn damage_in_a_free_page_is_nothing_to_a_backup() {
    let (options, sim) = (options(), SimDisk::new(1));
    let db = counted(&options, &sim).db;
    for name in ["a", "b"] {
        let mut write = db.begin().unwrap();
        let tree = write.tree(name).unwrap();
        (0..90_u32).for_each(|n| drop(write.put(&tree, n.to_be_bytes(), vec![1; 400]).unwrap()));
        write.commit().unwrap();
    }
    db.update(|tx| tx.drop_tree("a")).unwrap();
    for _ in 0..50 {
        drop(db.read().unwrap()); // the pages are freed at the beginning of transactions
    }
    let state = dump(&db).unwrap();
    db.close().unwrap();
    let (mut free, mut used) = (0, 0);
    for page in 0..sim.open("data", OpenMode::ReadOnly).unwrap().len().unwrap() / 4096 {
        let (image, backup) = (sim.process_kill(), SimDisk::new(2));
        let mut byte = [0];
        let file = image.open("data", OpenMode::Existing).unwrap();
        file.read_exact_at(&mut byte, page * 4096 + 8).unwrap();
        if page > 0 && byte == [0] {
            continue; // never written
        }
        flip(&image, "data", page * 4096 + 1000);
        let db = options.clone().open_read_only_on(disk(&image));
        match db.and_then(|db| back_up(&db, &backup)) {
            Ok(_) => {
                assert_eq!(contents(&options, &backup).unwrap(), state, "p{page}");
                free += 1;
            }
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                used += 1;
            }
        }
    }
    println!("{free} free, {used} used");
    assert!(free > 3 && used > 8);
}

#[test]
fn every_sector_of_a_backup_is_checked() {
    let options = options();
    let client = counted(&options, &SimDisk::new(1));
    let backup = SimDisk::new(2);
    let report = back_up(&client.db, &backup).unwrap();
    let mut refused = 0;
    for name in files(&backup) {
        let file = backup.open(&name, OpenMode::Existing).unwrap();
        for at in (0..file.len().unwrap()).step_by(512) {
            let image = backup.process_kill();
            flip(&image, &name, at + at / 512 % 100);
            match contents(&options, &image) {
                Err(Error::Corrupt { .. }) => refused += 1,
                // Nothing was copied into the segment before the first record.
                Ok(state) if name.starts_with("wal/") => {
                    assert!(at < report.first.get() % (64 << 10), "{name} at {at}");
                    assert_eq!(&state, client.state());
                }
                other => panic!("{name} at {at}: {other:?}"),
            }
        }
        for cut in [0, file.len().unwrap() / 2, file.len().unwrap() - 1] {
            let image = backup.process_kill();
            image.open(&name, OpenMode::Existing).unwrap().set_len(cut).unwrap();
            let error = contents(&options, &image).unwrap_err();
            assert!(error.is_corruption(), "{name} cut to {cut}: {error}");
        }
        let image = backup.process_kill();
        image.remove(&name).unwrap();
        let error = contents(&options, &image).unwrap_err();
        assert!(error.is_corruption() || is_unfinished(&error), "{name} removed: {error}");
    }
    println!("{refused} flips refused");
    assert!(refused > 100);
}

fn files(sim: &SimDisk) -> Vec<String> {
    let mut names = sim.list("").unwrap();
    names.extend(sim.list("wal").unwrap().into_iter().map(|name| format!("wal/{name}")));
    names
}

fn flip(sim: &SimDisk, name: &str, at: u64) {
    let file = sim.open(name, OpenMode::Existing).unwrap();
    let at = at.min(file.len().unwrap() - 1);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Between any two batches of pages others write more than the log may hold: the hold moves along.
#[test]
fn a_slow_backup_holds_back_little_log_and_says_so() {
    let options = options().log_limit_bytes(512 << 10);
    let mut client = counted(&options, &SimDisk::new(1));
    let big = client.db.clone();
    for rows in (0..400_u32).collect::<Vec<_>>().chunks(40) {
        let mut write = big.begin().unwrap();
        let tree = write.tree("big").unwrap();
        for row in rows {
            write.put(&tree, row.to_be_bytes(), vec![7; 900]).unwrap();
        }
        write.commit().unwrap();
    }
    let (db, backup) = (client.db.clone(), SimDisk::new(2));
    let (mut logged, mut last) = (0, 0);
    let listener = |progress: &argali::BackupProgress| {
        assert!(progress.pages_done >= last && progress.pages_done <= progress.pages);
        last = progress.pages_done;
        let before = db.stats().unwrap().log.tail;
        client.work(600).unwrap();
        client.db.checkpoint(Flush::Everything).unwrap();
        let log = db.stats().unwrap().log;
        logged += log.tail.get() - before.get();
        assert!(log.holders.iter().any(|holder| holder.what == "backup"), "{:?}", log.holders);
        // Work that is no transaction keeps the database open, too.
        assert!(matches!(db.clone().close(), Err(Error::Invalid { what: "close", .. })));
    };
    let made = db.backup_on(disk(&backup), BackupOptions::new().on_progress(listener)).unwrap();
    assert_eq!(last, made.pages);
    assert!(logged > 512 << 10, "only {logged} bytes were logged meanwhile");
    let state = contents(&options, &backup).unwrap();
    let commits = client.commits.iter().rev().find(|(lsn, _)| *lsn < made.end).unwrap();
    assert_eq!(state["counts"], commits.1["counts"]);
}

#[test]
fn a_backup_keeps_its_pace() {
    let client = counted(&options(), &SimDisk::new(1));
    let pace = 1_500_000;
    let options = BackupOptions::new().bytes_per_second(pace);
    let made = client.db.backup_on(disk(&SimDisk::new(2)), options).unwrap();
    // What comes behind the last batch is not waited for.
    let due = Duration::from_secs_f64((made.pages * 4096) as f64 / pace as f64);
    assert!(made.time >= due, "{:?} for {} bytes, {due:?} were due", made.time, made.bytes);
}

#[test]
fn a_backup_goes_to_an_empty_place_and_is_no_database() {
    let options = options();
    let (sim, backup) = (SimDisk::new(1), SimDisk::new(2));
    let client = counted(&options, &sim);
    back_up(&client.db, &backup).unwrap();
    for taken in [&backup, &sim] {
        let error = back_up(&client.db, taken).unwrap_err();
        assert!(matches!(error, Error::Exists { .. } | Error::InUse { .. }), "{error}");
    }
    let stranger = SimDisk::new(3);
    stranger.open("notes.txt", OpenMode::Create).unwrap();
    let error = back_up(&client.db, &stranger).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    let error = open(&options, &backup).unwrap_err();
    assert!(error.to_string().contains("holds a backup"), "{error}");
}

#[test]
fn a_database_open_read_only_can_be_backed_up() {
    let (options, sim) = (options(), SimDisk::new(1));
    let client = counted(&options, &sim);
    let state = client.state().clone();
    client.db.close().unwrap();
    let before = sim.io_count();
    let db = options.clone().open_read_only_on(disk(&sim)).unwrap();
    let backup = SimDisk::new(2);
    back_up(&db, &backup).unwrap();
    drop(db);
    assert_eq!(sim.io_count(), before, "nothing was written");
    assert_eq!(contents(&options, &backup).unwrap(), state);
}

const CLIENTS: usize = 4;

/// Counts up until told to stop; returns the LSN of each commit. Moves money about on the way.
fn count_up(db: &Db, client: usize, stop: &AtomicBool) -> Vec<Lsn> {
    let mut lsns = Vec::new();
    let mut rng = fastrand::Rng::with_seed(client as u64);
    while !stop.load(Ordering::Relaxed) {
        let done = (|| -> Result<Lsn> {
            let mut write = db.begin()?;
            let tree = write.tree("shared")?;
            let (from, to) = (format!("a{}", rng.u8(0..20)), format!("a{}", rng.u8(0..20)));
            for (account, delta) in [(&from, -1), (&to, 1)] {
                let old = write.get_for_update(&tree, account)?.unwrap_or_else(|| b"0".to_vec());
                let old: i64 = String::from_utf8(old).unwrap().parse().unwrap();
                write.put(&tree, account, (old + delta).to_string())?;
            }
            write.put(&tree, format!("count{client}"), (lsns.len() + 1).to_string())?;
            write.put(&tree, format!("pad{client}-{}", rng.u8(..)), vec![b'.'; 200])?;
            write.commit()
        })();
        match done {
            Ok(lsn) => lsns.push(lsn),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    lsns
}

/// Real threads, background work included. The end LSN decides exactly which commits are in.
#[test]
fn writers_and_checkpoints_go_on_and_the_end_decides_who_is_in() {
    for mode in TORN_PAGES {
        let options = options().torn_pages(mode).background_threads(true).cache_bytes(64 * 4096);
        let db = open(&options, &SimDisk::memory()).unwrap();
        let stop = AtomicBool::new(false);
        let mut backups = Vec::new();
        let lsns: Vec<Vec<Lsn>> = std::thread::scope(|scope| {
            let (db, stop) = (&db, &stop);
            let clients: Vec<_> =
                (0..CLIENTS).map(|n| scope.spawn(move || count_up(db, n, stop))).collect();
            for n in 0..6 {
                std::thread::sleep(Duration::from_millis(40));
                let backup = SimDisk::memory();
                backups.push((back_up(db, &backup).unwrap(), backup));
                db.checkpoint([Flush::Old, Flush::Everything][n % 2]).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        for (report, backup) in &backups {
            let state = contents(&options, backup).unwrap();
            let shared = state.get("shared").cloned().unwrap_or_default();
            let text = |key: &str| shared.get(key.as_bytes()).map(|v| String::from_utf8_lossy(v));
            for (client, lsns) in lsns.iter().enumerate() {
                let expected = lsns.iter().filter(|lsn| **lsn < report.end).count();
                let found = text(&format!("count{client}")).map_or(0, |v| v.parse().unwrap());
                assert_eq!(found, expected, "{mode:?}, client {client}, end {}", report.end);
            }
            let sum: i64 = (0..20)
                .filter_map(|n| text(&format!("a{n}")).map(|v| v.parse::<i64>().unwrap()))
                .sum();
            assert_eq!(sum, 0, "{mode:?}: half a transfer");
        }
        println!("{mode:?}: {:?} commits", lsns.iter().map(Vec::len).collect::<Vec<_>>());
    }
}

/// Who is in doubt when the backup ends is in doubt when it comes back, and may be decided either way there.
#[test]
fn a_backup_keeps_transactions_in_doubt() {
    let options = options();
    let client = counted(&options, &SimDisk::new(1));
    let mut write = client.db.begin().unwrap();
    let tree = write.tree("doubt").unwrap();
    write.put(&tree, "k", "v").unwrap();
    write.prepare("gid").unwrap();
    let backup = SimDisk::new(2);
    back_up(&client.db, &backup).unwrap();
    client.db.commit_prepared("gid").unwrap();
    for commits in [false, true] {
        let db = restore(&options, &backup, &SimDisk::new(3)).unwrap();
        assert_eq!(db.prepared().len(), 1);
        if commits {
            db.commit_prepared("gid").unwrap();
        } else {
            db.abort_prepared("gid").unwrap();
        }
        let state = dump(&db).unwrap();
        assert_eq!(state.contains_key("doubt"), commits);
        assert_eq!(state["counts"], client.state()["counts"]);
    }
}

/// A restored database can be worked with, backed up and restored in turn.
#[test]
fn a_backup_of_a_restored_database() {
    let options = options();
    let mut client = counted(&options, &SimDisk::new(1));
    for generation in 2..5 {
        let (backup, target) = (SimDisk::new(2), SimDisk::new(3));
        back_up(&client.db, &backup).unwrap();
        let db = restore(&options, &backup, &target).unwrap();
        assert_eq!(argali::info_on(&disk(&target)).unwrap().control.log.timeline, generation);
        assert_eq!(&dump(&db).unwrap(), client.state());
        client.db = db;
        client.work(8).unwrap();
    }
}
