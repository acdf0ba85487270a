//! Eventual reads: each must have seen the group's history up to the place that it names, and be no older than it says.

use std::collections::BTreeMap;
use std::time::Duration;

use model::changes::Place;
use model::{
    Batch, Change, ClientId, Command, Freshness, Instant, Lsn, Payload, Reply, RequestId, TableId, TabletId, Ticket,
};
use protocol::Entry;

use super::client::{QUALIFIER, Register, client_of, parse};
use super::ledger;
use super::world::{Checked, World};
use crate::agenda::MS;
use crate::linear::Value;

/// What was committed, as the values of rows.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// What each row was made to hold, and where: heirs of a tablet go on with its numbers.
    writes: BTreeMap<Register, BTreeMap<Lsn, Value>>,
    /// Where a request stands first: only there it does something.
    requests: BTreeMap<(TableId, RequestId), Lsn>,
    /// The first request of each client that it may not have been told of.
    heard: BTreeMap<(TabletId, ClientId), u64>,
    /// Where a value was written.
    places: BTreeMap<u64, (TabletId, Lsn)>,
    /// The newest place of each tablet of which a writer had heard by then.
    known: BTreeMap<TabletId, BTreeMap<u64, Lsn>>,
    /// When the writer of a value heard that it is written.
    acknowledged: BTreeMap<u64, u64>,
}

impl Prefixes {
    /// The first commit of an entry.
    pub fn add(&mut self, table: TableId, tablet: TabletId, entry: &Entry) -> Checked {
        if entry.payload.is_empty() {
            return Ok(());
        }
        let payload =
            postcard::from_bytes(&entry.payload).map_err(|error| format!("{entry:?} of {tablet}: {error}"))?;
        let (request, part_of, rows) = match payload {
            Payload::Write(Command { request, row, changes, .. }) => (request, Vec::new(), vec![(row, changes)]),
            Payload::Batch(Batch { request, part_of, rows, .. }) => {
                (request, part_of, rows.into_iter().map(|row| (row.row, Some(row.changes))).collect())
            }
            Payload::Digest(_) => return Ok(()),
            Payload::Split(split) => {
                [split.left, split.right].into_iter().for_each(|heir| self.inherit(tablet, heir));
                return Ok(());
            }
            Payload::Merge(merge) => {
                [tablet, merge.right].into_iter().for_each(|parent| self.inherit(parent, merge.heir));
                return Ok(());
            }
            Payload::Close(_) => return Ok(()),
        };
        // A late copy of what the client has long been told of does nothing.
        let heard = self.heard.entry((tablet, request.client)).or_default();
        let late = request.sequence < *heard;
        *heard = request.first_incomplete.max(*heard);
        if late {
            return Ok(());
        }
        // The same request has the same id whatever the client has heard since.
        let same = |sequence| (table, RequestId { first_incomplete: 0, sequence, ..request });
        if part_of.iter().any(|&sequence| self.requests.contains_key(&same(sequence))) {
            return Ok(());
        }
        let first = *self.requests.entry(same(request.sequence)).or_insert(entry.lsn);
        if first != entry.lsn {
            return Ok(());
        }
        for (row, changes) in rows {
            for change in changes.into_iter().flatten() {
                let value = match change {
                    // Beside the register there are accounts.
                    Change::Put { qualifier, .. } if ledger::is_bank(&row) && qualifier != QUALIFIER => continue,
                    // The record of it, in a table that keeps its changes.
                    Change::Put { qualifier, .. } if Place::from_qualifier(&qualifier).is_some() => continue,
                    Change::Put { value, .. } => Some(parse(&value)),
                    _ => None,
                };
                if let Some(value) = value {
                    self.places.insert(value, (tablet, entry.lsn));
                }
                self.writes.entry((table, row.clone())).or_default().insert(entry.lsn, value);
            }
        }
        Ok(())
    }

    /// Heirs know what their parents knew.
    fn inherit(&mut self, parent: TabletId, heir: TabletId) {
        let of = self.heard.iter().filter(|((of, _), _)| *of == parent);
        let of: Vec<(ClientId, u64)> = of.map(|((_, client), heard)| (*client, *heard)).collect();
        for (client, heard) in of {
            let known = self.heard.entry((heir, client)).or_default();
            *known = heard.max(*known);
        }
    }

    pub fn acknowledged(&mut self, value: u64, at: u64) {
        self.acknowledged.insert(value, at);
        if let Some(&(tablet, lsn)) = self.places.get(&value) {
            let known = self.known.entry(tablet).or_default();
            let newest = known.last_key_value().map_or(Lsn::ZERO, |(_, lsn)| *lsn);
            known.insert(at, newest.max(lsn));
        }
    }

    /// What writers of the tablet had heard of before that moment.
    pub fn known_before(&self, tablet: TabletId, moment: u64) -> Lsn {
        let known = self.known.get(&tablet).and_then(|known| known.range(..moment).next_back());
        known.map_or(Lsn::ZERO, |(_, lsn)| *lsn)
    }

