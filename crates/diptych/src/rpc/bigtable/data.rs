//! `google.bigtable.v2.Bigtable`: rows.
//!
//! A decision that needs the row (a predicate, an increment, a deletion of a time range) is made here of what was read, and
//! written only if the row is still the same: the primary judges that. Requests of this process for the same row wait for
//! each other, so that they need not be repeated.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bigtable::chunks::{Cell, Chunker, Cutting};
use bigtable::data::{
    CheckAndMutateRowResponse, GenerateInitialChangeStreamPartitionsRequest,
    GenerateInitialChangeStreamPartitionsResponse, MutateRowResponse, MutateRowsResponse, PingAndWarmRequest,
    PingAndWarmResponse, ReadChangeStreamRequest, ReadChangeStreamResponse, ReadIterationStats,
    ReadModifyWriteRowRequest, ReadModifyWriteRowResponse, ReadRowsResponse, SampleRowKeysResponse,
    mutate_rows_response,
};
use bigtable::names::{Instance, Table};
use bigtable::newer::{
    CheckAndMutateRowRequest, MutateRowRequest, MutateRowsRequest, ReadRowsRequest, SampleRowKeysRequest,
};
use bigtable::services::bigtable_server::Bigtable;
use bigtable::views::Lens;
use bigtable::writes::Step;
use bigtable::{Problem, filters, modify, rows, rpc, writes};
use bytes::Bytes;
use client::{NamedCell, Written};
use futures_util::{Stream, StreamExt, stream};
use model::{
    Change, ColumnFilter, Condition, Fingerprint, Mutation, ReadOptions, Refusal, RowChanges, RowRange, Schema, Slice,
    limits,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::changes;
use super::locks::RowLocks;
use super::profiles::Profiles;
use super::reading::{Features, Reading};
use super::views::Views;
use super::{Tables, no_family, now, status_of};
use crate::rpc::meter::Meter;

/// What is served.
pub const METHODS: &[&str] = &[
    "ReadRows",
    "SampleRowKeys",
    "MutateRow",
    "MutateRows",
    "CheckAndMutateRow",
    "PingAndWarm",
    "ReadModifyWriteRow",
    "GenerateInitialChangeStreamPartitions",
    "ReadChangeStream",
];
/// `RequestStatsView.REQUEST_STATS_FULL`.
const STATS_FULL: i32 = 2;
/// Messages that wait for a slow reader.
const AHEAD: usize = 2;
/// How often a row may change between a look at it and the write, before its writer gives up.
const ATTEMPTS: usize = 100;

/// Entries of a request that need a look at their rows, and are written beside each other.
const ALONE: usize = 64;

type Results<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct Data {
    tables: Tables,
    profiles: Profiles,
    views: Views,
    rows: Arc<RowLocks>,
    meters: Arc<Meters>,
}

struct Meters {
    read_rows: Meter,
    sample: Meter,
    mutate_row: Meter,
    mutate_rows: Meter,
    check: Meter,
    modify: Meter,
    partitions: Meter,
    changes: Meter,
}

impl Data {
    /// Of these tables.
    pub fn new(tables: Tables, profiles: Profiles, views: Views) -> Data {
        let meter = |method| Meter::new("google.bigtable.v2.Bigtable", method);
        let meters = Meters {
            read_rows: meter("ReadRows"),
            sample: meter("SampleRowKeys"),
            mutate_row: meter("MutateRow"),
            mutate_rows: meter("MutateRows"),
            check: meter("CheckAndMutateRow"),
            modify: meter("ReadModifyWriteRow"),
            partitions: meter("GenerateInitialChangeStreamPartitions"),
            changes: meter("ReadChangeStream"),
        };
        Data { tables, profiles, views, rows: Arc::default(), meters: Arc::new(meters) }
    }

    /// The table that a request is about, and what of it is seen; by a profile that there is, which may let no transaction through.
    async fn target(
        &self,
        table_name: &str,
        view_name: &str,
        profile: &str,
        transaction: bool,
    ) -> Result<(Table, Option<Lens>), Status> {
        let (table, lens) = self.views.target(table_name, view_name).await?;
        self.profiles.check(&table.instance, profile, transaction).await?;
        Ok((table, lens))
    }

    /// Writes changes of a row; false if the condition does not hold.
    async fn write(
        &self,
        table: &Table,
        row: Bytes,
        condition: Option<Condition<String>>,
        changes: Vec<Change<String>>,
    ) -> Result<bool, Status> {
        let mutation = Mutation { row: row.clone(), condition, changes };
        match self.tables.client().mutate(&table.native(), mutation).await {
            Ok(Written::Applied { .. }) => Ok(true),
            Ok(Written::Differs { .. }) => Ok(false),
            Err(error) => match error.refusal() {
                Some(Refusal::NoSuchFamily { .. }) => {
                    self.tables.forget(table);
                    Err(no_family(table, &row))
                }
                _ => Err(self.tables.status(table, &error)),
            },
        }
    }

    /// Reads the row's cells of these columns, decides what to write, and writes it if they are still the same; else again.
    async fn decide<T>(
        &self,
        table: &Table,
        row: &Bytes,
        columns: Vec<ColumnFilter<String>>,
        versions: u32,
        mut decision: impl FnMut(Vec<Cell>) -> Result<(Vec<Change<String>>, T), Status>,
    ) -> Result<T, Status> {
        let lock = self.rows.lock(table, row);
        let _locked = lock.lock().await;
        for _ in 0..ATTEMPTS {
            let options = ReadOptions { columns: columns.clone(), versions, ..ReadOptions::default() };
            let found = self.tables.client().get(&table.native(), row.clone(), options).await;
            let found = found.map_err(|error| self.tables.status(table, &error))?;
            let cells = found.map(|row| row.cells).unwrap_or_default();
            let named =
                cells.iter().map(|cell| (&cell.family[..], &cell.qualifier[..], cell.timestamp, &cell.value[..]));
            let fingerprint = Fingerprint::of(named);
            let (changes, answer) = decision(cells.into_iter().map(to_cell).collect())?;
            if changes.is_empty() {
                return Ok(answer);
            }
            let condition = Condition::Unchanged { columns: columns.clone(), versions, fingerprint };
            if self.write(table, row.clone(), Some(condition), changes).await? {
                return Ok(answer);
            }
        }
        let what = format!("row {} of {} changes too often", row.escape_ascii(), table.path());
        Err(Status::unavailable(what))
    }

    /// Writes the steps of a mutation.
    async fn mutate(&self, table: &Table, schema: &Schema, row: Bytes, steps: Vec<Step>) -> Result<(), Status> {
        if let Some(changes) = writes::plain(&steps) {
            return self.write(table, row, None, changes).await.map(|_| ());
        }
        let decision = |cells: Vec<Cell>| Ok((writes::resolve(&steps, &cells, schema).map_err(status_of)?, ()));
        self.decide(table, &row, writes::columns(&steps), u32::MAX, decision).await
    }

    async fn read_rows(&self, request: Request<ReadRowsRequest>) -> Result<Results<ReadRowsResponse>, Status> {
        let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let cutting = Cutting::of_client(header("x-goog-api-client"));
        let features = Features::of_header(header("bigtable-features"));
        let request = request.into_inner();
        let names = [&request.table_name, &request.authorized_view_name, &request.materialized_view_name];
        if names.iter().filter(|name| !name.is_empty()).count() != 1 {
            return Err(Status::invalid_argument(
                "exactly one of table_name, authorized_view_name and materialized_view_name is given",
            ));
        }
        no_view(&request.materialized_view_name)?;
        let profile = &request.app_profile_id;
        let (table, lens) = self.target(&request.table_name, &request.authorized_view_name, profile, false).await?;
        self.tables.schema(&table).await?;
        let filter = filters::compile(request.filter.as_ref()).map_err(status_of)?;
        let family = filter.needs().column.family.clone();
        let schema = self.tables.with_families(&table, family.as_deref().into_iter()).await?;
        let ranges = rows::ranges(request.rows.as_ref()).map_err(status_of)?;
        let limit = match u64::try_from(request.rows_limit) {
            Ok(0) => u64::MAX,
            Ok(limit) => limit,
            Err(_) => return Err(Status::invalid_argument("Error in field 'rows_limit' : it is negative")),
        };
        if !(0..=STATS_FULL).contains(&request.request_stats_view) {
            return Err(Status::invalid_argument("Error in field 'request_stats_view' : there is no such view"));
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reading = Reading {
            client: self.tables.client(),
            tables: self.tables.clone(),
            table,
            schema,
            filter,
            lens,
            ranges,
            reversed: request.reversed,
            limit,
            stats: (request.request_stats_view == STATS_FULL).then(|| (Instant::now(), ReadIterationStats::default())),
            tells_progress: features.last_scanned_row_responses,
            chunker: Chunker::new(cutting),
            sender,
        };
        tokio::spawn(reading.run());
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn sample(&self, request: SampleRowKeysRequest) -> Result<Results<SampleRowKeysResponse>, Status> {
        no_view(&request.materialized_view_name)?;
        let profile = &request.app_profile_id;
        let (table, lens) = self.target(&request.table_name, &request.authorized_view_name, profile, false).await?;
        self.tables.schema(&table).await?;
        let native = table.native();
        // How large tablets are, the process may know; of which table, those who have to do with it.
        let (client, gateway) = (self.tables.client(), &self.tables.gateway);
        let (map, status) = tokio::try_join!(client.map(), gateway.ask_of_itself(model::AdminRequest::Status))
            .map_err(|error| self.tables.status(&table, &error))?;
        let model::AdminReply::Status(status) = status else {
            return Err(Status::unavailable("the master answered something else"));
        };
        let bytes_of = |tablet| {
            let its = status.tablets.iter().filter(|it| it.assignment.tablet.id == tablet);
            its.flat_map(|it| &it.replicas).map(|(_, replica)| replica.bytes).max().unwrap_or(0)
        };
        let tablets = map.tablets.iter().filter(|assignment| assignment.schema.name == native);
        let mut ends = Vec::new();
        for assignment in tablets {
            let bytes = i64::try_from(bytes_of(assignment.tablet.id)).unwrap_or(i64::MAX);
            match &assignment.tablet.slice {
                Slice::Rows { start, end } if hidden(&lens, start, end) => {}
                Slice::Rows { end, .. } => ends.push((end.clone(), bytes)),
                // Rows of such a table lie everywhere: it has no borders.
                Slice::Hash { .. } => ends.push((None, bytes)),
            }
        }
        ends.sort_by(|(one, _), (other, _)| (one.is_none(), one).cmp(&(other.is_none(), other)));
        let range = request.row_range.map(|range| rows::range(&range).map_err(status_of)).transpose()?;
        let seen = |end: &Bytes| lens.as_ref().is_none_or(|lens| lens.has_row(end));
        let within = |end: &Option<Bytes>| match (&range, end) {
            (_, Some(end)) if !seen(end) => false,
            (Some(range), Some(end)) => *end > range.start && range.end.as_ref().is_none_or(|its| end < its),
            (Some(range), None) => range.end.is_none(),
            (None, _) => true,
        };
        let (mut offset, mut samples) = (0i64, Vec::new());
        for (at, (end, bytes)) in ends.iter().enumerate() {
            offset = offset.saturating_add(*bytes);
            if (end.is_some() || (lens.is_none() && at + 1 == ends.len())) && within(end) {
                samples
                    .push(Ok(SampleRowKeysResponse { row_key: end.clone().unwrap_or_default(), offset_bytes: offset }));
            }
        }
        // The end of the table is the last one of what is seen, too.
        if lens.is_some() && range.as_ref().is_none_or(|range| range.end.is_none()) {
            samples.push(Ok(SampleRowKeysResponse { row_key: Bytes::new(), offset_bytes: offset }));
        }
        // The end of what was asked about is the last one, as the end of the table is else.
        if let Some(end) = range.and_then(|range| range.end) {
            samples.push(Ok(SampleRowKeysResponse { row_key: end, offset_bytes: offset }));
        }
        Ok(Box::pin(stream::iter(samples)))
    }

    async fn mutate_row(&self, request: MutateRowRequest) -> Result<MutateRowResponse, Status> {
        let profile = &request.app_profile_id;
        let (table, lens) = self.target(&request.table_name, &request.authorized_view_name, profile, false).await?;
        let schema = self.tables.schema(&table).await?;
        writes::check_row_key(&request.row_key).map_err(status_of)?;
        let steps = writes::steps(&request.mutations, schema.settings.granularity, now()).map_err(status_of)?;
        check_seen(&lens, &request.row_key, &steps)?;
        let schema = self.tables.with_families(&table, writes::families(&steps)).await?;
        check_families(&table, &schema, &request.row_key, &steps)?;
        self.mutate(&table, &schema, request.row_key, steps).await.map(|()| MutateRowResponse::default())
    }

    async fn mutate_rows(&self, request: MutateRowsRequest) -> Result<Results<MutateRowsResponse>, Status> {
        let profile = &request.app_profile_id;
        let (table, lens) = self.target(&request.table_name, &request.authorized_view_name, profile, false).await?;
        let granularity = self.tables.schema(&table).await?.settings.granularity;
        let mutations: usize = request.entries.iter().map(|entry| entry.mutations.len()).sum();
        if request.entries.is_empty() || mutations > limits::CHANGES {
            let what = format!("{} entries with {mutations} mutations", request.entries.len());
            let limits = format!("give at least one entry, and no more than {} mutations", limits::CHANGES);
            return Err(Status::invalid_argument(format!("Error in field 'entries' : {what}; {limits}")));
        }
        // All are checked before any takes effect.
        let now = now();
        let mut entries = Vec::with_capacity(request.entries.len());
        for (at, entry) in request.entries.into_iter().enumerate() {
            let within = |problem: Problem| {
                let message = format!("Error in field 'entries' : Error in element #{at} : {}", problem.message);
                status_of(Problem { message, ..problem })
            };
            writes::check_row_key(&entry.row_key).map_err(within)?;
            entries.push((entry.row_key, writes::steps(&entry.mutations, granularity, now).map_err(within)?));
        }
        let families = entries.iter().flat_map(|(_, steps)| writes::families(steps));
        let schema = self.tables.with_families(&table, families).await?;
        let mut answers: Vec<Option<Status>> = vec![None; entries.len()];
        let (mut together, mut places, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        // One row that may not be written would keep those that go with it from being written.
        let rights = self.tables.gateway.access().present().rights();
        let check = |changes: &[Change<String>]| {
            rights.as_ref().map_or(Ok(()), |rights| rights.check_changes(&schema.name, changes))
        };
        for (at, (row, steps)) in entries.into_iter().enumerate() {
            let checked = check_seen(&lens, &row, &steps).and_then(|()| check_families(&table, &schema, &row, &steps));
            if let Err(status) = checked {
                answers[at] = Some(status);
                continue;
            }
            match writes::plain(&steps) {
                Some(changes) => {
                    if let Err(refusal) = check(&changes) {
                        answers[at] = Some(self.tables.status(&table, &refusal.into()));
                        continue;
                    }
                    together.push(RowChanges { row, changes });
                    places.push(at);
                }
                None => alone.push((at, row, steps)),
            }
        }
        if !together.is_empty() {
            let written = self.tables.client().mutate_many(&table.native(), together).await;
            for (at, result) in places.into_iter().zip(written.each()) {
                answers[at] = result.err().map(|error| self.tables.status(&table, &error));
            }
        }
        let alone = alone.into_iter().map(|(at, row, steps)| {
            let written = self.mutate(&table, &schema, row, steps);
            async move { (at, written.await.err()) }
        });
        let mut alone = stream::iter(alone).buffer_unordered(ALONE);
        while let Some((at, answer)) = alone.next().await {
            answers[at] = answer;
        }
        drop(alone);
        let entry = |(index, status): (usize, Option<Status>)| {
            let (code, message) = status.map_or((0, String::new()), |it| (it.code() as i32, it.message().to_owned()));
            let status = Some(rpc::Status { code, message, ..Default::default() });
            mutate_rows_response::Entry { index: index as i64, status }
        };
        let entries = answers.into_iter().enumerate().map(entry).collect();
        Ok(Box::pin(stream::iter([Ok(MutateRowsResponse { entries, rate_limit_info: None })])))
    }

    async fn check_and_mutate(&self, request: CheckAndMutateRowRequest) -> Result<CheckAndMutateRowResponse, Status> {
        let profile = &request.app_profile_id;
        let (table, lens) = self.target(&request.table_name, &request.authorized_view_name, profile, true).await?;
        let granularity = self.tables.schema(&table).await?.settings.granularity;
        let row = request.row_key;
        writes::check_row_key(&row).map_err(status_of)?;
        if request.true_mutations.is_empty() && request.false_mutations.is_empty() {
            return Err(Status::invalid_argument("No mutations provided"));
        }
        let now = now();
        let steps = |mutations: &[_]| match mutations {
            [] => Ok(Vec::new()),
            mutations => writes::steps(mutations, granularity, now).map_err(status_of),
        };
        let (then, otherwise) = (steps(&request.true_mutations)?, steps(&request.false_mutations)?);
        let filter = filters::compile(request.predicate_filter.as_ref()).map_err(status_of)?;
        check_seen(&lens, &row, &then)?;
        check_seen(&lens, &row, &otherwise)?;
        let families = writes::families(&then).chain(writes::families(&otherwise));
        let schema = self.tables.with_families(&table, families).await?;
        check_families(&table, &schema, &row, &then)?;
        check_families(&table, &schema, &row, &otherwise)?;
        let predicate_matched = self
            .decide(&table, &row, Vec::new(), u32::MAX, |cells| {
                let cells = match &lens {
                    Some(lens) => lens.cells(&row, cells),
                    None => cells,
                };
                let matched = !filters::through(&filter, &row, &cells, &draw).is_empty();
                let steps = if matched { &then } else { &otherwise };
                Ok((writes::resolve(steps, &cells, &schema).map_err(status_of)?, matched))
            })
            .await?;
        Ok(CheckAndMutateRowResponse { predicate_matched })
    }

    async fn read_modify_write(
        &self,
        request: ReadModifyWriteRowRequest,
    ) -> Result<ReadModifyWriteRowResponse, Status> {
        let profile = &request.app_profile_id;
        let (table, lens) = self.target(&request.table_name, &request.authorized_view_name, profile, true).await?;
        self.tables.schema(&table).await?;
        let row = request.row_key;
        writes::check_row_key(&row).map_err(status_of)?;
        let columns = modify::columns(&request.rules).map_err(status_of)?;
        if let Some(lens) = &lens {
            let named = columns.iter().map(|(family, qualifier)| (family.as_str(), &qualifier[..]));
            lens.check_columns(&row, named).map_err(status_of)?;
        }
        let families = columns.iter().map(|(family, _)| family.as_str());
        let schema = self.tables.with_families(&table, families.clone()).await?;
        if families.clone().any(|family| schema.family(family).is_none()) {
            return Err(no_family(&table, &row));
        }
        modify::check_types(&columns, &schema).map_err(status_of)?;
        let granularity = schema.settings.granularity;
        let wanted =
            columns.iter().cloned().map(|(family, qualifier)| ColumnFilter { family, qualifier: Some(qualifier) });
        let cells = self
            .decide(&table, &row, wanted.collect(), 1, |cells| {
                modify::apply(&request.rules, cells, granularity, now()).map_err(status_of)
            })
            .await?;
        let mut families: Vec<bigtable::data::Family> = Vec::new();
        for cell in cells {
            if families.last().is_none_or(|family| family.name != cell.family) {
                families.push(bigtable::data::Family { name: cell.family.clone(), columns: Vec::new() });
            }
            let (timestamp_micros, value) = (cell.timestamp, cell.value);
            let cells = vec![bigtable::data::Cell { timestamp_micros, value, labels: Vec::new() }];
            let column = bigtable::data::Column { qualifier: cell.qualifier, cells };
            families.last_mut().into_iter().for_each(|family| family.columns.push(column.clone()));
        }
        Ok(ReadModifyWriteRowResponse { row: Some(bigtable::data::Row { key: row, families }) })
    }
}

#[tonic::async_trait]
impl Bigtable for Data {
    type ReadRowsStream = Results<ReadRowsResponse>;
    type SampleRowKeysStream = Results<SampleRowKeysResponse>;
    type MutateRowsStream = Results<MutateRowsResponse>;
    type GenerateInitialChangeStreamPartitionsStream = Results<GenerateInitialChangeStreamPartitionsResponse>;
    type ReadChangeStreamStream = Results<ReadChangeStreamResponse>;

    async fn generate_initial_change_stream_partitions(
        &self,
        request: Request<GenerateInitialChangeStreamPartitionsRequest>,
    ) -> Result<Response<Self::GenerateInitialChangeStreamPartitionsStream>, Status> {
        let answering = changes::partitions(&self.tables, &request.get_ref().table_name);
        let partitions = self.meters.partitions.measure(answering).await?;
        Ok(Response::new(Box::pin(stream::iter(partitions.into_iter().map(Ok)))))
    }

    async fn read_change_stream(
        &self,
        request: Request<ReadChangeStreamRequest>,
    ) -> Result<Response<Self::ReadChangeStreamStream>, Status> {
        let answering = changes::read(&self.tables, request.into_inner());
        let records = self.meters.changes.measure(answering).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(records))))
    }

    async fn read_rows(&self, request: Request<ReadRowsRequest>) -> Result<Response<Self::ReadRowsStream>, Status> {
        self.meters.read_rows.measure(Data::read_rows(self, request)).await.map(Response::new)
    }

    async fn sample_row_keys(
        &self,
        request: Request<SampleRowKeysRequest>,
    ) -> Result<Response<Self::SampleRowKeysStream>, Status> {
        self.meters.sample.measure(self.sample(request.into_inner())).await.map(Response::new)
    }

    async fn mutate_row(&self, request: Request<MutateRowRequest>) -> Result<Response<MutateRowResponse>, Status> {
        self.meters.mutate_row.measure(Data::mutate_row(self, request.into_inner())).await.map(Response::new)
    }

    async fn mutate_rows(
        &self,
        request: Request<MutateRowsRequest>,
    ) -> Result<Response<Self::MutateRowsStream>, Status> {
        self.meters.mutate_rows.measure(Data::mutate_rows(self, request.into_inner())).await.map(Response::new)
    }

    async fn check_and_mutate_row(
        &self,
        request: Request<CheckAndMutateRowRequest>,
    ) -> Result<Response<CheckAndMutateRowResponse>, Status> {
        self.meters.check.measure(self.check_and_mutate(request.into_inner())).await.map(Response::new)
    }

    async fn ping_and_warm(
        &self,
        request: Request<PingAndWarmRequest>,
    ) -> Result<Response<PingAndWarmResponse>, Status> {
        let request = request.into_inner();
        let instance = Instance::parse("name", &request.name).map_err(status_of)?;
        self.profiles.check(&instance, &request.app_profile_id, false).await?;
        Ok(Response::new(PingAndWarmResponse {}))
    }

    async fn read_modify_write_row(
        &self,
        request: Request<ReadModifyWriteRowRequest>,
    ) -> Result<Response<ReadModifyWriteRowResponse>, Status> {
        self.meters.modify.measure(self.read_modify_write(request.into_inner())).await.map(Response::new)
    }
}

/// Nothing is changed that is not seen.
fn check_seen(lens: &Option<Lens>, row: &[u8], steps: &[Step]) -> Result<(), Status> {
    match lens {
        Some(lens) => lens.check_steps(row, steps).map_err(status_of),
        None => Ok(()),
    }
}

/// Is nothing of a tablet with these rows seen?
fn hidden(lens: &Option<Lens>, start: &Bytes, end: &Option<Bytes>) -> bool {
    let rows = RowRange { start: start.clone(), end: end.clone() };
    lens.as_ref().is_some_and(|lens| lens.ranges(vec![rows]).is_empty())
}

/// All families of the steps are there, and what is added to is of the type for it.
fn check_families(table: &Table, schema: &Schema, row: &[u8], steps: &[Step]) -> Result<(), Status> {
    match writes::families(steps).all(|family| schema.family(family).is_some()) {
        true => writes::check_types(steps, schema).map_err(status_of),
        false => Err(no_family(table, row)),
    }
}

/// A cell in this API's words.
pub fn to_cell(NamedCell { family, qualifier, timestamp, value }: NamedCell) -> Cell {
    Cell { family, qualifier, timestamp: timestamp.0, value, label: None }
}

fn no_view(name: &str) -> Result<(), Status> {
    match name {
        "" => Ok(()),
        _ => Err(Status::unimplemented("there are no materialized views; name a table or an authorized view")),
    }
}

/// A number by chance: std's hashers are seeded so.
pub fn draw() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
