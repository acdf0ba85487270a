//! A tablet that this node keeps: its replica, its rows, and what lies between a commit and a row.

use bytes::Bytes;
use model::request::Role;
use model::{
    Assignment, Batch, Cell, Close, Command, Condition, Configuration, Digest, Fingerprint, Instant, Lineage, Lsn,
    Merge, NodeId, Outcome, Payload, ReadOptions, Refusal, Reply, RequestId, Schema, Slice, Split, Tablet, TabletId,
    Ticket, Timestamp,
};
use protocol::{Entry, Mutant, Replica};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::completions::{Completion, Completions, Seen};
use crate::lanes::Lanes;
use crate::load::Load;
use crate::read::{Read, What};
use crate::splits::{End, Ending, Origin, bounds};

/// What the log keeps of a replica beside its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    pub assignment: Assignment,
    /// The newest epoch whose primary was given up.
    pub abandoned: model::Epoch,
    /// Where it comes from, if it was not made empty.
    pub origin: Option<Origin>,
}

impl SavedState {
    const VERSION: u8 = 6;

    /// A version byte, then postcard.
    pub fn to_bytes(&self) -> Bytes {
        let form = postcard::to_extend(self, vec![Self::VERSION]).expect("plain values have a form in bytes");
        Bytes::from(form)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<SavedState, String> {
        match bytes.split_first() {
            Some((&Self::VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| error.to_string()),
            Some((version, _)) => Err(format!("version {version} of a replica's state is not known")),
            None => Err("a replica's state is empty".into()),
        }
    }
}

/// What came of applying.
#[derive(Debug)]
pub(crate) enum Applied {
    /// A write of this row is done; answer this, if anybody waits.
    Row(Bytes, Option<(Ticket, Result<Reply, Refusal>)>),
    /// A batch is done; likewise.
    Batch(RequestId, Option<(Ticket, Result<Reply, Refusal>)>),
    /// The tablet ends here, and these begin.
    Split(Vec<Hosted>),
    /// What is there now is to be summed up.
    Digest(Digest),
    /// The tablet ends here, and another one is to be made of it and the next one.
    Merge(Merge),
    /// No write follows in this epoch.
    Closed(Close),
    /// A committed entry makes no sense: its bytes are not a command.
    Broken(String),
}

/// A tablet that this node keeps.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub tablet: Tablet,
    pub schema: Arc<Schema>,
    pub lineage: Lineage,
    pub replica: Replica,
    pub rows: store::Tablet,
    pub completions: Completions,
    /// Writes that wait their turn, by row.
    pub lanes: Lanes,
    /// What was found instead, by those whose condition did not hold and whose record is not committed yet.
    pub present: BTreeMap<Ticket, Option<Cell>>,
    /// The newest version that a command of this tablet has.
    pub last_version: Timestamp,
    /// When it last wrote, as primary, that there are no changes.
    pub marked: Option<Instant>,
    /// How many of the replica's `Append` and `Save` effects there were.
    pub marks: u64,
    /// Bytes of files that arrive, when this replica is learning from files.
    pub receiving: Option<crate::catch_up::Receiving>,
    /// No flush before this: the last one failed.
    pub flush_after: Instant,
    /// What of it cannot be read any more.
    pub damage: Option<String>,
    /// The damage is that it holds something else than the others: whatever it says may be wrong.
    pub diverged: bool,
    /// The newest digest that it has answered.
    pub summed_up: Option<Lsn>,
    /// Where it comes from, if it was not made empty.
    pub origin: Option<Origin>,
    /// The configuration with which it was made here.
    pub first: Configuration,
    /// Whether it is becoming two.
    pub ending: Ending,
    /// How much is asked of it here.
    pub load: Load,
    /// As primary: whom beacons go to. As anything else: whose.
    pub told: Vec<NodeId>,
    pub followed: NodeId,
    /// When the last beacon came that the replica has heard of.
    pub heard: Instant,
}

impl Hosted {
    pub fn new(assignment: &Assignment, me: NodeId, timing: protocol::Timing) -> Hosted {
        let id = assignment.tablet.id;
        Hosted::with(assignment, Replica::new(id, me, timing), store::Tablet::new(id), Completions::default())
    }

