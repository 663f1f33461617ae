//! What the crash tests do to a database before the power goes.
//!
//! Each workload is hard in its own way: `mix` changes the same rows again and again, `bank` has an
//! invariant across rows, `splits` changes the shape of the tree, `steal` rolls back transactions larger
//! than the cache, `joins` fills a tree and empties it again and again, `checkpoints` takes every kind of
//! them in the middle of transactions, `ddl` creates and drops trees, `ranges` deletes many rows at a
//! time, `values` has values of many pages. What is prepared is in `doubt.rs`.

use argali::{Flush, Result};

use super::{Client, End, Work};

pub fn key(n: u64) -> Vec<u8> {
    format!("k{n:04}").into_bytes()
}

/// Puts and deletes on a few rows, with savepoint rollbacks and one abort in six.
pub fn mix(client: &mut Client) -> Result<()> {
    (0..60).try_for_each(|_| step_of_mix(client))
}

/// One transaction of `mix`.
pub fn step_of_mix(client: &mut Client) -> Result<()> {
    client.transaction(|work| {
        let tree = work.tree("mix")?;
        for _ in 0..work.rng.usize(1..8) {
            change(work, &tree, 60)?;
        }
        if work.rng.u8(0..4) == 0 {
            roll_back_part(work, &tree)?;
        }
        Ok(if work.rng.u8(0..6) == 0 { End::Abort } else { End::Commit })
    })
}

fn change(work: &mut Work<'_>, tree: &argali::Tree, keys: u64) -> Result<()> {
    let key = key(work.rng.u64(0..keys));
    if work.rng.u8(0..3) == 0 {
        return work.delete(tree, &key);
    }
    let len = work.rng.usize(8..160);
    let value = work.fresh(len);
    work.put(tree, &key, value)
}

/// Changes rows behind a savepoint and takes them back; the model never hears of it.
fn roll_back_part(work: &mut Work<'_>, tree: &argali::Tree) -> Result<()> {
    let keys: Vec<_> = (0..5).map(|_| key(work.rng.u64(0..60))).collect();
    let savepoint = work.write.savepoint()?;
    for (n, key) in keys.iter().enumerate() {
        if n % 2 == 0 {
            savepoint.put(tree, key, "rolled back")?;
        } else {
            savepoint.delete(tree, key)?;
        }
    }
    savepoint.rollback()
}

