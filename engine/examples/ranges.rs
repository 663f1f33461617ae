//! Order: readings of a sensor, loaded in bulk, walked in both directions, and thrown away by age.
//!
//! `cargo run -p argali --example ranges`

use argali::{Options, Result};

/// Keys sort as numbers when they are big-endian.
fn at(minute: u64) -> [u8; 8] {
    minute.to_be_bytes()
}

fn minute(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn main() -> Result<()> {
    let db = Options::new().in_memory()?;

    // Sorted rows go in page by page, with less than half the log of as many puts.
    let mut tx = db.begin()?;
    let readings = tx.tree("readings")?;
    let day = (0..1440_u64).map(|n| Ok((at(n), format!("{:.1}", 20.0 + (n % 97) as f64 / 10.0))));
    println!("{} readings loaded", tx.bulk_load(&readings, day)?);
    tx.commit()?;

    // A scan turns round; it holds nothing between two rows.
    let read = db.read()?;
    for row in read.scan(&readings, at(600)..at(660))?.rev().take(3) {
        let (key, value) = row?;
        println!("minute {} before eleven: {}", minute(&key), String::from_utf8_lossy(&value));
    }

    // A cursor goes both ways from wherever it stands: the reading nearest to a moment.
    let mut cursor = read.cursor(&readings)?;
    let above = cursor.seek(at(700))?.map(|(key, _)| minute(key));
    let below = cursor.prev()?.map(|(key, _)| minute(key));
    println!("around minute 700: {below:?} and {above:?}");
    let stats = read.tree_stats(&readings)?;
    println!("the planner is told: {stats:?}");
    drop(cursor);
    read.finish()?;

    // Old readings go as a range; the emptied pages are used again.
    let gone = db.update(|tx| tx.delete_range(&readings, ..at(720)))?;
    println!("{gone} readings of the morning are gone");
    assert!(db.verify()?.is_sound());
    Ok(())
}
