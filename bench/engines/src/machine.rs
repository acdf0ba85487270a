//! Where it was measured: what the figures mean depends on it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use serde_json::{Value, json};

/// Syncs of which the median is taken.
const SYNCS: usize = 101;

/// The machine, and how busy it was before anything was started.
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    load: String,
    sync_us: u128,
    unix_time: u64,
}

impl Machine {
    /// Looks around, and writes to `folder` to see how long a sync takes there.
    pub fn look(folder: &Path) -> Result<Machine> {
        let field = |file: &str, name: &str| -> Option<String> {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Ok(Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: memory.unwrap_or_default() / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string(),
            load: load(),
            sync_us: sync_us(folder)?,
            unix_time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        let Machine { cpu, cores, memory_mib, kernel, load, sync_us, .. } = self;
        format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before; a sync of 4 KiB takes {sync_us} us"
        )
    }

    /// With the load as it is now.
    pub fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "load_before": self.load,
            "load_after": load(),
            "sync_us": self.sync_us,
            "unix_time": self.unix_time,
        })
    }
}

/// Load averages of 1, 5 and 15 minutes.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Median time to append 4 KiB and have it on the disk.
fn sync_us(folder: &Path) -> Result<u128> {
    let path = folder.join("sync");
    let mut file = File::create(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        took.push(begun.elapsed().as_micros());
    }
    fs::remove_file(&path)?;
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}
