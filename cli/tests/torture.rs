//! The torture protocol against an oracle that knows only the lines: kill -9 at any instant, damage,
//! determinism.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "../src/torture/oracle.rs"]
mod oracle;

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{argali, contents, run};
use oracle::{Ever, State, Told, state};

/// Starts the workload, kills it once it has said `bytes` bytes (or after `delay` when it says
/// nothing that long), and returns everything it said.
fn workload_until(db: &Path, seed: u64, clients: u32, stop: Stop) -> String {
    let args = format!("--seed {seed} --clients {clients} --transactions 1000000");
    let mut child = argali(["torture", "workload"])
        .arg(db)
        .args(args.split_whitespace())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut said = Vec::new();
    match stop {
        Stop::After(delay) => std::thread::sleep(delay),
        Stop::Bytes(bytes) => {
            let mut chunk = [0; 512];
            while said.len() < bytes {
                let n = pipe.read(&mut chunk).unwrap();
                assert!(n > 0, "the workload ended by itself: {:?}", child.wait());
                said.extend_from_slice(&chunk[..n]);
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What stands in the pipe was said before the kill.
    pipe.read_to_end(&mut said).unwrap();
    String::from_utf8(said).unwrap()
}

#[derive(Clone, Copy)]
enum Stop {
    Bytes(usize),
    After(Duration),
}

/// Verifies twice; both must say the same.
fn verify(db: &Path) -> State {
    let first = run("torture verify DIR", db).expect(0);
    let second = run("torture verify DIR", db).expect(0);
    assert_eq!(first, second, "a second verify says something else");
    state(&first).unwrap()
}

fn kill_loop(seed: u64, clients: u32, rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let db = &dir.path().join("db");
    let (mut ever, mut before) = (Ever::default(), State::new());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut total = (0, 0, 0);
    for round in 0..rounds {
        let said = workload_until(db, seed, clients, Stop::Bytes(rng.usize(1..60_000)));
        let told = Told::parse(&said, &mut ever).unwrap();
        let found = verify(db);
        if let Err(why) = told.explains(&before, &found) {
            panic!("seed {seed}, {clients} clients, round {round}: {why}");
        }
        let (acked, aborted, unheard) = told.counts();
        total = (total.0 + acked, total.1 + aborted, total.2 + unheard);
        before = found;
    }
    let (acked, aborted, _) = total;
    assert!(acked > 10 && aborted > 0, "the kills left no work to check: {total:?}");
}

#[test]
fn killed_with_one_client() {
    kill_loop(1, 1, 8);
}

#[test]
fn killed_with_four_clients() {
    kill_loop(2, 4, 8);
}

#[test]
fn killed_during_creation_there_is_no_database_or_a_whole_one() {
    for micros in [0, 500, 1000, 1500, 2000, 3000, 5000, 8000, 12_000] {
        let dir = tempfile::tempdir().unwrap();
        let db = &dir.path().join("db");
        let mut ever = Ever::default();
        let said = workload_until(db, 3, 1, Stop::After(Duration::from_micros(micros)));
        let told = Told::parse(&said, &mut ever).unwrap();
        let seen = run("torture verify DIR", db);
        let before = if seen.code == 4 {
            assert!(said.is_empty(), "it spoke, but there is no database: {said}");
            State::new()
        } else {
            let found = state(&seen.expect(0)).unwrap();
            told.explains(&State::new(), &found).unwrap();
            found
        };
        // Either way the next run is not refused.
        let args = "torture workload DIR --seed 3 --transactions 5";
        let told = Told::parse(&run(args, db).expect(0), &mut ever).unwrap();
        told.explains(&before, &verify(db)).unwrap();
    }
}

#[test]
fn one_client_and_one_seed_say_the_same_every_time() {
    let said: Vec<(String, String, String)> = (0..2)
        .map(|_| {
            let dir = tempfile::tempdir().unwrap();
            let db = &dir.path().join("db");
            let first = run("torture workload DIR --seed 5 --transactions 150", db).expect(0);
            let second = run("torture workload DIR --seed 5 --transactions 50", db).expect(0);
            (first, second, run("torture verify DIR", db).expect(0))
        })
        .collect();
    assert_eq!(said[0], said[1]);
    let dir = tempfile::tempdir().unwrap();
    let other = run("torture workload DIR --seed 6 --transactions 150", dir.path()).expect(0);
    assert_ne!(other, said[0].0, "the seed decides nothing");
}

#[test]
fn a_whole_run_is_explained_in_each_mode() {
    for mode in ["double-write", "full-page-image", "none"] {
        let dir = tempfile::tempdir().unwrap();
        let db = &dir.path().join("db");
        let line = format!("torture workload DIR --seed 11 --torn-pages {mode}");
        let told = Told::parse(&run(&line, db).expect(0), &mut Ever::default()).unwrap();
        let (acked, aborted, unheard) = told.counts();
        assert!(acked > 250 && aborted > 30 && unheard == 0, "{acked} {aborted} {unheard}");
        told.explains(&State::new(), &verify(db)).unwrap();
        run("check DIR", db).expect(0);
    }
}

#[test]
fn a_soak_goes_through_its_kills_and_bounds_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let db = &dir.path().join("db");
    let said = run("torture soak DIR --kills 6 --seed 4", db).expect(0);
    assert_eq!(said.lines().count(), 7, "{said}");
    assert!(said.lines().last().unwrap().starts_with("6 kills"), "{said}");
    run("check DIR", db).expect(0);
}

/// On a real small file system, its room swept by a file beside the database.
#[test]
#[ignore = "needs a file system of about a mebibyte: ARGALI_SMALL_DISK=DIR"]
fn a_full_disk_ends_the_workload_and_loses_nothing() {
    let disk = std::env::var_os("ARGALI_SMALL_DISK").expect("ARGALI_SMALL_DISK names a directory");
    let (db, ballast) = (Path::new(&disk).join("db"), Path::new(&disk).join("ballast"));
    let mut work = 0;
    for seed in 0..20 {
        let _ = std::fs::remove_dir_all(&db);
        std::fs::write(&ballast, vec![1; 20_000 * seed]).unwrap();
        let line = format!("torture workload DIR --seed {seed} --transactions 100000");
        let ran = run(&line, &db);
        let (said, err) = (ran.out.clone(), ran.err.clone());
        ran.expect(1);
        assert!(err.contains("No space left on device"), "{err}");
        if db.join("control").exists() {
            let mut ever = Ever::default();
            let told = Told::parse(&said, &mut ever).unwrap();
            // First on the disk as full as it is, then with room to go on.
            let found = verify(&db);
            told.explains(&State::new(), &found).unwrap();
            std::fs::remove_file(&ballast).unwrap();
            let more = "torture workload DIR --seed 99 --transactions 3";
            let told = Told::parse(&run(more, &db).expect(0), &mut ever).unwrap();
            told.explains(&found, &verify(&db)).unwrap();
            work += 1;
        }
    }
    assert!(work > 10, "the disk is too small to show anything: {work} runs came to work");
}

/// A soak on a database that is damaged meanwhile must not end well.
#[test]
fn a_soak_tells_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let db = &dir.path().join("db");
    run("torture workload DIR --seed 9 --transactions 60", db).expect(0);
    let data = db.join("data");
    let mut bytes = std::fs::read(&data).unwrap();
    for page in bytes.chunks_mut(4096).skip(3) {
        page[100] ^= 1;
    }
    std::fs::write(&data, bytes).unwrap();
    run("torture soak DIR --kills 2 --seed 4", db).expect_error(3, "code 3");
}

#[test]
fn damage_is_code_3_and_never_wrong_data() {
    let dir = tempfile::tempdir().unwrap();
    let db = &dir.path().join("db");
    run("torture workload DIR --seed 9 --transactions 120", db).expect(0);
    let good = run("torture verify DIR", db).expect(0);
    let whole = contents(db);
    let data = db.join("data");
    let bytes = std::fs::read(&data).unwrap();
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..15 {
        let mut bad = bytes.clone();
        let at = rng.usize(..bad.len());
        bad[at] ^= 1 << rng.u8(..8);
        std::fs::write(&data, bad).unwrap();
        let seen = run("torture verify DIR", db);
        if seen.code == 0 {
            // Bytes that no page in use holds may have any value.
            assert_eq!(seen.out, good, "byte {at} changed what is read");
        } else {
            assert!(seen.out.is_empty(), "printed pairs of a damaged database");
            let err = seen.err.clone();
            seen.expect_error(3, "offset");
            assert!(err.contains("data"), "{err}");
        }
        // All of it: a data file from before the last shutdown is refused.
        for (path, bytes) in &whole {
            std::fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!(run("torture verify DIR", db).expect(0), good);
}
