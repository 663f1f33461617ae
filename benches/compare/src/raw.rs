//! What the machine allows: the limits that no engine can pass, measured in the same run.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

const FILE_BYTES: u64 = 256 << 20;
const PAGE: usize = 8192;
const SLICE: Duration = Duration::from_millis(700);

/// A limit: what, how much, of what.
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Measures all limits on the file system of `dir`.
pub(crate) fn limits(dir: &Path) -> Result<Vec<Limit>> {
    let path = dir.join("raw");
    let sequential = write_file(&path)?;
    let limit = |what, value, unit| Limit { what, value, unit };
    let limits = vec![
        limit("append of 512 bytes + fdatasync, zero-filled file", appends(&path)?, "/s"),
        limit("sequential write, synced", sequential / 1e6, "MB/s"),
        limit("random reads of 8 KiB, O_DIRECT, depth 1", reads(&path, 1)?, "/s"),
        limit("random reads of 8 KiB, O_DIRECT, depth 16", reads(&path, 16)?, "/s"),
        limit("random reads of 8 KiB, O_DIRECT, depth 32", reads(&path, 32)?, "/s"),
        limit("memcpy of 8 KiB in cache", per_second(&mut copier()) * PAGE as f64 / 1e9, "GB/s"),
        limit("CRC-32C of 8 KiB in cache", per_second(&mut hasher()) * PAGE as f64 / 1e9, "GB/s"),
    ];
    std::fs::remove_file(path)?;
    Ok(limits)
}

fn write_file(path: &Path) -> Result<f64> {
    let (mut file, chunk) = (File::create(path)?, vec![0; 1 << 20]);
    let begun = Instant::now();
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(FILE_BYTES as f64 / begun.elapsed().as_secs_f64())
}

fn appends(path: &Path) -> Result<f64> {
    let (file, record) = (OpenOptions::new().write(true).open(path)?, [1; 512]);
    let (begun, mut count) = (Instant::now(), 0_u64);
    while begun.elapsed() < SLICE {
        file.write_all_at(&record, (count * 512) % FILE_BYTES)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// A buffer on a page boundary, as direct I/O wants it.
#[repr(C, align(4096))]
struct Aligned([u8; PAGE]);

fn reads(path: &Path, depth: u64) -> Result<f64> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
    let begun = Instant::now();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..depth)
            .map(|seed| {
                let file = &file;
                scope.spawn(move || -> std::io::Result<u64> {
                    let (mut rng, mut page) = (Rng::with_seed(seed), Box::new(Aligned([0; PAGE])));
                    let mut count = 0;
                    while begun.elapsed() < SLICE {
                        let at = rng.u64(..FILE_BYTES / PAGE as u64) * PAGE as u64;
                        file.read_exact_at(&mut page.0, at)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).sum::<std::io::Result<u64>>()
    })?;
    Ok(counts as f64 / begun.elapsed().as_secs_f64())
}

fn per_second(work: &mut dyn FnMut()) -> f64 {
    let (begun, mut count) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_millis(200) {
        (0..1000).for_each(|_| work());
        count += 1000;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn copier() -> impl FnMut() {
    let (from, mut to) = (vec![1_u8; PAGE], vec![0_u8; PAGE]);
    move || black_box(&mut to).copy_from_slice(black_box(&from))
}

fn hasher() -> impl FnMut() {
    let bytes = vec![1_u8; PAGE];
    move || {
        black_box(crc32c::crc32c(black_box(&bytes)));
    }
}
