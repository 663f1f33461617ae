//! Values of any size: a model through commits, aborts, savepoints and reopenings; streams; what a large
//! value costs, whom it keeps waiting, and that its pages come back.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Read as _};
use std::sync::Arc;

use argali::disk::SimDisk;
use argali::{Db, Error, Isolation, Never, Result, TornPages, Tree, Write};
use common::{assert_sound, memory, on, options, settle};

const PAGE: usize = 8192;
/// Bytes of a value that one overflow page takes.
const PART: usize = PAGE - 64 - 8 - 4;

/// A value that shows where each of its bytes belongs.
fn value(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed ^ (at as u8) ^ (at >> 8) as u8 ^ (at >> 16) as u8).collect()
}

/// A database with an empty tree.
fn with_tree(db: &Db) -> Tree {
    db.update(|tx| tx.tree("t")).unwrap()
}

fn pages(db: &Db) -> u64 {
    settle(db);
    db.stats().unwrap().pages_in_use
}

/// Sizes around every border.
fn sizes(tree: &Tree) -> Vec<usize> {
    let leaf = tree.entry_bytes_max();
    let around = [leaf, PART, 2 * PART, 5 * PART];
    let near = around.into_iter().flat_map(|size| size - 2..size + 3);
    [0, 1, 15, 16, 17].into_iter().chain(near).chain([200 << 10, 1 << 20]).collect()
}

#[test]
fn values_of_every_size_come_back() {
    let disk = SimDisk::new(1);
    let db = on(&disk).unwrap();
    let tree = with_tree(&db);
    let sizes = sizes(&tree);
    let key = |n: usize| (n as u32).to_be_bytes();
    // Each key gets every size after every other.
    for round in 0..3 {
        let tx = db.begin().unwrap();
        for n in 0..sizes.len() {
            let len = sizes[(n + round * 7) % sizes.len()];
            let old = tx.put(&tree, key(n), value(round as u8, len)).unwrap();
            let before = (round > 0).then(|| sizes[(n + (round - 1) * 7) % sizes.len()]);
            assert!(old == before.map(|len| value(round as u8 - 1, len)), "old value of {len}");
        }
        tx.commit().unwrap();
        assert_sound(&db);
    }
    let check = |db: &Db| {
        let read = db.read().unwrap();
        let tree = read.open_tree("t").unwrap().unwrap();
        for (n, found) in read.scan_all(&tree).unwrap().enumerate() {
            let (found_key, found) = found.unwrap();
            let len = sizes[(n + 14) % sizes.len()];
            assert_eq!(found_key, key(n));
            assert!(found == value(2, len), "scan of {len}");
            assert!(read.get(&tree, key(n)).unwrap() == Some(value(2, len)), "get of {len}");
            let mut reader = read.value_reader(&tree, key(n)).unwrap().unwrap();
            assert_eq!(reader.len(), len as u64);
            let mut streamed = Vec::new();
            reader.read_to_end(&mut streamed).unwrap();
            assert!(streamed == value(2, len), "stream of {len}");
        }
    };
    check(&db);
    drop(db);
    check(&on(&disk).unwrap());
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// One random change to a few keys.
fn change(tx: &Write, tree: &Tree, model: &mut Model, rng: &mut fastrand::Rng) -> Result<()> {
    let key = vec![rng.u8(0..12); rng.usize(0..40)];
    let len = match rng.u8(0..6) {
        0 => 0,
        1 => rng.usize(0..100),
        2 => rng.usize(1900..2100),
        3 => rng.usize(0..3 * PART),
        _ => rng.usize(0..200 << 10),
    };
    let new = value(rng.u8(..), len);
    match rng.u8(0..8) {
        0 => assert!(tx.delete(tree, &key)? == model.remove(&key)),
        1 => assert_eq!(tx.remove(tree, &key)?, model.remove(&key).is_some()),
        2 => {
            assert_eq!(tx.insert_new(tree, &key, &new)?, !model.contains_key(&key));
            model.entry(key).or_insert(new);
        }
        3 => {
            assert_eq!(tx.put_stream(tree, &key, &new[..])?, new.len() as u64);
            model.insert(key, new);
        }
        4 => assert!(tx.get(tree, &key)? == model.get(&key).cloned()),
        _ => assert!(tx.put(tree, &key, &new)? == model.insert(key, new)),
    }
    Ok(())
}

fn contents(db: &Db) -> Model {
    let read = db.read().unwrap();
    let tree = read.open_tree("t").unwrap().unwrap();
    read.scan_all(&tree).unwrap().collect::<Result<_>>().unwrap()
}

#[test]
fn large_and_small_values_against_a_model() {
    for seed in 1..=4 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::new(seed);
        let mut db = on(&disk).unwrap();
        let mut tree = with_tree(&db);
        let mut committed = Model::new();
        for _ in 0..40 {
            let mut model = committed.clone();
            let isolation =
                *rng.choice([Isolation::Serializable, Isolation::ReadCommitted]).as_ref().unwrap();
            let mut tx = db.begin_with(isolation).unwrap();
            for _ in 0..rng.usize(0..6) {
                change(&tx, &tree, &mut model, &mut rng).unwrap();
            }
            let mut aside = model.clone();
            let savepoint = tx.savepoint().unwrap();
            for _ in 0..rng.usize(0..4) {
                change(&savepoint, &tree, &mut aside, &mut rng).unwrap();
            }
            if rng.bool() {
                savepoint.release();
                model = aside;
            } else {
                savepoint.rollback().unwrap();
            }
            match rng.u8(0..4) {
                0 => tx.abort().unwrap(),
                1 => drop(tx),
                _ => {
                    tx.commit().unwrap();
                    committed = model;
                }
            }
            assert!(contents(&db) == committed, "seed {seed}");
            if rng.u8(0..8) == 0 {
                let image = disk.process_kill();
                assert!(contents(&on(&image).unwrap()) == committed, "seed {seed}, reopened");
                drop(db);
                db = on(&disk).unwrap();
                tree = db.update(|tx| tx.tree("t")).unwrap();
            }
        }
        assert_sound(&db);
        db.update(|tx| tx.drop_tree("t")).unwrap();
        assert_sound(&db);
        let left = pages(&db);
        assert_sound(&db);
        assert!(left <= 6, "seed {seed}: {left} pages are left of an empty database");
    }
}

