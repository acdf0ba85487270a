//! The host of the master: a thread with [`Master`], the consensus below it, and the nodes' streams above it.
//!
//! ```text
//!   Peer.Admin ──▶ MasterHandle ──Order──▶ thread: Master ──Propose──▶ consensus
//!   Peer.Session ─▶ Session::hear ──▲         │     ▲──────Apply, Lead────┘ ▲
//!                     ▲───── FromMaster ──────┘        Peer.Consensus ──────┘ from other masters
//! ```
//!
//! Effects are carried out after each step, in their order. Messages to nodes and proposals may get lost where a queue
//! is full: the master and the nodes say everything again. Requests that wait are bounded; so are orders from outside.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use client::Identity;
use disk::Disk;
use master::{Effect, Input, Master, Options};
use metrics::{Gauge, gauge};
use model::event::Source;
use model::{AdminReply, AdminRequest, ClusterId, NodeId, Refusal, Ticket};
use parking_lot::Mutex;
use protocol::{Core, FromMaster, ToMaster};
use tokio::sync::{mpsc, oneshot, watch};

use super::consensus::network::Grpc;
use super::consensus::{Apply, Beginning, Consensus, Standing};
use super::inbox::Inbox;
use super::node::shard::Clock;
use super::node::threads::{die, spawn};
use super::{Founding, Health, MasterArgs, Shutdown, announce, bind, chance, open_disk};
use crate::access::Access;
use crate::{http, rpc};

/// Orders from nodes and clients that the thread has not looked at.
const ORDERS: usize = 4096;
/// Clients that wait for an answer.
const WAITING: usize = 4096;
/// Commands on their way to the consensus.
const PROPOSALS: usize = 1024;
/// Gauges are brought up to date this often.
const GAUGES: Duration = Duration::from_secs(1);

/// Runs a master until the process is asked to stop.
pub async fn run_master(args: MasterArgs) -> anyhow::Result<()> {
    ensure!(args.id > 0, "masters are numbered from 1; give --id 1");
    ensure!(
        args.min_replicas <= args.replicas,
        "--min-replicas {} exceeds --replicas {}",
        args.min_replicas,
        args.replicas
    );
    let shutdown = Shutdown::on_signals()?;
    let grpc = bind(args.grpc, "--grpc").await?;
    let web = match args.http {
        Some(address) => Some(bind(address, "--http").await?),
        None => None,
    };
    let web_address = web.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?;
    let grpc_address = grpc.local_addr()?;

    let health = Health::default();
    let address = args.advertise.clone().unwrap_or_else(|| grpc_address.to_string());
    let access = Access::open(args.access.as_deref())?;
    let running = Running::start(&args, address, access.identity(), health.clone()).await?;
    announce(grpc_address, web_address);
    let services = rpc::serve_master(grpc, running.handle.clone(), access.clone(), health.clone(), shutdown.clone());
    let served = match web {
        Some(web) => tokio::try_join!(services, http::serve(web, None, access, health, shutdown)).map(|_| ()),
        None => services.await,
    };
    running.stop().await;
    served
}

/// A running master.
struct Running {
    handle: MasterHandle,
    consensus: Consensus,
}

impl Running {
    async fn start(args: &MasterArgs, address: String, identity: Identity, health: Health) -> anyhow::Result<Running> {
        let data = args.data.clone();
        let opening = tokio::task::spawn_blocking(move || open_disk(&data));
        let disk = opening.await.context("opening the data met a bug in Diptych")??;
        let options = Options {
            timing: args.timing.clone(),
            seed: chance(),
            replicas: args.replicas,
            min_replicas: args.min_replicas,
            balance_after: args.balance_after,
            split_bytes: args.split_bytes,
            split_load: args.split_load,
            merge_after: args.merge_after,
        };
        let founding = args.founding.clone();
        Running::on(disk, (u64::from(args.id), address, identity), founding, options, health)
            .await
            .with_context(|| format!("cannot recover the data in {}", args.data.display()))
    }