    pub fn with(
        assignment: &Assignment,
        replica: Replica,
        mut rows: store::Tablet,
        completions: Completions,
    ) -> Hosted {
        let last_version = completions.newest();
        rows.set_bounds(bounds(&assignment.tablet.slice));
        Hosted {
            tablet: assignment.tablet.clone(),
            schema: Arc::new(assignment.schema.clone()),
            lineage: assignment.lineage,
            replica,
            rows,
            completions,
            lanes: Lanes::default(),
            present: BTreeMap::new(),
            last_version,
            marked: None,
            marks: 0,
            receiving: None,
            flush_after: Instant::ZERO,
            damage: None,
            diverged: false,
            summed_up: None,
            origin: None,
            first: assignment.configuration.clone(),
            ending: Ending::default(),
            load: Load::new(assignment.tablet.id),
            told: Vec::new(),
            followed: NodeId(0),
            heard: Instant::ZERO,
        }
    }

    pub fn id(&self) -> TabletId {
        self.tablet.id
    }

    pub fn slice(&self) -> &Slice {
        &self.tablet.slice
    }

    /// What must survive a restart.
    pub fn state(&self) -> Bytes {
        let assignment = Assignment {
            tablet: self.tablet.clone(),
            schema: (*self.schema).clone(),
            configuration: self.replica.configuration().clone(),
            learner: self.replica.learner(),
            lineage: self.lineage,
        };
        SavedState { assignment, abandoned: self.replica.abandoned(), origin: self.origin }.to_bytes()
    }

    /// A version for a new command: the date, but always later than the last one, whoever was primary then.
    pub fn next_version(&mut self, wall: Timestamp) -> Timestamp {
        self.last_version = wall.max(self.last_version.next());
        self.last_version
    }

    /// May new writes go into the log?
    pub fn may_write(&self, now: Instant) -> bool {
        let strange = self.replica.mutant(Mutant::WriteWhenClosed) && !self.ending.is_under_way();
        let strange = strange && !self.ending.has_ended() || self.replica.mutant(Mutant::WriteBehindSplit);
        self.replica.may_write(now) && (!self.ending.is_closed() || strange) && !self.is_doubtful()
    }

    /// What it says may be wrong, and others know better.
    pub fn is_doubtful(&self) -> bool {
        self.diverged && !self.is_alone()
    }

    /// Takes note of a version in the log, so that later ones are later.
    pub fn saw_version(&mut self, version: Timestamp) {
        if !self.replica.mutant(Mutant::VersionGoesBack) {
            self.last_version = self.last_version.max(version);
        }
    }

    /// Applies committed entries, in their order.
    pub fn apply(&mut self, entry: Entry, ticket: Option<Ticket>) -> Option<Applied> {
        if entry.payload.is_empty() {
            self.rows.skip(entry.lsn);
            return None;
        }
        let Command { request, version, row, changes } = match postcard::from_bytes(&entry.payload) {
            Ok(Payload::Write(command)) if !self.ending.has_ended() => command,
            Ok(Payload::Batch(batch)) if !self.ending.has_ended() => {
                return Some(self.apply_batch(entry.lsn, batch, ticket));
            }
            Ok(Payload::Write(_) | Payload::Batch(_)) => {
                return Some(Applied::Broken(format!("entry {} follows a split", entry.lsn)));
            }
            Ok(Payload::Split(split)) => return Some(self.apply_split(entry.lsn, split)),
            Ok(Payload::Digest(digest)) => {
                self.rows.skip(entry.lsn);
                return Some(Applied::Digest(digest));
            }
            Ok(Payload::Close(close)) => {
                self.rows.skip(entry.lsn);
                return Some(Applied::Closed(close));
            }
            Ok(Payload::Merge(merge)) => {
                self.rows.skip(entry.lsn);
                self.ending.end(entry.lsn, End::Merge(merge.clone()));
                return Some(Applied::Merge(merge));
            }
            Err(error) => return Some(Applied::Broken(format!("entry {}: {error}", entry.lsn))),
        };
        let version = self.version_of(version);
        let present = ticket.and_then(|ticket| self.present.remove(&ticket)).flatten();
        let twice = self.replica.mutant(Mutant::RequestTwice);
        let seen = if twice { Seen::Never } else { self.completions.find(request) };
        let answer = match (seen, changes) {
            (Seen::Never, Some(changes)) => {
                self.rows.apply(entry.lsn, &row, &changes, version);
                self.completions.note(&changes);
                self.completions.record(entry.lsn, request, version, Completion::Applied(version));
                Ok(Reply::Written(Outcome::Applied { version }))
            }
            (Seen::Never, None) => {
                self.rows.skip(entry.lsn);
                if !self.replica.mutant(Mutant::DifferedForgotten) {
                    self.completions.record(entry.lsn, request, version, Completion::Differed);
                }
                Ok(Reply::Written(Outcome::Differs { present }))
            }
            (Seen::Done(Completion::Applied(version)), _) => {
                self.rows.skip(entry.lsn);
                Ok(Reply::Written(Outcome::Applied { version }))
            }
            (Seen::Done(Completion::Differed), _) => {
                self.rows.skip(entry.lsn);
                Ok(Reply::Written(Outcome::Differs { present }))
            }
            (Seen::Stale, _) => {
                self.rows.skip(entry.lsn);
                Err(stale())
            }
        };
        Some(Applied::Row(row, ticket.map(|ticket| (ticket, answer))))
    }

