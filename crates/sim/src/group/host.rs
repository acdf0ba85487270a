//! The hosts of a group's replicas: processes with their clocks, and what their replicas' effects become.

use std::collections::VecDeque;

use model::request::Role;
use model::{Epoch, Instant, Lsn, NodeId, Refusal, Ticket};
use protocol::replica::{Effect, Input};
use protocol::{Core, Entry, GroupMessage, Replica, Why};

use super::log::{self, Log};
use super::net::{Packet, said_in};
use super::world::{Checked, Happening, MASTER, TABLET, World};
use crate::agenda::{MS, SECOND, US};

/// A process with its replica.
#[derive(Debug)]
pub(super) struct Process {
    pub replica: Option<Replica>,
    pub started: u64,
    /// Speed of its clock, in millionths.
    pub rate: u64,
    pub stepped: Instant,
    pub paused: bool,
    pub inbox: VecDeque<Input>,
    pub unsettled: bool,
    pub woken_at: Option<u64>,
    /// How many `Append` and `Save` the replica has asked for.
    pub marks: u64,
    pub syncing: bool,
    pub attempt: Option<u64>,
    pub beat: u64,
}

#[derive(Debug)]
pub(super) struct Host {
    pub log: Log,
    pub process: Option<Process>,
    /// Rises with every start, also with that of a replica.
    pub life: u64,
    /// It has had a replica before: a founding configuration that comes late is not for it.
    pub had: bool,
    /// What was applied to the rows.
    pub applied: Lsn,
    /// No sync ends before this.
    pub hangs_until: u64,
}

// --- processes

impl World {
    pub(super) fn lives(&self, node: usize, life: u64) -> bool {
        self.hosts[node].life == life && self.hosts[node].process.is_some()
    }

    pub(super) fn local(&self, node: usize) -> Instant {
        let process = self.hosts[node].process.as_ref().expect("asked of live processes");
        Instant((u128::from(self.agenda.now() - process.started) * u128::from(process.rate) / 1_000_000) as u64)
    }

