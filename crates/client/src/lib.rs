//! The Rust client library: asks primaries directly, and keeps asking while that makes sense.
//!
//! ```text
//!   Client ── routing: which node? (pure) ── channels: one connection a node
//!     │          ▲ refusals, maps                │
//!     ├── call: one operation, attempt by attempt┤
//!     ├── scan: pages of all tablets, merged     ├──▶ nodes
//!     ├── many: rows by their keys               │
//!     ├── changes: what happens to rows          │
//!     ├── pipeline: many operations on a stream ─┤
//!     ├── batches: many rows, by tablet ─────────┤
//!     ├── checkpoints: an order to every tablet ─┘
//!     └── master: the map, tables, status ──────────▶ any node's Admin service, or the process's own way
//! ```
//!
//! Always: a mutating request has the same id on every attempt, so it happens once however often it is sent; every
//! operation ends by its deadline; an old map is good until a node refuses it, so nobody needs the master to read or
//! write. Needs a tokio runtime.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the client is a host: it reads the clock and starts tasks"
)]

mod batches;
mod call;
mod changes;
mod channels;
mod checkpoints;
mod error;
mod identity;
mod many;
mod master;
mod pipeline;
mod routing;
mod scan;
mod sequence;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, unfold};
use model::random::Random;
use model::request::ClusterMap;
use model::{
    AdminReply, AdminRequest, ClientId, EventPage, EventQuery, Freshness, Mutation, NodeId, Operation, ReadOptions,
    Refusal, RequestId, Schema,
};
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::channels::Channels;
use crate::routing::{Place, Routing, Seek};
use crate::sequence::Sequences;

pub use crate::batches::{Batches, BlockId, PendingRow};
pub use crate::changes::{Changes, Step};
pub use crate::checkpoints::{CheckpointState, CheckpointStatus, Checkpoints, Removal};
pub use crate::error::Error;
pub use crate::identity::{ACTING, Identity};
pub use crate::many::Found;
pub use crate::master::Master;
pub use crate::pipeline::{Pending, PendingMany, Pipeline, WrittenMany};
pub use crate::scan::{Rows, RowsFrom};
pub use wire::v1::NodeAction;
pub use wire::{Answer, NamedCell, NamedRow, Present, Written};

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// An operation that has no answer by then fails with [`Error::Deadline`].
    pub deadline: Duration,
    /// The first attempt has no answer by then: look for another primary and try again. Doubles with every attempt
    /// that ends so, for answers that take long because they are large.
    pub attempt: Duration,
    /// An endpoint that has never answered is given up after this.
    pub first_contact: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(1),
            first_contact: Duration::from_secs(2),
        }
    }
}

/// A client of one cluster. Clones share connections, the map and the client id.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    identity: Identity,
    /// The way to the master of whoever this is, if that is another one than the process's own.
    master: Option<Arc<dyn Master>>,
}

struct Inner {
    options: Options,
    endpoint: Option<Arc<str>>,
    master: Arc<dyn Master>,
    channels: Arc<Channels>,
    routing: RwLock<Routing>,
    /// The last fetch of the map: when it began, and what became of it. Locked while one is under way.
    fetched: tokio::sync::Mutex<Option<(Instant, Result<(), Error>)>>,
    /// Is a fetch under way that nobody waits for?
    fetching: AtomicBool,
    sequences: Arc<Sequences>,
    random: Mutex<Random>,
    /// Counts eventual reads; begins anywhere, so that many young clients do not all ask the same replica.
    turns: AtomicUsize,
    /// Attempts that went to where a tablet was before.
    redirects: AtomicU64,
}

