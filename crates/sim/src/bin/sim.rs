//! Lives histories, on every core: `sim group 0..1000`, `sim house 0..1000`. docs/simulation.md tells the rest.
//! Names the seeds that break a promise and exits with 1.

// The only threads of the simulator, each with worlds of its own.
#![allow(clippy::disallowed_methods)]

use std::fmt::Debug;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sim::group::Violation;
use sim::house::{Coverage, Setting};
use sim::{group, house};

const USAGE: &str = "usage: sim group FROM..TO [EVENTS]           replica groups alone
       sim house FROM..TO [EVENTS [FAULTS]]  whole nodes, master and clients
       sim coverage FROM..TO [FAULTS]        the same, and which faults met which states; exits with 1 if a pair is missing
       sim list house SEED [FAULTS]          the faults that are planned for it
       sim shrink house SEED [FAULTS]        a smaller history of the seed that is still bad
       sim night HOURS                       both worlds with fresh seeds until the time is over
       with house, coverage, list and shrink: --only-faults 3,7 --clients 2 --calm --meddling
       --changes --heal-at MILLISECONDS
FAULTS is a list of kinds (network,cuts,crashes,blackouts,pauses,clocks,master,full,slow,syncs,reads,rot,lost), of single
faults as the coverage table names them, or none; without it each seed draws its own.
Of a single seed the last EVENTS before a violation are printed. SIM_SUMMARIES=1 says of each history what it had in it.";

fn main() -> ExitCode {
    // A panic in a history is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match command(&words) {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was well; `None` if the words make no sense.
fn command(words: &[&str]) -> Option<bool> {
    let (words, mut setting) = options(words)?;
    match &words[..] {
        ["house", _, _, faults] | ["coverage" | "list" | "shrink", .., faults]
            if house::Fault::parse(faults).is_some() =>
        {
            setting.faults = house::Fault::parse(faults);
        }
        _ => {}
    }
    let faults = usize::from(setting.faults.is_some());
    match &words[..] {
        ["group", seeds] => Some(group_histories(&range(seeds)?, 60)),
        ["group", seeds, events] => Some(group_histories(&range(seeds)?, events.parse().ok()?)),
        ["house", seeds] => Some(house_histories(&range(seeds)?, 60, &setting, false)),
        ["house", seeds, events, rest @ ..] if rest.len() == faults => {
            Some(house_histories(&range(seeds)?, events.parse().ok()?, &setting, false))
        }
        ["coverage", seeds, rest @ ..] if rest.len() == faults => {
            Some(house_histories(&range(seeds)?, 0, &setting, true))
        }
        ["list", "house", seed, rest @ ..] if rest.len() == faults => {
            house::planned(seed.parse().ok()?, &setting).iter().for_each(|planned| println!("{planned}"));
            Some(true)
        }
        ["shrink", "house", seed, rest @ ..] if rest.len() == faults => Some(shrink(seed.parse().ok()?, &setting)),
        ["night", hours] => Some(night(hours.parse().ok()?)),
        _ => None,
    }
}

/// The words that are left, and what the options among them set.
fn options<'a>(words: &[&'a str]) -> Option<(Vec<&'a str>, Setting)> {
    let (mut left, mut setting, mut words) = (Vec::new(), Setting::default(), words.iter().copied());
    while let Some(word) = words.next() {
        match word {
            "--calm" => setting.calm = true,
            "--meddling" => setting.meddling = true,
            "--changes" => setting.changes = true,
            "--only-faults" => {
                let numbers = words.next()?.split(',').filter(|number| *number != "none");
                setting.only = Some(numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?);
            }
            "--clients" => setting.clients = Some(words.next()?.parse().ok().filter(|clients| *clients > 0)?),
            "--heal-at" => setting.heal_at = Some(words.next()?.parse::<u64>().ok()?.checked_mul(1_000_000)?),
            _ if word.starts_with("--") => return None,
            _ => left.push(word),
        }
    }
    Some((left, setting))
}

