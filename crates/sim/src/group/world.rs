//! The world of one group: hosts, network, master, faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use model::random::Random;
use model::request::Role;
use model::{Configuration, Epoch, Instant, Lsn, NodeId, Refusal, TabletId, Ticket};
use protocol::replica::{Effect, Input};
use protocol::{Core, Entry, GroupMessage, Replica, Timing};

use super::check::Record;
use super::log::{self, Log};
use super::{Summary, Violation};
use crate::agenda::{Agenda, MS, SECOND, US};

const TABLET: TabletId = TabletId(1);
const MASTER: usize = 0;
/// When the faults end, and when the clients.
const HEALED: u64 = 8 * SECOND;
const QUIET: u64 = 16 * SECOND;
const END: u64 = 20 * SECOND;

#[derive(Clone, Debug)]
enum Packet {
    Group(GroupMessage),
    Beacon { sent: Instant, epoch: Epoch, committed: Lsn },
    BeaconAck { sent: Instant, epoch: Epoch },
    Offer { attempt: u64, upto: Lsn },
    Heartbeat,
    Propose(Configuration),
    Assign(Configuration, Option<NodeId>),
    Forget(Epoch),
}

#[derive(Debug)]
enum Happening {
    Deliver {
        from: usize,
        to: usize,
        packet: Packet,
    },
    /// The node's own round: beacons and heartbeats.
    Round {
        node: usize,
        life: u64,
    },
    /// The replica's deadline.
    Wake {
        node: usize,
        life: u64,
    },
    Settle {
        node: usize,
        life: u64,
    },
    Synced {
        node: usize,
        life: u64,
        records: usize,
        marks: u64,
    },
    Input {
        node: usize,
        life: u64,
        input: Input,
    },
    Restored {
        node: usize,
        life: u64,
        attempt: u64,
        upto: Lsn,
    },
    Client,
    Fault,
    Restart(usize),
    Resume(usize),
    Unblock(usize, usize),
    MasterUp,
    Decide(usize, Configuration),
    MasterRound,
}

/// A process with its replica.
#[derive(Debug)]
struct Process {
    replica: Option<Replica>,
    started: u64,
    /// Speed of its clock, in millionths.
    rate: u64,
    stepped: Instant,
    paused: bool,
    inbox: VecDeque<Input>,
    unsettled: bool,
    woken_at: Option<u64>,
    /// How many `Append` and `Save` the replica has asked for.
    marks: u64,
    syncing: bool,
    attempt: Option<u64>,
    beat: u64,
}

#[derive(Debug)]
struct Host {
    log: Log,
    process: Option<Process>,
    /// Rises with every start, also with that of a replica.
    life: u64,
    /// What was applied to the rows.
    applied: Lsn,
}

struct Master {
    configuration: Configuration,
    learner: Option<NodeId>,
    heard: Vec<u64>,
    up: bool,
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
    gaps: bool,
    master_faults: bool,
    forgets: bool,
    heavy: bool,
    quiet_after_healing: bool,
    wanted: usize,
}

pub(super) struct World {
    agenda: Agenda<Happening>,
    random: Random,
    climate: Climate,
    hosts: Vec<Host>,
    master: Master,
    blocked: BTreeSet<(usize, usize)>,
    arrival: BTreeMap<(usize, usize), u64>,
    record: Record,
    tickets: BTreeMap<Ticket, Bytes>,
    next_ticket: u64,
    payloads: Vec<Bytes>,
    summary: Summary,
    verbose: usize,
    events: VecDeque<String>,
    last_acknowledged_at: u64,
}

