//! Rows and operations: protobuf ↔ the model's words.
//!
//! A request becomes a [`Call`] or a [`Scan`], checked against every limit; an answer is an [`Answer`], the model's
//! `Reply` with families by name. Both sides use both directions, so reading and writing of a message stand together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{
    Cell, Change, ChangesPage, ColumnFilter, Condition, Consistency, Epoch, Fingerprint, Freshness, Lsn, Mutation,
    NodeId, Operation, Outcome, ReadOptions, Refusal, Reply, Request, RequestId, Rights, Row, RowChanges, RowRange,
    Schema, TabletId, Timestamp, limits,
};

use crate::v1::{self, change::Kind, pipeline_item, pipeline_result};

/// What is wrong with a message, in words for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl From<Invalid> for Refusal {
    fn from(Invalid(what): Invalid) -> Refusal {
        Refusal::Invalid(what)
    }
}

impl From<Invalid> for tonic::Status {
    fn from(invalid: Invalid) -> tonic::Status {
        crate::status::to_status(&invalid.into())
    }
}

pub(crate) fn missing(what: &str) -> Invalid {
    Invalid(format!("the message has no {what}"))
}

/// Where a request shall be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which tablet.
    pub tablet: TabletId,
    /// The configuration that the client knows.
    pub epoch: Epoch,
}

impl Route {
    /// The operation for the node that is asked, of whoever may do so much; `None` is everything.
    pub fn request(self, operation: Operation, by: Option<Arc<Rights>>) -> Request {
        Request { tablet: self.tablet, epoch: self.epoch, operation, by }
    }
}

impl From<Route> for v1::Route {
    fn from(route: Route) -> v1::Route {
        v1::Route { tablet: route.tablet.0, epoch: route.epoch.0 }
    }
}

impl From<v1::Route> for Route {
    fn from(route: v1::Route) -> Route {
        Route { tablet: TabletId(route.tablet), epoch: Epoch(route.epoch) }
    }
}

/// A request for one row, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Of which table.
    pub table: String,
    /// To be answered here or refused; `None` is to be routed.
    pub route: Option<Route>,
    /// `Write`, `WriteMany`, `Get` or `GetMany`. A write without a route may have no request id, which is then all zero.
    pub operation: Operation,
}

/// A request for rows, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Of which table.
    pub table: String,
    /// One page of one tablet; `None` is the whole table.
    pub route: Option<Route>,
    /// Which rows.
    pub range: RowRange,
    /// Which cells of them.
    pub options: ReadOptions<String>,
    /// At most so many rows; `None` is all.
    pub limit: Option<u64>,
    /// From the last row to the first.
    pub reverse: bool,
}

impl Scan {
    /// Rows on a page if the client has no wish.
    pub const PAGE: u32 = 1_000;

    /// As an operation on one tablet, which gives one page.
    pub fn into_page(self) -> Operation {
        let rows = self.limit.map_or(Scan::PAGE, |limit| u32::try_from(limit).unwrap_or(u32::MAX)).max(1);
        Operation::Scan { range: self.range, options: self.options, rows, reverse: self.reverse }
    }
}

/// Builds the message for a write; `request` is the same for every repetition.
pub fn mutate_request(
    table: &str,
    route: Option<Route>,
    request: RequestId,
    mutation: Mutation<String>,
) -> v1::MutateRequest {
    v1::MutateRequest {
        table: String::from(table),
        route: route.map(Into::into),
        request: Some(request_to_proto(request)),
        row: mutation.row,
        condition: mutation.condition.map(condition_to_proto).map(Box::new),
        changes: mutation.changes.into_iter().map(change_to_proto).collect(),
    }
}

fn condition_to_proto(condition: Condition<String>) -> v1::Condition {
    match condition {
        Condition::Newest { family, qualifier, expect } => v1::Condition { family, qualifier, expect, unchanged: None },
        Condition::Unchanged { columns, versions, fingerprint } => {
            let columns = columns.into_iter().map(column_to_proto).collect();
            let fingerprint = Bytes::copy_from_slice(&fingerprint.0);
            let unchanged = v1::condition::Unchanged { columns, versions, fingerprint };
            v1::Condition { unchanged: Some(unchanged), ..v1::Condition::default() }
        }
    }
}

