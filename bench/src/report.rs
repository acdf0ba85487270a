//! What is compared with what, and how it came out.
//!
//! A work has runs; a row compares two runs of the same round, by the medians over all rounds. `ratio` is operations per
//! second, ours by theirs: above 1 we do more. `p99_ratio` is the 99th percentile of the time an operation takes, ours by
//! theirs: below 1 we are quicker.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::load::{Measured, Shape, Verb};
use crate::machine::Machine;
use crate::target::System;

/// Bytes of a value, usually.
pub const SMALL: usize = 100;
/// Bytes of a value in the works that say so.
pub const LARGE: usize = 1024;
/// Operations of each client under way on a stream or in a pipeline.
const DEPTH: usize = 16;
/// Clients, usually.
pub const CLIENTS: usize = 64;
/// All operations under way on the stream.
pub const IN_FLIGHT: usize = CLIENTS * DEPTH;

/// A kind of work, and how each system does it.
pub struct Work {
    pub name: &'static str,
    pub verb: Verb,
    pub value_bytes: usize,
    pub runs: &'static [Run],
}

/// One system at one work.
#[derive(Clone, Copy)]
pub struct Run {
    pub name: &'static str,
    pub system: System,
    pub shape: Shape,
}

const fn shape(tasks: usize, batch: usize) -> Shape {
    Shape { tasks, batch }
}

/// Each client has one operation under way.
const fn unary(clients: usize) -> [Run; 3] {
    [
        Run { name: "ours", system: System::Diptych, shape: shape(clients, 1) },
        Run { name: "etcd", system: System::Etcd, shape: shape(clients, 1) },
        Run { name: "redis", system: System::Redis, shape: shape(clients, 1) },
    ]
}

const ONE: [Run; 3] = unary(1);
const MANY: [Run; 3] = unary(CLIENTS);
const CROWD: [Run; 3] = unary(IN_FLIGHT);
/// Each client has [`DEPTH`] operations under way: on our stream the next begins when one is answered, and in redis'
/// pipelines, which are answered together, when all are.
const PIPELINED: [Run; 2] = [
    Run { name: "ours", system: System::DiptychStream, shape: shape(IN_FLIGHT, 1) },
    Run { name: "redis", system: System::Redis, shape: shape(CLIENTS, DEPTH) },
];

/// All work. What a row compares with another work's run stands beside it, so that little time lies between.
pub const WORKS: [Work; 10] = [
    Work { name: "put/64", verb: Verb::Put, value_bytes: SMALL, runs: &MANY },
    Work { name: "put/pipelined", verb: Verb::Put, value_bytes: SMALL, runs: &PIPELINED },
    Work { name: "get/64", verb: Verb::Get, value_bytes: SMALL, runs: &MANY },
    Work { name: "get/pipelined", verb: Verb::Get, value_bytes: SMALL, runs: &PIPELINED },
    Work { name: "put/1", verb: Verb::Put, value_bytes: SMALL, runs: &ONE },
    Work { name: "get/1", verb: Verb::Get, value_bytes: SMALL, runs: &ONE },
    Work { name: "put/64/1KiB", verb: Verb::Put, value_bytes: LARGE, runs: &MANY },
    Work { name: "get/64/1KiB", verb: Verb::Get, value_bytes: LARGE, runs: &MANY },
    Work { name: "put/1024", verb: Verb::Put, value_bytes: SMALL, runs: &CROWD },
    Work { name: "get/1024", verb: Verb::Get, value_bytes: SMALL, runs: &CROWD },
];

/// Rows of the table: name, peer, our work, their work.
const ROWS: [(&str, &str, &str, &str); 22] = [
    ("put/64", "etcd", "put/64", "put/64"),
    ("put/64", "redis", "put/64", "put/64"),
    ("get/64", "etcd", "get/64", "get/64"),
    ("get/64", "redis", "get/64", "get/64"),
    ("put/pipelined", "etcd", "put/pipelined", "put/64"),
    ("put/pipelined", "redis", "put/pipelined", "put/64"),
    ("put/pipelined-both", "redis", "put/pipelined", "put/pipelined"),
    ("get/pipelined", "etcd", "get/pipelined", "get/64"),
    ("get/pipelined", "redis", "get/pipelined", "get/64"),
    ("get/pipelined-both", "redis", "get/pipelined", "get/pipelined"),
    ("put/1", "etcd", "put/1", "put/1"),
    ("put/1", "redis", "put/1", "put/1"),
    ("get/1", "etcd", "get/1", "get/1"),
    ("get/1", "redis", "get/1", "get/1"),
    ("put/64/1KiB", "etcd", "put/64/1KiB", "put/64/1KiB"),
    ("put/64/1KiB", "redis", "put/64/1KiB", "put/64/1KiB"),
    ("get/64/1KiB", "etcd", "get/64/1KiB", "get/64/1KiB"),
    ("get/64/1KiB", "redis", "get/64/1KiB", "get/64/1KiB"),
    ("put/1024", "etcd", "put/1024", "put/1024"),
    ("put/1024", "redis", "put/1024", "put/1024"),
    ("get/1024", "etcd", "get/1024", "get/1024"),
    ("get/1024", "redis", "get/1024", "get/1024"),
];

