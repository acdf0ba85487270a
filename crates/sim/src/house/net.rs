//! The network of the house: delays, loses, doubles and reorders what is sent, and brings the rest.

use model::request::Request;
use model::{AdminReply, AdminRequest, NodeId, Refusal, Reply, Ticket, Timestamp};
use node::Input;
use protocol::{FromMaster, NodeMessage, ToMaster};

use super::follow::FOLLOWER;
use super::world::{CLIENTS, Checked, EPOCH_US, Happening, World};
use crate::agenda::{MS, SECOND, US};

/// No copy of a message comes later than this.
const LATE: u64 = 4 * SECOND;

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Node(NodeMessage),
    ToMaster(ToMaster),
    FromMaster(FromMaster),
    Request(Ticket, Request),
    Answer(Ticket, Result<Reply, Refusal>),
    Admin(Ticket, AdminRequest),
    Map(AdminReply),
}

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let now = self.agenda.now();
        let healed = now > self.healed_at;
        let (loss, twice) = match healed {
            true => (0, 0),
            false => (
                if self.weather.loss_until > now { 50 } else { self.climate.loss },
                if self.weather.twice_until > now { 50 } else { self.climate.twice },
            ),
        };
        if self.blocked.get(&(from, to)).is_some_and(|until| *until > now) || self.random.chance(loss) {
            return;
        }
        let late = match &packet {
            // The meddler brings replicas back to where they were removed: may what removed them come again.
            Packet::FromMaster(FromMaster::Release(_)) if self.climate.meddling && !healed => 4,
            _ => u64::from(self.weather.late_until > now && !healed && self.extra.chance(20)),
        };
        for _ in 0..late {
            let at = now + 50 * US + self.extra.below(LATE);
            self.agenda.at(at, Happening::Deliver { from, to, packet: Box::new(packet.clone()) });
        }
        let copies = if self.random.chance(twice) { 2 } else { 1 };
        for left in (0..copies).rev() {
            let late = self.weather.delay_until > now;
            let most = match healed {
                true => MS,
                false if late => 500 * MS,
                false => self.climate.delay,
            };
            let delay = if !late && self.random.chance(80) { self.random.below(MS) } else { self.random.below(most) };
            let disorder = if self.weather.reorder_until > now { self.random.below(20 * MS) } else { 0 };
            let mut at = now + 50 * US + delay + disorder;
            // Requests of clients wander through gateways and may always overtake each other.
            if self.climate.fifo && disorder == 0 && from < CLIENTS && to < CLIENTS {
                let last = self.arrival.entry((from, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            if left == 0 {
                self.agenda.at(at, Happening::Deliver { from, to, packet: Box::new(packet) });
                return;
            }
            self.agenda.at(at, Happening::Deliver { from, to, packet: Box::new(packet.clone()) });
        }
    }

    pub(super) fn on_packet(&mut self, from: usize, to: usize, packet: Packet) -> Checked {
        let sender = NodeId(from as u32);
        match packet {
            Packet::Node(message) => self.give(to, Input::FromNode(sender, message)),
            Packet::FromMaster(message) => self.give(to, Input::FromMaster(message)),
            Packet::Request(ticket, request) => {
                if let Some(process) = &self.machines[to].process {
                    let wall = Timestamp(
                        EPOCH_US + (self.agenda.now() / US) as i64 + process.skew + self.machines[to].calendar,
                    );
                    self.give(to, Input::Request { ticket, wall, request });
                }
            }
            Packet::ToMaster(message) => self.ask_master(from, master::Input::FromNode(sender, message)),
            Packet::Admin(ticket, request) => self.ask_master(from, master::Input::Admin(ticket, request)),
            Packet::Answer(ticket, answer) => return self.on_answer(ticket, answer),
            Packet::Map(reply) => {
                if let (AdminReply::Map(map), Some(follower)) = (&reply, &mut self.follower)
                    && to == CLIENTS + FOLLOWER
                {
                    follower.learn_map(map.tablets.clone());
                } else if let AdminReply::Map(map) = reply {
                    self.clients[to - CLIENTS].learn_map(map.tablets);
                }
            }
        }
        Ok(())
    }
}
