//! Clients: each does one thing at a time, repeats it until it is answered, and remembers what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use model::random::Random;
use model::request::Request;
use model::{
    Assignment, Change, ClientId, ColumnFilter, Condition, Configuration, Consistency, FamilyId, Mutation, NodeId,
    Operation, Outcome, ReadOptions, Refusal, Reply, RequestId, Row, RowChanges, RowRange, Schema, Slice, TableId,
    TabletId, Ticket, Timestamp,
};

use super::ledger::{self, BANK, Balances, COUNT};
use crate::linear::{self, Action, Value};

pub(super) const QUALIFIER: &[u8] = b"q";

/// A part of the data, with a load of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    /// Rows that the clients fight over.
    Hot,
    /// Rows between them that are seldom written: what scans must find again and again.
    Quiet,
    /// Rows of a family that comes and goes.
    Loose,
    /// Rows of that family after it has come for good.
    Fast,
    /// Rows of a table that comes and goes.
    Guest,
    /// Numbers that are counted up.
    Count,
    /// Rows of several accounts, between which money moves.
    Bank,
}

impl Area {
    pub fn table(self) -> &'static str {
        if self == Area::Guest { "guest" } else { "t" }
    }

    pub fn family(self) -> &'static str {
        if matches!(self, Area::Loose | Area::Fast) { "g" } else { "f" }
    }

    /// How many rows it has.
    pub fn rows(self) -> u64 {
        match self {
            Area::Hot => 6,
            Area::Quiet => 12,
            Area::Loose | Area::Fast => 3,
            Area::Guest => 4,
            Area::Count | Area::Bank => 2,
        }
    }

    pub fn row(self, number: u64) -> Bytes {
        Bytes::from(match self {
            Area::Hot => format!("row {number}"),
            // Before, between and after the hot ones.
            Area::Quiet => format!("row {}+{}", number % 7, number / 7),
            Area::Loose => format!("row {number}~loose"),
            Area::Fast => format!("row {number}~fast"),
            Area::Guest => format!("guest {number}"),
            Area::Count => format!("row {number}{COUNT}"),
            Area::Bank => format!("row {}{BANK}", 2 + number),
        })
    }

    /// Is it a row of [`Area::Loose`]?
    pub fn is_loose(row: &[u8]) -> bool {
        row.ends_with(b"~loose")
    }

    /// All rows that a scan of the area's table and family can meet, in key order.
    fn neighbours(self) -> &'static [Bytes] {
        static ROWS: LazyLock<[Vec<Bytes>; 3]> = LazyLock::new(|| {
            let rows = |areas: &[Area]| {
                let rows = areas.iter().flat_map(|area| (0..area.rows()).map(|number| area.row(number)));
                rows.collect::<BTreeSet<Bytes>>().into_iter().collect()
            };
            [
                rows(&[Area::Hot, Area::Quiet, Area::Count, Area::Bank]),
                rows(&[Area::Loose, Area::Fast]),
                rows(&[Area::Guest]),
            ]
        });
        &ROWS[match self {
            Area::Hot | Area::Quiet | Area::Count | Area::Bank => 0,
            Area::Loose | Area::Fast => 1,
            Area::Guest => 2,
        }]
    }
}

/// One cell as clients know it. A table's number is never used again.
pub(super) type Register = (TableId, Bytes);

/// What an operation turned out to be, or may have been.
#[derive(Debug)]
pub(super) struct Observed {
    pub area: Area,
    pub register: Register,
    pub operation: linear::Operation,
    /// In which family, by number, the value was that a read saw.
    pub family: Option<FamilyId>,
}

/// What a client shall do next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub area: Area,
    pub row: u64,
    pub what: What,
    /// Nanoseconds.
    pub patience: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Get,
    /// A read of whatever some member has.
    Eventual,
    Put,
    Delete,
    Cput,
    /// One more than what was seen last.
    Increment,
    /// From some account of the row to another.
    Transfer,
    /// All rows of the area's table, or some.
    Scan {
        all: bool,
    },
    /// Writes of many rows.
    Batch(Rows),
}

