//! What will happen, and when.

use std::collections::BTreeMap;

/// A microsecond in the nanoseconds of virtual time.
pub const US: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A second.
pub const SECOND: u64 = 1_000_000_000;

/// Future events in the order of their times; those of one moment in the order in which they were entered. Virtual
/// time is the time of the event that was taken last.
#[derive(Debug)]
pub struct Agenda<T> {
    now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), T>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { now: 0, sequence: 0, events: BTreeMap::new() }
    }
}

impl<T> Agenda<T> {
    /// Nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Enters an event at a time that has not passed.
    pub fn at(&mut self, time: u64, event: T) {
        self.sequence += 1;
        self.events.insert((time.max(self.now), self.sequence), event);
    }

    /// Enters an event so many nanoseconds from now.
    pub fn after(&mut self, delay: u64, event: T) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event, and moves the time to it.
    pub fn take(&mut self) -> Option<T> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_entry() {
        let mut agenda = Agenda::default();
        agenda.at(5, 'b');
        agenda.at(1, 'a');
        agenda.at(5, 'c');
        assert_eq!((agenda.take(), agenda.take(), agenda.take(), agenda.now()), (Some('a'), Some('b'), Some('c'), 5));
        agenda.at(1, 'd');
        assert_eq!((agenda.take(), agenda.now()), (Some('d'), 5));
    }
}