    /// Is this what the row held at that place, and is nothing missing that was acknowledged before `asof`?
    fn check(&self, register: &Register, seen: Value, from: &Freshness, asof: Option<u64>) -> Checked {
        let nothing = BTreeMap::new();
        let writes = self.writes.get(register).unwrap_or(&nothing);
        let held = writes.range(..=from.applied).next_back().and_then(|(_, value)| *value);
        if held != seen {
            return Err(format!("{register:?} held {held:?} at {}, and {from:?} has read {seen:?}", from.applied));
        }
        let later = writes.range(from.applied.next()..).filter_map(|(_, value)| *value);
        for value in later.filter(|value| self.places.get(value).is_some_and(|(_, place)| *place > from.applied)) {
            let at = self.acknowledged.get(&value).copied();
            if let (Some(at), Some(asof)) = (at, asof)
                && at < asof
            {
                let (at, asof) = (Instant(at), Instant(asof));
                return Err(format!("{from:?} lacks {value} of {register:?}, acknowledged at {at:?} before {asof:?}"));
            }
        }
        Ok(())
    }
}

impl World {
    /// The moment of which rows are that are so old by a node's clock, which may be slow by a hundredth.
    fn asof(&self, lag: Duration) -> u64 {
        self.agenda.now().saturating_sub(lag.as_nanos() as u64 / 100 * 102 + MS)
    }

    /// No replica of the node takes itself to be fresher than it is, whether or not anybody reads there.
    pub(super) fn check_freshness(&self, node: usize) -> Checked {
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        let local = process.local(self.agenda.now());
        for replica in process.node.replicas() {
            let Some(lag) = replica.lag(local) else { continue };
            let (tablet, committed) = (replica.tablet(), replica.committed());
            let known = self.record.prefixes.known_before(tablet, self.asof(lag));
            if known > committed && !self.record.dropped.contains_key(&tablet) {
                let node = process.node.id();
                return Err(format!(
                    "{node} has {tablet} up to {committed}, and takes it for {lag:?} old; {known} is older"
                ));
            }
        }
        Ok(())
    }

    /// Checks an answer at the moment when the node gives it.
    pub(super) fn check_eventual(&mut self, node: usize, ticket: Ticket, reply: &Reply) -> Checked {
        let Reply::Row(row, _, Some(from)) = reply else { return Ok(()) };
        let (client, sequence) = client_of(ticket);
        let Some((register, max_lag)) = self.clients[client].eventual(sequence) else { return Ok(()) };
        if self.record.gone.contains_key(&register.0) {
            return Ok(());
        }
        if from.node.0 as usize != node {
            return Err(format!("n{node} answers as {from:?}"));
        }
        if max_lag.is_some_and(|most| from.lag.is_none_or(|lag| lag > most)) {
            return Err(format!("{from:?} is older than the reader allows: {max_lag:?}"));
        }
        if let Some(row) = row.as_ref().filter(|row| ledger::is_bank(&row.key)) {
            ledger::check_total(row)?;
        }
        let seen = match row.as_ref().map(ledger::register) {
            None => None,
            Some([cell]) => Some(parse(&cell.value)),
            Some(cells) => return Err(format!("asked for one cell, and got {cells:?}")),
        };
        let asof = from.lag.map(|lag| self.asof(lag));
        self.record.prefixes.check(&register, seen, from, asof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{ClientId, Command, Epoch, FamilyId, NodeId, Timestamp};

    fn put(lsn: u64, value: u64) -> Entry {
        let change = Change::Put {
            family: FamilyId(1),
            qualifier: Bytes::new(),
            timestamp: Timestamp(1),
            value: Bytes::copy_from_slice(&value.to_le_bytes()),
        };
        let request = RequestId { client: ClientId(1), sequence: value, first_incomplete: value };
        let row = Bytes::from_static(b"a");
        let command = Payload::Write(Command { request, version: Timestamp(1), row, changes: Some(vec![change]) });
        let payload = Bytes::from(postcard::to_allocvec(&command).unwrap());
        Entry { lsn: Lsn(lsn), epoch: Epoch(1), payload }
    }

    /// The checker is checked: it finds what is not of the prefix, and what is older than it says.
    #[test]
    fn a_read_is_of_a_prefix_and_as_young_as_it_says() {
        let mut prefixes = Prefixes::default();
        // The second copy of the first write does nothing.
        for entry in [put(1, 10), put(2, 20), put(3, 10)] {
            prefixes.add(TableId(1), TabletId(1), &entry).unwrap();
        }
        prefixes.acknowledged(20, 1_000);
        let register = (TableId(1), Bytes::from_static(b"a"));
        let from = |applied| Freshness {
            node: NodeId(1),
            epoch: Epoch(1),
            applied: Lsn(applied),
            lag: Some(Duration::ZERO),
            behind: 0,
        };
        assert!(prefixes.check(&register, Some(20), &from(3), Some(9_000)).is_ok());
        assert!(prefixes.check(&register, Some(10), &from(3), None).is_err(), "not what was there");
        assert!(prefixes.check(&register, Some(10), &from(1), Some(1_000)).is_ok(), "old, and it says so");
        assert!(prefixes.check(&register, Some(10), &from(1), Some(1_001)).is_err(), "older than it says");
        assert!(prefixes.check(&register, None, &from(1), None).is_err());
    }
}
