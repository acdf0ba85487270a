//! `checkpoint restore`: a table of a checkpoint becomes a new table, without the cluster that it comes from.
//!
//! ```text
//!   folders ──find──▶ checkpoints/NAME … ──choose──▶ the sealed list: which tablets ──▶ one sound part of each, every block read
//!                                                                                         │ create the table, cut likewise
//!   the cluster ◀── batches, many of them under way ◀── pages of rows, of a few tablets at a time ◀──┘
//! ```
//!
//! Nothing is created before everything is known to be there and whole. Cells are written with the timestamps that they had,
//! so a write that is repeated changes nothing; but a restore that broke off is begun anew: what is in the new table by
//! then may be anything, and it is dropped first. Never writes to the folders.

mod find;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Batches, Client, PendingRow};
use model::request::NewTable;
use model::settings::CHANGES;
use model::{
    AdminReply, AdminRequest, Bytes, Change, LocalityChange, Mutation, Partition, ReadOptions, Row, RowChanges,
    RowRange, Schema, SettingsChange, Slice, StorageChange, Timestamp, limits,
};
use serde_json::json;
use tokio::sync::mpsc;

use self::find::{Source, Sources};
use super::super::args::Restore;
use super::super::{Failure, Output, show};
use crate::host::node::shard::Clock;

/// Tablets that are read at a time.
const AT_A_TIME: usize = 4;
/// Rows and bytes of a page, and pages that wait to be written.
const PAGE_ROWS: u32 = 1_000;
const PAGE_BYTES: usize = 1 << 20;
const PAGES_AHEAD: usize = 4;
/// Batches that are under way, and bytes of all rows that are.
const BATCHES: usize = 16;
const ROOM: usize = 64 << 20;
/// A large row is written in pieces of so many cells, or so many bytes.
const PIECE_CELLS: usize = 10_000;
const PIECE_BYTES: usize = 8 << 20;
/// A write is tried for so long, whatever a single request may take: a table that is written faster than it gets to disks
/// refuses for a while.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(client: &Client, args: &Restore, out: &mut Output) -> Result<(), Failure> {
    if let (Some(replicas), Some(least)) = (args.replicas, args.min_replicas)
        && least > replicas
    {
        return Err(Failure::usage("--min-replicas is more than --replicas; no write could ever succeed"));
    }
    let (name, from, table) = (args.name.clone(), args.from.clone(), args.table.clone());
    let found = blocking(move || find::sources(&name, &from, table.as_deref())).await?;
    let Sources { checkpoint, schema, tablets, bytes } = found;
    let (count, size) = (tablets.len(), show::size(bytes));
    if args.dry_run {
        let text = format!("checkpoint {} is whole: {count} tablets of {}, {size}", checkpoint.name, schema.name);
        let json = json!({"checkpoint": checkpoint.name, "id": checkpoint.id.to_string(), "table": schema.name, "tablets": count, "bytes": bytes});
        return Ok(out.say(json, text)?);
    }
    create(client, new_table(args, &schema, &tablets)).await?;
    let begun = Instant::now();
    let mut writing = Writing::new(client, args);
    let result = writing.all(tablets).await;
    let (rows, cells, seconds) = (writing.rows, writing.cells, begun.elapsed().as_secs_f64());
    if let Err(failure) = result {
        let message = format!("{}; {} of {size} in table {}", failure.message, show::rows_are(rows), args.to);
        let hint = format!("`diptych table drop {}`, and then the same command again.", args.to);
        return Err(Failure { message, ..failure }.hint(hint));
    }
    let rate = (rows as f64 / seconds.max(1e-3)) as u64;
    let text = format!(
        "restored table {} from checkpoint {}: {}, {} cells in {seconds:.1} s ({} rows/s)",
        args.to,
        checkpoint.name,
        show::rows(rows),
        show::count(cells),
        show::count(rate)
    );
    let json = json!({
        "checkpoint": checkpoint.name,
        "id": checkpoint.id.to_string(),
        "table": args.to,
        "from": schema.name,
        "tablets": count,
        "rows": rows,
        "cells": cells,
        "bytes": bytes,
        "seconds": seconds,
    });
    Ok(out.say(json, text)?)
}

async fn create(client: &Client, table: NewTable) -> Result<(), Failure> {
    match client.admin(AdminRequest::CreateTable(table)).await? {
        AdminReply::Table(_) => Ok(()),
        other => Err(client::Error::Protocol(format!("asked for a table, got {other:?}")).into()),
    }
}