fn condition_from_proto(condition: v1::Condition) -> Result<Condition<String>, Invalid> {
    let v1::Condition { family, qualifier, expect, unchanged } = condition;
    let Some(v1::condition::Unchanged { columns, versions, fingerprint }) = unchanged else {
        return Ok(Condition::Newest { family, qualifier, expect });
    };
    let Ok(fingerprint) = fingerprint[..].try_into() else {
        return Err(Invalid(format!("a fingerprint has {} bytes; expected 16", fingerprint.len())));
    };
    let columns = columns.into_iter().map(column_from_proto).collect();
    Ok(Condition::Unchanged { columns, versions, fingerprint: Fingerprint(fingerprint) })
}

/// Builds the message for a batch of rows of one tablet; without its route, which each attempt fills in.
pub fn mutate_many_request(
    table: &str,
    request: RequestId,
    part_of: Vec<u64>,
    rows: Vec<RowChanges<String>>,
) -> v1::MutateManyRequest {
    let row = |row: RowChanges<String>| v1::RowChanges {
        row: row.row,
        changes: row.changes.into_iter().map(change_to_proto).collect(),
    };
    v1::MutateManyRequest {
        table: String::from(table),
        route: None,
        request: Some(request_to_proto(request)),
        part_of,
        rows: rows.into_iter().map(row).collect(),
    }
}

/// Builds the message for the read of a row.
pub fn get_request(table: &str, route: Option<Route>, row: Bytes, options: ReadOptions<String>) -> v1::GetRequest {
    v1::GetRequest {
        table: String::from(table),
        route: route.map(Into::into),
        row,
        options: Some(options_to_proto(options)),
    }
}

/// Builds the message for the read of several rows.
pub fn get_many_request(
    table: &str,
    route: Option<Route>,
    rows: Vec<Bytes>,
    options: ReadOptions<String>,
) -> v1::GetManyRequest {
    v1::GetManyRequest {
        table: String::from(table),
        route: route.map(Into::into),
        rows,
        options: Some(options_to_proto(options)),
    }
}

impl From<Scan> for v1::ScanRequest {
    fn from(scan: Scan) -> v1::ScanRequest {
        v1::ScanRequest {
            table: scan.table,
            route: scan.route.map(Into::into),
            prefix: Bytes::new(),
            start: scan.range.start,
            end: scan.range.end,
            options: Some(options_to_proto(scan.options)),
            limit: scan.limit.unwrap_or(0),
            reverse: scan.reverse,
        }
    }
}

impl TryFrom<v1::MutateRequest> for Call {
    type Error = Invalid;

    fn try_from(message: v1::MutateRequest) -> Result<Call, Invalid> {
        let table = table_name(message.table)?;
        let route = message.route.map(Route::from);
        let request = request_from_proto(message.request, route)?;
        let condition = message.condition.map(|condition| condition_from_proto(*condition)).transpose()?;
        let changes = message.changes.into_iter().map(change_from_proto).collect::<Result<_, _>>()?;
        let mutation = Mutation { row: message.row, condition, changes };
        limits::check_mutation(&mutation).map_err(Invalid)?;
        Ok(Call { table, route, operation: Operation::Write { request, mutation } })
    }
}

impl TryFrom<v1::MutateManyRequest> for Call {
    type Error = Invalid;

    fn try_from(message: v1::MutateManyRequest) -> Result<Call, Invalid> {
        let table = table_name(message.table)?;
        let route = message.route.map(Route::from);
        let request = request_from_proto(message.request, route)?;
        let part_of = message.part_of;
        if route.is_none() && (request.sequence > 0 || !part_of.is_empty()) {
            let what = "rows of several tablets have no request id in common; leave it out, or say the route";
            return Err(Invalid(String::from(what)));
        }
        let row = |row: v1::RowChanges| {
            let changes = row.changes.into_iter().map(change_from_proto).collect::<Result<_, _>>()?;
            Ok(RowChanges { row: row.row, changes })
        };
        let rows = message.rows.into_iter().map(row).collect::<Result<Vec<_>, Invalid>>()?;
        let check = if route.is_some() { limits::check_batch } else { limits::check_rows };
        check(&rows).map_err(Invalid)?;
        Ok(Call { table, route, operation: Operation::WriteMany { request, part_of, rows } })
    }
}

