//! `sim group|house FROM..TO [EVENTS [FAULTS]]`: lives the histories of these seeds, one after the other. Names those that break
//! a promise and exits with 1; of a single seed it prints the last events before that. With the variable
//! `SIM_SUMMARIES` set it says of each history what it had in it. FAULTS, for `house`, is
//! a list out of network,cuts,crashes,pauses,master,full,syncs,rot, or none; without it each seed draws its own.

use std::process::ExitCode;

use sim::{group, house};

const USAGE: &str = "usage: sim group|house FROM..TO [EVENTS [FAULTS]]";

fn main() -> ExitCode {
    // A panic in a history is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, seeds, rest @ ..] = &arguments[..] else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let bounds = seeds.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let events = rest.first().and_then(|events| events.parse().ok()).unwrap_or(60);
    let faults = rest.get(1).map(|list| house::Fault::parse(list));
    match (kind.as_str(), bounds, faults) {
        ("group", Some((from, to)), None) => live("group", from, to, events, group::run),
        ("house", Some((from, to)), None) => live("house", from, to, events, house::run),
        ("house", Some((from, to)), Some(Some(faults))) => {
            live("house", from, to, events, |seed, events| house::run_with(seed, events, &faults))
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn live<S: std::fmt::Debug>(
    kind: &str,
    from: u64,
    to: u64,
    events: usize,
    run: impl Fn(u64, usize) -> Result<S, group::Violation>,
) -> ExitCode {
    let events = if to.saturating_sub(from) == 1 { events } else { 0 };
    let summaries = events > 0 || std::env::var_os("SIM_SUMMARIES").is_some();
    let mut bad = 0;
    for seed in from..to {
        match run(seed, events) {
            Ok(summary) if summaries => println!("seed {seed}: {summary:?}"),
            Ok(_) => {}
            Err(violation) => {
                bad += 1;
                println!("seed {seed} at {:.6} s: {}", violation.time as f64 / 1e9, violation.what);
                violation.events.iter().for_each(|event| println!("{event}"));
                println!("again: cargo run -p sim -- {kind} {seed}..{} 300", seed + 1);
            }
        }
    }
    println!("{bad} of {} histories are bad", to.saturating_sub(from));
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
