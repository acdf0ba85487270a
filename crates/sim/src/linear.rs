//! Is there an order of a register's operations that explains what every client saw?
//!
//! After Wing and Gong (1993), with Lowe's memory of states that lead nowhere (2017). Each operation takes effect at
//! one moment between its call and its answer; one that was never answered takes effect at any moment after its call,
//! or never. Values are unique, so a value names its writer.

use std::collections::BTreeSet;

/// What a register holds: `None` when it is empty.
pub type Value = Option<u64>;

/// What an operation does to the register, or saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Saw this. A conditional write that did not apply has read what was there instead.
    Read(Value),
    /// Set it to this.
    Write(Value),
    /// Set it from the first to the second.
    Swap(Value, Value),
}

/// An operation on one register.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When it was called.
    pub called: u64,
    /// When its answer came; `None` if never.
    pub answered: Option<u64>,
    /// What it did. A read without an answer says nothing and must not be given.
    pub action: Action,
}

impl Action {
    /// The register after the action, if it can happen now.
    fn on(self, register: Value) -> Option<Value> {
        match self {
            Action::Read(seen) => (seen == register).then_some(register),
            Action::Write(value) => Some(value),
            Action::Swap(from, to) => (from == register).then_some(to),
        }
    }

    fn sees(self) -> Option<Value> {
        match self {
            Action::Read(value) | Action::Swap(value, _) => Some(value),
            Action::Write(_) => None,
        }
    }

    fn leaves(self) -> Option<Value> {
        match self {
            Action::Write(value) | Action::Swap(_, value) => Some(value),
            Action::Read(_) => None,
        }
    }
}

/// Looks for an order of the operations on a register that was empty. `Err` has the operations that the best attempt
/// could not place.
pub fn check(operations: &[Operation]) -> Result<(), Vec<Operation>> {
    let seen: BTreeSet<Value> = operations.iter().filter_map(|operation| operation.action.sees()).collect();
    // What was never answered and never seen may as well not have happened.
    let matters = |operation: &&Operation| {
        operation.answered.is_some() || operation.action.leaves().is_none_or(|value| seen.contains(&value))
    };
    let mut operations: Vec<Operation> = operations.iter().filter(matters).copied().collect();
    operations.sort_by_key(|operation| operation.called);
    let mut search = Search {
        done: vec![0; operations.len().div_ceil(64)],
        first: 0,
        operations,
        dead: BTreeSet::new(),
        best: None,
    };
    search.run()
}

/// A depth of the search.
struct Level {
    /// What may still be tried here.
    open: Vec<usize>,
    /// What was placed to get deeper, and the register before.
    placed: Option<(usize, Value)>,
}

struct Search {
    operations: Vec<Operation>,
    /// Bit set of the operations that have their place.
    done: Vec<u64>,
    /// All before it are done.
    first: usize,
    dead: BTreeSet<(Vec<u64>, Value)>,
    best: Option<(usize, Vec<u64>)>,
}

impl Search {
    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    fn flip(&mut self, index: usize) {
        self.done[index / 64] ^= 1 << (index % 64);
        self.first = self.first.min(index);
        while self.first < self.operations.len() && self.is_done(self.first) {
            self.first += 1;
        }
    }

    /// Operations that may be next: called before the first answer of those that are left. Answered ones come first.
    fn candidates(&self) -> Option<Vec<usize>> {
        let left = || (self.first..self.operations.len()).filter(|&index| !self.is_done(index));
        let horizon = left().filter_map(|index| self.operations[index].answered).min()?;
        let mut open: Vec<usize> = left().take_while(|&index| self.operations[index].called <= horizon).collect();
        // Taken from the end: those that were answered, the earliest first.
        open.sort_by_key(|&index| core::cmp::Reverse(self.operations[index].answered.unwrap_or(u64::MAX)));
        Some(open)
    }