impl TryFrom<v1::GetRequest> for Call {
    type Error = Invalid;

    fn try_from(message: v1::GetRequest) -> Result<Call, Invalid> {
        limits::check_row_key(&message.row).map_err(Invalid)?;
        let operation = Operation::Get { row: message.row, options: options_from_proto(message.options)? };
        Ok(Call { table: table_name(message.table)?, route: message.route.map(Route::from), operation })
    }
}

impl TryFrom<v1::GetManyRequest> for Call {
    type Error = Invalid;

    fn try_from(message: v1::GetManyRequest) -> Result<Call, Invalid> {
        limits::check_row_keys(&message.rows).map_err(Invalid)?;
        let operation = Operation::GetMany { rows: message.rows, options: options_from_proto(message.options)? };
        Ok(Call { table: table_name(message.table)?, route: message.route.map(Route::from), operation })
    }
}

impl TryFrom<v1::ScanRequest> for Scan {
    type Error = Invalid;

    fn try_from(message: v1::ScanRequest) -> Result<Scan, Invalid> {
        let wanted = RowRange { start: message.start, end: message.end };
        Ok(Scan {
            table: table_name(message.table)?,
            route: message.route.map(Route::from),
            range: RowRange::prefix(&message.prefix).intersect(&wanted),
            options: options_from_proto(message.options)?,
            limit: (message.limit > 0).then_some(message.limit),
            reverse: message.reverse,
        })
    }
}

impl TryFrom<Option<pipeline_item::Operation>> for Call {
    type Error = Invalid;

    fn try_from(operation: Option<pipeline_item::Operation>) -> Result<Call, Invalid> {
        match operation {
            Some(pipeline_item::Operation::Mutate(message)) => message.try_into(),
            Some(pipeline_item::Operation::Get(message)) => message.try_into(),
            Some(pipeline_item::Operation::MutateMany(message)) if message.route.is_none() => {
                Err(Invalid(String::from("many rows without a route are a call of their own: MutateMany")))
            }
            Some(pipeline_item::Operation::MutateMany(message)) => message.try_into(),
            None => Err(missing("operation")),
        }
    }
}

fn request_to_proto(request: RequestId) -> v1::RequestId {
    v1::RequestId { client: request.client.0, sequence: request.sequence, first_incomplete: request.first_incomplete }
}

/// All zero, if there is none and no route that needs one.
fn request_from_proto(request: Option<v1::RequestId>, route: Option<Route>) -> Result<RequestId, Invalid> {
    let request = request.unwrap_or_default();
    let request = RequestId {
        client: model::ClientId(request.client),
        sequence: request.sequence,
        first_incomplete: request.first_incomplete,
    };
    if request.sequence == 0 && route.is_some() {
        return Err(Invalid(String::from("a mutation with a route needs a request id; sequences begin with 1")));
    }
    if request.first_incomplete > request.sequence {
        return Err(Invalid(format!(
            "the request id says that request {} is answered already: first_incomplete is {}",
            request.sequence, request.first_incomplete
        )));
    }
    Ok(request)
}

pub(crate) fn table_name(name: String) -> Result<String, Invalid> {
    match name.len() {
        0 => Err(missing("table")),
        len if len > limits::TABLE_NAME => Err(Invalid(format!("a table's name of {len} characters"))),
        _ => Ok(name),
    }
}

pub(crate) fn change_to_proto(change: Change<String>) -> v1::Change {
    let kind = match change {
        Change::Put { family, qualifier, timestamp, value } => {
            let timestamp_micros = (timestamp != Timestamp::SERVER).then_some(timestamp.0);
            Kind::Put(v1::change::Put { family, qualifier, value, timestamp_micros })
        }
        Change::DeleteCell { family, qualifier, timestamp } => {
            Kind::DeleteCell(v1::change::DeleteCell { family, qualifier, timestamp_micros: timestamp.0 })
        }
        Change::DeleteColumn { family, qualifier } => {
            Kind::DeleteColumn(v1::change::DeleteColumn { family, qualifier })
        }
        Change::DeleteFamily { family } => Kind::DeleteFamily(v1::change::DeleteFamily { family }),
        Change::DeleteRow => Kind::DeleteRow(v1::change::DeleteRow {}),
    };
    v1::Change { kind: Some(kind) }
}