/// A table like the one in the checkpoint, cut where it was cut.
fn new_table(args: &Restore, schema: &Schema, tablets: &[Source]) -> NewTable {
    let slices: Vec<&Slice> = tablets.iter().map(|source| &source.part.copy.slice).collect();
    let partition = match slices.first() {
        Some(Slice::Hash { of, .. }) => Partition::Hash { tablets: *of },
        _ => {
            let starts = slices.iter().filter_map(|slice| match slice {
                Slice::Rows { start, .. } if !start.is_empty() => Some(start.clone()),
                _ => None,
            });
            let mut splits: Vec<Bytes> = starts.collect();
            splits.sort();
            // A table may be cut more often later than when it is made.
            let step = slices.len().div_ceil(limits::TABLETS);
            Partition::Range { splits: splits.into_iter().skip(step - 1).step_by(step).collect() }
        }
    };
    let change = |group: &model::LocalityGroup| LocalityChange {
        name: group.name.clone(),
        in_memory: Some(group.in_memory),
        compression: Some(group.compression),
        block_bytes: Some(group.block_bytes),
        filter: Some(group.filter),
    };
    let place = |family: &model::Family| (family.name.clone(), schema.locality(family.locality).name);
    let storage = StorageChange {
        compaction: Some(schema.storage.compaction),
        set: schema.storage.localities.iter().filter(|group| group.name != CHANGES).map(change).collect(),
        place: schema.families.iter().map(place).collect(),
        drop: Vec::new(),
    };
    let replicas = args.replicas.unwrap_or(schema.replicas);
    let aggregated = |family: &model::Family| Some((family.name.clone(), family.aggregate?));
    NewTable {
        name: args.to.clone(),
        families: schema.families.iter().map(|family| (family.name.clone(), family.retention.clone())).collect(),
        partition,
        replicas: Some(replicas),
        min_replicas: Some(args.min_replicas.unwrap_or(schema.min_replicas.min(replicas))),
        storage,
        // What happened to the rows before stays behind: from now on the changes of the new table are kept.
        settings: SettingsChange {
            granularity: Some(schema.settings.granularity),
            protected: None,
            changes: schema.settings.changes_kept(),
            aggregates: schema.families.iter().filter_map(aggregated).collect(),
        },
    }
}

/// Runs what reads files where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let stopped = |error| Failure::failed(format!("reading the checkpoint met a bug in Diptych: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

/// A row, or a part of a very large one, as changes that write it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    row: RowChanges<String>,
    /// With it the row is whole.
    last: bool,
}

/// Rows of one tablet.
type Page = Result<Vec<Piece>, Failure>;

struct Writing<'a> {
    args: &'a Restore,
    table: Arc<str>,
    client: &'a Client,
    batches: Batches,
    flights: VecDeque<(Piece, PendingRow)>,
    /// Bytes of these.
    bytes: usize,
    rows: u64,
    cells: u64,
}