    fn run(&mut self) -> Result<(), Vec<Operation>> {
        let mut register: Value = None;
        let mut levels: Vec<Level> = Vec::new();
        match self.candidates() {
            None => return Ok(()),
            Some(open) => levels.push(Level { open, placed: None }),
        }
        while let Some(Level { open, placed }) = levels.last_mut() {
            if let Some((index, before)) = placed.take() {
                register = before;
                self.flip(index);
                continue;
            }
            let Some(index) = open.pop() else {
                levels.pop();
                continue;
            };
            let Some(after) = self.operations[index].action.on(register) else { continue };
            self.flip(index);
            if !self.dead.insert((self.done.clone(), after)) {
                self.flip(index);
                continue;
            }
            *placed = Some((index, register));
            register = after;
            let placed_now: usize = self.done.iter().map(|word| word.count_ones() as usize).sum();
            if self.best.as_ref().is_none_or(|(most, _)| placed_now > *most) {
                self.best = Some((placed_now, self.done.clone()));
            }
            match self.candidates() {
                None => return Ok(()),
                Some(open) => levels.push(Level { open, placed: None }),
            }
        }
        let done = self.best.take().map_or_else(|| vec![0; self.done.len()], |(_, done)| done);
        let stuck = (0..self.operations.len()).filter(|index| done[index / 64] >> (index % 64) & 1 == 0);
        Err(stuck.map(|index| self.operations[index]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::random::Random;

    fn op(called: u64, answered: u64, action: Action) -> Operation {
        Operation { called, answered: Some(answered), action }
    }

    fn unanswered(called: u64, action: Action) -> Operation {
        Operation { called, answered: None, action }
    }

    use Action::{Read, Swap, Write};

    #[test]
    fn a_read_sees_the_last_write() {
        assert!(check(&[op(0, 1, Write(Some(1))), op(2, 3, Read(Some(1)))]).is_ok());
        assert!(check(&[op(0, 1, Write(Some(1))), op(2, 3, Read(None))]).is_err());
        assert!(check(&[op(0, 1, Write(Some(1))), op(2, 3, Write(None)), op(4, 5, Read(Some(1)))]).is_err());
    }

    #[test]
    fn what_overlaps_may_come_in_any_order() {
        let both = [op(0, 9, Write(Some(1))), op(0, 9, Write(Some(2)))];
        for last in [1, 2] {
            assert!(check(&[both[0], both[1], op(10, 11, Read(Some(last)))]).is_ok());
        }
        assert!(check(&[both[0], both[1], op(10, 11, Read(Some(1))), op(12, 13, Read(Some(2)))]).is_err());
        assert!(check(&[op(0, 9, Write(Some(1))), op(2, 3, Read(Some(1))), op(4, 5, Read(None))]).is_err());
    }

    #[test]
    fn what_was_never_answered_may_happen_late_or_never_but_once() {
        let late = unanswered(0, Write(Some(1)));
        assert!(check(&[late, op(2, 3, Read(None)), op(4, 5, Read(Some(1)))]).is_ok());
        assert!(check(&[late, op(2, 3, Read(None))]).is_ok());
        assert!(check(&[late, op(2, 3, Read(Some(1))), op(4, 5, Write(Some(2))), op(6, 7, Read(Some(1)))]).is_err());
        assert!(check(&[unanswered(5, Write(Some(1))), op(2, 3, Read(Some(1)))]).is_err());
    }

    #[test]
    fn only_one_of_two_swaps_from_the_same_value_succeeds() {
        let first = op(0, 1, Write(Some(1)));
        assert!(check(&[first, op(2, 9, Swap(Some(1), Some(2))), op(2, 9, Read(Some(2)))]).is_ok());
        assert!(check(&[first, op(2, 9, Swap(Some(1), Some(2))), op(2, 9, Swap(Some(1), Some(3)))]).is_err());
    }

    /// Histories made by a real register are accepted, and no longer once a read is falsified.
    #[test]
    fn made_histories_are_judged_rightly() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (mut register, mut operations) = (None, Vec::new());
            for moment in 1..150 {
                let (called, answered) =
                    (moment * 100 - random.below(300).min(moment * 99), moment * 100 + random.below(300));
                let action = match random.below(4) {
                    0 => Write(Some(moment)),
                    1 => Swap(register, Some(moment)),
                    2 => Write(None),
                    _ => Read(register),
                };
                register = action.on(register).unwrap();
                let answered = (matches!(action, Read(_)) || random.chance(90)).then_some(answered);
                operations.push(Operation { called, answered, action });
            }
            assert!(check(&operations).is_ok(), "seed {seed}");
            operations.push(op(1_000_000, 1_000_001, Read(Some(7_777))));
            assert!(check(&operations).is_err(), "seed {seed}");
        }
    }
}
