//! When each replica wants to hear the time again.
//!
//! Asking every replica after every batch would cost a node with thousands of tablets more than the batch itself. So a
//! heap keeps for each the earliest time that it ever named; a later one it corrects only when the earlier has come:
//! most deadlines are the silence of a peer, and move on with every beacon.

use model::{Instant, TabletId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// May hold entries that are not `queued` any more.
    heap: BinaryHeap<Reverse<(Instant, TabletId)>>,
    queued: BTreeMap<TabletId, Instant>,
}

impl Deadlines {
    /// The tablet's replica names this deadline now.
    pub fn note(&mut self, tablet: TabletId, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.queued.get(&tablet).is_none_or(|&queued| deadline < queued) {
            self.queued.insert(tablet, deadline);
            self.heap.push(Reverse((deadline, tablet)));
        }
    }

    /// No replica's deadline is earlier than this.
    pub fn earliest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out those whose deadline may have come: each is asked now, and noted again.
    pub fn take_due(&mut self, now: Instant) -> Vec<TabletId> {
        let mut due = Vec::new();
        while let Some(&Reverse((at, tablet))) = self.heap.peek() {
            if at > now {
                break;
            }
            self.heap.pop();
            if self.queued.get(&tablet) == Some(&at) {
                self.queued.remove(&tablet);
                due.push(tablet);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_counts_and_a_later_one_waits_for_it() {
        let mut deadlines = Deadlines::default();
        deadlines.note(TabletId(1), Some(Instant(50)));
        deadlines.note(TabletId(2), Some(Instant(40)));
        deadlines.note(TabletId(2), Some(Instant(90)));
        deadlines.note(TabletId(1), Some(Instant(20)));
        deadlines.note(TabletId(3), None);
        assert_eq!(deadlines.earliest(), Some(Instant(20)));
        assert_eq!(deadlines.take_due(Instant(19)), []);
        assert_eq!(deadlines.take_due(Instant(60)), [TabletId(1), TabletId(2)], "each once, whatever it named");
        deadlines.note(TabletId(2), Some(Instant(90)));
        assert_eq!((deadlines.earliest(), deadlines.take_due(Instant(90))), (Some(Instant(90)), vec![TabletId(2)]));
        assert_eq!(deadlines.earliest(), None);
    }
}
