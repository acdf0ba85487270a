//! `mutants [NAME…]`: has each deliberate fault of `protocol::mutant` lived by the simulator until a checker catches it,
//! prints which seed and which checker that was, and exits with 1 if one survives. A seed that is bad without any fault
//! catches nobody, and is bad news of its own. See docs/model-checking.md.

#![allow(clippy::disallowed_methods, reason = "the table says how fast each fault is caught, and uses both cores")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use protocol::mutant::Home;
use protocol::{Mutant, Planted};
use sim::house::Setting;
use sim::{group, house};

/// Seeds of each world that a fault may need at most.
const GROUP_SEEDS: u64 = 2_000;
const HOUSE_SEEDS: u64 = 400;
/// A violation's first line is cut after this many characters in the table.
const WHAT: usize = 90;

/// A history of this seed, with this fault; the violation, if there is one.
type Life = fn(u64, Planted) -> Option<group::Violation>;

struct Caught {
    world: &'static str,
    seed: u64,
    what: String,
}

struct Trial {
    mutant: Mutant,
    caught: Option<Caught>,
    histories: u64,
    took: Duration,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |mutant: &Mutant| names.is_empty() || names.iter().any(|name| name == mutant.name());
    let mutants: Vec<Mutant> = Mutant::ALL.iter().copied().filter(chosen).collect();
    if mutants.is_empty() {
        eprintln!("usage: mutants [NAME…], names out of:");
        Mutant::ALL.iter().for_each(|mutant| eprintln!("  {}: {}", mutant.name(), mutant.what()));
        return ExitCode::from(2);
    }
    let next = AtomicUsize::new(0);
    let trials = Mutex::new(Vec::new());
    let begun = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(&mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let trial = try_mutant(mutant);
                    eprintln!("{}", row(&trial));
                    trials.lock().expect("nobody panics with it").push(trial);
                }
            });
        }
    });
    let mut trials = trials.into_inner().expect("nobody panics with it");
    trials.sort_by_key(|trial| trial.mutant);
    println!("| mutant | what is wrong | caught by | histories | seconds | what the checker says |");
    println!("|---|---|---|---|---|---|");
    trials.iter().for_each(|trial| println!("{}", row(trial)));
    let survivors = trials.iter().filter(|trial| trial.caught.is_none()).count();
    println!("\n{} mutants, {survivors} survive; {:.0} s", trials.len(), begun.elapsed().as_secs_f64());
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lives histories until one is bad: first those of a group, which are short, if the fault is in its replicas.
fn try_mutant(mutant: Mutant) -> Trial {
    let begun = Instant::now();
    let planted = Planted::only(mutant);
    // The master of a group is another one, but for this.
    let in_groups = mutant.home() == Home::Replica || mutant == Mutant::SilentLearnerChange;
    let group_seeds = if in_groups { GROUP_SEEDS } else { 0 };
    let group = |seed, planted| group::run_mutant(seed, 0, planted).err();
    let house = |seed, planted| house::run_mutant(seed, &Setting::default(), planted).err();
    let meddled =
        |seed, planted| house::run_mutant(seed, &Setting { meddling: true, ..Setting::default() }, planted).err();
    let followed =
        |seed, planted| house::run_mutant(seed, &Setting { changes: true, ..Setting::default() }, planted).err();
    let groups = (0..group_seeds).map(|seed| ("group", seed, group as Life));
    let houses = (0..HOUSE_SEEDS).map(|seed| ("house", seed, house as Life));
    let meddled = (0..HOUSE_SEEDS).map(|seed| ("house --meddling", seed, meddled as Life));
    // Who reads changes meets what concerns them; the others never would.
    let follows = if mutant == Mutant::ChangesByClock { HOUSE_SEEDS } else { 0 };
    let followed = (0..follows).map(|seed| ("house --changes", seed, followed as Life));
    let mut histories = 0;
    let caught = followed.chain(groups).chain(houses).chain(meddled).inspect(|_| histories += 1).find_map(
        |(world, seed, life)| {
            let what = life(seed, planted)?.what;
            if let Some(violation) = life(seed, Planted::default()) {
                eprintln!("{world} {seed} is bad without any fault: {}", violation.what);
                return None;
            }
            Some(Caught { world, seed, what: what.lines().next().unwrap_or_default().to_owned() })
        },
    );
    Trial { mutant, caught, histories, took: begun.elapsed() }
}

fn row(trial: &Trial) -> String {
    let Trial { mutant, caught, histories, took } = trial;
    let (by, what) = match caught {
        Some(Caught { world, seed, what }) => (format!("{world} {seed}"), what.as_str()),
        None => ("**survives**".to_owned(), ""),
    };
    let what: String = what.chars().take(WHAT).collect();
    let what = what.replace('|', "\\|");
    format!("| {} | {} | {by} | {histories} | {:.2} | {what} |", mutant.name(), mutant.what(), took.as_secs_f64())
}
