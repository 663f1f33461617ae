//! Compares argali with the embedded engines a user might pick instead.
//!
//! ```text
//!  cargo run --release -p argali-compare --features peers                     everything
//!  cargo run --release -p argali-compare --features peers -- bank-16 load-seq
//! ```
//!
//! Absolute rates drift from day to day and from neighbour to neighbour; only ratios between slices of
//! one interleaved run mean something. So for each workload every engine, in a process of its own, gets
//! its slice, round by round, in an order that alternates, and the table shows the median of the paired
//! ratios with the least and the greatest. For the rows with a cold cache, an engine's process has little memory
//! (`group.rs`). After each bank run the books of every engine are audited.

mod group;
mod host;
mod raw;
mod report;
mod serve;
mod store;
mod stores;
mod usage;
mod workload;
mod zipf;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

use crate::group::Group;
use crate::host::{Host, Setting, Slice};
use crate::report::Measured;
use crate::serve::{Orders, serve};
use crate::workload::{ALL, Data, Kind, Workload};

/// Relaxed updates behind which `reopen` kills.
const REOPEN_UPDATES: u64 = 800_000;

/// Compares argali with other embedded engines, interleaved, each in its documented best mode
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Workloads, or beginnings of their names (default: all; --list shows them)
    workloads: Vec<String>,
    /// List workloads and engines
    #[arg(long)]
    list: bool,
    /// Engines, separated by commas (default: all that were built in)
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Directory for the databases; it should be on the disk that is meant
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rows of the data
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Seconds per slice
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds: slices per engine and workload
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write each slice as a JSON line to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Print the table as Markdown
    #[arg(long)]
    markdown: bool,
    #[command(subcommand)]
    command: Option<Order>,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// The process of one engine
    #[command(hide = true)]
    Serve {
        store: String,
        #[arg(long)]
        at: PathBuf,
        #[arg(long)]
        rows: u64,
        #[arg(long)]
        cache: usize,
        #[arg(long)]
        direct: bool,
        #[arg(long)]
        fill: Option<String>,
        #[arg(long)]
        group: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Order::Serve { store, at, rows, cache, direct, fill, group }) = &args.command {
        group.as_deref().map(Group::join).transpose()?;
        let data = fill.as_deref().and_then(Data::named);
        let (rows, cache, direct) = (*rows, *cache, *direct);
        return serve(&Orders { store, dir: at, data, rows, cache, direct });
    }
    if args.list {
        for workload in ALL {
            println!("{}", workload.name);
        }
        println!("engines: {}", store::names().join(", "));
        return Ok(());
    }
    compare(&args)
}

fn compare(args: &Args) -> Result<()> {
    let dir = tempfile::tempdir_in(&args.dir).context("making a directory")?;
    let mut comparison = Comparison {
        setting: Setting { dir: dir.path().to_owned(), rows: args.rows },
        engines: engines(args)?,
        hosts: BTreeMap::new(),
        seconds: args.seconds,
        rounds: args.rounds,
    };
    let limits = raw::limits(dir.path())?;
    println!("limits of this machine\n{}", report::limits(&limits));
    let mut json = args.json.as_ref().map(fs::File::create).transpose()?;
    let mut measured = Vec::new();
    for workload in feasible(args)? {
        let row = comparison.measure(workload).with_context(|| workload.name)?;
        if let Some(file) = &mut json {
            row.lines().iter().try_for_each(|line| writeln!(file, "{line}"))?;
        }
        measured.push(row);
        eprintln!("{}", report::table(&measured[measured.len() - 1..], false));
    }
    comparison.end()?;
    println!("{}\n", report::table(&measured, args.markdown));
    println!("{}", report::summary(&measured, args.markdown));
    Ok(())
}

fn engines(args: &Args) -> Result<Vec<String>> {
    let known = store::names();
    if args.engines.is_empty() {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    for engine in &args.engines {
        ensure!(known.contains(&engine.as_str()), "{engine} is not among {}", known.join(", "));
    }
    Ok(args.engines.clone())
}

fn workloads(args: &Args) -> Result<Vec<&'static Workload>> {
    let wanted = |workload: &&Workload| {
        args.workloads.is_empty()
            || args.workloads.iter().any(|name| workload.name.starts_with(name))
    };
    let chosen: Vec<&Workload> = ALL.iter().filter(wanted).collect();
    if chosen.is_empty() {
        bail!("no workload begins with {}; --list shows them", args.workloads.join(" or "));
    }
    Ok(chosen)
}

/// The workloads, without those of a cold cache where nobody asked for them and they cannot be run.
fn feasible(args: &Args) -> Result<Vec<&'static Workload>> {
    let mut chosen = workloads(args)?;
    let is_cold = |workload: &&Workload| workload.data == Data::Cold;
    if chosen.iter().any(is_cold)
        && let Err(error) = Group::new("probe")
    {
        ensure!(args.workloads.is_empty(), error);
        eprintln!("{error:#}");
        chosen.retain(|workload| !is_cold(workload));
    }
    Ok(chosen)
}

