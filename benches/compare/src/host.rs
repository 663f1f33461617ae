//! The other end of `serve.rs`: starts the process of an engine, gives it orders, reads its answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::group::{self, Group};
use crate::usage;
use crate::workload::Data;

/// How the databases of one comparison are made.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) dir: PathBuf,
    pub(crate) rows: u64,
}

impl Setting {
    /// With a cold cache four times as many: what an engine holds beside its cache is then little.
    fn rows(&self, data: Data) -> u64 {
        if data == Data::Cold { 4 * self.rows } else { self.rows }
    }

    /// Enough cache for everything, or for a quarter of it.
    fn cache(&self, data: Data) -> usize {
        // A row of 108 bytes takes about 160 in a page that is two thirds full.
        let bytes = self.rows(data) as usize * 160;
        match data {
            Data::Cold => bytes / 4,
            Data::Rows | Data::Bank | Data::Fresh => (bytes * 4).max(256 << 20),
        }
    }
}

/// A serving process.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    answers: BufReader<ChildStdout>,
    pub(crate) mode: String,
    pub(crate) opened: Duration,
    dir: PathBuf,
    group: Option<Group>,
}

/// One slice, as measured from outside and inside.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) ops_per_second: f64,
    /// What the serving process said.
    pub(crate) answer: Value,
    pub(crate) device_bytes: u64,
    pub(crate) device_reads: u64,
    pub(crate) flushes: u64,
    /// CPU seconds that neither the engine nor we used.
    pub(crate) foreign_cpu: f64,
}

impl Host {
    /// Opens engine `store` in `dir` in a process of its own; fills it with `data` when `fill`. With a cold
    /// cache it reads in a second process, which has little memory.
    pub(crate) fn start(
        setting: &Setting,
        (store, data): (&str, Data),
        dir: &Path,
        fill: bool,
    ) -> Result<Self> {
        if data != Data::Cold {
            return Self::spawn(setting, (store, data), dir, (fill, None));
        }
        if fill {
            Self::spawn(setting, (store, data), dir, (true, None))?.end()?;
        }
        group::forget(dir)?;
        let host = Self::spawn(setting, (store, data), dir, (false, Some(Group::new(store)?)))?;
        host.group.as_ref().map(|group| group.limit(setting.cache(data))).transpose()?;
        Ok(host)
    }

    fn spawn(
        setting: &Setting,
        (store, data): (&str, Data),
        dir: &Path,
        (fill, group): (bool, Option<Group>),
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", store, "--rows", &setting.rows(data).to_string()])
            .arg("--at")
            .arg(dir);
        command.args(["--cache", &setting.cache(data).to_string()]);
        if data == Data::Cold {
            command.arg("--direct");
        }
        if fill {
            command.args(["--fill", data.name()]);
        }
        if let Some(group) = &group {
            command.arg("--group").arg(group.path());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(child.stdout.take().context("it has a stdout")?);
        let (mode, opened) = (String::new(), Duration::ZERO);
        let mut host = Self { child, answers, mode, opened, dir: dir.to_owned(), group };
        let hello = host.answer().with_context(|| format!("opening {store}"))?;
        hello["mode"].as_str().unwrap_or_default().clone_into(&mut host.mode);
        host.opened = Duration::from_secs_f64(hello["opened_s"].as_f64().unwrap_or_default());
        Ok(host)
    }

    /// Gives an order and waits for the answer.
    pub(crate) fn order(&mut self, order: &str) -> Result<Value> {
        let stdin = self.child.stdin.as_mut().context("it has a stdin")?;
        writeln!(stdin, "{order}").with_context(|| format!("ordering {order:?}"))?;
        self.answer().with_context(|| format!("waiting for {order:?}"))
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the process ended: see its message above");
        Ok(serde_json::from_str(&line)?)
    }

    /// An order that is a slice of work, with what it cost.
    pub(crate) fn slice(&mut self, order: &str) -> Result<Slice> {
        let (device, machine, own) =
            (usage::device(&self.dir), usage::machine_cpu(), usage::own_cpu());
        let answer = self.order(order)?;
        let number = |name: &str| answer[name].as_f64().unwrap_or_default();
        let own = usage::own_cpu().saturating_sub(own).as_secs_f64();
        let machine = usage::machine_cpu().saturating_sub(machine).as_secs_f64();
        let after = usage::device(&self.dir);
        Ok(Slice {
            ops_per_second: number("ops") / number("seconds"),
            device_bytes: after.bytes - device.bytes,
            device_reads: after.reads - device.reads,
            flushes: after.flushes - device.flushes,
            foreign_cpu: (machine - own - number("cpu_s")).max(0.0),
            answer,
        })
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Closes its input and waits for its orderly end.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "an engine's process ended with {status}");
        Ok(())
    }
}

impl Data {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Cold => "cold",
            Self::Bank => "bank",
            Self::Fresh => "fresh",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Rows, Self::Cold, Self::Bank, Self::Fresh].into_iter().find(|d| d.name() == name)
    }
}
