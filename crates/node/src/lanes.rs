//! Writes of one row, one after another: a condition is judged by the primary, and must see all writes before it.
//!
//! ```text
//!   put ─────────────▶ log ──▶ applied          nobody waits in the row's lane
//!   cput ──(in flight: 0)──▶ judge ──holds──▶ log
//!                              └──differs──▶ reply
//!   put behind a cput that waits: waits too
//!   batch ───────────▶ log ──▶ applied          passes whoever waits, and is waited for
//! ```
//!
//! A batch writes many rows at once and waits in no lane: it may pass conditions that wait, and one that is being judged
//! meanwhile is judged again. Only rows with writes under way have a lane. The log gets a judged write without its condition, so replicas apply
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
    /// A batch has passed it meanwhile.
    passed: bool,
    waiting: VecDeque<Write>,
}

/// Batches of a tablet that may be in the log and not applied: whoever waits for a row looks at all of them.
pub(crate) const MOST_BATCHES: usize = 1_000;

/// A batch in the log that is not applied.
#[derive(Debug)]
struct UnderWay {
    request: RequestId,
    /// In order.
    rows: Vec<Bytes>,
    /// Rows among them of which a condition waits, and for no later batch.
    awaited: Vec<Bytes>,
}

impl UnderWay {
    fn holds(&self, row: &Bytes) -> bool {
        let within = self.rows.first() <= Some(row) && Some(row) <= self.rows.last();
        within && self.rows.binary_search(row).is_ok()
    }
}

/// The lanes of a tablet.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: BTreeMap<Bytes, Lane>,
    /// As they stand in the log.
    batches: VecDeque<UnderWay>,
}

impl Lanes {
    /// A batch of these rows goes into the log. Not if there are [`MOST_BATCHES`].
    pub fn push_batch(&mut self, request: RequestId, mut rows: Vec<Bytes>) {
        if !rows.is_sorted() {
            rows.sort_unstable();
        }
        let batch = UnderWay { request, rows, awaited: Vec::new() };
        for (_, lane) in self.lanes.iter_mut().filter(|(row, lane)| lane.judging && batch.holds(row)) {
            lane.passed = true;
        }
        self.batches.push_back(batch);
    }

    /// How many batches are in the log and not applied.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The batch of this request was applied: of these rows somebody may go on.
    pub fn batch_applied(&mut self, request: RequestId) -> Vec<Bytes> {
        let same = |batch: &UnderWay| batch.request == request;
        let at = self.batches.iter().position(same);
        at.and_then(|at| self.batches.remove(at)).map_or(Vec::new(), |batch| batch.awaited)
    }

    /// A condition has been looked at. If a batch has passed it meanwhile, that was in vain: its write stands first in its
    /// lane again, and is not to be judged.
    pub fn looked_at(&mut self, write: Write) -> Option<Write> {
        match self.lanes.get_mut(&write.mutation.row) {
            Some(lane) if lane.passed => {
                (lane.judging, lane.passed) = (false, false);
                lane.waiting.push_front(write);
                None
            }
            _ => Some(write),
        }
    }

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
            (lane.judging, lane.passed) = (false, false);
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
                if let Some(batch) = self.batches.iter_mut().rfind(|batch| batch.holds(row)) {
                    batch.awaited.push(row.clone());
                    return None;
                }
                lane.judging = true;
                lane.waiting.pop_front().map(|write| Turn::Judge(write, condition))
            }
            Some(_) => None,
        }
    }

    /// The tablet has another primary, or none: those who wait here have had no effect.
    pub fn clear(&mut self) -> impl Iterator<Item = Ticket> + use<> {
        self.batches.clear();
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

    /// A condition sees every batch that stands before it in the log, whether that came before it or passed it.
    #[test]
    fn a_condition_waits_for_the_batches_of_its_row() {
        let mut lanes = Lanes::default();
        let row = Bytes::from_static(b"r");
        let rows = |rows: &[&'static str]| rows.iter().map(|row| Bytes::from_static(row.as_bytes())).collect();
        lanes.push_batch(request(1), rows(&["a", "z", "r"]));
        lanes.push_batch(request(2), rows(&["a", "q", "s"]));
        lanes.push(write(1, true));
        assert!(lanes.next(&row).is_none(), "batch 1 holds it");
        lanes.push_batch(request(3), rows(&["r"]));
        assert_eq!(lanes.batch_applied(request(2)), [&b""[..]; 0]);
        assert_eq!(lanes.batch_applied(request(1)), [&row]);
        assert!(lanes.next(&row).is_none(), "batch 3 has passed it");
        assert_eq!(lanes.batch_applied(request(3)), [&row]);
        let Some(Turn::Judge(write, _)) = lanes.next(&row) else { panic!("nothing of the row is under way") };
        lanes.push_batch(request(4), rows(&["r", "s"]));
        assert!(lanes.looked_at(write).is_none(), "batch 4 came while it was judged");
        assert!(lanes.next(&row).is_none(), "and is waited for");
        assert_eq!(lanes.batch_applied(request(4)), [&row]);
        let Some(Turn::Judge(write, _)) = lanes.next(&row) else { panic!("nothing of the row is under way") };
        lanes.push_batch(request(5), rows(&["a"]));
        assert!(lanes.looked_at(write).is_some(), "batch 5 is none of its business");
        lanes.judged(&row, false);
        assert!(lanes.next(&row).is_none());
        assert!(lanes.lanes.is_empty() && lanes.batches() == 1);
        assert_eq!((lanes.clear().count(), lanes.batches()), (0, 0));
        assert_eq!(lanes.batch_applied(request(5)), [&b""[..]; 0], "another primary's");
    }

    #[test]
    fn who_waits_is_given_back() {
        let mut lanes = Lanes::default();
        lanes.push(write(1, true));
        assert_eq!(lanes.clear().collect::<Vec<_>>(), [Ticket(1)]);
        assert!(lanes.lanes.is_empty());
    }

    fn request(sequence: u64) -> RequestId {
        RequestId { sequence, ..RequestId::default() }
    }

    fn write(ticket: u64, conditional: bool) -> Write {
        let condition = Condition::Newest { family: FamilyId(1), qualifier: Bytes::new(), expect: None };
        let mutation = Mutation {
            row: Bytes::from_static(b"r"),
            condition: conditional.then_some(condition),
            changes: Vec::new(),
        };
        Write { ticket: Ticket(ticket), wall: Timestamp(0), request: RequestId::default(), mutation }
    }
}
