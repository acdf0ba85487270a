//! The gateway: any process of the cluster takes any client's request and passes it on to where it belongs.
//!
//! ```text
//!   Kv without a route, REST ─▶ client::Client ─▶ primaries        (it retries, and has its own map)
//!   Admin, and the map       ─▶ Desk ─▶ Peer.Admin of the master that leads
//! ```
//!
//! The map is remembered: while no master answers, clients get the last one, and nodes correct what is old in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{Client, Error, Identity, Master, NodeAction, Pipeline};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use model::access::{DOCUMENTS, Right, forbidden};
use model::request::ClusterMap;
use model::{AdminReply, AdminRequest, NodeId, Refusal, Rights};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use wire::frame;
use wire::peer::v1::peer_client::PeerClient;

use crate::access::Access;
use crate::control::NodeControl;
use crate::host::{Health, Shutdown};
use crate::masters::{self, Masters};
use crate::{http, rpc};

/// How long a master may take to answer what only asks, and what changes something.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// How long it may take to answer with a map, if there is an older one.
const MAP_PATIENCE: Duration = Duration::from_millis(400);
/// Masters that are asked for one request.
const ASKED: usize = 12;
/// Requests with many rows each that may be under way.
const MANY: usize = 64;
/// How often the map is fetched though nobody asks for it, and how soon if there is none yet.
const MAP_AGES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(500));

/// The way of requests that nobody has routed. Clones share connections and the map.
#[derive(Clone)]
pub struct Gateway {
    client: Client,
    rows: Pipeline,
    desk: Arc<Desk>,
    control: Option<NodeControl>,
    bigtable: rpc::bigtable::Options,
    /// Of a local cluster, with its `cluster.json`.
    folder: Option<PathBuf>,
    access: Access,
}

impl Gateway {
    /// Of the cluster with these masters. Needs a runtime.
    pub fn new(masters: Masters, access: Access) -> Gateway {
        let identity = access.identity();
        let desk =
            Arc::new(Desk { masters, identity: identity.clone(), channels: Mutex::default(), map: Mutex::default() });
        tokio::spawn(keep_map(Arc::downgrade(&desk)));
        if access.is_on() {
            tokio::spawn(keep_policy(Arc::downgrade(&desk), access.clone()));
        }
        let client = Client::with_master(Arc::clone(&desk) as Arc<dyn Master>, client::Options::default());
        let bigtable = rpc::bigtable::Options::default();
        let client = client.acting(identity, None);
        Gateway { rows: client.pipeline(MANY), client, desk, control: None, access, bigtable, folder: None }
    }

    /// The same with what the operator has chosen for the Bigtable API.
    pub fn with_bigtable(self, bigtable: rpc::bigtable::Options) -> Gateway {
        Gateway { bigtable, ..self }
    }

    /// What the operator has chosen for the Bigtable API.
    pub fn bigtable(&self) -> &rpc::bigtable::Options {
        &self.bigtable
    }

    /// The same in the process that started the nodes, and keeps their list in this folder.
    pub fn with_control(self, control: NodeControl, folder: PathBuf) -> Gateway {
        Gateway { control: Some(control), folder: Some(folder), ..self }
    }

    /// Where the list of the processes is that this one started.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// For rows, and for whatever shall be repeated until it succeeds or its time is up; in the name of whoever made the
    /// request in whose task we are.
    pub fn client(&self) -> Client {
        let caller = self.access.present();
        match (caller.rights(), caller.identity()) {
            (None, _) => self.client.clone(),
            (Some(rights), identity) => {
                let desk = Confined { desk: Arc::clone(&self.desk), rights: Arc::clone(&rights) };
                self.client.acting(identity.unwrap_or_default(), Some(Arc::new(desk)))
            }
        }
    }

