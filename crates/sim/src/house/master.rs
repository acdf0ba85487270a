//! Three real masters, and a stand-in for the consensus between them.
//!
//! ```text
//!   leader ──Propose──▶ pending ──after a while──▶ log ──▶ leader at once, the others some time later
//! ```
//!
//! Leadership is lost by a crash ([`World::start_master`] finds the next leader) or by an election. Of what the old
//! leader had proposed then, a part is committed by the new one, before it leads, and the rest is lost. A leader that
//! was deposed may believe for a while that it leads: what it proposes is lost, what it says to nodes is stale. Masters
//! that have applied the same commands must be equal.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use master::Master;
use model::{Instant, Refusal};
use protocol::Core;

use super::client::client_of;
use super::faults::Climate;
use super::net::Packet;
use super::world::{CLIENTS, Checked, Happening, MASTER, OPERATOR, SETUP, World};
use crate::agenda::{MS, US};

/// Masters beside the one that leads.
const OTHERS: usize = 2;

/// The masters with what consensus has kept of them.
pub(super) struct Mastery {
    /// The one that leads; none while nobody does.
    pub master: Option<Master>,
    /// Of the leader. Rises when it crashes.
    pub life: u64,
    pub started: u64,
    pub log: Vec<Bytes>,
    pub snapshot: Option<(u64, Bytes)>,
    others: Vec<Other>,
    pending: VecDeque<Bytes>,
    term: u64,
    /// Even numbers for new lives: a crash makes a leader's life odd, so that none is used twice.
    lives: u64,
}

/// A master that does not lead.
struct Other {
    master: Master,
    life: u64,
    started: u64,
    /// Was deposed and does not know it yet: then these still speak to it.
    deceived: Option<BTreeSet<usize>>,
}

impl Mastery {
    pub fn new() -> Mastery {
        Mastery {
            master: None,
            life: 0,
            started: 0,
            log: Vec::new(),
            snapshot: None,
            others: Vec::new(),
            pending: VecDeque::new(),
            term: 0,
            lives: 0,
        }
    }

    fn new_life(&mut self) -> u64 {
        self.lives += 2;
        self.lives
    }

    /// The place of the other master with this life.
    fn other(&self, life: u64) -> Option<usize> {
        self.others.iter().position(|other| other.life == life)
    }

    /// The master that this one speaks to, if it is not the leader.
    fn deceives(&self, place: usize) -> Option<usize> {
        self.others.iter().position(|other| other.deceived.as_ref().is_some_and(|places| places.contains(&place)))
    }
}

impl World {
    /// Whoever is there next leads: the master that crashed, or another one.
    pub(super) fn start_master(&mut self) -> Checked {
        if self.mastery.master.is_some() {
            return Ok(());
        }
        if self.mastery.others.is_empty() {
            for _ in 0..OTHERS {
                let other = self.fresh_master()?;
                self.mastery.others.push(other);
            }
        }
        let mut next = self.fresh_master()?;
        if self.mastery.term > 0 && self.random.chance(70) {
            let place = self.random.below(OTHERS as u64) as usize;
            std::mem::swap(&mut next, &mut self.mastery.others[place]);
        }
        self.lead(next);
        Ok(())
    }

    /// Another master is elected while the leader lives. The old one hears of it within a session, as in the real
    /// world: a primary that is alone lives by the word of its master for so long.
    pub(super) fn elect(&mut self) {
        let Some(master) = self.mastery.master.take() else { return };
        let places = (1..self.machines.len()).chain((CLIENTS..).take(self.clients.len()));
        let deceived = places.filter(|_| self.random.chance(50)).collect();
        let (life, started) = (self.mastery.life, self.mastery.started);
        let place = self.random.below(OTHERS as u64) as usize;
        let old = Other { master, life, started, deceived: Some(deceived) };
        let next = std::mem::replace(&mut self.mastery.others[place], old);
        let most = [MS, 100 * MS, self.timing.session.as_nanos() as u64][self.random.below(3) as usize];
        self.agenda.after(self.random.below(most), Happening::Undeceive { life });
        self.say("another master is elected".into());
        self.lead(next);
    }

