//! The arguments of every command, and the help texts made from them.
//!
//! `-h` fits on one screen: each option has a first sentence that is enough to use it. `--help` adds the
//! paragraphs below that sentence and the examples. Arguments are checked here as far as one argument
//! alone can be checked; what only makes sense together is checked by the command.

pub(crate) mod history;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::copies::{BackupArgs, RepairArgs, RestoreArgs};
use crate::output::{self, Format};
use history::{HistoryArgs, HistoryChildArgs};

const EXAMPLES: &str = "\
Examples:
  argali demo --seconds 5              crash a bank and prove that nothing is lost
  argali demo --seeds 50 --seconds 1   the same proof over fifty seeds
  argali put ./db colour blue --create make a database with one pair in it
  argali scan ./db --prefix co         list pairs
  argali check ./db                    verify every checksum and structure

Exit codes:
  0 fine   1 failure   2 usage   3 corruption found   4 no database there   5 in use";

const CODES: &str =
    "Exit codes: 0 fine, 1 failure, 2 usage, 3 corruption, 4 no database, 5 in use.";

/// A transactional storage engine that survives any crash
///
/// argali keeps ordered trees of keys and values in a directory, changes them in transactions, and after
/// any crash recovers by the three passes of ARIES: analysis, redo, undo. This command shows it
/// (`demo`), lets you look into a database (`info`, `check`, `stats`), use it (`get`, `put`, `delete`,
/// `scan`, `bank`), watch its isolation (`history`), and hand it to a crash tester (`torture`).
#[derive(Debug, Parser)]
#[command(name = "argali", version, after_help = CODES, after_long_help = EXAMPLES)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Args {
    /// How to write results
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    #[arg(hide_possible_values = true, help = "How to write results: text or json")]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Everything `argali` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Crash a bank, recover it and prove that nothing is lost
    ///
    /// Loads a bank, lets a child process make concurrent transfers with durable commits, kills it with
    /// SIGKILL in mid-flight and recovers. Then it proves from the child's acknowledgements that every
    /// acknowledged transfer is there, none is half there and the sum is unchanged. A second act does
    /// the same with power cuts on a simulated disk, where un-synced writes are lost, reordered and torn
    /// (killing a process loses nothing that the operating system cached). The exit status is 0 only
    /// when every proof holds.
    Demo(DemoArgs),
    /// The process that `demo` kills
    #[command(hide = true)]
    DemoChild(DemoChildArgs),
    /// Load, run or check the bank of the demo in a directory of yours
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Bank {
        #[command(subcommand)]
        command: BankCommand,
    },
    /// What a database is: formats, log, clean or not; never writes
    ///
    /// Reads the control file and the directory only, so that it works beside a process that has the
    /// database open, and on one that needs recovery.
    Info(Target),
    /// Verify every checksum and structure; never writes
    ///
    /// Needs a database that was shut down cleanly: one that was not is neither damaged nor whole before
    /// it is recovered, so `check` says so and exits with 1. Damage gives 3, with file and offset.
    Check(Target),
    /// Sizes and counters: pages, trees, log and what holds it; never writes
    Stats(Target),
    /// Take a checkpoint, so that the next recovery is short (recovers first if it must)
    Checkpoint(CheckpointArgs),
    /// List transactions in doubt, and decide them in their coordinator's stead
    ///
    /// A prepared transaction waits for somebody outside to say how it ends, holding its locks and the log
    /// from its first record on, over restarts, too. Decide only what the coordinator has decided, or will
    /// never decide.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Prepared {
        #[command(subcommand)]
        command: PreparedCommand,
    },
    /// Print the value of a key
    Get(GetArgs),
    /// Set the value of a key
    Put(PutArgs),
    /// Delete a key
    Delete(GetArgs),
    /// List pairs in key order
    Scan(ScanArgs),
    /// Record what concurrent clients see, and show that their isolation level permits it
    ///
    /// Clients run short transactions that meet on few rows and write down every call with its answer.
    /// From that alone a checker infers who depends on whom. Each cycle is an anomaly, with a name and a
    /// level that permits it (docs/isolation.md). The exit status is 0 only when nothing was seen that
    /// the level forbids. A history of any length is judged in chapters of 100,000 transactions.
    History(HistoryArgs),
    /// The process that `history --crash` kills
    #[command(hide = true)]
    HistoryChild(HistoryChildArgs),
    /// Copy a database to a backup (recovers first if it must)
    ///
    /// For a database that no process has open; one that has it open makes a backup itself, while it works.
    Backup(BackupArgs),
    /// Make a new database out of a backup, and roll it forward
    ///
    /// Copies and checks the backup, then recovers as after a crash. With the log of the original it goes on from
    /// where the backup ends, up to the end of that log or the record that is asked for. The new
    /// database is on a timeline of its own.
    Restore(RestoreArgs),
    /// Verify everything and rebuild damaged pages, from the log or a backup
    ///
    /// As `check`, but writes: a page that is damaged on disk is made anew from its last image in the log (or
    /// its copy in the backup) and every change since, where those are within reach. What stays damaged
    /// is listed and gives 3.
    Repair(RepairArgs),
    /// Run or verify the workload for outside crash testers (see docs/torture.md)
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Torture {
        #[command(subcommand)]
        command: TortureCommand,
    },
}

