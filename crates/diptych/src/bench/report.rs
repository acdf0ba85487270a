//! What was measured: how many operations, and how long they took.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::count;
use crate::cli::{Bench, Output};

/// Latencies in microseconds, up to a minute, with three digits.
struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order"))
    }
}

impl Latencies {
    fn to_json(&self) -> Value {
        let histogram = &self.0;
        json!({
            "operations": histogram.len(),
            "mean_us": histogram.mean(),
            "p50_us": histogram.value_at_quantile(0.5),
            "p99_us": histogram.value_at_quantile(0.99),
            "p999_us": histogram.value_at_quantile(0.999),
            "max_us": histogram.max(),
        })
    }

    fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }
}

/// What one client saw.
#[derive(Default)]
pub struct Recorder {
    kinds: BTreeMap<&'static str, Latencies>,
    errors: u64,
    first_error: Option<client::Error>,
}

impl Recorder {
    /// Operations have ended together. Only those that succeeded count as operations.
    pub fn note(&mut self, kind: &'static str, took: Duration, count: u64, error: Option<client::Error>) {
        match error {
            None => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.kinds.entry(kind).or_default().0.saturating_record_n(micros.max(1), count);
            }
            Some(error) => {
                self.errors += count;
                self.first_error.get_or_insert(error);
            }
        }
    }

    /// What another client saw.
    pub fn add(&mut self, other: Recorder) {
        for (kind, latencies) in other.kinds {
            self.kinds.entry(kind).or_default().add(&latencies);
        }
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// What all clients saw.
pub struct Report {
    all: Latencies,
    kinds: BTreeMap<&'static str, Latencies>,
    seconds: f64,
    /// How many failed.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<client::Error>,
    /// Attempts that were sent on to where a tablet is now.
    redirects: u64,
}

impl Report {
    /// Of a run that took so long, in which so many attempts were sent on.
    pub fn new(recorder: Recorder, took: Duration, redirects: u64) -> Report {
        let mut all = Latencies::default();
        recorder.kinds.values().for_each(|latencies| all.add(latencies));
        let Recorder { kinds, errors, first_error } = recorder;
        Report { all, kinds, seconds: took.as_secs_f64(), errors, first_error, redirects }
    }

    fn per_second(&self, operations: u64) -> f64 {
        operations as f64 / self.seconds.max(1e-9)
    }

    /// A line of JSON.
    pub fn to_json(&self, args: &Bench) -> Value {
        json!({
            "work": args.work.name(),
            "clients": args.clients,
            "depth": if args.work.is_pipelined() { args.depth } else { 1 },
            "batch": args.work.step(args.batch),
            "value_bytes": args.value_bytes,
            "records": args.records,
            "tablets": args.tablets,
            "replicas": args.replicas,
            "seed": args.seed,
            "seconds": self.seconds,
            "operations": self.all.0.len(),
            "errors": self.errors,
            "redirects": self.redirects,
            "per_second": self.per_second(self.all.0.len()),
            "latency": self.all.to_json(),
            "kinds": self.kinds.iter().map(|(kind, latencies)| (kind.to_string(), latencies.to_json())).collect::<serde_json::Map<_, _>>(),
        })
    }

    /// For people.
    pub fn print(&self, args: &Bench, out: &mut Output) -> io::Result<()> {
        out.line(format!(
            "{}: {} clients{}, values of {} bytes, {} rows, {:.1} s",
            args.work.name(),
            args.clients,
            if args.work.is_pipelined() { format!(" with {} operations each", args.depth) } else { String::new() },
            args.value_bytes,
            count(args.records as f64),
            self.seconds
        ))?;
        out.line("")?;
        let row = |name: &str, latencies: &Latencies| {
            let histogram = &latencies.0;
            let ms = |micros: u64| format!("{:.3}", micros as f64 / 1e3);
            let mut row =
                vec![name.to_string(), count(histogram.len() as f64), count(self.per_second(histogram.len()))];
            row.extend([0.5, 0.99, 0.999].map(|quantile| ms(histogram.value_at_quantile(quantile))));
            row.push(ms(histogram.max()));
            row
        };
        let mut rows: Vec<Vec<String>> = self.kinds.iter().map(|(kind, latencies)| row(kind, latencies)).collect();
        if rows.len() != 1 {
            rows.push(row("all", &self.all));
        }
        out.table(&["operation", "count#", "per second#", "p50 ms#", "p99 ms#", "p99.9 ms#", "max ms#"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_add_up() {
        let (mut one, mut two) = (Recorder::default(), Recorder::default());
        (1..=100).for_each(|ms| one.note("read", Duration::from_millis(ms), 1, None));
        two.note("update", Duration::from_secs(3600), 1, None);
        two.note("update", Duration::from_millis(1), 1, Some(client::Error::Protocol("x".into())));
        one.add(two);
        let report = Report::new(one, Duration::from_secs(2), 0);
        assert_eq!((report.all.0.len(), report.errors), (101, 1));
        assert_eq!(report.per_second(101), 50.5);
        assert!(report.kinds["read"].0.value_at_quantile(0.5).abs_diff(50_000) < 100);
        assert!(report.all.0.max() >= 59_000_000, "what takes too long counts as the longest");
    }
}
