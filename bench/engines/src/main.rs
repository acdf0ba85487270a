//! `engines`: the same work against our storage engine and the rocksdb, fjall, redb and sled crates, in the same minutes.
//!
//! ```text
//!   round 1..n ─▶ value size ─▶ work ─▶ each engine in turn ─▶ a child process: opens it, works, prints one line of JSON
//!                                          ours │ rocksdb │ …      on a data set that another child has loaded
//!   medians over the rounds ─▶ tables, engines.json, engines-runs.json
//! ```
//!
//! A process for each run keeps memory, caches and counters of one engine and work apart from those of the others. How
//! each engine is set up is described in `docs/benchmarks.md`. Seeds are fixed; times are not.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a load generator reads the clock, starts threads and opens files; what it is made of is its own"
)]

mod engine;
mod machine;
mod ours;
mod pairs;
mod peers;
mod report;
mod run;
mod usage;
mod work;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::engine::{DISK, ENGINES, LEVELED};
use crate::machine::Machine;
use crate::pairs::KEY;
use crate::report::{Report, Round};
use crate::run::{Order, Outcome};
use crate::work::{Base, Kind, LARGE, SMALL, WORKS, Work, title};

/// As in `diptych`, and the same for all: allocation is no part of the comparison.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: engines --scratch DIR --results DIR [--quick] [--rounds N] [--seconds S] [--keys N] \
[--cache MiB] [--buffer MiB] [--raw MiB] [--recovery MiB] [--only WORK]... [--engines A,B] [--perf FILE]";
/// A child is told its work by this word.
const CHILD: &str = "child";

struct Args {
    scratch: PathBuf,
    results: PathBuf,
    rounds: usize,
    seconds: f64,
    /// With small values; with large ones so many fewer that there are as many bytes.
    keys: u64,
    /// A quarter of the data set, if not given.
    cache: Option<usize>,
    buffer: usize,
    raw: u64,
    recovery: u64,
    only: Vec<String>,
    engines: Vec<String>,
    /// Runs each work, but not what prepares it, under `perf record`, into this file; the last one stays.
    perf: Option<PathBuf>,
}

impl Args {
    fn parse(words: impl Iterator<Item = String>) -> Result<Args> {
        let mut args = Args {
            scratch: PathBuf::new(),
            results: PathBuf::new(),
            rounds: 3,
            seconds: 2.0,
            keys: 1_000_000,
            cache: None,
            buffer: 16 << 20,
            raw: 256 << 20,
            recovery: 1 << 30,
            only: Vec::new(),
            engines: ENGINES.map(String::from).to_vec(),
            perf: None,
        };
        let mut words: Vec<String> = words.collect();
        if let Some(at) = words.iter().position(|word| word == "--quick") {
            words.remove(at);
            (args.rounds, args.seconds, args.keys) = (1, 0.7, 400_000);
            (args.buffer, args.raw, args.recovery) = (8 << 20, 128 << 20, 256 << 20);
        }
        let mut words = words.into_iter();
        while let Some(flag) = words.next() {
            let value = words.next().with_context(|| format!("{flag} without a value; {USAGE}"))?;
            let number = || value.parse::<u64>().with_context(|| format!("{flag} {value} is no number; {USAGE}"));
            match flag.as_str() {
                "--scratch" => args.scratch = PathBuf::from(value),
                "--results" => args.results = PathBuf::from(value),
                "--rounds" => args.rounds = number()? as usize,
                "--seconds" => args.seconds = value.parse().with_context(|| format!("--seconds {value}; {USAGE}"))?,
                "--keys" => args.keys = number()?,
                "--cache" => args.cache = Some((number()? as usize) << 20),
                "--buffer" => args.buffer = (number()? as usize) << 20,
                "--raw" => args.raw = number()? << 20,
                "--recovery" => args.recovery = number()? << 20,
                "--only" => args.only.push(value),
                "--engines" => args.engines = value.split(',').map(String::from).collect(),
                "--perf" => args.perf = Some(PathBuf::from(value)),
                _ => bail!("no flag {flag}; {USAGE}"),
            }
        }
        let known = |only: &String| WORKS.iter().any(|work| matches(work, SMALL, only) || matches(work, LARGE, only));
        if let Some(unknown) = args.only.iter().find(|only| !known(only)) {
            let names = WORKS.map(|work| work.name).join(", ");
            bail!("no work {unknown}; there are {names}, each also as {} and the like", title(WORKS[0].name, SMALL));
        }
        if let Some(unknown) = args.engines.iter().find(|name| !ENGINES.contains(&&name[..]) && *name != LEVELED) {
            bail!("no engine {unknown}; there are {}, {LEVELED}", ENGINES.join(", "));
        }
        ensure!(args.scratch.is_dir() && args.results.is_dir(), "--scratch and --results are folders; {USAGE}");
        ensure!(args.rounds > 0 && args.seconds > 0.0 && args.keys >= 20_000, "too little to measure; {USAGE}");
        Ok(args)
    }

    fn wants(&self, work: &Work, value: usize) -> bool {
        let fits = value == LARGE || !work.only_large;
        fits && (self.only.is_empty() || self.only.iter().any(|only| matches(work, value, only)))
    }

