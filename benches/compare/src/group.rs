//! A control group that bounds the memory of one engine's process, the system's cache of its files included.
//!
//! ```text
//!  cache the engine was given, a quarter of the data   160 MB ┐
//!  memory it holds when it has opened (code, buffers)          ├─ limit of the group
//!  room for threads and files of the system             64 MB ┘
//! ```
//!
//! With a cache for a quarter of the data, an engine that reads through the system's cache, or maps its file,
//! soon has all of its data in memory after all, and is compared with one that has not. In a group the
//! kernel takes those pages away again. Making one needs privileges (root, or a delegated hierarchy); without
//! them the rows with a cold cache cannot be compared, and the error says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What an engine may take beside its cache and what it held when it had opened.
const SPARE: usize = 64 << 20;

/// A version of the interface: where groups are made, the file of the limit, and what the statistics call
/// memory that is no cache of files.
type Version = (&'static str, &'static str, &'static str);

const VERSIONS: [Version; 2] = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "rss"),
    ("/sys/fs/cgroup", "memory.max", "anon"),
];

/// A group; it goes when it is dropped, which is after its process.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    version: Version,
}

impl Group {
    /// A group without a limit yet.
    pub(crate) fn new(name: &str) -> Result<Self> {
        for version in VERSIONS {
            let path = Path::new(version.0).join(format!("argali-{}-{name}", std::process::id()));
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self { path, version };
            if group.path.join(version.1).exists() {
                return Ok(group);
            }
        }
        bail!(
            "a process cannot be given less memory here, so cold reads mean nothing: run as root with a \
             memory control group at {}, or leave read-cold out",
            VERSIONS.map(|(root, ..)| root).join(" or ")
        )
    }

    /// The engine has opened: what it holds now, `cache` bytes and a little more is all it gets.
    pub(crate) fn limit(&self, cache: usize) -> Result<()> {
        let (_, limit, held) = self.version;
        let statistics = fs::read_to_string(self.path.join("memory.stat"))?;
        let mut fields = statistics.lines().filter_map(|line| line.split_once(' '));
        let held = fields.find(|(name, _)| *name == held).context("no statistics of memory")?.1;
        let bytes = held.parse::<usize>()? + cache + SPARE;
        fs::write(self.path.join(limit), bytes.to_string()).context("limiting the memory")
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the calling process into the group at `path`.
    pub(crate) fn join(path: &Path) -> Result<()> {
        fs::write(path.join("cgroup.procs"), std::process::id().to_string())
            .with_context(|| format!("joining {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may need a moment to see that the process is gone; an empty group left over does no harm.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Drops what the system's cache holds of all files below `dir`: pages stay charged to whoever read them first.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = File::open(path)?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