    /// A master with what a folder has kept.
    fn fresh_master(&mut self) -> Result<Other, String> {
        let balance_after = self.climate.balance.then_some(Duration::from_secs(1));
        let Climate { split_bytes, split_load, .. } = self.climate;
        let (timing, replicas) = (self.timing.clone(), self.climate.replicas);
        let (seed, min_replicas) = (4711, 1);
        let options = master::Options {
            timing,
            seed,
            replicas,
            min_replicas,
            balance_after,
            split_bytes,
            split_load,
            merge_after: None,
        };
        let mut master = Master::new(options);
        if let Some((_, snapshot)) = &self.mastery.snapshot {
            master.restore(snapshot).map_err(|error| format!("the master's snapshot: {error}"))?;
        }
        Ok(Other { master, life: self.mastery.new_life(), started: self.agenda.now(), deceived: None })
    }

    /// That one leads from now on, once it has applied what its predecessor could bring through.
    fn lead(&mut self, mut next: Other) {
        if next.deceived.take().is_some() {
            let now = Instant(self.agenda.now() - next.started);
            next.master.step(now, master::Input::Following, &mut Vec::new());
        }
        (self.mastery.life, self.mastery.started) = (next.life, next.started);
        self.mastery.master = Some(next.master);
        let through = self.random.below(self.mastery.pending.len() as u64 + 1) as usize;
        let through: Vec<Bytes> = self.mastery.pending.drain(..through).collect();
        self.mastery.pending.clear();
        self.mastery.log.extend(through);
        let applied = self.mastery.master.as_ref().map_or(0, Master::applied);
        for index in applied as usize..self.mastery.log.len() {
            let command = self.mastery.log[index].clone();
            self.step_master(master::Input::Committed(index as u64 + 1, command));
            self.note_decision();
        }
        self.followers_hear();
        self.mastery.term += 1;
        let term = self.mastery.term;
        self.step_master(master::Input::Leading(term));
    }

    fn note_decision(&mut self) {
        let (decided, learners) = (self.record.decided.clone(), self.record.learners.clone());
        if let Some(master) = &self.mastery.master {
            self.record.on_decision(self.agenda.now(), master);
        }
        let kept = self.check_removed(&decided).and_then(|()| self.check_drained(&learners));
        self.broken = self.broken.take().or(kept.err());
        if let Some(tablet) = self.doomed() {
            self.say(format!("the last copy of {tablet} is lost"));
            self.doomed_at.get_or_insert(self.agenda.now());
        }
    }

    /// The first of the proposals is committed.
    pub(super) fn commit(&mut self, life: u64) {
        if self.mastery.life != life || self.mastery.master.is_none() {
            return;
        }
        let Some(command) = self.mastery.pending.pop_front() else { return };
        self.mastery.log.push(command.clone());
        let index = self.mastery.log.len() as u64;
        self.step_master(master::Input::Committed(index, command));
        self.note_decision();
        self.followers_hear();
        if self.random.chance(10)
            && let Some(master) = &self.mastery.master
        {
            self.mastery.snapshot = Some((master.applied(), master.snapshot()));
        }
    }

    fn followers_hear(&mut self) {
        for place in 0..self.mastery.others.len() {
            let most = if self.random.chance(90) { 5 * MS } else { 700 * MS };
            let life = self.mastery.others[place].life;
            self.agenda.after(self.random.below(most), Happening::Follow { life });
        }
    }

    /// Another master applies what is committed by now, or takes the leader's state if that is shorter.
    pub(super) fn follow(&mut self, life: u64) -> Checked {
        let Some(place) = self.mastery.other(life) else { return Ok(()) };
        let shortcut = self.random.chance(5);
        let now = self.agenda.now();
        let Mastery { others, log, master, .. } = &mut self.mastery;
        let other = &mut others[place];
        if other.deceived.is_some() {
            return Ok(());
        }
        if let (true, Some(leader)) = (shortcut, master.as_ref()) {
            other.master.restore(&leader.snapshot()).map_err(|error| format!("a master's snapshot: {error}"))?;
        }
        let mut effects = Vec::new();
        for (index, command) in (1..).zip(log.iter()).skip(other.master.applied() as usize) {
            let committed = master::Input::Committed(index, command.clone());
            other.master.step(Instant(now - other.started), committed, &mut effects);
        }
        if effects.iter().any(|effect| !matches!(effect, master::Effect::Event(..))) {
            return Err(format!("a master that does not lead wants something: {effects:?}"));
        }
        match master {
            Some(leader) if leader.applied() == other.master.applied() && leader.state() != other.master.state() => {
                Err(format!("two masters differ after command {}", leader.applied()))
            }
            _ => Ok(()),
        }
    }

