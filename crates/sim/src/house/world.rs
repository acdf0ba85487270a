//! The world of the whole house: network, master, faults, and the order of things.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use master::Master;
use model::random::Random;
use model::request::{NewTable, Request, Role};
use model::{
    AdminReply, AdminRequest, Instant, NodeId, Partition, Refusal, Reply, Retention, RowRange, Ticket, Timestamp,
};
use node::{Effect, Input};
use protocol::{Core, FromMaster, NodeMessage, ToMaster};

use super::Summary;
use super::check::{self, Record};
use super::client::{Client, ROWS, client_of, ticket};
use super::machine::{Machine, timing};
use crate::agenda::{Agenda, MS, SECOND, US};
use crate::group::Violation;
use crate::linear;

const MASTER: usize = 0;
/// When the faults end, when the clients begin to read only, and when everything ends.
const HEALED: u64 = 10 * SECOND;
const LAST_READS: u64 = 22 * SECOND;
const END: u64 = 27 * SECOND;
/// The date when the world began.
const EPOCH_US: i64 = 1_700_000_000_000_000;
/// The ticket of whoever sets the house up.
const SETUP: Ticket = Ticket(u64::MAX);

#[derive(Clone, Debug)]
enum Packet {
    Node(NodeMessage),
    ToMaster(ToMaster),
    FromMaster(FromMaster),
    Request(Ticket, Request),
    Answer(Ticket, Result<Reply, Refusal>),
    Admin(Ticket, AdminRequest),
    Map(AdminReply),
}

#[derive(Debug)]
enum Happening {
    Deliver { from: usize, to: usize, packet: Packet },
    Drain { node: usize, life: u64 },
    Wake { node: usize, life: u64 },
    Synced { node: usize, life: u64 },
    Reserve { node: usize, life: u64 },
    Work { node: usize, life: u64, effect: Box<Effect> },
    Commit { life: u64, command: Bytes },
    MasterWake { life: u64 },
    Setup,
    Act(usize),
    Attempt { client: usize, sequence: u64, attempt: u64 },
    Fault,
    Restart(usize),
    Resume(usize),
    Unblock(usize, usize),
    Roomy(usize),
    MasterStart,
}

/// The master with what consensus has kept of it.
struct Mastery {
    master: Option<Master>,
    life: u64,
    started: u64,
    log: Vec<Bytes>,
    snapshot: Option<(u64, Bytes)>,
}

/// Kinds of trouble that this history has, drawn from the seed.
#[derive(Debug)]
struct Climate {
    loss: u64,
    twice: u64,
    delay: u64,
    fifo: bool,
    slow_sync: u64,
    fault_every: u64,
    crashes: bool,
    pauses: bool,
    cuts: bool,
    full_disks: bool,
    master_faults: bool,
    replicas: u8,
}

pub(super) struct World {
    agenda: Agenda<Happening>,
    random: Random,
    climate: Climate,
    machines: Vec<Machine>,
    mastery: Mastery,
    clients: Vec<Client>,
    blocked: BTreeSet<(usize, usize)>,
    arrival: BTreeMap<(usize, usize), u64>,
    record: Record,
    histories: BTreeMap<u64, Vec<linear::Operation>>,
    next_value: u64,
    ready: bool,
    summary: Summary,
    verbose: usize,
    events: VecDeque<String>,
}