/// A database.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Directory of the database
    pub(crate) dir: PathBuf,
}

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  argali demo
  argali demo --dir ./bank --seconds 10     keep the database and look at it afterwards
  argali demo --seeds 50 --seconds 0.5      fifty banks, fifty crashes, fifty proofs")]
pub(crate) struct DemoArgs {
    /// Keep the database here (default: a temporary directory)
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Accounts of the bank
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) accounts: u32,
    /// Threads that make transfers
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// Seconds until the kill
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Seed of transfers, of the kill's instant and of the power cuts (default: from the clock)
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Repeat with this many seeds, one line each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
}

/// Arguments of the hidden child of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoChildArgs {
    /// Directory of the bank, which exists
    pub(crate) dir: PathBuf,
    /// Threads that make transfers
    #[arg(long)]
    pub(crate) threads: u32,
    /// Seed of the transfers
    #[arg(long)]
    pub(crate) seed: u64,
}

/// Commands under `bank`.
#[derive(Debug, Subcommand)]
pub(crate) enum BankCommand {
    /// Make a bank
    Load {
        /// Directory of the database, made when it does not exist
        dir: PathBuf,
        /// Accounts, with a balance of 1000 each
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
        accounts: u32,
    },
    /// Make concurrent durable transfers and print the throughput
    Run {
        /// Directory of the bank
        dir: PathBuf,
        /// Threads that make transfers
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: u32,
        /// How long
        #[arg(long, default_value = "5", value_parser = seconds)]
        seconds: Duration,
        /// Seed of the transfers
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// What a commit waits for
        #[arg(long, value_enum, default_value_t)]
        durability: DurabilityArg,
    },
    /// Replay the journal against the balances (recovers first if it must)
    Check(Target),
}

/// Commands under `prepared`.
#[derive(Debug, Subcommand)]
pub(crate) enum PreparedCommand {
    /// Name the transactions in doubt; never recovers or writes
    List(Target),
    /// Commit a transaction in doubt (recovers first if it must)
    Commit {
        /// Directory of the database
        dir: PathBuf,
        /// Name it was prepared under
        gid: String,
    },
    /// Take a transaction in doubt back (recovers first if it must)
    Abort {
        /// Directory of the database
        dir: PathBuf,
        /// Name it was prepared under
        gid: String,
    },
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// The disk has it
    #[default]
    Sync,
    /// The disk has it; waits up to a millisecond for company
    Group,
    /// Nothing: a crash may lose the last tenth of a second
    Relaxed,
}

impl From<DurabilityArg> for argali::Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Sync => Self::Sync,
            DurabilityArg::Group => Self::Group(Duration::from_millis(1)),
            DurabilityArg::Relaxed => Self::Relaxed,
        }
    }
}

/// Arguments of `checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckpointArgs {
    /// Directory of the database
    pub(crate) dir: PathBuf,
    /// Which dirty pages to write first
    #[arg(long, value_enum, default_value_t)]
    pub(crate) flush: FlushArg,
}

/// Which dirty pages a checkpoint writes.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum FlushArg {
    /// None: the fuzzy checkpoint of the ARIES paper
    Nothing,
    /// Those dirty since before the previous checkpoint
    Old,
    /// All
    #[default]
    Everything,
}

