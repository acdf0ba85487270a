//! Makes a bad history smaller: fewer faults, fewer clients, a calm network, an earlier end, as long as it stays bad.
//!
//! After Zeller and Hildebrandt's ddmin (2002). A change of the history may make another promise break than the one that
//! broke first; that does not count.

use std::collections::BTreeSet;

use super::{Planned, Setting, live, planned};
use crate::agenda::MS;
use crate::group::Violation;

/// A bad history and the smaller one that was found in it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub setting: Setting,
    /// How it breaks.
    pub violation: Violation,
    /// The faults that are left.
    pub faults: Vec<Planned>,
    /// How many faults there were.
    pub before: usize,
    /// How many histories were lived for it.
    pub tries: u64,
}

/// Looks for a smaller history of the seed that breaks the same promise; `None` if it breaks none.
pub fn shrink(seed: u64, setting: &Setting) -> Option<Shrunk> {
    let violation = live(seed, 0, setting).err()?;
    let before: Vec<Planned> = planned(seed, setting);
    let early = before.iter().filter(|planned| planned.at <= violation.time);
    let early: BTreeSet<usize> = early.map(|planned| planned.number).collect();
    let mut search = Search {
        seed,
        promise: promise(&violation.what),
        best: Setting { only: Some(before.iter().map(|planned| planned.number).collect()), ..setting.clone() },
        violation,
        tries: 1,
    };
    search.tries_with(|smaller| smaller.only = Some(early));
    search.tries_with(|smaller| smaller.calm = true);
    search.drop_faults();
    search.drop_clients();
    search.end_earlier();
    search.tries_with(|smaller| smaller.calm = true);
    search.drop_faults();
    let Search { best, violation, tries, .. } = search;
    Some(Shrunk { faults: planned(seed, &best), setting: best, violation, before: before.len(), tries })
}

/// What was broken, without the numbers.
fn promise(what: &str) -> String {
    let words = what.split_whitespace().filter(|word| word.chars().all(char::is_alphabetic));
    words.take(4).collect::<Vec<_>>().join(" ")
}

struct Search {
    seed: u64,
    promise: String,
    best: Setting,
    violation: Violation,
    tries: u64,
}

impl Search {
    /// Whether the history stays bad with this change; then it is the best.
    fn tries_with(&mut self, change: impl FnOnce(&mut Setting)) -> bool {
        let mut smaller = self.best.clone();
        change(&mut smaller);
        if smaller == self.best {
            return false;
        }
        self.tries += 1;
        match live(self.seed, 0, &smaller) {
            Err(violation) if promise(&violation.what) == self.promise => {
                (self.best, self.violation) = (smaller, violation);
                true
            }
            _ => false,
        }
    }

    fn numbers(&self) -> Vec<usize> {
        self.best.only.iter().flatten().copied().collect()
    }

    /// Leaves out ever smaller pieces of the schedule, until every single fault is needed.
    fn drop_faults(&mut self) {
        let mut piece = self.numbers().len().div_ceil(2);
        while piece > 0 {
            let mut from = 0;
            let mut dropped = false;
            while from < self.numbers().len() {
                let mut left = self.numbers();
                left.drain(from..(from + piece).min(left.len()));
                let left: BTreeSet<usize> = left.into_iter().collect();
                // What follows moves up, so the place stays.
                if self.tries_with(|smaller| smaller.only = Some(left)) {
                    dropped = true;
                } else {
                    from += piece;
                }
            }
            if piece == 1 && !dropped {
                break;
            }
            piece = if piece == 1 { 1 } else { piece.div_ceil(2) };
        }
    }

    fn drop_clients(&mut self) {
        for clients in 1..=4 {
            if self.tries_with(|smaller| smaller.clients = Some(clients)) {
                break;
            }
        }
    }

    /// Heals everything soon after the last fault.
    fn end_earlier(&mut self) {
        let last = planned(self.seed, &self.best).last().map_or(0, |planned| planned.at);
        for after in [MS, 100 * MS, 1000 * MS, 3000 * MS] {
            if self.tries_with(|smaller| smaller.heal_at = Some(last + after)) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fault;
    use super::*;

    /// A world that is bad as soon as a pause has followed a blackout shrinks to these two, and replays.
    #[test]
    fn only_what_matters_is_left() {
        let setting = Setting {
            faults: Fault::parse("crashes,pauses,cuts,network,blackouts"),
            forbidden: vec![Fault::Blackout, Fault::Pause],
            ..Setting::default()
        };
        let seed = (0..50).find(|seed| live(*seed, 0, &setting).is_err()).expect("many have both");
        let shrunk = shrink(seed, &setting).expect("it is bad");
        let left: Vec<Fault> = shrunk.faults.iter().map(|planned| planned.fault).collect();
        assert_eq!(left, [Fault::Blackout, Fault::Pause], "of {} faults", shrunk.before);
        assert!(shrunk.before > left.len() && shrunk.setting.clients == Some(1), "{shrunk:?}");
        let again = live(seed, 0, &shrunk.setting).unwrap_err();
        assert_eq!((again.time, again.what), (shrunk.violation.time, shrunk.violation.what));
    }

    #[test]
    fn a_good_history_does_not_shrink() {
        let setting = Setting { faults: Fault::parse("none"), ..Setting::default() };
        assert!(shrink(1, &setting).is_none());
    }
}
