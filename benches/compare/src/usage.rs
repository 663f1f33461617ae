//! What a slice of work costs, read from the kernel: CPU, context switches, memory, bytes and flushes of
//! the device, and CPU that others took meanwhile.
//!
//! `/proc/self/io` overstates buffered random writes (the kernel charges whole folios), so bytes come
//! from the statistics of the disk. They count for everybody who uses it: run on a quiet machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Clock ticks of `/proc` per second; 100 on every Linux.
const TICKS: u64 = 100;

/// CPU time of this process, threads that ended included.
pub(crate) fn own_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in parentheses and may contain anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    ticks(number(fields.get(11)) + number(fields.get(12)))
}

/// CPU time of all processes of the machine.
pub(crate) fn machine_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line: Vec<&str> = stat.lines().next().unwrap_or("").split_whitespace().collect();
    // user nice system idle iowait irq softirq steal
    ticks([1, 2, 3, 6, 7, 8].iter().map(|at| number(line.get(*at))).sum())
}

/// Context switches of the calling thread.
pub(crate) fn thread_switches() -> u64 {
    switches("/proc/thread-self/status")
}

/// Context switches of all threads of this process that are alive.
pub(crate) fn process_switches() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| switches(task.path().join("status"))).sum()
}

fn switches(path: impl AsRef<Path>) -> u64 {
    let status = fs::read_to_string(path).unwrap_or_default();
    status.lines().filter(|line| line.contains("ctxt_switches")).map(last_number).sum()
}

/// Greatest resident memory of this process so far, in bytes.
pub(crate) fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.map_or(0, |line| number(line.split_whitespace().nth(1).as_ref()) << 10)
}

/// Bytes written to, reads from, and flushes of the device that `path` is on, since the machine began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Device {
    pub(crate) bytes: u64,
    pub(crate) reads: u64,
    pub(crate) flushes: u64,
}

/// Reads the statistics of the device that `path` is on; zeros where it has none.
pub(crate) fn device(path: &Path) -> Device {
    let Ok(stat) = rustix::fs::stat(path) else { return Device::default() };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let stats = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let lines = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.into_iter().find(|line| {
        number(line.first()) == u64::from(major) && number(line.get(1)) == u64::from(minor)
    });
    line.map_or_else(Device::default, |line| Device {
        bytes: number(line.get(9)) * 512,
        reads: number(line.get(3)),
        flushes: number(line.get(18)),
    })
}

fn last_number(line: &str) -> u64 {
    number(line.split_whitespace().last().as_ref())
}

fn number(field: Option<&&str>) -> u64 {
    field.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS)
}
