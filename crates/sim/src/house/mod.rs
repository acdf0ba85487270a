//! The whole house in virtual time: real nodes with their log and tables on disks in memory, three real
//! masters, clients.
//!
//! ```text
//!   clients ──requests──▶ Node + Log + Keeper + MemDisk ◀──Prepare, beacons──▶ Node + …
//!                              │ heartbeats, proposals ▲ assignments
//!                              ▼                       │
//!                           Masters ──Propose──▶ a stand-in for consensus: commits after a while, or loses it
//! ```
//!
//! Only what the real host does is played here: effects are carried out after a delay that the seed draws. Everything
//! is broken that may break, until the house is healed; then all rows are read, and what every client ever saw must
//! have an order that explains it ([`crate::linear`]), and all replicas must hold the same rows.

mod check;
mod client;
mod coverage;
mod elastic;
mod eventual;
mod faults;
mod follow;
mod holdings;
mod host;
mod ledger;
mod load;
mod machine;
mod master;
mod meddler;
mod net;
mod schedule;
mod shrink;
mod world;

use std::collections::BTreeSet;

use crate::group::Violation;
pub use coverage::{Coverage, State};
pub use faults::Fault;
pub use schedule::Planned;
pub use shrink::{Shrunk, shrink};

/// What a history had in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations of clients that were answered.
    pub answered: u64,
    /// Pages of scans among them that were not the last.
    pub pages: u64,
    /// Eventual reads that were answered.
    pub eventual: u64,
    /// Operations that were given up.
    pub unknown: u64,
    /// Starts of nodes.
    pub starts: u64,
    /// Changes of configuration.
    pub epochs: u64,
    /// Jobs: flushes, merges, pieces of checkpoints.
    pub jobs: u64,
    /// Checkpoints that learners took.
    pub checkpoints: u64,
    /// Tablets that were dropped.
    pub dropped: u64,
    /// Tablets that were split.
    pub splits: u64,
    /// Tablets that were made of two.
    pub merges: u64,
    /// Writes of many rows that were answered, and how many of their parts were answered before.
    pub batches: u64,
    /// See `batches`.
    pub parts: u64,
    /// Changes that a reader of changes was given.
    pub changes: u64,
    /// Whether changed bytes were found, which ends a history early.
    pub damaged: bool,
    /// Which faults met which states.
    pub coverage: Coverage,
    /// How often something broke.
    pub faults: u64,
    /// How often replicas were found to hold different rows, and how often one has healed.
    pub diverged: u64,
    /// See `diverged`.
    pub healed: u64,
    /// Nanoseconds of virtual time.
    pub lived: u64,
    /// Hash of everything that happened: the same seed gives the same.
    pub trace: u64,
}

/// What is set of a history instead of being drawn from its seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The kinds of faults.
    pub faults: Option<BTreeSet<Fault>>,
    /// Of what is planned with these kinds, only the faults with these numbers.
    pub only: Option<BTreeSet<usize>>,
    /// The network breaks only by faults.
    pub calm: bool,
    /// How many clients.
    pub clients: Option<usize>,
    /// The memory of some replica goes wrong, and nothing shows it.
    pub goes_wrong: bool,
    /// When everything is healed, in nanoseconds, if earlier than usual.
    pub heal_at: Option<u64>,
    /// An operator acts where it is most delicate, and copies of messages come late.
    pub meddling: bool,
    /// The table keeps its changes, and somebody follows them.
    pub changes: bool,
    /// A history in which these strike one after the other is bad by definition. To try shrinking on.
    pub forbidden: Vec<Fault>,
}

/// Lives the history of a seed in a setting.
pub fn live(seed: u64, verbose: usize, setting: &Setting) -> Result<Summary, Violation> {
    world::World::new(seed, verbose, setting).run()
}

/// The faults that are planned for it.
pub fn planned(seed: u64, setting: &Setting) -> Vec<Planned> {
    world::World::new(seed, 0, setting).planned()
}

/// Lives the history of a seed. `verbose` keeps this many of the last events for a violation's report.
pub fn run(seed: u64, verbose: usize) -> Result<Summary, Violation> {
    live(seed, verbose, &Setting::default())
}

/// The same in a setting, with nodes and a master that have a deliberate fault.
#[cfg(feature = "mutants")]
pub fn run_mutant(seed: u64, setting: &Setting, planted: protocol::Planted) -> Result<Summary, Violation> {
    let mut world = world::World::new(seed, 0, setting);
    world.timing.planted = planted;
    world.run()
}

