//! Which faults have struck while the house was in which state: a fault that never met a state has proved nothing of it.

use std::collections::BTreeMap;
use std::fmt;

use node::Stage;
use protocol::replica::Stage as GroupStage;

use super::faults::Fault;

/// A state of the house that is worth breaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Some primary has live leases.
    Steady,
    /// Some primary has not heard of a member for half a lease.
    Lapsing,
    /// Some primary waits for the master's word on another configuration.
    Proposing,
    /// Some secondary writes that it gives up its primary.
    GivingUp,
    /// Some secondary has asked to become primary.
    Succeeding,
    /// Some new primary takes over its predecessor's tail.
    Reconciling,
    /// Some primary has started again.
    Returning,
    /// Some learner gets the log.
    ByLog,
    /// Some learner gets files.
    ByFiles,
    /// Some learner puts the files in place.
    Adopting,
    /// Some group has one member.
    Alone,
    /// Some memtable goes to disk, or tables are merged.
    Flushing,
    /// Some log is about to be trimmed.
    Trimming,
    /// The files of some dropped tablet are removed.
    Dropping,
    /// No master leads.
    NoMaster,
}

impl State {
    /// Each with the head of its column.
    pub const ALL: [(State, &'static str); 15] = [
        (State::Steady, "steady"),
        (State::Lapsing, "lapse"),
        (State::Proposing, "prop"),
        (State::GivingUp, "saving"),
        (State::Succeeding, "asked"),
        (State::Reconciling, "recon"),
        (State::Returning, "return"),
        (State::ByLog, "bylog"),
        (State::ByFiles, "byfile"),
        (State::Adopting, "adopt"),
        (State::Alone, "alone"),
        (State::Flushing, "flush"),
        (State::Trimming, "trim"),
        (State::Dropping, "drop"),
        (State::NoMaster, "nomast"),
    ];

    /// That in which a node with such a stage is.
    pub fn of(stage: Stage) -> Option<State> {
        Some(match stage {
            Stage::Group(GroupStage::Serving) => State::Steady,
            Stage::Group(GroupStage::Lapsing) => State::Lapsing,
            Stage::Group(GroupStage::Proposing) => State::Proposing,
            Stage::Group(GroupStage::GivingUp) => State::GivingUp,
            Stage::Group(GroupStage::Succeeding) => State::Succeeding,
            Stage::Group(GroupStage::Reconciling) => State::Reconciling,
            Stage::Group(GroupStage::Returning) => State::Returning,
            Stage::Group(GroupStage::Learning) => State::ByLog,
            Stage::Group(GroupStage::Following | GroupStage::Spare) => return None,
            Stage::Alone => State::Alone,
            Stage::Receiving => State::ByFiles,
            Stage::Adopting => State::Adopting,
            Stage::Flushing | Stage::Merging => State::Flushing,
            Stage::Dropping => State::Dropping,
        })
    }
}

/// Some states.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct States(u32);

impl States {
    pub fn add(&mut self, state: State) {
        self.0 |= 1 << state as u32;
    }

    pub fn has(self, state: State) -> bool {
        self.0 >> state as u32 & 1 == 1
    }

    pub fn with(self, other: States) -> States {
        States(self.0 | other.0)
    }
}

impl FromIterator<State> for States {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> States {
        let mut all = States::default();
        states.into_iter().for_each(|state| all.add(state));
        all
    }
}

/// Pairs that no history is expected to meet, each with the reason.
const SPARED: &[(Fault, State, &str)] = &[
    (Fault::Master, State::NoMaster, "a master that is away cannot go away"),
    (Fault::LostDisk, State::Alone, "the only member's disk holds the only copy: nothing could be promised"),
];

/// How often each pair was met.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(Fault, State), u64>);

impl Coverage {
    /// The fault strikes while the house is in these states.
    pub(super) fn met(&mut self, fault: Fault, states: States) {
        let met = State::ALL.into_iter().filter(|(state, _)| states.has(*state));
        met.for_each(|(state, _)| *self.0.entry((fault, state)).or_default() += 1);
    }

    /// Adds what another history has met.
    pub fn add(&mut self, other: &Coverage) {
        other.0.iter().for_each(|(&pair, times)| *self.0.entry(pair).or_default() += times);
    }

    fn times(&self, fault: Fault, state: State) -> u64 {
        self.0.get(&(fault, state)).copied().unwrap_or(0)
    }

    /// Pairs that should have been met and were not.
    pub fn missing(&self) -> Vec<(Fault, State)> {
        let pairs = Fault::all().flat_map(|fault| State::ALL.map(|(state, _)| (fault, state)));
        let spared = |fault, state| SPARED.iter().any(|(f, s, _)| (*f, *s) == (fault, state));
        pairs.filter(|&(fault, state)| self.times(fault, state) == 0 && !spared(fault, state)).collect()
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pairs", self.0.len())
    }
}

/// The table, a fault in a line. `-` is a pair that is not expected.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10}", "")?;
        State::ALL.iter().try_for_each(|(_, name)| write!(f, "{name:>7}"))?;
        for fault in Fault::all() {
            write!(f, "\n{:10}", fault.name())?;
            for (state, _) in State::ALL {
                match self.times(fault, state) {
                    0 if SPARED.iter().any(|(spared, of, _)| (*spared, *of) == (fault, state)) => {
                        write!(f, "{:>7}", "-")?
                    }
                    times => write!(f, "{times:>7}")?,
                }
            }
        }
        SPARED.iter().try_for_each(|(fault, state, why)| write!(f, "\n- {} × {state:?}: {why}", fault.name()))
    }
}
