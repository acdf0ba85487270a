//! Completion records: which requests a tablet has carried out, so that a repeated one changes nothing (RIFL, 3.2).
//!
//! They are part of the replicated state: they change only when an entry is applied, and travel with checkpoints.
//! Only applied writes are recorded; a conditional write that did not apply has changed nothing, and may be judged
//! again when it is repeated.

use bytes::Bytes;
use model::{ClientId, Lsn, RequestId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Clients that are remembered; the one that was silent for the longest part of the log is forgotten first. Repeats
/// come within a client's deadline, which is seconds, so what is forgotten is long past.
const MOST_CLIENTS: usize = 16_384;
/// Requests of one client that may be incomplete at a time.
const MOST_REQUESTS: usize = 65_536;

/// The completion records of a tablet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completions {
    clients: BTreeMap<ClientId, Client>,
    /// Clients by when they were last heard, to find the one to forget.
    by_age: BTreeMap<Lsn, ClientId>,
    /// The newest version of all.
    newest: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Client {
    heard: Lsn,
    /// Requests that were applied, with the version they got; none before the client's `first_incomplete`.
    applied: BTreeMap<u64, Timestamp>,
}

impl Completions {
    /// The version that the request got when it was applied before.
    pub fn find(&self, request: RequestId) -> Option<Timestamp> {
        self.clients.get(&request.client)?.applied.get(&request.sequence).copied()
    }

    /// The newest version that any request got, also those that are forgotten.
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// The entry at `lsn` has applied the request.
    pub fn record(&mut self, lsn: Lsn, request: RequestId, version: Timestamp) {
        self.newest = self.newest.max(version);
        let client = self.clients.entry(request.client).or_default();
        self.by_age.remove(&client.heard);
        client.heard = lsn;
        self.by_age.insert(lsn, request.client);
        if client.applied.first_key_value().is_some_and(|(&first, _)| first < request.first_incomplete) {
            client.applied = client.applied.split_off(&request.first_incomplete);
        }
        client.applied.insert(request.sequence, version);
        if client.applied.len() > MOST_REQUESTS {
            client.applied.pop_first();
        }
        if self.clients.len() > MOST_CLIENTS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.clients.remove(&oldest);
        }
    }

    /// As bytes, for a checkpoint.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_allocvec(self).expect("maps of numbers have a form in bytes"))
    }

    /// From a checkpoint; `None` if these are not the bytes of completion records.
    pub fn from_bytes(bytes: &[u8]) -> Option<Completions> {
        if bytes.is_empty() {
            return Some(Completions::default());
        }
        postcard::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(client: u64, sequence: u64, first_incomplete: u64) -> RequestId {
        RequestId { client: ClientId(client), sequence, first_incomplete }
    }

    /// RIFL 3.2: a completion record lives until the client says that it has had the answer.
    #[test]
    fn a_record_lives_until_the_answer_is_known_to_have_arrived() {
        let mut completions = Completions::default();
        completions.record(Lsn(1), request(7, 1, 1), Timestamp(100));
        completions.record(Lsn(2), request(7, 2, 1), Timestamp(101));
        assert_eq!(completions.find(request(7, 1, 1)), Some(Timestamp(100)));
        completions.record(Lsn(3), request(7, 3, 2), Timestamp(102));
        assert_eq!(completions.find(request(7, 1, 1)), None);
        assert_eq!(completions.find(request(7, 2, 1)), Some(Timestamp(101)));
        assert_eq!(completions.find(request(8, 2, 1)), None);
    }

    #[test]
    fn the_longest_silent_client_is_forgotten_first() {
        let mut completions = Completions::default();
        for client in 0..=MOST_CLIENTS as u64 {
            completions.record(Lsn(client + 1), request(client, 1, 1), Timestamp(1));
        }
        assert_eq!(completions.find(request(0, 1, 1)), None);
        assert!(completions.find(request(1, 1, 1)).is_some());
    }

    #[test]
    fn bytes_round_trip() {
        let mut completions = Completions::default();
        completions.record(Lsn(1), request(7, 1, 1), Timestamp(100));
        assert_eq!(Completions::from_bytes(&completions.to_bytes()), Some(completions));
        assert_eq!(Completions::from_bytes(b""), Some(Completions::default()));
        assert_eq!(Completions::from_bytes(b"\xff\xff"), None);
    }
}
