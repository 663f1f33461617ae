//! The arguments of `argali history`.

use std::path::PathBuf;

use argali::Isolation;
use clap::ValueEnum;

use crate::history::Shape;

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  argali history
  argali history --level read-committed --workload register   see what that level permits
  argali history --crash --transactions 100000                 go on across a hundred kills")]
pub(crate) struct HistoryArgs {
    /// Directory of the database, which must not exist yet (default: a temporary one)
    pub(crate) dir: Option<PathBuf>,
    /// What is done and promised
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Kill the clients' process with SIGKILL again and again; the history goes on after each recovery
    #[arg(long)]
    pub(crate) crash: bool,
}

/// What both the command and the process it kills are told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkArgs {
    /// Isolation of every transaction
    #[arg(long, value_enum, default_value_t)]
    pub(crate) level: LevelArg,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Shape::ListAppend)]
    pub(crate) workload: Shape,
    /// Concurrent clients
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) clients: u32,
    /// Transactions of all clients together, aborted ones included
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) transactions: u64,
    /// Decides what each client does, and the instants of the kills
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Arguments of the hidden process that `history --crash` kills.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryChildArgs {
    /// Directory of the database, made when it does not exist
    pub(crate) dir: PathBuf,
    /// Tree that holds the rows
    #[arg(long)]
    pub(crate) tree: String,
    /// First tick of its clock
    #[arg(long)]
    pub(crate) tick: u64,
    /// What is done and promised
    #[command(flatten)]
    pub(crate) work: WorkArgs,
}

/// An isolation level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// As if transactions ran one after another
    #[default]
    Serializable,
    /// What was read stays as it was; ranges may grow
    RepeatableRead,
    /// Only committed data is read
    ReadCommitted,
}

impl From<LevelArg> for Isolation {
    fn from(arg: LevelArg) -> Self {
        match arg {
            LevelArg::Serializable => Self::Serializable,
            LevelArg::RepeatableRead => Self::RepeatableRead,
            LevelArg::ReadCommitted => Self::ReadCommitted,
        }
    }
}

/// An argument as it is written on the command line.
pub(crate) fn name(arg: &impl ValueEnum) -> String {
    arg.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
