//! Writes of one row, one after another: a condition is judged by the primary, and must see all writes before it.
//!
//! ```text
//!   put ─────────────▶ log ──▶ applied          nobody waits in the row's lane
//!   cput ──(in flight: 0)──▶ judge ──holds──▶ log
//!                              └──differs──▶ reply
//!   put behind a cput that waits: waits too
//! ```
//!
//! Only rows with writes under way have a lane. The log gets a judged write without its condition, so replicas apply
//! it blindly and cannot come to different results (decision 0006).

use bytes::Bytes;
use model::{Condition, Mutation, RequestId, Ticket, Timestamp};
use std::collections::{BTreeMap, VecDeque};

/// A write that waits its turn.
#[derive(Debug)]
pub(crate) struct Write {
    pub ticket: Ticket,
    /// The date at its arrival.
    pub wall: Timestamp,
    pub request: RequestId,
    pub mutation: Mutation,
}

/// What to do with a lane's first write.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Into the log with it.
    Log(Write),
    /// Nothing of the row is under way: judge its condition, and say so by [`Lanes::judged`].
    Judge(Write, Condition),
}

#[derive(Debug, Default)]
struct Lane {
    /// Writes in the log that are not applied.
    in_flight: u32,
    /// A condition is being judged.
    judging: bool,
    waiting: VecDeque<Write>,
}

/// The lanes of a tablet.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: BTreeMap<Bytes, Lane>,
}

impl Lanes {
    /// A write has come.
    pub fn push(&mut self, write: Write) {
        self.lanes.entry(write.mutation.row.clone()).or_default().waiting.push_back(write);
    }

    /// A write of the row was applied.
    pub fn applied(&mut self, row: &Bytes) {
        if let Some(lane) = self.lanes.get_mut(row) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
    }

    /// The condition that was being judged is decided; if it held, its write is in the log.
    pub fn judged(&mut self, row: &Bytes, logged: bool) {
        if let Some(lane) = self.lanes.get_mut(row) {
            lane.judging = false;
            lane.in_flight += u32::from(logged);
        }
    }

    /// The next write of the row that may go on, if any. A lane without writes is removed.
    pub fn next(&mut self, row: &Bytes) -> Option<Turn> {
        let lane = self.lanes.get_mut(row)?;
        if lane.judging {
            return None;
        }
        let Some(first) = lane.waiting.front() else {
            if lane.in_flight == 0 {
                self.lanes.remove(row);
            }
            return None;
        };
        match first.mutation.condition.clone() {
            None => {
                lane.in_flight += 1;
                lane.waiting.pop_front().map(Turn::Log)
            }
            Some(condition) if lane.in_flight == 0 => {
                lane.judging = true;
                lane.waiting.pop_front().map(|write| Turn::Judge(write, condition))
            }
            Some(_) => None,
        }
    }

    /// The tablet has another primary, or none: those who wait here have had no effect.
    pub fn clear(&mut self) -> impl Iterator<Item = Ticket> + use<> {
        let lanes = std::mem::take(&mut self.lanes);
        lanes.into_values().flat_map(|lane| lane.waiting).map(|write| write.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FamilyId;

    /// A condition sees every write before it, and every write after it waits.
    #[test]
    fn a_condition_waits_and_lets_nobody_pass() {
        let mut lanes = Lanes::default();
        let row = Bytes::from_static(b"r");
        [write(1, false), write(2, true), write(3, false)].into_iter().for_each(|write| lanes.push(write));
        assert!(matches!(lanes.next(&row), Some(Turn::Log(Write { ticket: Ticket(1), .. }))));
        assert!(lanes.next(&row).is_none(), "1 is under way");
        lanes.applied(&row);
        assert!(matches!(lanes.next(&row), Some(Turn::Judge(Write { ticket: Ticket(2), .. }, _))));
        assert!(lanes.next(&row).is_none(), "2 is being judged");
        lanes.judged(&row, true);
        assert!(matches!(lanes.next(&row), Some(Turn::Log(Write { ticket: Ticket(3), .. }))));
        lanes.applied(&row);
        lanes.applied(&row);
        assert!(lanes.next(&row).is_none());
        assert!(lanes.lanes.is_empty(), "a quiet row has no lane");
    }

    #[test]
    fn who_waits_is_given_back() {
        let mut lanes = Lanes::default();
        lanes.push(write(1, true));
        assert_eq!(lanes.clear().collect::<Vec<_>>(), [Ticket(1)]);
        assert!(lanes.lanes.is_empty());
    }

    fn write(ticket: u64, conditional: bool) -> Write {
        let condition = Condition { family: FamilyId(1), qualifier: Bytes::new(), expect: None };
        let mutation = Mutation {
            row: Bytes::from_static(b"r"),
            condition: conditional.then_some(condition),
            changes: Vec::new(),
        };
        Write { ticket: Ticket(ticket), wall: Timestamp(0), request: RequestId::default(), mutation }
    }
}
