//! Restores: all of a database or none, up to the very record that was asked for, on a timeline of its own.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod crash;

use argali::disk::{Call, Disk, Failure, Fault, FaultyDisk, Loss, OpenMode, SimDisk};
use argali::{Db, Error, Flush, Lsn, Options, Restore};
use crash::copies::{Counting, back_up, disk, restore, run};
use crash::{State, TORN_PAGES, dump, open, options};

/// A database that was backed up after 20 commits and went on to 40, killed and still on its disk.
struct Original {
    options: Options,
    disk: SimDisk,
    backup: SimDisk,
    /// LSN behind the backup's last record.
    end: Lsn,
    commits: Vec<(Lsn, State)>,
}

impl Original {
    fn new(options: Options) -> Self {
        let (sim, backup) = (SimDisk::new(1), SimDisk::new(2));
        let mut client = Counting::new(open(&options, &sim).unwrap());
        client.work(14).unwrap();
        client.db.checkpoint(Flush::Old).unwrap();
        client.work(6).unwrap();
        let end = back_up(&client.db, &backup).unwrap().end;
        client.work(20).unwrap();
        let mut open_txn = client.db.begin().unwrap();
        let tree = open_txn.tree("counts").unwrap();
        open_txn.put(&tree, "counter", "a loser's").unwrap();
        client.db.checkpoint(Flush::Old).unwrap();
        Self { options, disk: sim.process_kill(), backup, end, commits: client.commits }
    }

    /// A retained log: no segment is recycled during these few commits.
    fn small() -> Self {
        Self::new(options().checkpoint_policy(std::sync::Arc::new(argali::Never)))
    }

    fn restore(&self) -> Restore {
        Restore::new().options(self.options.clone())
    }

    fn at_backup(&self) -> &State {
        let last = self.commits.iter().rev().find(|(lsn, _)| *lsn < self.end);
        &last.unwrap().1
    }

    fn last(&self) -> &State {
        &self.commits.last().unwrap().1
    }
}

fn sound(db: &Db) -> State {
    let state = dump(db).unwrap();
    let seen = db.verify().unwrap();
    assert!(seen.is_sound(), "{:#?}", seen.findings);
    state
}