/// Which rows of an area a batch writes, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub rows: u64,
    /// Those among them that it deletes.
    pub deletes: u64,
    /// The first one comes again, at the end.
    pub again: bool,
}

/// What a client is doing.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    pub area: Area,
    pub(super) row: Bytes,
    pub(super) kind: Kind,
    called: u64,
    pub gives_up: u64,
    /// In which table and where, once that is known.
    pub(super) table: Option<TableId>,
    pub(super) tablet: Option<TabletId>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Get,
    Eventual(Option<Duration>),
    Put(u64),
    Delete,
    Cput(Value, u64),
    /// From this turn of the row to the next, with these balances.
    Transfer(Value, u64, Balances),
    /// Of each tablet that is left, the last first, the next page begins at the row.
    Scan {
        page: u32,
        end: Option<Bytes>,
        left: Vec<(TabletId, Slice, Bytes)>,
        /// The rows of which it has told what they hold, or that they hold nothing.
        told: BTreeSet<Bytes>,
    },
    /// The parts that are left, the present one last, and the number of the whole.
    Batch(Vec<Part>, u64),
}

/// Rows of a batch that are of one tablet, as far as the client knows.
#[derive(Clone, Debug)]
pub(super) struct Part {
    sequence: u64,
    part_of: Vec<u64>,
    /// `None` deletes.
    rows: Vec<(Bytes, Value)>,
    sent: bool,
}