impl<'a> Writing<'a> {
    fn new(client: &'a Client, args: &'a Restore) -> Writing<'a> {
        let table = Arc::from(args.to.as_str());
        let batches = client.batches(&table, BATCHES);
        Writing { args, table, client, batches, flights: VecDeque::new(), bytes: 0, rows: 0, cells: 0 }
    }

    async fn all(&mut self, tablets: Vec<Source>) -> Result<(), Failure> {
        let mut waiting = tablets.into_iter();
        let (pages, mut arrived) = mpsc::channel::<Option<Page>>(PAGES_AHEAD);
        let (date, mut running) = (Clock::wall(), 0);
        let begin = |source: Source| {
            let pages = pages.clone();
            tokio::task::spawn_blocking(move || {
                read(&source, date, |page| pages.blocking_send(Some(page)).is_ok());
                // Nobody waits any more if that is not heard.
                let _ = pages.blocking_send(None);
            });
        };
        for source in waiting.by_ref().take(AT_A_TIME) {
            begin(source);
            running += 1;
        }
        while running > 0 {
            match arrived.recv().await {
                Some(Some(page)) => self.write(page?).await?,
                Some(None) => match waiting.next() {
                    Some(source) => begin(source),
                    None => running -= 1,
                },
                None => return Err(Failure::failed("reading the checkpoint ended too early: a bug in Diptych")),
            }
        }
        while !self.flights.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    async fn write(&mut self, page: Vec<Piece>) -> Result<(), Failure> {
        for piece in page {
            while self.flights.len() >= self.args.window as usize || self.bytes > ROOM {
                self.settle().await?;
            }
            let pending = match self.batches.put(piece.row.clone(), None).await {
                Ok(pending) => pending,
                Err(_) => {
                    return Err(Failure::failed("a row that follows no other one was given back: a bug in Diptych"));
                }
            };
            self.bytes += piece.row.weight();
            self.flights.push_back((piece, pending));
        }
        Ok(())
    }

    /// Waits for the oldest write; tries it again by itself for a while if it does not succeed.
    async fn settle(&mut self) -> Result<(), Failure> {
        let Some((piece, pending)) = self.flights.pop_front() else { return Ok(()) };
        let (begun, mut result) = (Instant::now(), self.batches.written(pending).await.map(|_| ()));
        while let Err(error) = result {
            if error.exit_code() != 3 || begun.elapsed() > PATIENCE {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            let RowChanges { row, changes } = piece.row.clone();
            result = self.client.mutate(&self.table, Mutation { row, condition: None, changes }).await.map(|_| ());
        }
        self.bytes -= piece.row.weight();
        self.cells += piece.row.changes.len() as u64;
        self.rows += u64::from(piece.last);
        Ok(())
    }
}

/// Reads a tablet from the first row to the last, as long as somebody takes the pages.
fn read(source: &Source, date: Timestamp, mut give: impl FnMut(Page) -> bool) {
    let Source { part, view, .. } = source;
    let columns = part.schema.visible_columns();
    let all = ReadOptions { columns, versions: u32::MAX, ..ReadOptions::default() };
    let mut from = Some(Bytes::new());
    while let Some(start) = from {
        let range = RowRange { start, end: None };
        match view.scan(&range, &all, &part.schema, date, PAGE_ROWS, PAGE_BYTES) {
            Ok((rows, next)) => {
                let page = rows.into_iter().flat_map(|row| pieces(row, &part.schema)).collect();
                if !give(Ok(page)) {
                    return;
                }
                from = next;
            }
            Err(error) => {
                give(Err(Failure::failed(source.name(error))));
                return;
            }
        }
    }
}

/// The row in one piece, unless it is very large.
fn pieces(row: Row, schema: &Schema) -> Vec<Piece> {
    let (mut parts, mut changes, mut bytes) = (Vec::new(), Vec::new(), 0);
    for cell in row.cells {
        // What was dropped with its family is not asked for.
        let Some(family) = schema.family_by_id(cell.family) else { continue };
        if changes.len() >= PIECE_CELLS || (bytes + cell.value.len() > PIECE_BYTES && !changes.is_empty()) {
            parts.push(std::mem::take(&mut changes));
            bytes = 0;
        }
        bytes += cell.value.len();
        changes.push(Change::Put {
            family: family.name.clone(),
            qualifier: cell.qualifier,
            timestamp: cell.timestamp,
            value: cell.value,
        });
    }
    if !changes.is_empty() {
        parts.push(changes);
    }
    let count = parts.len();
    let piece = |(at, changes)| {
        let row = RowChanges { row: row.key.clone(), changes };
        Piece { row, last: at + 1 == count }
    };
    parts.into_iter().enumerate().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Cell, Family, FamilyId, LocalityId, Retention, Storage, TableId};

    fn schema() -> Schema {
        let family = |id, name: &str, locality| Family {
            id: FamilyId(id),
            name: name.into(),
            retention: Retention::Versions(id),
            loosened: false,
            locality: LocalityId(locality),
            aggregate: None,
        };
        let mut storage = Storage { compaction: model::Compaction::Leveled, ..Storage::default() };
        let cold = model::LocalityGroup { id: LocalityId(4), name: "cold".into(), ..Default::default() };
        storage.localities.push(cold);
        Schema {
            table: TableId(1),
            name: "users".into(),
            version: 3,
            families: vec![family(1, "a", 0), family(3, "b", 4)],
            next_family: FamilyId(4),
            partition: Partition::Range { splits: Vec::new() },
            replicas: 3,
            min_replicas: 2,
            storage,
            settings: model::Settings::default(),
        }
    }

    fn cell(family: u32, timestamp: i64, bytes: usize) -> Cell {
        Cell {
            family: FamilyId(family),
            qualifier: Bytes::from_static(b"q"),
            timestamp: Timestamp(timestamp),
            value: Bytes::from(vec![0; bytes]),
        }
    }

    /// A row that is too large for one request is written in several, each cell once.
    #[test]
    fn a_row_is_written_as_it_was() {
        let row = |cells| Row { key: Bytes::from_static(b"r"), cells };
        let small = pieces(row(vec![cell(1, 9, 1), cell(2, 8, 1), cell(3, 7, 1)]), &schema());
        assert_eq!((small.len(), small[0].last), (1, true));
        let timestamps = |piece: &Piece| {
            let of = |change: &Change<String>| match change {
                Change::Put { family, timestamp, .. } => (family.clone(), timestamp.0),
                other => panic!("{other:?}"),
            };
            piece.row.changes.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(timestamps(&small[0]), [("a".into(), 9), ("b".into(), 7)], "family 2 was dropped");
        assert_eq!(pieces(row(vec![cell(2, 8, 1)]), &schema()), []);
        let large = pieces(row(vec![cell(1, 9, PIECE_BYTES), cell(1, 8, PIECE_BYTES + 1), cell(1, 7, 1)]), &schema());
        assert_eq!(
            large.iter().map(|piece| (timestamps(piece).len(), piece.last)).collect::<Vec<_>>(),
            [(1, false), (1, false), (1, true)]
        );
        let many = pieces(row((0..PIECE_CELLS as i64 + 1).map(|at| cell(1, at, 1)).collect()), &schema());
        assert_eq!(many.len(), 2);
    }
}