    async fn on(
        disk: Arc<dyn Disk>,
        (id, address, identity): (u64, String, Identity),
        founding: Founding,
        options: Options,
        health: Health,
    ) -> anyhow::Result<Running> {
        health.set("leader", Err(String::from("this master has heard of no master that leads")));
        let handle = MasterHandle::default();
        let (proposals, mut proposed) = mpsc::channel::<Bytes>(PROPOSALS);
        let thread = MasterThread::new(options, handle.clone(), proposals);
        spawn("master", move || thread.run());

        let inbox = Arc::clone(&handle.shared.inbox);
        let apply = Arc::new(move |apply| inbox.push(Order::Apply(apply)));
        let cluster = Arc::clone(&handle.shared.cluster);
        let post = Arc::new(Grpc::new(identity));
        let beginning = Beginning { id, address, founding: founding.clone(), cluster, post };
        let (consensus, note) = Consensus::start(disk, beginning, apply).await?;
        handle.shared.consensus.get_or_init(|| consensus.clone());
        if let Some(note) = note {
            tracing::warn!(event = "recovery_note", "{note}");
        }
        let proposer = consensus.clone();
        tokio::spawn(async move {
            while let Some(command) = proposed.recv().await {
                if !proposer.propose(command).await {
                    return;
                }
            }
        });
        let (follower, shared) = (consensus.clone(), Arc::clone(&handle.shared));
        tokio::spawn(async move {
            let mut led = None;
            let tell = |standing: &Standing| {
                let leader = standing.leader.as_ref().map(|(_, address)| address.clone());
                let nobody = || match &standing.refused {
                    Some(why) => format!("another master does not accept this one: {why}"),
                    None => String::from("this master has heard of no master that leads"),
                };
                if let Some(why) = &standing.refused {
                    tracing::warn!(event = "master_refused", "another master does not accept this one: {why}");
                }
                health.set("leader", leader.is_some().then_some(()).ok_or_else(nobody));
                if led != standing.leads {
                    led = standing.leads;
                    shared.inbox.push(Order::Lead(standing.leads));
                }
                let masters = standing.members.clone();
                shared.standing.send_replace(Led { leads: standing.leads, leader, masters });
            };
            if let Some(why) = follower.follow(tell).await {
                die(&format!("the master's log cannot go on: {why}"));
            }
        });
        tokio::spawn(consensus.clone().measure());
        let keeper = consensus.clone();
        tokio::spawn(async move { die(&keeper.keep(founding).await) });
        Ok(Running { handle, consensus })
    }

    async fn stop(self) {
        self.consensus.stop().await;
        self.handle.shared.inbox.close();
    }
}

/// What the thread is told.
enum Order {
    Ask(AdminRequest, oneshot::Sender<Result<AdminReply, Refusal>>),
    Heard(Line, ToMaster),
    Apply(Apply),
    Lead(Option<u64>),
}

/// Where requests and nodes reach the master's thread. Cheap to clone.
#[derive(Clone, Default)]
pub struct MasterHandle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inbox: Arc<Inbox<Order>>,
    /// Orders from outside in the inbox.
    outside: AtomicUsize,
    lines: Mutex<BTreeMap<NodeId, Line>>,
    sessions: AtomicUsize,
    standing: watch::Sender<Led>,
    consensus: OnceLock<Consensus>,
    /// Once it is founded.
    cluster: Arc<OnceLock<ClusterId>>,
}

/// How this master stands among the masters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// The term in which it leads.
    pub leads: Option<u64>,
    /// Where the one is that leads, as far as this one has heard.
    pub leader: Option<String>,
    /// Where all are.
    pub masters: Vec<String>,
}

/// The way to a node.
#[derive(Clone)]
struct Line {
    node: NodeId,
    session: usize,
    outgoing: mpsc::Sender<FromMaster>,
}

impl Line {
    /// Lost if the node does not keep up.
    fn say(&self, message: FromMaster) {
        let _ = self.outgoing.try_send(message);
    }
}

impl Shared {
    /// An order from outside; not taken if too many wait.
    fn order(&self, order: Order) -> bool {
        if self.outside.fetch_add(1, Ordering::Relaxed) >= ORDERS {
            self.outside.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.inbox.push(order);
        true
    }
}

impl MasterHandle {
    /// Asks the master; `Refusal::NoMaster` if it stops or does not lead, `Refusal::Overloaded` if too much waits.
    /// Dropping the future forgets the answer, not the request.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminReply, Refusal> {
        let consensus = self.shared.consensus.get();
        match (request, consensus) {
            (AdminRequest::Masters, Some(consensus)) => consensus.masters().map(AdminReply::Masters),
            (AdminRequest::AddMaster { id, address }, Some(consensus)) => {
                consensus.add(u64::from(id), address).await.map(AdminReply::Masters)
            }
            (AdminRequest::RemoveMaster(id), Some(consensus)) => {
                consensus.remove(u64::from(id)).await.map(AdminReply::Masters)
            }
            (request, consensus) => {
                let mut answer = self.ask(request).await;
                if let (Ok(AdminReply::Status(status)), Some(consensus)) = (&mut answer, consensus) {
                    status.masters = consensus.masters()?;
                }
                answer
            }
        }
    }

