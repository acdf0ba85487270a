//! Completion records: which requests a tablet has carried out, so that a repeated one changes nothing (RIFL, 3.2).
//!
//! They are part of the replicated state: they change only when an entry is applied, and travel with checkpoints.
//! A conditional write that did not apply is recorded as well: its client has heard that it failed, and a late repeat
//! must not succeed after that. Beside them stands what else the rows do not tell of the writes that made them.

use bytes::Bytes;
use model::{Change, ClientId, FamilyId, Lsn, Outcome, Refusal, Reply, RequestId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::hosted::stale;

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
    by_age: BTreeSet<(Lsn, ClientId)>,
    /// The newest version of all.
    newest: Timestamp,
    /// Families of which single versions were deleted ([`crate::digest`] says what for).
    erased: BTreeSet<FamilyId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Client {
    heard: Lsn,
    /// The client has had the answers to all requests before this one.
    first_incomplete: u64,
    /// What became of its requests from there on.
    done: BTreeMap<u64, Completion>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completion {
    /// It was applied and got this version.
    Applied(Timestamp),
    /// Its condition did not hold.
    Differed,
}

/// What the records say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has not been carried out.
    Never,
    /// It has.
    Done(Completion),
    /// It has, and its client knows: this is a copy that lingered somewhere. Nobody waits for it.
    Stale,
}

impl Completions {
    /// Has the request been carried out before?
    pub fn find(&self, request: RequestId) -> Seen {
        let Some(client) = self.clients.get(&request.client) else { return Seen::Never };
        match client.done.get(&request.sequence) {
            Some(&completion) => Seen::Done(completion),
            None if request.sequence < client.first_incomplete => Seen::Stale,
            None => Seen::Never,
        }
    }

    /// The answer to a batch that was carried out before, itself or as a part of one of these requests of its client.
    pub fn of_batch(&self, request: RequestId, part_of: &[u64]) -> Option<Result<Reply, Refusal>> {
        let wholes = part_of.iter().map(|&sequence| RequestId { sequence, ..request });
        wholes.chain([request]).find_map(|request| match self.find(request) {
            Seen::Never => None,
            Seen::Done(Completion::Applied(version)) => Some(Ok(Reply::Written(Outcome::Applied { version }))),
            Seen::Done(Completion::Differed) => {
                Some(Err(Refusal::Invalid("the id of this batch is another request's".into())))
            }
            Seen::Stale => Some(Err(stale())),
        })
    }

    /// The newest version that any request got, also those that are forgotten.
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// These changes are being applied.
    pub fn note(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::DeleteCell { family, .. } = change {
                self.erased.insert(*family);
            }
        }
    }

    /// Families of which single versions were ever deleted.
    pub fn erased(&self) -> &BTreeSet<FamilyId> {
        &self.erased
    }

    /// The entry at `lsn`, whose version is `version`, has carried out the request.
    pub fn record(&mut self, lsn: Lsn, request: RequestId, version: Timestamp, completion: Completion) {
        self.newest = self.newest.max(version);
        let client = self.clients.entry(request.client).or_default();
        self.by_age.remove(&(client.heard, request.client));
        client.heard = lsn;
        self.by_age.insert((lsn, request.client));
        if request.first_incomplete > client.first_incomplete {
            client.first_incomplete = request.first_incomplete;
            if client.done.first_key_value().is_some_and(|(&first, _)| first < request.first_incomplete) {
                client.done = client.done.split_off(&request.first_incomplete);
            }
        }
        client.done.insert(request.sequence, completion);
        if client.done.len() > MOST_REQUESTS {
            client.done.pop_first();
        }
        self.forget_the_oldest();
    }

    fn forget_the_oldest(&mut self) {
        while self.clients.len() > MOST_CLIENTS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.clients.remove(&oldest);
        }
    }

    /// The records of a tablet that is made of two. What a client has said to one of them holds for both: its requests
    /// have one sequence, whatever rows they are about.
    pub fn unite(&self, other: &Completions) -> Completions {
        let mut both = self.clone();
        both.newest = both.newest.max(other.newest);
        both.erased.extend(&other.erased);
        for (&id, theirs) in &other.clients {
            let client = both.clients.entry(id).or_default();
            client.heard = client.heard.max(theirs.heard);
            client.first_incomplete = client.first_incomplete.max(theirs.first_incomplete);
            client.done.extend(theirs.done.iter().map(|(&sequence, &completion)| (sequence, completion)));
            client.done = client.done.split_off(&client.first_incomplete);
            while client.done.len() > MOST_REQUESTS {
                client.done.pop_first();
            }
        }
        both.by_age = both.clients.iter().map(|(&id, client)| (client.heard, id)).collect();
        both.forget_the_oldest();
        both
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

    fn applied(version: i64) -> Completion {
        Completion::Applied(Timestamp(version))
    }

    /// RIFL 3.2: a completion record lives until the client says that it has had the answer; a copy of the request that
    /// arrives even later is known to be stale.
    #[test]
    fn a_record_lives_until_the_answer_is_known_to_have_arrived() {
        let mut completions = Completions::default();
        completions.record(Lsn(1), request(7, 1, 1), Timestamp(100), applied(100));
        completions.record(Lsn(2), request(7, 2, 1), Timestamp(101), Completion::Differed);
        assert_eq!(completions.find(request(7, 1, 1)), Seen::Done(applied(100)));
        assert_eq!(completions.find(request(7, 2, 1)), Seen::Done(Completion::Differed));
        completions.record(Lsn(3), request(7, 3, 2), Timestamp(102), applied(102));
        assert_eq!(completions.find(request(7, 1, 1)), Seen::Stale);
        assert_eq!(completions.find(request(7, 2, 1)), Seen::Done(Completion::Differed));
        assert_eq!(completions.find(request(7, 4, 2)), Seen::Never);
        assert_eq!(completions.find(request(8, 2, 1)), Seen::Never);
    }

    /// Decision 0014: what was done as a whole, before its tablet was split, is not done again in parts; and that one part
    /// is done says nothing of another one, also where both are of one tablet again.
    #[test]
    fn a_part_is_done_if_its_whole_was() {
        let mut completions = Completions::default();
        completions.record(Lsn(1), request(7, 1, 1), Timestamp(100), applied(100));
        let written = |version| Some(Ok(Reply::Written(Outcome::Applied { version: Timestamp(version) })));
        assert_eq!(completions.of_batch(request(7, 4, 1), &[1]), written(100));
        assert_eq!(completions.of_batch(request(7, 4, 1), &[2]), None);
        completions.record(Lsn(2), request(7, 4, 1), Timestamp(101), applied(101));
        assert_eq!(completions.of_batch(request(7, 4, 1), &[2]), written(101));
        assert_eq!(completions.of_batch(request(7, 5, 1), &[2]), None);
        completions.record(Lsn(3), request(7, 6, 3), Timestamp(102), applied(102));
        assert_eq!(completions.of_batch(request(7, 5, 3), &[2]), Some(Err(stale())), "nobody waits for it");
    }

    #[test]
    fn the_longest_silent_client_is_forgotten_first() {
        let mut completions = Completions::default();
        for client in 0..=MOST_CLIENTS as u64 {
            completions.record(Lsn(client + 1), request(client, 1, 1), Timestamp(1), applied(1));
        }
        assert_eq!(completions.find(request(0, 1, 1)), Seen::Never);
        assert_eq!(completions.find(request(1, 1, 1)), Seen::Done(applied(1)));
    }

    /// Two tablets that were made of one count on from the same place: their numbers may be equal.
    #[test]
    fn the_records_of_two_tablets_are_united() {
        let (mut left, mut right) = (Completions::default(), Completions::default());
        left.record(Lsn(5), request(7, 1, 1), Timestamp(100), applied(100));
        right.record(Lsn(5), request(8, 1, 1), Timestamp(200), applied(200));
        right.record(Lsn(6), request(7, 2, 1), Timestamp(201), applied(201));
        let both = left.unite(&right);
        assert_eq!(both, right.unite(&left));
        assert_eq!(both.newest(), Timestamp(201));
        assert_eq!(both.find(request(7, 1, 1)), Seen::Done(applied(100)));
        assert_eq!(both.find(request(7, 2, 1)), Seen::Done(applied(201)));
        assert_eq!(both.find(request(8, 1, 1)), Seen::Done(applied(200)));
        right.record(Lsn(7), request(7, 3, 2), Timestamp(202), applied(202));
        assert_eq!(left.unite(&right).find(request(7, 1, 1)), Seen::Stale, "it was heard by the right one");
        let mut both = left.unite(&right);
        both.record(Lsn(8), request(8, 2, 1), Timestamp(300), applied(300));
        assert_eq!((both.by_age.len(), both.clients.len()), (2, 2));
    }

    #[test]
    fn bytes_round_trip() {
        let mut completions = Completions::default();
        completions.record(Lsn(1), request(7, 1, 1), Timestamp(100), applied(100));
        assert_eq!(Completions::from_bytes(&completions.to_bytes()), Some(completions));
        assert_eq!(Completions::from_bytes(b""), Some(Completions::default()));
        assert_eq!(Completions::from_bytes(b"\xff\xff"), None);
    }
}