    pub(super) fn start(&mut self, node: usize) {
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
            Replica::recover(TABLET, me, self.timing.clone(), now, configuration, abandoned, committed, tail)
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

    pub(super) fn crash(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.process.take().is_some() {
            self.summary.crashes += 1;
            host.life += 1;
            host.log.crash(&mut self.random);
        }
    }

    pub(super) fn brief(&self, node: usize) -> String {
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
    pub(super) fn input(&mut self, node: usize, input: Input) -> Checked {
        let had = self.hosts[node].had;
        let Some(process) = &mut self.hosts[node].process else { return Ok(()) };
        if process.paused {
            process.inbox.push_back(input);
            return Ok(());
        }
        let me = NodeId(node as u32);
        let wanted = match &input {
            // As the node does it: a member that has lost its data must not pass for one that has it.
            Input::Assign(configuration, learner) => {
                *learner == Some(me) || configuration.epoch == Epoch(1) && configuration.has(me) && !had
            }
            _ => false,
        };
        if process.replica.is_none() && wanted {
            self.hosts[node].life += 1;
            self.hosts[node].had = true;
            let life = self.hosts[node].life;
            let process = self.hosts[node].process.as_mut().expect("lives");
            process.replica = Some(Replica::new(TABLET, NodeId(node as u32), self.timing.clone()));
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
        // What was said in an older epoch must change nothing here.
        let said = if let Input::Receive(_, message) = &input { said_in(message) } else { None };
        let before = said.is_some_and(|epoch| epoch < replica.epoch()).then(|| replica.clone());
        replica.step(now, input, &mut out);
        if before.is_some_and(|before| before != *replica) {
            let what = format!("n{node} heeds what was said in an older epoch than its {}: {out:?}", replica.epoch());
            return Err(what);
        }
        if !process.unsettled {
            process.unsettled = true;
            let life = self.hosts[node].life;
            let delay = if self.random.chance(60) { 0 } else { self.random.below(2 * MS) };
            self.agenda.after(delay, Happening::Settle { node, life });
        }
        self.carry_out(node, out)
    }

    pub(super) fn settle(&mut self, node: usize) -> Checked {
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

    pub(super) fn resume(&mut self, node: usize) -> Checked {
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
                self.check()?;
            }
        }
        if self.lives(node, life) {
            self.arm(node);
        }
        Ok(())
    }

    /// Makes sure that the replica hears of its deadline.
    pub(super) fn arm(&mut self, node: usize) {
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

    pub(super) fn on_wake(&mut self, node: usize) -> Checked {
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
    pub(super) fn on_round(&mut self, node: usize) -> Checked {
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
            self.send(node, MASTER, Packet::Heartbeat(now));
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
}

// --- effects

impl World {
    pub(super) fn carry_out(&mut self, node: usize, effects: Vec<Effect>) -> Checked {
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
                    if let GroupMessage::Prepared { epoch, upto } = &message {
                        self.check_promise(node, *epoch)?;
                        self.record.on_acknowledged(node, *epoch, *upto);
                    }
                    if let GroupMessage::Learn { attempt, .. } = &message {
                        let process = self.hosts[node].process.as_mut().expect("lives");
                        process.attempt = Some(*attempt);
                    }
                    self.send(node, to.0 as usize, Packet::Group(message));
                }
                // The node answers a beacon itself; see on_packet.
                Effect::Grant(..) => return Err(format!("n{node} grants a lease out of the blue")),
                Effect::ProposeConfiguration(configuration, why) => {
                    if let Why::Transfer { to } = why {
                        self.check_hand_over(node, to)?;
                    }
                    if self.replica(node).role() == Role::Secondary {
                        self.check_promise(node, configuration.epoch)?;
                    }
                    self.send(node, MASTER, Packet::Propose(configuration));
                }
                Effect::AskMaster => {
                    let now = self.local(node);
                    self.send(node, MASTER, Packet::Heartbeat(now));
                }
                Effect::LinkBroken(_) => self.summary.links += 1,
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

    pub(super) fn replica(&self, node: usize) -> &Replica {
        self.hosts[node].process.as_ref().and_then(|process| process.replica.as_ref()).expect("it has just spoken")
    }

    pub(super) fn append(&mut self, node: usize, record: log::Record, counts: bool) {
        let host = &mut self.hosts[node];
        host.log.append(record);
        if let Some(process) = &mut host.process
            && counts
        {
            process.marks += 1;
        }
    }

    /// Begins a sync of what is appended, if none is running.
    pub(super) fn sync(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some(process) = &mut host.process else { return };
        if process.syncing || host.log.unsynced() == 0 {
            return;
        }
        process.syncing = true;
        let (life, records, marks) = (host.life, host.log.unsynced(), process.marks);
        let slow = self.random.chance(self.climate.slow_sync);
        let delay = if slow { self.random.below(SECOND) } else { self.random.between(200 * US, 3 * MS) };
        let delay = delay.max(self.hosts[node].hangs_until.saturating_sub(self.agenda.now()));
        self.agenda.after(delay, Happening::Synced { node, life, records, marks });
    }

    pub(super) fn on_synced(&mut self, node: usize, records: usize, marks: u64) -> Checked {
        let host = &mut self.hosts[node];
        host.log.sync(records);
        host.process.as_mut().expect("lives").syncing = false;
        if marks > 0 {
            self.input(node, Input::Durable(marks))?;
        }
        self.sync(node);
        Ok(())
    }

    pub(super) fn on_commit(&mut self, node: usize, commits: Vec<(Entry, Option<Ticket>)>) -> Checked {
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
    pub(super) fn on_older(&mut self, node: usize, to: NodeId, from: Lsn, attempt: Option<u64>) {
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

    pub(super) fn on_restored(&mut self, node: usize, attempt: u64, upto: Lsn) -> Checked {
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
}
