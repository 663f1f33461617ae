//! Bulk loads, for the crash tests: built beside the tree, exchanged with it, taken back.

use argali::Result;

use super::{Client, End};

/// Trees loaded in bulk: empty ones, emptied ones, some with rows; taken back by savepoints and aborts.
pub fn loads(client: &mut Client) -> Result<()> {
    for round in 0..8_u64 {
        client.transaction(|work| {
            let tree = work.tree("loads")?;
            let count = work.rng.u64(1..100);
            if round % 5 == 2 {
                let savepoint = work.write.savepoint()?;
                savepoint.delete_range::<&str>(&tree, ..)?;
                let row = |n| Ok((row_key(n), "taken back"));
                savepoint.bulk_load(&tree, (0..count).map(row))?;
                savepoint.put(&tree, "with", "the rest")?;
                savepoint.rollback()?;
            }
            if round % 2 == 0 {
                work.delete_range(&tree, row_key(0)..row_key(9999))?;
            }
            let first = work.state["loads"].keys().next_back().map_or(0, |last| number(last) + 1);
            let rows = (first..first + count).map(|n| (row_key(n), work.fresh(150))).collect();
            work.bulk_load(&tree, rows)?;
            let value = work.fresh(20);
            work.put(&tree, &row_key(first + count / 2), value)?;
            Ok(if round % 4 == 2 { End::Abort } else { End::Commit })
        })?;
    }
    Ok(())
}

fn number(key: &[u8]) -> u64 {
    std::str::from_utf8(&key[1..]).expect("as `key` made it").parse().expect("digits")
}

fn row_key(n: u64) -> Vec<u8> {
    format!("k{n:04}").into_bytes()
}
