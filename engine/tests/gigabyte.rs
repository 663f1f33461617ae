//! The largest value there may be, as a stream, in the memory of the cache and a few pages.
//!
//! `cargo test -p argali --test gigabyte -- --ignored --nocapture` (takes a minute and 2 GiB of disk; prints what it
//! measured).
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod common;

use std::io::{self, BufRead, Read};
use std::time::Instant;

use argali::{Error, Options, VALUE_BYTES_MAX};
use common::assert_sound;

const MIB: u64 = 1 << 20;

/// Most memory this process ever had resident, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes that show where they belong.
struct Pattern(u64);

impl Read for Pattern {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buf {
            *byte = pattern(self.0);
            self.0 += 1;
        }
        Ok(buf.len())
    }
}

fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16) ^ (at >> 24)) as u8
}

#[test]
#[ignore = "writes a gigabyte; the command is in the head of this file"]
fn a_gigabyte_passes_through_little_memory() {
    let options = Options::new().cache_bytes(16 << 20).log_limit_bytes(256 << 20);
    let db = options.temporary().unwrap();
    let tree = db.update(|tx| tx.tree("t")).unwrap();
    let before = peak_memory();

    let (begun, logged) = (Instant::now(), db.stats().unwrap().log.bytes);
    let stored = db.update(|tx| tx.put_stream(&tree, "k", Pattern(0).take(VALUE_BYTES_MAX)));
    assert_eq!(stored.unwrap(), VALUE_BYTES_MAX);
    let logged = db.stats().unwrap().log.bytes - logged;
    println!("stored in {:.1?}, {} MiB of log", begun.elapsed(), logged / MIB);
    assert!(logged < VALUE_BYTES_MAX * 104 / 100);

    let begun = Instant::now();
    let read = db.read().unwrap();
    let mut reader = read.value_reader(&tree, "k").unwrap().unwrap();
    let mut at = 0;
    loop {
        let part = reader.fill_buf().unwrap();
        if part.is_empty() {
            break;
        }
        assert!(part.iter().zip(at..).all(|(byte, at)| *byte == pattern(at)), "behind {at}");
        let bytes = part.len();
        at += bytes as u64;
        reader.consume(bytes);
    }
    assert_eq!(at, VALUE_BYTES_MAX);
    println!("read in {:.1?}", begun.elapsed());
    drop(reader);
    read.finish().unwrap();

    let more = db.update(|tx| tx.put_stream(&tree, "l", Pattern(0).take(VALUE_BYTES_MAX + 1)));
    assert!(matches!(more, Err(Error::TooLarge { what: "value", .. })), "{more:?}");
    let grown = peak_memory() - before;
    println!("peak memory grew by {} MiB, cache 16 MiB, log buffer included", grown / MIB);
    assert!(grown < 64 * MIB, "{grown} bytes");

    let begun = Instant::now();
    db.update(|tx| tx.remove(&tree, "k")).unwrap();
    while db.stats().unwrap().frees_waiting > 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    println!("freed in {:.1?}", begun.elapsed());
    assert_sound(&db);
}