pub(crate) fn change_from_proto(change: v1::Change) -> Result<Change<String>, Invalid> {
    Ok(match change.kind.ok_or_else(|| missing("kind of change"))? {
        Kind::Put(put) => Change::Put {
            family: put.family,
            qualifier: put.qualifier,
            timestamp: put.timestamp_micros.map_or(Timestamp::SERVER, Timestamp),
            value: put.value,
        },
        Kind::DeleteCell(delete) => Change::DeleteCell {
            family: delete.family,
            qualifier: delete.qualifier,
            timestamp: Timestamp(delete.timestamp_micros),
        },
        Kind::DeleteColumn(delete) => Change::DeleteColumn { family: delete.family, qualifier: delete.qualifier },
        Kind::DeleteFamily(delete) => Change::DeleteFamily { family: delete.family },
        Kind::DeleteRow(_) => Change::DeleteRow,
    })
}

fn column_to_proto(column: ColumnFilter<String>) -> v1::Column {
    v1::Column { family: column.family, qualifier: column.qualifier }
}

fn column_from_proto(column: v1::Column) -> ColumnFilter<String> {
    ColumnFilter { family: column.family, qualifier: column.qualifier }
}

fn options_to_proto(options: ReadOptions<String>) -> v1::ReadOptions {
    let (consistency, max_lag) = match options.consistency {
        Consistency::Linearizable => (v1::Consistency::Unspecified, None),
        Consistency::Eventual { max_lag } => (v1::Consistency::Eventual, max_lag),
    };
    v1::ReadOptions {
        columns: options.columns.into_iter().map(column_to_proto).collect(),
        versions: options.versions,
        consistency: consistency.into(),
        max_lag_micros: max_lag.map(micros),
        since_micros: options.since.map(|since| since.0),
        before_micros: options.before.map(|before| before.0),
    }
}

fn options_from_proto(options: Option<v1::ReadOptions>) -> Result<ReadOptions<String>, Invalid> {
    let options = options.unwrap_or_default();
    let max_lag = options.max_lag_micros.map(Duration::from_micros);
    let consistency = match v1::Consistency::try_from(options.consistency) {
        Ok(v1::Consistency::Eventual) => Consistency::Eventual { max_lag },
        Ok(_) if max_lag.is_some() => {
            return Err(Invalid(String::from("max_lag goes with eventual reads; others see every acknowledged write")));
        }
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Consistency::Linearizable,
        Err(_) => return Err(Invalid(format!("consistency {} is not known", options.consistency))),
    };
    Ok(ReadOptions {
        columns: options.columns.into_iter().map(column_from_proto).collect(),
        versions: options.versions.max(1),
        consistency,
        since: options.since_micros.map(Timestamp),
        before: options.before_micros.map(Timestamp),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<Freshness> for v1::Freshness {
    fn from(from: Freshness) -> v1::Freshness {
        v1::Freshness {
            node: from.node.0,
            epoch: from.epoch.0,
            applied: from.applied.0,
            lag_micros: from.lag.map(micros),
            behind: from.behind,
        }
    }
}

impl From<v1::Freshness> for Freshness {
    fn from(message: v1::Freshness) -> Freshness {
        Freshness {
            node: NodeId(message.node),
            epoch: Epoch(message.epoch),
            applied: Lsn(message.applied),
            lag: message.lag_micros.map(Duration::from_micros),
            behind: message.behind,
        }
    }
}

/// A cell whose family has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCell {
    /// The column's family.
    pub family: String,
    /// The column within its family; any bytes, also none.
    pub qualifier: Bytes,
    /// The version.
    pub timestamp: Timestamp,
    /// What is kept.
    pub value: Bytes,
}

/// A row whose families have their names. Never without cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRow {
    /// The row key.
    pub key: Bytes,
    /// By family, qualifier, and newest version first.
    pub cells: Vec<NamedCell>,
}

impl NamedRow {
    /// Names the families. Cells of families that the schema has dropped are left out, and `None` is left of nothing.
    pub fn new(row: Row, schema: &Schema) -> Option<NamedRow> {
        let cells: Vec<NamedCell> = row.cells.into_iter().filter_map(|cell| name(cell, schema)).collect();
        (!cells.is_empty()).then_some(NamedRow { key: row.key, cells })
    }

    /// Bytes of keys and values, for limits on pages.
    pub fn weight(&self) -> usize {
        self.key.len() + self.cells.iter().map(|cell| cell.qualifier.len() + cell.value.len() + 16).sum::<usize>()
    }
}

fn name(cell: Cell, schema: &Schema) -> Option<NamedCell> {
    // Not also that of the changes, which only their own readers know.
    let family = schema.families.iter().find(|family| family.id == cell.family)?.name.clone();
    Some(NamedCell { family, qualifier: cell.qualifier, timestamp: cell.timestamp, value: cell.value })
}

/// What the column of a failed condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// The newest version.
    pub timestamp: Timestamp,
    /// Its value.
    pub value: Bytes,
}

