//! The shard: the one thread that steps the node.
//!
//! ```text
//!   Inbox<Arrival> ──all there is──▶ Node::step … step(Settle) ──effects──▶ log, readers, jobs, peers, session, waiters
//!                                        ▲───── reads that touch no file ─────┘
//! ```
//!
//! A batch of inputs becomes one batch of effects: its records go to the log thread together, its messages to a peer
//! together. Nothing here waits for a disk or a socket.
//!
//! Writes that come while the log syncs are held back until it has (group commit; see `batching`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::{Counter, counter, gauge};
use model::request::{ReplicaReport, Request, Role};
use model::{CheckpointOrder, Consistency, Instant, NodeId, Operation, Ticket, Timestamp};
use node::Node;
use node::api::{Effect, Event, Input};
use protocol::{Core, FromMaster, NodeMessage};
use store::{Job, log::Record};
use tokio::sync::oneshot;

use super::batching::Batching;
use super::local::{Answered, FramePermit, Ordered, Waiter};
use super::pulse::Pulse;
use super::threads::{LogWork, Reading, die};
use crate::host::Health;
use crate::host::inbox::Inbox;
use crate::host::peers::Peers;
use crate::host::session::Reports;

/// Metrics are refreshed this often, and a period more seldom for each so many tablets.
const GAUGES: Duration = Duration::from_secs(1);
const GAUGES_TABLETS: usize = 2_000;

/// What comes to the shard.
pub enum Arrival {
    /// A client's request.
    Request(Request, Waiter),
    /// Those of a pipeline.
    Requests(Vec<(Request, Waiter)>),
    /// Something about checkpoints.
    Checkpoint(CheckpointOrder, oneshot::Sender<Ordered>),
    /// What another node said; the permit goes when it has been looked at.
    Frame(NodeId, Vec<NodeMessage>, FramePermit),
    /// What the master said.
    Order(FromMaster),
    /// What came of some work.
    Core(Input),
}

/// The process's clocks. The monotonic one is the kernel's boot time, which goes on while the machine sleeps: a primary
/// that wakes up must not take an old lease for a live one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Clock {
        Clock { start: since_boot() }
    }

    /// Monotonic time since the start.
    pub fn now(&self) -> Instant {
        Instant::ZERO + since_boot().saturating_sub(self.start)
    }

    /// When that is for the standard library, whose clock stops while the machine sleeps.
    pub fn at(&self, instant: Instant) -> std::time::Instant {
        std::time::Instant::now() + instant.since(self.now())
    }

    /// The date.
    pub fn wall() -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Time since the machine was started, its sleep included.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Where the effects go.
pub struct Outlets {
    /// The log thread's.
    pub log: Arc<Inbox<LogWork>>,
    /// The readers'.
    pub readers: Arc<Inbox<Reading>>,
    /// The workers'.
    pub jobs: Arc<Inbox<(u64, Job)>>,
    /// Other nodes.
    pub peers: Peers,
    /// The master.
    pub reports: Arc<Reports>,
}

/// The shard and what it needs from batch to batch.
pub struct Shard {
    node: Node,
    clock: Clock,
    inbox: Arc<Inbox<Arrival>>,
    outlets: Outlets,
    health: Health,
    pulse: Arc<Pulse>,
    waiters: Waiters,
    /// Who waits for checkpoints, and the next one's ticket.
    ordered: (u64, BTreeMap<Ticket, oneshot::Sender<Ordered>>),
    effects: Vec<Effect>,
    records: Vec<Record>,
    letters: BTreeMap<NodeId, Vec<NodeMessage>>,
    /// Results of reads that were done on the spot.
    again: Vec<Input>,
    gauges_due: Instant,
    reads: Reads,
    /// Writes that wait for the log's sync.
    batching: Batching<(Request, Waiter)>,
}