type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, verbose: usize) -> World {
        let mut random = Random::new(seed);
        let nodes = random.between(2, 6) as usize;
        let wanted = (random.between(2, 4) as usize).min(nodes);
        let climate = Climate {
            loss: [0, 0, 1, 5, 20][random.below(5) as usize],
            twice: [0, 2, 10][random.below(3) as usize],
            delay: [MS, 5 * MS, 50 * MS, 300 * MS][random.below(4) as usize],
            fifo: random.chance(40),
            slow_sync: [0, 1, 10][random.below(3) as usize],
            fault_every: [40 * MS, 150 * MS, 600 * MS, 1500 * MS][random.below(4) as usize],
            crashes: random.chance(75),
            pauses: random.chance(60),
            cuts: random.chance(60),
            gaps: random.chance(70),
            master_faults: random.chance(40),
            forgets: random.chance(50),
            heavy: random.chance(5),
            quiet_after_healing: random.chance(40),
            wanted,
        };
        let first = 1 + random.below(wanted as u64) as u32;
        let members = (1..=wanted as u32).map(NodeId);
        let heavy = if climate.heavy { 48 } else { 0 };
        let payloads = (0..heavy).map(|n| Bytes::from(vec![n as u8; 1 << 20])).collect();
        let mut world = World {
            agenda: Agenda::default(),
            random,
            climate,
            hosts: Vec::new(),
            master: Master {
                configuration: Configuration::first(NodeId(first), members),
                learner: None,
                heard: vec![0; nodes + 1],
                up: true,
            },
            blocked: BTreeSet::new(),
            arrival: BTreeMap::new(),
            record: Record::default(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            payloads,
            summary: Summary::default(),
            verbose,
            events: VecDeque::new(),
            last_acknowledged_at: 0,
        };
        // Host 0 is the master's place.
        for node in 0..=nodes {
            world.hosts.push(Host { log: Log::default(), process: None, life: 0, applied: Lsn::ZERO });
            if node != MASTER {
                world.start(node);
            }
        }
        let first = world.master.configuration.clone();
        world.record.on_configuration(&first).expect("the first is the first");
        world.agenda.after(MS, Happening::MasterRound);
        world.agenda.after(MS, Happening::Client);
        world.agenda.after(SECOND, Happening::Fault);
        world
    }

    pub fn run(mut self) -> Result<Summary, Violation> {
        let mut result = Ok(());
        if self.verbose > 0 {
            let climate = format!("{} nodes, {:?}", self.hosts.len() - 1, self.climate);
            self.events.push_back(climate);
        }
        while self.agenda.now() < END && result.is_ok() {
            let Some(happening) = self.agenda.take() else { break };
            self.note(&happening);
            // An assertion of a core is a violation like any other.
            let step = std::panic::AssertUnwindSafe(|| self.on(happening).and_then(|()| self.check()));
            result = std::panic::catch_unwind(step).unwrap_or_else(|panic| Err(words_of(&*panic)));
        }
        let result = result.and_then(|()| self.check_healed());
        self.summary.commits = self.record.commits;
        self.summary.epochs = self.master.configuration.epoch.0;
        match result {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Violation { time: self.agenda.now(), what, events: self.events.into_iter().collect() }),
        }
    }

    fn note(&mut self, happening: &Happening) {
        let now = self.agenda.now();
        let kind = match happening {
            Happening::Deliver { from, to, packet } => 1 + *from as u64 * 7 + *to as u64 * 31 + weight(packet) * 1009,
            Happening::Round { node, .. } => 2 + *node as u64 * 7,
            Happening::Wake { node, .. } => 3 + *node as u64 * 7,
            _ => 4,
        };
        self.summary.trace = (self.summary.trace.rotate_left(5) ^ now ^ kind).wrapping_mul(0x517c_c1b7_2722_0a95);
        if self.verbose > 0
            && !matches!(happening, Happening::Round { .. } | Happening::MasterRound | Happening::Client)
        {
            self.say(format!("{happening:?}"));
        }
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
            Happening::Round { node, life } if self.lives(node, life) => return self.on_round(node),
            Happening::Wake { node, life } if self.lives(node, life) => return self.on_wake(node),
            Happening::Settle { node, life } if self.lives(node, life) => return self.settle(node),
            Happening::Synced { node, life, records, marks } if self.lives(node, life) => {
                return self.on_synced(node, records, marks);
            }
            Happening::Input { node, life, input } if self.lives(node, life) => return self.input(node, input),
            Happening::Restored { node, life, attempt, upto } if self.lives(node, life) => {
                return self.on_restored(node, attempt, upto);
            }
            Happening::Client => return self.on_client(),
            Happening::Fault => return self.on_fault(),
            Happening::Restart(node) => self.start(node),
            Happening::Resume(node) => return self.resume(node),
            Happening::Unblock(from, to) => {
                self.blocked.remove(&(from, to));
            }
            Happening::MasterUp => self.master.up = true,
            Happening::Decide(from, configuration) => return self.decide(from, configuration),
            Happening::MasterRound => self.on_master_round(),
            _ => {}
        }
        Ok(())
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.hosts[node].life == life && self.hosts[node].process.is_some()
    }

    fn local(&self, node: usize) -> Instant {
        let process = self.hosts[node].process.as_ref().expect("asked of live processes");
        Instant((u128::from(self.agenda.now() - process.started) * u128::from(process.rate) / 1_000_000) as u64)
    }

    // --- processes

    fn start(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.process.is_some() {
            return;
        }
        host.life += 1;
        let me = NodeId(node as u32);
        let content = &host.log.durable;
        let now = Instant::ZERO;
        let replica = content.state.clone().map(|(configuration, abandoned)| {
            let committed = content.committed.max(host.log.flushed);
            let tail = content.entries.range(committed.next()..).map(|(_, entry)| entry.clone()).collect();
            Replica::recover(TABLET, me, Timing::default(), now, configuration, abandoned, committed, tail)
        });
        host.applied = replica.as_ref().map_or(Lsn::ZERO, Replica::committed);
        let rate = self.random.between(990_000, 1_010_001);
        host.process = Some(Process {
            replica,
            started: self.agenda.now(),
            rate,
            stepped: now,
            paused: false,
            inbox: VecDeque::new(),
            unsettled: false,
            woken_at: None,
            marks: 0,
            syncing: false,
            attempt: None,
            beat: 0,
        });
        let life = host.life;
        if self.verbose > 0 {
            let what = format!("n{node} starts: {:?}", self.brief(node));
            self.say(what);
        }
        self.agenda.after(0, Happening::Round { node, life });
        self.arm(node);
    }

    fn crash(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.process.take().is_some() {
            self.summary.crashes += 1;
            host.life += 1;
            host.log.crash(&mut self.random);
        }
    }

    fn brief(&self, node: usize) -> String {
        let Some(replica) = self.hosts[node].process.as_ref().and_then(|process| process.replica.as_ref()) else {
            return String::from("no replica");
        };
        format!(
            "{:?} {:?} learner {:?} committed {} durable {} appended {} reads {}",
            replica.role(),
            replica.configuration(),
            replica.learner(),
            replica.committed(),
            replica.durable(),
            replica.appended(),
            replica.may_read(self.local(node))
        )
    }

    /// Gives the replica an input, or keeps it for when the process goes on.
    fn input(&mut self, node: usize, input: Input) -> Checked {
        let Some(process) = &mut self.hosts[node].process else { return Ok(()) };
        if process.paused {
            process.inbox.push_back(input);
            return Ok(());
        }
        let me = NodeId(node as u32);
        let wanted = match &input {
            // As the node does it: a member that has lost its data must not pass for one that has it.
            Input::Assign(configuration, learner) => {
                *learner == Some(me) || configuration.epoch == Epoch(1) && configuration.has(me)
            }
            _ => false,
        };
        if process.replica.is_none() && wanted {
            self.hosts[node].life += 1;
            let life = self.hosts[node].life;
            let process = self.hosts[node].process.as_mut().expect("lives");
            process.replica = Some(Replica::new(TABLET, NodeId(node as u32), Timing::default()));
            (process.marks, process.syncing, process.attempt, process.unsettled) = (0, false, None, false);
            (process.woken_at, process.inbox) = (None, VecDeque::new());
            self.agenda.after(0, Happening::Round { node, life });
        }
        let now = self.local(node);
        let mut out = Vec::new();
        let process = self.hosts[node].process.as_mut().expect("lives");
        let Some(replica) = &mut process.replica else { return Ok(()) };
        if self.climate.gaps && now.since(process.stepped).as_millis() > 250 {
            replica.step(now, Input::Gap, &mut out);
        }
        process.stepped = now;
        replica.step(now, input, &mut out);
        if !process.unsettled {
            process.unsettled = true;
            let life = self.hosts[node].life;
            let delay = if self.random.chance(60) { 0 } else { self.random.below(2 * MS) };
            self.agenda.after(delay, Happening::Settle { node, life });
        }
        self.carry_out(node, out)
    }

    fn settle(&mut self, node: usize) -> Checked {
        let now = self.local(node);
        let process = self.hosts[node].process.as_mut().expect("lives");
        process.unsettled = false;
        if process.paused {
            process.inbox.push_back(Input::Settle);
            return Ok(());
        }
        let mut out = Vec::new();
        if let Some(replica) = &mut process.replica {
            replica.step(now, Input::Settle, &mut out);
        }
        self.carry_out(node, out)
    }

    fn resume(&mut self, node: usize) -> Checked {
        let Some(process) = &mut self.hosts[node].process else { return Ok(()) };
        if !process.paused {
            return Ok(());
        }
        process.paused = false;
        process.woken_at = None;
        let inbox = core::mem::take(&mut process.inbox);
        // It could answer a read before it sees what has come meanwhile.
        self.check()?;
        let life = self.hosts[node].life;
        // What waited and what the clock says may come in any order.
        if self.random.chance(50) {
            self.on_wake(node)?;
        }
        for input in inbox {
            if self.lives(node, life) {
                self.input(node, input)?;
            }
        }
        if self.lives(node, life) {
            self.arm(node);
        }
        Ok(())
    }

    /// Makes sure that the replica hears of its deadline.
    fn arm(&mut self, node: usize) {
        let (now, life) = (self.agenda.now(), self.hosts[node].life);
        let Some(process) = &mut self.hosts[node].process else { return };
        let Some(deadline) = process.replica.as_ref().and_then(Core::deadline) else { return };
        let local = (u128::from(deadline.0) * 1_000_000).div_ceil(u128::from(process.rate)) as u64;
        let at = process.started.saturating_add(local).saturating_add(1).max(now);
        if process.woken_at.is_none_or(|armed| armed > at || armed < now) {
            process.woken_at = Some(at);
            self.agenda.at(at, Happening::Wake { node, life });
        }
    }

    fn on_wake(&mut self, node: usize) -> Checked {
        let now = self.local(node);
        let process = self.hosts[node].process.as_mut().expect("lives");
        process.woken_at = None;
        if process.paused {
            return Ok(());
        }
        let due = |process: &Process| {
            process.replica.as_ref().and_then(Core::deadline).is_some_and(|deadline| deadline <= now)
        };
        if due(process) {
            self.input(node, Input::Tick)?;
            let process = self.hosts[node].process.as_ref().expect("lives");
            if due(process) {
                return Err(format!("n{node} spins: {:?} at {now:?}", self.brief(node)));
            }
        }
        self.arm(node);
        Ok(())
    }

    /// Every 150 ms of the node's own time: beacons, and sometimes a heartbeat.
    fn on_round(&mut self, node: usize) -> Checked {
        let (now, life) = (self.local(node), self.hosts[node].life);
        let jitter = self.random.below(10 * MS);
        self.agenda.after(150 * MS + jitter, Happening::Round { node, life });
        let process = self.hosts[node].process.as_mut().expect("lives");
        if process.paused {
            return Ok(());
        }
        if self.climate.gaps && now.since(process.stepped).as_millis() > 250 {
            self.input(node, Input::Gap)?;
        }
        let process = self.hosts[node].process.as_mut().expect("lives");
        process.stepped = now;
        process.beat += 1;
        let beats = process.beat % 3 == 1;
        if let Some(replica) = &process.replica {
            let (epoch, committed) = (replica.epoch(), replica.committed());
            for peer in replica.peers() {
                self.send(node, peer.0 as usize, Packet::Beacon { sent: now, epoch, committed });
            }
        }
        if beats {
            self.send(node, MASTER, Packet::Heartbeat);
        }
        let host = &mut self.hosts[node];
        if self.random.chance(10) && host.applied > host.log.flushed {
            // The tables are written on their own, and may be ahead of the log's sync.
            host.log.flushed = Lsn(self.random.between(host.log.flushed.0, host.applied.0 + 1));
        }
        if self.random.chance(5) {
            self.hosts[node].log.trim();
        }
        Ok(())
    }

    // --- effects

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) -> Checked {
        let me = NodeId(node as u32);
        for effect in effects {
            if self.verbose > 0 {
                let what = format!("    n{node} {effect:?}");
                self.say(what);
            }
            match effect {
                Effect::Append(entries) => {
                    let committed = self.replica(node).committed();
                    self.append(node, log::Record::Entries(entries, committed), true);
                }
                Effect::Save { configuration, abandoned, .. } => {
                    let committed = self.replica(node).committed();
                    self.append(node, log::Record::State { configuration, abandoned, committed }, true);
                }
                Effect::Send(to, message) => {
                    if let GroupMessage::Prepare { entries, .. } = &message {
                        entries.iter().try_for_each(|entry| self.record.on_sent(me, entry))?;
                    }
                    if let GroupMessage::Learn { attempt, .. } = &message {
                        let process = self.hosts[node].process.as_mut().expect("lives");
                        process.attempt = Some(*attempt);
                    }
                    self.send(node, to.0 as usize, Packet::Group(message));
                }
                // The node answers a beacon itself; see on_packet.
                Effect::Grant(..) => return Err(format!("n{node} grants a lease out of the blue")),
                Effect::ProposeConfiguration(configuration) => {
                    self.send(node, MASTER, Packet::Propose(configuration));
                }
                Effect::AskMaster => self.send(node, MASTER, Packet::Heartbeat),
                Effect::Commit(commits) => self.on_commit(node, commits)?,
                Effect::Refuse(ticket, refusal) => {
                    if !matches!(refusal, Refusal::Unknown(_)) {
                        self.tickets.remove(&ticket);
                    }
                }
                Effect::Older { to, from, attempt } => self.on_older(node, to, from, attempt),
                Effect::Suspect(whom, why) => return Err(format!("n{node} suspects {whom}: {why}")),
            }
        }
        self.sync(node);
        self.arm(node);
        Ok(())
    }

    fn replica(&self, node: usize) -> &Replica {
        self.hosts[node].process.as_ref().and_then(|process| process.replica.as_ref()).expect("it has just spoken")
    }

    fn append(&mut self, node: usize, record: log::Record, counts: bool) {
        let host = &mut self.hosts[node];
        host.log.append(record);
        if let Some(process) = &mut host.process
            && counts
        {
            process.marks += 1;
        }
    }

    /// Begins a sync of what is appended, if none is running.
    fn sync(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some(process) = &mut host.process else { return };
        if process.syncing || host.log.unsynced() == 0 {
            return;
        }
        process.syncing = true;
        let (life, records, marks) = (host.life, host.log.unsynced(), process.marks);
        let slow = self.random.chance(self.climate.slow_sync);
        let delay = if slow { self.random.below(SECOND) } else { self.random.between(200 * US, 3 * MS) };
        self.agenda.after(delay, Happening::Synced { node, life, records, marks });
    }

    fn on_synced(&mut self, node: usize, records: usize, marks: u64) -> Checked {
        let host = &mut self.hosts[node];
        host.log.sync(records);
        host.process.as_mut().expect("lives").syncing = false;
        if marks > 0 {
            self.input(node, Input::Durable(marks))?;
        }
        self.sync(node);
        Ok(())
    }

    fn on_commit(&mut self, node: usize, commits: Vec<(Entry, Option<Ticket>)>) -> Checked {
        let me = NodeId(node as u32);
        for (entry, ticket) in commits {
            let applied = self.hosts[node].applied;
            if entry.lsn != applied.next() {
                return Err(format!("n{node} commits {entry:?} after {applied}"));
            }
            self.hosts[node].applied = entry.lsn;
            self.record.on_commit(me, &entry, ticket.is_some())?;
            let replica = self.replica(node);
            if replica.role() == Role::Primary {
                let newest = &self.master.configuration;
                for member in replica.configuration().members() {
                    // Whoever was removed since may have been told to forget.
                    let removed = newest.epoch > replica.epoch() && !newest.has(member);
                    if !removed && !self.hosts[member.0 as usize].log.holds(entry.lsn, entry.epoch) {
                        return Err(format!("n{node} commits {entry:?}, which {member} does not hold"));
                    }
                }
                for member in newest.members() {
                    if !self.hosts[member.0 as usize].log.holds(entry.lsn, entry.epoch) {
                        return Err(format!(
                            "n{node} commits {entry:?}, which the newest member {member} does not hold"
                        ));
                    }
                }
            }
            if let Some(ticket) = ticket {
                if self.tickets.remove(&ticket) != Some(entry.payload.clone()) {
                    return Err(format!("n{node} acknowledges {ticket:?} with another payload, or twice"));
                }
                self.summary.acknowledged += 1;
                self.last_acknowledged_at = self.agenda.now();
            }
        }
        Ok(())
    }

    /// Reads from the log, or offers a checkpoint to a learner.
    fn on_older(&mut self, node: usize, to: NodeId, from: Lsn, attempt: Option<u64>) {
        let delay = self.random.between(100 * US, 30 * MS);
        let (life, applied) = (self.hosts[node].life, self.hosts[node].applied);
        let log = &self.hosts[node].log.written;
        let trimmed = from <= log.before;
        if let Some(attempt) = attempt
            && applied >= from
            && (trimmed || self.random.chance(40))
        {
            self.send(node, to.0 as usize, Packet::Offer { attempt, upto: applied });
            return;
        }
        let entries: Vec<Entry> = if trimmed {
            Vec::new()
        } else {
            let most = 1 + self.random.below(20) as usize;
            log.entries.range(from..).take(most).map(|(_, entry)| entry.clone()).collect()
        };
        self.agenda.after(delay, Happening::Input { node, life, input: Input::Fetched(to, entries) });
    }

    fn on_restored(&mut self, node: usize, attempt: u64, upto: Lsn) -> Checked {
        let host = &mut self.hosts[node];
        let process = host.process.as_mut().expect("lives");
        let helps = process.replica.as_ref().is_some_and(|replica| replica.wants_checkpoint(upto));
        if process.paused || process.attempt != Some(attempt) || !helps {
            return Ok(());
        }
        host.log.flushed = host.log.flushed.max(upto);
        host.applied = upto;
        self.summary.checkpoints += 1;
        self.append(node, log::Record::Restart(upto), false);
        self.input(node, Input::Restored(upto))
    }

    // --- network

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.blocked.contains(&(from, to)) || self.random.chance(self.loss()) {
            return;
        }
        let copies = if self.random.chance(self.climate.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let most = if self.agenda.now() > HEALED { MS } else { self.climate.delay };
            let delay = if self.random.chance(80) { self.random.below(MS) } else { self.random.below(most) };
            let mut at = self.agenda.now() + 50 * US + delay;
            if self.climate.fifo {
                let last = self.arrival.entry((from, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.agenda.at(at, Happening::Deliver { from, to, packet: packet.clone() });
        }
    }

    fn loss(&self) -> u64 {
        if self.agenda.now() > HEALED { 0 } else { self.climate.loss }
    }

    fn on_packet(&mut self, from: usize, to: usize, packet: Packet) -> Checked {
        let sender = NodeId(from as u32);
        if to == MASTER {
            return self.on_master_packet(from, packet);
        }
        let Some(process) = &self.hosts[to].process else { return Ok(()) };
        match packet {
            Packet::Group(message) => self.input(to, Input::Receive(sender, message)),
            Packet::Beacon { sent, epoch, committed } => {
                if process.paused {
                    // It waits in the socket, and is answered when the process goes on.
                    self.agenda.after(
                        20 * MS,
                        Happening::Deliver { from, to, packet: Packet::Beacon { sent, epoch, committed } },
                    );
                    return Ok(());
                }
                self.on_beacon(to, sender, sent, epoch, committed)
            }
            Packet::BeaconAck { sent, epoch } => self.input(to, Input::Granted(sender, epoch, sent)),
            Packet::Offer { attempt, upto } => {
                if process.attempt == Some(attempt) {
                    let life = self.hosts[to].life;
                    let delay = self.random.between(5 * MS, 1500 * MS);
                    self.agenda.after(delay, Happening::Restored { node: to, life, attempt, upto });
                }
                Ok(())
            }
            Packet::Assign(configuration, learner) => self.input(to, Input::Assign(configuration, learner)),
            Packet::Forget(epoch) => {
                let useless = |replica: &Replica| replica.epoch() <= epoch && replica.role() == Role::Spare;
                let gone = process.replica.as_ref().is_some_and(useless);
                if gone && !process.paused {
                    let host = &mut self.hosts[to];
                    host.life += 1;
                    host.log = Log::default();
                    host.applied = Lsn::ZERO;
                    let process = host.process.as_mut().expect("lives");
                    process.replica = None;
                    process.inbox.clear();
                    let life = host.life;
                    self.agenda.after(0, Happening::Round { node: to, life });
                }
                Ok(())
            }
            Packet::Heartbeat | Packet::Propose(_) => Ok(()),
        }
    }

    /// A beacon, with the node's part in it: an answer goes back if the replica grants the lease.
    fn on_beacon(&mut self, node: usize, from: NodeId, sent: Instant, epoch: Epoch, committed: Lsn) -> Checked {
        let now = self.local(node);
        let process = self.hosts[node].process.as_mut().expect("lives");
        let Some(replica) = &mut process.replica else { return Ok(()) };
        let mut out = Vec::new();
        if self.climate.gaps && now.since(process.stepped).as_millis() > 250 {
            replica.step(now, Input::Gap, &mut out);
        }
        process.stepped = now;
        replica.step(now, Input::Beacon(from, epoch, committed), &mut out);
        let mut granted = None;
        out.retain(|effect| match effect {
            Effect::Grant(to, epoch) => {
                granted = Some((*to, *epoch));
                false
            }
            _ => true,
        });
        if let Some((to, epoch)) = granted {
            self.send(node, to.0 as usize, Packet::BeaconAck { sent, epoch });
        }
        self.carry_out(node, out)
    }

    // --- the master

    fn on_master_packet(&mut self, from: usize, packet: Packet) -> Checked {
        if !self.master.up {
            return Ok(());
        }
        match packet {
            Packet::Heartbeat => {
                self.master.heard[from] = self.agenda.now();
                self.tell(from);
            }
            Packet::Propose(configuration) => {
                let delay = self.random.between(500 * US, 10 * MS);
                self.agenda.after(delay, Happening::Decide(from, configuration));
            }
            _ => {}
        }
        Ok(())
    }

    fn decide(&mut self, from: usize, proposed: Configuration) -> Checked {
        let present = &self.master.configuration;
        let knows = |node: NodeId| present.has(node) || self.master.learner == Some(node);
        if !self.master.up {
            return Ok(());
        }
        if proposed.epoch != present.epoch.next() || !present.has(proposed.primary) || !proposed.members().all(knows) {
            self.tell(from);
            return Ok(());
        }
        let before = core::mem::replace(&mut self.master.configuration, proposed.clone());
        if self.master.learner.is_some_and(|learner| proposed.has(learner)) {
            self.master.learner = None;
        }
        self.say(format!("master: {before:?} -> {proposed:?}"));
        self.record.on_configuration(&proposed)?;
        (1..self.hosts.len()).for_each(|node| self.tell(node));
        Ok(())
    }

    /// Tells a node what concerns it.
    fn tell(&mut self, node: usize) {
        let (configuration, learner) = (self.master.configuration.clone(), self.master.learner);
        let me = NodeId(node as u32);
        if configuration.has(me) || learner == Some(me) {
            self.send(MASTER, node, Packet::Assign(configuration, learner));
        } else if self.climate.forgets && self.random.chance(50) {
            self.send(MASTER, node, Packet::Forget(configuration.epoch));
        } else {
            self.send(MASTER, node, Packet::Assign(configuration, learner));
        }
    }

    fn on_master_round(&mut self) {
        self.agenda.after(200 * MS, Happening::MasterRound);
        if !self.master.up {
            return;
        }
        let now = self.agenda.now();
        let alive = |master: &Master, node: usize| now.saturating_sub(master.heard[node]) < 3 * SECOND;
        let gone = self.master.learner.is_some_and(|node| !alive(&self.master, node.0 as usize));
        let whim = now < HEALED && self.random.chance(2);
        let before = self.master.learner;
        if before.is_some() && (gone || whim) {
            // What the learner has promised ends with the epoch.
            self.master.learner = None;
            self.master.configuration = self.master.configuration.next();
            let next = self.master.configuration.clone();
            self.record.on_configuration(&next).expect("the same members");
        }
        if self.master.learner.is_none() && self.master.configuration.size() < self.climate.wanted {
            let free: Vec<NodeId> = (1..self.hosts.len())
                .filter(|&node| alive(&self.master, node))
                .map(|node| NodeId(node as u32))
                .filter(|node| !self.master.configuration.has(*node))
                .collect();
            self.master.learner = self.random.pick(&free).copied();
        }
        if self.master.learner != before {
            self.say(format!("master: learner {before:?} -> {:?}", self.master.learner));
            (1..self.hosts.len()).for_each(|node| self.tell(node));
        }
    }

    // --- clients and faults

    fn on_client(&mut self) -> Checked {
        let now = self.agenda.now();
        let until = if self.climate.quiet_after_healing { HEALED } else { QUIET };
        if now >= until {
            return Ok(());
        }
        let pause = self.random.between(MS, 30 * MS);
        self.agenda.after(pause, Happening::Client);
        let node = 1 + self.random.below(self.hosts.len() as u64 - 1) as usize;
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let payload = match self.random.pick(&self.payloads) {
            Some(payload) => payload.clone(),
            None => Bytes::copy_from_slice(&ticket.0.to_le_bytes()),
        };
        self.tickets.insert(ticket, payload.clone());
        self.input(node, Input::Propose(ticket, payload))
    }

    fn on_fault(&mut self) -> Checked {
        let now = self.agenda.now();
        if now >= HEALED {
            return self.heal();
        }
        let next = self.random.between(self.climate.fault_every / 4, self.climate.fault_every * 2);
        self.agenda.at((now + next).min(HEALED), Happening::Fault);
        let hosts = self.hosts.len() as u64;
        let node = 1 + self.random.below(hosts - 1) as usize;
        let long = |random: &mut Random| {
            let most = [50 * MS, 500 * MS, 2500 * MS, 6 * SECOND][random.below(4) as usize];
            random.below(most) + MS
        };
        match self.random.below(10) {
            0..=3 if self.climate.crashes => {
                self.say(format!("fault: crash of n{node}, {}", self.brief_or_down(node)));
                self.crash(node);
                let delay = long(&mut self.random);
                self.agenda.after(delay, Happening::Restart(node));
            }
            4..=5 if self.climate.pauses => {
                self.say(format!("fault: pause of n{node}"));
                if let Some(process) = &mut self.hosts[node].process {
                    process.paused = true;
                    let delay = long(&mut self.random);
                    self.agenda.after(delay, Happening::Resume(node));
                }
            }
            6..=8 if self.climate.cuts => {
                let first = if self.climate.master_faults { 0 } else { 1 };
                let other = first + self.random.below(hosts - first as u64) as usize;
                let delay = long(&mut self.random);
                let alone = (first..hosts as usize).filter(|&other| other != node);
                let ways = match self.random.below(4) {
                    0 => vec![(node, other), (other, node)],
                    1 => vec![(node, other)],
                    2 => vec![(other, node)],
                    _ => alone.flat_map(|other| [(node, other), (other, node)]).collect(),
                };
                self.say(format!("fault: cut {ways:?} for {delay}"));
                for (from, to) in ways {
                    if self.blocked.insert((from, to)) {
                        self.agenda.after(delay, Happening::Unblock(from, to));
                    }
                }
            }
            9 if self.climate.master_faults => {
                self.say(String::from("fault: master down"));
                self.master.up = false;
                let delay = long(&mut self.random);
                self.agenda.after(delay, Happening::MasterUp);
            }
            _ => {}
        }
        Ok(())
    }

    fn brief_or_down(&self, node: usize) -> String {
        if self.hosts[node].process.is_some() { self.brief(node) } else { String::from("down") }
    }

    fn heal(&mut self) -> Checked {
        self.say(String::from("all is healed"));
        self.blocked.clear();
        self.master.up = true;
        for node in 1..self.hosts.len() {
            self.start(node);
            self.resume(node)?;
        }
        Ok(())
    }

    // --- checkers

    /// After every step.
    fn check(&mut self) -> Checked {
        let mut readers = Vec::new();
        let mut primaries = BTreeMap::new();
        for node in 1..self.hosts.len() {
            let Some(process) = &self.hosts[node].process else { continue };
            let Some(replica) = &process.replica else { continue };
            if replica.role() == Role::Primary
                && let Some(other) = primaries.insert(replica.epoch(), node)
            {
                return Err(format!("n{node} and n{other} are both primary of {}", replica.epoch()));
            }
            if process.paused || !replica.may_read(self.local(node)) {
                continue;
            }
            readers.push(node);
            if replica.committed() < self.record.acknowledged {
                let (committed, acknowledged) = (replica.committed(), self.record.acknowledged);
                return Err(format!("n{node} may read at {committed}, and {acknowledged} was acknowledged"));
            }
        }
        self.summary.readable += u64::from(!readers.is_empty());
        if readers.len() > 1 {
            return Err(format!("{readers:?} may read at once"));
        }
        Ok(())
    }

    /// Long after the last fault the group is whole, serves, and its replicas are equal.
    fn check_healed(&mut self) -> Checked {
        let configuration = self.master.configuration.clone();
        let state: Vec<String> = (1..self.hosts.len()).map(|node| self.brief_or_down(node)).collect();
        let master = format!("master {configuration:?} learner {:?}", self.master.learner);
        let state = format!("{master}\n{}", state.join("\n"));
        if configuration.size() != self.climate.wanted {
            return Err(format!("the group has not grown to {}: {state}", self.climate.wanted));
        }
        let primary = configuration.primary.0 as usize;
        let replica = self.replica(primary);
        if !replica.may_write() || !replica.may_read(self.local(primary)) {
            return Err(format!("the primary does not serve: {state}"));
        }
        let committed = replica.committed();
        if committed < self.record.acknowledged || committed < replica.appended() {
            return Err(format!("{} was acknowledged: {state}", self.record.acknowledged));
        }
        for member in configuration.members() {
            let replica = self.replica(member.0 as usize);
            if replica.committed() != committed || replica.configuration() != &configuration {
                return Err(format!("{member} has not followed: {state}"));
            }
        }
        if !self.climate.quiet_after_healing && self.last_acknowledged_at < QUIET - 2 * SECOND {
            return Err(format!("no write since {:?}: {state}", Instant(self.last_acknowledged_at)));
        }
        self.summary.committed = committed;
        Ok(())
    }
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", words.unwrap_or("without words"))
}

fn weight(packet: &Packet) -> u64 {
    match packet {
        Packet::Group(GroupMessage::Prepare { epoch, committed, entries }) => {
            u64::from(epoch.0) + committed.0 * 3 + entries.len() as u64 * 5
        }
        Packet::Group(GroupMessage::Prepared { upto, .. }) => upto.0,
        Packet::Assign(configuration, _) | Packet::Propose(configuration) => u64::from(configuration.epoch.0),
        _ => 1,
    }
}
