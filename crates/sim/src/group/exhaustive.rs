//! Every interleaving of a small group: the same replicas as everywhere, under a checker that tries all that can happen
//! instead of drawing it (docs/model-checking.md).
//!
//! ```text
//!   World ──every Action that is possible──▶ Worlds ──▶ … until nothing new comes, or a World is bad
//! ```
//!
//! What may happen, in any order: a message arrives (those that are lost never do, those that are reordered come
//! later; a few come twice); a disk syncs; a process crashes, keeps any part of what it had not synced, and starts
//! again; time passes; a replica hears its deadline, or does not for as long as you like; a primary asks for leases; a
//! client writes; the master decides what was proposed; a node hears of a decision. Processes that stop and masters
//! that are away need no action of their own: they do nothing for a while.
//!
//! Time is a count of ticks that all clocks share, and a replica can be arbitrarily late to look at its clock. A lease is
//! two ticks and the grace period three, so "grace outlasts lease" is all that is assumed of them. The number of ticks,
//! writes, crashes, copies and learners is bounded, and so is the number of worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::request::Role;
use model::{Configuration, Epoch, Instant, Lsn, NodeId, Ticket};
use protocol::replica::{Effect, Input};
use protocol::{Core, Entry, GroupMessage, Planted, Replica, Timing};
use stateright::{Checker, Model, Property};

use super::log::{Log, Record};
use super::net::said_in;
use super::world::{TABLET, words_of};

/// How much may happen.
#[derive(Clone, Debug)]
struct Bounds {
    /// Members at the start; the first is the primary.
    members: u32,
    /// A further node that the master may choose as learner.
    learner: bool,
    ticks: u64,
    writes: u64,
    crashes: u32,
    /// Messages that arrive twice.
    copies: u32,
    planted: Planted,
}

