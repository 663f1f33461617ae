//! The `argali` command: a bank that survives any crash, and the tools around a database directory.
//!
//! ```text
//!  args ──► main ──┬─► demo      crash a bank, recover it, prove it      (demo/…)
//!                  ├─► bank      the same bank, step by step             (bank/…)
//!                  ├─► inspect   info, check, stats: never write
//!                  ├─► data      get, put, delete, scan, checkpoint
//!                  ├─► history   what concurrent clients see, judged    (history/…)
//!                  ├─► copies    backup, restore, repair
//!                  └─► torture   the protocol for outside crash testers  (torture/…)
//!        all of them: output (numbers, tables, colour), exit (codes, next steps)
//! ```
//!
//! The command is a guest of the library: it names only what `argali` exports, so whatever it can do,
//! a program of yours can do. Every error ends the process with a documented code (see [`exit`]) and a
//! next step. There is no shell and no configuration file: arguments say everything.

mod args;
mod bank;
mod copies;
mod data;
mod demo;
mod exit;
mod history;
mod inspect;
mod output;
mod prepared;
mod torture;

use std::io::Write as _;
use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        None => orientation(),
        Some(command) => run(command, args.format),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(command: Command, format: output::Format) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args, format),
        Command::DemoChild(args) => demo::child::run(&args),
        Command::Bank { command } => bank::run(&command, format),
        Command::Info(target) => inspect::info(&target, format),
        Command::Check(target) => inspect::check(&target, format),
        Command::Stats(target) => inspect::stats(&target, format),
        Command::Checkpoint(args) => data::checkpoint(&args, format),
        Command::Prepared { command } => prepared::run(&command, format),
        Command::Get(args) => data::get(&args, format),
        Command::Put(args) => data::put(&args, format),
        Command::Delete(args) => data::delete(&args, format),
        Command::Scan(args) => data::scan(&args, format),
        Command::History(args) => history::run(&args, format),
        Command::HistoryChild(args) => history::child(&args),
        Command::Backup(args) => copies::backup(&args, format),
        Command::Restore(args) => copies::restore(&args, format),
        Command::Repair(args) => copies::repair(&args, format),
        Command::Torture { command } => torture::run(&command),
    }
}

/// What a bare `argali` says: five lines that lead to the first thing worth doing.
fn orientation() -> anyhow::Result<()> {
    let paint = output::Paint::stdout();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}",
        paint.bold("argali: a transactional storage engine that survives any crash")
    )?;
    writeln!(
        out,
        "  argali demo               crash a bank, recover it, prove that nothing is lost"
    )?;
    writeln!(
        out,
        "  argali bank load ./bank   the same bank in your hands: then run, check, stats"
    )?;
    writeln!(out, "  argali put DIR KEY VALUE --create   keep a pair; then get, scan, delete")?;
    writeln!(out, "  argali --help             every command, exit codes and examples")?;
    Ok(())
}
