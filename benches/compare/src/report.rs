//! From slices to rows: medians, paired ratios against the best peer, a table, Markdown, JSON lines.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde_json::{Value, json};

use crate::host::Slice;
use crate::raw::Limit;
use crate::workload::Workload;

/// All slices of one workload, by engine, in order of rounds.
pub(crate) struct Measured {
    pub(crate) workload: &'static Workload,
    pub(crate) slices: BTreeMap<String, Vec<Slice>>,
    pub(crate) modes: BTreeMap<String, String>,
}

/// Ours against the best of the others.
struct Verdict {
    best: String,
    ratio: f64,
    least: f64,
    greatest: f64,
}

impl Measured {
    pub(crate) fn note(&mut self, engine: &str, slice: Slice, mode: String) {
        self.slices.entry(engine.to_owned()).or_default().push(slice);
        self.modes.insert(engine.to_owned(), mode);
    }

    /// Leaves out whoever did not get through all `rounds`.
    pub(crate) fn keep_complete(&mut self, rounds: usize) {
        self.slices.retain(|_, slices| slices.len() == rounds);
    }

    fn rates(&self, store: &str) -> Vec<f64> {
        let slices = self.slices.get(store).map(Vec::as_slice).unwrap_or_default();
        slices.iter().map(|slice| slice.ops_per_second).collect()
    }

    /// The peer with the greatest median, and the ratios round by round.
    fn verdict(&self, ours: &str) -> Option<Verdict> {
        let peers = self.slices.keys().filter(|name| !name.starts_with("argali"));
        let best = peers.max_by(|a, b| median(self.rates(a)).total_cmp(&median(self.rates(b))))?;
        let (ours, theirs) = (self.rates(ours), self.rates(best));
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = ratios.iter().copied().fold(0.0, f64::max);
        Some(Verdict { best: best.clone(), ratio: median(ratios), least, greatest })
    }

    /// Ratio and spread in words, for an engine of ours that was measured beside a peer.
    fn against_best(&self, store: &str) -> (String, String) {
        let ours = store.starts_with("argali") && self.slices.contains_key(store);
        let verdict = if ours { self.verdict(store) } else { None };
        verdict.map_or_else(Default::default, |v| {
            (format!("{:.2} × {}", v.ratio, v.best), format!("{:.2}–{:.2}", v.least, v.greatest))
        })
    }

    fn mean(&self, store: &str, field: impl Fn(&Slice) -> f64) -> f64 {
        let slices = &self.slices[store];
        slices.iter().map(field).sum::<f64>() / slices.len() as f64
    }

    fn cells(&self, store: &str) -> Vec<String> {
        let answer = |name: &'static str| {
            move |slice: &Slice| slice.answer[name].as_f64().unwrap_or_default()
        };
        let ops = self.mean(store, answer("ops")).max(1.0);
        let per_op = |total: f64| total / ops;
        let (ratio, spread) = self.against_best(store);
        let goal =
            if store == "argali" { format!("{:.2}", self.workload.goal) } else { String::new() };
        vec![
            self.workload.name.to_owned(),
            store.to_owned(),
            rate(median(self.rates(store))),
            ratio,
            spread,
            goal,
            format!("{:.1}", self.mean(store, answer("p50_us"))),
            format!("{:.0}", self.mean(store, answer("p99_us"))),
            format!("{:.1}", per_op(self.mean(store, answer("cpu_s")) * 1e6)),
            format!("{:.0}", per_op(self.mean(store, |slice| slice.device_bytes as f64))),
            format!("{:.2}", per_op(self.mean(store, |slice| slice.flushes as f64))),
            format!("{:.2}", per_op(self.mean(store, |slice| slice.device_reads as f64))),
            format!("{:.2}", per_op(self.mean(store, answer("switches")))),
            format!("{:.0}", self.mean(store, answer("peak_memory")) / 1e6),
            format!("{:.2}", self.mean(store, |slice| slice.foreign_cpu)),
        ]
    }

    /// One JSON object for each slice.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let of = |(store, slices): (&String, &Vec<Slice>)| {
            let mode = &self.modes[store];
            let line = |(round, slice): (usize, &Slice)| {
                json!({
                    "workload": self.workload.name, "store": store, "mode": mode, "round": round,
                    "ops_per_second": slice.ops_per_second, "device_bytes": slice.device_bytes,
                    "device_reads": slice.device_reads, "flushes": slice.flushes, "foreign_cpu_s": slice.foreign_cpu,
                    "inside": slice.answer,
                })
            };
            slices.iter().enumerate().map(line).collect::<Vec<_>>()
        };
        self.slices.iter().flat_map(of).collect()
    }
}

const HEAD: [&str; 15] = [
    "workload",
    "engine",
    "ops/s",
    "ratio to best peer",
    "min–max",
    "goal",
    "p50 µs",
    "p99 µs",
    "CPU µs/op",
    "device B/op",
    "flushes/op",
    "reads/op",
    "switches/op",
    "peak MB",
    "foreign CPU s",
];

fn empty(markdown: bool) -> Table {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    let plain = TableStyle::new().header_separator(line);
    table.load_style(if markdown { ASCII_MARKDOWN } else { plain });
    table
}

/// Every engine's median rate, a line a workload, and ours against the best peer's.
pub(crate) fn summary(measured: &[Measured], markdown: bool) -> String {
    let engines: BTreeSet<&String> = measured.iter().flat_map(|row| row.slices.keys()).collect();
    let mut table = empty(markdown);
    let tail = ["ratio", "min–max", "read committed", "goal"].map(str::to_owned);
    let head = std::iter::once("workload".to_owned());
    table.set_header(head.chain(engines.iter().copied().cloned()).chain(tail));
    for row in measured {
        let rates = engines.iter().map(|engine| match row.slices.get(*engine) {
            Some(_) => rate(median(row.rates(engine))),
            None => String::new(),
        });
        let (ratio, spread) = row.against_best("argali");
        let (committed, _) = row.against_best("argali-rc");
        let goal = format!("{:.2}", row.workload.goal);
        let name = std::iter::once(row.workload.name.to_owned());
        table.add_row(name.chain(rates).chain([ratio, spread, committed, goal]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// All there is to know of each engine and workload, for a terminal or as Markdown.
pub(crate) fn table(measured: &[Measured], markdown: bool) -> String {
    let mut table = empty(markdown);
    table.set_header(HEAD);
    for row in measured {
        for store in row.slices.keys() {
            table.add_row(row.cells(store));
        }
    }
    for at in [2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Rates of very different sizes in one column: opens per second and reads per second.
fn rate(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// The raw limits, one line each.
pub(crate) fn limits(limits: &[Limit]) -> String {
    let line =
        |limit: &Limit| format!("  {:<52} {:>12.1} {}\n", limit.what, limit.value, limit.unit);
    limits.iter().map(line).collect()
}

/// The middle value; of an even number the lower of the two middle ones; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
