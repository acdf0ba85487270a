//! What came out: the medians over the rounds, ours beside each peer's.
//!
//! `ratio` is operations per second, ours by theirs: above 1 we do more. `cpu_ratio` is processor time for each, ours by
//! theirs: below 1 we need less. The latter says more when others use the machine too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::engine::{DISK, ENGINES, LEVELED, OURS};
use crate::machine::Machine;
use crate::run::Outcome;
use crate::work::{LARGE, SMALL, WORKS, title};

/// One run of one round.
pub struct Round {
    pub number: usize,
    pub work: String,
    pub engine: String,
    pub outcome: Outcome,
}

/// All rounds.
#[derive(Default)]
pub struct Report {
    pub rounds: Vec<Round>,
}

impl Report {
    /// Prints the tables.
    pub fn print(&self) {
        println!(
            "\n{:<24} {:<8} {:>10} {:>9} {:>9} {:>9} {:>8} {:>7} {:>9} {:>7} {:>8} {:>8}",
            "work",
            "engine",
            "ops/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "CPU us",
            "write x",
            "read B/op",
            "space x",
            "settle s",
            "peak MiB"
        );
        for work in self.works() {
            for engine in ENGINES.iter().chain([&LEVELED, &DISK]) {
                let Some(median) = self.median(&work, engine) else { continue };
                let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
                let some = |number: Option<f64>, digits: usize| {
                    number.map_or_else(|| String::from("-"), |number| format!("{number:.digits$}"))
                };
                println!(
                    "{work:<24} {engine:<8} {:>10.0} {:>9} {:>9} {:>9} {:>8.1} {:>7} {:>9} {:>7} {:>8} {:>8.0}",
                    median.per_second,
                    us(median.p50_ns),
                    us(median.p99_ns),
                    us(median.p999_ns),
                    median.cpu_us,
                    some(median.write_amp, 2),
                    some(median.read_bytes, 0),
                    some(median.space_amp, 2),
                    some(median.settle_seconds, 2),
                    median.peak_mib,
                );
            }
        }
        println!("\n{:<24} {:>10} {:>10} {:<8} {:>7} {:>9}", "work", "ours/s", "best/s", "best", "ratio", "CPU ratio");
        for work in self.works() {
            let best = self.rows(&work).into_iter().max_by(|a, b| a.theirs.total_cmp(&b.theirs));
            if let Some(Row { peer, ours, theirs, cpu_ratio }) = best {
                let ratio = ours / theirs;
                println!("{work:<24} {ours:>10.0} {theirs:>10.0} {peer:<8} {ratio:>7.2} {cpu_ratio:>9.2}");
            }
        }
        println!("\nours, to the goals:");
        for work in self.works() {
            let Some(ours) = self.median(&work, OURS) else { continue };
            if let Some(space) = ours.space_amp {
                println!("{work:<24} space {space:.2} x after settling (1.25)");
                let stall = ours.p999_ns as f64 / ours.p50_ns.max(1) as f64;
                println!(
                    "{work:<24} p99.9 of writes {stall:.1} x p50 (10), the longest {:.1} ms",
                    ours.max_ns as f64 / 1e6
                );
            }
            if work == title("recovery", LARGE) {
                let seconds = ours.operations as f64 / ours.per_second;
                println!("{work:<24} {seconds:.2} s for {} pairs (5 s for 1 GiB)", ours.operations);
            }
            if let Some(disk) = self.median(&work, DISK) {
                println!("{work:<24} {:.0} % of what the disk writes (80)", ours.per_second / disk.per_second * 100.0);
            }
        }
    }

    /// Writes `engines.json`, a row for each work and peer, if `all` were run, and `engines-runs.json`, the machine and
    /// every single run.
    pub fn save(&self, folder: &Path, machine: &Machine, settings: Value, all: bool) -> Result<()> {
        let mut rows = Vec::new();
        for work in self.works() {
            for Row { peer, ours, theirs, cpu_ratio } in self.rows(&work) {
                rows.push(json!({
                    "work": work,
                    "peer": peer,
                    "ours": tidy(ours),
                    "theirs": tidy(theirs),
                    "ratio": tidy(ours / theirs),
                    "cpu_ratio": tidy(cpu_ratio),
                }));
            }
        }
        if all {
            write(folder, "engines.json", &Value::Array(rows))?;
        }
        let mut all = machine.to_json();
        all["settings"] = settings;
        all["rounds"] = self.rounds.iter().map(Round::to_json).collect::<Result<_>>()?;
        write(folder, "engines-runs.json", &all)
    }

    /// Titles of what was run, in the order of the table.
    fn works(&self) -> Vec<String> {
        let run: BTreeSet<&str> = self.rounds.iter().map(|round| &round.work[..]).collect();
        let all = WORKS.iter().flat_map(|work| [SMALL, LARGE].map(|value| title(work.name, value)));
        all.filter(|work| run.contains(&work[..])).collect()
    }