#[test]
fn pages_come_back_whatever_gives_them_up() {
    let db = memory();
    let tree = with_tree(&db);
    db.update(|tx| tx.put(&tree, "keep", value(1, 50_000))).unwrap();
    let empty = pages(&db);
    let big = value(2, 300_000);

    db.update(|tx| tx.put(&tree, "k", &big)).unwrap();
    let with_one = pages(&db);
    assert!(with_one > empty + 30, "{with_one} pages after {empty}");
    db.update(|tx| tx.put(&tree, "k", value(3, 300_000))).unwrap();
    assert_eq!(pages(&db), with_one, "overwritten by another");
    db.update(|tx| tx.put(&tree, "k", "small")).unwrap();
    assert_eq!(pages(&db), empty, "overwritten by a small one");
    db.update(|tx| tx.put(&tree, "k", &big)).unwrap();
    db.update(|tx| tx.remove(&tree, "k")).unwrap();
    assert_eq!(pages(&db), empty, "removed");

    let tx = db.begin().unwrap();
    tx.put(&tree, "k", &big).unwrap();
    tx.put(&tree, "k", &big).unwrap();
    tx.delete(&tree, "keep").unwrap();
    tx.abort().unwrap();
    assert_eq!(pages(&db), empty, "aborted");

    let mut tx = db.begin().unwrap();
    let savepoint = tx.savepoint().unwrap();
    savepoint.put(&tree, "k", &big).unwrap();
    savepoint.put(&tree, "keep", &big).unwrap();
    savepoint.rollback().unwrap();
    tx.commit().unwrap();
    assert_eq!(pages(&db), empty, "taken back to a savepoint");
    assert_eq!(db.read().unwrap().get(&tree, "keep").unwrap(), Some(value(1, 50_000)));

    db.update(|tx| {
        let scratch = tx.tree("scratch")?;
        (0..20_u32).try_for_each(|n| tx.put(&scratch, n.to_be_bytes(), &big).map(drop))
    })
    .unwrap();
    assert!(pages(&db) > empty + 600);
    db.update(|tx| tx.drop_tree("scratch")).unwrap();
    for _ in 0..10 {
        assert_sound(&db);
        drop(db.read().unwrap());
    }
    assert_eq!(pages(&db), empty, "dropped with its tree");
    assert_sound(&db);
}

#[test]
fn a_source_that_fails_leaves_everything_as_it_was() {
    struct Failing(usize);
    impl io::Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let bytes = buf.len().min(self.0);
            self.0 -= bytes;
            if bytes == 0 { Err(io::Error::other("the wire was cut")) } else { Ok(bytes) }
        }
    }
    let db = memory();
    let tree = with_tree(&db);
    db.update(|tx| tx.put(&tree, "k", value(1, 40_000))).unwrap();
    let before = pages(&db);
    let tx = db.begin().unwrap();
    for bytes in [0, 100, PART, 10 * PART + 1] {
        let failed = tx.put_stream(&tree, "k", Failing(bytes));
        let told = matches!(&failed, Err(Error::Io { source, .. }) if source.to_string() == "the wire was cut");
        assert!(told, "{failed:?}");
    }
    assert!(tx.get(&tree, "k").unwrap() == Some(value(1, 40_000)), "the transaction goes on");
    tx.commit().unwrap();
    assert_eq!(pages(&db), before);
    assert_sound(&db);
}

