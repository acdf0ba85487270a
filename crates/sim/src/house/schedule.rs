//! The faults of a history, planned before it begins, so that they can be listed, left out and tried again.
//!
//! ```text
//!   seed ──▶ #0 crash of n2 at 2.1 s ── #1 n3 hangs when it is reconciling, from 2.4 s on ── …
//!                └─ only some of them: the same history until the first that is missing
//! ```

use std::fmt;

use model::Instant;
use model::random::Random;

use super::Setting;
use super::coverage::State;
use super::faults::{Climate, Fault};
use crate::agenda::{MS, SECOND};

/// A fault that will strike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number in the history.
    pub number: usize,
    /// What.
    pub fault: Fault,
    /// When, in nanoseconds.
    pub at: u64,
    /// It waits for a node in this state, and strikes that.
    pub awaits: Option<State>,
    /// Whom.
    pub node: usize,
    /// How long, if it lasts.
    pub lasts: u64,
    /// What else is to be chosen, follows from this.
    pub draw: u64,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Planned { number, fault, at, awaits, node, lasts, .. } = self;
        write!(f, "#{number} {:?} {} n{node} for {:?}", Instant(*at), fault.name(), Instant(*lasts))?;
        awaits.map_or(Ok(()), |state| write!(f, ", when a node is in {state:?}"))
    }
}

/// Draws the faults of a history from `begins` until `healed`.
pub(super) fn draw(random: &mut Random, climate: &Climate, nodes: usize, begins: u64, healed: u64) -> Vec<Planned> {
    let faults: Vec<Fault> = climate.faults.iter().copied().collect();
    let (rare, usual): (Vec<Fault>, Vec<Fault>) = faults.into_iter().partition(|fault| fault.is_rare());
    let mut planned = Vec::new();
    // Each that may strike only once, at any time.
    for fault in rare {
        let at = begins + random.below((healed - begins) * 2 / 3);
        planned.push(plan(random, fault, at, 90, nodes));
    }
    let mut at = begins;
    while at < healed {
        let Some(&fault) = random.pick(&usual) else { break };
        planned.push(plan(random, fault, at, 40, nodes));
        at += random.between(climate.fault_every / 4, climate.fault_every * 2);
    }
    planned.sort_by_key(|planned| planned.at);
    planned.iter_mut().enumerate().for_each(|(number, planned)| planned.number = number);
    planned
}

/// A state to wait for, above all one that is seldom and short.
fn awaited(random: &mut Random) -> State {
    const SHORT: [State; 9] = {
        use State::{Adopting, ByFiles, Dropping};
        [ByFiles, Adopting, ByFiles, Adopting, Adopting, Adopting, Adopting, Adopting, Dropping]
    };
    let place = random.below((State::ALL.len() + SHORT.len()) as u64) as usize;
    State::ALL.get(place).map_or_else(|| SHORT[place - State::ALL.len()], |(state, _)| *state)
}

/// `waits`: in so many of 100 cases it waits for a state.
fn plan(random: &mut Random, fault: Fault, at: u64, waits: u64, nodes: usize) -> Planned {
    let most = [50 * MS, 500 * MS, 2500 * MS, 6 * SECOND][random.below(4) as usize];
    Planned {
        number: 0,
        fault,
        at,
        awaits: random.chance(waits).then(|| awaited(random)),
        node: 1 + random.below(nodes as u64) as usize,
        lasts: MS + random.below(most),
        draw: random.draw(),
    }
}

/// Those of them that the setting leaves.
pub(super) fn chosen(planned: Vec<Planned>, setting: &Setting) -> Vec<Planned> {
    let chosen = |planned: &Planned| setting.only.as_ref().is_none_or(|only| only.contains(&planned.number));
    planned.into_iter().filter(chosen).collect()
}