impl Shard {
    /// Drives `node` with what comes into `inbox`.
    pub fn new(
        node: Node,
        clock: Clock,
        inbox: Arc<Inbox<Arrival>>,
        outlets: Outlets,
        health: Health,
        pulse: Arc<Pulse>,
    ) -> Shard {
        Shard {
            node,
            clock,
            inbox,
            outlets,
            health,
            pulse,
            waiters: Waiters::default(),
            ordered: Default::default(),
            effects: Vec::new(),
            records: Vec::new(),
            letters: BTreeMap::new(),
            again: Vec::new(),
            gauges_due: Instant::ZERO,
            reads: Reads::new(),
            batching: Batching::default(),
        }
    }

    /// Works until the inbox is closed.
    pub fn run(mut self) {
        let mut batch = VecDeque::new();
        loop {
            self.pulse.end();
            let deadlines = [self.node.deadline(), self.batching.deadline()].into_iter().flatten();
            let until = deadlines.fold(self.gauges_due, Instant::min);
            if !self.inbox.drain(&mut batch, Some(self.clock.at(until))) {
                return;
            }
            self.pulse.begin();
            let now = self.clock.now();
            self.take_in(now, &mut batch);
            self.release(now);
            if self.node.deadline().is_some_and(|deadline| deadline <= now) {
                self.node.step(now, Input::Tick, &mut self.effects);
            }
            self.settle(now);
            if self.gauges_due <= now {
                self.node.step(now, Input::Date(Clock::wall()), &mut self.effects);
                let many = u32::try_from(self.node.replicas().count() / GAUGES_TABLETS).unwrap_or(u32::MAX);
                self.gauges_due = now + GAUGES.saturating_mul(many.saturating_add(1));
                publish(&self.node, now);
            }
        }
    }

    fn take_in(&mut self, now: Instant, batch: &mut VecDeque<Arrival>) {
        let wall = Clock::wall();
        for arrival in batch.drain(..) {
            match arrival {
                Arrival::Request(request, waiter) => self.ask(now, wall, request, waiter),
                Arrival::Requests(requests) => {
                    for (request, waiter) in requests {
                        self.ask(now, wall, request, waiter);
                    }
                }
                Arrival::Checkpoint(order, waiter) => {
                    let (next, waiting) = &mut self.ordered;
                    let ticket = Ticket(*next);
                    *next += 1;
                    waiting.insert(ticket, waiter);
                    self.node.step(now, Input::Checkpoint(ticket, order), &mut self.effects);
                }
                Arrival::Frame(from, messages, _permit) => {
                    for message in messages {
                        self.node.step(now, Input::FromNode(from, message), &mut self.effects);
                    }
                }
                Arrival::Order(order) => self.node.step(now, Input::FromMaster(order), &mut self.effects),
                Arrival::Core(input) => {
                    if let Input::Durable(upto) = input {
                        self.batching.on_durable(upto);
                    }
                    if let Input::Room(room) = input {
                        self.batching.on_room(room);
                        let full = || String::from("the disk is full; writes resume when there is room");
                        self.health.set("disk", if room { Ok(()) } else { Err(full()) });
                    }
                    self.node.step(now, input, &mut self.effects);
                }
            }
        }
    }

    fn ask(&mut self, now: Instant, wall: Timestamp, request: Request, waiter: Waiter) {
        self.reads.count(&request.operation);
        let passed = match request.operation {
            Operation::Write { .. } | Operation::WriteMany { .. } => self.batching.offer(now, (request, waiter)),
            Operation::Get { .. } | Operation::GetMany { .. } | Operation::Scan { .. } | Operation::Changes(_) => {
                Some((request, waiter))
            }
        };
        if let Some((request, waiter)) = passed {
            self.admit(now, wall, request, waiter);
        }
    }

    /// Lets the writes go on that waited for a sync.
    fn release(&mut self, now: Instant) {
        let ready = self.batching.take_ready(now);
        if ready.is_empty() {
            return;
        }
        let wall = Clock::wall();
        for (request, waiter) in ready {
            self.admit(now, wall, request, waiter);
        }
    }