#[test]
fn a_reader_keeps_its_value_while_its_transaction_overwrites_and_copies_it() {
    let db = memory();
    let tree = with_tree(&db);
    db.update(|tx| tx.put(&tree, "k", value(1, 100_000))).unwrap();
    let tx = db.begin().unwrap();
    let mut reader = tx.value_reader(&tree, "k").unwrap().unwrap();
    let mut half = vec![0; 50_000];
    reader.read_exact(&mut half).unwrap();
    tx.put(&tree, "k", "new").unwrap();
    tx.remove(&tree, "k").unwrap();
    for _ in 0..20 {
        drop(db.read().unwrap()); // background steps
    }
    let copied = tx.put_stream(&tree, "copy", half.chain(&mut reader)).unwrap();
    assert_eq!(copied, 100_000);
    tx.commit().unwrap();
    let read = db.read().unwrap();
    assert!(read.get(&tree, "copy").unwrap() == Some(value(1, 100_000)));
    assert!(read.value_reader(&tree, "k").unwrap().is_none());
}

/// Under read committed a small value may be read without a lock; a large one never.
#[test]
fn readers_and_writers_of_a_large_value_wait_for_each_other() {
    let db = memory();
    let tree = with_tree(&db);
    db.update(|tx| tx.put(&tree, "k", value(1, 100_000))).unwrap();
    for isolation in [Isolation::Serializable, Isolation::ReadCommitted] {
        let read = db.read_with(isolation).unwrap();
        let reader = read.value_reader(&tree, "k").unwrap().unwrap();
        let tx = db.begin().unwrap();
        let refused = tx.remove(&tree, "k");
        assert!(matches!(refused, Err(Error::LockTimeout { .. })), "{refused:?}");
        drop((reader, tx));
        read.finish().unwrap();

        let tx = db.begin().unwrap();
        tx.remove(&tree, "k").unwrap();
        let read = db.read_with(isolation).unwrap();
        let refused = read.get(&tree, "k");
        assert!(matches!(refused, Err(Error::LockTimeout { .. })), "{refused:?}");
        let read = db.read_with(isolation).unwrap();
        let refused = read.value_reader(&tree, "k").map(|found| found.is_some());
        assert!(matches!(refused, Err(Error::LockTimeout { .. })), "{refused:?}");
        drop(read);
        tx.abort().unwrap();
    }
    // The lock of a plain read goes with the read.
    let read = db.read_with(Isolation::ReadCommitted).unwrap();
    assert!(read.get(&tree, "k").unwrap().is_some());
    db.update(|tx| tx.remove(&tree, "k")).unwrap();
    assert!(read.get(&tree, "k").unwrap().is_none());
}

#[test]
fn a_large_value_is_logged_once_and_its_undo_is_a_reference() {
    let db = options().torn_pages(TornPages::DoubleWrite).in_memory().unwrap();
    let tree = with_tree(&db);
    let logged = |step: &mut dyn FnMut()| {
        let before = db.stats().unwrap().log.bytes;
        step();
        db.stats().unwrap().log.bytes - before
    };
    let big = value(1, 1 << 20);
    let put = logged(&mut || drop(db.update(|tx| tx.put(&tree, "k", &big)).unwrap()));
    assert!(put < (1 << 20) * 104 / 100, "{put} bytes of log for a value of 1 MiB");
    let tx = db.begin().unwrap();
    let remove = logged(&mut || assert!(tx.remove(&tree, "k").unwrap()));
    assert!(remove < 1000, "{remove} bytes of log to remove it");
    let abort = {
        let before = db.stats().unwrap().log.bytes;
        tx.abort().unwrap();
        db.stats().unwrap().log.bytes - before
    };
    assert!(abort < 1000, "{abort} bytes of log to bring it back");
}

#[test]
fn a_value_may_be_larger_than_the_log() {
    let small_log = options()
        .log_limit_bytes(4 << 20)
        .log_buffer_bytes(2 << 20)
        .cache_bytes(64 * PAGE)
        .checkpoint_policy(Arc::new(Never));
    let db = small_log.in_memory().unwrap();
    let tree = with_tree(&db);
    let len = 16 << 20;
    let source = || io::repeat(7).take(len);
    db.update(|tx| tx.put_stream(&tree, "k", source())).unwrap();
    let read = db.read().unwrap();
    let mut reader = read.value_reader(&tree, "k").unwrap().unwrap();
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), len);
    drop(reader);
    read.finish().unwrap();

    // Who has written holds the log, and hears of its end; nothing is lost by that.
    let tx = db.begin().unwrap();
    tx.put(&tree, "before", "1").unwrap();
    let refused = tx.put_stream(&tree, "k2", source());
    assert!(matches!(refused, Err(Error::LogFull { .. })), "{refused:?}");
    tx.put(&tree, "after", "1").unwrap();
    tx.commit().unwrap();
    settle_long(&db);
    assert_sound(&db);
    assert!(db.read().unwrap().get(&tree, "k2").unwrap().is_none());
}

