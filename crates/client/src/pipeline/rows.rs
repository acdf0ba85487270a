//! Many rows at once: those of a tablet go to it together, and what became of them is told row by row.
//!
//! ```text
//!   mutate_many ──by tablet, cut at the limits──▶ part ══ lane ══▶ primary      a part is one entry: all of it or nothing
//!                     ▲                      └──▶ part ══ lane ══▶ primary
//!                     └── its tablet was split: parts of it, which name it (decision 0014)
//! ```
//!
//! A part keeps its request id on every attempt. Where a tablet was split meanwhile nobody knows whether the part was
//! carried out before, so its own parts, with ids of their own, name it: an heir that knows it as done does nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Mutation, Refusal, RowChanges, Slice, TabletId, Timestamp, limits};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, watch};
use wire::{Answer, Written, convert};

use super::{Content, Core, Job, Message, Pipeline, To};
use crate::call::Journey;
use crate::routing::Seek;
use crate::sequence::Open;
use crate::{Client, Error};

/// What became of rows that were written together, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenMany {
    versions: Vec<Timestamp>,
    failed: BTreeMap<u32, Error>,
}

impl WrittenMany {
    /// Before it is known.
    const OPEN: Timestamp = Timestamp(i64::MIN);

    /// The version that a row got, or why it failed.
    pub fn of(&self, row: usize) -> Result<Timestamp, Error> {
        match (u32::try_from(row).ok().and_then(|row| self.failed.get(&row)), self.versions.get(row)) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(&version)) if version != WrittenMany::OPEN => Ok(version),
            _ => Err(Error::Protocol(String::from("the runtime is shut down"))),
        }
    }

    /// Why all rows failed, if it is the same for all.
    pub fn common_error(&self) -> Option<&Error> {
        let first = self.failed.get(&0).filter(|_| self.failed.len() == self.versions.len())?;
        self.failed.values().all(|error| error == first).then_some(first)
    }

    /// Of each row the version that it got, or why it failed.
    pub fn each(&self) -> impl Iterator<Item = Result<Timestamp, Error>> {
        (0..self.versions.len()).map(|row| self.of(row))
    }
}

/// What will have become of rows. Dropping it takes nothing back.
pub struct PendingMany {
    outcome: watch::Receiver<Option<Arc<WrittenMany>>>,
    /// Lanes live as long as somebody waits.
    _core: Arc<Core>,
}

impl PendingMany {
    /// Waits until all rows are written or have failed.
    pub async fn written(mut self) -> Arc<WrittenMany> {
        outcome(&mut self.outcome).await
    }
}

pub(crate) async fn outcome(of: &mut watch::Receiver<Option<Arc<WrittenMany>>>) -> Arc<WrittenMany> {
    let outcome = of.wait_for(Option::is_some).await;
    outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or_default()
}

/// Rows that were given together. Tells their outcome when the last job of them is gone.
pub(crate) struct Whole {
    outcome: Mutex<WrittenMany>,
    done: watch::Sender<Option<Arc<WrittenMany>>>,
    /// Requests of which others are parts: to servers they are under way as long as these.
    divided: Mutex<Vec<Open>>,
    _slot: Option<OwnedSemaphorePermit>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Whole {
    /// The outcome of the rows at these places.
    pub(super) fn put(&self, places: &[u32], answer: Result<Answer, Error>) {
        let mut outcome = self.outcome.lock();
        let error = match answer {
            Ok(Answer::Written(Written::Applied { version })) => {
                places.iter().for_each(|&place| outcome.versions[place as usize] = version);
                return;
            }
            Ok(other) => Error::Protocol(format!("asked for writes, got {other:?}")),
            Err(error) => error,
        };
        outcome.failed.extend(places.iter().map(|&place| (place, error.clone())));
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.done.send_replace(Some(Arc::new(std::mem::take(self.outcome.get_mut()))));
    }
}

/// Rows of one part, as far as is known of one tablet.
pub(super) struct Rows {
    pub rows: Vec<RowChanges<String>>,
    /// The parts' parts that this is, by their requests.
    part_of: Vec<u64>,
    /// May somebody have carried it out?
    pub sent: bool,
}

impl Rows {
    pub fn are_within(&self, slice: &Slice) -> bool {
        self.rows.iter().all(|row| slice.covers(&row.row))
    }

    pub fn message(&self, table: &str, request: Option<&Open>) -> wire::v1::MutateManyRequest {
        let request = request.map(|request| request.id).unwrap_or_default();
        convert::mutate_many_request(table, request, self.part_of.clone(), self.rows.clone())
    }
}

impl Client {
    /// Changes many rows, each atomically and once, however often it had to be sent. Waits for all of them. Who has more
    /// than fit into memory twice, or wants some under way all the time, takes [`Client::batches`].
    pub async fn mutate_many(&self, table: &str, rows: Vec<RowChanges<String>>) -> Arc<WrittenMany> {
        self.pipeline(1).mutate_many(&Arc::from(table), rows).await.written().await
    }
}

impl Pipeline {
    /// Sends many rows, as soon as fewer than the allowed number of operations are under way; all of them are one.
    pub async fn mutate_many(&self, table: &Arc<str>, rows: Vec<RowChanges<String>>) -> PendingMany {
        let (done, outcome) = watch::channel(None);
        self.send_many(table, rows, done).await;
        PendingMany { outcome, _core: Arc::clone(&self.core) }
    }