    async fn ask(&self, request: AdminRequest) -> Result<AdminReply, Refusal> {
        let (answer, answered) = oneshot::channel();
        if !self.shared.order(Order::Ask(request, answer)) {
            return Err(Refusal::Overloaded);
        }
        answered.await.unwrap_or(Err(Refusal::NoMaster))
    }

    /// A node's stream has opened: what the master says to the node goes to `outgoing`, and is lost where that is
    /// full. The newest session of a node takes the place of an older one. It ends when the [`Session`] is dropped,
    /// and then `outgoing` is dropped too.
    pub fn session(&self, node: NodeId, outgoing: mpsc::Sender<FromMaster>) -> Session {
        let line = Line { node, session: self.shared.sessions.fetch_add(1, Ordering::Relaxed), outgoing };
        self.shared.lines.lock().insert(node, line.clone());
        Session { shared: Arc::clone(&self.shared), line }
    }

    /// Does this master lead, and if not, who does?
    pub fn standing(&self) -> Led {
        self.shared.standing.borrow().clone()
    }

    /// Tells of every change of that.
    pub fn watch(&self) -> watch::Receiver<Led> {
        self.shared.standing.subscribe()
    }

    /// Returns once this master does not lead any more, or leads anew.
    pub fn deposed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut standing = self.shared.standing.subscribe();
        let term = standing.borrow().leads;
        async move {
            // An error means that the master is gone.
            let _ = standing.wait_for(|now| now.leads.is_none() || now.leads != term).await;
        }
    }

    /// What other masters speak to, once it has begun.
    pub fn consensus(&self) -> Option<&Consensus> {
        self.shared.consensus.get()
    }
}

/// A node's open stream.
pub struct Session {
    shared: Arc<Shared>,
    line: Line,
}

impl Session {
    /// The node has said this. Lost if too much waits already; the node says it again.
    pub fn hear(&self, message: ToMaster) {
        self.shared.order(Order::Heard(self.line.clone(), message));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut lines = self.shared.lines.lock();
        if lines.get(&self.line.node).is_some_and(|line| line.session == self.line.session) {
            lines.remove(&self.line.node);
        }
    }
}

/// The thread and its master.
struct MasterThread {
    master: Master,
    clock: Clock,
    handle: MasterHandle,
    proposals: mpsc::Sender<Bytes>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<AdminReply, Refusal>>>,
    tickets: u64,
    /// Whoever said what is being carried out: the answer goes back there, also to a stranger who took a node's name.
    speaker: Option<Line>,
    effects: Vec<Effect>,
    gauges: Gauges,
}

impl MasterThread {
    fn new(options: Options, handle: MasterHandle, proposals: mpsc::Sender<Bytes>) -> MasterThread {
        MasterThread {
            master: Master::new(options),
            clock: Clock::start(),
            handle,
            proposals,
            waiting: BTreeMap::new(),
            tickets: 0,
            speaker: None,
            effects: Vec::new(),
            gauges: Gauges::new(),
        }
    }

    /// Works until the inbox is closed.
    fn run(mut self) {
        let inbox = Arc::clone(&self.handle.shared.inbox);
        let mut orders = VecDeque::new();
        let mut dated = self.clock.now();
        self.step(Input::Date(Clock::wall()));
        while inbox.drain(&mut orders, self.master.deadline().map(|deadline| self.clock.at(deadline))) {
            for order in orders.drain(..) {
                self.on_order(order);
            }
            if self.master.deadline().is_some_and(|deadline| deadline <= self.clock.now()) {
                self.step(Input::Tick);
            }
            if self.clock.now() >= dated + GAUGES {
                dated = self.clock.now();
                self.step(Input::Date(Clock::wall()));
            }
            self.gauges.update(&self.master, self.clock.now());
        }
    }

