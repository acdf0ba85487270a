//! `bench`: work of a known kind by a number of clients, and how long each operation took.
//!
//! Closed loop: each client has one operation under way (a few over the pipelined stream, a batch of rows in a load) and begins the next when it
//! is answered, so the figures are those of so many busy users, not of a given rate. Rows are loaded before the clock starts. YCSB is after Cooper et
//! al., "Benchmarking cloud serving systems with YCSB" (2010), one column a row.

mod report;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Answer, Client, Pipeline};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use model::random::Random;
use model::request::NewTable;
use model::{
    AdminRequest, Change, Consistency, Mutation, Partition, ReadOptions, Refusal, Retention, RowChanges, RowRange,
    Timestamp,
};
use tokio::task::JoinSet;

use self::report::{Recorder, Report};
use self::work::{Chooser, Step};
use crate::cli::{Bench, Exit, Failure, Output, consistency, show};

pub use self::work::Work;

/// The family and the only column.
const FAMILY: &str = "f";
const COLUMN: &[u8] = b"v";
/// Rows under way while loading.
const LOADING: usize = 2048;

/// Runs it and says what was measured. The table is dropped at the end, also after Ctrl-C.
pub async fn run(client: &Client, args: &Bench, out: &mut Output) -> Result<(), Failure> {
    let name = args.table.clone().unwrap_or_else(|| format!("bench-{}-{}", args.work.name(), std::process::id()));
    let made = make_table(client, args, &name).await?;
    let result = tokio::select! {
        result = measure(client, args, &name) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted")),
    };
    if made && !args.keep {
        client.admin(AdminRequest::DropTable(name.clone())).await?;
    }
    let report = result?;
    if out.json { out.line(report.to_json(args)) } else { report.print(args, out) }?;
    match report.first_error {
        Some(error) => {
            Err(Failure::new(Exit::Failed, format!("{} operations failed, the first: {error}", report.errors)))
        }
        None => Ok(()),
    }
}