type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, verbose: usize) -> World {
        let mut random = Random::new(seed);
        let nodes = random.between(3, 6) as usize;
        let climate = Climate {
            loss: [0, 0, 1, 5][random.below(4) as usize],
            twice: [0, 0, 3][random.below(3) as usize],
            delay: [MS, 5 * MS, 50 * MS, 300 * MS][random.below(4) as usize],
            fifo: random.chance(70),
            slow_sync: [0, 1, 10][random.below(3) as usize],
            fault_every: [100 * MS, 300 * MS, 1000 * MS, 2500 * MS][random.below(4) as usize],
            crashes: random.chance(75),
            pauses: random.chance(60),
            cuts: random.chance(60),
            full_disks: random.chance(20),
            master_faults: random.chance(40),
            replicas: random.between(2, 4) as u8,
        };
        let clients = random.between(2, 7) as usize;
        let mut world = World {
            agenda: Agenda::default(),
            random,
            climate,
            machines: (0..=nodes).map(|_| Machine::new()).collect(),
            mastery: Mastery { master: None, life: 0, started: 0, log: Vec::new(), snapshot: None },
            clients: (0..clients).map(|client| Client::new(1 + client as u64)).collect(),
            blocked: BTreeSet::new(),
            arrival: BTreeMap::new(),
            record: Record::default(),
            histories: BTreeMap::new(),
            next_value: 0,
            ready: false,
            summary: Summary::default(),
            verbose,
            events: VecDeque::new(),
        };
        world.agenda.at(0, Happening::MasterStart);
        for node in 1..=nodes {
            world.agenda.at(node as u64, Happening::Restart(node));
        }
        world.agenda.at(1500 * MS, Happening::Setup);
        world.agenda.at(2 * SECOND, Happening::Fault);
        world
    }

    pub fn run(mut self) -> Result<Summary, Violation> {
        if self.verbose > 0 {
            let climate =
                format!("{} nodes, {} clients, {:?}", self.machines.len() - 1, self.clients.len(), self.climate);
            self.events.push_back(climate);
        }
        let mut result = Ok(());
        while self.agenda.now() < END && result.is_ok() {
            // An assertion of a core is a violation like any other.
            let step = std::panic::AssertUnwindSafe(|| self.step());
            result = std::panic::catch_unwind(step).unwrap_or_else(|panic| Err(crate::group::words_of(&*panic)));
        }
        let result = result.and_then(|()| self.check_healed());
        self.summary.epochs = self.record.newest.values().map(|epoch| u64::from(epoch.0)).sum();
        match result {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Violation { time: self.agenda.now(), what, events: self.events.into_iter().collect() }),
        }
    }

    fn step(&mut self) -> Checked {
        let happening = self.agenda.take().ok_or("nothing happens any more")?;
        let now = self.agenda.now();
        let kind = match &happening {
            Happening::Deliver { from, to, .. } => 1 + *from as u64 * 7 + *to as u64 * 31,
            Happening::Drain { node, .. } => 2 + *node as u64 * 7,
            Happening::Wake { node, .. } => 3 + *node as u64 * 7,
            _ => 4,
        };
        self.summary.trace = (self.summary.trace.rotate_left(5) ^ now ^ kind).wrapping_mul(0x517c_c1b7_2722_0a95);
        if self.verbose > 0
            && !matches!(happening, Happening::Drain { .. } | Happening::Wake { .. } | Happening::MasterWake { .. })
        {
            self.say(short(format!("{happening:?}")));
        }
        self.on(happening)
    }

    fn say(&mut self, what: String) {
        if self.verbose > 0 {
            if self.events.len() > self.verbose {
                self.events.remove(1);
            }
            self.events.push_back(format!("{:?} {what}", Instant(self.agenda.now())));
        }
    }

    fn on(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Deliver { from, to, packet } => return self.on_packet(from, to, packet),
            Happening::Drain { node, life } if self.lives(node, life) => return self.drain(node),
            Happening::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Happening::Synced { node, life } if self.lives(node, life) => self.on_synced(node),
            Happening::Reserve { node, life } if self.lives(node, life) => self.reserve(node),
            Happening::Work { node, life, effect } if self.lives(node, life) => self.work(node, *effect),
            Happening::Commit { life, command } if self.mastery.life == life && self.mastery.master.is_some() => {
                self.mastery.log.push(command.clone());
                let index = self.mastery.log.len() as u64;
                self.step_master(master::Input::Committed(index, command));
                self.maybe_snapshot();
            }
            Happening::MasterWake { life } if self.mastery.life == life => self.wake_master(),
            Happening::Setup => self.set_up(),
            Happening::Act(client) => self.act(client),
            Happening::Attempt { client, sequence, attempt } => self.attempt(client, sequence, attempt),
            Happening::Fault => self.on_fault(),
            Happening::Restart(node) => return self.start(node),
            Happening::Resume(node) => self.resume(node),
            Happening::Unblock(from, to) => {
                self.blocked.remove(&(from, to));
            }
            Happening::Roomy(node) => self.machines[node].disk.set_capacity(None),
            Happening::MasterStart => return self.start_master(),
            _ => {}
        }
        Ok(())
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.machines[node].life == life && self.machines[node].process.is_some()
    }

    // --- nodes

    fn start(&mut self, node: usize) -> Checked {
        let now = self.agenda.now();
        if self.machines[node].process.is_some() {
            return Ok(());
        }
        let rate = self.random.between(990_000, 1_010_001);
        let skew = self.random.below(200_000) as i64 - 100_000;
        let machine = &mut self.machines[node];
        match machine.start(NodeId(node as u32), now, rate, skew) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                self.agenda.after(200 * MS, Happening::Restart(node));
                return Ok(());
            }
            Err(error) => return Err(format!("n{node} does not open: {error}")),
        }
        self.summary.starts += 1;
        let (life, notes) = (machine.life, machine.process.as_ref().map(|process| process.hands.notes.clone()));
        self.say(format!("n{node} starts, {notes:?}"));
        self.agenda.after(0, Happening::Wake { node, life });
        Ok(())
    }

    fn crash(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.process.take().is_some() {
            machine.life += 1;
            if self.random.chance(30) {
                // Only the process dies.
                machine.disk.kill();
            } else {
                machine.disk.crash(self.random.draw());
            }
        }
    }

    /// Something on the node's disk has failed. The real host stops the process; here its machine has lost its power,
    /// or nothing should have failed.
    fn disk_failed(&mut self, node: usize, error: &store::Error) {
        self.say(format!("n{node}: {error}"));
        self.crash(node);
        let delay = self.random.below(2 * SECOND);
        self.agenda.after(delay, Happening::Restart(node));
    }

    fn give(&mut self, node: usize, input: Input) {
        let Some(process) = &mut self.machines[node].process else { return };
        process.inbox.push_back(input);
        if !process.draining && !process.paused {
            process.draining = true;
            let life = self.machines[node].life;
            let delay = if self.random.chance(60) { 0 } else { self.random.below(MS) };
            self.agenda.after(delay, Happening::Drain { node, life });
        }
    }

    /// A batch: every input that has gathered, then what they want to happen.
    fn drain(&mut self, node: usize) -> Checked {
        let now = self.agenda.now();
        let life = self.machines[node].life;
        let process = self.machines[node].process.as_mut().ok_or("drained while down")?;
        process.draining = false;
        if process.paused {
            return Ok(());
        }
        let local = process.local(now);
        let mut effects = Vec::new();
        while let Some(input) = process.inbox.pop_front() {
            process.node.step(local, input, &mut effects);
        }
        process.node.step(local, Input::Settle, &mut effects);
        self.record.compare(life, &process.node)?;
        let running = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let running = running.filter(|process| !process.paused).map(|process| (&process.node, process.local(now)));
        check::one_reader(running)?;
        for effect in effects {
            self.carry_out(node, life, effect)?;
        }
        self.sync(node);
        self.arm(node);
        Ok(())
    }

    fn carry_out(&mut self, node: usize, life: u64, effect: Effect) -> Checked {
        if self.verbose > 0 && !matches!(effect, Effect::Send(..) | Effect::Report(_) | Effect::Reply(..)) {
            self.say(short(format!("    n{node} {effect:?}")));
        }
        if !self.lives(node, life) {
            return Ok(());
        }
        match effect {
            Effect::Log(records) => {
                if let Some(process) = &mut self.machines[node].process {
                    process.to_log.extend(records);
                }
            }
            Effect::Send(to, message) => self.send(node, to.0 as usize, Packet::Node(message)),
            Effect::Report(message) => self.send(node, MASTER, Packet::ToMaster(message)),
            Effect::Reply(ticket, reply) => self.answer(node, ticket, Ok(reply)),
            Effect::Refuse(ticket, refusal) => self.answer(node, ticket, Err(refusal)),
            Effect::Trim(floors) => {
                let process = self.machines[node].process.as_mut().ok_or("trims while down")?;
                match process.hands.log.trim(&floors) {
                    Ok(_) => {
                        let bytes = process.hands.log.bytes();
                        self.give(node, Input::LogBytes(bytes));
                    }
                    Err(error) => self.disk_failed(node, &error),
                }
            }
            Effect::Read(..) | Effect::ReadLog { .. } | Effect::Run(..) => {
                let quick = matches!(&effect, Effect::Read(_, read) if !read.touches_files());
                let delay = match &effect {
                    _ if quick => 0,
                    Effect::Run(..) => self.random.between(200 * US, 100 * MS),
                    _ => self.random.between(50 * US, 10 * MS),
                };
                self.agenda.after(delay, Happening::Work { node, life, effect: Box::new(effect) });
            }
            Effect::Event(event) => {
                if event.name == "checkpoint_adopted" {
                    self.summary.checkpoints += 1;
                }
                if matches!(event.name, "peer_suspected" | "log_damaged" | "table_damaged") {
                    return Err(format!("n{node}: {event:?}"));
                }
            }
            Effect::Stop(why) => return Err(format!("n{node} stops: {why}")),
        }
        Ok(())
    }

    fn answer(&mut self, node: usize, ticket: Ticket, answer: Result<Reply, Refusal>) {
        let (client, _) = client_of(ticket);
        let place = self.machines.len() + client;
        self.send(node, place, Packet::Answer(ticket, answer));
    }

    /// Reads and jobs, when their time has come.
    fn work(&mut self, node: usize, effect: Effect) {
        let Some(process) = &mut self.machines[node].process else { return };
        let (input, error) = match effect {
            Effect::Read(id, read) => {
                let found = read.run();
                let error = found.as_ref().err().map(ToString::to_string);
                (Input::ReadDone(id, found), error)
            }
            Effect::ReadLog { id, tablet, from, max_bytes } => {
                (Input::LogRead(id, process.hands.reader.read(tablet, from, max_bytes)), None)
            }
            Effect::Run(id, job) => {
                self.summary.jobs += 1;
                let done = process.hands.keeper.run(job);
                let error = done.as_ref().err().filter(|error| !error.is_full()).map(ToString::to_string);
                (Input::JobDone(id, done), error)
            }
            _ => return,
        };
        if let Some(error) = error {
            // Files fail only when the power has gone.
            self.say(format!("n{node}: {error}"));
            self.crash(node);
            let delay = self.random.below(2 * SECOND);
            self.agenda.after(delay, Happening::Restart(node));
            return;
        }
        self.give(node, input);
    }

    /// Appends what has gathered, if nothing is being synced, and begins to sync it.
    fn sync(&mut self, node: usize) {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        if process.syncing > 0 || process.to_log.is_empty() || !process.room {
            return;
        }
        match process.hands.log.append(&process.to_log) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                process.room = false;
                self.give(node, Input::Room(false));
                self.agenda.after(300 * MS, Happening::Reserve { node, life });
                return;
            }
            Err(error) => return self.disk_failed(node, &error),
        }
        process.syncing = process.to_log.len();
        process.to_log.clear();
        let slow = self.random.chance(self.climate.slow_sync);
        let delay = if slow { self.random.below(SECOND) } else { self.random.between(200 * US, 2 * MS) };
        self.agenda.after(delay, Happening::Synced { node, life });
    }

    fn on_synced(&mut self, node: usize) {
        let Some(process) = &mut self.machines[node].process else { return };
        if let Err(error) = process.hands.log.sync() {
            return self.disk_failed(node, &error);
        }
        process.synced += core::mem::take(&mut process.syncing) as u64;
        let (synced, bytes) = (process.synced, process.hands.log.bytes());
        self.give(node, Input::Durable(synced));
        if self.random.chance(5) {
            self.give(node, Input::LogBytes(bytes));
        }
        self.sync(node);
    }

    fn reserve(&mut self, node: usize) {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        match process.hands.log.reserve() {
            Ok(()) => {
                process.room = true;
                self.give(node, Input::Room(true));
                self.sync(node);
            }
            Err(error) if error.is_full() => self.agenda.after(300 * MS, Happening::Reserve { node, life }),
            Err(error) => self.disk_failed(node, &error),
        }
    }

    fn arm(&mut self, node: usize) {
        let (now, life) = (self.agenda.now(), self.machines[node].life);
        let Some(process) = &mut self.machines[node].process else { return };
        let Some(deadline) = process.node.deadline() else { return };
        let at = process.global(deadline).max(now);
        if process.woken_at.is_none_or(|armed| armed > at || armed < now) {
            process.woken_at = Some(at);
            self.agenda.at(at, Happening::Wake { node, life });
        }
    }

    fn wake(&mut self, node: usize) {
        let now = self.agenda.now();
        let Some(process) = &mut self.machines[node].process else { return };
        process.woken_at = None;
        if process.paused {
            return;
        }
        if process.node.deadline().is_some_and(|deadline| deadline <= process.local(now)) {
            self.give(node, Input::Tick);
        } else {
            self.arm(node);
        }
    }

    fn resume(&mut self, node: usize) {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        process.paused = false;
        process.draining = true;
        process.woken_at = None;
        self.agenda.after(0, Happening::Drain { node, life });
        if self.random.chance(50) {
            self.wake(node);
        }
    }

    // --- network

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let healed = self.agenda.now() > HEALED;
        let loss = if healed { 0 } else { self.climate.loss };
        if self.blocked.contains(&(from, to)) || self.random.chance(loss) {
            return;
        }
        let copies = if !healed && self.random.chance(self.climate.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let most = if healed { MS } else { self.climate.delay };
            let delay = if self.random.chance(80) { self.random.below(MS) } else { self.random.below(most) };
            let mut at = self.agenda.now() + 50 * US + delay;
            // Requests of clients wander through gateways and may always overtake each other.
            if self.climate.fifo && from < self.machines.len() && to < self.machines.len() {
                let last = self.arrival.entry((from, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.agenda.at(at, Happening::Deliver { from, to, packet: packet.clone() });
        }
    }

    fn on_packet(&mut self, from: usize, to: usize, packet: Packet) -> Checked {
        let sender = NodeId(from as u32);
        match packet {
            Packet::Node(message) => self.give(to, Input::FromNode(sender, message)),
            Packet::FromMaster(message) => self.give(to, Input::FromMaster(message)),
            Packet::Request(ticket, request) => {
                if let Some(process) = &self.machines[to].process {
                    let wall = Timestamp(EPOCH_US + (self.agenda.now() / US) as i64 + process.skew);
                    self.give(to, Input::Request { ticket, wall, request });
                }
            }
            Packet::ToMaster(message) => self.step_master(master::Input::FromNode(sender, message)),
            Packet::Admin(ticket, request) => self.step_master(master::Input::Admin(ticket, request)),
            Packet::Answer(ticket, answer) => return self.on_answer(ticket, answer),
            Packet::Map(reply) => {
                if let AdminReply::Map(map) = reply {
                    self.clients[to - self.machines.len()].learn_map(map.tablets);
                }
            }
        }
        Ok(())
    }

    // --- the master

    fn start_master(&mut self) -> Checked {
        if self.mastery.master.is_some() {
            return Ok(());
        }
        self.mastery.life += 1;
        self.mastery.started = self.agenda.now();
        let options =
            master::Options { timing: timing(), seed: 4711, replicas: self.climate.replicas, min_replicas: 1 };
        let mut master = Master::new(options);
        let mut applied = 0;
        if let Some((index, snapshot)) = &self.mastery.snapshot {
            master.restore(snapshot).map_err(|error| format!("the master's snapshot: {error}"))?;
            applied = *index;
        }
        self.mastery.master = Some(master);
        for index in applied as usize..self.mastery.log.len() {
            let command = self.mastery.log[index].clone();
            self.step_master(master::Input::Committed(index as u64 + 1, command));
        }
        let term = self.mastery.life;
        self.step_master(master::Input::Leading(term));
        Ok(())
    }

    fn step_master(&mut self, input: master::Input) {
        let now = Instant(self.agenda.now() - self.mastery.started);
        let life = self.mastery.life;
        let Some(master) = &mut self.mastery.master else { return };
        let mut effects = Vec::new();
        master.step(now, input, &mut effects);
        if let Some(deadline) = master.deadline() {
            self.agenda.at(self.mastery.started + deadline.0, Happening::MasterWake { life });
        }
        for effect in effects {
            match effect {
                master::Effect::Propose(command) => {
                    let delay = self.random.between(500 * US, 10 * MS);
                    self.agenda.after(delay, Happening::Commit { life, command });
                }
                master::Effect::Send(node, message) => self.send(MASTER, node.0 as usize, Packet::FromMaster(message)),
                master::Effect::Reply(SETUP, _) | master::Effect::Refuse(SETUP, Refusal::Exists(_)) => {
                    if !self.ready {
                        self.ready = true;
                        (0..self.clients.len()).for_each(|client| self.agenda.after(10 * MS, Happening::Act(client)));
                    }
                }
                master::Effect::Reply(ticket, reply) => {
                    let place = self.machines.len() + client_of(ticket).0;
                    self.send(MASTER, place, Packet::Map(reply));
                }
                master::Effect::Refuse(..) => {}
                master::Effect::Event(name, what) => self.say(format!("master: {name} {what}")),
            }
        }
    }

    fn wake_master(&mut self) {
        let now = Instant(self.agenda.now() - self.mastery.started);
        let due = |master: &Master| master.deadline().is_some_and(|deadline| deadline <= now);
        if self.mastery.master.as_ref().is_some_and(due) {
            self.step_master(master::Input::Tick);
        }
    }

    fn maybe_snapshot(&mut self) {
        if self.random.chance(10)
            && let Some(master) = &self.mastery.master
        {
            self.mastery.snapshot = Some((master.applied(), master.snapshot()));
        }
    }

    // --- clients

    fn set_up(&mut self) {
        if self.ready {
            return;
        }
        let table = NewTable {
            name: "t".into(),
            families: vec![("f".into(), Retention::Keep)],
            partition: Partition::Hash { tablets: 2 },
            replicas: None,
            min_replicas: None,
        };
        self.step_master(master::Input::Admin(SETUP, AdminRequest::CreateTable(table)));
        self.agenda.after(300 * MS, Happening::Setup);
    }

    /// Begins the client's next operation.
    fn act(&mut self, client: usize) {
        let now = self.agenda.now();
        let last = now >= LAST_READS;
        let row = match last {
            // Every row is read at the end, by every client.
            true => self.clients[client].sequence % ROWS,
            false => self.random.below(ROWS),
        };
        self.clients[client].begin(now, row, last, &mut self.random, &mut self.next_value);
        let (sequence, attempt) = (self.clients[client].sequence, self.clients[client].attempt);
        self.attempt(client, sequence, attempt);
    }

    fn attempt(&mut self, client: usize, sequence: u64, attempt: u64) {
        let place = self.machines.len() + client;
        let now = self.agenda.now();
        let this = &mut self.clients[client];
        let Some(doing) = this.doing.as_ref().filter(|_| this.sequence == sequence && this.attempt == attempt) else {
            return;
        };
        if now >= doing.gives_up {
            self.summary.unknown += 1;
            if let Some((row, operation)) = this.give_up() {
                self.histories.entry(row).or_default().push(operation);
            }
            self.agenda.after(MS, Happening::Act(client));
            return;
        }
        this.attempt += 1;
        let attempt = this.attempt;
        let request = this.request();
        if let Some((node, request)) = request {
            self.send(place, node.0 as usize, Packet::Request(ticket(client, sequence), request));
        }
        if attempt % 3 == 1 {
            self.send(place, MASTER, Packet::Admin(ticket(client, 0), AdminRequest::Map));
        }
        let patience = self.random.between(100 * MS, 600 * MS);
        self.agenda.after(patience, Happening::Attempt { client, sequence, attempt });
    }

    fn on_answer(&mut self, ticket: Ticket, answer: Result<Reply, Refusal>) -> Checked {
        let now = self.agenda.now();
        let (client, sequence) = client_of(ticket);
        let this = &mut self.clients[client];
        if this.sequence != sequence {
            return Ok(());
        }
        let Some(row) = this.doing.as_ref().map(|doing| doing.row) else { return Ok(()) };
        match this.on_answer(now, answer)? {
            Some(operation) => {
                this.doing = None;
                self.histories.entry(row).or_default().push(operation);
                self.summary.answered += 1;
                let pause = self.random.below(30 * MS);
                self.agenda.after(pause, Happening::Act(client));
            }
            None => {
                this.attempt += 1;
                let attempt = this.attempt;
                let pause = self.random.between(5 * MS, 60 * MS);
                self.agenda.after(pause, Happening::Attempt { client, sequence, attempt });
            }
        }
        Ok(())
    }

    // --- faults

    fn on_fault(&mut self) {
        let now = self.agenda.now();
        if now >= HEALED {
            return self.heal();
        }
        let next = self.random.between(self.climate.fault_every / 4, self.climate.fault_every * 2);
        self.agenda.at((now + next).min(HEALED), Happening::Fault);
        let nodes = self.machines.len() as u64 - 1;
        let node = 1 + self.random.below(nodes) as usize;
        let most = [50 * MS, 500 * MS, 2500 * MS, 6 * SECOND][self.random.below(4) as usize];
        let long = MS + self.random.below(most);
        match self.random.below(11) {
            0..=3 if self.climate.crashes => {
                if self.random.chance(40) {
                    let operations = self.random.below(30);
                    self.say(format!("fault: n{node} loses its power after {operations} operations"));
                    if self.machines[node].process.is_some() {
                        self.machines[node].disk.power_fails_after(operations);
                    }
                } else {
                    self.say(format!("fault: crash of n{node}"));
                    self.crash(node);
                    self.agenda.after(long, Happening::Restart(node));
                }
            }
            4..=5 if self.climate.pauses => {
                self.say(format!("fault: pause of n{node} for {long}"));
                if let Some(process) = &mut self.machines[node].process {
                    process.paused = true;
                    self.agenda.after(long, Happening::Resume(node));
                }
            }
            6..=8 if self.climate.cuts => {
                let first = u64::from(!self.climate.master_faults);
                let other = (first + self.random.below(nodes + 1 - first)) as usize;
                let alone = (first as usize..=nodes as usize).filter(|&other| other != node);
                let ways = match self.random.below(4) {
                    0 => vec![(node, other), (other, node)],
                    1 => vec![(node, other)],
                    2 => vec![(other, node)],
                    _ => alone.flat_map(|other| [(node, other), (other, node)]).collect(),
                };
                self.say(format!("fault: cut {ways:?} for {long}"));
                for (from, to) in ways {
                    if self.blocked.insert((from, to)) {
                        self.agenda.after(long, Happening::Unblock(from, to));
                    }
                }
            }
            9 if self.climate.master_faults => {
                self.say("fault: the master crashes".into());
                self.mastery.master = None;
                self.mastery.life += 1;
                self.agenda.after(long, Happening::MasterStart);
            }
            10 if self.climate.full_disks => {
                self.say(format!("fault: the disk of n{node} is full for {long}"));
                let used = self.machines[node].disk.used();
                let more = self.random.below(50_000);
                self.machines[node].disk.set_capacity(Some(used + more));
                self.agenda.after(long, Happening::Roomy(node));
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.say("all is healed".into());
        self.blocked.clear();
        self.agenda.after(0, Happening::MasterStart);
        for node in 1..self.machines.len() {
            self.machines[node].disk.set_capacity(None);
            self.machines[node].disk.power_fails_after(u64::MAX);
            self.agenda.after(0, Happening::Restart(node));
            self.agenda.after(0, Happening::Resume(node));
        }
    }

    // --- the end

    /// Every group is whole, its replicas are equal, and what clients saw can be explained.
    fn check_healed(&mut self) -> Checked {
        if !self.ready {
            return Err("the table was never made".into());
        }
        let now = self.agenda.now();
        let master = self.mastery.master.as_ref().ok_or("the master is down")?;
        for (tablet, group) in &master.state().groups {
            let configuration = &group.configuration;
            let state: Vec<String> = self
                .machines
                .iter()
                .filter_map(|machine| machine.process.as_ref())
                .flat_map(|process| process.node.reports(process.local(now)))
                .filter(|report| report.tablet == *tablet)
                .map(|report| format!("{report:?}"))
                .collect();
            let state = format!("{configuration:?} learner {:?}\n{}", group.learner, state.join("\n"));
            if configuration.size() != usize::from(self.climate.replicas) {
                return Err(format!("{tablet} has not become whole: {state}"));
            }
            let mut contents = Vec::new();
            for member in configuration.members() {
                let process = self.machines[member.0 as usize].process.as_ref();
                let process = process.ok_or_else(|| format!("{member} is down"))?;
                let report =
                    process.node.reports(process.local(now)).into_iter().find(|report| report.tablet == *tablet);
                let role = if member == configuration.primary { Role::Primary } else { Role::Secondary };
                if !report
                    .is_some_and(|report| report.steady && report.role == role && report.epoch == configuration.epoch)
                {
                    return Err(format!("{member} is not steady in {tablet}: {state}"));
                }
                let (applied, view, schema) =
                    process.node.applied(*tablet).ok_or_else(|| format!("{member} has no {tablet}"))?;
                let all = model::ReadOptions { columns: Vec::new(), versions: u32::MAX };
                let rows = view
                    .scan(&RowRange::default(), &all, &schema, Timestamp(EPOCH_US * 2), u32::MAX, usize::MAX)
                    .map_err(|error| format!("{member}: {error}"))?;
                contents.push((applied, rows));
            }
            if let Some(other) = contents.iter().find(|other| **other != contents[0]) {
                let (ours, theirs) = (contents[0].0, other.0);
                return Err(format!("replicas of {tablet} differ at {ours} and {theirs}: {state}"));
            }
        }
        for (row, operations) in &self.histories {
            let last = operations.iter().filter_map(|operation| operation.answered).max().unwrap_or(0);
            if last < LAST_READS {
                return Err(format!("row {row} was last served at {:?}", Instant(last)));
            }
            linear::check(operations).map_err(|stuck| {
                let first = stuck.first().map_or(0, |operation| operation.called);
                let mut near: Vec<_> = operations.iter().filter(|o| o.called.abs_diff(first) < SECOND).collect();
                near.sort_by_key(|operation| operation.called);
                let near: Vec<String> = near.into_iter().map(describe).collect();
                let stuck: Vec<String> = stuck.iter().take(6).map(describe).collect();
                format!("no order explains row {row}; left over are\n{}\nof\n{}", stuck.join("\n"), near.join("\n"))
            })?;
        }
        Ok(())
    }
}

fn describe(operation: &linear::Operation) -> String {
    format!("{:?} from {:?} to {:?}", operation.action, Instant(operation.called), operation.answered.map(Instant))
}

/// Payloads are long.
fn short(mut text: String) -> String {
    if text.len() > 700 {
        let end = (0..=700).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
