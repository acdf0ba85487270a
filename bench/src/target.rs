//! Whom the load goes to: one way to put and get for each system, and what must hold after a run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use client::{Answer, Client, NamedRow, Options, Pipeline};
use model::random::Random;
use model::request::NewTable;
use model::{AdminRequest, Change, Mutation, Partition, ReadOptions, Retention, Timestamp};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::etcd::Etcd;
use crate::load::{ROWS, Row, Verb};
use crate::report::{CLIENTS, IN_FLIGHT, LARGE, SMALL};
use crate::servers::{READY_WITHIN, Servers};

const TABLE: &str = "peers";
const FAMILY: &str = "f";
const COLUMN: &[u8] = b"v";
/// Replicas of each tablet; etcd has as many members.
const REPLICAS: u8 = 3;
/// Fewest replicas that accept writes; a run after which there are not all of [`REPLICAS`] does not count.
const MIN_REPLICAS: u8 = 2;
/// As `diptych bench` and new tables have it.
const TABLETS: u32 = 2;
/// An operation that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// A system, and how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Unary calls.
    Diptych,
    /// The pipelined stream.
    DiptychStream,
    /// Unary calls.
    Etcd,
    /// A command a round trip, or pipelines if the batch is larger.
    Redis,
}

impl System {
    /// Of whom it is.
    pub fn name(self) -> &'static str {
        match self {
            System::Diptych | System::DiptychStream => "diptych",
            System::Etcd => "etcd",
            System::Redis => "redis",
        }
    }
}

/// Connections to all systems. Ours are the client library's own: one to a node, which all clients share. The peers have
/// what was quickest for them when it was tried: etcd one to its leader, redis one for gets, and for puts and pipelines
/// one for each client.
pub struct Targets {
    diptych: Client,
    stream: Pipeline,
    etcd: Etcd,
    redis_shared: MultiplexedConnection,
    redis_own: Vec<MultiplexedConnection>,
}

/// What one loop of a run speaks to.
pub enum Target {
    Diptych(Client),
    Stream(Pipeline, Arc<str>),
    Etcd(Etcd),
    Redis(MultiplexedConnection),
}

impl Targets {
    /// Connects to all, and writes every row once.
    pub async fn connect(servers: &Servers) -> Result<Targets> {
        let diptych = Client::connect(&servers.diptych, Options { deadline: DEADLINE, ..Options::default() })?;
        let table = NewTable {
            name: TABLE.to_string(),
            families: vec![(FAMILY.to_string(), Retention::Versions(1))],
            partition: Partition::Hash { tablets: TABLETS },
            replicas: Some(REPLICAS),
            min_replicas: Some(MIN_REPLICAS),
            storage: model::StorageChange::default(),
        };
        diptych.admin(AdminRequest::CreateTable(table)).await?;
        let redis = redis::Client::open(format!("redis://{}", servers.redis))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
        let mut redis_own = Vec::new();
        for _ in 0..CLIENTS {
            redis_own.push(redis.get_multiplexed_async_connection_with_config(&config).await?);
        }
        let targets = Targets {
            stream: diptych.pipeline(IN_FLIGHT),
            diptych,
            etcd: leader(&servers.etcd).await?,
            redis_shared: redis.get_multiplexed_async_connection_with_config(&config).await?,
            redis_own,
        };
        targets.load().await?;
        Ok(targets)
    }

    /// For the loop of this number.
    pub fn target(&self, system: System, verb: Verb, batch: usize, task: usize) -> Target {
        match system {
            System::Diptych => Target::Diptych(self.diptych.clone()),
            System::DiptychStream => Target::Stream(self.stream.clone(), Arc::from(TABLE)),
            System::Etcd => Target::Etcd(self.etcd.clone()),
            System::Redis if verb == Verb::Get && batch == 1 => Target::Redis(self.redis_shared.clone()),
            System::Redis => Target::Redis(self.redis_own[task % CLIENTS].clone()),
        }
    }

