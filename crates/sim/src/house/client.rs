//! Clients: each does one thing at a time, repeats it until it is answered, and remembers what it saw.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::random::Random;
use model::request::Request;
use model::{
    Assignment, Change, ClientId, ColumnFilter, Condition, Configuration, Mutation, NodeId, Operation, Outcome,
    ReadOptions, Refusal, Reply, RequestId, TabletId, Ticket, Timestamp,
};

use crate::linear::{self, Action, Value};

/// Rows that the clients fight over.
pub(super) const ROWS: u64 = 6;
const FAMILY: &str = "f";
const QUALIFIER: &[u8] = b"q";

/// What a client is doing.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    pub row: u64,
    pub kind: Kind,
    pub called: u64,
    pub gives_up: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Get,
    Put(u64),
    Delete,
    Cput(Value, u64),
}

#[derive(Debug)]
pub(super) struct Client {
    id: ClientId,
    pub sequence: u64,
    pub doing: Option<Doing>,
    /// Rises with every attempt; an answer to any attempt of the present operation counts.
    pub attempt: u64,
    tablets: Vec<Assignment>,
    known: BTreeMap<TabletId, Configuration>,
    /// What it last saw of each row.
    seen: BTreeMap<u64, Value>,
}

impl Client {
    pub fn new(id: u64) -> Client {
        Client {
            id: ClientId(id),
            sequence: 0,
            doing: None,
            attempt: 0,
            tablets: Vec::new(),
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    pub fn learn_map(&mut self, tablets: Vec<Assignment>) {
        for assignment in &tablets {
            self.learn(assignment.tablet.id, &assignment.configuration);
        }
        self.tablets = tablets;
    }

    pub fn learn(&mut self, tablet: TabletId, configuration: &Configuration) {
        let known = self.known.entry(tablet).or_insert_with(|| configuration.clone());
        if known.epoch < configuration.epoch {
            *known = configuration.clone();
        }
    }

    /// Decides what to do next. Every value is written once in a history.
    pub fn begin(&mut self, now: u64, row: u64, only_reads: bool, random: &mut Random, next_value: &mut u64) {
        self.sequence += 1;
        let mut value = || {
            *next_value += 1;
            *next_value
        };
        let kind = match random.below(10) {
            _ if only_reads => Kind::Get,
            0..=3 => Kind::Get,
            4..=6 => Kind::Put(value()),
            7 => Kind::Delete,
            _ => Kind::Cput(self.seen.get(&row).copied().flatten(), value()),
        };
        let patience = if only_reads { 20_000_000_000 } else { 1_000_000_000 + random.below(5_000_000_000) };
        self.doing = Some(Doing { row, kind, called: now, gives_up: now + patience });
    }

    /// The request, and to whom it goes.
    pub fn request(&self) -> Option<(NodeId, Request)> {
        let doing = self.doing.as_ref()?;
        let row = key(doing.row);
        let tablet = self.tablets.iter().find(|assignment| assignment.tablet.slice.covers(&row))?.tablet.id;
        let configuration = self.known.get(&tablet)?;
        let id = RequestId { client: self.id, sequence: self.sequence, first_incomplete: self.sequence };
        let qualifier = Bytes::from_static(QUALIFIER);
        let family = || FAMILY.to_owned();
        let put = |value: u64| Change::Put {
            family: family(),
            qualifier: qualifier.clone(),
            timestamp: Timestamp::SERVER,
            value: Bytes::copy_from_slice(&padded(value)),
        };
        let write = |condition, change| Operation::Write {
            request: id,
            mutation: Mutation { row: row.clone(), condition, changes: vec![change] },
        };
        let operation = match doing.kind {
            Kind::Get => Operation::Get {
                row: row.clone(),
                options: ReadOptions { columns: vec![ColumnFilter { family: family(), qualifier: None }], versions: 1 },
            },
            Kind::Put(value) => write(None, put(value)),
            Kind::Delete => write(None, Change::DeleteRow),
            Kind::Cput(expect, value) => {
                let expect = expect.map(|value| Bytes::copy_from_slice(&padded(value)));
                let condition = Condition { family: family(), qualifier: qualifier.clone(), expect };
                write(Some(condition), put(value))
            }
        };
        Some((configuration.primary, Request { tablet, epoch: configuration.epoch, operation }))
    }

    /// An answer: what the operation turned out to be, or `None` if it must be tried again.
    pub fn on_answer(&mut self, now: u64, answer: Result<Reply, Refusal>) -> Result<Option<linear::Operation>, String> {
        let Some(doing) = &self.doing else { return Ok(None) };
        let reply = match answer {
            Ok(reply) => reply,
            Err(Refusal::WrongEpoch { tablet, current }) => {
                self.learn(tablet, &current);
                return Ok(None);
            }
            Err(refusal) if refusal.is_passing() || matches!(refusal, Refusal::DiskFull(_)) => return Ok(None),
            Err(refusal) => return Err(format!("{doing:?} is refused: {refusal}")),
        };
        let action = match (doing.kind, reply) {
            (Kind::Get, Reply::Row(row, _)) => {
                Action::Read(row.and_then(|row| row.cells.first().map(|cell| parse(&cell.value))))
            }
            (Kind::Put(value), Reply::Written(Outcome::Applied { .. })) => Action::Write(Some(value)),
            (Kind::Delete, Reply::Written(Outcome::Applied { .. })) => Action::Write(None),
            (Kind::Cput(expect, value), Reply::Written(Outcome::Applied { .. })) => Action::Swap(expect, Some(value)),
            (Kind::Cput(..), Reply::Written(Outcome::Differs { present })) => {
                Action::Read(present.map(|cell| parse(&cell.value)))
            }
            (kind, reply) => return Err(format!("{kind:?} is answered by {reply:?}")),
        };
        let value = match action {
            Action::Read(value) | Action::Write(value) | Action::Swap(_, value) => value,
        };
        self.seen.insert(doing.row, value);
        Ok(Some(linear::Operation { called: doing.called, answered: Some(now), action }))
    }

    /// What an operation that is given up may have done, if anything.
    pub fn give_up(&mut self) -> Option<(u64, linear::Operation)> {
        let doing = self.doing.take()?;
        let action = match doing.kind {
            Kind::Get => return None,
            Kind::Put(value) => Action::Write(Some(value)),
            Kind::Delete => Action::Write(None),
            Kind::Cput(expect, value) => Action::Swap(expect, Some(value)),
        };
        Some((doing.row, linear::Operation { called: doing.called, answered: None, action }))
    }
}

/// For the answer to the client's attempt.
pub(super) fn ticket(client: usize, sequence: u64) -> Ticket {
    Ticket((client as u64) << 48 | sequence)
}

pub(super) fn client_of(ticket: Ticket) -> (usize, u64) {
    ((ticket.0 >> 48) as usize, ticket.0 & 0xffff_ffff_ffff)
}

fn key(row: u64) -> Bytes {
    Bytes::from(format!("row {row}"))
}

/// Values have some weight, so that memtables fill.
fn padded(value: u64) -> [u8; 120] {
    let mut bytes = [7; 120];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> u64 {
    bytes.get(..8).and_then(|first| first.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
}