    fn rows(&self, work: &str) -> Vec<Row> {
        let Some(ours) = self.median(work, OURS) else { return Vec::new() };
        let peers = ENGINES.into_iter().chain([DISK]).filter(|&peer| peer != OURS);
        let row = |peer| {
            let theirs = self.median(work, peer)?;
            let cpu_ratio = ours.cpu_us / theirs.cpu_us;
            Some(Row { peer, ours: ours.per_second, theirs: theirs.per_second, cpu_ratio })
        };
        peers.filter_map(row).collect()
    }

    /// Of each figure by itself.
    fn median(&self, work: &str, engine: &str) -> Option<Outcome> {
        let runs = || self.rounds.iter().filter(|round| round.work == work && round.engine == engine);
        let of = |figure: fn(&Outcome) -> f64| middle(runs().map(|round| figure(&round.outcome)));
        let some = |figure: fn(&Outcome) -> Option<f64>| middle(runs().filter_map(|round| figure(&round.outcome)));
        Some(Outcome {
            per_second: of(|run| run.per_second)?,
            operations: of(|run| run.operations as f64)? as u64,
            p50_ns: of(|run| run.p50_ns as f64)? as u64,
            p99_ns: of(|run| run.p99_ns as f64)? as u64,
            p999_ns: of(|run| run.p999_ns as f64)? as u64,
            max_ns: of(|run| run.max_ns as f64)? as u64,
            cpu_us: of(|run| run.cpu_us)?,
            write_amp: some(|run| run.write_amp),
            read_bytes: some(|run| run.read_bytes),
            space_amp: some(|run| run.space_amp),
            log_mib: some(|run| run.log_mib),
            settle_seconds: some(|run| run.settle_seconds),
            writes_per_second: some(|run| run.writes_per_second),
            peak_mib: of(|run| run.peak_mib)?,
        })
    }
}

/// Ours beside one peer's.
struct Row {
    peer: &'static str,
    ours: f64,
    theirs: f64,
    /// Processor time of an operation, ours by theirs.
    cpu_ratio: f64,
}

impl Round {
    /// A line for people while it runs.
    pub fn line(&self) -> String {
        let Outcome { per_second, p50_ns, p99_ns, p999_ns, settle_seconds, writes_per_second, .. } = self.outcome;
        let [p50, p99, p999] = [p50_ns, p99_ns, p999_ns].map(|ns| ns as f64 / 1e3);
        let settled = settle_seconds.map_or(String::new(), |seconds| format!("  settled after {seconds:.2} s"));
        let writes = writes_per_second.map_or(String::new(), |writes| format!("  beside {writes:.0} writes/s"));
        format!(
            "{} {:<24} {:<8} {per_second:>10.0}/s  p50 {p50:>8.1}  p99 {p99:>8.1}  p99.9 {p999:>8.1} us{settled}{writes}",
            self.number, self.work, self.engine
        )
    }

    fn to_json(&self) -> Result<Value> {
        let mut all = serde_json::to_value(&self.outcome)?;
        all["round"] = json!(self.number);
        all["work"] = json!(self.work);
        all["engine"] = json!(self.engine);
        Ok(all)
    }
}

fn write(folder: &Path, name: &str, content: &Value) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, format!("{content:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

/// The mean of the two middle ones if there is no middle one.
fn middle(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_unstable_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        len if len % 2 == 0 => Some((numbers[half - 1] + numbers[half]) / 2.0),
        _ => Some(numbers[half]),
    }
}

/// To a thousandth: more digits would say nothing.
fn tidy(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(runs: &[(&str, f64)]) -> Report {
        let round = |(number, (engine, per_second)): (usize, &(&str, f64))| {
            let outcome = Outcome { per_second: *per_second, ..Outcome::default() };
            Round { number, work: title("fill-seq", SMALL), engine: String::from(*engine), outcome }
        };
        Report { rounds: runs.iter().enumerate().map(round).collect() }
    }

    #[test]
    fn each_peer_is_compared_by_medians() {
        let report = report(&[("ours", 1.0), ("redb", 8.0), ("ours", 6.0), ("ours", 2.0), ("sled", 4.0)]);
        let rows: Vec<_> =
            report.rows("fill-seq/100").into_iter().map(|row| (row.peer, row.ours, row.theirs)).collect();
        assert_eq!(rows, [("redb", 2.0, 8.0), ("sled", 2.0, 4.0)]);
        assert_eq!(report.works(), ["fill-seq/100"]);
    }

    #[test]
    fn the_middle_is_taken_from_any_order() {
        assert_eq!(middle([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(middle([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(middle([].into_iter()), None);
    }
}