/// What became of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the table.
    Applied {
        /// The version that the primary chose.
        version: Timestamp,
    },
    /// The condition did not hold, and nothing changed.
    Differs {
        /// What its column holds instead; `None` if nothing.
        present: Option<Present>,
    },
}

impl From<Outcome> for Written {
    fn from(outcome: Outcome) -> Written {
        match outcome {
            Outcome::Applied { version } => Written::Applied { version },
            Outcome::Differs { present } => Written::Differs {
                present: present.map(|cell| Present { timestamp: cell.timestamp, value: cell.value }),
            },
        }
    }
}

/// An answer as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a write.
    Written(Written),
    /// To a get; and by whom and how old, if it was eventual.
    Row(Option<NamedRow>, Option<Freshness>),
    /// To the read of several rows: of the first ones.
    Many(Vec<Option<NamedRow>>, Option<Freshness>),
    /// To a scan: one page.
    Rows {
        /// In the order of the scan.
        rows: Vec<NamedRow>,
        /// Where the next page begins, or in reverse before which row; `None` after the last.
        resume: Option<Bytes>,
        /// By whom and how old, if the scan was eventual.
        from: Option<Freshness>,
    },
    /// A page of changes.
    Changes(ChangesPage<String>),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        match reply {
            Reply::Written(outcome) => Answer::Written(outcome.into()),
            Reply::Row(row, schema, from) => Answer::Row(row.and_then(|row| NamedRow::new(row, &schema)), from),
            Reply::Many(rows, schema, from) => {
                let named = |row: Option<Row>| row.and_then(|row| NamedRow::new(row, &schema));
                Answer::Many(rows.into_iter().map(named).collect(), from)
            }
            Reply::Rows { rows, resume, schema, from } => {
                let rows = rows.into_iter().filter_map(|row| NamedRow::new(row, &schema)).collect();
                Answer::Rows { rows, resume, from }
            }
            Reply::Changes(ChangesPage { changes, upto, resume }, schema) => {
                let changes = changes.into_iter().filter_map(|change| change.name(&schema)).collect();
                Answer::Changes(ChangesPage { changes, upto, resume })
            }
        }
    }
}

impl From<Written> for v1::MutateResponse {
    fn from(written: Written) -> v1::MutateResponse {
        match written {
            Written::Applied { version } => {
                v1::MutateResponse { applied: true, version_micros: version.0, present: None }
            }
            Written::Differs { present } => {
                let present =
                    present.map(|present| v1::Present { timestamp_micros: present.timestamp.0, value: present.value });
                v1::MutateResponse { applied: false, version_micros: 0, present }
            }
        }
    }
}

impl From<v1::MutateResponse> for Written {
    fn from(message: v1::MutateResponse) -> Written {
        if message.applied {
            return Written::Applied { version: Timestamp(message.version_micros) };
        }
        let present = message
            .present
            .map(|present| Present { timestamp: Timestamp(present.timestamp_micros), value: present.value });
        Written::Differs { present }
    }
}