/// False if it was there already.
async fn make_table(client: &Client, args: &Bench, name: &str) -> Result<bool, Failure> {
    let table = NewTable {
        storage: model::StorageChange::default(),
        settings: model::SettingsChange::default(),
        name: name.to_string(),
        families: vec![(FAMILY.to_string(), Retention::Versions(1))],
        partition: Partition::Hash { tablets: args.tablets },
        replicas: args.replicas,
        min_replicas: None,
    };
    match client.admin(AdminRequest::CreateTable(table)).await {
        Ok(_) => Ok(true),
        Err(client::Error::Refused(Refusal::Exists(_))) if args.table.is_some() => {
            let schema = client.table(name).await?;
            match schema.family(FAMILY) {
                Some(_) => Ok(false),
                None => Err(Failure::failed(format!("table {name} has no family {FAMILY:?}, which bench writes to"))),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn measure(client: &Client, args: &Bench, name: &str) -> Result<Report, Failure> {
    let table: Arc<str> = Arc::from(name);
    let depth = if args.work.is_pipelined() { args.depth as usize } else { 1 };
    let under_way = args.clients as usize * depth;
    let pipeline = client.pipeline(LOADING.max(under_way));
    load(&pipeline, args, &table).await?;
    let redirects = client.redirects();
    let run = Arc::new(Run {
        client: client.clone(),
        pipeline,
        table,
        work: args.work,
        value_bytes: args.value_bytes as usize,
        step: args.work.step(args.batch),
        budget: AtomicU64::new(args.operations.unwrap_or(u64::MAX)),
        rows: AtomicU64::new(args.records),
        over: AtomicBool::new(false),
        chooser: Chooser::new(args.records),
        consistency: consistency(args.consistent)?,
    });
    let mut random = Random::new(args.seed);
    let (mut clients, begun) = (JoinSet::new(), Instant::now());
    for _ in 0..under_way {
        clients.spawn(Arc::clone(&run).client(random.fork()));
    }
    let (mut all, bar) = (Recorder::default(), ProgressBar::new_spinner());
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(Ok(recorder)) => all.add(recorder),
                Some(Err(error)) => return Err(Failure::failed(format!("a client broke: {error}"))),
                None => break,
            },
            _ = tick.tick() => {
                let seconds = begun.elapsed().as_secs_f64();
                bar.set_message(format!("{} {seconds:.0} s of {:.0} s", args.work.name(), args.duration.as_secs_f64()));
                if begun.elapsed() >= args.duration {
                    run.over.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(Report::new(all, begun.elapsed(), client.redirects() - redirects))
}

/// Writes all rows once.
async fn load(pipeline: &Pipeline, args: &Bench, table: &Arc<str>) -> Result<(), Failure> {
    if !args.work.needs_rows() {
        return Ok(());
    }
    let bar = ProgressBar::new(args.records);
    let mut random = Random::new(!args.seed);
    let mut row = 0;
    while row < args.records {
        let batch = row..args.records.min(row + LOADING as u64);
        let mut pending = Vec::new();
        for number in batch.clone() {
            pending.push(pipeline.mutate(table, write(number, value(&mut random, args.value_bytes as usize))).await);
        }
        try_join_all(pending).await?;
        row = batch.end;
        bar.set_position(row);
    }
    bar.finish_and_clear();
    Ok(())
}

/// What all clients share.
struct Run {
    client: Client,
    pipeline: Pipeline,
    table: Arc<str>,
    work: Work,
    value_bytes: usize,
    /// Operations that are begun together.
    step: u64,
    /// Operations still to begin.
    budget: AtomicU64,
    /// Rows that are there, with those that are being inserted.
    rows: AtomicU64,
    over: AtomicBool,
    chooser: Chooser,
    consistency: Consistency,
}

impl Run {
    async fn client(self: Arc<Run>, mut random: Random) -> Recorder {
        let mut recorder = Recorder::default();
        while let Some(operations) = self.take().filter(|_| !self.over.load(Ordering::Relaxed)) {
            let step = self.work.draw(operations, &self.chooser, &self.rows, &mut random);
            let value = if step.writes() { value(&mut random, self.value_bytes) } else { Bytes::new() };
            let rows = self.new_rows(&step, &mut random);
            let begun = Instant::now();
            let result = match rows.is_empty() {
                true => self.carry_out(&step, value).await,
                false => self.load(rows).await,
            };
            recorder.note(step.kind(), begun.elapsed(), step.count(), result.err());
        }
        recorder
    }

    /// How many operations may be begun now, if any.
    fn take(&self) -> Option<u64> {
        let take = |left: u64| (left > 0).then(|| left.saturating_sub(self.step));
        let left = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(left.min(self.step))
    }

    /// The rows of a load, in key order.
    fn new_rows(&self, step: &Step, random: &mut Random) -> Vec<RowChanges<String>> {
        let Step::Load(first, rows) = *step else { return Vec::new() };
        let row = |number: u64| {
            let changes = write(number, value(random, self.value_bytes)).changes;
            RowChanges { row: Bytes::from(format!("load{number:020}")), changes }
        };
        (first..first + rows).map(row).collect()
    }

    async fn load(&self, rows: Vec<RowChanges<String>>) -> Result<(), client::Error> {
        let written = self.pipeline.mutate_many(&self.table, rows).await.written().await;
        written.each().try_for_each(|row| row.map(|_| ()))
    }

    async fn carry_out(&self, step: &Step, value: Bytes) -> Result<(), client::Error> {
        let pipelined = self.work.is_pipelined();
        match *step {
            Step::Read(row) => self.read(row, pipelined).await,
            Step::Update(row) | Step::Insert(row) => self.write(row, value, pipelined).await,
            Step::ReadModifyWrite(row) => {
                self.read(row, pipelined).await?;
                self.write(row, value, pipelined).await
            }
            Step::Load(..) => Ok(()),
            Step::Scan(row, rows) => {
                let range = RowRange { start: key(row), end: None };
                let options = ReadOptions { consistency: self.consistency, ..ReadOptions::default() };
                let mut found = self.client.scan(&self.table, range, options, Some(rows));
                while let Some(row) = found.next().await {
                    row?;
                }
                Ok(())
            }
        }
    }

    async fn read(&self, row: u64, pipelined: bool) -> Result<(), client::Error> {
        let options = ReadOptions { consistency: self.consistency, ..ReadOptions::default() };
        let found = match pipelined {
            true => match self.pipeline.get(&self.table, key(row), options).await.await? {
                Answer::Row(found, _) => found,
                other => return Err(client::Error::Protocol(format!("asked for a row, got {other:?}"))),
            },
            false => self.client.get(&self.table, key(row), options).await?,
        };
        // A row that is being inserted by another client may not be there yet, nor at a replica that lags.
        let may_lack = self.consistency != Consistency::Linearizable || row >= self.chooser.records();
        match found.is_some() || may_lack {
            true => Ok(()),
            false => Err(client::Error::Protocol(format!("row {row} was written and is not there"))),
        }
    }

    async fn write(&self, row: u64, value: Bytes, pipelined: bool) -> Result<(), client::Error> {
        match pipelined {
            true => self.pipeline.mutate(&self.table, write(row, value)).await.await.map(|_| ()),
            false => self.client.mutate(&self.table, write(row, value)).await.map(|_| ()),
        }
    }
}

/// `user` and the row's number, so scattered that neighbours in number are none in the table (as YCSB does).
fn key(row: u64) -> Bytes {
    Bytes::from(format!("user{:020}", work::scatter(row)))
}

fn value(random: &mut Random, len: usize) -> Bytes {
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        value.extend_from_slice(&random.draw().to_le_bytes());
    }
    value.truncate(len);
    Bytes::from(value)
}

fn write(row: u64, value: Bytes) -> Mutation<String> {
    let put = Change::Put {
        family: FAMILY.to_string(),
        qualifier: Bytes::from_static(COLUMN),
        timestamp: Timestamp::SERVER,
        value,
    };
    Mutation { row: key(row), condition: None, changes: vec![put] }
}

/// A number with commas, for the report.
fn count(number: f64) -> String {
    show::count(number as u64)
}