    /// What is asked of each child, but for its folders.
    fn order(&self, work: &Work, engine: &str, value: usize) -> Order {
        let bytes = self.keys * (KEY + SMALL) as u64;
        Order {
            engine: String::from(engine),
            value,
            keys: bytes / (KEY + value) as u64,
            cache: self.cache.unwrap_or(bytes as usize / 4),
            buffer: self.buffer,
            seconds: self.seconds,
            raw: if work.kind == Kind::FillRaw { self.raw } else { self.recovery },
            folder: PathBuf::new(),
            copy_of: None,
            settles: work.settles,
        }
    }
}

/// Is this work meant by that name, with or without the size of the value?
fn matches(work: &Work, value: usize, name: &str) -> bool {
    work.name == name || title(work.name, value) == name
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == CHILD).is_some() {
        let (kind, order) = (words.next().context("which work?")?, words.next().context("which order?")?);
        return child(&kind, &order);
    }
    let args = Args::parse(words)?;
    let folder = tempfile::Builder::new().prefix("engines-").tempdir_in(&args.scratch)?;
    let machine = Machine::look(folder.path())?;
    println!("{}\n", machine.line());
    let mut bench = Bench { folder: folder.path(), args: &args, report: Report::default(), failures: Vec::new() };
    for number in 0..args.rounds {
        bench.round(number);
    }
    bench.report.print();
    let Args { rounds, seconds, keys, cache, buffer, raw, recovery, .. } = args;
    let settings = json!({
        "rounds": rounds, "seconds": seconds, "keys": keys, "buffer": buffer, "raw": raw, "recovery": recovery,
        "cache": cache.unwrap_or(keys as usize * (KEY + SMALL) / 4),
    });
    let all = args.only.is_empty() && ENGINES.iter().all(|engine| args.engines.iter().any(|name| name == engine));
    bench.report.save(&args.results, &machine, settings, all)?;
    if !bench.failures.is_empty() {
        bail!("{} runs failed and are not in the figures:\n{}", bench.failures.len(), bench.failures.join("\n"));
    }
    Ok(())
}

/// All runs.
struct Bench<'a> {
    /// Holds what the engines keep.
    folder: &'a Path,
    args: &'a Args,
    report: Report,
    failures: Vec<String>,
}

impl Bench<'_> {
    fn round(&mut self, number: usize) {
        for value in [SMALL, LARGE] {
            for work in WORKS.iter().filter(|work| self.args.wants(work, value)) {
                let mut engines: Vec<&str> = self.args.engines.iter().map(|engine| &engine[..]).collect();
                // Who comes first changes, so that nobody always runs after the same.
                engines.rotate_left(number % self.args.engines.len());
                if work.kind == Kind::FillRaw {
                    engines.push(DISK);
                }
                for engine in engines {
                    let title = title(work.name, value);
                    match self.measure(work, engine, value) {
                        Ok(Some(outcome)) => {
                            let engine = String::from(engine);
                            let round = Round { number: number + 1, work: title, engine, outcome };
                            println!("{}", round.line());
                            self.report.rounds.push(round);
                        }
                        Ok(None) => {}
                        Err(error) => {
                            println!("{} {title:<24} {engine:<8} FAILED: {error:#}", number + 1);
                            self.failures.push(format!("{title} of {engine}: {error:#}"));
                        }
                    }
                }
            }
        }
    }

    /// One run; `None` if the engine has not what the work needs.
    fn measure(&self, work: &Work, engine: &str, value: usize) -> Result<Option<Outcome>> {
        if work.kind == Kind::Recovery && !engine::has_log(engine) {
            return Ok(None);
        }
        let mut order = self.args.order(work, engine, value);
        let loaded = self.folder.join(format!("{engine}-{value}"));
        if matches!(work.base, Base::Loaded | Base::Copied) && !loaded.exists() {
            let load = Order { folder: loaded.clone(), settles: true, ..order.clone() };
            spawn(Kind::Load, &load, None).context("loading the data set")?;
        }
        order.folder = if work.base == Base::Loaded { loaded.clone() } else { self.folder.join("run") };
        order.copy_of = (work.base == Base::Copied).then_some(loaded);
        if work.base == Base::Killed {
            spawn(Kind::Log, &order, None).context("filling the log")?;
        }
        let outcome = spawn(work.kind, &order, self.args.perf.as_deref());
        if work.base != Base::Loaded {
            std::fs::remove_dir_all(&order.folder)?;
        }
        outcome.map(Some)
    }
}

/// Has a child do it. It lives until it has said what came of it.
fn spawn(kind: Kind, order: &Order, perf: Option<&Path>) -> Result<Outcome> {
    std::fs::create_dir_all(&order.folder)?;
    let program = std::env::current_exe()?;
    let mut command = match perf {
        None => Command::new(program),
        Some(file) => {
            let mut command = Command::new("perf");
            command.args(["record", "-q", "-g", "-F", "999", "-o"]).arg(file).arg(program);
            command
        }
    };
    command.arg(CHILD).arg(serde_json::to_string(&kind)?).arg(serde_json::to_string(order)?);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a child has an output")?).read_line(&mut line)?;
    // It waits for more of its input, which never comes: an engine that is not to be closed is killed as it stands.
    match perf {
        None => child.kill()?,
        Some(_) => drop(child.stdin.take()),
    }
    let status = child.wait()?;
    serde_json::from_str(&line).with_context(|| format!("the child said {line:?} and ended with {status}"))
}

/// In the child: works, says what came of it, and waits for its end.
fn child(kind: &str, order: &str) -> Result<()> {
    let outcome = run::run(serde_json::from_str(kind)?, &serde_json::from_str(order)?)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    out.flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
