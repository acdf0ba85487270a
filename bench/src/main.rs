//! `peers`: the same work against Diptych, a 3-node etcd and redis, in the same minutes on the same machine.
//!
//! ```text
//!   round 1..n ─▶ work (put/64, get/64, …) ─▶ each of its runs in turn ─▶ closed loop for some seconds
//!                                               ours │ etcd │ redis         others are up, and have no load
//!   medians over the rounds ─▶ table, results/peers.json, results/machine.json
//! ```
//!
//! All three keep their data on the same disk and sync every write before they answer it; Diptych and etcd on several
//! replicas, redis on its one. One process with one runtime drives all. What each does is described in
//! `docs/benchmarks.md`. Ends what it started, however it ends.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load generator reads the clock and starts processes"
)]

mod etcd;
mod load;
mod machine;
mod report;
mod servers;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::load::{Load, Measured};
use crate::machine::Machine;
use crate::report::{Round, WORKS};
use crate::servers::Servers;
use crate::target::{System, Targets};

/// As in `diptych`: allocation is no part of the comparison.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str =
    "usage: peers --diptych FILE --scratch DIR --results DIR [--rounds N] [--seconds N] [--only WORK]...";
/// Between two runs: what the last one left to be done is done.
const SETTLE: Duration = Duration::from_millis(400);

struct Args {
    diptych: PathBuf,
    scratch: PathBuf,
    results: PathBuf,
    rounds: usize,
    seconds: u64,
    only: Vec<String>,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
        let (mut diptych, mut scratch, mut results) = (None, None, None);
        let (mut rounds, mut seconds, mut only) = (3, 4, Vec::new());
        while let Some(flag) = words.next() {
            let value = words.next().with_context(|| format!("{flag} without a value; {USAGE}"))?;
            match flag.as_str() {
                "--diptych" => diptych = Some(PathBuf::from(value)),
                "--scratch" => scratch = Some(PathBuf::from(value)),
                "--results" => results = Some(PathBuf::from(value)),
                "--rounds" => rounds = value.parse().with_context(|| format!("--rounds {value}; {USAGE}"))?,
                "--seconds" => seconds = value.parse().with_context(|| format!("--seconds {value}; {USAGE}"))?,
                "--only" if WORKS.iter().any(|work| work.name == value) => only.push(value),
                "--only" => bail!("no work {value}; there are {}", WORKS.map(|work| work.name).join(", ")),
                _ => bail!("no flag {flag}; {USAGE}"),
            }
        }
        if rounds == 0 || seconds == 0 {
            bail!("at least one round of one second; {USAGE}");
        }
        let (diptych, scratch) = (diptych.context(USAGE)?, scratch.context(USAGE)?);
        Ok(Args { diptych, scratch, results: results.context(USAGE)?, rounds, seconds, only })
    }

    fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == work)
    }
}

fn main() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    // As many threads as `diptych bench` has.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = compare(&args) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

/// Starts everything, measures, reports, stops. Dropped half-way, it kills what it started.
async fn compare(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.results).with_context(|| format!("cannot make {}", args.results.display()))?;
    let folder = tempfile::Builder::new().prefix("peers-").tempdir_in(&args.scratch)?;
    let machine = Machine::look(folder.path())?;
    println!("{machine}\n");
    let servers = Servers::start(folder.path(), &args.diptych).await?;
    let targets = Targets::connect(&servers).await?;
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        for work in WORKS.iter().filter(|work| args.wants(work.name)) {
            let mut runs = work.runs.to_vec();
            // Who comes first changes, so that nobody always runs after the same.
            runs.rotate_left(number % work.runs.len());
            for run in runs {
                tokio::time::sleep(SETTLE).await;
                let load =
                    Load { verb: work.verb, value_bytes: work.value_bytes, seconds: args.seconds, shape: run.shape };
                let measured = measure(&targets, run.system, load).await;
                let measured = measured.with_context(|| format!("{} against {}", work.name, run.system.name()))?;
                println!("round {} {:<14} {:<16} {measured}", number + 1, work.name, run.name);
                rounds.push(Round { number: number + 1, work: work.name, run: run.name, measured });
            }
        }
    }
    servers.stop().await?;
    let wrong = report::write(&args.results, &rounds, &machine)?;
    if wrong > 0 {
        bail!("{wrong} operations failed: the figures above are not to be used");
    }
    Ok(())
}

async fn measure(targets: &Targets, system: System, load: Load) -> Result<Measured> {
    let measured = load::run(targets, system, load).await?;
    targets.check(system).await?;
    Ok(measured)
}