/// Transfers between twelve accounts: a read, two counters changed, the sum unchanged.
pub fn bank(client: &mut Client) -> Result<()> {
    const ACCOUNTS: u64 = 12;
    client.transaction(|work| {
        let tree = work.tree("bank")?;
        for account in 0..ACCOUNTS {
            work.put(&tree, &key(account), b"1000".to_vec())?;
        }
        Ok(End::Commit)
    })?;
    for _ in 0..60 {
        client.transaction(|work| {
            let tree = work.tree("bank")?;
            let (from, to) = (work.rng.u64(0..ACCOUNTS), work.rng.u64(0..ACCOUNTS));
            let amount = work.rng.i64(1..50);
            for (account, delta) in [(from, -amount), (to, amount)] {
                let old = work.write.get_for_update(&tree, key(account))?.expect("an account");
                let old: i64 = String::from_utf8(old).unwrap().parse().unwrap();
                work.put(&tree, &key(account), (old + delta).to_string().into_bytes())?;
            }
            Ok(if work.rng.u8(0..8) == 0 { End::Abort } else { End::Commit })
        })?;
    }
    let end = client.oracle.states.last().expect("at least the empty state");
    let sum: i64 =
        end["bank"].values().map(|v| std::str::from_utf8(v).unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!(sum, 1000 * ACCOUNTS as i64, "the model itself keeps the sum");
    Ok(())
}

/// Rows of a tenth of a page in changing order: the tree splits all the time, and shrinks at the end.
pub fn splits(client: &mut Client) -> Result<()> {
    for round in 0..12_u64 {
        client.transaction(|work| {
            let tree = work.tree("splits")?;
            for n in 0..8 {
                let place = if round % 2 == 0 { round * 8 + n } else { work.rng.u64(0..500) };
                let value = work.fresh(380);
                work.put(&tree, &key(place), value)?;
            }
            Ok(if round % 5 == 4 { End::Abort } else { End::Commit })
        })?;
    }
    client.transaction(|work| {
        let tree = work.tree("splits")?;
        let keys: Vec<_> = work.state["splits"].keys().cloned().collect();
        for key in keys.iter().step_by(2) {
            work.delete(&tree, key)?;
        }
        Ok(End::Commit)
    })
}

/// A tree of three levels that fills up and is emptied from the left, from the right, in the middle and in
/// between, some of it in vain: nodes are joined all the time, up to the root, which is lowered.
pub fn joins(client: &mut Client) -> Result<()> {
    for round in 0..12_u64 {
        client.transaction(|work| {
            let tree = work.tree("joins")?;
            for n in 0..24 {
                let len = work.rng.usize(40..260);
                let value = work.fresh(len);
                work.put(&tree, &long_key((n * 5 + round) % 64), value)?;
            }
            Ok(if round % 6 == 5 { End::Abort } else { End::Commit })
        })?;
        client.transaction(|work| {
            let tree = work.tree("joins")?;
            let keys: Vec<_> = work.state["joins"].keys().cloned().collect();
            for (n, key) in keys.iter().enumerate() {
                let doomed = match round % 4 {
                    0 => n < keys.len() * 3 / 4,
                    1 => n > keys.len() / 4,
                    2 => n > 1 && n + 2 < keys.len(),
                    _ => work.rng.u8(0..6) != 0,
                };
                if doomed {
                    work.delete(&tree, key)?;
                }
            }
            Ok(if round % 5 == 3 { End::Abort } else { End::Commit })
        })?;
        // A transaction without changes: the steps before it find what was deleted settled.
        client.transaction(|_| Ok(End::Abort))?;
    }
    let space = client.db.stats()?.space;
    assert!(space.joins > 30, "{space:?}");
    Ok(())
}

/// Few of them fit into an inner node.
fn long_key(n: u64) -> Vec<u8> {
    let mut key = vec![b'k'; 400];
    key.extend_from_slice(&self::key(n));
    key
}

/// Transactions larger than the cache, half of them rolled back: losers' pages reach the disk.
pub fn steal(client: &mut Client) -> Result<()> {
    for round in 0..4_u64 {
        client.transaction(|work| {
            let tree = work.tree("steal")?;
            for n in 0..90_u64 {
                let key = key((n * 7 + round * 31) % 150);
                if (n + round) % 9 == 0 {
                    work.delete(&tree, &key)?;
                } else {
                    let value = work.fresh(700);
                    work.put(&tree, &key, value)?;
                }
            }
            Ok(if round % 2 == 1 { End::Abort } else { End::Commit })
        })?;
    }
    Ok(())
}

/// All kinds of checkpoints, in the middle of transactions, too.
pub fn checkpoints(client: &mut Client) -> Result<()> {
    let kinds = [Flush::Nothing, Flush::Old, Flush::Everything];
    for round in 0..24_usize {
        let db = client.db.clone();
        client.transaction(|work| {
            let tree = work.tree("checkpoints")?;
            for n in 0..6 {
                change(work, &tree, 80)?;
                if n == 3 && round % 2 == 0 {
                    db.checkpoint(kinds[round / 2 % 3])?;
                }
            }
            Ok(if round % 4 == 3 { End::Abort } else { End::Commit })
        })?;
        if round % 3 == 0 {
            client.db.checkpoint(kinds[round / 3 % 3])?;
        }
    }
    Ok(())
}

/// Trees come and go, alone and together with rows, in transactions that commit and that do not.
pub fn ddl(client: &mut Client) -> Result<()> {
    for round in 0..16_u64 {
        client.transaction(|work| {
            let name = format!("tree{}", work.rng.u8(0..4));
            if work.state.contains_key(&name) {
                work.drop_tree(&name)?;
                if round % 4 == 1 {
                    let tree = work.tree(&name)?;
                    work.put(&tree, b"again", b"1".to_vec())?;
                }
            } else {
                let tree = work.tree(&name)?;
                for n in 0..work.rng.u64(1..30) {
                    let value = work.fresh(300);
                    work.put(&tree, &key(n), value)?;
                }
            }
            if round % 3 == 0 {
                let mut savepoint = work.write.savepoint()?;
                let tree = savepoint.tree("never")?;
                savepoint.put(&tree, "a", "b")?;
                savepoint.rollback()?;
            }
            Ok(if round % 4 == 2 { End::Abort } else { End::Commit })
        })?;
    }
    Ok(())
}

/// Ranges deleted, filled again and deleted once more in one transaction, behind savepoints, too.
pub fn ranges(client: &mut Client) -> Result<()> {
    for round in 0..24_u64 {
        client.transaction(|work| {
            let tree = work.tree("ranges")?;
            for _ in 0..10 {
                let place = key(work.rng.u64(0..100));
                let value = work.fresh(200);
                work.put(&tree, &place, value)?;
            }
            let from = work.rng.u64(0..100);
            let range = key(from)..key(from + 20);
            if round % 3 == 1 {
                let savepoint = work.write.savepoint()?;
                savepoint.delete_range(&tree, range.clone())?;
                savepoint.put(&tree, &range.start, "taken back with the rest")?;
                savepoint.rollback()?;
            }
            work.delete_range(&tree, range)?;
            let value = work.fresh(50);
            work.put(&tree, &key(from + 3), value)?;
            work.delete_range(&tree, key(from + 2)..key(from + 5))?;
            Ok(if round % 4 == 3 { End::Abort } else { End::Commit })
        })?;
    }
    Ok(())
}

/// Values from nothing to ten pages, replaced by larger and smaller ones, appended to, deleted, taken back to
/// savepoints and by aborts, and dropped with their tree.
pub fn values(client: &mut Client) -> Result<()> {
    for round in 0..18_u64 {
        client.transaction(|work| {
            let tree = work.tree("values")?;
            for _ in 0..work.rng.usize(1..4) {
                change_large(work, &tree)?;
            }
            if round % 4 == 1 {
                let savepoint = work.write.savepoint()?;
                savepoint.put(&tree, key(0), [1; 9000])?;
                savepoint.remove(&tree, key(1))?;
                savepoint.put(&tree, key(0), "small")?;
                savepoint.rollback()?;
            }
            if round % 6 == 5 {
                work.drop_tree("values")?;
            }
            Ok(if round % 5 == 3 { End::Abort } else { End::Commit })
        })?;
    }
    Ok(())
}

fn change_large(work: &mut Work<'_>, tree: &argali::Tree) -> Result<()> {
    let key = key(work.rng.u64(0..4));
    match work.rng.u8(0..5) {
        0 => work.delete(tree, &key),
        // Twice would show.
        1 => {
            let mut longer = work.write.get_for_update(tree, &key)?.unwrap_or_default();
            longer.extend_from_slice(&work.fresh(5000));
            work.put(tree, &key, longer)
        }
        2 => {
            let small = work.fresh(20);
            work.put(tree, &key, small)
        }
        _ => {
            let len = work.rng.usize(800..40_000);
            let large = work.fresh(len);
            work.put(tree, &key, large)
        }
    }
}