#[test]
fn a_restore_is_cut_at_every_call() {
    for mode in TORN_PAGES {
        let original = Original::new(options().torn_pages(mode));
        let Original { options, backup, .. } = &original;
        let target = SimDisk::with_history(3);
        drop(restore(options, backup, &target).unwrap());
        let (mut none, mut whole) = (0, 0);
        for n in 0..=target.io_count() {
            let image = target.at(n as usize).unwrap_or_else(|| target.process_kill());
            let losses = [Loss::LoseAll, Loss::KeepAll, Loss::Random(n), Loss::TornLast(n)];
            for loss in losses {
                let (image, what) = (image.power_cut(loss), format!("cut at {n}, {loss:?}"));
                match open(&options.clone().create(false), &image) {
                    Ok(db) => {
                        assert_eq!(&sound(&db), original.at_backup(), "{what}");
                        whole += 1;
                    }
                    Err(Error::NoDatabase { .. } | Error::Unfinished { what: "restore", .. }) => {
                        none += 1;
                        let again = restore(options, backup, &image);
                        let again = again.unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert_eq!(&dump(&again).unwrap(), original.at_backup(), "{what}");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
        println!("{mode:?}: {none} images without a database, {whole} with the whole of it");
        assert!(none > 40 && whole > 4);
    }
}

#[test]
fn every_call_of_a_restore_fails_once() {
    let original = Original::new(options());
    for call in [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir, Call::Read] {
        let mut failed = 0;
        for n in 0.. {
            let target = SimDisk::new(3);
            let faulty = FaultyDisk::new(disk(&target));
            faulty.fail(Fault::new(call, "*", Failure::Eio).after(n));
            let to = std::sync::Arc::new(faulty.clone());
            let restore = original.restore();
            let made = restore.run_on(&disk(&original.backup), None, to, &mut argali::Silent);
            if faulty.fired() == 0 {
                made.expect("nothing failed");
                break;
            }
            failed += 1;
            let what = format!("{call:?} {n}");
            drop(made);
            match open(&original.options.clone().create(false), &target) {
                Ok(db) => assert_eq!(&sound(&db), original.at_backup(), "{what}"),
                Err(Error::NoDatabase { .. } | Error::Unfinished { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
        assert!(failed > 0, "{call:?} is never made");
    }
}

#[test]
fn a_restore_takes_an_empty_place_only() {
    let original = Original::new(options());
    let Original { options, disk: sim, backup, .. } = &original;
    let restored = SimDisk::new(3);
    drop(restore(options, backup, &restored).unwrap());
    let stranger = SimDisk::new(4);
    stranger.open("data", OpenMode::Create).unwrap();
    for taken in [sim, backup, &restored, &stranger] {
        let before = taken.io_count();
        let error = restore(options, backup, taken).unwrap_err();
        assert!(matches!(error, Error::Exists { what: "file", .. }), "{error}");
        assert_eq!(taken.io_count(), before, "nothing was changed");
    }
    for nothing in [&SimDisk::new(5), sim] {
        let error = restore(options, nothing, &SimDisk::new(6)).unwrap_err();
        assert!(matches!(error, Error::NotFound { what: "backup", .. }), "{error}");
    }
}

#[test]
fn the_originals_log_brings_back_every_commit_up_to_any_of_them() {
    for mode in TORN_PAGES {
        let original = Original::small_in(mode);
        let log = Some(&original.disk);
        let db = run(original.restore(), &original.backup, log, &SimDisk::new(3)).unwrap();
        assert_eq!(&sound(&db), original.last(), "{mode:?}, to the end");
        assert_eq!(db.recovery().losers.len(), 1, "whoever was at work then");
        let mut reached = 0;
        for (lsn, state) in original.commits.iter().skip(1) {
            let restore = original.restore().to_lsn(*lsn);
            match run(restore, &original.backup, log, &SimDisk::new(3)) {
                Ok(db) => {
                    assert_eq!(&sound(&db), state, "{mode:?}, to {lsn}");
                    reached += 1;
                }
                Err(error) => {
                    assert!(*lsn < original.end && is_invalid(&error, "to_lsn"), "{lsn}: {error}");
                }
            }
            // One record less, and the commit does not count.
            let before = original.restore().to_lsn(Lsn::new(lsn.get() - 8));
            if let Ok(db) = run(before, &original.backup, log, &SimDisk::new(3)) {
                assert_ne!(&dump(&db).unwrap(), state, "{mode:?}, to just before {lsn}");
            }
        }
        assert_eq!(reached, 20, "those behind the backup, and no other");
    }
}

impl Original {
    fn small_in(mode: argali::TornPages) -> Self {
        let never = std::sync::Arc::new(argali::Never);
        Self::new(options().torn_pages(mode).checkpoint_policy(never))
    }
}

fn is_invalid(error: &Error, of: &str) -> bool {
    matches!(error, Error::Invalid { what, .. } if *what == of)
}

#[test]
fn a_log_that_does_not_fit_is_refused() {
    let original = Original::small();
    let refused = |log: &SimDisk, restore: Restore| {
        let target = SimDisk::new(3);
        let error = run(restore, &original.backup, Some(log), &target).unwrap_err();
        assert_eq!(target.io_count(), 0, "nothing was begun: {error}");
        error
    };
    let far = original.restore().to_lsn(Lsn::new(1 << 40));
    assert!(is_invalid(&refused(&original.disk, far), "to_lsn"), "behind the end");

    let other = SimDisk::new(4);
    drop(open(&original.options, &other).unwrap());
    assert!(is_invalid(&refused(&other, original.restore()), "log"), "another database's");

    let sibling = SimDisk::new(5);
    drop(restore(&original.options, &original.backup, &sibling).unwrap());
    assert!(is_invalid(&refused(&sibling, original.restore()), "log"), "another timeline's");

    let held = original.disk.process_kill();
    let _db = open(&original.options, &held).unwrap();
    assert!(matches!(refused(&held, original.restore()), Error::InUse { .. }));

    let gone = original.disk.process_kill();
    for name in gone.list("wal").unwrap() {
        gone.remove(&format!("wal/{name}")).unwrap();
    }
    assert!(is_invalid(&refused(&gone, original.restore()), "log"), "nothing left");
}

/// Damage in the original's log is told from its torn tail by the same evidence as in a restart.
#[test]
fn a_damaged_log_is_no_torn_tail() {
    let original = Original::small();
    let damaged = original.disk.process_kill();
    let at = original.commits[30].0.get();
    let name = format!("wal/{:016x}.log", at / (64 << 10) * (64 << 10));
    let file = damaged.open(&name, OpenMode::Existing).unwrap();
    file.write_all_at(&[0xFF; 4], at % (64 << 10) + 8).unwrap();
    let error = run(original.restore(), &original.backup, Some(&damaged), &SimDisk::new(3));
    assert!(error.unwrap_err().is_corruption(), "later commits prove that it was whole");

    // The control file lost as well: the records themselves still prove it.
    damaged.remove("control").unwrap();
    let error = run(original.restore(), &original.backup, Some(&damaged), &SimDisk::new(3));
    assert!(error.unwrap_err().is_corruption());

    // Nothing behind it: a tail, and what comes before it counts.
    let torn = original.disk.process_kill();
    torn.remove("control").unwrap();
    let file = torn.open(&name, OpenMode::Existing).unwrap();
    file.set_len(at % (64 << 10) + 8).unwrap();
    for later in torn.list("wal").unwrap().into_iter().filter(|later| name[4..] < **later) {
        torn.remove(&format!("wal/{later}")).unwrap();
    }
    let db = run(original.restore(), &original.backup, Some(&torn), &SimDisk::new(3)).unwrap();
    assert_eq!(sound(&db), original.commits[29].1);
}

/// Copies the log files of `from` over or beside those of `to`.
fn lay_beside(from: &SimDisk, to: &SimDisk, replace: bool) -> usize {
    let mut copied = 0;
    let have = to.list("wal").unwrap();
    for name in from.list("wal").unwrap().iter().filter(|name| replace || !have.contains(name)) {
        let name = format!("wal/{name}");
        let file = from.open(&name, OpenMode::ReadOnly).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        to.open(&name, OpenMode::Create).unwrap().write_all_at(&bytes, 0).unwrap();
        copied += 1;
    }
    copied
}

/// The old history is not joined to the new one: neither the original's nor that of a sibling.
#[test]
fn records_of_another_timeline_are_never_joined() {
    let original = Original::small();
    let sibling = SimDisk::new(4);
    let mut other = Counting::new(restore(&original.options, &original.backup, &sibling).unwrap());
    other.commits[0].1 = original.at_backup().clone();
    other.work(20).unwrap();
    let sibling = sibling.process_kill();
    for stranger in [&original.disk, &sibling] {
        // Killed before its first own record: the stranger's next one stands exactly where its would.
        let target = SimDisk::with_history(5);
        drop(restore(&original.options, &original.backup, &target).unwrap());
        let published = (0..target.io_count()).find_map(|n| {
            let image = target.at(n as usize)?;
            image.open("control", OpenMode::ReadOnly).is_ok().then_some(image)
        });
        let image = published.unwrap();
        lay_beside(stranger, &image, false);
        let db = open(&original.options, &image).unwrap();
        assert_eq!(&sound(&db), original.at_backup(), "not one record more");

        let replaced = target.process_kill();
        assert!(lay_beside(stranger, &replaced, true) > 0);
        let error = open(&original.options, &replaced).unwrap_err();
        assert!(error.is_corruption(), "its own log is gone, and it says so: {error}");
    }
}

#[test]
fn a_restore_that_was_cut_short_is_not_taken_for_a_creation() {
    let original = Original::new(options());
    let target = SimDisk::new(3);
    target.stop_after(10);
    restore(&original.options, &original.backup, &target).unwrap_err();
    let target = target.process_kill();
    let error = open(&original.options, &target).unwrap_err();
    assert!(matches!(error, Error::Unfinished { what: "restore", .. }), "{error}");
    assert!(error.to_string().contains("run it again"), "{error}");
}

/// Options decide how it is opened; what was fixed at creation stays.
#[test]
fn a_restored_database_is_opened_as_told() {
    let original = Original::new(options());
    let too_small = original.restore().options(options().cache_bytes(4096));
    let target = SimDisk::new(3);
    let error = run(too_small, &original.backup, None, &target).unwrap_err();
    assert!(is_invalid(&error, "cache_bytes"), "{error}");
    let few = original.restore().options(options().pages_max(64));
    match run(few, &original.backup, None, &SimDisk::new(4)) {
        Err(error) => assert!(is_invalid(&error, "pages_max"), "{error}"),
        Ok(db) => assert!(db.stats().unwrap().pager.pages <= 64),
    }
    let db = run(original.restore(), &original.backup, None, &target).unwrap();
    assert_eq!(&sound(&db), original.at_backup());
}
