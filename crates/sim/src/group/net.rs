//! The network of a group: delays, loses, doubles and reorders what is sent, and brings the rest.

use model::request::Role;
use model::{Configuration, Epoch, Instant, Lsn, NodeId};
use protocol::replica::{Effect, Input};
use protocol::{Core, GroupMessage, Replica};

use super::log::Log;
use super::world::{Checked, HEALED, Happening, MASTER, World};
use crate::agenda::{MS, SECOND, US};

/// No copy of a message comes later than this.
const LATE: u64 = 4 * SECOND;

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Group(GroupMessage),
    Beacon { sent: Instant, epoch: Epoch, committed: Lsn },
    BeaconAck { sent: Instant, epoch: Epoch },
    Offer { attempt: u64, upto: Lsn },
    Heartbeat(Instant),
    Welcome(Instant),
    HandOver(NodeId, Epoch),
    Propose(Configuration),
    Assign(Configuration, Option<NodeId>),
    Forget(Epoch),
}

impl Packet {
    /// Tells packets apart in the trace.
    pub fn weight(&self) -> u64 {
        match self {
            Packet::Group(GroupMessage::Prepare { epoch, committed, entries }) => {
                u64::from(epoch.0) + committed.0 * 3 + entries.len() as u64 * 5
            }
            Packet::Group(GroupMessage::Prepared { upto, .. }) => upto.0,
            Packet::Assign(configuration, _) | Packet::Propose(configuration) => u64::from(configuration.epoch.0),
            _ => 1,
        }
    }
}

/// In which epoch a message was said, if it says so.
pub(super) fn said_in(message: &GroupMessage) -> Option<Epoch> {
    match message {
        GroupMessage::Prepare { epoch, .. }
        | GroupMessage::Prepared { epoch, .. }
        | GroupMessage::Missing { epoch, .. }
        | GroupMessage::Learn { epoch, .. }
        | GroupMessage::Inquiry { epoch }
        | GroupMessage::Hears { epoch } => Some(*epoch),
        _ => None,
    }
}

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.blocked.contains(&(from, to)) || self.random.chance(self.loss()) {
            return;
        }
        if self.agenda.now() < HEALED && self.late.chance(self.climate.late) {
            // A copy that comes when all has changed.
            let at = self.agenda.now() + self.late.below(LATE);
            self.agenda.at(at, Happening::Deliver { from, to, packet: packet.clone() });
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

    pub(super) fn loss(&self) -> u64 {
        if self.agenda.now() > HEALED { 0 } else { self.climate.loss }
    }

    pub(super) fn on_packet(&mut self, from: usize, to: usize, packet: Packet) -> Checked {
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
                    self.record.on_forgotten(to);
                    host.applied = Lsn::ZERO;
                    let process = host.process.as_mut().expect("lives");
                    process.replica = None;
                    process.inbox.clear();
                    let life = host.life;
                    self.agenda.after(0, Happening::Round { node: to, life });
                }
                Ok(())
            }
            Packet::Welcome(sent) => self.input(to, Input::Session(sent)),
            Packet::HandOver(heir, epoch) => self.input(to, Input::HandOver(heir, epoch)),
            Packet::Heartbeat(_) | Packet::Propose(_) => Ok(()),
        }
    }

    /// A beacon, with the node's part in it: an answer goes back if the replica grants the lease.
    pub(super) fn on_beacon(
        &mut self,
        node: usize,
        from: NodeId,
        sent: Instant,
        epoch: Epoch,
        committed: Lsn,
    ) -> Checked {
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
            self.check_promise(node, epoch)?;
            self.send(node, to.0 as usize, Packet::BeaconAck { sent, epoch });
        }
        self.carry_out(node, out)
    }
}
