//! The last hour of this process's own metrics, in memory, so that the console can draw it without a database.
//!
//! ```text
//!   /metrics as text ──every 5 s──▶ Sample ──▶ the newest 720 ──▶ GET /v1/history
//! ```
//!
//! Counters stay as they are counted (each reader takes differences), durations stay in their buckets, so that any
//! percentile of any span can be had. An hour takes about 500 KB.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::telemetry::SECONDS;

/// An hour, if one is taken every five seconds.
const SAMPLES: usize = 720;

static HISTORY: Mutex<VecDeque<Sample>> = Mutex::new(VecDeque::new());

/// How many took at most as long as each bound; the last counts all.
type Buckets = [u64; SECONDS.len() + 1];

/// What is kept of a moment.
#[derive(Debug, Default, PartialEq)]
struct Sample {
    /// Milliseconds since 1970.
    at: u64,
    /// Calls over gRPC that read, and that write, by how long they took; what comes in pipelines is not timed.
    reads: Buckets,
    writes: Buckets,
    /// Requests for rows and cells over HTTP, likewise.
    http: Buckets,
    /// Syncs of the log, likewise.
    syncs: Buckets,
    /// Bytes that went to the log.
    logged: f64,
    /// Requests per second that its tablets have served lately.
    load: Option<f64>,
    /// Blocks that were found in memory, and that were not.
    hits: f64,
    misses: f64,
    /// Seconds that the oldest secondary is behind.
    lag: Option<f64>,
    /// Bytes that merges have to write.
    pending: Option<f64>,
    /// Bytes that the process takes.
    memory: Option<f64>,
}

/// Takes a sample of what `/metrics` says now.
pub fn record(text: &str) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let mut history = HISTORY.lock();
    if history.len() == SAMPLES {
        history.pop_front();
    }
    history.push_back(Sample { at, ..Sample::from_text(text) });
}

/// The samples after that moment (milliseconds since 1970), the oldest first.
pub fn since(at: u64) -> Value {
    let history = HISTORY.lock();
    let samples: Vec<Value> = history.iter().filter(|sample| sample.at > at).map(Sample::to_json).collect();
    json!({"bounds": SECONDS, "samples": samples})
}

impl Sample {
    /// Reads Prometheus' text format, of which ours uses little: a name, labels if any, a number.
    fn from_text(text: &str) -> Sample {
        let mut sample = Sample::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, number)) = line.rsplit_once(' ') else { continue };
            let Ok(number) = number.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                "diptych_rpc_duration_seconds_bucket" => match label(labels, "method") {
                    Some("Get" | "GetMany" | "Scan" | "ReadRows" | "SampleRowKeys") => {
                        count(&mut sample.reads, labels, number);
                    }
                    Some(_) => count(&mut sample.writes, labels, number),
                    None => {}
                },
                "diptych_http_duration_seconds_bucket" => {
                    if let Some("rows" | "row" | "cell" | "cput") = label(labels, "resource") {
                        count(&mut sample.http, labels, number);
                    }
                }
                "diptych_wal_append_bytes_total" => sample.logged += number,
                "diptych_tablet_requests_per_second" => sample.load = Some(number),
                "diptych_wal_fsync_duration_seconds_bucket" => count(&mut sample.syncs, labels, number),
                "diptych_block_cache_hits_total" => sample.hits += number,
                "diptych_block_cache_misses_total" => sample.misses += number,
                "diptych_replication_lag_seconds" => sample.lag = Some(number),
                "diptych_compaction_pending_bytes" => sample.pending = Some(number),
                "process_resident_memory_bytes" => sample.memory = Some(number),
                _ => {}
            }
        }
        sample
    }

    fn to_json(&self) -> Value {
        let Sample { at, reads, writes, http, syncs, logged, load, hits, misses, lag, pending, memory } = self;
        json!({
            "at": at, "reads": reads, "writes": writes, "http": http, "syncs": syncs, "logged": logged, "load": load,
            "hits": hits, "misses": misses, "lag": lag, "pending": pending, "memory": memory,
        })
    }
}

/// The value of a label, which holds no quotes with us.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = labels.trim_end_matches('}').split(',');
    fields.find_map(|field| field.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// Adds a bucket of a series to its place.
fn count(buckets: &mut Buckets, labels: &str, number: f64) {
    let place = match label(labels, "le") {
        Some("+Inf") => Some(SECONDS.len()),
        Some(bound) => bound.parse().ok().and_then(|bound: f64| SECONDS.iter().position(|&known| known == bound)),
        None => None,
    };
    if let Some(place) = place {
        buckets[place] += number as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series of several methods and services are added up, bucket by bucket; what we do not know is passed over.
    #[test]
    fn a_sample_is_what_the_metrics_say() {
        let text = r#"
# TYPE diptych_rpc_duration_seconds histogram
diptych_rpc_duration_seconds_bucket{service="diptych.v1.Kv",method="Get",le="0.001"} 3
diptych_rpc_duration_seconds_bucket{service="google.bigtable.v2.Bigtable",method="ReadRows",le="0.001"} 4
diptych_rpc_duration_seconds_bucket{service="diptych.v1.Kv",method="Get",le="+Inf"} 5
diptych_rpc_duration_seconds_bucket{service="diptych.v1.Kv",method="Mutate",le="10"} 6
diptych_rpc_duration_seconds_sum{service="diptych.v1.Kv",method="Mutate"} 6.5
diptych_wal_fsync_duration_seconds_bucket{le="0.00005"} 7
diptych_http_duration_seconds_bucket{resource="cell",le="0.25"} 2
diptych_http_duration_seconds_bucket{resource="cluster",le="0.25"} 100
diptych_block_cache_hits_total 8
diptych_replication_lag_seconds NaN
process_resident_memory_bytes 9
what is this
"#;
        let sample = Sample::from_text(text);
        let bucket = |at: usize, count: u64| {
            let mut buckets = Buckets::default();
            buckets[at] = count;
            buckets
        };
        let mut reads = bucket(4, 7);
        reads[16] = 5;
        assert_eq!((sample.reads, sample.writes, sample.syncs), (reads, bucket(15, 6), bucket(0, 7)));
        assert_eq!(sample.http, bucket(11, 2));
        assert_eq!((sample.hits, sample.misses, sample.memory), (8.0, 0.0, Some(9.0)));
        assert!(sample.lag.is_some_and(f64::is_nan));
        // JSON has no such number.
        assert_eq!(sample.to_json()["lag"], Value::Null);
    }

    /// Readers ask again only for what is new, and an hour is the most.
    #[test]
    fn the_newest_hour_is_kept() {
        (0..SAMPLES + 5).for_each(|_| record("diptych_block_cache_hits_total 1"));
        let all = since(0);
        let samples = all["samples"].as_array().unwrap();
        assert_eq!(samples.len(), SAMPLES);
        let last = samples[SAMPLES - 1]["at"].as_u64().unwrap();
        assert_eq!(since(last)["samples"], json!([]));
    }
}