impl From<FlushArg> for argali::Flush {
    fn from(arg: FlushArg) -> Self {
        match arg {
            FlushArg::Nothing => Self::Nothing,
            FlushArg::Old => Self::Old,
            FlushArg::Everything => Self::Everything,
        }
    }
}

/// How keys and values are read from arguments and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// As text; bytes that are no UTF-8 are written as \xNN (in JSON as {"hex": …})
    #[default]
    Utf8,
    /// As hexadecimal digits
    Hex,
}

impl Encoding {
    /// The bytes that argument `text` stands for.
    pub(crate) fn bytes(self, what: &'static str, text: &str) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Utf8 => Ok(text.as_bytes().to_vec()),
            Self::Hex => output::from_hex(text).ok_or_else(|| {
                let why = format!("{text:?} is not a whole number of hexadecimal bytes");
                argali::Error::Invalid { what, why }.into()
            }),
        }
    }

    /// `bytes` as text output.
    pub(crate) fn text(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8 => output::escaped(bytes),
            Self::Hex => output::hex(bytes),
        }
    }

    /// `bytes` as JSON output.
    pub(crate) fn json(self, bytes: &[u8]) -> serde_json::Value {
        match self {
            Self::Utf8 => output::json_bytes(bytes),
            Self::Hex => serde_json::json!({ "hex": output::hex(bytes) }),
        }
    }
}

/// Where a key-value command works, and in which notation.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Directory of the database
    pub(crate) dir: PathBuf,
    /// Tree that holds the pairs
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub(crate) tree: String,
    /// Notation of keys and values
    #[arg(long, value_enum, default_value_t, value_name = "NOTATION")]
    pub(crate) encoding: Encoding,
}

/// Arguments of `get` and `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Key
    pub(crate) key: String,
}

/// Arguments of `put`.
#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Key
    pub(crate) key: String,
    /// Value
    pub(crate) value: String,
    /// Make the database when there is none
    #[arg(long)]
    pub(crate) create: bool,
}

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only keys that begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// At most this many pairs
    #[arg(long, value_name = "PAIRS")]
    pub(crate) limit: Option<u64>,
}

/// Commands under `torture`.
#[derive(Debug, Subcommand)]
pub(crate) enum TortureCommand {
    /// Run the workload and print META, TRY, ACK and ABT lines
    ///
    /// Each line is one write(2). With one client everything the workload does is decided by the seed,
    /// background work included. On an I/O error it exits with a code other than 0.
    Workload {
        /// Directory of the database, made when it does not exist
        dir: PathBuf,
        /// Decides keys, values, aborts, savepoints, checkpoints
        #[arg(long)]
        seed: u64,
        /// Concurrent clients
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        clients: u32,
        /// Transactions of all clients together
        #[arg(long, default_value_t = 400)]
        transactions: u64,
        /// Page protection of a new database
        #[arg(long, value_enum, default_value_t)]
        torn_pages: TornPagesArg,
    },
    /// Recover, check everything, print every pair and {"end":COUNT}
    Verify(Target),
    /// Kill the workload and its recoveries again and again, and judge what is left each time
    ///
    /// One database in DIR goes through all kills. Each time everything that was acknowledged must be
    /// there, nothing half, and the files must stay bounded by what lives. Ends with 0 only if all held.
    Soak {
        /// Directory of the database, made when it does not exist
        dir: PathBuf,
        /// How often the workload is killed with SIGKILL
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        kills: u32,
        /// Decides the workload and the instants of the kills
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// What protects a page whose write was cut short.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum TornPagesArg {
    /// A copy beside the data file
    #[default]
    DoubleWrite,
    /// A copy in the log
    FullPageImage,
    /// Nothing: the disk must write pages atomically
    None,
}

impl From<TornPagesArg> for argali::TornPages {
    fn from(arg: TornPagesArg) -> Self {
        match arg {
            TornPagesArg::DoubleWrite => Self::DoubleWrite,
            TornPagesArg::FullPageImage => Self::FullPageImage,
            TornPagesArg::None => Self::None,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be between 0.01 and 86400".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err());
        assert!(seconds("NaN").is_err());
        assert!(seconds("1e9").is_err());
    }
}