/// A comparison under way: the engines that are open, by data and name.
struct Comparison {
    setting: Setting,
    engines: Vec<String>,
    hosts: BTreeMap<(&'static str, String), Host>,
    seconds: f64,
    rounds: usize,
}

impl Comparison {
    fn measure(&mut self, workload: &'static Workload) -> Result<Measured> {
        let mut measured = Measured { workload, slices: BTreeMap::new(), modes: BTreeMap::new() };
        // Whatever is not needed now must not compact, flush or hold memory meanwhile.
        self.keep_only(workload.data)?;
        let engines: Vec<String> =
            self.engines.iter().filter(|engine| differs(engine, workload.kind)).cloned().collect();
        for round in 0..self.rounds {
            let mut order: Vec<&String> = engines.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for engine in order {
                eprint!("\r{} {engine} round {}        ", workload.name, round + 1);
                match self.slice(workload, engine).with_context(|| engine.clone()) {
                    Ok((slice, mode)) => measured.note(engine, slice, mode),
                    Err(error) if workload.data == Data::Cold && !is_ours(engine) => {
                        self.hosts.remove(&(workload.data.name(), engine.clone()));
                        eprintln!("\n{engine} ended; it may need more than its memory: {error:#}");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        measured.keep_complete(self.rounds);
        eprint!("\r");
        if workload.kind == Kind::Bank {
            for engine in &engines {
                self.host(workload.data, engine)?.order("audit")?;
            }
        }
        Ok(measured)
    }

    fn slice(&mut self, workload: &Workload, engine: &str) -> Result<(Slice, String)> {
        match workload.kind {
            Kind::Load(_) => self.load(workload, engine),
            Kind::Reopen => self.reopen(engine),
            _ => {
                let order = format!("run {} {}", workload.name, self.seconds);
                let host = self.host(workload.data, engine)?;
                Ok((host.slice(&order)?, host.mode.clone()))
            }
        }
    }

    fn host(&mut self, data: Data, engine: &str) -> Result<&mut Host> {
        let name = (data.name(), engine.to_owned());
        if !self.hosts.contains_key(&name) {
            let dir = self.setting.dir.join(format!("{engine}-{}", data.name()));
            let fill = !dir.exists();
            let host = Host::start(&self.setting, (engine, data), &dir, fill)?;
            self.hosts.insert(name.clone(), host);
        }
        self.hosts.get_mut(&name).context("it was inserted")
    }

    fn keep_only(&mut self, data: Data) -> Result<()> {
        let gone: Vec<_> =
            self.hosts.keys().filter(|(kept, _)| *kept != data.name()).cloned().collect();
        gone.iter().filter_map(|name| self.hosts.remove(name)).try_for_each(Host::end)
    }

    /// Into a new database each time.
    fn load(&self, workload: &Workload, engine: &str) -> Result<(Slice, String)> {
        let dir = self.setting.dir.join(format!("{engine}-load"));
        let mut host = Host::start(&self.setting, (engine, Data::Fresh), &dir, false)?;
        let slice = host.slice(&format!("load {} {}", workload.name, self.setting.rows))?;
        let mode = host.mode.clone();
        host.kill()?;
        fs::remove_dir_all(dir)?;
        Ok((slice, mode))
    }

    /// Operations per second are updates per second of opening here.
    fn reopen(&mut self, engine: &str) -> Result<(Slice, String)> {
        let name = (Data::Rows.name(), engine.to_owned());
        let host = self.host(Data::Rows, engine)?;
        let mut slice = host.slice(&format!("updates {REOPEN_UPDATES}"))?;
        let mode = host.mode.clone();
        self.hosts.remove(&name).context("it was open")?.kill()?;
        let opened = self.host(Data::Rows, engine)?.opened;
        slice.ops_per_second = REOPEN_UPDATES as f64 / opened.as_secs_f64();
        Ok((slice, mode))
    }

    fn end(self) -> Result<()> {
        self.hosts.into_values().try_for_each(Host::end)
    }
}

fn is_ours(engine: &str) -> bool {
    engine.starts_with("argali")
}

/// Whether an engine has a row of its own: without reads our isolation levels do the same, and checkpoints
/// matter to a restart.
fn differs(engine: &str, kind: Kind) -> bool {
    let reads = matches!(kind, Kind::ReadUniform | Kind::ReadZipf | Kind::Mixed(_) | Kind::Scans);
    match engine {
        "argali-rc" => reads,
        "argali-log" => kind == Kind::Reopen,
        _ => true,
    }
}
