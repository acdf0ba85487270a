//! The leading master: hears nodes and clients, proposes, and tells everyone what was decided.

use bytes::Bytes;
use core::time::Duration;
use model::request::{ReplicaReport, Role, ScrubReport};
use model::{AdminReply, ClusterId, Documents, Incarnation, Instant, NodeId, Refusal, TabletId, Ticket, Timestamp};
use protocol::notes::Notes;
use protocol::{Core, FromMaster, Mutant, Timing, ToMaster};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Effect, Input};
use crate::events::{Reader, decided};
use crate::merges::Merging;
use crate::splits::Splitting;
use crate::state::{Changed, Command, Error, State};

/// What a master must be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The protocol's periods.
    pub timing: Timing,
    /// Chance: the id of a cluster that is founded here.
    pub seed: u64,
    /// Replicas of a new table that does not say.
    pub replicas: u8,
    /// Fewest replicas for writes of a new table that does not say.
    pub min_replicas: u8,
    /// A tablet that has been as it is for so long may be moved, or get another primary, to even out the nodes; `None`
    /// moves nothing.
    pub balance_after: Option<Duration>,
    /// A tablet of a range with more bytes is split; 0 is never.
    pub split_bytes: u64,
    /// A tablet of a range that serves more requests per second is split; 0 is never.
    pub split_load: u64,
    /// Two tablets of a range that have been small and cold for so long become one; `None` is never.
    pub merge_after: Option<Duration>,
}

/// A command on its way through consensus, with a number by which its proposer knows it again.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    nonce: u64,
    /// The date at the proposer.
    at: Timestamp,
    command: Command,
}

/// What was heard of a node.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    /// Its life.
    pub(crate) life: Incarnation,
    /// By its own clock.
    pub(crate) sent: Instant,
    pub(crate) disk_full: bool,
    pub(crate) scrub: ScrubReport,
    pub(crate) replicas: BTreeMap<TabletId, ReplicaReport>,
    /// Tablets of which it may not know what was decided.
    pub(crate) doubtful: BTreeSet<TabletId>,
    /// When all tablets were taken for doubtful.
    pub(crate) whole: Option<Instant>,
}

/// A master.
#[derive(Debug)]
pub struct Master {
    pub(crate) options: Options,
    pub(crate) state: State,
    /// Since when this master leads, and in which term.
    pub(crate) leading: Option<(Instant, u64)>,
    pub(crate) proposed: u64,
    /// Clients that wait for a command.
    pub(crate) waiting: BTreeMap<u64, (Ticket, Instant)>,
    pub(crate) heard: BTreeMap<NodeId, Heard>,
    /// Since when a tablet lacks replicas.
    pub(crate) lacking: BTreeMap<TabletId, Instant>,
    /// When a node ceased to be a member of a tablet's group: most likely because it was silent.
    pub(crate) removed: BTreeMap<(TabletId, NodeId), Instant>,
    /// When something was last asked of consensus for this tablet.
    pub(crate) asked: BTreeMap<TabletId, Instant>,
    /// Since when a tablet's group has been as it is.
    pub(crate) settled: BTreeMap<TabletId, Instant>,
    /// How often a member of a tablet was removed for being slow, and when last: it does not come back at once.
    pub(crate) slow: BTreeMap<(TabletId, NodeId), (u32, Instant)>,
    pub(crate) splitting: Splitting,
    pub(crate) merging: Merging,
    pub(crate) next_tick: Instant,
    /// What it looked at when it last looked at everything, and when that was.
    pub(crate) looked: (u64, BTreeSet<NodeId>, Instant),
    /// When it was last stepped; the date as the host said it last, and when that was.
    pub(crate) stepped: Instant,
    pub(crate) date: (Instant, Timestamp),
    /// Our own events that are not recorded yet.
    pub(crate) notes: Notes,
    /// Who waits for events.
    pub(crate) readers: Vec<Reader>,
}