/// The same with exactly these faults instead of those that the seed would draw.
pub fn run_with(seed: u64, verbose: usize, faults: &BTreeSet<Fault>) -> Result<Summary, Violation> {
    live(seed, verbose, &Setting { faults: Some(faults.clone()), ..Setting::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_keeps_its_promises() {
        let (mut eventual, mut splits, mut merges, mut batches, mut parts) = (0, 0, 0, 0, 0);
        for seed in 0..24 {
            match run(seed, 60) {
                Ok(summary) => {
                    eventual += summary.eventual;
                    (splits, merges) = (splits + summary.splits, merges + summary.merges);
                    (batches, parts) = (batches + summary.batches, parts + summary.parts);
                }
                Err(Violation { time, what, events }) => {
                    panic!("seed {seed} at {time} ns: {what}\n{}", events.join("\n"));
                }
            }
        }
        assert!(eventual > 1_000, "{eventual} eventual reads");
        assert!(splits > 50 && merges > 5, "{splits} heirs of splits, {merges} of merges");
        assert!(batches > 500 && parts > 100, "{batches} batches, {parts} parts of them");
    }

    /// Whatever strikes, whoever follows what happens to rows hears of every write once and in order, and what was heard makes
    /// the rows.
    #[test]
    fn changes_are_followed() {
        let (mut changes, mut splits, mut merges) = (0, 0, 0);
        for (seed, meddling) in (0..16).map(|seed| (seed, false)).chain((16..24).map(|seed| (seed, true))) {
            match live(seed, 60, &Setting { changes: true, meddling, ..Setting::default() }) {
                Ok(summary) => {
                    changes += summary.changes;
                    (splits, merges) = (splits + summary.splits, merges + summary.merges);
                }
                Err(Violation { time, what, events }) => {
                    panic!("seed {seed} at {time} ns: {what}\n{}", events.join("\n"));
                }
            }
        }
        assert!(changes > 3_000 && splits > 30 && merges > 3, "{changes} changes, {splits} and {merges} heirs");
    }

    /// Seeds that once broke a promise, the faults that they had if not their own, and why.
    const PINNED: &[(u64, &str, &str)] = &[
        (214, "", "a read was answered with the schema of later, in which its cells' family was another one"),
        (
            1258,
            "",
            "the files of a forgotten tablet went before its log said so, and a failed sync kept the node from opening",
        ),
        (1831, "", "a node was moved away before it had heard that it is primary no more, and read by its old leases"),
        (2231, "", "the same after a drain"),
        (265, "", "a tablet that had ended came back, empty, by a late assignment of its first epoch"),
        (809, "", "a tablet was split again before it had copied what it has of two others"),
        (1327, "", "a newcomer committed that heirs go on, whose only member had lost the entry"),
        (
            4909,
            "",
            "a node sent beacons twice in one instant, and took the answer to the first ones for one to the others",
        ),
        (1139, "syncs,full,crashes", "a node that started on a full disk did not say that the disk is full"),
    ];

    #[test]
    fn what_broke_once_holds_now() {
        for (seed, faults, cause) in PINNED {
            let lived = Fault::parse(faults).map_or_else(|| run(*seed, 0), |faults| run_with(*seed, 0, &faults));
            if let Err(violation) = lived {
                panic!("seed {seed} ({cause}) at {} ns: {}", violation.time, violation.what);
            }
        }
    }

    /// Rot is rare, so it has histories of its own: it is found in some of them, and nobody ever sees wrong data.
    #[test]
    fn damage_is_noticed_and_never_served() {
        let faults = Fault::parse("crashes,rot,syncs").unwrap();
        let lives = (0..24).map(|seed| run_with(seed, 0, &faults));
        let damaged = lives.map(|life| life.unwrap().damaged).filter(|damaged| *damaged).count();
        assert!(damaged > 3, "{damaged} of 24");
    }

    /// The memory of one of three goes wrong: sums at equal places show it, be it a secondary or the primary, and it learns
    /// the tablet anew. In the end all are equal.
    #[test]
    fn a_difference_that_nothing_shows_is_found_and_heals() {
        let faults = Some(Fault::parse("none").unwrap());
        let setting = Setting { faults, calm: true, goes_wrong: true, ..Setting::default() };
        let (mut diverged, mut healed) = (0, 0);
        for seed in 0..16 {
            match live(seed, 0, &setting) {
                Ok(summary) => (diverged, healed) = (diverged + summary.diverged, healed + summary.healed),
                Err(violation) => panic!("seed {seed} at {} ns: {}", violation.time, violation.what),
            }
        }
        assert!(diverged > 4 && healed > 3, "{diverged} found, {healed} healed");
    }

    #[test]
    fn one_seed_is_one_history() {
        assert_eq!(run(3, 0).unwrap(), run(3, 50).unwrap());
    }
}