    fn admit(&mut self, now: Instant, wall: Timestamp, request: Request, waiter: Waiter) {
        let ticket = self.waiters.add(waiter);
        self.node.step(now, Input::Request { ticket, wall, request }, &mut self.effects);
    }

    /// Carries the effects out, and those that follow from what could be read on the spot.
    fn settle(&mut self, mut now: Instant) {
        loop {
            self.node.step(now, Input::Settle, &mut self.effects);
            self.carry_out();
            if self.again.is_empty() {
                return;
            }
            // The lease is checked after the read: by the time that it is then.
            now = self.clock.now();
            for input in self.again.drain(..) {
                self.node.step(now, input, &mut self.effects);
            }
        }
    }

    fn carry_out(&mut self) {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Log(records) if self.records.is_empty() => self.records = records,
                Effect::Log(records) => self.records.extend(records),
                Effect::Send(to, message) => self.letters.entry(to).or_default().push(message),
                Effect::Report(report) => self.outlets.reports.push(report),
                Effect::Read(id, read) if read.touches_files() => self.outlets.readers.push(Reading::Rows(id, read)),
                Effect::Read(id, read) => self.again.push(Input::ReadDone(id, read.run())),
                Effect::ReadLog { id, tablet, from, max_bytes } => {
                    self.outlets.readers.push(Reading::Log { id, tablet, from, max_bytes });
                }
                Effect::Run(id, job) => self.outlets.jobs.push((id, job)),
                Effect::Trim(floors) => self.outlets.log.push(LogWork::Trim(floors)),
                Effect::Reply(ticket, reply) => self.waiters.answer(ticket, Ok(reply)),
                Effect::Refuse(ticket, refusal) => self.waiters.answer(ticket, Err(refusal)),
                Effect::Checkpoint(ticket, answer) => {
                    // Whoever asked may be gone.
                    self.ordered.1.remove(&ticket).map(|waiter| waiter.send(answer));
                }
                Effect::Event(event) => tell(&event),
                Effect::Stop(why) => die(&why),
            }
        }
        if !self.records.is_empty() {
            self.batching.on_logged(self.records.len());
            self.outlets.log.push(LogWork::Append(std::mem::take(&mut self.records)));
        }
        while let Some((to, messages)) = self.letters.pop_first() {
            self.outlets.peers.send(to, messages);
        }
    }
}

/// Reads by what they must see.
struct Reads {
    linearizable: Counter,
    eventual: Counter,
}

impl Reads {
    fn new() -> Reads {
        Reads {
            linearizable: counter!("diptych_reads_total", "consistency" => "linearizable"),
            eventual: counter!("diptych_reads_total", "consistency" => "eventual"),
        }
    }

    fn count(&self, operation: &Operation) {
        let (Operation::Get { options, .. } | Operation::GetMany { options, .. } | Operation::Scan { options, .. }) =
            operation
        else {
            return;
        };
        match options.consistency {
            Consistency::Linearizable => self.linearizable.increment(1),
            Consistency::Eventual { .. } => self.eventual.increment(1),
        }
    }
}

fn tell(event: &Event) {
    counter!("diptych_events_total", "event" => event.name).increment(1);
    match event.tablet {
        Some(tablet) => tracing::info!(event = event.name, %tablet, "{}", event.what),
        None => tracing::info!(event = event.name, "{}", event.what),
    }
}

