//! Which steps a workload takes, and how often each: the mixes of the campaigns.

use argali_txn::Durability;

/// How often each kind of step is taken, relative to the others.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub name: &'static str,
    /// Steps of one run.
    pub steps: usize,
    /// Transactions open at a time.
    pub sessions: usize,
    pub count: u32,
    pub set: u32,
    pub append: u32,
    /// Counts on many pages in a row: more than the pool has frames.
    pub sweep: u32,
    pub restructure: u32,
    /// Overwrites a page with a record that makes it anew, as it is.
    pub rewrite: u32,
    pub nested: u32,
    pub savepoint: u32,
    pub rollback: u32,
    pub commit: u32,
    pub relaxed: u32,
    pub abort: u32,
    /// Prepares a transaction whose end the coordinator has decided already; see [`gid`].
    pub prepare: u32,
    /// Tells the oldest prepared transaction how it ends.
    pub decide: u32,
    pub checkpoint: u32,
    pub write_back: u32,
    pub sync: u32,
}

const NOTHING: Mix = Mix {
    name: "nothing",
    steps: 40,
    sessions: 3,
    count: 0,
    set: 0,
    append: 0,
    sweep: 0,
    restructure: 0,
    rewrite: 0,
    nested: 0,
    savepoint: 0,
    rollback: 0,
    commit: 0,
    relaxed: 0,
    abort: 0,
    prepare: 0,
    decide: 0,
    checkpoint: 0,
    write_back: 0,
    sync: 0,
};

/// Small commits, one after another.
pub const COUNTERS: Mix =
    Mix { name: "counters", sessions: 1, count: 6, commit: 4, write_back: 1, ..NOTHING };
/// Everything that is not idempotent, interleaved.
pub const MIXED: Mix = Mix {
    name: "mixed",
    count: 6,
    set: 4,
    append: 4,
    commit: 5,
    relaxed: 1,
    abort: 2,
    write_back: 3,
    sync: 1,
    ..NOTHING
};
/// Transactions larger than the pool that mostly abort.
pub const STEAL: Mix =
    Mix { name: "steal", count: 3, append: 3, sweep: 3, commit: 1, abort: 3, ..NOTHING };
/// Transactions that do not end, and pages written meanwhile: losers in few steps.
pub const LOSERS: Mix = Mix {
    name: "losers",
    steps: 8,
    sessions: 2,
    count: 3,
    append: 2,
    nested: 1,
    commit: 1,
    write_back: 4,
    ..NOTHING
};
/// Partial rollbacks.
pub const SAVEPOINTS: Mix = Mix {
    name: "savepoints",
    count: 5,
    append: 3,
    savepoint: 4,
    rollback: 4,
    commit: 2,
    abort: 1,
    write_back: 2,
    ..NOTHING
};
/// Structure changes inside transactions that abort.
pub const STRUCTURE: Mix = Mix {
    name: "structure",
    count: 3,
    restructure: 3,
    nested: 3,
    commit: 2,
    abort: 3,
    write_back: 3,
    ..NOTHING
};
/// Checkpoints all the time.
pub const CHECKPOINTS: Mix = Mix {
    name: "checkpoints",
    count: 6,
    append: 3,
    sweep: 1,
    commit: 3,
    abort: 1,
    checkpoint: 3,
    write_back: 3,
    sync: 1,
    ..NOTHING
};
/// Pages made anew, changed before and after, written and written again.
pub const REWRITES: Mix = Mix {
    name: "rewrites",
    count: 5,
    append: 3,
    rewrite: 6,
    commit: 3,
    abort: 1,
    checkpoint: 2,
    write_back: 5,
    sync: 2,
    ..NOTHING
};
/// Two-phase commits that take their time: most crashes leave somebody in doubt.
pub const IN_DOUBT: Mix = Mix {
    name: "in doubt",
    steps: 60,
    count: 6,
    append: 3,
    savepoint: 1,
    rollback: 1,
    nested: 1,
    commit: 1,
    prepare: 4,
    decide: 3,
    checkpoint: 2,
    write_back: 3,
    ..NOTHING
};
/// Few steps, several in doubt.
pub const FEW_IN_DOUBT: Mix = Mix {
    name: "few in doubt",
    steps: 14,
    sessions: 2,
    count: 4,
    prepare: 4,
    decide: 1,
    write_back: 2,
    ..NOTHING
};
/// Commits that nobody waits for, then one that takes them all to the disk: long log writes.
pub const BURSTS: Mix =
    Mix { name: "bursts", steps: 30, sessions: 1, count: 12, relaxed: 5, commit: 1, ..NOTHING };
/// Everything.
pub const ALL: Mix = Mix {
    name: "all",
    count: 8,
    set: 4,
    append: 4,
    sweep: 1,
    restructure: 2,
    nested: 2,
    savepoint: 2,
    rollback: 2,
    commit: 5,
    relaxed: 1,
    abort: 2,
    checkpoint: 2,
    write_back: 4,
    sync: 1,
    ..NOTHING
};

impl Mix {
    /// The same mix with another number of steps.
    pub const fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    pub fn draw(&self, rng: &mut fastrand::Rng) -> Step {
        let table = [
            (self.count, Step::Count),
            (self.set, Step::Set),
            (self.append, Step::Append),
            (self.sweep, Step::Sweep),
            (self.restructure, Step::Restructure),
            (self.rewrite, Step::Rewrite),
            (self.nested, Step::Nested),
            (self.savepoint, Step::Savepoint),
            (self.rollback, Step::Rollback),
            (self.commit, Step::Commit(Durability::Sync)),
            (self.relaxed, Step::Commit(Durability::Relaxed)),
            (self.abort, Step::Abort),
            (self.prepare, Step::Prepare),
            (self.decide, Step::Decide),
            (self.checkpoint, Step::Checkpoint),
            (self.write_back, Step::WriteBack),
            (self.sync, Step::Sync),
        ];
        let mut ticket = rng.u32(0..table.iter().map(|(weight, _)| weight).sum());
        for (weight, step) in table {
            if ticket < weight {
                return step;
            }
            ticket -= weight;
        }
        unreachable!("the ticket is below the sum of the weights")
    }
}

/// What a workload does next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Count,
    Set,
    Append,
    Sweep,
    Restructure,
    Rewrite,
    Nested,
    Savepoint,
    Rollback,
    Commit(Durability),
    Abort,
    Prepare,
    Decide,
    Checkpoint,
    WriteBack,
    Sync,
}