impl Master {
    /// A master that knows nothing yet.
    pub fn new(options: Options) -> Master {
        Master {
            state: State::default().with(options.timing.planted),
            options,
            leading: None,
            proposed: 0,
            waiting: BTreeMap::new(),
            heard: BTreeMap::new(),
            lacking: BTreeMap::new(),
            removed: BTreeMap::new(),
            asked: BTreeMap::new(),
            settled: BTreeMap::new(),
            slow: BTreeMap::new(),
            splitting: Splitting::default(),
            merging: Merging::default(),
            next_tick: Instant::ZERO,
            looked: (0, BTreeSet::new(), Instant::ZERO),
            stepped: Instant::ZERO,
            date: (Instant::ZERO, Timestamp::default()),
            notes: Notes::default(),
            readers: Vec::new(),
        }
    }

    /// All that it knows by its log.
    pub fn snapshot(&self) -> Bytes {
        self.state.to_bytes()
    }

    /// Takes another master's knowledge over.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), Error> {
        self.state = State::from_bytes(snapshot)?.with(self.options.timing.planted);
        Ok(())
    }

    /// Index of the last command that it has applied.
    pub fn applied(&self) -> u64 {
        self.state.applied
    }

    /// What all masters agree on. For checkers and tests.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The cluster's id, once it is founded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.state.cluster
    }

    pub(crate) fn propose(&mut self, command: Command, out: &mut Vec<Effect>) -> u64 {
        let term = self.leading.map_or(0, |(_, term)| term);
        self.proposed += 1;
        let nonce = (term << 32) | self.proposed;
        let form = postcard::to_allocvec(&Envelope { nonce, at: self.date(), command })
            .expect("plain values have a form in bytes");
        out.push(Effect::Propose(Bytes::from(form)));
        nonce
    }

    pub(crate) fn is_alive(&self, now: Instant, node: NodeId) -> bool {
        self.heard.get(&node).is_some_and(|heard| now.since(heard.at) < self.options.timing.session)
    }

    fn on_committed(&mut self, now: Instant, index: u64, command: &[u8], out: &mut Vec<Effect>) {
        if index <= self.state.applied {
            return;
        }
        let Envelope { nonce, at, command } = match postcard::from_bytes(command) {
            Ok(envelope) => envelope,
            Err(error) => {
                out.push(Effect::Event("command_unreadable", format!("command {index} of the log: {error}")));
                self.state.applied = index;
                return;
            }
        };
        let (recorded, decided) = (self.state.events.last(), decided(&self.state, &command));
        let changed = self.state.apply(index, command);
        if let Ok(changed) = &changed {
            self.state.record_decision(at, decided, changed);
        }
        let ticket = self.waiting.remove(&nonce).map(|(ticket, _)| ticket);
        if self.leading.is_none() {
            return;
        }
        changed.iter().for_each(|changed| self.doubt(changed));
        match changed {
            Ok(changed) => self.tell(now, ticket, changed, out),
            Err(refusal) => match ticket {
                Some(ticket) => out.push(Effect::Refuse(ticket, refusal)),
                None => out.push(Effect::Event("command_refused", refusal.to_string())),
            },
        }
        self.tell_events(recorded, out);
    }

    /// Tells everyone whom a change concerns.
    fn tell(&mut self, now: Instant, ticket: Option<Ticket>, changed: Changed, out: &mut Vec<Effect>) {
        match changed {
            Changed::Nothing => {}
            Changed::Events(source, life, upto) => self.on_recorded(source, life, upto, out),
            Changed::Node(node) => {
                self.welcome(node, out);
                self.answer_reports(now, node, out);
            }
            Changed::Table(schema, tablets) => {
                let mut news: BTreeMap<NodeId, Vec<TabletId>> = BTreeMap::new();
                for tablet in tablets {
                    for node in self.state.groups[&tablet].configuration.members() {
                        news.entry(node).or_default().push(tablet);
                    }
                }
                news.into_iter().for_each(|(node, tablets)| self.assign(node, &tablets, out));
                out.extend(ticket.map(|ticket| Effect::Reply(ticket, AdminReply::Table(schema))));
            }
            Changed::Dropped(schema, tablets) => {
                self.tell_gone(tablets, out);
                out.extend(ticket.map(|ticket| Effect::Reply(ticket, AdminReply::Table(schema))));
            }
            Changed::Purged(tablets) => self.tell_gone(tablets, out),
            Changed::Document(document) => {
                let documents = Documents { version: self.state.applied, documents: document.into_iter().collect() };
                out.extend(ticket.map(|ticket| Effect::Reply(ticket, AdminReply::Documents(documents))));
            }
            Changed::Intent(tablet) => self.tell_intent(now, ticket, tablet, out),
            Changed::Divided(tablet, split) => self.tell_divided(tablet, split, out),
            Changed::Undivided(tablet, why) => self.tell_undivided(tablet, why, out),
            Changed::Joint(left) => self.tell_joint(left, out),
            Changed::Fused(left, merge) => self.tell_fused(left, &merge, out),
            Changed::Unfused(left, right, why) => self.tell_unfused(left, right, &why, out),
            Changed::Group(tablet, nodes) => {
                self.asked.remove(&tablet);
                let group = &self.state.groups[&tablet];
                for &node in &nodes {
                    match group.configuration.has(node) {
                        true => self.removed.remove(&(tablet, node)),
                        false => self.removed.insert((tablet, node), now),
                    };
                }
                nodes.iter().for_each(|&node| self.assign(node, &[tablet], out));
                if let Some(ticket) = ticket {
                    let what = format!("{tablet}: {:?}, learner {:?}", group.configuration, group.learner);
                    out.push(Effect::Reply(ticket, AdminReply::Done(what)));
                }
                self.settled.insert(tablet, now);
            }
            Changed::Planned(what) => {
                out.extend(ticket.map(|ticket| Effect::Reply(ticket, AdminReply::Done(what.clone()))));
                out.push(Effect::Event("node_planned", what));
            }
        }
    }

    /// These tablets went with their tables.
    fn tell_gone(&mut self, tablets: Vec<(TabletId, Vec<NodeId>)>, out: &mut Vec<Effect>) {
        for (tablet, nodes) in tablets {
            self.forget_tablet(tablet);
            self.forget_splitting(tablet, out);
            self.forget_merging(tablet);
            out.extend(nodes.into_iter().map(|node| Effect::Send(node, FromMaster::Forget(vec![tablet]))));
        }
    }

    /// The tablet is not there any more.
    pub(crate) fn forget_tablet(&mut self, tablet: TabletId) {
        self.lacking.remove(&tablet);
        self.asked.remove(&tablet);
        self.settled.remove(&tablet);
        self.removed.retain(|(gone, _), _| *gone != tablet);
    }

    pub(crate) fn assign(&self, node: NodeId, tablets: &[TabletId], out: &mut Vec<Effect>) {
        let assignments: Vec<_> = tablets.iter().filter_map(|&tablet| self.state.assignment(tablet)).collect();
        if !assignments.is_empty() {
            out.push(Effect::Send(node, FromMaster::Assignments(assignments)));
        }
    }

    fn welcome(&self, node: NodeId, out: &mut Vec<Effect>) {
        if let (Some(cluster), Some(heard)) = (self.state.cluster, self.heard.get(&node)) {
            let sent = heard.sent;
            out.push(Effect::Send(node, FromMaster::Welcome { cluster, directory: self.directory(), sent }));
        }
    }

    pub(crate) fn directory(&self) -> Vec<(NodeId, String)> {
        self.state.nodes.iter().map(|(&node, known)| (node, known.address.clone())).collect()
    }

    fn on_node(&mut self, now: Instant, node: NodeId, message: ToMaster, out: &mut Vec<Effect>) {
        if self.leading.is_none() || self.state.cluster.is_none() {
            return;
        }
        match message {
            ToMaster::Events { life, first, events } => self.on_node_events(node, life, first, events, out),
            ToMaster::Propose(tablet, configuration, why) => {
                let Some(group) = self.state.groups.get(&tablet) else {
                    if self.state.is_gone(tablet) && !self.is_between(tablet) {
                        out.push(Effect::Send(node, FromMaster::Forget(vec![tablet])));
                    }
                    return;
                };
                let any = self.options.timing.planted.has(Mutant::AnyEpoch);
                if configuration.epoch == group.configuration.epoch.next() || any {
                    self.note_slow(now, tablet, &why);
                    let command = Command::Configure { tablet, configuration, by: node, why: Some(why) };
                    if self.options.timing.planted.has(Mutant::DecideBeforeCommit) {
                        let _ = self.state.apply(self.state.applied, command.clone());
                        self.assign(node, &[tablet], out);
                    }
                    self.propose(command, out);
                } else {
                    self.assign(node, &[tablet], out);
                }
            }
            ToMaster::Heartbeat {
                cluster,
                disk,
                incarnation,
                address,
                disk_full,
                base,
                replicas,
                gone,
                sent,
                scrub,
            } => {
                let why = self.unwelcome(node, cluster, disk);
                if let Some(why) = why.or_else(|| self.impostor(now, node, incarnation, &address)) {
                    out.push(Effect::Send(node, FromMaster::Unwelcome(why, incarnation)));
                    return;
                }
                if !self.hear(now, node, incarnation, sent, disk_full, base, replicas, &gone) {
                    out.push(Effect::Send(node, FromMaster::SayAll(sent)));
                    return;
                }
                if let Some(heard) = self.heard.get_mut(&node) {
                    heard.scrub = scrub;
                }
                let known = self.state.nodes.get(&node);
                if known.is_some_and(|known| known.address == address && known.incarnation == incarnation) {
                    self.welcome(node, out);
                    self.answer_reports(now, node, out);
                } else {
                    self.propose(Command::Join { node, address, disk, incarnation }, out);
                }
                self.remind_of_splits(node, out);
                self.remind_of_merges(node, out);
            }
            ToMaster::Divided { tablet, lsn, split } => self.on_divided(node, tablet, lsn, split, out),
            ToMaster::Undivided { tablet, left, why } => self.on_undivided(tablet, left, why, out),
            ToMaster::Buried(tablet) => self.on_buried(node, tablet, out),
            ToMaster::Closed { tablet, epoch, lsn, heir } => self.on_closed(tablet, epoch, lsn, heir, out),
            ToMaster::Merged { tablet, lsn, merge } => self.on_merged(node, tablet, lsn, merge, out),
            ToMaster::Unmerged { heir, left, why } => self.on_unmerged(heir, left, why, out),
        }
    }

    /// Takes the report in. No, if it builds on one that was not heard here.
    #[allow(clippy::too_many_arguments)]
    fn hear(
        &mut self,
        now: Instant,
        node: NodeId,
        life: Incarnation,
        sent: Instant,
        disk_full: bool,
        base: Option<Instant>,
        replicas: Vec<ReplicaReport>,
        gone: &[TabletId],
    ) -> bool {
        let known = self.heard.remove(&node).filter(|heard| heard.life == life);
        let mut heard = match (base, known) {
            // An older one that comes late shows that the node lives, and nothing else.
            (_, Some(heard)) if sent < heard.sent => {
                self.heard.insert(node, heard);
                return true;
            }
            (Some(base), Some(heard)) if base <= heard.sent => heard,
            (Some(_), known) => {
                self.heard.extend(known.map(|heard| (node, heard)));
                return false;
            }
            (None, _) => {
                let (replicas, doubtful) = (BTreeMap::new(), BTreeSet::new());
                let scrub = ScrubReport::default();
                Heard { at: now, life, sent, disk_full, scrub, replicas, doubtful, whole: None }
            }
        };
        heard.doubtful.extend(replicas.iter().map(|report| report.tablet).chain(gone.iter().copied()));
        gone.iter().for_each(|tablet| {
            heard.replicas.remove(tablet);
        });
        heard.replicas.extend(replicas.into_iter().map(|report| (report.tablet, report)));
        (heard.at, heard.sent, heard.disk_full) = (now, sent, disk_full);
        self.heard.insert(node, heard);
        true
    }

    /// Why the node may not join, if so.
    fn unwelcome(&self, node: NodeId, cluster: Option<ClusterId>, disk: u64) -> Option<String> {
        if self.state.removed.contains(&node) {
            return Some(format!(
                "node {node} was removed from this cluster; start this one under a new id with an empty folder"
            ));
        }
        let ours = self.state.cluster?;
        if let Some(theirs) = cluster.filter(|&theirs| theirs != ours) {
            return Some(format!(
                "node {node} holds data of cluster {theirs}, and this is cluster {ours}; \
                 start it with an empty folder, or with the master of its own cluster"
            ));
        }
        let known = self.state.nodes.get(&node)?;
        (known.disk != disk).then(|| {
            format!(
                "node {node} belonged to this cluster with another data folder than it has now; \
                 give it that folder back, or start this one under a new node id"
            )
        })
    }

    /// Why the node is not the one that it was: its folder is a copy.
    fn impostor(&self, now: Instant, node: NodeId, incarnation: Incarnation, address: &str) -> Option<String> {
        let known = self.state.nodes.get(&node)?;
        if incarnation < known.incarnation {
            return Some(format!(
                "node {node} comes with its start number {}, and it has been here with {}: its data folder is an old \
                 copy, or another process has a copy of it; what it has acknowledged since is missing in the older one. \
                 Give it the present folder back, or start it under a new node id with an empty folder",
                incarnation.0, known.incarnation.0
            ));
        }
        // A process has one address for as long as it lives.
        let twice = incarnation == known.incarnation && address != known.address && self.is_alive(now, node);
        twice.then(|| {
            format!(
                "node {node} is here already, at {}: {address} runs with a copy of its data folder; \
                 start it under a new node id with an empty folder",
                known.address
            )
        })
    }

    /// Compares what the node reports with what was decided, and sends what it does not know. What agreed is not looked at
    /// again before the node or the group changes, but once a session, for whatever else may change.
    fn answer_reports(&mut self, now: Instant, node: NodeId, out: &mut Vec<Effect>) {
        let session = self.options.timing.session;
        let Some(heard) = self.heard.get_mut(&node) else { return };
        if heard.whole.is_none_or(|whole| now.since(whole) >= session) {
            heard.whole = Some(now);
            heard.doubtful.extend(self.state.groups.keys().chain(heard.replicas.keys()));
        }
        let doubtful = core::mem::take(&mut heard.doubtful);
        let (mut news, mut forget, mut release, mut waits) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        for tablet in doubtful {
            let report = self.report(node, tablet);
            if let Some(group) = self.state.groups.get(&tablet) {
                let wanted = group.configuration.has(node) || group.learner == Some(node);
                let schema = self.state.tables.get(&group.tablet.table).map_or(0, |schema| schema.version);
                let knows = report.map_or(!wanted, |report| {
                    let configured = report.epoch == group.configuration.epoch && report.learner == group.learner;
                    configured && report.schema == schema
                });
                if !knows {
                    news.push(tablet);
                    waits.insert(tablet);
                }
            }
            let Some(report) = report else { continue };
            // One that this master has not heard of yet is not gone.
            if self.state.is_gone(tablet) && !self.is_between(tablet) {
                forget.push(tablet);
                waits.insert(tablet);
            }
            if report.role == Role::Spare {
                waits.insert(tablet);
                if self.is_spare(now, node, report) {
                    release.push((tablet, report.epoch));
                }
            }
        }
        self.assign(node, &news, out);
        if !forget.is_empty() {
            out.push(Effect::Send(node, FromMaster::Forget(forget)));
        }
        if !release.is_empty() {
            out.push(Effect::Send(node, FromMaster::Release(release)));
        }
        if let Some(heard) = self.heard.get_mut(&node) {
            heard.doubtful.extend(waits);
        }
    }

    /// Nobody may know of this decision.
    fn doubt(&mut self, changed: &Changed) {
        let tablets: Vec<TabletId> = match changed {
            Changed::Group(tablet, _) | Changed::Intent(tablet) | Changed::Undivided(tablet, _) => vec![*tablet],
            Changed::Divided(tablet, split) => vec![*tablet, split.left, split.right],
            Changed::Joint(left) => vec![*left],
            Changed::Fused(left, merge) => vec![*left, merge.right, merge.heir],
            Changed::Unfused(left, right, _) => vec![*left, *right],
            Changed::Dropped(_, tablets) | Changed::Purged(tablets) => {
                tablets.iter().map(|(tablet, _)| *tablet).collect()
            }
            Changed::Table(schema, _) => {
                let its = self.state.groups.values().filter(|group| group.tablet.table == schema.table);
                its.map(|group| group.tablet.id).collect()
            }
            Changed::Nothing | Changed::Node(_) | Changed::Events(..) | Changed::Planned(_) | Changed::Document(_) => {
                return;
            }
        };
        self.heard.values_mut().for_each(|heard| heard.doubtful.extend(&tablets));
    }

    /// Is it time to look at all groups? At once if a node came or fell silent; otherwise the less often the more groups
    /// there are, and the oftener if something was decided.
    fn is_due(&mut self, now: Instant) -> bool {
        let timing = &self.options.timing;
        let many = u32::try_from(self.state.groups.len() / 500).unwrap_or(u32::MAX);
        let period = timing.beacon.saturating_mul(many).min(timing.session);
        let alive: BTreeSet<NodeId> = self.heard.keys().copied().filter(|&node| self.is_alive(now, node)).collect();
        let (applied, then, at) = &self.looked;
        let patience = if *applied == self.state.applied { period } else { period / 8 };
        let due = *then != alive || now.since(*at) >= patience;
        if due {
            self.looked = (self.state.applied, alive, now);
        }
        due
    }

    /// Is the replica of no use any more? Only if its group is complete without it and lives.
    fn is_spare(&self, now: Instant, node: NodeId, report: &ReplicaReport) -> bool {
        let Some(group) = self.state.groups.get(&report.tablet) else { return false };
        let Some(schema) = self.state.tables.get(&group.tablet.table) else { return false };
        let wanted = group.configuration.has(node) || group.learner == Some(node);
        let complete = group.configuration.size() >= usize::from(schema.replicas)
            && group.configuration.members().all(|member| self.is_alive(now, member));
        !wanted && complete && report.role == Role::Spare && report.epoch == group.configuration.epoch
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.next_tick = now + self.options.timing.beacon;
        let Some((since, _)) = self.leading else { return };
        self.release_readers(now, out);
        let patience = self.options.timing.session;
        let late: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, (_, asked))| now.since(*asked) > patience)
            .map(|(&nonce, _)| nonce)
            .collect();
        for nonce in late {
            if let Some((ticket, _)) = self.waiting.remove(&nonce) {
                out.push(Effect::Refuse(ticket, Refusal::NoMaster));
            }
        }
        self.give_splits_up(Some(now), out);
        match self.state.cluster {
            None => {
                let id = ClusterId(self.options.seed);
                self.propose(Command::Found(id), out);
            }
            // A new leader first hears who lives.
            Some(_) if now.since(since) >= self.options.timing.heartbeat * 2 => {
                if self.is_due(now) {
                    if self.state.has_stale(self.date()) {
                        self.propose(Command::Purge(self.date()), out);
                    }
                    self.mend(now, out);
                    self.heal(now, out);
                    self.carry_moves_on(now, out);
                    self.empty_draining(now, out);
                    self.even_out(now, out);
                    self.split_the_laden(now, out);
                    self.carry_merges_on(now, out);
                }
            }
            Some(_) => {}
        }
    }
}

impl Core for Master {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        let before = out.len();
        self.stepped = now;
        match input {
            Input::Date(date) => self.date = (now, date),
            Input::FromNode(node, message) => self.on_node(now, node, message, out),
            Input::Admin(ticket, request) => self.on_admin(now, ticket, request, out),
            Input::Committed(index, command) => self.on_committed(now, index, &command, out),
            Input::Leading(term) => {
                self.leading = Some((now, term));
                self.notes = Notes::default();
                self.on_tick(now, out);
            }
            Input::Following => {
                self.leading = None;
                self.heard.clear();
                self.lacking.clear();
                self.removed.clear();
                self.asked.clear();
                self.settled.clear();
                self.slow.clear();
                self.turn_readers_away(out);
                self.give_splits_up(None, out);
                self.forget_all_merging();
                let waiting = core::mem::take(&mut self.waiting);
                out.extend(waiting.into_values().map(|(ticket, _)| Effect::Refuse(ticket, Refusal::NoMaster)));
            }
            Input::Tick => self.on_tick(now, out),
        }
        self.record_own(now, before, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.leading.map(|_| self.next_tick)
    }
}

#[cfg(test)]
mod tests;
