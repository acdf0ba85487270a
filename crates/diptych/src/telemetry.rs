//! What operators see: the log on stderr and the metrics at `/metrics`.
//!
//! Log lines have the time in RFC 3339 (UTC) and, where something happened that scripts may wait for, a field `event`
//! with a name that does not change. `DIPTYCH_LOG` chooses what is logged (`info`, `debug`, `diptych=trace`, …).
//! Metric names follow Prometheus: `diptych_`, base units, `_total` for counters; labels never hold row keys.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::history;

/// What is logged unless `DIPTYCH_LOG` says otherwise: libraries only when something is wrong.
const FILTER: &str = "info,openraft=error,h2=error,hyper=error,tonic=error,tower=error";
/// Upper bounds of the buckets of durations, in seconds: from a page in memory to a disk that hangs.
pub const SECONDS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Samples of histograms are put into their buckets this often, so that they do not pile up; and the history grows.
const UPKEEP: Duration = Duration::from_secs(5);

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts the log and the metrics of this process. Later calls do nothing.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_env("DIPTYCH_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(String::from("_seconds")), &SECONDS)
        .expect("the buckets are not empty")
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        gauge!("diptych_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let upkeep = handle.clone();
        let keep = move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
                history::record(&metrics());
            }
        };
        std::thread::Builder::new()
            .name(String::from("metrics"))
            .spawn(keep)
            .expect("a process may start some threads");
        let _ = METRICS.set(handle);
    }
}

/// All metrics of this process in Prometheus' text format.
pub fn metrics() -> String {
    let mut text = METRICS.get().map(PrometheusHandle::render).unwrap_or_default();
    process(&mut text);
    text
}

/// The metrics that every process has, from /proc; left out where that does not tell.
fn process(text: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut metric = |name: &str, kind: &str, value: f64| {
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    };
    if let Some(bytes) = resident(&read("/proc/self/status")) {
        metric("process_resident_memory_bytes", "gauge", bytes as f64);
    }
    if let Some(seconds) = cpu(&read("/proc/self/stat")) {
        metric("process_cpu_seconds_total", "counter", seconds);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        metric("process_open_fds", "gauge", files.count() as f64);
    }
}

/// Resident bytes, from /proc/self/status.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Seconds of user and system time, from /proc/self/stat, whose clock ticks are hundredths on every Linux we run on.
fn cpu(stat: &str) -> Option<f64> {
    // The name of the program is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_understood() {
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(cpu("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0"), Some(3.0));
        assert_eq!((resident(""), cpu("")), (None, None));
    }

    #[test]
    fn every_process_has_its_memory_and_time() {
        let text = metrics();
        assert!(
            text.contains("process_resident_memory_bytes ") && text.contains("process_cpu_seconds_total "),
            "{text}"
        );
    }
}