    async fn load(&self) -> Result<()> {
        for system in [System::DiptychStream, System::Etcd, System::Redis] {
            let mut tasks = JoinSet::new();
            for task in 0..IN_FLIGHT as u64 {
                let mut target = self.target(system, Verb::Put, 1, task as usize);
                tasks.spawn(async move {
                    let mut random = Random::new(task);
                    for number in (task..ROWS).step_by(IN_FLIGHT) {
                        for bytes in [SMALL, LARGE] {
                            let row = Row { number, bytes };
                            target.put(&[row], vec![row.value(&mut random)]).await?;
                        }
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(result) = tasks.join_next().await {
                result?.with_context(|| format!("while writing the first rows to {}", system.name()))?;
            }
            self.check(system).await?;
        }
        Ok(())
    }

    /// Is the system still what it is compared as?
    pub async fn check(&self, system: System) -> Result<()> {
        match system {
            System::Diptych | System::DiptychStream => {
                for assignment in self.diptych.map().await?.tablets {
                    let group = &assignment.configuration;
                    ensure!(
                        group.size() == usize::from(REPLICAS),
                        "tablet {} has {} replicas left of {REPLICAS}: the run does not count",
                        assignment.tablet.id,
                        group.size()
                    );
                }
            }
            System::Etcd => {
                ensure!(self.etcd.leads().await?, "the leader of etcd has changed: the run does not count")
            }
            System::Redis => {
                let mut connection = self.redis_shared.clone();
                let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await?;
                for line in ["aof_enabled:1", "aof_last_write_status:ok"] {
                    ensure!(info.lines().any(|found| found == line), "redis does not say {line}");
                }
                let synced: Vec<String> =
                    redis::cmd("CONFIG").arg("GET").arg("appendfsync").query_async(&mut connection).await?;
                ensure!(synced.last().is_some_and(|value| value == "always"), "redis does not sync always: {synced:?}");
            }
        }
        Ok(())
    }
}

/// A connection to the member that leads, once every member knows who does.
async fn leader(members: &[String]) -> Result<Etcd> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match find_leader(members).await {
            Ok(leader) => return Ok(leader),
            Err(error) if Instant::now() >= deadline => return Err(error.context("etcd is not ready")),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn find_leader(members: &[String]) -> Result<Etcd> {
    let mut leader = None;
    for member in members {
        let etcd = Etcd::connect(member).await?;
        if etcd.leads().await? {
            leader = Some(etcd);
        }
    }
    leader.context("no member leads")
}

impl Target {
    /// Writes each row's value. Only redis takes more than one at a time.
    pub async fn put(&mut self, rows: &[Row], values: Vec<Bytes>) -> Result<()> {
        if let (Target::Redis(connection), true) = (&mut *self, rows.len() > 1) {
            let mut commands = redis::pipe();
            for (row, value) in rows.iter().zip(&values) {
                commands.cmd("SET").arg(&row.key()[..]).arg(&value[..]);
            }
            let answers: Vec<String> = commands.query_async(connection).await?;
            ensure!(answers.len() == rows.len() && answers.iter().all(|answer| answer == "OK"), "redis: {answers:?}");
            return Ok(());
        }
        let ([row], [value]) = (rows, values.as_slice()) else { bail!("only redis takes batches") };
        let (key, value) = (row.key(), value.clone());
        match self {
            Target::Diptych(client) => client.mutate(TABLE, mutation(key, value)).await.map(|_| ())?,
            Target::Stream(stream, table) => match stream.mutate(table, mutation(key, value)).await.await? {
                Answer::Written(_) => {}
                other => bail!("a put was answered by {other:?}"),
            },
            Target::Etcd(etcd) => within(etcd.put(key, value)).await?,
            Target::Redis(connection) => {
                let answer: String = redis::cmd("SET").arg(&key[..]).arg(&value[..]).query_async(connection).await?;
                ensure!(answer == "OK", "redis: {answer}");
            }
        }
        Ok(())
    }

    /// Reads each row, and looks whether the value is the row's own.
    pub async fn get(&mut self, rows: &[Row]) -> Result<()> {
        if let (Target::Redis(connection), true) = (&mut *self, rows.len() > 1) {
            let mut commands = redis::pipe();
            for row in rows {
                commands.cmd("GET").arg(&row.key()[..]);
            }
            let answers: Vec<Option<Vec<u8>>> = commands.query_async(connection).await?;
            ensure!(answers.len() == rows.len(), "redis answers {} of {}", answers.len(), rows.len());
            return rows.iter().zip(answers).try_for_each(|(row, value)| row.check(value.as_deref()));
        }
        let &[row] = rows else { bail!("only redis takes batches") };
        let (key, options) = (row.key(), ReadOptions::default());
        match self {
            Target::Diptych(client) => row.check(value(&client.get(TABLE, key, options).await?)),
            Target::Stream(stream, table) => match stream.get(table, key, options).await.await? {
                Answer::Row(found, _) => row.check(value(&found)),
                other => bail!("a get was answered by {other:?}"),
            },
            Target::Etcd(etcd) => row.check(within(etcd.get(key)).await?.as_deref()),
            Target::Redis(connection) => {
                let found: Option<Vec<u8>> = redis::cmd("GET").arg(&key[..]).query_async(connection).await?;
                row.check(found.as_deref())
            }
        }
    }
}

/// Our client and redis' have a deadline of their own.
async fn within<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, call).await.with_context(|| format!("no answer within {DEADLINE:?}"))?
}

fn mutation(row: Bytes, value: Bytes) -> Mutation<String> {
    let qualifier = Bytes::from_static(COLUMN);
    let put = Change::Put { family: FAMILY.to_string(), qualifier, timestamp: Timestamp::SERVER, value };
    Mutation { row, condition: None, changes: vec![put] }
}

fn value(row: &Option<NamedRow>) -> Option<&[u8]> {
    Some(&row.as_ref()?.cells.first()?.value)
}
