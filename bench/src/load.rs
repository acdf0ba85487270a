//! A closed loop: so many clients, each with the same number of operations under way, for some seconds.
//!
//! Only what ends inside the window is counted, and the window opens when all clients have been at work for a while.
//! An answer counts as success only if it says so, and a read only if it has the row's own value.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use model::random::Random;
use tokio::task::JoinSet;

use crate::target::{System, Target, Targets};

/// Rows to choose from.
pub const ROWS: u64 = 10_000;
/// Before the window opens.
const WARM_UP: Duration = Duration::from_millis(500);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Replaces a row's value.
    Put,
    /// Reads a row, linearizably.
    Get,
}

/// How the operations come: `tasks` loops, each with `batch` operations sent and awaited together.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Loops.
    pub tasks: usize,
    /// Operations of each under way.
    pub batch: usize,
}

/// The work of one run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub verb: Verb,
    pub value_bytes: usize,
    pub seconds: u64,
    pub shape: Shape,
}

/// What one run showed.
#[derive(Clone, Debug)]
pub struct Measured {
    pub per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub operations: u64,
    pub errors: u64,
    pub first_error: Option<String>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.p50_us as f64 / 1e3, self.p99_us as f64 / 1e3);
        write!(f, "{:>9.0}/s  p50 {p50:>8.3} ms  p99 {p99:>8.3} ms", self.per_second)?;
        match &self.first_error {
            Some(error) => write!(f, "  {} ERRORS, the first: {error}", self.errors),
            None => Ok(()),
        }
    }
}

/// What one loop saw.
struct Seen {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Seen {
    fn new() -> Result<Seen> {
        Ok(Seen { latencies: Histogram::new_with_bounds(1, 60_000_000, 3)?, errors: 0, first_error: None })
    }

    fn add(&mut self, other: Seen) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }
}

/// Runs it.
pub async fn run(targets: &Targets, system: System, load: Load) -> Result<Measured> {
    let opens = Instant::now() + WARM_UP;
    let closes = opens + Duration::from_secs(load.seconds);
    let mut random = Random::new(1);
    let mut tasks = JoinSet::new();
    for task in 0..load.shape.tasks {
        let target = targets.target(system, load.verb, load.shape.batch, task);
        tasks.spawn(client(target, load, random.fork(), opens, closes));
    }
    let mut all = Seen::new()?;
    while let Some(seen) = tasks.join_next().await {
        all.add(seen??)?;
    }
    let operations = all.latencies.len();
    if operations == 0 && all.errors == 0 {
        bail!("no operation ended within {} s", load.seconds);
    }
    Ok(Measured {
        per_second: operations as f64 / load.seconds as f64,
        p50_us: all.latencies.value_at_quantile(0.5),
        p99_us: all.latencies.value_at_quantile(0.99),
        operations,
        errors: all.errors,
        first_error: all.first_error,
    })
}

async fn client(mut target: Target, load: Load, mut random: Random, opens: Instant, closes: Instant) -> Result<Seen> {
    let mut seen = Seen::new()?;
    let batch = load.shape.batch as u64;
    loop {
        let rows: Vec<Row> = (0..batch).map(|_| Row { number: random.below(ROWS), bytes: load.value_bytes }).collect();
        let begun = Instant::now();
        if begun >= closes {
            return Ok(seen);
        }
        let result = match load.verb {
            Verb::Put => {
                let values = rows.iter().map(|row| row.value(&mut random)).collect();
                target.put(&rows, values).await
            }
            Verb::Get => target.get(&rows).await,
        };
        let ended = Instant::now();
        match result {
            Ok(()) if ended >= opens && ended < closes => {
                let micros = u64::try_from((ended - begun).as_micros()).unwrap_or(u64::MAX);
                seen.latencies.saturating_record_n(micros.max(1), batch);
            }
            Ok(()) => {}
            // Errors count whenever they happen.
            Err(error) => {
                seen.errors += batch;
                seen.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// A row of the data set for values of so many bytes, at least 16.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub number: u64,
    pub bytes: usize,
}

impl Row {
    /// 24 bytes, as YCSB's: neighbours in number are none by key.
    pub fn key(self) -> Bytes {
        let scattered = Random::new(self.number).draw();
        Bytes::from(format!("{:04}{scattered:020}", self.bytes))
    }

    /// The row's number, so that a reader can tell whose value it is, and noise.
    pub fn value(self, random: &mut Random) -> Bytes {
        let mut value = Vec::with_capacity(self.bytes + 8);
        value.extend_from_slice(&self.number.to_le_bytes());
        while value.len() < self.bytes {
            value.extend_from_slice(&random.draw().to_le_bytes());
        }
        value.truncate(self.bytes);
        Bytes::from(value)
    }

    /// Is this a value that was written to this row?
    pub fn check(self, value: Option<&[u8]>) -> Result<()> {
        match value {
            Some(value) if value.len() == self.bytes && value.starts_with(&self.number.to_le_bytes()) => Ok(()),
            Some(value) => bail!("row {} has a value of {} bytes that nobody wrote there", self.number, value.len()),
            None => bail!("row {} was written and is not there", self.number),
        }
    }
}