impl Bounds {
    /// Has it a fault by which messages of older epochs count?
    fn forgiving(&self) -> bool {
        use protocol::Mutant::{EpochOfPrepareIgnored, EpochOfPreparedIgnored};
        self.planted.has(EpochOfPrepareIgnored) || self.planted.has(EpochOfPreparedIgnored)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Group(GroupMessage),
    Beacon(Instant, Epoch, Lsn),
    Granted(Instant, Epoch),
}

impl Message {
    /// In which epoch it was said, if it says so.
    fn epoch(&self) -> Option<Epoch> {
        Some(match self {
            Message::Beacon(_, epoch, _) | Message::Granted(_, epoch) => *epoch,
            Message::Group(message) => return said_in(message),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packet {
    from: NodeId,
    to: NodeId,
    message: Message,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Pass,
    Arrive(Arc<Packet>),
    ArriveAndStay(Arc<Packet>),
    Sync(NodeId),
    /// Keeps so many of the records that were not synced.
    Crash(NodeId, usize),
    Wake(NodeId),
    AskForLeases(NodeId),
    Write(NodeId),
    Decide(Configuration),
    Choose(NodeId),
    /// Of a decision of the master, by its place among all.
    Hear(NodeId, usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Host {
    replica: Option<Replica>,
    log: Log,
    marks: u64,
    /// When it last asked for leases.
    asked: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    /// A step changes one of them, and worlds share the others.
    hosts: BTreeMap<NodeId, Arc<Host>>,
    packets: BTreeSet<Arc<Packet>>,
    proposals: BTreeSet<Configuration>,
    /// All that the master has decided; the last holds.
    decisions: Vec<(Configuration, Option<NodeId>)>,
    writes: u64,
    crashes: u32,
    copies: u32,
    /// What was committed at each place by whoever was first, and up to where clients know.
    committed: BTreeMap<Lsn, Entry>,
    acknowledged: Lsn,
    /// Which payload each `(lsn, epoch)` has, of what was sent.
    sent: BTreeMap<(Lsn, Epoch), Bytes>,
    bad: Option<String>,
}

type Checked = Result<(), String>;

impl World {
    /// A group that has settled: its first entry is committed everywhere and its primary has all leases.
    fn settled(bounds: &Bounds) -> World {
        let nodes = (1..=bounds.members + u32::from(bounds.learner)).map(NodeId);
        let first = Configuration::first(NodeId(1), (1..=bounds.members).map(NodeId));
        let mut world = World {
            hosts: nodes.map(|node| (node, Arc::default())).collect(),
            decisions: vec![(first, None)],
            ..World::default()
        };
        let members: Vec<NodeId> = (1..=bounds.members).map(NodeId).collect();
        // Some faults show at once.
        let happens = |world: &mut World, action| {
            let acted = world.act(bounds, action).err();
            world.bad = world.bad.take().or(acted);
        };
        members.iter().for_each(|&node| happens(&mut world, Action::Hear(node, 0)));
        for asked in [false, true] {
            members.iter().for_each(|&node| happens(&mut world, Action::Sync(node)));
            if asked {
                happens(&mut world, Action::AskForLeases(NodeId(1)));
            }
            while let Some(packet) = world.packets.first().cloned() {
                happens(&mut world, Action::Arrive(packet));
                members.iter().for_each(|&node| happens(&mut world, Action::Sync(node)));
            }
        }
        let reads = world.hosts[&NodeId(1)].replica.as_ref().is_some_and(|replica| replica.may_read(Instant(0)));
        assert!(reads || world.bad.is_some());
        world
    }

    fn act(&mut self, bounds: &Bounds, action: Action) -> Checked {
        match action {
            Action::Pass => self.now += 1,
            Action::Arrive(packet) => {
                self.packets.remove(&packet);
                self.arrive(&packet)?;
            }
            Action::ArriveAndStay(packet) => {
                self.copies += 1;
                self.arrive(&packet)?;
            }
            Action::Sync(node) => {
                let host = self.host(node);
                host.log.sync(host.log.unsynced());
                let marks = host.marks;
                if marks > 0 {
                    self.step(node, Input::Durable(marks))?;
                }
            }
            Action::Crash(node, keeps) => {
                self.crashes += 1;
                let (now, timing) = (Instant(self.now), timing(bounds));
                let host = self.host(node);
                host.log.lose(keeps);
                let content = &host.log.durable;
                let tail = content.entries.range(content.committed.next()..).map(|(_, entry)| entry.clone()).collect();
                let recover = |(configuration, abandoned)| {
                    Replica::recover(TABLET, node, timing, now, configuration, abandoned, content.committed, tail)
                };
                host.replica = content.state.clone().map(recover);
                (host.marks, host.asked) = (0, None);
            }
            Action::Wake(node) => self.step(node, Input::Tick)?,
            Action::AskForLeases(node) => {
                let now = self.now;
                let host = self.host(node);
                host.asked = Some(now);
                let Some(replica) = &host.replica else { return Ok(()) };
                let message = Message::Beacon(Instant(now), replica.epoch(), replica.committed());
                replica.peers().into_iter().for_each(|to| self.send(node, to, message.clone()));
            }
            Action::Write(node) => {
                self.writes += 1;
                let payload = Bytes::from(vec![self.writes as u8]);
                self.step(node, Input::Propose(Ticket(self.writes), payload))?;
            }
            Action::Decide(configuration) => {
                let (present, learner) = self.decision().clone();
                if !present.has(configuration.primary) {
                    return Err(format!("{configuration:?} is proposed to follow {present:?}"));
                }
                let learner = learner.filter(|&learner| !configuration.has(learner));
                self.decisions.push((configuration, learner));
                let next = self.decision().0.epoch.next();
                self.proposals.retain(|other| other.epoch >= next);
            }
            Action::Choose(learner) => {
                let (present, _) = self.decision().clone();
                self.decisions.push((present, Some(learner)));
            }
            Action::Hear(node, decision) => {
                let (now, timing) = (Instant(self.now), timing(bounds));
                let (configuration, learner) = self.decisions[decision].clone();
                self.host(node).replica.get_or_insert_with(|| Replica::new(TABLET, node, timing));
                self.step(node, Input::Session(now))?;
                self.step(node, Input::Assign(configuration, learner))?;
            }
        }
        if !bounds.forgiving() {
            self.lose_what_is_too_old();
        }
        self.check()
    }

    /// What was said in an epoch older than the one on the receiver's disk does nothing, whenever it arrives: worlds that
    /// differ only in that are one.
    fn lose_what_is_too_old(&mut self) {
        let World { packets, hosts, .. } = self;
        packets.retain(|packet| {
            let on_disk = hosts[&packet.to].log.durable.state.as_ref().map(|(configuration, _)| configuration.epoch);
            packet.message.epoch().is_none_or(|epoch| Some(epoch) >= on_disk)
        });
    }

    fn host(&mut self, node: NodeId) -> &mut Host {
        Arc::make_mut(self.hosts.get_mut(&node).expect("all nodes are there from the start"))
    }

    fn decision(&self) -> &(Configuration, Option<NodeId>) {
        self.decisions.last().expect("there is one from the start")
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        // They only make the other ask the master, and anybody may hear of a decision at any time.
        if !matches!(message, Message::Group(GroupMessage::Stale { .. })) {
            self.packets.insert(Arc::new(Packet { from, to, message }));
        }
    }

    fn arrive(&mut self, packet: &Packet) -> Checked {
        let Packet { from, to, message } = packet.clone();
        match message {
            Message::Group(message) => self.step(to, Input::Receive(from, message)),
            Message::Granted(sent, epoch) => self.step(to, Input::Granted(from, epoch, sent)),
            Message::Beacon(sent, epoch, committed) => {
                let now = Instant(self.now);
                let Some(replica) = &mut self.host(to).replica else { return Ok(()) };
                let mut effects = Vec::new();
                replica.step(now, Input::Beacon(from, epoch, committed), &mut effects);
                for effect in &effects {
                    if let Effect::Grant(primary, epoch) = effect {
                        self.send(to, *primary, Message::Granted(sent, *epoch));
                    }
                }
                self.carry_out(to, effects)
            }
        }
    }

    fn step(&mut self, node: NodeId, input: Input) -> Checked {
        let now = Instant(self.now);
        let Some(replica) = &mut self.host(node).replica else { return Ok(()) };
        let mut effects = Vec::new();
        replica.step(now, input, &mut effects);
        replica.step(now, Input::Settle, &mut effects);
        self.carry_out(node, effects)
    }

    fn carry_out(&mut self, node: NodeId, effects: Vec<Effect>) -> Checked {
        for effect in effects {
            let host = self.host(node);
            let committed = host.replica.as_ref().map_or(Lsn::ZERO, Replica::committed);
            match effect {
                Effect::Append(entries) => {
                    host.log.append(Record::Entries(entries, committed));
                    host.marks += 1;
                }
                Effect::Save { configuration, abandoned, .. } => {
                    host.log.append(Record::State { configuration, abandoned, committed });
                    host.marks += 1;
                }
                Effect::Send(to, message) => {
                    if let GroupMessage::Prepare { entries, .. } = &message {
                        entries.iter().try_for_each(|entry| self.on_sent(entry))?;
                    }
                    self.send(node, to, Message::Group(message));
                }
                Effect::ProposeConfiguration(configuration, _) => {
                    if configuration.epoch > self.decision().0.epoch {
                        self.proposals.insert(configuration);
                    }
                }
                Effect::Commit(commits) => {
                    for (entry, ticket) in commits {
                        self.on_commit(node, &entry, ticket.is_some())?;
                    }
                }
                Effect::Older { to, from, .. } if from > Lsn::ZERO => {
                    let entries = host.log.written.entries.range(from..).map(|(_, entry)| entry.clone()).collect();
                    self.step(node, Input::Fetched(to, entries))?;
                }
                Effect::Suspect(whom, why) => return Err(format!("{node} suspects {whom}: {why}")),
                Effect::Older { .. }
                | Effect::Grant(..)
                | Effect::AskMaster
                | Effect::Refuse(..)
                | Effect::LinkBroken(_) => {}
            }
        }
        Ok(())
    }

    /// `(lsn, epoch)` names one payload.
    fn on_sent(&mut self, entry: &Entry) -> Checked {
        let first = self.sent.entry((entry.lsn, entry.epoch)).or_insert_with(|| entry.payload.clone());
        (*first == entry.payload).then_some(()).ok_or_else(|| format!("{entry:?} has another payload elsewhere"))
    }

    /// One entry is committed at each place, and every member has it on disk (I6, I7, I10).
    fn on_commit(&mut self, node: NodeId, entry: &Entry, acknowledged: bool) -> Checked {
        let first = self.committed.entry(entry.lsn).or_insert_with(|| entry.clone());
        if first != entry {
            return Err(format!("{node} commits {entry:?} where {first:?} was committed"));
        }
        if acknowledged {
            self.acknowledged = self.acknowledged.max(entry.lsn);
        }
        let replica = self.hosts[&node].replica.as_ref();
        if replica.is_some_and(|replica| replica.role() == Role::Primary) {
            for member in self.decision().0.members() {
                if !self.hosts[&member].log.holds(entry.lsn, entry.epoch) {
                    return Err(format!("{node} commits {entry:?}, which {member} does not hold"));
                }
            }
        }
        Ok(())
    }

    /// One primary an epoch; one reader, who has all that was acknowledged (I9, I15); a primary of the newest epoch
    /// has it too, even before it serves.
    fn check(&self) -> Checked {
        let now = Instant(self.now);
        let (mut primaries, mut readers) = (BTreeMap::new(), Vec::new());
        for (&node, host) in &self.hosts {
            let Some(replica) = &host.replica else { continue };
            if replica.role() != Role::Primary {
                continue;
            }
            if let Some(other) = primaries.insert(replica.epoch(), node) {
                return Err(format!("{node} and {other} are both primary of {}", replica.epoch()));
            }
            let lacks = |(lsn, entry): (&Lsn, &Entry)| {
                *lsn > replica.appended() || replica.entry(*lsn).is_some_and(|mine| mine != entry)
            };
            if replica.configuration() == &self.decision().0 && self.committed.range(..=self.acknowledged).any(lacks) {
                return Err(format!("{node} leads without what was acknowledged up to {}", self.acknowledged));
            }
            if replica.may_read(now) {
                readers.push(node);
                if replica.committed() < self.acknowledged {
                    return Err(format!("{node} reads at {}, and {} is", replica.committed(), self.acknowledged));
                }
            }
        }
        (readers.len() < 2).then_some(()).ok_or_else(|| format!("{readers:?} may read at once"))
    }
}

/// Only the order of lease and grace matters. Nothing is asked again: what is under way stays under way until it
/// arrives.
fn timing(bounds: &Bounds) -> Timing {
    let (soon, never) = (Duration::from_nanos, Duration::from_nanos(1 << 40));
    Timing {
        beacon: soon(1),
        lease: soon(2),
        grace: soon(3),
        retry: never,
        slow: never,
        patience: never,
        session: never,
        planted: bounds.planted,
        ..Timing::default()
    }
}

const WELL: &str = "all is well";
/// What must be met, or the bounds are too narrow to say anything.
const GOALS: [&str; 3] = ["a write is acknowledged", "the master decides", "a later epoch is served"];

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::settled(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.bad.is_some() {
            return;
        }
        if world.now < self.ticks {
            actions.push(Action::Pass);
        }
        for (&node, host) in &world.hosts {
            if host.log.unsynced() > 0 {
                actions.push(Action::Sync(node));
            }
            let here = |(_, (configuration, learner)): &(usize, &(Configuration, Option<NodeId>))| match &host.replica {
                Some(replica) => {
                    (replica.epoch(), replica.learner().is_some()) < (configuration.epoch, learner.is_some())
                        || replica.epoch() < configuration.epoch
                }
                None => *learner == Some(node),
            };
            let news = world.decisions.iter().enumerate().filter(here);
            actions.extend(news.map(|(decision, _)| Action::Hear(node, decision)));
            let Some(replica) = &host.replica else { continue };
            if world.crashes < self.crashes {
                actions.extend((0..=host.log.unsynced()).map(|keeps| Action::Crash(node, keeps)));
            }
            if replica.deadline().is_some_and(|deadline| deadline <= Instant(world.now)) {
                actions.push(Action::Wake(node));
            }
            if host.asked != Some(world.now) && !replica.peers().is_empty() {
                actions.push(Action::AskForLeases(node));
            }
            if world.writes < self.writes && replica.may_write(Instant(world.now)) {
                actions.push(Action::Write(node));
            }
        }
        for packet in &world.packets {
            actions.push(Action::Arrive(packet.clone()));
            if world.copies < self.copies {
                actions.push(Action::ArriveAndStay(packet.clone()));
            }
        }
        let (present, learner) = world.decision();
        let next = world.proposals.iter().filter(|proposal| proposal.epoch == present.epoch.next());
        actions.extend(next.cloned().map(Action::Decide));
        let last = NodeId(self.members + 1);
        if self.learner && learner.is_none() && !present.has(last) {
            actions.push(Action::Choose(last));
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        // An assertion of the core is a violation like any other.
        let acted = catch_unwind(AssertUnwindSafe(|| world.act(self, action)));
        world.bad = acted.unwrap_or_else(|panic| Err(words_of(&*panic))).err();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always(WELL, |_: &Bounds, world: &World| world.bad.is_none()),
            Property::sometimes(GOALS[0], |_, world: &World| world.acknowledged > Lsn::ZERO),
            Property::sometimes(GOALS[1], |_, world: &World| world.decisions.len() > 1),
            Property::sometimes(GOALS[2], |_, world: &World| {
                let replicas = world.hosts.values().filter_map(|host| host.replica.as_ref());
                replicas
                    .filter(|replica| replica.epoch() > Epoch(1))
                    .any(|replica| replica.may_read(Instant(world.now)))
            }),
        ]
    }
}

/// What was found.
struct Found {
    /// Different worlds.
    worlds: usize,
    /// Was everything tried, or did it end at the limit?
    complete: bool,
    /// The violation, and what led to it.
    bad: Option<(String, Vec<Action>)>,
    line: String,
}

#[allow(clippy::disallowed_methods, reason = "all cores that this process may use")]
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// Tries everything, but no more than so many steps.
fn explore(name: &str, bounds: Bounds, most: usize) -> Found {
    #[allow(clippy::disallowed_methods, reason = "it tells how long it took")]
    let begun = std::time::Instant::now();
    let checker = bounds.checker().threads(threads()).target_state_count(most).spawn_dfs().join();
    let (worlds, steps) = (checker.unique_state_count(), checker.state_count());
    let missing: Vec<&str> = GOALS.into_iter().filter(|goal| checker.discovery(goal).is_none()).collect();
    let bad = checker.discovery(WELL).map(|path| {
        let what = path.last_state().bad.clone().unwrap_or_default();
        (what, path.into_actions())
    });
    let complete = steps < most && bad.is_none();
    let (depth, took) = (checker.max_depth(), begun.elapsed().as_secs_f64());
    let end = if complete { "all" } else { "cut off" };
    let line =
        format!("{name}: {worlds} worlds ({end}), {steps} steps, depth {depth}, {took:.1} s, not met: {missing:?}");
    println!("{line}");
    Found { worlds, complete: complete && missing.is_empty(), bad, line }
}

fn all_is_well(name: &str, bounds: Bounds) -> Found {
    let found = explore(name, bounds, usize::MAX);
    if let Some((what, actions)) = &found.bad {
        let actions: Vec<String> = actions.iter().map(|action| format!("  {action:?}")).collect();
        panic!("{name}: {what}\n{}", actions.join("\n"));
    }
    assert!(found.complete, "{}", found.line);
    found
}

const PAIR: Bounds =
    Bounds { members: 2, learner: false, ticks: 3, writes: 1, crashes: 0, copies: 0, planted: Planted::NONE };
const PAIR_WITH_CRASH: Bounds = Bounds { crashes: 1, ..PAIR };
const LEARNER: Bounds = Bounds { members: 1, learner: true, ticks: 2, ..PAIR };

#[test]
fn a_pair_is_good_whatever_happens() {
    assert!(all_is_well("pair", PAIR).worlds > 50_000);
}

#[test]
fn a_pair_is_good_whatever_happens_and_when_one_crashes() {
    assert!(all_is_well("pair, a crash, little time", Bounds { ticks: 1, ..PAIR_WITH_CRASH }).worlds > 10_000);
}

#[test]
fn a_group_may_grow_whatever_happens() {
    assert!(all_is_well("one and a learner", LEARNER).worlds > 100_000);
}

/// `make model`: what takes minutes. `STEPS` limits each, so that memory suffices; what was not reached is said.
fn larger(name: &str, bounds: Bounds) {
    let most = std::env::var("STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(40_000_000);
    let found = explore(name, bounds, most);
    assert!(found.bad.is_none(), "{name}: {:#?}", found.bad);
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_1_a_pair_and_a_crash() {
    larger("pair, a crash", PAIR_WITH_CRASH);
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_2_three_in_little_time() {
    larger("three, 1 tick", Bounds { members: 3, ticks: 1, ..PAIR });
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_3_one_and_a_learner_and_a_crash() {
    larger("one and a learner, a crash", Bounds { crashes: 1, ..LEARNER });
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_4_a_pair_and_a_crash_and_a_copy() {
    larger("pair, a crash, a message twice", Bounds { copies: 1, ..PAIR_WITH_CRASH });
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_5_a_pair_and_a_crash_and_two_writes() {
    larger("pair, two writes, a crash", Bounds { writes: 2, ..PAIR_WITH_CRASH });
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_6_a_pair_and_a_learner() {
    larger("pair and a learner", Bounds { learner: true, ticks: 2, ..PAIR });
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_7_three() {
    larger("three", Bounds { members: 3, ..PAIR });
}

#[test]
#[ignore = "takes minutes: make model"]
fn larger_8_three_and_a_crash() {
    larger("three, a crash", Bounds { members: 3, crashes: 1, ..PAIR });
}

/// It can fail: these faults are found.
#[cfg(feature = "mutants")]
#[test]
fn deliberate_faults_are_found() {
    use protocol::Mutant::*;
    let faults = [
        (AckBeforeSync, PAIR),
        (CommitBeforeOwnSync, PAIR),
        (CommitWithoutSlowest, PAIR),
        (CommitBeforeRemoval, PAIR),
        (TruncatingPrimary, PAIR),
        (ServeUnreconciled, PAIR),
        (ReadWithoutLease, PAIR),
        (LeaseFromReceipt, Bounds { ticks: 4, writes: 0, ..PAIR }),
        (ShortGrace, PAIR),
        (AbandonedIgnored, PAIR),
        (ReturnInOldEpoch, PAIR_WITH_CRASH),
        (IgnoreProposedMembers, LEARNER),
        (EarlyPromotion, LEARNER),
    ];
    let mut survivors = Vec::new();
    for (mutant, bounds) in faults {
        let found = explore(mutant.name(), Bounds { planted: Planted::only(mutant), ..bounds }, 4_000_000);
        match found.bad {
            Some((what, actions)) => println!("    {what}, after {} steps", actions.len()),
            None => survivors.push(mutant.name()),
        }
    }
    assert!(survivors.is_empty(), "{survivors:?}");
}
