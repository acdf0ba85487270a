//! Change streams: what happens to the rows of a partition, until its tablet is not what it was when the stream began.
//!
//! ```text
//!   client::Changes ──page──▶ DataChange, each with a token          silence ──▶ Heartbeat
//!        └── the tablet was split or merged ──▶ CloseStream: who goes on with which rows, and with which tokens
//! ```

use std::time::Duration;

use bigtable::changes::{data_changes, date, heartbeat, partition, partition_range, to_date};
use bigtable::data::read_change_stream_request::StartFrom;
use bigtable::data::read_change_stream_response::{CloseStream, Heartbeat, StreamRecord};
use bigtable::data::{
    GenerateInitialChangeStreamPartitionsResponse, ReadChangeStreamRequest, ReadChangeStreamResponse,
    StreamContinuationToken, StreamContinuationTokens,
};
use bigtable::names::Table;
use bigtable::rpc;
use bytes::Bytes;
use client::{Changes, Client, Step};
use model::changes::RowChange;
use model::follow::{Part, Start, Token, join};
use model::{RowRange, Slice, TabletId, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::tables::CLUSTER;
use super::{Tables, status_of};

/// Messages that wait for a slow reader.
const AHEAD: usize = 16;
/// How often the map is asked who goes on, as long as it does not say.
const LOOK: Duration = Duration::from_secs(1);
/// Parts that all tokens of a stream may have.
const MOST_PARTS: usize = 100_000;

/// One partition a tablet, in the order of the rows; one of all rows if the table is cut by hashes.
pub async fn partitions(
    tables: &Tables,
    table: &str,
) -> Result<Vec<GenerateInitialChangeStreamPartitionsResponse>, Status> {
    let table = Table::parse("table_name", table).map_err(status_of)?;
    keeps(&table, tables.fetch(&table).await?.settings.changes.is_some())?;
    let ranges = tablets(&tables.client(), tables, &table).await?;
    let response = |range| GenerateInitialChangeStreamPartitionsResponse { partition: Some(partition(&range)) };
    Ok(ranges.into_iter().map(response).collect())
}

fn keeps(table: &Table, keeps: bool) -> Result<(), Status> {
    match keeps {
        true => Ok(()),
        false => {
            Err(Status::failed_precondition(format!("{} has no change stream: set change_stream_config", table.path())))
        }
    }
}

/// The rows of each tablet.
async fn tablets(client: &Client, tables: &Tables, table: &Table) -> Result<Vec<RowRange>, Status> {
    let (map, native) = (client.map().await.map_err(|error| tables.status(table, &error))?, table.native());
    let of_table = map.tablets.iter().filter(|assignment| assignment.schema.name == native);
    let mut ranges: Vec<RowRange> = of_table
        .map(|assignment| match &assignment.tablet.slice {
            Slice::Rows { start, end } => RowRange { start: start.clone(), end: end.clone() },
            Slice::Hash { .. } => RowRange::default(),
        })
        .collect();
    ranges.sort_by(|one, other| one.start.cmp(&other.start));
    ranges.dedup();
    Ok(ranges)
}

/// Begins a stream.
pub async fn read(
    tables: &Tables,
    request: ReadChangeStreamRequest,
) -> Result<mpsc::Receiver<Result<ReadChangeStreamResponse, Status>>, Status> {
    let table = Table::parse("table_name", &request.table_name).map_err(status_of)?;
    keeps(&table, tables.fetch(&table).await?.settings.changes.is_some())?;
    let range = partition_range(request.partition.as_ref()).map_err(status_of)?;
    let silence = heartbeat(request.heartbeat_duration).map_err(status_of)?;
    let end = request.end_time.map(|end| date("end_time", end)).transpose().map_err(status_of)?;
    let (client, native) = (tables.client(), table.native());
    let begun = match request.start_from {
        None => client.changes(&native, range.clone(), Start::Now).await,
        Some(StartFrom::StartTime(start)) => {
            let start = date("start_time", start).map_err(status_of)?;
            client.changes(&native, range.clone(), Start::After(Timestamp(start.0 - 1))).await
        }
        Some(StartFrom::ContinuationTokens(tokens)) => {
            client.changes_from(&native, unite(&tokens, &range).map_err(Status::invalid_argument)?).await
        }
    };
    let mut changes = begun.map_err(|error| tables.status(&table, &error))?;
    // What is wrong with where it begins is said at once, and not within the stream.
    let first = changes.next().await.map_err(|error| tables.status(&table, &error))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let began = changes.tablet().map(|(tablet, _)| *tablet);
    let following = Following {
        client,
        tables: tables.clone(),
        table,
        range,
        end,
        silence,
        changes,
        began,
        look: Instant::now(),
        sender,
    };
    tokio::spawn(following.run(first));
    Ok(receiver)
}

/// The tokens of all parts of a partition as one.
fn unite(tokens: &StreamContinuationTokens, range: &RowRange) -> Result<Token, String> {
    let wrong = |what: &str| format!("Error in field 'continuation_tokens' : {what}");
    let mut parts: Vec<Part> = Vec::new();
    let mut stream = None;
    for token in &tokens.tokens {
        let Token { stream: of, parts: mut its } = Token::from_text(&token.token).map_err(|why| wrong(&why))?;
        if *stream.get_or_insert(of) != of {
            return Err(wrong("they are of different tables"));
        }
        parts.append(&mut its);
        if parts.len() > MOST_PARTS {
            return Err(wrong(&format!("they have more than {MOST_PARTS} parts")));
        }
    }
    parts.sort_by(|one, other| (one.bucket, &one.range.start).cmp(&(other.bucket, &other.range.start)));
    let hashed = parts.first().is_some_and(|part| part.bucket.is_some());
    let mut next = Some(&range.start);
    for part in &parts {
        let fits = hashed || next == Some(&part.range.start);
        if !fits {
            return Err(wrong("together they are not of the rows of the partition"));
        }
        next = part.range.end.as_ref();
    }
    match stream {
        Some(stream) if hashed || next == range.end.as_ref() => Ok(Token { stream, parts }),
        Some(_) => Err(wrong("together they are not of the rows of the partition")),
        None => Err(wrong("there is none")),
    }
}

struct Following {
    client: Client,
    tables: Tables,
    table: Table,
    range: RowRange,
    end: Option<Timestamp>,
    silence: Duration,
    changes: Changes,
    /// Which tablet was asked first.
    began: Option<TabletId>,
    /// The map did not say yet who goes on; it is asked again then.
    look: Instant,
    sender: mpsc::Sender<Result<ReadChangeStreamResponse, Status>>,
}

impl Following {
    async fn run(mut self, first: Step) {
        let mut step = Some(first);
        let mut due = Instant::now() + self.silence;
        while !self.sender.is_closed() {
            let quiet = match step.take() {
                Some(Step::Changes(page)) => {
                    for change in page {
                        if !self.tell(change).await {
                            return;
                        }
                    }
                    due = Instant::now() + self.silence;
                    false
                }
                Some(Step::Quiet) => true,
                None => false,
            };
            match self.close().await {
                Ok(None) => {}
                Ok(Some(close)) => {
                    // Whether anybody still listens does not matter any more.
                    self.send(StreamRecord::CloseStream(close)).await;
                    return;
                }
                Err(status) => return drop(self.sender.send(Err(status)).await),
            }
            if Instant::now() >= due {
                if !self.beat().await {
                    return;
                }
                due = Instant::now() + self.silence;
            }
            let pause = if quiet { self.changes.pause() } else { Duration::ZERO };
            let next = async {
                sleep(pause).await;
                self.changes.next().await
            };
            tokio::select! {
                next = next => match next {
                    Ok(next) => step = Some(next),
                    Err(error) => return drop(self.sender.send(Err(self.tables.status(&self.table, &error))).await),
                },
                // What was being asked is asked again.
                () = sleep_until(due) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    async fn send(&self, record: StreamRecord) -> bool {
        self.sender.send(Ok(ReadChangeStreamResponse { stream_record: Some(record) })).await.is_ok()
    }

    /// False if nobody listens any more.
    async fn tell(&self, change: RowChange<String>) -> bool {
        if self.end.is_some_and(|end| change.at.version >= end) {
            return true;
        }
        let token = self.changes.token_after(&change).to_text();
        for message in data_changes(change, CLUSTER, token, self.watermark()) {
            if !self.send(StreamRecord::DataChange(message)).await {
                return false;
            }
        }
        true
    }

    async fn beat(&self) -> bool {
        let token =
            StreamContinuationToken { partition: Some(partition(&self.range)), token: self.changes.token().to_text() };
        let beat =
            Heartbeat { continuation_token: Some(token), estimated_low_watermark: Some(to_date(self.watermark())) };
        self.send(StreamRecord::Heartbeat(beat)).await
    }

    fn watermark(&self) -> Timestamp {
        self.changes.complete().unwrap_or_default()
    }

    /// The last message, if it is due.
    async fn close(&mut self) -> Result<Option<CloseStream>, Status> {
        let status = || Some(rpc::Status::default());
        let complete = self.changes.complete();
        if self.end.is_some_and(|end| complete.is_some_and(|complete| complete.next() >= end)) {
            return Ok(Some(CloseStream { status: status(), ..CloseStream::default() }));
        }
        let parts = self.changes.parts();
        let Some((tablet, Slice::Rows { start, end })) = self.changes.tablet() else { return Ok(None) };
        let tablet_range = RowRange { start: start.clone(), end: end.clone() };
        let cut = parts.len() > 1;
        let grown =
            self.began.is_some_and(|began| began != *tablet) && tablet_range.intersect(&self.range) != tablet_range;
        if !cut && !grown || Instant::now() < self.look {
            return Ok(None);
        }
        self.look = Instant::now() + LOOK;
        let all = tablets(&self.client, &self.tables, &self.table).await?;
        let mut rest = parts;
        let (mut continuation_tokens, mut new_partitions) = (Vec::new(), Vec::new());
        let ends_before = |end: &Option<Bytes>, start: &Bytes| end.as_ref().is_some_and(|end| end <= start);
        for tablet in all {
            let shared = tablet.intersect(&self.range);
            if ends_before(&shared.end, &shared.start) {
                continue;
            }
            let (mut its, mut others) = (Vec::new(), Vec::new());
            for part in rest {
                let (inside, outside) = match &shared.end {
                    Some(border) => part.cut(border),
                    None => (Some(part), None),
                };
                its.extend(inside);
                others.extend(outside);
            }
            rest = others;
            let token = Token { stream: self.changes.stream(), parts: join(its) };
            continuation_tokens
                .push(StreamContinuationToken { partition: Some(partition(&shared)), token: token.to_text() });
            new_partitions.push(partition(&tablet));
        }
        // A map that does not show it yet will.
        let told = new_partitions.len() > 1 || new_partitions.first() != Some(&partition(&self.range));
        let close = CloseStream { status: status(), continuation_tokens, new_partitions };
        Ok(Some(close).filter(|_| told && rest.is_empty()))
    }
}