/// Gauges of the node's replicas.
fn publish(node: &Node, now: Instant) {
    let reports = node.reports(now);
    let count = |role: Role, steady: bool| {
        let matching = |report: &&ReplicaReport| report.role == role && report.steady == steady;
        reports.iter().filter(matching).count() as f64
    };
    let roles = [
        (Role::Primary, "primary"),
        (Role::Secondary, "secondary"),
        (Role::Learner, "learner"),
        (Role::Spare, "spare"),
    ];
    for (role, name) in roles {
        gauge!("diptych_tablets", "role" => name, "state" => "steady").set(count(role, true));
        gauge!("diptych_tablets", "role" => name, "state" => "unsteady").set(count(role, false));
    }
    gauge!("diptych_tablet_bytes").set(reports.iter().map(|report| report.bytes).sum::<u64>() as f64);
    gauge!("diptych_tablet_requests_per_second").set(reports.iter().map(|report| report.load).sum::<u64>() as f64);
    // A replica that has heard no primary yet counts as not there.
    let secondaries = node.replicas().filter(|replica| replica.role() == Role::Secondary);
    let lag = secondaries.filter_map(|replica| node.lag(replica.tablet(), now)).max().unwrap_or_default();
    gauge!("diptych_replication_lag_seconds").set(lag.as_secs_f64());
    let stalls = node.stalls(now);
    counter!("diptych_write_stalls_total").absolute(stalls.count);
    gauge!("diptych_write_stall_seconds_total").set(stalls.time.as_secs_f64());
    gauge!("diptych_stalled_tablets").set(f64::from(stalls.tablets));
    let backlog = node.backlog();
    gauge!("diptych_memtable_bytes").set(backlog.memory as f64);
    gauge!("diptych_unmerged_runs").set(backlog.runs as f64);
    gauge!("diptych_compaction_pending_bytes").set(backlog.debt as f64);
    let tally = node.tally();
    counter!("diptych_checksum_failures_total", "layer" => "table").absolute(tally.tables);
    counter!("diptych_checksum_failures_total", "layer" => "log").absolute(tally.log);
    counter!("diptych_repairs_total", "kind" => "rebuild").absolute(tally.rebuilt);
    counter!("diptych_repairs_total", "kind" => "flush").absolute(tally.flushed);
    counter!("diptych_scrub_bytes_total").absolute(tally.scrubbed);
    gauge!("diptych_scrub_age_seconds").set(tally.whole.map_or(f64::NAN, |whole| now.since(whole).as_secs_f64()));
    gauge!("diptych_scrub_progress_ratio").set(f64::from(node.scrub_report(now).percent) / 100.0);
    let (agreed, diverged) = node.compared();
    counter!("diptych_replica_digests_total", "result" => "equal").absolute(agreed);
    counter!("diptych_replica_digests_total", "result" => "different").absolute(diverged);
    gauge!("diptych_damaged_tablets").set(node.damaged().count() as f64);
    let (checkpoints, bytes) = node.checkpoints();
    gauge!("diptych_checkpoints").set(checkpoints as f64);
    gauge!("diptych_checkpoint_bytes").set(bytes as f64);
    gauge!("diptych_wal_bytes").set(node.log_bytes() as f64);
}

/// Who waits, by ticket. A ticket's low half is a place in `places`, its high half counts how often that place was
/// given away, so that an old ticket finds nobody.
#[derive(Default)]
struct Waiters {
    places: Vec<(u32, Option<Waiter>)>,
    free: Vec<u32>,
}

impl Waiters {
    fn add(&mut self, waiter: Waiter) -> Ticket {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("admission lets far fewer in")
        });
        let (turn, seat) = &mut self.places[place as usize];
        *seat = Some(waiter);
        Ticket(u64::from(*turn) << 32 | u64::from(place))
    }

    fn answer(&mut self, Ticket(ticket): Ticket, answer: Answered) {
        let place = ticket as u32;
        let Some((turn, seat)) = self.places.get_mut(place as usize) else { return };
        if u64::from(*turn) != ticket >> 32 {
            return;
        }
        if let Some(waiter) = seat.take() {
            *turn = turn.wrapping_add(1);
            self.free.push(place);
            waiter.answer(answer);
        }
    }
}
