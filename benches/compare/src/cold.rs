//! Keeps the system's cache of an engine's files empty while a slice runs.
//!
//! With a cache for a quarter of the data, an engine that reads through the system's cache soon has all of its data
//! in memory after all, and is compared with one that has not. Every few milliseconds the clean pages
//! of its files are dropped (`POSIX_FADV_DONTNEED`): what each engine has in memory is what it was given,
//! and what it read in the last few milliseconds. Without privileges there is no better way; pages that are
//! mapped (LMDB) stay, so its row means little.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(10);

/// Empties the cache until it is dropped.
pub(crate) struct Cold {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cold {
    /// Of all files below `dir`.
    pub(crate) fn keep(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, until) = (dir.to_owned(), Arc::clone(&stop));
        let body = move || {
            while !until.load(Ordering::Relaxed) {
                forget(&dir);
                std::thread::sleep(INTERVAL);
            }
        };
        Self { stop, thread: Some(std::thread::spawn(body)) }
    }
}

impl Drop for Cold {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Files come and go meanwhile; one that is gone is not in the cache.
fn forget(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            forget(&path);
        } else {
            drop(forget_file(&path));
        }
    }
}

fn forget_file(path: &PathBuf) -> std::io::Result<()> {
    let file = File::open(path)?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}
