//! A reader of changes, and what must be true of them: every acknowledged write is there once, the changes of a row come in their
//! order, and together they make the rows.
//!
//! ```text
//!   parts (model::follow) ──the first──▶ the primary of its tablet ──page──▶ checked, and what is left of the part
//!      └── now and then through a token, as if another reader went on
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use model::changes::{ChangesPage, Place};
use model::follow::{Part, Start, StreamId, Token, join};
use model::random::Random;
use model::request::Request;
use model::{
    AdminRequest, Assignment, Change, FamilyId, NodeId, Operation, Partition, ReadOptions, Refusal, Reply, RowRange,
    Slice, TabletId, Timestamp,
};

use super::client::{Area, ticket};
use super::net::Packet;
use super::world::{CLIENTS, Checked, END, Happening, MASTER, World};
use crate::agenda::{MS, SECOND};

/// Its number among the clients, of whom there are fewer.
pub(super) const FOLLOWER: usize = 100;
/// How long changes are kept: longer than a history, and than a calendar jumps.
pub(super) const KEPT_SECONDS: u64 = 6 * 86_400;

type Cells = BTreeMap<(Bytes, FamilyId, Bytes, Timestamp), Bytes>;

pub(super) struct Follower {
    /// Chance of its own: histories without it are what they were.
    random: Random,
    stream: Option<StreamId>,
    tablets: Vec<Assignment>,
    parts: VecDeque<Part>,
    /// The question under way: its number, what it is about, and whom it asks.
    asked: Option<(u64, Part, TabletId, Slice)>,
    number: u64,
    seen: BTreeMap<Bytes, Vec<Place>>,
    /// What the changes so far make.
    cells: Cells,
    /// What clients know to be written.
    acknowledged: BTreeSet<(Bytes, Timestamp)>,
}

