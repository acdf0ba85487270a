//! Clients that write, read and swap a handful of rows while a test hurts the cluster, and what they saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, Options, Written};
use model::random::Random;
use model::{Change, Condition, Mutation, ReadOptions, Timestamp};
use sim::linear::{self, Action, Operation, Value};
use tokio::task::JoinHandle;

use super::PATIENCE;

/// The table that is written: create it with [`TABLE`].
pub const TABLE: &[&str] = &["table", "create", "load", "--family", "f", "--partition", "range", "--split", "m"];
/// Three rows in each of the table's two tablets.
pub const ROWS: [&str; 6] = ["a", "b", "c", "x", "y", "z"];
const CLIENTS: u64 = 8;

/// Operations by row, with times in nanoseconds since the load began.
type History = BTreeMap<&'static str, Vec<Operation>>;

/// The same with another name.
pub fn table(name: &str) -> Vec<&str> {
    TABLE.iter().map(|&word| if word == "load" { name } else { word }).collect()
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    endpoint: String,
    table: String,
    begun: Instant,
    /// Values are unique.
    values: AtomicU64,
    stop: AtomicBool,
    history: Mutex<History>,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    /// Sets the clients to work. The seed is printed.
    pub fn start(endpoint: &str, seed: u64) -> Load {
        Load::on("load", endpoint, seed)
    }

    /// On a table of this name.
    pub fn on(table: &str, endpoint: &str, seed: u64) -> Load {
        println!("load: seed {seed}");
        let shared = Arc::new(Shared {
            endpoint: String::from(endpoint),
            table: String::from(table),
            begun: Instant::now(),
            values: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            failures: Mutex::default(),
        });
        let work = |number| tokio::spawn(Arc::clone(&shared).work(Random::new(seed * CLIENTS + number)));
        Load { tasks: (0..CLIENTS).map(work).collect(), shared }
    }

    /// A moment, for [`Load::until_written`].
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Waits for the first acknowledged write to any of the rows that was called after `since`; how long after.
    pub fn until_written(&self, rows: &[&str], since: u64) -> Duration {
        let begun = Instant::now();
        loop {
            let first = {
                let history = self.shared.history.lock().expect("nobody panics with it");
                let operations = rows.iter().filter_map(|row| history.get(row)).flatten();
                let writes = operations.filter(|it| it.called >= since && !matches!(it.action, Action::Read(_)));
                writes.filter_map(|it| it.answered).min()
            };
            if let Some(answered) = first {
                return Duration::from_nanos(answered - since);
            }
            assert!(begun.elapsed() < PATIENCE, "no write to {rows:?} for {PATIENCE:?}: {}", self.failures());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How long writes to the rows took that were called in this time and have ended, the quickest first; `None` is
    /// one that has failed.
    pub fn latencies(&self, rows: &[&str], called: std::ops::Range<u64>) -> Vec<Option<Duration>> {
        let history = self.shared.history.lock().expect("nobody panics with it");
        let operations = rows.iter().filter_map(|row| history.get(row)).flatten();
        let writes = operations.filter(|it| called.contains(&it.called) && !matches!(it.action, Action::Read(_)));
        let took = |it: &Operation| it.answered.map(|answered| Duration::from_nanos(answered - it.called));
        let mut latencies: Vec<Option<Duration>> = writes.map(took).collect();
        latencies.sort_by_key(|latency| latency.unwrap_or(Duration::MAX));
        latencies
    }

    /// What went wrong so far.
    pub fn failures(&self) -> String {
        format!("{:?}", self.shared.failures.lock().expect("nobody panics with it"))
    }

    /// Ends the load and reads every row once more. Panics unless some order explains what all clients saw.
    pub async fn judge(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client does not panic");
        }
        let client = self.shared.connect();
        for row in ROWS {
            let called = self.shared.now();
            let seen = read(&client, &self.shared.table, row)
                .await
                .unwrap_or_else(|error| panic!("the last read of {row}: {error}"));
            self.shared.note(row, called, Some(self.shared.now()), Action::Read(seen));
        }
        let failures = self.shared.failures.lock().expect("nobody panics with it");
        let history = self.shared.history.lock().expect("nobody panics with it");
        let (mut all, mut unanswered) = (0, 0);
        for (row, operations) in &*history {
            all += operations.len();
            unanswered += operations.iter().filter(|operation| operation.answered.is_none()).count();
            if let Err(stuck) = linear::check(operations) {
                panic!(
                    "row {row}: no order explains {} operations, first: {:#?}",
                    stuck.len(),
                    &stuck[..stuck.len().min(9)]
                );
            }
        }
        println!(
            "load: {all} operations are linearizable; {unanswered} writes without an answer; failures {failures:?}"
        );
        assert!(all > 100, "the load did next to nothing");
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a test is short")
    }

    fn connect(&self) -> Client {
        let options = Options { deadline: Duration::from_secs(8), ..Options::default() };
        Client::connect(&self.endpoint, options).expect("an address")
    }

    fn note(&self, row: &'static str, called: u64, answered: Option<u64>, action: Action) {
        let mut history = self.history.lock().expect("nobody panics with it");
        history.entry(row).or_default().push(Operation { called, answered, action });
    }

    /// One client, with routes and connections of its own.
    async fn work(self: Arc<Shared>, mut random: Random) {
        let client = self.connect();
        let mut believed: BTreeMap<&str, Value> = BTreeMap::new();
        while !self.stop.load(Ordering::Relaxed) {
            let row = ROWS[random.below(ROWS.len() as u64) as usize];
            let value = Some(self.values.fetch_add(1, Ordering::Relaxed));
            let (kind, expect) = (random.below(100), believed.get(row).copied().flatten());
            let called = self.now();
            let attempted = match kind {
                0..40 => Action::Read(None),
                40..70 => Action::Write(value),
                70..75 => Action::Write(None),
                _ => Action::Swap(expect, value),
            };
            let done = match attempted {
                Action::Read(_) => read(&client, &self.table, row).await.map(Action::Read),
                Action::Write(value) => write(&client, &self.table, row, None, value).await.map(|_| attempted),
                Action::Swap(from, to) => {
                    write(&client, &self.table, row, Some(from), to).await.map(|present| match present {
                        None => attempted,
                        Some(present) => Action::Read(present),
                    })
                }
            };
            match done {
                Ok(action) => {
                    believed.insert(row, action_leaves(action));
                    self.note(row, called, Some(self.now()), action);
                }
                Err(error) => {
                    *self.failures.lock().expect("nobody panics with it").entry(error.to_string()).or_default() += 1;
                    if !matches!(attempted, Action::Read(_)) {
                        self.note(row, called, None, attempted);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(1 + random.below(8))).await;
        }
    }
}

fn action_leaves(action: Action) -> Value {
    match action {
        Action::Read(value) | Action::Write(value) | Action::Swap(_, value) => value,
    }
}

async fn read(client: &Client, table: &str, row: &'static str) -> Result<Value, client::Error> {
    let found = client.get(table, Bytes::from_static(row.as_bytes()), ReadOptions::default()).await?;
    Ok(found.map(|found| number(&found.cells[0].value)))
}

/// Writes, or deletes; under a condition gives what was there instead, if it did not hold.
async fn write(
    client: &Client,
    table: &str,
    row: &'static str,
    expect: Option<Value>,
    value: Value,
) -> Result<Option<Value>, client::Error> {
    let (family, qualifier) = (String::from("f"), Bytes::from_static(b"q"));
    let bytes = |number: u64| Bytes::from(number.to_string());
    let condition = expect.map(|expect| Condition::Newest {
        family: family.clone(),
        qualifier: qualifier.clone(),
        expect: expect.map(bytes),
    });
    let change = match value {
        Some(value) => Change::Put { family, qualifier, timestamp: Timestamp::SERVER, value: bytes(value) },
        None => Change::DeleteColumn { family, qualifier },
    };
    let mutation = Mutation { row: Bytes::from_static(row.as_bytes()), condition, changes: vec![change] };
    Ok(match client.mutate(table, mutation).await? {
        Written::Applied { .. } => None,
        Written::Differs { present } => Some(present.map(|present| number(&present.value))),
    })
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).expect("only numbers are written")
}