    fn on_order(&mut self, order: Order) {
        if matches!(order, Order::Ask(..) | Order::Heard(..)) {
            self.handle.shared.outside.fetch_sub(1, Ordering::Relaxed);
        }
        match order {
            Order::Ask(request, answer) => self.on_ask(request, answer),
            Order::Heard(line, message) => {
                let node = line.node;
                self.speaker = Some(line);
                self.step(Input::FromNode(node, message));
                self.speaker = None;
            }
            Order::Apply(Apply::Committed(commands, done)) => {
                commands.into_iter().for_each(|(index, command)| self.step(Input::Committed(index, command)));
                self.name_cluster();
                let _ = done.send(());
            }
            Order::Apply(Apply::Snapshot(answer)) => drop(answer.send(self.master.snapshot())),
            Order::Apply(Apply::Restore(state, done)) => {
                let restored = self.master.restore(&state).map_err(|error| error.to_string());
                self.name_cluster();
                let _ = done.send(restored);
            }
            Order::Lead(Some(term)) => {
                tracing::info!(event = "master_leads", term, applied = self.master.applied(), "this master leads");
                self.step(Input::Leading(term));
            }
            Order::Lead(None) => {
                tracing::info!(event = "master_follows", "this master does not lead any more");
                self.step(Input::Following);
            }
        }
    }

    fn name_cluster(&self) {
        if let Some(cluster) = self.master.cluster() {
            self.handle.shared.cluster.get_or_init(|| cluster);
        }
    }

    fn on_ask(&mut self, request: AdminRequest, answer: oneshot::Sender<Result<AdminReply, Refusal>>) {
        if self.waiting.len() >= WAITING {
            self.waiting.retain(|_, waiter| !waiter.is_closed());
        }
        if self.waiting.len() >= WAITING {
            let _ = answer.send(Err(Refusal::Overloaded));
            return;
        }
        self.tickets += 1;
        self.waiting.insert(Ticket(self.tickets), answer);
        self.step(Input::Admin(Ticket(self.tickets), request));
    }

    fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.master.step(self.clock.now(), input, &mut effects);
        effects.drain(..).for_each(|effect| self.carry_out(effect));
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Propose(command) => {
                if self.proposals.try_send(command).is_err() {
                    tracing::warn!(event = "proposal_lost", "the consensus does not keep up");
                }
            }
            Effect::Send(node, message) => {
                let line = match &self.speaker {
                    Some(line) if line.node == node => Some(line.clone()),
                    _ => self.handle.shared.lines.lock().get(&node).cloned(),
                };
                if let Some(line) = line {
                    line.say(message);
                }
            }
            Effect::Reply(ticket, reply) => self.answer(ticket, Ok(reply)),
            Effect::Refuse(ticket, refusal) => self.answer(ticket, Err(refusal)),
            Effect::Event(event, what) => tracing::info!(event, "{what}"),
            // Nodes log theirs, and what the master merely noticed was logged at once; left are its decisions.
            Effect::Recorded(event) => {
                let decided = event.node.is_some() || event.table.is_some();
                if event.source == Source::Master && decided {
                    tracing::info!(event = event.name, "{}", event.what);
                }
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<AdminReply, Refusal>) {
        if let Some(waiter) = self.waiting.remove(&ticket) {
            let _ = waiter.send(answer);
        }
    }
}

/// What operators watch.
struct Gauges {
    due: model::Instant,
    nodes: Gauge,
    tables: Gauge,
    lacking: Gauge,
}

impl Gauges {
    fn new() -> Gauges {
        Gauges {
            due: model::Instant::ZERO,
            nodes: gauge!("diptych_nodes"),
            tables: gauge!("diptych_tables"),
            lacking: gauge!("diptych_under_replicated_tablets"),
        }
    }

