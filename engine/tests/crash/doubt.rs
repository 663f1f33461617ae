//! The coordinator of the crash tests: it knows from the start how each prepared transaction ends, and what
//! nobody may touch until then. Both are in the gid.
//!
//! ```text
//!  commit/7/slots/k0003     will commit; holds the row k0003 of the tree "slots"
//!  abort/8/made8/           will abort; holds the name "made8" itself
//! ```

use std::sync::Arc;

use argali::disk::{Disk, SimDisk};
use argali::{Db, Error, Result, info_on};

use super::workload::key;
use super::{Client, End, Work};

/// What a gid says.
pub struct Gid<'g> {
    pub commits: bool,
    tree: &'g str,
    key: &'g str,
}

/// The gid of a transaction that holds `key` of `tree`, or `tree` itself when that is empty.
pub fn gid(commits: bool, serial: u64, tree: &str, key: &str) -> String {
    format!("{}/{serial}/{tree}/{key}", if commits { "commit" } else { "abort" })
}

impl<'g> Gid<'g> {
    pub fn parse(gid: &'g str) -> Self {
        let parts: Vec<&str> = gid.split('/').collect();
        let [end, _, tree, key] = parts[..] else { panic!("{gid:?} is none of ours") };
        Self { commits: end == "commit", tree, key }
    }
}

/// Tells the transaction called `gid` how it ends.
pub fn decide(db: &Db, gid: &str) -> Result<()> {
    if Gid::parse(gid).commits { db.commit_prepared(gid).map(drop) } else { db.abort_prepared(gid) }
}

/// A database just opened: nobody gets at what is in doubt, everything is sound all the same, and a look from
/// outside shows the same list. Then everything is decided.
pub fn decide_all(db: &Db, disk: &SimDisk) -> Result<(), String> {
    let listed = db.prepared();
    if listed.is_empty() {
        return Ok(());
    }
    for one in &listed {
        if touch(db, &Gid::parse(&one.gid)).map_err(|e| format!("touching: {e}"))? {
            return Err(format!("{} is in doubt, but what it changed is not locked", one.gid));
        }
    }
    let seen = db.verify().map_err(|e| format!("verify in doubt: {e}"))?;
    if !seen.is_sound() {
        return Err(format!("in doubt: {:#?}", seen.findings));
    }
    let image = Arc::new(disk.process_kill()) as Arc<dyn Disk>;
    let outside = info_on(&image).map_err(|e| format!("info: {e}"))?;
    if outside.prepared != listed {
        return Err(format!("info lists {:?}, the database {listed:?}", outside.prepared));
    }
    for one in &listed {
        decide(db, &one.gid).map_err(|e| format!("deciding {}: {e}", one.gid))?;
        let again = decide(db, &one.gid);
        if !matches!(again, Err(Error::NotFound { .. })) {
            return Err(format!("deciding {} again: {again:?}", one.gid));
        }
    }
    Ok(())
}

/// Whether somebody else can write what the transaction holds.
fn touch(db: &Db, gid: &Gid<'_>) -> Result<bool> {
    let mut tx = db.begin()?;
    let touched = tx.tree(gid.tree).and_then(|tree| tx.put(&tree, gid.key, "mine"));
    match touched {
        Ok(_) => Ok(true),
        Err(Error::LockTimeout { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Two-phase commits that take their time: counters that must count once, trees made and dropped in doubt,
/// other transactions and checkpoints in between. What is in doubt is locked, so each transaction takes a
/// slot and a name of its own until it is decided.
pub fn in_doubt(client: &mut Client) -> Result<()> {
    client.transaction(|work| work.tree("slots").map(|_| End::Commit))?;
    for round in 0..30_u64 {
        let taken: Vec<String> = client.in_doubt.iter().cloned().collect();
        client.transaction(|work| {
            let free = |slot: &u64| !taken.iter().any(|gid| gid.ends_with(&format!("/k{slot:04}")));
            let slot =
                (0..8).filter(free).nth(work.rng.usize(0..3)).expect("at most four in doubt");
            let tree = work.tree("slots")?;
            let count = work.write.get_for_update(&tree, key(slot))?.map_or(0, |old| old.len());
            work.put(&tree, &key(slot), vec![b'+'; count + 1])?;
            for _ in 0..4 {
                let (value, row) = (work.fresh(300), work.rng.u64(0..6));
                work.put(&tree, &key(1000 * (slot + 1) + row), value)?;
            }
            let commits = work.rng.bool();
            let mut prepared_as = gid(commits, round, "slots", &format!("k{slot:04}"));
            match round % 6 {
                0 | 3 => change_catalog(work, round, slot)?,
                1 => return Ok(End::Commit),
                2 if work.rng.bool() => return Ok(End::Abort),
                4 => {
                    let name = format!("made{round}");
                    let made = work.tree(&name)?;
                    work.put(&made, b"a", b"1".to_vec())?;
                    prepared_as = gid(commits, round, &name, &format!("k{slot:04}"));
                }
                _ => {}
            }
            Ok(End::Prepare(prepared_as))
        })?;
        if client.in_doubt.len() > 3 || round % 4 == 3 {
            client.decide()?;
        }
    }
    Ok(())
}

/// The slot's own tree comes or goes, and another is made behind a savepoint and taken back.
fn change_catalog(work: &mut Work<'_>, round: u64, slot: u64) -> Result<()> {
    let name = format!("of{slot}");
    if work.state.contains_key(&name) {
        work.drop_tree(&name)?;
    } else {
        let tree = work.tree(&name)?;
        for n in 0..20 {
            let value = work.fresh(300);
            work.put(&tree, &key(n), value)?;
        }
    }
    let mut savepoint = work.write.savepoint()?;
    let never = savepoint.tree(&format!("never{round}"))?;
    savepoint.put(&never, "a", "b")?;
    savepoint.rollback()
}