/// The words that make `options` give this setting.
fn words_of(setting: &Setting) -> String {
    let list = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(",");
    let faults = setting.faults.as_ref().map(|faults| match faults.is_empty() {
        true => " none".to_owned(),
        false => format!(" {}", list(&mut faults.iter().map(|fault| fault.name().to_owned()))),
    });
    let only = setting.only.as_ref().map(|only| match only.is_empty() {
        true => " --only-faults none".to_owned(),
        false => format!(" --only-faults {}", list(&mut only.iter().map(|number| number.to_string()))),
    });
    let calm = setting.calm.then(|| " --calm".to_owned());
    let meddling = setting.meddling.then(|| " --meddling".to_owned());
    let changes = setting.changes.then(|| " --changes".to_owned());
    let clients = setting.clients.map(|clients| format!(" --clients {clients}"));
    let heal_at = setting.heal_at.map(|at| format!(" --heal-at {}", at.div_ceil(1_000_000)));
    [faults, only, calm, meddling, changes, clients, heal_at].into_iter().flatten().collect()
}

/// Prints the smaller history; whether there was nothing to shrink.
fn shrink(seed: u64, setting: &Setting) -> bool {
    let Some(shrunk) = house::shrink(seed, setting) else {
        println!("seed {seed} keeps every promise");
        return true;
    };
    if let Err(violation) = house::live(seed, 300, &shrunk.setting) {
        violation.events.iter().for_each(|event| println!("{event}"));
    }
    println!("\n{} of {} faults are left, after {} histories:", shrunk.faults.len(), shrunk.before, shrunk.tries);
    shrunk.faults.iter().for_each(|planned| println!("  {planned}"));
    println!("at {:.6} s: {}", shrunk.violation.time as f64 / 1e9, shrunk.violation.what);
    println!("again: cargo run -p sim -- house {seed}..{} 300{}", seed + 1, words_of(&shrunk.setting));
    false
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

fn group_histories(seeds: &Range<u64>, events: usize) -> bool {
    let tally = Tally::default();
    live_groups(&tally, seeds, events);
    tally.tell("group")
}

fn live_groups(tally: &Tally, seeds: &Range<u64>, events: usize) {
    let lived = |summary: &group::Summary| (summary.lived, summary.faults);
    histories(tally, "group", "", seeds, events, group::run, lived);
}

fn house_histories(seeds: &Range<u64>, events: usize, setting: &Setting, table: bool) -> bool {
    let (tally, coverage) = (Tally::default(), Mutex::new(Coverage::default()));
    live_houses(&tally, seeds, events, setting, &coverage);
    let coverage = coverage.into_inner().unwrap_or_else(PoisonError::into_inner);
    let missing = if table { coverage.missing() } else { Vec::new() };
    if table {
        println!("{coverage}");
    }
    missing.iter().for_each(|(fault, state)| println!("never met: {} in {state:?}", fault.name()));
    tally.tell("house") && missing.is_empty()
}

fn live_houses(tally: &Tally, seeds: &Range<u64>, events: usize, setting: &Setting, coverage: &Mutex<Coverage>) {
    let words = words_of(setting);
    let run = |seed, events| house::live(seed, events, setting);
    histories(tally, "house", &words, seeds, events, run, |summary: &house::Summary| {
        coverage.lock().unwrap_or_else(PoisonError::into_inner).add(&summary.coverage);
        tally.splits.fetch_add(summary.splits / 2, Relaxed);
        tally.merges.fetch_add(summary.merges, Relaxed);
        (summary.lived, summary.faults)
    });
}

/// Both worlds by turns, with seeds that no night had before, until the time is over.
fn night(hours: f64) -> bool {
    let (begun, length) = (Instant::now(), Duration::from_secs_f64(hours.max(0.0) * 3600.0));
    let date = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut seed = date.map_or(0, |date| date.as_secs() / 60) * 1_000_000;
    let (groups, houses, coverage) = (Tally::default(), Tally::default(), Mutex::default());
    while begun.elapsed() < length {
        live_groups(&groups, &(seed..seed + 200), 0);
        live_houses(&houses, &(seed..seed + 50), 0, &Setting::default(), &coverage);
        seed += 200;
    }
    println!("{}", coverage.into_inner().unwrap_or_else(PoisonError::into_inner));
    // Both are told, also if the first was bad.
    [groups.tell("group"), houses.tell("house")] == [true, true]
}

/// What is counted of many histories.
#[derive(Default)]
struct Tally {
    histories: AtomicU64,
    bad: AtomicU64,
    nanoseconds: AtomicU64,
    faults: AtomicU64,
    /// Counted at each replica that made heirs.
    splits: AtomicU64,
    merges: AtomicU64,
    /// Of all cores together.
    cpu_ms: AtomicU64,
}

impl Tally {
    /// Says it, and whether no history was bad.
    fn tell(&self, kind: &str) -> bool {
        let (bad, seconds) = (self.bad.load(Relaxed), self.nanoseconds.load(Relaxed) / 1_000_000_000);
        let cpu = self.cpu_ms.load(Relaxed) as f64 / 1e3;
        let (splits, merges) = (self.splits.load(Relaxed), self.merges.load(Relaxed));
        if splits + merges > 0 {
            println!("{kind}: replicas were split {splits} times, and two made one {merges} times");
        }
        println!(
            "{kind}: {bad} of {} histories are bad; {} faults in {seconds} simulated seconds; {:.0} of these in a \
             second of a core ({cpu:.1} in all), {:.1} years in a night of ten hours on two",
            self.histories.load(Relaxed),
            self.faults.load(Relaxed),
            seconds as f64 / cpu.max(0.01),
            seconds as f64 / cpu.max(0.01) * 2.0 * 36_000.0 / 31_557_600.0,
        );
        bad == 0
    }
}

/// Milliseconds that this process has had of all cores, as Linux counts them; elsewhere those since 1970.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: user and system time are the 12th and 13th, in hundredths of a second.
    let times = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let hundredths = times.map(|times| times.filter_map(|time| time.parse::<u64>().ok()).sum::<u64>());
    let date = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    hundredths.map_or_else(|| date().map_or(0, |date| date.as_millis() as u64), |hundredths| hundredths * 10)
}

