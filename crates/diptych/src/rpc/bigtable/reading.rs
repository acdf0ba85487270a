//! `ReadRows`, while it is being answered.

use std::sync::Arc;
use std::time::Instant;

use bigtable::chunks::{Cell, Chunker};
use bigtable::data::{
    FullReadStatsView, ReadIterationStats, ReadRowsResponse, RequestLatencyStats, RequestStats, request_stats,
};
use bigtable::filters;
use bigtable::names::Table;
use bigtable::views::Lens;
use bytes::Bytes;
use client::NamedRow;
use futures_util::{StreamExt, TryStreamExt};
use model::{RowRange, Schema, limits};
use tokio::sync::mpsc;
use tonic::Status;

use super::Tables;
use super::data::{draw, to_cell};

/// After so many rows without an answer a client is told how far its scan is, if it understands that.
const SILENCE: u64 = 5_000;

/// A `ReadRows` that is being answered.
pub struct Reading {
    /// In the name of whoever asked.
    pub client: client::Client,
    pub tables: Tables,
    pub table: Table,
    pub schema: Arc<Schema>,
    pub filter: filter::Compiled,
    /// What of the rows is seen, if not all.
    pub lens: Option<Lens>,
    /// In order, apart from each other.
    pub ranges: Vec<RowRange>,
    pub reversed: bool,
    /// Rows that may still be given.
    pub limit: u64,
    pub stats: Option<(Instant, ReadIterationStats)>,
    pub tells_progress: bool,
    pub chunker: Chunker,
    pub sender: mpsc::Sender<Result<ReadRowsResponse, Status>>,
}

/// Nobody reads any more.
struct Left;

impl Reading {
    /// Sends what is asked for, until the end or until nobody reads any more.
    pub async fn run(mut self) {
        // What was sent before an error is good.
        let end = match self.read().await {
            Ok(end) => end,
            Err(Left) => return,
        };
        if let Some(rest) = self.chunker.finish()
            && self.send(rest).await.is_err()
        {
            return;
        }
        let last = match (end, self.stats.take()) {
            (Err(status), _) => Err(status),
            (Ok(()), Some((begun, stats))) => Ok(with_stats(begun, stats)),
            (Ok(()), None) => return,
        };
        _ = self.sender.send(last).await;
    }

    async fn send(&self, response: ReadRowsResponse) -> Result<(), Left> {
        self.sender.send(Ok(response)).await.map_err(|_| Left)
    }

    async fn read(&mut self) -> Result<Result<(), Status>, Left> {
        let families: Vec<&str> = self.schema.families.iter().map(|family| family.name.as_str()).collect();
        let Some((options, every_row)) = filters::options(&self.filter, &families) else { return Ok(Ok(())) };
        // Of a row that is read nothing may be seen.
        let every_row = every_row && self.lens.is_none();
        let mut ranges = std::mem::take(&mut self.ranges);
        if let Some(lens) = &self.lens {
            ranges = lens.ranges(ranges);
        }
        if self.reversed {
            ranges.reverse();
        }
        let mut silent = 0;
        let native = self.table.native();
        for part in parts(ranges) {
            if self.limit == 0 {
                break;
            }
            let client = &self.client;
            let mut rows: client::Rows = match part {
                Part::Keys(keys) => {
                    let found = client.get_many_from(&native, keys, options.clone());
                    Box::pin(found.try_filter_map(|(row, _)| async move { Ok(row) }))
                }
                Part::Range(range) => {
                    let limit = (self.limit < u64::MAX && every_row).then_some(self.limit);
                    Box::pin(
                        client.scan_from(&native, range, self.reversed, options.clone(), limit).map_ok(|(row, _)| row),
                    )
                }
            };
            while let Some(row) = rows.next().await {
                let row = match row {
                    Ok(row) => row,
                    Err(error) => return Ok(Err(self.tables.status(&self.table, &error))),
                };
                let key = row.key.clone();
                let full = match self.add(row) {
                    Ok(Some(full)) => full,
                    // Not even that it is there is told.
                    Ok(None) => continue,
                    Err(status) => return Ok(Err(status)),
                };
                silent += 1;
                for message in full {
                    silent = 0;
                    self.send(message).await?;
                }
                if self.tells_progress && silent >= SILENCE {
                    silent = 0;
                    if let Some(rest) = self.chunker.finish() {
                        self.send(rest).await?;
                    } else {
                        self.send(ReadRowsResponse { last_scanned_row_key: key, ..Default::default() }).await?;
                    }
                }
                if self.limit == 0 {
                    break;
                }
            }
        }
        Ok(Ok(()))
    }