/// Builds the answer to writes of many rows: of each its version, or why it failed.
pub fn mutate_many_response(rows: impl IntoIterator<Item = Result<Timestamp, v1::Failure>>) -> v1::MutateManyResponse {
    let mut response = v1::MutateManyResponse::default();
    for (row, outcome) in (0..).zip(rows) {
        response.version_micros.push(outcome.as_ref().map_or(0, |version| version.0));
        response.failed.extend(outcome.err().map(|failure| v1::FailedRow { row, failure: Some(failure) }));
    }
    response
}

impl From<NamedRow> for v1::Row {
    fn from(row: NamedRow) -> v1::Row {
        let cell = |cell: NamedCell| v1::Cell {
            family: cell.family,
            qualifier: cell.qualifier,
            timestamp_micros: cell.timestamp.0,
            value: cell.value,
        };
        v1::Row { key: row.key, cells: row.cells.into_iter().map(cell).collect() }
    }
}

impl From<v1::Row> for NamedRow {
    fn from(row: v1::Row) -> NamedRow {
        let cell = |cell: v1::Cell| NamedCell {
            family: cell.family,
            qualifier: cell.qualifier,
            timestamp: Timestamp(cell.timestamp_micros),
            value: cell.value,
        };
        NamedRow { key: row.key, cells: row.cells.into_iter().map(cell).collect() }
    }
}

/// Builds the answer to a get.
pub fn get_response(row: Option<NamedRow>, from: Option<Freshness>) -> v1::GetResponse {
    v1::GetResponse { row: row.map(Into::into), from: from.map(Into::into) }
}

/// Builds a page of the read of several rows.
pub fn get_many_page(found: impl IntoIterator<Item = (Option<NamedRow>, Option<Freshness>)>) -> v1::GetManyPage {
    v1::GetManyPage { found: found.into_iter().map(|(row, from)| get_response(row, from)).collect() }
}

/// Builds a page of a scan.
pub fn scan_page(rows: Vec<NamedRow>, resume: Option<Bytes>, from: Option<Freshness>) -> v1::ScanPage {
    v1::ScanPage { rows: rows.into_iter().map(Into::into).collect(), resume, from: from.map(Into::into) }
}

impl From<v1::ScanPage> for Answer {
    fn from(page: v1::ScanPage) -> Answer {
        Answer::Rows {
            rows: page.rows.into_iter().map(Into::into).collect(),
            resume: page.resume,
            from: page.from.map(Into::into),
        }
    }
}

impl Answer {
    /// As the outcome of an item of a pipeline. Several rows are none: pipelines read one at a time.
    pub fn into_outcome(self) -> Option<pipeline_result::Outcome> {
        match self {
            Answer::Written(written) => Some(pipeline_result::Outcome::Mutate(written.into())),
            Answer::Row(row, from) => Some(pipeline_result::Outcome::Get(get_response(row, from))),
            Answer::Many(..) | Answer::Rows { .. } | Answer::Changes(_) => None,
        }
    }

    /// Reads the outcome of an item of a pipeline: an answer, or the failure as it was sent.
    pub fn from_outcome(outcome: Option<pipeline_result::Outcome>) -> Result<Result<Answer, v1::Failure>, Invalid> {
        match outcome {
            Some(pipeline_result::Outcome::Mutate(message)) => Ok(Ok(Answer::Written(message.into()))),
            Some(pipeline_result::Outcome::Get(message)) => {
                Ok(Ok(Answer::Row(message.row.map(Into::into), message.from.map(Into::into))))
            }
            Some(pipeline_result::Outcome::Failure(failure)) => Ok(Err(failure)),
            None => Err(missing("outcome")),
        }
    }
}

/// The result of an item of a pipeline, from whatever the node or the gateway said.
pub fn pipeline_result(id: u64, result: Result<Answer, Refusal>) -> v1::PipelineResult {
    let outcome = match result {
        Ok(answer) => answer.into_outcome(),
        Err(refusal) => Some(pipeline_result::Outcome::Failure(crate::status::to_failure(&refusal))),
    };
    v1::PipelineResult { id, outcome }
}
