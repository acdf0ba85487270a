//! `sim group 0..1000`: lives the histories of these seeds; prints the first that breaks a promise, and exits with 1.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: sim group FROM..TO [EVENTS]";
    let [kind, seeds, rest @ ..] = &arguments[..] else {
        eprintln!("{usage}");
        return ExitCode::from(2);
    };
    let bounds = seeds.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (Some((from, to)), "group") = (bounds, kind.as_str()) else {
        eprintln!("{usage}");
        return ExitCode::from(2);
    };
    let events = rest.first().and_then(|events| events.parse().ok()).unwrap_or(60);
    groups(from, to, events)
}

fn groups(from: u64, to: u64, events: usize) -> ExitCode {
    let mut total = sim::group::Summary::default();
    let mut bad = 0;
    for seed in from..to {
        match sim::group::run(seed, 0) {
            Ok(summary) => {
                total.commits += summary.commits;
                total.acknowledged += summary.acknowledged;
                total.epochs += summary.epochs;
                total.crashes += summary.crashes;
                total.readable += summary.readable;
                total.checkpoints += summary.checkpoints;
                if summary.acknowledged == 0 {
                    println!("seed {seed}: nothing was acknowledged");
                }
            }
            Err(violation) => {
                bad += 1;
                println!("seed {seed} at {:.6} s: {}", violation.time as f64 / 1e9, violation.what);
            }
        }
    }
    if bad > 0 && to - from == 1 {
        if let Err(violation) = sim::group::run(from, events) {
            println!("{}", violation.events.join("\n"));
        }
    }
    println!("{bad} of {} histories are bad; {total:?}", to - from);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