    /// For many rows at once; likewise.
    pub fn pipeline(&self) -> Pipeline {
        match self.access.present().rights() {
            None => self.rows.clone(),
            Some(_) => self.client().pipeline(MANY),
        }
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Can this process do something to those of the nodes?
    pub fn has_control(&self) -> bool {
        self.control.is_some()
    }

    /// Asks the master, once; likewise.
    pub async fn ask(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        match self.access.present().rights() {
            None => self.desk.ask_or_remember(request).await,
            Some(rights) => Confined { desk: Arc::clone(&self.desk), rights }.ask(request).await,
        }
    }

    /// The same for the process itself.
    pub async fn ask_of_itself(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        self.desk.ask_or_remember(request).await
    }

    /// Does something to a node's process.
    pub async fn control(&self, node: NodeId, action: NodeAction) -> Result<(), Refusal> {
        let Some(control) = self.control.clone() else {
            return Err(Refusal::Invalid(String::from("processes are controlled through `diptych up` only")));
        };
        if self.access.present().rights().is_some_and(|rights| !rights.may_cluster(Right::Admin)) {
            return Err(forbidden(Right::Admin, "cluster"));
        }
        let done = tokio::task::spawn_blocking(move || control(node, action));
        done.await.unwrap_or_else(|error| Err(Refusal::Invalid(format!("could not {action:?} {node}: {error}"))))
    }
}

/// Serves Kv, Admin and HTTP in a process without a node of its own, until it shall stop.
pub async fn run(grpc: TcpListener, web: TcpListener, gateway: Gateway, shutdown: Shutdown) -> anyhow::Result<()> {
    let health = Health::default();
    let access = gateway.access().clone();
    let services = rpc::serve_gateway(grpc, gateway.clone(), health.clone(), shutdown.clone());
    tokio::try_join!(services, http::serve(web, gateway, access, health, shutdown)).map(|_| ())
}

/// Where the masters are asked, from inside the cluster.
struct Desk {
    masters: Masters,
    identity: Identity,
    channels: Mutex<BTreeMap<String, Channel>>,
    /// The newest that any has given.
    map: Mutex<Option<ClusterMap>>,
}

impl Desk {
    async fn ask_or_remember(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        if request != AdminRequest::Map {
            return self.ask_in_turn(request).await;
        }
        let remembered = self.map.lock().clone();
        let result = match remembered {
            None => self.ask_in_turn(request).await,
            Some(map) => match timeout(MAP_PATIENCE, self.ask_in_turn(request)).await {
                Ok(Err(error)) if !error.is_passing() => Err(error),
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) | Err(_) => return Ok(AdminReply::Map(ClusterMap { old: true, ..map })),
            },
        };
        if let Ok(AdminReply::Map(map)) = &result {
            let mut newest = self.map.lock();
            if newest.as_ref().is_none_or(|known| known.version <= map.version) {
                *newest = Some(map.clone());
            }
        }
        result
    }

    /// Asks the leader, if one is known, and then the others until one has answered. One that does not lead may say
    /// who does, who is then the next.
    async fn ask_in_turn(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        let mut next = self.masters.all();
        let mut asked: Vec<String> = Vec::new();
        let mut last = Error::Refused(Refusal::NoMaster);
        while let Some(address) = next.pop_front() {
            if asked.contains(&address) || asked.len() >= ASKED {
                continue;
            }
            let mut leader = None;
            match self.ask_one(&address, request.clone(), &mut leader).await {
                Err(error) if goes_on(&error, &request) => last = error,
                result => {
                    self.masters.led_by(&address);
                    if let Ok(AdminReply::Masters(masters)) = &result {
                        self.masters.learn(masters);
                    }
                    return result;
                }
            }
            self.masters.not_led_by(&address);
            next.extend(leader.clone());
            next.rotate_right(usize::from(leader.is_some()));
            asked.push(address);
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        address: &str,
        request: AdminRequest,
        leader: &mut Option<String>,
    ) -> Result<AdminReply, Error> {
        let Some(channel) = self.channel(address) else {
            return Err(Error::Unreachable { endpoint: address.into(), why: String::from("this is no host:port") });
        };
        let mut peer =
            PeerClient::with_interceptor(channel, self.identity.clone()).max_decoding_message_size(frame::MAX_FRAME);
        let patience = if request.only_asks() { PATIENCE.0 + request.waits() } else { PATIENCE.1 };
        match timeout(patience, peer.admin(frame::encode(&request))).await {
            Ok(Ok(response)) => {
                *leader = masters::hint_in(response.metadata());
                match frame::decode::<Result<AdminReply, Refusal>>(response.into_inner()) {
                    Ok(answer) => answer.map_err(Error::Refused),
                    Err(error) => Err(Error::Protocol(error.to_string())),
                }
            }
            Ok(Err(status)) => Err(Error::from_status(address, &status)),
            Err(_) => Err(Error::Lost { endpoint: address.into(), why: format!("none within {patience:?}") }),
        }
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock();
        if let Some(known) = channels.get(address) {
            return Some(known.clone());
        }
        let new = channel(address)?;
        channels.insert(String::from(address), new.clone());
        Some(new)
    }
}

impl Master for Desk {
    fn ask(&self, request: AdminRequest) -> BoxFuture<'_, Result<AdminReply, Error>> {
        self.ask_or_remember(request).boxed()
    }
}

