//! What will happen, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
    /// When, in which order, and where it lies: events are large and the heap moves what it holds.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { now: 0, sequence: 0, order: BinaryHeap::new(), events: Vec::new(), free: Vec::new() }
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
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.order.push(Reverse((time.max(self.now), self.sequence, place)));
    }

    /// Enters an event so many nanoseconds from now.
    pub fn after(&mut self, delay: u64, event: T) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event, and moves the time to it.
    pub fn take(&mut self) -> Option<T> {
        let Reverse((time, _, place)) = self.order.pop()?;
        self.now = time;
        self.free.push(place);
        self.events[place].take()
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
