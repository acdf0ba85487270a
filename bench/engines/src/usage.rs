//! What a process has used, as the kernel counts it, and what lies in a folder.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};

/// Counters of this process that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Nanoseconds of processor time, all threads together, in the kernel and out of it.
    pub cpu_ns: u64,
    /// Bytes that had to come from the disk.
    pub read: u64,
    /// Bytes that went, or will go, to the disk.
    pub written: u64,
}

impl Usage {
    /// Up to now.
    pub fn now() -> Result<Usage> {
        let io = fs::read_to_string("/proc/self/io").context("the kernel does not count I/O")?;
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|number| number.parse().ok()).with_context(|| format!("/proc/self/io has no {name}"))
        };
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_ns = cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64;
        Ok(Usage { cpu_ns, read: field("read_bytes")?, written: field("write_bytes")? })
    }

    /// From then to now.
    pub fn since(then: Usage) -> Result<Usage> {
        let now = Usage::now()?;
        Ok(Usage { cpu_ns: now.cpu_ns - then.cpu_ns, read: now.read - then.read, written: now.written - then.written })
    }
}

/// The most memory that this process had, in KiB.
pub fn peak_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).context("the kernel has no VmHWM")
}

/// All files in a folder, and in those below it.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

/// Bytes that these files take on the disk.
pub fn disk_bytes<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let blocks = |path: &PathBuf| Ok(fs::metadata(path)?.blocks() * 512);
    paths.map(blocks).sum()
}

/// The kernel forgets what it has of the folder's files in memory, after it has written it.
pub fn make_cold(folder: &Path) -> Result<()> {
    for path in files(folder)? {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// The kernel has all of the folder's files in memory.
pub fn make_warm(folder: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for path in files(folder)? {
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Copies a folder and what is below it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in files(from)? {
        let target = to.join(path.strip_prefix(from)?);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&path, target)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_and_measured() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("below")).unwrap();
        fs::write(from.join("below/file"), vec![1; 100_000]).unwrap();
        copy(&from, &to).unwrap();
        make_cold(&to).unwrap();
        make_warm(&to).unwrap();
        let copied = files(&to).unwrap();
        assert_eq!(copied, [to.join("below/file")]);
        assert!(disk_bytes(copied.iter()).unwrap() >= 100_000);
    }

    #[test]
    fn work_shows() {
        let before = Usage::now().unwrap();
        let sum: u64 = (0..3_000_000u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && Usage::since(before).unwrap().cpu_ns > 0);
        assert!(peak_kib().unwrap() > 0);
    }
}