/// As `settle`, for values of many pages.
fn settle_long(db: &Db) {
    (0..1000).take_while(|_| db.stats().unwrap().frees_waiting > 0).for_each(|_| drop(db.read()));
    settle(db);
}

#[test]
fn threads_read_whole_values_while_others_replace_them() {
    let db = argali::Options::new().cache_bytes(48 * PAGE).in_memory().unwrap();
    let tree = with_tree(&db);
    let put = |seed: u8| {
        let len = if seed.is_multiple_of(5) { 10 } else { 20_000 + usize::from(seed) * 100 };
        db.update(|tx| tx.put(&tree, [seed % 3], vec![seed; len]))
    };
    (0..3).for_each(|seed| drop(put(seed).unwrap()));
    std::thread::scope(|threads| {
        for worker in 0..2_u8 {
            threads.spawn(move || (0..60).for_each(|n| drop(put(worker * 100 + n).unwrap())));
        }
        for isolation in [Isolation::ReadCommitted, Isolation::Serializable] {
            let (db, tree) = (&db, &tree);
            threads.spawn(move || {
                for n in 0..200_u8 {
                    let read = db.read_with(isolation).unwrap();
                    let one = read.get(tree, [n % 3]).map(Option::unwrap);
                    let all = read.scan_all(tree).unwrap().collect::<Result<Vec<_>>>();
                    let found = one.and_then(|one| all.map(|all| (one, all)));
                    let Ok((one, all)) = found else {
                        assert!(found.unwrap_err().is_retryable());
                        continue;
                    };
                    for (_, value) in all.into_iter().chain([(Vec::new(), one)]) {
                        assert!(value.iter().all(|byte| *byte == value[0]), "a value of two");
                    }
                }
            });
        }
    });
    assert_sound(&db);
}

/// The last step of a large value can fail, too: here its leaf must be split, and the value itself has
/// taken the last page for that.
#[test]
fn a_large_value_whose_row_finds_no_room_leaves_everything_as_it_was() {
    const PAGES: u64 = 64;
    let db = options().pages_max(PAGES).in_memory().unwrap();
    let tree = with_tree(&db);
    let long_key = |n: u8| vec![n; tree.key_bytes_max()];
    let mut refused = 0;
    for n in 0..12 {
        let before = pages(&db);
        let all_the_rest = value(n, (PAGES - before) as usize * PART);
        let tx = db.begin().unwrap();
        match tx.put(&tree, long_key(n), &all_the_rest) {
            Ok(_) => tx.abort().unwrap(),
            Err(Error::Full { .. }) => {
                refused += 1;
                assert_eq!(tx.get(&tree, long_key(n)).unwrap(), None, "the transaction goes on");
                tx.commit().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(pages(&db), before, "round {n}");
        assert_sound(&db);
        db.update(|tx| tx.put(&tree, long_key(n), "small")).unwrap();
    }
    assert!((2..10).contains(&refused), "{refused} of 12 needed a split");
}

#[test]
fn reading_a_large_value_leaves_the_cache_to_others() {
    const FRAMES: usize = 256;
    let db = options().cache_bytes(FRAMES * PAGE).in_memory().unwrap();
    let tree = with_tree(&db);
    db.update(|tx| tx.put(&tree, "large", value(1, 4 * FRAMES * PAGE))).unwrap();
    let hot = common::fill(&db, "hot", 5000);
    let misses = || db.stats().unwrap().pool.misses;
    let use_hot = || assert_eq!(db.read().unwrap().scan_all(&hot).unwrap().count(), 5000);
    // Until the pages that were in use before have gone.
    let read = db.read().unwrap();
    let open = || read.value_reader(&tree, "large").unwrap().unwrap();
    io::copy(&mut open(), &mut io::sink()).unwrap();
    (0..2).for_each(|_| use_hot());
    let mut reader = open();
    let (mut passed, mut again) = (0, 0);
    while !reader.fill_buf().unwrap().is_empty() {
        let before = misses();
        io::copy(&mut reader.by_ref().take((FRAMES * 3 / 4 * PART) as u64), &mut io::sink())
            .unwrap();
        let between = misses();
        use_hot();
        (passed, again) = (passed + between - before, again + misses() - between);
    }
    assert!(passed > 3 * FRAMES as u64, "only {passed} pages were read");
    assert!(again <= 3, "{again} hot pages had to be read again beside {passed}");
}