    /// A deposed leader hears that it is one.
    pub(super) fn undeceive(&mut self, life: u64) -> Checked {
        let now = self.agenda.now();
        let Some(place) = self.mastery.other(life) else { return Ok(()) };
        let other = &mut self.mastery.others[place];
        if other.deceived.take().is_some() {
            other.master.step(Instant(now - other.started), master::Input::Following, &mut Vec::new());
        }
        self.follow(life)
    }

    /// Somebody speaks to the master that it takes for the leader.
    pub(super) fn ask_master(&mut self, from: usize, input: master::Input) {
        match self.mastery.deceives(from) {
            Some(place) => self.step_other(place, input),
            None => self.step_master(input),
        }
    }

    /// Steps a deposed leader: what it proposes is lost, what it says may be heard.
    fn step_other(&mut self, place: usize, input: master::Input) {
        let other = &mut self.mastery.others[place];
        let (life, started) = (other.life, other.started);
        let mut effects = Vec::new();
        other.master.step(Instant(self.agenda.now() - started), input, &mut effects);
        if let Some(deadline) = other.master.deadline() {
            self.agenda.at(started + deadline.0, Happening::MasterWake { life });
        }
        for effect in effects {
            match effect {
                master::Effect::Send(node, message) => self.send(MASTER, node.0 as usize, Packet::FromMaster(message)),
                master::Effect::Reply(ticket, reply) if ticket != SETUP && ticket != OPERATOR => {
                    let client = CLIENTS + client_of(ticket).0;
                    self.send(MASTER, client, Packet::Map(reply));
                }
                master::Effect::Event(name, what) => self.say(format!("deposed master: {name} {what}")),
                _ => {}
            }
        }
    }

    pub(super) fn step_master(&mut self, input: master::Input) {
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
                    self.mastery.pending.push_back(command);
                    let delay = self.random.between(500 * US, 10 * MS);
                    self.agenda.after(delay, Happening::Commit { life });
                }
                master::Effect::Send(node, message) => self.send(MASTER, node.0 as usize, Packet::FromMaster(message)),
                master::Effect::Reply(SETUP, _) | master::Effect::Refuse(SETUP, Refusal::Exists(_)) => {
                    if !self.ready {
                        self.ready = true;
                        (0..self.clients.len()).for_each(|client| self.agenda.after(10 * MS, Happening::Act(client)));
                    }
                }
                master::Effect::Reply(OPERATOR, _) => {}
                master::Effect::Reply(ticket, reply) => {
                    let place = CLIENTS + client_of(ticket).0;
                    self.send(MASTER, place, Packet::Map(reply));
                }
                master::Effect::Refuse(..) => {}
                master::Effect::Event(..) | master::Effect::Recorded(_) if self.verbose == 0 => {}
                master::Effect::Event(name, what) => self.say(format!("master: {name} {what}")),
                master::Effect::Recorded(event) => self.say(format!("recorded: {event:?}")),
            }
        }
    }

    pub(super) fn wake_master(&mut self, life: u64) {
        let now = self.agenda.now();
        let due = |master: &Master, started| master.deadline().is_some_and(|at| at <= Instant(now - started));
        if self.mastery.life == life {
            if self.mastery.master.as_ref().is_some_and(|master| due(master, self.mastery.started)) {
                self.step_master(master::Input::Tick);
            }
        } else if let Some(place) = self.mastery.other(life)
            && due(&self.mastery.others[place].master, self.mastery.others[place].started)
        {
            self.step_other(place, master::Input::Tick);
        }
    }
}
