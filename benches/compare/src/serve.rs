//! The process of one engine: opens it, then does slices of work as it is told, line by line.
//!
//! Each engine has a process of its own, so that memory, CPU and context switches are its own, and so
//! that it can be killed. Between its slices it sleeps while the others have theirs.
//!
//! ```text
//!  stdin    run update-durable-4 1.5          stdout   {"ops":30211,"seconds":1.502,"p50_us":…}
//!           load load-seq 300000                       {"ops":300000,…}
//!           audit                                      {"history":30211}
//! ```

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::store::{self, Store};
use crate::workload::{self, Client, Data, Kind, Workload, audit, fill};
use crate::{usage, workload::named};

/// Every so many operations of a kind that takes less than a microsecond, one is timed.
const SAMPLED: u64 = 16;

/// What a serving process was started with.
pub(crate) struct Orders<'a> {
    pub(crate) store: &'a str,
    pub(crate) dir: &'a Path,
    pub(crate) data: Option<Data>,
    pub(crate) rows: u64,
    pub(crate) cache: usize,
    pub(crate) direct: bool,
}

/// Opens the store, fills it if asked, and serves standard input.
pub(crate) fn serve(orders: &Orders<'_>) -> Result<()> {
    let begun = Instant::now();
    let store = store::open(orders.store, orders.dir, orders.cache, orders.direct)?;
    let opened = begun.elapsed();
    if let Some(data) = orders.data {
        fill(store.as_ref(), data, orders.rows)?;
    }
    reply(&json!({ "opened_s": opened.as_secs_f64(), "mode": store.mode() }))?;
    for (serial, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["run", name, seconds] => {
                let workload = named(name).with_context(|| format!("no workload {name}"))?;
                let time = Duration::from_secs_f64(seconds.parse()?);
                run(store.as_ref(), workload, orders.rows, (time, serial as u64 + 1))?
            }
            ["load", name, rows] => load(store.as_ref(), name, rows.parse()?)?,
            ["updates", count] => updates(store.as_ref(), orders.rows, count.parse()?)?,
            ["audit"] => json!({ "history": audit(store.as_ref())? }),
            _ => bail!("no order is called {line:?}"),
        };
        reply(&answer)?;
    }
    Ok(())
}

fn reply(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}

/// What the clients of a slice did.
struct Work {
    ops: u64,
    switches: u64,
    latency: Histogram<u64>,
}

/// One slice: as many clients as the workload has, for `time`.
fn run(
    store: &dyn Store,
    workload: &Workload,
    rows: u64,
    (time, serial): (Duration, u64),
) -> Result<Value> {
    let (stop, start) = (AtomicBool::new(false), Barrier::new(workload.clients + 1));
    let switches = usage::process_switches();
    let cpu = usage::own_cpu();
    let (works, elapsed) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..workload.clients)
            .map(|number| {
                let (stop, start) = (&stop, &start);
                scope.spawn(move || {
                    let client = Client::new(store, workload.kind, rows, (number, serial));
                    start.wait();
                    work(client, workload.kind, stop)
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let works: Result<Vec<Work>> = clients.into_iter().map(join).collect();
        (works, begun.elapsed())
    });
    let (works, cpu) = (works?, usage::own_cpu().saturating_sub(cpu));
    let mut latency = Histogram::new(3)?;
    works.iter().try_for_each(|work| latency.add(&work.latency))?;
    let ops: u64 = works.iter().map(|work| work.ops).sum();
    let others = usage::process_switches().saturating_sub(switches);
    let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(json!({
        "ops": ops,
        "seconds": elapsed.as_secs_f64(),
        "cpu_s": cpu.as_secs_f64(),
        "switches": others + works.iter().map(|work| work.switches).sum::<u64>(),
        "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0),
        "peak_memory": usage::peak_memory(),
    }))
}

fn join(client: std::thread::ScopedJoinHandle<'_, Result<Work>>) -> Result<Work> {
    client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn work(mut client: Client<'_>, kind: Kind, stop: &AtomicBool) -> Result<Work> {
    let timed = match kind {
        Kind::ReadUniform | Kind::ReadZipf | Kind::Mixed(_) => SAMPLED,
        _ => 1,
    };
    let switches = usage::thread_switches();
    let mut latency = Histogram::new(3)?;
    let mut ops = 0;
    while !stop.load(Ordering::Relaxed) {
        if ops % timed == 0 {
            let begun = Instant::now();
            client.step()?;
            latency.record(begun.elapsed().as_nanos() as u64)?;
        } else {
            client.step()?;
        }
        ops += 1;
    }
    Ok(Work { ops, switches: usage::thread_switches() - switches, latency })
}

fn load(store: &dyn Store, name: &str, rows: u64) -> Result<Value> {
    let Some(Workload { kind: Kind::Load(how), .. }) = named(name) else {
        bail!("{name} is no load");
    };
    let (cpu, begun) = (usage::own_cpu(), Instant::now());
    let ops = workload::load(store, rows, *how)?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = usage::own_cpu().saturating_sub(cpu).as_secs_f64();
    Ok(json!({
        "ops": ops, "seconds": seconds, "cpu_s": cpu, "peak_memory": usage::peak_memory()
    }))
}

/// Relaxed updates by two clients, so many together; the last one is durable.
fn updates(store: &dyn Store, rows: u64, count: u64) -> Result<Value> {
    let done: Result<()> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|number| {
                scope.spawn(move || -> Result<()> {
                    let mut client = Client::new(store, Kind::Reopen, rows, (number, 0));
                    (0..count / 2).try_for_each(|_| client.step())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    });
    done?;
    workload::sync(store)?;
    Ok(json!({ "ops": count }))
}
