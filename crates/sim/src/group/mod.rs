//! One replica group in virtual time: the replicas themselves under the cruellest host that keeps its promises.
//!
//! ```text
//!   master (compare and set) ◀──Propose── node: Replica + log ──Prepare, beacons──▶ node: Replica + log
//!            └──────Assign, Forget──────────▶
//! ```
//!
//! The host loses, delays, doubles and reorders messages, cuts links in one direction, stops processes and lets them
//! go on, crashes them with the loss of what they had not synced, and lets clocks run at different speeds. After
//! every step the checkers compare the replicas with one another; at the end everything is healed, and then the
//! group must be whole again.

mod check;
#[cfg(test)]
mod exhaustive;
mod faults;
mod host;
mod log;
mod master;
mod net;
mod world;

use model::Lsn;
pub(crate) use world::words_of;

/// What a history had in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries that replicas committed, counted at each.
    pub commits: u64,
    /// Writes that were acknowledged to clients.
    pub acknowledged: u64,
    /// Changes of configuration.
    pub epochs: u32,
    /// Crashes.
    pub crashes: u64,
    /// Moments at which reads were found possible.
    pub readable: u64,
    /// Checkpoints that learners took.
    pub checkpoints: u64,
    /// Secondaries that lost a primary which another still heard.
    pub links: u64,
    /// Last committed entry.
    pub committed: Lsn,
    /// How often something broke.
    pub faults: u64,
    /// Nanoseconds of virtual time.
    pub lived: u64,
    /// Hash of everything that happened: the same seed gives the same.
    pub trace: u64,
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Nanoseconds of virtual time.
    pub time: u64,
    /// What was wrong.
    pub what: String,
    /// The last events before it, oldest first.
    pub events: Vec<String>,
}

/// Lives the history of a seed. `verbose` keeps this many of the last events for a violation's report.
pub fn run(seed: u64, verbose: usize) -> Result<Summary, Violation> {
    world::World::new(seed, verbose).run()
}

/// The same with replicas that have a deliberate fault.
#[cfg(feature = "mutants")]
pub fn run_mutant(seed: u64, verbose: usize, planted: protocol::Planted) -> Result<Summary, Violation> {
    let mut world = world::World::new(seed, verbose);
    world.timing.planted = planted;
    world.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_promises() {
        for seed in 0..60 {
            if let Err(violation) = run(seed, 60) {
                panic!("seed {seed} at {} ns: {}\n{}", violation.time, violation.what, violation.events.join("\n"));
            }
        }
    }

    /// Seeds that once broke a promise, and why.
    const PINNED: &[(u64, &str)] = &[
        (97, "a primary spoke in a new epoch before the epoch was on its disk, crashed, and took the same epoch anew"),
        (40, "a learner's only answer got lost, and the primary had nothing left to send it"),
        (544, "a learner was withdrawn, forgot everything and was chosen again in the same epoch"),
        (6, "a member asked a new primary for committed entries that had left its log"),
        (9660, "what a node acknowledged as a member counted after it had forgotten everything and learnt anew"),
        (6984, "a primary whose own disk was slow to hold a new epoch proposed all its members away"),
        (2155, "a late copy of the first assignment made a founding member of a node that had left the group"),
        (525, "a learner that its primary had lost did not introduce itself again"),
    ];

    #[test]
    fn what_broke_once_holds_now() {
        for (seed, cause) in PINNED {
            if let Err(violation) = run(*seed, 0) {
                panic!("seed {seed} ({cause}) at {} ns: {}", violation.time, violation.what);
            }
        }
    }

    #[test]
    fn one_seed_is_one_history() {
        for seed in [1, 2, 3] {
            assert_eq!(run(seed, 0).unwrap(), run(seed, 50).unwrap());
        }
    }
}