/// The way to the masters of somebody who may not do everything.
struct Confined {
    desk: Arc<Desk>,
    rights: Arc<Rights>,
}

impl Master for Confined {
    fn ask(&self, request: AdminRequest) -> BoxFuture<'_, Result<AdminReply, Error>> {
        if let Err(refusal) = self.rights.check_admin(&request) {
            return ready(Err(refusal.into())).boxed();
        }
        async {
            let mut reply = self.desk.ask_or_remember(request).await?;
            match &mut reply {
                AdminReply::Map(map) => map.tablets.retain(|tablet| self.rights.concerns(&tablet.schema.name)),
                AdminReply::Hidden(tables) => tables.retain(|schema| self.rights.concerns(&schema.name)),
                _ => {}
            }
            Ok(reply)
        }
        .boxed()
    }
}

/// Sees to it that the process knows who may do what.
async fn keep_policy(desk: Weak<Desk>, access: Access) {
    while let Some(desk) = desk.upgrade() {
        if let Ok(AdminReply::Documents(documents)) = desk.ask_in_turn(AdminRequest::Documents(DOCUMENTS.into())).await
        {
            for wrong in access.learn(&documents) {
                tracing::warn!(event = "principal_refused", "{wrong}");
            }
        }
        drop(desk);
        sleep(access.refresh()).await;
    }
}

/// Fetches the map now and then, so that there is one to remember when the masters are away, and asks who they are.
async fn keep_map(desk: Weak<Desk>) {
    while let Some(desk) = desk.upgrade() {
        let known = desk.ask_or_remember(AdminRequest::Map).await.is_ok();
        if known {
            // In the next round, if not in this one.
            let _ = desk.ask_in_turn(AdminRequest::Masters).await;
        }
        drop(desk);
        sleep(if known { MAP_AGES.0 } else { MAP_AGES.1 }).await;
    }
}

/// May another master be asked after this?
fn goes_on(error: &Error, request: &AdminRequest) -> bool {
    match error {
        Error::Refused(Refusal::NoMaster) | Error::Unreachable { .. } => true,
        Error::Lost { .. } => request.only_asks(),
        _ => false,
    }
}

fn channel(address: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_millis(500))
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3));
    Some(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes something is never said to a second master after the first may have heard it.
    #[test]
    fn a_lost_change_is_not_repeated() {
        let lost = Error::Lost { endpoint: String::from("m1"), why: String::from("reset") };
        let unreachable = Error::Unreachable { endpoint: String::from("m1"), why: String::from("refused") };
        let drop = AdminRequest::DropTable(String::from("users"));
        assert!(goes_on(&lost, &AdminRequest::Map) && goes_on(&unreachable, &drop));
        assert!(!goes_on(&lost, &drop));
        assert!(goes_on(&Refusal::NoMaster.into(), &drop));
        assert!(!goes_on(&Refusal::NoSuchTable(String::from("users")).into(), &drop));
    }
}