impl Follower {
    pub fn new(seed: u64) -> Follower {
        Follower {
            random: Random::new(seed ^ 0xc4a9_6e5e),
            stream: None,
            tablets: Vec::new(),
            parts: VecDeque::new(),
            asked: None,
            number: 0,
            seen: BTreeMap::new(),
            cells: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    pub fn learn_map(&mut self, tablets: Vec<Assignment>) {
        self.tablets = tablets.into_iter().filter(|known| known.schema.name == Area::Hot.table()).collect();
        let Some(first) = self.tablets.first().filter(|_| self.stream.is_none()) else { return };
        let Some(family) = &first.schema.settings.changes else { return };
        self.stream = Some(StreamId { table: first.tablet.table, family: family.id });
        let new = |bucket| Part::new(bucket, RowRange::default(), Start::Kept);
        self.parts = match first.schema.partition {
            Partition::Hash { tablets } => (0..tablets).map(|bucket| new(Some(bucket))).collect(),
            Partition::Range { .. } => [new(None)].into(),
        };
    }

    /// These rows of the table were written, as their client knows.
    pub fn acknowledge(&mut self, rows: impl Iterator<Item = Bytes>, version: Timestamp) {
        self.acknowledged.extend(rows.map(|row| (row, version)));
    }

    /// The tablet of a part, as far as the reader knows.
    fn tablet_of(&self, part: &Part) -> Option<&Assignment> {
        self.tablets.iter().find(|known| match (&known.tablet.slice, part.bucket) {
            (Slice::Hash { bucket, .. }, Some(wanted)) => *bucket == wanted,
            (slice @ Slice::Rows { .. }, None) => slice.covers(part.next_row()),
            _ => false,
        })
    }

    /// What comes next, and to whom it goes; `None` if the map does not say.
    fn ask(&mut self) -> Option<(u64, NodeId, Request)> {
        let stream = self.stream?;
        if let Some((_, part, ..)) = self.asked.take() {
            self.parts.push_front(part);
        }
        if self.random.chance(10) {
            self.hand_over(stream);
        }
        let part = self.parts.front()?.clone();
        let known = self.tablet_of(&part)?;
        let (tablet, epoch, to) = (known.tablet.id, known.configuration.epoch, known.configuration.primary);
        let (slice, operation) = (known.tablet.slice.clone(), Operation::Changes(part.query(stream)));
        self.parts.pop_front();
        self.number += 1;
        self.asked = Some((self.number, part, tablet, slice));
        Some((self.number, to, Request { tablet, epoch, operation, by: None }))
    }

    /// Another reader goes on.
    fn hand_over(&mut self, stream: StreamId) {
        let mut parts: Vec<Part> = self.parts.drain(..).collect();
        parts.sort_by(|one, other| (one.bucket, &one.range.start).cmp(&(other.bucket, &other.range.start)));
        let token = Token { stream, parts: join(parts) };
        let token = Token::from_text(&token.to_text()).expect("it was made just now");
        self.parts = token.parts.into();
    }

    /// True if the map is to be asked for again.
    fn on_answer(&mut self, number: u64, answer: Result<Reply, Refusal>) -> Result<bool, String> {
        let Some((_, part, _, slice)) = self.asked.take_if(|(asked, ..)| *asked == number) else { return Ok(false) };
        match answer {
            Ok(Reply::Changes(page, _)) => {
                self.take(&page)?;
                let turned = part.turn(&page, &slice)?;
                let again = turned.first().is_some_and(|first| first.window.is_some());
                for (number, part) in turned.into_iter().enumerate() {
                    if number == 0 && again { self.parts.push_front(part) } else { self.parts.push_back(part) }
                }
                Ok(false)
            }
            Ok(other) => Err(format!("changes were asked for, and there came {other:?}")),
            Err(refusal @ (Refusal::Invalid(_) | Refusal::ChangesGone { .. } | Refusal::NoChanges(_))) => {
                Err(format!("a reader of changes hears: {refusal}"))
            }
            Err(refusal) => {
                if let Refusal::WrongEpoch { tablet, current } = refusal {
                    let known = self.tablets.iter_mut().find(|known| known.tablet.id == tablet);
                    if let Some(known) = known.filter(|known| known.configuration.epoch < current.epoch) {
                        known.configuration = current;
                    }
                }
                self.parts.push_back(part);
                Ok(true)
            }
        }
    }

    fn take(&mut self, page: &ChangesPage) -> Checked {
        for change in &page.changes {
            let seen = self.seen.entry(change.row.clone()).or_default();
            if seen.last().is_some_and(|last| *last >= change.at) {
                let (row, at, last) = (&change.row, change.at, seen.last());
                return Err(format!("a change of {row:?} at {at:?} comes after that at {last:?}"));
            }
            seen.push(change.at);
            let row = || change.row.clone();
            for change in &change.changes {
                match change.clone() {
                    Change::Put { family, qualifier, timestamp, value } => {
                        self.cells.insert((row(), family, qualifier, timestamp), value);
                    }
                    Change::DeleteCell { family, qualifier, timestamp } => {
                        self.cells.remove(&(row(), family, qualifier, timestamp));
                    }
                    Change::DeleteColumn { family, qualifier } => {
                        self.cells.retain(|(its, of, name, _), _| (its, *of, name) != (&row(), family, &qualifier));
                    }
                    Change::DeleteFamily { family } => {
                        self.cells.retain(|(its, of, ..), _| (its, *of) != (&row(), family));
                    }
                    Change::DeleteRow => return Err(format!("the deletion of {:?} was kept as such", row())),
                }
            }
        }
        Ok(())
    }

    /// How many changes it was given.
    pub fn given(&self) -> u64 {
        self.seen.values().map(|seen| seen.len() as u64).sum()
    }

    /// In the end, when all is well and nothing was written for a while.
    fn check_end(&self, rows: Option<Cells>) -> Checked {
        for (row, version) in &self.acknowledged {
            let seen = self.seen.get(row).is_some_and(|seen| seen.iter().any(|at| at.version == *version));
            if !seen {
                let parts = &self.parts;
                return Err(format!(
                    "the write of {row:?} with version {version} is missing from the changes: {parts:?}"
                ));
            }
        }
        match rows {
            Some(rows) if rows != self.cells => {
                let missing = rows.iter().find(|(key, value)| self.cells.get(*key) != Some(value));
                let more = self.cells.iter().find(|(key, value)| rows.get(*key) != Some(value));
                Err(format!("the changes do not make the rows: {missing:?} is there, and {more:?} should be"))
            }
            _ => Ok(()),
        }
    }
}

impl World {
    /// The reader asks again, if there is one.
    pub(super) fn read_changes(&mut self) {
        // In the end nothing is to be under way: a question may make a tablet write that there is nothing new.
        let over = self.agenda.now() >= self.later(END) - SECOND;
        let Some(follower) = self.follower.as_mut().filter(|_| !over) else { return };
        let (pause, place) = (follower.random.between(10 * MS, 120 * MS), CLIENTS + FOLLOWER);
        let asks_map = follower.tablets.is_empty() || follower.random.chance(10);
        let question = follower.ask();
        if asks_map || question.is_none() {
            self.send(place, MASTER, Packet::Admin(ticket(FOLLOWER, 0), AdminRequest::Map));
        }
        if let Some((number, to, request)) = question {
            self.send(place, to.0 as usize, Packet::Request(ticket(FOLLOWER, number), request));
        }
        self.agenda.after(pause, Happening::ReadChanges);
    }

    pub(super) fn on_changes(&mut self, number: u64, answer: Result<Reply, Refusal>) -> Checked {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        // The disk refuses to read now and then, and what is damaged is found by others.
        let answer = match answer {
            Err(Refusal::Corrupt(_)) => Err(Refusal::Overloaded),
            answer => answer,
        };
        if follower.on_answer(number, answer)? {
            self.send(CLIENTS + FOLLOWER, MASTER, Packet::Admin(ticket(FOLLOWER, 0), AdminRequest::Map));
        }
        Ok(())
    }

    /// What was followed is what happened.
    pub(super) fn check_changes(&self) -> Checked {
        let Some(follower) = &self.follower else { return Ok(()) };
        // What retention and dropped families take away is not told.
        let rows = if self.climate.families { None } else { self.all_cells() };
        follower.check_end(rows)
    }

    /// All cells of the table, if every primary is there.
    fn all_cells(&self) -> Option<Cells> {
        let state = self.mastery.master.as_ref()?.state();
        let table = state.table(Area::Hot.table())?.table;
        let mut cells = Cells::new();
        for (tablet, group) in state.groups.iter().filter(|(_, group)| group.tablet.table == table) {
            let process = self.machines[group.configuration.primary.0 as usize].process.as_ref()?;
            let (_, view, schema) = process.node.applied(*tablet)?;
            let options =
                ReadOptions { columns: schema.visible_columns(), versions: u32::MAX, ..ReadOptions::default() };
            let all = RowRange::default();
            let (rows, _) = view.scan(&all, &options, &schema, Timestamp(0), u32::MAX, usize::MAX).ok()?;
            for row in rows {
                let cell =
                    |cell: model::Cell| ((row.key.clone(), cell.family, cell.qualifier, cell.timestamp), cell.value);
                cells.extend(row.cells.into_iter().map(cell));
            }
        }
        Some(cells)
    }
}