/// Lives them on all cores.
fn histories<S: Debug>(
    tally: &Tally,
    kind: &str,
    setting: &str,
    seeds: &Range<u64>,
    events: usize,
    run: impl Fn(u64, usize) -> Result<S, Violation> + Sync,
    lived: impl Fn(&S) -> (u64, u64) + Sync,
) {
    let single = seeds.end.saturating_sub(seeds.start) == 1;
    let events = if single { events } else { 0 };
    let summaries = single || std::env::var_os("SIM_SUMMARIES").is_some();
    let live = |seed: u64| {
        tally.histories.fetch_add(1, Relaxed);
        match run(seed, events) {
            Ok(summary) => {
                let (nanoseconds, faults) = lived(&summary);
                tally.nanoseconds.fetch_add(nanoseconds, Relaxed);
                tally.faults.fetch_add(faults, Relaxed);
                if summaries {
                    println!("seed {seed}: {summary:?}");
                }
            }
            Err(violation) => {
                tally.bad.fetch_add(1, Relaxed);
                tally.nanoseconds.fetch_add(violation.time, Relaxed);
                let events: String = violation.events.iter().map(|event| format!("{event}\n")).collect();
                println!(
                    "seed {seed} at {:.6} s: {}\n{events}again: cargo run -p sim -- {kind} {seed}..{} 300{setting}",
                    violation.time as f64 / 1e9,
                    violation.what,
                    seed + 1
                );
            }
        }
    };
    let (next, before) = (AtomicU64::new(seeds.start), cpu_ms());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < seeds.end) {
                    live(seed);
                }
            });
        }
    });
    tally.cpu_ms.fetch_add(cpu_ms() - before, Relaxed);
}