    /// Filters a row, and gives the messages that are full; `None` if nothing of it is seen.
    fn add(&mut self, row: NamedRow) -> Result<Option<Vec<ReadRowsResponse>>, Status> {
        check_row_size(&self.table, &row)?;
        let mut cells: Vec<Cell> = row.cells.into_iter().map(to_cell).collect();
        if let Some(lens) = &self.lens {
            cells = lens.cells(&row.key, cells);
            if cells.is_empty() {
                return Ok(None);
            }
        }
        let seen = cells.len() as i64;
        let cells = filters::through(&self.filter, &row.key, &cells, &draw);
        if let Some((_, stats)) = &mut self.stats {
            stats.rows_seen_count += 1;
            stats.cells_seen_count += seen;
            stats.rows_returned_count += i64::from(!cells.is_empty());
            stats.cells_returned_count += cells.len() as i64;
        }
        if cells.is_empty() {
            return Ok(Some(Vec::new()));
        }
        self.limit -= 1;
        Ok(Some(self.chunker.push(&row.key, cells)))
    }
}

/// Says that a row has become too large, as the service does.
fn check_row_size(table: &Table, row: &NamedRow) -> Result<(), Status> {
    let cell = |cell: &client::NamedCell| cell.family.len() + cell.qualifier.len() + cell.value.len() + 8;
    let bytes = row.key.len() + row.cells.iter().map(cell).sum::<usize>();
    match bytes <= limits::ROW {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!(
            "Error while reading the row '{}' ({}) : it has {bytes} bytes; the limit is {}. Read less of it by a filter on a \
             family, a column or times, or delete some of it",
            row.key.escape_ascii(),
            table.path(),
            limits::ROW
        ))),
    }
}

/// What is read in one go.
enum Part {
    Keys(Vec<Bytes>),
    Range(RowRange),
}

/// Single rows that stand beside each other are read together.
fn parts(ranges: Vec<RowRange>) -> Vec<Part> {
    let mut parts = Vec::new();
    for range in ranges {
        let single = !range.start.is_empty() && RowRange::one(range.start.clone()) == range;
        match parts.last_mut() {
            Some(Part::Keys(keys)) if single && keys.len() < limits::KEYS => keys.push(range.start),
            _ if single => parts.push(Part::Keys(vec![range.start])),
            _ => parts.push(Part::Range(range)),
        }
    }
    parts
}

fn with_stats(begun: Instant, stats: ReadIterationStats) -> ReadRowsResponse {
    let took = begun.elapsed();
    let latency = prost_types::Duration { seconds: took.as_secs() as i64, nanos: took.subsec_nanos() as i32 };
    let view = FullReadStatsView {
        read_iteration_stats: Some(stats),
        request_latency_stats: Some(RequestLatencyStats { frontend_server_latency: Some(latency) }),
    };
    let stats_view = Some(request_stats::StatsView::FullReadStatsView(view));
    ReadRowsResponse { request_stats: Some(RequestStats { stats_view }), ..Default::default() }
}

/// What a client says that it understands.
#[derive(Default)]
pub struct Features {
    /// How far a scan is, without a row.
    pub last_scanned_row_responses: bool,
}

impl Features {
    /// By the header `bigtable-features`.
    pub fn of_header(header: &str) -> Features {
        use base64::Engine;
        use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
        let decoded = engine
            .decode(header)
            .ok()
            .and_then(|bytes| <bigtable::data::FeatureFlags as prost::Message>::decode(&bytes[..]).ok());
        decoded.map_or_else(Features::default, |flags| Features {
            last_scanned_row_responses: flags.last_scanned_row_responses,
        })
    }
}
