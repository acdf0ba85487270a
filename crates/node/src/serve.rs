//! Requests: what is wrong with them, who should have got them, and what they become.

use bytes::Bytes;
use model::request::{Request, Role};
use model::{
    Batch, Change, ColumnFilter, Command, Condition, FamilyId, Freshness, Instant, Mutation, Operation, Outcome,
    Payload, ReadOptions, Refusal, Reply, RequestId, RowChanges, RowRange, Schema, Slice, TabletId, Ticket, Timestamp,
    limits,
};
use protocol::Mutant;
use protocol::replica::Input as GroupInput;
use std::sync::Arc;

use crate::api::Effect;
use crate::changes::check_kept;
use crate::completions::{Completion, Seen};
use crate::confine::confine;
use crate::eventual::Eventual;
use crate::hosted::{Hosted, stale};
use crate::lanes::{MOST_BATCHES, Turn, Write};
use crate::machine::{Node, Reading};
use crate::read::{Found, Read, What};

/// Bytes of writes of one tablet that may wait for their commit.
const MOST_WAITING: usize = 64 << 20;
/// Reads that may be under way.
pub(crate) const MOST_READS: usize = 10_000;
/// Rows on a page, whatever the client wishes.
const MOST_ROWS: u32 = 10_000;

impl Node {
    pub(crate) fn on_request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        wall: Timestamp,
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        let (tablet, epoch) = (request.tablet, request.epoch);
        let Some(hosted) = self.hosted.get(&tablet) else {
            out.push(Effect::Refuse(ticket, Refusal::NoSuchTablet(tablet)));
            return;
        };
        if hosted.schema.settings.dropped.is_some() {
            out.push(Effect::Refuse(ticket, Refusal::NoSuchTablet(tablet)));
            return;
        }
        if let Some(refusal) = self.moved(tablet) {
            out.push(Effect::Refuse(ticket, refusal));
            return;
        }
        let mut request = request;
        if let Some(rights) = &request.by {
            match confine(&hosted.schema, rights, request.operation) {
                Ok(operation) => request.operation = operation,
                Err(refusal) => {
                    out.push(Effect::Refuse(ticket, refusal));
                    return;
                }
            }
        }
        if let Some(read) = Eventual::of(&request.operation) {
            self.ask_master |= epoch > hosted.replica.epoch();
            self.note_load(now, tablet, &request.operation);
            if let Err(refusal) = self.read_eventually(now, ticket, tablet, wall, read, out) {
                out.push(Effect::Refuse(ticket, refusal));
            }
            return;
        }
        if epoch > hosted.replica.epoch() {
            self.ask_master = true;
            out.push(Effect::Refuse(ticket, Refusal::NotReady(tablet)));
            return;
        }
        if epoch < hosted.replica.epoch() {
            let current = hosted.replica.configuration().clone();
            out.push(Effect::Refuse(ticket, Refusal::WrongEpoch { tablet, current }));
            return;
        }
        let Some(request) = self.hold_back(now, ticket, wall, request, out) else { return };
        let operation = request.operation;
        self.note_load(now, tablet, &operation);
        let outcome = match operation {
            Operation::Write { request, mutation } => self.write(now, ticket, tablet, wall, request, mutation, out),
            Operation::WriteMany { request, part_of, rows } => {
                self.write_many(now, ticket, tablet, wall, Many { request, part_of, rows }, out)
            }
            Operation::Get { row, options } => {
                self.read(now, ticket, tablet, wall, options, out, |hosted| one_row(hosted, row))
            }
            Operation::GetMany { rows, options } => {
                self.read(now, ticket, tablet, wall, options, out, |hosted| many_rows(hosted, rows))
            }
            Operation::Scan { range, options, rows, reverse } => {
                self.read(now, ticket, tablet, wall, options, out, |hosted| Ok(page(hosted, &range, rows, reverse)))
            }
            Operation::Changes(query) => self.read_changes(now, ticket, tablet, wall, query, out),
        };
        if let Err(refusal) = outcome {
            out.push(Effect::Refuse(ticket, refusal));
        }
    }

    fn note_load(&mut self, now: Instant, tablet: TabletId, operation: &Operation) {
        // Whoever follows changes asks again and again, and no split would make that less.
        if matches!(operation, Operation::Changes(_)) {
            return;
        }
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        if hosted.load.is_idle(now) {
            self.reporting.stir(tablet);
        }
        match operation {
            Operation::Write { mutation: Mutation { row, .. }, .. } | Operation::Get { row, .. } => {
                hosted.load.note(now, row);
            }
            Operation::GetMany { rows, .. } => rows.iter().for_each(|row| hosted.load.note(now, row)),
            Operation::WriteMany { rows, .. } => rows.iter().for_each(|row| hosted.load.note(now, &row.row)),
            Operation::Scan { range, .. } => hosted.load.note(now, &within(&hosted.tablet.slice, range).start),
            Operation::Changes(_) => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn write(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        wall: Timestamp,
        request: RequestId,
        mutation: Mutation<String>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        limits::check_mutation(&mutation).map_err(Refusal::Invalid)?;
        self.check_disks(tablet)?;
        let hosted = self.hosted.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        if !hosted.slice().covers(&mutation.row) {
            return Err(Refusal::NoSuchTablet(tablet));
        }
        let mutation = resolve(&hosted.schema, mutation)?;
        check_kept(&hosted.schema, &mutation.changes)?;
        check_writable(now, hosted)?;
        let row = mutation.row.clone();
        hosted.lanes.push(Write { ticket, wall, request, mutation });
        self.advance_lane(now, tablet, &row, out);
        Ok(())
    }

    /// All rows become one entry, at once: no condition holds them back.
    fn write_many(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        wall: Timestamp,
        Many { request, part_of, rows }: Many,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        limits::check_batch(&rows).map_err(Refusal::Invalid)?;
        if part_of.len() > limits::BATCH_PARTS {
            let times = part_of.len();
            return Err(Refusal::Invalid(format!(
                "the batch was divided {times} times; the limit is {}",
                limits::BATCH_PARTS
            )));
        }
        self.check_disks(tablet)?;
        let hosted = self.hosted.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        if !rows.iter().all(|row| hosted.slice().covers(&row.row)) {
            return Err(Refusal::NoSuchTablet(tablet));
        }
        let rows = rows
            .into_iter()
            .map(|RowChanges { row, changes }| Ok(RowChanges { row, changes: resolve_all(&hosted.schema, changes)? }))
            .collect::<Result<Vec<RowChanges>, Refusal>>()?;
        rows.iter().try_for_each(|row| check_kept(&hosted.schema, &row.changes))?;
        check_writable(now, hosted)?;
        if hosted.lanes.batches() >= MOST_BATCHES {
            return Err(Refusal::Overloaded);
        }
        // What is done need not go through the log again: that it is shows in what is committed.
        if let Some(answer) = hosted.known_batch(request, &part_of) {
            out.push(Effect::answer(ticket, answer));
            return Ok(());
        }
        if !hosted.replica.mutant(Mutant::BatchUnawaited) {
            hosted.lanes.push_batch(request, rows.iter().map(|row| row.row.clone()).collect());
        }
        let version = hosted.next_version(wall);
        let batch = Payload::Batch(Batch { request, part_of, version, rows: hosted.with_records(rows, version) });
        let payload = postcard::to_allocvec(&batch).expect("plain values have a form in bytes");
        self.step_replica(now, tablet, GroupInput::Propose(ticket, Bytes::from(payload)), out);
        Ok(())
    }

    /// Lets the writes of a row go on as far as they can.
    pub(crate) fn advance_lane(&mut self, now: Instant, tablet: TabletId, row: &Bytes, out: &mut Vec<Effect>) {
        while let Some(hosted) = self.hosted.get_mut(&tablet) {
            match hosted.lanes.next(row) {
                Some(Turn::Log(write)) => self.log_write(now, tablet, write, true, out),
                Some(Turn::Judge(write, condition)) => {
                    if let Some(answer) = known(hosted.completions.find(write.request)) {
                        hosted.lanes.judged(row, false);
                        out.push(Effect::answer(write.ticket, answer));
                        continue;
                    }
                    let read = hosted.read_for(row.clone(), &condition, write.wall);
                    if read.touches_files() {
                        let (epoch, id) = (hosted.replica.epoch(), self.draw_id());
                        self.reads.insert(id, Reading::Condition { tablet, epoch, write });
                        out.push(Effect::Read(id, read));
                        return;
                    }
                    let found = read.run();
                    self.judge(now, tablet, write, found, out);
                }
                None => return,
            }
        }
    }

    /// Compares what a condition expects with what is there.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        tablet: TabletId,
        write: Write,
        found: Result<Found, store::Error>,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let Some(write) = hosted.lanes.looked_at(write) else { return };
        let row = write.mutation.row.clone();
        let cells = match found {
            Ok(Found::Row(row)) => row.map(|row| row.cells).unwrap_or_default(),
            Ok(Found::Many(_) | Found::Rows(..) | Found::Middle(_) | Found::Changes(_)) => Vec::new(),
            Err(error) => {
                hosted.lanes.judged(&row, false);
                out.push(Effect::Refuse(write.ticket, self.refusal_of(tablet, &error)));
                return;
            }
        };
        let judged = write.mutation.condition.as_ref().map(|condition| hosted.judge(condition, cells));
        let (holds, present) = judged.unwrap_or((true, None));
        hosted.lanes.judged(&row, true);
        hosted.present.insert(write.ticket, present);
        self.log_write(now, tablet, write, holds, out);
    }

    /// `holds`: its condition, if it has one, is fulfilled.
    fn log_write(&mut self, now: Instant, tablet: TabletId, write: Write, holds: bool, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let Write { ticket, wall, request, mutation } = write;
        let version = hosted.next_version(wall);
        let changes = holds.then(|| hosted.with_record(mutation.changes, version, 0));
        let command = Payload::Write(Command { request, version, row: mutation.row, changes });
        let payload = postcard::to_allocvec(&command).expect("plain values have a form in bytes");
        self.step_replica(now, tablet, GroupInput::Propose(ticket, Bytes::from(payload)), out);
    }

    /// A write needs room on the disk of every member.
    pub(crate) fn check_disks(&self, tablet: TabletId) -> Result<(), Refusal> {
        if self.disk_full() {
            return Err(Refusal::DiskFull(self.options.id));
        }
        if self.full_peers.is_empty() {
            return Ok(());
        }
        let hosted = self.hosted.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        match hosted.replica.configuration().members().find(|member| self.full_peers.contains(member)) {
            Some(full) => Err(Refusal::DiskFull(full)),
            None => Ok(()),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn read(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        wall: Timestamp,
        options: ReadOptions<String>,
        out: &mut Vec<Effect>,
        what: impl FnOnce(&Hosted) -> Result<What, Refusal>,
    ) -> Result<(), Refusal> {
        let hosted = self.hosted.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        let what = what(hosted)?;
        let options = resolve_options(&hosted.schema, options)?;
        let epoch = hosted.replica.epoch();
        if (!hosted.replica.may_read(now) && !self.may_read(tablet, now)) || hosted.is_doubtful() {
            return Err(match hosted.replica.role() {
                Role::Primary => Refusal::NotReady(tablet),
                _ => Refusal::WrongEpoch { tablet, current: hosted.replica.configuration().clone() },
            });
        }
        if self.reads.len() >= MOST_READS {
            return Err(Refusal::Overloaded);
        }
        let schema = Arc::clone(&hosted.schema);
        let read = Read { view: hosted.rows.view(), schema: Arc::clone(&schema), now: wall, options, what };
        let id = self.draw_id();
        self.reads.insert(id, Reading::Request { ticket, tablet, epoch, schema });
        out.push(Effect::Read(id, read));
        Ok(())
    }

    /// The read rule: the committed state was read first; only now is the lease looked at (PacificA, 2.3).
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn answer_read(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        epoch: model::Epoch,
        schema: Arc<Schema>,
        found: Result<Found, store::Error>,
        out: &mut Vec<Effect>,
    ) {
        let hosted = self.hosted.get(&tablet);
        let may = |hosted: &Hosted| self.may_read(tablet, now) && !hosted.is_doubtful();
        let leased = hosted.filter(|hosted| hosted.replica.epoch() == epoch && may(hosted));
        if let Some(refusal) = self.moved(tablet) {
            out.push(Effect::Refuse(ticket, refusal));
            return;
        }
        if leased.is_none() {
            out.push(Effect::Refuse(ticket, Refusal::NotReady(tablet)));
            return;
        }
        let answer = found_to_effect(ticket, found, schema, None).map_err(|error| self.refusal_of(tablet, &error));
        out.push(answer.unwrap_or_else(|refusal| Effect::Refuse(ticket, refusal)));
    }
}

/// What is asked for by [`Operation::WriteMany`].
struct Many {
    request: RequestId,
    part_of: Vec<u64>,
    rows: Vec<RowChanges<String>>,
}

/// May something be written now?
fn check_writable(now: Instant, hosted: &Hosted) -> Result<(), Refusal> {
    let (have, need) = (hosted.replica.configuration().size(), usize::from(hosted.schema.min_replicas));
    if have < need && hosted.replica.may_write(now) {
        return Err(Refusal::TooFewReplicas { have: have as u32, need: need as u32 });
    }
    if hosted.replica.uncommitted_bytes() > MOST_WAITING {
        return Err(Refusal::Overloaded);
    }
    if !hosted.may_write(now) {
        return Err(match hosted.replica.role() {
            Role::Primary => Refusal::NotReady(hosted.id()),
            _ => Refusal::WrongEpoch { tablet: hosted.id(), current: hosted.replica.configuration().clone() },
        });
    }
    Ok(())
}

/// The answer to a conditional write that was carried out before, applied: its condition need not hold any more. One
/// that differed is judged again, only to see by what.
fn known(seen: Seen) -> Option<Result<Reply, Refusal>> {
    match seen {
        Seen::Done(Completion::Applied(version)) => Some(Ok(Reply::Written(Outcome::Applied { version }))),
        Seen::Stale => Some(Err(stale())),
        Seen::Never | Seen::Done(Completion::Differed) => None,
    }
}

/// The answer to a read.
pub(crate) fn found_to_effect(
    ticket: Ticket,
    found: Result<Found, store::Error>,
    schema: Arc<Schema>,
    from: Option<Freshness>,
) -> Result<Effect, store::Error> {
    Ok(match found? {
        Found::Row(row) => Effect::Reply(ticket, Reply::Row(row, schema, from)),
        Found::Many(rows) => Effect::Reply(ticket, Reply::Many(rows, schema, from)),
        Found::Rows(rows, resume) => Effect::Reply(ticket, Reply::Rows { rows, resume, schema, from }),
        Found::Changes(Ok(page)) => Effect::Reply(ticket, Reply::Changes(page, schema)),
        Found::Changes(Err(what)) => Effect::Refuse(ticket, Refusal::Corrupt(what)),
        // Nobody outside asks for it.
        Found::Middle(_) => Effect::Reply(ticket, Reply::Row(None, schema, from)),
    })
}

pub(crate) fn one_row(hosted: &Hosted, row: Bytes) -> Result<What, Refusal> {
    match hosted.slice().covers(&row) {
        true => limits::check_row_key(&row).map(|()| What::Row(row)).map_err(Refusal::Invalid),
        false => Err(Refusal::NoSuchTablet(hosted.id())),
    }
}

pub(crate) fn many_rows(hosted: &Hosted, rows: Vec<Bytes>) -> Result<What, Refusal> {
    limits::check_row_keys(&rows).map_err(Refusal::Invalid)?;
    match rows.iter().all(|row| hosted.slice().covers(row)) {
        true => Ok(What::Many(rows)),
        false => Err(Refusal::NoSuchTablet(hosted.id())),
    }
}

pub(crate) fn page(hosted: &Hosted, range: &RowRange, rows: u32, reverse: bool) -> What {
    What::Rows { range: within(hosted.slice(), range), rows: rows.clamp(1, MOST_ROWS), reverse }
}

/// The part of the range that can lie in the slice.
pub(crate) fn within(slice: &Slice, range: &RowRange) -> RowRange {
    match slice {
        Slice::Hash { .. } => range.clone(),
        Slice::Rows { start, end } => range.intersect(&RowRange { start: start.clone(), end: end.clone() }),
    }
}

fn family(schema: &Schema, name: &str) -> Result<FamilyId, Refusal> {
    schema
        .family(name)
        .map(|family| family.id)
        .ok_or_else(|| Refusal::NoSuchFamily { family: name.to_owned(), have: schema.family_names() })
}

/// Families by id instead of by name.
fn resolve(schema: &Schema, mutation: Mutation<String>) -> Result<Mutation, Refusal> {
    let condition = match mutation.condition {
        None => None,
        Some(Condition::Newest { family: name, qualifier, expect }) => {
            Some(Condition::Newest { family: family(schema, &name)?, qualifier, expect })
        }
        Some(Condition::Unchanged { columns, versions, fingerprint }) => Some(Condition::Unchanged {
            columns: resolve_columns(schema, columns)?,
            versions: versions.max(1),
            fingerprint,
        }),
    };
    Ok(Mutation { row: mutation.row, condition, changes: resolve_all(schema, mutation.changes)? })
}

fn resolve_all(schema: &Schema, changes: Vec<Change<String>>) -> Result<Vec<Change>, Refusal> {
    changes.into_iter().map(|change| change.try_rename(|name| family(schema, &name))).collect()
}

fn resolve_columns(schema: &Schema, columns: Vec<ColumnFilter<String>>) -> Result<Vec<ColumnFilter>, Refusal> {
    let resolve = |column: ColumnFilter<String>| {
        Ok(ColumnFilter { family: family(schema, &column.family)?, qualifier: column.qualifier })
    };
    match columns.is_empty() {
        true => Ok(schema.visible_columns()),
        false => columns.into_iter().map(resolve).collect(),
    }
}

pub(crate) fn resolve_options(schema: &Schema, options: ReadOptions<String>) -> Result<ReadOptions, Refusal> {
    let columns = resolve_columns(schema, options.columns)?;
    let ReadOptions { consistency, since, before, .. } = options;
    Ok(ReadOptions { columns, versions: options.versions.max(1), consistency, since, before })
}