    fn update(&mut self, master: &Master, now: model::Instant) {
        if now < self.due {
            return;
        }
        self.due = now + GAUGES;
        let state = master.state();
        let lacks = |group: &&master::state::Group| {
            let wanted = state.tables.get(&group.tablet.table).map_or(0, |schema| usize::from(schema.replicas));
            group.configuration.size() < wanted
        };
        self.nodes.set(state.nodes.len() as f64);
        self.tables.set(state.tables.len() as f64);
        self.lacking.set(state.groups.values().filter(lacks).count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::MemDisk;
    use model::request::NewTable;
    use model::{Incarnation, Partition, Retention};
    use protocol::Timing;

    async fn running(disk: &MemDisk) -> Running {
        let timing = Timing::default();
        let options = Options {
            timing,
            seed: 7,
            replicas: 2,
            min_replicas: 1,
            balance_after: None,
            split_bytes: 0,
            split_load: 0,
            merge_after: None,
        };
        let (address, founding) = (String::from("127.0.0.1:1"), Founding::Alone);
        let running = Running::on(
            Arc::new(disk.clone()),
            (1, address, Identity::default()),
            founding,
            options,
            Health::default(),
        );
        let running = running.await.unwrap();
        running.handle.shared.standing.subscribe().wait_for(|led| led.leads.is_some()).await.unwrap();
        running
    }

    fn heartbeat(node: u32) -> ToMaster {
        ToMaster::Heartbeat {
            cluster: None,
            disk: u64::from(node),
            incarnation: Incarnation(1),
            address: format!("127.0.0.1:{node}"),
            disk_full: false,
            base: None,
            gone: Vec::new(),
            scrub: model::request::ScrubReport::default(),
            replicas: Vec::new(),
            sent: model::Instant::ZERO,
        }
    }

    /// The node's session once it is welcome, and the words of the master so far.
    async fn joined(handle: &MasterHandle, node: u32) -> (Session, mpsc::Receiver<FromMaster>) {
        let (outgoing, mut words) = mpsc::channel(64);
        let session = handle.session(NodeId(node), outgoing);
        loop {
            session.hear(heartbeat(node));
            if let Ok(Some(FromMaster::Welcome { .. })) =
                tokio::time::timeout(Duration::from_millis(100), words.recv()).await
            {
                return (session, words);
            }
        }
    }

    fn users() -> AdminRequest {
        AdminRequest::CreateTable(NewTable {
            storage: model::StorageChange::default(),
            settings: model::SettingsChange::default(),
            name: String::from("users"),
            families: vec![(String::from("name"), Retention::Keep)],
            partition: Partition::Hash { tablets: 2 },
            replicas: None,
            min_replicas: None,
        })
    }

    /// The state is derived from the log alone: a master of one that is restarted knows what it knew.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_restarted_master_keeps_its_state() {
        let disk = MemDisk::new();
        let first = running(&disk).await;
        let _sessions = (joined(&first.handle, 1).await, joined(&first.handle, 2).await);
        let table = first.handle.admin(users()).await.unwrap();
        let AdminReply::Map(map) = first.handle.admin(AdminRequest::Map).await.unwrap() else { panic!("no map") };
        disk.crash(1);
        first.stop().await;

        let second = running(&disk).await;
        let AdminReply::Map(again) = second.handle.admin(AdminRequest::Map).await.unwrap() else { panic!("no map") };
        assert_eq!((&again.tablets, &again.nodes), (&map.tablets, &map.nodes));
        assert!(matches!(table, AdminReply::Table(schema) if schema.name == "users"));
        assert!(matches!(second.handle.admin(users()).await, Err(Refusal::Exists(_))));
        second.stop().await;
    }

    /// A stranger under a node's name hears why it may not join; the node itself hears nothing of it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stranger_is_answered_on_its_own_line() {
        let master = running(&MemDisk::new()).await;
        let (outgoing, mut stranger_hears) = mpsc::channel(8);
        let stranger = master.handle.session(NodeId(1), outgoing);
        let (_node, mut node_hears) = joined(&master.handle, 1).await;
        let ToMaster::Heartbeat { incarnation, address, .. } = heartbeat(1) else { unreachable!() };
        let (cluster, replicas) = (None, Vec::new());
        stranger.hear(ToMaster::Heartbeat {
            cluster,
            disk: 99,
            incarnation,
            address,
            disk_full: false,
            base: None,
            gone: Vec::new(),
            scrub: model::request::ScrubReport::default(),
            replicas,
            sent: model::Instant::ZERO,
        });
        assert!(matches!(stranger_hears.recv().await, Some(FromMaster::Unwelcome(..))));
        while let Ok(word) = node_hears.try_recv() {
            assert!(!matches!(word, FromMaster::Unwelcome(..)), "{word:?}");
        }
        master.stop().await;
    }

    /// The newest session of a node takes the place of an older one, also when the older one ends after it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_old_session_does_not_end_a_new_one() {
        let handle = MasterHandle::default();
        let (old, _) = mpsc::channel(1);
        let (new, _hears) = mpsc::channel(1);
        let old = handle.session(NodeId(1), old);
        let _new = handle.session(NodeId(1), new);
        drop(old);
        assert_eq!(handle.shared.lines.lock()[&NodeId(1)].session, 1);
    }
}