    /// All of it, or nothing.
    fn apply_batch(&mut self, lsn: Lsn, batch: Batch, ticket: Option<Ticket>) -> Applied {
        let Batch { request, part_of, version, rows } = batch;
        let version = self.version_of(version);
        let answer = self.known_batch(request, &part_of).unwrap_or_else(|| {
            self.rows.apply_batch(lsn, &rows, version);
            rows.iter().for_each(|row| self.completions.note(&row.changes));
            self.completions.record(lsn, request, version, Completion::Applied(version));
            Ok(Reply::Written(Outcome::Applied { version }))
        });
        if self.rows.applied() < lsn {
            self.rows.skip(lsn);
        }
        Applied::Batch(request, ticket.map(|ticket| (ticket, answer)))
    }

    /// The answer to a batch that was carried out before.
    pub fn known_batch(&self, request: RequestId, part_of: &[u64]) -> Option<Result<Reply, Refusal>> {
        let part_of = if self.replica.mutant(Mutant::PartAgain) { &[] } else { part_of };
        let known = self.completions.of_batch(request, part_of);
        known.filter(|_| !self.replica.mutant(Mutant::RequestTwice))
    }

    /// The version that is applied of an entry that has this one.
    fn version_of(&mut self, version: Timestamp) -> Timestamp {
        self.saw_version(version);
        let strange = self.replica.mutant(Mutant::ApplyByRole) && self.replica.role() == Role::Secondary;
        if strange { version.next() } else { version }
    }

    /// Nothing of this tablet changes any more.
    fn apply_split(&mut self, lsn: Lsn, split: Split) -> Applied {
        self.rows.skip(lsn);
        let heirs = self.bear(lsn, &split);
        self.ending.end(lsn, End::Split(split));
        Applied::Split(heirs)
    }

    /// The read that a condition asks for, as of all that is applied.
    pub fn read_for(&self, row: Bytes, condition: &Condition, now: Timestamp) -> Read {
        let (columns, versions) = match condition {
            Condition::Newest { family, qualifier, .. } => {
                (vec![model::ColumnFilter { family: *family, qualifier: Some(qualifier.clone()) }], 1)
            }
            Condition::Unchanged { columns, versions, .. } => (columns.clone(), *versions),
        };
        Read {
            view: self.rows.view(),
            schema: Arc::clone(&self.schema),
            now,
            options: ReadOptions { columns, versions, ..ReadOptions::default() },
            what: What::Row(row),
        }
    }

    /// Does the condition hold in a row that has these of the cells that it asks for? And what it found instead.
    pub fn judge(&self, condition: &Condition, cells: Vec<Cell>) -> (bool, Option<Cell>) {
        match condition {
            Condition::Newest { expect, .. } => {
                let present = cells.into_iter().next();
                (present.as_ref().map(|cell| &cell.value) == expect.as_ref(), present)
            }
            Condition::Unchanged { fingerprint, .. } => {
                let named = cells.iter().filter_map(|cell| {
                    let family = self.schema.family_by_id(cell.family)?;
                    Some((&family.name[..], &cell.qualifier[..], cell.timestamp, &cell.value[..]))
                });
                (Fingerprint::of(named) == *fingerprint, None)
            }
        }
    }
}

/// The answer to a copy of a request for which nobody waits any more.
pub(crate) fn stale() -> Refusal {
    Refusal::Invalid("this is an old copy of a request that was answered".into())
}