    /// The same, and the outcome goes there.
    pub(crate) async fn send_many(
        &self,
        table: &Arc<str>,
        rows: Vec<RowChanges<String>>,
        done: watch::Sender<Option<Arc<WrittenMany>>>,
    ) {
        let weight = rows.iter().map(RowChanges::weight).sum();
        let (slot, room) = self.core.admit(weight).await;
        let versions = vec![WrittenMany::OPEN; rows.len()];
        let outcome = Mutex::new(WrittenMany { versions, failed: BTreeMap::new() });
        let whole = Arc::new(Whole { outcome, done, divided: Mutex::default(), _slot: slot, _room: room });
        let places = (0..rows.len() as u32).collect();
        let journey = Journey::new(&self.core.client.inner.options);
        self.core.spread(table, rows, places, Vec::new(), &whole, &journey);
    }
}

/// Rows that go to one tablet.
#[derive(Default)]
struct Block {
    rows: Vec<RowChanges<String>>,
    places: Vec<u32>,
    changes: usize,
    weight: usize,
}

impl Block {
    fn has_room(&self, row: &RowChanges<String>) -> bool {
        self.rows.is_empty()
            || self.rows.len() < limits::BATCH_ROWS
                && self.changes + row.changes.len() <= limits::CHANGES
                && self.weight + row.weight() <= limits::BATCH
    }

    fn push(&mut self, row: RowChanges<String>, place: u32) {
        self.changes += row.changes.len();
        self.weight += row.weight();
        self.rows.push(row);
        self.places.push(place);
    }
}

impl Core {
    /// Sends rows to their tablets, as far as the map knows them; the others go together, and find their way.
    fn spread(
        self: &Arc<Self>,
        table: &Arc<str>,
        rows: Vec<RowChanges<String>>,
        places: Vec<u32>,
        part_of: Vec<u64>,
        whole: &Arc<Whole>,
        journey: &Journey,
    ) {
        if part_of.len() > limits::BATCH_PARTS {
            let why = format!("its tablets were split {} times meanwhile", part_of.len());
            return whole.put(&places, Err(Error::lost(table, why)));
        }
        let mut blocks = Vec::<Block>::new();
        let mut block_of = BTreeMap::<Option<TabletId>, usize>::new();
        let mut last: Option<(Slice, TabletId)> = None;
        let routing = self.client.inner.routing.read();
        for (row, place) in rows.into_iter().zip(places) {
            if let Err(what) = limits::check_changes(&row.row, &row.changes) {
                whole.put(&[place], Err(Refusal::Invalid(what).into()));
                continue;
            }
            if last.as_ref().is_none_or(|(slice, _)| !slice.covers(&row.row)) {
                let found = routing.locate(table, Seek::Row(&row.row), 0).ok();
                last = found.map(|place| (place.slice, place.route.tablet));
            }
            let tablet = last.as_ref().map(|(_, tablet)| *tablet);
            let known = block_of.get(&tablet).copied().filter(|&block| blocks[block].has_room(&row));
            let block = known.unwrap_or_else(|| {
                blocks.push(Block::default());
                block_of.insert(tablet, blocks.len() - 1);
                blocks.len() - 1
            });
            blocks[block].push(row, place);
        }
        drop(routing);
        for Block { mut rows, places, weight, .. } in blocks {
            let request = self.client.inner.sequences.open();
            let content = match rows.pop_if(|_| weight > limits::BATCH) {
                Some(RowChanges { row, changes }) => {
                    let mutation = Mutation { row: row.clone(), condition: None, changes };
                    let message = convert::mutate_request(table, None, request.id, mutation);
                    Content::Message(row, Message::Mutate(message))
                }
                None => Content::Rows(Rows { rows, part_of: part_of.clone(), sent: false }),
            };
            self.dispatch(Job {
                table: Arc::clone(table),
                content,
                weight,
                journey: journey.clone(),
                to: To::Whole(Arc::clone(whole), places),
                request: Some(request),
                _slot: None,
                _room: None,
            });
        }
    }

    /// Its rows are of several tablets, by what is known now.
    pub(super) fn divide(self: &Arc<Self>, job: Job) {
        let Job { table, content, journey, to, request, .. } = job;
        if let (Content::Rows(Rows { rows, mut part_of, sent }), To::Whole(whole, places)) = (content, to) {
            if let Some(request) = request.filter(|_| sent) {
                part_of.push(request.id.sequence);
                whole.divided.lock().push(request);
            }
            self.spread(&table, rows, places, part_of, &whole, &journey);
        }
    }

    /// It cannot succeed. If that is the fault of some rows, the others go again.
    pub(super) fn fail(self: &Arc<Self>, mut job: Job, error: Error) {
        if let (Error::Refused(Refusal::NoSuchFamily { family, .. }), Content::Rows(part), To::Whole(whole, places)) =
            (&error, &mut job.content, &mut job.to)
        {
            let at_fault = |row: &RowChanges<String>| row.changes.iter().any(|change| change.family() == Some(family));
            let all = std::mem::take(&mut part.rows).into_iter().zip(std::mem::take(places));
            let (bad, good): (Vec<_>, Vec<_>) = all.partition(|(row, _)| at_fault(row));
            let bad: Vec<u32> = bad.into_iter().map(|(_, place)| place).collect();
            let fruitless = bad.is_empty();
            whole.put(&bad, Err(error.clone()));
            (part.rows, *places) = good.into_iter().unzip();
            if !fruitless {
                return self.divide(job);
            }
        }
        job.finish(Err(error));
    }
}