impl Part {
    /// What it leaves in each row.
    fn leaves(self) -> BTreeMap<Bytes, Value> {
        self.rows.into_iter().collect()
    }
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Answered {
    /// Nothing has been done yet.
    Not,
    /// So much of it is done, and there is more to do.
    Partly(Vec<Observed>),
    /// It is done.
    All(Vec<Observed>),
    /// It cannot be done any more.
    Never,
}

#[derive(Debug)]
pub(super) struct Client {
    id: ClientId,
    pub sequence: u64,
    /// No number beyond this was used.
    numbers: u64,
    pub doing: Option<Doing>,
    /// Rises with every attempt; an answer to any attempt of the present operation counts.
    pub attempt: u64,
    /// What it has begun to do in the end.
    pub last_turns: u64,
    pub(super) tablets: Vec<Assignment>,
    known: BTreeMap<TabletId, Configuration>,
    /// What it last saw of each row.
    seen: BTreeMap<Register, Value>,
    /// Likewise of rows with accounts.
    accounts: BTreeMap<Register, (u64, Balances)>,
}

impl Client {
    pub fn new(id: u64) -> Client {
        Client {
            id: ClientId(id),
            sequence: 0,
            numbers: 0,
            doing: None,
            attempt: 0,
            last_turns: 0,
            tablets: Vec::new(),
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
            accounts: BTreeMap::new(),
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

    /// The tablets of a table, by its map.
    fn tablets_of(&self, table: &str) -> Vec<(TabletId, Slice)> {
        let of = self.tablets.iter().filter(|assignment| assignment.schema.name == table);
        of.map(|assignment| (assignment.tablet.id, assignment.tablet.slice.clone())).collect()
    }

    fn table_of(&self, tablet: TabletId) -> Option<TableId> {
        let known = self.tablets.iter().find(|assignment| assignment.tablet.id == tablet);
        known.map(|assignment| assignment.tablet.table)
    }

    fn tablet_of(&self, area: Area, row: &[u8]) -> Option<TabletId> {
        self.tablets_of(area.table()).into_iter().find(|(_, slice)| slice.covers(row)).map(|(tablet, _)| tablet)
    }

    /// The rows of the table that is always there that are written by what it is doing now.
    pub fn writes(&self) -> Vec<Bytes> {
        match &self.doing {
            Some(doing) if doing.area.table() != Area::Hot.table() => Vec::new(),
            Some(Doing { kind: Kind::Batch(parts, _), .. }) => {
                parts.last().map_or(Vec::new(), |part| part.rows.iter().map(|(row, _)| row.clone()).collect())
            }
            Some(doing) => vec![doing.row.clone()],
            None => Vec::new(),
        }
    }

    /// Does it write many rows?
    pub fn does_batch(&self) -> bool {
        matches!(self.doing, Some(Doing { kind: Kind::Batch(..), .. }))
    }

    fn number(&mut self) -> u64 {
        self.numbers = self.numbers.max(self.sequence) + 1;
        self.numbers
    }

    /// Divides the present part of a batch, if its rows are of several tablets, and finds the tablet.
    fn find_tablet_of_part(&mut self) {
        let Some(Doing { area, table, kind: Kind::Batch(parts, _), .. }) = &self.doing else { return };
        let Some(part) = parts.last().cloned() else { return };
        let of_table = |known: &&Assignment| match table {
            Some(table) => known.tablet.table == *table,
            None => known.schema.name == area.table(),
        };
        let tablets: Vec<&Assignment> = self.tablets.iter().filter(of_table).collect();
        let tablet_of = |row: &Bytes| tablets.iter().find(|known| known.tablet.slice.covers(row));
        let mut groups = BTreeMap::<TabletId, Vec<(Bytes, Value)>>::new();
        for (row, value) in &part.rows {
            let Some(known) = tablet_of(row) else { return };
            groups.entry(known.tablet.id).or_default().push((row.clone(), *value));
        }
        let tablet = groups.last_key_value().map(|(tablet, _)| *tablet);
        let mut divided = Vec::new();
        if groups.len() > 1 {
            let mut part_of = part.part_of;
            part_of.extend(part.sent.then_some(part.sequence));
            for rows in groups.into_values() {
                let sequence = self.number();
                divided.push(Part { sequence, part_of: part_of.clone(), rows, sent: false });
            }
        }
        let Some(Doing { tablet: present, row, kind: Kind::Batch(parts, _), .. }) = &mut self.doing else { return };
        if !divided.is_empty() {
            parts.pop();
            parts.extend(divided);
        }
        *present = tablet;
        if let Some(part) = parts.last_mut() {
            part.sent = true;
            self.sequence = part.sequence;
            row.clone_from(&part.rows[0].0);
        }
    }

    /// Begins something. Every value is written once in a history.
    pub fn begin(&mut self, now: u64, wish: Wish, random: &mut Random, next_value: &mut u64) {
        let Wish { area, row, what, patience } = wish;
        self.sequence = self.number();
        let mut row = area.row(row);
        let mut tablet = self.tablet_of(area, &row);
        let mut value = || {
            *next_value += 1;
            *next_value
        };
        let kind = match what {
            What::Get => Kind::Get,
            What::Eventual => {
                let max_lag = random.chance(50).then(|| Duration::from_millis(random.between(200, 1500)));
                Kind::Eventual(max_lag)
            }
            What::Put => Kind::Put(value()),
            What::Delete => Kind::Delete,
            What::Cput => {
                let table = tablet.and_then(|tablet| self.table_of(tablet));
                let seen = table.and_then(|table| self.seen.get(&(table, row.clone())));
                Kind::Cput(seen.copied().flatten(), value())
            }
            What::Increment => {
                let table = tablet.and_then(|tablet| self.table_of(tablet));
                let seen = table.and_then(|table| self.seen.get(&(table, row.clone()))).copied().flatten();
                Kind::Cput(seen, ledger::next_count(wish.row, seen))
            }
            What::Transfer => {
                let table = tablet.and_then(|tablet| self.table_of(tablet));
                let register = table.map(|table| (table, row.clone()));
                let known = register.as_ref().and_then(|register| self.accounts.get(register));
                let empty = register.as_ref().is_some_and(|register| self.seen.get(register) == Some(&None));
                match known {
                    Some((turn, before)) => Kind::Transfer(Some(*turn), value(), ledger::transfer(*before, random)),
                    None if empty => Kind::Transfer(None, value(), ledger::OPENING),
                    // First it must know what is there.
                    None => Kind::Get,
                }
            }
            What::Batch(Rows { rows, deletes, again }) => {
                let chosen: Vec<u64> = (0..area.rows()).filter(|number| rows >> number & 1 == 1).collect();
                let write = |number: &u64| (area.row(*number), (deletes >> number & 1 == 0).then(&mut value));
                let mut writes: Vec<(Bytes, Value)> = chosen.iter().map(write).collect();
                writes.extend(chosen.first().filter(|_| again).map(|number| (area.row(*number), Some(value()))));
                let part = Part { sequence: self.sequence, part_of: Vec::new(), rows: writes, sent: false };
                Kind::Batch(vec![part], self.sequence)
            }
            What::Scan { all } => {
                let mut left = self.tablets_of(area.table());
                left.reverse();
                tablet = left.last().map(|(tablet, _)| *tablet);
                let page = [1, 2, 3, 100][random.below(4) as usize];
                let rows = area.neighbours();
                let end = (!all).then(|| random.pick(rows).cloned()).flatten().filter(|end| *end > row);
                match left.is_empty() {
                    true => Kind::Get,
                    false => {
                        if all {
                            row = Bytes::new();
                        }
                        let from = |(tablet, slice)| (tablet, slice, row.clone());
                        Kind::Scan { page, end, left: left.into_iter().map(from).collect(), told: BTreeSet::new() }
                    }
                }
            }
        };
        let table = tablet.and_then(|tablet| self.table_of(tablet));
        self.doing = Some(Doing { area, row, kind, called: now, gives_up: now + patience, table, tablet });
    }

    /// The request, and to whom it goes.
    pub fn request(&mut self) -> Option<(NodeId, Request)> {
        self.find_heirs();
        self.find_tablet_of_part();
        let doing = self.doing.as_ref()?;
        let tablet = doing.tablet.or_else(|| self.tablet_of(doing.area, &doing.row))?;
        let table = doing.table.or_else(|| self.table_of(tablet))?;
        let doing = self.doing.as_mut()?;
        // From now on it stays in there: a table of the same name that comes later is another one.
        (doing.table, doing.tablet) = (Some(table), Some(tablet));
        let configuration = self.known.get(&tablet)?;
        let first_incomplete = if let Kind::Batch(_, whole) = doing.kind { whole } else { self.sequence };
        let id = RequestId { client: self.id, sequence: self.sequence, first_incomplete };
        let (row, qualifier) = (&doing.row, Bytes::from_static(QUALIFIER));
        let family = || doing.area.family().to_owned();
        let options = || ReadOptions {
            columns: vec![ColumnFilter { family: family(), qualifier: None }],
            ..ReadOptions::default()
        };
        let put = |value: u64| Change::Put {
            family: family(),
            qualifier: qualifier.clone(),
            timestamp: Timestamp::SERVER,
            value: Bytes::copy_from_slice(&padded(value)),
        };
        let write_all = |condition, changes| Operation::Write {
            request: id,
            mutation: Mutation { row: row.clone(), condition, changes },
        };
        let write = |condition, change| write_all(condition, vec![change]);
        let holds = |expect: Value| {
            let expect = expect.map(|value| Bytes::copy_from_slice(&padded(value)));
            Some(Condition::Newest { family: family(), qualifier: qualifier.clone(), expect })
        };
        let operation = match &doing.kind {
            Kind::Get => Operation::Get { row: row.clone(), options: options() },
            &Kind::Eventual(max_lag) => {
                let consistency = Consistency::Eventual { max_lag };
                Operation::Get { row: row.clone(), options: ReadOptions { consistency, ..options() } }
            }
            Kind::Put(value) => write(None, put(*value)),
            Kind::Delete => write(None, Change::DeleteRow),
            Kind::Cput(expect, value) => write(holds(*expect), put(*value)),
            Kind::Transfer(expect, turn, balances) => {
                let mut changes = ledger::changes(balances, &family());
                changes.push(put(*turn));
                write_all(holds(*expect), changes)
            }
            Kind::Batch(parts, _) => {
                let Part { part_of, rows, .. } = parts.last()?;
                let change = |(row, value): &(Bytes, Value)| RowChanges {
                    row: row.clone(),
                    changes: vec![value.map_or(Change::DeleteRow, put)],
                };
                let rows = rows.iter().map(change).collect();
                Operation::WriteMany { request: id, part_of: part_of.clone(), rows }
            }
            Kind::Scan { page, end, left, .. } => {
                let (_, slice, start) = left.last()?;
                let range = RowRange { start: start_within(slice, start), end: end_within(slice, end.as_ref()) };
                Operation::Scan { range, options: options(), rows: *page, reverse: false }
            }
        };
        let node = match doing.kind {
            // Another one with every attempt.
            Kind::Eventual(_) => configuration.members().nth(self.attempt as usize % configuration.size())?,
            _ => configuration.primary,
        };
        Some((node, Request { tablet, epoch: configuration.epoch, operation, by: None }))
    }

    /// What the present operation reads eventually, if it is the one of that sequence.
    pub fn eventual(&self, sequence: u64) -> Option<(Register, Option<Duration>)> {
        let doing = self.doing.as_ref().filter(|_| self.sequence == sequence)?;
        match doing.kind {
            Kind::Eventual(max_lag) => Some(((doing.table?, doing.row.clone()), max_lag)),
            _ => None,
        }
    }

    /// An answer to the present operation, and what it means.
    pub fn on_answer(&mut self, now: u64, answer: Result<Reply, Refusal>) -> Result<Answered, String> {
        let Some(doing) = &self.doing else { return Ok(Answered::Not) };
        let reply = match answer {
            Ok(reply) => reply,
            Err(Refusal::WrongEpoch { tablet, current }) => {
                self.learn(tablet, &current);
                return Ok(Answered::Not);
            }
            Err(Refusal::Moved { tablet, heirs }) => {
                self.succeed(tablet, heirs);
                return Ok(Answered::Not);
            }
            // The family has just been dropped.
            Err(Refusal::NoSuchFamily { .. }) if doing.area == Area::Loose => return Ok(Answered::Never),
            Err(refusal) if refusal.is_passing() => return Ok(Answered::Not),
            Err(Refusal::DiskFull(_) | Refusal::Corrupt(_)) => return Ok(Answered::Not),
            Err(refusal) => return Err(format!("{doing:?} is refused: {refusal}")),
        };
        let table = doing.table.ok_or("an answer to what was never asked")?;
        let (area, called) = (doing.area, doing.called);
        let observed = |row: Bytes, action, family| Observed {
            area,
            register: (table, row),
            operation: linear::Operation { called, answered: Some(now), action },
            family,
        };
        if let (Kind::Scan { .. }, Reply::Rows { rows, resume, schema, .. }) = (&doing.kind, &reply) {
            let resume = resume.clone();
            let mut page = Vec::new();
            let said = self.page(doing, rows, resume.as_ref(), schema)?;
            self.tell_once(said.iter().map(|(row, _)| row.clone()), resume.is_none())?;
            for (row, seen) in said {
                let family = seen.map(|(_, family)| family);
                page.push(observed(row, Action::Read(seen.map(|(value, _)| value)), family));
            }
            return Ok(self.turn_the_page(now, resume, page));
        }
        if let (Kind::Eventual(_), Reply::Row(_, _, Some(_))) = (&doing.kind, &reply) {
            // It was compared with what was committed when it was given.
            return Ok(Answered::All(Vec::new()));
        }
        if let (Kind::Batch(..), Reply::Written(Outcome::Applied { .. })) = (&doing.kind, &reply) {
            let Some(Doing { tablet, kind: Kind::Batch(parts, _), .. }) = &mut self.doing else {
                return Ok(Answered::Not);
            };
            let part = parts.pop().ok_or("an answer to no part of a batch")?.leaves();
            let next = parts.last().map(|part| part.sequence);
            *tablet = None;
            let mut written = Vec::new();
            for (row, value) in part {
                self.seen.insert((table, row.clone()), value);
                let operation = linear::Operation { called, answered: Some(now), action: Action::Write(value) };
                written.push(Observed { area, register: (table, row), operation, family: None });
            }
            let Some(next) = next else { return Ok(Answered::All(written)) };
            self.sequence = next;
            return Ok(Answered::Partly(written));
        }
        let (action, family) = match (&doing.kind, reply) {
            (Kind::Get, Reply::Row(row, schema, _)) => {
                if let Some((turn, balances)) = row.as_ref().and_then(ledger::balances) {
                    self.accounts.insert((table, doing.row.clone()), (turn, balances));
                }
                let seen = row.map(|row| cell_of(&row, &schema, area)).transpose()?;
                (Action::Read(seen.map(|(value, _)| value)), seen.map(|(_, family)| family))
            }
            (&Kind::Put(value), Reply::Written(Outcome::Applied { .. })) => (Action::Write(Some(value)), None),
            (Kind::Delete, Reply::Written(Outcome::Applied { .. })) => (Action::Write(None), None),
            (&Kind::Cput(expect, value), Reply::Written(Outcome::Applied { .. })) => {
                (Action::Swap(expect, Some(value)), None)
            }
            (&Kind::Transfer(expect, turn, balances), Reply::Written(Outcome::Applied { .. })) => {
                self.accounts.insert((table, doing.row.clone()), (turn, balances));
                (Action::Swap(expect, Some(turn)), None)
            }
            (Kind::Cput(..) | Kind::Transfer(..), Reply::Written(Outcome::Differs { present })) => {
                self.accounts.remove(&(table, doing.row.clone()));
                (Action::Read(present.map(|cell| parse(&cell.value))), None)
            }
            (kind, reply) => return Err(format!("{kind:?} is answered by {reply:?}")),
        };
        let value = match action {
            Action::Read(value) | Action::Write(value) | Action::Swap(_, value) => value,
        };
        self.seen.insert((table, doing.row.clone()), value);
        Ok(Answered::All(vec![observed(doing.row.clone(), action, family)]))
    }

    /// What a page says of every row that lies in it, also of those that it does not have.
    #[allow(clippy::type_complexity)]
    fn page(
        &self,
        doing: &Doing,
        rows: &[Row],
        resume: Option<&Bytes>,
        schema: &Schema,
    ) -> Result<Vec<(Bytes, Option<(u64, FamilyId)>)>, String> {
        let Kind::Scan { page, end, left, .. } = &doing.kind else { return Err("no scan".into()) };
        let (_, slice, start) = left.last().ok_or("no tablet is left")?;
        let (start, end) = (start_within(slice, start), end_within(slice, end.as_ref()));
        let asked = RowRange { start: start.clone(), end: end.clone() };
        let told = RowRange { start: start.clone(), end: resume.or(end.as_ref()).cloned() };
        if rows.len() > *page as usize || !rows.is_sorted_by(|a, b| a.key < b.key) {
            return Err(format!("a page of {page} has {rows:?}"));
        }
        if let Some(row) = rows.iter().find(|row| !asked.covers(&row.key) || !told.covers(&row.key)) {
            return Err(format!("{row:?} is not in {told:?} of {asked:?}"));
        }
        if resume.is_some_and(|resume| !asked.covers(resume)) {
            return Err(format!("a page of {rows:?} in {asked:?} goes on at {resume:?}"));
        }
        let mut found: BTreeMap<&Bytes, &Row> = rows.iter().map(|row| (&row.key, row)).collect();
        let mut said = Vec::new();
        for row in doing.area.neighbours() {
            if told.covers(row) && slice.covers(row) {
                let seen = found.remove(row).map(|row| cell_of(row, schema, doing.area)).transpose()?;
                said.push((row.clone(), seen));
            }
        }
        match found.into_values().next() {
            Some(row) => Err(format!("{row:?} was never written to {slice}")),
            None => Ok(said),
        }
    }

    /// A scan tells of each row once, whatever becomes of its tablets meanwhile; `ends`: so does this tablet's part.
    fn tell_once(&mut self, rows: impl Iterator<Item = Bytes>, ends: bool) -> Result<(), String> {
        let Some(doing) = &mut self.doing else { return Ok(()) };
        let (first, area) = (doing.row.clone(), doing.area);
        let Kind::Scan { end, left, told, .. } = &mut doing.kind else { return Ok(()) };
        for row in rows {
            if !told.insert(row.clone()) {
                return Err(format!("a scan tells of {row:?} twice"));
            }
        }
        let asked = RowRange { start: first, end: end.clone() };
        let passed = area.neighbours().iter().find(|row| asked.covers(row) && !told.contains(*row));
        match passed.filter(|_| ends && left.len() == 1) {
            Some(row) => Err(format!("a scan of {asked:?} has passed over {row:?}")),
            None => Ok(()),
        }
    }

    /// Goes on with the scan: the next page of the tablet, or the next tablet.
    fn turn_the_page(&mut self, now: u64, resume: Option<Bytes>, page: Vec<Observed>) -> Answered {
        let Some(Doing { called, tablet, kind: Kind::Scan { left, .. }, .. }) = &mut self.doing else {
            return Answered::All(page);
        };
        match (resume, left.last_mut()) {
            (Some(resume), Some((_, _, start))) => *start = resume,
            _ => drop(left.pop()),
        }
        let Some((next, ..)) = left.last() else { return Answered::All(page) };
        (*tablet, *called) = (Some(*next), now);
        // Late answers to the last page are not those to this one.
        self.sequence += 1;
        Answered::Partly(page)
    }

    /// What an operation that is given up may have done, if anything.
    pub fn give_up(&mut self) -> Vec<Observed> {
        let Some(Doing { area, row, kind, called, table: Some(table), .. }) = self.doing.take() else {
            return Vec::new();
        };
        let actions = match kind {
            Kind::Get | Kind::Eventual(_) | Kind::Scan { .. } => return Vec::new(),
            Kind::Put(value) => vec![(row, Action::Write(Some(value)))],
            Kind::Delete => vec![(row, Action::Write(None))],
            Kind::Cput(expect, value) | Kind::Transfer(expect, value, _) => {
                vec![(row, Action::Swap(expect, Some(value)))]
            }
            Kind::Batch(parts, _) => {
                let left = parts.into_iter().flat_map(Part::leaves);
                left.map(|(row, value)| (row, Action::Write(value))).collect()
            }
        };
        let observed = |(row, action)| {
            let operation = linear::Operation { called, answered: None, action };
            Observed { area, register: (table, row), operation, family: None }
        };
        actions.into_iter().map(observed).collect()
    }
}

/// Where a scan begins in this part of the table: an heir of two tablets has rows before it.
fn start_within(slice: &Slice, start: &Bytes) -> Bytes {
    match slice {
        Slice::Rows { start: first, .. } => start.max(first).clone(),
        Slice::Hash { .. } => start.clone(),
    }
}

/// Where a scan ends in this part of the table.
fn end_within(slice: &Slice, end: Option<&Bytes>) -> Option<Bytes> {
    let last = if let Slice::Rows { end, .. } = slice { end.as_ref() } else { None };
    last.into_iter().chain(end).min().cloned()
}

/// The only cell of a row in which only one was asked for: its value, and the number of its family.
fn cell_of(row: &Row, schema: &Schema, area: Area) -> Result<(u64, FamilyId), String> {
    if ledger::is_bank(&row.key) {
        ledger::check_total(row)?;
    }
    match ledger::register(row) {
        [cell] if schema.family(area.family()).is_some_and(|family| family.id == cell.family) => {
            Ok((parse(&cell.value), cell.family))
        }
        _ => Err(format!("asked for {:?}, and got {row:?} by {schema:?}", area.family())),
    }
}

/// For the answer to the client's attempt.
pub(super) fn ticket(client: usize, sequence: u64) -> Ticket {
    Ticket((client as u64) << 48 | sequence)
}

pub(super) fn client_of(ticket: Ticket) -> (usize, u64) {
    ((ticket.0 >> 48) as usize, ticket.0 & 0xffff_ffff_ffff)
}

/// Values have some weight, so that memtables fill.
fn padded(value: u64) -> [u8; 120] {
    let mut bytes = [7; 120];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// The number that a value holds.
pub(super) fn parse(bytes: &[u8]) -> u64 {
    bytes.get(..8).and_then(|first| first.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
}