/// A follower of events hears at least this often, if only that there is nothing new.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);
/// Between the beginnings of two fetches of the map.
const FETCH_PAUSE: Duration = Duration::from_millis(50);
/// A fetch has ended by then: long enough to ask a few nodes one after another.
const FETCH_PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// A client of the cluster to which the node at `endpoint` (`host:port`) belongs. Connects when it is first used.
    pub fn connect(endpoint: &str, options: Options) -> Result<Client, Error> {
        Client::connect_as(endpoint, options, Identity::default())
    }

    /// The same as somebody.
    pub fn connect_as(endpoint: &str, options: Options, identity: Identity) -> Result<Client, Error> {
        let endpoint = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        channels::endpoint(endpoint)?;
        let (endpoint, channels) = (Arc::<str>::from(endpoint), Arc::new(Channels::default()));
        let master = Arc::new(master::Gateway::new(Arc::clone(&endpoint), Arc::clone(&channels), identity.clone()));
        Ok(Client { identity, ..Client::new(Some(endpoint), master, channels, options) })
    }

    /// A client inside a process of the cluster, which has its own way to the master.
    pub fn with_master(master: Arc<dyn Master>, options: Options) -> Client {
        Client::new(None, master, Arc::new(Channels::default()), options)
    }

    /// The same client as somebody else, who may have a way of their own to the master. The map, which nobody outside sees,
    /// it goes on to get by the first one.
    pub fn acting(&self, identity: Identity, master: Option<Arc<dyn Master>>) -> Client {
        Client { inner: Arc::clone(&self.inner), identity, master }
    }

    fn new(endpoint: Option<Arc<str>>, master: Arc<dyn Master>, channels: Arc<Channels>, options: Options) -> Client {
        let inner = Inner {
            options,
            endpoint,
            master,
            channels,
            routing: RwLock::default(),
            fetched: tokio::sync::Mutex::default(),
            fetching: AtomicBool::new(false),
            sequences: Sequences::new(ClientId(sequence::chance())),
            random: Mutex::new(Random::new(sequence::chance())),
            turns: AtomicUsize::new(sequence::chance() as u16 as usize),
            redirects: AtomicU64::new(0),
        };
        Client { inner: Arc::new(inner), identity: Identity::default(), master: None }
    }

    /// Changes a row, atomically. Applied once, however often it had to be sent.
    pub async fn mutate(&self, table: &str, mutation: Mutation<String>) -> Result<Written, Error> {
        self.write(table, RequestId::default(), mutation).await
    }

    /// Reads a row; `None` if it has no such cell.
    pub async fn get(&self, table: &str, row: Bytes, options: ReadOptions<String>) -> Result<Option<NamedRow>, Error> {
        self.read(table, row, options).await.map(|(row, _)| row)
    }

    /// Reads a row, and says which replica answered and how old its answer may be, if the read was eventual
    /// ([`model::Consistency::Eventual`]). Eventual reads are spread over all replicas, and go to another one if
    /// the first is away or older than allowed.
    pub async fn get_from(
        &self,
        table: &str,
        row: Bytes,
        options: ReadOptions<String>,
    ) -> Result<(Option<NamedRow>, Option<Freshness>), Error> {
        self.read(table, row, options).await
    }

    /// Carries out an operation as a gateway does for others. A write that has no request id (sequence 0) gets one.
    /// Not for several rows: they are [`Client::scan`], [`Client::get_many`] and [`Client::mutate_many`].
    pub async fn execute(&self, table: &str, operation: Operation) -> Result<Answer, Error> {
        match operation {
            Operation::Write { request, mutation } => self.write(table, request, mutation).await.map(Answer::Written),
            Operation::Get { row, options } => {
                self.read(table, row, options).await.map(|(row, from)| Answer::Row(row, from))
            }
            Operation::WriteMany { .. }
            | Operation::GetMany { .. }
            | Operation::Scan { .. }
            | Operation::Changes(_) => {
                let what = "several rows are a stream of pages, not one operation";
                Err(Error::Refused(Refusal::Invalid(String::from(what))))
            }
        }
    }

    /// Asks the master. Repeated on passing refusals, and after lost answers if it changes nothing.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        let asks = request.only_asks();
        let (begun, mut course) = (Instant::now(), routing::Course::default());
        let deadline = begun + self.inner.options.deadline;
        loop {
            let attempt = self.master.as_ref().unwrap_or(&self.inner.master).ask(request.clone());
            let error = match timeout_at(deadline, attempt).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_) => Error::lost("the master", "none before the deadline"),
            };
            if !error.is_passing() || (!asks && matches!(error, Error::Lost { .. })) || self.never_met(&error, begun) {
                return Err(error);
            }
            let pause = self.pause(&mut course);
            if Instant::now() + pause >= deadline {
                return Err(Error::Deadline { after: begun.elapsed(), last: Box::new(error) });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What happened: one page of events. [`EventQuery::since`] of the next page is [`EventPage::next`] of this one.
    pub async fn events(&self, query: EventQuery) -> Result<EventPage, Error> {
        match self.admin(AdminRequest::Events(query)).await? {
            AdminReply::Events(page) => Ok(page),
            reply => Err(Error::Protocol(format!("asked for events, got {reply:?}"))),
        }
    }

    /// What happened and what will: page after page, without end. A page may be empty: nothing has happened for a
    /// while. After an error the same is asked again when the stream is polled again.
    pub fn follow_events(&self, query: EventQuery) -> BoxStream<'static, Result<EventPage, Error>> {
        // The master answers well before the time is up.
        let wait = (self.inner.options.deadline / 2).min(FOLLOW_WAIT);
        let query = EventQuery { wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX), ..query };
        Box::pin(unfold((self.clone(), query), |(client, mut query)| async move {
            let page = client.events(query.clone()).await;
            if let Ok(page) = &page {
                query.since = Some(page.next);
            }
            Some((page, (client, query)))
        }))
    }

    /// Where everything is.
    pub async fn map(&self) -> Result<ClusterMap, Error> {
        match self.admin(AdminRequest::Map).await? {
            AdminReply::Map(map) => Ok(map),
            reply => Err(Error::Protocol(format!("asked for the map, got {reply:?}"))),
        }
    }

    /// All tables, by name.
    pub async fn tables(&self) -> Result<Vec<Schema>, Error> {
        Ok(wire::admin::tables(&self.map().await?))
    }

    /// One table.
    pub async fn table(&self, name: &str) -> Result<Schema, Error> {
        let map = self.map().await?;
        let found = wire::admin::tables(&map).into_iter().find(|schema| schema.name == name);
        found.ok_or_else(|| map.lacks(name).into())
    }

    /// Suspends, resumes, kills or restarts the process of a node. Only the endpoint of `diptych up` does that.
    pub async fn control_node(&self, node: NodeId, action: NodeAction) -> Result<(), Error> {
        let Some(endpoint) = &self.inner.endpoint else {
            return Err(Refusal::Invalid(String::from("processes are controlled through `diptych up` only")).into());
        };
        let request = wire::v1::ControlNodeRequest { node: node.0, action: action.into() };
        let mut admin = self.inner.channels.admin(endpoint, &self.identity)?;
        match timeout(self.inner.options.deadline, admin.control_node(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                let what = format!("{endpoint} does not control processes; ask the endpoint of `diptych up`");
                Err(Refusal::Invalid(what).into())
            }
            Ok(Err(status)) => Err(Error::from_status(endpoint, &status)),
            Err(_) => Err(Error::lost(endpoint, "none before the deadline")),
        }
    }

    /// Many operations under way at once, at most `in_flight`.
    pub fn pipeline(&self, in_flight: usize) -> Pipeline {
        Pipeline::new(self.clone(), in_flight)
    }

    /// Where to ask; fetches the map if the one we have does not say.
    async fn place(&self, table: &str, seek: Seek<'_>, detour: usize) -> Result<Place, Error> {
        if let Ok(place) = self.inner.routing.read().locate(table, seek, detour) {
            return Ok(place);
        }
        self.fetch_map(Instant::now()).await?;
        self.inner.routing.read().locate(table, seek, detour).map_err(|unknown| unknown.into_error(table))
    }

    /// Sees to it that the map was fetched no earlier than `asked`. One fetch at a time serves all who wait for it.
    async fn fetch_map(&self, asked: Instant) -> Result<(), Error> {
        let mut fetched = self.inner.fetched.lock().await;
        if let Some((begun, result)) = &*fetched {
            if *begun >= asked {
                return result.clone();
            }
            sleep_until(*begun + FETCH_PAUSE).await;
        }
        let begun = Instant::now();
        let result = match timeout(FETCH_PATIENCE, self.inner.master.ask(AdminRequest::Map)).await {
            Ok(Ok(AdminReply::Map(map))) => {
                self.inner.routing.write().replace(map);
                self.close_unneeded();
                Ok(())
            }
            Ok(Ok(reply)) => Err(Error::Protocol(format!("asked for the map, got {reply:?}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::lost("the master", format!("none within {FETCH_PATIENCE:?}"))),
        };
        *fetched = Some((begun, result.clone()));
        result
    }

    /// Fetches the map while the caller does something else. If the master is away, the old map goes on to serve.
    fn fetch_map_soon(&self) {
        if !self.inner.fetching.swap(true, Ordering::AcqRel) {
            let client = self.clone();
            tokio::spawn(async move {
                // What became of it is kept in `fetched` for whoever needs the map.
                let _ = client.fetch_map(Instant::now()).await;
                client.inner.fetching.store(false, Ordering::Release);
            });
        }
    }

    fn close_unneeded(&self) {
        let routing = self.inner.routing.read();
        let needed = |address: &str| {
            self.inner.endpoint.as_deref() == Some(address) || routing.addresses().any(|known| &**known == address)
        };
        self.inner.channels.keep(needed);
    }

    /// How many attempts of all clones went to where a tablet was before, and were sent on by its node's refusal:
    /// its group was reconfigured, or it was split.
    pub fn redirects(&self) -> u64 {
        self.inner.redirects.load(Ordering::Relaxed)
    }

    fn pause(&self, course: &mut routing::Course) -> Duration {
        course.pause(&mut self.inner.random.lock())
    }

    /// Has nobody ever answered at the endpoint, for so long that probably nobody is there?
    fn never_met(&self, error: &Error, begun: Instant) -> bool {
        matches!(error, Error::Unreachable { .. })
            && begun.elapsed() >= self.inner.options.first_contact
            && !self.inner.routing.read().is_loaded()
    }
}
