//! Values of any size: a row may hold a word or a film.
//!
//! ```text
//! cargo run --release --example blobs [MiB]
//! ```
//!
//! A large value is written and read as a stream, in the memory of a few pages. It is a row like any
//! other: an abort takes it back, and its pages are free again after it was removed.

use std::io::{self, Read};
use std::time::Instant;

use argali::{Options, Result};

/// Bytes that could come from a file or a socket: they are made as they are read.
fn film(bytes: u64) -> impl Read {
    io::repeat(b'*').take(bytes)
}

fn main() -> Result<()> {
    let mib: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(64);
    let db = Options::new().temporary()?;
    let blobs = db.update(|tx| tx.tree("blobs"))?;

    let begun = Instant::now();
    db.update(|tx| tx.put_stream(&blobs, "film", film(mib << 20)))?;
    println!("stored {mib} MiB in {:.1?}", begun.elapsed());

    // Nobody sees half of a value, and an abort costs a few records, not another value.
    let tx = db.begin()?;
    tx.put_stream(&blobs, "film", film(1 << 20))?;
    tx.put(&blobs, "title", "a small value")?;
    tx.abort()?;

    let read = db.read()?;
    let begun = Instant::now();
    let mut reader = read.value_reader(&blobs, "film")?.expect("stored above");
    let len = reader.len();
    let copied = io::copy(&mut reader, &mut io::sink()).expect("a sink takes everything");
    println!("read {} MiB in {:.1?}", copied >> 20, begun.elapsed());
    assert_eq!((len, copied), (mib << 20, mib << 20));
    assert_eq!(read.get(&blobs, "title")?, None);
    drop(reader);
    read.finish()?;

    let pages = db.stats()?.pages_in_use;
    db.update(|tx| tx.remove(&blobs, "film"))?;
    while db.stats()?.frees_waiting > 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    println!("{pages} pages in use, {} after the film was removed", db.stats()?.pages_in_use);
    db.close()
}