/// One run of one round.
pub struct Round {
    pub number: usize,
    pub work: &'static str,
    pub run: &'static str,
    pub measured: Measured,
}

/// The median of a run over all rounds.
struct Median {
    per_second: f64,
    p99_us: f64,
    errors: u64,
}

/// Prints the table and writes the files; how many operations failed.
pub fn write(folder: &Path, rounds: &[Round], machine: &Machine) -> Result<u64> {
    println!(
        "\n{:<19} {:<6} {:>10} {:>10} {:>7} {:>11} {:>11} {:>9}",
        "work", "peer", "ours/s", "theirs/s", "ratio", "our p99 ms", "their p99", "p99_ratio"
    );
    let mut rows = Vec::new();
    for (work, peer, our_work, their_work) in ROWS {
        let (Some(ours), Some(theirs)) = (median(rounds, our_work, "ours"), median(rounds, their_work, peer)) else {
            continue;
        };
        let (ratio, p99_ratio) = (ours.per_second / theirs.per_second, ours.p99_us / theirs.p99_us);
        let errors = match (ours.errors, theirs.errors) {
            (0, 0) => String::new(),
            (ours, theirs) => format!("  ERRORS: ours {ours}, theirs {theirs}"),
        };
        println!(
            "{work:<19} {peer:<6} {:>10.0} {:>10.0} {ratio:>7.2} {:>11.2} {:>11.2} {p99_ratio:>9.3}{errors}",
            ours.per_second,
            theirs.per_second,
            ours.p99_us / 1e3,
            theirs.p99_us / 1e3,
        );
        rows.push(json!({
            "work": work,
            "peer": peer,
            "ours": tidy(ours.per_second),
            "theirs": tidy(theirs.per_second),
            "ratio": tidy(ratio),
            "p99_ratio": tidy(p99_ratio),
        }));
    }
    save(folder, "peers.json", &Value::Array(rows))?;
    let mut machine = machine.to_json();
    machine["rounds"] = rounds.iter().map(Round::to_json).collect();
    save(folder, "machine.json", &machine)?;
    Ok(rounds.iter().map(|round| round.measured.errors).sum())
}

fn save(folder: &Path, name: &str, content: &Value) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, format!("{content:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

impl Round {
    fn to_json(&self) -> Value {
        let Round { number, work, run, measured } = self;
        json!({
            "round": number,
            "work": work,
            "run": run,
            "per_second": tidy(measured.per_second),
            "p50_us": measured.p50_us,
            "p99_us": measured.p99_us,
            "operations": measured.operations,
            "errors": measured.errors,
        })
    }
}

fn median(rounds: &[Round], work: &str, run: &str) -> Option<Median> {
    let all = || rounds.iter().filter(|round| round.work == work && round.run == run).map(|round| &round.measured);
    Some(Median {
        per_second: middle(all().map(|measured| measured.per_second))?,
        p99_us: middle(all().map(|measured| measured.p99_us as f64))?,
        errors: all().map(|measured| measured.errors).sum(),
    })
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

    #[test]
    fn the_middle_is_taken_from_any_order() {
        assert_eq!(middle([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(middle([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(middle([].into_iter()), None);
    }

    #[test]
    fn every_row_names_runs_that_exist() {
        let has = |work: &str, run: &str| {
            WORKS.iter().any(|found| found.name == work && found.runs.iter().any(|one| one.name == run))
        };
        for (_, peer, ours, theirs) in ROWS {
            assert!(has(ours, "ours") && has(theirs, peer), "{ours} {theirs} {peer}");
        }
    }
}
